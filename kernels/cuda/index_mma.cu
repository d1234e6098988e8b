// The indexer's scores on tensor cores, portable (sm_80 and newer): mma.sync of f16 with f32 sums.
//
// e4m3 is exact in f16, a product of two is exact in f32, so a score's error is that of f32 sums. Bound: with
// 64 heads a key of 132 bytes takes 16384 FLOP for each row: memory-bound for one row (128K positions: 17 MB,
// 5.8 us at 3 TB/s; 2.1 GFLOP, 3.6 us at the 600 TFLOP/s of f16 mma.sync on an H100), compute-bound from two
// rows on (2048 rows of 8K, causal: 240 GFLOP, 400 us).
//
// A warp holds 32 keys as A fragments in registers, read once from memory by 16-byte loads, the next 32 on
// their way, and multiplies them with all heads of all rows of its block's tile, whose queries lie in shared
// memory as B fragments. Nothing waits for other warps but the queries. K is permuted: a lane's 16 bytes are
// four of its k16 steps; the queries are permuted likewise. Shared memory read for 32 keys and a row: 16 KB,
// 128 cycles of its bandwidth for 256 cycles of mma.
//
// Order of a score's sum, for every tile and split: within mma over K in order; a lane adds its two heads of
// each block of 8 in order; then lanes (0 + 2) + (1 + 3) of a quad.
#include "kernels/cuda/index_tensor.cuh"

namespace dsv::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / kWarp, kUnit = 32;  // keys of a warp at a time
constexpr int kSteps = kIndexDim / 16;
constexpr int kMostShared = 99 * 1024;

constexpr int64_t shared_bytes(int blocks, int tile_rows) {
  return tile_rows * (int64_t{blocks} * 8 * kIndexDim * 2 + blocks * 8 * 4 + 4);
}
// Rows that share a pass over the keys. The mma of 4 rows of 64 heads take about 30 times as long as reading
// 32 keys from L2.
constexpr int most_tile_rows(int blocks) { return blocks == 1 ? 16 : 4; }
static_assert(shared_bytes(8, most_tile_rows(8)) <= kMostShared, "an sm_86 has 99 KB");
static_assert(shared_bytes(1, most_tile_rows(1)) <= kMostShared, "an sm_86 has 99 KB");

// Keys unit * 32 + 8 i + g of a page, i < 4: lane t of a quad takes bytes 64 v + 16 t .. + 15.
struct Keys {
  uint4 bytes[4][2];
};
// Zeros for those that no row sees.
__device__ __forceinline__ Keys load_keys(const IndexScoresArgs& a, int64_t page, int32_t unit,
                                          int32_t visible) {
  const int lane = threadIdx.x % kWarp;
  const unsigned char* at = a.cache.index + page * kIndexPageBytes + lane / 4 * kIndexDim + lane % 4 * 16 +
                            unit % (kPageTokens / kUnit) * (kUnit * kIndexDim);
  Keys keys;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int v = 0; v < 2; ++v) {
      keys.bytes[i][v] = unit * kUnit + 8 * i + lane / 4 < visible
                             ? __ldg(reinterpret_cast<const uint4*>(at + i * 8 * kIndexDim + v * 64))
                             : uint4{0, 0, 0, 0};
    }
  }
  return keys;
}

// A block scores every gridDim.x-th group of units for a tile of rows. Shared: B fragments [rows][blocks * 4]
// [32 lanes] of 16 bytes: those of two k16 steps; weights [rows][blocks * 8]; visible [rows].
template <int kBlocks>
__global__ void __launch_bounds__(kThreads) scores_mma_kernel(IndexTileArgs tile) {
  const IndexScoresArgs& a = tile.scores;
  auto* queries = reinterpret_cast<uint4*>(shared_memory());
  auto* weights = reinterpret_cast<float*>(queries + tile.tile_rows * kBlocks * 4 * kWarp);
  auto* visible = reinterpret_cast<int32_t*>(weights + tile.tile_rows * kBlocks * 8);
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const auto stride = static_cast<int32_t>(gridDim.x * kWarps);
  const int32_t begin = static_cast<int32_t>(blockIdx.y) * tile.tile_rows;
  const int32_t end = begin + tile.tile_rows < a.rows ? begin + tile.tile_rows : a.rows;

  for (int32_t first = begin; first < end;) {
    const IndexRun run = index_run(a, first, end);
    first += run.count;
    const int32_t units = (run.visible + kUnit - 1) / kUnit;
    int32_t unit = static_cast<int32_t>(blockIdx.x * kWarps + threadIdx.x / kWarp);
    if (units <= static_cast<int32_t>(blockIdx.x * kWarps)) continue;  // for the whole block
    constexpr int kUnits = kPageTokens / kUnit;
    int32_t page = unit < units ? run.pages[unit / kUnits] : 0;
    Keys next = load_keys(a, page, unit, run.visible);
    if (unit + stride < units) page = run.pages[(unit + stride) / kUnits];

    __syncthreads();  // the last run's queries are done with
    for (int i = threadIdx.x; i < run.count * kBlocks * 2 * kWarp; i += kThreads) {
      const int quad = i % kWarp, v = i / kWarp % 2, block = i / (2 * kWarp);  // block: of a row
      const int32_t head = block % kBlocks * 8 + quad / 4;
      uint32_t part[8];
      for (int w = 0; w < 4; ++w) {
        const uint32_t word = query_word(a, run.first + block / kBlocks, head, 16 * v + quad % 4 * 4 + w);
        e4m3x4_to_small_f16(word, part[2 * w], part[2 * w + 1]);
      }
      queries[(block * 4 + 2 * v) * kWarp + quad] = {part[0], part[1], part[2], part[3]};
      queries[(block * 4 + 2 * v + 1) * kWarp + quad] = {part[4], part[5], part[6], part[7]};
    }
    for (int i = threadIdx.x; i < run.count * kBlocks * 8; i += kThreads) {
      weights[i] = head_weight(a, run.first + i / (kBlocks * 8), i % (kBlocks * 8)) * kDecoded;
    }
    for (int i = threadIdx.x; i < run.count; i += kThreads) visible[i] = a.step.position[run.first + i] + 1;
    __syncthreads();

    for (; unit < units; unit += stride) {
      uint32_t keys[2][kSteps][4];  // [16 keys][k16 step]: A fragments
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
          for (int v = 0; v < 2; ++v) {
            const uint4& raw = next.bytes[2 * m + half][v];
            const uint32_t word[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
            for (int w = 0; w < 4; ++w) {
              e4m3x4_to_small_f16(word[w], keys[m][4 * v + w][half], keys[m][4 * v + w][2 + half]);
            }
          }
        }
      }
      // The key whose score this lane writes, and its scale.
      const int32_t slot = unit % kUnits * kUnit + 8 * t + g, position = unit * kUnit + 8 * t + g;
      const int32_t this_page = run.pages[unit / kUnits];
      const float scale = position < run.visible ? index_scale(a, this_page, slot) : 0.0f;
      if (unit + stride < units) {
        next = load_keys(a, page, unit + stride, run.visible);
        if (unit + 2 * stride < units) page = run.pages[(unit + 2 * stride) / kUnits];
      }

      for (int q = 0; q < run.count; ++q) {
        float sum[4] = {};  // of keys 8 i + g, this lane's heads
        const uint4* fragments = queries + q * kBlocks * 4 * kWarp + lane;
        const auto* weight = reinterpret_cast<const float2*>(weights + q * kBlocks * 8) + t;
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
          float product[2][4] = {};
#pragma unroll
          for (int p = 0; p < kSteps / 2; ++p) {
            const uint4 f = fragments[(b * 4 + p) * kWarp];
            mma_f16(product[0], keys[0][2 * p], f.x, f.y);
            mma_f16(product[1], keys[1][2 * p], f.x, f.y);
            mma_f16(product[0], keys[0][2 * p + 1], f.z, f.w);
            mma_f16(product[1], keys[1][2 * p + 1], f.z, f.w);
          }
          const float2 w = weight[b * 4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            sum[i] = fmaf(fmaxf(product[i / 2][i % 2 * 2], 0.0f), w.x, sum[i]);
            sum[i] = fmaf(fmaxf(product[i / 2][i % 2 * 2 + 1], 0.0f), w.y, sum[i]);
          }
        }
        // Lane t of a quad is left with the sum of key 8 t + g.
        const bool high = t & 2, odd = t & 1;
        const float low0 = __shfl_xor_sync(kAllLanes, high ? sum[0] : sum[2], 2) + (high ? sum[2] : sum[0]);
        const float low1 = __shfl_xor_sync(kAllLanes, high ? sum[1] : sum[3], 2) + (high ? sum[3] : sum[1]);
        const float all = __shfl_xor_sync(kAllLanes, odd ? low0 : low1, 1) + (odd ? low1 : low0);
        if (position < visible[q]) a.scores[(run.first + q) * a.score_stride + position] = all * scale;
      }
    }
  }
}

}  // namespace

bool takes_mma(const IndexScoresArgs& a) {
  return a.cache.official && a.cache.index_dim == kIndexDim && a.heads >= 1 && a.heads <= 64;
}

void launch_index_scores_mma(const IndexScoresArgs& a, Stream stream) {
  const int blocks = a.heads <= 8 ? 1 : 8, most = most_tile_rows(blocks);
  const int32_t rows = a.rows_together < most ? a.rows_together : most;
  const int64_t tiles = (a.rows + rows - 1) / rows;
  const int64_t units = (a.longest + kUnit - 1) / kUnit;
  launch(blocks == 1 ? scores_mma_kernel<1> : scores_mma_kernel<8>,
         {index_splits(tiles, (units + kWarps - 1) / kWarps, 2), tiles}, kThreads, shared_bytes(blocks, rows),
         stream, IndexTileArgs{a, rows});
}

}  // namespace dsv::cuda
