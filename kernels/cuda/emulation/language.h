// The part of the CUDA language that the kernels use, for a C++ compiler (test code). A kernel's blocks, or
// clusters of blocks, run one after another; their threads are fibers that are switched at barriers and
// shuffles. Between two of those a thread runs alone and to the end, in ascending or descending order of
// threads: what a missing barrier would let race comes out differently in the two orders.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <set>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define DSV_CLUSTER(blocks)
#define __grid_constant__

struct Dim3 {
  unsigned x = 0, y = 0, z = 0;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};

namespace dsv::cuda::emulation {

// Plain globals, because they are read at every turn: one thread at a time runs emulated kernels.
inline Dim3 grid_dim, block_dim, block_index, thread_index;
extern unsigned char* block_memory;  // the running block's shared memory

void block_barrier();
// Waits for every lane of `mask`, which must all come to the same call; returns the 32 values they brought.
const uint32_t* exchange(unsigned mask, uint32_t value);
// The same for up to kWide values of a lane: [32][kWide].
inline constexpr int kWide = 8;
const uint32_t (*exchange_wide(unsigned mask, const uint32_t* values, int count))[kWide];

// Waits until `done` says so, which other threads of the block bring about.
void wait_until(const std::function<bool()>& done);
// Barrier `name` (1 to 15) of `threads` threads of the block.
void named_barrier(int name, int threads);
// Of a cluster: the running block's place, its barrier in two halves, and what lies at `at` in the memory of
// its block `rank`.
unsigned cluster_rank();
void cluster_arrive();
void cluster_wait();
unsigned char* memory_of_block(const void* at, unsigned rank);
// What a Stream points to here: work that is enqueued. It runs later, so that host code that counts on an
// earlier end is found out.
class Queue {
 public:
  virtual void put(std::function<void()> work) = 0;

 protected:
  ~Queue() = default;
};

// By all runtimes.
inline int64_t graph_runs = 0, recordings = 0, allocations = 0;
inline std::set<const void*> loaded_kernels;  // launched or recorded, or loaded before
// Pieces of work after which the GPU is lost: what is enqueued never runs, and all that can fail fails.
// Counts down; below 0 it never is.
inline int64_t pieces_until_lost = -1;

// A TensorMap (tensor_map.h): a matrix and the boxes that are copied of it.
struct EmulatedMap {
  const unsigned char* data;
  int64_t rows, cols, row_bytes, box_rows, box_cols, element;  // element: bytes
  bool swizzled;
};

// Runs `thread` for every thread of every block; `cluster` blocks along x at a time.
void run(Dim3 grid, unsigned cluster, unsigned threads, int64_t shared_bytes,
         const std::function<void()>& thread, bool early);
inline unsigned waited = 0;  // threads of the running cluster that have called wait_for_last
// Shared memory that a block can have.
inline int64_t shared_limit = 99 * 1024;
// Whether kernels for Hopper are taken; tests set it.
inline bool hopper = false;
// Descending: blocks and threads run from the last to the first.
void set_descending(bool descending);

}  // namespace dsv::cuda::emulation

#define gridDim (::dsv::cuda::emulation::grid_dim)
#define blockDim (::dsv::cuda::emulation::block_dim)
#define blockIdx (::dsv::cuda::emulation::block_index)
#define threadIdx (::dsv::cuda::emulation::thread_index)

inline void __syncthreads() { ::dsv::cuda::emulation::block_barrier(); }
inline void __syncwarp(unsigned mask = 0xFFFFFFFFu) { ::dsv::cuda::emulation::exchange(mask, 0); }

inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline int __float2int_rn(float x) { return static_cast<int>(std::lrintf(x)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
// The upper half of high : low, moved to the left.
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by) {
  return by % 32 == 0 ? high : high << by % 32 | low >> (32 - by % 32);
}
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
  static_assert(sizeof(T) == 4);
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint32_t* all = ::dsv::cuda::emulation::exchange(mask, bits);
  std::memcpy(&value, &all[threadIdx.x % 32 ^ static_cast<unsigned>(lanes)], 4);
  return value;
}
template <class T>
T __shfl_sync(unsigned mask, T value, int lane) {
  static_assert(sizeof(T) == 4);
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  std::memcpy(&value, &::dsv::cuda::emulation::exchange(mask, bits)[lane], 4);
  return value;
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned lanes) {
  static_assert(sizeof(T) == 4);
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint32_t* all = ::dsv::cuda::emulation::exchange(mask, bits);
  if (threadIdx.x % 32 >= lanes) std::memcpy(&value, &all[threadIdx.x % 32 - lanes], 4);
  return value;
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value) {
  const uint32_t* all = ::dsv::cuda::emulation::exchange(mask, value);
  unsigned out = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (mask >> lane & 1) out = out > all[lane] ? out : all[lane];
  }
  return out;
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value) { return ~__reduce_max_sync(mask, ~value); }
inline int __reduce_add_sync(unsigned mask, int value) {
  const uint32_t* all = ::dsv::cuda::emulation::exchange(mask, static_cast<uint32_t>(value));
  uint32_t sum = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (mask >> lane & 1) sum += all[lane];
  }
  return static_cast<int>(sum);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const uint32_t* all = ::dsv::cuda::emulation::exchange(mask, predicate != 0);
  unsigned out = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (mask >> lane & 1) out |= all[lane] << lane;
  }
  return out;
}

template <class T>
T __ldg(const T* at) {
  return *at;
}

inline int atomicAdd(int* at, int value) {
  const int old = *at;
  *at += value;
  return old;
}
inline unsigned atomicAdd(unsigned* at, unsigned value) {
  const unsigned old = *at;
  *at += value;
  return old;
}
inline unsigned atomicOr(unsigned* at, unsigned value) {
  const unsigned old = *at;
  *at |= value;
  return old;
}
inline unsigned atomicAnd(unsigned* at, unsigned value) {
  const unsigned old = *at;
  *at &= value;
  return old;
}

namespace dsv::cuda {

inline constexpr int64_t emulated_cluster(int64_t blocks) { return blocks; }
inline constexpr int kMostCluster = 1;
inline unsigned char* shared_memory() { return emulation::block_memory; }
inline void let_next_begin() {}
inline void wait_for_last() { ++emulation::waited; }
inline void begin_early() { wait_for_last(); }
inline int processors() { return 4; }
template <auto kKernel>
int64_t clusters_at_once(int64_t cluster, int, int64_t) {
  return 132 / cluster;
}
inline bool on_hopper() { return emulation::hopper; }

template <class Args>
void launch(void (*kernel)(Args), Grid grid, int threads, int64_t shared_bytes, Stream stream, Args args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (noted_kernels) return note_kernel(reinterpret_cast<const void*>(kernel));
  emulation::loaded_kernels.insert(reinterpret_cast<const void*>(kernel));
  const Dim3 dim = {static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y),
                    static_cast<unsigned>(grid.z)};
  const auto work = [=] {
    emulation::run(
        dim, static_cast<unsigned>(grid.cluster), static_cast<unsigned>(threads), shared_bytes,
        [&] { kernel(args); }, grid.early);
  };
  // Tests of single kernels bring no stream.
  stream ? static_cast<emulation::Queue*>(stream)->put(work) : work();
}

}  // namespace dsv::cuda
