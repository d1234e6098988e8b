// dsv.hpp - C++17 over dsv.h: handles that close themselves, errors that throw, events as values. Header
// only.
//
//   #include <dsv/dsv.hpp>
//   #include <iostream>
//
//   int main() {
//     dsv::Engine engine;
//     dsv::Model model(engine, "path/to/checkpoint");  // waits; Model::start() does not
//     dsv::Session session(model);
//     dsv::Conversation talk;
//     talk.add("system", "You are brief.");
//     for (std::string line; std::getline(std::cin, line);) {
//       talk.add("user", line);
//       session.chat(talk.json());
//       while (engine.step(50'000) > 0) {
//         for (dsv::Event event; session.poll(event);) {
//           talk.collect(event);  // appends the assistant's message when it is complete
//           if (event.kind == DSV_EVENT_CONTENT) std::cout << event.text << std::flush;
//         }
//       }
//       std::cout << "\n";
//     }
//   }
//
// Thread rules and lifetimes are those of dsv.h. Every call that fails throws dsv::Error. Objects move but do
// not copy; a moved-from object may only be destroyed or assigned to.
#ifndef DSV_DSV_HPP
#define DSV_DSV_HPP

#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dsv/dsv.h"

namespace dsv {

class Error : public std::runtime_error {
 public:
  Error(dsv_status status, const std::string& sentence) : std::runtime_error(sentence), status_(status) {}
  dsv_status status() const { return status_; }

 private:
  dsv_status status_;
};

inline void check(dsv_status status) {
  if (status != DSV_OK) throw Error(status, dsv_error_message());
}

// The C option structs, filled with their defaults.
struct Hooks : dsv_hooks {
  Hooks() { dsv_hooks_init(this); }
};
struct EngineOptions : dsv_engine_options {
  EngineOptions() { dsv_engine_options_init(this); }
};
struct ModelOptions : dsv_model_options {
  ModelOptions() { dsv_model_options_init(this); }
};
struct GenerateOptions : dsv_generate_options {
  GenerateOptions() { dsv_generate_options_init(this); }
};

namespace detail {

template <class T, void (*destroy)(T*)>
struct Destroy {
  void operator()(T* handle) const { destroy(handle); }
};
template <class T, void (*destroy)(T*)>
using Handle = std::unique_ptr<T, Destroy<T, destroy>>;

// Calls fill(out, capacity, &size) for the size and again for the bytes.
template <class Fill>
std::string copy_string(Fill fill) {
  int64_t size = 0;
  check(fill(nullptr, 0, &size));
  std::string out(static_cast<size_t>(size), '\0');
  if (size > 0) check(fill(out.data(), size, &size));
  return out;
}
template <class Fill>
std::vector<int32_t> copy_ids(Fill fill) {
  int64_t count = 0;
  check(fill(nullptr, 0, &count));
  std::vector<int32_t> ids(static_cast<size_t>(count));
  if (count > 0) check(fill(ids.data(), count, &count));
  return ids;
}

inline int64_t size_of(std::string_view text) { return static_cast<int64_t>(text.size()); }
inline int64_t size_of(const std::vector<int32_t>& ids) { return static_cast<int64_t>(ids.size()); }

// The first exception that a callback threw, until the step that ran the callback returns. Callbacks run on
// the stepping thread only, so it needs no lock.
using Thrown = std::shared_ptr<std::exception_ptr>;

inline void rethrow(const Thrown& thrown) {
  if (*thrown) std::rethrow_exception(std::exchange(*thrown, nullptr));
}

}  // namespace detail

// ------------------------------------------------------------------------------------------------ engine

class Engine {
 public:
  explicit Engine(const EngineOptions& options = {}) : thrown_(std::make_shared<std::exception_ptr>()) {
    dsv_engine* engine = nullptr;
    check(dsv_engine_create(&options, &engine));
    handle_.reset(engine);
  }

  // Returns the number of requests that can still advance. What an event callback threw comes out here.
  int32_t step(int64_t budget_us) {
    int32_t pending = 0;
    check(dsv_engine_step(handle_.get(), budget_us, &pending));
    detail::rethrow(thrown_);
    return pending;
  }
  void run() {
    check(dsv_engine_run(handle_.get()));
    detail::rethrow(thrown_);
  }

  dsv_engine* get() const { return handle_.get(); }

 private:
  friend class Model;
  detail::Handle<dsv_engine, dsv_engine_destroy> handle_;
  detail::Thrown thrown_;
};

// ------------------------------------------------------------------------------------------------ tokenizer

class Tokenizer {
 public:
  explicit Tokenizer(const std::string& path) {
    dsv_tokenizer* tokenizer = nullptr;
    check(dsv_tokenizer_open(path.c_str(), &tokenizer));
    handle_.reset(tokenizer);
  }

  std::vector<int32_t> encode(std::string_view text) const {
    return detail::copy_ids([&](int32_t* out, int64_t capacity, int64_t* count) {
      return dsv_tokenizer_encode(handle_.get(), text.data(), detail::size_of(text), out, capacity, count);
    });
  }
  std::string decode(const std::vector<int32_t>& ids) const {
    return detail::copy_string([&](char* out, int64_t capacity, int64_t* size) {
      return dsv_tokenizer_decode(handle_.get(), ids.data(), detail::size_of(ids), out, capacity, size);
    });
  }

  dsv_tokenizer* get() const { return handle_.get(); }

 private:
  friend class Model;
  explicit Tokenizer(dsv_tokenizer* tokenizer) : handle_(tokenizer) {}
  detail::Handle<dsv_tokenizer, dsv_tokenizer_destroy> handle_;
};

// Prompt text of a request, and the assistant message (JSON) of a completion. flags: DSV_CHAT_*.
inline std::string chat_encode(std::string_view request_json, int32_t flags) {
  return detail::copy_string([&](char* out, int64_t capacity, int64_t* size) {
    return dsv_chat_encode(request_json.data(), detail::size_of(request_json), flags, out, capacity, size);
  });
}
inline std::string chat_parse(std::string_view completion, int32_t flags) {
  return detail::copy_string([&](char* out, int64_t capacity, int64_t* size) {
    return dsv_chat_parse(completion.data(), detail::size_of(completion), flags, out, capacity, size);
  });
}

// ------------------------------------------------------------------------------------------------ model

class Model {
 public:
  // Loads and waits.
  Model(Engine& engine, const std::string& path, const ModelOptions& options = {})
      : Model(start(engine, path, options)) {
    wait();
  }
  // Starts loading and returns at once: ask progress(), or wait().
  static Model start(Engine& engine, const std::string& path, const ModelOptions& options = {}) {
    dsv_model* model = nullptr;
    check(dsv_model_load(engine.get(), path.c_str(), &options, &model));
    return Model(model, engine.thrown_);
  }
  static dsv_memory_plan plan(Engine& engine, const std::string& path, const ModelOptions& options = {}) {
    dsv_memory_plan plan{};
    plan.struct_size = sizeof plan;
    check(dsv_model_plan(engine.get(), path.c_str(), &options, &plan));
    return plan;
  }
  static std::string inspect(Engine& engine, const std::string& path, const ModelOptions& options = {}) {
    return detail::copy_string([&](char* out, int64_t capacity, int64_t* size) {
      return dsv_model_inspect(engine.get(), path.c_str(), &options, out, capacity, size);
    });
  }

  // False if timeout_ms (< 0: for ever) ran out first. Throws if the load failed.
  bool wait(int64_t timeout_ms = -1) const {
    const dsv_status status = dsv_model_wait(handle_.get(), timeout_ms);
    if (status == DSV_ERROR_NOT_READY) return false;
    check(status);
    return true;
  }
  dsv_load_progress progress() const {
    dsv_load_progress progress{};
    progress.struct_size = sizeof progress;
    check(dsv_model_progress(handle_.get(), &progress));
    return progress;
  }
  void cancel_load() const { dsv_model_cancel_load(handle_.get()); }

  dsv_model_info info() const {
    dsv_model_info info{};
    info.struct_size = sizeof info;
    check(dsv_model_get_info(handle_.get(), &info));
    return info;
  }
  dsv_memory_use memory() const {
    dsv_memory_use use{};
    use.struct_size = sizeof use;
    check(dsv_model_memory(handle_.get(), &use));
    return use;
  }
  Tokenizer tokenizer() const {
    dsv_tokenizer* tokenizer = nullptr;
    check(dsv_model_tokenizer(handle_.get(), &tokenizer));
    return Tokenizer(tokenizer);
  }

  dsv_model* get() const { return handle_.get(); }

 private:
  friend class Session;
  Model(dsv_model* model, detail::Thrown thrown) : handle_(model), thrown_(std::move(thrown)) {}
  detail::Handle<dsv_model, dsv_model_destroy> handle_;
  detail::Thrown thrown_;
};

// ------------------------------------------------------------------------------------------------ events

// A dsv_event that owns its strings; fields mean the same.
struct Event {
  int32_t kind = DSV_EVENT_NONE;
  int64_t request = 0;
  std::string text, tool_name, tool_id;
  int32_t tool_index = 0;
  int32_t finish_reason = 0;
  dsv_status status = DSV_OK;
  int32_t token = 0;
  float logprob = 0;
  std::vector<dsv_token_logprob> top;
  int64_t done = 0, total = 0;
  int64_t prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0, reasoning_tokens = 0;

  Event() = default;
  explicit Event(const dsv_event& from)
      : kind(from.kind),
        request(from.request),
        text(string(from.text, from.text_size)),
        tool_name(string(from.tool_name, from.tool_name_size)),
        tool_id(string(from.tool_id, from.tool_id_size)),
        tool_index(from.tool_index),
        finish_reason(from.finish_reason),
        status(from.status),
        token(from.token),
        logprob(from.logprob),
        done(from.done),
        total(from.total),
        prompt_tokens(from.prompt_tokens),
        cached_tokens(from.cached_tokens),
        completion_tokens(from.completion_tokens),
        reasoning_tokens(from.reasoning_tokens) {
    if (from.top_count > 0) top.assign(from.top, from.top + from.top_count);
  }

 private:
  static std::string string(const char* text, int64_t size) {
    return text ? std::string(text, static_cast<size_t>(size)) : std::string();
  }
};

// Returns a DSV_ACTION. What it throws stops the request and comes out of Engine::step or run.
using EventCallback = std::function<int32_t(const Event&)>;

// ------------------------------------------------------------------------------------------------ session

class Session {
 public:
  // With a callback, events go there; without one, to poll(). Destroy a session that has a callback on the
  // stepping thread, or while nothing steps: the callback dies with it.
  explicit Session(const Model& model, EventCallback callback = {}) {
    dsv_session_options options;
    dsv_session_options_init(&options);
    if (callback) {
      listener_ = std::make_shared<Listener>(Listener{std::move(callback), model.thrown_, {}});
      listener_->self = listener_;
      options.on_event = &Listener::on_event;
      options.user = listener_.get();
    }
    dsv_session* session = nullptr;
    check(dsv_session_create(model.get(), &options, &session));
    handle_.reset(session);
  }

  int64_t chat(std::string_view request_json, const GenerateOptions& options = {}) {
    int64_t request = 0;
    check(dsv_session_chat(handle_.get(), request_json.data(), detail::size_of(request_json), &options,
                           &request));
    return request;
  }
  int64_t complete(const std::vector<int32_t>& tokens, const GenerateOptions& options = {}) {
    int64_t request = 0;
    check(dsv_session_complete(handle_.get(), tokens.data(), detail::size_of(tokens), &options, &request));
    return request;
  }
  void cancel() const { dsv_session_cancel(handle_.get()); }
  void resume() { check(dsv_session_resume(handle_.get())); }

  // False if no event is queued.
  bool poll(Event& event) {
    dsv_event raw{};
    raw.struct_size = sizeof raw;
    check(dsv_session_poll(handle_.get(), &raw));
    event = Event(raw);
    return event.kind != DSV_EVENT_NONE;
  }

  std::vector<int32_t> tokens() const {
    return detail::copy_ids([&](int32_t* out, int64_t capacity, int64_t* count) {
      return dsv_session_tokens(handle_.get(), out, capacity, count);
    });
  }
  // out: float [rows, vocab_size]
  void logits(const std::vector<int32_t>& tokens, int64_t first, int64_t rows, int32_t source, float* out) {
    check(
        dsv_session_logits(handle_.get(), tokens.data(), detail::size_of(tokens), first, rows, source, out));
  }

  dsv_session* get() const { return handle_.get(); }

 private:
  struct Listener {
    EventCallback callback;
    detail::Thrown thrown;
    std::weak_ptr<Listener> self;

    static int32_t on_event(void* user, const dsv_event* event) noexcept {
      // The callback may destroy the session, and with it the last other reference to this.
      const std::shared_ptr<Listener> listener = static_cast<Listener*>(user)->self.lock();
      if (*listener->thrown) return DSV_ACTION_STOP;
      try {
        return listener->callback(Event(*event));
      } catch (...) {
        *listener->thrown = std::current_exception();
        return DSV_ACTION_STOP;
      }
    }
  };

  std::shared_ptr<Listener> listener_;  // outlives the handle
  detail::Handle<dsv_session, dsv_session_destroy> handle_;
};

// ------------------------------------------------------------------------------------------------
// conversation

// Text as a JSON string, quotes included.
inline std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          char escape[8];
          std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
          out += escape;
        } else {
          out += c;
        }
    }
  }
  return out += '"';
}

// The OpenAI-style message list that Session::chat takes, kept as JSON text.
class Conversation {
 public:
  struct ToolCall {
    std::string id, name, arguments;  // arguments: a JSON object
  };

  // tools_json: an array of {"type": "function", "function": {...}}.
  void set_tools(std::string tools_json) { tools_ = std::move(tools_json); }
  void add(std::string_view role, std::string_view content) {
    add_message("{\"role\": " + json_string(role) + ", \"content\": " + json_string(content) + "}");
  }
  void add_tool_result(std::string_view call_id, std::string_view content) {
    add_message("{\"role\": \"tool\", \"tool_call_id\": " + json_string(call_id) +
                ", \"content\": " + json_string(content) + "}");
  }

  // Feed it every event of a request: with DSV_EVENT_FINISHED the assistant's message joins the list.
  void collect(const Event& event) {
    switch (event.kind) {
      case DSV_EVENT_REASONING:
        reasoning_ += event.text;
        break;
      case DSV_EVENT_CONTENT:
        content_ += event.text;
        break;
      case DSV_EVENT_TOOL_END:
        calls_.push_back({event.tool_id, event.tool_name, event.text});
        break;
      case DSV_EVENT_FINISHED:
        finish();
        break;
      default:
        break;
    }
  }
  // The calls of the last assistant message, to be answered with add_tool_result in this order.
  const std::vector<ToolCall>& tool_calls() const { return last_calls_; }

  std::string json() const {
    std::string out = "{\"messages\": [" + messages_ + "]";
    if (!tools_.empty()) out += ", \"tools\": " + tools_;
    return out + "}";
  }

 private:
  void add_message(const std::string& json) {
    if (!messages_.empty()) messages_ += ", ";
    messages_ += json;
  }
  void finish() {
    std::string message = "{\"role\": \"assistant\", \"content\": " + json_string(content_);
    if (!reasoning_.empty()) message += ", \"reasoning_content\": " + json_string(reasoning_);
    std::string calls;
    for (const ToolCall& call : calls_) {
      if (!calls.empty()) calls += ", ";
      calls += "{\"id\": " + json_string(call.id) +
               ", \"type\": \"function\", \"function\": {\"name\": " + json_string(call.name) +
               ", \"arguments\": " + json_string(call.arguments) + "}}";
    }
    if (!calls.empty()) message += ", \"tool_calls\": [" + calls + "]";
    add_message(message + "}");
    content_.clear();
    reasoning_.clear();
    last_calls_ = std::exchange(calls_, {});
  }

  std::string messages_, tools_, content_, reasoning_;
  std::vector<ToolCall> calls_, last_calls_;
};

}  // namespace dsv

#endif
