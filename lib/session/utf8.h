// Text from the host.
#pragma once

#include <cstdint>
#include <string_view>

namespace dsv {

// `size` bytes at `data`, or up to the NUL for DSV_NUL_TERMINATED. Throws INVALID_ARGUMENT naming `argument`
// for NULL, a negative size, or bytes that are not UTF-8.
std::string_view check_utf8(const char* data, int64_t size, const char* argument);

// The beginning of `text` that has at most `most` bytes and cuts no code point in two.
std::string_view whole_code_points(std::string_view text, size_t most) noexcept;

}  // namespace dsv
