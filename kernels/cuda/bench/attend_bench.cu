// Attention of the released model on a GPU: checks the kernels against plain ones, then times them. A program
// of its own, to carry to a machine that builds nothing: cuda_attend_bench [--check | --time]. The form for
// less shared memory is checked, too, and timed where the table says `portable`.
//
// Times are medians of single launches (CUDA events), with L2 filled with other data before each. Floors: the
// multiplications at 800 TFLOP/s, and the latents' bytes at this GPU's copy bandwidth.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cuda/bench/attend_data.cuh"
#include "kernels/cuda/bench/attend_heads.cuh"
#include "kernels/cuda/bench/record.h"
#include "kernels/cuda/mma.cuh"

namespace dsv::cuda {
namespace {

// A block a (head, row), f64 sums. Shared: a score for each position, then the reduction's.
__global__ void reference_kernel(AttendRowsArgs a, float* out, float* size) {
  extern __shared__ double weights[];
  const int64_t h = blockIdx.x, r = blockIdx.y, at = r * a.heads + h;
  const int32_t n = a.selected ? a.n_selected[r] : a.step.position[r] + 1;
  const int32_t* pages = a.step.page_table + int64_t{a.step.sequence[r]} * a.step.page_stride;
  const auto row_of = [&](int32_t i) {
    const int32_t position = a.selected ? a.selected[r * a.topk + i] : i;
    return a.cache.latent + (int64_t{pages[position / 64]} * 64 + position % 64) * kAttendMmaRowBytes;
  };
  const auto latent = [&](const unsigned char* row, int j) {
    return e4m3_to_float(row[j]) * *reinterpret_cast<const float*>(row + kRank + j / 128 * 4);
  };
  const auto* q_abs = static_cast<const uint16_t*>(a.q_abs) + at * kRank;
  const float* q = static_cast<const float*>(a.q.data) + (at + 1) * a.head_dim - kRope;
  for (int32_t i = threadIdx.x; i < n; i += blockDim.x) {
    const unsigned char* row = row_of(i);
    double sum = 0;
    for (int j = 0; j < kRank; ++j) sum += static_cast<double>(bf16_to_float(q_abs[j])) * latent(row, j);
    const auto* rope = reinterpret_cast<const uint16_t*>(row + kRank + 16);
    for (int j = 0; j < kRope; ++j) sum += static_cast<double>(q[j]) * bf16_to_float(rope[j]);
    weights[i] = sum * a.softmax_scale;
  }
  __syncthreads();
  // attend_mma's weights lose up to 2^-25 by rounding, and again times a scale relative to the tile's
  // largest, where that of a tile's largest weight is 2^15: 2^-39 of the largest scale for each, 2^-29 in the
  // limit's unit.
  constexpr double kLost = 0x1p-29 * kLargestScale;
  double largest = weights[0], total = 0;
  for (int32_t i = 1; i < n; ++i) largest = fmax(largest, weights[i]);
  for (int32_t i = 0; i < n; ++i) total += exp(weights[i] - largest);
  for (int j = threadIdx.x; j < kRank; j += blockDim.x) {
    double sum = 0, absolute = 0;
    for (int32_t i = 0; i < n; ++i) {
      const double w = exp(weights[i] - largest) / total, v = latent(row_of(i), j);
      sum += w * v;
      absolute += w * fabs(v) + kLost * fabs(double{e4m3_to_float(row_of(i)[j])});
    }
    out[at * kRank + j] = static_cast<float>(sum);
    size[at * kRank + j] = static_cast<float>(absolute);
  }
}

// A result is rounded to bf16, half a step (2^-9), after weights that are rounded to f16 (2^-11, once,
// because scales are powers of two; in the sum and in the total) and whose scores err by fp32's 2^-24 times
// sqrt(576) and their size, some 2^7: all relative to the sum of the magnitudes, to which reference_kernel
// adds what is below the range of f16.
double worst_error(const std::vector<float>& got, const std::vector<float>& expected,
                   const std::vector<float>& size) {
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (!std::isfinite(got[i])) return INFINITY;
    const double limit = std::fabs(double{expected[i]}) * 0x1p-8 + double{size[i]} * 0x1p-10 + 1e-30;
    worst = std::max(worst, std::fabs(double{got[i]} - double{expected[i]}) / limit);
  }
  return worst;
}

bool same(const std::vector<float>& a, const std::vector<float>& b, size_t n) {
  return std::memcmp(a.data(), b.data(), n * 4) == 0;
}

// Whole, split, by clusters, and the first row alone, by the kernels that a launch takes on this GPU, and by
// attend_mma's with much and with little shared memory.
void check_batch(const Memory<unsigned char>& cache, int32_t rows, int32_t heads, int32_t topk,
                 int32_t context, const std::vector<int32_t>& n, bool all = false) {
  const std::string name = std::to_string(heads) + " heads, " + std::to_string(rows) + " rows, n " +
                           std::to_string(all ? context : n[0]) + (n.size() > 1 ? " and others" : "");
  Batch b(cache, rows, heads, topk, context, std::min(rows, 3), n, true);
  Memory<float> expected(b.mixed.size()), size(b.mixed.size());
  const int32_t most = all ? context : topk;
  reference_kernel<<<dim3(static_cast<unsigned>(heads), static_cast<unsigned>(rows)), 256,
                     most * sizeof(double)>>>(b.args(1, all), expected.get(), size.get());
  finish("the reference");
  const auto want = expected.host(), scale = size.host();
  const auto run = [&](void (*launch)(const AttendRowsArgs&, Stream), const AttendRowsArgs& args) {
    check(cudaMemset(b.mixed.get(), 0xFF, static_cast<size_t>(b.mixed.size()) * 4), "cudaMemset");
    launch(args, nullptr);
    finish(name.c_str());
    return b.mixed.host();
  };
  const int32_t splits = attend_most_splits(most);
  double errors[2];
  for (const bool mma : {false, true}) {
    const auto launch = mma ? launch_attend_mma : launch_attend;
    const std::string which = name + (mma ? ", mma: " : ": ");
    const auto split = run(launch, b.args(splits, all));
    double& error = errors[mma] = worst_error(split, want, scale);
    report(error <= 1, which + "error " + std::to_string(error) + " of the limit");
    if (most <= kAttendMmaFold) {
      const auto whole = run(launch, b.args(1, all));
      report(same(whole, split, whole.size()), which + "whole and split differ in bits");
    }
    for (const int32_t cluster : {1, 2, 4}) {
      AttendRowsArgs args = b.args(1, all);
      if (mma || !takes_attend_wgmma(args)) break;
      args.cluster = cluster;
      report(same(run(launch, args), split, split.size()),
             which + "clusters of " + std::to_string(cluster) + " differ in bits");
    }
    AttendRowsArgs alone = b.args(splits, all);
    alone.rows = 1;
    report(same(run(launch, alone), split, static_cast<size_t>(heads) * kRank),
           which + "the first row alone differs in bits");
    if (mma) {
      const int32_t forms = most <= kAttendMmaFold ? 1 : splits;
      report(same(run(launch, b.args(forms, all, kPortableShared)), split, split.size()),
             which + "the portable form differs in bits");
      const Memory<float> codes = bf16_queries(b.q);
      AttendRowsArgs from_bf16 = b.args(splits, all);
      from_bf16.q = {codes.get(), true};
      report(same(run(launch, from_bf16), split, split.size()), which + "queries in bf16 differ in bits");
    }
  }
  std::printf("  %-48s error %.3f, mma %.3f of the limit\n", name.c_str(), errors[0], errors[1]);
}

// Rows of one sequence from its expanded latents and from its cache, as codes and as values: the same bits.
void check_expanded(const Memory<unsigned char>& cache, int32_t rows, int32_t heads, int32_t context,
                    const std::vector<int32_t>& n) {
  Batch b(cache, rows, heads, 2048, context, 1, n, false);
  Memory<unsigned char> expanded(context * kExpandedRowBytes);
  AttendRowsArgs args = b.args(1);
  if (!takes_attend_wgmma(args)) return;
  launch_attend(args, nullptr);
  finish("attend");
  const auto want = b.mixed.host();
  Memory<uint16_t> codes(b.mixed.size());
  args.codes = codes.get();
  const auto run = [&](const std::string& what) {
    const std::string name = std::to_string(heads) + " heads, " + std::to_string(rows) + " rows, " + what;
    check(cudaMemset(codes.get(), 0xFF, static_cast<size_t>(codes.size()) * 2), "cudaMemset");
    launch_attend(args, nullptr);
    finish(name.c_str());
    size_t differ = 0;
    const auto got = codes.host();
    for (size_t i = 0; i < got.size(); ++i) differ += bits_of(bf16_to_float(got[i])) != bits_of(want[i]);
    report(differ == 0, name + ": " + std::to_string(differ) + " differ in bits");
  };
  run("codes");
  launch_expand({context, args.step.page_table, args.cache, expanded.get()}, nullptr);
  args.expanded = expanded.get();
  run("expanded");
  const Memory<float> q = bf16_queries(b.q);
  args.q = {q.get(), true};
  run("expanded, queries in bf16");
}

__global__ void absorb_reference(AbsorbArgs a, float* out) {
  const int j = threadIdx.x;
  const int64_t h = blockIdx.x, r = blockIdx.y;
  double sum = 0;
  for (int64_t i = 0; i < a.nope; ++i) {
    sum += static_cast<double>(weight_at(a.weight, h * a.group_rows + i, j)) *
           static_cast<const float*>(a.q.data)[(r * a.heads + h) * a.head_dim + i];
  }
  out[(r * a.heads + h) * kRank + j] = static_cast<float>(sum);
}

void check_absorb(int32_t rows, int32_t heads, bool fp8) {
  KvB weight(heads, fp8);
  Memory<float> q(int64_t{rows} * heads * kHeadDim), expected(int64_t{rows} * heads * kRank);
  Memory<uint16_t> out(expected.size()), alone(int64_t{heads} * kRank);
  fill(fill_floats, q.size(), q.get(), q.size(), 1.0f, uint64_t{5} << 40);
  AbsorbArgs args = {rows, heads, weight.view, kGroup, kNope, kHeadDim, q.get(), true, true, out.get()};
  launch_absorb(args, nullptr);
  absorb_reference<<<dim3(static_cast<unsigned>(heads), static_cast<unsigned>(rows)), kRank>>>(
      args, expected.get());
  args.rows = 1;
  args.q_abs = alone.get();
  launch_absorb(args, nullptr);
  finish("absorb");
  const auto got = out.host(), first = alone.host();
  const auto want = expected.host();
  double worst = 0, squares = 0;
  for (const float x : want) squares += double{x} * x;
  const double rms = std::sqrt(squares / static_cast<double>(want.size()));
  for (size_t i = 0; i < want.size(); ++i) {
    const double limit = std::fabs(double{want[i]}) * 0x1p-8 + rms * 0x1p-16;
    const double error = std::fabs(double{bf16_to_float(got[i])} - double{want[i]});
    worst = std::isfinite(error) ? std::max(worst, error / limit) : INFINITY;
  }
  const std::string name = "absorb, " + std::to_string(heads) + " heads, " + std::to_string(rows) +
                           (fp8 ? " rows, FP8" : " rows, bf16");
  report(worst <= 1, name + ": error " + std::to_string(worst) + " of the limit");
  report(std::memcmp(got.data(), first.data(), first.size() * 2) == 0,
         name + ": the first row alone differs in bits");
  std::printf("  %-48s error %.3f of the limit\n", name.c_str(), worst);
}

void run_checks() {
  std::printf("checks\n");
  constexpr int64_t kPool = 3 * 4096;
  Memory<unsigned char> cache(kPool * kAttendMmaRowBytes * 1);
  fill(fill_cache, kPool, cache.get(), kPool);
  for (const int32_t heads : {1, 4, 64, 128}) {
    for (const int32_t rows : {1, 7, 63, 65}) {
      for (const int32_t n : {1, 63, 64, 65, 2048}) check_batch(cache, rows, heads, 2048, 4000, {n});
    }
    check_batch(cache, 9, heads, 2048, 4000, {130, 2048, 1, 2047, 64, 700, 1985});
    check_batch(cache, 3, heads, 2048, 3999, {1}, true);  // all positions
    check_batch(cache, 3, heads, 2048, 130, {1}, true);
  }
  check_batch(cache, 5, 20, 300, 4000, {300, 299, 5});
  for (const int32_t heads : {33, 64, 100, 128}) {
    check_expanded(cache, 5, heads, 4000, {2048});
    check_expanded(cache, 190, heads, 3999, {130, 2048, 1, 2047, 64, 700, 1985, 65, 128, 129});
  }
  if (own_shared() >= kAttendWgmmaShared) check_by_heads(cache);
  for (const bool fp8 : {true, false}) {
    for (const int32_t rows : {1, 7, 17, 130}) check_absorb(rows, rows == 7 ? 4 : 128, fp8);
  }
  std::printf("checks: %d failed\n\n", failures);
}

// ---------------------------------------------------------------------------------- times

__global__ void mma_rate_kernel(float* out, int times) {
  float c[8][4] = {};
  const uint32_t a[4] = {threadIdx.x, threadIdx.x, threadIdx.x, threadIdx.x};
  for (int i = 0; i < times; ++i) {
#pragma unroll
    for (int j = 0; j < 8; ++j) mma_f16(c[j], a, threadIdx.x, j);
  }
  float sum = 0;
  for (int j = 0; j < 8; ++j) sum += c[j][0] + c[j][3];
  if (sum == 12345.0f) *out = sum;
}
__global__ void empty_kernel() {}

void run_times() {
  cudaDeviceProp device;
  check(cudaGetDeviceProperties(&device, 0), "properties");
  std::printf("%s, sm_%d%d, %d processors, L2 %d MB\n", device.name, device.major, device.minor,
              device.multiProcessorCount, device.l2CacheSize >> 20);
  Timer timer;
  double copy, mma;
  {
    Memory<unsigned char> from(int64_t{1} << 30), to(int64_t{1} << 30);
    copy = 2.0 * (1 << 30) / timer.time([&] {
      cudaMemcpyAsync(to.get(), from.get(), 1 << 30, cudaMemcpyDeviceToDevice);
    }) * 1e-6;
    const int blocks = device.multiProcessorCount * 2;
    mma = 1e-6 * blocks * 8 * 2000 * 8 * 4096.0 / timer.time([&] {
      mma_rate_kernel<<<static_cast<unsigned>(blocks), 256>>>(reinterpret_cast<float*>(to.get()), 2000);
    });
  }
  const double nothing = timer.time([] { empty_kernel<<<1, 32>>>(); });
  std::printf("copy %.2f TB/s, mma.sync f16 %.0f TFLOP/s, an empty launch %.1f us\n\n", copy, mma, nothing);

  constexpr int32_t kTopk = 2048;
  const int64_t pool = int64_t{128} * 32768 + 131072;
  Memory<unsigned char> cache(pool * kAttendMmaRowBytes);
  fill(fill_cache, pool, cache.get(), pool);
  std::printf("%-44s %9s %9s %9s %7s %7s %9s\n", "sparse MLA, topk 2048", "us", "mma floor", "byte floor",
              "share", "peer", "TFLOP/s");
  const auto attend = [&](const char* name, int32_t sequences, int32_t rows, int32_t heads, int32_t context,
                          int32_t splits, double peer, int64_t shared_limit = own_shared(),
                          bool expand = false) {
    Batch b(cache, rows, heads, kTopk, context, sequences, {kTopk}, splits > 1);
    AttendRowsArgs args = b.args(splits, false, shared_limit);
    Memory<unsigned char> expanded(expand ? context * kExpandedRowBytes : 1);
    Memory<uint16_t> codes(expand ? b.mixed.size() : 1);
    if (expand) args.expanded = expanded.get(), args.codes = codes.get();
    const auto work = [&] {
      if (expand) launch_expand({context, args.step.page_table, args.cache, expanded.get()}, nullptr);
      launch_attend(args, nullptr);
    };
    const double us = timer.time(work, rows > 1000 ? 7 : 25);
    const double flop = 2.0 * rows * heads * kTopk * (kRank + kRope + kRank);
    const double floor = flop / 800e6;
    const double touched =
        static_cast<double>(std::min<int64_t>(int64_t{rows} * kTopk, int64_t{sequences} * context)) *
        kAttendMmaRowBytes;
    const double bytes = touched / copy * 1e-6;
    const std::string label = std::string(name) + (splits > 1 ? ", split"
                                                   : expand   ? ", expanded"
                                                              : ", whole");
    std::printf("%-44s %9.1f %9.1f %9.1f %6.0f%% %7.1f %9.0f\n", label.c_str(), us, floor, bytes,
                100 * std::max(floor, bytes) / us, peer, flop / us * 1e-6);
    bench::record(label.c_str(), rows, us, std::max(floor, bytes));
  };
  for (const int32_t splits : {kMostSplits, 1}) attend("b=1, 128 heads, 32K", 1, 1, 128, 32768, splits, 21.3);
  for (const int32_t splits : {kMostSplits, 1}) attend("b=2, 128 heads, 32K", 2, 2, 128, 32768, splits, 0);
  for (const int32_t splits : {kMostSplits, 1}) attend("b=4, 128 heads, 32K", 4, 4, 128, 32768, splits, 0);
  for (const int32_t splits : {kMostSplits, 1}) attend("b=8, 128 heads, 32K", 8, 8, 128, 32768, splits, 31.1);
  for (const int32_t splits : {kMostSplits, 1}) attend("b=16, 128 heads, 32K", 16, 16, 128, 32768, splits, 0);
  attend("b=32, 128 heads, 32K", 32, 32, 128, 32768, 1, 68.3);
  attend("b=64 s_q=2, 128 heads, 32K", 64, 128, 128, 32768, 1, 193.6);
  attend("b=128 s_q=2, 128 heads, 32K", 128, 256, 128, 32768, 1, 374.9);
  attend("portable: b=1, 128 heads, 32K", 1, 1, 128, 32768, kMostSplits, 0, kPortableShared);
  attend("portable: b=32, 128 heads, 32K", 32, 32, 128, 32768, 1, 0, kPortableShared);
  attend("portable: b=128 s_q=2, 128 heads, 32K", 128, 256, 128, 32768, 1, 0, kPortableShared);
  for (const int32_t splits : {kMostSplits, 1}) attend("b=1, 64 heads, 32K", 1, 1, 64, 32768, splits, 20.8);
  attend("b=128 s_q=2, 64 heads, 32K", 128, 256, 64, 32768, 1, 241);
  for (const int32_t splits : {kMostSplits, 1}) attend("b=1, 4 heads, 32K", 1, 1, 4, 32768, splits, 0);
  attend("b=64, 4 heads, 32K", 64, 64, 4, 32768, 1, 0);
  for (const bool expand : {false, true}) {
    if (expand && own_shared() < kAttendWgmmaShared) break;
    const auto prefill = [&](const char* name, int32_t rows, int32_t context, double peer) {
      attend(name, 1, rows, 128, context, 1, peer, own_shared(), expand);
    };
    prefill("prefill s_q 512, s_kv 32K, 128 heads", 512, 32768, 482);
    prefill("prefill s_q 4096, s_kv 8K, 128 heads", 4096, 8192, 3760);
    prefill("prefill s_q 4096, s_kv 32K, 128 heads", 4096, 32768, 4045);
    prefill("prefill s_q 4096, s_kv 128K, 128 heads", 4096, 131072, 4467);
  }

  if (own_shared() >= kAttendWgmmaShared) time_by_heads(cache, timer);

  std::printf("\n%-44s %9s %9s %9s %7s\n", "absorb, 128 heads, FP8", "us", "mma floor", "byte floor",
              "share");
  KvB weight(128, true);
  for (const int32_t rows : {1, 8, 32, 256}) {
    Memory<float> q(int64_t{rows} * 128 * kHeadDim);
    Memory<uint16_t> q_abs(int64_t{rows} * 128 * kRank);
    fill(fill_floats, q.size(), q.get(), q.size(), 1.0f, uint64_t{5} << 40);
    const AbsorbArgs absorb = {rows,     128,     weight.view, kGroup, kNope,
                               kHeadDim, q.get(), true,        true,   q_abs.get()};
    const double us = timer.time([&] { launch_absorb(absorb, nullptr); });
    const double floor = 2.0 * rows * 128 * kNope * kRank / 800e6;
    const double bytes = 128.0 * kNope * kRank + rows * 128.0 * (4 * kNope + 2 * kRank);
    const double moved = bytes / copy * 1e-6;
    std::printf("%-34s %4d rows %9.1f %9.1f %9.1f %6.0f%%\n", "absorb", rows, us, floor, moved,
                100 * std::max(floor, moved) / us);
    bench::record("absorb, 128 heads, FP8", rows, us, std::max(floor, moved));
  }
}

}  // namespace
}  // namespace dsv::cuda

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
    std::printf("skipped: there is no GPU here\n");
    return 0;
  }
  if (what != "--time") dsv::cuda::run_checks();
  if (what != "--check") dsv::cuda::run_times();
  return dsv::cuda::failures > 0;
}
