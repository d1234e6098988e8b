#include <ucontext.h>

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "kernels/cuda/cuda.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace dsv::cuda::emulation {

unsigned char* block_memory = nullptr;

namespace {

constexpr size_t kStack = 256 * 1024;
constexpr int64_t kGuard = 64;
constexpr unsigned char kGuardByte = 0xA5, kPoison = 0xFF;

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "emulation: %s (block %u %u %u, thread %u)\n", what, blockIdx.x, blockIdx.y,
               blockIdx.z, threadIdx.x);
  std::abort();
}

// A thread of the running block. Its fiber lives on and runs the thread of the same number of later blocks.
struct Fiber {
  enum State { ready, at_block_barrier, at_exchange, polling, done } state = done;
  const std::function<bool()>* until = nullptr;  // polling
  unsigned mask = 0;                             // at_exchange
  unsigned phase = 0;  // counts a lane's exchanges: one may come to the next before another has left the last
  ucontext_t start;
  jmp_buf at;
  bool started = false;
  std::unique_ptr<unsigned char[]> stack{new unsigned char[kStack]};
};

// Switches are longjmps between stacks that makecontext made: no system call.
struct Scheduler {
  std::vector<std::unique_ptr<Fiber>> fibers;
  uint32_t slots[32][2][32] = {};  // [warp][phase & 1][lane]
  uint32_t wide_slots[32][2][32][kWide] = {};
  const std::function<void()>* thread = nullptr;
  unsigned threads = 0, running = 0;
  bool descending = false;
  jmp_buf at;
  ucontext_t context;
  const void* stack = nullptr;  // the scheduler's own, for AddressSanitizer
  size_t stack_size = 0;

  void run_block();
  void switch_to(unsigned index);
  void yield(Fiber::State state);
  bool release_warp(unsigned warp);

  struct Named {
    int here = 0;
    int64_t met = 0;
  } named[16];  // barriers of the running block
};
Scheduler scheduler;

void before_switch([[maybe_unused]] void** keep, [[maybe_unused]] const void* stack,
                   [[maybe_unused]] size_t size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(keep, stack, size);
#endif
}
void after_switch([[maybe_unused]] void* keep, [[maybe_unused]] const void** stack,
                  [[maybe_unused]] size_t* size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(keep, stack, size);
#endif
}

void fiber_main() {
  Scheduler& s = scheduler;
  after_switch(nullptr, &s.stack, &s.stack_size);
  for (;;) {
    (*s.thread)();
    s.yield(Fiber::done);
  }
}

void Scheduler::switch_to(unsigned index) {
  Fiber& fiber = *fibers[index];
  running = index;
  thread_index.x = index;
  void* keep = nullptr;
  if (_setjmp(at) == 0) {
    before_switch(&keep, fiber.stack.get(), kStack);
    if (fiber.started) _longjmp(fiber.at, 1);
    fiber.started = true;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.get();
    fiber.start.uc_stack.ss_size = kStack;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, fiber_main, 0);
    setcontext(&fiber.start);
  }
  after_switch(keep, nullptr, nullptr);
}

void Scheduler::yield(Fiber::State state) {
  Fiber& fiber = *fibers[running];
  fiber.state = state;
  void* keep = nullptr;
  if (_setjmp(fiber.at) == 0) {
    before_switch(&keep, stack, stack_size);
    _longjmp(at, 1);
  }
  after_switch(keep, &stack, &stack_size);
}

// Whether every lane of some mask of the warp has come to its exchange; then they go on.
bool Scheduler::release_warp(unsigned warp) {
  bool released = false;
  const unsigned first = warp * kWarp;
  for (unsigned i = first; i < threads && i < first + kWarp; ++i) {
    if (fibers[i]->state != Fiber::at_exchange) continue;
    const unsigned mask = fibers[i]->mask;
    bool all = true;
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      if (!(mask >> lane & 1)) continue;
      const bool here = first + lane < threads && fibers[first + lane]->state == Fiber::at_exchange;
      if (here && fibers[first + lane]->mask != mask) die("lanes of a shuffle disagree about its mask");
      all = all && here;
    }
    if (!all) continue;
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      if (mask >> lane & 1) fibers[first + lane]->state = Fiber::ready;
    }
    released = true;
  }
  return released;
}

void Scheduler::run_block() {
  const unsigned warps = (threads + kWarp - 1) / kWarp;
  for (unsigned i = 0; i < threads; ++i) {
    fibers[i]->state = Fiber::ready;
    fibers[i]->phase = 0;
  }
  for (Named& barrier : named) barrier = {};
  for (;;) {
    for (unsigned w = 0; w < warps; ++w) {
      const unsigned warp = descending ? warps - 1 - w : w, first = warp * kWarp;
      const unsigned lanes = threads - first < kWarp ? threads - first : kWarp;
      do {
        for (unsigned l = 0; l < lanes; ++l) {
          const unsigned i = first + (descending ? lanes - 1 - l : l);
          if (fibers[i]->state == Fiber::ready) switch_to(i);
        }
      } while (release_warp(warp));
    }
    bool more = false;
    for (unsigned i = 0; i < threads; ++i) {
      if (fibers[i]->state != Fiber::polling || !(*fibers[i]->until)()) continue;
      fibers[i]->state = Fiber::ready;
      more = true;
    }
    if (more) continue;
    unsigned done = 0, waiting = 0;
    for (unsigned i = 0; i < threads; ++i) {
      done += fibers[i]->state == Fiber::done;
      waiting += fibers[i]->state == Fiber::at_block_barrier;
    }
    if (done == threads) return;
    if (waiting != threads) die("threads wait where others never come");
    for (unsigned i = 0; i < threads; ++i) fibers[i]->state = Fiber::ready;
  }
}

}  // namespace

void wait_until(const std::function<bool()>& done) {
  if (done()) return;
  Scheduler& s = scheduler;
  s.fibers[s.running]->until = &done;
  s.yield(Fiber::polling);
}

void named_barrier(int name, int threads) {
  Scheduler::Named& barrier = scheduler.named[name];
  const int64_t met = barrier.met;
  if (++barrier.here == threads) {
    barrier.here = 0;
    ++barrier.met;
  } else {
    wait_until([&] { return barrier.met > met; });
  }
}

void block_barrier() { scheduler.yield(Fiber::at_block_barrier); }

const uint32_t* exchange(unsigned mask, uint32_t value) {
  Scheduler& s = scheduler;
  Fiber& fiber = *s.fibers[s.running];
  const unsigned lane = s.running % kWarp;
  if (!(mask >> lane & 1)) die("a lane is not in its own shuffle's mask");
  uint32_t* slots = s.slots[s.running / kWarp][fiber.phase++ & 1];
  slots[lane] = value;
  fiber.mask = mask;
  s.yield(Fiber::at_exchange);
  return slots;
}

const uint32_t (*exchange_wide(unsigned mask, const uint32_t* values, int count))[kWide] {
  Scheduler& s = scheduler;
  const unsigned phase = s.fibers[s.running]->phase & 1;
  uint32_t(*slots)[kWide] = s.wide_slots[s.running / kWarp][phase];
  for (int i = 0; i < count; ++i) slots[s.running % kWarp][i] = values[i];
  exchange(mask, 0);
  return slots;
}

void set_descending(bool descending) { scheduler.descending = descending; }

void run(Dim3 grid, unsigned threads, int64_t shared_bytes, const std::function<void()>& thread, bool early) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  Scheduler& s = scheduler;
  if (threads == 0 || threads > 1024 || shared_bytes > shared_limit || grid.y > 65535 || grid.z > 65535) {
    die("no GPU takes this launch");
  }
  grid_dim = grid;
  block_dim = {threads, 1, 1};
  while (s.fibers.size() < threads) s.fibers.push_back(std::make_unique<Fiber>());
  s.thread = &thread;
  s.threads = threads;
  // A block of its own, so that AddressSanitizer sees its bounds; the guard is for other builds.
  const auto bytes = static_cast<size_t>(shared_bytes + kGuard);
  unsigned char* shared = static_cast<unsigned char*>(::operator new (bytes, std::align_val_t{16}));
  block_memory = shared;
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  for (uint64_t n = 0; n < blocks; ++n) {
    const uint64_t b = s.descending ? blocks - 1 - n : n;
    block_index = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                   static_cast<unsigned>(b / grid.x / grid.y)};
    std::memset(shared, kPoison, static_cast<size_t>(shared_bytes));
    std::memset(shared + shared_bytes, kGuardByte, kGuard);
    waited = false;
    s.run_block();
    if (early && !waited) die("a block of an early launch did not wait for the last");
    for (int64_t i = 0; i < kGuard; ++i) {
      if (shared[shared_bytes + i] != kGuardByte) die("something wrote after the block's shared memory");
    }
  }
  ::operator delete (shared, std::align_val_t{16});
}

}  // namespace dsv::cuda::emulation
