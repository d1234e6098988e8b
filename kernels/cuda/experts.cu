// The feed-forward blocks. The dense FFN, the experts and the shared expert are one computation over pairs
// (row, FFN) sorted by FFN, so that a weight is read once for up to eight rows that need it.
//
// Bound at one row of the released model: the bytes of 8 experts, 8 * 3 * 14.7 MB = 352 MB (117 us at 3
// TB/s). For many rows: dot.cuh.
#include "kernels/cuda/dot.cuh"

namespace dsv::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
static_assert(kTilePairs == kDotRows);

// One block: an expert's count by one thread each, offsets in order, then places in order of rows.
__global__ void group_kernel(GroupArgs a) {
  const int32_t pairs = a.rows * a.k;
  for (int32_t e = threadIdx.x; e < a.experts; e += blockDim.x) {
    int32_t count = 0;
    for (int32_t p = 0; p < pairs; ++p) count += a.expert[p] == e;
    a.offset[e + 1] = count;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int32_t tile = 0;
    a.offset[0] = 0;
    for (int32_t e = 0; e < a.experts; ++e) {
      const int32_t begin = a.offset[e], count = a.offset[e + 1];
      for (int32_t done = 0; done < count; done += a.tile_rows) {
        a.tiles[tile++] = {e, begin + done, count - done < a.tile_rows ? count - done : a.tile_rows};
      }
      a.offset[e + 1] = begin + count;
    }
    *a.n_tiles = tile;
  }
  __syncthreads();
  for (int32_t e = threadIdx.x; e < a.experts; e += blockDim.x) {
    int32_t at = a.offset[e];
    for (int32_t p = 0; at < a.offset[e + 1] && p < pairs; ++p) {
      if (a.expert[p] != e) continue;
      a.pair_row[at] = p / a.k;
      a.pair_of[p] = at++;
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

__global__ void mix_kernel(MixExpertsArgs a) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= a.rows * a.dim) return;
  const int64_t r = i / a.dim, c = i % a.dim;
  float sum = 0;
  for (int32_t e = 0; e < a.k; ++e) {
    const int64_t pair = a.pair_of[r * a.k + e];
    sum = fmaf(a.weight[r * a.k + e], a.y[pair * a.dim + c], sum);
  }
  a.delta[i] = a.shared ? sum + a.shared[i] : sum;
}

}  // namespace

void launch_group(const GroupArgs& a, Stream stream) { launch(group_kernel, {}, kThreads, 0, stream, a); }
void launch_swiglu(const SwigluArgs& a, Stream stream) {
  launch(swiglu_kernel, {(a.inner + kWarps - 1) / kWarps, a.tile_bound}, kThreads, 0, stream, a);
}
void launch_down(const DownArgs& a, Stream stream) {
  launch(down_kernel, {(a.dim + kWarps - 1) / kWarps, a.tile_bound}, kThreads, 0, stream, a);
}
void launch_mix_experts(const MixExpertsArgs& a, Stream stream) {
  launch(mix_kernel, {(a.rows * a.dim + kThreads - 1) / kThreads}, kThreads, 0, stream, a);
}

}  // namespace dsv::cuda
