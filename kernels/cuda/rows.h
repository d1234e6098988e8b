// Launches on rows of activations: rows.cu.
#pragma once

#include <cstdint>

#include "kernels/cuda/packed.h"
#include "kernels/cuda/views.h"

namespace dsv::cuda {

// Words from or to pinned host memory, which a launch reaches sooner than a copy begins. For few.
struct CopyWordsArgs {
  int64_t words;
  const int32_t* from;
  int32_t* to;  // out
};
void launch_copy_words(const CopyWordsArgs&, Stream);

struct AnglesArgs {  // cos and sin of position * inv_freq
  int32_t rows;
  const int32_t* position;  // [R]
  const double* inv_freq;   // [half]
  int64_t half;
  double mscale;
  float* cos;  // out [R, half]
  float* sin;
};
void launch_angles(const AnglesArgs&, Stream);

struct EmbedRowsArgs {  // x[r] = table[token[r]]
  int32_t rows;
  WeightView table;
  const int32_t* token;     // [R]
  const int32_t* position;  // [R]: the row is zero at position 0; or null
  float* x;                 // out [R, cols]
  int64_t x_stride;
};
void launch_embed(const EmbedRowsArgs&, Stream);

struct NormArgs {  // x' = x + delta; out = x' / sqrt(mean(x'^2) + eps) * weight
  int32_t rows;
  int64_t n;
  const int32_t* row;  // [R] row of x and delta to take; or null: the same
  const float* x;
  int64_t x_stride;
  ValueRows delta;  // or none. bf16: for launch_norm_many
  int64_t delta_stride;
  float* x_out;         // x' goes here; or null. May be x, out may be x.
  const float* weight;  // [n]
  float eps;
  bool to_bf16;  // round `out`
  float* out;    // or null, if codes are enough
  int64_t out_stride;
  // `out` as codes, as packed_rows says; or null.
  unsigned char *e4m3 = nullptr, *bf16 = nullptr;
  PackedForm form = PackedForm::by_row;  // of e4m3
  bool power_of_two = false;
};
void launch_norm(const NormArgs&, Stream);
// The groups of 128 values of a norm's row: each warp has `rounds` of them, `warps` apart, and adds them up
// before the warps' sums are. The kernels keep up to kNormRounds of a warp's in registers.
inline constexpr int kNormWarps = 32, kNormRounds = 2;
struct NormShape {
  int64_t groups, rounds;
  int warps;
  explicit constexpr NormShape(int64_t n)
      : groups((n + 127) / 128),
        rounds((groups + kNormWarps - 1) / kNormWarps),
        warps(static_cast<int>((groups + rounds - 1) / rounds)) {}
};
// norm_many.cu: the same bits sooner, for many rows in whole fours.
inline constexpr int32_t kNormManyRows = 1024;
bool takes_norm_many(const NormArgs&);
void launch_norm_many(const NormArgs&, Stream);

struct UnpackArgs {  // x[r] = the values of bf16 codes, as packed_rows has them
  int32_t rows;
  int64_t cols;
  PackedRows from;
  float* x;  // out [R, cols]
};
void launch_unpack(const UnpackArgs&, Stream);

struct PackArgs {  // out = x rounded, padded with zeros
  int32_t rows;
  int64_t cols;
  const float* x;
  int64_t x_stride;
  Rounding rounding;
  bool power_of_two;  // e4m3 scales
  float* out;         // [R, padded(cols)]: dequantised values
};
void launch_pack(const PackArgs&, Stream);

struct PackCodesArgs {  // x as codes, for the tensor cores
  int32_t rows;
  int64_t cols;
  const float* x;
  int64_t x_stride;
  Rounding rounding;   // bf16 or e4m3
  bool power_of_two;   // e4m3 scales
  unsigned char* out;  // as packed_rows says
  PackedForm form = PackedForm::by_row;
};
void launch_pack_codes(const PackCodesArgs&, Stream);

struct GatherRowsArgs {  // out[p] = from[row[p]], as packed_rows has e4m3 rows of its form
  int32_t rows;
  PackedRows from;
  const int32_t* row;  // [R]
  int32_t blocks;      // of a row
  unsigned char* out;
};
void launch_gather_rows(const GatherRowsArgs&, Stream);

// .. of queries. In `fast` on Hopper they end in bf16, a head's in the first half of its place: those of the
// released geometry.
enum class QueryForm : int32_t { f32, f32_to_bf16, bf16 };
struct RopeQueryArgs {  // in place: RoPE interleaved on the last rope values of each head, then rounding
  int32_t rows;
  int32_t heads;
  int64_t head_dim, rope;
  const float* cos;  // [R, rope / 2]
  const float* sin;
  bool to_bf16;
  float* q;                         // [R, heads * head_dim]
  QueryForm form = QueryForm::f32;  // bf16: what is there is, too
};
void launch_rope_query(const RopeQueryArgs&, Stream);

}  // namespace dsv::cuda
