// The lightning indexer: scores of cached positions, and the exact top-k of a row.
//
// Bound of the scores: heads * dim multiply-adds a position; on FP32 units (67 TFLOP/s of an H100) 128K
// positions of 64 x 128 take 32 us, the keys' 17 MB 6 us. This plain kernel reads both factors from shared
// memory, so it is bound by that: about 8 times the former. A tensor-core form is what long contexts want.
#include "kernels/cuda/formats.h"
#include "kernels/cuda/reduce.cuh"

namespace dsv::cuda {
namespace {

constexpr int kParts = 4;  // threads that share a position, each a quarter of the heads
constexpr int kScoreThreads = kPageTokens * kParts;
constexpr int kKeyValues = 64;  // of a vector, at a time in shared memory
constexpr int kHeadTile = 16;   // heads at a time: their products stay in registers

// A block scores one page for one row. Products are summed over the vector in order, terms over the heads of
// a part in order, then over the parts. Shared: keys [64][kKeyValues + 1] (padded against bank conflicts), a
// tile of queries, sums of the parts.
__global__ void scores_kernel(IndexScoresArgs a) {
  constexpr int kHeads = kHeadTile / kParts;  // of a thread at a time
  auto* keys = reinterpret_cast<float*>(shared_memory());
  float* queries = keys + kPageTokens * (kKeyValues + 1);  // [kHeadTile][kKeyValues]
  float* parts = queries + kHeadTile * kKeyValues;         // [kParts][64]
  const int64_t r = blockIdx.y, dim = a.cache.index_dim;
  const int32_t visible = a.step.position[r] + 1, begin = static_cast<int32_t>(blockIdx.x) * kPageTokens;
  if (visible <= a.topk || begin >= visible) return;
  const int64_t page = a.step.page_table[int64_t{a.step.sequence[r]} * a.step.page_stride + blockIdx.x];
  const unsigned char* data = a.cache.index + page * a.cache.index_page_bytes;
  const unsigned char* row = a.index_q + r * a.q_stride;
  const auto* scales = reinterpret_cast<const float*>(row + (a.heads * dim + 3) / 4 * 4);
  const int slot = threadIdx.x % kPageTokens, part = threadIdx.x / kPageTokens;
  const bool live = begin + slot < visible;

  float score = 0;
  for (int32_t head = 0; head < a.heads; head += kHeadTile) {
    float product[kHeads] = {};
    for (int64_t at = 0; at < dim; at += kKeyValues) {
      const int n = dim - at < kKeyValues ? static_cast<int>(dim - at) : kKeyValues;
      __syncthreads();
      for (int i = threadIdx.x; i < kPageTokens * n; i += blockDim.x) {
        const int s = i / n, c = i % n;
        if (begin + s >= visible) continue;
        const int64_t from = s * dim + at + c;
        keys[s * (kKeyValues + 1) + c] =
            a.cache.official ? e4m3_to_float(data[from]) : load_f32(data + 4 * from);
      }
      for (int i = threadIdx.x; i < kHeadTile * n; i += blockDim.x) {
        const int h = i / n, c = i % n;
        if (head + h >= a.heads) continue;
        const int64_t from = (head + h) * dim + at + c;
        queries[h * kKeyValues + c] =
            a.cache.official ? e4m3_to_float(row[from]) : reinterpret_cast<const float*>(row)[from];
      }
      __syncthreads();
      if (!live) continue;
      for (int c = 0; c < n; ++c) {
        const float key = keys[slot * (kKeyValues + 1) + c];
#pragma unroll
        for (int h = 0; h < kHeads; ++h) {
          if (head + part * kHeads + h >= a.heads) break;
          product[h] = fmaf(queries[(part * kHeads + h) * kKeyValues + c], key, product[h]);
        }
      }
    }
    for (int h = 0; h < kHeads; ++h) {
      const int32_t i = head + part * kHeads + h;
      if (i >= a.heads) break;
      const float weight = a.weight[r * a.heads + i] * (a.cache.official ? scales[i] : 1.0f);
      score = fmaf(fmaxf(product[h], 0.0f), weight, score);
    }
  }
  parts[part * kPageTokens + slot] = score;
  __syncthreads();
  if (part != 0 || !live) return;
  for (int p = 1; p < kParts; ++p) score += parts[p * kPageTokens + slot];
  if (a.cache.official) score *= load_f32(data + kPageTokens * dim + 4 * slot);
  a.scores[r * a.score_stride + begin + slot] = score;
}

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

void launch_index_scores(const IndexScoresArgs& a, Stream stream) {
  constexpr int64_t kFloats = kPageTokens * (kKeyValues + 1) + kHeadTile * kKeyValues + kParts * kPageTokens;
  launch(scores_kernel, {(a.longest + kPageTokens - 1) / kPageTokens, a.rows}, kScoreThreads, 4 * kFloats,
         stream, a);
}
void launch_top_k(const TopKArgs& a, Stream stream) {
  launch(top_k_kernel, {a.rows}, kTopThreads, 4 * (kBins + 2 + 2 * kTopWarps), stream, a);
}

}  // namespace dsv::cuda
