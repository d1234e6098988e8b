// Generated tokens into typed text: detokeniser and, for chats, the parser of the model's markup.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

namespace dsv {

class Tokenizer;

// As dsv_event; the views are valid inside the call only.
struct TextEvent {
  int32_t kind = 0;  // DSV_EVENT_REASONING, _CONTENT, _TOOL_*, _MALFORMED
  std::string_view text, tool_name, tool_id;
  int32_t tool_index = 0;
};

// One request's text. Not thread-safe.
class TextStream {
 public:
  enum class Kind { raw, answer, thinking };  // thinking: the prompt ended inside the thinking part
  using Take = std::function<void(const TextEvent&)>;

  TextStream();
  // No tokenizer: no text comes out. calls_stay_text: tool markup is content.
  TextStream(std::shared_ptr<const Tokenizer> tokenizer, Kind kind, bool calls_stay_text);
  TextStream(TextStream&&) noexcept;
  TextStream& operator=(TextStream&&) noexcept;
  ~TextStream();

  void push(int32_t token, const Take& take);
  void finish(const Take& take);  // what was held back
  bool in_reasoning() const;
  int32_t tool_calls() const;  // that have ended

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dsv
