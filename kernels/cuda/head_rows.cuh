// Rows of one head for the kernels that keep its weights (absorb_wgmma.cu, heads_wgmma.cu): a block goes
// through its part of the rows in tiles of 64, and each warp copies the 16 rows of a tile that it multiplies,
// so that no warp waits for another.
#pragma once

#include "kernels/cuda/copies.cuh"

namespace dsv::cuda {

inline constexpr int kHeadTile = 64, kHeadGroups = 2;  // rows; groups of warps that take tiles in turn

// Parts of a head's tiles, one a block, a processor each: as many as end soonest. A block begins with its
// head's weights, which take as long as a tile of each group.
inline int64_t head_parts(int64_t heads, int64_t rows, int64_t processors) {
  const int64_t tiles = (rows + kHeadTile - 1) / kHeadTile;
  if (processors < 1) return 1;  // it could not be asked
  const auto time = [&](int64_t parts) {
    const int64_t longest = (tiles + parts - 1) / parts;
    return (heads * parts + processors - 1) / processors * ((longest + kHeadGroups - 1) / kHeadGroups + 1);
  };
  int64_t best = 1;
  for (int64_t parts = 2; parts <= tiles; ++parts) {
    if (time(parts) < time(best)) best = parts;
  }
  return best;
}

// Places for kBytes of each of a warp's 16 rows, kPad more apart, so that the lanes that read together meet
// different banks. All lanes call.
template <int kBytes, int kPad, int kStages_>
struct WarpRows {
  static constexpr int kRows = 16, kPitch = kBytes + kPad, kStage = kRows * kPitch;
  static constexpr int kStages = kStages_, kMemory = kStages * kStage;
  unsigned char* memory;

  // Row r of the 16 is `row(r)`; what was there has been read. A group of copies.
  template <class Row>
  __device__ __forceinline__ void fill(int stage, Row row) const {
    constexpr int kChunks = kBytes / 16;
    __syncwarp();
#pragma unroll
    for (int i = static_cast<int>(threadIdx.x) % kWarp; i < kRows * kChunks; i += kWarp) {
      copy_async_16(memory + stage * kStage + i / kChunks * kPitch + i % kChunks * 16,
                    row(i / kChunks) + i % kChunks * 16, true);
    }
    copy_commit();
  }
  // For the oldest of kStages groups.
  __device__ __forceinline__ void wait() const {
    copy_wait<kStages - 1>();
    __syncwarp();
  }
  __device__ __forceinline__ const unsigned char* at(int stage, int row) const {
    return memory + stage * kStage + row * kPitch;
  }
};

}  // namespace dsv::cuda
