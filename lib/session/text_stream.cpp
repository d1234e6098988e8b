#include "session/text_stream.h"

#include <utility>

#include "text/detokenizer.h"
#include "text/tokenizer.h"

namespace dsv {

struct TextStream::State {
  std::shared_ptr<const Tokenizer> tokenizer;
  Detokenizer detokenizer;
  StreamParser parser;
};

TextStream::TextStream() = default;
TextStream::TextStream(std::shared_ptr<const Tokenizer> tokenizer, Kind kind, bool calls_stay_text) {
  if (tokenizer) {
    state_ = std::make_unique<State>(State{std::move(tokenizer), {}, StreamParser(kind, calls_stay_text)});
  }
}
TextStream::TextStream(TextStream&&) noexcept = default;
TextStream& TextStream::operator=(TextStream&&) noexcept = default;
TextStream::~TextStream() = default;

void TextStream::push(int32_t token, const Take& take) {
  if (state_) state_->parser.push(state_->detokenizer.push(state_->tokenizer->bytes(token)), take);
}

void TextStream::finish(const Take& take) {
  if (!state_) return;
  state_->parser.push(state_->detokenizer.finish(), take);
  state_->parser.finish(take);
}

bool TextStream::in_reasoning() const { return state_ && state_->parser.in_reasoning(); }

int32_t TextStream::tool_calls() const { return state_ ? state_->parser.tool_calls() : 0; }

}  // namespace dsv
