// W_k^T q of each head for many rows, in the bits of absorb.cu.
//
// Bound: memory. A row of 128 heads brings 64 KB of queries and takes 128 KB of bf16: 4096 rows move 805 MB,
// 196 us at 4.1 TB/s; their products are 69 GFLOP, some 120 us by mma.sync. So a block keeps a head's W_k in
// registers (a warp 64 of its 512 columns), goes through its part of the rows, and has several tiles of them
// on their way.
#include "kernels/cuda/attend.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/tensor.cuh"

namespace dsv::cuda {
namespace {

constexpr int kThreads = 256, kColumns = 512, kNope = 128, kSteps = kNope / 16;
constexpr int kTiles = kColumns / (kThreads / kWarp) / 8;  // products of 8 columns of a warp
constexpr int kRows = 32, kStages = 4;
constexpr int kPitch = kNope + 8;  // floats of a row in shared memory: 4 rows meet all banks
constexpr int kStage = kRows * kPitch, kShared = 4 * kStages * kStage;
static_assert(kShared <= kPortableShared);

// Two bf16 values, which these are, as codes.
__device__ __forceinline__ uint32_t codes_of(float2 two) {
  return __float_as_uint(two.x) >> 16 | (__float_as_uint(two.y) & 0xFFFF0000u);
}
// Bytes p and p + 2 of two rows' words, in turn.
__device__ __forceinline__ uint32_t in_turn(uint32_t a, uint32_t b, int p) {
  return (a >> 8 * p & 0x00FF00FFu) | (b >> 8 * p & 0x00FF00FFu) << 8;
}

// Column c of product n is column 16 (c / 2) + 2 n + c % 2 of the warp's 64, so that a lane has 16
// neighbours of a row's sums. Grid: x parts of the rows, y heads.
__global__ void __launch_bounds__(kThreads, 1) absorb_many_kernel(AbsorbArgs a) {
  auto* const shared = reinterpret_cast<float*>(shared_memory());
  const int tid = static_cast<int>(threadIdx.x), warp = tid / kWarp, lane = tid % kWarp, g = lane / 4,
            t = lane % 4;
  const int64_t head = blockIdx.y, first_weight = head * a.group_rows;
  const int column = warp * kTiles * 8;
  const unsigned char* const data = a.weight.data + first_weight * a.weight.pitch + column + 16 * (g / 2);
  const float scale = a.weight.scale[first_weight / kQuantBlock * a.weight.scale_cols + column / kQuantBlock];
  uint32_t w[kSteps][kTiles][2];
#pragma unroll
  for (int s = 0; s < kSteps; ++s) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const unsigned char* const at = data + (16 * s + 8 * half + 2 * t) * a.weight.pitch;
      const uint4 even = load_once(at), odd = load_once(at + a.weight.pitch);
      const uint32_t evens[4] = {even.x, even.y, even.z, even.w}, odds[4] = {odd.x, odd.y, odd.z, odd.w};
#pragma unroll
      for (int v = 0; v < 4; ++v) {
        e4m3x4_to_bf16(in_turn(evens[v], odds[v], g % 2), w[s][2 * v][half], w[s][2 * v + 1][half]);
      }
    }
  }
  wait_for_last();
  const int all = (a.rows + kRows - 1) / kRows, parts = static_cast<int>(gridDim.x),
            part = static_cast<int>(blockIdx.x);
  const int first_tile = all * part / parts, tiles = all * (part + 1) / parts - first_tile;
  const int64_t stride = a.heads * a.head_dim;
  const float* const q = static_cast<const float*>(a.q.data) + head * a.head_dim;
  const auto fill = [&](int tile) {
    constexpr int kChunks = kNope / 4;
    float* const stage = shared + tile % kStages * kStage;
#pragma unroll
    for (int i = tid; i < kRows * kChunks; i += kThreads) {
      const int own = i / kChunks, row = (first_tile + tile) * kRows + own;
      copy_async_16(stage + own * kPitch + 4 * (i % kChunks),
                    row < a.rows ? q + row * stride + 4 * (i % kChunks) : q, row < a.rows);
    }
  };
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < tiles) fill(s);
    copy_commit();
  }
  for (int tile = 0; tile < tiles; ++tile) {
    copy_wait<kStages - 2>();
    __syncthreads();  // the rows have come for every thread, and all are done with those before
    if (tile + kStages - 1 < tiles) fill(tile + kStages - 1);
    copy_commit();
    const float* const stage = shared + tile % kStages * kStage;
#pragma unroll
    for (int m = 0; m < kRows; m += 16) {
      float sum[kTiles][4] = {};
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
        uint32_t x[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float* const at = stage + (m + g + i % 2 * 8) * kPitch + 16 * s + i / 2 * 8 + 2 * t;
          x[i] = codes_of(*reinterpret_cast<const float2*>(at));
        }
#pragma unroll
        for (int n = 0; n < kTiles; ++n) mma_bf16(sum[n], x, w[s][n][0], w[s][n][1]);
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int64_t row = (first_tile + tile) * kRows + m + g + 8 * i;
        if (row >= a.rows) continue;
        uint32_t words[kTiles];
#pragma unroll
        for (int n = 0; n < kTiles; ++n)
          words[n] = pack_bf16(sum[n][2 * i] * scale, sum[n][2 * i + 1] * scale);
        auto* const out = reinterpret_cast<uint4*>(static_cast<uint16_t*>(a.q_abs) +
                                                   (row * a.heads + head) * kColumns + column + 16 * t);
        out[0] = {words[0], words[1], words[2], words[3]};
        out[1] = {words[4], words[5], words[6], words[7]};
      }
    }
  }
}

}  // namespace

bool takes_absorb_many(const AbsorbArgs& a) {
  return a.packed && a.to_bf16 && a.rows >= kAbsorbManyRows && a.weight.dtype == Dtype::f8_e4m3 &&
         a.weight.cols == kColumns && a.nope == kNope && a.group_rows % kQuantBlock == 0 &&
         a.head_dim % 4 == 0;
}

void launch_absorb_many(const AbsorbArgs& a, Stream stream) {
  const int64_t tiles = (a.rows + kRows - 1) / kRows, fit = processors() / a.heads,
                parts = fit < 1       ? 1
                        : fit < tiles ? fit
                                      : tiles;
  launch(absorb_many_kernel, {parts, a.heads, 1, true}, kThreads, kShared, stream, a);
}

}  // namespace dsv::cuda
