// Generated tokens into typed text: detokeniser and, for chats, the parser of the model's markup.
#pragma once

#include <cstdint>
#include <memory>

#include "text/stream_parser.h"

namespace dsv {

class Tokenizer;

// One request's text. Not thread-safe.
class TextStream {
 public:
  using Kind = StreamParser::Kind;  // thinking: the prompt ended inside the thinking part
  using Take = StreamParser::Take;

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
