#include "kernels/cpu/topk.h"

#include <array>

namespace dsv::cpu {
namespace {

// Counts the keys that begin with `prefix` by their next `bits` bits, and steps from the largest digit down
// to the one that holds the rank-th key. Returns the digit; rank becomes the rank among the keys with it.
uint32_t select_digit(const float* scores, int32_t n, uint32_t prefix, int prefix_bits, int bits,
                      int32_t& rank) {
  std::array<int32_t, 2048> count{};
  const int shift = 32 - prefix_bits - bits;
  const uint32_t mask = (1u << bits) - 1;
  for (int32_t i = 0; i < n; ++i) {
    const uint32_t key = order_key(scores[i]);
    if (prefix_bits == 0 || key >> (32 - prefix_bits) == prefix) ++count[(key >> shift) & mask];
  }
  uint32_t digit = mask;
  for (; digit > 0 && rank > count[digit]; --digit) rank -= count[digit];
  return digit;
}

}  // namespace

TopK find_top_k(const float* scores, int32_t n, int32_t k) {
  int32_t rank = k;
  uint32_t key = select_digit(scores, n, 0, 0, 11, rank);
  key = key << 11 | select_digit(scores, n, key, 11, 11, rank);
  key = key << 10 | select_digit(scores, n, key, 22, 10, rank);
  return {key, rank};
}

}  // namespace dsv::cpu
