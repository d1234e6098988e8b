// Hopper's own instructions, or their emulation: barriers that count bytes, the tensor copy engine, products
// of warpgroups. To be included where __CUDA_ARCH_FEAT_SM90_ALL is defined, or in emulation.
//
// Emulated, copies are made at once, and threads that wait for a barrier let the others run. A product is
// computed when it is waited for, from what shared memory holds then, and its sums are NaN until then: a
// stage that is released or sums that are read too early show.
#pragma once

#ifdef DSV_CUDA_EMULATION
#include <map>
#include <vector>
#endif

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/formats.h"
#include "kernels/cuda/tensor_map.h"

namespace dsv::cuda::hopper {

#ifdef DSV_CUDA_EMULATION

inline uint32_t shared_address(const void* at) {
  return static_cast<uint32_t>(static_cast<const unsigned char*>(at) - emulation::block_memory);
}
inline uint4 load_shared_16(uint32_t at) {
  uint4 v;
  memcpy(&v, emulation::block_memory + at, sizeof v);
  return v;
}
inline float load_shared(uint32_t at) {
  float v;
  memcpy(&v, emulation::block_memory + at, sizeof v);
  return v;
}
inline float2 load_shared_pair(uint32_t at) {
  if (at % 8 != 0) std::abort();  // misaligned
  return {load_shared(at), load_shared(at + 4)};
}
inline void store_shared(uint32_t at, float v) { memcpy(emulation::block_memory + at, &v, sizeof v); }

struct Barrier {
  uint8_t expected, pending, phase, unused;
  int32_t bytes;  // that are still to come
};
inline Barrier& barrier_at(uint32_t at) { return *reinterpret_cast<Barrier*>(emulation::block_memory + at); }
inline void barrier_step(Barrier& b) {
  if (b.pending > 0 || b.bytes != 0) return;
  b.pending = b.expected, b.phase ^= 1;
}
inline void barrier_init(uint32_t at, uint32_t arrivals) {
  barrier_at(at) = {static_cast<uint8_t>(arrivals), static_cast<uint8_t>(arrivals), 0, 0, 0};
}
inline void barriers_ready() {}
inline void barrier_arrive(uint32_t at) {
  Barrier& b = barrier_at(at);
  if (b.pending == 0) std::abort();  // more arrivals than threads
  --b.pending;
  barrier_step(b);
}
inline void barrier_expect(uint32_t at, uint32_t bytes) {
  barrier_at(at).bytes += static_cast<int32_t>(bytes);
  barrier_arrive(at);
}
inline void barrier_wait(uint32_t at, uint32_t parity) {
  emulation::wait_until([&] { return barrier_at(at).phase != parity; });
}

// Clusters are of one block.
inline uint32_t cluster_rank() { return 0; }
inline void cluster_sync() { __syncthreads(); }
inline void barrier_arrive_at(uint32_t at, uint32_t) { barrier_arrive(at); }
inline float4 load_cluster(uint32_t at, uint32_t) {
  float4 v;
  memcpy(&v, emulation::block_memory + at, sizeof v);
  return v;
}

inline void acquire_map(const TensorMap*) {}
inline void copy_box(uint32_t shared, const TensorMap* map, int32_t column, int32_t row, uint32_t barrier) {
  const auto m = *reinterpret_cast<const emulation::EmulatedMap*>(map);
  const int64_t row_bytes = m.box_cols * m.element;
  if (shared % 128 != 0 || column * m.element % 16 != 0) std::abort();
  for (int64_t r = 0; r < m.box_rows; ++r) {
    for (int64_t c = 0; c < m.box_cols; ++c) {
      uint32_t to = shared + static_cast<uint32_t>(r * row_bytes + c * m.element);
      if (m.swizzled) to ^= to >> 3 & 0x70;
      const bool inside = row + r < m.rows && column + c < m.cols;
      const unsigned char* from = m.data + (row + r) * m.row_bytes + (column + c) * m.element;
      for (int64_t i = 0; i < m.element; ++i) emulation::block_memory[to + i] = inside ? from[i] : 0;
    }
  }
  Barrier& b = barrier_at(barrier);
  b.bytes -= static_cast<int32_t>(m.box_rows * row_bytes);
  barrier_step(b);
}

inline void copy_box_to(uint32_t shared, const TensorMap* map, int32_t column, int32_t row, uint32_t barrier,
                        uint16_t) {
  copy_box(shared, map, column, row, barrier);
}
inline void copy_bytes(uint32_t shared, const void* from, uint32_t bytes, uint32_t barrier) {
  if (shared % 16 != 0 || reinterpret_cast<uintptr_t>(from) % 16 != 0 || bytes % 16 != 0) std::abort();
  memcpy(emulation::block_memory + shared, from, bytes);
  Barrier& b = barrier_at(barrier);
  b.bytes -= static_cast<int32_t>(bytes);
  barrier_step(b);
}
inline void group_barrier(int name, int threads) { emulation::named_barrier(name, threads); }

template <int kRegisters>
void take_registers() {}
template <int kRegisters>
void give_registers() {}
inline void keep(uint32_t (&)[4]) {}
template <int kCount>
void forget(float (&)[kCount]) {}

// A thread's products that have not been waited for.
struct Product {
  float* sums;
  int count;             // of sums
  uint32_t a[4][kWarp];  // what the warp's lanes brought
  const uint32_t* mine;  // .. and where this lane has it still; null: a is in shared memory
  uint64_t a_shared, b;  // descriptors
  bool add, e4m3, bf16;
};
struct Products {
  std::vector<std::vector<Product>> groups;  // committed
  std::vector<Product> open;
};
inline std::map<unsigned, Products> products;  // by thread

inline uint64_t swizzled_descriptor(uint32_t address) {
  if (address % 1024 != 0) std::abort();
  return address >> 4;
}
// Byte k of row n of an operand.
inline unsigned char operand_byte(uint64_t descriptor, int n, int k) {
  const auto start = static_cast<uint32_t>(descriptor << 4);
  const uint32_t at = start + static_cast<uint32_t>(n * 128 + k);
  return emulation::block_memory[at ^ (at >> 3 & 0x70)];
}
inline void fence_for_products() {}
inline void wgmma_fence() {}
inline void wgmma_commit() {
  Products& p = products[threadIdx.x];
  p.groups.push_back(std::move(p.open));
  p.open.clear();
}
template <int kCount>
void put_product(Product p, float (&sums)[kCount], bool add) {
  p.sums = sums, p.count = kCount, p.add = add;
  products[threadIdx.x].open.push_back(p);
}
template <int kCount>
void put_product(float (&sums)[kCount], const uint32_t (&a)[4], uint64_t b, int add, bool e4m3) {
  Product p = {};
  for (int i = 0; i < 4; ++i) memcpy(p.a[i], emulation::exchange(kAllLanes, a[i]), sizeof p.a[i]);
  p.mine = a, p.b = b, p.e4m3 = e4m3;
  put_product(p, sums, add != 0);
  if (!add) {
    for (float& s : sums) s = NAN;
  }
}
template <int kCount>
void wgmma_f16(float (&sums)[kCount], const uint32_t (&a)[4], uint64_t b, int add) {
  put_product(sums, a, b, add, false);
}
inline void wgmma_bf16(float (&sums)[32], const uint32_t (&a)[4], uint64_t b, int add) {
  put_product(sums, a, b, add, false);
  products[threadIdx.x].open.back().bf16 = true;
}
inline void wgmma_e4m3(float (&sums)[32], const uint32_t (&a)[4], uint64_t b, int add) {
  put_product(sums, a, b, add, true);
}
template <int kCount>
void wgmma_e4m3(float (&sums)[kCount], uint64_t a, uint64_t b, int add) {
  Product p = {};
  p.a_shared = a, p.b = b, p.e4m3 = true;
  put_product(p, sums, add != 0);
  if (!add) {
    for (float& s : sums) s = NAN;
  }
}
// Sums 4 i + 2 r + c: row g + 8 r of a, row 8 i + 2 t + c of b; k ascending.
inline void compute(const Product& p) {
  const int lane = static_cast<int>(threadIdx.x % kWarp), g = lane / 4, t = lane % 4;
  const auto decode = p.bf16 ? bf16_to_float : f16_to_float;
  const auto half = [&](uint32_t word, int which) {
    return decode(static_cast<uint16_t>(word >> 16 * which));
  };
  for (int i = 0; i < 4 && p.mine; ++i) {
    if (p.a[i][lane] != p.mine[i]) std::abort();  // a register was written under a product
  }
  for (int i = 0; i < p.count; ++i) {
    const int r = i / 2 % 2, n = i / 4 * 8 + 2 * t + i % 2;
    float sum = p.add ? p.sums[i] : 0;
    for (int k = 0; k < (p.e4m3 ? 32 : 16); ++k) {
      if (p.e4m3 && p.mine) {
        const uint32_t word = p.a[k / 16 * 2 + r][4 * g + k % 16 / 4];
        sum = fmaf(e4m3_to_float(static_cast<unsigned char>(word >> k % 4 * 8)),
                   e4m3_to_float(operand_byte(p.b, n, k)), sum);
      } else if (p.e4m3) {
        const int row = static_cast<int>(threadIdx.x) / kWarp % 4 * 16 + g + 8 * r;
        sum = fmaf(e4m3_to_float(operand_byte(p.a_shared, row, k)), e4m3_to_float(operand_byte(p.b, n, k)),
                   sum);
      } else {
        const uint32_t word = p.a[k / 8 * 2 + r][4 * g + k % 8 / 2];
        const auto code =
            static_cast<uint16_t>(operand_byte(p.b, n, 2 * k) | operand_byte(p.b, n, 2 * k + 1) << 8);
        sum = fmaf(half(word, k % 2), decode(code), sum);
      }
    }
    p.sums[i] = sum;
  }
}
template <int kPending, int kCount>
void wgmma_wait(float (&)[kCount]) {
  __syncwarp();
  Products& p = products[threadIdx.x];
  while (p.groups.size() > static_cast<size_t>(kPending)) {
    for (const Product& product : p.groups.front()) compute(product);
    p.groups.erase(p.groups.begin());
  }
}

#else

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

// ------------------------------------------------------------------------------------- barriers

__device__ __forceinline__ void barrier_init(uint32_t barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// Makes initialised barriers known to the copy engine and to the cluster; before a barrier of threads.
__device__ __forceinline__ void barriers_ready() {
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
// Consecutive bytes: multiples of 16, from and to multiples of 16.
__device__ __forceinline__ void copy_bytes(uint32_t shared, const void* from, uint32_t bytes,
                                           uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}
// Of `threads` threads that name the same barrier (1 to 15).
__device__ __forceinline__ void group_barrier(int name, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

// ------------------------------------------------------------------------------------- products

template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
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

// What this thread has written to shared memory is there for products, after a barrier of threads.
__device__ __forceinline__ void fence_for_products() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits for all groups but the last kPending; then these sums may be read.
template <int kPending, int kCount>
__device__ __forceinline__ void wgmma_wait(float (&sums)[kCount]) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

// An operand: rows of 128 bytes from a multiple of 1024 on, the 16-byte chunks of row n swapped by n % 8.
// 32 bytes of K further: 2 more.
__device__ __forceinline__ uint64_t swizzled_descriptor(uint32_t address) {
  return uint64_t{(address & 0x3FFFF) >> 4} | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 |
         uint64_t{1} << 62;
}

#define DSV_F8(d, i)                                                                          \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])

// d = a b^T + (add ? d : 0): 64 x N x 32 of e4m3, N / 2 sums a thread.
__device__ __forceinline__ void wgmma_e4m3(float (&d)[16], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %18, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k32.f32.e4m3.e4m3"
      " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, %16, %17, p, 1, 1; }"
      : DSV_F8(d, 0), DSV_F8(d, 8)
      : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma_e4m3(float (&d)[28], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %30, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n56k32.f32.e4m3.e4m3"
      " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
      "%21, %22, %23, %24, %25, %26, %27}, %28, %29, p, 1, 1; }"
      : DSV_F8(d, 0), DSV_F8(d, 8), DSV_F8(d, 16), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27])
      : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma_e4m3(float (&d)[32], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3"
      " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
      "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, %32, %33, p, 1, 1; }"
      : DSV_F8(d, 0), DSV_F8(d, 8), DSV_F8(d, 16), DSV_F8(d, 24)
      : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma_e4m3(float (&d)[48], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %50, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n96k32.f32.e4m3.e4m3"
      " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
      "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "
      "%40, %41, %42, %43, %44, %45, %46, %47}, %48, %49, p, 1, 1; }"
      : DSV_F8(d, 0), DSV_F8(d, 8), DSV_F8(d, 16), DSV_F8(d, 24), DSV_F8(d, 32), DSV_F8(d, 40)
      : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma_e4m3(float (&d)[64], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3"
      " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
      "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "
      "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, "
      "%59, %60, %61, %62, %63}, %64, %65, p, 1, 1; }"
      : DSV_F8(d, 0), DSV_F8(d, 8), DSV_F8(d, 16), DSV_F8(d, 24), DSV_F8(d, 32), DSV_F8(d, 40), DSV_F8(d, 48),
        DSV_F8(d, 56)
      : "l"(a), "l"(b), "r"(add));
}

// d = a b^T + (add ? d : 0): 64 x 64 x 16 of bf16, a in registers as mma.sync's.
__device__ __forceinline__ void wgmma_bf16(float (&d)[32], const uint32_t (&a)[4], uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16"
      " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "
      "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, {%32, %33, %34, %35}, %36, p, 1, 1, 0; }"
      : DSV_F8(d, 0), DSV_F8(d, 8), DSV_F8(d, 16), DSV_F8(d, 24)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
// The same of f16, 64 x 128, 64 x 64 or 64 x 32.
__device__ __forceinline__ void wgmma_f16(float (&d)[64], const uint32_t (&a)[4], uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16"
      " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "
      "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, "
      "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "
      "%62, %63}, {%64, %65, %66, %67}, %68, p, 1, 1, 0; }"
      : DSV_F8(d, 0), DSV_F8(d, 8), DSV_F8(d, 16), DSV_F8(d, 24), DSV_F8(d, 32), DSV_F8(d, 40), DSV_F8(d, 48),
        DSV_F8(d, 56)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma_f16(float (&d)[16], const uint32_t (&a)[4], uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %21, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16"
      " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, {%16, %17, %18, %19}, %20, "
      "p, 1, 1, 0; }"
      : DSV_F8(d, 0), DSV_F8(d, 8)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma_f16(float (&d)[32], const uint32_t (&a)[4], uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16"
      " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "
      "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, {%32, %33, %34, %35}, %36, p, 1, 1, 0; }"
      : DSV_F8(d, 0), DSV_F8(d, 8), DSV_F8(d, 16), DSV_F8(d, 24)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

// d = a b^T + (add ? d : 0): 64 x 64 x 32 of e4m3, a in registers: of rows g and g + 8 the bytes 4 t .. + 3
// of the first 16, then the same of the others.
__device__ __forceinline__ void wgmma_e4m3(float (&d)[32], const uint32_t (&a)[4], uint64_t b, int add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3"
      " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "
      "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, {%32, %33, %34, %35}, %36, p, 1, 1; }"
      : DSV_F8(d, 0), DSV_F8(d, 8), DSV_F8(d, 16), DSV_F8(d, 24)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

#undef DSV_F8

#endif

// ------------------------------------------------------------------------------------- tiles

// Tile `at` of row_tiles x columns for persistent blocks: `together` tiles of rows go through the columns
// side by side, so that the weights and rows of tiles that run at the same time are in L2.
struct TilePlace {
  int32_t row_tile, column;
};
__device__ __forceinline__ TilePlace tile_place(int32_t at, int32_t row_tiles, int32_t columns,
                                                int32_t together) {
  const int32_t first = at / (together * columns) * together, within = at % (together * columns);
  const int32_t rows = row_tiles - first < together ? row_tiles - first : together;
  return {first + within % rows, within / rows};
}

}  // namespace dsv::cuda::hopper
