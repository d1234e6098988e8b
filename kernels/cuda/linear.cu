// Linear layers on the FP32 units.
//
// linear_kernel serves what the tensor cores do not: `exact` precision, f16 and f32 weights, and W_v of odd
// sizes. Bound for R <= 8 rows: the weight's bytes, read once. Inputs come from L1: each lane reads 4 bytes
// of input a weight byte and row, so from R = 2 on L1's 128 bytes a clock and the conversions, not memory,
// set the time. More rows take a pass each 8.
#include "kernels/cuda/dot.cuh"
#include "kernels/cuda/linear.h"

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
  begin_early();
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
         {(a.outputs + per_block - 1) / per_block, (a.rows + kRows - 1) / kRows, a.groups, true},
         kWarps * kWarp, splits > 1 ? kWarps * kRows * 4 : 0, stream, LinearKernelArgs{a, splits});
}

}  // namespace

void launch_linear(const LinearArgs& a, Stream stream) {
  if (a.rows <= 1) return launch_rows<1>(a, stream);
  if (a.rows <= 2) return launch_rows<2>(a, stream);
  if (a.rows <= 4) return launch_rows<4>(a, stream);
  launch_rows<kDotRows>(a, stream);
}

}  // namespace dsv::cuda
