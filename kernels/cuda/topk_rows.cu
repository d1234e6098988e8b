// The exact top-k of many rows on Hopper, the order of topk.cu: the k largest, ties to the lowest position,
// ascending.
//
// A block keeps a row in registers, a thread consecutive scores, while the copy engine brings the next row to
// shared memory, each warp's part for itself. The k-th largest of 4096 groups' maxima bounds the k-th largest
// score from below; of scores in any order some 1.3 k reach it, and only these are looked at further. What is
// taken is a thread's word of a bitmap of positions, whose bits go to where the words before it end.
//
// Bound: memory, 2048 rows of 32K in 69 us at 4.1 TB/s: 4.2 us a row and processor, or 7,500 cycles.
// Measured: 128 us, 14,000 cycles: reading 1,600, the bound 3,100, listing 2,700 and a barrier 600, the k-th
// largest 3,600, words and what is written 4,000. Half of that is barriers and what some warps wait for
// others; shorter rows have two blocks in a processor, which fill each other's gaps.
#include "kernels/cuda/index.h"
#include "kernels/cuda/topk_list.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace dsv::cuda {
namespace {

constexpr int kMaxima = 4096;  // of a row

// A block of kBlock threads for rows of at most kBlock * kScores scores.
template <int kBlock, int kScores>
struct Shape {
  static constexpr int kRow = kBlock * kScores, kGroup = kRow / kMaxima;  // scores of a maximum
  static constexpr int kRoom = kRow / 2;  // of the list: groups that do not reach a bound have as many
  static constexpr int64_t kSharedBytes =
      static_cast<int64_t>(sizeof(Small)) + 4 * (kBins + kRoom + kRow) + 8 * (kBlock / kWarp);
  static_assert(kGroup * kMostK <= kRoom && kMaxima >= kMostK);
  static_assert(kScores % kGroup == 0 && (kScores == 32 || kScores == 16));
};

#ifdef DSV_HOPPER

// The lower end of the bin that holds the k-th largest number. Numbers lie in low .. high.
template <int kBlock, class Each>
__device__ __forceinline__ uint32_t below_kth(Each&& for_each, uint32_t low, uint32_t high, int k,
                                              const Shared& s) {
  const int shift = bits_of(high - low) > kBinBits ? bits_of(high - low) - kBinBits : 0;
  for_each([&](uint32_t number) { atomicAdd(&s.bins[(number - low) >> shift], 1); });
  __syncthreads();
  constexpr int kEach = kBins / kBlock;  // a thread's bins, the first threads having the largest
  int* mine = s.bins + kBins - (static_cast<int>(threadIdx.x) + 1) * kEach;
  int count[kEach], sum = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    count[i] = mine[i];
    sum += count[i];
    mine[i] = 0;
  }
  int before = sum_before<kBlock>(sum, *s.small);
  if (before < k && k <= before + sum) {  // one thread
#pragma unroll
    for (int i = kEach - 1; i >= 0; --i) {
      if (before < k && k <= before + count[i]) {
        s.small->bin = kBins - (static_cast<int>(threadIdx.x) + 1) * kEach + i;
      }
      before += count[i];
    }
  }
  __syncthreads();
  return low + (static_cast<uint32_t>(s.small->bin) << shift);
}

// A bit for each score that reaches `from`; no score is -0. The sign of a difference, which takes half of
// what a comparison takes, but is none of infinities that are the same.
template <int kScores>
__device__ __forceinline__ uint32_t reaching(const float (&scores)[kScores], float from) {
  uint32_t below = 0;
  if (fabsf(from) == INFINITY) {
#pragma unroll
    for (int j = 0; j < kScores; ++j) below |= scores[j] < from ? 1u << j : 0;
    return ~below;
  }
#pragma unroll
  for (int j = kScores - 1; j >= 0; --j) {
    below = __funnelshift_l(__float_as_uint(scores[j] - from), below, 1);
  }
  return ~below;
}

// A warp's part of rows' scores, which the copy engine brings to shared memory while those of the row before
// are in registers.
template <int kBlock, int kScores>
struct Parts {
  static constexpr int kPart = kWarp * kScores;
  const TopKArgs& a;
  float* part;
  uint32_t full, parity = 0;

  __device__ __forceinline__ Parts(const TopKArgs& args, float* row, uint64_t* barriers)
      : a(args),
        part(row + threadIdx.x / kWarp * kPart),
        full(hopper::shared_address(barriers + threadIdx.x / kWarp)) {
    if (threadIdx.x % kWarp == 0) hopper::barrier_init(full, 1);
    hopper::fence_barriers();
    __syncwarp();
  }
  // How many there are of a row that sees `visible`.
  __device__ __forceinline__ int count(int32_t visible) const {
    const int32_t n = visible - static_cast<int32_t>(threadIdx.x) / kWarp * kPart;
    return n < 0 ? 0 : n < kPart ? n : kPart;
  }
  __device__ __forceinline__ void bring(int64_t r, int32_t visible) const {
    const int n = count(visible);
    if (threadIdx.x % kWarp != 0 || n == 0) return;
    const uint32_t bytes = static_cast<uint32_t>(n + 3) / 4 * 16;
    hopper::barrier_expect(full, bytes);
    hopper::copy_bytes(hopper::shared_address(part),
                       a.scores + r * a.score_stride + threadIdx.x / kWarp * kPart, bytes, full);
  }
  // A lane reads 16 bytes at a time in an order of its own, so that no bank is met twice: score 4 c + i of a
  // thread is here the c ^ turn()-th of its fours.
  static __device__ __forceinline__ int turn() {
    return kScores == 32 ? threadIdx.x % 8 : threadIdx.x % kWarp / 2 % 4;
  }
  // The n that were brought, -0 as 0; behind them NaN, which reaches nothing. Others may be brought behind a
  // barrier that follows a use of them: all have what they read then, and not only asked for it.
  __device__ __forceinline__ void read(float (&v)[kScores], int n) {
    const int lane = threadIdx.x % kWarp;
    if (n > 0) {
      hopper::barrier_wait(full, parity);
      parity ^= 1;
    }
    if (n < kPart) {
      for (int i = n + lane; i < kPart; i += kWarp) part[i] = NAN;
      __syncwarp();
    }
#pragma unroll
    for (int c = 0; c < kScores / 4; ++c) {
      const uint4 four =
          hopper::load_shared_16(hopper::shared_address(part + lane * kScores + (c ^ turn()) * 4));
      v[4 * c] = __uint_as_float(four.x) + 0.0f;
      v[4 * c + 1] = __uint_as_float(four.y) + 0.0f;
      v[4 * c + 2] = __uint_as_float(four.z) + 0.0f;
      v[4 * c + 3] = __uint_as_float(four.w) + 0.0f;
    }
    if (n < kPart) hopper::fence_for_wgmma();  // the engine writes over those
  }
  // A word of a bitmap of a thread's scores from their order in registers to that of positions, and back.
  static __device__ __forceinline__ uint32_t ordered(uint32_t word) {
    if (turn() & 1) word = (word & 0x0F0F0F0Fu) << 4 | (word >> 4 & 0x0F0F0F0Fu);
    if (turn() & 2) word = (word & 0x00FF00FFu) << 8 | (word >> 8 & 0x00FF00FFu);
    if (turn() & 4) word = word << 16 | word >> 16;
    return word;
  }
  // In registers' order, which of a thread's scores there are, of the warp's n.
  static __device__ __forceinline__ uint32_t real(int n) {
    const int own = n - static_cast<int>(threadIdx.x) % kWarp * kScores;
    return own >= kScores ? ~0u >> (32 - kScores) : own <= 0 ? 0 : ordered((1u << own) - 1);
  }
};

// A bound that k of `there` scores reach at least, and the largest score's key. Begins behind a barrier and
// ends with one.
template <int kBlock, int kScores>
__device__ __forceinline__ uint32_t bound_of(const float (&v)[kScores], int32_t there, int k, uint32_t& high,
                                             const Shared& s) {
  constexpr int kGroup = kBlock * kScores / kMaxima, kGroups = kScores / kGroup;
  float largest[kGroups];
  uint32_t low = ~0u;
  high = 0;
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    largest[g] = v[g * kGroup];
#pragma unroll
    for (int j = 1; j < kGroup; ++j) largest[g] = fmaxf(largest[g], v[g * kGroup + j]);
    if (largest[g] == largest[g]) {
      const uint32_t key = key_of(largest[g]);
      low = key < low ? key : low;
      high = key > high ? key : high;
    }
  }
  range_of<kBlock>(low, high, *s.small);
  if ((there + kGroup - 1) / kGroup < k) return key_of(-INFINITY);
  return below_kth<kBlock>(
      [&](auto&& body) {
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
          if (largest[g] == largest[g]) body(key_of(largest[g]));
        }
      },
      low, high, k, s);
}

// Makes room for `mine` of this thread's in the list and returns where; -1 if there is none. Whole warps.
__device__ __forceinline__ int place_in_list(int mine, int room, Small& small) {
  const int lane = threadIdx.x % kWarp;
  int all = mine;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const int lower = __shfl_up_sync(kAllLanes, all, step);
    if (lane >= step) all += lower;
  }
  int at = lane == kWarp - 1 ? atomicAdd(&small.listed, all) : 0;
  at = __shfl_sync(kAllLanes, at, kWarp - 1);
  return at + __shfl_sync(kAllLanes, all, kWarp - 1) <= room ? at + all - mine : -1;
}

// Rows of at most kBlock * kScores scores.
template <int kBlock, int kScores>
__device__ __forceinline__ void select_rows(const TopKArgs& a) {
  using S = Shape<kBlock, kScores>;
  const int tid = threadIdx.x, k = a.topk;
  Shared s;
  s.small = reinterpret_cast<Small*>(shared_memory());
  s.bins = reinterpret_cast<int*>(s.small + 1);
  auto* const list = reinterpret_cast<float*>(s.bins + kBins);
  float* const row = list + S::kRoom;
  Small& small = *s.small;
  for (int i = tid; i < kBins; i += kBlock) s.bins[i] = 0;
  Parts<kBlock, kScores> parts(a, row, reinterpret_cast<uint64_t*>(row + S::kRow));
  // Of those scores that are looked at.
  const auto seen = [&](int64_t r) { return r < a.rows ? a.position[r] + 1 : 0; };
  const auto looked_at = [&](int32_t visible) { return visible > k ? visible : 0; };
  int32_t then = seen(blockIdx.x);
  parts.bring(blockIdx.x, looked_at(then));
  __syncthreads();
  for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x) {
    int32_t* const selected = a.selected + r * k;
    const int32_t visible = then;
    then = seen(r + gridDim.x);
    if (tid == 0) a.n_selected[r] = visible < k ? visible : k, small.listed = 0;
    float v[kScores];
    const int n = parts.count(looked_at(visible));
    parts.read(v, n);
    if (visible <= k) {
      parts.bring(r + gridDim.x, looked_at(then));
      for (int32_t i = tid; i < visible; i += kBlock) selected[i] = i;
      continue;
    }
    uint32_t high;
    const uint32_t bound = bound_of<kBlock>(v, visible, k, high, s), real = parts.real(n);
    parts.bring(r + gridDim.x, looked_at(then));
    const float from = score_of(bound);
    int at = place_in_list(__popc(reaching(v, from) & real), S::kRoom, small);
    if (at >= 0) {
      float again[1] = {from};  // compared once more, which is cheaper than to keep what came out
      hopper::keep(again);
#pragma unroll
      for (int j = 0; j < kScores; ++j) {
        if (v[j] >= again[0]) list[at++] = v[j];
      }
    }
    __syncthreads();
    const int listed = small.listed;
    const auto for_each = [&](auto&& body) {
      if (listed <= S::kRoom) {
        for (int i = tid; i < listed; i += kBlock) body(key_of(list[i]));
      } else {  // scores that are much alike, from memory again
        const float* const scores = a.scores + r * a.score_stride;
        for (int32_t i = tid; i < visible; i += kBlock) {
          if (scores[i] >= from) body(key_of(scores[i]));
        }
      }
    };
    const Threshold<uint32_t> t = kth_largest<kBlock, uint32_t>(for_each, bound, high, k, s);
    const float least = score_of(t.least);
    uint32_t taken = reaching(v, least) & real;
    if (t.wanted != t.count) {
      uint32_t equal = 0;
#pragma unroll
      for (int j = 0; j < kScores; ++j) equal |= v[j] == least ? 1u << j : 0;
      taken = parts.ordered(taken & ~equal);
      equal = parts.ordered(equal);
      int room = t.wanted - sum_before<kBlock>(__popc(equal), small);
      for (; room > 0 && equal != 0; --room, equal &= equal - 1) taken |= equal & -equal;
      __syncthreads();
    } else {
      taken = parts.ordered(taken);
    }
    int32_t* out = selected + sum_before<kBlock>(__popc(taken), small);
    for (; taken != 0; taken &= taken - 1) {
      *out++ = tid * kScores + __ffs(static_cast<int>(taken)) - 1;
    }
    __syncthreads();  // the totals are read
  }
}
#endif

template <int kBlock, int kScores, int kBlocks>
__global__ void __launch_bounds__(kBlock, kBlocks) top_k_rows_kernel([[maybe_unused]] TopKArgs a) {
#ifdef DSV_HOPPER
  select_rows<kBlock, kScores>(a);
#endif
}

template <int kBlock, int kScores, int kBlocks>
void launch_rows(const TopKArgs& a, Stream stream) {
  const int64_t blocks = int64_t{processors()} * kBlocks;
  launch(top_k_rows_kernel<kBlock, kScores, kBlocks>, {a.rows < blocks ? a.rows : blocks}, kBlock,
         Shape<kBlock, kScores>::kSharedBytes, stream, a);
}

}  // namespace

bool takes_top_k_rows(const TopKArgs& a) {
  if (!on_hopper() || a.topk > kMostK || a.longest > 32 * kThreads) return false;
  if (a.score_stride % 4 != 0 || reinterpret_cast<uintptr_t>(a.scores) % 16 != 0) return false;
  // Short rows, few of them: in registers alone (topk_hopper.cu). Shorter ones: too few groups for a bound.
  return a.longest > 16 * kManyThreads || (a.rows > processors() && a.longest > 5 * 1024);
}

void launch_top_k_rows(const TopKArgs& a, Stream stream) {
  if (a.longest <= 16 * kManyThreads) return launch_rows<kManyThreads, 16, 2>(a, stream);
  if (a.longest > 16 * kThreads) return launch_rows<kThreads, 32, 1>(a, stream);
  // Two rows at a time in a processor, unless there is one for each.
  a.rows <= processors() ? launch_rows<kThreads, 16, 1>(a, stream)
                         : launch_rows<kManyThreads, 32, 2>(a, stream);
}

}  // namespace dsv::cuda
