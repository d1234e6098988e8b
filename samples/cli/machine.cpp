#include "samples/cli/machine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace cli {
namespace {

double seconds_of(int threads, const std::function<void(int)>& work) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(work, i);
  work(0);
  for (std::thread& other : others) other.join();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Results go here, so that the work cannot be left out.
std::atomic<uint64_t> sink;

uint64_t sum(const uint64_t* data, size_t count) {
  uint64_t sums[32] = {};  // independent, so that loads and not additions are the limit
  for (size_t i = 0; i + 32 <= count; i += 32) {
    for (size_t j = 0; j < 32; ++j) sums[j] += data[i + j];
  }
  uint64_t total = 0;
  for (const uint64_t one : sums) total += one;
  return total;
}

double read_bandwidth(int threads) {
  constexpr size_t kBytes = size_t{1} << 29;
  const std::vector<uint64_t> data(kBytes / 8, 1);
  const size_t piece = data.size() / static_cast<size_t>(threads);
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    const double seconds =
        seconds_of(threads, [&](int i) { sink += sum(data.data() + piece * static_cast<size_t>(i), piece); });
    best = std::max(best, static_cast<double>(piece * 8) * threads / seconds);
  }
  return best;
}

// 12 chains hide the latency of a multiply-add (4 cycles on two ports) with room to spare; one loop per
// width, because the vectors must stay in registers.
constexpr int kChains = 12;
constexpr int64_t kSteps = 10'000'000;

template <class Vector>
[[gnu::always_inline]] inline float multiply_add_loop() {
  Vector sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = Vector{} + static_cast<float>(i);
  Vector factor = Vector{} + 0.999f, term = Vector{} + 0.001f;
  for (int64_t step = 0; step < kSteps; ++step) {
    for (int i = 0; i < kChains; ++i) sums[i] = sums[i] * factor + term;
  }
  Vector total{};
  for (int i = 0; i < kChains; ++i) total += sums[i];
  return total[0];
}
using Vector4 = float __attribute__((vector_size(16)));
float multiply_add4() { return multiply_add_loop<Vector4>(); }
#if defined(__x86_64__)
using Vector8 = float __attribute__((vector_size(32)));
using Vector16 = float __attribute__((vector_size(64)));
[[gnu::target("avx2,fma")]] float multiply_add8() { return multiply_add_loop<Vector8>(); }
[[gnu::target("avx512f")]] float multiply_add16() { return multiply_add_loop<Vector16>(); }
#endif

}  // namespace

Machine measure_machine(int threads) {
  if (threads <= 0) threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  float (*loop)() = multiply_add4;
  int lanes = 4;
  Machine machine{0, 0, "128 bit"};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) {
    loop = multiply_add16, lanes = 16, machine.vector = "AVX-512";
  } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    loop = multiply_add8, lanes = 8, machine.vector = "AVX2";
  }
#endif
  machine.read_bytes_per_s = read_bandwidth(threads);
  for (int round = 0; round < 3; ++round) {
    const double seconds = seconds_of(threads, [&](int) { sink += static_cast<uint64_t>(loop() * 1000); });
    machine.multiply_adds_per_s = std::max(machine.multiply_adds_per_s,
                                           static_cast<double>(kSteps) * kChains * lanes * threads / seconds);
  }
  return machine;
}

}  // namespace cli
