// Hopper's asynchronous tensor cores and barriers: wgmma of a warpgroup (128 threads), 64 rows of A at a
// time. For kernels compiled for sm_90a, and emulated: DSV_WGMMA_CODE says that it is there.
//
// Operands in shared memory lie in blocks of 64 16-bit values: rows of 128 bytes, whose 16-byte chunk c is at
// c ^ row % 8, blocks aligned to 1024 bytes. Such a block serves as K-major operand (a row is a row of A or
// column of B) and transposed, as B whose rows are the k.
#pragma once

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/formats.h"

namespace dsv::cuda {
inline constexpr int kWarpgroup = 128;
}

#ifdef DSV_CUDA_EMULATION
#define DSV_WGMMA_CODE 1
#include "kernels/cuda/emulation/wgmma.h"
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define DSV_WGMMA_CODE 1

namespace dsv::cuda {

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// mbarriers: `count` arrivals are a phase; parity is that of the phase waited for, from 0 on.
__device__ __forceinline__ void barrier_init(uint64_t* barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count)
               : "memory");
}
// After initialisation, before a barrier of the block.
__device__ __forceinline__ void fence_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// One arrival for a warp whose lanes are all done.
__device__ __forceinline__ void warp_arrive(uint64_t* barrier) {
  __syncwarp();
  if (threadIdx.x % kWarp != 0) return;
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
__device__ __forceinline__ bool barrier_done(uint64_t* barrier, int parity) {
  uint32_t done;
  asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
               : "=r"(done)
               : "r"(shared_address(barrier)), "r"(parity)
               : "memory");
  return done != 0;
}
__device__ __forceinline__ void barrier_wait(uint64_t* barrier, int parity) {
  while (!barrier_done(barrier, parity)) {
  }
}
// Of `threads` threads that name the same barrier (1 to 15).
__device__ __forceinline__ void named_barrier(int name, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

// What this thread has written to shared memory, or knows to be written, is there for wgmma. Waits for the
// thread's loads, too.
__device__ __forceinline__ void fence_for_wgmma() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Sixteen or four bytes to shared memory. A thread waits for all but its last so many groups of copies.
__device__ __forceinline__ void copy_async(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global)
               : "memory");
}
__device__ __forceinline__ void copy_async_word(void* shared, const void* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(shared)), "l"(global)
               : "memory");
}
__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// One arrival of this thread once its copies so far are there; it does not wait.
__device__ __forceinline__ void copies_arrive(uint64_t* barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(barrier))
               : "memory");
}
template <int kPending>
__device__ __forceinline__ void copies_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// The lower half of a descriptor of swizzled blocks; the upper half is the same for all: 8 rows are 1024
// bytes. A step of 16 values along a row is 2 on, one of 16 rows 128 on.
__device__ __forceinline__ uint32_t block_descriptor(const void* block) {
  return (shared_address(block) & 0x3FFFF) >> 4 | uint32_t{1024 >> 4} << 16;
}
inline constexpr uint32_t kDescriptorHigh = 1024 >> 4 | 1u << 30;
// The same of a transposed B that goes on in the blocks behind: one for each 64 columns.
__device__ __forceinline__ uint32_t wide_descriptor(const void* block) {
  return (shared_address(block) & 0x3FFFF) >> 4 | uint32_t{64 * 128 >> 4} << 16;
}

#define DSV_F8(d, i)                                                                          \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define DSV_D8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define DSV_D16 DSV_D8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define DSV_D32 DSV_D16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"

#define DSV_F64(d, i)                                                                      \
  DSV_F8(d, i), DSV_F8(d, i + 8), DSV_F8(d, i + 16), DSV_F8(d, i + 24), DSV_F8(d, i + 32), \
      DSV_F8(d, i + 40), DSV_F8(d, i + 48), DSV_F8(d, i + 56)
#define DSV_D64                                                                                  \
  DSV_D32                                                                                        \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, " \
  "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
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

// d += a b in f16: a from registers, as of mma.sync, and b from shared memory, K-major, 64 x 64 x 16.
__device__ __forceinline__ void wgmma_registers(float (&d)[32], const uint32_t (&a)[4], uint32_t b) {
  asm volatile(
      "{ .reg .pred p; .reg .b64 b; setp.ne.b32 p, %38, 0; mov.b64 b, {%36, %37};\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" DSV_D32
      "}, {%32, %33, %34, %35}, b, p, 1, 1, 0; }"
      : DSV_F8(d, 0), DSV_F8(d, 8), DSV_F8(d, 16), DSV_F8(d, 24)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "n"(kDescriptorHigh), "r"(1));
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

// After a wait for a product of several: its sums are read here and not before.
__device__ __forceinline__ void keep(float (&d)[32]) {
#pragma unroll
  for (float& x : d) asm volatile("" : "+f"(x)::"memory");
}

// 2^x to 2 ulp, without subnormal results.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

template <int kRegisters>
__device__ __forceinline__ void more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace dsv::cuda
#endif
