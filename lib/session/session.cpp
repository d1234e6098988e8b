#include "session/session.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "session/model.h"
#include "session/scheduler.h"

namespace dsv {

Session::Session(std::shared_ptr<Model> model, dsv_event_callback callback, void* user)
    : model_(std::move(model)), sink_(callback, user), pages_(model_->pool(), model_->context_tokens()) {}

int64_t Session::chat(std::string_view request_json, const dsv_generate_options& options) {
  check_idle();
  GenerateOptions checked = check_generate_options(options, model_->vocab_size());
  const std::vector<int32_t> tokens = model_->encode_chat(request_json, checked);
  TextStream text(model_->tokenizer(),
                  checked.thinking ? TextStream::Kind::thinking : TextStream::Kind::answer,
                  checked.hide_tools);
  return start(tokens, std::move(checked), std::move(text));
}

int64_t Session::complete(std::span<const int32_t> tokens, const dsv_generate_options& options) {
  check_idle();
  GenerateOptions checked = check_generate_options(options, model_->vocab_size());
  return start(tokens, std::move(checked), TextStream(model_->tokenizer(), TextStream::Kind::raw, false));
}

void Session::check_idle() const {
  if (running_) {
    dsv::fail(DSV_ERROR_BUSY,
              "request {} is running on this session: wait for its DSV_EVENT_FINISHED or cancel it",
              requests_);
  }
}

void Session::check_tokens(std::span<const int32_t> tokens) const {
  if (tokens.empty()) dsv::fail(DSV_ERROR_INVALID_ARGUMENT, "there are no tokens: give at least one");
  if (static_cast<int64_t>(tokens.size()) > model_->context_tokens()) {
    dsv::fail(DSV_ERROR_INVALID_ARGUMENT,
              "{} tokens do not fit in the context of {}: shorten the conversation or raise context_tokens",
              tokens.size(), model_->context_tokens());
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= model_->vocab_size()) {
      dsv::fail(DSV_ERROR_INVALID_ARGUMENT, "token {} of the prompt is {}: ids are 0 to {}", i, tokens[i],
                model_->vocab_size() - 1);
    }
  }
}

int64_t Session::common_prefix(std::span<const int32_t> tokens) const {
  const std::span<const int32_t> held = held_tokens();
  return std::mismatch(held.begin(), held.end(), tokens.begin(), tokens.end()).first - held.begin();
}

// sequence_ becomes `tokens`, of which the first `prefix` are held already. Room for it was reserved.
void Session::replace_tail(std::span<const int32_t> tokens, int64_t prefix) {
  sequence_.assign(tokens.begin(), tokens.end());
  held_ = prefix;
  pages_.truncate(prefix);
}

void Session::forget_tail() {
  sequence_.resize(static_cast<size_t>(held_));
  pages_.truncate(held_);
}

int64_t Session::start(std::span<const int32_t> tokens, GenerateOptions options, TextStream text) {
  check_tokens(tokens);
  const auto count = static_cast<int64_t>(tokens.size());
  const int64_t room = model_->context_tokens() - count;
  const int64_t most = options.max_tokens > 0 ? std::min(options.max_tokens, room) : room;
  sequence_.reserve(static_cast<size_t>(count + most));
  sink_.reserve_last();
  stop_.start(std::exchange(options.stop, {}));
  options_ = std::move(options);
  text_ = std::move(text);
  // At least one token is computed anew: its logits are what generation starts from.
  replace_tail(tokens, std::min(common_prefix(tokens), count - 1));
  prompt_tokens_ = count;
  cached_tokens_ = held_;
  completion_tokens_ = reasoning_tokens_ = 0;
  cancel_.store(false, std::memory_order_release);
  paused_ = false;
  running_ = true;
  return ++requests_;
}

bool Session::poll(dsv_event& event) {
  if (!sink_.polled()) {
    dsv::fail(DSV_ERROR_INVALID_ARGUMENT,
              "this session delivers its events to on_event: create it without one to poll them");
  }
  return sink_.queue().pop(event);
}

void Session::logits(std::span<const int32_t> tokens, int64_t first, int64_t rows, int32_t source,
                     float* out) {
  check_idle();
  check_tokens(tokens);
  const auto count = static_cast<int64_t>(tokens.size());
  const bool draft = source == DSV_LOGITS_DRAFT;
  if (source != DSV_LOGITS_MAIN && !draft) {
    dsv::fail(DSV_ERROR_INVALID_ARGUMENT, "source is {}: give DSV_LOGITS_MAIN or DSV_LOGITS_DRAFT", source);
  }
  if (draft && !model_->has_mtp()) {
    dsv::fail(DSV_ERROR_UNSUPPORTED,
              "draft logits need the MTP layer: load a checkpoint that has one with load_mtp = 1");
  }
  const int64_t last = draft ? count - 1 : count;
  if (first < 0 || rows < 0 || first > last || rows > last - first) {
    dsv::fail(DSV_ERROR_INVALID_ARGUMENT, "rows [{}, {} + {}) are not all below {} of {} tokens", first,
              first, rows, last, count);
  }
  if (rows > 0 && !out) dsv::fail(DSV_ERROR_INVALID_ARGUMENT, "out is NULL");
  sequence_.reserve(tokens.size());
  // What is wanted is computed, held or not; and the MTP layer's cache holds only what is computed here.
  replace_tail(tokens, draft ? 0 : std::min(common_prefix(tokens), rows > 0 ? first : count));
  try {
    model_->scheduler().compute_now(*this, tokens, first, rows, draft, out);
  } catch (...) {
    forget_tail();
    throw;
  }
}

void Session::cancel() {
  cancel_.store(true, std::memory_order_release);
  model_->scheduler().interrupt();
}

void Session::close() {
  closed_.store(true, std::memory_order_release);
  sink_.close();
  model_->scheduler().interrupt();
}

void Session::release_pages() { pages_.truncate(0); }

int32_t Session::reserve(int32_t rows) {
  if (pages_.reserve(held_ + rows)) return rows;
  const int64_t pages = static_cast<int64_t>(pages_.pages().size()) + model_->pool().available();
  const auto room = static_cast<int32_t>(std::min<int64_t>(rows, pages * kPageTokens - held_));
  pages_.reserve(held_ + room);
  return room;
}

SampleRow Session::sampling() const {
  return sample_row(options_.sampling, static_cast<uint64_t>(completion_tokens_));
}

void Session::rows_done(int32_t rows, int32_t logit, Forward& forward) {
  held_ += rows;
  if (completion_tokens_ == 0) {
    dsv_event event{};
    event.kind = DSV_EVENT_PREFILL;
    event.done = held_ - cached_tokens_;
    event.total = prompt_tokens_ - cached_tokens_;
    emit(event);
  }
  if (logit < 0 || cancelled() || closed()) return;
  const int32_t token = forward.token(logit);
  // A load checks what is small; NaN among the weights shows only here. A token drawn from none is made up.
  if (token < 0) {
    return fail(
        DSV_ERROR_INVALID_FILE,
        "the model computed NaN for every token: its weights are damaged; download the checkpoint again");
  }
  ++completion_tokens_;
  if (text_.in_reasoning()) ++reasoning_tokens_;
  if (options_.logprobs >= 0) {
    emit_logprobs(token, {forward.logits(logit), static_cast<size_t>(model_->vocab_size())});
  }
  sampled(token);
}

void Session::emit_logprobs(int32_t token, std::span<const float> logits) {
  const auto top = std::span(top_).first(
      static_cast<size_t>(std::min(options_.logprobs, static_cast<int32_t>(logits.size()))));
  log_probabilities(logits, top);
  dsv_event event{};
  event.kind = DSV_EVENT_TOKEN;
  event.token = token;
  event.logprob = log_probability(logits, token);
  event.top = top.data();
  event.top_count = static_cast<int32_t>(top.size());
  emit(event);
}

void Session::sampled(int32_t token) {
  if (token == model_->eos_token()) {
    if (!options_.ignore_eos) return finish(DSV_FINISH_STOP);
  } else {
    text_.push(token, [this](const TextEvent& event) { take_text(event); });
    if (stop_.stopped()) return finish(DSV_FINISH_STOP_STRING);
  }
  if (completion_tokens_ == options_.max_tokens) return finish(DSV_FINISH_LENGTH);
  if (static_cast<int64_t>(sequence_.size()) == model_->context_tokens())
    return finish(DSV_FINISH_CONTEXT_FULL);
  sequence_.push_back(token);
}

// Stop strings are looked for in content only, so whatever else comes ends what was held back of it.
void Session::take_text(const TextEvent& text) {
  if (stop_.stopped()) return;
  if (text.kind == DSV_EVENT_CONTENT) return emit_text(DSV_EVENT_CONTENT, stop_.push(text.text));
  emit_text(DSV_EVENT_CONTENT, stop_.flush());
  dsv_event event{};
  event.kind = text.kind;
  const auto set = [](const char*& data, int64_t& size, std::string_view value) {
    if (value.empty()) return;
    data = value.data();
    size = static_cast<int64_t>(value.size());
  };
  set(event.text, event.text_size, text.text);
  if (text.kind != DSV_EVENT_TOOL_DELTA) {  // of which there are many
    set(event.tool_name, event.tool_name_size, text.tool_name);
    set(event.tool_id, event.tool_id_size, text.tool_id);
  }
  event.tool_index = text.tool_index;
  emit(event);
}

void Session::emit_text(int32_t kind, std::string_view text) {
  if (text.empty()) return;
  dsv_event event{};
  event.kind = kind;
  event.text = text.data();
  event.text_size = static_cast<int64_t>(text.size());
  emit(event);
}

void Session::emit(dsv_event event) {
  event.struct_size = sizeof event;
  event.request = requests_;
  switch (sink_.deliver(event)) {
    case DSV_ACTION_PAUSE:
      paused_ = running_;
      break;
    case DSV_ACTION_STOP:
      cancel_.store(true, std::memory_order_release);
      break;
    default:
      break;
  }
}

void Session::finish(int32_t reason) {
  text_.finish([this](const TextEvent& event) { take_text(event); });
  emit_text(DSV_EVENT_CONTENT, stop_.flush());
  if (reason == DSV_FINISH_STOP && text_.tool_calls() > 0) reason = DSV_FINISH_TOOL_CALLS;
  if (cancelled()) reason = DSV_FINISH_CANCELLED;  // whatever else came at the same row
  end(reason, DSV_OK, {});
}

void Session::fail(dsv_status status, std::string_view sentence) { end(DSV_FINISH_ERROR, status, sentence); }

void Session::end(int32_t reason, dsv_status status, std::string_view sentence) {
  running_ = paused_ = false;
  forget_tail();
  dsv_event event{};
  event.struct_size = sizeof event;
  event.request = requests_;
  event.kind = DSV_EVENT_FINISHED;
  event.finish_reason = reason;
  event.status = status;
  event.text = sentence.data();
  event.text_size = static_cast<int64_t>(sentence.size());
  event.prompt_tokens = prompt_tokens_;
  event.cached_tokens = cached_tokens_;
  event.completion_tokens = completion_tokens_;
  event.reasoning_tokens = reasoning_tokens_;
  sink_.deliver_last(event);
}

}  // namespace dsv
