// What the kernels of attend_wgmma.cu, attend_wgmma_mix.cu, attend_cluster.cu and
// attend_expanded.cu share: the operands'
// values, a tile's weights and how they are added up.
#pragma once

#include "kernels/cuda/attend.h"
#include "kernels/cuda/copies.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/queries.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace dsv::cuda::hopper {

inline constexpr int kHeads = 64, kTile = kAttendMmaTile;  // of a block; tokens
inline constexpr int kRank = 512, kRope = 64, kParts = 4, kPart = kRank / kParts;
inline constexpr int kBlock = 64 * 128;                      // bytes of 64 rows of 64 values
inline constexpr int kRows = (kRank + kRope) / 64 * kBlock;  // bytes of 64 queries or latents
inline constexpr int kRopeBlock = kRank / 64;                // of those
inline constexpr int kRounds = kTile / 16;  // a tile is expanded and let go of so many latents at a time
inline constexpr float kWeightBits = 15;    // the largest weight is 2^15
inline constexpr int kGroup = kWarpgroup;

// Of a tile and a head: its largest score, in units of log 2 and rounded up, and the sum of its weights.
struct alignas(8) Stat {
  int32_t maximum;
  float total;
};

// Sixteen codes times their scale as f16. A scale is a power of two and a code has 4 bits, so this is exact
// if the scale is 2^-15 to 2^7: latents of 2^-24 to 57344.
__device__ __forceinline__ void latent_values(const uint4& codes, uint32_t scale, uint32_t (&out)[8]) {
  e4m3_to_f16(codes, out);
#pragma unroll
  for (uint32_t& word : out) word = mul_f16(word, scale);
}

// attend_cluster.cu: a.cluster blocks, 2 or 4, for 64 heads of a row.
void launch_cluster(const AttendRowsArgs& a, Stream);
// Adds up the weights that the scores' kernel wrote.
void launch_mix(const AttendRowsArgs&, Stream);

#ifdef DSV_HOPPER

// A warpgroup's accumulators: thread (warp, g = lane / 4, t = lane % 4) has of rows 16 warp + g and + 8 the
// columns 8 i + 2 t, + 1, as x[4 i], x[4 i + 1] and x[4 i + 2], x[4 i + 3].
__device__ __forceinline__ int own_row() {
  return threadIdx.x % kGroup / kWarp * 16 + threadIdx.x % kWarp / 4;
}

// Of a warp's 16 latents of a tile, four in each round, the one that lane l, or l + 16, looks up.
__device__ __forceinline__ int looked_up_token() {
  const int warp = threadIdx.x / kWarp % 4, l = threadIdx.x % 16;
  return l / 4 * 16 + 4 * warp + l % 4;
}

// Where 16-byte chunk c of head `own` is among the queries.
__device__ __forceinline__ int query_at(int own, int c) {
  return own * 128 + c / 8 * kBlock + ((c ^ own) & 7) * 16;
}

// Of 64 heads the query of head `own`, by four threads, times a power of two that brings the largest of the
// absorbed part to [2^14, 2^15) if it is not tiny: that part as f16, the RoPE part as bf16. Heads past the
// last are zero. A thread's first kHeld chunks go to `held` instead.
template <int kHeld = 0>
__device__ __forceinline__ void load_queries(const AttendRowsArgs& a, unsigned char* queries, float* factors,
                                             int64_t r, int first_head, int own, uint4* held = nullptr) {
  const int lane = threadIdx.x % 4, head = first_head + own;
  const bool there = head < a.heads;
  const int64_t at = r * a.heads + head;
  const auto* q_abs = static_cast<const uint16_t*>(a.q_abs) + at * kRank;
  uint4 chunk[16];
  QueryPairs<8> rope;
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    chunk[i] = there ? *reinterpret_cast<const uint4*>(q_abs + 8 * (lane + 4 * i)) : uint4{0, 0, 0, 0};
  }
  rope.load({a.q, at, a.head_dim}, a.head_dim - kRope + 16 * lane, there);
  uint32_t largest = 0;
  const auto larger = [&](uint32_t x) { largest = largest > x ? largest : x; };
#pragma unroll
  for (const uint4& c : chunk) {
    for (const uint32_t word : {c.x, c.y, c.z, c.w}) larger(word & 0x7FFF), larger(word >> 16 & 0x7FFF);
  }
  for (int lanes = 1; lanes <= 2; lanes *= 2) larger(__shfl_xor_sync(kAllLanes, largest, lanes));
  int exponent = 127 + 14 - static_cast<int>(largest >> 7);
  if (exponent > 60) exponent = 60;
  const float factor = float_of(static_cast<uint32_t>(127 + exponent) << 23);
  const auto scaled = [factor](uint32_t word) {
    return pack_f16(float_of(word << 16) * factor, float_of(word & 0xFFFF0000u) * factor);
  };
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const uint4 x = {scaled(chunk[i].x), scaled(chunk[i].y), scaled(chunk[i].z), scaled(chunk[i].w)};
    (i < kHeld ? held[i] : *reinterpret_cast<uint4*>(queries + query_at(own, lane + 4 * i))) = x;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    uint32_t w[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) w[j] = rope.scaled(4 * i + j, factor);
    *reinterpret_cast<uint4*>(queries + query_at(own, kRank / 8 + 2 * lane + i)) =
        uint4{w[0], w[1], w[2], w[3]};
  }
  if (lane == 0) {
    factors[own] = a.softmax_scale * 1.44269504f * float_of(static_cast<uint32_t>(127 - exponent) << 23);
  }
}

// The same in two parts: the absorbed part is copied to its place, and scaled there. What a block runs once
// is better short, for its code comes from memory.
__device__ __forceinline__ void copy_queries(const AttendRowsArgs& a, unsigned char* queries, int64_t r,
                                             int first_head, int own) {
  const int lane = threadIdx.x % 4, head = first_head + own;
  const bool there = head < a.heads;
  const auto* q_abs = static_cast<const uint16_t*>(a.q_abs) + (r * a.heads + (there ? head : 0)) * kRank;
#pragma unroll 2
  for (int i = 0; i < 16; ++i) {
    copy_async_16(queries + query_at(own, lane + 4 * i), q_abs + 8 * (lane + 4 * i), there);
  }
  copy_commit();
}
__device__ __forceinline__ void scale_queries(const AttendRowsArgs& a, unsigned char* queries, float* factors,
                                              int64_t r, int first_head, int own) {
  const int lane = threadIdx.x % 4, head = first_head + own;
  const bool there = head < a.heads;
  QueryPairs<8> rope;
  rope.load({a.q, r * a.heads + head, a.head_dim}, a.head_dim - kRope + 16 * lane, there);
  copy_wait<0>();
  uint32_t largest = 0;
  const auto larger = [&](uint32_t x) { largest = largest > x ? largest : x; };
#pragma unroll 4
  for (int i = 0; i < 16; ++i) {
    const uint4 c = *reinterpret_cast<const uint4*>(queries + query_at(own, lane + 4 * i));
    for (const uint32_t word : {c.x, c.y, c.z, c.w}) larger(word & 0x7FFF), larger(word >> 16 & 0x7FFF);
  }
  for (int lanes = 1; lanes <= 2; lanes *= 2) larger(__shfl_xor_sync(kAllLanes, largest, lanes));
  int exponent = 127 + 14 - static_cast<int>(largest >> 7);
  if (exponent > 60) exponent = 60;
  const float factor = float_of(static_cast<uint32_t>(127 + exponent) << 23);
  const auto scaled = [factor](uint32_t word) {
    return pack_f16(float_of(word << 16) * factor, float_of(word & 0xFFFF0000u) * factor);
  };
#pragma unroll 2
  for (int i = 0; i < 16; ++i) {
    auto& c = *reinterpret_cast<uint4*>(queries + query_at(own, lane + 4 * i));
    c = uint4{scaled(c.x), scaled(c.y), scaled(c.z), scaled(c.w)};
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    uint32_t w[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) w[j] = rope.scaled(4 * i + j, factor);
    *reinterpret_cast<uint4*>(queries + query_at(own, kRank / 8 + 2 * lane + i)) =
        uint4{w[0], w[1], w[2], w[3]};
  }
  if (lane == 0) {
    factors[own] = a.softmax_scale * 1.44269504f * float_of(static_cast<uint32_t>(127 - exponent) << 23);
  }
}

// 2^x for x <= 0, or 2^-126.
__device__ __forceinline__ float power_of_two(int32_t x) {
  return __uint_as_float(static_cast<uint32_t>(127 + (x > -126 ? x : -126)) << 23);
}

// A head's running maximum and total: powers of two bring what came before, and a tile's weights, to the
// maximum of both. So sums can be scaled at any time, or not at all where that is by 1.
struct Running {
  int32_t maximum = -1 << 24;
  float total = 0;
  float before;
  WordPair now;  // pairs of f16: their product

  __device__ __forceinline__ void fold(const Stat& stat) {
    const int32_t next = maximum > stat.maximum ? maximum : stat.maximum, fall = stat.maximum - next;
    before = power_of_two(maximum - next);
    total = fmaf(total, before, stat.total * power_of_two(fall));
    maximum = next;
    const int32_t first = fall > -14 ? fall : -14, second = fall - first;  // f16 has 2^-24, and no 2^-25
    now.x = pack_f16(power_of_two(first), power_of_two(first));
    now.y = pack_f16(power_of_two(second), power_of_two(second));
  }
};
// Two of a tile's weights, which are 2^15 at most, relative to the running maximum.
__device__ __forceinline__ uint32_t scaled(uint32_t weights, const WordPair& now) {
  return mul_f16(mul_f16(weights, now.x), now.y);
}

// Weights of a tile's first `count` latents: words[j][i] of rows g + 8 j and latents 8 i + 2 t, + 1.
__device__ __forceinline__ void tile_weights(float (&score)[32], const float* factors, int count,
                                             uint32_t (&words)[2][8], Stat (&stat)[2]) {
  if (count < kTile) {
    const int first = 2 * (threadIdx.x % 4);
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      if (i / 4 * 8 + first + i % 2 >= count) score[i] = -INFINITY;
    }
  }
  float largest[2] = {-INFINITY, -INFINITY}, factor[2], offset[2], total[2] = {0, 0};
#pragma unroll
  for (int i = 0; i < 32; ++i) largest[i / 2 % 2] = fmaxf(largest[i / 2 % 2], score[i]);
#pragma unroll
  for (int lanes = 1; lanes <= 2; lanes *= 2) {
#pragma unroll
    for (float& x : largest) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, lanes));
  }
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    factor[j] = factors[own_row() + 8 * j];
    const float maximum = fminf(fmaxf(ceilf(largest[j] * factor[j]), -0x1p20f), 0x1p20f);
    stat[j].maximum = __float2int_rn(maximum);
    offset[j] = kWeightBits - maximum;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const float* two = score + 4 * i + 2 * j;
      words[j][i] = pack_f16(exp2_fast(fmaf(two[0], factor[j], offset[j])),
                             exp2_fast(fmaf(two[1], factor[j], offset[j])));
      const Pair rounded = unpack_f16(words[j][i]);  // what is summed is what was rounded
      total[j] += rounded.x + rounded.y;
    }
  }
#pragma unroll
  for (int lanes = 1; lanes <= 2; lanes *= 2) {
#pragma unroll
    for (float& x : total) x += __shfl_xor_sync(kAllLanes, x, lanes);
  }
#pragma unroll
  for (int j = 0; j < 2; ++j) stat[j].total = total[j];
}

// What the scores' kernel leaves in `partial`, [R][blocks of heads][splits]: weights, a swizzled block [64
// heads] [64 latents], and behind all of them statistics, [64].
__device__ __forceinline__ int64_t first_result(const AttendRowsArgs& a, int64_t r, int64_t block) {
  return (r * ((a.heads + kHeads - 1) / kHeads) + block) * a.splits;
}
__device__ __forceinline__ unsigned char* weights_of(const AttendRowsArgs& a, int64_t result) {
  return reinterpret_cast<unsigned char*>(a.partial) + result * kBlock;
}
__device__ __forceinline__ Stat* stats_of(const AttendRowsArgs& a, int64_t result) {
  return reinterpret_cast<Stat*>(weights_of(a, first_result(a, a.rows, 0))) + result * kHeads;
}
// Where in such a block this thread's weights of row g + 8 j and latents 8 i + 2 t, + 1 are.
__device__ __forceinline__ int weights_at(int i, int j) {
  return (own_row() + 8 * j) * 128 + (i ^ threadIdx.x % kWarp / 4) * 16 + threadIdx.x % 4 * 4;
}

// Brings the sums of 256 values of 64 heads to a tile's maximum: `before` of rows g and g + 8.
__device__ __forceinline__ void rescale(float (&mix)[2][64], const float (&before)[2]) {
  if (__ballot_sync(kAllLanes, before[0] != 1 || before[1] != 1) == 0) return;
#pragma unroll
  for (int i = 0; i < 128; ++i) mix[i / 64][i % 64] *= before[i / 2 % 2];
}
// Begins to add a tile to them: a group of products for each round of latents, or one.
template <bool kByRounds>
__device__ __forceinline__ void begin_sums(float (&mix)[2][64], const unsigned char* weights,
                                           const unsigned char* latents) {
  const uint32_t a = block_descriptor(weights), b = wide_descriptor(latents);
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < kRounds; ++k) {
    wgmma_transposed(mix[0], a + 2 * k, b + 128 * k);
    wgmma_transposed(mix[1], a + 2 * k, b + 128 * k + 2 * (kBlock >> 4));
    if (kByRounds || k + 1 == kRounds) wgmma_commit();
  }
}

// Two neighbouring values of a head.
__device__ __forceinline__ void write_mixed(const AttendRowsArgs& a, int64_t r, int head, int column, float x,
                                            float y, float inverse) {
  const int64_t at = (r * a.heads + head) * kRank + column;
  x *= inverse, y *= inverse;
  if (a.codes) {
    *reinterpret_cast<uint32_t*>(a.codes + at) = pack_bf16(x, y);
  } else {
    *reinterpret_cast<Pair*>(a.mixed + at) = {round_bf16(x), round_bf16(y)};
  }
}

#endif

}  // namespace dsv::cuda::hopper
