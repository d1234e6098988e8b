// Descriptions of matrices for Hopper's copy engine. The driver makes them; its function is looked up when
// first needed, so that nothing links the driver's library.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/linear.h"

#ifndef DSV_CUDA_EMULATION
#include <cuda.h>
#endif

namespace dsv::cuda {

namespace {

#ifdef DSV_CUDA_EMULATION

bool can_encode() { return true; }

TensorMap make_map(const void* data, int64_t element, int64_t rows, int64_t cols, int64_t row_bytes,
                   int64_t box_rows, int64_t box_cols, bool swizzled) {
  const emulation::EmulatedMap m = {
      static_cast<const unsigned char*>(data), rows, cols, row_bytes, box_rows, box_cols, element, swizzled};
  TensorMap map;
  static_assert(sizeof m <= sizeof map);
  memcpy(map.words, &m, sizeof m);
  return map;
}

#else

static_assert(sizeof(TensorMap) == sizeof(CUtensorMap) && alignof(TensorMap) >= alignof(CUtensorMap));

decltype(&cuTensorMapEncodeTiled) encoder() {
  static const auto found = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result;
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                               cudaEnableDefault, &result);
    const bool ok = error == cudaSuccess && result == cudaDriverEntryPointSuccess;
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(ok ? function : nullptr);
  }();
  return found;
}

bool can_encode() { return on_hopper() && encoder(); }

TensorMap make_map(const void* data, int64_t element, int64_t rows, int64_t cols, int64_t row_bytes,
                   int64_t box_rows, int64_t box_cols, bool swizzled) {
  TensorMap map;
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(row_bytes)};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(box_cols), static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[] = {1, 1};
  const bool bytes = element == 1;
  encoder()(reinterpret_cast<CUtensorMap*>(&map),
            bytes ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2,
            const_cast<void*>(data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzled ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE,
            CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return map;
}

#endif

// The 16-byte chunks of a row of a box are swapped in shared memory by the row's place, as the tensor cores
// want it.
TensorMap byte_map(const void* data, int64_t rows, int64_t pitch, int64_t box_rows = kMapRows) {
  return make_map(data, 1, rows, pitch, pitch, box_rows, kTensorBlock, true);
}

}  // namespace

bool wgmma_works() { return can_encode(); }
TensorMap weight_map(const WeightView& w, int64_t box_rows) {
  return byte_map(w.data, w.rows, w.pitch, box_rows);
}
void FfnView::make_maps() {
  maps = {weight_map(gate), weight_map(up), weight_map(down, 2 * kMapRows)};
  const int few = fp8_few_outputs(true, gate.rows);
  few_maps = {weight_map(gate, few), weight_map(up, few),
              weight_map(down, fp8_few_outputs(false, down.rows))};
}
TensorMap input_map(const PackedRows& x, int64_t rows, int64_t box_rows) {
  return byte_map(x.data, rows, x.pitch, box_rows);
}
TensorMap scale_map(const PackedRows& x, int64_t rows, int64_t blocks, int64_t box) {
  return make_map(x.scale, 4, blocks, rows, 4 * x.scale_cols, 1, box, false);
}

}  // namespace dsv::cuda
