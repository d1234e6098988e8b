// A tiny checkpoint without tokenizer, and the C API with owners, for the tests of sessions and of the ABI.
#pragma once

#include <dsv/dsv.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/checkpoint_writer.h"

namespace dsv::test {

struct Closer {
  void operator()(dsv_engine* engine) const { dsv_engine_destroy(engine); }
  void operator()(dsv_model* model) const { dsv_model_destroy(model); }
  void operator()(dsv_session* session) const { dsv_session_destroy(session); }
};
using EngineHandle = std::unique_ptr<dsv_engine, Closer>;
using ModelHandle = std::unique_ptr<dsv_model, Closer>;
using SessionHandle = std::unique_ptr<dsv_session, Closer>;

inline void expect_ok(dsv_status status) { ASSERT_EQ(status, DSV_OK) << dsv_error_message(); }

// Its files stay for the whole run: making them takes longer than most tests.
inline const std::string& tiny_checkpoint() {
  static const TempFolder folder;
  static const std::string path = [] {
    write_checkpoint(folder.path(), small_config(), 7, "F32");
    return folder.path();
  }();
  return path;
}
inline constexpr int32_t kVocab = 300, kEos = 1, kContext = 512, kTinyLayers = 3;

struct EngineSetup {
  std::string backend = "reference";
  int32_t threads = 1;
  const dsv_hooks* hooks = nullptr;
};
inline EngineHandle make_engine(const EngineSetup& setup = {}) {
  dsv_engine_options options;
  dsv_engine_options_init(&options);
  options.backend = setup.backend.c_str();
  options.threads = setup.threads;
  options.hooks = setup.hooks;
  dsv_engine* engine = nullptr;
  expect_ok(dsv_engine_create(&options, &engine));
  return EngineHandle(engine);
}

inline dsv_model_options exact_options() {
  dsv_model_options options;
  dsv_model_options_init(&options);
  options.precision = DSV_PRECISION_EXACT;
  return options;
}
inline ModelHandle load(dsv_engine* engine, const dsv_model_options& options,
                        const std::string& path = tiny_checkpoint()) {
  dsv_model* model = nullptr;
  expect_ok(dsv_model_load(engine, path.c_str(), &options, &model));
  ModelHandle handle(model);
  expect_ok(dsv_model_wait(model, -1));
  return handle;
}

struct Event {
  dsv_event raw{};
  std::string text;
  std::vector<dsv_token_logprob> top;
};

// A session whose events are recorded; `act` decides what the callback returns.
class Recorder {
 public:
  explicit Recorder(dsv_model* model) {
    dsv_session_options options;
    dsv_session_options_init(&options);
    options.on_event = [](void* self, const dsv_event* event) {
      return static_cast<Recorder*>(self)->take(*event);
    };
    options.user = this;
    dsv_session* session = nullptr;
    expect_ok(dsv_session_create(model, &options, &session));
    handle.reset(session);
  }
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  int count(int32_t kind) const {
    int n = 0;
    for (const Event& event : events) n += event.raw.kind == kind;
    return n;
  }
  const dsv_event& finished() const { return events.back().raw; }
  std::vector<int32_t> tokens() const {
    std::vector<int32_t> ids;
    for (const Event& event : events) {
      if (event.raw.kind == DSV_EVENT_TOKEN) ids.push_back(event.raw.token);
    }
    return ids;
  }
  std::vector<int32_t> held() const {
    int64_t size = 0;
    expect_ok(dsv_session_tokens(handle.get(), nullptr, 0, &size));
    std::vector<int32_t> ids(static_cast<size_t>(size));
    expect_ok(dsv_session_tokens(handle.get(), ids.data(), size, &size));
    return ids;
  }

  SessionHandle handle;
  std::vector<Event> events;
  std::function<int32_t(const dsv_event&)> act = [](const dsv_event&) { return DSV_ACTION_CONTINUE; };

 private:
  int32_t take(const dsv_event& event) {
    Event copy{event, std::string(event.text ? event.text : "", static_cast<size_t>(event.text_size)), {}};
    copy.top.assign(event.top, event.top + event.top_count);
    events.push_back(std::move(copy));
    return act(event);
  }
};

inline std::vector<int32_t> prompt(int32_t count, int32_t seed = 1) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < count; ++i) ids.push_back((i * 37 + seed * 101 + i * i * 3) % kVocab);
  return ids;
}

inline dsv_generate_options token_options(int64_t max_tokens) {
  dsv_generate_options options;
  dsv_generate_options_init(&options);
  options.max_tokens = max_tokens;
  options.logprobs = 0;
  options.ignore_eos = 1;
  return options;
}
inline dsv_status complete(dsv_session* session, const std::vector<int32_t>& tokens,
                           const dsv_generate_options& options) {
  return dsv_session_complete(session, tokens.data(), static_cast<int64_t>(tokens.size()), &options, nullptr);
}

}  // namespace dsv::test
