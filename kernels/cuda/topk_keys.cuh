// Scores as integers that order as they do, -0 as 0. They are not NaN.
#pragma once

#include "kernels/cuda/cuda.h"

namespace dsv::cuda {

__device__ __forceinline__ uint32_t key_of(float score) {
  const uint32_t bits = __float_as_uint(score + 0.0f);
  return bits ^ (static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000u);
}
// What reaches it is what has that key or a larger one.
__device__ __forceinline__ float score_of(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key ^ 0x80000000u : ~key);
}

}  // namespace dsv::cuda
