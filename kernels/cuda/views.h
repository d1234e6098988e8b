// What the kernels' arguments share: matrices, a batch's rows and the cache as they lie in the GPU's memory.
//
// Each family of kernels has a header of its arguments (rows.h, linear.h, ...): one struct each, every
// pointer with its shape, all in device memory. The launch_* functions enqueue and return; a kernel's bound
// is derived at its head in the .cu file. Rows of activations are f32, `*_stride` values apart. R rows of the
// launch.
#pragma once

#include <cstdint>

#include "backend/geometry.h"
#include "backend/weights.h"

namespace dsv::cuda {

using Stream = void*;

// Rows of values as f32; or as bf16, in `fast`: as packed_rows has it, but for queries.
struct ValueRows {
  const void* data = nullptr;
  bool bf16 = false;
  ValueRows() = default;
  ValueRows(const void* rows, bool in_bf16 = false) : data(rows), bf16(in_bf16) {}
};

// Shared memory that a block can have on every GPU from sm_80 on.
inline constexpr int64_t kPortableShared = 99 * 1024;

// A matrix on the device. Rows are padded with zeros to whole 16-byte chunks.
struct WeightView {
  const unsigned char* data = nullptr;  // [rows, pitch] bytes, 256-byte aligned
  const float* scale = nullptr;         // f8_e4m3: [ceil(rows / 128), scale_cols]
  int64_t rows = 0, cols = 0;
  int64_t pitch = 0;  // bytes of a row
  int32_t scale_cols = 0;
  Dtype dtype = Dtype::f32;
};

inline constexpr int64_t weight_pitch(Dtype dtype, int64_t cols) {
  return (cols * dtype_bytes(dtype) + 15) / 16 * 16;
}

// Where the rows of a batch are and what they see.
struct StepView {
  const int32_t* token = nullptr;       // [rows]
  const int32_t* position = nullptr;    // [rows]
  const int32_t* sequence = nullptr;    // [rows]
  const int32_t* page_table = nullptr;  // [sequences, page_stride]
  int32_t page_stride = 0;
  const float* cos = nullptr;  // [rows, rope / 2] of the position, times rope_mscale
  const float* sin = nullptr;
};

// One cache layer (KvLayout).
struct CacheView {
  unsigned char* latent = nullptr;  // [pages][64][latent_row_bytes]
  unsigned char* index = nullptr;   // [pages][index_page_bytes]
  int64_t latent_row_bytes = 0, index_page_bytes = 0;
  int64_t rank = 0, rope = 0, index_dim = 0;
  bool official = false;
};

}  // namespace dsv::cuda
