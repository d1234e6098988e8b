// One weight row times a few input rows, by the lanes of a warp: the inner loop of every linear.
//
// Order of a sum, fixed by the weight's shape alone: chunk c (16 bytes) belongs to lane c % 32 of split
// (c / 32) % splits; a lane adds its chunks in order, a chunk's products in order; then the lanes' sums meet
// in warp_sum, and the splits' in order. So a row's result is the same for every number of rows beside it.
//
// Bytes in flight: a lane has kAhead loads of 16 bytes under way, a warp 2 KB. To keep 3 TB/s at about 700 ns
// of latency busy, 132 processors need 16 KB each: 8 such warps.
#pragma once

#include "kernels/cuda/decode.cuh"
#include "kernels/cuda/reduce.cuh"

namespace dsv::cuda {

inline constexpr int kAhead = 4;
inline constexpr int kDotRows = 8;  // input rows that share a pass over a weight row

// sum[i] += the lane's part of W[row] . x[i] for i < count <= kRows. x[i]: packed rows.
template <Dtype kDtype, int kRows>
__device__ __forceinline__ void lane_dot(const WeightView& w, int64_t row, int split, int splits,
                                         const float* const* x, int count, float* sum) {
  constexpr int kValues = chunk_values(kDtype);
  const unsigned char* const data = w.data + row * w.pitch;
  const float* const scale = kDtype == Dtype::f8_e4m3 ? w.scale + row / kQuantBlock * w.scale_cols : nullptr;
  const int64_t chunks = (w.cols + kValues - 1) / kValues;
  const int64_t stride = int64_t{kWarp} * splits;
  for (int64_t first = threadIdx.x % kWarp + kWarp * split; first < chunks; first += kAhead * stride) {
    uint4 raw[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const int64_t c = first + a * stride;
      raw[a] = c < chunks ? *reinterpret_cast<const uint4*>(data + 16 * c) : uint4{0, 0, 0, 0};
    }
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const int64_t c = first + a * stride;
      if (c >= chunks) break;
      float value[kValues];
      decode_chunk<kDtype>(raw[a], value);
      const float factor = kDtype == Dtype::f8_e4m3 ? scale[c * kValues / kQuantBlock] : 1.0f;
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        if (i >= count) break;
        const auto* in = reinterpret_cast<const float4*>(x[i] + c * kValues);
        float part = kDtype == Dtype::f8_e4m3 ? 0.0f : sum[i];
#pragma unroll
        for (int j = 0; j < kValues / 4; ++j) {
          const float4 four = in[j];
          part = fmaf(value[4 * j], four.x, part);
          part = fmaf(value[4 * j + 1], four.y, part);
          part = fmaf(value[4 * j + 2], four.z, part);
          part = fmaf(value[4 * j + 3], four.w, part);
        }
        sum[i] = kDtype == Dtype::f8_e4m3 ? fmaf(part, factor, sum[i]) : part;
      }
    }
  }
}

// sum[i] = W[row] . x[i], whole in every lane, if splits is 1.
template <int kRows>
__device__ __forceinline__ void warp_dot(const WeightView& w, int64_t row, int split, int splits,
                                         const float* const* x, int count, float* sum) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) sum[i] = 0;
  switch (w.dtype) {
    case Dtype::f8_e4m3:
      lane_dot<Dtype::f8_e4m3, kRows>(w, row, split, splits, x, count, sum);
      break;
    case Dtype::bf16:
      lane_dot<Dtype::bf16, kRows>(w, row, split, splits, x, count, sum);
      break;
    case Dtype::f16:
      lane_dot<Dtype::f16, kRows>(w, row, split, splits, x, count, sum);
      break;
    case Dtype::f32:
      lane_dot<Dtype::f32, kRows>(w, row, split, splits, x, count, sum);
      break;
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    if (i < count) sum[i] = warp_sum(sum[i]);
  }
}

}  // namespace dsv::cuda
