// The instruction sets the CPU backend is built for: one table of kernels each, chosen once when a device
// opens. Nothing outside a table is compiled for more than the baseline.
#pragma once

#include <cstdint>
#include <string_view>

#include "kernels/cpu/weight.h"

namespace dsv::cpu {

// How the rows that enter a linear are rounded (the formats of ops.h).
enum class Rounding : int32_t {
  none,  // f32 as it is
  bf16,  // to the bf16 grid
  e4m3,  // to e4m3 per 128 values, with a scale each
};

// Rows that enter a linear, rounded and laid out as a target's kernels want them (`pack`). The last columns
// are padded with zeros to whole blocks of 128.
struct Packed {
  Rounding rounding = Rounding::none;
  bool ue8m0 = true;         // e4m3: scales are powers of two
  bool bf16 = false;         // the values are bf16 in the layout of the bf16 kernels; else f32 rows
  Dtype dtype = Dtype::f32;  // of the weights they will meet: decoding may permute columns
  int32_t rows = 0;
  int64_t cols = 0;
  int64_t blocks = 0;      // ceil(cols / 128)
  void* values = nullptr;  // packed_bytes
  float* scale = nullptr;  // [blocks][rows rounded up to 16]: of each 128 values; 1 unless e4m3
  int32_t scale_stride() const { return (rows + 15) / 16 * 16; }
};

struct AttentionKernels;  // attention_kernels.h

struct CpuKernels {
  const char* name;

  // Packs row group `group` (rows 16 group .. 16 group + 15) of `out.rows` rows, given by pointers.
  void (*pack)(const float* const* rows, int32_t group, const Packed& out);
  // out[r * out_stride + n - n0] = sum_k weight[n, k] x[r, k] for n in [n0, n1) and every packed row r.
  // scratch: linear_job_bytes.
  void (*linear)(const CpuWeight& weight, int64_t n0, int64_t n1, const Packed& x, float* out,
                 int64_t out_stride, unsigned char* scratch);
  // Whether weights of that type meet input of that rounding on the bf16 kernels of this target.
  bool (*uses_bf16)(Rounding rounding, Dtype dtype);

  // out[k] = weight[row, k], scaled, as f32
  void (*decode_row)(const CpuWeight& weight, int64_t row, float* out);
  // h[i] = x[i] * weight[i] / sqrt(mean(x^2) + eps), rounded to bf16 if round_bf16. In place is fine.
  void (*rms_norm)(const float* x, const float* weight, int64_t n, float eps, bool round_bf16, float* h);
  // gate[i] = silu(gate[i]) * up[i]
  void (*swiglu)(float* gate, const float* up, int64_t n);
  void (*multiply_add)(float* x, float factor, const float* y, int64_t n);  // x += factor * y, fused
  void (*round_bf16)(float* x, int64_t n);
  // Rounds n values to the e4m3 grid of the returned scale; x holds the unscaled grid values after.
  float (*quantise_e4m3)(float* x, int64_t n, bool ue8m0);
  // Columns [128 block, + 128) of a row that `pack` packs, as f32; returns their scale.
  float (*rounded_block)(const float* row, int64_t block, const Packed& packed, float* out);
};

// The linear kernels and the attention kernels of an instruction set.
struct CpuTarget {
  const CpuKernels* kernels;
  const AttentionKernels* attention;
};

// The best target this machine runs, or the one called `name`. Throws UNSUPPORTED naming what there is.
CpuTarget choose_target(const char* name);

// The tables, for targets.cpp. The bf16 ones are kernels_avx512 with linears of their own.
const CpuKernels& kernels_amx();
const CpuKernels& kernels_avx512_bf16();
const CpuKernels& kernels_avx512();
const CpuKernels& kernels_avx2();
const CpuKernels& kernels_sse4();
const CpuKernels& kernels_neon();

}  // namespace dsv::cpu
