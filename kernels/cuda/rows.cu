// Kernels over whole rows: angles, embedding, norms, rounding, RoPE of queries. All are bound by the bytes of
// their rows (a row of 7168 f32 is 28 KB: 10 ns at 3 TB/s), so at small batches by the launch itself.
#include "kernels/cuda/cluster.cuh"
#include "kernels/cuda/codes.cuh"
#include "kernels/cuda/decode.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/rows.h"

namespace dsv::cuda {
namespace {

constexpr int kThreads = 256, kMostThreads = 1024;
constexpr int64_t kManyGroups = 16384;  // of 128 values

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
constexpr int kKept = kNormRounds;

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
  const float* delta = static_cast<const float*>(a.delta.data);
  if (delta) delta += from * a.delta_stride;
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
    if (a.out) store(a.out + r * a.out_stride, group, normed);  // what this thread has read: in place is fine
    if (a.e4m3) put_e4m3(e4m3, r, group, normed, a.power_of_two);
    if (a.bf16) put_bf16(bf16, r, group, normed);
  };
#pragma unroll
  for (int k = 0; k < kKept; ++k) {
    if (warp + k * warps >= groups) continue;
    put(warp + k * warps, kept[k], weight[k]);
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

__global__ void unpack_kernel(UnpackArgs a) {
  begin_early();
  const int64_t r = blockIdx.x;
  const auto* const codes = reinterpret_cast<const uint16_t*>(a.from.data + r * a.from.pitch);
  for (int64_t c = threadIdx.x; c < a.cols; c += blockDim.x) a.x[r * a.cols + c] = bf16_to_float(codes[c]);
}

// Groups of 128 values of a row of codes.
__device__ __host__ __forceinline__ int groups_of(int64_t pitch, bool e4m3) {
  return static_cast<int>(((e4m3 ? pitch : pitch / 2) + kQuantBlock - 1) / kQuantBlock);
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

// A warp takes kGroups neighbouring groups of 128 values, whose loads are in flight together, and zeros up to
// the end of the row's last block. Grid: rows, parts of a row.
template <int kGroups>
__global__ void __launch_bounds__(kThreads) pack_codes_kernel(PackCodesArgs a) {
  begin_early();
  const bool e4m3 = a.rounding == Rounding::e4m3;
  const int64_t pitch = packed_pitch(a.cols, a.rounding);
  const int groups = groups_of(pitch, e4m3), warp = static_cast<int>(threadIdx.x) / kWarp;
  const int first = (static_cast<int>(blockIdx.y) * (kThreads / kWarp) + warp) * kGroups;
  if (first >= groups) return;
  const int64_t r = blockIdx.x;
  const float* const x = a.x + r * a.x_stride;
  const bool whole = a.cols % kPerLane == 0 && a.x_stride % kPerLane == 0;
  float value[kGroups][kPerLane];
#pragma unroll
  for (int k = 0; k < kGroups; ++k) {
    const int at =
        (first + k) * static_cast<int>(kQuantBlock) + static_cast<int>(threadIdx.x) % kWarp * kPerLane;
    if (whole && at < a.cols) {
      const float4 four = *reinterpret_cast<const float4*>(x + at);
      value[k][0] = four.x, value[k][1] = four.y, value[k][2] = four.z, value[k][3] = four.w;
    } else {
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) value[k][i] = at + i < a.cols ? x[at + i] : 0;
    }
  }
  const CodeRows to = {a.out, a.rows, pitch, a.form};
#pragma unroll
  for (int k = 0; k < kGroups; ++k) {
    if (first + k >= groups) break;
    e4m3 ? put_e4m3(to, r, first + k, value[k], a.power_of_two) : put_bf16(to, r, first + k, value[k]);
  }
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

// A block kRopeHeads heads of a row; a thread four neighbours at a time, of which two are under way.
constexpr int kRopeHeads = 8, kRopeFour = 4;
__global__ void rope_query_kernel(RopeQueryArgs a) {
  begin_early();
  const int64_t r = blockIdx.x, first = int64_t{blockIdx.y} * kRopeHeads;
  const int heads = static_cast<int>(a.heads - first < kRopeHeads ? a.heads - first : kRopeHeads);
  const int dim = static_cast<int>(a.head_dim), half = static_cast<int>(a.rope / 2), nope = dim - 2 * half;
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  float* const q = a.q + (r * a.heads + first) * dim;
  const float *const cosines = a.cos + r * half, *const sines = a.sin + r * half;
  // Value p of a head's rope values and the next one, turned.
  const auto turn = [&](float& x, float& y, int p) {
    const float c = cosines[p / 2], s = sines[p / 2], x0 = x, y0 = y;
    x = x0 * c - y0 * s, y = x0 * s + y0 * c;
  };
  if (dim % kRopeFour == 0 && 2 * half % kRopeFour == 0) {
    auto* const fours = reinterpret_cast<float4*>(q);
    const int count = heads * dim / kRopeFour;
    const auto finish = [&](int i, float4 v) {
      const int p = i * kRopeFour % dim - nope;
      if (p >= 0) turn(v.x, v.y, p), turn(v.z, v.w, p + 2);
      if (a.to_bf16) v = {round_bf16(v.x), round_bf16(v.y), round_bf16(v.z), round_bf16(v.w)};
      if (a.to_bf16 || p >= 0) fours[i] = v;
    };
    for (int i = thread; i < count; i += 2 * threads) {
      const float4 one = fours[i], two = i + threads < count ? fours[i + threads] : one;
      finish(i, one);
      if (i + threads < count) finish(i + threads, two);
    }
    return;
  }
  for (int i = thread; i < heads * half; i += threads) {
    float* const pair = q + i / half * dim + nope + 2 * (i % half);
    turn(pair[0], pair[1], 2 * (i % half));
    if (a.to_bf16) pair[0] = round_bf16(pair[0]), pair[1] = round_bf16(pair[1]);
  }
  for (int i = thread; a.to_bf16 && i < heads * nope; i += threads) {
    float* const value = q + i / nope * dim + i % nope;
    *value = round_bf16(*value);
  }
}

// Queries that end in bf16: eight lanes a head of the released geometry, eight values of each of its parts of
// 64, of which the last is turned. kRounded: the others are done, so that 4096 rows of 128 heads move 134 MB,
// 33 us at 4.1 TB/s.
constexpr int kRopePart = 64, kRopeParts = 3;
template <bool kRounded>
__global__ void __launch_bounds__(kThreads) rope_bf16_kernel(RopeQueryArgs a) {
  begin_early();
  constexpr int kLanes = 8, kEach = kRopePart / kLanes;
  const int64_t head = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kLanes, r = head / a.heads;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const bool there = r < a.rows;
  float* const from = a.q + head * (kRopePart * kRopeParts) + kEach * lane;
  auto* const to = reinterpret_cast<uint16_t*>(from - kEach * lane) + kEach * lane;
  float value[kRopeParts][kEach];
#pragma unroll
  for (int part = kRounded ? kRopeParts - 1 : 0; part < kRopeParts && there; ++part) {
    if constexpr (kRounded) {
      const uint4 raw = *reinterpret_cast<const uint4*>(to + kRopePart * part);
      const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
      for (int i = 0; i < kEach; ++i)
        value[part][i] = float_of(i % 2 ? words[i / 2] & 0xFFFF0000u : words[i / 2] << 16);
    } else {
#pragma unroll
      for (int i = 0; i < kEach; i += 4) {
        const float4 four = *reinterpret_cast<const float4*>(from + kRopePart * part + i);
        value[part][i] = four.x, value[part][i + 1] = four.y;
        value[part][i + 2] = four.z, value[part][i + 3] = four.w;
      }
    }
  }
  if (!kRounded) __syncwarp();  // what is written lies where other lanes read
  if (!there) return;
  const float4 c = *reinterpret_cast<const float4*>(a.cos + (r * kLanes + lane) * (kEach / 2)),
               s = *reinterpret_cast<const float4*>(a.sin + (r * kLanes + lane) * (kEach / 2));
  const float cosines[4] = {c.x, c.y, c.z, c.w}, sines[4] = {s.x, s.y, s.z, s.w};
#pragma unroll
  for (int i = 0; i < kEach; i += 2) {
    float &x = value[kRopeParts - 1][i], &y = value[kRopeParts - 1][i + 1];
    const float x0 = x, y0 = y;
    x = x0 * cosines[i / 2] - y0 * sines[i / 2], y = x0 * sines[i / 2] + y0 * cosines[i / 2];
  }
#pragma unroll
  for (int part = kRounded ? kRopeParts - 1 : 0; part < kRopeParts; ++part) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = pack_bf16(value[part][2 * i], value[part][2 * i + 1]);
    *reinterpret_cast<uint4*>(to + kRopePart * part) = {words[0], words[1], words[2], words[3]};
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
  const int warps = NormShape(a.n).warps;
  if (on_hopper() && a.rows <= kNormFewRows && warps % kNormBlocks == 0) {
    return launch(norm_cluster_kernel, {a.rows * kNormBlocks, 1, 1, true, kNormBlocks},
                  warps / kNormBlocks * kWarp, kNormWarps * 4, stream, a);
  }
  if (takes_norm_many(a)) return launch_norm_many(a, stream);
  launch(norm_kernel, {a.rows, 1, 1, true}, warps * kWarp, kNormWarps * 4, stream, a);
}
void launch_pack(const PackArgs& a, Stream stream) {
  const int64_t groups = a.rows * ((a.cols + kQuantBlock - 1) / kQuantBlock);
  launch(pack_kernel, {blocks_for(groups * kWarp), 1, 1, true}, kThreads, 0, stream, a);
}
void launch_pack_codes(const PackCodesArgs& a, Stream stream) {
  const int groups = groups_of(packed_pitch(a.cols, a.rounding), a.rounding == Rounding::e4m3);
  constexpr int kWarps = kThreads / kWarp;
  const auto grid = [&](int each) {
    return Grid{a.rows, (groups + kWarps * each - 1) / (kWarps * each), 1, true};
  };
  // Few rows are quickest with a warp for every group; many keep all processors busy with half as many warps.
  if (int64_t{a.rows} * groups < kManyGroups)
    return launch(pack_codes_kernel<1>, grid(1), kThreads, 0, stream, a);
  launch(pack_codes_kernel<2>, grid(2), kThreads, 0, stream, a);
}
void launch_unpack(const UnpackArgs& a, Stream stream) {
  launch(unpack_kernel, {a.rows, 1, 1, true}, threads_for(a.cols), 0, stream, a);
}
void launch_gather_rows(const GatherRowsArgs& a, Stream stream) {
  launch(gather_rows_kernel, {a.rows, 1, 1, true}, kThreads, 0, stream, a);
}
void launch_rope_query(const RopeQueryArgs& a, Stream stream) {
  if (a.form != QueryForm::f32) {
    const Grid grid = {blocks_for(int64_t{a.rows} * a.heads * 8), 1, 1, true};
    return launch(a.form == QueryForm::bf16 ? rope_bf16_kernel<true> : rope_bf16_kernel<false>, grid,
                  kThreads, 0, stream, a);
  }
  launch(rope_query_kernel, {a.rows, (a.heads + kRopeHeads - 1) / kRopeHeads, 1, true},
         threads_for(kRopeHeads * a.head_dim / (2 * kRopeFour)), 0, stream, a);
}

}  // namespace dsv::cuda
