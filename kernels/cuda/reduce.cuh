// Sums and maxima over a warp or a block, in one fixed order; every thread gets the result.
#pragma once

#include "kernels/cuda/cuda.h"

namespace dsv::cuda {

// Adding (or comparing) in pairs that differ in one bit of the lane gives all lanes the same bits.
__device__ __forceinline__ float warp_sum(float value) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) value += __shfl_xor_sync(kAllLanes, value, lanes);
  return value;
}
__device__ __forceinline__ float warp_max(float value) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, lanes));
  }
  return value;
}

// shared: [blockDim.x / 32] floats; may be used again after the next barrier. Whole warps only.
template <bool kSum>
__device__ __forceinline__ float block_reduce(float value, float* shared) {
  value = kSum ? warp_sum(value) : warp_max(value);
  __syncthreads();  // whoever used `shared` before is done
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = value;
  __syncthreads();
  const unsigned lane = threadIdx.x % kWarp;
  const float own = lane < blockDim.x / kWarp ? shared[lane] : kSum ? 0 : -INFINITY;
  return kSum ? warp_sum(own) : warp_max(own);
}
__device__ __forceinline__ float block_sum(float value, float* shared) {
  return block_reduce<true>(value, shared);
}
__device__ __forceinline__ float block_max(float value, float* shared) {
  return block_reduce<false>(value, shared);
}

}  // namespace dsv::cuda
