// The GPU of the tests: the host's memory, poisoned and guarded, and kernels that run when they are enqueued.
#include "kernels/cuda/runtime.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>

#include "base/error.h"
#include "kernels/cuda/cuda.h"

namespace dsv::cuda {
namespace {

constexpr int64_t kGuard = 256;                             // also the alignment
constexpr unsigned char kGuardByte = 0xA5, kPoison = 0xFF;  // 0xFF bytes are a NaN in every format

class EmulatedRuntime final : public Runtime {
 public:
  explicit EmulatedRuntime(bool descending) : descending_(descending) {}
  ~EmulatedRuntime() override {
    if (!blocks_.empty()) die("device memory was not freed");
  }

  const char* description() const override { return descending_ ? "descending" : "ascending"; }
  Stream stream() const override {
    emulation::set_descending(descending_);
    return nullptr;
  }

  void* allocate(int64_t bytes, const char* what) override {
    if (bytes <= 0) fail(DSV_ERROR_INTERNAL, "{} bytes were asked for {}", bytes, what);
    auto* memory = static_cast<unsigned char*>(
        ::operator new (static_cast<size_t>(bytes + 2 * kGuard), std::align_val_t{kGuard}));
    std::memset(memory, kGuardByte, kGuard);
    std::memset(memory + kGuard, kPoison, static_cast<size_t>(bytes));
    std::memset(memory + kGuard + bytes, kGuardByte, kGuard);
    blocks_[memory + kGuard] = bytes;
    return memory + kGuard;
  }
  void* allocate_pinned(int64_t bytes, const char* what) override { return allocate(bytes, what); }
  void free(void* device) noexcept override {
    if (!device) return;
    auto* at = static_cast<unsigned char*>(device);
    const auto found = blocks_.find(at);
    if (found == blocks_.end()) die("memory was freed that is not allocated");
    for (int64_t i = 0; i < kGuard; ++i) {
      if (at[i - kGuard] != kGuardByte) die("something wrote before a block of device memory");
      if (at[found->second + i] != kGuardByte) die("something wrote after a block of device memory");
    }
    blocks_.erase(found);
    ::operator delete (at - kGuard, std::align_val_t{kGuard});
  }
  void free_pinned(void* host) noexcept override { free(host); }

  void copy_in(void* device, const void* host, int64_t bytes) override {
    check(device, bytes);
    check(host, bytes);
    std::memcpy(device, host, static_cast<size_t>(bytes));
  }
  void copy_out(void* host, const void* device, int64_t bytes) override {
    check(device, bytes);
    check(host, bytes);
    std::memcpy(host, device, static_cast<size_t>(bytes));
  }
  void mark(int) override {}
  void wait(int) override {}
  void synchronize() override {}

 private:
  [[noreturn]] static void die(const char* what) {
    std::fprintf(stderr, "emulation: %s\n", what);
    std::abort();
  }
  // Copies go to device memory and come from pinned memory only.
  void check(const void* at, int64_t bytes) const {
    auto* first = static_cast<unsigned char*>(const_cast<void*>(at));
    const auto next = blocks_.upper_bound(first);
    if (next == blocks_.begin()) die("a copy touches memory that is not allocated");
    const auto& [begin, size] = *std::prev(next);
    if (first + bytes > begin + size) die("a copy leaves its block of memory");
  }

  const bool descending_;
  std::map<unsigned char*, int64_t> blocks_;
};

}  // namespace

std::unique_ptr<Runtime> open_runtime(const char* device) {
  return std::make_unique<EmulatedRuntime>(device && std::strcmp(device, "descending") == 0);
}
void check_device(const char*) {}

}  // namespace dsv::cuda
