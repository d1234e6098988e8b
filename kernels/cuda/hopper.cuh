// Hopper's own instructions beside its tensor cores (wgmma.cuh), or their emulation (emulation/hopper.h):
// barriers that count bytes, clusters, the copy engine, registers. DSV_HOPPER says that they are there: in
// code for sm_90a, and emulated.
#pragma once

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/tensor_map.h"

#ifdef DSV_CUDA_EMULATION
#define DSV_HOPPER
#include "kernels/cuda/emulation/hopper.h"
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define DSV_HOPPER

namespace dsv::cuda::hopper {

// ------------------------------------------------------------------------------------- shared memory

// By its address there.
__device__ __forceinline__ uint32_t shared_address(const void* at) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(at));
}
__device__ __forceinline__ uint4 load_shared_16(uint32_t at) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(at));
  return v;
}
__device__ __forceinline__ float load_shared(uint32_t at) {
  float v;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(at));
  return v;
}
__device__ __forceinline__ float2 load_shared_pair(uint32_t at) {
  float2 v;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(at));
  return v;
}
__device__ __forceinline__ void store_shared(uint32_t at, float v) {
  asm volatile("st.shared.f32 [%0], %1;" ::"r"(at), "f"(v) : "memory");
}
__device__ __forceinline__ void store_shared(uint32_t at, uint32_t v) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(at), "r"(v) : "memory");
}

// ------------------------------------------------------------------------------------- barriers

__device__ __forceinline__ void barrier_init(uint32_t barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// Makes initialised barriers known to the copy engine and to the cluster; before a barrier of threads.
__device__ __forceinline__ void fence_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// One arrival, of a thread that has `bytes` copied.
__device__ __forceinline__ void barrier_expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Waits for the end of the phase of this parity.
__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity) {
  uint32_t done;
#ifdef DSV_HOPPER_TIMEOUT
  const long long begin = clock64();
#endif
  do {
    asm volatile(
        "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
#ifdef DSV_HOPPER_TIMEOUT
    if (clock64() - begin > 200000000) {
      printf("timeout: block %d thread %d barrier at %u parity %u\n", blockIdx.x, threadIdx.x, barrier,
             parity);
      __trap();
    }
#endif
  } while (!done);
}

// The same by a warp, all of whose lanes come here, at a barrier whose address is not seen to be the same for
// them: the lanes vote, so that they are seen to leave together. A loop that they may leave one by one costs
// the code around it its uniform registers (20% of a sum of 56 blocks).
__device__ __forceinline__ void barrier_wait_together(uint32_t barrier, uint32_t parity) {
  uint32_t done;
  do {
    asm volatile(
        "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
  } while (!__all_sync(kAllLanes, static_cast<int>(done)));
}

// One arrival of this thread once its copies so far (copies.cuh) are there; it does not wait.
__device__ __forceinline__ void copies_arrive(uint64_t* barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(barrier))
               : "memory");
}

// An arrival at the barrier in the same place of block `rank` of the cluster.
__device__ __forceinline__ void barrier_arrive_at(uint32_t barrier, uint32_t rank) {
  asm volatile(
      "{ .reg .b32 there; mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there]; }" ::"r"(barrier),
      "r"(rank)
      : "memory");
}

__device__ __forceinline__ uint32_t cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// A barrier of all threads of the cluster.
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}
// From the same place in the shared memory of block `rank` of the cluster.
__device__ __forceinline__ float4 load_cluster(uint32_t shared, uint32_t rank) {
  float4 v;
  asm volatile(
      "{ .reg .b32 there; mapa.shared::cluster.u32 there, %4, %5;\n"
      "ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [there]; }"
      : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
      : "r"(shared), "r"(rank)
      : "memory");
  return v;
}

// To the same place in the shared memory of block `rank` of the cluster, whose barrier counts the 4 bytes.
__device__ __forceinline__ void send_to_block(uint32_t shared, uint32_t barrier, uint32_t rank, float v) {
  asm volatile(
      "{ .reg .b32 there, then; mapa.shared::cluster.u32 there, %0, %2; mapa.shared::cluster.u32 then, %1, "
      "%2;\n"
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [there], %3, [then]; }" ::"r"(shared),
      "r"(barrier), "r"(rank), "r"(__float_as_uint(v))
      : "memory");
}

// ------------------------------------------------------------------------------------- copies

// Before a thread's first use of a map that lies in global memory.
__device__ __forceinline__ void acquire_map(const TensorMap* map) {
  asm volatile("fence.proxy.tensormap::generic.acquire.gpu [%0], 128;" ::"l"(map) : "memory");
}
// A box of the matrix from (row, column) on; zeros where it has none. The bytes count at the barrier. What
// column starts at is a multiple of 16 bytes, or the engine faults.
__device__ __forceinline__ void copy_box(uint32_t shared, const TensorMap* map, int32_t column, int32_t row,
                                         uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
      "[%4];" ::"r"(shared),
      "l"(map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}

// The same to the same places of the cluster's blocks in the mask, each of which counts the bytes.
__device__ __forceinline__ void copy_box_to(uint32_t shared, const TensorMap* map, int32_t column,
                                            int32_t row, uint32_t barrier, uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%2, %3}], [%4], %5;" ::"r"(shared),
      "l"(map), "r"(column), "r"(row), "r"(barrier), "h"(blocks)
      : "memory");
}
// A box of shared memory to the matrix, from (row, column) on, but for what lies outside.
__device__ __forceinline__ void store_box(const TensorMap* map, int32_t column, int32_t row,
                                          uint32_t shared) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(map),
               "r"(column), "r"(row), "r"(shared)
               : "memory");
}
// Until this thread's boxes have been read: others may come in their places.
__device__ __forceinline__ void wait_for_stores() {
  asm volatile("cp.async.bulk.commit_group;\ncp.async.bulk.wait_group.read 0;" ::: "memory");
}
// Consecutive bytes: multiples of 16, from and to multiples of 16.
__device__ __forceinline__ void copy_bytes(uint32_t shared, const void* from, uint32_t bytes,
                                           uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}
// Brings a line of 128 bytes to the L2 cache.
__device__ __forceinline__ void prefetch_line(const void* at) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(at) : "memory");
}
// The same from this block's shared memory to the same place of block `rank` of the cluster, whose barrier
// counts the bytes.
__device__ __forceinline__ void copy_to_block(uint32_t shared, uint32_t bytes, uint32_t barrier,
                                              uint32_t rank) {
  asm volatile(
      "{ .reg .b32 to, there; mapa.shared::cluster.u32 to, %0, %3; mapa.shared::cluster.u32 there, %2, %3;\n"
      "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [to], [%0], %1, [there]; }" ::
          "r"(shared),
      "r"(bytes), "r"(barrier), "r"(rank)
      : "memory");
}
// Consecutive bytes to the L2 cache: multiples of 16, from a multiple of 16.
__device__ __forceinline__ void prefetch_bytes(const void* from, uint32_t bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
}
// Of `threads` threads that name the same barrier (1 to 15).
__device__ __forceinline__ void named_barrier(int name, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

// A warpgroup's, from or for those of others.
template <int kRegisters>
__device__ __forceinline__ void more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace dsv::cuda::hopper
#endif

#ifdef DSV_HOPPER

namespace dsv::cuda::hopper {

// Barriers that are named by where they lie.
__device__ __forceinline__ void barrier_init(uint64_t* barrier, uint32_t arrivals) {
  barrier_init(shared_address(barrier), arrivals);
}
__device__ __forceinline__ void barrier_wait(uint64_t* barrier, uint32_t parity) {
  barrier_wait(shared_address(barrier), parity);
}
// One arrival for a warp whose lanes are all done.
__device__ __forceinline__ void warp_arrive(uint32_t barrier) {
  __syncwarp();
  if (threadIdx.x % kWarp == 0) barrier_arrive(barrier);
}
__device__ __forceinline__ void warp_arrive(uint64_t* barrier) { warp_arrive(shared_address(barrier)); }

}  // namespace dsv::cuda::hopper
#endif
