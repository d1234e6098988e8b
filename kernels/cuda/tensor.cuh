// Weights times rows of input on the tensor cores: what linear_few.cu and linear_many.cu share.
//
// The order of a sum is fixed by the weight's shape alone, so a row's result is bitwise the same whichever
// kernel computes it and whatever rows are beside it. The columns are cut into blocks of 128 bytes (128 FP8
// values with one scale, or 64 bf16 values). A block's products are added by mma instructions in one order,
// in fp32 (both formats' products are exact in it); the block's sum is scaled and added to its split's; the
// splits (tensor_splits: contiguous blocks) are added in order at the end.
//
// Weights are the 16 x 16 operand and inputs the 16 x 8 one, so few rows waste little. An mma does not care
// which columns its 16 are, as long as both operands agree: a lane takes 16 consecutive bytes of its row,
// four lanes 64 bytes (a unit), and word j of each is an mma's (FP8), or words 2 j and 2 j + 1 are (bf16).
//
// e4m3 with e4m3 is multiplied as f16; FP8 weights with bf16 input (kv_b) as bf16, which holds e4m3 as well.
#pragma once

#include "kernels/cuda/copies.cuh"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/formats.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/mma.cuh"

namespace dsv::cuda {

inline constexpr int kUnitBytes = 64, kUnits = kTensorBlock / kUnitBytes;  // of a block
inline constexpr int kMmaRows = 16, kMmaCols = 8;                          // outputs, rows of input

// Column 2 t + i % 2 and output g + i / 2 * 8 of sum i; lane = 4 g + t.
struct MmaSums {
  float value[4] = {};
};

// A weight's bytes, which nothing reads again before the cache has forgotten them.
__device__ __forceinline__ uint4 load_once(const unsigned char* at) {
#ifdef DSV_CUDA_EMULATION
  return *reinterpret_cast<const uint4*>(at);
#else
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(at));
  return v;
#endif
}

template <TensorFormat kFormat>
__device__ __forceinline__ void mma(MmaSums& sums, const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (kFormat == TensorFormat::e4m3) {
    mma_f16(sums.value, a, b[0], b[1]);
  } else {
    mma_bf16(sums.value, a, b[0], b[1]);
  }
}

inline constexpr bool weight_scaled(TensorFormat f) { return f != TensorFormat::bf16; }
inline constexpr bool input_scaled(TensorFormat f) { return f == TensorFormat::e4m3; }
// 16-byte chunks of input that go with one of the weight.
inline constexpr int input_chunks(TensorFormat f) { return f == TensorFormat::mixed ? 2 : 1; }

// A lane's columns of a unit, as words of mma operands.
template <TensorFormat kFormat>
struct Operand {
  static constexpr int kSteps = kFormat == TensorFormat::bf16 ? 2 : 4;  // mmas of a unit
  uint32_t low[kSteps], high[kSteps];                                   // columns 0 to 7, and 8 to 15

  __device__ __forceinline__ void set_weight(const uint4& raw) {
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int j = 0; j < kSteps; ++j) {
      if constexpr (kFormat == TensorFormat::bf16) {
        low[j] = words[2 * j], high[j] = words[2 * j + 1];
      } else if constexpr (kFormat == TensorFormat::mixed) {
        e4m3x4_to_bf16(words[j], low[j], high[j]);
      } else {
        e4m3x4_to_f16(words[j], low[j], high[j]);
      }
    }
  }
  __device__ __forceinline__ void set_input(const uint4 (&raw)[input_chunks(kFormat)]) {
    if constexpr (kFormat == TensorFormat::mixed) {
      low[0] = raw[0].x, high[0] = raw[0].y, low[1] = raw[0].z, high[1] = raw[0].w;
      low[2] = raw[1].x, high[2] = raw[1].y, low[3] = raw[1].z, high[3] = raw[1].w;
    } else {
      set_weight(raw[0]);
    }
  }
};

// Mma j of a unit: outputs from rows g and g + 8 of a, rows of input from row g of b. In order, all kSteps.
template <TensorFormat kFormat>
__device__ __forceinline__ void add_step(MmaSums& sums, const Operand<kFormat>& a0,
                                         const Operand<kFormat>& a1, const Operand<kFormat>& b, int j) {
  const uint32_t a[4] = {a0.low[j], a1.low[j], a0.high[j], a1.high[j]}, two[2] = {b.low[j], b.high[j]};
  mma<kFormat>(sums, a, two);
}

// part += sums, scaled if the weight is FP8; sums = 0: the end of a block.
template <TensorFormat kFormat>
__device__ __forceinline__ void end_block(MmaSums& part, MmaSums& sums, float weight_scale, float x_scale0,
                                          float x_scale1) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (kFormat == TensorFormat::bf16) {
      part.value[i] += sums.value[i];
    } else if constexpr (kFormat == TensorFormat::mixed) {
      part.value[i] = fmaf(sums.value[i], weight_scale, part.value[i]);
    } else {
      part.value[i] = fmaf(sums.value[i], weight_scale * (i % 2 ? x_scale1 : x_scale0), part.value[i]);
    }
    sums.value[i] = 0;
  }
}

// What a block of threads works on: some outputs of a weight, or of one expert's, for some rows of input.
struct TensorTile {
  WeightView weight, up;   // up only for SwiGLU
  int32_t begin, count;    // rows of y
  const unsigned char* x;  // codes of row 0
  float* y;
};

__device__ __forceinline__ bool tensor_tile(const TensorArgs& a, int32_t at, int64_t group,
                                            TensorTile* tile) {
  int32_t expert = 0;
  if (a.tiles) {
    const ExpertTile t = a.tiles[at];  // has tile_bound elements: read beside n_tiles, not after it
    if (at >= *a.n_tiles) return false;
    expert = t.expert, tile->begin = t.begin, tile->count = t.count;
  } else {
    tile->begin = at * a.tile_rows;
    tile->count = a.rows - tile->begin < a.tile_rows ? a.rows - tile->begin : a.tile_rows;
  }
  tile->x = a.x.data + group * a.x_group;
  tile->y = a.y + group * a.y_group;
  if (a.kind == TensorKind::linear) {
    const int64_t first = group * a.group_rows + a.first_row;
    tile->weight = a.weight;
    tile->weight.data += first * a.weight.pitch;
    if (a.weight.scale) tile->weight.scale += first / kQuantBlock * a.weight.scale_cols;
  } else if (a.kind == TensorKind::down) {
    tile->weight = a.ffn[expert].down;
  } else {
    tile->weight = a.ffn[expert].gate;
    tile->up = a.ffn[expert].up;
  }
  return true;
}

// Row of x of row i of a tile.
__device__ __forceinline__ int64_t input_row(const TensorArgs& a, const TensorTile& tile, int i) {
  return a.pair_row ? a.pair_row[tile.begin + i] : tile.begin + i;
}

#ifdef DSV_CUDA_EMULATION
inline float divide(float x, float y) { return x / y; }
#else
// Within 2 ulp, and without the branch of a division, which would have one wait for the other.
__device__ __forceinline__ float divide(float x, float y) { return __fdividef(x, y); }
#endif
__device__ __forceinline__ float swiglu(float gate, float up) { return divide(gate, 1 + expf(-gate)) * up; }

__device__ __forceinline__ void store_output(const TensorArgs& a, const TensorTile& tile, int64_t y_stride,
                                             int row, int64_t output, float sum) {
  const float y = sum * a.factor;
  tile.y[(tile.begin + row) * y_stride + output] = a.to_bf16 ? round_bf16(y) : y;
}
__device__ __forceinline__ void store_output(const TensorArgs& a, const TensorTile& tile, int row,
                                             int64_t output, float sum) {
  store_output(a, tile, a.y_stride, row, output, sum);
}

// Tile `at` of row_tiles x columns for persistent blocks: `together` tiles of rows go through the columns
// side by side, so that the weights and rows of tiles that run at the same time are in L2.
struct TilePlace {
  int32_t row_tile, column;
};
__device__ __forceinline__ TilePlace tile_place(int32_t at, int32_t row_tiles, int32_t columns,
                                                int32_t together) {
  const int32_t first = at / (together * columns) * together, within = at % (together * columns);
  const int32_t rows = row_tiles - first < together ? row_tiles - first : together;
  return {first + within % rows, within / rows};
}

}  // namespace dsv::cuda
