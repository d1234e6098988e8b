// Sparse MLA on Hopper's tensor cores, for selected positions of the released latent and more than 32 heads
// (a wgmma takes 64). The arithmetic is attend_mma.cu's: latents as f16 without their scales, which come in
// by quarters of a score and by the weights; weights times 2^15; tiles of 64 latents that are summed on their
// own and folded one after another. Sums are the hardware's, so bits differ from attend_mma's, by rounding.
//
// Bound, for a tile and 64 heads: 64 * 64 * (576 + 512) multiply-adds, 2176 cycles of a processor's tensor
// cores. Scores take both operands from shared memory, 4 KB for 32 cycles, which is all it gives. L2: 42 KB.
// What it takes is some 6500 cycles: with room for two tiles, expanding one waits for the last use of
// another.
//
// Many rows: a block goes through all tiles of a row. Few rows: one kernel writes the weights, 8 KB for a
// tile and 64 heads, and another adds up a few of the 512 values for all tiles in order (partial sums of
// tiles would be 128 KB). A row gets the same bits either way, for the products of a tile and their order are
// the same.
#include "kernels/cuda/attend_wgmma.cuh"

namespace dsv::cuda {
namespace {

using namespace hopper;

constexpr int kRope = 64;
constexpr int kRows = (kRank + kRope) / 64 * kBlock;  // bytes of 64 queries or latents
constexpr int kThreads = 3 * kGroup;

struct Shared {  // aligned to 1024 bytes
  unsigned char queries[kRows];
  unsigned char tile[2][kRows];  // f16 codes, bf16 RoPE; in the RoPE block's place then the weights
  float scales[2][kParts * kTile];
  Stat stats[2][kHeads];
  float query_factor[kHeads];
  uint64_t full[2], weighed[2], empty[2];
};
constexpr int64_t kShared = sizeof(Shared) + 1024;
static_assert(kShared <= kAttendWgmmaShared);

struct TilesArgs {
  AttendRowsArgs rows;
  int32_t tiles;  // of a block of the scores' kernel
};

#ifdef DSV_WGMMA_CODE

constexpr int kRopeBlock = kRank / 64;
constexpr float kWeightBits = 15;  // the largest weight is 2^15

// ------------------------------------------------------------------------- what producers do

struct Raw {
  uint4 codes[kParts];
  uint4 rope;
  float scale;
};
__device__ __forceinline__ void load_raw(const unsigned char* latents, int32_t slot, int eighth, Raw& raw) {
  if (slot < 0) {
#pragma unroll
    for (uint4& c : raw.codes) c = uint4{0, 0, 0, 0};
    raw.rope = uint4{0, 0, 0, 0};
    raw.scale = 0;
    return;
  }
  const unsigned char* row = latents + int64_t{slot} * kAttendMmaRowBytes + 16 * eighth;
#pragma unroll
  for (int i = 0; i < kParts; ++i) raw.codes[i] = __ldg(reinterpret_cast<const uint4*>(row + kPart * i));
  raw.rope = __ldg(reinterpret_cast<const uint4*>(row + kRank + 4 * kParts));
  if (eighth < kParts) raw.scale = __ldg(reinterpret_cast<const float*>(row + kRank - 12 * eighth));
}

constexpr int kRounds = kTile / 16;

// Of a tile: lane l looks up for its warp the l-th of the latents that the warp expands.
__device__ __forceinline__ int produced_token() {
  const int warp = threadIdx.x / kWarp % 4, lane = threadIdx.x % kWarp;
  return lane / 4 % kRounds * 16 + 4 * warp + lane % 4;
}

// Tiles [first, first + tiles) of a row, by one warpgroup: 8 lanes a latent, 16 latents a round, two rounds
// ahead.
__device__ __forceinline__ void produce(const AttendRowsArgs& a, Shared& s, int64_t r, int32_t sequence,
                                        int32_t n, int32_t first, int32_t tiles, int32_t first_position) {
  const int warp = threadIdx.x / kWarp % 4, lane = threadIdx.x % kWarp, eighth = lane % 8;
  const int32_t* selected = a.selected + r * a.topk;
  const int32_t* pages = a.step.page_table + int64_t{sequence} * a.step.page_stride;
  const int own = produced_token();
  const auto position = [&](int32_t tile) {
    const int32_t at = (first + tile) * kTile + own;
    return tile < tiles && at < n ? selected[at] : -1;
  };
  const auto slot_of = [&](int32_t p) {
    return p < 0 ? -1 : pages[p / kPageTokens] * kPageTokens + p % kPageTokens;
  };
  const auto load = [&](int32_t slots, int round, Raw& raw) {
    load_raw(a.cache.latent, __shfl_sync(kAllLanes, slots, 4 * round + lane / 8), eighth, raw);
  };
  const int token = 4 * warp + lane / 8, low = token % 8;
  const bool swap = eighth >= 4;  // so that 8 lanes meet all banks
  const int at = token * 128 + eighth / 4 * kBlock;
  const int to0 = at + ((eighth % 4 * 2 + swap) ^ low) * 16, to1 = at + ((eighth % 4 * 2 + !swap) ^ low) * 16;
  const int to_rope = kRopeBlock * kBlock + token * 128 + (eighth ^ low) * 16;

  const auto prefetch_rows = [&](int32_t slots) {
    if (slots >= 0 && lane < 4 * kRounds) {
      prefetch(a.cache.latent + int64_t{slots} * kAttendMmaRowBytes, kAttendMmaRowBytes);
    }
  };

  // Latents of a tile come to L2 while the tile two before is expanded, and to registers while the one before
  // is.
  int32_t slots = slot_of(first_position), next_slots = slot_of(position(1)), next_position = position(2);
  Raw raw[2];
  load(slots, 0, raw[0]);
  load(slots, 1, raw[1]);
  prefetch_rows(slots);
  prefetch_rows(next_slots);
  for (int32_t t = 0; t < tiles; ++t) {
    const int b = t % 2;
    const int32_t new_slots = slot_of(next_position);
    next_position = position(t + 3);
    if (t >= 2) barrier_wait(&s.empty[b], (t / 2 + 1) & 1);
    const auto store = [&](int offset, const uint4& value) {
      *reinterpret_cast<uint4*>(s.tile[b] + offset) = value;
    };
#pragma unroll
    for (int round = 0; round < kRounds; ++round) {
      Raw& now = raw[round % 2];
      const int tile = 16 * 128 * round;
#pragma unroll
      for (int i = 0; i < kParts; ++i) {
        const uint4 c = now.codes[i];
        uint32_t w[8];
        e4m3_to_f16(swap ? uint4{c.z, c.w, c.x, c.y} : c, w);
        store(tile + 2 * kBlock * i + to0, uint4{w[0], w[1], w[2], w[3]});
        store(tile + 2 * kBlock * i + to1, uint4{w[4], w[5], w[6], w[7]});
      }
      store(tile + to_rope, now.rope);
      if (eighth < kParts) {
        s.scales[b][eighth * kTile + 16 * round + token] = now.scale;
      }
      if (round + 2 < kRounds) load(slots, round + 2, now);
    }
    fence_for_wgmma();  // waits for loads, too
    warp_arrive(&s.full[b]);
    slots = next_slots;
    next_slots = new_slots;
    if (t + 1 == tiles) break;
    load(slots, 0, raw[0]);
    load(slots, 1, raw[1]);
    prefetch_rows(next_slots);
  }
}

// ------------------------------------------------------------------------- what consumers do

// Queries of 64 heads, by two warpgroups, times a power of two that brings the largest of the absorbed part
// to [2^14, 2^15) if it is not tiny: that part as f16, the RoPE part as bf16. Heads past the last are zero.
__device__ __forceinline__ void load_queries(const AttendRowsArgs& a, Shared& s, int64_t r, int first_head) {
  const int lane = threadIdx.x % 4, own = static_cast<int>(threadIdx.x) / 4, head = first_head + own;
  const bool there = head < a.heads;
  const int64_t at = r * a.heads + head;
  const auto* q_abs = static_cast<const uint16_t*>(a.q_abs) + at * kRank;
  const float* q = a.q + (at + 1) * a.head_dim - kRope + 16 * lane;
  uint4 chunk[16];
  float rope[16];
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    chunk[i] = there ? *reinterpret_cast<const uint4*>(q_abs + 8 * (lane + 4 * i)) : uint4{0, 0, 0, 0};
  }
#pragma unroll
  for (int i = 0; i < 16; ++i) rope[i] = there ? q[i] : 0.0f;
  uint32_t largest = 0;
  const auto larger = [&](uint32_t x) { largest = largest > x ? largest : x; };
#pragma unroll
  for (const uint4& c : chunk) {
    for (const uint32_t word : {c.x, c.y, c.z, c.w}) larger(word & 0x7FFF), larger(word >> 16 & 0x7FFF);
  }
  for (int lanes = 1; lanes <= 2; lanes *= 2) larger(__shfl_xor_sync(kAllLanes, largest, lanes));
  int exponent = 127 + 14 - static_cast<int>(largest >> 7);
  if (exponent > 60) exponent = 60;
  const float factor = float_of(static_cast<uint32_t>(127 + exponent) << 23);
  const auto scaled = [factor](uint32_t word) {
    return pack_f16(float_of(word << 16) * factor, float_of(word & 0xFFFF0000u) * factor);
  };
  unsigned char* row = s.queries + own * 128;
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const int c = lane + 4 * i;
    *reinterpret_cast<uint4*>(row + c / 8 * kBlock + ((c ^ own) & 7) * 16) =
        uint4{scaled(chunk[i].x), scaled(chunk[i].y), scaled(chunk[i].z), scaled(chunk[i].w)};
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    uint32_t w[4];
#pragma unroll
    for (int j = 0; j < 4; ++j)
      w[j] = pack_bf16(rope[8 * i + 2 * j] * factor, rope[8 * i + 2 * j + 1] * factor);
    *reinterpret_cast<uint4*>(row + kRopeBlock * kBlock + ((2 * lane + i) ^ (own & 7)) * 16) =
        uint4{w[0], w[1], w[2], w[3]};
  }
  if (lane == 0) {
    s.query_factor[own] =
        a.softmax_scale * 1.44269504f * float_of(static_cast<uint32_t>(127 - exponent) << 23);
  }
}

// Scores of 64 heads and the 64 latents of buffer b.
__device__ __forceinline__ void tile_scores(const Shared& s, int b, float (&score)[32]) {
  const uint32_t q = block_descriptor(s.queries), k = block_descriptor(s.tile[b]);
  constexpr uint32_t kNext = kBlock >> 4;
  const float* scales = s.scales[b] + 2 * (threadIdx.x % 4);
  float part[32];
  wgmma_fence();
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    wgmma_shared<true>(score, q + kRopeBlock * kNext + 2 * i, k + kRopeBlock * kNext + 2 * i, i != 0);
  }
#pragma unroll
  for (int p = 0; p < kParts; ++p) {
    if (p > 0) wgmma_fence();
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint32_t at = (2 * p + i / 4) * kNext + 2 * (i % 4);
      wgmma_shared<false>(part, q + at, k + at, i != 0);
    }
    wgmma_commit();
    wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const Pair scale = *reinterpret_cast<const Pair*>(scales + p * kTile + 8 * i);
      score[4 * i] = fmaf(part[4 * i], scale.x, score[4 * i]);
      score[4 * i + 1] = fmaf(part[4 * i + 1], scale.y, score[4 * i + 1]);
      score[4 * i + 2] = fmaf(part[4 * i + 2], scale.x, score[4 * i + 2]);
      score[4 * i + 3] = fmaf(part[4 * i + 3], scale.y, score[4 * i + 3]);
    }
  }
}

// Weights of a tile's first `count` latents, as fragments of A for 4 steps of 16 latents; of rows g and g + 8
// the maximum and the total.
__device__ __forceinline__ void tile_weights(float (&score)[32], const float* factors, int count,
                                             uint4 (&weights)[4], Stat (&stat)[2]) {
  if (count < kTile) {
    const int first = 2 * (threadIdx.x % 4);
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      if (i / 4 * 8 + first + i % 2 >= count) score[i] = -INFINITY;
    }
  }
  uint32_t words[2][8];
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    float largest = -INFINITY;
#pragma unroll
    for (int i = 0; i < 8; ++i)
      largest = fmaxf(largest, fmaxf(score[4 * i + 2 * j], score[4 * i + 2 * j + 1]));
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 2));
    const float factor = factors[own_row() + 8 * j];
    const float maximum = largest * factor, offset = kWeightBits - maximum;
    float total = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      words[j][i] = pack_f16(exp2_fast(fmaf(score[4 * i + 2 * j], factor, offset)),
                             exp2_fast(fmaf(score[4 * i + 2 * j + 1], factor, offset)));
      const Pair two = unpack_f16(words[j][i]);  // what is summed is what was rounded
      total += two.x + two.y;
    }
    total += __shfl_xor_sync(kAllLanes, total, 1);
    total += __shfl_xor_sync(kAllLanes, total, 2);
    stat[j] = {maximum, total};
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    weights[k] = {words[0][2 * k], words[1][2 * k], words[0][2 * k + 1], words[1][2 * k + 1]};
  }
}

// A block: 64 heads of a row, and with kWhole all of its tiles, or else a run of them whose weights are
// written. Two warpgroups score every other tile each; then each adds up half of the values of both.
template <bool kWhole>
__device__ __forceinline__ void attend_tiles(const TilesArgs& args) {
  const AttendRowsArgs& a = args.rows;
  auto& s = *reinterpret_cast<Shared*>(aligned_shared());
  const int group = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kGroup, 0);  // known as uniform
  const int64_t r = blockIdx.z;
  const int first_head = static_cast<int>(blockIdx.x) * kHeads;
  const int32_t first = kWhole ? 0 : static_cast<int32_t>(blockIdx.y) * args.tiles;
  // Not one after another: n, the sequence, and positions that count if n says so.
  const int32_t n = a.n_selected[r], all = (n + kTile - 1) / kTile, sequence = a.step.sequence[r];
  const int32_t early = (first * kTile + produced_token());
  const int32_t early_position = group == 2 && early < a.topk ? a.selected[r * a.topk + early] : -1;
  if constexpr (!kWhole) let_next_begin();
  const int32_t tiles = kWhole || all - first < args.tiles ? all - first : args.tiles;
  if (tiles <= 0) return;
  if (threadIdx.x == 0) {
    for (int b = 0; b < 2; ++b) {
      barrier_init(&s.full[b], 4);
      barrier_init(&s.weighed[b], 4);
      barrier_init(&s.empty[b], kWhole ? 8 : 4);
    }
    fence_barriers();
  }
  __syncthreads();
  if (group == 2) {
    fewer_registers<kWhole ? 72 : 104>();
    produce(a, s, r, sequence, n, first, tiles, early < n ? early_position : -1);
  } else {
    more_registers<kWhole ? 216 : 200>();  // all together at most 3 * 168
    load_queries(a, s, r, first_head);
    fence_for_wgmma();
    named_barrier(1, 2 * kGroup);
    float mix[4][32];
#pragma unroll
    for (int i = 0; i < 128; ++i) mix[i / 32][i % 32] = 0;
    Running run;
    for (int32_t pair = 0; 2 * pair < tiles; ++pair) {
      const int parity = pair & 1;
      const int32_t own = 2 * pair + group;
      if (own < tiles) {
        float score[32];
        uint4 weights[4];
        Stat stat[2];
        barrier_wait(&s.full[group], parity);
        tile_scores(s, group, score);
        tile_weights(score, s.query_factor, n - (first + own) * kTile, weights, stat);
        if constexpr (kWhole) {
          named_barrier(2 + group, kGroup);  // no warp reads the RoPE block any more
          auto* to = reinterpret_cast<uint4*>(s.tile[group] + kRopeBlock * kBlock) + threadIdx.x % kGroup;
#pragma unroll
          for (int k = 0; k < 4; ++k) to[kGroup * k] = weights[k];
          if (threadIdx.x % 4 == 0) {
            for (int j = 0; j < 2; ++j) s.stats[group][own_row() + 8 * j] = stat[j];
          }
          warp_arrive(&s.weighed[group]);
        } else {
          warp_arrive(&s.empty[group]);
          const int64_t at = first_result(a, r, blockIdx.x) + first + own;
          uint4* to = weights_of(a, at) + threadIdx.x % kGroup;
#pragma unroll
          for (int k = 0; k < 4; ++k) to[kGroup * k] = weights[k];
          if (threadIdx.x % 4 == 0) {
            for (int j = 0; j < 2; ++j) stats_of(a, at)[own_row() + 8 * j] = stat[j];
          }
        }
      }
      if constexpr (kWhole) {
        for (int b = 0; b < 2 && 2 * pair + b < tiles; ++b) {
          barrier_wait(&s.full[b], parity);
          barrier_wait(&s.weighed[b], parity);
          run.fold(s.stats[b][own_row()], s.stats[b][own_row() + 8]);
          const auto* weights =
              reinterpret_cast<const uint4*>(s.tile[b] + kRopeBlock * kBlock) + threadIdx.x % kGroup;
          const uint32_t values = block_descriptor(s.tile[b]) + group * 4 * (kBlock >> 4);
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const float* scales = s.scales[b] + (2 * group + half) * kTile;
            const Largest largest = largest_scale(scales);
            uint32_t fragment[4][4];
#pragma unroll
            for (int k = 0; k < 4; ++k)
              scale_weights(fragment[k], weights[kGroup * k], scales + 16 * k, largest.inverse);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
              const uint32_t block = values + (2 * half + i) * (kBlock >> 4);
              float sum[32];
              wgmma_fence();
#pragma unroll
              for (int k = 0; k < 4; ++k) wgmma_transposed<32>(sum, fragment[k], block + 128 * k, k != 0);
              wgmma_commit();
              wgmma_wait<0>();
              if (half == 1 && i == 1) warp_arrive(&s.empty[b]);
              fold_values(mix[2 * half + i], sum, run, largest.scale);
            }
          }
        }
      }
    }
    if constexpr (kWhole) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int head = first_head + own_row() + 8 * j, column = 256 * group + 2 * (threadIdx.x % 4);
        if (head >= a.heads) continue;
        const float inverse = 1 / run.total[j];
#pragma unroll
        for (int i = 0; i < 32; ++i) {
          const float* pair = &mix[i / 8][i % 8 * 4 + 2 * j];
          write_mixed(a, r, head, column + 8 * i, pair[0], pair[1], inverse);
        }
      }
    }
  }
}

#endif

template <bool kWhole>
__global__ void __launch_bounds__(kThreads, 1) attend_wgmma_kernel([[maybe_unused]] TilesArgs args) {
#ifdef DSV_WGMMA_CODE
  attend_tiles<kWhole>(args);
#endif
}
}  // namespace

void launch_attend_wgmma(const AttendRowsArgs& a, Stream stream) {
  const int64_t blocks = (a.heads + kHeads - 1) / kHeads;
  if (a.splits == 1) {
    return launch(attend_wgmma_kernel<true>, {blocks, 1, a.rows}, kThreads, kShared, stream, TilesArgs{a, 0});
  }
  constexpr int64_t kProcessors = 132;
  const int64_t tiles = a.splits;
  int64_t each = (tiles * blocks * a.rows + kProcessors - 1) / kProcessors;
  if (each > tiles) each = tiles;
  launch(attend_wgmma_kernel<false>, {blocks, (tiles + each - 1) / each, a.rows}, kThreads, kShared, stream,
         TilesArgs{a, static_cast<int32_t>(each)});
  launch_mix(a, stream);
}

}  // namespace dsv::cuda
