// Reading JSON files that may be hostile: bounded size, depth and node count, no duplicate keys, errors as
// dsv::Error.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace dsv {

// `text` for use in a sentence: in quotes, its middle left out if it is long, control
// characters replaced.
std::string shown(std::string_view text);

struct JsonLimits {
  int64_t bytes = int64_t{1} << 20;
  int64_t nodes = int64_t{1} << 18;  // values of any kind
  int32_t depth = 32;
};

// Throws INVALID_FILE naming `file` and the byte where reading stopped. Strings are valid UTF-8.
nlohmann::json parse_json_file(std::string_view text, std::string_view file, const JsonLimits& limits);

}  // namespace dsv
