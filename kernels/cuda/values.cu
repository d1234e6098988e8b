// W_v of few rows in one launch: each head's mixed latents become its values, and these the codes that the
// output projection wants, in the bits of linear_few.cu and rows.cu.
//
// Bound: W_v's bytes (8.4 MB of FP8 for 128 heads: 2 us at 4.1 TB/s), which are in registers before the
// launch before has ended, if that lets this one begin; then latency: latents, 32 mmas in four chains, a
// maximum.
#include "kernels/cuda/codes.cuh"
#include "kernels/cuda/tensor.cuh"

namespace dsv::cuda {
namespace {

constexpr int kValues = 128, kWarps = kValues / kMmaRows, kThreads = kWarps * kWarp;  // of a head
constexpr int kMostRank = 512, kMostBlocks = kMostRank / kQuantBlock;
constexpr int kPitch = kMostRank + 8;  // 16-bit values of a row in shared memory
static_assert(kValues == kQuantBlock && kValuesFewRows == kMmaCols && kWarps >= kValuesFewRows);

struct Shared {
  uint16_t mixed[kValuesFewRows * kPitch];
  float y[kValuesFewRows][kValues];
};

// Grid: heads. A warp 16 values, all of their columns.
__global__ void __launch_bounds__(kThreads, 2) values_kernel(ValuesArgs a) {
  constexpr TensorFormat kFormat = TensorFormat::mixed;
  auto& s = *reinterpret_cast<Shared*>(shared_memory());
  const int tid = static_cast<int>(threadIdx.x), warp = tid / kWarp, lane = tid % kWarp, g = lane / 4,
            t = lane % 4;
  const int64_t head = blockIdx.x, first = head * a.group_rows + a.first_row;
  const int rank = static_cast<int>(a.weight.cols), blocks = rank / kQuantBlock;
  const unsigned char* const weight = a.weight.data + (first + warp * kMmaRows + g) * a.weight.pitch + 16 * t;
  uint4 w[kMostBlocks][kUnits][2] = {};
  float scale[kMostBlocks] = {};
#pragma unroll
  for (int b = 0; b < kMostBlocks; ++b) {
    if (b >= blocks) break;
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const unsigned char* const at = weight + b * kTensorBlock + u * kUnitBytes;
      w[b][u][0] = load_once(at);
      w[b][u][1] = load_once(at + 8 * a.weight.pitch);
    }
    scale[b] = a.weight.scale[first / kQuantBlock * a.weight.scale_cols + b];
  }
  wait_for_last();
  for (int r = 0; r < a.rows; ++r) {
    const float* const mixed = a.mixed + (r * int64_t{a.heads} + head) * rank;
    for (int i = 2 * tid; i < rank; i += 2 * kThreads) {
      const float2 two = *reinterpret_cast<const float2*>(mixed + i);
      *reinterpret_cast<uint32_t*>(s.mixed + r * kPitch + i) =
          float_to_bf16(two.x) | static_cast<uint32_t>(float_to_bf16(two.y)) << 16;
    }
  }
  let_next_begin();
  __syncthreads();
  MmaSums sums[kMostBlocks];
#pragma unroll
  for (int b = 0; b < kMostBlocks; ++b) {
    if (b >= blocks) break;
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      Operand<kFormat> a0, a1, x;
      uint4 raw[2] = {};
      if (g < a.rows) {
        const auto* const at =
            reinterpret_cast<const uint4*>(s.mixed + g * kPitch + b * kQuantBlock + u * kUnitBytes + 16 * t);
        raw[0] = at[0], raw[1] = at[1];
      }
      a0.set_weight(w[b][u][0]);
      a1.set_weight(w[b][u][1]);
      x.set_input(raw);
#pragma unroll
      for (int j = 0; j < Operand<kFormat>::kSteps; ++j) add_step<kFormat>(sums[b], a0, a1, x, j);
    }
  }
  // A split's blocks in order, and then the splits.
  MmaSums total, part;
  int split = 0;
#pragma unroll
  for (int b = 0; b < kMostBlocks; ++b) {
    if (b >= blocks) break;
    end_block<kFormat>(part, sums[b], scale[b], 1, 1);
    if (b + 1 < blocks * (split + 1) / a.splits) continue;
    ++split;
#pragma unroll
    for (int i = 0; i < 4; ++i) total.value[i] += part.value[i], part.value[i] = 0;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = 2 * t + i % 2;
    if (row < a.rows) s.y[row][warp * kMmaRows + g + i / 2 * 8] = round_bf16(total.value[i]);
  }
  __syncthreads();
  if (warp >= a.rows) return;
  const float4 four = reinterpret_cast<const float4*>(s.y[warp])[lane];
  const int64_t width = int64_t{a.heads} * kValues;
  reinterpret_cast<float4*>(a.y + warp * width + head * kValues)[lane] = four;
  if (!a.codes) return;
  const float value[kPerLane] = {four.x, four.y, four.z, four.w};
  put_e4m3({a.codes, a.rows, packed_pitch(width, Rounding::e4m3), PackedForm::by_row}, warp, head, value,
           a.power_of_two);
}

}  // namespace

bool takes_values(const ValuesArgs& a, int64_t values) {
  return a.rows <= kValuesFewRows && values == kValues && a.weight.dtype == Dtype::f8_e4m3 &&
         a.weight.cols % kQuantBlock == 0 && a.weight.cols <= kMostRank && a.group_rows % kQuantBlock == 0 &&
         a.first_row % kQuantBlock == 0;
}

void launch_values(const ValuesArgs& a, Stream stream) {
  launch(values_kernel, {a.heads, 1, 1, true}, kThreads, sizeof(Shared), stream, a);
}

}  // namespace dsv::cuda
