// Products of bf16 matrices for the attention kernels, on AMX tiles or without, and what brings values into
// the form that they read. To be included where the compiler may use AVX-512 with VBMI and BF16, and AMX.
//
// A lies in plain rows, B in blocks of 32 x 16 that a tile holds: 16 lines of 16 pairs (k, k + 1), a column
// each.
#pragma once

#include <immintrin.h>

#include <bit>
#include <cstdint>
#include <cstring>

#include "kernels/cpu/bf16-inl.h"

namespace dsv::cpu {
namespace {

constexpr int64_t kTile = 512;  // bf16 values of a B block

// C[m, 16 n_blocks] (+)= A[m, 32 k_blocks] B. On AMX m counts up to the next multiple of 16: A and C have
// room.
struct Product {
  int64_t m, n_blocks, k_blocks;
  const uint16_t* a;
  int64_t a_row;
  const uint16_t* b;
  int64_t b_n, b_k;  // distance of blocks
  float* c;
  int64_t c_row;
  bool accumulate;
};

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Tiles: C in 0 to 3, A in 4 and 5, B in 6 and 7.
template <int kM, int kN>
inline void multiply_tiles(const Product& p, int64_t i, int64_t j) {
  float* c = p.c + 16 * (i * p.c_row + j);
  const int64_t c_stride = 4 * p.c_row, a_stride = 2 * p.a_row;
  if (p.accumulate) {
    _tile_loadd(0, c, c_stride);
    if constexpr (kN > 1) _tile_loadd(1, c + 16, c_stride);
    if constexpr (kM > 1) _tile_loadd(2, c + 16 * p.c_row, c_stride);
    if constexpr (kM > 1 && kN > 1) _tile_loadd(3, c + 16 * p.c_row + 16, c_stride);
  } else {
    _tile_zero(0);
    if constexpr (kN > 1) _tile_zero(1);
    if constexpr (kM > 1) _tile_zero(2);
    if constexpr (kM > 1 && kN > 1) _tile_zero(3);
  }
  const uint16_t* a = p.a + 16 * i * p.a_row;
  const uint16_t* b = p.b + j * p.b_n;
  for (int64_t k = 0; k < p.k_blocks; ++k, a += 32, b += p.b_k) {
    _tile_loadd(4, a, a_stride);
    _tile_loadd(6, b, 64);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kN > 1) {
      _tile_loadd(7, b + p.b_n, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kM > 1) {
      _tile_loadd(5, a + 16 * p.a_row, a_stride);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (kM > 1 && kN > 1) _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c, c_stride);
  if constexpr (kN > 1) _tile_stored(1, c + 16, c_stride);
  if constexpr (kM > 1) _tile_stored(2, c + 16 * p.c_row, c_stride);
  if constexpr (kM > 1 && kN > 1) _tile_stored(3, c + 16 * p.c_row + 16, c_stride);
}

template <int kN>
inline void multiply_tile_columns(const Product& p, int64_t j) {
  const int64_t m = round_up(p.m, 16) / 16;
  int64_t i = 0;
  for (; i + 2 <= m; i += 2) multiply_tiles<2, kN>(p, i, j);
  if (i < m) multiply_tiles<1, kN>(p, i, j);
}

template <int kM, int kN>
inline void multiply_rows(const Product& p, int64_t i, int64_t j) {
  float* c = p.c + i * p.c_row + 16 * j;
  __m512 sum[kM][kN];
  DSV_UNROLL for (int r = 0; r < kM; ++r) {
    DSV_UNROLL for (int n = 0; n < kN; ++n) {
      sum[r][n] = p.accumulate ? _mm512_loadu_ps(c + r * p.c_row + 16 * n) : _mm512_setzero_ps();
    }
  }
  const uint16_t* a = p.a + i * p.a_row;
  const uint16_t* b = p.b + j * p.b_n;
  for (int64_t k = 0; k < p.k_blocks; ++k, b += p.b_k) {
    for (int64_t pair = 0; pair < 16; ++pair, a += 2) {
      __m512bh column[kN];
      DSV_UNROLL for (int n = 0; n < kN; ++n) {
        column[n] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + n * p.b_n + 32 * pair));
      }
      DSV_UNROLL for (int r = 0; r < kM; ++r) {
        int32_t two;
        std::memcpy(&two, a + r * p.a_row, sizeof two);
        const auto factor = reinterpret_cast<__m512bh>(_mm512_set1_epi32(two));
        DSV_UNROLL for (int n = 0; n < kN; ++n) sum[r][n] = _mm512_dpbf16_ps(sum[r][n], factor, column[n]);
      }
    }
  }
  DSV_UNROLL for (int r = 0; r < kM; ++r) {
    DSV_UNROLL for (int n = 0; n < kN; ++n) _mm512_storeu_ps(c + r * p.c_row + 16 * n, sum[r][n]);
  }
}

template <int kN>
inline void multiply_row_columns(const Product& p, int64_t j) {
  int64_t i = 0;
  for (; i + 8 <= p.m; i += 8) multiply_rows<8, kN>(p, i, j);
  for (; i < p.m; ++i) multiply_rows<1, kN>(p, i, j);
}

template <bool kAmx>
void multiply(const Product& p) {
  for (int64_t j = 0; j < p.n_blocks; j += 2) {
    const bool two = j + 1 < p.n_blocks;
    if constexpr (kAmx) {
      two ? multiply_tile_columns<2>(p, j) : multiply_tile_columns<1>(p, j);
    } else {
      two ? multiply_row_columns<2>(p, j) : multiply_row_columns<1>(p, j);
    }
  }
}

// Tiles configured for the life of this object. A thread's tile state is cleared after, so that switches of
// context stay cheap.
template <bool kAmx>
struct Tiles {
  Tiles() {
    if constexpr (kAmx) {
      // Static, because g++ 12 takes _tile_loadconfig to read 8 bytes only, and may leave out the others'
      // stores.
      static constexpr TileConfig kConfig;
      _tile_loadconfig(&kConfig);
    }
  }
  ~Tiles() {
    if constexpr (kAmx) _tile_release();
  }
};

inline uint16_t to_bf16(float x) { return static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16); }

// Loads n <= bytes of `bytes` values, zeros after.
inline __m256i load_codes(const uint8_t* in, int64_t n) {
  if (n >= 32) return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in));
  return _mm256_maskz_loadu_epi8((1u << n) - 1, in);
}
inline __m512i load_bf16(const uint8_t* in, int64_t n) {
  if (n >= 32) return _mm512_loadu_si512(in);
  return _mm512_maskz_loadu_epi16((1u << n) - 1, in);
}

// e4m3 codes to bf16 times 2^(scale / 128); the sum of exponents is the caller's care. The small codes, which
// are denormal, and NaN come from a table, at (code + 1) & 127.
inline __m512i decode(__m256i codes, __m512i scale) {
  alignas(64) static constexpr uint16_t kSmall[32] = {0x7FC0, 0,      0x3B00, 0x3B80, 0x3BC0,
                                                      0x3C00, 0x3C20, 0x3C40, 0x3C60};
  const __m512i seven = _mm512_set1_epi16(0x7F);
  const __m512i code = _mm512_cvtepu8_epi16(codes);
  const __m512i index = _mm512_and_si512(_mm512_add_epi16(code, _mm512_set1_epi16(1)), seven);
  const __m512i normal =
      _mm512_add_epi16(_mm512_slli_epi16(_mm512_and_si512(code, seven), 4), _mm512_set1_epi16(120 << 7));
  __m512i value = _mm512_mask_permutexvar_epi16(normal, _mm512_cmplt_epu16_mask(index, _mm512_set1_epi16(9)),
                                                index, _mm512_load_si512(kSmall));
  value = _mm512_mask_add_epi16(value, _mm512_cmpgt_epu16_mask(index, _mm512_set1_epi16(1)), value, scale);
  // value | (code << 8 & 0x8000)
  return _mm512_ternarylogic_epi32(value, _mm512_slli_epi16(code, 8), _mm512_set1_epi16(-0x8000), 0xF8);
}

struct Pairs {
  __m512i even, odd;
};
// The columns of two rows as pairs.
inline Pairs pair_rows(__m512i a, __m512i b) {
  return {_mm512_mask_blend_epi16(0xAAAAAAAA, a, _mm512_slli_epi32(b, 16)),
          _mm512_mask_blend_epi16(0xAAAAAAAA, _mm512_srli_epi32(a, 16), b)};
}
// Undoes the order of columns that pair_rows leaves in 32 sums.
inline void store_in_order(__m512 even, __m512 odd, float* out) {
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
  _mm512_storeu_ps(out, _mm512_permutex2var_ps(even, low, odd));
  _mm512_storeu_ps(out + 16, _mm512_permutex2var_ps(even, high, odd));
}

inline void transpose(__m512i v[16]) {
  __m512i t[16];
  DSV_UNROLL for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  DSV_UNROLL for (int i = 0; i < 16; i += 4) {
    v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  DSV_UNROLL for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0xDD);
    t[i + 8] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0xDD);
  }
  DSV_UNROLL for (int i = 0; i < 4; ++i) {
    v[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    v[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    v[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xDD);
    v[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xDD);
  }
}

// The sum of each vector's lanes.
inline __m512 sum_lanes(const __m512 v[16]) {
  __m512i t[16];
  DSV_UNROLL for (int i = 0; i < 16; ++i) t[i] = _mm512_castps_si512(v[i]);
  transpose(t);
  __m512 sum = _mm512_castsi512_ps(t[0]);
  DSV_UNROLL for (int i = 1; i < 16; ++i) sum = _mm512_add_ps(sum, _mm512_castsi512_ps(t[i]));
  return sum;
}

// 2^x, x <= 0. Cephes' exp2f polynomial on [-0.5, 0.5], error below 2 ulp.
inline __m512 exp2(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(x, whole);
  __m512 p = _mm512_set1_ps(1.535336188319500e-4f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.339887440266574e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.618437357674640e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.550332471162809e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.402264791363012e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.931472028550421e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, whole);
}

}  // namespace
}  // namespace dsv::cpu
