// Regular expressions over text newer than the regular expression library's Unicode.
#pragma once

#include <string>
#include <string_view>

namespace dsv {

// The reference classifies text by Unicode 16. PCRE2 knows the Unicode of its own release (14 for 10.42,
// where a newer emoji is no symbol), and counts U+180E as white space. So patterns are matched against a copy
// of the text in which each code point that differs is replaced by a near one of the same general category
// and the same number of bytes: offsets stay, classes come out as Unicode 16 has them.
//
// Returns `text`, or if something was replaced, `copy`. `text` must be valid UTF-8.
std::string_view with_known_code_points(std::string_view text, std::string& copy);

}  // namespace dsv
