#include "samples/cli/machine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

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

// Four streams in widest loads, because one stream of narrow ones does not keep a core's memory requests in
// flight.
template <class Vector>
[[gnu::always_inline]] inline uint64_t read_loop(const unsigned char* data, size_t bytes) {
  constexpr size_t kStreams = 4, kTogether = 2;
  const size_t count = bytes / sizeof(Vector) / kStreams / kTogether * kTogether;  // vectors of a stream
  const auto* const from = reinterpret_cast<const Vector*>(data);
  Vector sums[kStreams * kTogether] = {};
  for (size_t i = 0; i < count; i += kTogether) {
    for (size_t s = 0; s < kStreams; ++s) {
      for (size_t j = 0; j < kTogether; ++j) sums[s * kTogether + j] ^= from[s * count + i + j];
    }
  }
  Vector total{};
  for (const Vector& one : sums) total ^= one;
  return total[0] + total[1];
}
using Words2 = uint64_t __attribute__((vector_size(16), may_alias));
uint64_t read2(const unsigned char* data, size_t bytes) { return read_loop<Words2>(data, bytes); }
#if defined(__x86_64__)
using Words4 = uint64_t __attribute__((vector_size(32), may_alias));
using Words8 = uint64_t __attribute__((vector_size(64), may_alias));
[[gnu::target("avx2")]] uint64_t read4(const unsigned char* data, size_t bytes) {
  return read_loop<Words4>(data, bytes);
}
[[gnu::target("avx512f")]] uint64_t read8(const unsigned char* data, size_t bytes) {
  return read_loop<Words8>(data, bytes);
}
#endif

double read_bandwidth(int threads) {
  constexpr size_t kBytes = size_t{1} << 29, kLine = 64;
  struct alignas(kLine) Line {
    unsigned char bytes[kLine];
  };
  const std::vector<Line> data(kBytes / kLine, Line{{1}});
  const size_t piece = data.size() / static_cast<size_t>(threads);
  uint64_t (*read)(const unsigned char*, size_t) = read2;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) read = read4;
  if (__builtin_cpu_supports("avx512f")) read = read8;
#endif
  double best = 0;
  for (int round = 0; round < 9; ++round) {
    const double seconds = seconds_of(
        threads, [&](int i) { sink += read(data[piece * static_cast<size_t>(i)].bytes, piece * kLine); });
    best = std::max(best, static_cast<double>(piece * kLine) * threads / seconds);
  }
  return best;
}

// 12 chains hide the latency of a multiply-add (4 cycles on two ports) with room to spare; one loop per
// width, because the vectors must stay in registers.
constexpr int kChains = 12;
constexpr int64_t kSteps = 10'000'000;
constexpr int64_t kTileSteps = 1'000'000;

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

[[gnu::target("avx512f,avx512bf16")]] float multiply_add_bf16() {
  __m512 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  const auto one = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3c00));
  for (int64_t step = 0; step < kSteps; ++step) {
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], one, one);
  }
  __m512 total = sums[0];
  for (int i = 1; i < kChains; ++i) total = _mm512_add_ps(total, sums[i]);
  return _mm512_cvtss_f32(total);
}

// Zero tiles; four sums, so that a product need not wait for the one before.
[[gnu::target("amx-tile,amx-bf16")]] float multiply_add_amx() {
  struct alignas(64) Config {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16};
  };
  static constexpr Config kConfig;
  _tile_loadconfig(&kConfig);
  for (int64_t step = 0; step < kTileSteps; ++step) {
    _tile_dpbf16ps(0, 4, 5);
    _tile_dpbf16ps(1, 4, 5);
    _tile_dpbf16ps(2, 4, 5);
    _tile_dpbf16ps(3, 4, 5);
  }
  _tile_release();
  return 0;
}
#endif

// How to measure an instruction set's peak: a loop and the multiply-adds that it does.
struct Unit {
  const char* name;
  float (*loop)();
  double multiply_adds;
};

Unit unit_of([[maybe_unused]] std::string_view target, [[maybe_unused]] bool bf16) {
  constexpr double kVector = static_cast<double>(kSteps) * kChains;
#if defined(__x86_64__)
  // The engine, which runs in this process, has asked the system for the tile registers already.
  if (target == "amx" && bf16) return {"bf16 on AMX", multiply_add_amx, 4.0 * kTileSteps * 16 * 16 * 32};
  if (target == "avx512_bf16" && bf16) return {"bf16 on AVX-512", multiply_add_bf16, kVector * 32};
  if (target == "amx" || target.starts_with("avx512"))
    return {"fp32 on AVX-512", multiply_add16, kVector * 16};
  if (target == "avx2") return {"fp32 on AVX2", multiply_add8, kVector * 8};
#endif
  return {"fp32 on 128 bits", multiply_add4, kVector * 4};
}

}  // namespace

Machine measure_machine(int threads, std::string_view target, bool bf16) {
  if (threads <= 0) threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const Unit unit = unit_of(target, bf16);
  Machine machine{read_bandwidth(threads), 0, unit.name};
  for (int round = 0; round < 5; ++round) {
    const double seconds =
        seconds_of(threads, [&](int) { sink += static_cast<uint64_t>(unit.loop() * 1000); });
    machine.multiply_adds_per_s =
        std::max(machine.multiply_adds_per_s, unit.multiply_adds * threads / seconds);
  }
  return machine;
}

}  // namespace cli
