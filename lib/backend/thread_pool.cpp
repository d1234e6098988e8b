#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

#include "backend/jobs.h"
#include "base/error.h"

namespace dsv {
namespace {

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// The ticket holds the run's number in its high half and the next index in its low half. Whoever raises the
// low half by one owns that index, and only then uses job_, argument_ and count_: the number is new in every
// run and the ticket is closed while the three change, so a thread that read them for an older run fails to
// take an index. A run returns when all its indices are finished, so late threads need not be waited for.
class ThreadPool final : public Jobs {
 public:
  explicit ThreadPool(int32_t threads) {
    threads_.reserve(static_cast<size_t>(threads - 1));
    try {
      while (static_cast<int32_t>(threads_.size()) < threads - 1) threads_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
      stop();
      fail(DSV_ERROR_OUT_OF_MEMORY, "cannot start {} worker threads; ask for fewer threads", threads - 1);
    } catch (...) {
      stop();  // a thread that runs must not be destroyed
      throw;
    }
  }
  ~ThreadPool() override { stop(); }

  void run(Job job, void* argument, int32_t count) override {
    if (threads_.empty() || count <= 1) {
      for (int32_t i = 0; i < count; ++i) job(argument, i);
      return;
    }
    const uint64_t number = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
    ticket_.store(number << 32 | kClosed, std::memory_order_release);
    job_.store(job, std::memory_order_release);
    argument_.store(argument, std::memory_order_release);
    count_.store(count, std::memory_order_release);
    finished_.store(0, std::memory_order_relaxed);
    ticket_.store(number << 32, std::memory_order_release);
    runs_.fetch_add(1, std::memory_order_release);
    runs_.notify_all();

    while (take_one()) {
    }
    for (int spins = 0;;) {
      const int32_t finished = finished_.load(std::memory_order_acquire);
      if (finished == count) return;
      if (++spins < kSpins) {
        relax();
      } else {
        finished_.wait(finished, std::memory_order_acquire);
      }
    }
  }

  int32_t width() const override { return static_cast<int32_t>(threads_.size()) + 1; }

 private:
  static constexpr uint64_t kClosed = 0xffffffff;
  static constexpr int kSpins = 2000;  // some 50 us: longer than the serial parts between jobs of a step

  bool take_one() {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    for (;;) {
      const Job job = job_.load(std::memory_order_acquire);
      void* const argument = argument_.load(std::memory_order_acquire);
      const int32_t count = count_.load(std::memory_order_acquire);
      const uint64_t index = ticket & kClosed;
      if (index >= static_cast<uint64_t>(count)) return false;
      if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel,
                                         std::memory_order_acquire)) {
        continue;
      }
      job(argument, static_cast<int32_t>(index));
      if (finished_.fetch_add(1, std::memory_order_acq_rel) + 1 == count) finished_.notify_one();
      return true;
    }
  }

  void work() {
    for (uint32_t seen = 0;;) {
      for (int spins = 0; runs_.load(std::memory_order_acquire) == seen;) {
        if (++spins < kSpins) {
          relax();
        } else {
          runs_.wait(seen, std::memory_order_acquire);
        }
      }
      seen = runs_.load(std::memory_order_acquire);
      if (stopping_.load(std::memory_order_acquire)) return;
      while (take_one()) {
      }
    }
  }

  void stop() {
    stopping_.store(true, std::memory_order_release);
    runs_.fetch_add(1, std::memory_order_release);
    runs_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  alignas(64) std::atomic<uint64_t> ticket_{kClosed};
  std::atomic<Job> job_{nullptr};
  std::atomic<void*> argument_{nullptr};
  std::atomic<int32_t> count_{0};
  alignas(64) std::atomic<int32_t> finished_{0};
  alignas(64) std::atomic<uint32_t> runs_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<Jobs> make_thread_pool(int32_t threads) { return std::make_unique<ThreadPool>(threads); }

}  // namespace dsv
