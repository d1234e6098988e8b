// Linear layers on the FP32 units, and W_k^T q.
//
// linear_kernel serves what the tensor cores do not: `exact` precision, f16 and f32 weights, and W_v of odd
// sizes. Bound for R <= 8 rows: the weight's bytes, read once. Inputs come from L1: each lane reads 4 bytes
// of input a weight byte and row, so from R = 2 on L1's 128 bytes a clock and the conversions, not memory,
// set the time. More rows take a pass each 8.
#include "kernels/cuda/dot.cuh"

namespace dsv::cuda {
namespace {

constexpr int kWarps = 8;

// Warps that share a row of the weight, so that a matrix of few rows keeps the whole GPU busy (1056 warps are
// 8 a processor): by its shape alone.
int splits_of(int64_t outputs, const WeightView& w) {
  const int64_t chunks = w.pitch / 16;
  int splits = 1;
  while (splits < kWarps && outputs * splits < 1056 && chunks >= int64_t{2} * splits * kWarp) splits *= 2;
  return splits;
}

struct LinearKernelArgs {
  LinearArgs a;
  int splits;
};

// Grid: x outputs in groups of kWarps / splits, y rows in tiles of kRows, z groups.
template <int kRows>
__global__ void __launch_bounds__(kWarps* kWarp) linear_kernel(LinearKernelArgs args) {
  const LinearArgs& a = args.a;
  const int splits = args.splits, warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int split = warp % splits;
  const int64_t output = int64_t{blockIdx.x} * (kWarps / splits) + warp / splits;
  const int64_t first = int64_t{blockIdx.y} * kRows, group = blockIdx.z;
  const int count = a.rows - first < kRows ? static_cast<int>(a.rows - first) : kRows;
  float sum[kRows];
  if (output < a.outputs) {
    const float* x[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) x[i] = a.x + (first + i) * a.x_stride + group * a.x_group_stride;
    warp_dot<kRows>(a.weight, group * a.group_rows + a.first_row + output, split, splits, x, count, sum);
  }
  if (splits > 1) {
    auto* parts = reinterpret_cast<float*>(shared_memory());  // [kWarps][kRows]
    if (output < a.outputs && lane == 0) {
      for (int i = 0; i < count; ++i) parts[warp * kRows + i] = sum[i];
    }
    __syncthreads();
    if (output >= a.outputs || split != 0) return;
    for (int i = 0; i < count; ++i) {
      for (int s = 1; s < splits; ++s) sum[i] += parts[(warp + s) * kRows + i];
    }
  }
  if (output >= a.outputs || lane != 0) return;
  for (int i = 0; i < count; ++i) {
    const float y = sum[i] * a.factor;
    a.y[(first + i) * a.y_stride + group * a.y_group_stride + output] = a.to_bf16 ? round_bf16(y) : y;
  }
}

template <int kRows>
void launch_rows(const LinearArgs& a, Stream stream) {
  const int splits = splits_of(a.outputs * a.groups, a.weight), per_block = kWarps / splits;
  launch(linear_kernel<kRows>,
         {(a.outputs + per_block - 1) / per_block, (a.rows + kRows - 1) / kRows, a.groups}, kWarps * kWarp,
         splits > 1 ? kWarps * kRows * 4 : 0, stream, LinearKernelArgs{a, splits});
}

constexpr int kAbsorbParts = 4, kAbsorbCols = 4;

// Four values of a row of W_k, dequantised.
__device__ __forceinline__ void four_weights(const WeightView& w, int64_t row, int64_t col, float* out) {
  const unsigned char* const at = w.data + row * w.pitch;
  if (w.dtype == Dtype::f8_e4m3) {
    decode_e4m3x4(*reinterpret_cast<const uint32_t*>(at + col), out);
    const float scale = w.scale[row / kQuantBlock * w.scale_cols + col / kQuantBlock];
    for (int i = 0; i < 4; ++i) out[i] *= scale;
  } else if (w.dtype == Dtype::f32) {
    const float4 four = *reinterpret_cast<const float4*>(at + 4 * col);
    out[0] = four.x, out[1] = four.y, out[2] = four.z, out[3] = four.w;
  } else {
    const uint2 raw = *reinterpret_cast<const uint2*>(at + 2 * col);
    for (int i = 0; i < 4; ++i) {
      const auto code = static_cast<uint16_t>((i < 2 ? raw.x : raw.y) >> 16 * (i % 2));
      out[i] = w.dtype == Dtype::bf16 ? bf16_to_float(code) : f16_to_float(code);
    }
  }
}

// Grid: x heads, y rows in tiles of kRows. A thread adds a part of the nope products for four columns; parts
// are added in order. Bound: W_k's bytes (8 MB of FP8 for 128 heads: 3 us) if the rows are few; each block
// has some 16 KB of them under way.
template <int kRows>
__global__ void __launch_bounds__(1024) absorb_kernel(AbsorbArgs a) {
  auto* const sums =
      reinterpret_cast<float*>(shared_memory());  // [kAbsorbParts][kRows][threads of a part * 4]
  const int threads = static_cast<int>(blockDim.x) / kAbsorbParts, width = threads * kAbsorbCols;
  auto* const q = sums + kAbsorbParts * kRows * width;  // [kRows][nope]
  const int64_t h = blockIdx.x, first = int64_t{blockIdx.y} * kRows, cols = a.weight.cols;
  const int count = a.rows - first < kRows ? static_cast<int>(a.rows - first) : kRows;
  const int nope = static_cast<int>(a.nope);
  for (int i = threadIdx.x; i < kRows * nope; i += blockDim.x) {
    const int r = i / nope;
    q[i] = r < count ? a.q[((first + r) * a.heads + h) * a.head_dim + i % nope] : 0;
  }
  __syncthreads();
  const int part = threadIdx.x / threads, thread = threadIdx.x % threads;
  const int begin = nope * part / kAbsorbParts, end = nope * (part + 1) / kAbsorbParts;
  for (int64_t from = 0; from < cols; from += width) {
    const int64_t col = from + thread * kAbsorbCols;
    float sum[kRows][kAbsorbCols] = {};
    if (col < cols) {
#pragma unroll 8
      for (int i = begin; i < end; ++i) {
        float w[kAbsorbCols];
        four_weights(a.weight, h * a.group_rows + i, col, w);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
#pragma unroll
          for (int c = 0; c < kAbsorbCols; ++c) sum[r][c] = fmaf(w[c], q[r * nope + i], sum[r][c]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      *reinterpret_cast<float4*>(sums + (part * kRows + r) * width + thread * kAbsorbCols) = {
          sum[r][0], sum[r][1], sum[r][2], sum[r][3]};
    }
    __syncthreads();
    for (int i = threadIdx.x; i < count * width; i += blockDim.x) {
      const int r = i / width;
      const int64_t j = from + i % width;
      if (j >= cols) continue;
      float total = sums[i];
      for (int p = 1; p < kAbsorbParts; ++p) total += sums[p * kRows * width + i];
      a.q_abs[((first + r) * a.heads + h) * cols + j] = a.to_bf16 ? round_bf16(total) : total;
    }
    __syncthreads();
  }
}

template <int kRows>
void launch_absorb_rows(const AbsorbArgs& a, Stream stream) {
  // Warps of a part: as many as the columns need, but shared memory for 512 columns at most.
  const int64_t warps = (a.weight.cols + kWarp * kAbsorbCols - 1) / (kWarp * kAbsorbCols);
  const int threads = static_cast<int>(warps < 4 ? warps : 4) * kWarp;
  const int64_t shared = 4 * kRows * (int64_t{kAbsorbParts} * threads * kAbsorbCols + a.nope);
  launch(absorb_kernel<kRows>, {a.heads, (a.rows + kRows - 1) / kRows}, kAbsorbParts * threads, shared,
         stream, a);
}

}  // namespace

void launch_linear(const LinearArgs& a, Stream stream) {
  if (a.rows <= 1) return launch_rows<1>(a, stream);
  if (a.rows <= 2) return launch_rows<2>(a, stream);
  if (a.rows <= 4) return launch_rows<4>(a, stream);
  launch_rows<kDotRows>(a, stream);
}

void launch_absorb(const AbsorbArgs& a, Stream stream) {
  // Heads of many thousand values leave no room for the inputs of four rows.
  if (a.rows <= 1 || a.nope > 3072) return launch_absorb_rows<1>(a, stream);
  launch_absorb_rows<4>(a, stream);
}

}  // namespace dsv::cuda
