// Sparse MLA of few rows on Hopper, the second part: a few of the 512 values for 64 heads of a row, from the
// weights that attend_wgmma.cu's scores' kernel wrote. It may begin before that has ended and then looks up
// where the latents are.
//
// Bound, for 2048 positions and 64 columns: 256 KB of weights from L2, some 5 us at 60 bytes a cycle, and 8
// MFLOP of mma, nothing. What it takes is a chain of loads and barriers, so few columns go with several tiles
// at once.
#include "kernels/cuda/attend_wgmma.cuh"

namespace dsv::cuda {
namespace {

using namespace hopper;

// A block: kColumns values for 64 heads of a row, from the weights that the scores' kernel wrote.
template <int kColumns>
struct Mixing {
  static constexpr int kTiles = 64 / kColumns;  // at once
  unsigned char tile[2][kTiles * kBlock];       // as for wgmma; columns past the last are not used
  float scales[2][kTiles * kTile];
  int32_t slots[kAttendMmaFold];
};

#ifdef DSV_WGMMA_CODE
template <int kColumns>
__device__ __forceinline__ void mix_values(const AttendRowsArgs& a) {
  using Memory = Mixing<kColumns>;
  constexpr int kTiles = Memory::kTiles, kChunks = kColumns / 16;  // 16 codes of a latent
  auto& s = *reinterpret_cast<Memory*>(aligned_shared());
  const int tid = threadIdx.x;
  const int64_t r = blockIdx.z;
  const int first_head = static_cast<int>(blockIdx.x) * kHeads,
            column = static_cast<int>(blockIdx.y) * kColumns;
  const int32_t n = a.n_selected[r], tiles = (n + kTile - 1) / kTile;
  const int32_t* pages = a.step.page_table + int64_t{a.step.sequence[r]} * a.step.page_stride;
  constexpr int kAtOnce = kAttendMmaFold / kGroup;
  int32_t position[kAtOnce];
#pragma unroll
  for (int i = 0; i < kAtOnce; ++i) {
    const int32_t at = tid + kGroup * i;
    position[i] = at < a.topk ? a.selected[r * a.topk + at] : -1;
  }
#pragma unroll
  for (int i = 0; i < kAtOnce; ++i) {
    const int32_t at = tid + kGroup * i, p = at < n ? position[i] : -1;
    if (p >= 0) s.slots[at] = pages[p / kPageTokens] * kPageTokens + p % kPageTokens;
  }
  __syncthreads();

  uint4 codes[2], weights[kTiles][4];
  float scale[2];
  Stat stat[kTiles][2];
  const auto load = [&](int32_t first) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int32_t chunk = tid + kGroup * i, at = first * kTile + chunk / kChunks;
      codes[i] = uint4{0, 0, 0, 0};
      scale[i] = 0;
      if (at >= n) continue;
      const unsigned char* row = a.cache.latent + int64_t{s.slots[at]} * kAttendMmaRowBytes;
      codes[i] = __ldg(reinterpret_cast<const uint4*>(row + column + chunk % kChunks * 16));
      scale[i] = __ldg(reinterpret_cast<const float*>(row + kRank) + column / kPart);
    }
  };
  const int64_t result = first_result(a, r, blockIdx.x);
  const auto load_weights = [&](int32_t first) {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      if (first + i >= tiles) break;
      const uint4* from = weights_of(a, result + first + i) + tid;
#pragma unroll
      for (int k = 0; k < 4; ++k) weights[i][k] = from[kGroup * k];
      const Stat* stats = stats_of(a, result + first + i) + own_row();
      stat[i][0] = stats[0];
      stat[i][1] = stats[8];
    }
  };
  load(0);
  wait_for_last();
  load_weights(0);
  float mix[kColumns / 2];
#pragma unroll
  for (float& x : mix) x = 0;
  Running run;
  for (int32_t first = 0; first < tiles; first += kTiles) {
    const int b = first / kTiles % 2;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int chunk = tid + kGroup * i, token = chunk / kChunks, to = 2 * (chunk % kChunks);
      uint32_t w[8];
      e4m3_to_f16(codes[i], w);
      unsigned char* row = s.tile[b] + token * 128;
      *reinterpret_cast<uint4*>(row + (to ^ token % 8) * 16) = uint4{w[0], w[1], w[2], w[3]};
      *reinterpret_cast<uint4*>(row + ((to + 1) ^ token % 8) * 16) = uint4{w[4], w[5], w[6], w[7]};
      if (chunk % kChunks == 0) s.scales[b][token] = scale[i];
    }
    fence_for_wgmma();
    __syncthreads();
    load(first + kTiles);
    uint32_t fragment[kTiles][4][4];
    Largest largest[kTiles];
    float sum[kTiles][kColumns / 2];
    Stat stats[kTiles][2];
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      largest[i] = largest_scale(s.scales[b] + i * kTile);
      for (int j = 0; j < 2; ++j) stats[i][j] = stat[i][j];
#pragma unroll
      for (int k = 0; k < 4; ++k)
        scale_weights(fragment[i][k], weights[i][k], s.scales[b] + i * kTile + 16 * k, largest[i].inverse);
    }
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const uint32_t values = block_descriptor(s.tile[b] + i * kBlock);
#pragma unroll
      for (int k = 0; k < 4; ++k)
        wgmma_transposed<kColumns / 2>(sum[i], fragment[i][k], values + 128 * k, k != 0);
    }
    wgmma_commit();
    load_weights(first + kTiles);
    wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      if (first + i >= tiles) break;
      run.fold(stats[i][0], stats[i][1]);
      fold_values(mix, sum[i], run, largest[i].scale);
    }
  }
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int head = first_head + own_row() + 8 * j;
    if (head >= a.heads || n <= 0) continue;
    const float inverse = 1 / run.total[j];
#pragma unroll
    for (int i = 0; i < kColumns / 8; ++i) {
      write_mixed(a, r, head, column + 8 * i + 2 * (tid % 4), mix[4 * i + 2 * j], mix[4 * i + 2 * j + 1],
                  inverse);
    }
  }
}
#endif

template <int kColumns>
__global__ void __launch_bounds__(kGroup, kColumns / 16) mix_kernel([[maybe_unused]] AttendRowsArgs args) {
#ifdef DSV_WGMMA_CODE
  mix_values<kColumns>(args);
#endif
}

template <int kColumns>
void launch_columns(const AttendRowsArgs& a, Stream stream) {
  launch(mix_kernel<kColumns>, {(a.heads + kHeads - 1) / kHeads, kRank / kColumns, a.rows, true}, kGroup,
         sizeof(Mixing<kColumns>) + 1024, stream, a);
}

}  // namespace

void hopper::launch_mix(const AttendRowsArgs& a, Stream stream) {
  const int64_t blocks = a.rows * ((a.heads + kHeads - 1) / kHeads);
  blocks <= 4    ? launch_columns<16>(a, stream)
  : blocks <= 16 ? launch_columns<32>(a, stream)
                 : launch_columns<64>(a, stream);
}

}  // namespace dsv::cuda
