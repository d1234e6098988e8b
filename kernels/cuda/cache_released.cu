// The cache's writer and the index queries for the released head geometry (512 + 64 latent, 128 index), in
// `official`. A warp holds a vector of 128 in registers, four neighbours a lane: RoPE and Hadamard are
// shuffles, maxima and sums are a warp's, so that nothing but the latent's norm waits for other warps.
//
// Bound: memory for index queries (64 heads: 32 KB in, 8 KB out for a row; 4096 rows take 56 us at 3 TB/s),
// for a token's cache rows (3 KB in, 788 bytes out) the latency of a few dependent steps.
#include "kernels/cuda/cache.h"
#include "kernels/cuda/codes.cuh"

namespace dsv::cuda {
namespace {

constexpr int kDim = 128, kRank = 512, kRope = 64, kHalf = kRope / 2;
constexpr int kQueryWarps = 4, kQueryThreads = kQueryWarps * kWarp;
constexpr int kLatentWarps = kRank / kDim, kAppendThreads = (kLatentWarps + 2) * kWarp;

// Four neighbouring values of a vector of 128: 4 lane .. 4 lane + 3.
struct Four {
  float at[4];
};
__device__ __forceinline__ Four load_four(const float* vector) {
  const float4 x = reinterpret_cast<const float4*>(vector)[threadIdx.x % kWarp];
  return {{x.x, x.y, x.z, x.w}};
}

// RoPE on pairs (i, i + 32) of the first 64 values.
__device__ __forceinline__ void rope_halves(Four& x, const float* cos, const float* sin) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float other = __shfl_xor_sync(kAllLanes, x.at[i], kHalf / 4);
    if (lane >= kRope / 4) continue;
    const int pair = (4 * lane + i) % kHalf;
    const float c = cos[pair], s = sin[pair];
    x.at[i] = lane < kHalf / 4 ? x.at[i] * c - other * s : other * s + x.at[i] * c;
  }
}

__device__ __forceinline__ void hadamard(Four& x) {
  const auto butterfly = [&](int a, int b) {
    const float low = x.at[a], high = x.at[b];
    x.at[a] = low + high;
    x.at[b] = low - high;
  };
  butterfly(0, 1);
  butterfly(2, 3);
  butterfly(0, 2);
  butterfly(1, 3);
#pragma unroll
  for (int lanes = 1; lanes < kWarp; lanes *= 2) {
    const bool high = threadIdx.x % kWarp & lanes;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float other = __shfl_xor_sync(kAllLanes, x.at[i], lanes);
      x.at[i] = high ? other - x.at[i] : x.at[i] + other;
    }
  }
  const float factor = 1 / sqrtf(static_cast<float>(kDim));
#pragma unroll
  for (int i = 0; i < 4; ++i) x.at[i] *= factor;
}

// Writes the 128 codes, whose address is a multiple of 4, and returns their scale.
__device__ __forceinline__ float quantise(const Four& x, bool power_of_two, unsigned char* out) {
  const float largest = fmaxf(fmaxf(fabsf(x.at[0]), fabsf(x.at[1])), fmaxf(fabsf(x.at[2]), fabsf(x.at[3])));
  const float scale = e4m3_scale(warp_max(largest), power_of_two);
  reinterpret_cast<uint32_t*>(out)[threadIdx.x % kWarp] = four_e4m3(x.at, scale, power_of_two);
  return scale;
}

// A warp a head of a row.
__global__ void __launch_bounds__(kQueryThreads) index_query_kernel(IndexQueryArgs a) {
  begin_early();
  const uint32_t i = blockIdx.x * kQueryWarps + threadIdx.x / kWarp, heads = static_cast<uint32_t>(a.heads);
  if (i >= static_cast<uint32_t>(a.rows) * heads) return;  // rows and heads are below 2^16
  const int64_t r = i / heads, h = i % heads;
  Four x = load_four(a.in + int64_t{i} * kDim);
  rope_halves(x, a.cos + r * kHalf, a.sin + r * kHalf);
  hadamard(x);
  unsigned char* row = a.out + r * a.out_stride;
  const float scale = quantise(x, a.power_of_two, row + h * kDim);
  if (threadIdx.x % kWarp == 0) reinterpret_cast<float*>(row + a.heads * kDim)[h] = scale;
}

// A block a token: four warps a group of 128 of the latent each, one its RoPE values, one the index key.
// Shared: a sum of squares for each of the four.
__global__ void __launch_bounds__(kAppendThreads) append_kernel(CacheAppendRowsArgs a) {
  begin_early();
  auto* squares = reinterpret_cast<float*>(shared_memory());
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t r = blockIdx.x, position = a.step.position[r], slot = position % kPageTokens;
  const int64_t page =
      a.step.page_table[int64_t{a.step.sequence[r]} * a.step.page_stride + position / kPageTokens];
  const float *cos = a.step.cos + r * kHalf, *sin = a.step.sin + r * kHalf;
  const float* raw = a.kv_raw + r * (kRank + kRope);
  unsigned char* row = a.cache.latent + (page * kPageTokens + slot) * a.cache.latent_row_bytes;
  Four x = {};
  if (warp < kLatentWarps) {
    x = load_four(raw + warp * kDim);
    float sum = 0;
    for (int i = 0; i < 4; ++i) sum = fmaf(x.at[i], x.at[i], sum);
    sum = warp_sum(sum);
    if (lane == 0) squares[warp] = sum;
  }
  __syncthreads();
  if (warp < kLatentWarps) {
    const Four weight = load_four(a.kv_a_norm + warp * kDim);
    float sum = 0;
    for (int w = 0; w < kLatentWarps; ++w) sum += squares[w];
    const float factor = 1 / sqrtf(sum / static_cast<float>(kRank) + a.eps);
    for (int i = 0; i < 4; ++i) x.at[i] = x.at[i] * factor * weight.at[i];
    const float scale = quantise(x, true, row + warp * kDim);
    if (lane == 0) reinterpret_cast<float*>(row + kRank)[warp] = scale;
  } else if (warp == kLatentWarps) {  // interleaved pairs, one a lane
    const auto pair = reinterpret_cast<const float2*>(raw + kRank)[lane];
    const float c = cos[lane], s = sin[lane];
    const uint32_t even = float_to_bf16(pair.x * c - pair.y * s),
                   odd = float_to_bf16(pair.x * s + pair.y * c);
    reinterpret_cast<uint32_t*>(row + kRank + 4 * kLatentWarps)[lane] = even | odd << 16;
  } else {
    x = load_four(a.index_k_raw + r * kDim);
    const Four weight = load_four(a.k_norm_weight), bias = load_four(a.k_norm_bias);
    const float mean = warp_sum(x.at[0] + x.at[1] + x.at[2] + x.at[3]) / static_cast<float>(kDim);
    float sum = 0;
    for (int i = 0; i < 4; ++i) sum = fmaf(x.at[i] - mean, x.at[i] - mean, sum);
    const float factor = 1 / sqrtf(warp_sum(sum) / static_cast<float>(kDim) + a.eps);
    for (int i = 0; i < 4; ++i) x.at[i] = (x.at[i] - mean) * factor * weight.at[i] + bias.at[i];
    rope_halves(x, cos, sin);
    hadamard(x);
    unsigned char* keys = a.cache.index + page * a.cache.index_page_bytes;
    const float scale = quantise(x, a.power_of_two, keys + slot * kDim);
    if (lane == 0) reinterpret_cast<float*>(keys + kPageTokens * kDim)[slot] = scale;
  }
}

}  // namespace

bool takes_released(const CacheAppendRowsArgs& a) {
  return a.cache.official && a.cache.rank == kRank && a.cache.rope == kRope && a.cache.index_dim == kDim;
}
bool takes_released(const IndexQueryArgs& a) { return a.official && a.dim == kDim && a.rope == kRope; }

void launch_cache_append_released(const CacheAppendRowsArgs& a, Stream stream) {
  launch(append_kernel, {a.rows, 1, 1, a.early}, kAppendThreads, 4 * kLatentWarps, stream, a);
}
void launch_index_query_released(const IndexQueryArgs& a, Stream stream) {
  launch(index_query_kernel, {(int64_t{a.rows} * a.heads + kQueryWarps - 1) / kQueryWarps, 1, 1, a.early},
         kQueryThreads, 0, stream, a);
}

}  // namespace dsv::cuda
