// Linear layers over rows: y = W x with W [out, in] as stored. A result element is summed in an order that
// depends on the weight and the target alone.
#pragma once

#include <cstdint>

#include "kernels/cpu/device.h"

namespace dsv::cpu {

inline constexpr int64_t padded_cols(int64_t cols) {
  return (cols + kQuantBlock - 1) / kQuantBlock * kQuantBlock;
}

// Per-job bytes that CpuKernels::linear needs for `rows` input rows of `cols` columns.
int64_t linear_job_bytes(int64_t rows, int64_t cols);
// Bytes of the values and scales of a Packed; a multiple of 64.
int64_t packed_bytes(int64_t rows, int64_t cols);

// How the input of a linear with this weight is rounded: e4m3 for FP8 weights and bf16 for others in
// `official`, not at all in `exact`.
Rounding input_rounding(const CpuDevice& device, const CpuWeight& weight);

// A Packed for `rows` rows that will meet `weight`, in 64-byte aligned memory of packed_bytes.
// CpuKernels::pack fills it.
Packed place(const CpuDevice& device, const CpuWeight& weight, Rounding rounding, int32_t rows,
             unsigned char* memory);
// Whether a Packed placed for one weight also serves another one.
bool same_packing(const CpuWeight& a, Rounding a_rounding, const CpuWeight& b, Rounding b_rounding);

// A weight's rows are cut into slices, one work item each.
int64_t slice_rows(const CpuWeight& weight, int32_t input_rows);
inline int64_t slices(const CpuWeight& weight, int32_t input_rows) {
  const int64_t step = slice_rows(weight, input_rows);
  return (weight.rows + step - 1) / step;
}
// out[r * out_stride + n] for n of one slice. scratch: linear_job_bytes.
void linear_slice(const CpuDevice& device, const CpuWeight& weight, int64_t slice, const Packed& x,
                  float* out, int64_t out_stride, unsigned char* scratch);

// One of several linears over the same rows.
struct Linear {
  const Weight* weight;
  Rounding rounding;
  float* out;  // [rows, out_stride]
  int64_t out_stride;
};
inline constexpr int kMaxLinears = 4;
// Runs `count` <= kMaxLinears linears over `rows` rows of width `cols` at x, `stride` floats apart, in two
// sweeps: pack, multiply. memory: linears_bytes.
void run_linears(const CpuDevice& device, const float* x, int64_t stride, int32_t rows, const Linear* linears,
                 int count, unsigned char* memory);
int64_t linears_bytes(int64_t rows, int64_t cols);

}  // namespace dsv::cpu
