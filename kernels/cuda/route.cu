// noaux_tc routing: a block a row. Bound by the launch; E^2 comparisons (65536 for 256 experts) are a few
// microseconds' latency.
#include "kernels/cuda/cuda.h"

namespace dsv::cuda {
namespace {

constexpr int kThreads = 256;

// How many of `n` values go before value `i`: larger ones, and equal ones of lower index.
__device__ __forceinline__ int rank_of(const float* values, int n, int i) {
  int rank = 0;
#pragma unroll 8
  for (int j = 0; j < n; ++j) rank += values[j] > values[i] || (values[j] == values[i] && j < i);
  return rank;
}

// Shared: score, choice, then choice among the kept groups [experts] each, the groups' scores [groups], and
// the experts that each warp takes, a bit each [experts / 32, rounded up]. A comparison with NaN is false, so
// a row of NaN takes some experts twice and leaves others: its slots are filled from the first expert on, so
// that indices stay valid.
__global__ void route_kernel(RouteRowsArgs a) {
  auto* score = reinterpret_cast<float*>(shared_memory());
  float* choice = score + a.experts;
  float* kept = choice + a.experts;
  float* of_group = kept + a.experts;
  auto* taken = reinterpret_cast<unsigned*>(of_group + a.groups);
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
    const unsigned bits = __ballot_sync(kAllLanes, e < a.experts && rank_of(kept, a.experts, e) < a.k);
    if (lane == 0) taken[w] = bits;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  // In ascending order, and the sum too.
  int32_t* expert = a.expert + r * a.k;
  float* weight = a.weight + r * a.k;
  int count = 0;
  float sum = 1e-20f;
  for (int w = 0; w < words && count < a.k; ++w) {
    for (unsigned bits = taken[w]; bits != 0 && count < a.k; bits &= bits - 1) {
      const int e = w * kWarp + __ffs(static_cast<int>(bits)) - 1;
      sum += score[e];
      expert[count++] = e;
    }
  }
  for (int e = 0; count < a.k; ++e) expert[count++] = e;
  for (int i = 0; i < a.k; ++i) {
    weight[i] = static_cast<float>(score[expert[i]] / (a.normalise ? sum : 1.0f) * a.scale);
  }
}

}  // namespace

int64_t route_shared_bytes(int32_t experts, int32_t groups) {
  return 4 * (3 * int64_t{experts} + groups + (experts + 31) / 32);
}

void launch_route(const RouteRowsArgs& a, Stream stream) {
  launch(route_kernel, {a.rows}, kThreads, route_shared_bytes(a.experts, a.groups), stream, a);
}

}  // namespace dsv::cuda
