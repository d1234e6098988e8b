// noaux_tc routing of few rows in one launch: the router's linear, the choice and the pairs by expert, in the
// bits of linear_few.cu and route.cu.
//
// Bound: latency. The router's bf16 weight (256 x 7168, 3.7 MB) is in registers before the launch before has
// ended; from there on input, four mmas, a sum over a block's warps and one over blocks, which the last block
// to arrive makes, with all that follows: a warp a row, an expert or eight a lane.
#include "kernels/cuda/route.cuh"
#include "kernels/cuda/tensor.cuh"
#include "kernels/cuda/topk_keys.cuh"

namespace dsv::cuda {
namespace {

// A warp has one block of kTensorBlock bytes of the columns of 16 experts.
constexpr int kMostWarps = 16, kMostExperts = 256, kPerLane = kMostExperts / kWarp, kMostChosen = kWarp;
constexpr int kMostSplits = 8;
static_assert(kRouteFewRows == kMmaCols);

struct Shared {
  float parts[kMostWarps][kMmaCols][kMmaRows];
  float logit[kRouteFewRows][kMostExperts], of_group[kRouteFewRows][kMostExperts];
  float score[kRouteFewRows][kMostChosen];
  int32_t expert[kRouteFewRows * kMostChosen];
  unsigned begins[kPairWords];
  unsigned last;
};

#ifdef DSV_CUDA_EMULATION
inline void fence() {}
inline float load_written(const float* at) { return *at; }
#else
__device__ __forceinline__ void fence() { __threadfence(); }
__device__ __forceinline__ float load_written(const float* at) { return __ldcg(at); }
#endif

// The rows' logits from the blocks' parts: the splits in order.
__device__ __forceinline__ void add_parts(const RouteFewArgs& args, Shared& s) {
  const int experts = args.route.experts, splits = static_cast<int>(gridDim.y);
  for (int i = threadIdx.x; i < args.route.rows * experts; i += static_cast<int>(blockDim.x)) {
    const int r = i / experts, e = i % experts;
    const float* const at = args.parts + int64_t{r} * splits * experts + e;
    float part[kMostSplits], sum = 0;
#pragma unroll
    for (int split = 0; split < kMostSplits; ++split)
      part[split] = load_written(at + (split < splits ? split : 0) * experts);
#pragma unroll
    for (int split = 0; split < kMostSplits; ++split) {
      if (split < splits) sum += part[split];
    }
    s.logit[r][e] = sum;
  }
}

// Row r's experts, by a warp; expert 32 j + lane is j of the lane.
__device__ __forceinline__ void choose(const RouteFewArgs& args, int r, const float (&bias)[kPerLane],
                                       Shared& s) {
  const RouteRowsArgs& a = args.route;
  const int lane = threadIdx.x % kWarp, group_size = a.experts / a.groups;
  float score[kPerLane], choice[kPerLane], best[kPerLane], second[kPerLane];
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    const int e = j * kWarp + lane;
    score[j] = 1 / (1 + expf(-(e < a.experts ? s.logit[r][e] : 0)));
    choice[j] = e < a.experts ? score[j] + bias[j] : -INFINITY;
    best[j] = choice[j], second[j] = -INFINITY;
  }
  // The sum of a group's two best (the one best, alone).
  for (int lanes = group_size / 2; lanes > 0; lanes /= 2) {
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const float other = __shfl_xor_sync(kAllLanes, best[j], lanes);
      second[j] =
          fmaxf(fmaxf(second[j], __shfl_xor_sync(kAllLanes, second[j], lanes)), fminf(best[j], other));
      best[j] = fmaxf(best[j], other);
    }
  }
  float* const of_group = s.of_group[r];
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    const int e = j * kWarp + lane;
    if (e < a.experts && e % group_size == 0)
      of_group[e / group_size] = group_size == 1 ? best[j] : best[j] + second[j];
  }
  __syncwarp();
  unsigned key[kPerLane];  // 0: not to be taken
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    const int e = j * kWarp + lane, own = e / group_size;
    key[j] = 0;
    if (e >= a.experts) continue;
    int rank = 0;
    for (int g = 0; g < a.groups; ++g)
      rank += of_group[g] > of_group[own] || (of_group[g] == of_group[own] && g < own);
    if (rank < a.kept_groups && !(choice[j] == -INFINITY)) key[j] = key_of(choice[j]);
  }
  // The largest, one after another; of equal ones the first.
  unsigned taken[kPerLane] = {};
  int count = 0;
  for (; count < a.k; ++count) {
    unsigned largest = 0;
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) largest = key[j] > largest ? key[j] : largest;
    largest = __reduce_max_sync(kAllLanes, largest);
    if (largest == 0) break;
    unsigned e = ~0u;
#pragma unroll
    for (int j = kPerLane - 1; j >= 0; --j)
      e = key[j] == largest ? static_cast<unsigned>(j * kWarp + lane) : e;
    e = __reduce_min_sync(kAllLanes, e);
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      if (e / kWarp != static_cast<unsigned>(j)) continue;
      taken[j] |= 1u << e % kWarp;
      if (e % kWarp == static_cast<unsigned>(lane)) key[j] = 0;
    }
  }
  // In ascending order; there are k.
  int before = 0;
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    const int at = before + __popc(taken[j] & ((1u << lane) - 1));
    if (taken[j] >> lane & 1) s.expert[r * a.k + at] = j * kWarp + lane, s.score[r][at] = score[j];
    before += __popc(taken[j]);
  }
  if (lane < a.k - count) s.expert[r * a.k + count + lane] = lane, s.score[r][count + lane] = score[0];
  __syncwarp();
  float sum = 1e-20f;
  for (int i = 0; i < count; ++i) sum += s.score[r][i];
  if (lane < a.k) {
    a.expert[int64_t{r} * a.k + lane] = s.expert[r * a.k + lane];
    a.weight[int64_t{r} * a.k + lane] =
        static_cast<float>(s.score[r][lane] / (a.normalise ? sum : 1.0f) * a.scale);
  }
}

// Grid: x experts in 16s, y splits of their columns.
__global__ void __launch_bounds__(kMostWarps* kWarp, 2) route_few_kernel(RouteFewArgs a) {
  auto& s = *reinterpret_cast<Shared*>(shared_memory());
  const int tid = static_cast<int>(threadIdx.x), warp = tid / kWarp, lane = tid % kWarp, g = lane / 4,
            t = lane % 4;
  const int split = static_cast<int>(blockIdx.y), splits = static_cast<int>(gridDim.y);
  const int rows = a.route.rows, experts = a.route.experts,
            first_expert = static_cast<int>(blockIdx.x) * kMmaRows;
  const int blocks = tensor_blocks(a.gate.pitch), first = blocks * split / splits,
            own = blocks * (split + 1) / splits - first;
  const uint4 zero = {0, 0, 0, 0};
  uint4 w[kUnits][2] = {}, x[kUnits][1] = {};
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
    const int64_t at = int64_t{first + warp} * kTensorBlock + u * kUnitBytes + 16 * t;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int expert = first_expert + g + 8 * half, row = expert < experts ? expert : experts - 1;
      w[u][half] = warp < own && at < a.gate.pitch ? load_once(a.gate.data + row * a.gate.pitch + at) : zero;
    }
  }
  float bias[kPerLane];
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    const int e = j * kWarp + lane;
    bias[j] = warp < rows && e < experts ? a.route.bias[e] : 0;
  }
  wait_for_last();
  if (warp < own && g < rows) {
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      x[u][0] = *reinterpret_cast<const uint4*>(
          a.x.data + g * a.x.pitch + int64_t{first + warp} * kTensorBlock + u * kUnitBytes + 16 * t);
    }
  }
  MmaSums sums;
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
    Operand<TensorFormat::bf16> a0, a1, b;
    a0.set_weight(w[u][0]);
    a1.set_weight(w[u][1]);
    b.set_input(x[u]);
#pragma unroll
    for (int j = 0; j < Operand<TensorFormat::bf16>::kSteps; ++j)
      add_step<TensorFormat::bf16>(sums, a0, a1, b, j);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) s.parts[warp][2 * t + i % 2][g + i / 2 * 8] = sums.value[i];
  __syncthreads();
  for (int i = tid; i < rows * kMmaRows; i += static_cast<int>(blockDim.x)) {
    const int r = i / kMmaRows, o = i % kMmaRows;
    float part = 0;
    for (int b = 0; b < own; ++b) part += s.parts[b][r][o];
    if (first_expert + o < experts)
      a.parts[(int64_t{r} * splits + split) * experts + first_expert + o] = part;
  }
  __syncthreads();
  if (tid == 0) {
    fence();
    s.last = atomicAdd(a.arrived, 1u) == gridDim.x * gridDim.y - 1;
    fence();
  }
  __syncthreads();
  if (s.last == 0) return;
  if (tid == 0) *a.arrived = 0;  // for the next launch
  let_next_begin();
  add_parts(a, s);
  __syncthreads();
  if (warp < rows) choose(a, warp, bias, s);
  group_pairs(a.group, s.expert, s.begins);
}

}  // namespace

bool takes_route_few(const RouteRowsArgs& a, const WeightView& gate) {
  const int group_size = a.experts / a.groups, splits = tensor_splits(gate.rows, gate.pitch);
  return a.rows <= kRouteFewRows && a.experts <= kMostExperts && a.k <= kMostChosen && group_size <= kWarp &&
         (group_size & (group_size - 1)) == 0 && gate.dtype == Dtype::bf16 &&
         tensor_blocks(gate.pitch) <= splits * kMostWarps;
}

void launch_route_few(const RouteFewArgs& a, Stream stream) {
  const int splits = tensor_splits(a.gate.rows, a.gate.pitch);
  const int blocks = tensor_blocks(a.gate.pitch), own = (blocks + splits - 1) / splits;
  int warps = own > a.route.rows ? own : a.route.rows;  // .. and a thread a pair
  if (warps * kWarp < a.route.rows * a.route.k) warps = (a.route.rows * a.route.k + kWarp - 1) / kWarp;
  launch(route_few_kernel, {(a.route.experts + kMmaRows - 1) / kMmaRows, splits, 1, true}, warps * kWarp,
         sizeof(Shared), stream, a);
}

}  // namespace dsv::cuda
