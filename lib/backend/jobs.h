// Parallel work: the one way code in libdsv uses more than one thread while it steps.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace dsv {

// Calls job(argument, i) once for every i in [0, count), in any order, on any threads, perhaps all on the
// caller's; and returns when all have returned. Jobs of one call must not wait for each other, and must not
// throw.
class Jobs {
 public:
  using Job = void (*)(void* argument, int32_t index);
  virtual ~Jobs() = default;
  virtual void run(Job job, void* argument, int32_t count) = 0;
  virtual int32_t width()
      const = 0;  // how many run at once at best; backends cut work into about this many jobs

  template <class F>
  void for_each(int32_t count, F&& body) {
    if (count == 1) return body(0);
    run([](void* f, int32_t i) { (*static_cast<std::remove_reference_t<F>*>(f))(i); }, &body, count);
  }
};

// `threads` - 1 workers that spin briefly between jobs of a step and sleep when idle; 1 means no workers.
std::unique_ptr<Jobs> make_thread_pool(int32_t threads);

}  // namespace dsv
