// Attention kernels in bf16 products for AVX-512-BF16, on AMX tiles or without. e4m3 values with power-of-two
// scales are exact in bf16, so the products are those of the f32 kernels; weights of the softmax are rounded
// to bf16 for the second one. Bound: 2 * heads * (2 rank + rope) flops a selected row are nothing on AMX (16
// K flops in 16 cycles), so expanding a cache row to bf16, once for all heads, takes most of the time.
//
// Both products read A from plain rows and B from blocks of 32 x 16 that a tile holds: 16 lines of 16 pairs
// (k, k + 1), a column each. Scores: A = cache rows, B = the query (packed once). Sum: A = weights by head,
// B = cache rows in pairs. Pairs come cheapest with the even columns of 32 in one block and the odd in the
// next; `finish` puts them in order.
#include "kernels/cpu/attention_kernels.h"

#if defined(__x86_64__)
#include <hwy/highway.h>
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#if defined(__clang__)
#pragma clang attribute push(                                                                              \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16,amx-tile,amx-bf16"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16,amx-tile,amx-bf16")
// g++ 12 warns of its own _mm512_undefined_* (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include "kernels/cpu/bf16-inl.h"
#include "kernels/cpu/bf16_tiles-inl.h"

namespace dsv::cpu {
namespace {

constexpr int64_t kTokens = 256;  // cache rows of one softmax
constexpr int64_t kGroup = 32;    // cache rows expanded at a time: the k of a B block
constexpr float kLog2e = 1.44269504f;

// Whether a weight's products with bf16 run here: its unscaled values are exact in bf16.
inline bool bf16_exact(const AttendShape& shape, const CpuWeight& weight) {
  return shape.official && uses_bf16_kernels(Rounding::bf16, weight.dtype);
}

inline const Decoder& shared_decoder() {
  static const Decoder decoder;
  return decoder;
}

// Values [n, n + 64) of a weight's row, zero from `end` on, unscaled, in the order that `weight_columns`
// gives. Rows stream from memory: what lies some rows further on is asked for early.
template <bool kFp8>
inline void load_weight(const Decoder& decoder, const unsigned char* row, int64_t n, int64_t end,
                        __m512i out[2]) {
  constexpr int64_t kAhead = 8192;
  const unsigned char* at = row + (kFp8 ? 1 : 2) * n;
  _mm_prefetch(reinterpret_cast<const char*>(at) + kAhead, _MM_HINT_T1);
  if constexpr (kFp8) {
    const int64_t left = end - n;
    decoder.decode(
        left >= 64 ? _mm512_loadu_si512(at) : _mm512_maskz_loadu_epi8((uint64_t{1} << left) - 1, at), out);
  } else {
    _mm_prefetch(reinterpret_cast<const char*>(at) + kAhead + 64, _MM_HINT_T1);
    out[0] = load_bf16(at, end - n);
    out[1] = end - n > 32 ? load_bf16(at + 64, end - n - 32) : _mm512_setzero_si512();
  }
}
// The first of the eight columns that begin at value 8 `eighth` of half `half`.
inline int64_t weight_columns(bool fp8, int half, int eighth) {
  return fp8 ? 16 * eighth + 8 * half : 32 * half + 8 * eighth;
}

// Rows [first, first + count) of a weight as B blocks [ceil(count / 32)][ceil(cols / 64) * 4].
template <bool kFp8>
void expand_pairs(const CpuWeight& weight, int64_t first, int64_t count, uint16_t* blocks) {
  const Decoder decoder = shared_decoder();
  const int64_t row_blocks = round_up(weight.cols, 64) / 16 * kTile;
  for (int64_t i = 0; i < round_up(count, 32); i += 2) {
    uint16_t* line = blocks + i / 32 * row_blocks + i % 32 * 16;
    const unsigned char* row = weight.row(first + i);
    for (int64_t n = 0; n < weight.cols; n += 64) {
      __m512i a[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()}, b[2] = {a[0], a[0]};
      if (i < count) load_weight<kFp8>(decoder, row, n, weight.cols, a);
      if (i + 1 < count) load_weight<kFp8>(decoder, row + weight.row_bytes(), n, weight.cols, b);
      DSV_UNROLL for (int half = 0; half < 2; ++half, line += 2 * kTile) {
        const Pairs pairs = pair_rows(a[half], b[half]);
        _mm512_store_si512(line, pairs.even);
        _mm512_store_si512(line + kTile, pairs.odd);
      }
    }
  }
}

// Up to 16 rows of a weight as bf16 rows [16][ceil(cols / 64) * 64]; zero rows after.
template <bool kFp8>
void expand_weight_rows(const CpuWeight& weight, int64_t first, int64_t count, uint16_t* out) {
  const Decoder decoder = shared_decoder();
  for (int64_t i = 0; i < 16; ++i) {
    const unsigned char* row = weight.row(first + i);
    for (int64_t n = 0; n < weight.cols; n += 64, out += 64) {
      __m512i values[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
      if (i < count) load_weight<kFp8>(decoder, row, n, weight.cols, values);
      _mm512_store_si512(out, values[0]);
      _mm512_store_si512(out + 32, values[1]);
    }
  }
}

const AttentionKernels& f32_kernels() { return attention_kernels(HWY_AVX3); }

int64_t project_scratch(const AttendShape& shape, int32_t rows) {
  const int64_t width = round_up(shape.rank, 64), padded_rows = round_up(rows, 16);
  const int64_t absorb = 2 * kQuantBlock * (width + padded_rows) + 4 * padded_rows * width;
  const int64_t project =
      2 * width * (16 + padded_rows) + 64 * padded_rows * (round_up(shape.rank, kQuantBlock) / kQuantBlock);
  return std::max({f32_kernels().project_scratch(shape, rows), absorb, project});
}

// By parts of W_k of at most 128 rows, which share the scales of their blocks of columns.
template <bool kAmx>
void absorb(const AttendShape& shape, const CpuWeight& kv_b, int64_t head, int32_t rows, const float* q,
            int64_t q_stride, float* out, int64_t out_stride, unsigned char* scratch) {
  if (!bf16_exact(shape, kv_b)) {
    return f32_kernels().absorb(shape, kv_b, head, rows, q, q_stride, out, out_stride, scratch);
  }
  const Tiles<kAmx> tiles;
  const int64_t width = round_up(shape.rank, 64);
  const bool fp8 = kv_b.dtype == Dtype::f8_e4m3;
  auto* b = reinterpret_cast<uint16_t*>(scratch);
  uint16_t* a = b + kQuantBlock * width;
  float* c = reinterpret_cast<float*>(a + round_up(rows, 16) * kQuantBlock);
  const int64_t first = head * (shape.nope + shape.v);
  for (int64_t k = 0, count; k < shape.nope; k += count) {
    count = std::min(shape.nope - k, kQuantBlock - (first + k) % kQuantBlock);
    const int64_t k_blocks = round_up(count, 32) / 32;
    for (int64_t r = 0; r < round_up(rows, 16); ++r) {
      for (int64_t i = 0; i < 32 * k_blocks; ++i) {
        a[r * kQuantBlock + i] = r < rows && i < count ? to_bf16(q[r * q_stride + k + i]) : uint16_t{0};
      }
    }
    fp8 ? expand_pairs<true>(kv_b, first + k, count, b) : expand_pairs<false>(kv_b, first + k, count, b);
    multiply<kAmx>(
        {rows, width / 16, k_blocks, a, kQuantBlock, b, kTile, width / 16 * kTile, c, width, false});
    for (int64_t n = 0; n < shape.rank; n += 64) {
      const __m512 scale = _mm512_set1_ps(kv_b.scale(first + k, n / kQuantBlock));
      for (int32_t r = 0; r < rows; ++r) {
        float* to = out + r * out_stride;
        for (int half = 0; half < 2; ++half) {
          alignas(64) float part[32];
          const float* in = c + r * width + n + 32 * half;
          store_in_order(_mm512_mul_ps(_mm512_loadu_ps(in), scale),
                         _mm512_mul_ps(_mm512_loadu_ps(in + 16), scale), part);
          for (int eighth = 0; eighth < 4; ++eighth) {
            const int64_t column = n + weight_columns(fp8, half, eighth);
            const auto mask =
                static_cast<__mmask8>((1u << std::clamp<int64_t>(shape.rank - column, 0, 8)) - 1);
            __m256 sum = _mm256_load_ps(part + 8 * eighth);
            if (k > 0) sum = _mm256_add_ps(sum, _mm256_maskz_loadu_ps(mask, to + column));
            _mm256_mask_storeu_ps(to + column, mask, sum);
          }
        }
      }
    }
  }
}

// One input row as bf16, in the order of columns that the weight's expanded rows have.
void round_input(const AttendShape& shape, bool fp8, const float* x, uint16_t* to) {
  for (int64_t n = 0; n < shape.rank; n += 64) {
    for (int half = 0; half < 2; ++half) {
      for (int eighth = 0; eighth < 4; ++eighth, to += 8) {
        const int64_t column = n + weight_columns(fp8, half, eighth);
        const auto mask = static_cast<__mmask8>((1u << std::clamp<int64_t>(shape.rank - column, 0, 8)) - 1);
        const __m256 values = _mm256_maskz_loadu_ps(mask, x + column);
        _mm_store_si128(reinterpret_cast<__m128i*>(to),
                        reinterpret_cast<__m128i>(_mm256_cvtneps_pbh(values)));
      }
    }
  }
}

// 16 weight rows against one input row: lane sums over columns, then over the lanes.
void project(const AttendShape& shape, const CpuWeight& kv_b, int64_t head, int32_t rows, const float* x,
             int64_t x_stride, float* out, int64_t out_stride, unsigned char* scratch) {
  if (!bf16_exact(shape, kv_b)) {
    return f32_kernels().project(shape, kv_b, head, rows, x, x_stride, out, out_stride, scratch);
  }
  const int64_t width = round_up(shape.rank, 64);
  const bool fp8 = kv_b.dtype == Dtype::f8_e4m3;
  auto* tile = reinterpret_cast<uint16_t*>(scratch);
  uint16_t* input = tile + 16 * width;
  for (int32_t r = 0; r < rows; ++r) round_input(shape, fp8, x + r * x_stride, input + r * width);
  const int64_t first = head * (shape.nope + shape.v) + shape.nope;
  for (int64_t n = 0; n < shape.v; n += 16) {
    const int64_t count = std::min<int64_t>(16, shape.v - n);
    fp8 ? expand_weight_rows<true>(kv_b, first + n, count, tile)
        : expand_weight_rows<false>(kv_b, first + n, count, tile);
    for (int32_t r = 0; r < rows; ++r) {
      __m512 total[16];
      for (int half = 0; half < 16; half += 8) {
        __m512 sum[8];
        DSV_UNROLL for (int i = 0; i < 8; ++i) sum[i] = _mm512_setzero_ps();
        for (int64_t k0 = 0; k0 < width; k0 += kQuantBlock) {
          __m512 part[8];
          DSV_UNROLL for (int i = 0; i < 8; ++i) part[i] = _mm512_setzero_ps();
          for (int64_t k = k0; k < std::min<int64_t>(width, k0 + kQuantBlock); k += 32) {
            const auto column = reinterpret_cast<__m512bh>(_mm512_load_si512(input + r * width + k));
            DSV_UNROLL for (int i = 0; i < 8; ++i) {
              part[i] = _mm512_dpbf16_ps(
                  part[i], column,
                  reinterpret_cast<__m512bh>(_mm512_load_si512(tile + (half + i) * width + k)));
            }
          }
          DSV_UNROLL for (int i = 0; i < 8; ++i) {
            const int64_t row = first + n + std::min<int64_t>(half + i, count - 1);
            sum[i] = _mm512_fmadd_ps(part[i], _mm512_set1_ps(kv_b.scale(row, k0 / kQuantBlock)), sum[i]);
          }
        }
        DSV_UNROLL for (int i = 0; i < 8; ++i) total[half + i] = sum[i];
      }
      _mm512_mask_storeu_ps(out + r * out_stride + n, static_cast<__mmask16>((1u << count) - 1),
                            sum_lanes(total));
    }
  }
}

// The same on tiles: A = 16 weight rows, B = 16 input rows in pairs of columns, by blocks of 128 columns.
void project_amx(const AttendShape& shape, const CpuWeight& kv_b, int64_t head, int32_t rows, const float* x,
                 int64_t x_stride, float* out, int64_t out_stride, unsigned char* scratch) {
  if (!bf16_exact(shape, kv_b)) {
    return f32_kernels().project(shape, kv_b, head, rows, x, x_stride, out, out_stride, scratch);
  }
  const Tiles<true> tiles;
  const int64_t width = round_up(shape.rank, 64), padded_rows = round_up(rows, 16), k_tiles = width / 32;
  const int64_t scale_blocks = round_up(shape.rank, kQuantBlock) / kQuantBlock;
  const bool fp8 = kv_b.dtype == Dtype::f8_e4m3;
  auto* tile = reinterpret_cast<uint16_t*>(scratch);  // [16][width]
  uint16_t* input = tile + 16 * width;                // [padded rows / 16][width / 32] blocks
  float* parts = reinterpret_cast<float*>(input + padded_rows * width);  // [scale blocks][16][padded rows]
  for (int64_t r0 = 0; r0 < rows; r0 += 16) {
    for (int64_t i = 0; i < 16; ++i) {  // rows first go where the weights will be
      if (r0 + i < rows) {
        round_input(shape, fp8, x + (r0 + i) * x_stride, tile + i * width);
      } else {
        std::fill_n(tile + i * width, width, uint16_t{0});
      }
    }
    for (int64_t k = 0; k < k_tiles; ++k) {
      __m512i lines[16];
      DSV_UNROLL for (int i = 0; i < 16; ++i) lines[i] = _mm512_load_si512(tile + i * width + 32 * k);
      transpose(lines);
      uint16_t* to = input + (r0 / 16 * k_tiles + k) * kTile;
      DSV_UNROLL for (int i = 0; i < 16; ++i) _mm512_store_si512(to + 32 * i, lines[i]);
    }
  }
  const int64_t first = head * (shape.nope + shape.v) + shape.nope;
  for (int64_t n = 0; n < shape.v; n += 16) {
    const int64_t count = std::min<int64_t>(16, shape.v - n);
    fp8 ? expand_weight_rows<true>(kv_b, first + n, count, tile)
        : expand_weight_rows<false>(kv_b, first + n, count, tile);
    for (int64_t block = 0; block < scale_blocks; ++block) {
      const int64_t k = 4 * block;
      multiply<true>({16, padded_rows / 16, std::min<int64_t>(4, k_tiles - k), tile + 32 * k, width,
                      input + k * kTile, k_tiles * kTile, kTile, parts + block * 16 * padded_rows,
                      padded_rows, false});
    }
    for (int64_t r0 = 0; r0 < rows; r0 += 16) {
      __m512i lines[16];
      DSV_UNROLL for (int i = 0; i < 16; ++i) {
        const int64_t row = first + n + std::min<int64_t>(i, count - 1);
        __m512 sum = _mm512_setzero_ps();
        for (int64_t block = 0; block < scale_blocks; ++block) {
          sum = _mm512_fmadd_ps(_mm512_loadu_ps(parts + (block * 16 + i) * padded_rows + r0),
                                _mm512_set1_ps(kv_b.scale(row, block)), sum);
        }
        lines[i] = _mm512_castps_si512(sum);
      }
      transpose(lines);
      for (int64_t i = 0; i < std::min<int64_t>(16, rows - r0); ++i) {
        _mm512_mask_storeu_ps(out + (r0 + i) * out_stride + n, static_cast<__mmask16>((1u << count) - 1),
                              _mm512_castsi512_ps(lines[i]));
      }
    }
  }
}

// Packed: [padded heads / 16][padded latent / 32] blocks.
void pack_query(const AttendShape& shape, const float* q_abs, const float* q, void* packed) {
  if (!shape.official) return f32_kernels().pack_query(shape, q_abs, q, packed);
  const int64_t latent = shape.padded_latent();
  auto* out = static_cast<uint16_t*>(packed);
  for (int64_t h = 0; h < shape.padded_heads(); h += 16) {
    for (int64_t k = 0; k < latent; k += 32, out += kTile) {
      const bool rope = k >= shape.padded_rank();
      const int64_t at = rope ? k - shape.padded_rank() : k;
      const int64_t n = std::min<int64_t>(32, (rope ? shape.rope : shape.rank) - at);
      const auto low = static_cast<__mmask16>(n >= 16 ? 0xFFFF : (1u << n) - 1);
      const auto high = static_cast<__mmask16>(n <= 16 ? 0 : (uint64_t{1} << (n - 16)) - 1);
      __m512i lines[16];
      for (int64_t i = 0; i < 16; ++i) {
        if (h + i >= shape.heads) {
          lines[i] = _mm512_setzero_si512();
          continue;
        }
        const float* in = rope ? q + (h + i) * (shape.nope + shape.rope) + shape.nope + at
                               : q_abs + (h + i) * shape.rank + at;
        lines[i] = reinterpret_cast<__m512i>(
            _mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(high, in + 16), _mm512_maskz_loadu_ps(low, in)));
      }
      transpose(lines);
      for (int64_t i = 0; i < 16; ++i) _mm512_store_si512(out + 32 * i, lines[i]);
    }
  }
}

// Scratch of `attend`.
struct AttendTile {
  uint16_t* pairs;    // [kTokens / 32][padded rank / 16] blocks
  float* scores;      // [kTokens][padded heads]
  uint16_t* weights;  // [padded heads][kTokens]
  uint16_t* rows;     // [kGroup][padded latent]

  AttendTile(const AttendShape& shape, unsigned char* scratch) {
    pairs = reinterpret_cast<uint16_t*>(scratch);
    scores = reinterpret_cast<float*>(pairs + kTokens * shape.padded_rank());
    weights = reinterpret_cast<uint16_t*>(scores + kTokens * shape.padded_heads());
    rows = weights + kTokens * shape.padded_heads();
  }
};

int64_t attend_scratch(const AttendShape& shape) {
  if (!shape.official) return f32_kernels().attend_scratch(shape);
  return kTokens * (2 * shape.padded_rank() + 6 * shape.padded_heads()) + 2 * kGroup * shape.padded_latent();
}

// 32 latent values from column i of a cache row as bf16. A scale that is no normal number makes NaN.
inline __m512i load_latent(const AttendShape& shape, const unsigned char* row, int64_t i) {
  uint32_t bits;
  std::memcpy(&bits, row + shape.rank + 4 * (i / kQuantBlock), sizeof bits);
  const int32_t exponent = static_cast<int32_t>(bits >> 23);
  if (exponent == 0 || exponent >= 255) return _mm512_set1_epi16(0x7FC0);
  return decode(load_codes(row + i, shape.rank - i),
                _mm512_set1_epi16(static_cast<int16_t>((exponent - 127) * 128)));
}

// Expands n <= 32 cache rows; the rows after them are zero.
void expand_rows(const AttendShape& shape, const LatentRows& rows, int64_t begin, int64_t n, int64_t last,
                 uint16_t* out, uint16_t* pairs) {
  const int64_t width = shape.padded_rank(), latent = shape.padded_latent();
  const int64_t rope_at = shape.rank + 4 * (round_up(shape.rank, kQuantBlock) / kQuantBlock);
  constexpr int64_t kAhead = 4;  // rows in flight: hides the latency of memory behind the expansion
  for (int64_t t = 0; t < kGroup; t += 2) {
    for (int64_t ahead = begin + t + kAhead; ahead < std::min(last, begin + t + kAhead + 2); ++ahead) {
      const auto* row = reinterpret_cast<const char*>(rows.row(ahead));
      for (int64_t i = 0; i < rows.row_bytes; i += 64) _mm_prefetch(row + i, _MM_HINT_T0);
    }
    const unsigned char* a = t < n ? rows.row(begin + t) : nullptr;
    const unsigned char* b = t + 1 < n ? rows.row(begin + t + 1) : nullptr;
    uint16_t* line = pairs + 16 * t;
    for (int64_t i = 0; i < width; i += 32) {
      const __m512i x = a != nullptr ? load_latent(shape, a, i) : _mm512_setzero_si512();
      const __m512i y = b != nullptr ? load_latent(shape, b, i) : _mm512_setzero_si512();
      _mm512_store_si512(out + t * latent + i, x);
      _mm512_store_si512(out + (t + 1) * latent + i, y);
      const Pairs both = pair_rows(x, y);
      _mm512_store_si512(line + i / 16 * kTile, both.even);
      _mm512_store_si512(line + (i / 16 + 1) * kTile, both.odd);
    }
    for (int64_t i = width; i < latent; i += 32) {
      const int64_t at = i - width;
      const __m512i zero = _mm512_setzero_si512();
      _mm512_store_si512(out + t * latent + i,
                         a != nullptr ? load_bf16(a + rope_at + 2 * at, shape.rope - at) : zero);
      _mm512_store_si512(out + (t + 1) * latent + i,
                         b != nullptr ? load_bf16(b + rope_at + 2 * at, shape.rope - at) : zero);
    }
  }
}

// Turns n scores a head into bf16 weights, by head; zero up to the next multiple of 32. The state's max and
// sum take them in, its out is rescaled to the new max.
void softmax(const AttendShape& shape, const AttendTile& tile, int64_t n, bool first, AttendState state) {
  const int64_t heads = shape.padded_heads(), width = shape.padded_rank();
  const __m512 scale = _mm512_set1_ps(shape.scale * kLog2e);
  for (int64_t h = 0; h < heads; h += 16) {
    const float* scores = tile.scores + h;
    __m512 before =
        first ? _mm512_set1_ps(-std::numeric_limits<float>::infinity()) : _mm512_loadu_ps(state.max + h);
    __m512 top = before;
    for (int64_t t = 0; t < n; ++t) {
      top = _mm512_max_ps(top, _mm512_mul_ps(_mm512_loadu_ps(scores + t * heads), scale));
    }
    __m512 sum = _mm512_setzero_ps();
    if (!first) {
      const __m512 shrink = exp2(_mm512_sub_ps(before, top));
      sum = _mm512_mul_ps(_mm512_loadu_ps(state.sum + h), shrink);
      alignas(64) float factor[16];
      _mm512_store_ps(factor, shrink);
      for (int64_t i = 0; i < 16; ++i) {
        float* row = state.out + (h + i) * width;
        const __m512 f = _mm512_set1_ps(factor[i]);
        for (int64_t j = 0; j < width; j += 16) {
          _mm512_storeu_ps(row + j, _mm512_mul_ps(_mm512_loadu_ps(row + j), f));
        }
      }
    }
    for (int64_t group = 0; group < n; group += kGroup) {
      __m512i lines[16];
      DSV_UNROLL for (int64_t i = 0; i < 16; ++i) {
        __m512i halves[2];
        DSV_UNROLL for (int64_t j = 0; j < 2; ++j) {
          const int64_t t = group + 2 * i + j;
          __m512 p = _mm512_setzero_ps();
          if (t < n) {
            p = exp2(_mm512_sub_ps(_mm512_mul_ps(_mm512_loadu_ps(scores + t * heads), scale), top));
          }
          sum = _mm512_add_ps(sum, p);
          halves[j] = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(p)));
        }
        lines[i] = _mm512_or_si512(halves[0], _mm512_slli_epi32(halves[1], 16));
      }
      transpose(lines);
      for (int64_t i = 0; i < 16; ++i) {
        _mm512_store_si512(tile.weights + (h + i) * kTokens + group, lines[i]);
      }
    }
    _mm512_storeu_ps(state.max + h, top);
    _mm512_storeu_ps(state.sum + h, sum);
  }
}

template <bool kAmx>
void attend(const AttendShape& shape, const void* packed, const LatentRows& rows, int64_t begin, int64_t end,
            AttendState state, unsigned char* scratch) {
  if (!shape.official) return f32_kernels().attend(shape, packed, rows, begin, end, state, scratch);
  const Tiles<kAmx> tiles;
  const AttendTile tile(shape, scratch);
  const int64_t heads = shape.padded_heads(), width = shape.padded_rank(), latent = shape.padded_latent();
  const int64_t row_blocks = width / 16 * kTile;
  for (int64_t i = begin; i < end; i += kTokens) {
    const int64_t n = std::min(kTokens, end - i);
    for (int64_t group = 0; group < n; group += kGroup) {
      const int64_t count = std::min(kGroup, n - group);
      expand_rows(shape, rows, i + group, count, end, tile.rows, tile.pairs + group / kGroup * row_blocks);
      multiply<kAmx>({count, heads / 16, latent / 32, tile.rows, latent, static_cast<const uint16_t*>(packed),
                      latent / 32 * kTile, kTile, tile.scores + group * heads, heads, false});
    }
    softmax(shape, tile, n, i == begin, state);
    multiply<kAmx>({shape.heads, width / 16, round_up(n, kGroup) / kGroup, tile.weights, kTokens, tile.pairs,
                    kTile, row_blocks, state.out, width, i > begin});
  }
}

void finish(const AttendShape& shape, int64_t h0, int64_t h1, AttendState state, float* out) {
  if (!shape.official) return f32_kernels().finish(shape, h0, h1, state, out);
  for (int64_t h = h0; h < h1; ++h) {
    const float* in = state.out + h * shape.padded_rank();
    const __m512 sum = _mm512_set1_ps(state.sum[h]);
    for (int64_t i = 0; i < shape.rank; i += 32) {
      alignas(64) float values[32];
      store_in_order(_mm512_div_ps(_mm512_loadu_ps(in + i), sum),
                     _mm512_div_ps(_mm512_loadu_ps(in + i + 16), sum), values);
      std::copy_n(values, std::min<int64_t>(32, shape.rank - i), out + h * shape.rank + i);
    }
  }
}

// Packed: [padded heads / 16][padded dim / 32] blocks, weights.
void pack_index_query(const IndexShape& shape, const void* values, const float* weights, void* packed) {
  if (!shape.official) return f32_kernels().pack_index_query(shape, values, weights, packed);
  auto* out = static_cast<uint16_t*>(packed);
  const auto* in = static_cast<const uint8_t*>(values);
  for (int64_t h = 0; h < shape.padded_heads(); h += 16) {
    for (int64_t k = 0; k < shape.padded_dim(); k += 32, out += kTile) {
      __m512i lines[16];
      for (int64_t i = 0; i < 16; ++i) {
        lines[i] = h + i < shape.heads ? load_bf16(in + 2 * ((h + i) * shape.dim + k), shape.dim - k)
                                       : _mm512_setzero_si512();
      }
      transpose(lines);
      for (int64_t i = 0; i < 16; ++i) _mm512_store_si512(out + 32 * i, lines[i]);
    }
  }
  float* w = shape.packed_weights(packed);
  std::fill_n(std::copy_n(weights, shape.heads, w), shape.padded_heads() - shape.heads, 0.0f);
}

int64_t index_scratch(const IndexShape& shape) {
  if (!shape.official) return f32_kernels().index_scratch(shape);
  return kPageTokens * (2 * shape.padded_dim() + 4 * shape.padded_heads());
}

template <bool kAmx>
void index_scores(const IndexShape& shape, const void* const* packed, int32_t queries,
                  const unsigned char* pool, int64_t page_bytes, const int32_t* pages, int32_t count,
                  float* const* scores, unsigned char* scratch) {
  if (!shape.official)
    return f32_kernels().index_scores(shape, packed, queries, pool, page_bytes, pages, count, scores,
                                      scratch);
  const Tiles<kAmx> tiles;
  const int64_t heads = shape.padded_heads(), dim = shape.padded_dim();
  auto* keys = reinterpret_cast<uint16_t*>(scratch);
  float* products = reinterpret_cast<float*>(keys + kPageTokens * dim);
  for (int32_t j = 0; j < count; ++j) {
    const unsigned char* page = pool + pages[j] * page_bytes;
    for (int64_t t = 0; t < kPageTokens; ++t) {
      for (int64_t i = 0; i < dim; i += 32) {
        const __m256i codes = load_codes(page + t * shape.dim + i, shape.dim - i);
        _mm512_store_si512(keys + t * dim + i, decode(codes, _mm512_setzero_si512()));
      }
    }
    for (int32_t q = 0; q < queries; ++q) {
      multiply<kAmx>({kPageTokens, heads / 16, dim / 32, keys, dim, static_cast<const uint16_t*>(packed[q]),
                      dim / 32 * kTile, kTile, products, heads, false});
      const float* weights = shape.packed_weights(packed[q]);
      for (int64_t t = 0; t < kPageTokens; t += 16) {
        __m512 sum[16];
        DSV_UNROLL for (int64_t i = 0; i < 16; ++i) {
          sum[i] = _mm512_setzero_ps();
          for (int64_t h = 0; h < heads; h += 16) {
            const __m512 product = _mm512_loadu_ps(products + (t + i) * heads + h);
            sum[i] = _mm512_fmadd_ps(_mm512_max_ps(product, _mm512_setzero_ps()),
                                     _mm512_loadu_ps(weights + h), sum[i]);
          }
        }
        const __m512 scale = _mm512_loadu_ps(page + kPageTokens * shape.dim + 4 * t);
        _mm512_storeu_ps(scores[q] + j * kPageTokens + t,
                         _mm512_add_ps(_mm512_mul_ps(sum_lanes(sum), scale), _mm512_setzero_ps()));
      }
    }
  }
}

// `exact` goes on to the f32 kernels.
template <bool kAmx>
const AttentionKernels& table() {
  static const AttentionKernels kernels = [] {
    AttentionKernels t = f32_kernels();
    t.absorb = absorb<kAmx>;
    t.project = kAmx ? project_amx : project;
    t.project_scratch = project_scratch;
    t.pack_query = pack_query;
    t.attend = attend<kAmx>;
    t.attend_scratch = attend_scratch;
    t.finish = finish;
    t.pack_index_query = pack_index_query;
    t.index_scores = index_scores<kAmx>;
    t.index_scratch = index_scratch;
    return t;
  }();
  return kernels;
}

}  // namespace

const AttentionKernels& attention_kernels_bf16(bool amx) { return amx ? table<true>() : table<false>(); }

}  // namespace dsv::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
