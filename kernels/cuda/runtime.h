// All that the backend's host code asks of a GPU, so that it can run without one: runtime_cuda.cpp is the
// CUDA runtime, emulation/runtime.cpp the host's memory. Every function that can fail throws dsv::Error with
// a sentence that names the remedy; after a fault of the device (a kernel's bad access, a lost card) every
// later call throws DSV_ERROR_DEVICE_LOST. Not thread-safe, except that Runtimes are independent.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "kernels/cuda/kernels.h"

namespace dsv::cuda {

class Runtime {
 public:
  virtual ~Runtime() = default;  // everything is freed before

  virtual const char* description() const = 0;  // "NVIDIA H100 (sm_90, 78 GiB)"
  virtual Stream stream() const = 0;            // the one stream that all work is put on, in order

  virtual void* allocate(int64_t bytes, const char* what) = 0;         // device memory, 256-byte aligned
  virtual void* allocate_pinned(int64_t bytes, const char* what) = 0;  // host memory that copies can read
  virtual void free(void* device) noexcept = 0;
  virtual void free_pinned(void* host) noexcept = 0;

  // Enqueued; `host` is pinned and stays untouched until the copy is done.
  virtual void copy_in(void* device, const void* host, int64_t bytes) = 0;
  virtual void copy_out(void* host, const void* device, int64_t bytes) = 0;

  // Two marks, 0 and 1: mark() notes how far the stream's work is; wait() returns when it has come there.
  virtual void mark(int which) = 0;
  virtual void wait(int which) = 0;
  virtual void synchronize() = 0;
};

// `device`: a number as text; null or "" is the first. check_device throws what open_runtime would.
std::unique_ptr<Runtime> open_runtime(const char* device);
void check_device(const char* device);

}  // namespace dsv::cuda
