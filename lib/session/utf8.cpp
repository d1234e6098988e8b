#include "session/utf8.h"

#include <dsv/dsv.h>

#include <cstring>

#include "base/error.h"

namespace dsv {
namespace {

// Bytes of the code point that starts at text[0], or 0 if it is none: continuation bytes out of place,
// overlong forms, surrogates, and values above U+10FFFF.
size_t code_point_size(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t size = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < size) return 0;
  for (size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  const bool wrong = (lead == 0xE0 && byte(1) < 0xA0) || (lead == 0xED && byte(1) > 0x9F) ||
                     (lead == 0xF0 && byte(1) < 0x90) || (lead == 0xF4 && byte(1) > 0x8F);
  return wrong ? 0 : size;
}

}  // namespace

std::string_view check_utf8(const char* data, int64_t size, const char* argument) {
  if (size < DSV_NUL_TERMINATED) {
    fail(DSV_ERROR_INVALID_ARGUMENT, "the size of {} is {}: give its bytes or DSV_NUL_TERMINATED", argument,
         size);
  }
  if (!data) {
    if (size == 0) return {};
    fail(DSV_ERROR_INVALID_ARGUMENT, "{} is NULL", argument);
  }
  const std::string_view text(data,
                              size == DSV_NUL_TERMINATED ? std::strlen(data) : static_cast<size_t>(size));
  for (size_t at = 0; at < text.size();) {
    const size_t step = code_point_size(text.substr(at));
    if (step == 0) {
      fail(DSV_ERROR_INVALID_ARGUMENT, "{} is not valid UTF-8 at byte {}: convert it before the call",
           argument, at);
    }
    at += step;
  }
  return text;
}

std::string_view whole_code_points(std::string_view text, size_t most) noexcept {
  if (text.size() <= most) return text;
  while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xC0) == 0x80) --most;
  return text.substr(0, most);
}

}  // namespace dsv
