// The cache's writer, and index queries: norms, RoPE, Hadamard and quantisation of a token's vectors, for
// every geometry and in both precisions. Bound by the launch: a token's rows are 656 + 132 bytes. The
// released geometry goes to cache_released.cu.
#include "kernels/cuda/cache.h"
#include "kernels/cuda/formats.h"
#include "kernels/cuda/reduce.cuh"

namespace dsv::cuda {
namespace {

constexpr int kThreads = 128, kQueryThreads = kWarp;

// Pairs (i, i + half).
__device__ void rope_halves(float* x, const float* cos, const float* sin, int64_t half) {
  for (int64_t i = threadIdx.x; i < half; i += blockDim.x) {
    const float a = x[i], b = x[i + half];
    x[i] = a * cos[i] - b * sin[i];
    x[i + half] = a * sin[i] + b * cos[i];
  }
  __syncthreads();
}

// x_i <- n^-0.5 sum_j (-1)^popcount(i & j) x_j, n a power of two, by butterflies.
__device__ void hadamard(float* x, int64_t n) {
  for (int64_t step = 1; step < n; step *= 2) {
    for (int64_t i = threadIdx.x; i < n / 2; i += blockDim.x) {
      const int64_t low = i / step * 2 * step + i % step;
      const float a = x[low], b = x[low + step];
      x[low] = a + b;
      x[low + step] = a - b;
    }
    __syncthreads();
  }
  const float factor = 1 / sqrtf(static_cast<float>(n));
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) x[i] *= factor;
  __syncthreads();
}

// The scale of n values that become e4m3 with one scale.
__device__ float block_scale(const float* x, int64_t n, bool power_of_two, float* shared) {
  float amax = 0;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) amax = fmaxf(amax, fabsf(x[i]));
  return e4m3_scale(block_max(amax, shared), power_of_two);
}

__device__ void append_latent(const CacheAppendRowsArgs& a, int64_t r, unsigned char* row, float* x,
                              float* shared) {
  const int64_t rank = a.cache.rank, half = a.cache.rope / 2;
  const float* raw = a.kv_raw + r * (rank + a.cache.rope);
  float squares = 0;
  for (int64_t i = threadIdx.x; i < rank; i += blockDim.x) squares = fmaf(raw[i], raw[i], squares);
  const float factor = 1 / sqrtf(block_sum(squares, shared) / static_cast<float>(rank) + a.eps);
  for (int64_t i = threadIdx.x; i < rank; i += blockDim.x) x[i] = raw[i] * factor * a.kv_a_norm[i];
  for (int64_t i = threadIdx.x; i < half; i += blockDim.x) {  // interleaved pairs
    const float even = raw[rank + 2 * i], odd = raw[rank + 2 * i + 1];
    const float c = a.step.cos[r * half + i], s = a.step.sin[r * half + i];
    x[rank + 2 * i] = even * c - odd * s;
    x[rank + 2 * i + 1] = even * s + odd * c;
  }
  __syncthreads();
  if (!a.cache.official) {
    for (int64_t i = threadIdx.x; i < rank + a.cache.rope; i += blockDim.x) store_f32(row + 4 * i, x[i]);
    return;
  }
  unsigned char* scales = row + rank;
  const int64_t groups = (rank + kQuantBlock - 1) / kQuantBlock;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t begin = g * kQuantBlock, n = rank - begin < kQuantBlock ? rank - begin : kQuantBlock;
    const float scale = block_scale(x + begin, n, true, shared);
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
      row[begin + i] = static_cast<unsigned char>(float_to_e4m3(x[begin + i] / scale));
    }
    if (threadIdx.x == 0) store_f32(scales + 4 * g, scale);
  }
  unsigned char* tail = scales + 4 * groups;
  for (int64_t i = threadIdx.x; i < a.cache.rope; i += blockDim.x) {
    const uint16_t code = float_to_bf16(x[rank + i]);
    tail[2 * i] = static_cast<unsigned char>(code);
    tail[2 * i + 1] = static_cast<unsigned char>(code >> 8);
  }
}

__device__ void append_index_key(const CacheAppendRowsArgs& a, int64_t r, unsigned char* page, int64_t slot,
                                 float* x, float* shared) {
  const int64_t dim = a.cache.index_dim, half = a.cache.rope / 2;
  const float* raw = a.index_k_raw + r * dim;
  float sum = 0, squares = 0;
  for (int64_t i = threadIdx.x; i < dim; i += blockDim.x) sum += raw[i];
  const float mean = block_sum(sum, shared) / static_cast<float>(dim);
  for (int64_t i = threadIdx.x; i < dim; i += blockDim.x)
    squares = fmaf(raw[i] - mean, raw[i] - mean, squares);
  const float factor = 1 / sqrtf(block_sum(squares, shared) / static_cast<float>(dim) + a.eps);
  for (int64_t i = threadIdx.x; i < dim; i += blockDim.x) {
    x[i] = (raw[i] - mean) * factor * a.k_norm_weight[i] + a.k_norm_bias[i];
  }
  __syncthreads();
  rope_halves(x, a.step.cos + r * half, a.step.sin + r * half, half);
  if (!a.cache.official) {
    for (int64_t i = threadIdx.x; i < dim; i += blockDim.x) store_f32(page + 4 * (slot * dim + i), x[i]);
    return;
  }
  hadamard(x, dim);
  const float scale = block_scale(x, dim, a.power_of_two, shared);
  for (int64_t i = threadIdx.x; i < dim; i += blockDim.x) {
    page[slot * dim + i] = static_cast<unsigned char>(float_to_e4m3(x[i] / scale));
  }
  if (threadIdx.x == 0) store_f32(page + kPageTokens * dim + 4 * slot, scale);
}

// A block a token. Shared: the latent, the index key, one float a warp.
__global__ void append_kernel(CacheAppendRowsArgs a) {
  begin_early();
  auto* x = reinterpret_cast<float*>(shared_memory());
  float* key = x + a.cache.rank + a.cache.rope;
  float* shared = key + a.cache.index_dim;
  const int64_t r = blockIdx.x, position = a.step.position[r], slot = position % kPageTokens;
  const int64_t page =
      a.step.page_table[int64_t{a.step.sequence[r]} * a.step.page_stride + position / kPageTokens];
  append_latent(a, r, a.cache.latent + (page * kPageTokens + slot) * a.cache.latent_row_bytes, x, shared);
  if (a.cache.index_dim == 0) return;
  append_index_key(a, r, a.cache.index + page * a.cache.index_page_bytes, slot, key, shared);
}

// A block a head of a row.
__global__ void index_query_kernel(IndexQueryArgs a) {
  begin_early();
  auto* x = reinterpret_cast<float*>(shared_memory());
  float* shared = x + a.dim;
  const int64_t h = blockIdx.x, r = blockIdx.y, half = a.rope / 2;
  const float* in = a.in + (r * a.heads + h) * a.dim;
  unsigned char* row = a.out + r * a.out_stride;
  for (int64_t i = threadIdx.x; i < a.dim; i += blockDim.x) x[i] = in[i];
  __syncthreads();
  rope_halves(x, a.cos + r * half, a.sin + r * half, half);
  if (!a.official) {
    auto* out = reinterpret_cast<float*>(row) + h * a.dim;
    for (int64_t i = threadIdx.x; i < a.dim; i += blockDim.x) out[i] = x[i];
    return;
  }
  hadamard(x, a.dim);
  const float scale = block_scale(x, a.dim, a.power_of_two, shared);
  for (int64_t i = threadIdx.x; i < a.dim; i += blockDim.x) {
    row[h * a.dim + i] = static_cast<unsigned char>(float_to_e4m3(x[i] / scale));
  }
  if (threadIdx.x == 0) reinterpret_cast<float*>(row + (a.heads * a.dim + 3) / 4 * 4)[h] = scale;
}

}  // namespace

void launch_cache_append(const CacheAppendRowsArgs& a, Stream stream) {
  if (takes_released(a)) return launch_cache_append_released(a, stream);
  const int64_t floats = a.cache.rank + a.cache.rope + a.cache.index_dim + kThreads / kWarp;
  launch(append_kernel, {a.rows, 1, 1, a.early}, kThreads, 4 * floats, stream, a);
}
void launch_index_query(const IndexQueryArgs& a, Stream stream) {
  if (takes_released(a)) return launch_index_query_released(a, stream);
  launch(index_query_kernel, {a.heads, a.rows, 1, a.early}, kQueryThreads, 4 * (a.dim + 1), stream, a);
}

}  // namespace dsv::cuda
