// Sparse MLA on Hopper's tensor cores, for selected positions of the released latent and more than 32 heads
// (a wgmma takes 64).
//
// A tile: 64 latents as f16, which holds code times scale exactly (attend_wgmma.cuh), RoPE parts as bf16.
// Scores of 64 heads are one chain of products in f32. Weights are 2^15 or less in f16, relative to the
// tile's largest score rounded up to a power of two, then to the largest so far: powers of two are all that
// is ever scaled by, so that sums go on in place, tile after tile. Sums are the hardware's, so bits differ
// from attend_mma's.
//
// Bound, for a tile and 64 heads: 64 * 64 * (576 + 512) multiply-adds, 2176 cycles of a processor's tensor
// cores. Shared memory gives 128 bytes a cycle: scores take both operands from it, 4 KB for 32 cycles, sums
// 10 KB for 128, and the tile is written to it, 73 KB; 2600 cycles. L2: 42 KB a tile.
//
// Many rows: a block goes through all tiles of a row. One warpgroup expands tiles, whose codes wait in its
// registers for room in one of two buffers; one makes scores and weights; two add up 256 values each, and let
// go of a buffer 16 latents at a time. Few rows: one kernel writes the weights, 8 KB for a tile and 64 heads,
// and another adds up a few of the 512 values for all tiles in order (partial sums of tiles would be 128 KB).
// A row gets the same bits either way, for the products of a tile and their order are the same.
#include "kernels/cuda/attend_wgmma.cuh"

namespace dsv::cuda {
namespace {

using namespace hopper;

constexpr int kWholeThreads = 4 * kGroup, kScoreThreads = 2 * kGroup;

struct Shared {  // aligned to 1024 bytes
  unsigned char queries[kRows];
  unsigned char tile[2][kRank / 64 * kBlock];
  unsigned char rope[3][kBlock];  // RoPE parts of the tiles in turn, a tile ahead; in their place the weights
  float before[2][kHeads];        // what sums have to be multiplied with before a tile
  float factor[kHeads];           // of scores; at last 1 / the sum of the weights
  int32_t position[2][kTile], page[2][kTile], slot[kTile];
  WordPair scale[kTile];  // f16: of the first two quarters, of the others
  uint64_t full[2], weighed[2], empty[2][kRounds], queried, totalled;
};
constexpr int64_t kShared = sizeof(Shared);
static_assert(kShared <= kAttendWgmmaShared);

struct TilesArgs {
  AttendRowsArgs rows;
  int32_t tiles;  // of a block of the scores' kernel
};

#ifdef DSV_HOPPER

// ------------------------------------------------------------------------- what producers do

// An address that offsets are added to in the instructions that use it, not in registers.
__device__ __forceinline__ const unsigned char* one_address(const unsigned char* p) {
#ifdef __CUDA_ARCH__
  asm("" : "+l"(p));
#endif
  return p;
}

// Of the three places for RoPE parts, the one after.
__device__ __forceinline__ int next_third(int third) { return third == 2 ? 0 : third + 1; }

// Tiles [first, first + tiles) of a row, by one warpgroup, 16 latents a round. A thread has 16 codes of each
// quarter of four latents, and 16 bytes of their RoPE parts. Codes are loaded as soon as those of the tile
// before leave their registers, and wait there for room.
__device__ __forceinline__ void produce(const AttendRowsArgs& a, Shared& s, int64_t r, int32_t sequence,
                                        int32_t n, int32_t first, int32_t tiles, int32_t position) {
  const int lane = threadIdx.x % kWarp;
  // Eight lanes that store at once are two latents' halves, whose swizzles differ in the last bit: they meet
  // all banks.
  const int eighth = lane % 4 + lane / 8 % 2 * 4, low = lane / 16 * 2 + lane / 4 % 2,
            token = threadIdx.x / kWarp % 4 * 4 + low;
  const int looked_up = looked_up_token();
  const int32_t* selected = a.selected + r * a.topk;
  const int32_t* pages = a.step.page_table + int64_t{sequence} * a.step.page_stride;
  // Past the last, the last once more: its weight will be zero.
  const auto copy_position = [&](int32_t tile) {
    const int32_t at = (first + tile) * kTile + looked_up;
    if (lane < 16) copy_async_word(&s.position[tile % 2][looked_up], selected + (at < n ? at : n - 1));
  };
  const auto copy_page = [&](int32_t tile) {
    const int32_t p = s.position[tile % 2][looked_up];
    if (lane < 16) copy_async_word(&s.page[tile % 2][looked_up], pages + p / kPageTokens);
  };
  const auto row_of = [&](int32_t slot_, int offset) {
    return one_address(a.cache.latent + int64_t{slot_} * kAttendMmaRowBytes + offset);
  };
  const int at = eighth / 4 * kBlock + token * 128;
  const int to0 = at + ((eighth % 4 * 2) ^ token % 8) * 16,
            to1 = at + ((eighth % 4 * 2 + 1) ^ token % 8) * 16;

  uint4 codes[kRounds][kParts];
  const auto load = [&](int32_t slot, int i) {
    const unsigned char* from = row_of(slot, 16 * eighth);
#pragma unroll
    for (int q = 0; q < kParts; ++q) codes[i][q] = __ldg(reinterpret_cast<const uint4*>(from + kPart * q));
  };
  // Lane l: of the warp's latent l / 2 the scales of two quarters.
  const int scaled = lane / 8 * 16 + threadIdx.x / kWarp % 4 * 4 + lane / 2 % 4;
  const auto load_scales = [&] {
    return *reinterpret_cast<const Pair*>(row_of(s.slot[scaled], kRank + 8 * (lane % 2)));
  };
  const auto copy_rope = [&](int third) {
#pragma unroll
    for (int i = 0; i < kRounds; ++i) {
      copy_async(s.rope[third] + (16 * i + token) * 128 + (eighth ^ token % 8) * 16,
                 row_of(s.slot[16 * i + token], kRank + 4 * kParts + 16 * eighth));
    }
  };

  // Copies come in turns: what is looked up, and RoPE parts.
  copy_position(1);
  copy_commit();
  s.slot[looked_up] = pages[position / kPageTokens] * kPageTokens + position % kPageTokens;
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kRounds; ++i) load(s.slot[16 * i + token], i);
  Pair scales = load_scales();
  copy_wait<0>();
  __syncwarp();
  copy_page(1);
  copy_position(2);
  copy_commit();
  copy_rope(0);
  copy_commit();
  for (int32_t t = 0, third = 1; t < tiles; ++t, third = next_third(third)) {  // third: of the next tile
    const int b = t % 2;
    const bool more = t + 1 < tiles;
    copy_wait<1>();
    __syncwarp();
    reinterpret_cast<uint32_t*>(s.scale)[2 * scaled + lane % 2] = pack_f16(scales.x, scales.y);
    s.slot[looked_up] =
        s.page[(t + 1) % 2][looked_up] * kPageTokens + s.position[(t + 1) % 2][looked_up] % kPageTokens;
    __syncwarp();
    copy_page(t + 2);
    copy_position(t + 3);
    copy_commit();
    if (more) scales = load_scales();
    WordPair scale = s.scale[token];  // of a round ahead
    int32_t slot = s.slot[token];
#pragma unroll
    for (int i = 0; i < kRounds; ++i) {
      if (t >= 2) barrier_wait(&s.empty[b][i], (t / 2 + 1) & 1);
      const WordPair now = scale;
      const int32_t its_slot = slot;
      if (i + 1 < kRounds) {
        scale = s.scale[16 * (i + 1) + token];
        slot = s.slot[16 * (i + 1) + token];
      }
      unsigned char* to = s.tile[b] + 16 * 128 * i;
#pragma unroll
      for (int q = 0; q < kParts; ++q) {
        const uint32_t two = q < 2 ? now.x : now.y;
        uint32_t w[8];
        latent_values(codes[i][q], q % 2 ? spread_upper(two) : spread_lower(two), w);
        *reinterpret_cast<uint4*>(to + 2 * kBlock * q + to0) = uint4{w[0], w[1], w[2], w[3]};
        *reinterpret_cast<uint4*>(to + 2 * kBlock * q + to1) = uint4{w[4], w[5], w[6], w[7]};
      }
      if (more) load(its_slot, i);
    }
    copy_wait<1>();
    warp_arrive(&s.full[b]);
    if (!more) break;
    copy_rope(third);
    copy_commit();
  }
}

// ------------------------------------------------------------------------- scores and weights

// Scores of 64 heads and a row's tile t, when it is there.
__device__ __forceinline__ void tile_scores(Shared& s, int32_t t, int third, float (&score)[32]) {
  const int b = t % 2;
  barrier_wait(&s.full[b], t / 2 & 1);
  fence_for_wgmma();
  const uint32_t q = block_descriptor(s.queries), k = block_descriptor(s.tile[b]),
                 rope = block_descriptor(s.rope[third]);
  constexpr uint32_t kNext = kBlock >> 4;
  wgmma_fence();
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    wgmma_shared<true>(score, q + kRopeBlock * kNext + 2 * i, rope + 2 * i, i != 0);
  }
#pragma unroll
  for (int i = 0; i < kRank / 16; ++i) {
    const uint32_t at = i / 4 * kNext + 2 * (i % 4);
    wgmma_shared<false>(score, q + at, k + at, 1);
  }
  wgmma_commit();
  wgmma_wait<0>();
}

// One warpgroup: scores, then weights in the place of the RoPE parts.
__device__ __forceinline__ void weigh_tiles(Shared& s, int32_t n, int32_t tiles) {
  Running run[2];
  const int t4 = threadIdx.x % 4;
  for (int32_t t = 0, third = 0; t < tiles; ++t, third = next_third(third)) {
    const int b = t % 2;
    float score[32];
    uint32_t words[2][8];
    Stat stat[2];
    tile_scores(s, t, third, score);
    tile_weights(score, s.factor, n - t * kTile, words, stat);
    named_barrier(2, kGroup);  // no warp reads the RoPE parts any more
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      run[j].fold(stat[j]);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        *reinterpret_cast<uint32_t*>(s.rope[third] + weights_at(i, j)) = scaled(words[j][i], run[j].now);
      }
      if (t4 == 0) s.before[b][own_row() + 8 * j] = run[j].before;
    }
    warp_arrive(&s.weighed[b]);
  }
  if (t4 == 0) {
    for (int j = 0; j < 2; ++j) s.factor[own_row() + 8 * j] = 1 / run[j].total;
  }
}

// One warpgroup: scores, then weights to memory.
__device__ __forceinline__ void write_weights(const AttendRowsArgs& a, Shared& s, int64_t result, int32_t n,
                                              int32_t tiles) {
  for (int32_t t = 0, third = 0; t < tiles; ++t, third = next_third(third)) {
    const int b = t % 2;
    float score[32];
    uint32_t words[2][8];
    Stat stat[2];
    tile_scores(s, t, third, score);
    for (uint64_t& empty : s.empty[b]) warp_arrive(&empty);
    tile_weights(score, s.factor, n - t * kTile, words, stat);
    unsigned char* to = weights_of(a, result + t);
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      *reinterpret_cast<uint32_t*>(to + weights_at(i / 2, i % 2)) = words[i % 2][i / 2];
    }
    if (threadIdx.x % 4 == 0) {
      for (int j = 0; j < 2; ++j) stats_of(a, result + t)[own_row() + 8 * j] = stat[j];
    }
  }
}

// ------------------------------------------------------------------------- sums

// 256 values of 64 heads, by one warpgroup.
__device__ __forceinline__ void add_up(Shared& s, int group, int32_t tiles, float (&mix)[2][64]) {
#pragma unroll
  for (int i = 0; i < 128; ++i) mix[i / 64][i % 64] = 0;
  for (int32_t t = 0, third = 0; t < tiles; ++t, third = next_third(third)) {
    const int b = t % 2;
    barrier_wait(&s.weighed[b], t / 2 & 1);
    fence_for_wgmma();
    const float before[2] = {s.before[b][own_row()], s.before[b][own_row() + 8]};
    rescale(mix, before);
    begin_sums<true>(mix, s.rope[third], s.tile[b] + 4 * group * kBlock);
    wgmma_wait<3>();
    warp_arrive(&s.empty[b][0]);
    wgmma_wait<2>();
    warp_arrive(&s.empty[b][1]);
    wgmma_wait<1>();
    warp_arrive(&s.empty[b][2]);
    wgmma_wait<0>();
    warp_arrive(&s.empty[b][3]);
  }
}

// A block: 64 heads of a row, and with kWhole all of its tiles, or else a run of them whose weights are
// written.
template <bool kWhole>
__device__ __forceinline__ void attend_tiles(const TilesArgs& args) {
  const AttendRowsArgs& a = args.rows;
  auto& s = *reinterpret_cast<Shared*>(shared_memory());
  constexpr int kScorer = kWhole ? 2 : 0, kProducer = kScorer + 1;
  const int group = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kGroup, 0);  // known as uniform
  const int64_t r = blockIdx.z;
  const int first_head = static_cast<int>(blockIdx.x) * kHeads;
  const int32_t first = kWhole ? 0 : static_cast<int32_t>(blockIdx.y) * args.tiles;
  // Not one after another: n, the sequence, and positions that count if n says so.
  const int32_t some = a.n_selected[r], its_sequence = a.step.sequence[r];
  const int32_t early = first * kTile + looked_up_token();
  const int32_t early_position = group == kProducer && early < a.topk ? a.selected[r * a.topk + early] : 0;
  if constexpr (!kWhole) let_next_begin();
  const int32_t n = __shfl_sync(kAllLanes, some, 0), sequence = __shfl_sync(kAllLanes, its_sequence, 0);
  const int32_t all = (n + kTile - 1) / kTile;
  const int32_t tiles = kWhole || all - first < args.tiles ? all - first : args.tiles;
  if (tiles <= 0) return;
  if (threadIdx.x == 0) {
    for (int b = 0; b < 2; ++b) {
      barrier_init(&s.full[b], 4);
      barrier_init(&s.weighed[b], 4);
      for (uint64_t& empty : s.empty[b]) barrier_init(&empty, kWhole ? 8 : 4);
    }
    barrier_init(&s.queried, 8);
    barrier_init(&s.totalled, 4);
    fence_barriers();
  }
  __syncthreads();
  if (kWhole && group < kScorer) {
    more_registers<160>();  // all together 4 * 128
    load_queries(a, s.queries, s.factor, r, first_head, static_cast<int>(threadIdx.x) / 4);
    fence_for_wgmma();
    warp_arrive(&s.queried);
    float mix[2][64];
    add_up(s, group, tiles, mix);
    barrier_wait(&s.totalled, 0);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int row = own_row() + 8 * j, head = first_head + row,
                column = 256 * group + 2 * (threadIdx.x % 4);
      if (head >= a.heads) continue;
      const float inverse = s.factor[row];
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        const float* pair = &mix[i / 16][i % 16 * 4 + 2 * j];
        write_mixed(a, r, head, column + 8 * i, pair[0], pair[1], inverse);
      }
    }
  } else {
    if (group == kProducer) {
      if constexpr (kWhole) fewer_registers<112>();
      produce(a, s, r, sequence, n, first, tiles,
              early < n ? early_position : a.selected[r * a.topk + n - 1]);
    } else if constexpr (kWhole) {
      fewer_registers<80>();
      barrier_wait(&s.queried, 0);
      weigh_tiles(s, n, tiles);
      warp_arrive(&s.totalled);
    } else {
      for (int i = 0; i < 2; ++i) {
        load_queries(a, s.queries, s.factor, r, first_head, static_cast<int>(threadIdx.x) / 4 + 32 * i);
      }
      fence_for_wgmma();
      named_barrier(1, kGroup);
      write_weights(a, s, first_result(a, r, blockIdx.x) + first, n - first * kTile, tiles);
    }
  }
}

#endif

template <bool kWhole>
__global__ void __launch_bounds__(kWhole ? kWholeThreads : kScoreThreads, 1)
    attend_wgmma_kernel([[maybe_unused]] TilesArgs args) {
#ifdef DSV_HOPPER
  attend_tiles<kWhole>(args);
#endif
}
}  // namespace

void launch_attend_wgmma(const AttendRowsArgs& a, Stream stream) {
  const int64_t blocks = (a.heads + kHeads - 1) / kHeads;
  if (a.splits == 1) {
    AttendRowsArgs args = a;
    if (args.cluster == 0) args.cluster = attend_cluster(a);
    if (args.cluster > 1) return launch_cluster(args, stream);
    return launch(attend_wgmma_kernel<true>, {blocks, 1, a.rows}, kWholeThreads, kShared, stream,
                  TilesArgs{a, 0});
  }
  constexpr int64_t kProcessors = 132;
  const int64_t tiles = a.splits;
  int64_t each = (tiles * blocks * a.rows + kProcessors - 1) / kProcessors;
  if (each > tiles) each = tiles;
  launch(attend_wgmma_kernel<false>, {blocks, (tiles + each - 1) / each, a.rows}, kScoreThreads, kShared,
         stream, TilesArgs{a, static_cast<int32_t>(each)});
  launch_mix(a, stream);
}

}  // namespace dsv::cuda
