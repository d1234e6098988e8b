// What the kernels of attend_wgmma.cu and attend_wgmma_mix.cu share: the operands' values, a tile's results
// and how they are added up.
#pragma once

#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace dsv::cuda::hopper {

inline constexpr int kHeads = 64, kTile = kAttendMmaTile;  // of a block; tokens
inline constexpr int kRank = 512, kParts = 4, kPart = kRank / kParts;
inline constexpr int kBlock = 64 * 128;  // bytes of 64 rows of 64 values
inline constexpr int kGroup = kWarpgroup;

// Of a tile and a head: its largest score, in units of log 2 and rounded up, and the sum of its weights.
struct alignas(8) Stat {
  int32_t maximum;
  float total;
};

// Adds up the weights that the scores' kernel wrote.
void launch_mix(const AttendRowsArgs&, Stream);

#ifdef DSV_WGMMA_CODE

// A warpgroup's accumulators: thread (warp, g = lane / 4, t = lane % 4) has of rows 16 warp + g and + 8 the
// columns 8 i + 2 t, + 1, as x[4 i], x[4 i + 1] and x[4 i + 2], x[4 i + 3].
__device__ __forceinline__ int own_row() {
  return threadIdx.x % kGroup / kWarp * 16 + threadIdx.x % kWarp / 4;
}

// Sixteen codes times their scale as f16. A scale is a power of two and a code has 4 bits, so this is exact
// if the scale is 2^-15 to 2^7: latents of 2^-24 to 57344.
__device__ __forceinline__ void latent_values(const uint4& codes, uint32_t scale, uint32_t (&out)[8]) {
  e4m3_to_f16(codes, out);
#pragma unroll
  for (uint32_t& word : out) word = mul_f16(word, scale);
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

__device__ __forceinline__ void write_mixed(const AttendRowsArgs& a, int64_t r, int head, int column, float x,
                                            float y, float inverse) {
  *reinterpret_cast<Pair*>(a.mixed + (r * a.heads + head) * kRank + column) = {round_bf16(x * inverse),
                                                                               round_bf16(y * inverse)};
}

#endif

}  // namespace dsv::cuda::hopper
