// Rows of input as linears take them: as f32 for the plain kernels, as codes for the tensor cores.
#pragma once

#include <cstdint>

namespace dsv::cuda {

// Packed input of a linear, for the plain kernels: rounded as the number format says, as f32; rows padded
// with zeros to this many values.
inline constexpr int64_t padded(int64_t n) { return (n + 15) / 16 * 16; }
enum class Rounding : int32_t { none, bf16, e4m3 };
// The input of a linear of either kind of weight.
struct PackedPair {
  const float* e4m3;   // for FP8 weights
  const float* other;  // for the others
};

// Packed input for the tensor cores: codes of the weight's kind, rows padded with zeros to whole blocks.
inline constexpr int64_t kTensorBlock = 128;  // bytes
inline constexpr int tensor_blocks(int64_t row_bytes) {
  return static_cast<int>((row_bytes + kTensorBlock - 1) / kTensorBlock);
}
// How rows of e4m3 lie in memory: scales of 128 values each as [R, blocks]; as [blocks, R], what
// linear_fp8.cu copies to shared memory; or so with the codes as f16, each block in the order of its mma
// steps (spread_word), what linear_wgmma.cu copies.
enum class PackedForm : int32_t { by_row, by_block, spread };
struct PackedRows {
  const unsigned char* data = nullptr;  // [R, pitch]: e4m3 or bf16
  int64_t pitch = 0;                    // bytes
  const float* scale = nullptr;         // e4m3: [R, scale_cols] or [blocks, scale_cols]
  int64_t scale_cols = 0;
  PackedForm form = PackedForm::by_row;
};
// Where the two halves of word i of a spread row's e4m3 codes go, in words: to this one, and 4 on. Word 4 t +
// j of a unit of 16 is lane t's part of step j (tensor.cuh); a step has 8 words, its columns 0 to 7 first.
inline constexpr int64_t spread_word(int64_t i) { return (i / 16 * 4 + i % 4) * 8 + i / 4 % 4; }
// Rows of e4m3 or bf16 codes in one piece of memory: the codes and, behind them, the scales of e4m3.
inline constexpr int64_t packed_pitch(int64_t cols, Rounding rounding) {
  return tensor_blocks(rounding == Rounding::e4m3 ? cols : 2 * cols) * kTensorBlock;
}
inline constexpr int64_t packed_bytes(int64_t rows, int64_t cols) {  // enough for any form, f32 included
  const int64_t blocks = tensor_blocks(cols), f32 = 4 * padded(cols);
  const int64_t codes = 2 * packed_pitch(cols, Rounding::e4m3) + 4 * blocks;
  return rows * (codes > f32 ? codes : f32) + 12 * blocks;
}
inline PackedRows packed_rows(void* memory, int64_t rows, int64_t cols, Rounding rounding,
                              PackedForm form = PackedForm::by_row) {
  const int64_t pitch = packed_pitch(cols, rounding) * (form == PackedForm::spread ? 2 : 1);
  const auto* data = static_cast<const unsigned char*>(memory);
  if (rounding != Rounding::e4m3) return {data, pitch};
  const int64_t scale_cols = form == PackedForm::by_row ? tensor_blocks(cols) : (rows + 3) / 4 * 4;
  return {data, pitch, reinterpret_cast<const float*>(data + rows * pitch), scale_cols, form};
}

// Rows of codes that a kernel writes: e4m3 by block of SwiGLU's values and of heads, else bf16.
struct CodesOut {
  unsigned char* data = nullptr;  // [R, pitch]
  int64_t pitch = 0;              // bytes
  float* scale = nullptr;         // e4m3: [blocks, scale_cols]
  int64_t scale_cols = 0;
  int64_t part = 0;  // bf16: if not 0, so many neighbours, a multiple of 32, have as much room behind them
};
// .. those of `rows` from row `first` on.
inline CodesOut codes_out(const PackedRows& rows, int64_t first = 0) {
  return {const_cast<unsigned char*>(rows.data) + first * rows.pitch, rows.pitch,
          rows.scale ? const_cast<float*>(rows.scale) + first : nullptr, rows.scale_cols};
}

}  // namespace dsv::cuda
