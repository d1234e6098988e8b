// Hopper's asynchronous tensor cores: wgmma of a warpgroup (128 threads), 64 rows of A at a time; or their
// emulation (emulation/wgmma.h). DSV_HOPPER (hopper.cuh) says that they are there.
//
// Operands in shared memory lie in blocks of rows of 128 bytes, whose 16-byte chunk c is at c ^ row % 8,
// blocks aligned to 1024 bytes. Such a block serves as K-major operand (a row is a row of A or column of B)
// and, of 16-bit values, transposed, as B whose rows are the k.
#pragma once

#include "kernels/cuda/hopper.cuh"

namespace dsv::cuda::hopper {
inline constexpr int kWarpgroup = 128;
}

#ifdef DSV_CUDA_EMULATION
#include "kernels/cuda/emulation/wgmma.h"
#elif defined(DSV_HOPPER)

namespace dsv::cuda::hopper {

// What this thread has written to shared memory, or knows to be written, is there for wgmma and for the copy
// engine. Waits for the thread's loads, too.
__device__ __forceinline__ void fence_for_wgmma() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits for all groups but the last kPending.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// After a wait for a product of several: its sums are read here and not before.
template <int kCount>
__device__ __forceinline__ void keep(float (&sums)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}
template <int kPending, int kCount>
__device__ __forceinline__ void wgmma_wait(float (&sums)[kCount]) {
  wgmma_wait<kPending>();
  keep(sums);
}
// Has these values made here, not between products.
__device__ __forceinline__ void keep(uint32_t (&v)[4]) {
  asm volatile("" : "+r"(v[0]), "+r"(v[1]), "+r"(v[2]), "+r"(v[3]));
}
// These may hold anything.
template <int kCount>
__device__ __forceinline__ void forget(float (&sums)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "=f"(sums[i]));
}

// ------------------------------------------------------------------------------------- descriptors

// The lower half of a descriptor of swizzled blocks; the upper half is the same for all: 8 rows are 1024
// bytes. A step of 16 values along a row is 2 on, one of 16 rows 128 on.
__device__ __forceinline__ uint32_t block_descriptor(const void* block) {
  return (shared_address(block) & 0x3FFFF) >> 4 | uint32_t{1024 >> 4} << 16;
}
inline constexpr uint32_t kDescriptorHigh = 1024 >> 4 | 1u << 30;
// The same of a transposed B that goes on in the blocks behind, of so many rows: one for each 64 columns.
template <int kBlockRows = 64>
__device__ __forceinline__ uint32_t wide_descriptor(const void* block) {
  return (shared_address(block) & 0x3FFFF) >> 4 | uint32_t{kBlockRows * 128 >> 4} << 16;
}
// Both halves, of a K-major operand. 32 bytes of K further: 2 more.
__device__ __forceinline__ uint64_t swizzled_descriptor(uint32_t address) {
  return uint64_t{(address & 0x3FFFF) >> 4} | uint64_t{1} << 16 | uint64_t{kDescriptorHigh} << 32;
}

// ------------------------------------------------------------------------------------- products

// Operands that are a thread's sums.
#define DSV_F8(d, i)                                                                          \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define DSV_F64(d, i)                                                                      \
  DSV_F8(d, i), DSV_F8(d, i + 8), DSV_F8(d, i + 16), DSV_F8(d, i + 24), DSV_F8(d, i + 32), \
      DSV_F8(d, i + 40), DSV_F8(d, i + 48), DSV_F8(d, i + 56)
#define DSV_D8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define DSV_D16 DSV_D8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define DSV_D28 DSV_D16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27"
#define DSV_D32 DSV_D28 ", %28, %29, %30, %31"
#define DSV_D48 DSV_D32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define DSV_D56 DSV_D48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define DSV_D64 DSV_D56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define DSV_D96                                                                                      \
  DSV_D64                                                                                            \
      ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, " \
      "%82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"

// d = a b + (add ? d : 0): both from shared memory, K-major, 64 x 64 x 16.
template <bool kBf16>
__device__ __forceinline__ void wgmma_shared(float (&d)[32], uint32_t a, uint32_t b, int add) {
  if constexpr (kBf16) {
    asm volatile(
        "{ .reg .pred p; .reg .b64 a, b; setp.ne.b32 p, %34, 0; mov.b64 a, {%32, %35}; mov.b64 b, {%33, "
        "%35};\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" DSV_D32 "}, a, b, p, 1, 1, 0, 0; }"
        : DSV_F8(d, 0), DSV_F8(d, 8), DSV_F8(d, 16), DSV_F8(d, 24)
        : "r"(a), "r"(b), "r"(add), "n"(kDescriptorHigh));
  } else {
    asm volatile(
        "{ .reg .pred p; .reg .b64 a, b; setp.ne.b32 p, %34, 0; mov.b64 a, {%32, %35}; mov.b64 b, {%33, "
        "%35};\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" DSV_D32 "}, a, b, p, 1, 1, 0, 0; }"
        : DSV_F8(d, 0), DSV_F8(d, 8), DSV_F8(d, 16), DSV_F8(d, 24)
        : "r"(a), "r"(b), "r"(add), "n"(kDescriptorHigh));
  }
}

// .. of bf16, 64 x 128 x 16.
__device__ __forceinline__ void wgmma_shared(float (&d)[64], uint32_t a, uint32_t b, int add) {
  asm volatile(
      "{ .reg .pred p; .reg .b64 a, b; setp.ne.b32 p, %66, 0; mov.b64 a, {%64, %67}; mov.b64 b, {%65, "
      "%67};\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" DSV_D64 "}, a, b, p, 1, 1, 0, 0; }"
      : DSV_F64(d, 0)
      : "r"(a), "r"(b), "r"(add), "n"(kDescriptorHigh));
}

// d += a b in f16: both from shared memory, b transposed (wide_descriptor), 64 x 2 kValues x 16.
template <int kValues>
__device__ __forceinline__ void wgmma_transposed(float (&d)[kValues], uint32_t a, uint32_t b) {
  static_assert(kValues == 64 || kValues == 32 || kValues == 16);
  if constexpr (kValues == 64) {
    asm volatile(
        "{ .reg .pred p; .reg .b64 a, b; setp.ne.b32 p, %67, 0; mov.b64 a, {%64, %66}; mov.b64 b, {%65, "
        "%66};\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" DSV_D64 "}, a, b, p, 1, 1, 0, 1; }"
        : DSV_F64(d, 0)
        : "r"(a), "r"(b), "n"(kDescriptorHigh), "r"(1));
  } else if constexpr (kValues == 32) {
    asm volatile(
        "{ .reg .pred p; .reg .b64 a, b; setp.ne.b32 p, %35, 0; mov.b64 a, {%32, %34}; mov.b64 b, {%33, "
        "%34};\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" DSV_D32 "}, a, b, p, 1, 1, 0, 1; }"
        : DSV_F8(d, 0), DSV_F8(d, 8), DSV_F8(d, 16), DSV_F8(d, 24)
        : "r"(a), "r"(b), "n"(kDescriptorHigh), "r"(1));
  } else {
    asm volatile(
        "{ .reg .pred p; .reg .b64 a, b; setp.ne.b32 p, %19, 0; mov.b64 a, {%16, %18}; mov.b64 b, {%17, "
        "%18};\n"
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 {" DSV_D16 "}, a, b, p, 1, 1, 0, 1; }"
        : DSV_F8(d, 0), DSV_F8(d, 8)
        : "r"(a), "r"(b), "n"(kDescriptorHigh), "r"(1));
  }
}

// d = a b + (add ? d : 0) in bf16: 64 x 128 x 16, a in registers as mma.sync's, b transposed.
__device__ __forceinline__ void wgmma_transposed(float (&d)[64], const uint32_t (&a)[4], uint32_t b,
                                                 int add) {
  asm volatile(
      "{ .reg .pred p; .reg .b64 b; setp.ne.b32 p, %70, 0; mov.b64 b, {%68, %69};\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" DSV_D64
      "}, {%64, %65, %66, %67}, b, p, 1, 1, 1; }"
      : DSV_F64(d, 0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "n"(kDescriptorHigh), "r"(add));
}
// The same in f16 onto d.
__device__ __forceinline__ void wgmma_transposed(float (&d)[64], const uint32_t (&a)[4], uint32_t b) {
  asm volatile(
      "{ .reg .pred p; .reg .b64 b; setp.ne.b32 p, %70, 0; mov.b64 b, {%68, %69};\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" DSV_D64
      "}, {%64, %65, %66, %67}, b, p, 1, 1, 1; }"
      : DSV_F64(d, 0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "n"(kDescriptorHigh), "r"(1));
}

// d = a b^T + (add ? d : 0): 64 x N x 16 of f16, N / 2 sums a thread, a in registers as mma.sync's.
__device__ __forceinline__ void wgmma_f16(float (&d)[16], const uint32_t (&a)[4], uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %21, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 {" DSV_D16
      "}, {%16, %17, %18, %19}, %20, p, 1, 1, 0; }"
      : DSV_F8(d, 0), DSV_F8(d, 8)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma_f16(float (&d)[32], const uint32_t (&a)[4], uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" DSV_D32
      "}, {%32, %33, %34, %35}, %36, p, 1, 1, 0; }"
      : DSV_F8(d, 0), DSV_F8(d, 8), DSV_F8(d, 16), DSV_F8(d, 24)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma_f16(float (&d)[64], const uint32_t (&a)[4], uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" DSV_D64
      "}, {%64, %65, %66, %67}, %68, p, 1, 1, 0; }"
      : DSV_F64(d, 0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
// The same of bf16.
__device__ __forceinline__ void wgmma_bf16(float (&d)[32], const uint32_t (&a)[4], uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" DSV_D32
      "}, {%32, %33, %34, %35}, %36, p, 1, 1, 0; }"
      : DSV_F8(d, 0), DSV_F8(d, 8), DSV_F8(d, 16), DSV_F8(d, 24)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma_bf16(float (&d)[64], const uint32_t (&a)[4], uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" DSV_D64
      "}, {%64, %65, %66, %67}, %68, p, 1, 1, 0; }"
      : DSV_F64(d, 0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
// In f16 onto d, with the lower half of a descriptor.
__device__ __forceinline__ void wgmma_registers(float (&d)[32], const uint32_t (&a)[4], uint32_t b) {
  wgmma_f16(d, a, uint64_t{kDescriptorHigh} << 32 | b, 1);
}

// d = a b^T + (add ? d : 0): 64 x N x 32 of e4m3, N / 2 sums a thread.
__device__ __forceinline__ void wgmma_e4m3(float (&d)[16], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %18, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k32.f32.e4m3.e4m3 {" DSV_D16 "}, %16, %17, p, 1, 1; }"
      : DSV_F8(d, 0), DSV_F8(d, 8)
      : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma_e4m3(float (&d)[28], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %30, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n56k32.f32.e4m3.e4m3 {" DSV_D28 "}, %28, %29, p, 1, 1; }"
      : DSV_F8(d, 0), DSV_F8(d, 8), DSV_F8(d, 16), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27])
      : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma_e4m3(float (&d)[32], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 {" DSV_D32 "}, %32, %33, p, 1, 1; }"
      : DSV_F8(d, 0), DSV_F8(d, 8), DSV_F8(d, 16), DSV_F8(d, 24)
      : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma_e4m3(float (&d)[48], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %50, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n96k32.f32.e4m3.e4m3 {" DSV_D48 "}, %48, %49, p, 1, 1; }"
      : DSV_F8(d, 0), DSV_F8(d, 8), DSV_F8(d, 16), DSV_F8(d, 24), DSV_F8(d, 32), DSV_F8(d, 40)
      : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma_e4m3(float (&d)[56], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %58, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n112k32.f32.e4m3.e4m3 {" DSV_D56 "}, %56, %57, p, 1, 1; }"
      : DSV_F8(d, 0), DSV_F8(d, 8), DSV_F8(d, 16), DSV_F8(d, 24), DSV_F8(d, 32), DSV_F8(d, 40), DSV_F8(d, 48)
      : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma_e4m3(float (&d)[64], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {" DSV_D64 "}, %64, %65, p, 1, 1; }"
      : DSV_F64(d, 0)
      : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma_e4m3(float (&d)[96], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %98, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n192k32.f32.e4m3.e4m3 {" DSV_D96 "}, %96, %97, p, 1, 1; }"
      : DSV_F64(d, 0), DSV_F8(d, 64), DSV_F8(d, 72), DSV_F8(d, 80), DSV_F8(d, 88)
      : "l"(a), "l"(b), "r"(add));
}
// a in registers: of rows g and g + 8 the bytes 4 t .. + 3 of the first 16, then the same of the others.
__device__ __forceinline__ void wgmma_e4m3(float (&d)[32], const uint32_t (&a)[4], uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 {" DSV_D32
      "}, {%32, %33, %34, %35}, %36, p, 1, 1; }"
      : DSV_F8(d, 0), DSV_F8(d, 8), DSV_F8(d, 16), DSV_F8(d, 24)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

__device__ __forceinline__ void wgmma_e4m3(float (&d)[64], const uint32_t (&a)[4], uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {" DSV_D64
      "}, {%64, %65, %66, %67}, %68, p, 1, 1; }"
      : DSV_F64(d, 0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

#undef DSV_F8
#undef DSV_F64
#undef DSV_D8
#undef DSV_D16
#undef DSV_D28
#undef DSV_D32
#undef DSV_D48
#undef DSV_D56
#undef DSV_D64
#undef DSV_D96

}  // namespace dsv::cuda::hopper
#endif
