// Pairs of few rows by expert, for the launches of route.cu and route_few.cu.
#pragma once

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/experts.h"

namespace dsv::cuda {

inline constexpr int kPairWords = kFewPairs / kWarp;

// By a block of a thread a pair at least, which finds its place by comparing with all others: 64 steps for 8
// rows, 512 at most. `expert` [rows * k] and `begins` [kPairWords], a bit at a pair's place if a tile begins
// there, are in shared memory. Begins with a barrier.
__device__ __forceinline__ void group_pairs(const GroupArgs& a, const int32_t* expert, unsigned* begins) {
  const int pairs = a.rows * a.k, p = static_cast<int>(threadIdx.x);
  if (p < kPairWords) begins[p] = 0;
  __syncthreads();
  int place = 0, before = 0, all = 0;  // among all pairs, and those of the expert before it and in all
  const int mine = p < pairs ? expert[p] : 0;
  for (int q = 0; q < pairs; ++q) {
    const int other = expert[q];
    place += other < mine || (other == mine && q < p);
    before += other == mine && q < p;
    all += other == mine;
  }
  const bool first = p < pairs && before % a.tile_rows == 0;
  if (first) atomicOr(&begins[place / kWarp], 1u << place % kWarp);
  __syncthreads();
  if (p < pairs) {
    a.pair_row[place] = p / a.k;
    a.pair_of[p] = place;
  }
  if (!first && p != 0) return;
  int tile = 0, tiles = 0;
  for (int w = 0; w < kPairWords; ++w) {
    const unsigned bits = begins[w];
    tiles += __popc(bits);
    tile += w < place / kWarp    ? __popc(bits)
            : w == place / kWarp ? __popc(bits & ((1u << place % kWarp) - 1))
                                 : 0;
  }
  if (first) a.tiles[tile] = {mine, place, all - before < a.tile_rows ? all - before : a.tile_rows};
  if (p == 0) *a.n_tiles = tiles;
}

}  // namespace dsv::cuda
