// Split patterns of tokenizer.json in PCRE2's language.
#pragma once

#include <string>
#include <string_view>

namespace dsv {

// The reference runs Oniguruma's Ruby syntax. Returns the same pattern for PCRE2 with UTF, UCP, MULTILINE and
// NO_AUTO_CAPTURE. Only constructs that mean the same in both are let through; others are refused by name as
// UNSUPPORTED (so are escapes like \w and \h, whose classes differ). `where` is the start of the sentence:
// file and field.
std::string pcre2_pattern(std::string_view pattern, std::string_view where);

// A pattern that matches `literal` and nothing else.
std::string pcre2_literal(std::string_view literal);

}  // namespace dsv
