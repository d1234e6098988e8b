// What attend_bench.cu checks and times: caches, queries and selections of the released model in the GPU's
// memory.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/attend.h"
#include "kernels/cuda/decode.cuh"

namespace dsv::cuda {
namespace {

constexpr int kRank = 512, kRope = 64, kNope = 128, kValue = 128, kHeadDim = kNope + kRope,
              kGroup = kNope + kValue;
constexpr float kSoftmaxScale = 0.1352337788608801f;  // of V3.2, with its mscale

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::printf("FAILED: %s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}
void finish(const char* what) {
  check(cudaGetLastError(), what);
  check(cudaDeviceSynchronize(), what);
}

template <class T>
class Memory {
 public:
  explicit Memory(int64_t n) : n_(n) {
    check(cudaMalloc(reinterpret_cast<void**>(&data_),
                     static_cast<size_t>(std::max<int64_t>(n, 1)) * sizeof(T)),
          "cudaMalloc");
    check(cudaMemset(data_, 0xFF, static_cast<size_t>(n) * sizeof(T)), "cudaMemset");  // NaN
  }
  explicit Memory(const std::vector<T>& host) : Memory(static_cast<int64_t>(host.size())) {
    check(cudaMemcpy(data_, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice), "upload");
  }
  ~Memory() { cudaFree(data_); }
  Memory(const Memory&) = delete;
  T* get() const { return data_; }
  int64_t size() const { return n_; }
  std::vector<T> host() const {
    std::vector<T> out(static_cast<size_t>(n_));
    check(cudaMemcpy(out.data(), data_, out.size() * sizeof(T), cudaMemcpyDeviceToHost), "download");
    return out;
  }

 private:
  T* data_ = nullptr;
  int64_t n_;
};

int failures = 0;
void report(bool good, const std::string& what) {
  if (!good) ++failures;
  if (!good) std::printf("FAILED: %s\n", what.c_str());
}

class Timer {
 public:
  Timer() : flush_(256 << 20) {
    for (cudaEvent_t& e : events_) check(cudaEventCreate(&e), "cudaEventCreate");
  }
  // Median microseconds.
  double time(const std::function<void()>& work, int runs = 25) {
    std::vector<float> times;
    for (int i = -2; i < runs; ++i) {
      check(cudaMemsetAsync(flush_.get(), i, static_cast<size_t>(flush_.size())), "flush");
      check(cudaEventRecord(events_[0]), "event");
      work();
      check(cudaEventRecord(events_[1]), "event");
      finish("a timed launch");
      float ms = 0;
      check(cudaEventElapsedTime(&ms, events_[0], events_[1]), "event");
      if (i >= 0) times.push_back(1000 * ms);
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }

 private:
  Memory<unsigned char> flush_;
  cudaEvent_t events_[2];
};

// ---------------------------------------------------------------------------------- inputs

__device__ uint32_t hash(uint64_t x) {
  x = (x ^ x >> 31) * 0x9E3779B97F4A7C15ull;
  x = (x ^ x >> 29) * 0xBF58476D1CE4E5B9ull;
  return static_cast<uint32_t>(x >> 32);
}
// About normal, from -3.5 to 3.5.
__device__ float noise(uint64_t seed) {
  float sum = 0;
  for (int i = 0; i < 4; ++i) sum += static_cast<float>(hash(seed * 4 + i)) * 0x1p-32f - 0.5f;
  return sum * 1.75f;
}

constexpr float kLargestScale = 0x1p-5f;
__global__ void fill_cache(unsigned char* latent, int64_t tokens) {
  const int64_t t = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (t >= tokens) return;
  unsigned char* row = latent + t * kAttendMmaRowBytes;
  for (int g = 0; g < 4; ++g) {
    const float scale = kLargestScale / static_cast<float>(32u >> hash(t * 4 + g) % 6);
    for (int i = 0; i < 128; ++i)
      row[g * 128 + i] = static_cast<unsigned char>(float_to_e4m3(noise(t * 576 + g * 128 + i) * 100));
    *reinterpret_cast<float*>(row + kRank + 4 * g) = scale;
  }
  auto* rope = reinterpret_cast<uint16_t*>(row + kRank + 16);
  for (int i = 0; i < kRope; ++i) rope[i] = float_to_bf16(noise(t * 576 + 512 + i));
}
__global__ void fill_floats(float* x, int64_t n, float size, uint64_t seed) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < n) x[i] = round_bf16(noise(seed + i) * size);
}
__global__ void fill_bf16(uint16_t* x, int64_t n, float size, uint64_t seed) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  // Heads differ by powers of two.
  if (i < n) x[i] = float_to_bf16(noise(seed + i) * size * float_of((125u + hash(i / kRank) % 4) << 23));
}
__global__ void fill_bytes(unsigned char* x, int64_t n, uint64_t seed) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < n) x[i] = static_cast<unsigned char>(float_to_e4m3(noise(seed + i) * 100));
}
template <class... Args, class... Given>
void fill(void (*kernel)(Args...), int64_t n, Given... args) {
  kernel<<<static_cast<unsigned>((n + 255) / 256), 256>>>(args...);
  finish("fill");
}

// Shared memory that a block can have on this GPU.
int64_t own_shared() {
  int bytes = 0;
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0), "shared memory");
  return bytes;
}

// Rows that select `n` of their sequence's `context` positions, on scattered pages.
struct Batch {
  int32_t rows, heads, topk, context;
  Memory<int32_t> position, sequence, pages, selected, n_selected;
  Memory<float> q, mixed, partial;
  Memory<uint16_t> q_abs;
  const unsigned char* latent;
  int32_t page_stride;

  // n: of row r, n[r % size].
  Batch(const Memory<unsigned char>& cache, int32_t rows_, int32_t heads_, int32_t topk_, int32_t context_,
        int32_t sequences, const std::vector<int32_t>& n, bool split)
      : rows(rows_),
        heads(heads_),
        topk(topk_),
        context(context_),
        position(std::vector<int32_t>(static_cast<size_t>(rows), context - 1)),
        sequence(numbers(rows, [&](int32_t r) { return r % sequences; })),
        pages(scattered(cache.size() / kAttendMmaRowBytes / kPageTokens, sequences, (context + 63) / 64)),
        selected(select(rows, topk, context, n)),
        n_selected(numbers(rows, [&](int32_t r) { return n[static_cast<size_t>(r) % n.size()]; })),
        q(int64_t{rows} * heads * kHeadDim),
        mixed(int64_t{rows} * heads * kRank),
        partial(split ? int64_t{rows} * kMostSplits * heads * (kRank + 2) : 1),
        q_abs(int64_t{rows} * heads * kRank),
        latent(cache.get()),
        page_stride((context + 63) / 64) {
    fill(fill_floats, q.size(), q.get(), q.size(), 1.0f, uint64_t{1} << 40);
    fill(fill_bf16, q_abs.size(), q_abs.get(), q_abs.size(), 1.0f, uint64_t{1} << 41);
  }

  template <class F>
  static std::vector<int32_t> numbers(int32_t n, F&& f) {
    std::vector<int32_t> out(static_cast<size_t>(n));
    for (int32_t i = 0; i < n; ++i) out[static_cast<size_t>(i)] = f(i);
    return out;
  }
  static std::vector<int32_t> scattered(int64_t pool, int32_t sequences, int32_t each) {
    std::vector<int32_t> order(static_cast<size_t>(pool));
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
    std::mt19937 random(7);
    std::shuffle(order.begin(), order.end(), random);
    if (pool < int64_t{sequences} * each) check(cudaErrorInvalidValue, "the pool is too small");
    order.resize(static_cast<size_t>(sequences) * static_cast<size_t>(each));
    return order;
  }
  static std::vector<int32_t> select(int32_t rows, int32_t topk, int32_t context,
                                     const std::vector<int32_t>& counts) {
    std::vector<int32_t> out(static_cast<size_t>(rows) * static_cast<size_t>(topk),
                             -1);  // -1: read by nobody
    std::mt19937 random(5);
    for (int32_t r = 0; r < rows; ++r) {
      const int32_t n = counts[static_cast<size_t>(r) % counts.size()];
      for (int32_t i = 0; i < n; ++i) {
        const int64_t low = int64_t{i} * context / n, high = int64_t{i + 1} * context / n;
        out[static_cast<size_t>(r) * static_cast<size_t>(topk) + static_cast<size_t>(i)] =
            static_cast<int32_t>(low + static_cast<int64_t>(random()) % (high - low));
      }
    }
    return out;
  }

  AttendRowsArgs args(int32_t splits, bool all = false, int64_t shared_limit = own_shared()) const {
    StepView step;
    step.position = position.get();
    step.sequence = sequence.get();
    step.page_table = pages.get();
    step.page_stride = page_stride;
    CacheView view;
    view.latent = const_cast<unsigned char*>(latent);
    view.latent_row_bytes = kAttendMmaRowBytes;
    view.rank = kRank;
    view.rope = kRope;
    view.official = true;
    return {rows,
            heads,
            step,
            view,
            all ? nullptr : selected.get(),
            all ? nullptr : n_selected.get(),
            topk,
            splits,
            q.get(),
            kHeadDim,
            q_abs.get(),
            kSoftmaxScale,
            partial.get(),
            true,
            mixed.get(),
            shared_limit};
  }
};

// The same queries as AttendRowsArgs has them in bf16.
Memory<float> bf16_queries(const Memory<float>& q) {
  const std::vector<float> values = q.host();
  std::vector<float> out(values.size(), NAN);
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t code = float_to_bf16(values[i]);
    std::memcpy(reinterpret_cast<unsigned char*>(&out[i / kHeadDim * kHeadDim]) + 2 * (i % kHeadDim), &code,
                2);
  }
  return Memory<float>(out);
}

// Random kv_b of a layer, FP8 or bf16.
struct KvB {
  Memory<unsigned char> data;
  Memory<float> scale;
  WeightView view;

  KvB(int32_t heads, bool fp8)
      : data(int64_t{heads} * kGroup * kRank * (fp8 ? 1 : 2)), scale(int64_t{heads} * kGroup / 128 * 4) {
    const int64_t n = int64_t{heads} * kGroup * kRank;
    if (fp8) {
      fill(fill_bytes, n, data.get(), n, uint64_t{3} << 40);
    } else {
      fill(fill_bf16, n, reinterpret_cast<uint16_t*>(data.get()), n, 0.05f, uint64_t{3} << 40);
    }
    fill(fill_floats, scale.size(), scale.get(), scale.size(), 3e-4f, uint64_t{4} << 40);
    view = {data.get(),
            scale.get(),
            int64_t{heads} * kGroup,
            kRank,
            kRank * (fp8 ? 1 : 2),
            4,
            fp8 ? Dtype::f8_e4m3 : Dtype::bf16};
  }
};

}  // namespace
}  // namespace dsv::cuda
