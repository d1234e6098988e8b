// All that the backend's host code asks of a GPU, so that it can run without one: runtime_cuda.cpp is the
// CUDA runtime, emulation/runtime.cpp the host's memory. Every function that can fail throws dsv::Error with
// a sentence that names the remedy; after a fault of the device (a kernel's bad access, a lost card) every
// later call throws DSV_ERROR_DEVICE_LOST. Not thread-safe, except that Runtimes are independent.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "kernels/cuda/views.h"

namespace dsv::cuda {

using Graph = void*;  // recorded work, which can be put on the stream again and again

// Points in the stream's work that the host looks for.
enum Mark : int { kStaging0, kStaging1, kInputs, kStepBegin, kStepEnd, kMarks };

inline constexpr int64_t kAlignment = 256;
inline constexpr int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

class Runtime {
 public:
  virtual ~Runtime() = default;  // everything is freed before

  virtual const char* description() const = 0;  // "NVIDIA H100 (sm_90, 78 GiB)"
  virtual int64_t shared_limit() const = 0;     // shared memory that a block may take
  virtual Stream stream() const = 0;            // the one stream that all work is put on, in order

  // Takes device memory at once, for later allocations: many small ones would each be rounded up, by as much
  // as 2 MB.
  virtual void reserve(int64_t bytes) = 0;
  virtual void* allocate(int64_t bytes, const char* what) = 0;         // device memory, kAlignment aligned
  virtual void* allocate_pinned(int64_t bytes, const char* what) = 0;  // host memory that copies can read
  virtual void free(void* device) noexcept = 0;
  virtual void free_pinned(void* host) noexcept = 0;

  // Enqueued; `host` is pinned and stays untouched until the copy is done.
  virtual void copy_in(void* device, const void* host, int64_t bytes) = 0;
  virtual void copy_out(void* host, const void* device, int64_t bytes) = 0;

  // mark() notes how far the enqueued work is; reached() says whether the stream has come there, wait()
  // returns when it has. Each is reached as long as it has not been set.
  virtual void mark(Mark which) = 0;
  virtual bool reached(Mark which) = 0;
  virtual void wait(Mark which) = 0;
  virtual void rest(double seconds) = 0;  // lets the thread sleep, for about as long
  virtual double seconds_of_step() = 0;   // from kStepBegin to kStepEnd, both reached
  virtual void synchronize() = 0;

  // Readings of the device's clock in the stream's work, for benches.
  virtual void stamp(int i) = 0;
  virtual double between(int from, int to) = 0;  // seconds; both reached

  // What is enqueued between begin_recording and end_recording is not run but becomes a graph. Nothing may be
  // marked, waited for or allocated between them; host code may take its time and change threads.
  virtual void begin_recording() = 0;
  virtual Graph end_recording() = 0;
  virtual void drop_recording() noexcept = 0;
  // Only while recording, for work beside stream(): what side() gets after follow() follows what stream() had
  // at the last point(); what stream() gets after join() follows what side() had. Who follows is joined
  // before the recording ends.
  virtual Stream side() const = 0;
  virtual void point() = 0;
  virtual void follow() = 0;
  virtual void join() = 0;
  // .. and after follow(): stream() and side() take each other's place, until the recording ends.
  virtual void exchange() = 0;
  virtual void run(Graph) = 0;
  virtual void free_graph(Graph) noexcept = 0;  // after the stream has come past it

  // Brings a kernel's code to the device, which would come with its first launch else.
  virtual void load(const void* kernel) = 0;
};

// `device`: a number as text; null or "" is the first. check_device throws what open_runtime would.
// `priority`: the stream's, lower goes first; what the GPU does not have becomes the nearest it has.
std::unique_ptr<Runtime> open_runtime(const char* device, int32_t priority);
void check_device(const char* device);

}  // namespace dsv::cuda
