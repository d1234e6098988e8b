// Linear layers as the ops call them: the input is packed once for each kind of weight it meets.
#pragma once

#include <initializer_list>

#include "kernels/cuda/device.h"

namespace dsv::cuda {

inline InputForm input_form(const CudaDevice& d, Dtype dtype, bool rounded = true) {
  if (!d.official()) return {};
  if (dtype == Dtype::f8_e4m3) return {rounded ? Rounding::e4m3 : Rounding::none, rounded};
  // Input that the number format leaves as it is, is on the bf16 grid already: bf16 codes are exact.
  if (dtype == Dtype::bf16) return {Rounding::bf16, true};
  return {rounded ? Rounding::bf16 : Rounding::none, false};
}

// Which of Hopper's kernels, if any, multiplies FP8 weights that meet so many rows each.
enum class HopperPath { none, same_bits, fp8_sums };
inline HopperPath hopper_path(const CudaDevice& d, int32_t rows) {
  if (!d.wgmma || rows <= kFewRows) return HopperPath::none;
  return d.fast() ? HopperPath::fp8_sums : HopperPath::same_bits;
}

inline PackedForm packed_form(HopperPath hopper) {
  return hopper == HopperPath::none        ? PackedForm::by_row
         : hopper == HopperPath::same_bits ? PackedForm::spread
                                           : PackedForm::by_block;
}

class PackedInput {
 public:
  // `rows` rows of `cols` f32 values, `stride` apart, at x; at most as many as the memory was made for.
  // memory: [2], for FP8 weights and for others. It is packed on `stream`, which may be another than the
  // linears' if it is packed before they fork.
  PackedInput(const CudaDevice& d, const float* x, int64_t stride, int64_t cols, int32_t rows,
              float* const* memory, Stream stream)
      : d_(d), x_(x), stride_(stride), cols_(cols), rows_(rows), memory_(memory), stream_(stream) {}
  PackedInput(const CudaDevice& d, const float* x, int64_t stride, int64_t cols, int32_t rows)
      : PackedInput(d, x, stride, cols, rows, d.packed, d.stream()) {}

  // y[r, o] = factor * W x_r. The input is rounded as ops.h says for the weight, or not at all.
  void linear(const Weight* weight, float* y, int64_t y_stride, bool rounded = true, float factor = 1) {
    linear(weight, y, y_stride, rounded, factor, stream_);
  }
  void linear(const Weight* weight, float* y, int64_t y_stride, bool rounded, float factor, Stream stream) {
    linear(weight, y, y_stride, rounded, factor, stream, {});
  }
  // .. or as bf16 in `codes`, if it is there and the kernel can: whether it did.
  bool linear(const Weight* weight, float* y, int64_t y_stride, bool rounded, float factor, Stream stream,
              const CodesOut& codes);
  // Several, in one launch if they allow it; at most three.
  struct Linear {
    const Weight* weight;
    float* y;
    int64_t y_stride;
  };
  void linears(std::initializer_list<Linear>);
  // Packs the input for a weight, if nobody has.
  void pack_for(const Weight* weight, bool rounded = true) { packed(form_for(weight, rounded)); }

  // The input in the forms that a table's weights want: codes if all are of one kind that takes them.
  PackedRows codes(Dtype dtype, HopperPath hopper);
  PackedPair pair(bool fp8, bool other);

 private:
  InputForm form_for(const Weight* weight, bool rounded) const;
  float* packed(InputForm form);
  void restore_values(CudaDevice::Normed kind);

  const CudaDevice& d_;
  const float* x_;
  int64_t stride_, cols_;
  int32_t rows_;
  float* const* memory_;
  Stream stream_;
  bool filled_[2] = {};
  InputForm form_[2];  // what memory_ holds
};

// An op is about to give `rows` rows of delta, from `at` on: where in bf16, if it may, which holds for no
// fewer rows than a tile's. leave_delta says that it has done so.
CodesOut begin_delta(const CudaDevice& d, float* at, int32_t rows);
inline void leave_delta(const CudaDevice& d, float* at, int32_t rows) { d.bf16_delta = {at, rows}; }
void restore_delta(const CudaDevice& d);

// Whether a recorded step chooses its positions beside the making of its queries: the indexer's launches need
// the codes of h in bf16, and of q_latent in e4m3, until they are through.
bool index_beside(const CudaDevice& d, const AttentionWeights& w, int32_t rows);

// heads[r] = W_v mixed[r] for every head, from attention's mixed latents: [rows, heads, padded(rank)]. mixed:
// null, if d.mixed_codes has them as bf16; whether W_v can take that says values_take_codes.
bool values_take_codes(const CudaDevice& d, const Weight* kv_b);
// `codes`: where those of heads go instead, if there is data.
void apply_values(const CudaDevice& d, const Weight* kv_b, int32_t rows, const float* mixed, float* heads,
                  const CodesOut& codes);
// Where W_v writes the codes of so many rows of an op, for the output projection, instead of values; or
// nothing.
PackedRows value_codes(const CudaDevice& d, const AttentionWeights& w, int32_t rows);

}  // namespace dsv::cuda
