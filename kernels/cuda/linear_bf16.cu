// A bf16 weight of few outputs times many rows of bf16 input on Hopper, for the `fast` schedule, in other
// bits than linear_many.cu's: the router's (256 outputs), the weights of the indexer's heads (64).
//
// Precision: the tensor cores add the products of a block of 64 columns in f32, and blocks are added in f32.
//
// Bound: what a processor takes from the L2 cache, some 64 bytes a cycle. A tile of 128 rows and 64 outputs
// takes 24 KB a block of columns, 384 cycles (its products 256): 4096 rows of 7168 x 256 are a tile for each
// of 128 processors, 43,000 cycles or 25 us. Where tiles of 128 rows would leave processors without one, two
// groups of warps share one of 64 rows and take its blocks in turns.
#include "kernels/cuda/linear_fp8.cuh"

namespace dsv::cuda {
namespace {

constexpr int kOutputs = 64, kGroups = 2, kConsumers = kGroups * kGroupThreads, kThreads = kConsumers + kWarp;
constexpr int kSums = kOutputs / 2;

struct Bf16Args {
  TensorMap x, weight;
  TensorArgs a;
};

// kByRows: groups have rows of their own; or else the columns' blocks in turns.
template <bool kByRows>
struct Form {
  static constexpr int kRows = kByRows ? kGroups * kMapRows : kMapRows;
  static constexpr int kInput = kRows * static_cast<int>(kTensorBlock), kStage = kInput + kBoxBytes;
  static constexpr int kStages = 8, kReaders = (kByRows ? kGroups : 1) * kGroupThreads / kWarp;
  static constexpr int kOther = kStages * (kStage + 16);  // the second group's sums lie here
  static constexpr int kShared = 1024 + kOther + (kByRows ? 0 : 4 * kSums * kGroupThreads);
};

template <bool kByRows>
__global__ void __launch_bounds__(kThreads, 1)
    bf16_kernel([[maybe_unused]] const __grid_constant__ Bf16Args args) {
#ifdef DSV_HOPPER
  using namespace hopper;
  using F = Form<kByRows>;
  const TensorArgs& a = args.a;
  const uint32_t stages = (shared_address(shared_memory()) + 1023) / 1024 * 1024;
  const auto full = [&](int stage) { return stages + F::kStages * F::kStage + 8 * stage; };
  const auto empty = [&](int stage) { return full(F::kStages) + 8 * stage; };
  if (threadIdx.x == 0) {
    for (int s = 0; s < F::kStages; ++s) barrier_init(full(s), 1), barrier_init(empty(s), F::kReaders);
    fence_barriers();
  }
  __syncthreads();
  const int blocks = tensor_blocks(a.pitch);
  const auto first_row = static_cast<int32_t>(blockIdx.x) * F::kRows,
             first_output = static_cast<int32_t>(blockIdx.y) * kOutputs;
  if (threadIdx.x >= kConsumers) {
    if (threadIdx.x != kConsumers) return;
    for (int block = 0; block < blocks; ++block) {
      const int stage = block % F::kStages, column = block * static_cast<int>(kTensorBlock);
      const uint32_t to = stages + stage * F::kStage;
      barrier_wait(empty(stage), (block / F::kStages & 1) ^ 1);
      barrier_expect(full(stage), F::kStage);
      copy_box(to, &args.x, column, first_row, full(stage));
      copy_box(to + F::kInput, &args.weight, column, first_output, full(stage));
    }
    return;
  }
  const int group = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kGroupThreads, 0);
  const int lane = threadIdx.x % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp % 4;
  const auto rows0 = static_cast<uint32_t>(swizzled_descriptor(stages + (kByRows ? group * kBoxBytes : 0))),
             weights0 = static_cast<uint32_t>(swizzled_descriptor(stages + F::kInput));
  float sum[kSums] = {};
  for (int block = kByRows ? 0 : group; block < blocks; block += kByRows ? 1 : kGroups) {
    const int stage = block % F::kStages;
    const auto offset = static_cast<uint32_t>(stage * (F::kStage >> 4));
    barrier_wait(full(stage), block / F::kStages & 1);
    float part[kSums];
    forget(part);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; ++k)
      wgmma_shared<true>(part, rows0 + offset + 2 * k, weights0 + offset + 2 * k, k);
    wgmma_commit();
    wgmma_wait<0>(part);
    __syncwarp();
    if (lane == 0) barrier_arrive(empty(stage));
#pragma unroll
    for (int i = 0; i < kSums; ++i) sum[i] += part[i];
  }
  if constexpr (!kByRows) {
    const uint32_t other = stages + F::kOther + 4 * (threadIdx.x % kGroupThreads);
    if (group == 1) {
#pragma unroll
      for (int i = 0; i < kSums; ++i) store_shared(other + 4 * kGroupThreads * i, sum[i]);
    }
    named_barrier(1, kConsumers);
    if (group == 1) return;
#pragma unroll
    for (int i = 0; i < kSums; ++i) sum[i] += load_shared(other + 4 * kGroupThreads * i);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int64_t row = first_row + (kByRows ? group * kMapRows : 0) + warp * 16 + lane / 4 + 8 * r;
    store_row<false>(a, sum, r, row, row < a.rows, first_output);
  }
#endif
}

template <bool kByRows>
void launch_form(const TensorArgs& a, Stream stream) {
  using F = Form<kByRows>;
  static_assert(F::kReaders % (kGroupThreads / kWarp) == 0 && F::kShared <= kMostShared);
  const Bf16Args args = {input_map(a.x, a.rows, F::kRows), weight_map(a.weight, kOutputs), a};
  launch(bf16_kernel<kByRows>, {(a.rows + F::kRows - 1) / F::kRows, (a.outputs + kOutputs - 1) / kOutputs},
         kThreads, F::kShared, stream, args);
}

}  // namespace

bool takes_linear_bf16(const TensorArgs& a) {
  return a.dtype == Dtype::bf16 && a.kind == TensorKind::linear && a.groups == 1 &&
         a.rows >= kBf16LeastRows && a.outputs <= 1024;
}
void launch_linear_bf16_as(const TensorArgs& a, Stream stream, bool by_rows) {
  by_rows ? launch_form<true>(a, stream) : launch_form<false>(a, stream);
}
void launch_linear_bf16(const TensorArgs& a, Stream stream) {
  const int64_t tiles =
      int64_t{(a.rows + Form<true>::kRows - 1) / Form<true>::kRows} * ((a.outputs + kOutputs - 1) / kOutputs);
  launch_linear_bf16_as(a, stream, 4 * tiles > 3 * processors());
}

}  // namespace dsv::cuda
