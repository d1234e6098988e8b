#include "text/detokenizer.h"

namespace dsv {

std::string_view Detokenizer::push(std::string_view bytes) {
  text_ = bytes;
  return text_;
}

std::string_view Detokenizer::finish() { return {}; }

}  // namespace dsv
