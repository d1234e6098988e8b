// What the tensor-core kernels of the scores share: which rows a block scores, and the cache's pages.
#pragma once

#include "kernels/cuda/formats.h"
#include "kernels/cuda/index.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/reduce.cuh"

namespace dsv::cuda {

inline constexpr int kIndexDim = 128;  // e4m3 values of a key and of a query's head
inline constexpr int64_t kIndexPageBytes = kPageTokens * (kIndexDim + 4);  // keys, then a scale each

struct IndexTileArgs {
  IndexScoresArgs scores;
  int32_t tile_rows;  // consecutive rows of a block
};

// Consecutive rows of one sequence: they share every key.
struct IndexRun {
  int32_t first, count;
  int32_t visible;  // most positions that a row sees; 0: none of them needs scores
  const int32_t* pages;
};
__device__ __forceinline__ IndexRun index_run(const IndexScoresArgs& a, int32_t first, int32_t end) {
  const int32_t sequence = a.step.sequence[first];
  IndexRun run = {first, 0, 0, a.step.page_table + int64_t{sequence} * a.step.page_stride};
  for (int32_t r = first; r < end && a.step.sequence[r] == sequence; ++r, ++run.count) {
    const int32_t visible = a.step.position[r] + 1;
    if (visible > a.topk && visible > run.visible) run.visible = visible;
  }
  return run;
}

// A head's weight in the sum over heads: w_h * q_scale_h; 0 for heads that only fill up.
__device__ __forceinline__ float head_weight(const IndexScoresArgs& a, int64_t row, int32_t head) {
  if (head >= a.heads) return 0;
  const auto* scales =
      reinterpret_cast<const float*>(a.index_q + row * a.q_stride + int64_t{a.heads} * kIndexDim);
  return a.weight[row * a.heads + head] * scales[head];
}

// Word `word` of the 32 of a query's head: four e4m3 codes.
__device__ __forceinline__ uint32_t query_word(const IndexScoresArgs& a, int64_t row, int32_t head,
                                               int word) {
  if (head >= a.heads) return 0;
  return reinterpret_cast<const uint32_t*>(a.index_q + row * a.q_stride + int64_t{head} * kIndexDim)[word];
}

__device__ __forceinline__ float index_scale(const IndexScoresArgs& a, int64_t page, int32_t slot) {
  const unsigned char* scales = a.cache.index + page * kIndexPageBytes + kPageTokens * kIndexDim;
  return __ldg(reinterpret_cast<const float*>(scales) + slot);
}

inline constexpr float kDecoded = 0x1p16f;  // of a product of two values of e4m3x4_to_small_f16

// Blocks that share the positions of a tile of rows, at most `most`: one wave of `resident` blocks a
// processor if the tiles are few, else several waves, as the blocks' times differ. No score depends on them.
int64_t index_splits(int64_t tiles, int64_t most, int resident);

bool takes_mma(const IndexScoresArgs&);
void launch_index_scores_mma(const IndexScoresArgs&, Stream);
void launch_index_scores_wgmma(const IndexScoresArgs&, Stream);  // many rows of a sequence
void launch_index_scores_pages(const IndexScoresArgs&, Stream);  // one or two

}  // namespace dsv::cuda
