// UTF-8, code point by code point.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace dsv {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// What stands at the front of a text. What is no code point (a byte out of place, an overlong form, a
// surrogate, a value above U+10FFFF) is taken in maximal parts: as many bytes as could begin one, at least
// one.
struct CodePoint {
  char32_t value;  // U+FFFD if not valid
  int32_t size;    // bytes
  bool valid;
  bool cut;  // not valid only because the text ends inside
};

// `text` is not empty.
CodePoint first_code_point(std::string_view text);

bool is_utf8(std::string_view text);

// U+FFFD for each maximal part that is no code point, as Python's decode(errors="replace").
std::string replace_invalid_utf8(std::string_view text);

void append_utf8(std::string& text, char32_t value);

// Length of the ASCII at the front of `text`.
size_t ascii_prefix(std::string_view text);

}  // namespace dsv
