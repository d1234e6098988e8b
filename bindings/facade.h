// What the bindings call: dsv.hpp with numbers for handles, so that nothing a host language does with a closed,
// finalised or foreign handle can touch freed memory. dsv.i makes the native half of every binding from this
// file and the public headers.
//
// Handles are never reused; 0 is none. Closing twice is fine. A call that overlaps a close keeps what it uses
// alive until it returns.
//
// Every function may be called from any thread. Those that dsv.h lets only one thread at a time into take turns,
// first come, first served, where C would return DSV_ERROR_BUSY: threads that each step and poll share one engine
// and its batches.
#pragma once

#include <dsv/dsv.hpp>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <unordered_map>
#include <vector>

namespace dsv::binding {

// Bytes that need not be UTF-8; std::string is text.
struct Bytes {
  std::string data;
};

// What the exception now being handled says to a host.
struct Failure {
  dsv_status status = DSV_ERROR_INTERNAL;
  std::string sentence;
};
inline Failure current_failure() {
  try {
    throw;
  } catch (const Error& error) {
    return {error.status(), error.what()};
  } catch (const std::bad_alloc&) {
    return {DSV_ERROR_OUT_OF_MEMORY, "the machine has no memory left for this call: ask for less at once"};
  } catch (const std::exception& error) {
    return {DSV_ERROR_INTERNAL, error.what()};
  }
}

// ------------------------------------------------------------------------------------------------ options

// The option structs of dsv.h with storage for what they point to.
struct OwnedEngineOptions : EngineOptions {
  std::string backend_text, cpu_target_text;
};
struct OwnedModelOptions : ModelOptions {
  std::string chat_profile_text;
};
struct OwnedGenerateOptions : GenerateOptions {
  std::deque<std::string> stop_texts;  // does not move what it holds
  std::vector<dsv_string> stops;
  std::vector<dsv_logit_bias> biases;
};

// "" stands for NULL, the default.
inline void set_text(std::string& storage, const char*& field, const std::string& text, const char* name) {
  if (text.find('\0') != std::string::npos) {
    throw Error(DSV_ERROR_INVALID_ARGUMENT, std::string(name) + " contains a NUL character: leave it out");
  }
  storage = text;
  field = storage.empty() ? nullptr : storage.c_str();
}

inline void add_stop(OwnedGenerateOptions& options, const std::string& text) {
  const std::string& kept = options.stop_texts.emplace_back(text);
  options.stops.push_back({kept.data(), static_cast<int64_t>(kept.size())});
  options.stop = options.stops.data();
  options.stop_count = static_cast<int64_t>(options.stops.size());
}

inline void add_logit_bias(OwnedGenerateOptions& options, int32_t token, float bias) {
  options.biases.push_back({token, bias});
  options.logit_bias = options.biases.data();
  options.logit_bias_count = static_cast<int64_t>(options.biases.size());
}

// The dsv.hpp struct of options that may be NULL.
template <class Options, class Raw>
Options copy_options(const Raw* raw) {
  Options options;
  if (raw) static_cast<Raw&>(options) = *raw;
  return options;
}

// ------------------------------------------------------------------------------------------------ handles

class Turns {
 public:
  void lock() {
    std::unique_lock<std::mutex> lock(mutex_);
    const uint64_t mine = next_++;
    changed_.wait(lock, [&] { return serving_ == mine; });
  }
  void unlock() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      ++serving_;
    }
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t next_ = 0, serving_ = 0;
};

struct EngineEntry {
  Engine engine;
  Turns turns;
};
struct ModelEntry {
  std::shared_ptr<EngineEntry> engine;
  Model model;
};
struct SessionEntry {
  std::shared_ptr<ModelEntry> model;
  Session session;
  Turns& turns() const { return model->engine->turns; }
};

template <class Entry>
class Handles {
 public:
  explicit Handles(const char* kind) : kind_(kind) {}

  int64_t add(std::shared_ptr<Entry> entry) {
    const std::lock_guard<std::mutex> lock(mutex_);
    entries_.emplace(++last_, std::move(entry));
    return last_;
  }
  std::shared_ptr<Entry> get(int64_t handle) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = entries_.find(handle);
    if (found == entries_.end()) {
      throw Error(DSV_ERROR_INVALID_ARGUMENT,
                  std::string("this ") + kind_ + " is closed: open a new one, or close it later");
    }
    return found->second;
  }
  void close(int64_t handle) {
    std::shared_ptr<Entry> last;  // let go of outside the lock: the entry may take its time
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = entries_.find(handle);
    if (found == entries_.end()) return;
    last = std::move(found->second);
    entries_.erase(found);
  }

 private:
  const char* kind_;
  std::mutex mutex_;
  std::unordered_map<int64_t, std::shared_ptr<Entry>> entries_;
  int64_t last_ = 0;
};

// Never destroyed: daemon threads and finalisers may call in while the process ends.
inline Handles<EngineEntry>& engines() {
  static auto* const handles = new Handles<EngineEntry>("engine");
  return *handles;
}
inline Handles<ModelEntry>& models() {
  static auto* const handles = new Handles<ModelEntry>("model");
  return *handles;
}
inline Handles<SessionEntry>& sessions() {
  static auto* const handles = new Handles<SessionEntry>("session");
  return *handles;
}
inline Handles<Tokenizer>& tokenizers() {
  static auto* const handles = new Handles<Tokenizer>("tokenizer");
  return *handles;
}

using Turn = std::lock_guard<Turns>;

inline const std::string& path_checked(const std::string& path) {
  if (path.find('\0') != std::string::npos) {
    throw Error(DSV_ERROR_INVALID_ARGUMENT, "the path contains a NUL character: no file is called that");
  }
  return path;
}

}  // namespace dsv::binding

// ------------------------------------------------------------------------------------------------ functions
// As their namesakes in dsv.h and dsv.hpp. They throw dsv::Error. Options may be NULL.

namespace dsv::calls {

using namespace dsv::binding;

inline std::string status_name(int32_t status) { return dsv_status_name(status); }
inline int32_t version() { return dsv_version(); }
inline int32_t abi_version() { return dsv_abi_version(); }
inline std::string build_info() { return dsv_build_info(); }
inline bool has_feature(const std::string& name) { return dsv_has_feature(name.c_str()) != 0; }
inline std::string cpu_targets() { return dsv_cpu_targets(); }
inline dsv_handle_counts live_handles() {
  dsv_handle_counts counts{};
  counts.struct_size = sizeof counts;
  check(dsv_live_handles(&counts));
  return counts;
}
inline std::string chat_encode(const std::string& request, int32_t flags) {
  return dsv::chat_encode(request, flags);
}
inline std::string chat_parse(const std::string& completion, int32_t flags) {
  return dsv::chat_parse(completion, flags);
}

inline int64_t engine_create(const dsv_engine_options* options) {
  return engines().add(std::shared_ptr<EngineEntry>(
      new EngineEntry{Engine(copy_options<EngineOptions>(options)), {}}));
}
inline void engine_close(int64_t engine) { engines().close(engine); }
inline int32_t engine_step(int64_t engine, int64_t budget_us) {
  const auto entry = engines().get(engine);
  const Turn turn(entry->turns);
  return entry->engine.step(budget_us);
}

inline int64_t model_load(int64_t engine, const std::string& path, const dsv_model_options* options) {
  auto entry = engines().get(engine);
  const Turn turn(entry->turns);
  Model model = Model::start(entry->engine, path_checked(path), copy_options<ModelOptions>(options));
  return models().add(std::shared_ptr<ModelEntry>(new ModelEntry{std::move(entry), std::move(model)}));
}
inline dsv_memory_plan model_plan(int64_t engine, const std::string& path, const dsv_model_options* options) {
  const auto entry = engines().get(engine);
  const Turn turn(entry->turns);
  return Model::plan(entry->engine, path_checked(path), copy_options<ModelOptions>(options));
}
inline std::string model_inspect(int64_t engine, const std::string& path, const dsv_model_options* options) {
  const auto entry = engines().get(engine);
  const Turn turn(entry->turns);
  return Model::inspect(entry->engine, path_checked(path), copy_options<ModelOptions>(options));
}
inline void model_close(int64_t model) { models().close(model); }
inline bool model_wait(int64_t model, int64_t timeout_ms) { return models().get(model)->model.wait(timeout_ms); }
inline dsv_load_progress model_progress(int64_t model) { return models().get(model)->model.progress(); }
inline void model_cancel_load(int64_t model) { models().get(model)->model.cancel_load(); }
inline dsv_model_info model_info(int64_t model) {
  const auto entry = models().get(model);
  const Turn turn(entry->engine->turns);
  return entry->model.info();
}
inline dsv_memory_use model_memory(int64_t model) {
  const auto entry = models().get(model);
  const Turn turn(entry->engine->turns);
  return entry->model.memory();
}
inline int64_t model_tokenizer(int64_t model) {
  const auto entry = models().get(model);
  const Turn turn(entry->engine->turns);
  return tokenizers().add(std::make_shared<Tokenizer>(entry->model.tokenizer()));
}

inline int64_t tokenizer_open(const std::string& path) {
  return tokenizers().add(std::make_shared<Tokenizer>(path_checked(path)));
}
inline void tokenizer_close(int64_t tokenizer) { tokenizers().close(tokenizer); }
inline std::vector<int32_t> tokenizer_encode(int64_t tokenizer, const std::string& text) {
  return tokenizers().get(tokenizer)->encode(text);
}
inline Bytes tokenizer_decode(int64_t tokenizer, const std::vector<int32_t>& ids) {
  return {tokenizers().get(tokenizer)->decode(ids)};
}

inline int64_t session_create(int64_t model) {
  auto entry = models().get(model);
  const Turn turn(entry->engine->turns);
  Session session(entry->model);
  return sessions().add(std::shared_ptr<SessionEntry>(new SessionEntry{std::move(entry), std::move(session)}));
}
inline void session_close(int64_t session) { sessions().close(session); }
inline int64_t session_chat(int64_t session, const std::string& request,
                            const dsv_generate_options* options) {
  const auto entry = sessions().get(session);
  const Turn turn(entry->turns());
  return entry->session.chat(request, copy_options<GenerateOptions>(options));
}
inline int64_t session_complete(int64_t session, const std::vector<int32_t>& tokens,
                                const dsv_generate_options* options) {
  const auto entry = sessions().get(session);
  const Turn turn(entry->turns());
  return entry->session.complete(tokens, copy_options<GenerateOptions>(options));
}
inline void session_cancel(int64_t session) { sessions().get(session)->session.cancel(); }
// The caller owns the event; NULL if none is queued.
inline Event* session_poll(int64_t session) {
  const auto entry = sessions().get(session);
  auto event = std::make_unique<Event>();
  const Turn turn(entry->turns());
  return entry->session.poll(*event) ? event.release() : nullptr;
}
inline std::vector<int32_t> session_tokens(int64_t session) {
  const auto entry = sessions().get(session);
  const Turn turn(entry->turns());
  return entry->session.tokens();
}
// float [rows, vocab_size]
inline std::vector<float> session_logits(int64_t session, const std::vector<int32_t>& tokens, int64_t first,
                                         int64_t rows, int32_t source) {
  const auto entry = sessions().get(session);
  const Turn turn(entry->turns());
  const auto count = static_cast<int64_t>(tokens.size());
  const int64_t room = rows > 0 && rows <= count ? rows : 0;  // other counts are refused
  std::vector<float> out(static_cast<size_t>(room * entry->model->model.info().vocab_size));
  entry->session.logits(tokens, first, rows, source, out.data());
  return out;
}

}  // namespace dsv::calls
