#include "kernels/cpu/linear.h"

#include <algorithm>

namespace dsv::cpu {
namespace {

constexpr int64_t kGroup = 16;  // rows that are packed together

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

}  // namespace

int64_t linear_job_bytes(int64_t rows, int64_t cols) {
  // Decoded weight rows of the vector and bf16 kernels; tiles, and sums of 32 weight rows, of the AMX kernels
  // for many rows, and their panels for few.
  constexpr int64_t kAmxPanels = 42 << 10;
  return std::max({16 * padded_cols(cols), 128 * round_up(rows, kGroup) + (16 << 10), kAmxPanels});
}

int64_t packed_bytes(int64_t rows, int64_t cols) {
  const int64_t padded = padded_cols(cols);
  return 4 * rows * padded + 4 * (padded / kQuantBlock) * round_up(rows, kGroup);
}

Rounding input_rounding(const CpuDevice& device, const CpuWeight& weight) {
  if (!device.official()) return Rounding::none;
  return weight.dtype == Dtype::f8_e4m3 ? Rounding::e4m3 : Rounding::bf16;
}

Packed place(const CpuDevice& device, const CpuWeight& weight, Rounding rounding, int32_t rows,
             unsigned char* memory) {
  Packed p;
  p.rounding = rounding;
  p.ue8m0 = device.geometry.ue8m0_scales;
  p.bf16 = device.kernels->uses_bf16(rounding, weight.dtype);
  p.dtype = weight.dtype;
  p.rows = rows;
  p.cols = weight.cols;
  p.blocks = padded_cols(weight.cols) / kQuantBlock;
  p.values = memory;
  p.scale = reinterpret_cast<float*>(memory + 4 * rows * p.blocks * kQuantBlock);
  return p;
}

bool same_packing(const CpuWeight& a, Rounding a_rounding, const CpuWeight& b, Rounding b_rounding) {
  return a_rounding == b_rounding && a.cols == b.cols && a.dtype == b.dtype;
}

// Slices are cut for the number of input rows only in size, never in how an element is summed. With few rows
// a slice is what a thread reads in some ten microseconds; with many, enough work to be worth an item.
int64_t slice_rows(const CpuWeight& weight, int32_t input_rows) {
  constexpr int64_t kTile = 32, kFewRowsBytes = 128 << 10, kManyRows = 64;
  if (input_rows > kGroup) return kManyRows;
  return std::max(kTile, kFewRowsBytes / weight.row_bytes() / kTile * kTile);
}

void linear_slice(const CpuDevice& device, const CpuWeight& weight, int64_t slice, const Packed& x,
                  float* out, int64_t out_stride, unsigned char* scratch) {
  const int64_t step = slice_rows(weight, x.rows);
  const int64_t n0 = slice * step, n1 = std::min(n0 + step, weight.rows);
  device.kernels->linear(weight, n0, n1, x, out + n0, out_stride, scratch);
}

int64_t linears_bytes(int64_t rows, int64_t cols) {
  return kMaxLinears * packed_bytes(rows, cols) + round_up(8 * rows, 64);
}

void run_linears(const CpuDevice& device, const float* x, int64_t stride, int32_t rows, const Linear* linears,
                 int count, unsigned char* memory) {
  if (rows == 0) return;
  const auto** const row = reinterpret_cast<const float**>(memory);
  for (int32_t r = 0; r < rows; ++r) row[r] = x + r * stride;
  memory += round_up(8 * int64_t{rows}, 64);

  Packed packed[kMaxLinears];
  int packings = 0, packing_of[kMaxLinears];
  int64_t end[kMaxLinears], items = 0;
  for (int i = 0; i < count; ++i) {
    const CpuWeight& w = cpu_weight(linears[i].weight);
    int p = -1;
    for (int j = 0; j < i; ++j) {
      if (same_packing(cpu_weight(linears[j].weight), linears[j].rounding, w, linears[i].rounding)) {
        p = packing_of[j];
      }
    }
    if (p < 0) {
      p = packings++;
      packed[p] = place(device, w, linears[i].rounding, rows, memory);
      memory += packed_bytes(rows, w.cols);
    }
    packing_of[i] = p;
    end[i] = items += slices(w, rows);
  }
  const int64_t groups = (rows + kGroup - 1) / kGroup;
  device.parallel(packings * groups, [&](int64_t item, int32_t) {
    device.kernels->pack(row, static_cast<int32_t>(item % groups), packed[item / groups]);
  });
  device.parallel(items, [&](int64_t item, int32_t job) {
    int i = 0;
    while (item >= end[i]) ++i;
    linear_slice(device, cpu_weight(linears[i].weight), i == 0 ? item : item - end[i - 1],
                 packed[packing_of[i]], linears[i].out, linears[i].out_stride, device.job_scratch(job));
  });
}

}  // namespace dsv::cpu
