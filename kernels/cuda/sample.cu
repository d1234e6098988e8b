// A token for each row of logits (lib/backend/sampling.h), so that 4 bytes of a row go to the host instead of
// 500 KB.
//
// The choice is made of comparisons and sums of integers: the order in which threads add does not show. Who
// is kept is a limit in the order of logits. It is found as a radix select finds its k-th: histograms of how
// many there are in a digit's bins and what they weigh, of the logit's distance from the best first, then,
// among equals, of the logit itself and of the id. The draw is found in 32 parts of the row, then in 32 parts
// of that, and so on.
//
// Bound: a row is read once for its best (129280 f32, which one SM reads in 5 us from L2), once more to
// draw from it all, and some three times more for a limit. What the best row of a pass costs beyond that is
// some 30 instructions for each weight, 20 us for all of a row at 4 a cycle; with a limit most are not asked
// for again. One block a row; more would need more launches, and a pass takes milliseconds.
#include "backend/sampling.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/sample.h"

namespace dsv::cuda {
namespace {

constexpr int kThreads = 1024, kWarps = kThreads / kWarp, kBins = 2048, kAhead = 8;
constexpr uint32_t kNone = 0xFFFFFFFFu;
// So far below the best there are many that weigh next to nothing: their sum is taken without bins at first.
constexpr uint32_t kTail = uint32_t{16} << 25;
static_assert(kWeighsNothing >> 20 <= kBins);

// Orders as logits do; -0 as 0.
__device__ __forceinline__ uint32_t key_of(float logit) {
  const uint32_t bits = __float_as_uint(logit + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

struct Shared {
  uint64_t warp_sum[kWarps];
  uint32_t warp_count[kWarps];
  uint32_t count[kBins];
  uint32_t low[kBins], high[kBins];  // halves of a bin's weight
};

// Ascending: the better first.
struct Place {
  uint32_t distance, key, id;  // key: complemented

  __device__ __forceinline__ uint32_t word(int i) const { return i == 0 ? distance : i == 1 ? key : id; }
};

struct Row {
  const float* logits;
  const uint32_t* allowed;  // bits
  int32_t vocab;
  float best, scale;
  uint64_t least;
  Place limit;  // the last that is kept

  // Of NaN, too, and of what is not allowed.
  __device__ __forceinline__ uint32_t distance(float logit, bool allowed) const {
    return allowed ? sample_distance(logit, best, scale) : kWeighsNothing;
  }
  // What an id weighs in the draw.
  template <bool kLimited>
  __device__ __forceinline__ uint64_t kept_weight(int32_t id, float logit, bool allowed) const {
    const uint32_t at = distance(logit, allowed);
    if (kLimited) {
      if (at > limit.distance) return 0;
      const uint32_t key = ~key_of(logit);
      const bool equal = at == limit.distance;
      if (equal && (key > limit.key || (key == limit.key && static_cast<uint32_t>(id) > limit.id))) return 0;
    }
    const uint64_t weight = sample_weight(at);
    return weight < least ? 0 : weight;
  }
};

// The loads of a chunk run ahead of their use.
template <int kStride, bool kWhole, class F>
__device__ __forceinline__ void each_of_chunk(const Row& row, int32_t id, int32_t end, F&& body) {
  const uint32_t lane_bit = 1u << threadIdx.x % kWarp;
  float logit[kAhead];
  uint32_t bits[kAhead];
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    const int32_t at = kWhole || id + i * kStride < end ? id + i * kStride : id;
    logit[i] = row.logits[at];
    bits[i] = row.allowed[at / kWarp];
  }
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    if (!kWhole && id + i * kStride >= end) break;
    body(id + i * kStride, logit[i], (bits[i] & lane_bit) != 0);
  }
}
// Calls body(id, logit, allowed) for what this thread has of the ids [begin, end): one in kStride, which is
// the block or a warp. `begin` is a multiple of 32.
template <int kStride, class F>
__device__ __forceinline__ void each(const Row& row, int32_t begin, int32_t end, F&& body) {
  int32_t id = begin + static_cast<int32_t>(threadIdx.x % kStride);
  for (; id + (kAhead - 1) * kStride < end; id += kAhead * kStride)
    each_of_chunk<kStride, true>(row, id, end, body);
  if (id < end) each_of_chunk<kStride, false>(row, id, end, body);
}

__device__ __forceinline__ uint64_t shuffle_xor(uint64_t value, int lanes) {
  const uint32_t low = __shfl_xor_sync(kAllLanes, static_cast<uint32_t>(value), lanes);
  const uint32_t high = __shfl_xor_sync(kAllLanes, static_cast<uint32_t>(value >> 32), lanes);
  return uint64_t{high} << 32 | low;
}
__device__ __forceinline__ uint64_t shuffle_up(uint64_t value, int lanes) {
  const uint32_t low = __shfl_up_sync(kAllLanes, static_cast<uint32_t>(value), lanes);
  const uint32_t high = __shfl_up_sync(kAllLanes, static_cast<uint32_t>(value >> 32), lanes);
  return uint64_t{high} << 32 | low;
}
__device__ __forceinline__ uint64_t warp_add(uint64_t value) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) value += shuffle_xor(value, lanes);
  return value;
}
__device__ __forceinline__ uint32_t warp_add(uint32_t value) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) value += __shfl_xor_sync(kAllLanes, value, lanes);
  return value;
}
// Every warp's sums in view of all threads.
__device__ __forceinline__ void share_sums(Shared& s, uint64_t sum, uint32_t count) {
  sum = warp_add(sum);
  count = warp_add(count);
  __syncthreads();  // the last ones are done with
  if (threadIdx.x % kWarp == 0) {
    s.warp_sum[threadIdx.x / kWarp] = sum;
    s.warp_count[threadIdx.x / kWarp] = count;
  }
  __syncthreads();
}

struct Totals {
  uint64_t weight = 0;
  uint32_t count = 0;
};

__device__ __forceinline__ Totals all_sums(const Shared& s) {
  Totals all;
  for (int w = 0; w < kWarps; ++w) all.weight += s.warp_sum[w], all.count += s.warp_count[w];
  return all;
}
__device__ __forceinline__ Totals bin_of(const Shared& s, int bin) {
  return {uint64_t{s.high[bin]} << 32 | s.low[bin], s.count[bin]};
}

// The greatest: its order, or what stands for none. Of ids that cannot be chosen a number counts 1.
__device__ __forceinline__ uint64_t find_best(const Row& row, Shared& s) {
  float best = __uint_as_float(0xFF800000u);
  int32_t best_id = -1;
  bool number = false;
  each<kThreads>(row, 0, row.vocab, [&](int32_t id, float logit, bool allowed) {
    number |= logit == logit;
    if (allowed && logit > best) best = logit, best_id = id;
  });
  uint64_t mine = best_id >= 0 ? uint64_t{key_of(best)} << 32 | (kNone - static_cast<uint32_t>(best_id))
                               : uint64_t{number};
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
    const uint64_t other = shuffle_xor(mine, lanes);
    if (other > mine) mine = other;
  }
  __syncthreads();
  if (threadIdx.x % kWarp == 0) s.warp_sum[threadIdx.x / kWarp] = mine;
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) {
    if (s.warp_sum[w] > mine) mine = s.warp_sum[w];
  }
  return mine;
}

// A digit of a place: bits [shift, shift + bits) of a word, of which three follow each other. A distance has
// 31 bits.
struct Digit {
  int word, shift, bits;
};
constexpr int kDigits = 9;
__device__ __forceinline__ Digit digit_of(int level) {
  const int word = level / 3, first = word == 0 ? 20 : 21;
  return level % 3 == 0   ? Digit{word, first, 11}
         : level % 3 == 1 ? Digit{word, 10, first - 10}
                          : Digit{word, 0, 10};
}

// Counts and weighs by that digit whoever has the limit's digits before it. What is from `tail` on is summed
// without bins: the result.
__device__ __forceinline__ Totals fill_bins(const Row& row, Shared& s, int level, uint32_t tail) {
  const Digit digit = digit_of(level);
  __syncthreads();
  for (int b = threadIdx.x; b < kBins; b += kThreads) s.count[b] = s.low[b] = s.high[b] = 0;
  __syncthreads();
  // Who has the limit's distance as far as it is known.
  const uint32_t open = level == 0 ? kNone : level < 3 ? (1u << (digit.shift + digit.bits)) - 1 : 0;
  const uint32_t nearest = row.limit.distance & ~open, width = level == 0 ? kWeighsNothing - 1 : open;
  const int word_end = digit.shift + digit.bits;
  Totals rest;
  each<kThreads>(row, 0, row.vocab, [&](int32_t id, float logit, bool allowed) {
    const uint32_t distance = row.distance(logit, allowed);
    if (distance - nearest > width) return;
    uint32_t word = distance;
    if (level >= 3) {
      const uint32_t key = ~key_of(logit);
      if (digit.word == 2 && key != row.limit.key) return;
      word = digit.word == 1 ? key : static_cast<uint32_t>(id);
      if (level % 3 != 0 && (word ^ row.limit.word(digit.word)) >> word_end != 0) return;
    }
    const uint64_t weight = sample_weight(distance);
    if (distance >= tail) {
      rest.weight += weight;
      ++rest.count;
      return;
    }
    const uint32_t bin = word >> digit.shift & ((1u << digit.bits) - 1), low = static_cast<uint32_t>(weight);
    atomicAdd(&s.count[bin], 1u);
    const uint32_t high = static_cast<uint32_t>(weight >> 32) + (atomicAdd(&s.low[bin], low) + low < low);
    if (high != 0) atomicAdd(&s.high[bin], high);
  });
  share_sums(s, rest.weight, rest.count);
  return all_sums(s);
}

// Sets the row's limit to the `count`-th, or with count 0 to the one that has the sum up to it reach top_p of
// the weight of all, or of `whole` if that is not 0. Returns the weight of all up to the limit.
__device__ uint64_t find_limit(Row& row, Shared& s, uint32_t count, uint64_t top_p, uint64_t whole) {
  row.limit = {kNone, kNone, kNone};
  const bool by_count = count > 0;
  Totals before;  // of those who are better than all of the limit's bin
  uint64_t target = 0;
  uint32_t tail = kTail;
  for (int level = 0; level < kDigits;) {
    const Digit digit = digit_of(level);
    const Totals rest = fill_bins(row, s, level, tail);
    // Sums of a warp's bins, then of single bins.
    constexpr int kWarpBins = kBins / kWarps;
    Totals mine;
    for (int b = threadIdx.x % kWarp; b < kWarpBins; b += kWarp) {
      const Totals bin = bin_of(s, threadIdx.x / kWarp * kWarpBins + b);
      mine.weight += bin.weight;
      mine.count += bin.count;
    }
    share_sums(s, mine.weight, mine.count);
    if (level == 0) {
      const Totals bins = all_sums(s);
      const uint64_t all = bins.weight + rest.weight;
      if (by_count && count >= bins.count + rest.count) return all;
      target = sample_target(whole != 0 ? whole : all, top_p);
      if (by_count ? bins.count < count : bins.weight < target) {
        tail = kNone;  // the limit is there: once more, with bins for all
        continue;
      }
    }
    const auto reached = [&](const Totals& part) {
      return by_count ? before.count + part.count >= count : before.weight + part.weight >= target;
    };
    const auto pass = [&](const Totals& part) {
      before.weight += part.weight;
      before.count += part.count;
    };
    int warp = 0;
    for (; warp < kWarps - 1; ++warp) {
      const Totals part{s.warp_sum[warp], s.warp_count[warp]};
      if (reached(part)) break;
      pass(part);
    }
    int bin = warp * kWarpBins;
    for (; bin < warp * kWarpBins + kWarpBins - 1 && !reached(bin_of(s, bin)); ++bin) pass(bin_of(s, bin));
    // The digits before this one stay, those after it are all ones.
    const int end = digit.shift + digit.bits;
    const uint32_t before_digit = level % 3 == 0 ? 0 : row.limit.word(digit.word) >> end << end;
    const uint32_t word =
        before_digit | static_cast<uint32_t>(bin) << digit.shift | ((1u << digit.shift) - 1);
    (digit.word == 0 ? row.limit.distance : digit.word == 1 ? row.limit.key : row.limit.id) = word;
    const Totals last = bin_of(s, bin);
    if (last.count == 1 || (by_count && before.count + last.count == count))
      return before.weight + last.weight;
    ++level;
  }
  return before.weight;
}

// The id at which the sum of kept weights, ascending, exceeds the drawn part of it.
template <bool kLimited>
__device__ int32_t find_drawn(const Row& row, Shared& s, uint64_t draw) {
  int32_t first = 0, end = row.vocab;
  uint64_t left = 0;
  // Parts begin at multiples of 32.
  for (bool whole = true; whole || end - first > kWarp; whole = false) {
    const int32_t part = (end - first + kWarps * kWarp - 1) / (kWarps * kWarp) * kWarp;
    const auto begin_of = [&](int warp) {
      const int64_t begin = first + int64_t{part} * warp;
      return begin < end ? static_cast<int32_t>(begin) : end;
    };
    const int warp = threadIdx.x / kWarp;
    uint64_t sum = 0;
    each<kWarp>(row, begin_of(warp), begin_of(warp + 1), [&](int32_t id, float logit, bool allowed) {
      sum += row.kept_weight<kLimited>(id, logit, allowed);
    });
    share_sums(s, sum, 0);
    if (whole) left = sample_part(all_sums(s).weight, draw);
    int found = 0;
    for (; found < kWarps - 1 && left >= s.warp_sum[found]; ++found) left -= s.warp_sum[found];
    const int32_t next = begin_of(found);
    end = begin_of(found + 1);
    first = next;
  }
  // Every warp looks at the same 32.
  const int32_t id = first + static_cast<int32_t>(threadIdx.x % kWarp);
  uint64_t sum = 0;
  if (id < end)
    sum = row.kept_weight<kLimited>(id, row.logits[id], row.allowed[id / kWarp] >> id % kWarp & 1);
  for (int lanes = 1; lanes < kWarp; lanes *= 2) {
    const uint64_t lower = shuffle_up(sum, lanes);
    if (threadIdx.x % kWarp >= static_cast<unsigned>(lanes)) sum += lower;
  }
  return first + __ffs(static_cast<int>(__ballot_sync(kAllLanes, left < sum))) - 1;
}

__global__ void __launch_bounds__(kThreads) sample_kernel(SampleRowsArgs a) {
  Shared& s = *reinterpret_cast<Shared*>(shared_memory());
  const SampleRow& how = a.row[blockIdx.x];
  float* const logits = a.logits + int64_t{blockIdx.x} * a.vocab;
  // Biases lie in the row while this runs: a token has one at most.
  for (int i = threadIdx.x; i < how.bias_count; i += kThreads) {
    const TokenBias bias = a.bias[how.bias_first + i];
    a.unbiased[how.bias_first + i] = logits[bias.token];
    logits[bias.token] += bias.bias;
  }
  __syncthreads();
  Row row{logits, a.allowed, static_cast<int32_t>(a.vocab), 0, how.scale, how.least, {kNone, kNone, kNone}};
  const uint64_t best = find_best(row, s);
  int32_t token = best == 0 ? -1 : a.first_allowed;
  if (best > kNone) {
    token = static_cast<int32_t>(kNone - static_cast<uint32_t>(best));
    row.best = logits[token];
    if (how.scale > 0 && __float_as_uint(row.best) != 0x7F800000u) {
      uint64_t whole = 0;
      if (how.top_k < row.vocab) whole = find_limit(row, s, static_cast<uint32_t>(how.top_k), 0, 0);
      if (how.top_p != 0) find_limit(row, s, 0, how.top_p, whole);
      token = row.limit.distance == kNone ? find_drawn<false>(row, s, how.draw)
                                          : find_drawn<true>(row, s, how.draw);
    }
  }
  if (threadIdx.x == 0) a.token[blockIdx.x] = token;
  __syncthreads();
  for (int i = threadIdx.x; i < how.bias_count; i += kThreads) {
    logits[a.bias[how.bias_first + i].token] = a.unbiased[how.bias_first + i];
  }
}

}  // namespace

void launch_sample(const SampleRowsArgs& a, Stream stream) {
  launch(sample_kernel, {a.rows}, kThreads, sizeof(Shared), stream, a);
}

}  // namespace dsv::cuda
