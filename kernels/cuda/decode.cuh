// Stored weights as f32, 16 bytes at a time.
#pragma once

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/formats.h"
#include "kernels/cuda/mma.cuh"

namespace dsv::cuda {

// Values in a 16-byte chunk.
__device__ __forceinline__ constexpr int chunk_values(Dtype dtype) {
  return dtype == Dtype::f8_e4m3 ? 16 : dtype == Dtype::f32 ? 4 : 8;
}

// Four e4m3 codes. From sm_89 on the chip converts; f16 holds every e4m3 value.
__device__ __forceinline__ void decode_e4m3x4(uint32_t codes, float* out) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint32_t low, high;
  e4m3x4_to_f16(codes, low, high);
  const Pair first = unpack_f16(low), second = unpack_f16(high);
  out[0] = first.x, out[1] = first.y, out[2] = second.x, out[3] = second.y;
#else
  for (int i = 0; i < 4; ++i) out[i] = e4m3_to_float(codes >> 8 * i & 0xFF);
#endif
}

template <Dtype kDtype>
__device__ __forceinline__ void decode_chunk(const uint4& raw, float* out) {
  const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
  for (int i = 0; i < 4; ++i) {
    if constexpr (kDtype == Dtype::f8_e4m3) {
      decode_e4m3x4(words[i], out + 4 * i);
    } else if constexpr (kDtype == Dtype::bf16) {
      out[2 * i] = bf16_to_float(static_cast<uint16_t>(words[i]));
      out[2 * i + 1] = bf16_to_float(static_cast<uint16_t>(words[i] >> 16));
    } else if constexpr (kDtype == Dtype::f16) {
      out[2 * i] = f16_to_float(static_cast<uint16_t>(words[i]));
      out[2 * i + 1] = f16_to_float(static_cast<uint16_t>(words[i] >> 16));
    } else {
      out[i] = float_of(words[i]);
    }
  }
}

// W[row, col] dequantised; for kernels that read columns.
__device__ __forceinline__ float weight_at(const WeightView& w, int64_t row, int64_t col) {
  const unsigned char* data = w.data + row * w.pitch;
  switch (w.dtype) {
    case Dtype::f8_e4m3:
      return e4m3_to_float(data[col]) * w.scale[row / kQuantBlock * w.scale_cols + col / kQuantBlock];
    case Dtype::bf16:
      return bf16_to_float(reinterpret_cast<const uint16_t*>(data)[col]);
    case Dtype::f16:
      return f16_to_float(reinterpret_cast<const uint16_t*>(data)[col]);
    case Dtype::f32:
      break;
  }
  return reinterpret_cast<const float*>(data)[col];
}

}  // namespace dsv::cuda
