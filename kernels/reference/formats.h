// The small number formats, written as their definitions read: a value rounds to the nearest multiple of its
// binade's step, ties to even. Values are double; encoders take values that are on the grid already.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "backend/geometry.h"

namespace dsv::reference {

// 2^e for -1022 <= e <= 1023, from a double's own exponent field: std::ldexp took 40% of the reference's
// time.
inline double two_to_the(int e) { return std::bit_cast<double>(static_cast<uint64_t>(1023 + e) << 52); }

// Nearest value with `mantissa` bits after the point and exponents from `min_exponent` (subnormal below).
inline double round_to_grid(double x, int mantissa, int min_exponent) {
  if (x == 0 || !std::isfinite(x)) return x;
  const double step = two_to_the(std::max(std::ilogb(x), min_exponent) - mantissa);
  return std::nearbyint(x / step) * step;
}

// Sign, exponent field and mantissa field of a value on the grid.
inline uint32_t encode_on_grid(double x, int exponent_bits, int mantissa, int min_exponent) {
  const uint32_t sign = std::signbit(x) ? 1u << (exponent_bits + mantissa) : 0;
  if (x == 0) return sign;
  const int exponent = std::max(std::ilogb(x), min_exponent);
  const auto units = static_cast<uint32_t>(std::fabs(x) / two_to_the(exponent - mantissa));
  // Normal values have the leading one in `units`, which adds 1 to the exponent field.
  return sign | ((static_cast<uint32_t>(exponent - min_exponent) << mantissa) + units);
}

inline double decode_fields(uint32_t code, int exponent_bits, int mantissa, int min_exponent) {
  const uint32_t field = code >> mantissa & ((1u << exponent_bits) - 1);
  const uint32_t fraction = code & ((1u << mantissa) - 1);
  const uint32_t units = field == 0 ? fraction : fraction + (1u << mantissa);
  const int exponent = min_exponent + (field == 0 ? 0 : static_cast<int>(field) - 1);
  const double magnitude = units * two_to_the(exponent - mantissa);
  return code >> (exponent_bits + mantissa) & 1 ? -magnitude : magnitude;
}

// e4m3: bias 7, largest 448, no infinity; 0x7F and 0xFF are NaN. Larger values saturate.
inline constexpr double kE4m3Max = 448;
inline double round_e4m3(double x) { return std::clamp(round_to_grid(x, 3, -6), -kE4m3Max, kE4m3Max); }
inline uint8_t encode_e4m3(double x) {
  if (std::isnan(x)) return 0x7F;
  return static_cast<uint8_t>(encode_on_grid(round_e4m3(x), 4, 3, -6));
}
inline double decode_e4m3(uint8_t code) {
  if ((code & 0x7F) == 0x7F) return std::numeric_limits<double>::quiet_NaN();
  return decode_fields(code, 4, 3, -6);
}

inline double decode_f32(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// bf16: the upper half of an f32.
inline double round_bf16(double x) {
  const double y = round_to_grid(x, 7, -126);
  const bool overflow = std::isfinite(y) && std::fabs(y) >= 0x1p128;
  return overflow ? std::copysign(std::numeric_limits<double>::infinity(), y) : y;
}
inline double decode_bf16(uint16_t code) { return decode_f32(uint32_t{code} << 16); }
inline uint16_t encode_bf16(double x) {
  const auto value = static_cast<float>(round_bf16(x));
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>(bits >> 16);
}

inline double decode_f16(uint16_t code) {
  if ((code >> 10 & 0x1F) != 0x1F) return decode_fields(code, 5, 10, -14);
  const double special =
      code & 0x3FF ? std::numeric_limits<double>::quiet_NaN() : std::numeric_limits<double>::infinity();
  return code & 0x8000 ? -special : special;
}

// Scale of a group that becomes e4m3: max(amax, 1e-4) / 448 as f32, or the next power of two that is not
// less.
inline float e4m3_scale(const double* x, int64_t n, bool power_of_two) {
  double amax = 1e-4f;
  for (int64_t i = 0; i < n; ++i) amax = std::max(amax, std::fabs(x[i]));
  const auto scale = static_cast<float>(amax / kE4m3Max);
  if (!power_of_two) return scale;
  int exponent;
  const double fraction = std::frexp(amax / kE4m3Max, &exponent);  // in [0.5, 1)
  return static_cast<float>(std::ldexp(1.0, fraction == 0.5 ? exponent - 1 : exponent));
}

// x over its group's scale: an f32 quotient, as in the official kernels. (Values on the bf16 grid meet ties
// often.)
inline double scaled(double x, double scale) { return static_cast<float>(x / scale); }

// What a group of values becomes by way of e4m3: the dequantised values.
inline void quantise_group(double* x, int64_t n, bool power_of_two) {
  const double scale = e4m3_scale(x, n, power_of_two);
  for (int64_t i = 0; i < n; ++i) x[i] = round_e4m3(scaled(x[i], scale)) * scale;
}

// Activation quantisation: groups of 128, the last one as long as is left.
inline void quantise(double* x, int64_t n, bool power_of_two) {
  for (int64_t i = 0; i < n; i += kQuantBlock) {
    quantise_group(x + i, std::min<int64_t>(kQuantBlock, n - i), power_of_two);
  }
}

}  // namespace dsv::reference
