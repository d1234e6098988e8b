// Clusters of blocks on Hopper, which read and write each other's shared memory; emulated, too. For launches
// whose Grid says how many blocks along x are a cluster. Included where there is code for sm_90.
#pragma once

#include "kernels/cuda/cuda.h"

namespace dsv::cuda {

#ifdef DSV_CUDA_EMULATION

inline void cluster_arrive() { emulation::cluster_arrive(); }
inline void cluster_begin() { emulation::cluster_arrive(); }
inline void cluster_wait() { emulation::cluster_wait(); }
inline void store_to_block(uint32_t* at, unsigned rank, uint32_t value) {
  memcpy(emulation::memory_of_block(at, rank), &value, sizeof value);
}

#else

// A barrier of all threads of the cluster, in two halves.
__device__ __forceinline__ void cluster_arrive() {
  __syncwarp();
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
// The first half, of a barrier that only says that all blocks are there: nothing written is waited for.
__device__ __forceinline__ void cluster_begin() {
  __syncwarp();
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() {
  __syncwarp();
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// To the place in block `rank`'s shared memory that `at` is in this block's.
__device__ __forceinline__ void store_to_block(uint32_t* at, unsigned rank, uint32_t value) {
  asm volatile(
      "{ .reg .b32 there; mapa.shared::cluster.u32 there, %0, %1; st.shared::cluster.u32 [there], %2; }" ::
          "r"(static_cast<uint32_t>(__cvta_generic_to_shared(at))),
      "r"(rank), "r"(value)
      : "memory");
}

#endif

}  // namespace dsv::cuda
