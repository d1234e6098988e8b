// The ring of stages in linear_wgmma.cu's shared memory, and who works on it.
#pragma once

#include "kernels/cuda/tensor.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace dsv::cuda {
namespace {

constexpr int kBoxBytes = kMapRows * 128;  // of a copy: 64 rows of a block of columns
constexpr int kGroups = 2, kGroupThreads = 128, kConsumers = kGroups * kGroupThreads;
constexpr int kThreads = kConsumers + kGroupThreads;  // and a group of which one thread has things copied

// Shared memory: kStages blocks of the weight's rows and of the input's (the first 64 of its columns, then
// the others); as many blocks of the input's scales; barriers.
template <int kRows_, int kStages_>
struct RingOf {
  static constexpr int kRows = kRows_, kStages = kStages_;
  static constexpr int kWeight = 2 * kBoxBytes, kHalf = kRows * 128, kStage = kWeight + 2 * kHalf;
  // Of kRows rows and those from a multiple of four on before, where a copy may begin.
  static constexpr int kScaleRows = kRows + 4, kScale = (4 * kScaleRows + 127) / 128 * 128;
  static constexpr int kBytes = kStages * (kStage + kScale + 16), kShared = 1024 + kBytes;
  uint32_t stages;  // addresses, the first a multiple of 1024
  int stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ uint32_t weight() const { return stages + stage * kStage; }
  __device__ __forceinline__ uint32_t input() const { return weight() + kWeight; }
  __device__ __forceinline__ uint32_t scales() const { return stages + kStages * kStage + stage * kScale; }
  __device__ __forceinline__ uint32_t full(int s) const {
    return stages + kStages * (kStage + kScale) + 8 * s;
  }
  __device__ __forceinline__ uint32_t empty(int s) const { return full(kStages) + 8 * s; }
  __device__ __forceinline__ void next() {
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
};
using ManyRing = RingOf<kWgmmaRows, 4>;
using SplitRing =
    RingOf<kWgmmaRows, 3>;  // and behind it a sum of every thread's: what the splits so far give
using FewRing =
    RingOf<kMapRows, 4>;  // and behind it parts of splits, [rows][outputs], gate and up side by side
constexpr int kTotals = kConsumers * 64 * 4;
constexpr int kPartPitch = 2 * kMapRows + 4, kPart = kMapRows * kPartPitch * 4;

#ifdef DSV_HOPPER

template <class Ring>
__device__ __forceinline__ Ring start() {
  Ring ring;
  ring.stages = (hopper::shared_address(shared_memory()) + 1023) / 1024 * 1024;
  if (threadIdx.x == 0) {
    for (int s = 0; s < Ring::kStages; ++s) {
      hopper::barrier_init(ring.full(s), 1);
      hopper::barrier_init(ring.empty(s), kConsumers / kWarp);
    }
    hopper::fence_barriers();
  }
  __syncthreads();
  return ring;
}
template <class Ring>
__device__ __forceinline__ float* behind(const Ring& ring) {
  return reinterpret_cast<float*>(shared_memory() +
                                  (ring.stages + Ring::kBytes - hopper::shared_address(shared_memory())));
}

#endif

}  // namespace
}  // namespace dsv::cuda
