// A head's query as the kernels around attention read it: f32, or bf16 in the first half of the place of
// that. Words are loaded before it is looked which they are, so that no load waits for a branch.
#pragma once

#include "kernels/cuda/mma.cuh"

namespace dsv::cuda {

struct Query {
  const uint32_t* words;
  bool bf16;

  // `head` counts those of all rows.
  __device__ __forceinline__ Query(const ValueRows& q, int64_t head, int64_t head_dim)
      : words(static_cast<const uint32_t*>(q.data) + head * head_dim), bf16(q.bf16) {}
  // Where the word of value i is, and the value.
  __device__ __forceinline__ const uint32_t* word(int64_t i) const { return words + (bf16 ? i / 2 : i); }
  __device__ __forceinline__ float value(uint32_t word, int64_t i) const {
    return float_of(!bf16 ? word : i % 2 ? word & 0xFFFF0000u : word << 16);
  }
};

// kPairs pairs of neighbours, of which the first is value 2 n for some n.
template <int kPairs>
struct QueryPairs {
  uint32_t raw[2 * kPairs];
  bool bf16;

  __device__ __forceinline__ void load(const Query& q, int64_t first, bool there) {
    bf16 = q.bf16;
    const uint32_t* const words = q.words + (bf16 ? first / 2 : first);
#pragma unroll
    for (int i = 0; i < 2 * kPairs; ++i) raw[i] = there && (i < kPairs || !bf16) ? words[i] : 0;
  }
  // Pair i times a power of two, in bf16.
  __device__ __forceinline__ uint32_t scaled(int i, float factor) const {
    const uint32_t low = bf16 ? raw[i] << 16 : raw[2 * i],
                   high = bf16 ? raw[i] & 0xFFFF0000u : raw[2 * i + 1];
    return pack_bf16(float_of(low) * factor, float_of(high) * factor);
  }
};

}  // namespace dsv::cuda
