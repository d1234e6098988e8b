// Kernels over whole rows: angles, embedding, norms, rounding, RoPE of queries. All are bound by the bytes of
// their rows (a row of 7168 f32 is 28 KB: 10 ns at 3 TB/s), so at small batches by the launch itself.
#include "kernels/cuda/cluster.cuh"
#include "kernels/cuda/codes.cuh"
#include "kernels/cuda/decode.cuh"
#include "kernels/cuda/reduce.cuh"

namespace dsv::cuda {
namespace {

constexpr int kThreads = 256, kMostThreads = 1024;

__global__ void copy_words_kernel(CopyWordsArgs a) {
  begin_early();
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < a.words) a.to[i] = a.from[i];
}

// Angles in fp64: at position 160000 an f32 product would be wrong in the third digit of its sine.
__global__ void angles_kernel(AnglesArgs a) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= a.rows * a.half) return;
  const double angle = a.position[i / a.half] * a.inv_freq[i % a.half];
  a.cos[i] = static_cast<float>(cos(angle) * a.mscale);
  a.sin[i] = static_cast<float>(sin(angle) * a.mscale);
}

__global__ void embed_kernel(EmbedRowsArgs a) {
  begin_early();
  const int64_t r = blockIdx.x;
  const bool zero = a.position && a.position[r] == 0;
  for (int64_t c = threadIdx.x; c < a.table.cols; c += blockDim.x) {
    a.x[r * a.x_stride + c] = zero ? 0 : weight_at(a.table, a.token[r], c);
  }
}

// A block a row. A warp takes groups of 128 values, up to kKept of them from memory once and all loads in
// flight together, as few rows wait for memory and for nothing else; what is longer is read twice.
constexpr int kNormWarps = 32, kKept = 2;

// Few rows have clusters of blocks each on Hopper, which load and store four times as fast as one.
constexpr int kNormBlocks = 4, kNormFewRows = 8;
#if defined(DSV_CUDA_EMULATION) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900)
#define DSV_NORM_CLUSTERS 1
#endif

// The sum over all warps of a row, in the order of block_sum: of one block, or of a cluster's.
template <int kBlocks>
__device__ __forceinline__ float row_sum(float value, float* shared) {
  if constexpr (kBlocks == 1) {
    return block_sum(value, shared);
  } else {
#ifdef DSV_NORM_CLUSTERS
    const int lane = threadIdx.x % kWarp, warps = static_cast<int>(blockDim.x) / kWarp;
    const int warp = static_cast<int>(blockIdx.x) % kBlocks * warps + threadIdx.x / kWarp;
    value = warp_sum(value);
    cluster_wait();  // all blocks are there
    if (lane < kBlocks)
      store_to_block(reinterpret_cast<uint32_t*>(shared + warp), lane, __float_as_uint(value));
    cluster_arrive();
    cluster_wait();
    return warp_sum(lane < kBlocks * warps ? shared[lane] : 0);
#endif
  }
}

template <int kBlocks>
__device__ __forceinline__ void norm_row(const NormArgs& a) {
  auto* shared = reinterpret_cast<float*>(shared_memory());
  const int own_warps = static_cast<int>(blockDim.x) / kWarp, warps = kBlocks * own_warps,
            warp = static_cast<int>(blockIdx.x) % kBlocks * own_warps + threadIdx.x / kWarp;
  const int64_t groups = (a.n + kQuantBlock - 1) / kQuantBlock;
  const bool aligned = a.n % kPerLane == 0 && a.x_stride % kPerLane == 0 && a.out_stride % kPerLane == 0 &&
                       a.delta_stride % kPerLane == 0;
  const auto load = [&](const float* row, int64_t group, float(&to)[kPerLane]) {
    const int64_t i = group * kQuantBlock + threadIdx.x % kWarp * kPerLane;
    if (aligned && i < a.n) {
      const float4 four = *reinterpret_cast<const float4*>(row + i);
      to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
    } else {
#pragma unroll
      for (int j = 0; j < kPerLane; ++j) to[j] = i + j < a.n ? row[i + j] : 0;
    }
  };
  const auto store = [&](float* row, int64_t group, const float(&from)[kPerLane]) {
    const int64_t i = group * kQuantBlock + threadIdx.x % kWarp * kPerLane;
    if (aligned && i < a.n) {
      *reinterpret_cast<float4*>(row + i) = {from[0], from[1], from[2], from[3]};
    } else {
      for (int j = 0; j < kPerLane && i + j < a.n; ++j) row[i + j] = from[j];
    }
  };
  let_next_begin();
#ifdef DSV_NORM_CLUSTERS
  if constexpr (kBlocks > 1) cluster_begin();
#endif
  float kept[kKept][kPerLane] = {}, weight[kKept][kPerLane] = {}, more[kKept][kPerLane] = {}, squares = 0;
#pragma unroll
  for (int k = 0; k < kKept; ++k) {
    if (warp + k * warps < groups) load(a.weight, warp + k * warps, weight[k]);
  }
  wait_for_last();
  const int64_t r = blockIdx.x / kBlocks, from = a.row ? a.row[r] : r;
  const float* const x = a.x + from * a.x_stride;
  const float* const delta = a.delta ? a.delta + from * a.delta_stride : nullptr;
  const auto load_sum = [&](int64_t group, float(&to)[kPerLane], float(&second)[kPerLane]) {
    load(x, group, to);
    if (delta) load(delta, group, second);
  };
#pragma unroll
  for (int k = 0; k < kKept; ++k) {
    if (warp + k * warps < groups) load_sum(warp + k * warps, kept[k], more[k]);
  }
  const auto add = [&](float(&to)[kPerLane], const float(&second)[kPerLane]) {
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      if (delta) to[j] += second[j];
      squares = fmaf(to[j], to[j], squares);
    }
  };
#pragma unroll
  for (int k = 0; k < kKept; ++k) add(kept[k], more[k]);
  for (int64_t group = warp + kKept * warps; group < groups; group += warps) {
    float value[kPerLane], second[kPerLane];
    load_sum(group, value, second);
    add(value, second);
  }
  const float factor = 1 / sqrtf(row_sum<kBlocks>(squares, shared) / static_cast<float>(a.n) + a.eps);
  const CodeRows e4m3 = {a.e4m3, a.rows, packed_pitch(a.n, Rounding::e4m3), a.form};
  const CodeRows bf16 = {a.bf16, a.rows, packed_pitch(a.n, Rounding::bf16), PackedForm::by_row};
  const auto put = [&](int64_t group, const float(&value)[kPerLane], const float(&by)[kPerLane]) {
    if (a.x_out) store(a.x_out + r * a.x_stride, group, value);
    float normed[kPerLane];
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      normed[j] = value[j] * factor * by[j];
      if (a.to_bf16) normed[j] = round_bf16(normed[j]);
    }
    store(a.out + r * a.out_stride, group, normed);  // what this thread has read: in place is fine
    if (a.e4m3) put_e4m3(e4m3, r, group, normed, a.power_of_two);
    if (a.bf16) put_bf16(bf16, r, group, normed);
  };
#pragma unroll
  for (int k = 0; k < kKept; ++k) {
    if (warp + k * warps < groups) put(warp + k * warps, kept[k], weight[k]);
  }
  for (int64_t group = warp + kKept * warps; group < groups; group += warps) {
    float value[kPerLane], second[kPerLane], by[kPerLane];
    load_sum(group, value, second);
    for (int j = 0; j < kPerLane && delta; ++j) value[j] += second[j];
    load(a.weight, group, by);
    put(group, value, by);
  }
}

__global__ void norm_kernel(NormArgs a) { norm_row<1>(a); }
__global__ void norm_cluster_kernel([[maybe_unused]] NormArgs a) {
#ifdef DSV_NORM_CLUSTERS
  norm_row<kNormBlocks>(a);
#endif
}

// A warp for each group of 128 values.
__global__ void pack_kernel(PackArgs a) {
  begin_early();
  const int lane = threadIdx.x % kWarp;
  const int64_t groups = (a.cols + kQuantBlock - 1) / kQuantBlock, width = padded(a.cols);
  const int64_t group = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
  if (group >= a.rows * groups) return;
  const int64_t r = group / groups, begin = group % groups * kQuantBlock;
  float value[kPerLane], amax = 0;
  for (int i = 0; i < kPerLane; ++i) {
    const int64_t c = begin + lane + i * kWarp;
    value[i] = c < a.cols ? a.x[r * a.x_stride + c] : 0;
    amax = fmaxf(amax, fabsf(value[i]));
  }
  float scale = 1;
  if (a.rounding == Rounding::e4m3) scale = e4m3_scale(warp_max(amax), a.power_of_two);
  for (int i = 0; i < kPerLane; ++i) {
    const int64_t c = begin + lane + i * kWarp;
    if (c >= width) continue;
    float out = value[i];
    if (a.rounding == Rounding::e4m3) out = e4m3_to_float(float_to_e4m3(out / scale)) * scale;
    if (a.rounding == Rounding::bf16) out = round_bf16(out);
    a.out[r * width + c] = out;
  }
}

// A warp for each group of 128 values, and zeros up to the end of the row's last block.
__global__ void pack_codes_kernel(PackCodesArgs a) {
  begin_early();
  const bool e4m3 = a.rounding == Rounding::e4m3;
  const int64_t pitch = packed_pitch(a.cols, a.rounding), width = e4m3 ? pitch : pitch / 2;
  const int64_t groups = (width + kQuantBlock - 1) / kQuantBlock;
  const int64_t at = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
  if (at >= a.rows * groups) return;
  const int64_t r = at / groups, group = at % groups,
                first = group * kQuantBlock + threadIdx.x % kWarp * kPerLane;
  float value[kPerLane];
  const float* const x = a.x + r * a.x_stride + first;
  if (a.cols % kPerLane == 0 && a.x_stride % kPerLane == 0 && first < a.cols) {
    const float4 four = *reinterpret_cast<const float4*>(x);
    value[0] = four.x, value[1] = four.y, value[2] = four.z, value[3] = four.w;
  } else {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) value[i] = first + i < a.cols ? x[i] : 0;
  }
  const CodeRows to = {a.out, a.rows, pitch, a.form};
  e4m3 ? put_e4m3(to, r, group, value, a.power_of_two) : put_bf16(to, r, group, value);
}

// A block of threads a row.
__global__ void gather_rows_kernel(GatherRowsArgs a) {
  begin_early();
  const int64_t p = blockIdx.x, r = a.row[p];
  const auto* from = reinterpret_cast<const uint4*>(a.from.data + r * a.from.pitch);
  auto* to = reinterpret_cast<uint4*>(a.out + p * a.from.pitch);
  for (int64_t i = threadIdx.x; i < a.from.pitch / 16; i += blockDim.x) to[i] = from[i];
  auto* const scales = reinterpret_cast<float*>(a.out + a.rows * a.from.pitch);
  const bool by_row = a.from.form == PackedForm::by_row;
  const int64_t pitch = by_row ? a.from.scale_cols : (a.rows + 3) / 4 * 4;
  for (int64_t b = threadIdx.x; b < a.blocks; b += blockDim.x) {
    by_row ? scales[p * pitch + b] = a.from.scale[r * a.from.scale_cols + b]
           : scales[b * pitch + p] = a.from.scale[b * a.from.scale_cols + r];
  }
}

// A block kRopeHeads heads of a row.
constexpr int kRopeHeads = 8;
__global__ void rope_query_kernel(RopeQueryArgs a) {
  begin_early();
  const int64_t r = blockIdx.x, half = a.rope / 2, nope = a.head_dim - a.rope;
  const int64_t first = int64_t{blockIdx.y} * kRopeHeads;
  const int64_t heads = a.heads - first < kRopeHeads ? a.heads - first : kRopeHeads;
  float* const q = a.q + (r * a.heads + first) * a.head_dim;
  for (int64_t i = threadIdx.x; i < heads * half; i += blockDim.x) {
    float* const pair = q + i / half * a.head_dim + nope + 2 * (i % half);
    const float c = a.cos[r * half + i % half], s = a.sin[r * half + i % half];
    const float x = pair[0] * c - pair[1] * s, y = pair[0] * s + pair[1] * c;
    pair[0] = a.to_bf16 ? round_bf16(x) : x;
    pair[1] = a.to_bf16 ? round_bf16(y) : y;
  }
  if (!a.to_bf16) return;
  for (int64_t i = threadIdx.x; i < heads * nope; i += blockDim.x) {
    float* const value = q + i / nope * a.head_dim + i % nope;
    *value = round_bf16(*value);
  }
}

// Threads of a block that handles a row of n values.
int threads_for(int64_t n, int most = kThreads) {
  return n >= most ? most : static_cast<int>((n + kWarp - 1) / kWarp * kWarp);
}
int64_t blocks_for(int64_t threads) { return (threads + kThreads - 1) / kThreads; }

}  // namespace

void launch_copy_words(const CopyWordsArgs& a, Stream stream) {
  launch(copy_words_kernel, {blocks_for(a.words), 1, 1, true}, threads_for(a.words), 0, stream, a);
}
void launch_angles(const AnglesArgs& a, Stream stream) {
  launch(angles_kernel, {blocks_for(a.rows * a.half)}, kThreads, 0, stream, a);
}
void launch_embed(const EmbedRowsArgs& a, Stream stream) {
  launch(embed_kernel, {a.rows, 1, 1, true}, threads_for(a.table.cols, kMostThreads), 0, stream, a);
}
void launch_norm(const NormArgs& a, Stream stream) {
  const int64_t groups = (a.n + kQuantBlock - 1) / kQuantBlock,
                rounds = (groups + kNormWarps - 1) / kNormWarps;
  const int warps = static_cast<int>((groups + rounds - 1) / rounds);
  if (on_hopper() && a.rows <= kNormFewRows && warps % kNormBlocks == 0) {
    return launch(norm_cluster_kernel, {a.rows * kNormBlocks, 1, 1, true, kNormBlocks},
                  warps / kNormBlocks * kWarp, kNormWarps * 4, stream, a);
  }
  launch(norm_kernel, {a.rows, 1, 1, true}, warps * kWarp, kNormWarps * 4, stream, a);
}
void launch_pack(const PackArgs& a, Stream stream) {
  const int64_t groups = a.rows * ((a.cols + kQuantBlock - 1) / kQuantBlock);
  launch(pack_kernel, {blocks_for(groups * kWarp), 1, 1, true}, kThreads, 0, stream, a);
}
void launch_pack_codes(const PackCodesArgs& a, Stream stream) {
  const int64_t pitch = packed_pitch(a.cols, a.rounding);
  const int64_t width = a.rounding == Rounding::e4m3 ? pitch : pitch / 2;
  const int64_t groups = a.rows * ((width + kQuantBlock - 1) / kQuantBlock);
  launch(pack_codes_kernel, {blocks_for(groups * kWarp), 1, 1, true}, kThreads, 0, stream, a);
}
void launch_gather_rows(const GatherRowsArgs& a, Stream stream) {
  launch(gather_rows_kernel, {a.rows, 1, 1, true}, kThreads, 0, stream, a);
}
void launch_rope_query(const RopeQueryArgs& a, Stream stream) {
  launch(rope_query_kernel, {a.rows, (a.heads + kRopeHeads - 1) / kRopeHeads, 1, true},
         threads_for(kRopeHeads * a.head_dim), 0, stream, a);
}

}  // namespace dsv::cuda
