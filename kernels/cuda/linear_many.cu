// Linears and SwiGLU for many rows of input: tiles of outputs by rows, blocks of columns through shared
// memory.
//
// Bound: the tensor cores, which mma.sync drives at an expected 60% of their rate on Hopper (some 600
// TFLOP/s) and fully before; below some 200 rows the weight's bytes. A warp's 64 x 32 tile reads (64 + 32) *
// 16 bytes of shared memory for an mma step of 65 kFLOP: half of what the memory gives. From L2 a block of
// 128 x 128 reads 32 KB a block of columns (4.2 MFLOP): 4.7 TB/s at 600 TFLOP/s.
#include "kernels/cuda/tensor.cuh"

namespace dsv::cuda {
namespace {

// A block of threads' tile and its warps'. Outputs are rows of the weight, of gate and up together for
// SwiGLU.
template <int kOutputs_, int kRows_, int kWarpOutputs_, int kWarpRows_, int kStages_>
struct Shape {
  static constexpr int kOutputs = kOutputs_, kRows = kRows_, kStages = kStages_;
  static constexpr int kTiles = kWarpOutputs_ / kMmaRows, kGroups = kWarpRows_ / kMmaCols;  // of a warp
  static constexpr int kWarpsDown = kOutputs / kWarpOutputs_, kWarpsAcross = kRows / kWarpRows_;
  static constexpr int kThreads = kWarpsDown * kWarpsAcross * kWarp;
  static_assert(kWarpOutputs_ % (2 * kMmaRows) == 0, "gate and up of the same outputs are in one warp");
};
using Middle = Shape<64, 64, 32, 16, 4>;
using Large = Shape<128, 128, 64, 32, 3>;
// Of bf16 weights of few outputs, a router's: fewer warps of larger tiles where there are blocks enough, or
// else smaller tiles (256 x 7168, 4096 rows: 90 us for 106; 64 x 7168: 46 for 67).
constexpr int64_t kFewOutputs = 1024;
using Dense = Shape<64, 64, 32, 32, 4>;
using Flat = Shape<64, 32, 32, 16, 4>;

// A stage of shared memory: a block of the weight's rows, the same of the input's, scales of the input's
// rows.
template <TensorFormat kFormat, class S>
struct StageOf {
  static constexpr int kBlock = static_cast<int>(kTensorBlock), kInputRow = input_chunks(kFormat) * kBlock;
  static constexpr int kInput = S::kOutputs * kBlock, kScales = kInput + S::kRows * kInputRow;
  static constexpr int kBytes = kScales + 4 * S::kRows, kSharedBytes = S::kStages * kBytes;
  static_assert(kSharedBytes <= 99 * 1024, "every card has this much");

  // Where chunk c (16 bytes) of row r lies, so that eight lanes that read the same unit of two neighbouring
  // rows meet all banks.
  __device__ static __forceinline__ int weight_at(int r, int c) { return r * kBlock + (c ^ r % 2 * 4) * 16; }
  __device__ static __forceinline__ int input_at(int r, int c) {
    return kInput + r * kInputRow + (c ^ r % 2 * (kFormat == TensorFormat::mixed ? 1 : 4)) * 16;
  }
};

// Grid: x tiles of rows, y outputs. With kSwiglu, 16 rows of the tile are of gate, the next 16 the same of
// up.
template <TensorFormat kFormat, bool kSwiglu, bool kSplit, class S>
__global__ void __launch_bounds__(S::kThreads) many_kernel(TensorArgs a) {
  using Stage = StageOf<kFormat, S>;
  constexpr int kInputChunks = input_chunks(kFormat);
  constexpr int kChunks = kTensorBlock / 16, kTileOutputs = kSwiglu ? S::kOutputs / 2 : S::kOutputs;
  TensorTile tile;
  if (!tensor_tile(a, static_cast<int32_t>(blockIdx.x), blockIdx.z, &tile)) return;
  unsigned char* const shared = shared_memory();
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const int warp_output = warp % S::kWarpsDown * S::kTiles * kMmaRows;
  const int warp_row = warp / S::kWarpsDown * S::kGroups * kMmaCols;
  const int64_t first_output = int64_t{blockIdx.y} * kTileOutputs;
  const int chunks = static_cast<int>(tile.weight.pitch / 16), blocks = tensor_blocks(tile.weight.pitch);

  // Each thread copies chunk threadIdx.x % 8 of every kStep-th row. Rows past the last one are zeros.
  constexpr int kStep = S::kThreads / kChunks, kMyOutputs = S::kOutputs / kStep, kMyRows = S::kRows / kStep;
  static_assert(S::kOutputs % kStep == 0 && S::kRows % kStep == 0 && S::kThreads >= S::kRows);
  const int my_row = threadIdx.x / kChunks, my_chunk = threadIdx.x % kChunks;
  const unsigned char *w[kMyOutputs], *x[kMyRows];
#pragma unroll
  for (int i = 0; i < kMyOutputs; ++i) {
    const int r = my_row + i * kStep;
    const WeightView& view = kSwiglu && r / kMmaRows % 2 ? tile.up : tile.weight;
    const int64_t row = first_output + (kSwiglu ? r / (2 * kMmaRows) * kMmaRows + r % kMmaRows : r);
    w[i] = row < a.outputs ? view.data + row * view.pitch + 16 * my_chunk : nullptr;
  }
#pragma unroll
  for (int i = 0; i < kMyRows; ++i) {
    const int r = my_row + i * kStep;
    x[i] = r < tile.count ? tile.x + input_row(a, tile, r) * a.x.pitch + 16 * my_chunk : nullptr;
  }
  const float* x_scale = nullptr;
  if (input_scaled(kFormat) && static_cast<int>(threadIdx.x) < tile.count) {
    x_scale = a.x.scale + input_row(a, tile, static_cast<int>(threadIdx.x)) * a.x.scale_cols;
  }
  const auto fill = [&](int block) {
    unsigned char* const stage = shared + block % S::kStages * Stage::kBytes;
    const bool inside = block * kChunks + my_chunk < chunks;
#pragma unroll
    for (int i = 0; i < kMyOutputs; ++i) {
      const bool valid = inside && w[i];
      copy_async_16(stage + Stage::weight_at(my_row + i * kStep, my_chunk),
                    valid ? w[i] + block * kTensorBlock : a.x.data, valid);
    }
#pragma unroll
    for (int i = 0; i < kMyRows; ++i) {
#pragma unroll
      for (int c = 0; c < kInputChunks; ++c) {  // the second half of a longer row: 8 chunks on
        copy_async_16(stage + Stage::input_at(my_row + i * kStep, my_chunk + c * kChunks),
                      x[i] ? x[i] + (block * kInputChunks + c) * kTensorBlock : a.x.data, x[i]);
      }
    }
    if (input_scaled(kFormat) && threadIdx.x < S::kRows) {
      copy_async_4(stage + Stage::kScales + 4 * threadIdx.x, x_scale ? x_scale + block : a.x.scale, x_scale);
    }
  };

  const auto scales_of = [&](const WeightView& view) {
    return weight_scaled(kFormat) ? view.scale + first_output / kQuantBlock * view.scale_cols : nullptr;
  };
  static_assert(kQuantBlock % kTileOutputs == 0);
  const float* const w_scale[2] = {scales_of(tile.weight), scales_of(kSwiglu ? tile.up : tile.weight)};

  MmaSums sums[S::kTiles][S::kGroups], part[S::kTiles][S::kGroups], total[S::kTiles][S::kGroups];
  const int splits = kSplit ? tensor_splits(a) : 1;
  int split = 0;
#pragma unroll
  for (int s = 0; s < S::kStages - 1; ++s) {
    if (s < blocks) fill(s);
    copy_commit();
  }
  for (int block = 0; block < blocks; ++block) {
    copy_wait<S::kStages - 2>();
    __syncthreads();  // the block has come for every thread, and all are done with the one before
    if (block + S::kStages - 1 < blocks) fill(block + S::kStages - 1);
    copy_commit();
    const unsigned char* const stage = shared + block % S::kStages * Stage::kBytes;
    float weight_scale[2] = {1, 1};
    if constexpr (weight_scaled(kFormat)) {
      weight_scale[0] = w_scale[0][block];
      weight_scale[1] = kSwiglu ? w_scale[1][block] : weight_scale[0];
    }
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const auto chunk = [&](int at) { return *reinterpret_cast<const uint4*>(stage + at); };
      const int c = u * (kUnitBytes / 16) + t;
      Operand<kFormat> b[S::kGroups];
#pragma unroll
      for (int n = 0; n < S::kGroups; ++n) {
        uint4 raw[kInputChunks];
#pragma unroll
        for (int i = 0; i < kInputChunks; ++i) {
          raw[i] = chunk(Stage::input_at(warp_row + n * kMmaCols + g, kInputChunks * c + i));
        }
        b[n].set_input(raw);
      }
#pragma unroll
      for (int m = 0; m < S::kTiles; ++m) {
        Operand<kFormat> a0, a1;
        a0.set_weight(chunk(Stage::weight_at(warp_output + m * kMmaRows + g, c)));
        a1.set_weight(chunk(Stage::weight_at(warp_output + m * kMmaRows + g + 8, c)));
#pragma unroll
        for (int j = 0; j < Operand<kFormat>::kSteps; ++j) {
#pragma unroll
          for (int n = 0; n < S::kGroups; ++n) add_step<kFormat>(sums[m][n], a0, a1, b[n], j);
        }
      }
    }
    const auto* x_scales = reinterpret_cast<const float*>(stage + Stage::kScales) + warp_row;
#pragma unroll
    for (int n = 0; n < S::kGroups; ++n) {
      float scale[2] = {1, 1};
      if constexpr (input_scaled(kFormat)) {
        scale[0] = x_scales[n * kMmaCols + 2 * t], scale[1] = x_scales[n * kMmaCols + 2 * t + 1];
      }
#pragma unroll
      for (int m = 0; m < S::kTiles; ++m) {
        end_block<kFormat>(part[m][n], sums[m][n], weight_scale[m % 2], scale[0], scale[1]);
      }
    }
    if (!kSplit || block + 1 != blocks * (split + 1) / splits) continue;
    ++split;
#pragma unroll
    for (int m = 0; m < S::kTiles; ++m) {
#pragma unroll
      for (int n = 0; n < S::kGroups; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          total[m][n].value[i] += part[m][n].value[i];
          part[m][n].value[i] = 0;
        }
      }
    }
  }

  const auto& result = kSplit ? total : part;
#pragma unroll
  for (int m = 0; m < S::kTiles; m += kSwiglu ? 2 : 1) {
#pragma unroll
    for (int n = 0; n < S::kGroups; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = warp_row + n * kMmaCols + 2 * t + i % 2, o = g + i / 2 * 8;
        const int64_t output = first_output + (warp_output + m * kMmaRows) / (kSwiglu ? 2 : 1) + o;
        if (row >= tile.count || output >= a.outputs) continue;
        const float sum = result[m][n].value[i];
        const float y = kSwiglu ? swiglu(sum, result[m + kSwiglu][n].value[i]) : sum;
        store_output(a, tile, row, output, y);
      }
    }
  }
}

template <TensorFormat kFormat, bool kSwiglu, class S>
void launch_shape(const TensorArgs& a, Stream stream) {
  constexpr int kTileOutputs = kSwiglu ? S::kOutputs / 2 : S::kOutputs;
  const Grid grid = {a.tile_bound, (a.outputs + kTileOutputs - 1) / kTileOutputs, a.groups};
  if (tensor_splits(a) == 1) {
    return launch(many_kernel<kFormat, kSwiglu, false, S>, grid, S::kThreads,
                  StageOf<kFormat, S>::kSharedBytes, stream, a);
  }
  launch(many_kernel<kFormat, kSwiglu, true, S>, grid, S::kThreads, StageOf<kFormat, S>::kSharedBytes, stream,
         a);
}

template <TensorFormat kFormat, bool kSwiglu>
void launch_shapes(const TensorArgs& a, Stream stream) {
  if (a.tile_rows > Middle::kRows) return launch_shape<kFormat, kSwiglu, Large>(a, stream);
  if constexpr (kFormat == TensorFormat::bf16 && !kSwiglu) {
    if (!a.tiles && a.groups == 1 && a.outputs <= kFewOutputs && a.tile_rows == Dense::kRows) {
      if (a.tile_bound * ((a.outputs + Dense::kOutputs - 1) / Dense::kOutputs) > processors())
        return launch_shape<kFormat, kSwiglu, Dense>(a, stream);
      TensorArgs flat = a;
      flat.tile_rows = Flat::kRows, flat.tile_bound = (a.rows + Flat::kRows - 1) / Flat::kRows;
      return launch_shape<kFormat, kSwiglu, Flat>(flat, stream);
    }
  }
  launch_shape<kFormat, kSwiglu, Middle>(a, stream);
}

template <TensorFormat kFormat>
void launch_kind(const TensorArgs& a, Stream stream) {
  if (a.kind == TensorKind::swiglu) return launch_shapes<kFormat, true>(a, stream);
  launch_shapes<kFormat, false>(a, stream);
}

}  // namespace

void launch_tensor_many(const TensorArgs& a, Stream stream) {
  const TensorFormat format = tensor_format(a);
  if (format == TensorFormat::e4m3) return launch_kind<TensorFormat::e4m3>(a, stream);
  if (format == TensorFormat::bf16) return launch_kind<TensorFormat::bf16>(a, stream);
  launch_shape<TensorFormat::mixed, false, Middle>(a, stream);  // tile_rows <= 64
}

}  // namespace dsv::cuda
