// Linears of bench-2b5's shapes on every target: GB/s of weights for one row (to be compared with
// read_bandwidth), GFLOP/s for many (with multiply_add_peak). Weights are spread over a gigabyte, so that
// they come from memory.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cpu/linear.h"
#include "kernels/cpu/targets.h"

namespace dsv::cpu {
namespace {

struct Line {
  alignas(64) unsigned char bytes[64];
};

constexpr int64_t kMemoryBytes = int64_t{1} << 30;

// Weights, scratch and threads, shared by all benchmarks.
struct Bench {
  std::unique_ptr<Jobs> jobs = make_thread_pool(static_cast<int32_t>(std::thread::hardware_concurrency()));
  std::vector<Line> weights{static_cast<size_t>(kMemoryBytes / 64)};
  std::vector<Line> shared, per_job;
  CpuDevice device;

  Bench() {
    std::mt19937 random(1);
    for (Line& line : weights) {
      // Any code but NaN, also as the two bytes of a bf16 of moderate size.
      for (unsigned char& byte : line.bytes) byte = static_cast<unsigned char>(0x38 | (random() & 0x83));
    }
    device.jobs = jobs.get();
    device.max_jobs = jobs->width();
  }
  void reserve(int64_t rows, int64_t cols) {
    device.job_scratch_bytes = (linear_job_bytes(rows, cols) + 63) / 64 * 64;
    per_job.resize(static_cast<size_t>(device.max_jobs * device.job_scratch_bytes / 64));
    shared.resize(static_cast<size_t>(linears_bytes(rows, cols) / 64 + 1));
    device.job_scratch_memory = per_job.data()->bytes;
    device.shared_scratch = shared.data()->bytes;
  }
  static Bench& instance() {
    static Bench bench;
    return bench;
  }
};

void linear(benchmark::State& state, const std::string& target, Dtype dtype) {
  const auto n = state.range(0), k = state.range(1);
  const auto rows = static_cast<int32_t>(state.range(2));
  Bench& b = Bench::instance();
  b.reserve(rows, k);
  b.device.kernels = choose_target(target.c_str()).kernels;
  const std::vector<float> scales(static_cast<size_t>(((n + 127) / 128) * ((k + 127) / 128)), 0.01f);
  std::vector<float> x(static_cast<size_t>(rows * k)), out(static_cast<size_t>(rows * n));
  std::mt19937 random(2);
  for (float& v : x) v = std::normal_distribution<float>()(random);

  std::vector<CpuWeight> weights;
  const int64_t bytes = n * k * dtype_bytes(dtype);
  for (int64_t at = 0; at + bytes <= kMemoryBytes; at += bytes) {
    CpuWeight w;
    w.dtype = dtype;
    w.rows = n;
    w.cols = k;
    w.data = b.weights.data()->bytes + at;
    if (dtype == Dtype::f8_e4m3) w.scale_inv = reinterpret_cast<const unsigned char*>(scales.data());
    weights.push_back(w);
  }
  size_t next = 0;
  for (auto _ : state) {
    const CpuWeight& w = weights[next++ % weights.size()];
    const Linear linear = {reinterpret_cast<const Weight*>(&w),
                           dtype == Dtype::f8_e4m3 ? Rounding::e4m3 : Rounding::bf16, out.data(), n};
    run_linears(b.device, x.data(), k, rows, &linear, 1, b.device.shared_scratch);
    benchmark::DoNotOptimize(out.data());
  }
  state.counters["weight_GB/s"] =
      benchmark::Counter(static_cast<double>(state.iterations() * bytes) * 1e-9, benchmark::Counter::kIsRate);
  state.counters["GFLOP/s"] = benchmark::Counter(
      2e-9 * static_cast<double>(state.iterations() * n * k * rows), benchmark::Counter::kIsRate);
}

void read_bandwidth(benchmark::State& state) {
  Bench& b = Bench::instance();
  constexpr int64_t kPart = 1 << 20, kParts = kMemoryBytes / kPart;
  std::vector<uint64_t> sums(static_cast<size_t>(kParts));
  for (auto _ : state) {
    b.device.parallel(kParts, [&](int64_t part, int32_t) {
      const auto* const words = reinterpret_cast<const uint64_t*>(b.weights.data()->bytes + part * kPart);
      uint64_t sum[8] = {};
      for (int64_t i = 0; i < kPart / 8; i += 8) {
        for (int j = 0; j < 8; ++j) sum[j] ^= words[i + j];
      }
      for (uint64_t s : sum) sums[static_cast<size_t>(part)] ^= s;
    });
    benchmark::DoNotOptimize(sums.data());
  }
  state.counters["GB/s"] = benchmark::Counter(static_cast<double>(state.iterations() * kMemoryBytes) * 1e-9,
                                              benchmark::Counter::kIsRate);
}

void add_benchmarks() {
  benchmark::RegisterBenchmark("read_bandwidth", read_bandwidth)
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
  std::istringstream targets(cpu_targets());
  for (std::string target; targets >> target;) {
    const auto add = [&](const char* what, Dtype dtype, int64_t n, int64_t k) {
      for (int64_t rows : {1, 8, 64, 512}) {
        benchmark::RegisterBenchmark((target + "/" + what).c_str(),
                                     [target, dtype](benchmark::State& s) { linear(s, target, dtype); })
            ->Args({n, k, rows})
            ->UseRealTime()
            ->Unit(benchmark::kMicrosecond)
            ->MinTime(0.2);
      }
    };
    add("q_b", Dtype::f8_e4m3, 6144, 768);
    add("dense_gate", Dtype::f8_e4m3, 6144, 2048);
    add("expert_gate", Dtype::f8_e4m3, 768, 2048);
    add("expert_down", Dtype::f8_e4m3, 2048, 768);
    add("head", Dtype::bf16, 32000, 2048);
  }
}

}  // namespace
}  // namespace dsv::cpu

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  dsv::cpu::add_benchmarks();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
