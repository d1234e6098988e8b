// The feed-forward blocks. The dense FFN, the experts and the shared expert are one computation over pairs
// (row, FFN) sorted by FFN, so that a weight is read once for up to eight rows that need it.
//
// Here: the order of the pairs, the weighted sum, and plain kernels for `exact` precision and for f16 and f32
// weights (bound: dot.cuh). The tensor cores' are in linear_few.cu and linear_many.cu; at one row of the
// released model the bound is the bytes of 8 experts, 8 * 3 * 14.7 MB = 352 MB (117 us at 3 TB/s).
#include "kernels/cuda/dot.cuh"
#include "kernels/cuda/experts.h"
#include "kernels/cuda/mma.cuh"

namespace dsv::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
static_assert(kTilePairs == kDotRows);

// Rows of a block, of which each has a range.
struct RowsOf {
  int32_t begin, end;
};
__device__ __forceinline__ RowsOf rows_of(const GroupArgs& a) {
  const auto block = static_cast<int32_t>(blockIdx.x), blocks = static_cast<int32_t>(gridDim.x);
  return {a.rows * block / blocks, a.rows * (block + 1) / blocks};
}

// How many pairs of each expert a block's rows have.
__global__ void __launch_bounds__(kThreads) count_pairs_kernel(GroupArgs a) {
  begin_early();
  auto* const count = reinterpret_cast<int32_t*>(shared_memory());
  for (int e = threadIdx.x; e < a.experts; e += kThreads) count[e] = 0;
  __syncthreads();
  const RowsOf rows = rows_of(a);
  for (int32_t p = rows.begin * a.k + threadIdx.x; p < rows.end * a.k; p += kThreads)
    atomicAdd(&count[a.expert[p]], 1);
  __syncthreads();
  for (int e = threadIdx.x; e < a.experts; e += kThreads) a.counts[blockIdx.x * a.experts + e] = count[e];
}

// A warp has a range of its block's rows and counts its pairs by expert; sums over blocks, warps and experts
// give every warp's place in every expert's pairs; then it puts its rows there in order. The experts of a row
// differ, so its lanes never meet. Bound: latency, about 20 barriers and a few steps a row of the warp's
// (4096 rows in 32 blocks: 4), whose experts are read 8 rows at a time.
__global__ void __launch_bounds__(1024) group_kernel(GroupArgs a) {
  begin_early();
  const int warps = static_cast<int>(blockDim.x) / kWarp, threads = static_cast<int>(blockDim.x);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, thread = threadIdx.x;
  auto* const place = reinterpret_cast<int32_t*>(shared_memory());  // [warps][experts]: counts, then places
  int32_t *const pairs = place + warps * a.experts, *const tiles =
                                                        pairs + threads;  // [threads]: sums up to here
  const RowsOf rows = rows_of(a);
  const int32_t n_rows = rows.end - rows.begin, begin_row = rows.begin + n_rows * warp / warps,
                end_row = rows.begin + n_rows * (warp + 1) / warps;
  for (int i = thread; i < warps * a.experts; i += threads) place[i] = 0;
  __syncthreads();
  int32_t* const mine = place + warp * a.experts;
  for (int32_t p = begin_row * a.k + lane; p < end_row * a.k; p += kWarp) atomicAdd(&mine[a.expert[p]], 1);
  __syncthreads();

  // A thread's experts, and how many pairs and tiles they have.
  const int32_t each = (a.experts + threads - 1) / threads;
  const int32_t first = thread * each < a.experts ? thread * each : a.experts;
  const int32_t last = first + each < a.experts ? first + each : a.experts;
  struct Count {
    int32_t all = 0, before = 0;  // before: in blocks before this one
  };
  const auto count_of = [&](int32_t e) {
    Count count;
    if (gridDim.x == 1) {
      for (int w = 0; w < warps; ++w) count.all += place[w * a.experts + e];
      return count;
    }
#pragma unroll 8
    for (unsigned b = 0; b < gridDim.x; ++b) {
      const int32_t of_block = a.counts[b * a.experts + e];
      count.all += of_block;
      if (b < blockIdx.x) count.before += of_block;
    }
    return count;
  };
  int32_t my_pairs = 0, my_tiles = 0;
  for (int32_t e = first; e < last; ++e) {
    const int32_t count = count_of(e).all;
    my_pairs += count;
    my_tiles += (count + a.tile_rows - 1) / a.tile_rows;
  }
  pairs[thread] = my_pairs, tiles[thread] = my_tiles;
  __syncthreads();
  for (int distance = 1; distance < threads; distance *= 2) {
    const bool add = thread >= distance;
    const int32_t more_pairs = add ? pairs[thread - distance] : 0,
                  more_tiles = add ? tiles[thread - distance] : 0;
    __syncthreads();
    pairs[thread] += more_pairs, tiles[thread] += more_tiles;
    __syncthreads();
  }
  int32_t at = pairs[thread] - my_pairs, tile = tiles[thread] - my_tiles;
  for (int32_t e = first; e < last; ++e) {
    const Count count = count_of(e);
    const int32_t end = at + count.all;
    for (int32_t begin = at; begin < end && blockIdx.x == 0; begin += a.tile_rows) {
      a.tiles[tile++] = {e, begin, end - begin < a.tile_rows ? end - begin : a.tile_rows};
    }
    int32_t to = at + count.before;
    for (int w = 0; w < warps; ++w) {
      const int32_t of_warp = place[w * a.experts + e];
      place[w * a.experts + e] = to;
      to += of_warp;
    }
    at = end;
  }
  if (thread == threads - 1 && blockIdx.x == 0) *a.n_tiles = tiles[thread];
  __syncthreads();
  const auto put = [&](int32_t r, int32_t p, int32_t expert) {
    const int32_t to = mine[expert]++;
    a.pair_row[to] = r;
    a.pair_of[p] = to;
  };
  if (a.k > kWarp) {
    for (int32_t r = begin_row; r < end_row; ++r, __syncwarp()) {
      for (int32_t p = r * a.k + lane; p < (r + 1) * a.k; p += kWarp) put(r, p, a.expert[p]);
    }
    return;
  }
  // Rows whose experts are read together, because no load comes before a store of the row before.
  constexpr int kAhead = 8;
  for (int32_t first = begin_row; first < end_row; first += kAhead) {
    int32_t expert[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const bool any = first + i < end_row && lane < a.k;
      expert[i] = any ? a.expert[(first + i) * a.k + lane] : -1;
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i, __syncwarp()) {
      if (expert[i] >= 0) put(first + i, (first + i) * a.k + lane, expert[i]);
    }
  }
}

__device__ __forceinline__ bool tile_at(const ExpertTile* tiles, const int32_t* n_tiles, int32_t pairs,
                                        int32_t at, ExpertTile* out) {
  if (tiles) {
    if (at >= *n_tiles) return false;
    *out = tiles[at];
    return true;
  }
  const int32_t begin = at * kTilePairs;
  *out = {0, begin, pairs - begin < kTilePairs ? pairs - begin : kTilePairs};
  return true;
}

// Grid: x inner values in groups of kWarps, y tiles. A warp computes one inner value of gate and up.
__global__ void __launch_bounds__(kThreads) swiglu_kernel(SwigluArgs a) {
  ExpertTile tile;
  if (!tile_at(a.tiles, a.n_tiles, a.pairs, static_cast<int32_t>(blockIdx.y), &tile)) return;
  const int64_t inner = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (inner >= a.inner) return;
  const FfnView& ffn = a.ffn[tile.expert];
  const int64_t width = padded(a.dim);
  const float* x[kTilePairs];
  float gate[kTilePairs], up[kTilePairs];
  const auto rows_of = [&](const WeightView& w) {
    const float* h = w.dtype == Dtype::f8_e4m3 ? a.h.e4m3 : a.h.other;
    for (int i = 0; i < kTilePairs; ++i) {
      const int32_t pair = tile.begin + (i < tile.count ? i : 0);
      x[i] = h + (a.tiles ? a.pair_row[pair] : pair) * width;
    }
  };
  rows_of(ffn.gate);
  warp_dot<kTilePairs>(ffn.gate, inner, 0, 1, x, tile.count, gate);
  rows_of(ffn.up);
  warp_dot<kTilePairs>(ffn.up, inner, 0, 1, x, tile.count, up);
  if (threadIdx.x % kWarp != 0) return;
  for (int i = 0; i < tile.count; ++i) {
    a.a[(tile.begin + i) * a.inner + inner] = gate[i] / (1 + expf(-gate[i])) * up[i];
  }
}

// Grid: x outputs in groups of kWarps, y tiles.
__global__ void __launch_bounds__(kThreads) down_kernel(DownArgs a) {
  ExpertTile tile;
  if (!tile_at(a.tiles, a.n_tiles, a.pairs, static_cast<int32_t>(blockIdx.y), &tile)) return;
  const int64_t output = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (output >= a.dim) return;
  const WeightView& w = a.ffn[tile.expert].down;
  const float* in = w.dtype == Dtype::f8_e4m3 ? a.a.e4m3 : a.a.other;
  const float* x[kTilePairs];
  float sum[kTilePairs];
  for (int i = 0; i < kTilePairs; ++i) x[i] = in + (tile.begin + (i < tile.count ? i : 0)) * padded(a.inner);
  warp_dot<kTilePairs>(w, output, 0, 1, x, tile.count, sum);
  if (threadIdx.x % kWarp != 0) return;
  for (int i = 0; i < tile.count; ++i) a.y[(tile.begin + i) * a.dim + output] = sum[i];
}

// A thread's neighbours of a row: 16 bytes of y. Bound: bytes, of which y's are k / (k + 2) or more; 4096
// rows of 7168, k = 8: 1.17 GB, in bf16 0.65 GB (286 and 158 us at 4.1 TB/s).
template <bool kBf16, bool kBf16Delta>
__global__ void __launch_bounds__(kThreads) mix_kernel(MixExpertsArgs a) {
  begin_early();
  constexpr int kValues = kBf16 ? 8 : 4;
  const int64_t each = (a.dim + kValues - 1) / kValues;
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, r = i / each, first = i % each * kValues;
  if (r >= a.rows) return;
  const int count = a.dim - first < kValues ? static_cast<int>(a.dim - first) : kValues;
  const bool aligned = a.dim % kValues == 0;
  const int64_t pitch = packed_pitch(a.dim, Rounding::bf16);
  const auto load = [&](const ValueRows& rows, bool bf16, int64_t row, float(&to)[kValues]) {
    if (kBf16 && bf16) {  // a row is whole blocks
      const uint4 raw = *reinterpret_cast<const uint4*>(static_cast<const unsigned char*>(rows.data) +
                                                        row * pitch + 2 * first);
      const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
      for (int j = 0; j < kValues; ++j)
        to[j] = float_of(j % 2 ? words[j / 2] & 0xFFFF0000u : words[j / 2] << 16);
      return;
    }
    const float* const from = static_cast<const float*>(rows.data) + row * a.dim + first;
    if (aligned) {
#pragma unroll
      for (int j = 0; j < kValues; j += 4) {
        const float4 four = *reinterpret_cast<const float4*>(from + j);
        to[j] = four.x, to[j + 1] = four.y, to[j + 2] = four.z, to[j + 3] = four.w;
      }
    } else {
#pragma unroll
      for (int j = 0; j < kValues; ++j) to[j] = j < count ? from[j] : 0;
    }
  };
  float sum[kValues] = {};
#pragma unroll 4
  for (int32_t e = 0; e < a.k; ++e) {
    float value[kValues];
    load(a.y, kBf16, a.pair_of[r * a.k + e], value);
    const float weight = a.weight[r * a.k + e];
#pragma unroll
    for (int j = 0; j < kValues; ++j) sum[j] = fmaf(weight, value[j], sum[j]);
  }
  if (a.shared.data) {
    float value[kValues];
    load(a.shared, a.shared.bf16, r, value);
#pragma unroll
    for (int j = 0; j < kValues; ++j) sum[j] += value[j];
  }
  if constexpr (kBf16Delta) {
    uint32_t words[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) words[j] = pack_bf16(sum[2 * j], sum[2 * j + 1]);
    *reinterpret_cast<uint4*>(reinterpret_cast<unsigned char*>(a.delta) + r * pitch + 2 * first) = {
        words[0], words[1], words[2], words[3]};
    return;
  }
  float* const out = a.delta + r * a.dim + first;
  if (aligned) {
#pragma unroll
    for (int j = 0; j < kValues; j += 4)
      *reinterpret_cast<float4*>(out + j) = {sum[j], sum[j + 1], sum[j + 2], sum[j + 3]};
  } else {
#pragma unroll
    for (int j = 0; j < kValues; ++j) {
      if (j < count) out[j] = sum[j];
    }
  }
}

}  // namespace

void launch_group(const GroupArgs& a, Stream stream) {
  if (a.rows * a.k <= kFewPairs) return launch_group_few(a, stream);
  const int64_t most_warps =
      64 * 1024 / (4 * int64_t{a.experts});  // counts in 64 KB, if one warp's fit at all
  const int64_t wanted = a.rows <= 256 ? 8 : 32, warps = most_warps < 1        ? 1
                                                         : most_warps < wanted ? most_warps
                                                                               : wanted;
  const int64_t blocks = a.counts && a.rows >= kGroupManyRows ? kGroupBlocks : 1;
  if (blocks > 1) launch(count_pairs_kernel, {blocks}, kThreads, 4 * int64_t{a.experts}, stream, a);
  launch(group_kernel, {blocks, 1, 1, blocks > 1}, static_cast<int>(warps) * kWarp,
         4 * warps * (a.experts + 2 * kWarp), stream, a);
}
void launch_swiglu(const SwigluArgs& a, Stream stream) {
  launch(swiglu_kernel, {(a.inner + kWarps - 1) / kWarps, a.tile_bound}, kThreads, 0, stream, a);
}
void launch_down(const DownArgs& a, Stream stream) {
  launch(down_kernel, {(a.dim + kWarps - 1) / kWarps, a.tile_bound}, kThreads, 0, stream, a);
}
void launch_mix_experts(const MixExpertsArgs& a, Stream stream) {
  const int64_t values = a.y.bf16 ? 8 : 4, threads = a.rows * ((a.dim + values - 1) / values);
  launch(a.bf16_delta ? mix_kernel<true, true>
         : a.y.bf16   ? mix_kernel<true, false>
                      : mix_kernel<false, false>,
         {(threads + kThreads - 1) / kThreads, 1, 1, a.early}, kThreads, 0, stream, a);
}

}  // namespace dsv::cuda
