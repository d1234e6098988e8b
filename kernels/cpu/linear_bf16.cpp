// Linears on AVX-512-BF16: products of bf16 pairs summed in f32 lanes, 32 columns an instruction.
//
// A result's lanes take a block of 128 columns in four instructions, are scaled and added to the row's lanes,
// which are added up at the end: the same sums whether a weight row meets one input row or many. With few
// input rows weights are decoded on the way (two lookups per 64 bytes), with the next rows asked for
// meanwhile; with many into a panel of four rows that stays in the cache.
#include "kernels/cpu/targets.h"

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
// g++ 12 warns of its own undefined vectors in the reductions (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <hwy/base.h>
#include <immintrin.h>

#include <algorithm>
#include <cstring>

HWY_PUSH_ATTRIBUTES("avx,avx2,bmi,bmi2,fma,f16c,avx512f,avx512vl,avx512dq,avx512bw,avx512vbmi,avx512bf16")

#include "kernels/cpu/bf16-inl.h"

namespace dsv::cpu {
namespace {

constexpr int kTileN = 4, kTileM = 4;
constexpr int64_t kPrefetchBytes = 8 << 10;

void pack(const float* const* rows, int32_t group, const Packed& p) {
  const CpuKernels& plain = kernels_avx512();
  if (!p.bf16) return plain.pack(rows, group, p);
  const int32_t end = std::min(p.rows, 16 * group + 16);
  for (int32_t r = 16 * group; r < end; ++r) {
    for (int64_t block = 0; block < p.blocks; ++block) {
      alignas(64) float values[kBlock];
      p.scale[block * p.scale_stride() + r] = plain.rounded_block(rows[r], block, p, values);
      auto* const out = static_cast<uint32_t*>(p.values) + (r * p.blocks + block) * kBlock / 2;
      for (int q = 0; q < kBlock / 2; ++q) out[pair_place(p.dtype, q)] = bf16_pair(values + 2 * q);
    }
  }
}

// Asks for the weights `ahead` bytes after a block.
template <Dtype dtype>
inline void prefetch(const unsigned char* block, int64_t ahead) {
  for (int64_t line = 0; line < kBlock * dtype_bytes(dtype); line += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(block + ahead + line), _MM_HINT_T1);
  }
}

// Results of weight rows [n, n + NR) and input rows [m, m + MR). With a panel the weights are decoded
// already, bf16 [NR][128 * blocks].
template <Dtype dtype, bool from_panel, int NR, int MR>
void tile(const Decoder& decoder, const CpuWeight& w, const unsigned char* panel, int64_t n, const Packed& x,
          int32_t m, float* out, int64_t out_stride) {
  const int64_t row_bytes = x.blocks * kBlock * 2;
  const unsigned char* const values = static_cast<const unsigned char*>(x.values) + m * row_bytes;
  const int32_t scales = x.scale_stride();
  const int64_t group = NR * w.row_bytes();
  const int64_t ahead = (kPrefetchBytes + group - 1) / group * group;  // the rows that come next
  __m512 total[NR][MR];
  for (int i = 0; i < NR; ++i) {
    for (int j = 0; j < MR; ++j) total[i][j] = _mm512_setzero_ps();
  }
  for (int64_t block = 0; block < x.blocks; ++block) {
    const int64_t at = block * kBlock * 2;
    for (int i = 0; i < NR; ++i) {
      __m512i ws[kBlockVectors];
      if constexpr (from_panel) {
        for (int v = 0; v < kBlockVectors; ++v) {
          ws[v] = _mm512_load_si512(panel + i * row_bytes + at + 64 * v);
        }
      } else {
        const unsigned char* const from = w.row(n + i) + block * kBlock * dtype_bytes(dtype);
        prefetch<dtype>(from, ahead);
        decoder.block<dtype>(from, w.cols - block * kBlock, ws);
      }
      const float scale = w.scale(n + i, block);
      for (int j = 0; j < MR; ++j) {
        __m512 part = _mm512_setzero_ps();
        for (int v = 0; v < kBlockVectors; ++v) {
          const __m512i xs = _mm512_loadu_si512(values + j * row_bytes + at + 64 * v);
          part = _mm512_dpbf16_ps(part, (__m512bh)ws[v], (__m512bh)xs);
        }
        const __m512 both = _mm512_set1_ps(scale * x.scale[block * scales + m + j]);
        total[i][j] = _mm512_fmadd_ps(part, both, total[i][j]);
      }
    }
  }
  for (int j = 0; j < MR; ++j) {
    for (int i = 0; i < NR; ++i) out[(m + j) * out_stride + i] = _mm512_reduce_add_ps(total[i][j]);
  }
}

template <Dtype dtype, bool from_panel, int NR>
void tile_rows(const Decoder& decoder, const CpuWeight& w, const unsigned char* panel, int64_t n,
               const Packed& x, int32_t m0, int32_t m1, float* out, int64_t out_stride) {
  int32_t m = m0;
  for (; m + kTileM <= m1; m += kTileM) {
    tile<dtype, from_panel, NR, kTileM>(decoder, w, panel, n, x, m, out, out_stride);
  }
  switch (m1 - m) {
    case 3:
      return tile<dtype, from_panel, NR, 3>(decoder, w, panel, n, x, m, out, out_stride);
    case 2:
      return tile<dtype, from_panel, NR, 2>(decoder, w, panel, n, x, m, out, out_stride);
    case 1:
      return tile<dtype, from_panel, NR, 1>(decoder, w, panel, n, x, m, out, out_stride);
    default:
      return;
  }
}

template <Dtype dtype, int NR>
void weight_rows(const Decoder& decoder, const CpuWeight& w, int64_t n, const Packed& x, int32_t m0,
                 int32_t m1, float* out, int64_t out_stride, unsigned char* panel) {
  if (m1 - m0 <= kTileM) {
    tile_rows<dtype, false, NR>(decoder, w, nullptr, n, x, m0, m1, out, out_stride);
    return;
  }
  for (int i = 0; i < NR; ++i) {
    for (int64_t block = 0; block < x.blocks; ++block) {
      const unsigned char* const from = w.row(n + i) + block * kBlock * dtype_bytes(dtype);
      prefetch<dtype>(from, kPrefetchBytes);
      __m512i values[kBlockVectors];
      decoder.block<dtype>(from, w.cols - block * kBlock, values);
      for (int v = 0; v < kBlockVectors; ++v) {
        _mm512_store_si512(panel + (i * x.blocks + block) * kBlock * 2 + 64 * v, values[v]);
      }
    }
  }
  tile_rows<dtype, true, NR>(decoder, w, panel, n, x, m0, m1, out, out_stride);
}

template <Dtype dtype>
void linear_of(const CpuWeight& w, int64_t n0, int64_t n1, const Packed& x, float* out, int64_t out_stride,
               unsigned char* scratch) {
  const Decoder decoder;
  // Input rows that stay in the second-level cache while all weight rows of the slice pass by.
  constexpr int64_t kInputBytes = 512 << 10;
  const int64_t fit = kInputBytes / (x.blocks * kBlock * 2) / kTileM * kTileM;
  const auto step = static_cast<int32_t>(std::clamp<int64_t>(fit, 8 * kTileM, 1024));
  for (int32_t m0 = 0; m0 < x.rows; m0 += step) {
    const int32_t m1 = std::min(x.rows, m0 + step);
    int64_t n = n0;
    for (; n + kTileN <= n1; n += kTileN) {
      weight_rows<dtype, kTileN>(decoder, w, n, x, m0, m1, out + n - n0, out_stride, scratch);
    }
    for (; n < n1; ++n) {
      weight_rows<dtype, 1>(decoder, w, n, x, m0, m1, out + n - n0, out_stride, scratch);
    }
  }
}

void linear(const CpuWeight& w, int64_t n0, int64_t n1, const Packed& x, float* out, int64_t out_stride,
            unsigned char* scratch) {
  if (!x.bf16) return kernels_avx512().linear(w, n0, n1, x, out, out_stride, scratch);
  if (w.dtype == Dtype::f8_e4m3) {
    linear_of<Dtype::f8_e4m3>(w, n0, n1, x, out, out_stride, scratch);
  } else {
    linear_of<Dtype::bf16>(w, n0, n1, x, out, out_stride, scratch);
  }
}

}  // namespace
}  // namespace dsv::cpu

HWY_POP_ATTRIBUTES

namespace dsv::cpu {

const CpuKernels& kernels_avx512_bf16() {
  static const CpuKernels table = [] {
    CpuKernels t = kernels_avx512();
    t.name = "avx512_bf16";
    t.pack = pack;
    t.linear = linear;
    t.uses_bf16 = uses_bf16_kernels;
    return t;
  }();
  return table;
}

}  // namespace dsv::cpu

#endif
