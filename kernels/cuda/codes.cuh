// Rows of values as codes for the tensor cores, as packed_rows has them: what norms, packing and W_v share.
#pragma once

#include "kernels/cuda/formats.h"
#include "kernels/cuda/packed.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/tensor.cuh"

namespace dsv::cuda {

// Four neighbours a lane, a group of 128 values a warp: a row's codes as packed_rows has them.
inline constexpr int kPerLane = kQuantBlock / kWarp;
struct CodeRows {
  unsigned char* out;
  int64_t rows, pitch;  // bytes of a row's codes
  PackedForm form;
};

// Word i of lane t becomes word t of lane i, among four neighbours. All lanes of the warp come here.
__device__ __forceinline__ void transpose_fours(uint32_t (&word)[4]) {
#pragma unroll
  for (int lanes = 1; lanes < 4; lanes *= 2) {
    const bool high = threadIdx.x & lanes;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & lanes) continue;
      const uint32_t got = __shfl_xor_sync(kAllLanes, high ? word[i] : word[i + lanes], lanes);
      (high ? word[i] : word[i + lanes]) = got;
    }
  }
}

// From sm_89 on the chip rounds, as float_to_e4m3 does.
__device__ __forceinline__ uint32_t four_e4m3(const float (&value)[kPerLane]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint32_t codes;
  asm("{ .reg .b16 a, b; cvt.rn.satfinite.e4m3x2.f32 a, %2, %1; cvt.rn.satfinite.e4m3x2.f32 b, %4, %3; "
      "mov.b32 %0, "
      "{a, b}; }"
      : "=r"(codes)
      : "f"(value[0]), "f"(value[1]), "f"(value[2]), "f"(value[3]));
  return codes;
#else
  uint32_t codes = 0;
  for (int i = 0; i < kPerLane; ++i) codes |= float_to_e4m3(value[i]) << 8 * i;
  return codes;
#endif
}

// .. of values divided by their group's scale.
__device__ __forceinline__ uint32_t four_e4m3(const float (&value)[kPerLane], float scale,
                                              bool power_of_two) {
  float scaled[kPerLane];
  if (power_of_two) {
    const float inverse = float_of((254u << 23) - bits_of(scale));  // 2^-e of 2^e
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) scaled[i] = value[i] * inverse;
  } else {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) scaled[i] = value[i] / scale;
  }
  return four_e4m3(scaled);
}

// Of 64 neighbours of a row, as a product leaves them to four lanes, the codes from 16 t on: value[i] has
// those from 16 i + 2 t and those from 16 i + 8 + 2 t on, two each. All lanes of the warp come here.
__device__ __forceinline__ uint4 codes_of_sums(const float (&value)[4][kPerLane], float scale,
                                               bool power_of_two) {
  uint32_t word[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) word[i] = four_e4m3(value[i], scale, power_of_two);
  transpose_fours(word);
  const auto low = [&](int i) { return (word[i] & 0xFFFF) | word[i + 1] << 16; };
  const auto high = [&](int i) { return word[i] >> 16 | (word[i + 1] & 0xFFFF0000u); };
  return {low(0), low(2), high(0), high(2)};
}

__device__ __forceinline__ void put_e4m3(const CodeRows& to, int64_t r, int64_t group,
                                         const float (&value)[kPerLane], bool power_of_two) {
  const int lane = threadIdx.x % kWarp;
  float amax = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) amax = fmaxf(amax, fabsf(value[i]));
  // Not negative and not NaN, so it compares as its bits do.
  amax = __uint_as_float(__reduce_max_sync(kAllLanes, __float_as_uint(amax)));
  const float scale = e4m3_scale(amax, power_of_two);
  const uint32_t codes = four_e4m3(value, scale, power_of_two);
  const bool spread = to.form == PackedForm::spread;
  const int64_t pitch = spread ? 2 * to.pitch : to.pitch, word = group * kWarp + lane;
  auto* const words = reinterpret_cast<uint32_t*>(to.out + r * pitch);
  if (spread) {
    const int64_t at = spread_word(word);
    e4m3x4_to_f16(codes, words[at], words[at + 4]);
  } else {
    words[word] = codes;
  }
  auto* const scales = reinterpret_cast<float*>(to.out + to.rows * pitch);
  if (lane == 0)
    scales[to.form == PackedForm::by_row ? r * (to.pitch / kQuantBlock) + group
                                         : group * ((to.rows + 3) / 4 * 4) + r] = scale;
}

__device__ __forceinline__ void put_bf16(const CodeRows& to, int64_t r, int64_t group,
                                         const float (&value)[kPerLane]) {
  const int64_t at = 2 * (group * kQuantBlock + threadIdx.x % kWarp * kPerLane);
  if (at >= to.pitch) return;
  const auto pair = [&](int i) {
    return float_to_bf16(value[i]) | static_cast<uint32_t>(float_to_bf16(value[i + 1])) << 16;
  };
  *reinterpret_cast<uint2*>(to.out + r * to.pitch + at) = {pair(0), pair(2)};
}

}  // namespace dsv::cuda
