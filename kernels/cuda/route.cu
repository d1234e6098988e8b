// noaux_tc routing: a block a row, or a warp; and the pairs of few rows by expert.
//
// A block: bound by the launch; E^2 comparisons (65536 for 256 experts) are a few microseconds' latency, and
// of 4096 rows 40 us of the processors' instructions. A warp of a row's scores in registers takes some 700
// instructions, 4096 of which are 4 us.
#include "kernels/cuda/route.cuh"
#include "kernels/cuda/topk_keys.cuh"

namespace dsv::cuda {
namespace {

constexpr int kThreads = 256;

// How many of `n` values go before value `i`: larger ones, and equal ones of lower index.
__device__ __forceinline__ int rank_of(const float* values, int n, int i) {
  const float own = values[i];
  int rank = 0, j = 0;
#pragma unroll 4
  for (; j + 4 <= n; j += 4) {  // `values` is 16-byte aligned
    const float4 four = *reinterpret_cast<const float4*>(values + j);
    rank += four.x > own || (four.x == own && j < i);
    rank += four.y > own || (four.y == own && j + 1 < i);
    rank += four.z > own || (four.z == own && j + 2 < i);
    rank += four.w > own || (four.w == own && j + 3 < i);
  }
  for (; j < n; ++j) rank += values[j] > own || (values[j] == own && j < i);
  return rank;
}

// Shared: score, choice, then choice among the kept groups [experts] each, the groups' scores [groups], and
// the experts that each warp takes, a bit each [experts / 32, rounded up]. A comparison with NaN is false, so
// a row of NaN takes some experts twice and leaves others: its slots are filled from the first expert on, so
// that indices stay valid.
__global__ void route_kernel(RouteRowsArgs a) {
  auto* kept = reinterpret_cast<float*>(shared_memory());
  float* of_group = kept + (a.experts + 3) / 4 * 4;
  float* score = of_group + (a.groups + 3) / 4 * 4;
  float* choice = score + a.experts;
  auto* taken = reinterpret_cast<unsigned*>(choice + a.experts);
  auto* chosen = reinterpret_cast<int32_t*>(taken + (a.experts + kWarp - 1) / kWarp);
  begin_early();
  const int64_t r = blockIdx.x;
  const int group_size = a.experts / a.groups, lane = threadIdx.x % kWarp;

  for (int e = threadIdx.x; e < a.experts; e += blockDim.x) {
    score[e] = 1 / (1 + expf(-a.logits[r * a.experts + e]));
    choice[e] = score[e] + a.bias[e];
  }
  __syncthreads();
  // A warp a group: the sum of its two best (the one best, alone), each lane's first. Maxima do not depend on
  // order.
  for (int g = threadIdx.x / kWarp; g < a.groups; g += blockDim.x / kWarp) {
    const float* member = choice + g * group_size;
    float best = -INFINITY, second = -INFINITY;
    for (int i = lane; i < group_size; i += kWarp) {
      second = fmaxf(second, fminf(best, member[i]));
      best = fmaxf(best, member[i]);
    }
    for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
      const float other = __shfl_xor_sync(kAllLanes, best, lanes);
      second = fmaxf(fmaxf(second, __shfl_xor_sync(kAllLanes, second, lanes)), fminf(best, other));
      best = fmaxf(best, other);
    }
    if (lane == 0) of_group[g] = group_size == 1 ? best : best + second;
  }
  __syncthreads();
  for (int e = threadIdx.x; e < a.experts; e += blockDim.x) {
    kept[e] = rank_of(of_group, a.groups, e / group_size) < a.kept_groups ? choice[e] : -INFINITY;
  }
  __syncthreads();
  const int words = (a.experts + kWarp - 1) / kWarp;
  for (int w = threadIdx.x / kWarp; w < words; w += blockDim.x / kWarp) {
    const int e = w * kWarp + lane;
    // A warp of groups that are not kept has none: at least k others go before.
    const bool candidate = e < a.experts && !(kept[e] == -INFINITY);
    unsigned bits = __ballot_sync(kAllLanes, candidate);
    if (bits != 0) bits = __ballot_sync(kAllLanes, candidate && rank_of(kept, a.experts, e) < a.k);
    if (lane == 0) taken[w] = bits;
  }
  __syncthreads();
  // In ascending order.
  for (int e = threadIdx.x; e < a.experts; e += blockDim.x) {
    const unsigned bits = taken[e / kWarp];
    if (!(bits >> e % kWarp & 1)) continue;
    int before = __popc(bits & ((1u << e % kWarp) - 1));
    for (int w = 0; w < e / kWarp; ++w) before += __popc(taken[w]);
    if (before < a.k) chosen[before] = e;
  }
  __syncthreads();
  if (threadIdx.x >= kWarp) return;
  int count = 0;
  for (int w = 0; w < words; ++w) count += __popc(taken[w]);
  for (int i = count + lane; i < a.k; i += kWarp) chosen[i] = i - count;  // there are k
  __syncwarp();
  float sum = 1e-20f;  // in order, too
  for (int i = 0; i < count && i < a.k; ++i) sum += score[chosen[i]];
  for (int i = lane; i < a.k; i += kWarp) {
    a.expert[r * a.k + i] = chosen[i];
    a.weight[r * a.k + i] = static_cast<float>(score[chosen[i]] / (a.normalise ? sum : 1.0f) * a.scale);
  }
}

// A warp a row. A lane's j-th expert is 32 j + lane, so a group of whole warps' experts is all lanes' of some
// j. A row of NaN has any experts, but k of them.
constexpr int kMostEach = kWarpExperts / kWarp, kWarps = kThreads / kWarp;
constexpr uint32_t kTaken = 0, kNotKept = 1, kLeastKey = 2;  // choices' keys are no less

__global__ void __launch_bounds__(kThreads) route_by_warp_kernel(RouteRowsArgs a) {
  begin_early();
  const int lane = threadIdx.x % kWarp;
  const int64_t r = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (r >= a.rows) return;
  const int each = a.experts / kWarp, of_a_group = each / a.groups;
  float score[kMostEach];
  uint32_t key[kMostEach] = {};
#pragma unroll
  for (int j = 0; j < kMostEach; ++j) {
    if (j >= each) break;
    const int e = j * kWarp + lane;
    score[j] = 1 / (1 + expf(-a.logits[r * a.experts + e]));
    key[j] = key_of(score[j] + a.bias[e]);
    if (key[j] < kLeastKey) key[j] = kLeastKey;
  }
  // Lane g: the sum of group g's two best.
  float of_group = 0;
  uint32_t best = 0, second = 0;
  int group = 0, within = 0;
#pragma unroll
  for (int j = 0; j < kMostEach; ++j) {
    if (j >= each) break;
    const uint32_t less = key[j] < best ? key[j] : best;
    second = less > second ? less : second;
    best = key[j] > best ? key[j] : best;
    if (++within < of_a_group) continue;
    const uint32_t first = __reduce_max_sync(kAllLanes, best);
    const unsigned holders = __ballot_sync(kAllLanes, best == first);
    const uint32_t next = __reduce_max_sync(kAllLanes, best == first ? second : best);
    if (lane == group) of_group = score_of(first) + score_of(__popc(holders) > 1 ? first : next);
    best = second = 0, within = 0, ++group;
  }
  int rank = 0;
  for (int g = 0; g < a.groups; ++g) {
    const float other = __shfl_sync(kAllLanes, of_group, g);
    rank += other > of_group || (other == of_group && g < lane);
  }
  const unsigned kept = __ballot_sync(kAllLanes, rank < a.kept_groups);
  group = within = 0;
#pragma unroll
  for (int j = 0; j < kMostEach; ++j) {
    if (j >= each) break;
    if (!(kept >> group & 1)) key[j] = kNotKept;
    if (++within == of_a_group) within = 0, ++group;
  }
  for (int i = 0; i < a.k; ++i) {  // the best that is left, of equal ones the first
    uint32_t mine = 0;
    int at = 0;
#pragma unroll
    for (int j = 0; j < kMostEach; ++j) {
      if (key[j] > mine) mine = key[j], at = j;
    }
    const uint32_t most = __reduce_max_sync(kAllLanes, mine);
    const auto e = static_cast<uint32_t>(at * kWarp + lane);
    const uint32_t winner = __reduce_min_sync(kAllLanes, mine == most ? e : ~0u);
#pragma unroll
    for (int j = 0; j < kMostEach; ++j) {
      if (e == winner && j == at) key[j] = kTaken;
    }
  }
  auto* const chosen =
      reinterpret_cast<int32_t*>(shared_memory()) + threadIdx.x / kWarp * 2 * kWarp;  // ascending
  auto* const scores = reinterpret_cast<float*>(chosen + kWarp);
  int before = 0;
#pragma unroll
  for (int j = 0; j < kMostEach; ++j) {
    if (j >= each) break;
    const unsigned taken = __ballot_sync(kAllLanes, key[j] == kTaken);
    const int at = before + __popc(taken & ((1u << lane) - 1));
    if (taken >> lane & 1) chosen[at] = j * kWarp + lane, scores[at] = score[j];
    before += __popc(taken);
  }
  __syncwarp();
  float sum = 1e-20f;  // in order
  for (int i = 0; i < a.k; ++i) sum += scores[i];
  if (lane >= a.k) return;
  a.expert[r * a.k + lane] = chosen[lane];
  a.weight[r * a.k + lane] = static_cast<float>(scores[lane] / (a.normalise ? sum : 1.0f) * a.scale);
}

// A block; a thread a pair.
__global__ void __launch_bounds__(kFewPairs) group_few_kernel(GroupArgs a) {
  begin_early();
  auto* const expert = reinterpret_cast<int32_t*>(shared_memory());
  const int p = static_cast<int>(threadIdx.x);
  if (p < a.rows * a.k) expert[p] = a.expert[p];
  group_pairs(a, expert, reinterpret_cast<unsigned*>(expert + kFewPairs));
}

}  // namespace

int64_t route_shared_bytes(int32_t experts, int32_t groups) {
  return 4 * (4 * int64_t{experts} + groups + 6 + (experts + 31) / 32);
}

bool takes_route_by_warp(const RouteRowsArgs& a) {
  return a.experts <= kWarpExperts && a.experts % (a.groups * kWarp) == 0 && a.k <= kWarp && a.k <= a.experts;
}
void launch_route_by_warp(const RouteRowsArgs& a, Stream stream) {
  launch(route_by_warp_kernel, {(a.rows + kWarps - 1) / kWarps, 1, 1, true}, kThreads, kWarps * 2 * kWarp * 4,
         stream, a);
}

void launch_route(const RouteRowsArgs& a, Stream stream) {
  if (a.rows >= kWarpRows && takes_route_by_warp(a)) return launch_route_by_warp(a, stream);
  launch_route_by_block(a, stream);
}
void launch_route_by_block(const RouteRowsArgs& a, Stream stream) {
  launch(route_kernel, {a.rows, 1, 1, true}, kThreads, route_shared_bytes(a.experts, a.groups), stream, a);
}

void launch_group_few(const GroupArgs& a, Stream stream) {
  const int threads = (a.rows * a.k + kWarp - 1) / kWarp * kWarp;
  launch(group_few_kernel, {1, 1, 1, true}, threads, 4 * (kFewPairs + kPairWords), stream, a);
}

}  // namespace dsv::cuda
