// Linears and FFNs: the plain kernels' linear (linear.cu), and those of the tensor cores (linear_few.cu,
// linear_many.cu, linear_wgmma.cu, linear_fp8.cu, linear_fp8_few.cu, heads_wgmma.cu, values.cu).
#pragma once

#include <cstdint>

#include "kernels/cuda/ffn.h"
#include "kernels/cuda/packed.h"
#include "kernels/cuda/views.h"

namespace dsv::cuda {

// y[r, g, o] = factor * W[g * group_rows + first_row + o] . x[r, g]   for o < outputs, g < groups
struct LinearArgs {
  int32_t rows;
  WeightView weight;
  const float* x;  // packed: [R] rows of x_stride values, [groups] of x_group_stride in each
  int64_t x_stride;
  float* y;
  int64_t y_stride, y_group_stride;
  float factor;
  bool to_bf16;  // round y
  // One plain matrix is one group of all its rows.
  int32_t groups;
  int64_t group_rows, first_row, outputs, x_group_stride;
};
void launch_linear(const LinearArgs&, Stream);

// Splits of a sum over a weight's columns: by the weight's shape alone, so that a matrix of few outputs keeps
// the whole GPU busy (1024 warps of 16 outputs are 8 a processor) and a split is two blocks at least.
inline constexpr int tensor_splits(int64_t outputs, int64_t row_bytes) {
  int splits = 1;
  while (splits < 8 && (outputs + 15) / 16 * splits < 1024 && tensor_blocks(row_bytes) >= 4 * splits)
    splits *= 2;
  return splits;
}

enum class TensorKind : int32_t { linear, swiglu, down };
enum class TensorFormat : int32_t { e4m3, bf16, mixed };  // mixed: FP8 weight, bf16 input
struct LinearPart {                                       // y[r, o] = factor * W x_r
  WeightView weight;
  float* y = nullptr;
  int64_t y_stride = 0;
};
// FP8 weights with e4m3 input, bf16 ones with bf16 input, or a linear's FP8 weight with bf16 input (tiles of
// 64 rows at most), on the tensor cores.
//   linear: y[r, o] = factor * W x_r            down: y[p] = ffn.down x_p
//   swiglu: y[p] = silu(gate x[row of p]) * up x[row of p]
// FFNs: pairs are those of `tiles`; with tiles null, row r is pair r and all are of ffn[0].
struct TensorArgs {
  TensorKind kind;
  Dtype dtype;   // f8_e4m3 or bf16: of every weight of the launch
  int32_t rows;  // of y
  PackedRows x;
  WeightView weight;        // of a linear
  const FfnView* ffn;       // of the others: [experts]
  const ExpertTile* tiles;  // or null
  const int32_t* n_tiles;
  const int32_t* pair_row;  // [rows]: row of x; or null: the same
  int32_t tile_bound;       // tiles at most; with tiles null, how many there are
  int32_t tile_rows;        // rows of a tile at most
  int64_t outputs, pitch;   // of the weight: its rows, and bytes of one
  float* y;                 // out [rows, y_stride]
  int64_t y_stride;
  float factor;
  bool to_bf16;  // round y
  // A linear's weight may be many, each for its own part of x and y: y[r, g, o] = W[g * group_rows +
  // first_row + o] x[r, g]. Both are multiples of 128, and a part of x is whole blocks.
  int32_t groups = 1;
  int64_t group_rows = 0, first_row = 0;
  int64_t x_group = 0, y_group = 0;  // bytes, values
  bool fp8_sums = false;             // on Hopper's FP8 tensor cores, in tiles of kFp8Rows: other bits
  // For few rows a linear may be several of the same input in one launch, each of as many splits.
  LinearPart second = {}, third = {};
  int32_t n_more = 0;
  bool early = true;    // the launch before is in the same stream, and the only one that this one follows
  CodesOut codes = {};  // linear_fp8.cu, heads_wgmma.cu: what is written instead of y, if there is data
  bool power_of_two = false;  // their scales
};
// .. A token of routed experts has several weights at a time.
inline constexpr int tensor_splits(const TensorArgs& a) {
  return tensor_splits(a.outputs * a.groups * (a.tiles ? 8 : 1), a.pitch);
}
inline TensorFormat tensor_format(const TensorArgs& a) {
  return a.dtype == Dtype::bf16 ? TensorFormat::bf16 : a.x.scale ? TensorFormat::e4m3 : TensorFormat::mixed;
}
// Tiles of 8, 16 or 32 rows, and of 64 or 128: one K order, so the same bits.
inline constexpr int32_t kFewRows = 32;
void launch_tensor_few(const TensorArgs&, Stream);
void launch_tensor_many(const TensorArgs&, Stream);
// On Hopper tiles of up to 128 rows of spread input: the same bits again. Splits may be worked on side by
// side, by 1, 2, 4 or 8 blocks of threads a tile of 64 rows; 0: one after another, in tiles of 128.
inline constexpr int32_t kWgmmaRows = 128;
void launch_tensor_wgmma(const TensorArgs&, Stream);
void launch_tensor_wgmma_as(const TensorArgs&, Stream, int side_by_side);
bool wgmma_takes_side_by_side(const TensorArgs&, int blocks);
int wgmma_side_by_side(const TensorArgs&);  // the quickest
// .. or of up to 256 rows for FP8 sums. Both take what the copy engine can read: rows of x one after another
// (pair_row is null), and FFNs with maps.
inline constexpr int32_t kFp8Rows = 256, kFp8Pairs = 192;  // pairs: of routed experts
void launch_tensor_fp8(const TensorArgs&, Stream);
// .. of a linear, in the quickest of so many forms of tiles, all with the same bits (the first: as above).
inline constexpr int kFp8Forms = 5;
void launch_tensor_fp8_tiles(const TensorArgs&, Stream);
void launch_tensor_fp8_tiles_as(const TensorArgs&, Stream, int form);
// .. of up to kFp8FewRows rows all together, of one weight.
inline constexpr int32_t kFp8FewRows = 128;
void launch_tensor_fp8_few(const TensorArgs&, Stream);
int fp8_few_outputs(bool swiglu, int64_t outputs);  // of a tile: rows of each weight
// linear_bf16.cu: a bf16 weight of few outputs for many rows on Hopper, in other bits.
inline constexpr int32_t kBf16LeastRows = 512;
bool takes_linear_bf16(const TensorArgs&);
void launch_linear_bf16(const TensorArgs&, Stream);
void launch_linear_bf16_as(const TensorArgs&, Stream, bool by_rows);  // .. in either form
// heads_wgmma.cu: W_v of many rows on Hopper, the same bits.
inline constexpr int32_t kHeadsLeastRows = 128;
bool takes_heads_wgmma(const TensorArgs&);
void launch_heads_wgmma(const TensorArgs&, Stream);
inline bool few_for_fp8(bool tiles, int32_t rows) { return !tiles && rows <= kFp8FewRows; }
inline void launch_tensor(const TensorArgs& a, Stream stream) {
  if (a.fp8_sums) {
    return few_for_fp8(a.tiles, a.rows)   ? launch_tensor_fp8_few(a, stream)
           : a.kind == TensorKind::linear ? launch_tensor_fp8_tiles(a, stream)
                                          : launch_tensor_fp8(a, stream);
  }
  if (a.x.form == PackedForm::spread) return launch_tensor_wgmma(a, stream);
  a.tile_rows <= kFewRows ? launch_tensor_few(a, stream) : launch_tensor_many(a, stream);
}
// Rows of a tile for a launch in which weights of all these outputs meet about so many rows. Large tiles use
// the tensor cores best, if there are enough (tiles are 128 x 128) for a GPU of some 130 processors.
inline constexpr int32_t tensor_tile_rows(int64_t rows, int64_t outputs) {
  if (rows <= 32) return rows <= 8 ? 8 : rows <= 16 ? 16 : 32;
  return rows > 64 && (rows + 127) / 128 * ((outputs + 127) / 128) >= 130 ? 128 : 64;
}
// The linear of a whole weight, without y.
inline TensorArgs linear_args(const WeightView& w, PackedRows x, int32_t rows) {
  TensorArgs args = {};
  args.kind = TensorKind::linear;
  args.dtype = w.dtype;
  args.rows = rows;
  args.x = x;
  args.weight = w;
  args.tile_rows = tensor_tile_rows(rows, w.rows);
  // A few tiles of 64 rows would leave most of the GPU idle; those of 32 cut the columns, too.
  if (w.dtype == Dtype::bf16 && rows <= 64 && w.rows <= 1024)
    args.tile_rows = args.tile_rows < kFewRows ? args.tile_rows : kFewRows;
  args.tile_bound = (rows + args.tile_rows - 1) / args.tile_rows;
  args.outputs = w.rows;
  args.pitch = w.pitch;
  args.factor = 1;
  args.groups = 1;
  args.early = true;
  return args;
}

// y[r, h, o] = W[h * group_rows + first_row + o] mixed[r, h], rounded to bf16, and y as codes: of few rows
// and heads of 128 values.
inline constexpr int32_t kValuesFewRows = 8;
struct ValuesArgs {
  int32_t rows, heads, splits;  // splits: as tensor_splits has it for all heads' values together
  WeightView weight;            // kv_b
  int64_t group_rows, first_row;
  const float* mixed;    // [R, heads, rank]
  float* y;              // out [R, heads * 128]
  unsigned char* codes;  // out: y in e4m3, as packed_rows has it; or null
  bool power_of_two;     // their scales
};
bool takes_values(const ValuesArgs&, int64_t values);
void launch_values(const ValuesArgs&, Stream);

}  // namespace dsv::cuda
