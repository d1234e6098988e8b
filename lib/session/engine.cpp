#include "session/engine.h"

#include <algorithm>
#include <chrono>
#include <string_view>
#include <thread>
#include <utility>

#include "backend/library.h"
#include "base/json.h"
#include "session/model.h"
#include "session/scheduler.h"
#include "session/session.h"
#include "session/utf8.h"

namespace dsv {
namespace {

using Clock = Forward::Clock;

int32_t thread_count(int32_t threads) {
  return threads > 0 ? threads
                     : std::max<int32_t>(1, static_cast<int32_t>(std::thread::hardware_concurrency()));
}

// The stepping thread and a loading thread may both have work; a pool serves one caller at a time, so the
// other does its jobs itself.
class SharedPool final : public Jobs {
 public:
  explicit SharedPool(int32_t threads) : pool_(make_thread_pool(threads)) {}
  void run(Job job, void* argument, int32_t count) override {
    const std::unique_lock lock(in_use_, std::try_to_lock);
    if (lock.owns_lock()) return pool_->run(job, argument, count);
    for (int32_t i = 0; i < count; ++i) job(argument, i);
  }
  int32_t width() const override { return pool_->width(); }

 private:
  std::unique_ptr<Jobs> pool_;
  std::mutex in_use_;
};

class HostJobs final : public Jobs {
 public:
  HostJobs(const dsv_hooks& hooks, int32_t width) : hooks_(hooks), width_(width) {}
  void run(Job job, void* argument, int32_t count) override {
    if (count > 0) hooks_.run_jobs(hooks_.user, job, argument, count);
  }
  int32_t width() const override { return width_; }

 private:
  const dsv_hooks& hooks_;
  int32_t width_;
};

std::unique_ptr<Jobs> make_jobs(const Host& host, int32_t threads) {
  if (host.hooks().run_jobs) return std::make_unique<HostJobs>(host.hooks(), thread_count(threads));
  return std::make_unique<SharedPool>(thread_count(threads));
}

bool lists(std::string_view words, std::string_view word) {
  while (!words.empty()) {
    const size_t end = std::min(words.find(' '), words.size());
    if (words.substr(0, end) == word) return true;
    words.remove_prefix(std::min(end + 1, words.size()));
  }
  return false;
}

}  // namespace

Engine::Engine(const OpTable& ops, int32_t threads, const dsv_hooks* hooks, std::string target)
    : ops_(ops), host_(hooks), jobs_(make_jobs(host_, threads)), target_(std::move(target)) {}

Engine::~Engine() = default;

void Engine::enter() {
  const std::lock_guard lock(mutex_);
  if (busy_) {
    fail(
        DSV_ERROR_BUSY,
        "another call is at work on this engine, or this one was made from inside an event callback: make it "
        "after that call has returned");
  }
  busy_ = true;
}

void Engine::leave() {
  std::shared_ptr<Session> dead;  // let go of outside the lock: a model may go with them
  {
    const std::lock_guard lock(mutex_);
    dead.swap(dead_);
    for (Session* session = dead.get(); session; session = session->next_dead.get()) detach(*session);
    busy_ = false;
  }
  while (dead) dead = std::exchange(dead->next_dead, nullptr);
}

void Engine::bury(std::shared_ptr<Session> session) {
  const std::lock_guard lock(mutex_);
  if (busy_) {
    session->next_dead = std::exchange(dead_, nullptr);
    dead_ = std::move(session);
  } else {
    detach(*session);
  }
}

void Engine::attach(Session& session) {
  Scheduler& scheduler = session.model().scheduler();
  schedulers_.reserve(schedulers_.size() + 1);
  scheduler.add(session);  // the last that can fail
  if (std::find(schedulers_.begin(), schedulers_.end(), &scheduler) == schedulers_.end()) {
    schedulers_.push_back(&scheduler);
  }
}

void Engine::detach(Session& session) {
  Scheduler& scheduler = session.model().scheduler();
  scheduler.remove(session);
  session.release_pages();
  if (scheduler.empty()) std::erase(schedulers_, &scheduler);
}

int32_t Engine::pending() const {
  int32_t count = 0;
  for (const Scheduler* scheduler : schedulers_) count += scheduler->pending();
  return count;
}

int32_t Engine::step(int64_t budget_us) {
  // More than a year is no budget, and keeps the sum in range.
  constexpr int64_t kLongest = int64_t{366} * 24 * 3600 * 1000000;
  const auto budget = std::chrono::microseconds(std::min(budget_us, kLongest));
  const Clock::time_point deadline = Clock::now() + budget;
  for (;;) {
    // Settle first, so that pending() counts what is left to compute.
    for (Scheduler* scheduler : schedulers_) scheduler->settle();
    bool advanced = false;
    const size_t n = schedulers_.size();
    for (size_t i = 0; i < n; ++i) {
      if (advanced && Clock::now() >= deadline) break;
      Scheduler& scheduler = *schedulers_[turn_++ % n];
      if (scheduler.pending() == 0) continue;
      scheduler.advance(deadline, budget);
      advanced = true;
    }
    if (!advanced || Clock::now() >= deadline) break;
  }
  for (Scheduler* scheduler : schedulers_) scheduler->settle();
  return pending();
}

void Engine::run() {
  while (step(INT64_MAX) > 0) {
  }
}

bool Engine::fail_request(dsv_status status, const char* sentence) {
  for (Scheduler* scheduler : schedulers_) {
    if (scheduler->fail_request(status, sentence)) return true;
  }
  return false;
}

std::shared_ptr<Engine> make_engine(const dsv_engine_options& options) {
  constexpr int32_t kMostThreads = 1024;
  if (options.threads < 0 || options.threads > kMostThreads) {
    fail(DSV_ERROR_INVALID_ARGUMENT, "options->threads is {}: give 0 (one per core) to {}", options.threads,
         kMostThreads);
  }
  const auto name = [](const char* given, const char* field) {
    return given ? check_utf8(given, DSV_NUL_TERMINATED, field) : std::string_view();
  };
  const std::string_view backend = options.backend ? name(options.backend, "options->backend") : "cpu";
  const std::string target(name(options.cpu_target, "options->cpu_target"));
  if (backend == "reference") {
    return std::make_shared<Engine>(reference_ops(), options.threads, options.hooks, std::string());
  }
  if (backend == "cuda" || backend.starts_with("cuda:")) {
    const std::string device(backend.substr(std::min<size_t>(backend.size(), 5)));
    const BackendLibrary& library = cuda_library();
    library.check(device.c_str());
    return std::make_shared<Engine>(*library.ops, options.threads, options.hooks, device);
  }
  if (backend != "cpu") {
    fail(DSV_ERROR_UNSUPPORTED, "there is no backend {}: there are \"cpu\", \"cuda\" and \"reference\"",
         shown(backend));
  }
  if (!target.empty() && !lists(cpu_targets(), target)) {
    fail(DSV_ERROR_UNSUPPORTED, "options->cpu_target {} cannot run here: this machine has {}", shown(target),
         cpu_targets());
  }
  return std::make_shared<Engine>(cpu_ops(), options.threads, options.hooks, target);
}

}  // namespace dsv
