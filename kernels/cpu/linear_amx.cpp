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

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/bf16-inl.h"

namespace dsv::cpu {
namespace {

constexpr int kEdge = 16;  // rows of a tile, and its columns of f32
constexpr int kWeightRows = 2 * kEdge;
constexpr int kTileBytes = 1024;
constexpr int kSteps = 4;  // tiles of 32 columns in a block
constexpr int kBlockPairs = 64;
constexpr int64_t kPanelBlocks = 2;
constexpr int64_t kPanelBytes = kPanelBlocks * kSteps * kTileBytes;

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

// The scales of a group of weight rows, which lie in one or two blocks of 128 rows.
class GroupScales {
 public:
  GroupScales(const CpuWeight& w, int64_t first, int64_t rows)
      : w_(w), first_(first), last_(first + rows - 1) {
    const int64_t before = kBlock - first % kBlock;
    second_ = before >= rows ? __mmask16{0} : static_cast<__mmask16>(0xffff << before);
  }
  __m512 of(int64_t block) const {
    const __m512 scale = _mm512_set1_ps(w_.scale(first_, block));
    return second_ == 0 ? scale
                        : _mm512_mask_blend_ps(second_, scale, _mm512_set1_ps(w_.scale(last_, block)));
  }

 private:
  const CpuWeight& w_;
  int64_t first_, last_;
  __mmask16 second_;
};

// A panel: some blocks of 16 weight rows, as left tiles.
struct Panel {
  unsigned char* tiles = nullptr;
  int64_t n = 0, rows = 0;        // weight rows
  int64_t block = 0, blocks = 0;  // up to kPanelBlocks
};

// Decodes `blocks` blocks of a weight row into a row of left tiles; `columns` are left of it, or `whole`
// blocks.
template <Dtype dtype, bool whole>
inline void decode_row(const Decoder& decoder, const unsigned char* from, int64_t blocks, int64_t columns,
                       int64_t ahead, unsigned char* to) {
  constexpr int64_t kBlockBytes = kBlock * dtype_bytes(dtype);
  DSV_UNROLL for (int64_t b = 0; b < blocks; ++b, from += kBlockBytes, to += kSteps * kTileBytes) {
    for (int64_t line = 0; line < kBlockBytes; line += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(from + ahead + line), _MM_HINT_T1);
    }
    __m512i values[kBlockVectors];
    decoder.block<dtype>(from, whole ? kBlock : columns - b * kBlock, values);
    for (int v = 0; v < kBlockVectors; ++v) _mm512_store_si512(to + v * kTileBytes, values[v]);
  }
}

// Stores the sums of the tiles that the last turn has filled, [2][16][input rows].
template <int parity>
inline void store_sums(float* sums, int64_t stride) {
  fence();
  if constexpr (parity == 0) {
    _tile_stored(0, sums, stride);
    _tile_stored(1, sums + kEdge * kEdge, stride);
  } else {
    _tile_stored(2, sums, stride);
    _tile_stored(3, sums + kEdge * kEdge, stride);
  }
  fence();
}

// Decodes a panel, multiplies the one before into two of the sum tiles, and stores the other two, of the
// panel before that. whole: both panels have 16 rows of two whole blocks.
template <Dtype dtype, bool whole, int parity>
inline void turn(const CpuWeight& w, const Panel& next, const Panel& now, const unsigned char* input,
                 int64_t stride, float* sums_before) {
  const Decoder decoder;
  const int64_t row_bytes = w.cols * dtype_bytes(dtype),
                ahead = kEdge * row_bytes;  // to the rows that come next
  const int64_t step = kEdge * stride, columns = w.cols - next.block * kBlock;
  const int64_t blocks = whole ? kPanelBlocks : next.blocks, rows = next.rows;
  const bool two = whole || now.blocks > 1;
  const unsigned char* from = w.data + next.n * row_bytes + next.block * kBlock * dtype_bytes(dtype);
  const unsigned char* weights = now.tiles;
  unsigned char* to = next.tiles;
  const auto decode_two = [&](int64_t i) {
    for (int64_t j = i; j < i + 2; ++j, from += row_bytes, to += 64) {
      decode_row<dtype, whole>(decoder, from, blocks, j < rows ? columns : 0, ahead, to);
    }
    fence();
  };
  if constexpr (parity == 0) {
    _tile_zero(0);
    _tile_zero(1);
  } else {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int k = 0; k < kSteps; ++k, weights += kTileBytes, input += step) {
    decode_two(4 * k);
    _tile_loadd(6, input, stride);
    _tile_loadd(4, weights, 64);
    if constexpr (parity == 0) {
      _tile_dpbf16ps(0, 4, 6);
    } else {
      _tile_dpbf16ps(2, 4, 6);
    }
    decode_two(4 * k + 2);
    if (two) {
      _tile_loadd(7, input + kSteps * step, stride);
      _tile_loadd(5, weights + kSteps * kTileBytes, 64);
      if constexpr (parity == 0) {
        _tile_dpbf16ps(1, 5, 7);
      } else {
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    if (k == 1) store_sums<parity ^ 1>(sums_before, stride);
  }
}

// The totals of 16 weight rows while their panels come in.
class Totals {
 public:
  Totals(const CpuWeight& w, const Packed& x, float* memory) : w_(w), x_(x), total_(memory) {}

  // Adds the sums of a panel, [blocks][16][input rows]; the first of a row begins anew.
  void add(const Panel& p, const float* sums) {
    const int32_t columns = x_.rows;
    if (p.block == 0) {
      lanes_ = _mm512_setzero_ps();
      if (columns > 1) std::fill_n(total_, kEdge * kEdge, 0.0f);
    }
    const GroupScales scales(w_, p.n, p.rows);
    for (int64_t b = p.block; b < p.block + p.blocks; ++b, sums += kEdge * kEdge) {
      const float* const input_scale = x_.scale + b * x_.scale_stride();
      if (columns == 1) {
        const __m512 scale = _mm512_mul_ps(scales.of(b), _mm512_set1_ps(*input_scale));
        lanes_ = _mm512_fmadd_ps(_mm512_load_ps(sums), scale, lanes_);
        continue;
      }
      alignas(64) float weight_scale[kEdge];
      _mm512_store_ps(weight_scale, scales.of(b));
      const auto mask = static_cast<__mmask16>((1u << columns) - 1);
      const __m512 input = _mm512_maskz_loadu_ps(mask, input_scale);
      for (int i = 0; i < kEdge; ++i) {
        const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(weight_scale[i]), input);
        const __m512 sum = _mm512_maskz_loadu_ps(mask, sums + i * columns);
        float* const at = total_ + i * kEdge;
        _mm512_store_ps(at, _mm512_fmadd_ps(sum, scale, _mm512_load_ps(at)));
      }
    }
  }
  // out: of the panel's first weight row.
  void store(const Panel& p, float* out, int64_t out_stride) const {
    if (x_.rows == 1) {
      _mm512_mask_storeu_ps(out, static_cast<__mmask16>((1u << p.rows) - 1), lanes_);
      return;
    }
    for (int32_t m = 0; m < x_.rows; ++m) {
      for (int64_t i = 0; i < p.rows; ++i) out[m * out_stride + i] = total_[i * kEdge + m];
    }
  }

 private:
  const CpuWeight& w_;
  const Packed& x_;
  float* total_;                        // [16 weight rows][16]
  __m512 lanes_ = _mm512_setzero_ps();  // of a single input row: lanes are weight rows
};

// Up to 16 input rows, as an assembly line: while a panel is decoded, the one before is multiplied and the
// sums of the one before that are added up. So decoding and tile instructions run side by side, and nothing
// waits for what was only just stored.
template <Dtype dtype>
void linear_few(const CpuWeight& w, int64_t n0, int64_t n1, const Packed& x, float* out, int64_t out_stride,
                unsigned char* scratch) {
  const int64_t stride = 4 * int64_t{x.rows};
  auto* const sums = reinterpret_cast<float*>(scratch + 2 * kPanelBytes);  // [kPanelBlocks][16][input rows]
  Totals totals(w, x, sums + kPanelBlocks * kEdge * kEdge);
  Panel next, now, done;
  now.tiles = next.tiles = scratch;
  int64_t n = n0, block = 0;
  for (int parity = 0;; parity ^= 1) {
    done = now;
    now = next;
    next.tiles = scratch + parity * kPanelBytes;
    next.n = n;
    next.rows = std::clamp<int64_t>(n1 - n, 0, kEdge);
    next.block = block;
    next.blocks = next.rows > 0 ? std::min(kPanelBlocks, x.blocks - block) : 0;
    block += kPanelBlocks;
    if (block >= x.blocks) {
      block = 0;
      n += kEdge;
    }
    const unsigned char* const input =
        static_cast<const unsigned char*>(x.values) + now.block * kSteps * kEdge * stride;
    const bool whole = next.rows == kEdge && w.cols % kBlock == 0 && next.blocks == kPanelBlocks &&
                       now.blocks == kPanelBlocks;
    if (parity == 0) {
      whole ? turn<dtype, true, 0>(w, next, now, input, stride, sums)
            : turn<dtype, false, 0>(w, next, now, input, stride, sums);
    } else {
      whole ? turn<dtype, true, 1>(w, next, now, input, stride, sums)
            : turn<dtype, false, 1>(w, next, now, input, stride, sums);
    }
    if (done.blocks > 0) {
      totals.add(done, sums);
      if (done.block + done.blocks == x.blocks) totals.store(done, out + done.n - n0, out_stride);
      if (now.blocks == 0) return;
    }
  }
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
  if (groups == 1) {
    linear_few<dtype>(w, n0, n1, x, out, out_stride, scratch);
    fence();
    _tile_release();
    return;
  }
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
