// Sparse MLA on tensor cores, for the released latent (512 values in e4m3 with a scale for each 128, 64 of
// RoPE in bf16) and any number of heads.
//
// Bound for a row of 128 heads and 2048 positions: 2 * 128 * 2048 * (576 + 512) = 570 MFLOP, 0.7 us at 800
// TFLOP/s; its latents are 1.3 MB, which with many rows come from L2 or fit beside that. One row alone has
// neither to wait for: its time is that of a chain of loads (number of positions, position, page, latent),
// three launches' worth of latency, and 8 MB of partial results in L2.
//
// A tile of 64 latents is expanded once, for 16 or 32 heads, to f16 without its scales: e4m3 fits in f16, so
// that is one conversion for two values. The scales, one a position and 128 values, come in where they are
// cheap: warps of the scores take 128 values each and scale their sums; softmax weights are scaled before
// they meet the latents. Queries, bf16, become f16 by a power of two a head.
//
// Warps take quarters of the 576 values of a score, so that queries stay in registers and a latent is read
// from shared memory once for all heads; the quarters meet in shared memory. For the sum of latents each
// warp takes 64 of the 512 values, for all heads.
//
// What a tile adds is summed on its own, from zero and relative to its own maximum, and then folded into what
// came before: O = O 2^(M - M') + U 2^(m - M'). So a block that takes all tiles of a row, and blocks that
// take one each whose results combine_kernel folds, give the same bits, and a launch is free to choose by its
// number of rows. Weights are powers of two: scores are in units of log 2.
//
// Range: f16 has 11 bits from 2^-14 to 2^15 and its last at 2^-24, so weights are 2^15 2^(score - m): they
// have 11 bits down to 2^-29 of a tile's largest. Scales in the cache are powers of two, from 2^-22 (of 1e-4
// / 448) to 2^-4 (of sqrt(512) / 448, times the norm's weight): relative to a tile's largest they are exact,
// and a weight times its scale has 11 bits down to 2^-29 again. What is below loses at most 2^-39 of the
// tile's largest scale, times the code. That is nothing beside the head's other values, and is seen only in
// one to which all positions that weigh more bring codes near zero.
#include "kernels/cuda/attend_mma.cuh"
#include "kernels/cuda/reduce.cuh"

namespace dsv::cuda {
namespace {

constexpr float kLargestWeight = 0x1p15f;  // of a position: the total has the same factor

struct alignas(8) Fold {
  float before, now;  // factors of what came before and of the tile
};

// Roomy, on GPUs that have that much: the next tile is stored while this one is worked on, and scores of all
// heads become weights at once. The same operations on the same values in either form.
template <int kGroups, bool kRoomy>
struct Shared {
  static constexpr int kTiles = kRoomy ? 2 : 1, kAtOnce = kRoomy ? kGroups : 1;  // kAtOnce: 16 heads each
  Tile tile[kTiles];                               // the last: at first the queries, rows like latents
  float scores[kAtOnce][kParts * 16 * kScoreRow];  // [kParts][16 heads]: sums of a quarter
  uint16_t weights[kGroups * 16 * kWeightRow];     // f16 [heads][kTile]
  Fold fold[kGroups * 16];                         // by head; at last: total and maximum
  float query_factor[kGroups * 16];                // of a head: what its scores are to be multiplied by
};
static_assert(sizeof(Shared<2, false>) <= kPortableShared);

// The sums of this warp's quarter for all heads and kTokens positions from first on.
template <int kGroups>
__device__ __forceinline__ void quarter_scores(const Tile& tile, const uint32_t (*q)[kGroups][4], int part,
                                               int first, float (*sum)[kTokens / 8][4]) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int i = 0; i < kGroups * kTokens / 2; ++i) sum[i / (kTokens / 2)][i / 4 % (kTokens / 8)][i % 4] = 0;
#pragma unroll
  for (int k = 0; k < kPartSteps; ++k) {
#pragma unroll
    for (int n = 0; n < kTokens / 16; ++n) {
      uint32_t b[4];
      load_b_rows(b, tile.latents + (first + 16 * n) * kLatentRow + kPart * part + 16 * k, kLatentRow,
                  swapped(16 * k));
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        mma_f16(sum[g][2 * n], q[k][g], b[0], b[1]);
        mma_f16(sum[g][2 * n + 1], q[k][g], b[2], b[3]);
      }
    }
  }
#pragma unroll
  for (int n = 0; n < kTokens / 8; ++n) {
    const auto scale =
        *reinterpret_cast<const Pair*>(tile.scales + part * kTile + first + 8 * n + 2 * (lane % 4));
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      sum[g][n][0] *= scale.x;
      sum[g][n][1] *= scale.y;
      sum[g][n][2] *= scale.x;
      sum[g][n][3] *= scale.y;
    }
  }
#pragma unroll
  for (int n = 0; n < kTokens / 16; ++n) {
    uint32_t b[4];
    load_b_rows(b, tile.latents + (first + 16 * n) * kLatentRow + kRank + 16 * part, kLatentRow);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      mma_bf16(sum[g][2 * n], q[kPartSteps][g], b[0], b[1]);
      mma_bf16(sum[g][2 * n + 1], q[kPartSteps][g], b[2], b[3]);
    }
  }
}

// A head's running maximum and sum of weights, the same in 16 threads.
struct Running {
  float maximum = -INFINITY, total = 0;

  __device__ __forceinline__ Fold fold(float tile_maximum, float tile_total) {
    const float next = fmaxf(maximum, tile_maximum);
    const Fold f = {exp2f(maximum - next), exp2f(tile_maximum - next)};
    total = fmaf(total, f.before, tile_total * f.now);
    maximum = next;
    return f;
  }
};

// Softmax weights of 16 heads whose quarters lie in `scores`: thread t has positions 4 (t % 16) on of
// head t / 16.
__device__ __forceinline__ void tile_weights(const float* scores, const float* factors, uint16_t* weights,
                                             Fold* fold, int count, Running& run) {
  const int head = static_cast<int>(threadIdx.x) / 16, first = threadIdx.x % 16 * 4;
  const float factor = factors[head];
  float score[4] = {0, 0, 0, 0};
#pragma unroll
  for (int p = 0; p < kParts; ++p) {
    const float4 part = *reinterpret_cast<const float4*>(scores + (p * 16 + head) * kScoreRow + first);
    score[0] += part.x;
    score[1] += part.y;
    score[2] += part.z;
    score[3] += part.w;
  }
  float maximum = -INFINITY, total = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    score[i] = first + i < count ? score[i] * factor : -INFINITY;
    maximum = fmaxf(maximum, score[i]);
  }
  for (int lanes = 8; lanes > 0; lanes /= 2)
    maximum = fmaxf(maximum, __shfl_xor_sync(kAllLanes, maximum, lanes));
  WordPair words;
  const auto weight = [&](int i) { return exp2f(score[i] - maximum) * kLargestWeight; };
  words.x = pack_f16(weight(0), weight(1));
  words.y = pack_f16(weight(2), weight(3));
  *reinterpret_cast<WordPair*>(weights + head * kWeightRow + first) = words;
  for (const uint32_t word : {words.x, words.y}) {  // what is summed is what was rounded
    const Pair two = unpack_f16(word);
    total += two.x + two.y;
  }
  for (int lanes = 8; lanes > 0; lanes /= 2) total += __shfl_xor_sync(kAllLanes, total, lanes);
  const Fold now = run.fold(maximum, total);
  if (threadIdx.x % 16 == 0) fold[head] = now;
}

// mix = mix * before + (weights latents) * now, for this warp's 64 values of a latent and all heads. Calls
// beside(0 .. 3) between its steps.
template <int kGroups, class Beside>
__device__ __forceinline__ void fold_latents(const Tile& tile, const uint16_t* all_weights, const Fold* folds,
                                             float (*mix)[8][4], Beside&& beside) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const float* scales = tile.scales + warp / 2 * kTile;  // of the quarter that the values lie in
  // Relative to the largest: f16 has few exponents.
  const float largest = fmaxf(warp_max(fmaxf(scales[lane], scales[lane + kWarp])), 0x1p-100f);
  const float inverse = 1 / largest;
  uint32_t weights[kGroups][kTile / 16][4];
#pragma unroll
  for (int k = 0; k < kTile / 16; ++k) {
    const auto low = *reinterpret_cast<const Pair*>(scales + 16 * k + 2 * (lane % 4));
    const auto high = *reinterpret_cast<const Pair*>(scales + 16 * k + 2 * (lane % 4) + 8);
    const uint32_t low_factor = pack_f16(low.x * inverse, low.y * inverse);
    const uint32_t high_factor = pack_f16(high.x * inverse, high.y * inverse);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      uint32_t* w = weights[g][k];
      load_a(w, all_weights + g * 16 * kWeightRow + 16 * k, kWeightRow);
      w[0] = mul_f16(w[0], low_factor);
      w[1] = mul_f16(w[1], low_factor);
      w[2] = mul_f16(w[2], high_factor);
      w[3] = mul_f16(w[3], high_factor);
    }
  }
  Fold fold[kGroups][2];  // of rows lane / 4 and lane / 4 + 8
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      fold[g][i] = folds[g * 16 + lane / 4 + 8 * i];
      fold[g][i].now *= largest;
    }
  }
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    float sum[kGroups][2][4];
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[g][i / 4][i % 4] = 0;
    }
#pragma unroll
    for (int k = 0; k < kTile / 16; ++k) {
      uint32_t b[4];
      load_b(b, tile.latents + 16 * k * kLatentRow + 64 * warp + 16 * n, kLatentRow, swapped(64 * warp));
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        mma_f16(sum[g][0], weights[g][k], b[0], b[1]);
        mma_f16(sum[g][1], weights[g][k], b[2], b[3]);
      }
    }
    beside(n);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        float& m = mix[g][2 * n + i / 4][i % 4];
        const Fold f = fold[g][i % 4 / 2];
        m = fmaf(m, f.before, sum[g][i / 4][i % 4] * f.now);
      }
    }
  }
}

// A block: kGroups * 16 heads of a row, and one split of its positions. Grid: heads, splits, rows.
template <int kGroups, bool kRoomy>
__global__ void __launch_bounds__(kThreads, 1) attend_mma_kernel(AttendRowsArgs a) {
  using Memory = Shared<kGroups, kRoomy>;
  constexpr int kTiles = Memory::kTiles, kAtOnce = Memory::kAtOnce;
  auto& s = *reinterpret_cast<Memory*>(shared_memory());
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int token = static_cast<int>(threadIdx.x) / 8, eighth = threadIdx.x % 8;  // and token + 32
  const int64_t r = blockIdx.z;
  const int first_head = static_cast<int>(blockIdx.x) * kGroups * 16;

  QueryLoad<kGroups> query;
  query.load(a, r, first_head);
  Source source = {a.selected ? a.selected + r * a.topk : nullptr,
                   a.step.page_table + int64_t{a.step.sequence[r]} * a.step.page_stride, a.cache.latent,
                   a.topk};
  // Positions are looked up two tiles ahead, pages one, latents come while the tile before is worked on. The
  // first positions need not wait for n where a split is one tile: what lies past the n-th is not used.
  int32_t begin = static_cast<int32_t>(blockIdx.y) * kTile, slot[2], position[2];
  Raw raw[2];
  const bool early = a.selected && a.topk <= kAttendMmaFold;
  if (early) {
    for (int i = 0; i < 2; ++i) position[i] = source.position(begin + token + 32 * i);
  }
  const int32_t n = a.selected ? a.n_selected[r] : a.step.position[r] + 1;
  const int32_t per_split = a.splits == 1 ? n : attend_mma_split(n);
  begin = static_cast<int32_t>(blockIdx.y) * per_split;
  if (begin >= n) return;
  source.end = n - begin < per_split ? n : begin + per_split;
  const int32_t end = source.end;
  for (int i = 0; i < 2; ++i) {
    const int32_t at = begin + token + 32 * i;
    if (!early || at >= end) position[i] = source.position(at);
  }
  for (int i = 0; i < 2; ++i) slot[i] = source.slot(position[i]);
  for (int i = 0; i < 2; ++i) position[i] = source.position(begin + kTile + token + 32 * i);
#pragma unroll
  for (int i = 0; i < 2; ++i) source.load(slot[i], eighth, raw[i]);
  for (int i = 0; i < 2; ++i) slot[i] = source.slot(position[i]);
  for (int i = 0; i < 2; ++i) position[i] = source.position(begin + 2 * kTile + token + 32 * i);

  uint16_t* queries = s.tile[kTiles - 1].latents;
  query.store(queries, s.query_factor, a.softmax_scale * 1.44269504f);
  const auto store_quarter = [&](Tile& tile, int quarter) {
#pragma unroll
    for (int i = 0; i < 2; ++i) store_latent(tile, token + 32 * i, eighth, raw[i], quarter);
  };
  const auto store_all = [&](Tile& tile) {
#pragma unroll
    for (int quarter = 0; quarter < kParts; ++quarter) store_quarter(tile, quarter);
  };
  if (kRoomy) store_all(s.tile[0]);
  __syncthreads();
  const int part = warp % kParts, first_token = warp / kParts * kTokens;
  uint32_t q[kPartSteps + 1][kGroups][4];
#pragma unroll
  for (int k = 0; k <= kPartSteps; ++k) {
    const int column = k < kPartSteps ? kPart * part + 16 * k : kRank + 16 * part;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) load_a(q[k][g], queries + g * 16 * kLatentRow + column, kLatentRow);
  }
  float mix[kGroups][8][4];
#pragma unroll
  for (int i = 0; i < kGroups * 32; ++i) mix[i / 32][i / 4 % 8][i % 4] = 0;
  Running running[kGroups];
  int current = 0;  // tile
  for (int32_t at = begin; at < end; at += kTile) {
    if (!kRoomy) {
      __syncthreads();  // the tile before, or the queries, are done with
      store_all(s.tile[0]);
    }
    if (!kRoomy || at > begin) __syncthreads();
    const bool more = at + kTile < end;
    if (more) {
#pragma unroll
      for (int i = 0; i < 2; ++i) source.load(slot[i], eighth, raw[i]);
      for (int i = 0; i < 2; ++i) slot[i] = source.slot(position[i]);
      for (int i = 0; i < 2; ++i) position[i] = source.position(at + 3 * kTile + token + 32 * i);
    }
    const Tile& tile = s.tile[current];
    float sum[kGroups][kTokens / 8][4];
    quarter_scores<kGroups>(tile, q, part, first_token, sum);
#pragma unroll
    for (int first = 0; first < kGroups; first += kAtOnce) {
      if (first > 0) __syncthreads();  // the scores before are read
#pragma unroll
      for (int g = first; g < first + kAtOnce; ++g) {
        float* to = s.scores[g - first] + (part * 16 + lane / 4) * kScoreRow + first_token + 2 * (lane % 4);
#pragma unroll
        for (int i = 0; i < kTokens / 8; ++i) {
          *reinterpret_cast<Pair*>(to + 8 * i) = {sum[g][i][0], sum[g][i][1]};
          *reinterpret_cast<Pair*>(to + 8 * kScoreRow + 8 * i) = {sum[g][i][2], sum[g][i][3]};
        }
      }
      __syncthreads();
#pragma unroll
      for (int g = first; g < first + kAtOnce; ++g) {
        tile_weights(s.scores[g - first], s.query_factor + g * 16, s.weights + g * 16 * kWeightRow,
                     s.fold + g * 16, end - at, running[g]);
      }
    }
    __syncthreads();
    Tile& next = s.tile[kTiles - 1 - current];
    fold_latents<kGroups>(tile, s.weights, s.fold, mix, [&](int quarter) {
      if (kRoomy && more) store_quarter(next, quarter);
    });
    if (kRoomy) current = 1 - current;
  }

  const int64_t row = (r * a.splits + blockIdx.y) * a.heads;
  if (a.splits == 1) {  // total and maximum, for all warps
    __syncthreads();
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      if (threadIdx.x % 16 == 0) s.fold[g * 16 + threadIdx.x / 16] = {running[g].total, running[g].maximum};
    }
    __syncthreads();
  } else {
    auto* stats = reinterpret_cast<Fold*>(a.partial + int64_t{a.rows} * a.splits * a.heads * kRank);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int head = first_head + g * 16 + static_cast<int>(threadIdx.x) / 16;
      if (threadIdx.x % 16 == 0 && head < a.heads) stats[row + head] = {running[g].total, running[g].maximum};
    }
  }
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int own = g * 16 + lane / 4 + 8 * i, head = first_head + own;
      if (head >= a.heads) continue;
      float* out = (a.splits == 1 ? a.mixed : a.partial) + (row + head) * kRank + 64 * warp + 2 * (lane % 4);
      const float inverse = a.splits == 1 ? 1 / s.fold[own].before : 1;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        Pair value = {mix[g][j][2 * i], mix[g][j][2 * i + 1]};
        if (a.splits == 1) value = {round_bf16(value.x * inverse), round_bf16(value.y * inverse)};
        *reinterpret_cast<Pair*>(out + 8 * j) = value;
      }
    }
  }
}

// Folds the splits of a (head, row) in order, as a block folds its tiles. A thread has two values.
__global__ void __launch_bounds__(kThreads) combine_mma_kernel(AttendRowsArgs a) {
  auto* stats = reinterpret_cast<Fold*>(shared_memory());  // [kMostSplits]: total, maximum
  Fold* fold = stats + kMostSplits;
  const int64_t head = blockIdx.x, r = blockIdx.y, stride = int64_t{a.heads} * kRank;
  const int32_t n = a.selected ? a.n_selected[r] : a.step.position[r] + 1;
  const int32_t splits = (n + attend_mma_split(n) - 1) / attend_mma_split(n);
  const int64_t row = r * a.splits * a.heads + head;
  const auto tid = static_cast<int32_t>(threadIdx.x);
  const float* part = a.partial + row * kRank + 2 * tid;
  if (tid < splits) {
    const auto* all = reinterpret_cast<const Fold*>(a.partial + int64_t{a.rows} * a.splits * stride);
    stats[tid] = all[row + int64_t{tid} * a.heads];
  }
  __syncthreads();
  if (tid < splits) {
    Running run;
    for (int32_t s = 0; s < tid; ++s) run.maximum = fmaxf(run.maximum, stats[s].now);
    fold[tid] = run.fold(stats[tid].now, 0);
  }
  __syncthreads();
  float total = 0;
  Pair mix = {0, 0};
  constexpr int kAtOnce = 16;  // loads in flight
  for (int32_t first = 0; first < splits; first += kAtOnce) {
    Pair value[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i < splits) value[i] = *reinterpret_cast<const Pair*>(part + (first + i) * stride);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i >= splits) break;
      const Fold f = fold[first + i];
      total = fmaf(total, f.before, stats[first + i].before * f.now);
      mix.x = fmaf(mix.x, f.before, value[i].x * f.now);
      mix.y = fmaf(mix.y, f.before, value[i].y * f.now);
    }
  }
  const float inverse = 1 / total;
  *reinterpret_cast<Pair*>(a.mixed + (r * a.heads + head) * kRank + 2 * tid) = {round_bf16(mix.x * inverse),
                                                                                round_bf16(mix.y * inverse)};
}

template <int kGroups, bool kRoomy>
void launch_form(const AttendRowsArgs& a, Stream stream) {
  launch(attend_mma_kernel<kGroups, kRoomy>,
         {(a.heads + 16 * kGroups - 1) / (16 * kGroups), a.splits, a.rows}, kThreads,
         sizeof(Shared<kGroups, kRoomy>), stream, a);
}
template <int kGroups>
void launch_groups(const AttendRowsArgs& a, Stream stream) {
  if (static_cast<int64_t>(sizeof(Shared<kGroups, true>)) <= a.shared_limit) {
    launch_form<kGroups, true>(a, stream);
  } else {
    launch_form<kGroups, false>(a, stream);
  }
}

}  // namespace

void launch_attend_mma(const AttendRowsArgs& a, Stream stream) {
  // 32 heads share a tile's expansion, unless that leaves processors idle.
  constexpr int64_t kProcessors = 132;
  if (int64_t{(a.heads + 15) / 16} * a.splits * a.rows <= kProcessors) {
    launch_groups<1>(a, stream);
  } else {
    launch_groups<2>(a, stream);
  }
  if (a.splits > 1) {
    launch(combine_mma_kernel, {a.heads, a.rows}, kThreads, 2 * kMostSplits * sizeof(Fold), stream, a);
  }
}

}  // namespace dsv::cuda
