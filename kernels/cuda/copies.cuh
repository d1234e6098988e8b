// Copies of a thread from global to shared memory that it does not wait for (cp.async, from sm_80 on), or
// their emulation, which makes them at once.
#pragma once

#include "kernels/cuda/cuda.h"

namespace dsv::cuda {

#ifdef DSV_CUDA_EMULATION

inline void copy_async(void* shared, const void* global) { memcpy(shared, global, 16); }
inline void copy_async_8(void* shared, const void* global) { memcpy(shared, global, 8); }
inline void copy_async_word(void* shared, const void* global) { memcpy(shared, global, 4); }
inline void copy_async_16(void* shared, const void* global, bool valid) {
  const uint4 zero = {0, 0, 0, 0};
  memcpy(shared, valid ? global : &zero, 16);
}
inline void copy_async_4(void* shared, const void* global, bool valid) {
  const uint32_t zero = 0;
  memcpy(shared, valid ? global : &zero, 4);
}
inline void copy_commit() {}
template <int kPending>
void copy_wait() {}

#else

// Sixteen bytes, or eight, or four.
__device__ __forceinline__ void copy_async(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
               "l"(global)
               : "memory");
}
__device__ __forceinline__ void copy_async_8(void* shared, const void* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
               "l"(global)
               : "memory");
}
__device__ __forceinline__ void copy_async_word(void* shared, const void* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
               "l"(global)
               : "memory");
}
// The same, or zeros; sixteen bytes of lines that are read whole.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
               "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void copy_async_4(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
               "l"(global), "r"(valid ? 4 : 0)
               : "memory");
}
// The copies since the last one are a group. A thread waits for all but its last so many.
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

#endif

}  // namespace dsv::cuda
