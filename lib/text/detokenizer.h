// Bytes of tokens into text, as they come.
#pragma once

#include <string>
#include <string_view>

namespace dsv {

// Takes any pieces of a byte stream and hands out whole code points. What is not UTF-8 becomes U+FFFD, one
// for each maximal part of a code point, as in Python's decode(errors="replace"). Not thread-safe.
class Detokenizer {
 public:
  // The text that is complete after `bytes`; valid until the next call.
  std::string_view push(std::string_view bytes);
  // The end of the stream: a code point left unfinished comes out as U+FFFD. Ready for a new stream then.
  std::string_view finish();

 private:
  std::string text_;     // what the last call returned
  std::string pending_;  // a code point that may still be completed
};

}  // namespace dsv
