// The exact top-k of rows of any length, for those that are too long for topk.cu.
#include "kernels/cuda/formats.h"
#include "kernels/cuda/index.h"
#include "kernels/cuda/reduce.cuh"

namespace dsv::cuda {
namespace {

constexpr int kTopThreads = 256, kTopWarps = kTopThreads / kWarp, kBins = 256;

// Keys that order as the scores do, -0 as 0; a NaN last.
__device__ __forceinline__ uint32_t order_of(float score) {
  const uint32_t bits = __float_as_uint(score + 0.0f);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return 0;
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// A block a row: four rounds fix the k-th largest key a byte at a time, by counting (integer sums: in any
// order the same); then one pass in order of position writes what is above it and the first of what equals
// it. Bound: 5 reads of the row from L2 (128K positions: 2.6 MB), and a block's latency in each.
__global__ void __launch_bounds__(kTopThreads) top_k_kernel(TopKArgs a) {
  auto* bins = reinterpret_cast<int*>(shared_memory());  // [kBins]
  int* found = bins + kBins;                             // the byte, and how many are above it
  int* above_of = found + 2;                             // [kTopWarps]
  int* equal_of = above_of + kTopWarps;                  // [kTopWarps]
  const int64_t r = blockIdx.x;
  const int32_t visible = a.position[r] + 1, k = visible < a.topk ? visible : a.topk;
  const float* scores = a.scores + r * a.score_stride;
  int32_t* selected = a.selected + r * a.topk;
  const int tid = threadIdx.x, warp = tid / kWarp, lane = tid % kWarp;
  if (tid == 0) a.n_selected[r] = k;
  if (visible <= a.topk) {
    for (int32_t i = tid; i < visible; i += kTopThreads) selected[i] = i;
    return;
  }

  uint32_t threshold = 0, known = 0;  // the k-th largest key's bytes so far, and the mask of them
  int32_t wanted = k;                 // of the keys that share those bytes
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = tid; i < kBins; i += kTopThreads) bins[i] = 0;
    __syncthreads();
    for (int32_t i = tid; i < visible; i += kTopThreads) {
      const uint32_t key = order_of(scores[i]);
      if ((key & known) == threshold) atomicAdd(&bins[key >> shift & 0xFF], 1);
    }
    __syncthreads();
    if (tid == 0) {
      int above = 0, bin = kBins - 1;
      while (above + bins[bin] < wanted) above += bins[bin--];
      found[0] = bin;
      found[1] = above;
    }
    __syncthreads();
    threshold |= static_cast<uint32_t>(found[0]) << shift;
    known |= 0xFFu << shift;
    wanted -= found[1];
    __syncthreads();
  }

  // wanted: how many of the keys that equal the threshold are taken.
  int32_t out = 0, equals = 0;  // written, and equal ones met, before this round
  for (int32_t begin = 0; begin < visible; begin += kTopThreads) {
    const int32_t i = begin + tid;
    const uint32_t key = i < visible ? order_of(scores[i]) : 0;
    const bool above = i < visible && key > threshold, equal = i < visible && key == threshold;
    const unsigned above_lanes = __ballot_sync(kAllLanes, above),
                   equal_lanes = __ballot_sync(kAllLanes, equal);
    if (lane == 0) {
      above_of[warp] = __popc(above_lanes);
      equal_of[warp] = __popc(equal_lanes);
    }
    __syncthreads();
    const unsigned lower = (1u << lane) - 1;
    int32_t above_before = __popc(above_lanes & lower), equal_before = equals + __popc(equal_lanes & lower);
    int32_t above_all = 0, equal_all = 0;
    for (int w = 0; w < kTopWarps; ++w) {
      if (w < warp) above_before += above_of[w], equal_before += equal_of[w];
      above_all += above_of[w];
      equal_all += equal_of[w];
    }
    const int32_t equal_taken_before =
        (equal_before < wanted ? equal_before : wanted) - (equals < wanted ? equals : wanted);
    if (above || (equal && equal_before < wanted)) selected[out + above_before + equal_taken_before] = i;
    const int32_t taken =
        (equals + equal_all < wanted ? equals + equal_all : wanted) - (equals < wanted ? equals : wanted);
    out += above_all + taken;
    equals += equal_all;
    __syncthreads();
  }
}

}  // namespace

void launch_top_k_plain(const TopKArgs& a, Stream stream) {
  launch(top_k_kernel, {a.rows}, kTopThreads, 4 * (kBins + 2 + 2 * kTopWarps), stream, a);
}

}  // namespace dsv::cuda
