// Sparse MLA in the absorbed form: all heads of a row look at the same latents (MQA).
//
// Bound for one row of the released model (128 heads, 2048 positions): 128 * 2048 * (576 + 512) multiply-adds
// = 285 M, 9 us on FP32 units; the latents' 1.3 MB are nothing. This plain kernel takes both factors of the
// scores from shared memory, and each of 16 blocks of heads expands the latents anew. The released latent in
// `official` goes to attend_mma.cu.
#include "kernels/cuda/attend.h"
#include "kernels/cuda/formats.h"
#include "kernels/cuda/packed.h"
#include "kernels/cuda/reduce.cuh"

namespace dsv::cuda {
namespace {

constexpr int kThreads = 128;  // one for each (head, position) of a tile
static_assert(kThreads == kAttendTile * kAttendHeads);

// The i-th value of a latent row.
__device__ __forceinline__ float latent_at(const CacheView& c, const unsigned char* row, int64_t i) {
  if (!c.official) return load_f32(row + 4 * i);
  const unsigned char* scales = row + c.rank;
  if (i < c.rank) return e4m3_to_float(row[i]) * load_f32(scales + 4 * (i / kQuantBlock));
  const unsigned char* at = scales + 4 * ((c.rank + kQuantBlock - 1) / kQuantBlock) + 2 * (i - c.rank);
  return bf16_to_float(static_cast<uint16_t>(at[0] | at[1] << 8));
}

// A block: one split of a row's positions for kAttendHeads heads, tile by tile with a running maximum; writes
// sum e^(s - m) c, m and sum e^(s - m). Shared: latents of a tile [kAttendTile][width] (width odd, against
// bank conflicts), queries [kAttendHeads][width], weights [kAttendHeads][kAttendTile], mixes
// [kAttendHeads][rank], and the running maxima, sums and factors.
__global__ void attend_kernel(AttendRowsArgs a) {
  const int64_t rank = a.cache.rank, dim = rank + a.cache.rope, width = dim | 1;
  auto* latents = reinterpret_cast<float*>(shared_memory());
  float* queries = latents + kAttendTile * width;
  float* weights = queries + kAttendHeads * width;
  float* mix = weights + kAttendHeads * kAttendTile;
  float* maximum = mix + kAttendHeads * rank;
  float* total = maximum + kAttendHeads;
  float* factor = total + kAttendHeads;

  const int64_t r = blockIdx.z, split = blockIdx.y;
  const int32_t first_head = static_cast<int32_t>(blockIdx.x) * kAttendHeads;
  const int32_t n = a.selected ? a.n_selected[r] : a.step.position[r] + 1;
  const int32_t per_split = attend_split(n), begin = static_cast<int32_t>(split) * per_split;
  if (begin >= n) return;
  const int32_t end = n - begin < per_split ? n : begin + per_split;
  const int heads = a.heads - first_head < kAttendHeads ? a.heads - first_head : kAttendHeads;
  const int32_t* pages = a.step.page_table + int64_t{a.step.sequence[r]} * a.step.page_stride;
  const auto *q_abs = static_cast<const float*>(a.q_abs), *q = static_cast<const float*>(a.q.data);
  const int tid = threadIdx.x, head = tid / kAttendTile, slot = tid % kAttendTile;

  for (int64_t i = tid; i < heads * dim; i += kThreads) {
    const int64_t h = i / dim, j = i % dim, from = r * a.heads + first_head + h;
    queries[h * width + j] = j < rank ? q_abs[from * rank + j] : q[(from + 1) * a.head_dim - dim + j];
  }
  for (int64_t i = tid; i < heads * rank; i += kThreads) mix[i] = 0;
  if (tid < heads) {
    maximum[tid] = -INFINITY;
    total[tid] = 0;
  }
  for (int32_t at = begin; at < end; at += kAttendTile) {
    const int count = end - at < kAttendTile ? end - at : kAttendTile;
    __syncthreads();
    for (int64_t i = tid; i < count * dim; i += kThreads) {
      const int64_t s = i / dim, j = i % dim;
      const int32_t position = a.selected ? a.selected[r * a.topk + at + s] : static_cast<int32_t>(at + s);
      const unsigned char* row =
          a.cache.latent + (int64_t{pages[position / kPageTokens]} * kPageTokens + position % kPageTokens) *
                               a.cache.latent_row_bytes;
      latents[s * width + j] = latent_at(a.cache, row, j);
    }
    __syncthreads();
    if (head < heads && slot < count) {
      float score = 0;
      const float *q = queries + head * width, *c = latents + slot * width;
      for (int64_t j = 0; j < dim; ++j) score = fmaf(q[j], c[j], score);
      weights[tid] = score * a.softmax_scale;
    }
    __syncthreads();
    if (tid < heads) {  // a thread a head: 16 values
      float* w = weights + tid * kAttendTile;
      float largest = maximum[tid];
      for (int s = 0; s < count; ++s) largest = fmaxf(largest, w[s]);
      const float shrink = expf(maximum[tid] - largest);
      float sum = total[tid] * shrink;
      for (int s = 0; s < count; ++s) sum += w[s] = expf(w[s] - largest);
      maximum[tid] = largest;
      total[tid] = sum;
      factor[tid] = shrink;
    }
    __syncthreads();
    for (int64_t j = tid; j < rank; j += kThreads) {
      float sum[kAttendHeads];
#pragma unroll
      for (int h = 0; h < kAttendHeads; ++h) {
        if (h < heads) sum[h] = mix[h * rank + j] * factor[h];
      }
      for (int s = 0; s < count; ++s) {
        const float c = latents[s * width + j];
#pragma unroll
        for (int h = 0; h < kAttendHeads; ++h) {
          if (h < heads) sum[h] = fmaf(weights[h * kAttendTile + s], c, sum[h]);
        }
      }
#pragma unroll
      for (int h = 0; h < kAttendHeads; ++h) {
        if (h < heads) mix[h * rank + j] = sum[h];
      }
    }
  }
  __syncthreads();
  float* out = a.partial + ((r * a.splits + split) * a.heads + first_head) * (rank + 2);
  for (int64_t i = tid; i < heads * rank; i += kThreads) out[i / rank * (rank + 2) + i % rank] = mix[i];
  if (tid < heads) {
    out[tid * (rank + 2) + rank] = maximum[tid];
    out[tid * (rank + 2) + rank + 1] = total[tid];
  }
}

// The splits of a (row, head) in order.
__global__ void combine_kernel(AttendRowsArgs a) {
  const int64_t rank = a.cache.rank, width = padded(rank), h = blockIdx.x, r = blockIdx.y;
  const int32_t n = a.selected ? a.n_selected[r] : a.step.position[r] + 1, splits = attend_splits(n);
  const int64_t stride = int64_t{a.heads} * (rank + 2);
  const float* parts = a.partial + (r * a.splits * a.heads + h) * (rank + 2);
  float largest = parts[rank];
  for (int32_t s = 1; s < splits; ++s) largest = fmaxf(largest, parts[s * stride + rank]);
  float total = 0;
  for (int32_t s = 0; s < splits; ++s) {
    total = fmaf(parts[s * stride + rank + 1], expf(parts[s * stride + rank] - largest), total);
  }
  float* out = a.mixed + (r * a.heads + h) * width;
  for (int64_t j = threadIdx.x; j < width; j += blockDim.x) {
    float sum = 0;
    for (int32_t s = 0; j < rank && s < splits; ++s) {
      sum = fmaf(parts[s * stride + j], expf(parts[s * stride + rank] - largest), sum);
    }
    const float mixed = sum / total;
    out[j] = a.to_bf16 ? round_bf16(mixed) : mixed;
  }
}

}  // namespace

int64_t attend_shared_bytes(int64_t rank, int64_t rope) {
  const int64_t width = (rank + rope) | 1;
  return 4 * (kAttendTile * width + kAttendHeads * width + kAttendHeads * kAttendTile + kAttendHeads * rank +
              3 * kAttendHeads);
}

int32_t attend_even_rows(int32_t heads, int32_t most) {
  const int32_t blocks = (heads + 63) / 64, at_once = processors();
  const int32_t times = on_hopper() ? most * blocks / at_once : 0;
  return times > 0 ? times * at_once / blocks : most;
}

bool attend_prefers_splits(const AttendRowsArgs& a) {
  // A third of a GPU would be busy without.
  if (!takes_attend_wgmma(a)) return a.rows * ((a.heads + 15) / 16) <= 47;
  return a.rows * ((a.heads + 63) / 64) <= 47 && attend_cluster(a) == 1;
}

bool takes_attend_wgmma(const AttendRowsArgs& a) { return attend_wgmma(a) && on_hopper(); }

void launch_attend(const AttendRowsArgs& a, Stream stream) {
  if (attend_mma(a.cache.official, a.cache.rank, a.cache.rope)) {
    if (!takes_attend_wgmma(a)) return launch_attend_mma(a, stream);
    return a.expanded && a.splits == 1 ? launch_attend_expanded(a, stream) : launch_attend_wgmma(a, stream);
  }
  launch(attend_kernel, {(a.heads + kAttendHeads - 1) / kAttendHeads, a.splits, a.rows}, kThreads,
         attend_shared_bytes(a.cache.rank, a.cache.rope), stream, a);
  launch(combine_kernel, {a.heads, a.rows}, kThreads, 0, stream, a);
}

}  // namespace dsv::cuda
