// Attention of a run of a sequence's rows that attend to all positions up to their own, on Hopper, as plain
// multi-head attention: of all positions every head's key of 128 and value of 128 are made from the latents
// once (kv_b, as one linear with FP8 sums), and scores are over 128 + 64 values a position and sums over 128,
// where the absorbed form (attend_expanded.cu) has 576 and 512 and a W_k^T q and a W_v for each row. Keys,
// values, queries and weights are rounded to bf16, as the released model's own code has them in this form.
//
// Bound: the tensor cores. 2048 rows of 128 heads that begin a sequence take 172 GFLOP, 0.2 ms at 850
// TFLOP/s, and their keys and values 69 GFLOP of FP8 and 134 MB, 40 to 70 us. A tile of 128 rows and 128
// positions is 2,560 cycles of a processor's tensor cores; shared memory moves 80 KB of keys and values into
// it (640 cycles at 128 bytes), and 1,150 + 510 cycles' operands out of it. Weights take 16,384 powers of
// two, 1,024 cycles of what makes those, beside.
//
// A block takes a head and two tiles of 128 rows, the t-th and the t-th from the end, which together see as
// many positions for every t; then the next such item. Two groups of warps have 64 rows each, their sums in
// registers; two warps of a third have keys, values and queries copied. A group's scores of a tile are under
// way together with its sums of the tile before, be that of the same rows or of the last ones, and it makes
// weights while the other group's products run: the groups take turns at beginning theirs.
#include <algorithm>

#include "kernels/cuda/attend.h"
#include "kernels/cuda/codes.cuh"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace dsv::cuda {
namespace {

constexpr int kNope = 128, kRope = 64, kValues = 128, kHeadDim = kNope + kRope, kRank = 512;
constexpr int kGroups = 2, kGroupRows = 64, kTileRows = kGroups * kGroupRows;
constexpr int kThreads = (kGroups + 1) * 128;
constexpr int kPositions = 128, kStages = 2;  // positions of a tile
constexpr int kBox = kPositions * 128;        // bytes of 64 values of a tile
constexpr int kKeyBoxes = kHeadDim / 64, kValueBoxes = kValues / 64;
constexpr int kQueryBlock = kGroupRows * 128;  // bytes of 64 values of a group's rows
constexpr int kHeadBytes = 2 * (kNope + kValues);
constexpr int kQueryPlace = 4 * kHeadDim;  // bytes of a query's place: bf16 is in the first half

struct Shared {  // aligned to 1024 bytes
  unsigned char queries[kGroups][kKeyBoxes * kQueryBlock];
  unsigned char keys[kStages][kKeyBoxes * kBox];
  unsigned char values[kStages][kValueBoxes * kBox];
  uint64_t keys_full[kStages], keys_empty[kStages], values_full[kStages], values_empty[kStages];
  uint64_t queries_full[kGroups], queries_empty[kGroups], turn[kGroups];
  float ready[kGroups * 128];  // read by nobody
};
static_assert(sizeof(Shared) <= kAttendWgmmaShared);

struct Args {
  AttendHeadsArgs a;
  TensorMap keys, queries;
  int32_t row_tiles, items;
};

// A sequence's latents as the input of kv_b, and their RoPE parts behind its outputs: a warp a position.
constexpr int kGatherThreads = 256;
struct GatherArgs {
  HeadKeysArgs a;
  CodesOut codes;
};
__global__ void __launch_bounds__(kGatherThreads) gather_kernel(GatherArgs args) {
  const HeadKeysArgs& a = args.a;
  const int lane = threadIdx.x % kWarp;
  const int64_t p = (int64_t{blockIdx.x} * kGatherThreads + threadIdx.x) / kWarp;
  if (p >= a.positions) return;
  const unsigned char* const row =
      a.cache.latent +
      (int64_t{a.pages[p / kPageTokens]} * kPageTokens + p % kPageTokens) * kAttendMmaRowBytes;
  reinterpret_cast<uint4*>(args.codes.data + p * args.codes.pitch)[lane] =
      reinterpret_cast<const uint4*>(row)[lane];
  if (lane < kRank / kQuantBlock)
    args.codes.scale[lane * args.codes.scale_cols + p] = reinterpret_cast<const float*>(row + kRank)[lane];
  if (lane < 2 * kRope / 16) {
    auto* const rope = reinterpret_cast<uint4*>(a.keys + p * head_keys_pitch(a.heads) + a.heads * kHeadBytes);
    rope[lane] = reinterpret_cast<const uint4*>(row + kRank + 4 * kRank / kQuantBlock)[lane];
  }
}

#ifdef DSV_HOPPER

using namespace hopper;

// What a block works on, one after another: tiles of rows of heads.
struct Place {
  int32_t items, row_tiles, item, row_tile;

  __device__ __forceinline__ explicit Place(const Args& args)
      : items(args.items), row_tiles(args.row_tiles), item(static_cast<int32_t>(blockIdx.x)) {
    row_tile = last();
  }
  __device__ __forceinline__ int32_t pairs() const { return (row_tiles + 1) / 2; }
  __device__ __forceinline__ int32_t last() const { return row_tiles - 1 - item % pairs(); }
  __device__ __forceinline__ bool there() const { return item < items; }
  __device__ __forceinline__ int32_t head() const { return item / pairs(); }
  __device__ __forceinline__ void next() {
    const int32_t first = item % pairs();
    if (row_tile > first) {
      row_tile = first;
    } else {
      item += static_cast<int32_t>(gridDim.x);
      row_tile = last();
    }
  }
  // Tiles of positions that its rows see.
  __device__ __forceinline__ int32_t tiles(const AttendHeadsArgs& a) const {
    const int32_t end = (row_tile + 1) * kTileRows;
    return (a.first_position + (end < a.rows ? end : a.rows) - 1) / kPositions + 1;
  }
};

// ------------------------------------------------------------------------- what producers do

// One thread: keys and values.
__device__ __forceinline__ void copy_keys(const Args& args, Shared& s) {
  int32_t count = 0;
  for (Place at(args); at.there(); at.next()) {
    const int32_t head = at.head(), tiles = at.tiles(args.a);
    for (int32_t t = 0; t < tiles; ++t, ++count) {
      const int32_t b = count % kStages, position = t * kPositions;
      const uint32_t parity = (count / kStages + 1) & 1;
      const auto copy = [&](const unsigned char* to, int64_t column, uint64_t* full) {
        copy_box(shared_address(to), &args.keys, static_cast<int32_t>(column), position,
                 shared_address(full));
      };
      barrier_wait(&s.keys_empty[b], parity);
      barrier_expect(shared_address(&s.keys_full[b]), kKeyBoxes * kBox);
      for (int i = 0; i < kNope / 64; ++i)
        copy(s.keys[b] + i * kBox, head * kHeadBytes + 128 * i, &s.keys_full[b]);
      copy(s.keys[b] + kNope / 64 * kBox, args.a.heads * kHeadBytes, &s.keys_full[b]);
      barrier_wait(&s.values_empty[b], parity);
      barrier_expect(shared_address(&s.values_full[b]), kValueBoxes * kBox);
      for (int i = 0; i < kValueBoxes; ++i)
        copy(s.values[b] + i * kBox, head * kHeadBytes + 2 * kNope + 128 * i, &s.values_full[b]);
    }
  }
}

// One warp: queries, which are in the L2 cache by the time that there is room for them.
__device__ __forceinline__ void copy_queries(const Args& args, Shared& s) {
  const AttendHeadsArgs& a = args.a;
  uint32_t count = 0;
  for (Place at(args); at.there(); ++count) {
    for (int group = 0; group < kGroups; ++group) {
      barrier_wait(&s.queries_empty[group], (count + 1) & 1);
      if (threadIdx.x % kWarp == 0) {
        const uint32_t full = shared_address(&s.queries_full[group]);
        barrier_expect(full, kKeyBoxes * kQueryBlock);
        for (int i = 0; i < kKeyBoxes; ++i) {
          copy_box(shared_address(s.queries[group] + i * kQueryBlock), &args.queries,
                   at.head() * kQueryPlace + 128 * i, at.row_tile * kTileRows + group * kGroupRows, full);
        }
      }
      __syncwarp();
    }
    at.next();
    if (!at.there()) break;
    for (auto row = static_cast<int>(threadIdx.x) % kWarp; row < kTileRows; row += kWarp) {
      const int32_t r = at.row_tile * kTileRows + row;
      const auto* const query =
          static_cast<const unsigned char*>(a.q) + (int64_t{r} * a.heads + at.head()) * kQueryPlace;
      for (int i = 0; i < kKeyBoxes && r < a.rows; ++i) prefetch_line(query + 128 * i);
    }
  }
}

// ------------------------------------------------------------------------- scores, weights and sums

__device__ __forceinline__ void begin_scores(const unsigned char* queries, const unsigned char* keys,
                                             float (&score)[64]) {
  const uint32_t q = block_descriptor(queries), k = block_descriptor(keys);
  forget(score);
  wgmma_fence();
#pragma unroll
  for (int i = 0; i < kHeadDim / 16; ++i) {
    wgmma_shared(score, q + i / 4 * (kQueryBlock >> 4) + 2 * (i % 4), k + i / 4 * (kBox >> 4) + 2 * (i % 4),
                 i);
  }
  wgmma_commit();
}

using Weights = uint32_t[kPositions / 16][4];

__device__ __forceinline__ void begin_sums(const unsigned char* values, const Weights& weights, bool add,
                                           float (&sum)[64]) {
  const uint32_t v = wide_descriptor<kPositions>(values);
  wgmma_fence();
#pragma unroll
  for (int i = 0; i < kPositions / 16; ++i) {
    wgmma_transposed(sum, weights[i], v + i * (16 * 128 >> 4), i > 0 || add);
  }
  wgmma_commit();
}

// Of rows g and g + 8, in units of scores: the largest so far, and this lane's part of the sum of weights.
struct Running {
  float largest[2] = {-INFINITY, -INFINITY}, total[2] = {};
};

// Takes a tile's scores into account. before: what weights and sums so far are to be multiplied with. last:
// of each row, the last of the tile's positions that it sees, or more.
__device__ __forceinline__ void find_largest(float (&score)[64], float factor, bool masked,
                                             const int32_t (&last)[2], Running& run, float (&before)[2]) {
  if (masked) {
    const auto first = static_cast<int32_t>(2 * (threadIdx.x % 4));
#pragma unroll
    for (int i = 0; i < 64; ++i) {
      if (i / 4 * 8 + first + i % 2 > last[i / 2 % 2]) score[i] = -INFINITY;
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float largest[2] = {run.largest[r], run.largest[r]};  // two, so that none waits for the one before
#pragma unroll
    for (int i = 0; i < 32; ++i) largest[i % 2] = fmaxf(largest[i % 2], score[i / 2 * 4 + 2 * r + i % 2]);
    float all = fmaxf(largest[0], largest[1]);
    all = fmaxf(all, __shfl_xor_sync(kAllLanes, all, 1));
    all = fmaxf(all, __shfl_xor_sync(kAllLanes, all, 2));
    before[r] = exp2_fast((run.largest[r] - all) * factor);
    run.largest[r] = all;
  }
}

// Scores become weights, and sums so far those of as large ones.
__device__ __forceinline__ void weigh(const float (&score)[64], float factor, const float (&before)[2],
                                      Running& run, Weights& weights, float (&sum)[64]) {
  const float offset[2] = {-run.largest[0] * factor, -run.largest[1] * factor};
#pragma unroll
  for (int r = 0; r < 2; ++r) run.total[r] *= before[r];
#pragma unroll
  for (int i = 0; i < 32; ++i) {  // two neighbours
    const int r = i % 2;
    const float one = exp2_fast(fmaf(score[2 * i], factor, offset[r])),
                two = exp2_fast(fmaf(score[2 * i + 1], factor, offset[r]));
    weights[i / 4][i % 4] = pack_bf16(one, two);
    run.total[r] += one + two;
    sum[2 * i] *= before[r], sum[2 * i + 1] *= before[r];
  }
}

// A row's values of a head, of which this lane has those of row g + 8 r among the sums.
__device__ __forceinline__ void put_row(const AttendHeadsArgs& a, int64_t row, bool valid, int64_t head,
                                        const float (&sum)[64], int r, float inverse) {
  const int t = threadIdx.x % 4;
  float value[kValueBoxes][4][4], amax = 0;
#pragma unroll
  for (int i = 0; i < 32; ++i) {  // value 8 (i / 2) + 2 t + i % 2
    const float v = round_bf16(sum[i / 2 * 4 + 2 * r + i % 2] * inverse);
    value[i / 16][i / 4 % 4][i % 4] = v;
    amax = fmaxf(amax, fabsf(v));
  }
  if (!a.codes.data) {
    float* const y = a.y + (row * a.heads + head) * kValues + 2 * t;
#pragma unroll
    for (int i = 0; i < 16 && valid; ++i) {
      const float* const two = &value[i / 8][i / 2 % 4][i % 2 * 2];
      *reinterpret_cast<float2*>(y + 8 * i) = {two[0], two[1]};
    }
    return;
  }
  amax = fmaxf(amax, __shfl_xor_sync(kAllLanes, amax, 1));
  amax = fmaxf(amax, __shfl_xor_sync(kAllLanes, amax, 2));
  const float scale = e4m3_scale(amax, true);
#pragma unroll
  for (int half = 0; half < kValueBoxes; ++half) {
    const uint4 codes = codes_of_sums(value[half], scale, true);
    if (valid)
      *reinterpret_cast<uint4*>(a.codes.data + row * a.codes.pitch + head * kValues + 64 * half + 16 * t) =
          codes;
  }
  if (valid && t == 0) a.codes.scale[head * a.codes.scale_cols + row] = scale;
}

// A group: scores of a tile and sums of the one before are under way together, whatever rows they are of.
__device__ __forceinline__ void consume(const Args& args, Shared& s, int group) {
  const AttendHeadsArgs& a = args.a;
  const int own_row = group * kGroupRows + threadIdx.x % kWarpgroup / kWarp * 16 + threadIdx.x % kWarp / 4;
  const float factor = a.softmax_scale * 1.44269504f;
  float score[64], sum[64], before[2];
  Weights weights;
  Running run;
  Place at(args), of_sums = at;
  if (!at.there()) return;
  int32_t tile = 0, tiles = at.tiles(a), count = 0, heads = 0;  // of its rows; of the block, and their heads
  const auto begin_tile = [&] {
    const int32_t b = count % kStages;
    barrier_wait(&s.turn[group], (count + 1 - group) & 1);
    if (tile == 0) barrier_wait(&s.queries_full[group], heads & 1);
    barrier_wait(&s.keys_full[b], count / kStages & 1);
    begin_scores(s.queries[group], s.keys[b], score);
  };
  const auto take_scores = [&](Running& next) {
    keep(score);
    warp_arrive(&s.keys_empty[count % kStages]);
    if (tile + 1 == tiles) warp_arrive(&s.queries_empty[group]);
    const int32_t first_row = at.row_tile * kTileRows, begin = tile * kPositions;
    const auto last = [&](int32_t row) {  // of the tile's positions
      return a.first_position + (first_row + row < a.rows ? first_row + row : a.rows - 1) - begin;
    };
    const int32_t sees[2] = {last(own_row), last(own_row + 8)};
    find_largest(score, factor, last(group * kGroupRows) < kPositions - 1, sees, next, before);
    // What is wanted is ready before sums are waited for: the assembler moves a wait up, past all but memory.
    s.ready[threadIdx.x] = before[0] + before[1];
  };
  // Of the tile before.
  const auto begin_last_sums = [&](bool add) {
    barrier_wait(&s.values_full[(count - 1) % kStages], (count - 1) / kStages & 1);
    begin_sums(s.values[(count - 1) % kStages], weights, add, sum);
  };
  const auto end_last_sums = [&] {
    wgmma_wait<0>();
    keep(sum);
#pragma unroll
    for (auto& words : weights) keep(words);  // until no product reads them
    warp_arrive(&s.values_empty[(count - 1) % kStages]);
  };
  const auto put_rows = [&] {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float total = run.total[r];
      total += __shfl_xor_sync(kAllLanes, total, 1);
      total += __shfl_xor_sync(kAllLanes, total, 2);
      const int32_t row = of_sums.row_tile * kTileRows + own_row + 8 * r;
      put_row(a, row, row < a.rows, of_sums.head(), sum, r, 1 / total);
    }
  };
  begin_tile();
  warp_arrive(&s.turn[1 - group]);
  wgmma_wait<0>();
  take_scores(run);
  forget(sum);
  weigh(score, factor, before, run, weights, sum);
  for (bool add = false;; add = tile > 0) {
    ++count;
    if (++tile == tiles) {
      at.next();
      if (!at.there()) break;
      tile = 0, tiles = at.tiles(a), ++heads;
    }
    begin_tile();
    begin_last_sums(add);
    warp_arrive(&s.turn[1 - group]);
    wgmma_wait<1>();
    Running next = run;
    if (tile == 0) next = {};
    take_scores(next);
    end_last_sums();
    if (tile == 0) {
      put_rows();
      of_sums = at;
    }
    run = next;
    weigh(score, factor, before, run, weights, sum);
  }
  begin_last_sums(tiles > 1);
  end_last_sums();
  put_rows();
}

#endif

// Persistent blocks, one a processor.
__global__ void __launch_bounds__(kThreads, 1)
    attend_heads_kernel([[maybe_unused]] const __grid_constant__ Args args) {
#ifdef DSV_HOPPER
  auto& s = *reinterpret_cast<Shared*>(shared_memory());
  const int group = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kWarpgroup, 0);
  if (threadIdx.x == 0) {
    for (int b = 0; b < kStages; ++b) {
      barrier_init(&s.keys_full[b], 1);
      barrier_init(&s.values_full[b], 1);
      barrier_init(&s.keys_empty[b], kGroups * 4);  // of warps
      barrier_init(&s.values_empty[b], kGroups * 4);
    }
    for (int g = 0; g < kGroups; ++g) {
      barrier_init(&s.queries_full[g], 1);
      barrier_init(&s.queries_empty[g], 4);
      barrier_init(&s.turn[g], 4);
    }
    fence_barriers();
  }
  __syncthreads();
  if (group == kGroups) {
    fewer_registers<40>();
    if (threadIdx.x == kGroups * kWarpgroup) {
      copy_keys(args, s);
    } else if (threadIdx.x / kWarp == kGroups * kWarpgroup / kWarp + 1) {
      copy_queries(args, s);
    }
  } else {
    more_registers<232>();
    consume(args, s, group);
  }
#endif
}

}  // namespace

void launch_head_keys(const HeadKeysArgs& a, Stream stream) {
  const PackedRows codes = packed_rows(a.keys + a.positions * head_keys_pitch(a.heads), a.positions, kRank,
                                       Rounding::e4m3, PackedForm::by_block);
  launch(gather_kernel, {(a.positions * int64_t{kWarp} + kGatherThreads - 1) / kGatherThreads},
         kGatherThreads, 0, stream, GatherArgs{a, codes_out(codes)});
  TensorArgs args = linear_args(a.kv_b, codes, a.positions);
  args.fp8_sums = true;
  args.codes = {a.keys, head_keys_pitch(a.heads)};
  launch_tensor_fp8(args, stream);
}

void launch_attend_heads(const AttendHeadsArgs& a, Stream stream) {
  Args args = {};
  args.a = a;
  const PackedRows keys = {a.keys, head_keys_pitch(a.heads)};
  args.keys = input_map(keys, int64_t{a.first_position} + a.rows, kPositions);
  args.queries = input_map({static_cast<const unsigned char*>(a.q), int64_t{a.heads} * kQueryPlace}, a.rows);
  args.row_tiles = (a.rows + kTileRows - 1) / kTileRows;
  args.items = a.heads * ((args.row_tiles + 1) / 2);
  launch(attend_heads_kernel, {std::clamp<int64_t>(processors(), 1, std::max(args.items, 1))}, kThreads,
         sizeof(Shared), stream, args);
}

}  // namespace dsv::cuda
