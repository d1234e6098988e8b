// The lightning indexer's scores of cached positions, for every geometry and in both precisions.
//
// Bound of the scores: heads * dim multiply-adds a position; on FP32 units (67 TFLOP/s of an H100) 128K
// positions of 64 x 128 take 32 us, the keys' 17 MB 6 us. This plain kernel reads both factors from shared
// memory, so it is bound by that: about 8 times the former. The released geometry goes to index_mma.cu, or to
// index_wgmma.cu and index_pages.cu.
#include "kernels/cuda/index_tensor.cuh"

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

}  // namespace

int64_t index_splits(int64_t tiles, int64_t most, int resident) {
  const int64_t wave = int64_t{processors()} * resident;
  const int64_t splits = 2 * tiles <= wave ? wave / tiles : (4 * wave + tiles - 1) / tiles;
  return splits < most ? splits : most;
}

void launch_index_scores(const IndexScoresArgs& a, Stream stream) {
  if (a.path != IndexPath::plain && takes_mma(a)) {
    // wgmma's queries are read 16 bytes at a time.
    const bool hopper = a.path != IndexPath::portable && a.heads > 8 && a.q_stride % 16 == 0 && on_hopper();
    if (!hopper) return launch_index_scores_mma(a, stream);
    const int32_t together = a.rows_together < a.rows ? a.rows_together : a.rows;
    return together <= 2 ? launch_index_scores_pages(a, stream) : launch_index_scores_wgmma(a, stream);
  }
  constexpr int64_t kFloats = kPageTokens * (kKeyValues + 1) + kHeadTile * kKeyValues + kParts * kPageTokens;
  launch(scores_kernel, {(a.longest + kPageTokens - 1) / kPageTokens, a.rows}, kScoreThreads, 4 * kFloats,
         stream, a);
}

}  // namespace dsv::cuda
