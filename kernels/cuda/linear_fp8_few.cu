// FP8 sums for up to 128 rows of e4m3 input on Hopper: linear_fp8.cu's products, in tiles of as many outputs
// as give every processor about the same number of the weight's bytes.
//
// Bound: the weight's bytes (dense gate and up of the released model, 36864 x 7168: 264 MB, 64 us at 4.1
// TB/s). A tile is 32 to 96 outputs times 64 rows, of which two groups of warps take every second block of
// columns, or times 128 rows, 64 for each group. The ring of 200 KB has 50 to 120 KB of the weight under way
// for each processor; 31 keep the memory busy at a latency of 1 us. Input comes from L2: 8 KB for each 4 to
// 12 KB of weight.
#include "kernels/cuda/linear_fp8.cuh"

namespace dsv::cuda {
namespace {

constexpr int kConsumers = 2 * kGroupThreads;
constexpr int kThreads = kConsumers + 2 * kWarp;  // and two warps that bring what is to be read
// Of gate and of up: 18432 are 384 tiles, which 132 processors take in three turns.
constexpr int kSwigluOutputs = 48;

// kBoxes of 64 rows times kOutputs rows of the weight (for SwiGLU half of gate, half of up).
template <bool kSwiglu_, int kBoxes_, int kOutputs_>
struct FewFormOf {
  static constexpr bool kSwiglu = kSwiglu_, kAlternate = kBoxes_ == 1;  // groups take every second block
  static constexpr int kBoxes = kBoxes_, kOutputs = kOutputs_, kParts = kSwiglu ? 2 : 1;
  static constexpr int kRows = kBoxes * kMapRows, kStep = kOutputs / kParts, kSums = kOutputs / 2;
  static constexpr int kInput = kBoxes * kBoxBytes, kWeight = kOutputs * static_cast<int>(kTensorBlock),
                       kStage = kInput + kWeight;
  static constexpr int kRowScales = kRows * 4, kScales = kRowScales + 128;
  static constexpr int kReaders = (kAlternate ? kGroupThreads : kConsumers) / kWarp;
  static constexpr int kGiven =
      kAlternate ? kSums * kGroupThreads * 4 : 0;  // one group's sums, for the other
  static constexpr int kStages = (kMostShared - 1024 - 16 - kGiven) / (kStage + kScales + 16);
  static constexpr int kShared = 1024 + 16 + kGiven + kStages * (kStage + kScales + 16);
};

#ifdef DSV_HOPPER

using namespace hopper;

// Behind the ring: barriers of given and taken sums, and the sums.
template <class Form>
struct FewRing : Fp8Ring<Form> {
  __device__ __forceinline__ uint32_t given() const { return this->end(); }
  __device__ __forceinline__ uint32_t taken() const { return this->end() + 8; }
  __device__ __forceinline__ uint32_t sums() const { return this->end() + 16; }
};

// One thread has a tile copied.
template <class Form>
__device__ __forceinline__ void produce(const Fp8Args& args, int32_t first_row, int32_t output, int blocks,
                                        FewRing<Form>& ring) {
  Fp8Source from = source_of<Form, true>(args, 0, first_row);
  for (int block = 0; block < blocks; ++block, ring.next(), from.scale += args.a.x.scale_cols) {
    const int32_t column = block * static_cast<int32_t>(kTensorBlock);
    const uint32_t ready = ring.full(ring.stage);
    barrier_wait(ring.empty(ring.stage), ring.parity ^ 1);
    barrier_expect(ready, Form::kStage + from.scale_bytes);
    copy_box(ring.weight(), from.first, column, output, ready);
    if (Form::kSwiglu) copy_box(ring.weight() + Form::kWeight / 2, from.second, column, output, ready);
    copy_box(ring.input(), &args.x, column, first_row, ready);
    copy_bytes(ring.row_scales(), from.scale, from.scale_bytes, ready);
  }
}

// Of a tile's first outputs, and of those behind the next multiple of 128.
template <class Form>
__device__ __forceinline__ void produce_scales(const Fp8Args& args, int32_t output, int blocks,
                                               FewRing<Form>& ring) {
  const TensorArgs& a = args.a;
  const auto of = [&](const WeightView& w, int part) {
    return scales_from(w, output + part * kQuantBlock, a.outputs);
  };
  if constexpr (Form::kSwiglu) {
    const WeightView &gate = a.ffn->gate, &up = a.ffn->up;
    bring_scales({of(gate, 0), of(gate, 1), of(up, 0), of(up, 1)}, blocks, ring);
  } else {
    const WeightView& w = a.kind == TensorKind::down ? a.ffn->down : a.weight;
    bring_scales({of(w, 0), of(w, 1)}, blocks, ring);
  }
}

// While a product runs, the next one's stage is waited for and its scales are read.
template <class Form>
__device__ __forceinline__ void consume(const Fp8Args& args, int32_t first_row, int32_t first_output,
                                        int blocks, uint32_t tile_parity, FewRing<Form>& ring) {
  constexpr int kSums = Form::kSums, kEights = kSums / 4 / Form::kParts, kBy = Form::kAlternate ? 2 : 1;
  const TensorArgs& a = args.a;
  const int group = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kGroupThreads, 0);
  const int warp = static_cast<int>(threadIdx.x) / kWarp % 4, lane = threadIdx.x % kWarp;
  const int box = Form::kAlternate ? 0 : group;
  const int mine = box * kMapRows + warp * 16 + lane / 4;  // the first of this lane's rows
  const uint64_t rows0 = swizzled_descriptor(ring.stages + box * kBoxBytes),
                 weights0 = swizzled_descriptor(ring.stages + Form::kInput);
  const int former = static_cast<int>(16 - first_output % 128 / 8);  // eights of outputs of the first scale
  struct Scales {
    float2 rows, weight[Form::kParts];  // rows g and g + 8; of the first outputs and of the others
  };
  const auto wait = [&] {
    barrier_wait(ring.full(ring.stage), ring.parity);
    Scales s;
    s.rows = {load_shared(ring.row_scales() + 4 * mine), load_shared(ring.row_scales() + 4 * mine + 32)};
#pragma unroll
    for (int part = 0; part < Form::kParts; ++part) {
      s.weight[part] = load_shared_pair(ring.weight_scales() + 8 * part);
    }
    return s;
  };
  float sum[kSums];
#pragma unroll
  for (float& s : sum) s = 0;
  int block = Form::kAlternate ? group : 0;
  if (block == 1) ring.next();
  Scales next = {};
  if (block < blocks) next = wait();
  for (; block < blocks; block += kBy) {
    const int stage = ring.stage;
    const auto offset = static_cast<uint32_t>(stage * (Form::kStage >> 4));
    float part[kSums];
    forget(part);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; ++k) wgmma_e4m3(part, rows0 + offset + 2 * k, weights0 + offset + 2 * k, k);
    wgmma_commit();
    const Scales now = next;
    ring.next(kBy);
    if (block + kBy < blocks) next = wait();
    wgmma_wait<0>(part);
    __syncwarp();
    if (lane == 0) barrier_arrive(ring.empty(stage));
#pragma unroll
    for (int eight = 0; eight < kSums / 4; ++eight) {
      const float2 scales = now.weight[eight / kEights];
      const float w = eight % kEights < former ? scales.x : scales.y;
#pragma unroll
      for (int i = 4 * eight; i < 4 * eight + 4; ++i) {
        sum[i] = fmaf(part[i], (i / 2 % 2 ? now.rows.y : now.rows.x) * w, sum[i]);
      }
    }
  }
  if constexpr (Form::kAlternate) {
    if (blocks % 2 != group) ring.back();  // to the next tile's first block
    const uint32_t at = ring.sums() + 4 * (threadIdx.x % kGroupThreads);
    if (group == 1) {
      barrier_wait(ring.taken(), tile_parity ^ 1);
#pragma unroll
      for (int i = 0; i < kSums; ++i) store_shared(at + 4 * kGroupThreads * i, sum[i]);
      barrier_arrive(ring.given());
      return;
    }
    barrier_wait(ring.given(), tile_parity);
#pragma unroll
    for (int i = 0; i < kSums; ++i) sum[i] += load_shared(at + 4 * kGroupThreads * i);
    barrier_arrive(ring.taken());
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int64_t row = first_row + mine + 8 * r;
    store_row<Form::kSwiglu>(a, sum, r, row, row < a.rows, first_output);
  }
}
#endif

// Persistent blocks, one a processor.
template <class Form>
__global__ void __launch_bounds__(kThreads, 1)
    few_fp8_kernel([[maybe_unused]] const __grid_constant__ Fp8Args args) {
#ifdef DSV_HOPPER
  FewRing<Form> ring;
  ring.stages = (shared_address(shared_memory()) + 1023) / 1024 * 1024;
  if (threadIdx.x == 0) {
    ring.init();
    barrier_init(ring.given(), kGroupThreads);
    barrier_init(ring.taken(), kGroupThreads);
    fence_barriers();
  }
  __syncthreads();
  const int blocks = tensor_blocks(args.a.pitch), warp = static_cast<int>(threadIdx.x) / kWarp;
  uint32_t tile_parity = 0;
  for (auto at = static_cast<int32_t>(blockIdx.x); at < args.row_tiles * args.columns;
       at += static_cast<int32_t>(gridDim.x), tile_parity ^= 1) {
    const int32_t first_row = at % args.row_tiles * Form::kRows, output = at / args.row_tiles * Form::kStep;
    if (warp < kConsumers / kWarp) {
      consume(args, first_row, output, blocks, tile_parity, ring);
    } else if (warp > kConsumers / kWarp) {
      produce_scales(args, output, blocks, ring);
    } else if (threadIdx.x == kConsumers) {
      produce(args, first_row, output, blocks, ring);
    }
  }
#endif
}

template <bool kSwiglu, int kBoxes, int kOutputs>
void launch_form(const TensorArgs& a, Stream stream) {
  using Form = FewFormOf<kSwiglu, kBoxes, kOutputs>;
  static_assert(Form::kStages >= 4 && Form::kReaders <= kConsumers / kWarp);
  Fp8Args args = {};
  args.x = input_map(a.x, a.rows, Form::kRows);
  if (a.kind == TensorKind::linear) args.weight = weight_map(a.weight, kOutputs);
  args.a = a;
  args.row_tiles = (a.rows + Form::kRows - 1) / Form::kRows;
  args.columns = static_cast<int32_t>((a.outputs + Form::kStep - 1) / Form::kStep);
  const int64_t tiles = int64_t{args.row_tiles} * args.columns;
  launch(few_fp8_kernel<Form>, {tiles < processors() ? tiles : processors()}, kThreads, Form::kShared, stream,
         args);
}
template <bool kSwiglu, int kOutputs>
void launch_boxes(const TensorArgs& a, Stream stream) {
  a.rows <= kMapRows ? launch_form<kSwiglu, 1, kOutputs>(a, stream)
                     : launch_form<kSwiglu, 2, kOutputs>(a, stream);
}

}  // namespace

int fp8_few_outputs(bool swiglu, int64_t outputs) {
  if (swiglu) return kSwigluOutputs;
  int best = 0;
  int64_t least = 0;
  for (const int n : {96, 64, 56, 32}) {
    const int64_t tiles = (outputs + n - 1) / n, most = (tiles + processors() - 1) / processors() * n;
    if (best == 0 || most < least) best = n, least = most;
  }
  return best;
}

void launch_tensor_fp8_few(const TensorArgs& a, Stream stream) {
  if (a.kind == TensorKind::swiglu) return launch_boxes<true, 2 * kSwigluOutputs>(a, stream);
  switch (fp8_few_outputs(false, a.outputs)) {
    case 96:
      return launch_boxes<false, 96>(a, stream);
    case 64:
      return launch_boxes<false, 64>(a, stream);
    case 56:
      return launch_boxes<false, 56>(a, stream);
    default:
      return launch_boxes<false, 32>(a, stream);
  }
}

}  // namespace dsv::cuda
