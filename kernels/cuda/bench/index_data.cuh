// What the checks and times of the indexer's kernels share: pages, queries, rows at the end of contexts.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/bench/index_bench.h"
#include "kernels/cuda/cache.h"
#include "kernels/cuda/formats.h"
#include "kernels/cuda/index.h"

namespace dsv::cuda {
namespace {

constexpr int kDim = 128;
constexpr int64_t kPageBytes = kPageTokens * (kDim + 4);

using bench::check_cuda;

template <class T>
class Array {
 public:
  explicit Array(int64_t n) : n_(n), memory_(std::max<int64_t>(n, 1) * static_cast<int64_t>(sizeof(T))) {}
  explicit Array(const std::vector<T>& values) : Array(static_cast<int64_t>(values.size())) { set(values); }
  T* get() const { return memory_.as<T>(); }
  int64_t size() const { return n_; }
  void set(const std::vector<T>& values) { memory_.from_host(values); }
  void fill(int byte) const { check_cuda(cudaMemset(get(), byte, static_cast<size_t>(n_) * sizeof(T))); }
  std::vector<T> host() const { return memory_.to_host<T>(n_); }

 private:
  int64_t n_;
  bench::Memory memory_;
};

__host__ __device__ inline uint32_t hash(uint64_t i) {
  i = (i + 0x9E3779B97F4A7C15u) * 0xBF58476D1CE4E5B9u;
  i ^= i >> 31;
  i *= 0x94D049BB133111EBu;
  return static_cast<uint32_t>(i >> 32);
}
// About normal, variance 1.
__host__ __device__ inline float bell(uint64_t i) {
  float sum = 0;
  for (int j = 0; j < 4; ++j) sum += static_cast<float>(hash(4 * i + j) >> 8) * 0x1p-24f - 0.5f;
  return sum * 1.7320508f;
}
__global__ void fill_bell(float* out, int64_t n, uint64_t seed, float scale) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n;
       i += int64_t{gridDim.x} * blockDim.x) {
    out[i] = scale * bell(seed + static_cast<uint64_t>(i));
  }
}
// Every finite code if `all`, else e4m3 of normal values times 64: as quantised keys are.
__device__ unsigned char code(uint64_t i, bool all) {
  if (!all) return static_cast<unsigned char>(float_to_e4m3(64 * bell(i)));
  const uint32_t h = hash(i) & 0xFF;
  return static_cast<unsigned char>((h & 0x7F) == 0x7F ? h & 0xFE : h);
}
__global__ void fill_pages(unsigned char* pages, int64_t n, bool all) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n * kPageBytes;
       i += int64_t{gridDim.x} * blockDim.x) {
    const int64_t page = i / kPageBytes, at = i % kPageBytes;
    if (at < kPageTokens * kDim) {
      pages[i] = code(static_cast<uint64_t>(i), all);
    } else if (at % 4 == 0) {
      *reinterpret_cast<float*>(pages + i) = 0.01f + static_cast<float>(hash(page * 64 + at) >> 8) * 0x1p-26f;
    }
  }
}
__global__ void fill_queries(unsigned char* q, int64_t rows, int32_t heads, int64_t stride, bool all) {
  const int64_t n = rows * heads * kDim;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n;
       i += int64_t{gridDim.x} * blockDim.x) {
    const int64_t row = i / (heads * kDim), at = i % (heads * kDim);
    q[row * stride + at] = code(static_cast<uint64_t>(i) + (uint64_t{7} << 40), all);
    if (at < heads) {
      *reinterpret_cast<float*>(q + row * stride + heads * kDim + 4 * at) =
          0.01f + 0.001f * static_cast<float>(at % 7);
    }
  }
}

// Rows at the end of contexts: `per_sequence` consecutive rows each, on scattered pages. The last row of a
// sequence sees `context` positions, or a few less in later sequences if `vary`.
struct Problem {
  int32_t rows, heads, context, page_stride;
  int64_t q_stride, pages_n;
  Array<unsigned char> pages, q;
  Array<float> weight, scores;
  Array<int32_t> position, sequence, table;
  std::vector<int32_t> host_position;
  int64_t score_stride;
  double visible = 0;  // of all rows together

  Problem(int32_t rows_, int32_t heads_, int32_t context_, int32_t per_sequence, bool vary, bool all)
      : rows(rows_),
        heads(heads_),
        context(context_),
        page_stride((context_ + kPageTokens - 1) / kPageTokens),
        q_stride(int64_t{heads_} * (kDim + 4)),
        pages_n(int64_t{(rows_ + per_sequence - 1) / per_sequence} * page_stride),
        pages(pages_n * kPageBytes),
        q(rows_ * q_stride),
        weight(int64_t{rows_} * heads_),
        scores(int64_t{rows_} * page_stride * kPageTokens),
        position(rows_),
        sequence(rows_),
        table(pages_n),
        score_stride(int64_t{page_stride} * kPageTokens) {
    fill_pages<<<4096, 256>>>(pages.get(), pages_n, all);
    fill_queries<<<1024, 256>>>(q.get(), rows, heads, q_stride, all);
    fill_bell<<<256, 256>>>(weight.get(), weight.size(), uint64_t{3} << 40, 0.01f);
    std::vector<int32_t> host_sequence, host_table(static_cast<size_t>(pages_n));
    for (int32_t r = 0; r < rows; ++r) {
      const int32_t s = r / per_sequence, last = std::min(rows, (s + 1) * per_sequence) - 1;
      const int32_t end = vary ? std::max(context - 37 * s, 1) : context;
      host_sequence.push_back(s);
      host_position.push_back(std::max(end - 1 - (last - r), 0));
      visible += host_position.back() + 1;
    }
    std::iota(host_table.begin(), host_table.end(), 0);
    std::shuffle(host_table.begin(), host_table.end(), std::mt19937(1));
    position.set(host_position);
    sequence.set(host_sequence);
    table.set(host_table);
    check_cuda(cudaDeviceSynchronize());
  }
  IndexScoresArgs args(IndexPath path, int32_t together, int32_t topk = 0) const {
    IndexScoresArgs a{};
    a.rows = rows;
    a.heads = heads;
    a.topk = topk;
    a.longest = context;
    a.step.position = position.get();
    a.step.sequence = sequence.get();
    a.step.page_table = table.get();
    a.step.page_stride = page_stride;
    a.cache.index = pages.get();
    a.cache.index_page_bytes = kPageBytes;
    a.cache.index_dim = kDim;
    a.cache.official = true;
    a.index_q = q.get();
    a.q_stride = q_stride;
    a.weight = weight.get();
    a.scores = scores.get();
    a.score_stride = score_stride;
    a.path = path;
    a.rows_together = together;
    return a;
  }
  // Arguments for one row alone.
  IndexScoresArgs alone(IndexScoresArgs a, int32_t r) const {
    a.rows = 1;
    a.step.position += r;
    a.step.sequence += r;
    a.index_q += r * q_stride;
    a.weight += int64_t{r} * heads;
    a.scores += r * score_stride;
    return a;
  }
};

inline const char* name_of(IndexPath path) {
  constexpr const char* kNames[] = {"plain", "portable", "f32 sums", "fp8 sums"};
  return kNames[static_cast<int>(path)];
}

}  // namespace
}  // namespace dsv::cuda
