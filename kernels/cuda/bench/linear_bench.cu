// Checks and times the tensor-core linears and FFNs on a GPU, on the released model's shapes.
//
//   cuda_linear_bench [quick | check | time [ROWS]]
//
// Without an argument it checks and times; `quick` checks small shapes, `time 8` stops at 8 rows. Exits with
// 1 if a check fails.
//
// Checks: against sums in fp64, and each row's bits against the same row alone. Times: medians, with the L2
// cache flushed before every launch; GB/s counts the weight's bytes that the rows need, once.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "kernels/cuda/bench/bench.cuh"

namespace dsv::cuda {
namespace {

using bench::check_cuda;
using bench::Memory;

bool failed = false;
int32_t most_rows = INT32_MAX;  // to time

// ------------------------------------------------------------------------------------- data

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
  Memory codes;
  PackedRows rows;
  Input(Dtype dtype, int64_t n, int64_t cols, uint64_t seed) : codes(packed_bytes(n, cols)) {
    Memory values(4 * n * cols);
    fill(values.at, n * cols, Dtype::f32, seed);
    launch_pack_codes({static_cast<int32_t>(n), cols, values.as<float>(), cols, rounding_of(dtype), false,
                       codes.as<unsigned char>()},
                      nullptr);
    check_cuda(cudaDeviceSynchronize());
    rows = packed_rows(codes.at, n, cols, rounding_of(dtype));
  }
  PackedRows from(int64_t row) const {
    PackedRows r = rows;
    r.data += row * r.pitch;
    if (r.scale) r.scale += row * r.scale_cols;
    return r;
  }
};

// ------------------------------------------------------------------------------------- reference

struct ReferenceArgs {  // sum[r, o] and size[r, o] = sum of |products|, in fp64
  WeightView w;
  PackedRows x;
  double* sum;
  double* size;
};
__global__ void reference_kernel(ReferenceArgs a) {
  const int64_t o = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, r = blockIdx.y;
  if (o >= a.w.rows) return;
  const unsigned char* x = a.x.data + r * a.x.pitch;
  double sum = 0, size = 0;
  for (int64_t k = 0; k < a.w.cols; ++k) {
    const unsigned char* w = a.w.data + o * a.w.pitch;
    double v = 0;
    const int64_t block = k / kQuantBlock;
    if (a.w.dtype == Dtype::f8_e4m3) {
      v = static_cast<double>(e4m3_to_float(w[k])) * a.w.scale[o / kQuantBlock * a.w.scale_cols + block];
    } else {
      v = bf16_to_float(reinterpret_cast<const uint16_t*>(w)[k]);
    }
    v *= a.x.scale ? static_cast<double>(e4m3_to_float(x[k])) * a.x.scale[r * a.x.scale_cols + block]
                   : bf16_to_float(reinterpret_cast<const uint16_t*>(x)[k]);
    sum += v, size += fabs(v);
  }
  a.sum[r * a.w.rows + o] = sum, a.size[r * a.w.rows + o] = size;
}
struct Reference {
  std::vector<double> sum, size;
  Reference(const WeightView& w, const PackedRows& x, int64_t n) {
    Memory sums(8 * n * w.rows), sizes(8 * n * w.rows);
    launch(reference_kernel, {(w.rows + 127) / 128, n}, 128, 0, nullptr,
           ReferenceArgs{w, x, sums.as<double>(), sizes.as<double>()});
    sum = sums.to_host<double>(n * w.rows);
    size = sizes.to_host<double>(n * w.rows);
  }
};

// A block's sum errs by a few 2^-24 of its products' sizes and so does the sum of blocks; products are exact.
constexpr double kLimit = 0x1p-20;

void report(bool ok, const std::string& what, double worst) {
  if (ok) return;
  std::printf("FAILED %s (error %.3g of the products' size, limit %.3g)\n", what.c_str(), worst, kLimit);
  failed = true;
}

// ------------------------------------------------------------------------------------- checks

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

void check_linear(Dtype dtype, int64_t outputs, int64_t cols) {
  constexpr int32_t kRows = 200;
  const Matrix w(dtype, outputs, cols, 1);
  const Input x(dtype, kRows, cols, 7);
  const Reference reference(w.view, x.rows, kRows);
  Memory y(4 * kRows * outputs);
  std::vector<float> alone(static_cast<size_t>(kRows * outputs));
  double worst_of_all = 0;
  int runs = 0;
  const auto run = [&](int32_t first, int32_t rows, int32_t tile_rows) {
    check_cuda(cudaMemset(y.at, 0xFF, 4 * kRows * outputs));
    launch_tensor(linear_args(w.view, x.from(first), rows, tile_rows, y.as<float>()), nullptr);
    return y.to_host<float>(rows * outputs);
  };
  for (int32_t r = 0; r < kRows; ++r) {
    const std::vector<float> one = run(r, 1, 8);
    std::copy(one.begin(), one.end(), alone.begin() + r * outputs);
  }
  double worst = 0;
  for (size_t i = 0; i < alone.size(); ++i) {
    const double error = std::fabs(alone[i] - reference.sum[i]) / reference.size[i];
    worst = error <= worst ? worst : error;  // keeps NaN
  }
  worst_of_all = worst;
  const std::string name = std::string(dtype == Dtype::bf16 ? "bf16 " : "fp8 ") + std::to_string(outputs) +
                           "x" + std::to_string(cols);
  report(worst <= kLimit, name + " against fp64", worst);
  for (const int32_t rows : {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200}) {
    for (const int32_t tile_rows : {8, 16, 32, 64, 128}) {
      const int32_t first = (kRows - rows) / 3;
      const std::vector<float> got = run(first, rows, tile_rows);
      int64_t differ = 0, at = -1;
      for (int64_t i = 0; i < rows * outputs; ++i) {
        if (std::memcmp(&got[i], &alone[first * outputs + i], 4) == 0) continue;
        if (differ++ == 0) at = i;
      }
      ++runs;
      if (differ == 0) continue;
      failed = true;
      std::printf(
          "FAILED %s: %d rows in tiles of %d: %lld of %lld differ from the row alone; first row %lld "
          "output %lld: %.9g, alone %.9g, fp64 %.9g\n",
          name.c_str(), rows, tile_rows, static_cast<long long>(differ),
          static_cast<long long>(rows * outputs), static_cast<long long>(at / outputs),
          static_cast<long long>(at % outputs), got[at], alone[first * outputs + at],
          reference.sum[first * outputs + at]);
    }
  }
  std::printf("checked %-18s splits %d, %d runs, worst error %.3g of the products' size\n", name.c_str(),
              tensor_splits(outputs, w.view.pitch), runs, worst_of_all);
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

void check_values(Dtype dtype) {
  constexpr int32_t kRows = 67;
  const Values values(dtype, 3);
  const Input x(Dtype::bf16, kRows, values.heads * Values::kRank, 41);
  const int64_t width = values.heads * Values::kOut;
  Memory y(4 * kRows * width);
  std::vector<float> first;
  for (const int32_t tile_rows : {8, 16, 32, 64}) {
    check_cuda(cudaMemset(y.at, 0xFF, 4 * kRows * width));
    launch_tensor(values.args(x.rows, kRows, tile_rows, y.as<float>()), nullptr);
    const std::vector<float> got = y.to_host<float>(kRows * width);
    if (first.empty()) first = got;
    report(std::memcmp(got.data(), first.data(), 4 * got.size()) == 0,
           "values: tiles of " + std::to_string(tile_rows) + " differ from tiles of 8", 0);
  }
  double worst = 0;
  for (int64_t h = 0; h < values.heads; ++h) {
    WeightView w = values.w.view;
    w.data += (h * Values::kHead + Values::kFirst) * w.pitch;
    if (w.scale) w.scale += (h * Values::kHead + Values::kFirst) / kQuantBlock * w.scale_cols;
    w.rows = Values::kOut;
    PackedRows in = x.rows;
    in.data += 2 * h * Values::kRank;
    const Reference reference(w, in, kRows);
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t o = 0; o < Values::kOut; ++o) {
        const size_t at = static_cast<size_t>(r * Values::kOut + o);
        const double error =
            std::fabs(first[r * width + h * Values::kOut + o] - reference.sum[at]) / reference.size[at];
        worst = error <= worst ? worst : error;
      }
    }
  }
  const std::string name = dtype == Dtype::bf16 ? "bf16 values" : "fp8 values";
  report(worst <= kLimit, name + " against fp64", worst);
  std::printf("checked %s, worst error %.3g\n", name.c_str(), worst);
}

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

void check_experts(Dtype dtype, int64_t inner, int64_t dim, int32_t rows) {
  constexpr int32_t kExperts = 12, kTop = 3;
  const Experts ffns(dtype, kExperts, inner, dim);
  Routing routing(rows, kTop, kExperts);
  const int32_t pairs = rows * kTop;
  const Input h(dtype, rows, dim, 30), a(dtype, pairs, inner, 31);
  const std::string name = std::string(dtype == Dtype::bf16 ? "bf16" : "fp8") + " experts " +
                           std::to_string(inner) + "," + std::to_string(dim) + " rows " +
                           std::to_string(rows);
  for (const bool swiglu : {true, false}) {
    const int64_t outputs = swiglu ? inner : dim;
    Memory y(4 * pairs * outputs);
    std::vector<float> first;
    double worst = 0;
    for (const int32_t tile_rows : {8, 16, 32, 64, 128}) {
      routing.group(tile_rows);
      check_cuda(cudaMemset(y.at, 0xFF, 4 * pairs * outputs));
      launch_tensor(ffns.args(swiglu ? TensorKind::swiglu : TensorKind::down, dtype, swiglu ? h.rows : a.rows,
                              routing, tile_rows, y.as<float>()),
                    nullptr);
      const std::vector<float> got = y.to_host<float>(pairs * outputs);
      if (first.empty()) first = got;
      if (std::memcmp(got.data(), first.data(), 4 * got.size()) != 0) {
        report(false,
               name + (swiglu ? " swiglu" : " down") + ": tiles of " + std::to_string(tile_rows) +
                   " differ from tiles of 8",
               0);
      }
    }
    const std::vector<int32_t> pair_of = routing.pair_of.to_host<int32_t>(pairs);
    for (int32_t r = 0; r < rows; ++r) {
      for (int32_t i = 0; i < kTop; ++i) {
        const int32_t pair = pair_of[r * kTop + i];
        const FfnView& ffn = ffns.views[routing.expert[r * kTop + i]];
        const int64_t row = swiglu ? r : pair;
        const Input& in = swiglu ? h : a;
        const Reference one(swiglu ? ffn.gate : ffn.down, in.from(row), 1);
        const Reference two(swiglu ? ffn.up : ffn.down, in.from(row), 1);
        for (int64_t o = 0; o < outputs; ++o) {
          double expected = one.sum[o], size = one.size[o];
          if (swiglu) {
            const double silu = expected / (1 + std::exp(-expected));
            size = 2 * one.size[o] * std::fabs(two.sum[o]) + std::fabs(silu) * two.size[o];
            expected = silu * two.sum[o];
          }
          const double error = std::fabs(first[pair * outputs + o] - expected) / (size + 1e-30);
          worst = error <= worst ? worst : error;
        }
      }
    }
    report(worst <= 2 * kLimit, name + (swiglu ? " swiglu" : " down") + " against fp64", worst);
    std::printf("checked %s %s, worst error %.3g\n", name.c_str(), swiglu ? "swiglu" : "down", worst);
  }
}

// Quick: small ones, for compute-sanitizer.
void check_all(bool quick) {
  for (const Dtype dtype : {Dtype::f8_e4m3, Dtype::bf16}) {
    for (const auto& [outputs, cols] :
         {std::pair<int64_t, int64_t>{8, 16}, {40, 36}, {72, 200}, {130, 384}, {300, 1000}}) {
      check_linear(dtype, outputs, cols);
    }
    check_values(dtype);
    for (const int32_t rows : {1, 7, 63}) check_experts(dtype, 140, 200, rows);
    if (quick) continue;
    for (const auto& [outputs, cols] : {std::pair<int64_t, int64_t>{576, 7168},
                                        {2112, 7168},
                                        {7168, 2048},
                                        {1000, 5000},
                                        {24576, 1536},
                                        {7168, 16384}}) {
      check_linear(dtype, outputs, cols);
    }
    check_experts(dtype, 140, 200, 300);
    check_experts(dtype, 2048, 896, 65);
  }
}

// ------------------------------------------------------------------------------------- times

void time_linear(const bench::Timer& timer, Dtype dtype, const char* name, int64_t outputs, int64_t cols,
                 const std::vector<int32_t>& row_counts) {
  const Matrix w(dtype, outputs, cols, 1);
  for (const int32_t rows : row_counts) {
    if (rows > most_rows) break;
    const Input x(dtype, rows, cols, 7);
    Memory y(4 * rows * outputs);
    const double us = timer.median_us([&] {
      launch_tensor(linear_args(w.view, x.rows, rows, tensor_tile_rows(rows, outputs), y.as<float>()),
                    nullptr);
    });
    bench::row(timer,
               (std::string(name) + (dtype == Dtype::bf16 ? " bf16 " : " fp8 ") + std::to_string(outputs) +
                "x" + std::to_string(cols))
                   .c_str(),
               rows, us, static_cast<double>(w.bytes()), 2.0 * rows * outputs * cols);
  }
}

void time_experts(const bench::Timer& timer) {
  constexpr int32_t kExperts = 256, kTop = 8;
  constexpr int64_t kInner = 2048, kDim = 7168;
  constexpr Dtype kDtype = Dtype::f8_e4m3;
  const Experts ffns(kDtype, kExperts, kInner, kDim);
  for (const int32_t rows : {1, 2, 4, 8, 32, 64, 256, 1024, 4096}) {
    if (rows > most_rows) break;
    Routing routing(rows, kTop, kExperts);
    const int32_t pairs = rows * kTop;
    const Input h(kDtype, rows, kDim, 30), a(kDtype, pairs, kInner, 31);
    Memory inner(4 * pairs * kInner), outer(4 * pairs * kDim), codes(packed_bytes(pairs, kInner));
    std::set<int32_t> sizes = {8};
    if (rows > 8) sizes.insert({tensor_tile_rows(2 * pairs / kExperts, kDim * kExperts), 16});
    if (rows >= 256) sizes = {32, 64, 128};
    const double touched = static_cast<double>(routing.touched()), flop = 2.0 * pairs * kInner * kDim;
    for (const int32_t tile_rows : sizes) {
      bench::row(timer, "group", rows, timer.median_us([&] { routing.group(tile_rows); }), 0, 0);
      const std::string note = " (tiles of " + std::to_string(tile_rows) + ", " +
                               std::to_string(static_cast<int>(touched)) + " experts)";
      bench::row(timer, ("experts gate_up" + note).c_str(), rows, timer.median_us([&] {
        launch_tensor(ffns.args(TensorKind::swiglu, kDtype, h.rows, routing, tile_rows, inner.as<float>()),
                      nullptr);
      }),
                 touched * 2 * kInner * kDim, 2 * flop);
      bench::row(timer, ("experts down" + note).c_str(), rows, timer.median_us([&] {
        launch_tensor(ffns.args(TensorKind::down, kDtype, a.rows, routing, tile_rows, outer.as<float>()),
                      nullptr);
      }),
                 touched * kInner * kDim, flop);
    }
    bench::row(timer, "experts requantise", rows, timer.median_us([&] {
      launch_pack_codes(
          {pairs, kInner, inner.as<float>(), kInner, Rounding::e4m3, false, codes.as<unsigned char>()},
          nullptr);
    }),
               5.0 * pairs * kInner, 0);
    Memory delta(4 * rows * kDim);
    bench::row(timer, "experts mix", rows, timer.median_us([&] {
      launch_mix_experts({rows, kTop, kDim, outer.as<float>(), routing.pair_of.as<int32_t>(),
                          routing.weight.as<float>(), nullptr, delta.as<float>()},
                         nullptr);
    }),
               4.0 * (pairs + rows) * kDim, 0);
  }
}

void time_all(const bench::Timer& timer) {
  bench::header();
  const std::vector<int32_t> few = {1, 2, 4, 8, 16, 32, 64}, all = {1, 8, 64, 128, 256, 1024, 4096};
  constexpr Dtype fp8 = Dtype::f8_e4m3, bf16 = Dtype::bf16;
  time_linear(timer, fp8, "q_a+kv_a", 2112, 7168, few);
  time_linear(timer, fp8, "q_a", 1536, 7168, {1, 64});
  time_linear(timer, fp8, "kv_a", 576, 7168, {1, 64});
  time_linear(timer, fp8, "wk", 128, 7168, {1, 64});
  time_linear(timer, fp8, "q_b", 24576, 1536, {1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096});
  time_linear(timer, fp8, "wq_b", 8192, 1536, {1, 64});
  time_linear(timer, fp8, "o", 7168, 16384, {1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096});
  time_linear(timer, fp8, "shared gate_up", 4096, 7168, few);
  time_linear(timer, fp8, "shared down", 7168, 2048, few);
  time_linear(timer, fp8, "dense gate_up", 36864, 7168, all);
  time_linear(timer, fp8, "dense down", 7168, 18432, {1, 64, 4096});
  time_linear(timer, bf16, "router", 256, 7168, {1, 64});
  time_linear(timer, bf16, "weights_proj", 64, 7168, {1, 64});
  time_linear(timer, bf16, "head", 129280, 7168, {1, 8, 64, 256});
  for (const int32_t rows : {1, 8, 64, 256}) {
    if (rows > most_rows) break;
    const Values values(fp8, 128);
    const Input x(bf16, rows, values.heads * Values::kRank, 41);
    Memory y(4 * rows * values.heads * Values::kOut), q(4 * rows * values.heads * 192),
        q_abs(4 * rows * values.heads * Values::kRank);
    check_cuda(cudaMemset(q.at, 0, 4 * rows * values.heads * 192));
    const double bytes = static_cast<double>(values.w.bytes()) / 2, flop = 2.0 * rows * bytes;
    const int32_t tile_rows = tensor_tile_rows(rows < 64 ? rows : 64, Values::kOut);
    bench::row(timer, "W_v, 128 heads", rows, timer.median_us([&] {
      launch_tensor(values.args(x.rows, rows, tile_rows, y.as<float>()), nullptr);
    }),
               bytes, flop);
    bench::row(timer, "W_k^T q, 128 heads", rows, timer.median_us([&] {
      launch_absorb(
          {rows, 128, values.w.view, Values::kHead, 128, 192, q.as<float>(), true, true, q_abs.at},
          nullptr);
    }),
               bytes, flop);
  }
  time_experts(timer);
  for (const int32_t rows : {1, 64, 4096}) {
    if (rows > most_rows) break;
    Memory x(4 * rows * 7168), codes(packed_bytes(rows, 7168));
    check_cuda(cudaMemset(x.at, 0, 4 * rows * 7168));
    bench::row(timer, "quantise 7168", rows, timer.median_us([&] {
      launch_pack_codes({rows, 7168, x.as<float>(), 7168, Rounding::e4m3, false, codes.as<unsigned char>()},
                        nullptr);
    }),
               5.0 * rows * 7168, 0);
  }
}

}  // namespace
}  // namespace dsv::cuda

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (argc > 2) dsv::cuda::most_rows = std::atoi(argv[2]);
  const dsv::cuda::bench::Timer timer;
  if (what != "time") dsv::cuda::check_all(what == "quick");
  if (what == "time" || what.empty()) dsv::cuda::time_all(timer);
  std::printf("%s\n", dsv::cuda::failed ? "CHECKS FAILED" : "no check failed");
  return dsv::cuda::failed ? 1 : 0;
}
