// What the kernels of attend_wgmma.cu and attend_wgmma_mix.cu share: a tile's results and how they are added
// up.
#pragma once

#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace dsv::cuda::hopper {

inline constexpr int kHeads = 64, kTile = kAttendMmaTile;  // of a block; tokens
inline constexpr int kRank = 512, kParts = 4, kPart = kRank / kParts;
inline constexpr int kBlock = 64 * 128;  // bytes of 64 rows of 64 values
inline constexpr int kGroup = kWarpgroup;

struct alignas(8) Stat {
  float maximum, total;  // of a tile's scores, in units of log 2, and of its weights
};

// Adds up the weights that the scores' kernel wrote.
void launch_mix(const AttendRowsArgs&, Stream);

#ifdef DSV_WGMMA_CODE

__device__ __forceinline__ unsigned char* aligned_shared() {
  return shared_memory() + (1024 - shared_address(shared_memory()) % 1024) % 1024;
}

// A warpgroup's accumulators: thread (warp, g = lane / 4, t = lane % 4) has of rows 16 warp + g and + 8 the
// columns 8 i + 2 t, + 1, as x[4 i], x[4 i + 1] and x[4 i + 2], x[4 i + 3].
__device__ __forceinline__ int own_row() {
  return threadIdx.x % kGroup / kWarp * 16 + threadIdx.x % kWarp / 4;
}

// The largest scale of a tile's 64, or the power of two above it: 1 / it is exact.
struct Largest {
  float scale, inverse;
};
__device__ __forceinline__ Largest largest_scale(const float* scales) {
  const int lane = threadIdx.x % kWarp;
  uint32_t bits = __float_as_uint(fmaxf(fmaxf(scales[lane], scales[lane + kWarp]), 0x1p-100f));
  bits = (__reduce_max_sync(kAllLanes, bits) + 0x7FFFFFu) & 0x7F800000u;
  return {__uint_as_float(bits), __uint_as_float((254u << 23) - bits)};
}
// Weights of 16 latents times their scales, relative to the largest.
__device__ __forceinline__ void scale_weights(uint32_t (&a)[4], const uint4& weights, const float* scales,
                                              float inverse) {
  const int t = 2 * (threadIdx.x % 4);
  const Pair low = *reinterpret_cast<const Pair*>(scales + t),
             high = *reinterpret_cast<const Pair*>(scales + t + 8);
  const uint32_t low_factor = pack_f16(low.x * inverse, low.y * inverse);
  const uint32_t high_factor = pack_f16(high.x * inverse, high.y * inverse);
  a[0] = mul_f16(weights.x, low_factor);
  a[1] = mul_f16(weights.y, low_factor);
  a[2] = mul_f16(weights.z, high_factor);
  a[3] = mul_f16(weights.w, high_factor);
}

// Running maximum and total of two rows, and the factors of what came before and of a tile.
struct Running {
  float maximum[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0}, before[2], now[2];

  __device__ __forceinline__ void fold(const Stat& first, const Stat& second) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const Stat& stat = j == 0 ? first : second;
      const float next = fmaxf(maximum[j], stat.maximum);
      before[j] = exp2_fast(maximum[j] - next);
      now[j] = exp2_fast(stat.maximum - next);
      total[j] = fmaf(total[j], before[j], stat.total * now[j]);
      maximum[j] = next;
    }
  }
};
template <int kValues>
__device__ __forceinline__ void fold_values(float (&mix)[kValues], const float (&sum)[kValues],
                                            const Running& run, float largest) {
  const float now[2] = {run.now[0] * largest, run.now[1] * largest};
#pragma unroll
  for (int i = 0; i < kValues; ++i) mix[i] = fmaf(mix[i], run.before[i / 2 % 2], sum[i] * now[i / 2 % 2]);
}

// What the scores' kernel leaves in `partial`, [R][blocks of heads][splits]: weights, [4][128] uint4 as
// tile_weights has them, and behind all of them statistics, [64].
__device__ __forceinline__ int64_t first_result(const AttendRowsArgs& a, int64_t r, int64_t block) {
  return (r * ((a.heads + kHeads - 1) / kHeads) + block) * a.splits;
}
__device__ __forceinline__ uint4* weights_of(const AttendRowsArgs& a, int64_t result) {
  return reinterpret_cast<uint4*>(a.partial) + result * 4 * kGroup;
}
__device__ __forceinline__ Stat* stats_of(const AttendRowsArgs& a, int64_t result) {
  return reinterpret_cast<Stat*>(weights_of(a, first_result(a, a.rows, 0))) + result * kHeads;
}

__device__ __forceinline__ void write_mixed(const AttendRowsArgs& a, int64_t r, int head, int column, float x,
                                            float y, float inverse) {
  *reinterpret_cast<Pair*>(a.mixed + (r * a.heads + head) * kRank + column) = {round_bf16(x * inverse),
                                                                               round_bf16(y * inverse)};
}

#endif

}  // namespace dsv::cuda::hopper
