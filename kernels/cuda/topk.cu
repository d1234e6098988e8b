// The exact top-k of rows of scores: the k largest, ties to the lowest position, ascending. No order of
// threads shows in the result: what is counted are integers, and what is taken is decided by value and
// position.
//
// A radix select. Scores become keys that order as they do. A pass over the row counts the keys' upper 12
// bits; the bin in which the k-th largest lies splits the row into keys that are taken, candidates, and the
// rest; a second pass marks the first two in bitmaps and lists the candidates, among which the lower bits are
// decided in shared memory. The bitmaps are then read in order of position. A bin of more candidates than the
// list holds is narrowed by further passes; candidates whose bits are all equal are ties and need no list.
//
// Bound: the row is read from memory once and from L2 once: 2048 rows of 32K take 90 us + 50 us of L2. A
// processor issues about 9 + 15 instructions for 32 scores, at 4 a cycle: 128K positions take a block 15 us,
// so a few long rows are split over kSplits blocks each (three launches, joined by histograms and bitmaps in
// memory). One short row is the latency of about 15 barriers and 10 trips to memory, 10 us.
#include "kernels/cuda/index.h"
#include "kernels/cuda/topk_keys.cuh"

namespace dsv::cuda {
namespace {

constexpr int kBins = 4096, kList = 4096, kAhead = 8;
constexpr int kMostWords = 6400;  // of a bitmap: 204800 positions
constexpr int kSplits = 8, kSplitRows = 8, kSplitFrom = 48 * 1024;
constexpr int kSmallThreads = 512, kThreads = 1024;

constexpr int64_t shared_bytes(int64_t words) { return 4 * (kBins + 2 * kList + 2 * words + 2 * kWarp + 4); }
static_assert(shared_bytes(kMostWords) <= 99 * 1024, "an sm_86 has 99 KB");
static_assert(kMostWords <= 2 * kList, "the list's room is used again");

// What is known of the k-th largest key: its bits under `mask`. `count` keys share them, and the `wanted`
// largest of those are taken, with all keys above.
struct Threshold {
  uint32_t prefix, mask;
  int32_t wanted, count;

  __device__ __forceinline__ bool known() const { return wanted == count || mask == 0xFFFFFFFFu; }
};

struct Shared {
  int* bins;  // [kBins]
  // [kList] each. Later `offset`, where a word's first position goes, takes their room.
  uint32_t* list_key;
  int32_t* list_position;
  int32_t* offset;   // [words]
  uint32_t* above;   // [words] bitmap of keys above the threshold
  uint32_t* equal;   // [words] .. of the candidates, at last of keys equal to it
  int* warp_totals;  // [2 * kWarp]
  int* found;        // [4]
};
__device__ __forceinline__ Shared carve(int64_t words) {
  Shared s;
  s.bins = reinterpret_cast<int*>(shared_memory());
  s.list_key = reinterpret_cast<uint32_t*>(s.bins + kBins);
  s.list_position = reinterpret_cast<int32_t*>(s.list_key + kList);
  s.offset = reinterpret_cast<int32_t*>(s.list_key);
  s.above = reinterpret_cast<uint32_t*>(s.list_position + kList);
  s.equal = s.above + words;
  s.warp_totals = reinterpret_cast<int*>(s.equal + words);
  s.found = s.warp_totals + 2 * kWarp;
  return s;
}

// Sums of a and b over the threads before this one. Ends with whatever was written before in view.
template <int kBlock>
__device__ __forceinline__ void scan_before(int* a, int* b, int* warp_totals) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  int a_all = *a, b_all = *b;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const int a_lower = __shfl_up_sync(kAllLanes, a_all, step),
              b_lower = __shfl_up_sync(kAllLanes, b_all, step);
    if (lane >= step) a_all += a_lower, b_all += b_lower;
  }
  __syncthreads();  // the last scan is done with
  if (lane == kWarp - 1) warp_totals[warp] = a_all, warp_totals[kWarp + warp] = b_all;
  __syncthreads();
  int a_before = a_all - *a, b_before = b_all - *b;
  for (int w = 0; w < kBlock / kWarp; ++w) {
    if (w < warp) a_before += warp_totals[w], b_before += warp_totals[kWarp + w];
  }
  *a = a_before;
  *b = b_before;
}

// Calls body(key, position) for positions first .. end - 1; a warp's lanes have neighbours.
template <int kBlock, class F>
__device__ __forceinline__ void for_keys(const float* scores, int32_t first, int32_t end, F&& body) {
  int32_t i = first + static_cast<int32_t>(threadIdx.x);
  for (; i + (kAhead - 1) * kBlock < end; i += kAhead * kBlock) {
    float score[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) score[j] = scores[i + j * kBlock];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) body(key_of(score[j]), i + j * kBlock);
  }
  for (; i < end; i += kBlock) body(key_of(scores[i]), i);
}

template <int kBlock>
__device__ __forceinline__ void zero_bins(const Shared& s) {
  for (int i = threadIdx.x; i < kBins; i += kBlock) s.bins[i] = 0;
  __syncthreads();
}

// Narrows the threshold by the counts of its next `bits` bits. Begins and ends with a barrier.
template <int kBlock>
__device__ __forceinline__ void narrow(Threshold& t, int bits, const Shared& s) {
  __syncthreads();
  const int n = 1 << bits, each = n / kBlock > 1 ? n / kBlock : 1;  // bins of a thread, from the largest down
  const int top = n - 1 - static_cast<int>(threadIdx.x) * each;
  int sum = 0, before = 0, unused = 0;
  if (top >= 0) {
    for (int i = 0; i < each; ++i) sum += s.bins[top - i];
  }
  before = sum;
  scan_before<kBlock>(&before, &unused, s.warp_totals);
  if (before < t.wanted && t.wanted <= before + sum) {  // one thread
    int bin = top;
    while (before + s.bins[bin] < t.wanted) before += s.bins[bin--];
    s.found[0] = bin;
    s.found[1] = before;
    s.found[2] = s.bins[bin];
  }
  __syncthreads();
  const int shift = t.mask == 0 ? 32 - bits : __ffs(static_cast<int>(t.mask)) - 1 - bits;
  t.prefix |= static_cast<uint32_t>(s.found[0]) << shift;
  t.mask |= ((1u << bits) - 1) << shift;
  t.wanted -= s.found[1];
  t.count = s.found[2];
}

// Counts upper bits of positions first .. end - 1.
template <int kBlock>
__device__ __forceinline__ void count_upper(const float* scores, int32_t first, int32_t end,
                                            const Shared& s) {
  zero_bins<kBlock>(s);
  for_keys<kBlock>(scores, first, end, [&](uint32_t key, int32_t) { atomicAdd(&s.bins[key >> 20], 1); });
}

// Further passes over the row while the candidates are too many for the list.
template <int kBlock>
__device__ __forceinline__ void narrow_by_passes(Threshold& t, const float* scores, int32_t visible,
                                                 const Shared& s) {
  for (int shift = 10; shift >= 0 && t.count > kList && !t.known(); shift -= 10) {
    zero_bins<kBlock>(s);
    for_keys<kBlock>(scores, 0, visible, [&](uint32_t key, int32_t) {
      if ((key & t.mask) == t.prefix) atomicAdd(&s.bins[key >> shift & 0x3FF], 1);
    });
    narrow<kBlock>(t, 10, s);
  }
}

// Marks positions first .. end - 1, first a multiple of 32, in bitmaps that begin at position 0; lists the
// candidates if they are to be narrowed.
template <int kBlock>
__device__ __forceinline__ void mark(const Threshold& t, const float* scores, int32_t first, int32_t end,
                                     bool list, uint32_t* above, uint32_t* equal, const Shared& s) {
  const int lane = threadIdx.x % kWarp;
  // Whole warps: the last word's lanes beyond the row have no score.
  for (int32_t begin = first + static_cast<int32_t>(threadIdx.x); begin - lane < end;
       begin += kAhead * kBlock) {
    float score[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int32_t i = begin + j * kBlock;
      score[j] = i < end ? scores[i] : 0.0f;
    }
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int32_t i = begin + j * kBlock;
      if (i - lane >= end) break;
      const uint32_t key = key_of(score[j]), upper = key & t.mask;
      const bool is_above = i < end && upper > t.prefix, is_equal = i < end && upper == t.prefix;
      const unsigned above_lanes = __ballot_sync(kAllLanes, is_above),
                     equal_lanes = __ballot_sync(kAllLanes, is_equal);
      if (lane == 0) {
        above[i / 32] = above_lanes;
        equal[i / 32] = equal_lanes;
      }
      if (list && equal_lanes != 0) {
        const int begins =
            __shfl_sync(kAllLanes, lane == 0 ? atomicAdd(&s.found[3], __popc(equal_lanes)) : 0, 0);
        const int at = begins + __popc(equal_lanes & ((1u << lane) - 1));
        if (is_equal) s.list_key[at] = key, s.list_position[at] = i;
      }
    }
  }
}

// Fixes the threshold among the listed candidates and moves those above it to the other bitmap.
template <int kBlock>
__device__ __forceinline__ void narrow_by_list(Threshold& t, const Shared& s) {
  const int32_t listed = t.count;
  while (!t.known()) {
    const int shift = __ffs(static_cast<int>(t.mask)) - 1 - 10;
    zero_bins<kBlock>(s);  // and the list is whole
    for (int i = threadIdx.x; i < listed; i += kBlock) {
      const uint32_t key = s.list_key[i];
      if ((key & t.mask) == t.prefix) atomicAdd(&s.bins[key >> shift & 0x3FF], 1);
    }
    narrow<kBlock>(t, 10, s);
  }
  for (int i = threadIdx.x; i < listed; i += kBlock) {
    const uint32_t upper = s.list_key[i] & t.mask, word = static_cast<uint32_t>(s.list_position[i]) / 32,
                   bit = 1u << s.list_position[i] % 32;
    if (upper > t.prefix) atomicOr(&s.above[word], bit);
    if (upper != t.prefix) atomicAnd(&s.equal[word], ~bit);
  }
}

// Writes the positions that the bitmaps say: all above, and the first `wanted` equal ones.
template <int kBlock>
__device__ __forceinline__ void write_selected(int32_t wanted, int words, int32_t* selected,
                                               const Shared& s) {
  const int each = (words + kBlock - 1) / kBlock, first = static_cast<int>(threadIdx.x) * each;
  const int end = first + each < words ? first + each : words;
  int above = 0, equal = 0;  // before a word
  for (int w = first; w < end; ++w) above += __popc(s.above[w]), equal += __popc(s.equal[w]);
  scan_before<kBlock>(&above, &equal, s.warp_totals);
  for (int w = first; w < end; ++w) {
    uint32_t taken = s.above[w], ties = s.equal[w];
    s.offset[w] = above + (equal < wanted ? equal : wanted);
    above += __popc(taken);
    const int room = wanted - equal, n = __popc(ties);
    equal += n;
    if (room >= n) {
      taken |= ties;
    } else {
      for (int i = 0; i < room; ++i, ties &= ties - 1) taken |= ties & -ties;
    }
    s.above[w] = taken;
  }
  __syncthreads();
  for (int w = threadIdx.x; w < words;
       w += kBlock) {  // neighbours in different threads: some places are dense
    int32_t* out = selected + s.offset[w];
    for (uint32_t taken = s.above[w]; taken != 0; taken &= taken - 1) {
      *out++ = w * 32 + __ffs(static_cast<int>(taken)) - 1;
    }
  }
}

template <int kBlock>
__device__ __forceinline__ void select_identity(const TopKArgs& a, int64_t r, int32_t visible) {
  for (int32_t i = threadIdx.x; i < visible; i += kBlock) a.selected[r * a.topk + i] = i;
}

// Everything in one block.
template <int kBlock>
__device__ __forceinline__ void select_row(const TopKArgs& a, int64_t r, int32_t visible) {
  const float* scores = a.scores + r * a.score_stride;
  const int words = (visible + 31) / 32;
  const Shared s = carve(words);
  Threshold t = {0, 0, a.topk, visible};
  if (threadIdx.x == 0) s.found[3] = 0;
  count_upper<kBlock>(scores, 0, visible, s);
  narrow<kBlock>(t, 12, s);
  narrow_by_passes<kBlock>(t, scores, visible, s);
  const bool list = !t.known();
  mark<kBlock>(t, scores, 0, visible, list, s.above, s.equal, s);
  if (list) narrow_by_list<kBlock>(t, s);
  __syncthreads();
  write_selected<kBlock>(t.wanted, words, a.selected + r * a.topk, s);
}

template <int kBlock>
__global__ void __launch_bounds__(kBlock, 2048 / kBlock) top_k_kernel(TopKArgs a) {
  const int64_t r = blockIdx.x;
  const int32_t visible = a.position[r] + 1;
  if (threadIdx.x == 0) a.n_selected[r] = visible < a.topk ? visible : a.topk;
  if (visible <= a.topk) return select_identity<kBlock>(a, r, visible);
  select_row<kBlock>(a, r, visible);
}

// ---- A row over kSplits blocks.

// Of a row in a.scratch.
struct SplitRow {
  int* bins;                // [kSplits][kBins]
  uint32_t *above, *equal;  // [words]
  Threshold* threshold;     // after the first narrowing
};
constexpr int64_t split_row_bytes(int64_t words) { return 4 * (int64_t{kSplits} * kBins + 2 * words + 4); }
__device__ __forceinline__ SplitRow split_row(const TopKArgs& a, int64_t r) {
  const int64_t words = (a.longest + 31) / 32;
  auto* at = a.scratch + r * split_row_bytes(words);
  SplitRow row;
  row.bins = reinterpret_cast<int*>(at);
  row.above = reinterpret_cast<uint32_t*>(row.bins + kSplits * kBins);
  row.equal = row.above + words;
  row.threshold = reinterpret_cast<Threshold*>(row.equal + words);
  return row;
}
struct Slice {
  int32_t first, end;
};
__device__ __forceinline__ Slice slice_of(int32_t visible) {
  const int32_t words = (visible + 31) / 32, each = (words + kSplits - 1) / kSplits * 32;
  const auto first = static_cast<int32_t>(blockIdx.x) * each;
  return {first < visible ? first : visible, first + each < visible ? first + each : visible};
}

__global__ void __launch_bounds__(kThreads) split_count_kernel(TopKArgs a) {
  const int64_t r = blockIdx.y;
  const int32_t visible = a.position[r] + 1;
  if (visible <= a.topk) return;
  const Shared s = carve(0);
  const Slice slice = slice_of(visible);
  count_upper<kThreads>(a.scores + r * a.score_stride, slice.first, slice.end, s);
  __syncthreads();
  int* bins = split_row(a, r).bins + blockIdx.x * kBins;
  for (int i = threadIdx.x; i < kBins; i += kThreads) bins[i] = s.bins[i];
}

__global__ void __launch_bounds__(kThreads) split_mark_kernel(TopKArgs a) {
  const int64_t r = blockIdx.y;
  const int32_t visible = a.position[r] + 1;
  if (visible <= a.topk) return;
  const Shared s = carve(0);
  const SplitRow row = split_row(a, r);
  for (int i = threadIdx.x; i < kBins; i += kThreads) {
    int sum = 0;
#pragma unroll
    for (int split = 0; split < kSplits; ++split) sum += row.bins[split * kBins + i];
    s.bins[i] = sum;
  }
  Threshold t = {0, 0, a.topk, visible};
  narrow<kThreads>(t, 12, s);
  if (blockIdx.x == 0 && threadIdx.x == 0) *row.threshold = t;
  if (!t.known() && t.count > kList) return;  // left to the last kernel
  const Slice slice = slice_of(visible);
  mark<kThreads>(t, a.scores + r * a.score_stride, slice.first, slice.end, false, row.above, row.equal, s);
}

__global__ void __launch_bounds__(kThreads) split_select_kernel(TopKArgs a) {
  const int64_t r = blockIdx.x;
  const int32_t visible = a.position[r] + 1;
  if (threadIdx.x == 0) a.n_selected[r] = visible < a.topk ? visible : a.topk;
  if (visible <= a.topk) return select_identity<kThreads>(a, r, visible);
  const SplitRow row = split_row(a, r);
  Threshold t = *row.threshold;
  if (!t.known() && t.count > kList) return select_row<kThreads>(a, r, visible);
  const float* scores = a.scores + r * a.score_stride;
  const int words = (visible + 31) / 32;
  const Shared s = carve(words);
  const bool list = !t.known();
  if (threadIdx.x == 0) s.found[3] = 0;
  __syncthreads();
  for (int w = threadIdx.x; w < words; w += kThreads) {
    s.above[w] = row.above[w];
    const uint32_t candidates = s.equal[w] = row.equal[w];
    for (uint32_t left = list ? candidates : 0; left != 0; left &= left - 1) {
      const int32_t i = w * 32 + __ffs(static_cast<int>(left)) - 1;
      const int at = atomicAdd(&s.found[3], 1);
      s.list_key[at] = key_of(scores[i]);
      s.list_position[at] = i;
    }
  }
  if (list) narrow_by_list<kThreads>(t, s);
  __syncthreads();
  write_selected<kThreads>(t.wanted, words, a.selected + r * a.topk, s);
}

}  // namespace

int64_t top_k_scratch_bytes(int64_t longest) {
  return longest >= kSplitFrom && longest <= kMostWords * 32
             ? kSplitRows * split_row_bytes((longest + 31) / 32)
             : 0;
}

void launch_top_k(const TopKArgs& a, Stream stream) {
  if (takes_top_k_rows(a)) return launch_top_k_rows(a, stream);
  if (takes_top_k_short(a)) return launch_top_k_short(a, stream);
  takes_top_k_hopper(a) ? launch_top_k_hopper(a, stream) : launch_top_k_portable(a, stream);
}

void launch_top_k_portable(const TopKArgs& a, Stream stream) {
  const int64_t words = (a.longest + 31) / 32;
  if (words > kMostWords) return launch_top_k_plain(a, stream);
  if (a.scratch && a.rows <= kSplitRows && a.longest >= kSplitFrom) {
    launch(split_count_kernel, {kSplits, a.rows}, kThreads, shared_bytes(0), stream, a);
    launch(split_mark_kernel, {kSplits, a.rows}, kThreads, shared_bytes(0), stream, a);
    launch(split_select_kernel, {a.rows}, kThreads, shared_bytes(words), stream, a);
    return;
  }
  const bool small = a.longest <= 16 * 1024;
  launch(small ? top_k_kernel<kSmallThreads> : top_k_kernel<kThreads>, {a.rows},
         small ? kSmallThreads : kThreads, shared_bytes(words), stream, a);
}

}  // namespace dsv::cuda
