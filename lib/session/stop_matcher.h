// Stop strings in streamed text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dsv {

// Text goes in as it comes, in pieces of whole code points; out comes what can no longer be part of a stop
// string. Allocates only to grow its buffer.
class StopMatcher {
 public:
  void start(std::vector<std::string> stops);  // none empty
  // Adds a piece and returns what is safe to give out, valid until the next call. Nothing comes out any more
  // once stopped() is true.
  std::string_view push(std::string_view text);
  // What was held back; for the end, or when text of another kind follows.
  std::string_view flush();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_, out_;
  bool stopped_ = false;
};

}  // namespace dsv
