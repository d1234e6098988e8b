// Counts what the C++ runtime is asked for, over all threads, and refuses on demand. A file of its own, so
// that no compiler sees the inside of a pair of new and delete.
//
// Every form is here, although libstdc++'s own forms end in the plain ones: a sanitizer's runtime brings
// forms that do not, and what it allocated there uncounted would still be counted when it comes back.
// (std::stable_sort asks with std::nothrow and gives back plainly: under TSan the count fell with every
// sort.)
#include "tests/abi/counted_new.h"

#include <cstddef>
#include <cstdlib>
#include <new>

namespace dsv::test {
std::atomic<int64_t> news{0}, live_blocks{0};
MemoryFault memory_fault;
}  // namespace dsv::test

namespace {

void* try_allocate(size_t size, size_t alignment) noexcept {
  ++dsv::test::news;
  if (dsv::test::memory_fault.spend()) return nullptr;
  size = (size + alignment - 1) / alignment * alignment;
  void* const memory = std::aligned_alloc(alignment, size ? size : alignment);
  if (memory) ++dsv::test::live_blocks;
  return memory;
}
void* allocate(size_t size, size_t alignment) {
  void* const memory = try_allocate(size, alignment);
  if (!memory) throw std::bad_alloc();
  return memory;
}
void release(void* memory) noexcept {
  if (memory) --dsv::test::live_blocks;
  std::free(memory);
}

constexpr size_t kPlain = alignof(std::max_align_t);
constexpr size_t of(std::align_val_t alignment) { return static_cast<size_t>(alignment); }

}  // namespace

using std::align_val_t, std::nothrow_t;
void* operator new(size_t size) { return allocate(size, kPlain); }
void* operator new[](size_t size) { return allocate(size, kPlain); }
void* operator new(size_t size, align_val_t alignment) { return allocate(size, of(alignment)); }
void* operator new[](size_t size, align_val_t alignment) { return allocate(size, of(alignment)); }
void* operator new(size_t size, const nothrow_t&) noexcept { return try_allocate(size, kPlain); }
void* operator new[](size_t size, const nothrow_t&) noexcept { return try_allocate(size, kPlain); }
void* operator new(size_t size, align_val_t alignment, const nothrow_t&) noexcept {
  return try_allocate(size, of(alignment));
}
void* operator new[](size_t size, align_val_t alignment, const nothrow_t&) noexcept {
  return try_allocate(size, of(alignment));
}
void operator delete(void* memory) noexcept { release(memory); }
void operator delete[](void* memory) noexcept { release(memory); }
void operator delete(void* memory, size_t) noexcept { release(memory); }
void operator delete[](void* memory, size_t) noexcept { release(memory); }
void operator delete(void* memory, align_val_t) noexcept { release(memory); }
void operator delete[](void* memory, align_val_t) noexcept { release(memory); }
void operator delete(void* memory, size_t, align_val_t) noexcept { release(memory); }
void operator delete[](void* memory, size_t, align_val_t) noexcept { release(memory); }
void operator delete(void* memory, const nothrow_t&) noexcept { release(memory); }
void operator delete[](void* memory, const nothrow_t&) noexcept { release(memory); }
void operator delete(void* memory, align_val_t, const nothrow_t&) noexcept { release(memory); }
void operator delete[](void* memory, align_val_t, const nothrow_t&) noexcept { release(memory); }
