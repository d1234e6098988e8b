// The GPU of the tests: the host's memory, poisoned and guarded. What is enqueued runs when somebody waits
// for it or, a piece at a time, when somebody asks whether it has run.
#include "kernels/cuda/runtime.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "base/error.h"
#include "kernels/cuda/cuda.h"

namespace dsv::cuda {
namespace {

constexpr int64_t kGuard = 256;                             // also the alignment
constexpr unsigned char kGuardByte = 0xA5, kPoison = 0xFF;  // 0xFF bytes are a NaN in every format

using Work = std::function<void()>;

class EmulatedRuntime final : public Runtime, public emulation::Queue {
 public:
  explicit EmulatedRuntime(bool descending) : descending_(descending) {}
  ~EmulatedRuntime() override {
    if (!graphs_.empty()) die("a graph was not freed");
    if (!blocks_.empty()) die("device memory was not freed");
  }

  // "descending" is a Hopper card.
  int64_t shared_limit() const override { return descending_ ? 227 * 1024 : kPortableShared; }
  const char* description() const override { return descending_ ? "descending" : "ascending"; }
  Stream stream() const override { return static_cast<Queue*>(const_cast<EmulatedRuntime*>(this)); }
  Stream side() const override { return static_cast<Queue*>(const_cast<Side*>(&side_)); }
  void put(Work work) override {
    if (!lost_) (recording_ ? *recording_ : queue_).push_back(std::move(work));
  }

  void reserve(int64_t bytes) override { reserved_ = bytes; }
  // Blocks lie apart, so that what leaves one is seen; but together they fit in what was reserved.
  void* allocate(int64_t bytes, const char* what) override {
    taken_ += aligned(bytes);
    if (reserved_ > 0 && taken_ > reserved_) die("more device memory was taken than planned");
    return block(bytes, what);
  }
  void* allocate_pinned(int64_t bytes, const char* what) override { return block(bytes, what); }
  void* block(int64_t bytes, const char* what) {
    if (bytes <= 0) fail(DSV_ERROR_INTERNAL, "{} bytes were asked for {}", bytes, what);
    auto* memory = static_cast<unsigned char*>(
        ::operator new (static_cast<size_t>(bytes + 2 * kGuard), std::align_val_t{kGuard}));
    ++emulation::allocations;
    std::memset(memory, kGuardByte, kGuard);
    std::memset(memory + kGuard, kPoison, static_cast<size_t>(bytes));
    std::memset(memory + kGuard + bytes, kGuardByte, kGuard);
    blocks_[memory + kGuard] = bytes;
    return memory + kGuard;
  }
  void free(void* device) noexcept override {
    if (!device) return;
    if (!queue_.empty()) die("memory was freed while work was enqueued");
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

  void copy_in(void* device, const void* host, int64_t bytes) override { copy(device, host, bytes); }
  void copy_out(void* host, const void* device, int64_t bytes) override { copy(host, device, bytes); }

  void mark(Mark which) override {
    not_lost();
    no_recording();
    marks_[which] = done_ + static_cast<int64_t>(queue_.size());
  }
  bool reached(Mark which) override {
    not_lost();
    no_recording();
    if (done_ < marks_[which]) run_one();
    return done_ >= marks_[which];
  }
  void wait(Mark which) override {
    not_lost();
    no_recording();
    while (done_ < marks_[which]) run_one();
  }
  void rest(double) override {}
  double seconds_of_step() override {
    if (done_ < marks_[kStepEnd]) die("a step is timed that is not done");
    return 1e-6 * static_cast<double>(marks_[kStepEnd] - marks_[kStepBegin]);
  }
  void synchronize() override {
    not_lost();
    no_recording();
    while (!queue_.empty()) run_one();
  }
  void stamp(int i) override {
    no_recording();
    stamps_[i] = done_ + static_cast<int64_t>(queue_.size());
  }
  double between(int from, int to) override {
    if (done_ < stamps_.at(from) || done_ < stamps_.at(to)) die("a stamp is read that was not reached");
    return 1e-6 * static_cast<double>(stamps_.at(to) - stamps_.at(from));
  }

  void begin_recording() override {
    not_lost();
    no_recording();
    recording_ = std::make_unique<std::deque<Work>>();
  }
  Graph end_recording() override {
    if (side_.follows) die("a fork was not joined");
    ++emulation::recordings;
    const Graph graph = recording_.get();
    graphs_[graph] = std::move(recording_);
    return graph;
  }
  void drop_recording() noexcept override {
    recording_.reset();
    side_.work.clear();
    side_.follows = false;
  }
  // Work beside the stream runs in one of two orders: as it is enqueued, or as late as it may.
  void point() override {
    if (!recording_) die("a point is not recorded");
  }
  void follow() override { side_.follows = true; }
  void join() override {
    if (!side_.follows) die("a join of what did not fork");
    for (Work& work : side_.work) recording_->push_back(std::move(work));
    side_.work.clear();
    side_.follows = false;
  }
  // Both have all that was enqueued before.
  void exchange() override {
    if (!side_.follows) die("nothing to exchange with");
  }
  void run(Graph graph) override {
    not_lost();
    no_recording();
    const auto found = graphs_.find(graph);
    if (found == graphs_.end()) die("a graph runs that does not exist");
    for (const Work& work : *found->second) queue_.push_back(work);
    ++emulation::graph_runs;
  }
  void free_graph(Graph graph) noexcept override { graphs_.erase(graph); }

  void load(const void* kernel) override {
    not_lost();
    no_recording();
    emulation::loaded_kernels.insert(kernel);
  }

 private:
  [[noreturn]] static void die(const char* what) {
    std::fprintf(stderr, "emulation: %s\n", what);
    std::abort();
  }
  void no_recording() const {
    if (recording_) die("this cannot be recorded");
  }
  void not_lost() const {
    if (!lost_) return;
    fail(DSV_ERROR_DEVICE_LOST, "the emulated GPU failed: what it held is lost");
  }
  void run_one() {
    if (emulation::pieces_until_lost >= 0 && emulation::pieces_until_lost-- == 0) {
      lost_ = true;
      queue_.clear();
    }
    not_lost();
    emulation::set_descending(descending_);
    emulation::shared_limit = shared_limit();
    const Work work = std::move(queue_.front());
    queue_.pop_front();
    ++done_;
    work();
  }
  void copy(void* to, const void* from, int64_t bytes) {
    not_lost();
    check(to, bytes);
    check(from, bytes);
    put([=] { std::memcpy(to, from, static_cast<size_t>(bytes)); });
  }
  // Copies go to device memory and come from pinned memory only.
  void check(const void* at, int64_t bytes) const {
    auto* first = static_cast<unsigned char*>(const_cast<void*>(at));
    const auto next = blocks_.upper_bound(first);
    if (next == blocks_.begin()) die("a copy touches memory that is not allocated");
    const auto& [begin, size] = *std::prev(next);
    if (first + bytes > begin + size) die("a copy leaves its block of memory");
  }

  struct Side final : Queue {
    EmulatedRuntime* runtime;
    std::deque<Work> work;
    bool follows = false;
    explicit Side(EmulatedRuntime* r) : runtime(r) {}
    void put(Work w) override {
      if (!follows) die("work beside the stream without a fork");
      (runtime->descending_ ? work : *runtime->recording_).push_back(std::move(w));
    }
  } side_{this};
  const bool descending_;
  bool lost_ = false;
  int64_t reserved_ = 0, taken_ = 0;
  std::deque<Work> queue_;
  int64_t done_ = 0, marks_[kMarks] = {};  // pieces of work
  std::map<int, int64_t> stamps_;
  std::unique_ptr<std::deque<Work>> recording_;
  std::map<Graph, std::unique_ptr<std::deque<Work>>> graphs_;
  std::map<unsigned char*, int64_t> blocks_;
};

}  // namespace

std::unique_ptr<Runtime> open_runtime(const char* device, int32_t) {
  return std::make_unique<EmulatedRuntime>(device && std::strcmp(device, "descending") == 0);
}
void check_device(const char*) {}

}  // namespace dsv::cuda
