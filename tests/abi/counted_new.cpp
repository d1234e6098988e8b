// Counts what the C++ runtime is asked for, over all threads, and refuses on demand. A file of its own, so
// that no compiler sees the inside of a pair of new and delete.
#include "tests/abi/counted_new.h"

#include <cstddef>
#include <cstdlib>
#include <new>

namespace dsv::test {
std::atomic<int64_t> news{0}, live_blocks{0};
MemoryFault memory_fault;
}  // namespace dsv::test

namespace {

void* allocate(size_t size, size_t alignment) {
  ++dsv::test::news;
  void* memory = nullptr;
  if (!dsv::test::memory_fault.spend()) {
    size = (size + alignment - 1) / alignment * alignment;
    memory = std::aligned_alloc(alignment, size ? size : alignment);
  }
  if (!memory) throw std::bad_alloc();
  ++dsv::test::live_blocks;
  return memory;
}
void release(void* memory) noexcept {
  if (memory) --dsv::test::live_blocks;
  std::free(memory);
}

}  // namespace

void* operator new(size_t size) { return allocate(size, alignof(std::max_align_t)); }
void* operator new(size_t size, std::align_val_t alignment) {
  return allocate(size, static_cast<size_t>(alignment));
}
// std::stable_sort asks this way.
void* operator new(size_t size, const std::nothrow_t&) noexcept try {
  return allocate(size, alignof(std::max_align_t));
} catch (const std::bad_alloc&) {
  return nullptr;
}
void operator delete(void* memory) noexcept { release(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { release(memory); }
void operator delete(void* memory, size_t) noexcept { release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { release(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { release(memory); }
