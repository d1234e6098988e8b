// Any bytes as a safetensors file: parsed or refused, and whatever is accepted lies inside the file.
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "base/error.h"
#include "memory/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A block of exactly this size, so that ASan sees the first byte past it.
  const auto copy = std::make_unique<unsigned char[]>(size);
  for (size_t i = 0; i < size; ++i) copy[i] = data[i];
  try {
    int64_t end = 0;
    for (const dsv::SafetensorsEntry& entry :
         dsv::parse_safetensors(copy.get(), static_cast<int64_t>(size), "fuzz")) {
      if (entry.offset < end || entry.bytes < 0 || entry.bytes > static_cast<int64_t>(size) - entry.offset) {
        std::abort();
      }
      end = entry.offset + entry.bytes;
    }
  } catch (const dsv::Error&) {
  }
  return 0;
}
