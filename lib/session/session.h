// One conversation: the tokens it holds, their KV pages, and at most one running request.
#pragma once

#include <dsv/dsv.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "memory/kv_pages.h"
#include "model/sampler.h"
#include "session/events.h"
#include "session/generate_options.h"
#include "session/stop_matcher.h"
#include "session/text_stream.h"

namespace dsv {

class Forward;
class Model;

// All functions need an Engine::Entry, except those marked [any thread].
class Session {
 public:
  // The model must have loaded.
  Session(std::shared_ptr<Model> model, dsv_event_callback callback, void* user);

  Model& model() const { return *model_; }

  // What dsv_session_chat, _complete, ... promise. On failure the session is as before.
  int64_t chat(std::string_view request_json, const dsv_generate_options& options);
  int64_t complete(std::span<const int32_t> tokens, const dsv_generate_options& options);
  void resume() { paused_ = false; }
  bool poll(dsv_event& event);
  std::span<const int32_t> held_tokens() const { return {sequence_.data(), static_cast<size_t>(held_)}; }
  void logits(std::span<const int32_t> tokens, int64_t first, int64_t rows, int32_t source, float* out);

  void cancel();  // [any thread]
  void close();   // [any thread] no events any more; then Engine::bury
  void release_pages();
  std::shared_ptr<Session> next_dead;  // for Engine::bury

  // For the scheduler.
  bool running() const { return running_; }
  bool closed() const { return closed_.load(std::memory_order_acquire); }
  bool cancelled() const { return running_ && cancel_.load(std::memory_order_acquire); }
  bool runnable() const { return running_ && !paused_ && !closed(); }
  bool can_advance() const { return runnable() || (cancelled() && !closed()); }
  int64_t held() const { return held_; }
  int64_t rows_left() const { return static_cast<int64_t>(sequence_.size()) - held_; }
  std::span<const int32_t> sequence() const { return sequence_; }
  const std::vector<int32_t>& pages() const { return pages_.pages(); }
  // Takes pages for `rows` more positions; returns for how many there was room.
  int32_t reserve(int32_t rows);
  void hold(int64_t tokens) { held_ = tokens; }
  // How the next token is drawn.
  const std::vector<TokenBias>& biases() const { return options_.sampling.bias; }
  SampleRow sampling() const;
  // The next `rows` positions are in the cache. `logit`: the row of forward's logits of the last of them,
  // from which a token was drawn, or -1.
  void rows_done(int32_t rows, int32_t logit, Forward& forward);
  // Ends the request: the text held back, then its one terminal event.
  void finish(int32_t reason);
  void fail(dsv_status status, std::string_view sentence);

 private:
  int64_t start(std::span<const int32_t> tokens, GenerateOptions options, TextStream text);
  int64_t common_prefix(std::span<const int32_t> tokens) const;
  void check_tokens(std::span<const int32_t> tokens) const;
  void check_idle() const;
  void replace_tail(std::span<const int32_t> tokens, int64_t prefix);
  void forget_tail();  // what is not held
  void emit_logprobs(int32_t token, std::span<const float> logits);
  void sampled(int32_t token);
  void take_text(const TextEvent& event);
  void emit_text(int32_t kind, std::string_view text);
  void emit(dsv_event event);
  void end(int32_t reason, dsv_status status, std::string_view sentence);

  std::shared_ptr<Model> model_;
  EventSink sink_;
  std::atomic<bool> cancel_{false}, closed_{false};

  std::vector<int32_t>
      sequence_;      // what the running request has so far; tokens from held_ on are to be computed
  int64_t held_ = 0;  // tokens whose keys and values are in the cache
  PageList pages_;

  int64_t requests_ = 0;  // started so far; the running one's number
  bool running_ = false, paused_ = false;
  GenerateOptions options_;
  TextStream text_;
  StopMatcher stop_;
  int64_t prompt_tokens_ = 0, cached_tokens_ = 0, completion_tokens_ = 0, reasoning_tokens_ = 0;
  std::array<dsv_token_logprob, kMostLogprobs> top_{};
};

}  // namespace dsv
