// wgmma.cuh on the CPU (test code). A product is made when it is issued, and one of four threads makes it
// again when it is waited for: what changes its operands in between shows, and so does a result that is used
// too early, which is NaN. Sums are f32 with k ascending. Memory fences do nothing.
#pragma once

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "kernels/cuda/formats.h"

namespace dsv::cuda::hopper {

// A product's accumulators are NaN until it is waited for.
struct Product {
  std::function<void(float*)> add;
  float* to;
  std::vector<float> before, after;
};
// Of every thread of the running cluster: groups that were committed, and at last the open one.
inline std::vector<std::vector<Product>> issued[8 * 1024];
inline unsigned waited_for[8 * 1024];  // products
inline unsigned this_thread() { return emulation::cluster_rank() * 1024 + threadIdx.x; }

inline void issue(float* to, size_t count, bool add, std::function<void(float*)> product) {
  std::vector<std::vector<Product>>& groups = issued[this_thread()];
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

inline void fence_for_wgmma() {}
inline void wgmma_fence() {}
inline void wgmma_commit() { issued[this_thread()].emplace_back(); }
template <int kPending>
void wgmma_wait() {
  __syncwarp();
  std::vector<std::vector<Product>>& groups = issued[this_thread()];
  for (; groups.size() > kPending + 1; groups.erase(groups.begin())) {
    for (const Product& p : groups.front()) {
      const size_t bytes = p.after.size() * sizeof(float);
      if ((threadIdx.x + waited_for[this_thread()]++) % 4 == 0) {
        std::vector<float> again = p.before;
        p.add(again.data());
        if (std::memcmp(again.data(), p.after.data(), bytes) != 0) {
          std::fprintf(stderr, "emulation: operands changed under a product (thread %u)\n", threadIdx.x);
          std::abort();
        }
      }
      std::memcpy(p.to, p.after.data(), bytes);
    }
  }
}
template <int kPending, int kCount>
void wgmma_wait(float (&)[kCount]) {
  wgmma_wait<kPending>();
}
template <class T, int kCount>
void keep(T (&)[kCount]) {}
template <int kCount>
void forget(float (&)[kCount]) {}

// Descriptors: where the operand begins, in units of 16 bytes, and of a wide one how far apart its blocks
// are.
inline constexpr uint32_t kDescriptorHigh = 0;
inline uint32_t block_descriptor(const void* block) { return shared_address(block) / 16; }
template <int kBlockRows = 64>
uint32_t wide_descriptor(const void* block) {
  return shared_address(block) / 16 | uint32_t{kBlockRows * 128 / 16} << 16;
}
inline uint64_t swizzled_descriptor(uint32_t address) {
  if (address % 1024 != 0) std::abort();
  return address / 16;
}
// Byte k of row r, from an address inside its first row on.
inline const unsigned char* swizzled(uint64_t descriptor, unsigned row, unsigned k) {
  const uint32_t linear = static_cast<uint32_t>(descriptor & 0x3FFF) * 16 + row * 128 + k;
  return emulation::block_memory + (linear ^ (linear >> 7 & 7) << 4);
}
inline float swizzled_e4m3(uint64_t descriptor, unsigned row, unsigned k) {
  return e4m3_to_float(*swizzled(descriptor, row, k));
}
template <bool kBf16 = false>
float swizzled_value(uint64_t descriptor, unsigned row, unsigned k) {
  uint16_t value;
  std::memcpy(&value, swizzled(descriptor, row, 2 * k), 2);
  return kBf16 ? bf16_to_float(value) : f16_to_float(value);
}

// Row and column of this thread's accumulator i.
inline unsigned accumulator_row(int i) {
  return threadIdx.x % kWarpgroup / kWarp * 16 + threadIdx.x % kWarp / 4 +
         static_cast<unsigned>(i) / 2 % 2 * 8;
}
inline unsigned accumulator_column(int i) {
  return static_cast<unsigned>(i) / 4 * 8 + 2 * (threadIdx.x % 4) + static_cast<unsigned>(i) % 2;
}

// A from registers: what the warp's lanes bring, and where this one has it still.
struct Fragments {
  std::array<uint32_t, 4 * kWarp> all;
  const uint32_t* mine;

  explicit Fragments(const uint32_t (&a)[4]) : mine(a) {
    for (size_t i = 0; i < 4; ++i) {
      std::memcpy(all.data() + i * kWarp, emulation::exchange(kAllLanes, a[i]), 4 * kWarp);
    }
  }
  // Byte k of row r, and what follows it.
  uint32_t from(unsigned row, unsigned k) const {
    const unsigned at = (row % 16 / 8 + k / 16 * 2) * kWarp + row % 8 * 4 + k % 16 / 4;
    return all[at] >> 8 * (k % 4);
  }
  float e4m3(unsigned row, unsigned k) const { return e4m3_to_float(from(row, k) & 0xFF); }
  template <bool kBf16>
  float value(unsigned row, unsigned k) const {
    const auto code = static_cast<uint16_t>(from(row, 2 * k));
    return kBf16 ? bf16_to_float(code) : f16_to_float(code);
  }
  void check() const {
    for (size_t i = 0; i < 4; ++i) {
      if (all[i * kWarp + threadIdx.x % kWarp] != mine[i]) std::abort();  // written under a product
    }
  }
};

template <bool kBf16, int kCount>
void wgmma_blocks(float (&d)[kCount], uint32_t a, uint32_t b, int add) {
  issue(d, kCount, add != 0, [=](float* to) {
    for (int i = 0; i < kCount; ++i) {
      for (unsigned k = 0; k < 16; ++k) {
        to[i] += swizzled_value<kBf16>(a, accumulator_row(i), k) *
                 swizzled_value<kBf16>(b, accumulator_column(i), k);
      }
    }
  });
}
template <bool kBf16>
void wgmma_shared(float (&d)[32], uint32_t a, uint32_t b, int add) {
  wgmma_blocks<kBf16>(d, a, b, add);
}
inline void wgmma_shared(float (&d)[64], uint32_t a, uint32_t b, int add) {
  wgmma_blocks<true>(d, a, b, add);
}
// Value (k, column) of a wide operand.
template <bool kBf16>
float wide_value(uint32_t descriptor, unsigned k, unsigned column) {
  return swizzled_value<kBf16>((descriptor & 0xFFFF) + column / 64 * (descriptor >> 16), k, column % 64);
}
// A K-major, and B whose rows are the k, in blocks of 64 columns.
template <int kValues>
void wgmma_transposed(float (&d)[kValues], uint32_t a, uint32_t b) {
  issue(d, kValues, true, [=](float* to) {
    for (int i = 0; i < kValues; ++i) {
      for (unsigned k = 0; k < 16; ++k) {
        to[i] += swizzled_value(a, accumulator_row(i), k) * wide_value<false>(b, k, accumulator_column(i));
      }
    }
  });
}
inline void wgmma_transposed(float (&d)[64], const uint32_t (&a)[4], uint32_t b, int add) {
  issue(d, 64, add != 0, [b, a = Fragments(a)](float* to) {
    a.check();
    for (int i = 0; i < 64; ++i) {
      for (unsigned k = 0; k < 16; ++k) {
        to[i] += a.value<true>(accumulator_row(i), k) * wide_value<true>(b, k, accumulator_column(i));
      }
    }
  });
}
// The same with A from registers.
template <int kValues>
void wgmma_transposed(float (&d)[kValues], const uint32_t (&a)[4], uint32_t b) {
  issue(d, kValues, true, [b, a = Fragments(a)](float* to) {
    a.check();
    for (int i = 0; i < kValues; ++i) {
      const unsigned row = accumulator_row(i), column = accumulator_column(i),
                     block = b + column / 64 * (64 * 128 / 16);
      for (unsigned k = 0; k < 16; ++k) {
        to[i] += a.value<false>(row, k) * swizzled_value(block, k, column % 64);
      }
    }
  });
}
template <bool kBf16, int kCount>
void wgmma_fragments(float (&d)[kCount], const uint32_t (&a)[4], uint64_t b, int add) {
  issue(d, kCount, add != 0, [b, a = Fragments(a)](float* to) {
    a.check();
    for (int i = 0; i < kCount; ++i) {
      const unsigned row = accumulator_row(i), column = accumulator_column(i);
      for (unsigned k = 0; k < 16; ++k) to[i] += a.value<kBf16>(row, k) * swizzled_value<kBf16>(b, column, k);
    }
  });
}
template <int kCount>
void wgmma_f16(float (&d)[kCount], const uint32_t (&a)[4], uint64_t b, int add) {
  wgmma_fragments<false>(d, a, b, add);
}
template <int kCount>
void wgmma_bf16(float (&d)[kCount], const uint32_t (&a)[4], uint64_t b, int add) {
  wgmma_fragments<true>(d, a, b, add);
}
inline void wgmma_registers(float (&d)[32], const uint32_t (&a)[4], uint32_t b) { wgmma_f16(d, a, b, 1); }
template <int kCount>
void wgmma_e4m3(float (&d)[kCount], uint64_t a, uint64_t b, int add) {
  issue(d, kCount, add != 0, [=](float* to) {
    for (int i = 0; i < kCount; ++i) {
      for (unsigned k = 0; k < 32; ++k) {
        to[i] += swizzled_e4m3(a, accumulator_row(i), k) * swizzled_e4m3(b, accumulator_column(i), k);
      }
    }
  });
}
template <int kCount>
void wgmma_e4m3(float (&d)[kCount], const uint32_t (&a)[4], uint64_t b, int add) {
  issue(d, kCount, add != 0, [b, a = Fragments(a)](float* to) {
    a.check();
    for (int i = 0; i < kCount; ++i) {
      for (unsigned k = 0; k < 32; ++k) {
        to[i] += a.e4m3(accumulator_row(i), k) * swizzled_e4m3(b, accumulator_column(i), k);
      }
    }
  });
}

}  // namespace dsv::cuda::hopper
