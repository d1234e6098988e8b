// Linears on AMX tiles: 16 weight rows times up to 16 input rows, 32 columns an instruction.
//
// Weight rows are the left matrix, because decoded rows lie in memory as the left tile wants them; the input
// is packed once as right tiles (pairs of columns by input row). A tile sums a block of 128 columns in four
// instructions; the sums are scaled and added to f32 totals in memory. Each result has a cell of its own all
// the way, so it does not matter how many input rows share a tile, and one row runs the same instructions
// with tiles of one column. Decoding costs about 6 cycles per 64 weight bytes, below what memory delivers to
// a core; with many rows it is done once for every 256.
#include "kernels/cpu/targets.h"

#if defined(__x86_64__)

#include <hwy/base.h>
#include <immintrin.h>

#include <algorithm>
#include <cstring>

HWY_PUSH_ATTRIBUTES(
    "avx,avx2,bmi,bmi2,fma,f16c,avx512f,avx512vl,avx512dq,avx512bw,avx512vbmi,avx512bf16,amx-tile,amx-bf16")

#include "kernels/cpu/bf16-inl.h"

namespace dsv::cpu {
namespace {

constexpr int kEdge = 16;  // rows of a tile, and its columns of f32
constexpr int kWeightRows = 2 * kEdge;
constexpr int kTileBytes = 1024;
constexpr int kSteps = 4;  // tiles of 32 columns in a block
constexpr int kBlockPairs = 64;

// g++ 12 writes its tile intrinsics as asm without a memory clobber: keeps stores and tile instructions in
// order.
inline void fence() { asm volatile("" ::: "memory"); }

// Input rows of a right tile, all groups of a Packed alike.
inline int32_t tile_columns(int32_t rows) { return std::min(rows, kEdge); }

// values: [blocks][groups][64 pairs][columns], zero behind the last row.
void pack(const float* const* rows, int32_t group, const Packed& p) {
  const CpuKernels& plain = kernels_avx512();
  if (!p.bf16) return plain.pack(rows, group, p);
  const int32_t columns = tile_columns(p.rows), groups = (p.rows + kEdge - 1) / kEdge;
  const int32_t first = kEdge * group, count = std::min(p.rows - first, columns);
  for (int64_t block = 0; block < p.blocks; ++block) {
    auto* const out =
        static_cast<uint32_t*>(p.values) + (block * groups + group) * int64_t{kBlockPairs} * columns;
    if (count < columns) std::fill_n(out, kBlockPairs * columns, 0u);
    float* const scale = p.scale + block * p.scale_stride() + first;
    std::fill_n(scale, kEdge, 0.0f);
    for (int32_t r = 0; r < count; ++r) {
      alignas(64) float values[kBlock];
      scale[r] = plain.rounded_block(rows[first + r], block, p, values);
      for (int q = 0; q < kBlockPairs; ++q) {
        out[pair_place(p.dtype, q) * columns + r] = bf16_pair(values + 2 * q);
      }
    }
  }
}

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Tiles 0 .. 3: sums, 4 and 5: weights, 6 and 7: input.
void configure(int32_t columns) {
  TileConfig config;
  for (int t = 0; t < 8; ++t) {
    config.rows[t] = kEdge;
    config.row_bytes[t] = static_cast<uint16_t>(t == 4 || t == 5 ? 64 : 4 * columns);
  }
  fence();
  _tile_loadconfig(&config);
  fence();
}

// Decodes 128 columns of 32 weight rows into 2 x 4 left tiles; zero for rows that are not there.
template <Dtype dtype>
inline void decode(const Decoder& decoder, const CpuWeight& w, int64_t n, int64_t rows, int64_t block,
                   int64_t ahead, unsigned char* tiles) {
  for (int64_t i = 0; i < kWeightRows; ++i) {
    __m512i values[kBlockVectors] = {};
    if (i < rows) {
      const unsigned char* const from = w.row(n + i) + block * kBlock * dtype_bytes(dtype);
      for (int64_t line = 0; line < kBlock * dtype_bytes(dtype); line += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(from + ahead + line), _MM_HINT_T1);
      }
      decoder.block<dtype>(from, w.cols - block * kBlock, values);
    }
    unsigned char* const to = tiles + i / kEdge * kSteps * kTileBytes + i % kEdge * 64;
    for (int v = 0; v < kBlockVectors; ++v) _mm512_store_si512(to + v * kTileBytes, values[v]);
  }
}

// sums [1 or 2 groups][2][16][16 or fewer] = 32 weight rows times one or two groups of input rows.
template <int kGroups>
inline void multiply(const unsigned char* weights, const unsigned char* input, int64_t group_bytes,
                     int32_t columns, float* sums) {
  const int64_t stride = 4 * columns, step = kEdge * stride;
  fence();
  _tile_zero(0);
  _tile_zero(1);
  if constexpr (kGroups == 2) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int k = 0; k < kSteps; ++k) {
    _tile_loadd(6, input + k * step, stride);
    _tile_loadd(4, weights + k * kTileBytes, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, weights + (kSteps + k) * kTileBytes, 64);
    _tile_dpbf16ps(1, 5, 6);
    if constexpr (kGroups == 2) {
      _tile_loadd(7, input + group_bytes + k * step, stride);
      _tile_dpbf16ps(2, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums, stride);
  _tile_stored(1, sums + kEdge * columns, stride);
  if constexpr (kGroups == 2) {
    _tile_stored(2, sums + 2 * kEdge * columns, stride);
    _tile_stored(3, sums + 3 * kEdge * columns, stride);
  }
  fence();
}

// total[i][c] += sums[i][c] * (weight scale i * input scale c), for 32 weight rows and one group of input
// rows.
inline void accumulate(const float* sums, const float* weight_scale, const float* input_scale,
                       int32_t columns, float* total, int64_t total_stride) {
  if (columns == 1) {  // lanes are weight rows
    const __m512 x = _mm512_set1_ps(input_scale[0]);
    for (int i = 0; i < kWeightRows; i += kEdge) {
      const __m512 scale = _mm512_mul_ps(_mm512_load_ps(weight_scale + i), x);
      _mm512_store_ps(total + i, _mm512_fmadd_ps(_mm512_load_ps(sums + i), scale, _mm512_load_ps(total + i)));
    }
    return;
  }
  const auto mask = static_cast<__mmask16>((1u << columns) - 1);
  const __m512 x = _mm512_maskz_loadu_ps(mask, input_scale);
  for (int i = 0; i < kWeightRows; ++i) {
    const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(weight_scale[i]), x);
    const __m512 sum = _mm512_maskz_loadu_ps(mask, sums + i * columns);
    float* const at = total + i * total_stride;
    _mm512_mask_storeu_ps(at, mask, _mm512_fmadd_ps(sum, scale, _mm512_maskz_loadu_ps(mask, at)));
  }
}

template <Dtype dtype>
void linear_of(const CpuWeight& w, int64_t n0, int64_t n1, const Packed& x, float* out, int64_t out_stride,
               unsigned char* scratch) {
  const Decoder decoder;
  const int32_t columns = tile_columns(x.rows), groups = (x.rows + kEdge - 1) / kEdge;
  const int64_t group_bytes = int64_t{4} * kBlockPairs * columns;
  // Input that stays in the second-level cache while the weight rows of the slice pass by.
  constexpr int64_t kInputBytes = 1 << 20;
  const auto chunk =
      static_cast<int32_t>(std::max<int64_t>(2, kInputBytes / (group_bytes * x.blocks) / 2 * 2));
  // Prefetch one group of 32 rows ahead, which is the order of use, unless that is more than the cache holds.
  constexpr int64_t kAheadLimit = 256 << 10;
  const int64_t ahead = kWeightRows * w.row_bytes() <= kAheadLimit ? kWeightRows * w.row_bytes()
                                                                   : 8 * kBlock * dtype_bytes(dtype);

  unsigned char* const tiles = scratch;
  auto* const sums = reinterpret_cast<float*>(tiles + 2 * kSteps * kTileBytes);  // [4][16][16]
  float* const total = sums + 4 * kEdge * kEdge;                                 // [32][chunk * columns]
  configure(columns);
  for (int32_t g0 = 0; g0 < groups; g0 += chunk) {
    const int32_t g1 = std::min(groups, g0 + chunk);
    const int64_t total_stride = int64_t{g1 - g0} * columns;
    for (int64_t n = n0; n < n1; n += kWeightRows) {
      const int64_t rows = std::min<int64_t>(kWeightRows, n1 - n);
      std::fill_n(total, kWeightRows * total_stride, 0.0f);
      for (int64_t block = 0; block < x.blocks; ++block) {
        alignas(64) float weight_scale[kWeightRows] = {};
        for (int64_t i = 0; i < rows; ++i) weight_scale[i] = w.scale(n + i, block);
        decode<dtype>(decoder, w, n, rows, block, ahead, tiles);
        const unsigned char* const input =
            static_cast<const unsigned char*>(x.values) + block * groups * group_bytes;
        const float* const scale = x.scale + block * x.scale_stride();
        for (int32_t g = g0; g < g1; g += 2) {
          if (g + 1 < g1) {
            multiply<2>(tiles, input + g * group_bytes, group_bytes, columns, sums);
            accumulate(sums + kWeightRows * columns, weight_scale, scale + kEdge * (g + 1), columns,
                       total + (g + 1 - g0) * columns, total_stride);
          } else {
            multiply<1>(tiles, input + g * group_bytes, group_bytes, columns, sums);
          }
          accumulate(sums, weight_scale, scale + kEdge * g, columns, total + (g - g0) * columns,
                     total_stride);
        }
      }
      const int32_t m0 = g0 * columns, m1 = std::min(x.rows, g1 * columns);
      for (int32_t m = m0; m < m1; ++m) {
        float* const to = out + m * out_stride + n - n0;
        for (int64_t i = 0; i < rows; ++i) to[i] = total[i * total_stride + m - m0];
      }
    }
  }
  fence();
  _tile_release();
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

const CpuKernels& kernels_amx() {
  static const CpuKernels table = [] {
    CpuKernels t = kernels_avx512();
    t.name = "amx";
    t.pack = pack;
    t.linear = linear;
    t.uses_bf16 = uses_bf16_kernels;
    return t;
  }();
  return table;
}

}  // namespace dsv::cpu

#endif
