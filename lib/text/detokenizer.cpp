#include "text/detokenizer.h"

#include "text/utf8.h"

namespace dsv {

std::string_view Detokenizer::push(std::string_view bytes) {
  pending_ += bytes;
  text_.clear();
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const CodePoint first = first_code_point(rest);
    if (first.cut) break;
    text_ += first.valid ? rest.substr(0, first.size) : kReplacement;
    rest.remove_prefix(first.size);
  }
  pending_.erase(0, pending_.size() - rest.size());
  return text_;
}

std::string_view Detokenizer::finish() {
  text_ = pending_.empty() ? std::string_view() : kReplacement;
  pending_.clear();
  return text_;
}

}  // namespace dsv
