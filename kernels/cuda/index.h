// The indexer: scores (index.cu, index_mma.cu, index_wgmma.cu, index_pages.cu) and their top-k (topk.cu,
// topk_plain.cu, topk_hopper.cu, topk_rows.cu).
#pragma once

#include <cstdint>

#include "kernels/cuda/views.h"

namespace dsv::cuda {

// Which kernels score an official index of 128 values and at most 64 heads; every other takes the plain one.
enum class IndexPath : int32_t {
  plain,
  portable,  // f16 mma.sync with f32 sums, sm_80 and newer
  f32_sums,  // Hopper's f16 tensor cores; portable elsewhere, for at most 8 heads and for odd row strides
  fp8_sums,  // Hopper's FP8 tensor cores, twice as fast with coarser sums; likewise
};
struct IndexScoresArgs {  // scores of positions 0 .. position[r] of rows that see more than k
  int32_t rows, heads, topk;
  int32_t longest;  // most positions that a row of this launch sees
  StepView step;
  CacheView cache;
  const unsigned char* index_q;  // [R, q_stride bytes]
  int64_t q_stride;
  const float* weight;  // [R, heads]
  float* scores;        // out [R, score_stride]
  int64_t score_stride;
  IndexPath path = IndexPath::f32_sums;
  int32_t rows_together = 1;  // consecutive rows that mostly are of one sequence; for speed only
};
void launch_index_scores(const IndexScoresArgs&, Stream);

struct TopKArgs {  // the min(k, position + 1) largest, ties to the lowest position, ascending
  int32_t rows, topk;
  const int32_t* position;  // [R]
  const float* scores;      // [R, score_stride]
  int64_t score_stride;
  int32_t* selected;                 // out [R, topk]
  int32_t* n_selected;               // out [R]
  int32_t longest;                   // most positions that a row of this launch sees
  unsigned char* scratch = nullptr;  // top_k_scratch_bytes(longest), 16-byte aligned; or null: slower
};
void launch_top_k(const TopKArgs&, Stream);
void launch_top_k_portable(const TopKArgs&, Stream);
void launch_top_k_plain(const TopKArgs&, Stream);  // any length, slow
bool takes_top_k_short(const TopKArgs&);           // topk_hopper.cu: a row in a block's registers
void launch_top_k_short(const TopKArgs&, Stream);
bool takes_top_k_rows(const TopKArgs&);  // topk_rows.cu: .. while the next one is brought
void launch_top_k_rows(const TopKArgs&, Stream);
bool takes_top_k_hopper(const TopKArgs&);  // topk_hopper.cu: few long rows have clusters of blocks each
void launch_top_k_hopper(const TopKArgs&, Stream);
void launch_top_k_blocks(const TopKArgs&, int32_t blocks, Stream);  // of the same, 1, 2, 4 or 8 a row
int64_t top_k_scratch_bytes(int64_t longest);

}  // namespace dsv::cuda
