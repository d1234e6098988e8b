// Sparse MLA of many rows of one sequence on Hopper, attend_wgmma's whole rows with the same bits: the same
// products in the same order. Two kernels: one brings the sequence's latents to f16, once for all rows that
// select them; the other's blocks go through rows and copy the selected latents to shared memory as they are.
//
// Bound, for a tile and 64 heads: 2176 cycles of a processor's tensor cores (attend_wgmma.cu), and what moves
// in shared memory at 128 bytes a cycle: latents as they come, 576 cycles, and for the scores, 576, and for
// the sums, 512; queries that are not in registers; weights. L2: 74 KB a tile, once for the two blocks of 128
// heads if they ask at about the same time.
//
// A block: 64 heads of a row, then of another row. One warpgroup copies tiles to two buffers, in halves: the
// RoPE parts and 256 values, then the others; one brings queries and makes scores, of two tiles one after the
// other, and weights; two add up 256 values each and let go of their half of a buffer.
#include "kernels/cuda/attend_wgmma.cuh"

namespace dsv::cuda {
namespace {

using namespace hopper;

constexpr int kThreads = 4 * kGroup;
constexpr int kOwnBlocks = 4;  // of the queries: in registers

struct Shared {  // aligned to 1024 bytes
  // The first kOwnBlocks are for registers; in the place of two come weights, of the tiles in turn.
  unsigned char queries[kRows];
  unsigned char tile[2][kRows];
  float before[2][kHeads];                       // what sums have to be multiplied with before a tile
  float inverse[2][kHeads];                      // with a row's last tile: 1 / the sum of its weights
  float factor[kHeads];                          // of scores
  uint64_t full[2][2], weighed[2], empty[2][2];  // of a buffer's halves
};
constexpr int64_t kShared = sizeof(Shared);
static_assert(kShared <= kAttendWgmmaShared && kOwnBlocks >= 2);

// A warp kAtOnce positions.
constexpr int kAtOnce = 4, kExpandThreads = 256, kExpandPositions = kExpandThreads / kWarp * kAtOnce;

__global__ void __launch_bounds__(kExpandThreads) expand_kernel(ExpandArgs a) {
  const int lane = threadIdx.x % kWarp;
  const int64_t first = (int64_t{blockIdx.x} * kExpandThreads + threadIdx.x) / kWarp * kAtOnce;
  uint2 codes[kAtOnce][2];
  float scale[kAtOnce][2];
  uint4 rope[kAtOnce];
#pragma unroll
  for (int i = 0; i < kAtOnce; ++i) {
    const int64_t p = first + i < a.positions ? first + i : a.positions - 1;
    const unsigned char* row =
        a.cache.latent +
        (int64_t{a.pages[p / kPageTokens]} * kPageTokens + p % kPageTokens) * kAttendMmaRowBytes;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      codes[i][h] = *reinterpret_cast<const uint2*>(row + 256 * h + 8 * lane);
      scale[i][h] = reinterpret_cast<const float*>(row + kRank)[2 * h + lane / 16];
    }
    rope[i] = *reinterpret_cast<const uint4*>(row + kRank + 4 * kParts + 16 * (lane % 8));
  }
#pragma unroll
  for (int i = 0; i < kAtOnce; ++i) {
    if (first + i >= a.positions) return;
    auto* const to = reinterpret_cast<uint4*>(a.expanded + (first + i) * kExpandedRowBytes);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      uint32_t w[8];
      latent_values(uint4{codes[i][h].x, codes[i][h].y, 0, 0}, pack_f16(scale[i][h], scale[i][h]), w);
      to[kWarp * h + lane] = uint4{w[0], w[1], w[2], w[3]};
    }
    if (lane < 8) to[2 * kWarp + lane] = rope[i];
  }
}

#ifdef DSV_HOPPER

constexpr int kOwnSteps = 4 * kOwnBlocks;

// What a block works on, one after another.
struct Items {
  int32_t blocks, all;  // of 64 heads of a row; of all rows

  __device__ __forceinline__ explicit Items(const AttendRowsArgs& a)
      : blocks((a.heads + kHeads - 1) / kHeads), all(a.rows * blocks) {}
  __device__ __forceinline__ int32_t first() const { return static_cast<int32_t>(blockIdx.x); }
  __device__ __forceinline__ int32_t after(int32_t item) const {
    return item + static_cast<int32_t>(gridDim.x);
  }
};

// ------------------------------------------------------------------------- what producers do

// Tiles of all rows, by one warpgroup, 16 latents a round: eight lanes a latent, 16 bytes of each of its
// blocks.
__device__ __forceinline__ void produce(const AttendRowsArgs& a, Shared& s) {
  const Items items(a);
  const int lane = threadIdx.x % kWarp, eighth = lane % 8, low = lane / 8,
            token = threadIdx.x / kWarp % 4 * 4 + low, looked_up = looked_up_token();
  const unsigned char* const rows = a.expanded + 16 * eighth;
  unsigned char* const place = s.tile[0] + token * 128 + (eighth ^ token % 8) * 16;
  // Of the row that comes next, not one after another: n, and a position that counts if n says so.
  int32_t n = 0, position = 0;
  const auto look_ahead = [&](int32_t item) {
    if (item >= items.all) return;
    const int32_t r = item / items.blocks;
    n = a.n_selected[r];
    position = a.selected[int64_t{r} * a.topk + (looked_up < a.topk ? looked_up : 0)];
  };
  look_ahead(items.first());
  int32_t count = 0;  // of the block's tiles
  for (int32_t item = items.first(); item < items.all; item = items.after(item)) {
    const int32_t* const selected = a.selected + int64_t{item / items.blocks} * a.topk;
    const int32_t own_n = n, tiles = (n + kTile - 1) / kTile;
    // Past the last, the last once more: its weight will be zero.
    const auto position_of = [&](int32_t tile) {
      const int32_t at = tile * kTile + looked_up;
      return selected[at < own_n ? at : own_n - 1];
    };
    if (tiles == 0) look_ahead(items.after(item));
    int32_t next = position;
    if (tiles > 0 && looked_up >= own_n) next = position_of(0);
    int32_t second = tiles > 1 ? position_of(1) : 0;
    for (int32_t t = 0; t < tiles; ++t, ++count) {
      const int b = count % 2;
      const int32_t now = next;
      next = second;
      if (t + 2 < tiles) second = position_of(t + 2);
      if (t + 1 == tiles) look_ahead(items.after(item));
      unsigned char* const to = place + b * kRows;
      const unsigned char* from[kRounds];
#pragma unroll
      for (int i = 0; i < kRounds; ++i) {
        from[i] = rows + kExpandedRowBytes * __shfl_sync(kAllLanes, now, 4 * i + low);
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if (count >= 2) barrier_wait(&s.empty[b][h], (count / 2 + 1) & 1);
#pragma unroll
        for (int i = 0; i < kRounds; ++i) {
          if (h == 0) copy_async(to + 16 * 128 * i + kRopeBlock * kBlock, from[i] + 128 * kRopeBlock);
#pragma unroll
          for (int g = 4 * h; g < 4 * h + 4; ++g) {
            copy_async(to + 16 * 128 * i + g * kBlock, from[i] + 128 * g);
          }
        }
        copies_arrive(&s.full[b][h]);
      }
    }
  }
  copy_commit();
  copy_wait<0>();
}

// ------------------------------------------------------------------------- scores and weights

// Queries of 64 heads, by one warpgroup. The weights of the row before lie where the first two blocks go, so
// those wait in registers until `count` tiles have been added up.
__device__ __forceinline__ void bring_queries(const AttendRowsArgs& a, Shared& s, int64_t r, int first_head,
                                              int32_t count) {
  constexpr int kHeld = 4;  // chunks of a thread in two blocks
  uint4 held[2][kHeld];
  const int own = static_cast<int>(threadIdx.x) % kGroup / 4, lane = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    load_queries<kHeld>(a, s.queries, s.factor, r, first_head, own + 32 * i, held[i]);
  }
#pragma unroll
  for (int k = 2; k >= 1; --k) {
    const int32_t tile = count - k;
    for (int h = 0; h < 2 && tile >= 0; ++h) barrier_wait(&s.empty[tile % 2][h], tile / 2 & 1);
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int k = 0; k < kHeld; ++k) {
      *reinterpret_cast<uint4*>(s.queries + query_at(own + 32 * i, lane + 4 * k)) = held[i][k];
    }
  }
}

// Begins the scores of 64 heads and the block's tile `count`, as its halves come: two groups of products.
__device__ __forceinline__ void begin_scores(Shared& s, const uint32_t (&own)[kOwnSteps][4], int32_t count,
                                             float (&score)[32]) {
  constexpr uint32_t kNext = kBlock >> 4;
  const int b = count % 2;
  const uint32_t q = block_descriptor(s.queries), k = block_descriptor(s.tile[b]);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    barrier_wait(&s.full[b][h], count / 2 & 1);
    fence_for_wgmma();
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < 4 && h == 0; ++i) {
      wgmma_shared<true>(score, q + kRopeBlock * kNext + 2 * i, k + kRopeBlock * kNext + 2 * i, i != 0);
    }
#pragma unroll
    for (int i = 16 * h; i < 16 * h + 16; ++i) {
      const uint32_t at = i / 4 * kNext + 2 * (i % 4);
      if (i < kOwnSteps) {
        wgmma_registers(score, own[i < kOwnSteps ? i : 0], k + at);
      } else {
        wgmma_shared<false>(score, q + at, k + at, 1);
      }
    }
    wgmma_commit();
  }
}

// Makes weights of a tile's scores, of which `left` count, and hands them over.
__device__ __forceinline__ void hand_over(Shared& s, Running (&run)[2], int32_t left, int32_t count,
                                          float (&score)[32]) {
  const int b = count % 2;
  uint32_t words[2][8];
  Stat stat[2];
  tile_weights(score, s.factor, left, words, stat);
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    run[j].fold(stat[j]);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      *reinterpret_cast<uint32_t*>(s.queries + b * kBlock + weights_at(i, j)) =
          scaled(words[j][i], run[j].now);
    }
    if (threadIdx.x % 4 == 0) {
      s.before[b][own_row() + 8 * j] = run[j].before;
      if (left <= kTile) s.inverse[b][own_row() + 8 * j] = 1 / run[j].total;
    }
  }
  fence_for_wgmma();
  warp_arrive(&s.weighed[b]);
}

// One warpgroup: of all rows the queries, scores and weights.
__device__ __forceinline__ void weigh_rows(const AttendRowsArgs& a, Shared& s) {
  const Items items(a);
  const int row = threadIdx.x % kGroup / kWarp * 16 + threadIdx.x % 16,
            half = threadIdx.x % kWarp / 16;  // of a block of queries: what ldmatrix wants of this lane
  int32_t count = 0;
  for (int32_t item = items.first(); item < items.all; item = items.after(item)) {
    const int32_t r = item / items.blocks;
    const int32_t n = __shfl_sync(kAllLanes, a.n_selected[r], 0);
    if (n <= 0) continue;
    named_barrier(1, kGroup);  // nobody needs the last row's queries any more
    bring_queries(a, s, r, item % items.blocks * kHeads, count);
    fence_for_wgmma();
    named_barrier(1, kGroup);
    uint32_t own[kOwnSteps][4];
#pragma unroll
    for (int i = 0; i < kOwnSteps; ++i) {
      load_matrices(own[i], reinterpret_cast<const uint16_t*>(s.queries + i / 4 * kBlock + row * 128 +
                                                              ((i % 4 * 2 + half) ^ row % 8) * 16));
    }
    __syncwarp();  // weights go there: a warp's to the rows that it has read
    Running run[2];
    for (int32_t left = n; left > 0; left -= 2 * kTile) {
      float first[32], second[32];
      const bool both = left > kTile;
      begin_scores(s, own, count, first);
      if (both) {
        begin_scores(s, own, count + 1, second);
        wgmma_wait<2>();
      } else {
        wgmma_wait<0>();
      }
      keep(first);
      hand_over(s, run, left, count, first);
      ++count;
      if (!both) break;
      wgmma_wait<0>();
      keep(second);
      hand_over(s, run, left - kTile, count, second);
      ++count;
    }
  }
}

// ------------------------------------------------------------------------- sums

// Of a row, from the block's tile `count` on: 256 values of 64 heads, by one warpgroup, and 1 / the sums of
// the weights.
__device__ __forceinline__ void add_up(Shared& s, int group, int32_t tiles, int32_t& count,
                                       float (&mix)[2][64], float (&inverse)[2]) {
#pragma unroll
  for (int i = 0; i < 128; ++i) mix[i / 64][i % 64] = 0;
  for (int32_t t = 0; t < tiles; ++t, ++count) {
    const int b = count % 2;
    barrier_wait(&s.weighed[b], count / 2 & 1);
    const float before[2] = {s.before[b][own_row()], s.before[b][own_row() + 8]};
    if (t + 1 == tiles) {
      for (int j = 0; j < 2; ++j) inverse[j] = s.inverse[b][own_row() + 8 * j];
    }
    rescale(mix, before);
    // The warpgroup that handed the weights over has fenced all that is read here.
    begin_sums<false>(mix, s.queries + b * kBlock, s.tile[b] + 4 * group * kBlock);
    wgmma_wait<0>();
    warp_arrive(&s.empty[b][group]);
  }
}

// A row's sums are four threads', two neighbours each of eight columns: two threads exchange theirs so that
// each has four of eight, and 32 bytes of a row are written together.
__device__ __forceinline__ void write_codes(const AttendRowsArgs& a, int64_t r, int first_head, int column,
                                            const float (&mix)[2][64], const float (&inverse)[2]) {
  const int t4 = threadIdx.x % 4;
  const bool odd = t4 % 2 != 0;
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int head = first_head + own_row() + 8 * j;
    uint16_t* const out = a.codes + (r * a.heads + head) * kRank + column + t4 % 2 * 8 + t4 / 2 * 4;
#pragma unroll
    for (int i = 0; i < 32; i += 2) {
      const float *x = &mix[i / 16][i % 16 * 4 + 2 * j], *y = x + 4;
      const uint32_t first = pack_bf16(x[0] * inverse[j], x[1] * inverse[j]),
                     second = pack_bf16(y[0] * inverse[j], y[1] * inverse[j]),
                     other = __shfl_xor_sync(kAllLanes, odd ? first : second, 1);
      if (head < a.heads) {
        *reinterpret_cast<uint2*>(out + 8 * i) = odd ? uint2{other, second} : uint2{first, other};
      }
    }
  }
}

// One of two warpgroups: of all rows its values.
__device__ __forceinline__ void add_up_rows(const AttendRowsArgs& a, Shared& s, int group) {
  const Items items(a);
  int32_t count = 0;
  for (int32_t item = items.first(); item < items.all; item = items.after(item)) {
    const int32_t r = item / items.blocks, first_head = item % items.blocks * kHeads;
    const int32_t n = __shfl_sync(kAllLanes, a.n_selected[r], 0);
    if (n <= 0) continue;
    float mix[2][64], inverse[2] = {};
    add_up(s, group, (n + kTile - 1) / kTile, count, mix, inverse);
    write_codes(a, r, first_head, 256 * group, mix, inverse);
  }
}

#endif

__global__ void __launch_bounds__(kThreads, 1) attend_expanded_kernel([[maybe_unused]] AttendRowsArgs args) {
#ifdef DSV_HOPPER
  auto& s = *reinterpret_cast<Shared*>(shared_memory());
  const int group = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kGroup, 0);  // known as uniform
  if (threadIdx.x == 0) {
    for (int b = 0; b < 2; ++b) {
      barrier_init(&s.weighed[b], 4);
      for (uint64_t& full : s.full[b]) barrier_init(&full, kGroup);
      for (uint64_t& empty : s.empty[b]) barrier_init(&empty, 4);
    }
    fence_barriers();
  }
  __syncthreads();
  if (group < 2) {
    more_registers<160>();  // all together 4 * 128
    add_up_rows(args, s, group);
  } else if (group == 3) {
    fewer_registers<32>();
    produce(args, s);
  } else {
    more_registers<160>();
    weigh_rows(args, s);
  }
#endif
}

}  // namespace

void launch_expand(const ExpandArgs& a, Stream stream) {
  launch(expand_kernel, {(a.positions + kExpandPositions - 1) / kExpandPositions}, kExpandThreads, 0, stream,
         a);
}

void launch_attend_expanded(const AttendRowsArgs& a, Stream stream) {
  const int64_t all = int64_t{a.rows} * ((a.heads + kHeads - 1) / kHeads), at_once = processors();
  launch(attend_expanded_kernel, {all < at_once ? all : at_once}, kThreads, kShared, stream, a);
}

}  // namespace dsv::cuda
