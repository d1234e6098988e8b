// Matrices as Hopper's copy engine knows them: tensor_map.cu.
#pragma once

#include <cstdint>

#include "kernels/cuda/packed.h"
#include "kernels/cuda/views.h"

namespace dsv::cuda {

// What Hopper's copy engine knows of a matrix (a CUtensorMap).
struct alignas(128) TensorMap {
  uint64_t words[16] = {};
};
// Of bytes: in boxes of 128 columns and kMapRows rows.
inline constexpr int kMapRows = 64;
bool wgmma_works();  // whether the current device has that engine, and Hopper's tensor cores
TensorMap weight_map(const WeightView&, int64_t box_rows = kMapRows);
TensorMap input_map(const PackedRows&, int64_t rows, int64_t box_rows = kMapRows);
TensorMap scale_map(const PackedRows&, int64_t rows, int64_t blocks, int64_t box);  // not of form by_row

}  // namespace dsv::cuda
