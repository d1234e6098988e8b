// Attention kernels in f32 for every Highway target. Both precisions end in the same products: cache rows and
// weights are expanded to f32 tiles that stay in the cache (official values are exact in f32), then
// multiplied with fused multiply-adds. The products dominate: 2 * heads * (2 rank + rope) flops a selected
// row, against one expansion of the row for all heads.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/topk.h"

// As in vector.cpp: the baseline is SSE4, and nothing needs libhwy.
#if defined(__x86_64__)
#define HWY_BASELINE_TARGETS HWY_SSE4
#endif
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#define HWY_IS_DEBUG_BUILD 0
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_simd.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace dsv::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::CappedTag<float, 16>;
using Vec = hn::Vec<Floats>;
using Words = hn::RebindToUnsigned<Floats>;
constexpr int64_t kTokens = kPageTokens;  // cache rows expanded at a time
constexpr int64_t kWeightRows = 16;       // kv_b rows expanded at a time
constexpr float kLog2e = 1.44269504f;

HWY_INLINE int64_t lanes() { return static_cast<int64_t>(hn::Lanes(Floats())); }

// C[m, n] (+)= A[m, k] B[k, n]; A has any strides, n is a multiple of 16. The sum runs over k ascending, on
// top of C if `accumulate`.
struct Product {
  int64_t m, n, k;
  const float* a;
  int64_t a_row, a_k;
  const float* b;
  int64_t b_row;
  float* c;
  int64_t c_row;
  bool accumulate;
};

template <int kRows, int kVecs>
HWY_INLINE void multiply_block(const Product& p, int64_t i, int64_t j) {
  const Floats d;
  const int64_t w = lanes();
  Vec sum[kRows][kVecs];
  float* c = p.c + i * p.c_row + j;
  DSV_UNROLL for (int r = 0; r < kRows; ++r) {
    DSV_UNROLL for (int v = 0; v < kVecs; ++v) {
      sum[r][v] = p.accumulate ? hn::LoadU(d, c + r * p.c_row + v * w) : hn::Zero(d);
    }
  }
  const float* a = p.a + i * p.a_row;
  const float* b = p.b + j;
  for (int64_t k = 0; k < p.k; ++k, a += p.a_k, b += p.b_row) {
    Vec column[kVecs];
    DSV_UNROLL for (int v = 0; v < kVecs; ++v) column[v] = hn::LoadU(d, b + v * w);
    DSV_UNROLL for (int r = 0; r < kRows; ++r) {
      const Vec factor = hn::Set(d, a[r * p.a_row]);
      DSV_UNROLL for (int v = 0; v < kVecs; ++v) sum[r][v] = hn::MulAdd(factor, column[v], sum[r][v]);
    }
  }
  DSV_UNROLL for (int r = 0; r < kRows; ++r) {
    DSV_UNROLL for (int v = 0; v < kVecs; ++v) hn::StoreU(sum[r][v], d, c + r * p.c_row + v * w);
  }
}

template <int kVecs>
HWY_INLINE void multiply_columns(const Product& p, int64_t j) {
  int64_t i = 0;
  for (; i + 4 <= p.m; i += 4) multiply_block<4, kVecs>(p, i, j);
  for (; i < p.m; ++i) multiply_block<1, kVecs>(p, i, j);
}

HWY_NOINLINE void multiply(const Product& p) {
  const int64_t w = lanes();
  int64_t j = 0;
  for (; j + 2 * w <= p.n; j += 2 * w) multiply_columns<2>(p, j);
  for (; j < p.n; j += w) multiply_columns<1>(p, j);
}

// 2^x for x <= 0; 0 below 2^-126. Cephes' exp2f polynomial on [-0.5, 0.5], error below 2 ulp.
HWY_INLINE Vec exp2(Vec x) {
  const Floats d;
  const hn::RebindToSigned<Floats> di;
  const auto underflow = hn::Lt(x, hn::Set(d, -126.0f));
  x = hn::Max(x, hn::Set(d, -126.0f));
  const Vec whole = hn::Round(x);
  const Vec r = hn::Sub(x, whole);
  Vec p = hn::Set(d, 1.535336188319500e-4f);
  p = hn::MulAdd(p, r, hn::Set(d, 1.339887440266574e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 9.618437357674640e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.550332471162809e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 2.402264791363012e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 6.931472028550421e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  const auto power = hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, whole), hn::Set(di, 127)));
  return hn::IfThenZeroElse(underflow, hn::Mul(p, hn::BitCast(d, power)));
}

// e4m3 codes to f32, exactly; codes 0x7f and 0xff (NaN) stay NaN. Integer arithmetic, because a host may run
// with denormals flushed.
HWY_INLINE Vec decode(const uint8_t* in) {
  const Floats d;
  const Words du;
  const auto code = hn::PromoteTo(du, hn::LoadU(hn::Rebind<uint8_t, Floats>(), in));
  const auto magnitude = hn::And(code, hn::Set(du, 0x7F));
  const auto sign = hn::ShiftLeft<24>(hn::Xor(code, magnitude));
  const auto normal = hn::Add(hn::ShiftLeft<20>(magnitude), hn::Set(du, 120u << 23));
  const Vec small =
      hn::Mul(hn::ConvertTo(d, hn::BitCast(hn::RebindToSigned<Floats>(), magnitude)), hn::Set(d, 0x1p-9f));
  auto bits = hn::IfThenElse(hn::Lt(magnitude, hn::Set(du, 8)), hn::BitCast(du, small), normal);
  bits = hn::IfThenElse(hn::Eq(magnitude, hn::Set(du, 0x7F)), hn::Set(du, 0x7FC00000u), bits);
  return hn::BitCast(d, hn::Or(bits, sign));
}

void expand_e4m3(const uint8_t* in, float scale, int64_t n, float* out) {
  const Floats d;
  const int64_t w = lanes();
  const Vec factor = hn::Set(d, scale);
  int64_t i = 0;
  for (; i + w <= n; i += w) hn::StoreU(hn::Mul(decode(in + i), factor), d, out + i);
  if (i < n) {
    uint8_t codes[16] = {};
    float values[16];
    std::memcpy(codes, in + i, static_cast<size_t>(n - i));
    hn::StoreU(hn::Mul(decode(codes), factor), d, values);
    std::memcpy(out + i, values, static_cast<size_t>(n - i) * sizeof(float));
  }
}

void expand_bf16(const uint8_t* in, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) {
    uint16_t half;
    std::memcpy(&half, in + 2 * i, sizeof half);
    const uint32_t bits = uint32_t{half} << 16;
    std::memcpy(out + i, &bits, sizeof bits);
  }
}

void expand_f16(const uint8_t* in, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) {
    uint16_t half;
    std::memcpy(&half, in + 2 * i, sizeof half);
    const int exponent = half >> 10 & 31, mantissa = half & 1023;
    float value = exponent == 0    ? static_cast<float>(mantissa) * 0x1p-24f
                  : exponent == 31 ? (mantissa == 0 ? std::numeric_limits<float>::infinity()
                                                    : std::numeric_limits<float>::quiet_NaN())
                                   : std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
    out[i] = half >> 15 != 0 ? -value : value;
  }
}

// Row `row` of a weight as f32.
void expand_weight(const CpuWeight& weight, int64_t row, float* out) {
  const uint8_t* in = weight.row(row);
  const int64_t n = weight.cols;
  switch (weight.dtype) {
    case Dtype::f8_e4m3:
      for (int64_t i = 0; i < n; i += kQuantBlock) {
        expand_e4m3(in + i, weight.scale(row, i / kQuantBlock), std::min<int64_t>(kQuantBlock, n - i),
                    out + i);
      }
      break;
    case Dtype::bf16:
      expand_bf16(in, n, out);
      break;
    case Dtype::f16:
      expand_f16(in, n, out);
      break;
    case Dtype::f32:
      std::memcpy(out, in, static_cast<size_t>(n) * sizeof(float));
      break;
  }
}

int64_t project_scratch(const AttendShape& shape, int32_t rows) {
  return 4 * (kWeightRows + round_up(rows, 16)) * shape.padded_rank();
}

void absorb(const AttendShape& shape, const CpuWeight& kv_b, int64_t head, int32_t rows, const float* q,
            int64_t q_stride, float* out, int64_t out_stride, unsigned char* scratch) {
  const int64_t width = shape.padded_rank();
  float* tile = reinterpret_cast<float*>(scratch);
  float* sum = tile + kWeightRows * width;
  std::fill(tile, sum, 0.0f);
  for (int64_t k = 0; k < shape.nope; k += kWeightRows) {
    const int64_t count = std::min(kWeightRows, shape.nope - k);
    for (int64_t i = 0; i < count; ++i) {
      expand_weight(kv_b, head * (shape.nope + shape.v) + k + i, tile + i * width);
    }
    multiply({rows, width, count, q + k, q_stride, 1, tile, width, sum, width, k > 0});
  }
  for (int32_t r = 0; r < rows; ++r) std::copy_n(sum + r * width, shape.rank, out + r * out_stride);
}

// Four weight rows against one input row: lane sums over columns, then over the lanes.
void project(const AttendShape& shape, const CpuWeight& kv_b, int64_t head, int32_t rows, const float* x,
             int64_t x_stride, float* out, int64_t out_stride, unsigned char* scratch) {
  const Floats d;
  const int64_t width = shape.padded_rank(), w = lanes();
  float* tile = reinterpret_cast<float*>(scratch);
  float* input = tile + kWeightRows * width;
  std::fill(tile, input, 0.0f);
  for (int32_t r = 0; r < rows; ++r) {
    std::copy_n(x + r * x_stride, shape.rank, input + r * width);
    std::fill(input + r * width + shape.rank, input + (r + 1) * width, 0.0f);
  }
  for (int64_t n = 0; n < shape.v; n += kWeightRows) {
    const int64_t count = std::min(kWeightRows, shape.v - n);
    for (int64_t i = 0; i < count; ++i) {
      expand_weight(kv_b, head * (shape.nope + shape.v) + shape.nope + n + i, tile + i * width);
    }
    for (int32_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < count; i += 4) {
        Vec sum[4] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
        for (int64_t k = 0; k < width; k += w) {
          const Vec column = hn::LoadU(d, input + r * width + k);
          DSV_UNROLL for (int j = 0; j < 4; ++j) {
            sum[j] = hn::MulAdd(hn::LoadU(d, tile + (i + j) * width + k), column, sum[j]);
          }
        }
        for (int j = 0; j < 4 && i + j < count; ++j) {
          out[r * out_stride + n + i + j] = hn::GetLane(hn::SumOfLanes(d, sum[j]));
        }
      }
    }
  }
}

// Packed for f32: [padded latent][padded heads].
void pack_query(const AttendShape& shape, const float* q_abs, const float* q, void* packed) {
  const int64_t heads = shape.padded_heads();
  float* out = static_cast<float*>(packed);
  std::fill_n(out, shape.padded_latent() * heads, 0.0f);
  for (int64_t h = 0; h < shape.heads; ++h) {
    for (int64_t i = 0; i < shape.rank; ++i) out[i * heads + h] = q_abs[h * shape.rank + i];
    const float* rope = q + h * (shape.nope + shape.rope) + shape.nope;
    for (int64_t i = 0; i < shape.rope; ++i) out[(shape.padded_rank() + i) * heads + h] = rope[i];
  }
}

void expand_latent(const AttendShape& shape, const unsigned char* row, float* out) {
  float* rope = out + shape.padded_rank();
  if (shape.official) {
    const unsigned char* scales = row + shape.rank;
    int64_t groups = 0;
    for (int64_t i = 0; i < shape.rank; i += kQuantBlock, ++groups) {
      float scale;
      std::memcpy(&scale, scales + 4 * groups, sizeof scale);
      expand_e4m3(row + i, scale, std::min<int64_t>(kQuantBlock, shape.rank - i), out + i);
    }
    expand_bf16(scales + 4 * groups, shape.rope, rope);
  } else {
    std::memcpy(out, row, static_cast<size_t>(shape.rank) * sizeof(float));
    std::memcpy(rope, row + 4 * shape.rank, static_cast<size_t>(shape.rope) * sizeof(float));
  }
}

int64_t attend_scratch(const AttendShape& shape) {
  return 4 * kTokens * (shape.padded_latent() + shape.padded_heads());
}

// Turns scores [n][padded heads] into weights and folds them into the state's max and sum; the state's out is
// rescaled to the new max. The padding of the heads goes along: its scores are zero.
void softmax(const AttendShape& shape, float* scores, int64_t n, bool first, AttendState state) {
  const Floats d;
  const int64_t heads = shape.padded_heads(), width = shape.padded_rank(), w = lanes();
  const Vec scale = hn::Set(d, shape.scale * kLog2e);
  for (int64_t h = 0; h < heads; h += w) {
    Vec top = first ? hn::Set(d, -std::numeric_limits<float>::infinity()) : hn::LoadU(d, state.max + h);
    const Vec before = top;
    for (int64_t t = 0; t < n; ++t) {
      const Vec s = hn::Mul(hn::LoadU(d, scores + t * heads + h), scale);
      hn::StoreU(s, d, scores + t * heads + h);
      top = hn::Max(top, s);
    }
    Vec sum = hn::Zero(d);
    if (!first) {
      float factor[16];
      const Vec shrink = exp2(hn::Sub(before, top));
      hn::StoreU(shrink, d, factor);
      sum = hn::Mul(hn::LoadU(d, state.sum + h), shrink);
      for (int64_t i = 0; i < std::min(w, shape.heads - h); ++i) {
        float* row = state.out + (h + i) * width;
        const Vec f = hn::Set(d, factor[i]);
        for (int64_t j = 0; j < width; j += w) hn::StoreU(hn::Mul(hn::LoadU(d, row + j), f), d, row + j);
      }
    }
    for (int64_t t = 0; t < n; ++t) {
      const Vec p = exp2(hn::Sub(hn::LoadU(d, scores + t * heads + h), top));
      hn::StoreU(p, d, scores + t * heads + h);
      sum = hn::Add(sum, p);
    }
    hn::StoreU(top, d, state.max + h);
    hn::StoreU(sum, d, state.sum + h);
  }
}

void attend(const AttendShape& shape, const void* packed, const LatentRows& rows, int64_t begin, int64_t end,
            AttendState state, unsigned char* scratch) {
  const int64_t heads = shape.padded_heads(), width = shape.padded_rank(), latent = shape.padded_latent();
  float* tile = reinterpret_cast<float*>(scratch);
  float* scores = tile + kTokens * latent;
  std::fill_n(tile, kTokens * latent, 0.0f);
  for (int64_t i = begin; i < end; i += kTokens) {
    const int64_t n = std::min(kTokens, end - i);
    for (int64_t t = 0; t < n; ++t) expand_latent(shape, rows.row(i + t), tile + t * latent);
    multiply(
        {n, heads, latent, tile, latent, 1, static_cast<const float*>(packed), heads, scores, heads, false});
    softmax(shape, scores, n, i == begin, state);
    multiply({shape.heads, width, n, scores, 1, heads, tile, latent, state.out, width, i > begin});
  }
}

void merge(const AttendShape& shape, int64_t h0, int64_t h1, AttendState into, AttendState from) {
  const Floats d;
  const int64_t width = shape.padded_rank(), w = lanes();
  for (int64_t h = h0; h < h1; ++h) {
    const float top = std::max(into.max[h], from.max[h]);
    const Vec a = exp2(hn::Set(d, into.max[h] - top)), b = exp2(hn::Set(d, from.max[h] - top));
    float* out = into.out + h * width;
    for (int64_t i = 0; i < width; i += w) {
      const Vec sum = hn::Mul(hn::LoadU(d, out + i), a);
      hn::StoreU(hn::MulAdd(hn::LoadU(d, from.out + h * width + i), b, sum), d, out + i);
    }
    into.max[h] = top;
    into.sum[h] = into.sum[h] * hn::GetLane(a) + from.sum[h] * hn::GetLane(b);
  }
}

void finish(const AttendShape& shape, int64_t h0, int64_t h1, AttendState state, float* out) {
  for (int64_t h = h0; h < h1; ++h) {
    const float* in = state.out + h * shape.padded_rank();
    for (int64_t i = 0; i < shape.rank; ++i) out[h * shape.rank + i] = in[i] / state.sum[h];
  }
}

// Packed for f32: [padded dim][padded heads], weights.
void pack_index_query(const IndexShape& shape, const void* values, const float* weights, void* packed) {
  const int64_t heads = shape.padded_heads();
  float* out = static_cast<float*>(packed);
  std::fill_n(out, (shape.padded_dim() + 1) * heads, 0.0f);
  float row[16];
  for (int64_t h = 0; h < shape.heads; ++h) {
    for (int64_t i = 0; i < shape.dim; i += 16) {
      const int64_t n = std::min<int64_t>(16, shape.dim - i);
      const int64_t at = h * shape.dim + i;
      if (shape.official) {
        expand_bf16(static_cast<const uint8_t*>(values) + 2 * at, n, row);
      } else {
        std::memcpy(row, static_cast<const float*>(values) + at, static_cast<size_t>(n) * sizeof(float));
      }
      for (int64_t j = 0; j < n; ++j) out[(i + j) * heads + h] = row[j];
    }
  }
  std::copy_n(weights, shape.heads, shape.packed_weights(packed));
}

int64_t index_scratch(const IndexShape& shape) {
  return 4 * kPageTokens * (shape.padded_dim() + shape.padded_heads());
}

void index_scores(const IndexShape& shape, const void* const* packed, int32_t queries,
                  const unsigned char* pool, int64_t page_bytes, const int32_t* pages, int32_t count,
                  float* const* scores, unsigned char* scratch) {
  const Floats d;
  const int64_t heads = shape.padded_heads(), w = lanes();
  float* keys = reinterpret_cast<float*>(scratch);
  float* products = keys + kPageTokens * shape.padded_dim();
  for (int32_t j = 0; j < count; ++j) {
    const unsigned char* page = pool + pages[j] * page_bytes;
    const float* tile = keys;
    float key_scale[kPageTokens];
    if (shape.official) {
      expand_e4m3(page, 1.0f, kPageTokens * shape.dim, keys);
      std::memcpy(key_scale, page + kPageTokens * shape.dim, sizeof key_scale);
    } else {
      tile = reinterpret_cast<const float*>(page);
      std::fill_n(key_scale, kPageTokens, 1.0f);
    }
    for (int32_t q = 0; q < queries; ++q) {
      multiply({kPageTokens, heads, shape.dim, tile, shape.dim, 1, static_cast<const float*>(packed[q]),
                heads, products, heads, false});
      const float* weights = shape.packed_weights(packed[q]);
      for (int64_t t = 0; t < kPageTokens; ++t) {
        Vec sum = hn::Zero(d);
        for (int64_t h = 0; h < heads; h += w) {
          const Vec positive = hn::Max(hn::LoadU(d, products + t * heads + h), hn::Zero(d));
          sum = hn::MulAdd(positive, hn::LoadU(d, weights + h), sum);
        }
        scores[q][j * kPageTokens + t] = hn::GetLane(hn::SumOfLanes(d, sum)) * key_scale[t] + 0.0f;
      }
    }
  }
}

int32_t select_above(const float* scores, int32_t n, uint32_t threshold, int32_t ties, int32_t* out) {
  int32_t count = 0;
  for (int32_t i = 0; i < n; ++i) {
    const uint32_t key = order_key(scores[i]);
    const bool tie = key == threshold && ties > 0;
    ties -= tie ? 1 : 0;
    if (key > threshold || tie) out[count++] = i;
  }
  return count;
}

const AttentionKernels* table() {
  static const AttentionKernels kernels{absorb,           project,        project_scratch, pack_query,
                                        attend,           attend_scratch, merge,           finish,
                                        pack_index_query, index_scores,   index_scratch,   select_above};
  return &kernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace dsv::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace dsv::cpu {

const AttentionKernels& attention_kernels(int64_t hwy_target) {
  using Table = const AttentionKernels* (*)();
  constexpr struct {
    int64_t target;
    Table table;
  } kTables[] = {{HWY_AVX3, HWY_CHOOSE_AVX3(table)},
                 {HWY_AVX2, HWY_CHOOSE_AVX2(table)},
                 {HWY_SSE4, HWY_CHOOSE_SSE4(table)},
                 {HWY_NEON, HWY_CHOOSE_NEON(table)}};
  for (const auto& entry : kTables) {
    if (entry.target == hwy_target && entry.table != nullptr) return *entry.table();
  }
  return *HWY_STATIC_DISPATCH(table)();
}

}  // namespace dsv::cpu
#endif
