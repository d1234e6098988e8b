// How attend_mma.cu's latents and queries come to shared memory, and what they look like there.
#pragma once

#include "kernels/cuda/attend.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/queries.cuh"

namespace dsv::cuda {
namespace {

constexpr int kThreads = 256, kTile = kAttendMmaTile;
constexpr int kRank = 512, kRope = 64;
constexpr int kParts = 4, kPart = kRank / kParts;  // of a latent: a scale each
static_assert(kPart == kQuantBlock && kRope == 16 * kParts && kThreads == 2 * kParts * kWarp);
constexpr int kTokens = kTile / 2;      // of a tile: a warp scores a quarter of their values
constexpr int kPartSteps = kPart / 16;  // of a matrix product, and one more for RoPE

// Rows in shared memory, in values: 16 bytes more than a multiple of 128, so that 8 rows lie in different
// banks.
constexpr int kLatentRow = kRank + kRope + 8, kWeightRow = kTile + 8;  // 16-bit
constexpr int kScoreRow = kTile + 8;                                   // f32
// In every other 64 latent values, each 8 lie in their neighbours' place, so that threads which write 16
// values each meet different banks.
constexpr int swapped(int column) { return column / 64 % 2; }

struct Tile {
  uint16_t latents[kTile * kLatentRow];  // [kTile]: f16 [kRank], bf16 [kRope]
  float scales[kParts * kTile];          // [kParts][kTile]
};

// What a thread brings of one latent: 16 codes of each quarter, an eighth of the RoPE values, and the first
// four of a latent's eight threads a scale each.
struct Raw {
  uint4 codes[kParts];
  uint4 rope;
  float scale;
};

// A row's positions in the order of their use, and where their latents lie.
struct Source {
  const int32_t* selected;  // or null: all
  const int32_t* pages;
  const unsigned char* latent;
  int32_t end;

  __device__ __forceinline__ int32_t position(int32_t at) const {
    return at >= end ? -1 : selected ? selected[at] : at;
  }
  __device__ __forceinline__ int32_t slot(int32_t position) const {
    return position < 0 ? -1 : pages[position / kPageTokens] * kPageTokens + position % kPageTokens;
  }
  __device__ __forceinline__ void load(int32_t slot, int eighth, Raw& raw) const {
    if (slot < 0) {
#pragma unroll
      for (int i = 0; i < kParts; ++i) raw.codes[i] = uint4{0, 0, 0, 0};
      raw.rope = uint4{0, 0, 0, 0};
      raw.scale = 0;
      return;
    }
    const unsigned char* row = latent + int64_t{slot} * kAttendMmaRowBytes;
#pragma unroll
    for (int i = 0; i < kParts; ++i) {
      raw.codes[i] = *reinterpret_cast<const uint4*>(row + kPart * i + 16 * eighth);
    }
    raw.rope = *reinterpret_cast<const uint4*>(row + kRank + 4 * kParts + 16 * eighth);
    if (eighth < kParts) raw.scale = *reinterpret_cast<const float*>(row + kRank + 4 * eighth);
  }
};

// A quarter of a thread's part of a latent; with the first its RoPE values and its scale.
__device__ __forceinline__ void store_latent(Tile& tile, int token, int eighth, const Raw& raw, int quarter) {
  uint16_t* row = tile.latents + token * kLatentRow;
  uint32_t w[8];
  e4m3_to_f16(raw.codes[quarter], w);
  uint16_t* to = row + kPart * quarter + 16 * eighth;
  const int swap = eighth / 4;  // swapped() of these columns
  *reinterpret_cast<uint4*>(to + 8 * swap) = uint4{w[0], w[1], w[2], w[3]};
  *reinterpret_cast<uint4*>(to + 8 * (1 - swap)) = uint4{w[4], w[5], w[6], w[7]};
  if (quarter > 0) return;
  *reinterpret_cast<uint4*>(row + kRank + 8 * eighth) = raw.rope;
  if (eighth < kParts) tile.scales[eighth * kTile + token] = raw.scale;
}

// Queries of kGroups * 16 heads to shared memory, in the latents' place, times a power of two that brings the
// largest of the absorbed part to [2^14, 2^15) if it is not tiny: that part as f16, the RoPE part as bf16.
// Heads past the last are zero.
template <int kGroups>
struct QueryLoad {
  static constexpr int kLanes = kThreads / (16 * kGroups), kChunks = kRank / 8 / kLanes;
  uint4 chunk[kChunks];
  QueryPairs<kRope / kLanes / 2> rope;

  __device__ __forceinline__ void load(const AttendRowsArgs& a, int64_t r, int first_head) {
    const int lane = threadIdx.x % kLanes, head = first_head + static_cast<int>(threadIdx.x) / kLanes;
    const bool there = head < a.heads;
    const int64_t at = r * a.heads + head;
    const auto* q_abs = static_cast<const uint16_t*>(a.q_abs) + at * kRank;
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      chunk[i] = there ? *reinterpret_cast<const uint4*>(q_abs + 8 * (lane + kLanes * i)) : uint4{0, 0, 0, 0};
    }
    rope.load({a.q, at, a.head_dim}, a.head_dim - kRope + kRope / kLanes * lane, there);
  }

  __device__ __forceinline__ void store(uint16_t* queries, float* query_factor, float to_log2) const {
    const int lane = threadIdx.x % kLanes, head = static_cast<int>(threadIdx.x) / kLanes;
    uint32_t largest = 0;
    const auto larger = [&](uint32_t word) {
      const uint32_t low = word & 0x7FFF, high = word >> 16 & 0x7FFF;
      largest = largest > low ? largest : low;
      largest = largest > high ? largest : high;
    };
#pragma unroll
    for (int i = 0; i < kChunks; ++i)
      larger(chunk[i].x), larger(chunk[i].y), larger(chunk[i].z), larger(chunk[i].w);
    for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) {
      const uint32_t other = __shfl_xor_sync(kAllLanes, largest, lanes);
      largest = largest > other ? largest : other;
    }
    int exponent = 127 + 14 - static_cast<int>(largest >> 7);
    if (exponent > 60) exponent = 60;
    const float factor = float_of(static_cast<uint32_t>(127 + exponent) << 23);
    const auto scaled = [factor](uint32_t word) {
      return pack_f16(float_of(word << 16) * factor, float_of(word & 0xFFFF0000u) * factor);
    };
    uint16_t* row = queries + head * kLatentRow;
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      *reinterpret_cast<uint4*>(row + 8 * (lane + kLanes * i)) =
          uint4{scaled(chunk[i].x), scaled(chunk[i].y), scaled(chunk[i].z), scaled(chunk[i].w)};
    }
    auto* to = reinterpret_cast<uint32_t*>(row + kRank + kRope / kLanes * lane);
#pragma unroll
    for (int i = 0; i < kRope / kLanes / 2; ++i) to[i] = rope.scaled(i, factor);
    if (lane == 0) query_factor[head] = to_log2 * float_of(static_cast<uint32_t>(127 - exponent) << 23);
  }
};

}  // namespace
}  // namespace dsv::cuda
