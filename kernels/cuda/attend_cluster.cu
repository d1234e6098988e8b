// Sparse MLA of few rows on Hopper: a cluster of 2 or 4 blocks for 64 heads of a row, in the bits of
// attend_wgmma.cu, for the products of a tile and their order are the same.
//
// A block makes the scores and weights of every kBlocks-th tile, its own, and sends the weights to the
// others; and it adds up its own kRank / kBlocks of the values, of all tiles in order. So no partial sum
// leaves a block, and no second kernel follows. What is done more than once is expanding: of own tiles all
// columns, of the others' own columns.
//
// Bound, for as many tiles as a cluster has blocks, each block one: 64 * 64 * (576 + 512) multiply-adds, 2176
// cycles of a processor's tensor cores. Shared memory, at 128 bytes a cycle: scores take 144 KB, less 2 KB
// for each 16 of 576 values of the queries that are in registers, and sums 64 KB; written are 72 KB and (1 -
// 1 / kBlocks) 64 KB: 2500 cycles. From L2 come 42 KB and (1 - 1 / kBlocks) 33 KB. Scattered latents come to
// a processor at 17 to 20 bytes a cycle (measured), and that is what it waits for: 3000 to 4000.
//
// One warpgroup makes scores and weights, one adds up, two expand half of the latents of each tile: the next
// own tile, then what the others have made scores of, while weights are made and sent.
#include "kernels/cuda/attend_wgmma.cuh"
#include "kernels/cuda/cluster.cuh"

namespace dsv::cuda {
namespace {

using namespace hopper;

constexpr int kThreads = 4 * kGroup;

template <int kBlocks>
struct Shared {  // aligned to 1024 bytes
  static constexpr int kColumns = kRank / kBlocks, kOwn = kColumns / 64, kPlace = kOwn * kBlock;
  static constexpr int kHeld = kBlocks == 2 ? 1 : 4;  // blocks of the queries: in registers
  static constexpr int kPlaces = kBlocks == 2 ? 1 : 3;
  static constexpr int kQueries = (2 + kPlaces) * kPlace - kHeld * kBlock;
  struct Sent {
    unsigned char weights[kBlock];
    Stat stat[kHeads];
  };
  // Own columns of two own tiles, then of kPlaces others, then the queries. Those that are held come by way
  // of the places before the rest, which are not used until they are.
  unsigned char places[kQueries + kRows];
  unsigned char rest[kRank / 64 * kBlock - kPlace];  // of an own tile
  unsigned char rope[kBlock];                        // of an own tile
  Sent sent[kBlocks];                                // by each block
  int32_t slots[kAttendMmaFold];
  float factor[kHeads];  // of scores
  uint64_t ready, held, full[2], scored, empty[2], others_full[kPlaces], others_empty[kPlaces];
  uint64_t arrived[kBlocks], read;  // weights of each block; by all blocks, of this one
  static_assert(kQueries >= kPlace);

  __device__ __forceinline__ unsigned char* own(int32_t b) { return places + b * kPlace; }
  __device__ __forceinline__ unsigned char* others(int32_t b) { return places + (2 + b) * kPlace; }
  __device__ __forceinline__ unsigned char* queries() { return places + kQueries; }
  // Of an own tile, 64 columns.
  __device__ __forceinline__ unsigned char* block_of(int block, int rank, int32_t b) {
    return block / kOwn == rank ? own(b) + block % kOwn * kBlock
                                : rest + (block - (block / kOwn > rank ? kOwn : 0)) * kBlock;
  }
};

#ifdef DSV_HOPPER

// What a warpgroup's threads have; all together 4 * 128.
template <int kBlocks>
struct Registers {
  static constexpr int kSums = kBlocks == 2 ? 200 : 128, kScores = kBlocks == 2 ? 96 : 160,
                       kExpand = kBlocks == 2 ? 104 : 112;
  static_assert(kSums + kScores + 2 * kExpand <= 4 * 128);
};
template <int kCount>
__device__ __forceinline__ void set_registers() {
  if constexpr (kCount > 128) more_registers<kCount>();
  if constexpr (kCount < 128) fewer_registers<kCount>();
}

// ------------------------------------------------------------------------- what producers do

struct alignas(16) Scales {
  float of[kParts];
};
__device__ __forceinline__ void expand_to(unsigned char* place, int first, int second, const uint4& codes,
                                          uint32_t scale) {
  uint32_t w[8];
  latent_values(codes, scale, w);
  *reinterpret_cast<uint4*>(place + first) = uint4{w[0], w[1], w[2], w[3]};
  *reinterpret_cast<uint4*>(place + second) = uint4{w[4], w[5], w[6], w[7]};
}

// Latents [32 side, 32 side + 32) of all tiles, by one of two warpgroups. Codes wait in registers: of the own
// tile that comes next, and of all that the others have at the same time.
template <int kBlocks>
__device__ __forceinline__ void produce(const AttendRowsArgs& a, Shared<kBlocks>& s, int rank, int32_t tiles,
                                        int side) {
  using Memory = Shared<kBlocks>;
  constexpr int kTokens = 2;  // of a thread, 16 apart
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp % 4;
  // Eight lanes that store at once are two latents' halves, whose swizzles differ in the last bit: they meet
  // all banks.
  const int eighth = lane % 4 + lane / 8 % 2 * 4, token = 32 * side + warp * 4 + lane / 16 * 2 + lane / 4 % 2;
  const auto chunk_at = [](int token_, int chunk) { return token_ * 128 + (chunk ^ token_ % 8) * 16; };
  const int to0 = chunk_at(token, eighth % 4 * 2), to1 = chunk_at(token, eighth % 4 * 2 + 1);
  const auto row_of = [&](int32_t slot) { return a.cache.latent + int64_t{slot} * kAttendMmaRowBytes; };
  uint4 codes[kTokens][kParts];
  Scales scales[kTokens];
  constexpr int kOthers = kBlocks - 1, kQuarters = kParts / kBlocks;
  struct {
    uint4 codes[kTokens][kQuarters];
    float scale[kTokens][kQuarters];
  } other[kOthers];
  const auto tile_of = [&](int32_t k, int m) { return k * kBlocks + m + (m >= rank ? 1 : 0); };

  // Latents that come later, to the L2 cache.
  const auto ask_for = [&](int32_t tile) {
    if (tile >= tiles || lane >= 8) return;
    const int its = 32 * side + lane / 4 * 16 + warp * 4 + lane % 4;
    prefetch_bytes(row_of(s.slots[tile * kTile + its]), kAttendMmaRowBytes);
  };
  int32_t count = 0;  // of others' tiles
  for (int32_t k = -1; (k - 1) * kBlocks < tiles; ++k) {
    const int32_t t = k * kBlocks + rank;
    if (k >= 0 && t < tiles) {
      const int b = k % 2;
      if (k > 0) barrier_wait(&s.scored, (k + 1) & 1);
#pragma unroll
      for (int i = 0; i < kTokens; ++i) {
        copy_async(s.rope + chunk_at(16 * i + token, eighth),
                   row_of(s.slots[t * kTile + 16 * i + token]) + kRank + 4 * kParts + 16 * eighth);
      }
      copy_commit();
      uint32_t scale[kTokens][kParts];
#pragma unroll
      for (int i = 0; i < kTokens; ++i) {
#pragma unroll
        for (int j = 0; j < kParts; ++j) scale[i][j] = pack_f16(scales[i].of[j], scales[i].of[j]);
      }
      if (k >= 2) barrier_wait(&s.empty[b], (k / 2 + 1) & 1);
#pragma unroll
      for (int j = 0; j < kParts; ++j) {
        unsigned char* const to = s.block_of(2 * j + eighth / 4, rank, b);
#pragma unroll
        for (int i = 0; i < kTokens; ++i) {
          expand_to(to + 16 * 128 * i, to0, to1, codes[i][j], scale[i][j]);
        }
      }
      copy_wait<0>();
      warp_arrive(&s.full[b]);
    }
#pragma unroll
    for (int m = 0; m < kOthers; ++m) {
      if (k <= 0 || tile_of(k - 1, m) >= tiles) break;
      const int b = count % Memory::kPlaces;
      if (count >= Memory::kPlaces) barrier_wait(&s.others_empty[b], (count / Memory::kPlaces + 1) & 1);
#pragma unroll
      for (int i = 0; i < kTokens; ++i) {
#pragma unroll
        for (int q = 0; q < kQuarters; ++q) {
          expand_to(s.others(b) + (2 * q + eighth / 4) * kBlock + 16 * 128 * i, to0, to1,
                    other[m].codes[i][q], pack_f16(other[m].scale[i][q], other[m].scale[i][q]));
        }
      }
      warp_arrive(&s.others_full[b]);
      ++count;
    }
    // All at once: a wait for a load is one for all that were asked for later.
    if (t + kBlocks < tiles) {
#pragma unroll
      for (int i = 0; i < kTokens; ++i) {
        const unsigned char* row = row_of(s.slots[(t + kBlocks) * kTile + 16 * i + token]);
#pragma unroll
        for (int j = 0; j < kParts; ++j) {
          codes[i][j] = __ldg(reinterpret_cast<const uint4*>(row + 16 * eighth + kPart * j));
        }
        scales[i] = *reinterpret_cast<const Scales*>(row + kRank);
      }
    }
    if (k >= 0) {
#pragma unroll
      for (int m = 0; m < kOthers; ++m) {
        const int32_t tile = tile_of(k, m);
        if (tile >= tiles) break;
#pragma unroll
        for (int i = 0; i < kTokens; ++i) {
          const unsigned char* row = row_of(s.slots[tile * kTile + 16 * i + token]);
#pragma unroll
          for (int q = 0; q < kQuarters; ++q) {
            const int quarter = rank * kParts / kBlocks + q;
            other[m].codes[i][q] = __ldg(
                reinterpret_cast<const uint4*>(row + rank * Memory::kColumns + kPart * q + 16 * eighth));
            other[m].scale[i][q] = __ldg(reinterpret_cast<const float*>(row + kRank) + quarter);
          }
        }
      }
      if (k == 0) barrier_wait(&s.held, 0);
    }
    if (k < 0) {
      ask_for(t + 2 * kBlocks);
      ask_for(t + 3 * kBlocks);
    }
    ask_for(t + 4 * kBlocks);
  }
}

// ------------------------------------------------------------------------- scores and weights

// What ldmatrix wants of this lane: of a block of queries or weights, two 16-byte chunks of a row.
__device__ __forceinline__ const uint16_t* fragment_at(const unsigned char* block, int step) {
  const int lane = threadIdx.x % kWarp, row = threadIdx.x % kGroup / kWarp * 16 + lane % 16;
  return reinterpret_cast<const uint16_t*>(block + row * 128 + ((2 * step + lane / 16) ^ row % 8) * 16);
}

// Scores and weights of own tiles, by one warpgroup.
template <int kBlocks>
__device__ __forceinline__ void weigh(Shared<kBlocks>& s, int rank, int32_t n, int32_t tiles) {
  using Memory = Shared<kBlocks>;
  constexpr int kHeld = Memory::kHeld;
  constexpr uint32_t kNext = kBlock >> 4;
  barrier_wait(&s.ready, 0);
  uint32_t held[4 * kHeld][4];
#pragma unroll
  for (int i = 0; i < 4 * kHeld; ++i) {
    load_matrices(held[i], fragment_at(s.queries() + i / 4 * kBlock, i % 4));
  }
  warp_arrive(&s.held);
  const uint32_t q = block_descriptor(s.queries()), rope = block_descriptor(s.rope);
  cluster_wait();  // all blocks are there
  int32_t k = 0;
  for (int32_t t = rank; t < tiles; t += kBlocks, ++k) {
    const int b = k % 2;
    float score[32];
    uint32_t words[2][8];
    Stat stat[2];
    barrier_wait(&s.full[b], k / 2 & 1);
    fence_for_wgmma();
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      wgmma_shared<true>(score, q + kRopeBlock * kNext + 2 * i, rope + 2 * i, i != 0);
    }
#pragma unroll
    for (int block = 0; block < kRank / 64; ++block) {
      const uint32_t values = block_descriptor(s.block_of(block, rank, b));
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (block < kHeld) {
          wgmma_registers(score, held[block < kHeld ? 4 * block + i : 0], values + 2 * i);
        } else {
          wgmma_shared<false>(score, q + block * kNext + 2 * i, values + 2 * i, 1);
        }
      }
    }
    wgmma_commit();
    wgmma_wait<0>(score);
    warp_arrive(&s.scored);
    tile_weights(score, s.factor, n - t * kTile, words, stat);
    typename Memory::Sent& to = s.sent[rank];
    if (k > 0) barrier_wait(&s.read, (k + 1) & 1);
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      *reinterpret_cast<uint32_t*>(to.weights + weights_at(i / 2, i % 2)) = words[i % 2][i / 2];
    }
    if (threadIdx.x % 4 == 0) {
      for (int j = 0; j < 2; ++j) to.stat[own_row() + 8 * j] = stat[j];
    }
    fence_for_wgmma();
    named_barrier(1, kGroup);
    const int peer = threadIdx.x % kGroup;
    if (peer < kBlocks && peer != rank) {
      copy_to_block(shared_address(&to), sizeof to, shared_address(&s.arrived[rank]),
                    static_cast<uint32_t>(peer));
    }
    warp_arrive(&s.arrived[rank]);
  }
  // What is sent leaves from this block's memory, and that it has been read is said there.
  if (k > 0) barrier_wait(&s.read, (k + 1) & 1);
}

// ------------------------------------------------------------------------- sums

// Own columns of 64 heads, by one warpgroup, and 1 / the sums of the weights. A tile's weights are made ready
// while the one before is added up.
template <int kBlocks, int kSums, int kValues>
__device__ __forceinline__ void add_up(Shared<kBlocks>& s, int rank, int32_t tiles,
                                       float (&mix)[kSums][kValues], float (&inverse)[2]) {
  using Memory = Shared<kBlocks>;
  const int lane = threadIdx.x % kWarp;
  Running run[2];
  uint32_t weights[2][kRounds][4];
  const auto take = [&](int32_t t, uint32_t(&to)[kRounds][4]) {
    const int sender = t % kBlocks;
    typename Memory::Sent& from = s.sent[sender];
    barrier_wait(&s.arrived[sender], t / kBlocks & 1);
#pragma unroll
    for (int i = 0; i < kRounds; ++i) load_matrices(to[i], fragment_at(from.weights, i));
#pragma unroll
    for (int j = 0; j < 2; ++j) run[j].fold(from.stat[own_row() + 8 * j]);
    if (sender != rank && threadIdx.x == 0 && t + kBlocks < tiles) {
      barrier_expect(shared_address(&s.arrived[sender]), sizeof from);
    }
    __syncwarp();
    if (lane == 0) barrier_arrive_at(shared_address(&s.read), static_cast<uint32_t>(sender));
#pragma unroll
    for (int i = 0; i < 4 * kRounds; ++i) to[i / 4][i % 4] = scaled(to[i / 4][i % 4], run[i % 2].now);
  };
#pragma unroll
  for (int i = 0; i < kSums * kValues; ++i) mix[i / kValues][i % kValues] = 0;
  cluster_wait();  // all blocks are there
  take(0, weights[0]);
  int32_t count = 0;  // of others' tiles
  for (int32_t first = 0; first < tiles; first += 2) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int32_t t = first + j;
      if (t >= tiles) break;
      const bool own = t % kBlocks == rank;
      const int32_t k = t / kBlocks, b = own ? k % 2 : count % Memory::kPlaces;
      own ? barrier_wait(&s.full[b], k / 2 & 1)
          : barrier_wait(&s.others_full[b], count / Memory::kPlaces & 1);
      fence_for_wgmma();
      if (__ballot_sync(kAllLanes, run[0].before != 1 || run[1].before != 1) != 0) {
#pragma unroll
        for (int i = 0; i < kSums * kValues; ++i) mix[i / kValues][i % kValues] *= run[i / 2 % 2].before;
      }
      const uint32_t values = wide_descriptor(own ? s.own(b) : s.others(b));
      wgmma_fence();
#pragma unroll
      for (int i = 0; i < kRounds; ++i) {
#pragma unroll
        for (int x = 0; x < kSums; ++x) {
          wgmma_transposed(mix[x], weights[j][i], values + 128 * i + x * 2 * (kBlock >> 4));
        }
      }
      wgmma_commit();
      if (t + 1 < tiles) take(t + 1, weights[1 - j]);
      wgmma_wait<0>();
#pragma unroll
      for (int x = 0; x < kSums; ++x) keep(mix[x]);
      warp_arrive(own ? &s.empty[b] : &s.others_empty[b]);
      if (!own) ++count;
    }
  }
#pragma unroll
  for (int j = 0; j < 2; ++j) inverse[j] = 1 / run[j].total;
}

// ------------------------------------------------------------------------- a block

template <int kBlocks>
__device__ __forceinline__ void attend_part(const AttendRowsArgs& a) {
  using Memory = Shared<kBlocks>;
  static_assert(sizeof(Memory) <= kAttendWgmmaShared);
  auto& s = *reinterpret_cast<Memory*>(shared_memory());
  const int tid = static_cast<int>(threadIdx.x);
  const int group = __shfl_sync(kAllLanes, tid / kGroup, 0);  // known as uniform
  const int64_t r = blockIdx.z;
  const int rank = static_cast<int>(blockIdx.x) % kBlocks,
            first_head = static_cast<int>(blockIdx.x) / kBlocks * kHeads;
  // Not one after another: n, the sequence, and positions that count if n says so.
  const int32_t some = a.n_selected[r], its_sequence = a.step.sequence[r];
  const int32_t* const selected = a.selected + r * a.topk;
  constexpr int kLookedUp = kAttendMmaFold / kThreads;
  const int32_t any_position = selected[0];
  int32_t position[kLookedUp];
#pragma unroll
  for (int i = 0; i < kLookedUp; ++i)
    position[i] = tid + kThreads * i < a.topk ? selected[tid + kThreads * i] : 0;
  if (group < 2) copy_queries(a, s.queries(), r, first_head, tid / 4);
  if (tid == 0) {
    barrier_init(&s.ready, 8);
    barrier_init(&s.held, 4);
    barrier_init(&s.scored, 4);
    barrier_init(&s.read, 4 * kBlocks);
#pragma unroll 1
    for (int b = 0; b < 2; ++b) barrier_init(&s.full[b], 8), barrier_init(&s.empty[b], 4);
#pragma unroll 1
    for (int b = 0; b < Memory::kPlaces; ++b) {
      barrier_init(&s.others_full[b], 8);
      barrier_init(&s.others_empty[b], 4);
    }
#pragma unroll 1
    for (int b = 0; b < kBlocks; ++b) barrier_init(&s.arrived[b], b == rank ? 4 : 1);
    fence_barriers();
  }
  const int32_t n = __shfl_sync(kAllLanes, some, 0), sequence = __shfl_sync(kAllLanes, its_sequence, 0);
  const int32_t tiles = (n + kTile - 1) / kTile;
  if (tiles <= 0) return;
  const int32_t* const pages = a.step.page_table + int64_t{sequence} * a.step.page_stride;
#pragma unroll
  for (int i = 0; i < kLookedUp; ++i) {
    // Past the last, any position: its weight is zero.
    const int32_t at = tid + kThreads * i, p = at < n ? position[i] : any_position;
    s.slots[at] = pages[p / kPageTokens] * kPageTokens + p % kPageTokens;
  }
  if (tid == 0) {
#pragma unroll 1
    for (int b = 0; b < kBlocks && b < tiles; ++b) {
      if (b != rank) barrier_expect(shared_address(&s.arrived[b]), sizeof(typename Memory::Sent));
    }
  }
  __syncthreads();
  cluster_begin();
  if (group >= 2) {
    set_registers<Registers<kBlocks>::kExpand>();
    produce(a, s, rank, tiles, group - 2);
    cluster_wait();
    return;
  }
  scale_queries(a, s.queries(), s.factor, r, first_head, tid / 4);
  fence_for_wgmma();
  warp_arrive(&s.ready);
  if (group == 0) {
    set_registers<Registers<kBlocks>::kSums>();
    constexpr int kValues = 64, kSums = Memory::kColumns / 2 / kValues;
    float mix[kSums][kValues], inverse[2];
    add_up(s, rank, tiles, mix, inverse);
    const auto write = [&](auto store) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int head = first_head + own_row() + 8 * j;
        if (head >= a.heads) continue;
        const int64_t at = (r * a.heads + head) * kRank + rank * Memory::kColumns + 2 * (tid % 4);
#pragma unroll
        for (int i = 0; i < kSums * kValues / 4; ++i) {
          const float* pair = &mix[i / (kValues / 4)][i % (kValues / 4) * 4 + 2 * j];
          store(at + 8 * i, pack_bf16(pair[0] * inverse[j], pair[1] * inverse[j]));
        }
      }
    };
    if (a.codes) {
      write([&](int64_t at, uint32_t two) { *reinterpret_cast<uint32_t*>(a.codes + at) = two; });
    } else {
      write([&](int64_t at, uint32_t two) {
        *reinterpret_cast<Pair*>(a.mixed + at) = {float_of(two << 16), float_of(two & 0xFFFF0000u)};
      });
    }
  } else {
    set_registers<Registers<kBlocks>::kScores>();
    weigh(s, rank, n, tiles);
  }
}

#endif

template <int kBlocks>
__global__ void __launch_bounds__(kThreads, 1) attend_cluster_kernel([[maybe_unused]] AttendRowsArgs args) {
#ifdef DSV_HOPPER
  attend_part<kBlocks>(args);
#endif
}

// Rows' blocks of 64 heads that a GPU has clusters of kBlocks for at once.
template <int kBlocks>
int64_t at_once() {
  return clusters_at_once<attend_cluster_kernel<kBlocks>>(kBlocks, kThreads, sizeof(Shared<kBlocks>));
}
template <int kBlocks>
void launch_blocks(const AttendRowsArgs& a, Stream stream) {
  launch(attend_cluster_kernel<kBlocks>,
         {(a.heads + kHeads - 1) / kHeads * kBlocks, 1, a.rows, false, kBlocks}, kThreads,
         sizeof(Shared<kBlocks>), stream, a);
}

}  // namespace

int32_t attend_cluster(const AttendRowsArgs& a) {
  // For fewer of them split rows are faster (H200, 2048 positions: 36.5 us for 16 and 55.5 for 32; clusters
  // of 4 take 37 to 39, those of 2 55 to 60, one block 94).
  constexpr int64_t kSplitFew = 16, kSplitMore = 32;
  const int64_t count = int64_t{a.rows} * ((a.heads + kHeads - 1) / kHeads);
  if (count > kSplitFew && count <= at_once<4>()) return 4;
  return count > kSplitMore && count <= at_once<2>() ? 2 : 1;
}

void hopper::launch_cluster(const AttendRowsArgs& a, Stream stream) {
  a.cluster == 2 ? launch_blocks<2>(a, stream) : launch_blocks<4>(a, stream);
}

}  // namespace dsv::cuda
