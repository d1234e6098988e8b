#pragma once

#include <atomic>
#include <cstdint>

namespace dsv::test {

// The C++ runtime's allocations in this process, over all threads.
extern std::atomic<int64_t> news;         // calls of operator new so far
extern std::atomic<int64_t> live_blocks;  // allocated and not yet freed

// From the n-th call of `spend()` on (1: the next), memory is refused until disarm().
class MemoryFault {
 public:
  void arm(int64_t n) { left_ = n, armed_ = true; }
  void disarm() { armed_ = false; }
  bool armed() const { return armed_; }
  // True if this allocation is to be refused.
  bool spend() { return armed_ && left_.fetch_sub(1) <= 1; }
  bool struck() const { return left_ <= 0; }  // something was refused since arm()

 private:
  std::atomic<bool> armed_{false};
  std::atomic<int64_t> left_{0};
};
extern MemoryFault memory_fault;  // operator new obeys it

}  // namespace dsv::test
