// W_k^T q of each head for many rows on Hopper, in the bits of absorb.cu.
//
// Bound: memory. A row of 128 heads brings 64 KB of queries, or 32 KB in bf16, and takes 128 KB: 4096 rows
// move 805 or 671 MB, 196 or 164 us at 4.1 TB/s; their products take half of that by wgmma. A block keeps a
// head's W_k in shared memory, as bf16 and by columns, in k's own order, which wgmma sums as mma.sync does.
// Two groups of warps go through its rows, 64 at a time: the next come to shared memory while these are
// multiplied from registers, 128 columns at a time, of which one group stores while the other multiplies.
#include "kernels/cuda/attend.h"
#include "kernels/cuda/head_rows.cuh"
#include "kernels/cuda/tensor.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace dsv::cuda {
namespace {

constexpr int kColumns = 512, kNope = 128;
constexpr int kThreads = kHeadGroups * 128, kWarps = kThreads / kWarp;
// Pairs of 4 rows as f32, or of 8 as bf16, meet all banks; as many bytes of either are on their way.
template <bool kBf16>
using QueriesOf = WarpRows<(kBf16 ? 2 : 4) * kNope, kBf16 ? 16 : 32, kBf16 ? 2 : 1>;
constexpr int kUnit = 64, kBoxes = kNope / kUnit, kBox = kColumns * 2 * kUnit;  // a box: 64 k of each column
template <bool kBf16>
constexpr int kShared = kBoxes* kBox + kWarps* QueriesOf<kBf16>::kMemory;
static_assert(kShared<false> <= kAttendWgmmaShared && kShared<true> <= kAttendWgmmaShared);

#ifdef DSV_HOPPER

using namespace hopper;
constexpr int kSteps = kNope / 16, kPart = 128;  // columns at a time

// Column c is row n of the products' operand B, so that a lane's sums are of eight neighbours, and those of
// four lanes 64 bytes of bf16.
__device__ __forceinline__ int row_of_column(int c) {
  return c / 32 * 32 + c % 8 / 2 * 8 + c / 8 % 4 * 2 + c % 2;
}
// Bytes p and p + 2 of two rows' words, in turn.
__device__ __forceinline__ uint32_t in_turn(uint32_t a, uint32_t b, int p) {
  return (a >> 8 * p & 0x00FF00FFu) | (b >> 8 * p & 0x00FF00FFu) << 8;
}
// Four words are 4 x 4 bytes: their columns.
__device__ __forceinline__ void transpose(uint32_t (&w)[4]) {
  const uint32_t even[2] = {in_turn(w[0], w[1], 0), in_turn(w[2], w[3], 0)},
                 odd[2] = {in_turn(w[0], w[1], 1), in_turn(w[2], w[3], 1)};
  w[0] = (even[0] & 0xFFFF) | even[1] << 16, w[2] = even[0] >> 16 | (even[1] & 0xFFFF0000u);
  w[1] = (odd[0] & 0xFFFF) | odd[1] << 16, w[3] = odd[0] >> 16 | (odd[1] & 0xFFFF0000u);
}

// A head's weights as operand B. A thread brings 16 columns of 8 neighbouring k of each box.
__device__ __forceinline__ void put_weights(const AbsorbArgs& a, int64_t first_row, unsigned char* boxes) {
  constexpr int kEight = 8;
  const int tid = static_cast<int>(threadIdx.x), eight = tid % (kUnit / kEight), column = tid / kEight * 16;
  static_assert(kThreads == kColumns / 16 * (kUnit / kEight));
  uint4 raw[kBoxes][kEight];
#pragma unroll
  for (int b = 0; b < kBoxes; ++b) {
#pragma unroll
    for (int k = 0; k < kEight; ++k) {
      raw[b][k] =
          load_once(a.weight.data + (first_row + b * kUnit + eight * kEight + k) * a.weight.pitch + column);
    }
  }
#pragma unroll
  for (int b = 0; b < kBoxes; ++b) {
#pragma unroll
    for (int v = 0; v < 4; ++v) {
      uint32_t w[2][4];
#pragma unroll
      for (int k = 0; k < kEight; ++k) {
        const uint32_t words[4] = {raw[b][k].x, raw[b][k].y, raw[b][k].z, raw[b][k].w};
        w[k / 4][k % 4] = words[v];
      }
      transpose(w[0]), transpose(w[1]);
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const int n = row_of_column(column + 4 * v + c);
        uint4 values;
        e4m3x4_to_bf16(w[0][c], values.x, values.y);
        e4m3x4_to_bf16(w[1][c], values.z, values.w);
        *reinterpret_cast<uint4*>(boxes + b * kBox + n * 128 + (eight ^ n % 8) * 16) = values;
      }
    }
  }
}

// Two bf16 values, which these are, as codes.
__device__ __forceinline__ uint32_t codes_of(float2 two) {
  return __float_as_uint(two.x) >> 16 | (__float_as_uint(two.y) & 0xFFFF0000u);
}

#endif

// Grid: x parts of the rows, y heads. kBf16: as AbsorbArgs::q says.
template <bool kBf16>
__global__ void __launch_bounds__(kThreads, 1)
    absorb_wgmma_kernel([[maybe_unused]] const __grid_constant__ AbsorbArgs a) {
#ifdef DSV_HOPPER
  using Queries = QueriesOf<kBf16>;
  const int tid = static_cast<int>(threadIdx.x), warp = tid / kWarp, lane = tid % kWarp, g = lane / 4,
            t = lane % 4;
  const int64_t head = blockIdx.y, first_weight = head * a.group_rows;
  unsigned char* const boxes = shared_memory();  // 1024-byte aligned
  const Queries queries = {boxes + 2 * kBox + warp * Queries::kMemory};
  put_weights(a, first_weight, boxes);
  const float* const scales = a.weight.scale + first_weight / kQuantBlock * a.weight.scale_cols;
  float scale[kColumns / kPart];
#pragma unroll
  for (int c = 0; c < kColumns / kPart; ++c) scale[c] = scales[c];
  fence_for_wgmma();
  __syncthreads();
  wait_for_last();

  const int all = (a.rows + kHeadTile - 1) / kHeadTile, parts = static_cast<int>(gridDim.x),
            part = static_cast<int>(blockIdx.x);
  const int end = all * (part + 1) / parts, mine = warp % 4 * 16;  // rows of a tile
  const int64_t stride = 4 * int64_t{a.heads} * a.head_dim;
  const auto* const q = static_cast<const unsigned char*>(a.q.data) + 4 * head * a.head_dim;
  const auto fill = [&](int tile, int stage) {
    if (tile >= end) return copy_commit();  // so that groups are counted to the end
    queries.fill(stage, [&](int r) {
      const int row = tile * kHeadTile + mine + r;
      return q + (row < a.rows ? row : a.rows - 1) * stride;
    });
  };
  const uint64_t weights = swizzled_descriptor(shared_address(boxes));
  const int first = all * part / parts + warp / 4;
#pragma unroll
  for (int s = 0; s < Queries::kStages; ++s) fill(first + s * kHeadGroups, s);
  int stage = 0;
  for (int tile = first; tile < end; tile += kHeadGroups, stage = (stage + 1) % Queries::kStages) {
    queries.wait();
    uint32_t fragment[kSteps][4];
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const unsigned char* const row = queries.at(stage, g + i % 2 * 8);
        const int column = 16 * s + i / 2 * 8 + 2 * t;
        fragment[s][i] = kBf16 ? *reinterpret_cast<const uint32_t*>(row + 2 * column)
                               : codes_of(*reinterpret_cast<const float2*>(row + 4 * column));
      }
      keep(fragment[s]);
    }
    fill(tile + Queries::kStages * kHeadGroups, stage);
#pragma unroll
    for (int c = 0; c < kColumns / kPart; ++c) {
      float sums[kPart / 2];
      forget(sums);
      wgmma_fence();
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
        const int at = s / 4 * kBox + c * kPart * 128 + 32 * (s % 4);
        wgmma_bf16(sums, fragment[s], weights + (at >> 4), s);
      }
      wgmma_commit();
      wgmma_wait<0>(sums);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int64_t row = tile * kHeadTile + mine + g + 8 * r;
        if (row >= a.rows) continue;
        uint16_t* const out = static_cast<uint16_t*>(a.q_abs) + (row * a.heads + head) * kColumns + c * kPart;
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          uint32_t words[4];
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            const float* const two = sums + 16 * n + 4 * j + 2 * r;
            words[j] = pack_bf16(two[0] * scale[c], two[1] * scale[c]);
          }
          *reinterpret_cast<uint4*>(out + 32 * n + 8 * t) = {words[0], words[1], words[2], words[3]};
        }
      }
    }
#pragma unroll
    for (int s = 0; s < kSteps; ++s) keep(fragment[s]);  // until no product reads them
  }
#endif
}

}  // namespace

void launch_absorb_wgmma(const AbsorbArgs& a, Stream stream) {
  const Grid grid = {head_parts(a.heads, a.rows, processors()), a.heads, 1, true};
  if (a.q.bf16) return launch(absorb_wgmma_kernel<true>, grid, kThreads, kShared<true>, stream, a);
  launch(absorb_wgmma_kernel<false>, grid, kThreads, kShared<false>, stream, a);
}

}  // namespace dsv::cuda
