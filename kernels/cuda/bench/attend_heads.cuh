// attend_heads.cu for attend_bench.cu: checked against f64 sums over the keys and values that it makes, and
// those against f64 sums over latents; timed beside the absorbed form with its W_k^T q and W_v.
#pragma once

#include <cmath>
#include <cstring>
#include <numeric>

#include "kernels/cuda/bench/attend_data.cuh"
#include "kernels/cuda/bench/record.h"
#include "kernels/cuda/linear.h"

namespace dsv::cuda {
namespace {

// bf16 in the first half of f32's places.
__global__ void fill_queries(uint16_t* x, int64_t n, uint64_t seed) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < n) x[i / kHeadDim * 2 * kHeadDim + i % kHeadDim] = float_to_bf16(noise(seed + i));
}

// A sequence, its last rows, and kv_b.
struct HeadsBatch {
  int32_t rows, heads, first, positions;
  KvB weight;
  Memory<int32_t> pages;
  Memory<uint16_t> q;
  Memory<float> y;
  Memory<unsigned char> keys, codes;
  CacheView cache;

  HeadsBatch(const Memory<unsigned char>& pool, int32_t rows_, int32_t first_, int32_t heads_)
      : rows(rows_),
        heads(heads_),
        first(first_),
        positions(rows + first),
        weight(heads, true),
        pages(Batch::scattered(pool.size() / kAttendMmaRowBytes / kPageTokens, 1,
                               (positions + kPageTokens - 1) / kPageTokens)),
        q(int64_t{rows} * heads * 2 * kHeadDim),
        y(int64_t{rows} * heads * kValue),
        keys(head_keys_bytes(positions, heads)),
        codes(packed_bytes(rows, int64_t{heads} * kValue)) {
    fill(fill_queries, q.size() / 2, q.get(), q.size() / 2, uint64_t{1} << 40);
    cache.latent = pool.get();
    cache.latent_row_bytes = kAttendMmaRowBytes;
    cache.rank = kRank;
    cache.rope = kRope;
    cache.official = true;
  }
  PackedRows packed() const {
    return packed_rows(codes.get(), rows, int64_t{heads} * kValue, Rounding::e4m3, PackedForm::by_block);
  }
  void make_keys() const {
    launch_head_keys({positions, heads, pages.get(), cache, weight.view, keys.get()}, nullptr);
  }
  AttendHeadsArgs args(bool coded) const {
    return {rows,       heads,         first,   q.get(),
            keys.get(), kSoftmaxScale, y.get(), coded ? codes_out(packed()) : CodesOut{}};
  }
};

// A block a position: f64 sums and the products' sizes of all heads' keys and values.
__global__ void head_keys_reference(HeadKeysArgs a, float* sums, float* sizes) {
  const int64_t p = blockIdx.x, outputs = a.heads * kGroup;
  const unsigned char* const row =
      a.cache.latent + (int64_t{a.pages[p / 64]} * 64 + p % 64) * kAttendMmaRowBytes;
  for (int64_t o = threadIdx.x; o < outputs; o += blockDim.x) {
    double sum = 0, size = 0;
    for (int j = 0; j < kRank; ++j) {
      const double product = double{e4m3_to_float(row[j])} *
                             *reinterpret_cast<const float*>(row + kRank + j / 128 * 4) *
                             weight_at(a.kv_b, o, j);
      sum += product;
      size += fabs(product);
    }
    sums[p * outputs + o] = static_cast<float>(sum);
    sizes[p * outputs + o] = static_cast<float>(size);
  }
}

// A block a (head, row). Shared: a weight for each position.
__global__ void heads_reference(AttendHeadsArgs a, float* out, float* size) {
  extern __shared__ double weights[];
  const int64_t h = blockIdx.x, r = blockIdx.y, at = r * a.heads + h, n = a.first_position + r + 1;
  const auto value = [&](int64_t p, int64_t i) {
    return static_cast<double>(
        bf16_to_float(reinterpret_cast<const uint16_t*>(a.keys + p * head_keys_pitch(a.heads))[i]));
  };
  for (int64_t p = threadIdx.x; p < n; p += blockDim.x) {
    double sum = 0;
    for (int i = 0; i < kHeadDim; ++i)
      sum += bf16_to_float(static_cast<const uint16_t*>(a.q)[at * 2 * kHeadDim + i]) *
             value(p, i < kNope ? h * kGroup + i : a.heads * kGroup + i - kNope);
    weights[p] = sum * a.softmax_scale;
  }
  __syncthreads();
  double largest = weights[0], total = 0;
  for (int64_t p = 1; p < n; ++p) largest = fmax(largest, weights[p]);
  for (int64_t p = 0; p < n; ++p) total += exp(weights[p] - largest);
  for (int i = threadIdx.x; i < kValue; i += blockDim.x) {
    double sum = 0, absolute = 0;
    for (int64_t p = 0; p < n; ++p) {
      const double part = exp(weights[p] - largest) / total * value(p, h * kGroup + kNope + i);
      sum += part;
      absolute += fabs(part);
    }
    out[at * kValue + i] = static_cast<float>(sum);
    size[at * kValue + i] = static_cast<float>(absolute);
  }
}

// Keys are bf16 of FP8 sums, which lose less than 2^-10 of the products' sizes (linear_fp8.cu). Weights are
// rounded to bf16, and so are values; scores of size 30 err by f32's share.
void check_heads(const Memory<unsigned char>& pool, int32_t rows, int32_t first, int32_t heads) {
  const HeadsBatch b(pool, rows, first, heads);
  const std::string name = "by heads, " + std::to_string(heads) + " heads, " + std::to_string(rows) +
                           " rows from " + std::to_string(first) + " on";
  const int64_t outputs = int64_t{heads} * kGroup;
  Memory<float> key_sums(b.positions * outputs), key_sizes(b.positions * outputs), sums(b.y.size()),
      sizes(b.y.size());
  b.make_keys();
  head_keys_reference<<<static_cast<unsigned>(b.positions), 256>>>(
      {b.positions, heads, b.pages.get(), b.cache, b.weight.view, b.keys.get()}, key_sums.get(),
      key_sizes.get());
  finish(name.c_str());
  const auto keys = b.keys.host();
  const auto key_sum = key_sums.host(), key_size = key_sizes.host();
  double key_error = 0, error = 0;
  for (int64_t i = 0; i < b.positions * outputs; ++i) {
    uint16_t code;
    std::memcpy(&code, &keys[static_cast<size_t>(i / outputs * head_keys_pitch(heads) + 2 * (i % outputs))],
                2);
    const double want = key_sum[static_cast<size_t>(i)];
    const double e = std::fabs(bf16_to_float(code) - want) /
                     (std::fabs(want) * 0x1p-8 + key_size[static_cast<size_t>(i)] * 0x1p-10);
    key_error = std::isfinite(e) ? std::max(key_error, e) : INFINITY;
  }
  report(key_error <= 1, name + ": keys' error " + std::to_string(key_error) + " of the limit");
  heads_reference<<<dim3(static_cast<unsigned>(heads), static_cast<unsigned>(rows)), 256,
                    static_cast<size_t>(b.positions) * sizeof(double)>>>(b.args(false), sums.get(),
                                                                         sizes.get());
  launch_attend_heads(b.args(false), nullptr);
  finish(name.c_str());
  const auto y = b.y.host(), sum = sums.host(), size = sizes.host();
  for (size_t i = 0; i < y.size(); ++i) {
    const double e = std::fabs(double{y[i]} - double{sum[i]}) /
                     (std::fabs(double{sum[i]}) * 0x1p-8 + double{size[i]} * 0x1p-8);
    error = std::isfinite(e) ? std::max(error, e) : INFINITY;
  }
  report(error <= 1, name + ": error " + std::to_string(error) + " of the limit");
  // The codes of those, twice.
  const PackedRows out = b.packed();
  size_t differ = 0;
  for (int times = 0; times < 2; ++times) {
    check(cudaMemset(b.codes.get(), 0xFF, static_cast<size_t>(b.codes.size())), "cudaMemset");
    launch_attend_heads(b.args(true), nullptr);
    finish(name.c_str());
    const auto codes = b.codes.host();
    const int64_t behind = reinterpret_cast<const unsigned char*>(out.scale) - out.data;
    for (int64_t at = 0; at < static_cast<int64_t>(y.size()); at += 128) {
      const int64_t row = at / (int64_t{heads} * kValue), head = at / kValue % heads;
      float largest = 0, scale;
      for (int64_t i = at; i < at + 128; ++i)
        largest = std::fmax(largest, std::fabs(y[static_cast<size_t>(i)]));
      std::memcpy(&scale, &codes[static_cast<size_t>(behind + 4 * (head * out.scale_cols + row))], 4);
      differ += scale != e4m3_scale(largest, true);
      for (int64_t i = 0; i < 128; ++i)
        differ += codes[static_cast<size_t>(row * out.pitch + head * kValue + i)] !=
                  float_to_e4m3(y[static_cast<size_t>(at + i)] / scale);
    }
  }
  report(differ == 0, name + ": " + std::to_string(differ) + " codes differ");
  std::printf("  %-48s error %.3f, keys %.3f of the limit\n", name.c_str(), error, key_error);
}
void check_by_heads(const Memory<unsigned char>& pool) {
  for (const int32_t rows : {1, 63, 65, 129}) {
    for (const int32_t first : {0, 70, 1000}) check_heads(pool, rows, first, 3);
  }
  check_heads(pool, 500, 77, 16);
  check_heads(pool, 2048, 0, 5);
}

// A prompt's rows, `rows` of them from position `first` on, by heads and absorbed, with W_k^T q and W_v, in
// tiles of 1024 rows.
void time_heads(const Memory<unsigned char>& pool, Timer& timer, int32_t rows, int32_t first) {
  constexpr int32_t kHeads = 128, kTopk = 2048, kTileRows = 1024;
  const HeadsBatch b(pool, rows, first, kHeads);
  std::vector<int32_t> n(static_cast<size_t>(rows));
  std::iota(n.begin(), n.end(), first + 1);
  const Batch absorbed(pool, rows, kHeads, kTopk, b.positions, 1, n, false);
  Memory<unsigned char> expanded(b.positions * kExpandedRowBytes);
  Memory<uint16_t> mixed(absorbed.q_abs.size());
  const auto absorbed_form = [&] {
    launch_expand({b.positions, b.pages.get(), b.cache, expanded.get()}, nullptr);
    for (int32_t done = 0; done < rows; done += kTileRows) {
      const int32_t count = std::min(kTileRows, rows - done);
      const int64_t heads = int64_t{done} * kHeads;
      AttendRowsArgs a = absorbed.args(1);
      a.rows = count;
      a.selected += int64_t{done} * kTopk;
      a.n_selected += done;
      a.q = {b.q.get() + heads * 2 * kHeadDim, true};
      a.codes = mixed.get();
      a.expanded = expanded.get();
      launch_absorb_wgmma(
          {count, kHeads, b.weight.view, kGroup, kNope, kHeadDim, a.q, true, true, absorbed.q_abs.get()},
          nullptr);
      launch_attend(a, nullptr);
      TensorArgs values = linear_args(
          b.weight.view, packed_rows(mixed.get(), count, int64_t{kHeads} * kRank, Rounding::bf16), count);
      values.outputs = values.y_group = kValue;
      values.y_stride = kHeads * kValue;
      values.to_bf16 = true;
      values.groups = kHeads;
      values.group_rows = kGroup;
      values.first_row = kNope;
      values.x_group = 2 * kRank;
      values.codes = codes_out(b.packed(), done);
      launch_heads_wgmma(values, nullptr);
    }
  };
  const double pairs = (first + 0.5 * (rows + 1)) * rows * kHeads;  // of a row and a position
  const double flop = 2 * pairs * (kHeadDim + kValue),
               keys_flop = 2.0 * b.positions * kHeads * kGroup * kRank;
  const double before = timer.time(absorbed_form, 7), keys = timer.time([&] { b.make_keys(); }, 15),
               sums = timer.time([&] { launch_attend_heads(b.args(true), nullptr); }, 15);
  const double both = timer.time([&] { b.make_keys(), launch_attend_heads(b.args(true), nullptr); }, 15);
  std::printf(
      "%5d rows from %4d on: absorbed %8.1f, by heads %7.1f: keys %6.1f (%4.0f TFLOP/s), rows %6.1f "
      "(%4.0f)\n",
      rows, first, before, both, keys, keys_flop / keys * 1e-6, sums, flop / sums * 1e-6);
  bench::record("a prompt's rows by heads, 128 heads", rows, both, flop / 800e6 + keys_flop / 1600e6);
}

void time_by_heads(const Memory<unsigned char>& pool, Timer& timer) {
  std::printf("\na prompt's rows that see all positions, 128 heads, us\n");
  for (const int32_t rows : {256, 512, 1024, 2048}) time_heads(pool, timer, rows, 0);
  time_heads(pool, timer, 1024, 1024);
  time_heads(pool, timer, 256, 1792);
}

}  // namespace
}  // namespace dsv::cuda
