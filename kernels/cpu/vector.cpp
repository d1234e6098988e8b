// The kernels every target has, in Highway: written once, compiled for each instruction set.
//
// A linear runs along the rows of the weight, which lie contiguous in the checkpoint: lane l of a sum takes
// the columns l, l + lanes, ... of a block of 128; a block's lanes are scaled and added to the row's lanes,
// and the lanes are added up at the end. One row of input must read every weight once, so it is bound by
// memory: weights are decoded in registers. Many rows are bound by multiply-adds: a few weight rows are
// decoded once into a panel that stays in the cache, and met by tiles of input rows. Both do the same sums in
// the same order.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/linear.h"
#include "kernels/cpu/targets.h"

// Highway compiles this file again for each target it is allowed. The baseline is declared to be SSE4, the
// least that is built; nothing runs before cpuid was asked (targets.cpp).
#if defined(__x86_64__)
#define HWY_BASELINE_TARGETS HWY_SSE4
#endif
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#define HWY_IS_DEBUG_BUILD 0  // its checks would need libhwy
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/vector.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace dsv::cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;
using DU = hn::RebindToUnsigned<D>;

constexpr int64_t kLanes = hn::MaxLanes(D());
constexpr int64_t kBlock = kQuantBlock;
constexpr int kTileN = HWY_TARGET <= HWY_AVX3 ? 4 : 2;  // weight rows in a tile: as registers allow
constexpr int kTileM = 3;                               // input rows in a tile
// Decoded e4m3 values come out too small by this factor: their bits are those of an f16, whose exponent bias
// is larger by 8. Conversion from f16 is exact, subnormals included.
constexpr float kF8Factor = 256.0f;

// f16 bits to f32. Highway's emulation for SSE4 knows no infinity and no NaN.
template <class Halves>
HWY_INLINE V half_to_float(Halves bits) {
  const D d;
#if HWY_TARGET == HWY_SSE4
  const DU du;
  const hn::RebindToSigned<D> di;
  const auto word = hn::PromoteTo(du, bits);
  const auto magnitude = hn::And(word, hn::Set(du, 0x7fff));
  const auto bias = hn::Set(du, uint32_t{112} << 23);  // exponent bias 15 to 127
  const auto normal = hn::Add(hn::ShiftLeft<13>(magnitude), bias);
  const auto special = hn::Gt(hn::BitCast(di, magnitude), hn::Set(di, 0x7bff));
  const auto subnormal = hn::Lt(hn::BitCast(di, magnitude), hn::Set(di, 0x400));
  const V tiny = hn::Mul(hn::ConvertTo(d, hn::BitCast(di, magnitude)), hn::Set(d, 0x1p-24f));
  const V large = hn::BitCast(d, hn::IfThenElse(hn::RebindMask(du, special), hn::Add(normal, bias), normal));
  const auto sign = hn::ShiftLeft<16>(hn::And(word, hn::Set(du, 0x8000)));
  return hn::Or(hn::IfThenElse(hn::RebindMask(d, subnormal), tiny, large), hn::BitCast(d, sign));
#else
  return hn::PromoteTo(d, hn::BitCast(hn::Rebind<hwy::float16_t, D>(), bits));
#endif
}

// kLanes values of `dtype` from `from`, which is not aligned.
template <Dtype dtype>
HWY_INLINE V load_weights(const unsigned char* from) {
  const D d;
  if constexpr (dtype == Dtype::f32) {
    const hn::Repartition<uint8_t, D> bytes;
    return hn::BitCast(d, hn::LoadU(bytes, from));
  } else {
    const hn::Rebind<uint16_t, D> d16;
    const hn::Repartition<uint8_t, decltype(d16)> bytes;
    const auto bits = hn::BitCast(d16, hn::LoadU(bytes, from));
    if constexpr (dtype == Dtype::f16) {
      return half_to_float(bits);
    } else {
      return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(DU(), bits)));
    }
  }
}

// e4m3 is decoded 4 * kLanes values at a time, as words of two codes each, which become the bits of two f16:
// vectors 0 and 1 of a group are its even columns, 2 and 3 the odd ones, and the packed input of such weights
// has its columns in the same order (column_at). Codes of NaN come out finite: `codes` keeps the greatest
// magnitude seen for a check at the end of a row.
constexpr int64_t kF8Group = 4 * kLanes;
constexpr uint8_t kF8Nan = 0x7f;
using DBytes = hn::Repartition<uint8_t, D>;
using Bytes = hn::Vec<DBytes>;

HWY_INLINE void decode_group(const unsigned char* from, V* out, Bytes& greatest) {
  const DBytes d8;
  const hn::Repartition<uint16_t, D> d16;
  const hn::Half<decltype(d16)> half;
  const auto codes = hn::LoadU(d8, from);
  greatest = hn::Max(greatest, hn::And(codes, hn::Set(d8, kF8Nan)));
  const auto words = hn::BitCast(d16, codes);
  const auto magnitude = hn::Set(d16, 0x3f80), sign = hn::Set(d16, 0x8000);
  const auto even =
      hn::Or(hn::And(hn::ShiftLeft<7>(words), magnitude), hn::And(hn::ShiftLeft<8>(words), sign));
  const auto odd = hn::Or(hn::And(hn::ShiftRight<1>(words), magnitude), hn::And(words, sign));
  out[0] = half_to_float(hn::LowerHalf(half, even));
  out[1] = half_to_float(hn::UpperHalf(half, even));
  out[2] = half_to_float(hn::LowerHalf(half, odd));
  out[3] = half_to_float(hn::UpperHalf(half, odd));
}
// The column of a group that stands at place i after decode_group.
constexpr int64_t column_at(int64_t i) { return i < kF8Group / 2 ? 2 * i : 2 * (i - kF8Group / 2) + 1; }

HWY_INLINE bool has_nan(Bytes greatest) {
  const DBytes d8;
  return !hn::AllFalse(d8, hn::Eq(greatest, hn::Set(d8, kF8Nan)));
}

// 4 * kLanes values of a block, in the order of packed input.
template <Dtype dtype>
HWY_INLINE void load_group(const unsigned char* from, V* out, Bytes& greatest) {
  if constexpr (dtype == Dtype::f8_e4m3) {
    decode_group(from, out, greatest);
  } else {
    for (int64_t v = 0; v < 4; ++v) out[v] = load_weights<dtype>(from + v * kLanes * dtype_bytes(dtype));
  }
}

template <Dtype dtype>
constexpr float kFactor = dtype == Dtype::f8_e4m3 ? kF8Factor : 1.0f;

// A weight row's columns from 128 * block: in place, or padded with zeros in `pad` if the block is partial.
template <Dtype dtype>
HWY_INLINE const unsigned char* weight_block(const CpuWeight& w, int64_t row, int64_t block,
                                             unsigned char* pad) {
  const unsigned char* from = w.row(row) + block * kBlock * dtype_bytes(dtype);
  const int64_t left = w.cols - block * kBlock;
  if (left >= kBlock) return from;
  std::memset(pad, 0, kBlock * dtype_bytes(dtype));
  std::memcpy(pad, from, static_cast<size_t>(left * dtype_bytes(dtype)));
  return pad;
}

// Some weight rows as decoded: f32 [rows][128 * blocks], and which of them hold a NaN.
struct Panel {
  float* values;
  bool nan[kTileN];
};

// One tile of results: weight rows [n, n + NR) and input rows [m, m + MR). With a panel the weights are
// decoded already.
template <Dtype dtype, bool from_panel, int NR, int MR>
void tile(const CpuWeight& w, const Panel& panel, int64_t n, const Packed& x, int32_t m, float* out,
          int64_t out_stride) {
  const D d;
  const int64_t padded = x.blocks * kBlock;
  const float* const values = static_cast<const float*>(x.values) + m * padded;
  const int32_t scales = x.scale_stride();
  // The next rows, but not so near that they are on their way already.
  constexpr int64_t kPrefetchBytes = 4 << 10;
  const int64_t group_bytes = NR * w.row_bytes();
  const int64_t ahead = (kPrefetchBytes + group_bytes - 1) / group_bytes * group_bytes;
  unsigned char pad[NR][kBlock * 4];
  Bytes greatest[NR];
  for (int i = 0; i < NR; ++i) greatest[i] = hn::Zero(DBytes());
  V total[NR][MR];
  for (int i = 0; i < NR; ++i) {
    for (int j = 0; j < MR; ++j) total[i][j] = hn::Zero(d);
  }
  for (int64_t block = 0; block < x.blocks; ++block) {
    const unsigned char* from[NR];
    for (int i = 0; i < NR; ++i) {
      if constexpr (from_panel) {
        from[i] = reinterpret_cast<const unsigned char*>(panel.values + i * padded + block * kBlock);
      } else {
        from[i] = weight_block<dtype>(w, n + i, block, pad[i]);
        for (int64_t line = 0; line < kBlock * dtype_bytes(dtype); line += 64) {
          __builtin_prefetch(from[i] + ahead + line, 0, 2);
        }
      }
    }
    V part[NR][MR];
    for (int i = 0; i < NR; ++i) {
      for (int j = 0; j < MR; ++j) part[i][j] = hn::Zero(d);
    }
    if constexpr (from_panel) {
      for (int64_t k = 0; k < kBlock; k += kLanes) {
        V xs[MR];
        for (int j = 0; j < MR; ++j) xs[j] = hn::LoadU(d, values + j * padded + block * kBlock + k);
        for (int i = 0; i < NR; ++i) {
          const V ws = load_weights<Dtype::f32>(from[i] + 4 * k);
          for (int j = 0; j < MR; ++j) part[i][j] = hn::MulAdd(ws, xs[j], part[i][j]);
        }
      }
    } else {
      for (int64_t k = 0; k < kBlock; k += 4 * kLanes) {
        for (int i = 0; i < NR; ++i) {
          V ws[4];
          load_group<dtype>(from[i] + k * dtype_bytes(dtype), ws, greatest[i]);
          for (int j = 0; j < MR; ++j) {
            const float* const at = values + j * padded + block * kBlock + k;
            for (int v = 0; v < 4; ++v)
              part[i][j] = hn::MulAdd(ws[v], hn::LoadU(d, at + v * kLanes), part[i][j]);
          }
        }
      }
    }
    for (int i = 0; i < NR; ++i) {
      const float scale = w.scale(n + i, block) * kFactor<dtype>;
      for (int j = 0; j < MR; ++j) {
        total[i][j] =
            hn::MulAdd(part[i][j], hn::Set(d, scale * x.scale[block * scales + m + j]), total[i][j]);
      }
    }
  }
  for (int j = 0; j < MR; ++j) {
    for (int i = 0; i < NR; ++i) {
      const bool nan = from_panel ? panel.nan[i] : dtype == Dtype::f8_e4m3 && has_nan(greatest[i]);
      out[(m + j) * out_stride + i] =
          nan ? std::numeric_limits<float>::quiet_NaN() : hn::GetLane(hn::SumOfLanes(d, total[i][j]));
    }
  }
}

template <Dtype dtype, bool from_panel, int NR>
void tile_rows(const CpuWeight& w, const Panel& panel, int64_t n, const Packed& x, int32_t m0, int32_t m1,
               float* out, int64_t out_stride) {
  int32_t m = m0;
  for (; m + kTileM <= m1; m += kTileM) {
    tile<dtype, from_panel, NR, kTileM>(w, panel, n, x, m, out, out_stride);
  }
  if (m + 2 == m1) tile<dtype, from_panel, NR, 2>(w, panel, n, x, m, out, out_stride);
  if (m + 1 == m1) tile<dtype, from_panel, NR, 1>(w, panel, n, x, m, out, out_stride);
}

template <Dtype dtype, int NR>
void weight_rows(const CpuWeight& w, int64_t n, const Packed& x, int32_t m0, int32_t m1, float* out,
                 int64_t out_stride, float* memory) {
  Panel panel = {memory, {}};
  if (m1 - m0 <= kTileM) {
    tile_rows<dtype, false, NR>(w, panel, n, x, m0, m1, out, out_stride);
    return;
  }
  const D d;
  for (int i = 0; i < NR; ++i) {
    Bytes greatest = hn::Zero(DBytes());
    for (int64_t block = 0; block < x.blocks; ++block) {
      unsigned char pad[kBlock * 4];
      const unsigned char* from = weight_block<dtype>(w, n + i, block, pad);
      float* to = panel.values + (i * x.blocks + block) * kBlock;
      for (int64_t k = 0; k < kBlock; k += 4 * kLanes, to += 4 * kLanes) {
        V values[4];
        load_group<dtype>(from + k * dtype_bytes(dtype), values, greatest);
        for (int v = 0; v < 4; ++v) hn::StoreU(values[v], d, to + v * kLanes);
      }
    }
    panel.nan[i] = dtype == Dtype::f8_e4m3 && has_nan(greatest);
  }
  tile_rows<dtype, true, NR>(w, panel, n, x, m0, m1, out, out_stride);
}

template <Dtype dtype>
void linear_of(const CpuWeight& w, int64_t n0, int64_t n1, const Packed& x, float* out, int64_t out_stride,
               unsigned char* scratch) {
  // Input rows that stay in the second-level cache while all weight rows of the slice pass by.
  constexpr int64_t kInputBytes = 1 << 20;
  const int64_t fit = kInputBytes / (x.blocks * kBlock * 4) / kTileM * kTileM;
  const auto step = static_cast<int32_t>(std::clamp<int64_t>(fit, 8 * kTileM, 1024 / kTileM * kTileM));
  auto* const panel = reinterpret_cast<float*>(scratch);
  for (int32_t m0 = 0; m0 < x.rows; m0 += step) {
    const int32_t m1 = std::min(x.rows, m0 + step);
    int64_t n = n0;
    for (; n + kTileN <= n1; n += kTileN) {
      weight_rows<dtype, kTileN>(w, n, x, m0, m1, out + n - n0, out_stride, panel);
    }
    for (; n < n1; ++n) weight_rows<dtype, 1>(w, n, x, m0, m1, out + n - n0, out_stride, panel);
  }
}

void linear(const CpuWeight& w, int64_t n0, int64_t n1, const Packed& x, float* out, int64_t out_stride,
            unsigned char* scratch) {
  switch (w.dtype) {
    case Dtype::f8_e4m3:
      return linear_of<Dtype::f8_e4m3>(w, n0, n1, x, out, out_stride, scratch);
    case Dtype::bf16:
      return linear_of<Dtype::bf16>(w, n0, n1, x, out, out_stride, scratch);
    case Dtype::f16:
      return linear_of<Dtype::f16>(w, n0, n1, x, out, out_stride, scratch);
    case Dtype::f32:
      return linear_of<Dtype::f32>(w, n0, n1, x, out, out_stride, scratch);
  }
}

template <Dtype dtype>
void decode_row_of(const CpuWeight& w, int64_t row, float* out) {
  const D d;
  for (int64_t block = 0; block * kBlock < w.cols; ++block) {
    unsigned char pad[kBlock * 4];
    float values[kBlock];
    const unsigned char* from = weight_block<dtype>(w, row, block, pad);
    const V scale = hn::Set(d, w.scale(row, block) * kFactor<dtype>);
    for (int64_t k = 0; k < kBlock; k += 4 * kLanes) {
      V group[4];
      Bytes greatest = hn::Zero(DBytes());
      load_group<dtype>(from + k * dtype_bytes(dtype), group, greatest);
      float placed[4 * kLanes];
      for (int v = 0; v < 4; ++v) hn::StoreU(hn::Mul(group[v], scale), d, placed + v * kLanes);
      for (int64_t i = 0; i < 4 * kLanes; ++i) {
        const bool f8 = dtype == Dtype::f8_e4m3;
        const int64_t column = k + (f8 ? column_at(i) : i);
        values[column] =
            f8 && (from[column] & kF8Nan) == kF8Nan ? std::numeric_limits<float>::quiet_NaN() : placed[i];
      }
    }
    std::copy_n(values, std::min(kBlock, w.cols - block * kBlock), out + block * kBlock);
  }
}

void decode_row(const CpuWeight& w, int64_t row, float* out) {
  switch (w.dtype) {
    case Dtype::f8_e4m3:
      return decode_row_of<Dtype::f8_e4m3>(w, row, out);
    case Dtype::bf16:
      return decode_row_of<Dtype::bf16>(w, row, out);
    case Dtype::f16:
      return decode_row_of<Dtype::f16>(w, row, out);
    case Dtype::f32:
      return decode_row_of<Dtype::f32>(w, row, out);
  }
}

// To nearest, ties to even, in the bits: the upper half of an f32 is a bf16.
HWY_INLINE V rounded_bf16(V x) {
  const D d;
  const DU du;
  const auto bits = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  const auto up = hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fff)));
  const V cut = hn::BitCast(d, hn::And(up, hn::Set(du, 0xffff0000)));
  return hn::IfThenElse(hn::IsNaN(x), x, cut);
}

void round_bf16(float* x, int64_t n) {
  const D d;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) hn::StoreU(rounded_bf16(hn::LoadU(d, x + i)), d, x + i);
  if (i < n) {
    float pad[kLanes] = {};
    std::copy_n(x + i, n - i, pad);
    hn::StoreU(rounded_bf16(hn::LoadU(d, pad)), d, pad);
    std::copy_n(pad, n - i, x + i);
  }
}

// The grid of e4m3: four significant bits, and multiples of 2^-9 below 2^-6; adding and subtracting
// 1.5 * 2^(23 - 9) rounds to those.
HWY_INLINE V rounded_e4m3(V v) {
  const D d;
  const DU du;
  const auto bits = hn::BitCast(du, v);
  const auto odd = hn::And(hn::ShiftRight<20>(bits), hn::Set(du, 1));
  const V normal =
      hn::BitCast(d, hn::And(hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7ffff))), hn::Set(du, 0xfff00000)));
  const V magic = hn::Set(d, 24576.0f), limit = hn::Set(d, 448.0f);
  const V tiny = hn::Sub(hn::Add(v, magic), magic);
  const V rounded = hn::IfThenElse(hn::Lt(hn::Abs(v), hn::Set(d, 0.015625f)), tiny, normal);
  return hn::Max(hn::Min(rounded, limit), hn::Neg(limit));
}

float quantise_e4m3(float* x, int64_t n, bool ue8m0) {
  const D d;
  V peak = hn::Zero(d);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) peak = hn::Max(peak, hn::Abs(hn::LoadU(d, x + i)));
  float rest[kLanes] = {};
  std::copy(x + i, x + n, rest);
  peak = hn::Max(peak, hn::Abs(hn::LoadU(d, rest)));
  const float amax = hn::GetLane(hn::MaxOfLanes(d, peak));
  float scale = std::max(amax, 1e-4f) / 448.0f;
  if (ue8m0) {  // up to the next power of two
    uint32_t bits;
    std::memcpy(&bits, &scale, sizeof bits);
    bits = (bits + 0x7fffff) & 0xff800000;
    std::memcpy(&scale, &bits, sizeof scale);
  }
  const V divisor = hn::Set(d, scale);
  for (i = 0; i + kLanes <= n; i += kLanes) {
    hn::StoreU(rounded_e4m3(hn::Div(hn::LoadU(d, x + i), divisor)), d, x + i);
  }
  if (i < n) {
    float pad[kLanes] = {};
    std::copy_n(x + i, n - i, pad);
    hn::StoreU(rounded_e4m3(hn::Div(hn::LoadU(d, pad), divisor)), d, pad);
    std::copy_n(pad, n - i, x + i);
  }
  return scale;
}

// Columns [128 block, + 128) of a row, rounded; returns their scale.
float rounded_block(const float* row, int64_t block, const Packed& p, float* out) {
  const int64_t left = std::min(kBlock, p.cols - block * kBlock);
  std::copy_n(row + block * kBlock, left, out);
  std::fill(out + left, out + kBlock, 0.0f);
  if (p.rounding == Rounding::e4m3) return quantise_e4m3(out, kBlock, p.ue8m0);
  if (p.rounding == Rounding::bf16) round_bf16(out, kBlock);
  return 1.0f;
}

void pack(const float* const* rows, int32_t group, const Packed& p) {
  const int32_t end = std::min(p.rows, 16 * group + 16);
  for (int32_t r = 16 * group; r < end; ++r) {
    for (int64_t block = 0; block < p.blocks; ++block) {
      float* const to = static_cast<float*>(p.values) + (r * p.blocks + block) * kBlock;
      float* const scale = p.scale + block * p.scale_stride() + r;
      if (p.dtype != Dtype::f8_e4m3) {
        *scale = rounded_block(rows[r], block, p, to);
        continue;
      }
      float values[kBlock];
      *scale = rounded_block(rows[r], block, p, values);
      for (int64_t k = 0; k < kBlock; k += kF8Group) {
        for (int64_t i = 0; i < kF8Group; ++i) to[k + i] = values[k + column_at(i)];
      }
    }
  }
}

bool uses_bf16(Rounding, Dtype) { return false; }

void rms_norm(const float* x, const float* weight, int64_t n, float eps, bool to_bf16, float* h) {
  const D d;
  V sum = hn::Zero(d);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const V v = hn::LoadU(d, x + i);
    sum = hn::MulAdd(v, v, sum);
  }
  float squares = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < n; ++i) squares += x[i] * x[i];
  const float factor = 1.0f / hn::GetLane(hn::Sqrt(hn::Set(d, squares / static_cast<float>(n) + eps)));
  const V scale = hn::Set(d, factor);
  for (i = 0; i + kLanes <= n; i += kLanes) {
    hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(d, x + i), scale), hn::LoadU(d, weight + i)), d, h + i);
  }
  for (; i < n; ++i) h[i] = x[i] * factor * weight[i];
  if (to_bf16) round_bf16(h, n);
}

HWY_INLINE V silu_times(V gate, V up) {
  const D d;
  // Below -87 the exponential overflows; silu is then smaller than any f32 that matters.
  const V e = hn::Exp(d, hn::Neg(hn::Max(gate, hn::Set(d, -87.0f))));
  return hn::Mul(hn::Div(gate, hn::Add(hn::Set(d, 1.0f), e)), up);
}

void swiglu(float* gate, const float* up, int64_t n) {
  const D d;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    hn::StoreU(silu_times(hn::LoadU(d, gate + i), hn::LoadU(d, up + i)), d, gate + i);
  }
  if (i < n) {
    float a[kLanes] = {}, b[kLanes] = {};
    std::copy_n(gate + i, n - i, a);
    std::copy_n(up + i, n - i, b);
    hn::StoreU(silu_times(hn::LoadU(d, a), hn::LoadU(d, b)), d, a);
    std::copy_n(a, n - i, gate + i);
  }
}

void multiply_add(float* x, float factor, const float* y, int64_t n) {
  const D d;
  const V f = hn::Set(d, factor);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    hn::StoreU(hn::MulAdd(f, hn::LoadU(d, y + i), hn::LoadU(d, x + i)), d, x + i);
  }
  if (i < n) {
    float a[kLanes] = {}, b[kLanes] = {};
    std::copy_n(x + i, n - i, a);
    std::copy_n(y + i, n - i, b);
    hn::StoreU(hn::MulAdd(f, hn::LoadU(d, b), hn::LoadU(d, a)), d, a);
    std::copy_n(a, n - i, x + i);
  }
}

constexpr CpuKernels kKernels = {
#if HWY_TARGET == HWY_AVX3
    "avx512",
#elif HWY_TARGET == HWY_AVX2
    "avx2",
#elif HWY_TARGET == HWY_SSE4
    "sse4",
#else
    "neon",
#endif
    pack,     linear,       uses_bf16,  decode_row,    rms_norm,
    swiglu,   multiply_add, round_bf16, quantise_e4m3, rounded_block,
};

}  // namespace HWY_NAMESPACE
}  // namespace dsv::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace dsv::cpu {

#if defined(__x86_64__)
const CpuKernels& kernels_avx512() { return N_AVX3::kKernels; }
const CpuKernels& kernels_avx2() { return N_AVX2::kKernels; }
const CpuKernels& kernels_sse4() { return N_SSE4::kKernels; }
#else
const CpuKernels& kernels_neon() { return HWY_NAMESPACE::kKernels; }
#endif

}  // namespace dsv::cpu
#endif
