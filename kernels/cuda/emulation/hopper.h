// hopper.cuh on the CPU (test code). Copies are made at once, threads that wait for a barrier let the others
// run. Memory fences do nothing.
#pragma once

#include "kernels/cuda/formats.h"

namespace dsv::cuda::hopper {

inline uint32_t shared_address(const void* at) {
  return static_cast<uint32_t>(static_cast<const unsigned char*>(at) - emulation::block_memory);
}
template <class T>
T load_shared_as(uint32_t at) {
  if (at % sizeof(T) != 0) std::abort();  // misaligned
  T v;
  memcpy(&v, emulation::block_memory + at, sizeof v);
  return v;
}
inline uint4 load_shared_16(uint32_t at) { return load_shared_as<uint4>(at); }
inline float load_shared(uint32_t at) { return load_shared_as<float>(at); }
inline float2 load_shared_pair(uint32_t at) { return load_shared_as<float2>(at); }
inline void store_shared(uint32_t at, float v) { memcpy(emulation::block_memory + at, &v, sizeof v); }
inline void store_shared(uint32_t at, uint32_t v) { memcpy(emulation::block_memory + at, &v, sizeof v); }

// mbarriers, as they lie in shared memory.
struct Barrier {
  uint8_t expected, pending, phase, unused;
  int32_t bytes;  // that are still to come
};
inline Barrier& barrier_at(uint32_t at, unsigned char* memory = emulation::block_memory) {
  return *reinterpret_cast<Barrier*>(memory + at);
}
inline void barrier_step(Barrier& b) {
  if (b.pending > 0 || b.bytes != 0) return;
  b.pending = b.expected, b.phase ^= 1;
}
inline void barrier_init(uint32_t at, uint32_t arrivals) {
  barrier_at(at) = {static_cast<uint8_t>(arrivals), static_cast<uint8_t>(arrivals), 0, 0, 0};
}
inline void fence_barriers() {}
inline void barrier_arrive(Barrier& b) {
  if (b.pending == 0) std::abort();  // more arrivals than threads
  --b.pending;
  barrier_step(b);
}
inline void barrier_arrive(uint32_t at) { barrier_arrive(barrier_at(at)); }
inline void barrier_expect(uint32_t at, uint32_t bytes) {
  barrier_at(at).bytes += static_cast<int32_t>(bytes);
  barrier_arrive(at);
}
inline void barrier_wait(uint32_t at, uint32_t parity) {
  const Barrier& b = barrier_at(at);  // of this block, whichever runs when the others have
  emulation::wait_until([&] { return b.phase != parity; });
}
inline void barrier_wait_together(uint32_t at, uint32_t parity) {
  barrier_wait(at, parity);
  __syncwarp();
}
inline void copies_arrive(uint64_t* barrier) { barrier_arrive(shared_address(barrier)); }
inline void named_barrier(int name, int threads) { emulation::named_barrier(name, threads); }

inline unsigned char* memory_of(uint32_t rank) {
  return emulation::memory_of_block(emulation::block_memory, rank);
}
inline uint32_t cluster_rank() { return emulation::cluster_rank(); }
inline void cluster_sync() {
  emulation::cluster_arrive();
  emulation::cluster_wait();
}
inline void barrier_arrive_at(uint32_t at, uint32_t rank) { barrier_arrive(barrier_at(at, memory_of(rank))); }
inline float4 load_cluster(uint32_t at, uint32_t rank) {
  float4 v;
  memcpy(&v, memory_of(rank) + at, sizeof v);
  return v;
}

inline void copied(Barrier& b, int64_t bytes) {
  b.bytes -= static_cast<int32_t>(bytes);
  barrier_step(b);
}
inline void send_to_block(uint32_t at, uint32_t barrier, uint32_t rank, float v) {
  if (at % 4 != 0) std::abort();
  memcpy(memory_of(rank) + at, &v, sizeof v);
  copied(barrier_at(barrier, memory_of(rank)), sizeof v);
}
inline void acquire_map(const TensorMap*) {}
inline void copy_box_into(unsigned char* memory, uint32_t shared, const TensorMap* map, int32_t column,
                          int32_t row, uint32_t barrier) {
  const auto m = *reinterpret_cast<const emulation::EmulatedMap*>(map);
  const int64_t row_bytes = m.box_cols * m.element;
  if (shared % 128 != 0 || column * m.element % 16 != 0) std::abort();
  for (int64_t r = 0; r < m.box_rows; ++r) {
    for (int64_t c = 0; c < m.box_cols; ++c) {
      uint32_t to = shared + static_cast<uint32_t>(r * row_bytes + c * m.element);
      if (m.swizzled) to ^= to >> 3 & 0x70;
      const bool inside = row + r < m.rows && column + c < m.cols;
      const unsigned char* from = m.data + (row + r) * m.row_bytes + (column + c) * m.element;
      for (int64_t i = 0; i < m.element; ++i) memory[to + i] = inside ? from[i] : 0;
    }
  }
  copied(barrier_at(barrier, memory), m.box_rows * row_bytes);
}
inline void copy_box(uint32_t shared, const TensorMap* map, int32_t column, int32_t row, uint32_t barrier) {
  copy_box_into(emulation::block_memory, shared, map, column, row, barrier);
}
inline void copy_box_to(uint32_t shared, const TensorMap* map, int32_t column, int32_t row, uint32_t barrier,
                        uint16_t blocks) {
  for (uint32_t rank = 0; blocks >> rank != 0; ++rank) {
    if (blocks >> rank & 1) copy_box_into(memory_of(rank), shared, map, column, row, barrier);
  }
}
// Of bytes. At once, so what has been written too late or is overwritten too early shows only where other
// threads ran in between.
inline void store_box(const TensorMap* map, int32_t column, int32_t row, uint32_t shared) {
  const auto m = *reinterpret_cast<const emulation::EmulatedMap*>(map);
  if (shared % 128 != 0 || column % 16 != 0 || m.element != 1 || !m.swizzled) std::abort();
  for (int64_t r = 0; r < m.box_rows; ++r) {
    for (int64_t c = 0; c < m.box_cols; ++c) {
      const auto from = shared + static_cast<uint32_t>(r * m.box_cols + c);
      if (row + r < m.rows && column + c < m.cols)
        const_cast<unsigned char*>(m.data)[(row + r) * m.row_bytes + column + c] =
            emulation::block_memory[from ^ (from >> 3 & 0x70)];
    }
  }
}
inline void wait_for_stores() {}
inline void copy_bytes(uint32_t shared, const void* from, uint32_t bytes, uint32_t barrier) {
  if (shared % 16 != 0 || reinterpret_cast<uintptr_t>(from) % 16 != 0 || bytes % 16 != 0) std::abort();
  memcpy(emulation::block_memory + shared, from, bytes);
  copied(barrier_at(barrier), bytes);
}

inline void prefetch_line(const void*) {}
inline void prefetch_bytes(const void*, uint32_t) {}
inline void copy_to_block(uint32_t shared, uint32_t bytes, uint32_t barrier, uint32_t rank) {
  if (shared % 16 != 0 || bytes % 16 != 0) std::abort();
  memcpy(memory_of(rank) + shared, emulation::block_memory + shared, bytes);
  copied(barrier_at(barrier, memory_of(rank)), bytes);
}

template <int kRegisters>
void more_registers() {}
template <int kRegisters>
void fewer_registers() {}

}  // namespace dsv::cuda::hopper
