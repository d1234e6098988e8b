// wgmma.cuh on the CPU (test code). A product is made when it is issued and made again when it is waited for:
// what changes its operands in between shows, and so does a result that is used too early. Sums are f32 with
// k ascending. Memory fences do nothing.
#pragma once

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

namespace dsv::cuda {

namespace emulation {

// mbarriers, as they lie in shared memory.
struct Barrier {
  int16_t expected, missing;
  int32_t phase;
};
inline Barrier& barrier_of(uint64_t* at) { return *reinterpret_cast<Barrier*>(at); }

// Values of a swizzled block: of row r, from an address inside its first row on.
inline uint16_t swizzled_value(uint32_t descriptor, unsigned row, unsigned i) {
  const uint32_t linear = (descriptor & 0x3FFF) * 16 + row / 8 * 1024 + row % 8 * 128 + 2 * i;
  uint16_t value;
  std::memcpy(&value, block_memory + (linear ^ (linear >> 7 & 7) << 4), 2);
  return value;
}

// A product's accumulators are NaN until it is waited for.
struct Product {
  std::function<void(float*)> add;
  float* to;
  std::vector<float> before, after;
};
// Of every thread of the running block: groups that were committed, and at last the open one.
inline std::vector<std::vector<Product>> issued[1024];

inline void issue(float* to, size_t count, bool add, std::function<void(float*)> product) {
  std::vector<std::vector<Product>>& groups = issued[threadIdx.x];
  if (groups.empty()) groups.emplace_back();
  std::vector<float> before(count, 0.0f);
  if (add) before.assign(to, to + count);
  for (const std::vector<Product>& group : groups) {
    for (const Product& p : group) {
      if (add && p.to == to) before = p.after;
    }
  }
  std::vector<float> after = before;
  product(after.data());
  for (size_t i = 0; i < count; ++i) to[i] = NAN;
  groups.back().push_back({std::move(product), to, std::move(before), std::move(after)});
}
inline void commit() { issued[threadIdx.x].emplace_back(); }
inline void finish(size_t pending) {
  std::vector<std::vector<Product>>& groups = issued[threadIdx.x];
  for (; groups.size() > pending + 1; groups.erase(groups.begin())) {
    for (const Product& p : groups.front()) {
      std::vector<float> again = p.before;
      p.add(again.data());
      const size_t bytes = again.size() * sizeof(float);
      if (std::memcmp(again.data(), p.after.data(), bytes) != 0) {
        std::fprintf(stderr, "emulation: shared memory changed under a product (thread %u)\n", threadIdx.x);
        std::abort();
      }
      std::memcpy(p.to, p.after.data(), bytes);
    }
  }
}

}  // namespace emulation

inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(static_cast<const unsigned char*>(p) - emulation::block_memory);
}
inline void barrier_init(uint64_t* barrier, int count) {
  emulation::barrier_of(barrier) = {static_cast<int16_t>(count), static_cast<int16_t>(count), 0};
}
inline void fence_barriers() {}
inline void thread_arrive(uint64_t* barrier) {
  emulation::Barrier& b = emulation::barrier_of(barrier);
  if (--b.missing > 0) return;
  b.missing = b.expected;
  ++b.phase;
}
inline void warp_arrive(uint64_t* barrier) {
  __syncwarp();
  if (threadIdx.x % kWarp == 0) thread_arrive(barrier);
}
inline void barrier_wait(uint64_t* barrier, int parity) {
  emulation::wait_until([&] { return (emulation::barrier_of(barrier).phase & 1) != parity; });
}
inline void named_barrier(int name, int threads) { emulation::named_barrier(name, threads); }
inline void fence_for_wgmma() {}
inline void copy_async(void* shared, const void* global) { std::memcpy(shared, global, 16); }
inline void copy_async_word(void* shared, const void* global) { std::memcpy(shared, global, 4); }
inline void copies_commit() {}
inline void copies_arrive(uint64_t* barrier) { thread_arrive(barrier); }
template <int kPending>
void copies_wait() {}
inline float exp2_fast(float x) { return exp2f(x); }
template <int kRegisters>
void more_registers() {}
template <int kRegisters>
void fewer_registers() {}

inline void wgmma_fence() {}
inline void wgmma_commit() { emulation::commit(); }
template <int kPending>
void wgmma_wait() {
  emulation::finish(kPending);
}
inline uint32_t block_descriptor(const void* block) { return shared_address(block) / 16; }
inline uint32_t wide_descriptor(const void* block) { return shared_address(block) / 16; }

// Row and column of this thread's accumulator i.
inline unsigned accumulator_row(int i) {
  return threadIdx.x % kWarpgroup / kWarp * 16 + threadIdx.x % kWarp / 4 +
         static_cast<unsigned>(i) / 2 % 2 * 8;
}
inline unsigned accumulator_column(int i) {
  return static_cast<unsigned>(i) / 4 * 8 + 2 * (threadIdx.x % 4) + static_cast<unsigned>(i) % 2;
}

template <bool kBf16>
void wgmma_shared(float (&d)[32], uint32_t a, uint32_t b, int add) {
  emulation::issue(d, 32, add != 0, [=](float* to) {
    const auto decode = kBf16 ? bf16_to_float : f16_to_float;
    for (int i = 0; i < 32; ++i) {
      for (unsigned k = 0; k < 16; ++k) {
        to[i] += decode(emulation::swizzled_value(a, accumulator_row(i), k)) *
                 decode(emulation::swizzled_value(b, accumulator_column(i), k));
      }
    }
  });
}
// A from registers, f16: value k of row r, of what the warp's lanes bring.
using Fragments = std::array<uint32_t, 4 * kWarp>;
inline Fragments all_fragments(const uint32_t (&a)[4]) {
  Fragments all;
  for (size_t i = 0; i < 4; ++i) {
    std::memcpy(all.data() + i * kWarp, emulation::exchange(kAllLanes, a[i]), 4 * kWarp);
  }
  return all;
}
inline float fragment_value(const Fragments& all, unsigned row, unsigned k) {
  const uint32_t word = all[(row % 16 / 8 + k / 8 * 2) * kWarp + row % 8 * 4 + k % 8 / 2];
  return f16_to_float(static_cast<uint16_t>(word >> 16 * (k % 2)));
}
inline void wgmma_registers(float (&d)[32], const uint32_t (&a)[4], uint32_t b) {
  emulation::issue(d, 32, true, [all = all_fragments(a), b](float* to) {
    for (int i = 0; i < 32; ++i) {
      for (unsigned k = 0; k < 16; ++k) {
        to[i] += fragment_value(all, accumulator_row(i), k) *
                 f16_to_float(emulation::swizzled_value(b, accumulator_column(i), k));
      }
    }
  });
}
// A K-major, and B whose rows are the k, in blocks of 64 columns.
template <int kValues>
void wgmma_transposed(float (&d)[kValues], uint32_t a, uint32_t b) {
  emulation::issue(d, kValues, true, [=](float* to) {
    for (int i = 0; i < kValues; ++i) {
      const unsigned column = accumulator_column(i), block = b + column / 64 * (64 * 128 / 16);
      for (unsigned k = 0; k < 16; ++k) {
        to[i] += f16_to_float(emulation::swizzled_value(a, accumulator_row(i), k)) *
                 f16_to_float(emulation::swizzled_value(block, k, column % 64));
      }
    }
  });
}

inline void keep(float (&)[32]) {}

}  // namespace dsv::cuda
