// W_k^T q of each head: queries in the latents' space.
//
// Bound: W_k's bytes (8 MB of FP8 for 128 heads: 3 us) if there are few rows; with many, 2 * 128 * 512
// operations a head and row, 17 MFLOP for 128 heads, and 131 KB of bf16 that are written: 40 ns.
#include "kernels/cuda/attend.h"
#include "kernels/cuda/decode.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/queries.cuh"

namespace dsv::cuda {
namespace {

// A thread a column of W_k, so that a warp reads 32 neighbours of a row.
__global__ void absorb_kernel(AbsorbArgs a) {
  begin_early();
  const int64_t j = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, r = blockIdx.z, h = blockIdx.y;
  if (j >= a.weight.cols) return;
  const Query q(a.q, r * a.heads + h, a.head_dim);
  float sum = 0;
  for (int64_t i = 0; i < a.nope; ++i)
    sum = fmaf(weight_at(a.weight, h * a.group_rows + i, j), q.value(*q.word(i), i), sum);
  const int64_t at = (r * a.heads + h) * a.weight.cols + j;
  if (a.packed) {
    static_cast<uint16_t*>(a.q_abs)[at] = float_to_bf16(sum);
  } else {
    static_cast<float*>(a.q_abs)[at] = a.to_bf16 ? round_bf16(sum) : sum;
  }
}

// On tensor cores: a block takes 128 columns of a head for up to kRowsOfBlock rows, 16 at a time; its part of
// W_k lies in shared memory as bf16, FP8 without its scale, which is one for the 128 x 128 block. The same
// sums in the same order for any number of rows.
constexpr int kThreads = 128, kSide = 128, kRowsOfBlock = 128;
constexpr int kPitch = kSide + 8;  // 16-bit values of a row in shared memory: 8 rows lie in different banks
static_assert(kSide == kQuantBlock && kSide == kThreads);
struct Shared {
  uint16_t weight[kSide * kPitch];  // [nope, columns]
  uint16_t q[16 * kPitch];          // [rows, nope]
};

bool takes_mma(const AbsorbArgs& a) {
  return a.packed && a.nope == kSide && a.weight.cols % kSide == 0 && a.group_rows % kSide == 0 &&
         (a.weight.dtype == Dtype::f8_e4m3 || a.weight.dtype == Dtype::bf16);
}

__device__ __forceinline__ void store_weight(Shared& s, int row, int column, const uint32_t* words) {
  *reinterpret_cast<uint4*>(s.weight + row * kPitch + column) = uint4{words[0], words[1], words[2], words[3]};
}

// Grid: columns in parts of kSide, heads, rows.
__global__ void __launch_bounds__(kThreads) absorb_mma_kernel(AbsorbArgs a) {
  auto& s = *reinterpret_cast<Shared*>(shared_memory());
  const int tid = static_cast<int>(threadIdx.x), lane = tid % kWarp, warp = tid / kWarp;
  const int64_t head = blockIdx.y, column = int64_t{blockIdx.x} * kSide,
                first_row = int64_t{blockIdx.z} * kRowsOfBlock;
  const bool fp8 = a.weight.dtype == Dtype::f8_e4m3;
  const unsigned char* data = a.weight.data + head * a.group_rows * a.weight.pitch + column * (fp8 ? 1 : 2);
  float scale = 1;
  if (fp8) {
    scale = a.weight.scale[head * a.group_rows / kQuantBlock * a.weight.scale_cols + column / kQuantBlock];
    constexpr int kLoads = kSide * kSide / 16 / kThreads;
    uint4 raw[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int chunk = tid + kThreads * i;
      raw[i] = *reinterpret_cast<const uint4*>(data + chunk / 8 * a.weight.pitch + chunk % 8 * 16);
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int chunk = tid + kThreads * i;
      float value[16];
      uint32_t words[8];
      decode_chunk<Dtype::f8_e4m3>(raw[i], value);
#pragma unroll
      for (int j = 0; j < 8; ++j) words[j] = pack_bf16(value[2 * j], value[2 * j + 1]);
      store_weight(s, chunk / 8, chunk % 8 * 16, words);
      store_weight(s, chunk / 8, chunk % 8 * 16 + 8, words + 4);
    }
  } else {
#pragma unroll 8
    for (int chunk = tid; chunk < kSide * kSide / 8; chunk += kThreads) {
      *reinterpret_cast<uint4*>(s.weight + chunk / 16 * kPitch + chunk % 16 * 8) =
          *reinterpret_cast<const uint4*>(data + chunk / 16 * a.weight.pitch + chunk % 16 * 16);
    }
  }
  wait_for_last();

  const int64_t end_row = a.rows - first_row < kRowsOfBlock ? a.rows : first_row + kRowsOfBlock;
  const Query q(a.q, head, a.head_dim);  // of row 0
  uint32_t next[16];                     // a column of the next 16 rows
  const auto load = [&](int64_t row) {
    const uint32_t* const from = q.word(tid) + row * a.heads * a.head_dim;
#pragma unroll
    for (int i = 0; i < 16; ++i) next[i] = row + i < end_row ? from[int64_t{i} * a.heads * a.head_dim] : 0;
  };
  load(first_row);
  for (int64_t row = first_row; row < end_row; row += 16) {
    const int count = end_row - row < 16 ? static_cast<int>(end_row - row) : 16;
    __syncthreads();  // the rows before are done with
#pragma unroll
    for (int i = 0; i < 16; ++i) s.q[i * kPitch + tid] = float_to_bf16(q.value(next[i], tid));
    __syncthreads();
    load(row + 16);
    if (row + 16 >= end_row) let_next_begin();
    float sum[4][4];
#pragma unroll
    for (int n = 0; n < 16; ++n) sum[n / 4][n % 4] = 0;
#pragma unroll
    for (int k = 0; k < kSide / 16; ++k) {
      uint32_t x[4], b[2][4];
      load_a(x, s.q + 16 * k, kPitch);
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        load_b(b[n], s.weight + 16 * k * kPitch + 32 * warp + 16 * n, kPitch);
        mma_bf16(sum[2 * n], x, b[n][0], b[n][1]);
        mma_bf16(sum[2 * n + 1], x, b[n][2], b[n][3]);
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int own = lane / 4 + 8 * i;
      if (own >= count) continue;
      auto* out = static_cast<uint16_t*>(a.q_abs) + ((row + own) * a.heads + head) * a.weight.cols + column +
                  32 * warp + 2 * (lane % 4);
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        *reinterpret_cast<uint32_t*>(out + 8 * n) =
            pack_bf16(sum[n][2 * i] * scale, sum[n][2 * i + 1] * scale);
      }
    }
  }
}

}  // namespace

void launch_absorb(const AbsorbArgs& a, Stream stream) {
  if (takes_mma(a)) {
    launch(absorb_mma_kernel,
           {a.weight.cols / kSide, a.heads, (a.rows + kRowsOfBlock - 1) / kRowsOfBlock, true}, kThreads,
           sizeof(Shared), stream, a);
  } else {
    launch(absorb_kernel, {(a.weight.cols + kThreads - 1) / kThreads, a.heads, a.rows, true}, kThreads, 0,
           stream, a);
  }
}

}  // namespace dsv::cuda
