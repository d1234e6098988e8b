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
  int64_t arrivals = 0;  // at the cluster's barrier
  ucontext_t start;
  jmp_buf at;
  bool started = false;
  std::unique_ptr<unsigned char[]> stack{new unsigned char[kStack]};
};

// Of a running cluster.
constexpr unsigned kBlocks = 8, kWarps = 32 * kBlocks;

// Switches are longjmps between stacks that makecontext made: no system call.
struct Scheduler {
  std::vector<std::unique_ptr<Fiber>> fibers;
  uint32_t slots[kWarps][2][32] = {};  // [warp][phase & 1][lane]
  uint32_t wide_slots[kWarps][2][32][kWide] = {};
  const std::function<void()>* thread = nullptr;
  unsigned threads = 0, running = 0;  // fibers of a block, of which the last warp may not need all
  unsigned blocks = 1, stride = 0;    // the cluster's, and fibers from one to the next: whole warps
  unsigned first_block = 0;           // its x
  unsigned char* memory[kBlocks] = {};
  int64_t arrivals = 0;  // at the cluster's barrier
  bool descending = false;
  jmp_buf at;
  ucontext_t context;
  const void* stack = nullptr;  // the scheduler's own, for AddressSanitizer
  size_t stack_size = 0;

  void run_cluster();
  void switch_to(unsigned index);
  void yield(Fiber::State state);
  bool release_warp(unsigned warp);

  struct Named {
    int here = 0;
    int64_t met = 0;
  } named[kBlocks][16];  // barriers
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
  thread_index.x = index % stride;
  block_index.x = first_block + index / stride;
  block_memory = memory[index / stride];
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
  const unsigned first = warp * kWarp, end = first / stride * stride + threads;  // of the block's fibers
  for (unsigned i = first; i < end && i < first + kWarp; ++i) {
    if (fibers[i]->state != Fiber::at_exchange) continue;
    const unsigned mask = fibers[i]->mask;
    bool all = true;
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      if (!(mask >> lane & 1)) continue;
      const bool here = first + lane < end && fibers[first + lane]->state == Fiber::at_exchange;
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

void Scheduler::run_cluster() {
  const unsigned warps = blocks * stride / kWarp;
  for (unsigned i = 0; i < blocks * stride; ++i) {
    fibers[i]->state = i % stride < threads ? Fiber::ready : Fiber::done;
    fibers[i]->phase = 0;
    fibers[i]->arrivals = 0;
  }
  arrivals = 0;
  for (auto& block : named) {
    for (Named& barrier : block) barrier = {};
  }
  for (;;) {
    for (unsigned w = 0; w < warps; ++w) {
      const unsigned warp = descending ? warps - 1 - w : w, first = warp * kWarp;
      const unsigned left = threads - first % stride, lanes = left < kWarp ? left : kWarp;
      do {
        for (unsigned l = 0; l < lanes; ++l) {
          const unsigned i = first + (descending ? lanes - 1 - l : l);
          if (fibers[i]->state == Fiber::ready) switch_to(i);
        }
      } while (release_warp(warp));
    }
    bool more = false, done = true;
    for (unsigned b = 0; b < blocks; ++b) {
      unsigned ended = 0, waiting = 0;
      for (unsigned i = b * stride; i < b * stride + threads; ++i) {
        ended += fibers[i]->state == Fiber::done;
        waiting += fibers[i]->state == Fiber::at_block_barrier;
        if (fibers[i]->state != Fiber::polling || !(*fibers[i]->until)()) continue;
        fibers[i]->state = Fiber::ready;
        more = true;
      }
      done = done && ended == threads;
      if (waiting != threads) continue;
      for (unsigned i = b * stride; i < b * stride + threads; ++i) fibers[i]->state = Fiber::ready;
      more = true;
    }
    if (done) return;
    if (!more) die("threads wait where others never come");
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
  Scheduler::Named& barrier = scheduler.named[scheduler.running / scheduler.stride][name];
  const int64_t met = barrier.met;
  if (++barrier.here == threads) {
    barrier.here = 0;
    ++barrier.met;
  } else {
    wait_until([&] { return barrier.met > met; });
  }
}

unsigned cluster_rank() { return scheduler.running / scheduler.stride; }
void cluster_arrive() {
  ++scheduler.arrivals;
  ++scheduler.fibers[scheduler.running]->arrivals;
}
void cluster_wait() {
  Scheduler& s = scheduler;
  const int64_t all = s.fibers[s.running]->arrivals * s.threads * s.blocks;
  wait_until([&] { return s.arrivals >= all; });
}
unsigned char* memory_of_block(const void* at, unsigned rank) {
  if (rank >= scheduler.blocks) die("no such block in the cluster");
  return scheduler.memory[rank] + (static_cast<const unsigned char*>(at) - block_memory);
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

void run(Dim3 grid, unsigned cluster, unsigned threads, int64_t shared_bytes,
         const std::function<void()>& thread, bool early) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  Scheduler& s = scheduler;
  if (threads == 0 || threads > 1024 || shared_bytes > shared_limit || grid.y > 65535 || grid.z > 65535 ||
      cluster > kBlocks || grid.x % cluster != 0) {
    die("no GPU takes this launch");
  }
  grid_dim = grid;
  block_dim = {threads, 1, 1};
  s.thread = &thread;
  s.threads = threads;
  s.stride = (threads + kWarp - 1) / kWarp * kWarp;
  s.blocks = cluster;
  while (s.fibers.size() < s.stride * cluster) s.fibers.push_back(std::make_unique<Fiber>());
  // A block has memory of its own, so that AddressSanitizer sees its bounds; the guard is for other builds.
  const auto bytes = static_cast<size_t>(shared_bytes + kGuard);
  for (unsigned b = 0; b < cluster; ++b) {
    s.memory[b] = static_cast<unsigned char*>(::operator new (bytes, std::align_val_t{16}));
  }
  const uint64_t clusters = uint64_t{grid.x} * grid.y * grid.z / cluster, along = grid.x / cluster;
  for (uint64_t n = 0; n < clusters; ++n) {
    const uint64_t c = s.descending ? clusters - 1 - n : n;
    s.first_block = static_cast<unsigned>(c % along * cluster);
    block_index = {s.first_block, static_cast<unsigned>(c / along % grid.y),
                   static_cast<unsigned>(c / along / grid.y)};
    for (unsigned b = 0; b < cluster; ++b) {
      std::memset(s.memory[b], kPoison, static_cast<size_t>(shared_bytes));
      std::memset(s.memory[b] + shared_bytes, kGuardByte, kGuard);
    }
    waited = 0;
    s.run_cluster();
    if (early && waited < cluster) die("a block of an early launch did not wait for the last");
    for (unsigned b = 0; b < cluster; ++b) {
      for (int64_t i = 0; i < kGuard; ++i) {
        if (s.memory[b][shared_bytes + i] != kGuardByte)
          die("something wrote after the block's shared memory");
      }
    }
  }
  for (unsigned b = 0; b < cluster; ++b) ::operator delete (s.memory[b], std::align_val_t{16});
}

}  // namespace dsv::cuda::emulation
