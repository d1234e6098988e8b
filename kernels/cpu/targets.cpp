#include "kernels/cpu/targets.h"

#include <hwy/detect_targets.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "base/error.h"
#include "kernels/cpu/attention_kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace dsv::cpu {
namespace {

struct Entry {
  const CpuKernels& (*kernels)();
  const AttentionKernels& (*attention)();
  bool (*available)();
};

#if defined(__x86_64__)

struct Cpuid {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  Cpuid(uint32_t leaf, uint32_t subleaf) { __get_cpuid_count(leaf, subleaf, &a, &b, &c, &d); }
};

constexpr bool has(uint32_t word, int bit) { return (word >> bit & 1) != 0; }

// Register state that the system saves for us, by bit of XCR0.
uint64_t saved_state() {
  if (!has(Cpuid(1, 0).c, 27)) return 0;  // OSXSAVE
  uint32_t low, high;
  asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

bool has_sse4() {
  const Cpuid one(1, 0);  // SSSE3, SSE4.1, SSE4.2, and what Highway's SSE4 includes: PCLMULQDQ, AES
  return has(one.c, 9) && has(one.c, 19) && has(one.c, 20) && has(one.c, 1) && has(one.c, 25);
}
bool has_avx2() {
  const Cpuid one(1, 0), seven(7, 0);  // FMA, F16C, AVX, AVX2, BMI1, BMI2, LZCNT
  return has_sse4() && (saved_state() & 0x6) == 0x6 && has(one.c, 12) && has(one.c, 29) && has(one.c, 28) &&
         has(seven.b, 5) && has(seven.b, 3) && has(seven.b, 8) && has(Cpuid(0x80000001, 0).c, 5);
}
bool has_avx512() {
  const Cpuid seven(7, 0);  // F, DQ, BW, VL
  return has_avx2() && (saved_state() & 0xe6) == 0xe6 && has(seven.b, 16) && has(seven.b, 17) &&
         has(seven.b, 30) && has(seven.b, 31);
}
bool has_avx512_bf16() {
  return has_avx512() && has(Cpuid(7, 0).c, 1) && has(Cpuid(7, 1).a, 5);  // VBMI, BF16
}
// Linux keeps the tile registers from a process until it asks for them; the permission holds for all threads.
bool has_amx() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return has_avx512_bf16() && (saved_state() & 0x60000) == 0x60000 && has(Cpuid(7, 0).d, 22) &&
         has(Cpuid(7, 0).d, 24) && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

constexpr Entry kEntries[] = {
    // best first
    {kernels_amx, +[]() -> const AttentionKernels& { return attention_kernels_bf16(true); }, has_amx},
    {kernels_avx512_bf16, +[]() -> const AttentionKernels& { return attention_kernels_bf16(false); },
     has_avx512_bf16},
    {kernels_avx512, +[]() -> const AttentionKernels& { return attention_kernels(HWY_AVX3); }, has_avx512},
    {kernels_avx2, +[]() -> const AttentionKernels& { return attention_kernels(HWY_AVX2); }, has_avx2},
    {kernels_sse4, +[]() -> const AttentionKernels& { return attention_kernels(HWY_SSE4); }, has_sse4},
};

#else

constexpr Entry kEntries[] = {
    {kernels_neon, +[]() -> const AttentionKernels& { return attention_kernels(HWY_NEON); },
     +[] { return true; }},
};

#endif

}  // namespace

CpuTarget choose_target(const char* name) {
  for (const Entry& entry : kEntries) {
    const CpuKernels& kernels = entry.kernels();
    if ((name == nullptr || std::string_view(name) == kernels.name) && entry.available()) {
      return {&kernels, &entry.attention()};
    }
  }
  fail(DSV_ERROR_UNSUPPORTED, "this CPU cannot run the target '{}'; it can run: {}", name ? name : "any",
       cpu_targets());
}

}  // namespace dsv::cpu

namespace dsv {

const char* cpu_targets() {
  // An array, because asking must not fail for want of memory, nor leave anything to be done at exit.
  static const std::array<char, 128> names = [] {
    std::array<char, 128> list{};
    char* end = list.data();
    for (const cpu::Entry& entry : cpu::kEntries) {
      if (!entry.available()) continue;
      if (end != list.data()) *end++ = ' ';
      end = std::copy_n(entry.kernels().name, std::strlen(entry.kernels().name), end);
    }
    return list;
  }();
  return names.data();
}

}  // namespace dsv
