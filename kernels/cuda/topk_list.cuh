// What the kernels of topk_hopper.cu are made of: a block's list of the entries of its part of a row that may
// be among the k largest, and the k-th largest of numbers, narrowed by counting them in bins.
#pragma once

#include "kernels/cuda/topk_keys.cuh"

namespace dsv::cuda {
namespace {

constexpr int kBinBits = 11, kBins = 1 << kBinBits, kFew = kWarp;
constexpr int kList = 8192, kAll = 16384;  // entries: of a block, of a cluster
constexpr int kMostK = 2048, kMostBlocks = 8;
constexpr int kMostWords = 12288;      // of a row's bitmap
constexpr int kHeld = 20, kAhead = 8;  // scores of a thread
constexpr int kThreads = 1024, kManyThreads = 512;
static_assert(kMostK + kAhead * kManyThreads <= kList && kMostK + kAhead / 2 * kThreads <= kList);
static_assert(kMostK * kMostBlocks <= kAll);
static_assert(kMostWords <= 2 * kList, "offsets take the list's room");

struct alignas(8) Small {
  uint64_t few[kFew], least;
  uint32_t low[kWarp], high[kWarp];  // of the warps
  int total[kWarp];
  int bin, wanted, count;  // what narrowing found
  int few_n, listed, base;
  uint32_t lowest[kMostBlocks], highest[kMostBlocks], lists[kMostBlocks];  // of the cluster's blocks
};
struct alignas(8) Listed {
  float score;
  uint32_t position;  // inverted
};
struct Shared {
  Small* small;
  int* bins;         // [kBins], zero but while they are counted in
  Listed* list;      // [kList]; later offsets: where the positions of a bitmap's word go
  uint32_t* all;     // [blocks][kAll / blocks] keys of a cluster's lists
  uint32_t* bitmap;  // [words]

  __device__ __forceinline__ uint32_t key(int i) const { return key_of(list[i].score); }
  __device__ __forceinline__ uint64_t entry(int i) const {
    const Listed it = list[i];
    return uint64_t{key_of(it.score)} << 32 | it.position;
  }
};
constexpr int64_t shared_bytes(int64_t words, bool cluster) {
  return static_cast<int64_t>(sizeof(Small)) + 4 * (kBins + 2 * kList + (cluster ? kAll : 0) + words);
}
static_assert(shared_bytes(kMostWords / 2, true) <= 227 * 1024);

#if defined(DSV_CUDA_EMULATION) || !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define DSV_TOP_K_CODE 1

// Sum of `value` over the threads before this one. Between its barriers `total` is written.
template <int kBlock>
__device__ __forceinline__ int sum_before(int value, Small& small) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  int all = value;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const int lower = __shfl_up_sync(kAllLanes, all, step);
    if (lane >= step) all += lower;
  }
  if (lane == kWarp - 1) small.total[warp] = all;
  __syncthreads();
  return __reduce_add_sync(kAllLanes, lane < warp ? small.total[lane] : 0) + all - value;
}

// Of the block's threads' values.
template <int kBlock>
__device__ __forceinline__ void range_of(uint32_t& low, uint32_t& high, Small& small) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  low = __reduce_min_sync(kAllLanes, low);
  high = __reduce_max_sync(kAllLanes, high);
  if (lane == 0) small.low[warp] = low, small.high[warp] = high;
  __syncthreads();
  low = __reduce_min_sync(kAllLanes, lane < kBlock / kWarp ? small.low[lane] : ~0u);
  high = __reduce_max_sync(kAllLanes, lane < kBlock / kWarp ? small.high[lane] : 0);
}

__device__ __forceinline__ int bits_of(uint64_t value) { return 64 - __clzll(static_cast<long long>(value)); }

// Of these numbers, those above `least` and `wanted` of the `count` that equal it are the k largest. Or, if
// the two are the same, those that reach it.
template <class T>
struct Threshold {
  T least;
  int wanted, count;
};
// for_each(body) calls body(number) for this thread's of the numbers, which lie in low .. high. Begins behind
// a barrier and ends with one.
template <int kBlock, class T, class Each>
__device__ __forceinline__ Threshold<T> kth_largest(Each&& for_each, T low, T high, int k, const Shared& s) {
  Small& small = *s.small;
  const int tid = threadIdx.x, lane = tid % kWarp;
  T first = low, last = high - low;  // counted: first + 0 .. last
  int shift = bits_of(last) > kBinBits ? bits_of(last) - kBinBits : 0;
  if (tid == 0) small.few_n = 0;
  for (;;) {
    for_each([&](T number) {
      const T offset = number - first;
      if (offset <= last) atomicAdd(&s.bins[offset >> shift], 1);
    });
    __syncthreads();
    constexpr int kEach = kBins / kBlock;  // a thread's bins, the first threads having the largest
    int* mine = s.bins + kBins - (tid + 1) * kEach;
    int count[kEach], sum = 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      count[i] = mine[i];
      sum += count[i];
      mine[i] = 0;
    }
    int before = sum_before<kBlock>(sum, small);
    if (before < k && k <= before + sum) {  // one thread
#pragma unroll
      for (int i = kEach - 1; i >= 0; --i) {
        if (before < k && k <= before + count[i]) {
          small.bin = kBins - (tid + 1) * kEach + i;
          small.wanted = k - before;
          small.count = count[i];
        }
        before += count[i];
      }
    }
    __syncthreads();
    first += static_cast<T>(small.bin) << shift;
    k = small.wanted;
    const int n = small.count;
    if (n == k || shift == 0) return {first, k, n};
    last = (T{1} << shift) - 1;
    if (n <= kFew) break;
    shift = shift > kBinBits ? shift - kBinBits : 0;
  }
  // A few: a warp compares them with each other.
  for_each([&](T number) {
    if (number - first <= last) small.few[atomicAdd(&small.few_n, 1)] = number;
  });
  __syncthreads();
  if (tid < kWarp) {
    const int n = small.few_n;
    const T mine = lane < n ? static_cast<T>(small.few[lane]) : 0;
    int above = 0, equal = 0;
    for (int i = 0; i < n; ++i) {
      const T other = static_cast<T>(small.few[i]);
      above += other > mine;
      equal += other == mine;
    }
    const bool fits = lane < n && above < k && k <= above + equal;
    if (lane == __ffs(static_cast<int>(__ballot_sync(kAllLanes, fits))) - 1) {  // one of equal ones
      small.least = mine;
      small.wanted = k - above;
      small.count = equal;
    }
  }
  __syncthreads();
  return {static_cast<T>(small.least), small.wanted, small.count};
}

// The least of the k largest of the block's n listed entries, which all differ. Begins and ends as that does.
template <int kBlock>
__device__ __forceinline__ uint64_t kth_listed(int n, int k, const Shared& s) {
  uint32_t low = ~0u, high = 0;
  for (int i = threadIdx.x; i < n; i += kBlock) {
    const uint32_t key = s.key(i);
    low = key < low ? key : low;
    high = key > high ? key : high;
  }
  range_of<kBlock>(low, high, *s.small);
  const auto for_each = [&](auto&& body) {
    for (int i = threadIdx.x; i < n; i += kBlock) body(s.entry(i));
  };
  return kth_largest<kBlock, uint64_t>(for_each, uint64_t{low} << 32, uint64_t{high} << 32 | ~0u, k, s).least;
}

// Lists the scores that reach `from`, and only counts them where the list is full. Whole warps; from score
// `used` on there are none.
template <int kCount, class Position>
__device__ __forceinline__ void append(const float (&scores)[kCount], float from, int used,
                                       Position&& position, const Shared& s) {
  const int lane = threadIdx.x % kWarp;
  int mine = 0;
#pragma unroll
  for (int j = 0; j < kCount; ++j) mine += scores[j] >= from;
  if (__ballot_sync(kAllLanes, mine != 0) == 0) return;
  int all = mine;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const int lower = __shfl_up_sync(kAllLanes, all, step);
    if (lane >= step) all += lower;
  }
  int at = lane == kWarp - 1 ? atomicAdd(&s.small->listed, all) : 0;
  at = __shfl_sync(kAllLanes, at, kWarp - 1);
  if (at + __shfl_sync(kAllLanes, all, kWarp - 1) > kList) return;
  at += all - mine;
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    if (j % 4 == 0 && j >= used) break;
    if (scores[j] >= from) s.list[at++] = {scores[j], ~static_cast<uint32_t>(position(j))};
  }
}

// Of the n listed entries those stay that reach `threshold`. Ends before a barrier.
template <int kBlock>
__device__ __forceinline__ void keep(uint64_t threshold, int n, const Shared& s) {
  constexpr int kEach = 4;
  const int lane = threadIdx.x % kWarp;
  if (threadIdx.x == 0) s.small->listed = 0;
  for (int begin = 0; begin < n; begin += kEach * kBlock) {
    Listed it[kEach];
    bool stays[kEach];
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const int i = begin + j * kBlock + static_cast<int>(threadIdx.x);
      stays[j] = i < n && s.entry(i) >= threshold;
      if (stays[j]) it[j] = s.list[i];
    }
    __syncthreads();  // none is written over that was not read
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const unsigned stay = __ballot_sync(kAllLanes, stays[j]);
      if (stay == 0) continue;
      int at = __shfl_sync(kAllLanes, lane == 0 ? atomicAdd(&s.small->listed, __popc(stay)) : 0, 0);
      at += __popc(stay & ((1u << lane) - 1));
      if (stays[j]) s.list[at] = it[j];
    }
  }
}

struct Slice {
  int32_t first, end;
};

// Lists what may be among the k largest of a slice, at most `most` entries of which k at least are there if
// the slice has them. Begins behind a barrier, ends with one.
template <int kBlock>
__device__ __forceinline__ void list_slice(const float* scores, Slice slice, int k, int most,
                                           const Shared& s) {
  constexpr int kEach = kBlock == kThreads ? kAhead / 2 : kAhead, kChunk = kEach * kBlock;
  float from = -INFINITY, next[kEach];
  const auto load = [&](int32_t begin) {
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const int32_t i = begin + j * kBlock + static_cast<int32_t>(threadIdx.x);
      next[j] = i < slice.end ? scores[i] : NAN;  // which reaches nothing
    }
  };
  load(slice.first);
  for (int32_t begin = slice.first; begin < slice.end; begin += kChunk) {
    float now[kEach];
#pragma unroll
    for (int j = 0; j < kEach; ++j) now[j] = next[j];
    load(begin + kChunk);
    append(
        now, from, kEach, [&](int j) { return begin + j * kBlock + static_cast<int32_t>(threadIdx.x); }, s);
    __syncthreads();
    const int n = s.small->listed;
    const bool last = begin + kChunk >= slice.end;
    __syncthreads();  // known to all before more is listed
    if (last ? n > most : n > kList - kChunk) {
      const uint64_t threshold = kth_listed<kBlock>(n, k, s);
      keep<kBlock>(threshold, n, s);
      // What follows has a higher position, so it must be larger.
      from = score_of(static_cast<uint32_t>(threshold >> 32) + 1);
      __syncthreads();
    }
  }
}

#endif

}  // namespace
}  // namespace dsv::cuda
