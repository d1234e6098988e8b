// What the checks and times of the tensor-core linears share: weights, inputs, routing, sums in fp64.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "kernels/cuda/bench/linear_bench.h"
#include "kernels/cuda/experts.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/rows.h"

namespace dsv::cuda {
namespace {

using bench::check_cuda;
using bench::Memory;

__host__ __device__ inline uint32_t hash(uint64_t i) {
  i = (i + 0x9E3779B97F4A7C15u) * 0xBF58476D1CE4E5B9u;
  i ^= i >> 31;
  i *= 0x94D049BB133111EBu;
  return static_cast<uint32_t>(i >> 32);
}

struct FillArgs {
  unsigned char* out;
  int64_t n;
  Dtype dtype;
  uint64_t seed;
};
// Codes of every exponent; no NaN.
__global__ void fill_kernel(FillArgs a) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < a.n; i += step) {
    const uint32_t h = hash(a.seed + i);
    const float u = static_cast<float>(h & 0xFFFFFF) * 0x1p-23f - 1;
    if (a.dtype == Dtype::f8_e4m3) {
      a.out[i] = static_cast<unsigned char>((h & 0x7F) == 0x7F ? h & 0xFE : h);
    } else if (a.dtype == Dtype::bf16) {
      reinterpret_cast<uint16_t*>(a.out)[i] = float_to_bf16(u * u * u);
    } else {
      reinterpret_cast<float*>(a.out)[i] = u * u * u;
    }
  }
}
void fill(void* out, int64_t n, Dtype dtype, uint64_t seed) {
  const int64_t blocks = (n + 255) / 256;
  launch(fill_kernel, {blocks < 2048 ? blocks : 2048}, 256, 0, nullptr,
         FillArgs{static_cast<unsigned char*>(out), n, dtype, seed << 36});
}

struct Matrix {
  Memory data, scale;
  WeightView view;
  Matrix(Dtype dtype, int64_t rows, int64_t cols, uint64_t seed)
      : data(rows * weight_pitch(dtype, cols)), scale(4 * blocks(rows) * blocks(cols)) {
    const int64_t pitch = weight_pitch(dtype, cols), bytes = dtype_bytes(dtype);
    view = {data.as<unsigned char>(),
            dtype == Dtype::f8_e4m3 ? scale.as<float>() : nullptr,
            rows,
            cols,
            pitch,
            static_cast<int32_t>(blocks(cols)),
            dtype};
    fill(data.at, rows * pitch / bytes, dtype, seed);
    fill(scale.at, blocks(rows) * blocks(cols), Dtype::f32, seed + 1);
    if (pitch > cols * bytes) {
      check_cuda(cudaMemset2D(data.as<unsigned char>() + cols * bytes, pitch, 0, pitch - cols * bytes, rows));
    }
  }
  static int64_t blocks(int64_t n) { return (n + kQuantBlock - 1) / kQuantBlock; }
  int64_t bytes() const { return view.rows * view.pitch; }
};

Rounding rounding_of(Dtype dtype) { return dtype == Dtype::f8_e4m3 ? Rounding::e4m3 : Rounding::bf16; }

// Rows of input as codes.
struct Input {
  Memory values, codes;
  PackedRows rows;
  Input(Dtype dtype, int64_t n, int64_t cols, uint64_t seed)
      : values(4 * n * cols), codes(packed_bytes(n, cols)) {
    fill(values.at, n * cols, Dtype::f32, seed);
    launch_pack_codes({static_cast<int32_t>(n), cols, values.as<float>(), cols, rounding_of(dtype), false,
                       codes.as<unsigned char>()},
                      nullptr);
    check_cuda(cudaDeviceSynchronize());
    rows = packed_rows(codes.at, n, cols, rounding_of(dtype));
  }
  [[maybe_unused]] PackedRows from(int64_t row) const {
    PackedRows r = rows;
    r.data += row * r.pitch;
    if (r.scale) r.scale += row * r.scale_cols;
    return r;
  }
};

// The same rows of e4m3, some of them or one for each pair, as Hopper's kernels take them.
struct HopperInput {
  Memory codes;
  PackedRows rows;
  HopperInput(PackedForm form, const Input& x, int64_t cols, int64_t first, int32_t n)
      : codes(packed_bytes(n, cols)) {
    launch_pack_codes({n, cols, x.values.as<float>() + first * cols, cols, Rounding::e4m3, false,
                       codes.as<unsigned char>(), form},
                      nullptr);
    rows = packed_rows(codes.at, n, cols, Rounding::e4m3, form);
  }
};
struct GatheredInput {
  Memory codes;
  PackedRows rows;
  GatheredInput(const PackedRows& from, int64_t cols, const int32_t* row, int32_t n)
      : codes(packed_bytes(n, cols)) {
    gather(from, cols, row, n);
    rows = packed_rows(codes.at, n, cols, Rounding::e4m3, from.form);
  }
  void gather(const PackedRows& from, int64_t cols, const int32_t* row, int32_t n) const {
    launch_gather_rows({n, from, row, tensor_blocks(cols), codes.as<unsigned char>()}, nullptr);
  }
};

TensorArgs linear_args(const WeightView& w, const PackedRows& x, int32_t rows, int32_t tile_rows, float* y) {
  return {TensorKind::linear,
          w.dtype,
          rows,
          x,
          w,
          nullptr,
          nullptr,
          nullptr,
          nullptr,
          (rows + tile_rows - 1) / tile_rows,
          tile_rows,
          w.rows,
          w.pitch,
          y,
          w.rows,
          1,
          false};
}

// W_v of every head: FP8 or bf16 weights, bf16 input.
struct Values {
  static constexpr int64_t kRank = 512, kFirst = 128, kOut = 128, kHead = 256;
  int64_t heads;
  Matrix w;
  Values(Dtype dtype, int64_t n) : heads(n), w(dtype, n * kHead, kRank, 40) {}
  TensorArgs args(const PackedRows& x, int32_t rows, int32_t tile_rows, float* y) const {
    return {TensorKind::linear,
            w.view.dtype,
            rows,
            x,
            w.view,
            nullptr,
            nullptr,
            nullptr,
            nullptr,
            (rows + tile_rows - 1) / tile_rows,
            tile_rows,
            kOut,
            w.view.pitch,
            y,
            heads * kOut,
            1,
            false,
            static_cast<int32_t>(heads),
            kHead,
            kFirst,
            2 * kRank,
            kOut};
  }
};

// Experts with routing: k of E experts a row.
struct Routing {
  int32_t rows, k, experts;
  std::vector<int32_t> expert;
  Memory device, weight, pair_row, pair_of, tiles, n_tiles;
  Routing(int32_t rows_, int32_t k_, int32_t experts_)
      : rows(rows_),
        k(k_),
        experts(experts_),
        device(4 * rows_ * k_),
        weight(4 * rows_ * k_),

        pair_row(4 * rows_ * k_),
        pair_of(4 * rows_ * k_),
        tiles(static_cast<int64_t>(sizeof(ExpertTile)) * rows_ * k_),
        n_tiles(4) {
    for (int32_t r = 0; r < rows; ++r) {
      std::set<int32_t> chosen;
      for (uint64_t i = 0; static_cast<int32_t>(chosen.size()) < k; ++i) {
        chosen.insert(static_cast<int32_t>(hash(r * 1000 + i) % static_cast<uint32_t>(experts)));
      }
      expert.insert(expert.end(), chosen.begin(), chosen.end());
    }
    device.from_host(expert);
  }
  int64_t touched() const {
    return static_cast<int64_t>(std::set<int32_t>(expert.begin(), expert.end()).size());
  }
  void group(int32_t tile_rows) {
    launch_group({rows, k, experts, tile_rows, device.as<int32_t>(), pair_row.as<int32_t>(),
                  pair_of.as<int32_t>(), tiles.as<ExpertTile>(), n_tiles.as<int32_t>()},
                 nullptr);
  }
};

struct Experts {
  int32_t count;
  int64_t inner, dim;
  Matrix gate, up, down;  // of all experts, one under the other
  Memory table;
  std::vector<FfnView> views;
  Experts(Dtype dtype, int32_t n, int64_t inner_, int64_t dim_)
      : count(n),
        inner(inner_),
        dim(dim_),
        gate(dtype, n * rounded(inner_), dim_, 20),
        up(dtype, n * rounded(inner_), dim_, 22),
        down(dtype, n * rounded(dim_), inner_, 24),
        table(static_cast<int64_t>(sizeof(FfnView)) * n) {
    const auto part = [](const Matrix& m, int64_t e, int64_t rows) {
      WeightView v = m.view;
      v.data += e * rounded(rows) * v.pitch;
      if (v.scale) v.scale += e * rounded(rows) / kQuantBlock * v.scale_cols;
      v.rows = rows;
      return v;
    };
    for (int32_t e = 0; e < n; ++e) {
      views.push_back({part(gate, e, inner), part(up, e, inner), part(down, e, dim)});
      FfnView& view = views.back();
      if (!wgmma_works() || dtype != Dtype::f8_e4m3) continue;
      view.make_maps();
    }
    table.from_host(views);
  }
  static int64_t rounded(int64_t rows) { return (rows + kQuantBlock - 1) / kQuantBlock * kQuantBlock; }
  TensorArgs args(TensorKind kind, Dtype dtype, const PackedRows& x, Routing& r, int32_t tile_rows,
                  float* y) const {
    const bool swiglu = kind == TensorKind::swiglu;
    const int64_t outputs = swiglu ? inner : dim, cols = swiglu ? dim : inner;
    const int32_t pairs = r.rows * r.k;
    return {kind,
            dtype,
            pairs,
            x,
            {},
            table.as<FfnView>(),
            r.tiles.as<ExpertTile>(),
            r.n_tiles.as<int32_t>(),
            swiglu ? r.pair_row.as<int32_t>() : nullptr,
            most_tiles(pairs, count, tile_rows),
            tile_rows,
            outputs,
            weight_pitch(dtype, cols),
            y,
            outputs,
            1,
            false};
  }
};

}  // namespace
}  // namespace dsv::cuda
