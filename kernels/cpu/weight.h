// A weight of the CPU backend: the bytes as they lie in the mapped checkpoint.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "backend/ops.h"

namespace dsv::cpu {

struct CpuWeight {
  Dtype dtype = Dtype::f32;
  int64_t rows = 0, cols = 0;
  const unsigned char* data = nullptr;       // [rows, cols], not aligned
  const unsigned char* scale_inv = nullptr;  // f8_e4m3: f32 [ceil(rows/128), ceil(cols/128)], not aligned
  std::vector<float> vector;                 // rows == 1 only: the values as f32

  int64_t row_bytes() const { return cols * dtype_bytes(dtype); }
  const unsigned char* row(int64_t r) const { return data + r * row_bytes(); }
  // Scale of the block that holds (row, 128 * block); 1 for dtypes without scales.
  float scale(int64_t row, int64_t block) const {
    if (scale_inv == nullptr) return 1.0f;
    const int64_t blocks = (cols + kQuantBlock - 1) / kQuantBlock;
    float value;
    std::memcpy(&value, scale_inv + 4 * (row / kQuantBlock * blocks + block), sizeof value);
    return value;
  }
};

inline const CpuWeight& cpu_weight(const Weight* weight) {
  return *reinterpret_cast<const CpuWeight*>(weight);
}

}  // namespace dsv::cpu
