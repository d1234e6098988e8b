// Exact top-k over scores.
#pragma once

#include <bit>
#include <cstdint>

namespace dsv::cpu {

// Orders as the float does (NaN beyond the infinity of its sign), as an unsigned integer.
inline uint32_t order_key(float score) {
  const auto bits = std::bit_cast<uint32_t>(score);
  return bits ^ (static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000u);
}

// What the k largest of n scores are, 0 < k <= n: all with a key above `threshold`, and the first `ties` of
// those with that key.
struct TopK {
  uint32_t threshold;
  int32_t ties;
};
TopK find_top_k(const float* scores, int32_t n, int32_t k);

}  // namespace dsv::cpu
