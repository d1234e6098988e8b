// The exact top-k of long rows on Hopper, the order of topk.cu: the k largest, ties to the lowest position,
// ascending.
//
// A score and its position are one number, an entry: the score's key (topk_keys.cuh) above the
// inverted position. Entries all differ, so k of them are the largest, and no tie is left to decide. A block
// goes over its part of the row once and lists the entries that may be among them; when the list is full, its
// k largest stay, and only what is above them is listed from then on. Blocks that share a row are a cluster:
// each sends the keys of its list to all, and each finds the k-th largest for itself; ties go to the first
// blocks. What is taken goes through a bitmap of positions.
//
// Few rows: all of a block's scores are in registers before the first is looked at, and a bound keeps most of
// them out of the list: k of the threads' largest scores reach it, in every block its share. It lets through
// some 2600 of 128K scores that come in any order.
//
// Bound: a row is read once, 2048 rows of 128K in 257 us at 4.1 TB/s (measured: 546). One row is latency: a
// launch, a trip to memory (8 blocks: 2.6 us for 128K scores), 3 barriers of a cluster of 0.3 us, some 20 of
// a block of 0.04 us, and what 32 warps of a block issue between them. Measured for 128K, in cycles of
// 19,000: asking for the scores 3,700, the bound 3,000, listing 3,000, the k-th largest 3,800, writing 1,800,
// barriers of the cluster and what goes through it 3,600.
//
// A short row is in one block's registers: a launch, a trip to memory and some 15 barriers (measured: 8 us
// for 4096 scores and 11 for 8192, of which an empty launch is 4.4; 9 and 14 in topk.cu).
#include "kernels/cuda/cluster.cuh"
#include "kernels/cuda/index.h"
#include "kernels/cuda/topk_list.cuh"

namespace dsv::cuda {
namespace {

#ifdef DSV_TOP_K_CODE

// The bound that is said above, for this block, and its largest score.
__device__ __forceinline__ void bound_of(const float (&scores)[kHeld], int k, uint32_t& bound, uint32_t& high,
                                         const Shared& s) {
  float largest = -INFINITY;
#pragma unroll
  for (int j = 0; j < kHeld; ++j) largest = fmaxf(largest, scores[j]);
  const uint32_t mine = key_of(largest);
  uint32_t low = mine;
  high = mine;
  range_of<kThreads>(low, high, *s.small);
  const int blocks = static_cast<int>(gridDim.x);
  bound = kth_largest<kThreads, uint32_t>([&](auto&& body) { body(mine); }, low, high,
                                          (k + blocks - 1) / blocks, s)
              .least;
}

// Writes the listed entries that reach `threshold`, `base` of the row's being before this block's.
template <int kBlock>
__device__ __forceinline__ void write_taken(uint64_t threshold, int n, Slice slice, int32_t* selected,
                                            const Shared& s) {
  const int words = (slice.end - slice.first + 31) / 32;
  for (int i = threadIdx.x; i < n; i += kBlock) {
    if (s.entry(i) < threshold) continue;
    const uint32_t at = ~s.list[i].position - static_cast<uint32_t>(slice.first);
    atomicOr(&s.bitmap[at / 32], 1u << at % 32);
  }
  __syncthreads();
  const int each = (words + kBlock - 1) / kBlock, begin = static_cast<int>(threadIdx.x) * each;
  const int end = begin + each < words ? begin + each : words;
  int taken = 0;
  for (int w = begin; w < end; ++w) taken += __popc(s.bitmap[w]);
  auto* offset = reinterpret_cast<int32_t*>(s.list);
  int at = sum_before<kBlock>(taken, *s.small) + s.small->base;
  for (int w = begin; w < end; ++w) {
    offset[w] = at;
    at += __popc(s.bitmap[w]);
  }
  __syncthreads();
  for (int w = threadIdx.x; w < words;
       w += kBlock) {  // neighbours by different threads: some places are dense
    int32_t* out = selected + offset[w];
    for (uint32_t left = s.bitmap[w]; left != 0; left &= left - 1) {
      *out++ = slice.first + w * 32 + __ffs(static_cast<int>(left)) - 1;
    }
  }
}

// What a block of a cluster takes of its n listed entries: those that reach the result. `low` and `high`: of
// all keys, if they are known.
__device__ __forceinline__ uint64_t threshold_of_cluster(int n, int k, uint32_t low, uint32_t high,
                                                         bool known, const Shared& s) {
  Small& small = *s.small;
  const int tid = threadIdx.x, blocks = static_cast<int>(gridDim.x), rank = static_cast<int>(blockIdx.x);
  const int room = kAll / blocks;
  for (int i = tid; i < n; i += kThreads) {
    const uint32_t key = s.key(i);
    for (int b = 0; b < blocks; ++b) store_to_block(&s.all[rank * room + i], b, key);
  }
  if (tid < blocks) store_to_block(&small.lists[rank], tid, static_cast<uint32_t>(n));
  cluster_arrive();
  cluster_wait();
  // As many threads for each list.
  const int each = kThreads / blocks, of = tid / each, listed = static_cast<int>(small.lists[of]);
  const auto for_each = [&](auto&& body) {
    for (int i = tid % each; i < listed; i += each) body(s.all[of * room + i]);
  };
  if (!known) {
    low = ~0u, high = 0;
    for_each([&](uint32_t key) {
      low = key < low ? key : low;
      high = key > high ? key : high;
    });
    range_of<kThreads>(low, high, small);
  }
  const Threshold<uint32_t> t = kth_largest<kThreads, uint32_t>(for_each, low, high, k, s);

  // Ties go to the lowest position, so to the first blocks.
  const bool ties = t.wanted != t.count;
  int taken = 0, equal_before = 0;
  if (of < rank) {
    for_each([&](uint32_t key) {
      taken += ties ? key > t.least : key >= t.least;
      equal_before += ties && key == t.least;
    });
  }
  taken = __reduce_add_sync(kAllLanes, taken);
  if (tid % kWarp == 0 && taken != 0) atomicAdd(&small.base, taken);
  if (!ties) return uint64_t{t.least} << 32;
  int above = 0, equal = 0;
  for (int i = tid; i < n; i += kThreads) {
    above += s.key(i) > t.least;
    equal += s.key(i) == t.least;
  }
  const auto sum = [&](int value) {
    value = __reduce_add_sync(kAllLanes, value);
    __syncthreads();
    if (tid % kWarp == 0) small.total[tid / kWarp] = value;
    __syncthreads();
    return __reduce_add_sync(kAllLanes, small.total[tid % kWarp]);
  };
  equal_before = sum(equal_before), above = sum(above), equal = sum(equal);
  const int left = t.wanted > equal_before ? t.wanted - equal_before : 0, mine = left < equal ? left : equal;
  if (tid == 0) atomicAdd(&small.base, t.wanted < equal_before ? t.wanted : equal_before);
  if (mine == 0) return (uint64_t{t.least} + 1) << 32;
  return kth_listed<kThreads>(n, above + mine, s);
}

// gridDim.x blocks a row.
template <int kBlock, bool kHold>
__device__ __forceinline__ void select_row(const TopKArgs& a) {
  const int64_t r = blockIdx.y;
  const int tid = threadIdx.x, blocks = static_cast<int>(gridDim.x), rank = static_cast<int>(blockIdx.x);
  const int32_t visible = a.position[r] + 1;
  int32_t* selected = a.selected + r * a.topk;
  if (rank == 0 && tid == 0) a.n_selected[r] = visible < a.topk ? visible : a.topk;
  if (visible <= a.topk) {
    for (int32_t i = rank * kBlock + tid; i < visible; i += blocks * kBlock) selected[i] = i;
    return;
  }
  if (blocks > 1) cluster_begin();  // here, for those that write into this block's memory
  const float* scores = a.scores + r * a.score_stride;
  const int32_t each = ((visible + 31) / 32 + blocks - 1) / blocks * 32;
  const Slice slice = {rank * each < visible ? rank * each : visible,
                       (rank + 1) * each < visible ? (rank + 1) * each : visible};
  float held[kHold ? kHeld : 1];
  if constexpr (kHold) {
#pragma unroll
    for (int j = 0; j < kHeld; ++j) {
      const int32_t i = slice.first + j * kBlock + tid;
      held[j] = i < slice.end ? scores[i] : NAN;
    }
  }

  Shared s;
  s.small = reinterpret_cast<Small*>(shared_memory());
  s.bins = reinterpret_cast<int*>(s.small + 1);
  s.list = reinterpret_cast<Listed*>(s.bins + kBins);
  s.all = reinterpret_cast<uint32_t*>(s.list + kList);
  s.bitmap = blocks > 1 ? s.all + kAll : s.all;
  Small& small = *s.small;
  for (int i = tid; i < kBins; i += kBlock) s.bins[i] = 0;
  for (int i = tid; i < each / 32; i += kBlock) s.bitmap[i] = 0;
  if (tid == 0) small.listed = small.base = 0;

  const int most = blocks > 1 ? kAll / blocks : kList;
  uint32_t low = ~0u, high = 0;  // of the cluster's listed keys, if they are held
  bool done = false;
  if constexpr (kHold) {
    uint32_t bound, largest;
    bound_of(held, a.topk, bound, largest, s);  // its first barrier is that of the zeros, too
    cluster_wait();
    if (tid < blocks) {
      store_to_block(&small.lowest[rank], tid, bound);
      store_to_block(&small.highest[rank], tid, largest);
    }
    cluster_arrive();
    cluster_wait();
    for (int b = 0; b < blocks; ++b) {
      low = small.lowest[b] < low ? small.lowest[b] : low;
      high = small.highest[b] > high ? small.highest[b] : high;
    }
    append(
        held, score_of(low), (each + kBlock - 1) / kBlock,
        [&](int j) { return slice.first + j * kBlock + tid; }, s);
    __syncthreads();
    const int listed = small.listed;
    done = listed <= kList;
    __syncthreads();                          // known to all before it changes
    if (!done && tid == 0) small.listed = 0;  // scores that are much alike
    if (done && listed > most) {              // the largest are all in this block
      keep<kBlock>(kth_listed<kBlock>(listed, a.topk, s), listed, s);
    }
    __syncthreads();
  } else {
    __syncthreads();
  }
  if (!done) list_slice<kBlock>(scores, slice, a.topk, most, s);
  const int n = small.listed;

  uint64_t threshold;
  if constexpr (kBlock == kThreads) {
    if constexpr (!kHold) cluster_wait();
    threshold = threshold_of_cluster(n, a.topk, low, high, kHold, s);
  } else {
    threshold = kth_listed<kBlock>(n, a.topk, s);
  }
  write_taken<kBlock>(threshold, n, slice, selected, s);
}

// A row of at most kScores * kManyThreads scores by one block, in whose registers they stay. What is taken
// finds its place by counts of each warp's neighbours, in the order of positions.
template <int kScores>
__device__ __forceinline__ void select_short(const TopKArgs& a) {
  constexpr int kBlock = kManyThreads, kWarps = kBlock / kWarp;
  static_assert(kScores * kWarps <= kBlock);
  const int tid = threadIdx.x, lane = tid % kWarp, warp = tid / kWarp;
  Shared s;
  s.small = reinterpret_cast<Small*>(shared_memory());
  s.bins = reinterpret_cast<int*>(s.small + 1);
  int* const counts = s.bins + kBins;  // [kScores][kWarps]: those above, and 2^16 times those that are equal
  for (int i = tid; i < kBins; i += kBlock) s.bins[i] = 0;
  const int64_t r = blockIdx.x;
  const int32_t visible = a.position[r] + 1;
  int32_t* const selected = a.selected + r * a.topk;
  if (tid == 0) a.n_selected[r] = visible < a.topk ? visible : a.topk;
  if (visible <= a.topk) {
    for (int32_t i = tid; i < visible; i += kBlock) selected[i] = i;
    return;
  }
  const float* const scores = a.scores + r * a.score_stride;
  uint32_t key[kScores], low = ~0u, high = 0;
#pragma unroll
  for (int j = 0; j < kScores; ++j) {
    const int32_t i = j * kBlock + tid;
    key[j] = i < visible ? __float_as_uint(scores[i]) : 0;
  }
#pragma unroll
  for (int j = 0; j < kScores; ++j) {
    if (j * kBlock + tid >= visible) break;
    key[j] = key_of(__uint_as_float(key[j]));
    low = key[j] < low ? key[j] : low;
    high = key[j] > high ? key[j] : high;
  }
  range_of<kBlock>(low, high, *s.small);
  const auto for_each = [&](auto&& body) {
#pragma unroll
    for (int j = 0; j < kScores; ++j) {
      if (j * kBlock + tid < visible) body(key[j]);
    }
  };
  const Threshold<uint32_t> t = kth_largest<kBlock, uint32_t>(for_each, low, high, a.topk, s);
  unsigned above[kScores], equal[kScores];
#pragma unroll
  for (int j = 0; j < kScores; ++j) {
    const bool seen = j * kBlock + tid < visible;
    above[j] = __ballot_sync(kAllLanes, seen && key[j] > t.least);
    equal[j] = __ballot_sync(kAllLanes, seen && key[j] == t.least);
    if (lane == 0) counts[j * kWarps + warp] = __popc(above[j]) | __popc(equal[j]) << 16;
  }
  __syncthreads();
  const int before = sum_before<kBlock>(tid < kScores * kWarps ? counts[tid] : 0, *s.small);
  if (tid < kScores * kWarps) counts[tid] = before;
  __syncthreads();
  const unsigned lower = (1u << lane) - 1;
#pragma unroll
  for (int j = 0; j < kScores; ++j) {
    const int count = counts[j * kWarps + warp];
    const int equal_before = (count >> 16) + __popc(equal[j] & lower);
    const bool tie = equal[j] >> lane & 1;
    if (!(above[j] >> lane & 1) && !(tie && equal_before < t.wanted)) continue;
    const int at =
        (count & 0xFFFF) + __popc(above[j] & lower) + (equal_before < t.wanted ? equal_before : t.wanted);
    selected[at] = j * kBlock + tid;
  }
}
#endif

template <int kScores>
__global__ void __launch_bounds__(kManyThreads, kScores == 8 ? 2 : 1)
    top_k_short_kernel([[maybe_unused]] TopKArgs a) {
#ifdef DSV_TOP_K_CODE
  select_short<kScores>(a);
#endif
}
__global__ void __launch_bounds__(kThreads) top_k_held_kernel([[maybe_unused]] TopKArgs a) {
#ifdef DSV_TOP_K_CODE
  select_row<kThreads, true>(a);
#endif
}
__global__ void __launch_bounds__(kThreads) top_k_cluster_kernel([[maybe_unused]] TopKArgs a) {
#ifdef DSV_TOP_K_CODE
  select_row<kThreads, false>(a);
#endif
}
__global__ void __launch_bounds__(kManyThreads, 2) top_k_block_kernel([[maybe_unused]] TopKArgs a) {
#ifdef DSV_TOP_K_CODE
  select_row<kManyThreads, false>(a);
#endif
}

// Blocks that share a row. Clusters of 8 and 4 do not fill a card: its groups of processors are no multiples
// of them. Two rounds of clusters that hold their scores are still faster than one that does not.
int32_t blocks_of(const TopKArgs& a) {
  const int64_t part = int64_t{a.rows} * 9, card = int64_t{processors()} * 8;  // an eighth is left
  if (part * 8 <= card) return 8;
  if (part * 4 <= card) return a.longest <= 4 * kHeld * kThreads ? 4 : 8;
  return a.rows * 2 <= processors() ? 2 : 1;
}

}  // namespace

bool takes_top_k_short(const TopKArgs& a) {
  return on_hopper() && a.longest <= 16 * kManyThreads && a.rows <= processors();
}
void launch_top_k_short(const TopKArgs& a, Stream stream) {
  const bool half = a.longest <= 8 * kManyThreads;
  launch(half ? top_k_short_kernel<8> : top_k_short_kernel<16>, {a.rows}, kManyThreads,
         static_cast<int64_t>(sizeof(Small)) + 4 * (kBins + 16 * kManyThreads / kWarp), stream, a);
}

// Shorter rows are faster in topk.cu: that they are listed takes longer than to read them again.
bool takes_top_k_hopper(const TopKArgs& a) {
  if (!on_hopper() || a.topk > kMostK || a.longest > kMostWords * 32) return false;
  const int32_t blocks = blocks_of(a);
  return a.longest > (blocks > 2 ? 8 : blocks == 2 ? 32 : 48) * 1024;
}

void launch_top_k_blocks(const TopKArgs& a, int32_t blocks, Stream stream) {
  const int64_t words = ((a.longest + 31) / 32 + blocks - 1) / blocks;
  const Grid grid = {.x = blocks, .y = a.rows, .cluster = blocks};
  if (blocks == 1)
    return launch(top_k_block_kernel, grid, kManyThreads, shared_bytes(words, false), stream, a);
  launch(words * 32 <= kHeld * kThreads ? top_k_held_kernel : top_k_cluster_kernel, grid, kThreads,
         shared_bytes(words, true), stream, a);
}

void launch_top_k_hopper(const TopKArgs& a, Stream stream) { launch_top_k_blocks(a, blocks_of(a), stream); }

}  // namespace dsv::cuda
