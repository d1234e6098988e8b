// The safetensors container: 8 bytes header length, a JSON header, then the tensors' bytes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/host.h"

namespace dsv {

struct SafetensorsEntry {
  std::string name;
  std::string dtype;           // as the file spells it, e.g. "F8_E4M3"; may be one that dsv cannot use
  std::vector<int64_t> shape;  // sizes >= 0; empty for a scalar
  int64_t offset = 0;          // of the first byte, from the start of the file
  int64_t bytes = 0;
};

// Checks the whole header: lengths against the file's size, JSON form, names used once, sizes of known
// dtypes, and that the tensors cover the data exactly (no overlap, no gap, nothing past the end). Throws
// INVALID_FILE naming `file` and the tensor. `data` may be null if size is 0. In the order of their offsets.
std::vector<SafetensorsEntry> parse_safetensors(const unsigned char* data, int64_t size,
                                                std::string_view file);

}  // namespace dsv
