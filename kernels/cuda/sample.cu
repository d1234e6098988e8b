// The greedy choice, so that 4 bytes of a row of logits go up to the host instead of 500 KB.
//
// Bound: one read of the row, 129280 f32 in the released model. One block a row reads it at what one SM can,
// about 100 GB/s: 5 us, which is little beside the step's; more blocks would need a second launch.
#include "kernels/cuda/cuda.h"

namespace dsv::cuda {
namespace {

constexpr int kThreads = 1024;

// Orders as (logit, lowest id first) do; 0 for what cannot be chosen: ids that are not allowed, NaN, -inf.
__device__ __forceinline__ uint64_t order_of(float logit, bool allowed, int64_t id) {
  const uint32_t bits = __float_as_uint(logit + 0.0f);  // -0 equals 0
  const bool nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
  if (!allowed || nan || bits == 0xFF800000u) return 0;
  const uint32_t key = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return uint64_t{key} << 32 | (0xFFFFFFFFu - static_cast<uint32_t>(id));
}

__global__ void __launch_bounds__(kThreads) greedy_kernel(GreedyArgs a) {
  auto* best = reinterpret_cast<uint64_t*>(shared_memory());  // [kThreads]
  const float* logits = a.logits + int64_t{blockIdx.x} * a.vocab;
  const int tid = threadIdx.x;
  uint64_t mine = 0;
  for (int64_t id = tid; id < a.vocab; id += kThreads) {
    const uint64_t order = order_of(logits[id], a.allowed[id] != 0, id);
    if (order > mine) mine = order;
  }
  best[tid] = mine;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (tid < half && best[tid + half] > best[tid]) best[tid] = best[tid + half];
  }
  if (tid == 0) {
    a.token[blockIdx.x] =
        best[0] == 0 ? -1 : static_cast<int32_t>(0xFFFFFFFFu - static_cast<uint32_t>(best[0]));
  }
}

}  // namespace

void launch_greedy(const GreedyArgs& a, Stream stream) {
  launch(greedy_kernel, {a.rows}, kThreads, 8 * kThreads, stream, a);
}

}  // namespace dsv::cuda
