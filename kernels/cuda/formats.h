// The small number formats in integer arithmetic, the same on every GPU, in emulation and on the host.
#pragma once

#include <cstdint>
#include <cstring>

#include "backend/both.h"

namespace dsv::cuda {

DSV_BOTH uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
DSV_BOTH float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// Bytes of the cache need not be aligned: a geometry of any size packs its rows.
DSV_BOTH float load_f32(const unsigned char* at) {
  return float_of(static_cast<uint32_t>(at[0]) | static_cast<uint32_t>(at[1]) << 8 |
                  static_cast<uint32_t>(at[2]) << 16 | static_cast<uint32_t>(at[3]) << 24);
}
DSV_BOTH void store_f32(unsigned char* at, float x) {
  const uint32_t bits = bits_of(x);
  for (int i = 0; i < 4; ++i) at[i] = static_cast<unsigned char>(bits >> 8 * i);
}

// bf16: the upper half of an f32; nearest, ties to even.
DSV_BOTH float bf16_to_float(uint16_t code) { return float_of(static_cast<uint32_t>(code) << 16); }
DSV_BOTH uint16_t float_to_bf16(float x) {
  const uint32_t bits = bits_of(x);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>(bits >> 16 | 0x40);  // NaN stays one
  return static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1)) >> 16);
}
DSV_BOTH float round_bf16(float x) { return bf16_to_float(float_to_bf16(x)); }

// f16: as an f32 with a too small exponent, which a product with a power of two mends, subnormals included.
DSV_BOTH float f16_to_float(uint16_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x8000) << 16, rest = code & 0x7FFF;
  if (rest >= 0x7C00) return float_of(sign | 0x7F800000u | (rest & 0x3FF) << 13);
  return float_of(sign | bits_of(float_of(rest << 13) * 0x1p112f));
}

// Nearest, ties to even.
DSV_BOTH uint16_t float_to_f16(float x) {
  const uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7FFF);
  if (magnitude >= bits_of(65520.0f)) return static_cast<uint16_t>(sign | 0x7C00);
  if (magnitude < bits_of(0x1p-14f)) {
    // Subnormal: multiples of 2^-24, the last place of 2^-1.
    return static_cast<uint16_t>(sign | (bits_of(float_of(magnitude) + 0x1p-1f) & 0x7FF));
  }
  return static_cast<uint16_t>(sign | (magnitude + 0xFFFu + (magnitude >> 13 & 1) - (112u << 23)) >> 13);
}

// e4m3: bias 7, largest 448, no infinity, 0x7F is NaN.
DSV_BOTH float e4m3_to_float(uint32_t code) {
  const uint32_t sign = (code & 0x80) << 24, rest = code & 0x7F;
  const float magnitude = rest == 0x7F ? float_of(0x7FC00000u) : float_of(rest << 20) * 0x1p120f;
  return float_of(sign | bits_of(magnitude));
}
// The same value as f16: exponents are 8 further, and the 7 subnormals are normal.
DSV_BOTH uint32_t e4m3_to_f16(uint32_t code) {
  const uint32_t sign = (code & 0x80) << 8, rest = code & 0x7F;
  if (rest == 0x7F) return sign | 0x7E00;
  if (rest >= 8) return sign | ((rest << 7) + 0x2000);
  return rest == 0 ? sign : sign | ((bits_of(static_cast<float>(rest)) >> 13) - (121u << 10));
}
// Nearest, ties to even; larger values saturate.
DSV_BOTH uint32_t float_to_e4m3(float x) {
  const uint32_t bits = bits_of(x), sign = bits >> 24 & 0x80, magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return sign | 0x7F;
  if (magnitude >= bits_of(448.0f)) return sign | 0x7E;
  if (magnitude < bits_of(0x1p-6f)) {
    // Subnormal: multiples of 2^-9. 2^14 has that as its last place, so the sum rounds to it.
    return sign | (bits_of(float_of(magnitude) + 0x1p14f) & 0xF);
  }
  return sign | (((magnitude + 0x7FFFFu + (magnitude >> 20 & 1)) >> 20) - (120u << 3));
}
// Scale of a group with this largest magnitude: max(amax, 1e-4) / 448, or the next power of two that is not
// less: amax = m * 2^e and 448 = 1.75 * 2^8, so it is 2^(e - 8) if m <= 1.75, else 2^(e - 7).
DSV_BOTH float e4m3_scale(float amax, bool power_of_two) {
  if (!(amax > 1e-4f)) amax = 1e-4f;
  if (!power_of_two) return amax / 448.0f;
  const uint32_t bits = bits_of(amax), exponent = bits >> 23;
  return float_of((exponent - 8 + ((bits & 0x7FFFFFu) > 0x600000u ? 1 : 0)) << 23);
}

}  // namespace dsv::cuda
