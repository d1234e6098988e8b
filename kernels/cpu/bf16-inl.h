// What the AVX-512-BF16 and the AMX linears share: decoding weights to bf16, and packing input for it. To be
// included where the compiler may use AVX-512 with VBMI and BF16.
//
// e4m3 becomes bf16 by two table lookups of 64 bytes each, exact for subnormals and NaN; the low and high
// bytes are then interleaved within 16-byte lanes, which leaves columns 16 l + 0..7 of the 64 in the first
// register and 16 l + 8..15 in the second. The packed input of an FP8 weight has its columns in the same
// order.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/cpu/targets.h"

namespace dsv::cpu {
namespace {

constexpr int64_t kBlock = kQuantBlock;
constexpr int kBlockVectors = 4;  // of 32 bf16

bool uses_bf16_kernels(Rounding rounding, Dtype dtype) {
  return rounding != Rounding::none && (dtype == Dtype::f8_e4m3 || dtype == Dtype::bf16);
}

// Where columns 2 q and 2 q + 1 of a block go, as an index of pairs.
inline int pair_place(Dtype dtype, int q) {
  if (dtype != Dtype::f8_e4m3) return q;
  const int half = q / 32 * 32, lane = q % 32 / 8, in_lane = q % 8;
  return half + (in_lane < 4 ? 0 : 16) + 4 * lane + in_lane % 4;
}

// The upper halves of f32 values on the bf16 grid, two columns to a word.
inline uint32_t bf16_pair(const float* two) {
  uint32_t bits[2];
  std::memcpy(bits, two, sizeof bits);
  return bits[0] >> 16 | (bits[1] & 0xffff0000);
}

// The low and the high byte of the bf16 of each magnitude.
struct DecodeTables {
  alignas(64) uint8_t low[128] = {}, high[128] = {};
  constexpr DecodeTables() {
    for (int code = 0; code < 128; ++code) {
      const float small = static_cast<float>(code) * 0x1p-9f;                       // subnormals
      uint32_t bits = (static_cast<uint32_t>(code) << 20) + (uint32_t{120} << 23);  // exponent bias 7 to 127
      if (code < 8) bits = std::bit_cast<uint32_t>(small);
      if (code == 127) bits = 0x7fc00000;
      low[code] = static_cast<uint8_t>(bits >> 16);
      high[code] = static_cast<uint8_t>(bits >> 24);
    }
  }
};
inline constexpr DecodeTables kDecodeTables;

// Holds the tables in registers: make one in each function that loops.
class Decoder {
 public:
  Decoder()
      : low_{_mm512_load_si512(kDecodeTables.low), _mm512_load_si512(kDecodeTables.low + 64)},
        high_{_mm512_load_si512(kDecodeTables.high), _mm512_load_si512(kDecodeTables.high + 64)} {}

  // 64 codes to two vectors.
  inline void decode(__m512i codes, __m512i* out) const {
    const __m512i low = _mm512_permutex2var_epi8(low_[0], codes, low_[1]);
    const __m512i magnitude = _mm512_permutex2var_epi8(high_[0], codes, high_[1]);
    // magnitude | (codes & 0x80)
    const __m512i high = _mm512_ternarylogic_epi32(magnitude, codes, _mm512_set1_epi8(-128), 0xf8);
    out[0] = _mm512_unpacklo_epi8(low, high);
    out[1] = _mm512_unpackhi_epi8(low, high);
  }

  // `columns` <= 128 columns of a weight row, zero behind them.
  template <Dtype dtype>
  inline void block(const unsigned char* from, int64_t columns, __m512i* out) const {
    if constexpr (dtype == Dtype::f8_e4m3) {
      if (columns >= kBlock) {
        decode(_mm512_loadu_si512(from), out);
        decode(_mm512_loadu_si512(from + 64), out + 2);
      } else {
        const auto second = std::max<int64_t>(columns - 64, 0);
        decode(_mm512_maskz_loadu_epi8(low_bits(columns), from), out);
        decode(_mm512_maskz_loadu_epi8(low_bits(second), from + 64), out + 2);
      }
    } else {
      for (int v = 0; v < kBlockVectors; ++v) {
        const auto mask = static_cast<__mmask32>(low_bits(columns - 32 * v));
        out[v] = columns >= kBlock ? _mm512_loadu_si512(from + 64 * v)
                                   : _mm512_maskz_loadu_epi16(mask, from + 64 * v);
      }
    }
  }

 private:
  static uint64_t low_bits(int64_t n) { return n >= 64 ? ~uint64_t{0} : n <= 0 ? 0 : (uint64_t{1} << n) - 1; }
  __m512i low_[2], high_[2];
};

}  // namespace
}  // namespace dsv::cpu
