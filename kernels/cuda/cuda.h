// The CUDA language as the kernels use it, and their launch. Compiled by nvcc this is CUDA; compiled by a C++
// compiler with DSV_CUDA_EMULATION it is emulation/language.h, which runs the same source on the CPU.
#pragma once

#include "kernels/cuda/noted.h"
#include "kernels/cuda/views.h"

namespace dsv::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xFFFFFFFFu;
// Blocks of a launch. An empty grid is no work.
struct Grid {
  int64_t x = 1, y = 1, z = 1;
  // May begin before the launch before it has ended, and waits for that itself (wait_for_last): Hopper.
  bool early = false;
  int64_t cluster = 1;  // blocks along x that are a cluster (cluster.cuh): Hopper
};

}  // namespace dsv::cuda

#ifdef DSV_CUDA_EMULATION
#include "kernels/cuda/emulation/language.h"
#else
#include <cuda_runtime.h>

#include <mutex>

// A kernel whose blocks of threads come in clusters of so many, for Hopper.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define DSV_CLUSTER(blocks)
#else
#define DSV_CLUSTER(blocks) __cluster_dims__(blocks, 1, 1)
#endif

namespace dsv::cuda {

// What such a kernel's Grid says: nothing here, where it has its clusters without being asked; emulated it is
// asked.
inline constexpr int64_t emulated_cluster(int64_t) { return 1; }
inline constexpr int kMostCluster = 8;

// The next launch, if it is an early one, may begin once all blocks of this one are here or have ended. What
// it does before wait_for_last, it does beside this launch and any before it: nothing but to read weights.
// Every block of an early launch has to wait, so that its own end is that of all launches before it, too.
__device__ __forceinline__ void let_next_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ __forceinline__ void wait_for_last() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Both, where there is nothing to do before.
__device__ __forceinline__ void begin_early() {
  let_next_begin();
  wait_for_last();
}

// A block's shared memory, as many bytes as the launch asked for, 1024-byte aligned. All shared memory is
// dynamic, so that an emulated block's can be poisoned and guarded.
__device__ inline unsigned char* shared_memory() {
  extern __shared__ __align__(1024) unsigned char dsv_shared[];
  return dsv_shared;
}

// What launches ask of the current device; asked of each once. Zeros if it cannot be asked.
struct Processors {
  int count = 0;
  bool hopper = false;  // kernels compiled for sm_90a run
};
inline const Processors& current_processors() {
  constexpr int kDevices = 64;
  static Processors known[kDevices];
  static std::once_flag asked[kDevices];
  static const Processors none;
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess || device >= kDevices) return none;
  std::call_once(asked[device], [device] {
    const auto ask = [device](cudaDeviceAttr attribute) {
      int value = 0;
      return cudaDeviceGetAttribute(&value, attribute, device) == cudaSuccess ? value : 0;
    };
    known[device] = {ask(cudaDevAttrMultiProcessorCount), ask(cudaDevAttrComputeCapabilityMajor) == 9 &&
                                                              ask(cudaDevAttrComputeCapabilityMinor) == 0};
  });
  return known[device];
}
inline int processors() { return current_processors().count; }
inline bool on_hopper() { return current_processors().hopper; }

// Clusters of so many blocks that the current device has room for at once, by the kernel's use of a
// processor; asked of each device once. Not what it has processors for: those that share what a cluster needs
// come in groups, which differ from card to card. Zero if it cannot be asked.
template <auto kKernel>
int64_t clusters_at_once(int64_t cluster, int threads, int64_t shared_bytes) {
  constexpr int kDevices = 64;
  static int known[kDevices];
  static std::once_flag asked[kDevices];
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess || device >= kDevices) return 0;
  std::call_once(asked[device], [=] {
    const auto function = reinterpret_cast<const void*>(kKernel);
    cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(shared_bytes));
    cudaLaunchAttribute attribute;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(static_cast<unsigned>(cluster));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
    config.attrs = &attribute;
    config.numAttrs = 1;
    int count = 0;
    if (cudaOccupancyMaxActiveClusters(&count, function, &config) == cudaSuccess) known[device] = count;
  });
  return known[device];
}

// Errors stay with the stream: the next copy or synchronize reports them.
template <class Args>
void launch(void (*kernel)(Args), Grid grid, int threads, int64_t shared_bytes, Stream stream, Args args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  const auto function = reinterpret_cast<const void*>(kernel);
  if (noted_kernels) return note_kernel(function);
  if (shared_bytes > 48 * 1024) {
    cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(shared_bytes));
  }
  void* arguments[] = {&args};
  cudaLaunchAttribute attributes[2];
  unsigned n = 0;
  if (grid.early && on_hopper()) {
    attributes[n].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[n++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (grid.cluster > 1) {
    attributes[n].id = cudaLaunchAttributeClusterDimension;
    attributes[n++].val.clusterDim = {static_cast<unsigned>(grid.cluster), 1, 1};
  }
  cudaLaunchConfig_t config = {};
  config.gridDim =
      dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = attributes;
  config.numAttrs = n;
  cudaLaunchKernelExC(&config, function, arguments);
}

}  // namespace dsv::cuda
#endif
