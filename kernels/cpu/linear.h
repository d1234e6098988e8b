// Linear layers over rows: y = W x with W [out, in] as stored. A result element is summed in an order that
// depends on the weight and the target alone.
#pragma once

#include <cstdint>

#include "kernels/cpu/device.h"

namespace dsv::cpu {

// Shared scratch holds the packed input, per-job scratch the decoded weights.
ScratchSize linear_scratch(const DeviceOptions& options);
// Per-job bytes CpuKernels::linear needs for an input of `rows` rows and `cols` columns.
int64_t linear_job_bytes(int64_t rows, int64_t cols);
// Bytes of Packed::values and Packed::scale together; the two are laid out by `place`.
int64_t packed_bytes(int64_t rows, int64_t cols);

// How the input of a linear with this weight is rounded: e4m3 for FP8 weights and bf16 for others in
// `official`, not at all in `exact`. (kv_b is the exception: always bf16 in `official`.)
Rounding input_rounding(const CpuDevice& device, const CpuWeight& weight);

// A Packed for `rows` rows that will meet weights of `weight`'s type, with its memory (64-byte aligned,
// packed_bytes) at `memory`. CpuKernels::pack fills it.
Packed place(const CpuDevice& device, const CpuWeight& weight, Rounding rounding, int32_t rows, void* memory);

}  // namespace dsv::cpu
