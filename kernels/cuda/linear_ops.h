// Linear layers as the ops call them: the input is packed once for each kind of weight it meets.
#pragma once

#include "kernels/cuda/device.h"

namespace dsv::cuda {

class PackedInput {
 public:
  // `rows` rows of `cols` f32 values, `stride` apart, at x; at most tile.rows. Packs into d.packed.
  PackedInput(const CudaDevice& d, const float* x, int64_t stride, int64_t cols, int32_t rows)
      : d_(d), x_(x), stride_(stride), cols_(cols), rows_(rows) {}

  // y[r, o] = factor * W x_r. The input is rounded as ops.h says for the weight, or not at all.
  void linear(const Weight* weight, float* y, int64_t y_stride, bool rounded = true, float factor = 1);
  // The input packed for both kinds of weights, as far as they are met.
  PackedPair pair(bool fp8, bool other);

 private:
  const float* packed(Rounding rounding);

  const CudaDevice& d_;
  const float* x_;
  int64_t stride_, cols_;
  int32_t rows_;
  bool filled_[2] = {};                                      // of d.packed
  Rounding rounding_[2] = {Rounding::none, Rounding::none};  // what they hold
};

// How the input of a linear with this kind of weight is rounded.
inline Rounding input_rounding(const CudaDevice& d, Dtype dtype) {
  if (!d.official()) return Rounding::none;
  return dtype == Dtype::f8_e4m3 ? Rounding::e4m3 : Rounding::bf16;
}

}  // namespace dsv::cuda
