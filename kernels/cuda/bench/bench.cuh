// What the GPU benches share: memory, and times with events and a cold L2 cache.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels/cuda/bench/record.h"
#include "kernels/cuda/decode.cuh"

namespace dsv::cuda::bench {

inline void check_cuda(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::printf("CUDA error: %s\n", cudaGetErrorString(error));
  std::exit(2);
}

struct Memory {
  void* at = nullptr;
  explicit Memory(int64_t bytes) { check_cuda(cudaMalloc(&at, static_cast<size_t>(bytes))); }
  ~Memory() { cudaFree(at); }
  Memory(const Memory&) = delete;
  template <class T>
  T* as() const {
    return static_cast<T*>(at);
  }
  template <class T>
  std::vector<T> to_host(int64_t n) const {
    std::vector<T> out(static_cast<size_t>(n));
    check_cuda(cudaMemcpy(out.data(), at, out.size() * sizeof(T), cudaMemcpyDeviceToHost));
    check_cuda(cudaGetLastError());
    return out;
  }
  template <class T>
  void from_host(const std::vector<T>& values) {
    check_cuda(cudaMemcpy(at, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
};

class Timer {
 public:
  Timer() : flush_(kFlush), other_(kFlush) {
    cudaDeviceProp p;
    int device = 0;
    check_cuda(cudaGetDevice(&device));
    check_cuda(cudaGetDeviceProperties(&p, device));
    check_cuda(cudaEventCreate(&begin_));
    check_cuda(cudaEventCreate(&end_));
    const double us = median_us([&] {
      check_cuda(cudaMemcpyAsync(flush_.at, other_.at, kFlush, cudaMemcpyDeviceToDevice, nullptr));
    });
    copy_ = 2.0 * kFlush / us * 1e6;
    std::printf("%s, sm_%d%d, %d processors, copy %.3f TB/s\n", p.name, p.major, p.minor,
                p.multiProcessorCount, copy_ * 1e-12);
    std::printf("an empty measurement takes %.2f us\n", median_us([] {}));
  }
  ~Timer() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  double copy() const { return copy_; }  // bytes read and written a second

  // The flush keeps the GPU busy while the launches are enqueued, so their cost on the host is hidden.
  template <class F>
  double median_us(F&& run) const {
    std::vector<double> times;
    for (int i = 0; i < 23; ++i) {
      check_cuda(cudaMemsetAsync(flush_.at, i, kFlush, nullptr));
      check_cuda(cudaEventRecord(begin_, nullptr));
      run();
      check_cuda(cudaEventRecord(end_, nullptr));
      check_cuda(cudaEventSynchronize(end_));
      check_cuda(cudaGetLastError());
      float ms = 0;
      check_cuda(cudaEventElapsedTime(&ms, begin_, end_));
      if (i >= 3) times.push_back(1e3 * ms);
      if (ms > 20 && i >= 6) break;
    }
    std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
    return times[times.size() / 2];
  }

 private:
  static constexpr size_t kFlush = size_t{512} << 20;
  Memory flush_, other_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  double copy_ = 0;
};

inline void header() {
  std::printf("%-52s %6s %10s %9s %7s %9s\n", "what", "rows", "us", "GB/s", "of copy", "TFLOP/s");
}
// bytes and flop: 0 if it says nothing.
inline void row(const Timer& timer, const char* what, int64_t rows, double us, double bytes, double flop) {
  std::printf("%-52s %6lld %10.2f", what, static_cast<long long>(rows), us);
  bytes > 0 ? std::printf(" %9.0f %6.1f%%", bytes / us * 1e-3, 100 * bytes / us * 1e6 / timer.copy())
            : std::printf(" %9s %7s", "", "");
  flop > 0 ? std::printf(" %9.1f\n", flop / us * 1e-6) : std::printf("\n");
  std::fflush(stdout);
  record(what, rows, us, 0, bytes, flop);
}

}  // namespace dsv::cuda::bench
