// Sparse MLA of few rows on Hopper, the second part: a few of the 512 values for 64 heads of a row, from the
// weights that attend_wgmma.cu's scores' kernel wrote. It may begin before that has ended and then looks up
// where the latents are.
//
// Bound, for 2048 positions and 64 columns: 256 KB of weights and 128 KB of codes from L2, 6000 cycles at 64
// bytes a cycle, and 8 MFLOP, 4096 cycles. Two warpgroups bring codes and weights, three tiles ahead each,
// and scale them; one multiplies.
#include "kernels/cuda/attend_wgmma.cuh"

namespace dsv::cuda {
namespace {

using namespace hopper;

constexpr int kBringers = 2, kMixThreads = (kBringers + 1) * kGroup;

// A block: kColumns values for 64 heads of a row.
template <int kColumns>
struct Mixing {
  static constexpr int kBuffers = kColumns == 128 ? 6 : 8, kBlocks = (kColumns + 63) / 64;
  unsigned char tile[kBuffers][kBlocks][kBlock];  // as for wgmma; columns past the last are not used
  unsigned char weights[kBuffers][kBlock];
  WordPair now[kMostSplits][kHeads];  // factors of a tile's weights, and of the sums before it
  float before[kMostSplits][kHeads];
  float inverse[kHeads];  // 1 / the sum of all weights
  int32_t slots[kAttendMmaFold];
  uint64_t full[kBuffers], empty[kBuffers], folded;
};

#ifdef DSV_HOPPER

// Every second tile, by one warpgroup.
template <int kColumns>
__device__ __forceinline__ void bring(const AttendRowsArgs& a, Mixing<kColumns>& s, int64_t result,
                                      int32_t tiles, int column, int group) {
  constexpr int kBuffers = Mixing<kColumns>::kBuffers, kChunks = kColumns / 16;  // 16 codes of a latent
  constexpr int kLoads = kTile * kChunks / kGroup, kAhead = 3;
  const int tid = threadIdx.x % kGroup;
  struct Raw {
    uint4 codes[kLoads], weights[4];
    float scale[kLoads];
  } raw[kAhead];
  const auto load_codes = [&](int32_t tile, Raw& to) {
    if (tile >= tiles) return;
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int chunk = tid + kGroup * i;
      const unsigned char* row =
          a.cache.latent + int64_t{s.slots[tile * kTile + chunk / kChunks]} * kAttendMmaRowBytes;
      to.codes[i] = __ldg(reinterpret_cast<const uint4*>(row + column + chunk % kChunks * 16));
      to.scale[i] = __ldg(reinterpret_cast<const float*>(row + kRank) + column / kPart);
    }
  };
  const auto load_weights = [&](int32_t tile, Raw& to) {
    if (tile >= tiles) return;
    const auto* from = reinterpret_cast<const uint4*>(weights_of(a, result + tile)) + tid;
#pragma unroll
    for (int k = 0; k < 4; ++k) to.weights[k] = from[kGroup * k];
  };
#pragma unroll
  for (int j = 0; j < kAhead; ++j) load_codes(group + kBringers * j, raw[j]);
  wait_for_last();
#pragma unroll
  for (int j = 0; j < kAhead; ++j) load_weights(group + kBringers * j, raw[j]);
  barrier_wait(&s.folded, 0);
  for (int32_t first = group; first < tiles; first += kBringers * kAhead) {
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int32_t tile = first + kBringers * j;
      if (tile >= tiles) break;
      const int b = tile % kBuffers;
      if (tile >= kBuffers) barrier_wait(&s.empty[b], (tile / kBuffers + 1) & 1);
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        const int chunk = tid + kGroup * i, token = chunk / kChunks, to = 2 * (chunk % kChunks % 4);
        uint32_t w[8];
        latent_values(raw[j].codes[i], pack_f16(raw[j].scale[i], raw[j].scale[i]), w);
        unsigned char* row = s.tile[b][chunk % kChunks / 4] + token * 128;
        *reinterpret_cast<uint4*>(row + (to ^ token % 8) * 16) = uint4{w[0], w[1], w[2], w[3]};
        *reinterpret_cast<uint4*>(row + ((to + 1) ^ token % 8) * 16) = uint4{w[4], w[5], w[6], w[7]};
      }
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int chunk = tid + kGroup * k;  // 8 a head
        const WordPair now = s.now[tile][chunk / 8];
        const uint4 w = raw[j].weights[k];
        reinterpret_cast<uint4*>(s.weights[b])[chunk] =
            uint4{scaled(w.x, now), scaled(w.y, now), scaled(w.z, now), scaled(w.w, now)};
      }
      warp_arrive(&s.full[b]);
      load_codes(tile + kBringers * kAhead, raw[j]);
      load_weights(tile + kBringers * kAhead, raw[j]);
    }
  }
}

// Factors of all tiles, by one warpgroup: half of it writes what is of even tiles, half of odd ones.
template <int kColumns>
__device__ __forceinline__ void fold_all(const AttendRowsArgs& a, Mixing<kColumns>& s, int64_t result,
                                         int32_t tiles) {
  const int own = threadIdx.x % kHeads, odd = static_cast<int>(threadIdx.x) % kGroup / kHeads;
  Stat stat[kMostSplits];
#pragma unroll
  for (int t = 0; t < kMostSplits; ++t) {
    if (t < tiles) stat[t] = stats_of(a, result + t)[own];
  }
  Running run;
#pragma unroll
  for (int t = 0; t < kMostSplits; ++t) {
    if (t >= tiles) break;
    run.fold(stat[t]);
    if (t % 2 != odd) continue;
    s.now[t][own] = run.now;
    s.before[t][own] = run.before;
  }
  if (odd == 0) s.inverse[own] = 1 / run.total;
}

template <int kColumns>
__device__ __forceinline__ void mix_values(const AttendRowsArgs& a) {
  using Memory = Mixing<kColumns>;
  static_assert(sizeof(Memory) <= kAttendWgmmaShared);
  constexpr int kBuffers = Memory::kBuffers;
  auto& s = *reinterpret_cast<Memory*>(shared_memory());
  const auto tid = static_cast<int>(threadIdx.x);
  const int group = __shfl_sync(kAllLanes, tid / kGroup, 0);  // known as uniform
  const int64_t r = blockIdx.z;
  const int first_head = static_cast<int>(blockIdx.x) * kHeads,
            column = static_cast<int>(blockIdx.y) * kColumns;
  const int32_t n = a.n_selected[r], tiles = (n + kTile - 1) / kTile;
  const int32_t* selected = a.selected + r * a.topk;
  const int32_t* pages = a.step.page_table + int64_t{a.step.sequence[r]} * a.step.page_stride;
  constexpr int kAtOnce = (kAttendMmaFold + kMixThreads - 1) / kMixThreads;
  int32_t position[kAtOnce];
  const int32_t any_position = selected[0];
#pragma unroll
  for (int i = 0; i < kAtOnce; ++i) {
    const int32_t at = tid + kMixThreads * i;
    position[i] = at < a.topk ? selected[at] : 0;
  }
  if (tiles <= 0) return wait_for_last();
  if (tid == 0) {
    for (int b = 0; b < kBuffers; ++b) {
      barrier_init(&s.full[b], 4);
      barrier_init(&s.empty[b], 4);
    }
    barrier_init(&s.folded, 4);
    fence_barriers();
  }
#pragma unroll
  for (int i = 0; i < kAtOnce; ++i) {
    // Past the last, any position: its weight is zero.
    const int32_t at = tid + kMixThreads * i, p = at < n ? position[i] : any_position;
    if (at < kAttendMmaFold) s.slots[at] = pages[p / kPageTokens] * kPageTokens + p % kPageTokens;
  }
  __syncthreads();
  const int64_t result = first_result(a, r, blockIdx.x);
  if (group < kBringers) return bring<kColumns>(a, s, result, tiles, column, group);

  wait_for_last();
  // Not sooner: with W_v's blocks there beside the scores', a layer takes 16 us longer.
  let_next_begin();
  fold_all(a, s, result, tiles);
  warp_arrive(&s.folded);
  barrier_wait(&s.folded, 0);
  float mix[kColumns / 2];
#pragma unroll
  for (float& x : mix) x = 0;
  for (int32_t t = 0; t < tiles; ++t) {
    const int b = t % kBuffers;
    const float before[2] = {s.before[t][own_row()], s.before[t][own_row() + 8]};
    barrier_wait(&s.full[b], t / kBuffers & 1);
    fence_for_wgmma();
    if (__ballot_sync(kAllLanes, before[0] != 1 || before[1] != 1) != 0) {
#pragma unroll
      for (int x = 0; x < kColumns / 2; ++x) mix[x] *= before[x / 2 % 2];
    }
    const uint32_t weights = block_descriptor(s.weights[b]), values = wide_descriptor(s.tile[b][0]);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; ++k) wgmma_transposed(mix, weights + 2 * k, values + 128 * k);
    wgmma_commit();
    wgmma_wait<0>();
    warp_arrive(&s.empty[b]);
  }
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int row = own_row() + 8 * j, head = first_head + row;
    if (head >= a.heads) continue;
#pragma unroll
    for (int i = 0; i < kColumns / 8; ++i) {
      write_mixed(a, r, head, column + 8 * i + 2 * (tid % 4), mix[4 * i + 2 * j], mix[4 * i + 2 * j + 1],
                  s.inverse[row]);
    }
  }
}
#endif

template <int kColumns>
__global__ void __launch_bounds__(kMixThreads, 1) mix_kernel([[maybe_unused]] AttendRowsArgs args) {
#ifdef DSV_HOPPER
  mix_values<kColumns>(args);
#endif
}

template <int kColumns>
void launch_columns(const AttendRowsArgs& a, Stream stream) {
  launch(mix_kernel<kColumns>, {(a.heads + kHeads - 1) / kHeads, kRank / kColumns, a.rows, true}, kMixThreads,
         sizeof(Mixing<kColumns>), stream, a);
}

}  // namespace

void hopper::launch_mix(const AttendRowsArgs& a, Stream stream) {
  const int64_t blocks = a.rows * ((a.heads + kHeads - 1) / kHeads);
  blocks <= 8    ? launch_columns<32>(a, stream)
  : blocks <= 16 ? launch_columns<64>(a, stream)
                 : launch_columns<128>(a, stream);
}

}  // namespace dsv::cuda
