// The indexer's scores of a prompt's rows on Hopper: wgmma with keys in registers and queries in shared
// memory, of e4m3 as it is stored, or of f16 with f32 sums.
//
// Bound: mma: a page of 64 keys times 64 heads is 128 cycles of a processor's tensor cores, 256 in f16 (2048
// rows of 8K, causal: 240 GFLOP, 150 us at 1585 TFLOP/s). Beside it a warp issues some 88 instructions for
// each row and page, 64 of them an add and a multiply-add for each of a lane's 32 terms, so that a product
// has to be on its way while another is summed: four groups of warps take turns. Measured: 192 cycles (f16:
// 303), with three groups or six, with one product of each under way or two; 150 with adds alone or with
// multiply-adds by constants. So what reads three registers keeps the tensor core from its sums, which lie in
// registers, too. Shared memory: the B operand, 8 KB for 128 cycles, half of its bandwidth. L2: a page for
// each 24 rows (f16: 12). From 32K on power sets the clock (1.6 GHz): a product of two rows' heads takes less
// of it than two of one.
//
// Precision: e4m3 is exact in f16, a product of two is exact in f32. The FP8 tensor core aligns a k32 step's
// terms and the sum so far to the largest exponent and drops what lies below its 13th binary place, where f32
// has 23 (coarse_sum in bench/index_check.cu, which gives its bits): the released model's own arithmetic (its
// indexer multiplies e4m3 on these tensor cores), and a small part of the error of rounding the factors to
// e4m3. A row's scores have the same bits in every tile with either. That would allow FP8 sums in the
// deterministic schedule, too; but they are coarser, and no other backend's scores are like them.
//
// Order of a score's sum, for every tile and split: the hardware's over K; a lane adds its two heads of each
// block of 8 in order; then lanes (0 + 2) + (1 + 3) of a quad.
#include "kernels/cuda/index_wgmma.cuh"

namespace dsv::cuda {
namespace {

constexpr int kGroups = 4, kThreads = kGroups * kGroup;  // warpgroups that share a tile's queries
constexpr int most_tile_rows(bool fp8) { return fp8 ? 24 : 12; }
// Rows of a product, and rows in one piece of code.
constexpr int wide(bool fp8) { return fp8 ? 2 : 1; }
constexpr int most_together(bool fp8) { return fp8 ? 8 : 4; }
constexpr int padded_rows(int rows, int together) { return (rows + together - 1) / together * together; }
static_assert(most_together(true) % wide(true) == 0 && most_together(false) % wide(false) == 0);
static_assert(shared_bytes(true, most_tile_rows(true)) <= 227 * 1024);
static_assert(shared_bytes(false, most_tile_rows(false)) <= 227 * 1024);

#ifdef DSV_HOPPER

// The rows of a run, made up to a multiple of kTogether, against n pages from `first` on, of which a group of
// warps has every kGroups-th. While a group sums a product, those of others are on their way.
template <bool kFp8, int kTogether>
__device__ __forceinline__ void score_run(const IndexScoresArgs& a, const IndexRun& run, int32_t first,
                                          int32_t n, int room) {
  constexpr int kWide = wide(kFp8);
  const int t = threadIdx.x % 4, slot = slot_of_lane();
  int32_t i = static_cast<int32_t>(threadIdx.x) / kGroup;
  const int32_t* const pages = run.pages + first;
  int32_t page = i < n ? pages[i] : 0;
  // From a lane, so that the compiler sees that it is the same for a warp.
  const int rows = __shfl_sync(kAllLanes, padded_rows(run.count, kTogether), 0);
  Queries<kFp8, kThreads, 4> queries(room);
  queries.load(a, run, rows);

  float* const out = a.scores + int64_t{run.first + t % 2} * a.score_stride + slot;
  for (; i < n; i += kGroups) {
    const int32_t begin = (first + i) * kPageTokens, position = begin + slot;
    const Keys keys = load_keys(a, page, begin, run.visible, slot);
    if (i + kGroups < n) page = pages[i + kGroups];
    Fragments<kFp8> fragments;
    make_fragments(fragments, keys);
    float* to = out + begin;
    for (int q = 0; q < rows; q += kTogether) {
      float before = 0;
#pragma unroll
      for (int j = 0; j < kTogether; j += kWide) {
        float product[kWide * 32];
        multiply(product, fragments, queries.row(q + j));
        hopper::wgmma_wait<0>(product);
        keep(fragments);
#pragma unroll
        for (int w = 0; w < kWide; ++w) {
          const float sum = head_sum(product + 32 * w, queries.weights_of(q + j + w), t);
          if ((j + w) % 2 == 0) {
            before = sum;
          } else {  // both lanes of a pair have both sums
            if (position < queries.visible[q + j + w - 1 + t % 2]) *to = (t % 2 ? sum : before) * keys.scale;
            to += 2 * a.score_stride;
          }
        }
      }
    }
  }
}
#endif

template <bool kFp8, int kTogether>
__global__ void __launch_bounds__(kThreads, 1) scores_rows_kernel([[maybe_unused]] IndexTileArgs tile) {
#ifdef DSV_HOPPER
  const IndexScoresArgs& a = tile.scores;
  const Piece piece =
      piece_of_block<kThreads>(a, tile.tile_rows, reinterpret_cast<int32_t*>(shared_memory()));
  for_runs(a, tile.tile_rows, piece, [&](const IndexRun& run, int32_t first, int32_t n) {
    score_run<kFp8, kTogether>(a, run, first, n, padded_rows(tile.tile_rows, kTogether));
  });
#endif
}

}  // namespace

void launch_index_scores_wgmma(const IndexScoresArgs& a, Stream stream) {
  const bool fp8 = a.path == IndexPath::fp8_sums;
  const int64_t pages = (a.longest + kPageTokens - 1) / kPageTokens;
  int32_t most = a.rows_together < a.rows ? a.rows_together : a.rows;
  if (most > most_tile_rows(fp8)) most = most_tile_rows(fp8);
  const int together = most < most_together(fp8) ? 2 : most_together(fp8);
  // Tiles of as many rows as there can be are best, but for what the last one makes up.
  int32_t rows = most;
  const auto cost = [&](int64_t per) { return (a.rows + per - 1) / per * (per + 1); };
  for (int32_t fewer = most / together * together; fewer > 0 && 2 * fewer >= most; fewer -= together) {
    if (cost(fewer) < cost(rows)) rows = fewer;
  }
  const auto kernel =
      fp8 ? together == 2 ? scores_rows_kernel<true, 2> : scores_rows_kernel<true, most_together(true)>
      : together == 2 ? scores_rows_kernel<false, 2>
                      : scores_rows_kernel<false, most_together(false)>;
  const int64_t blocks = a.rows * ((pages + kGroups - 1) / kGroups);
  launch(kernel, {blocks < processors() ? blocks : processors()}, kThreads,
         shared_bytes(fp8, padded_rows(rows, together)), stream, IndexTileArgs{a, rows});
}

}  // namespace dsv::cuda
