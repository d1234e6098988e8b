// Counts what the C++ runtime is asked for, over all threads. A file of its own, so that no compiler sees the
// inside of a pair of new and delete.
#include "tests/abi/counted_new.h"

#include <cstdlib>
#include <new>

std::atomic<int64_t> dsv::test::news{0};

void* operator new(size_t size) {
  ++dsv::test::news;
  if (void* memory = std::malloc(size ? size : 1)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
