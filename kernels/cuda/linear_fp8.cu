// Linears and FFNs for many rows of e4m3 input on Hopper's FP8 tensor cores: for the `fast` schedule, in
// other bits than linear_wgmma.cu's.
//
// Precision: the FP8 tensor core aligns a step's 32 products and the sum so far to the largest exponent among
// them and drops what lies below its 13th binary place; then the sum's own 13th (a model of it, in
// bench/linear_check.cu, gives what an H200 gave within 1.4e-7 of the products' sizes). So a step loses at
// most 34 places 2^-13 as large as its largest term: 34 * 4 * 2^-13 = 1.7% of the largest product or partial
// sum for the 4 steps of a block of 128 columns at the very worst; random codes of every exponent gave 6e-4
// of the sum of products' sizes. Blocks are scaled and added in f32. The released model was trained and is
// served with these sums.
//
// Bound: the tensor cores, 1024 cycles for a block of 256 x 128 x 128 (4096 rows of 7168 x 16384: 0.96 PFLOP,
// 0.53 ms at 1.75 GHz). Shared memory has 1130 cycles' work with it: 48 KB come, each of four products reads
// 8 KB of input and 16 KB of weights. L2 gives 48 KB, 10 TB/s, which is more than the 8.8 that it was seen to
// give: 0.65 ms. Measured 0.89 ms: without the scaling 0.79, without copies too 0.69. Output is f32: 4096 x
// 24576 are 0.4 GB. Experts: every weight is read once, for all its rows up to 256: 7.5 GB for gate and up of
// 256, 2.5 ms at 3 TB/s.
#include "kernels/cuda/tensor.cuh"

#if defined(DSV_CUDA_EMULATION) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define DSV_HOPPER
#include "kernels/cuda/hopper.cuh"
#endif

namespace dsv::cuda {
namespace {

constexpr int kBoxBytes = kMapRows * static_cast<int>(kTensorBlock);
constexpr int kInputBoxes = kFp8Rows / kMapRows, kWeightBoxes = 2, kTileOutputs = kWeightBoxes * kMapRows;
constexpr int kStages = 4, kStageBytes = (kInputBoxes + kWeightBoxes) * kBoxBytes;
constexpr int kGroups = 2, kGroupThreads = 128, kConsumers = kGroups * kGroupThreads;
constexpr int kThreads = kConsumers + kGroupThreads;  // and a group of which one thread has things copied
[[maybe_unused]] constexpr int kTurns =
    kInputBoxes / kGroups;  // boxes of input that a group multiplies one after another
constexpr int64_t kSharedBytes = 1024 + int64_t{kStages} * (kStageBytes + 16);
[[maybe_unused]] constexpr int kTilesTogether = 8;

struct Fp8Args {
  TensorMap x, weight;  // weight: of a linear; FFNs bring theirs
  TensorArgs a;
  int32_t row_tiles, columns;  // columns: tiles of outputs
};

#ifdef DSV_HOPPER

using namespace hopper;

struct Ring {
  uint32_t stages;  // address of stages, then barriers
  int stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ uint32_t input() const { return stages + stage * kStageBytes; }
  __device__ __forceinline__ uint32_t full(int s) const { return stages + kStages * kStageBytes + 8 * s; }
  __device__ __forceinline__ uint32_t empty(int s) const { return full(kStages) + 8 * s; }
  __device__ __forceinline__ void next() {
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
};

// For SwiGLU half of a tile's outputs are of gate, half of up.
template <bool kSwiglu>
__device__ __forceinline__ void produce(const Fp8Args& args, const ExpertTile& tile, int32_t output,
                                        int blocks, Ring& ring) {
  const TensorArgs& a = args.a;
  const int boxes = (tile.count + kMapRows - 1) / kMapRows;
  const TensorMap *first = &args.weight, *second = first;
  if (a.kind == TensorKind::down) {
    first = second = &a.ffn[tile.expert].down_map;
  } else if (a.kind == TensorKind::swiglu) {
    first = &a.ffn[tile.expert].gate_map, second = &a.ffn[tile.expert].up_map;
  }
  if (a.kind != TensorKind::linear) {
    acquire_map(first);
    if (second != first) acquire_map(second);
  }
  for (int block = 0; block < blocks; ++block, ring.next()) {
    const int32_t column = block * static_cast<int32_t>(kTensorBlock);
    const uint32_t ready = ring.full(ring.stage), weights = ring.input() + kInputBoxes * kBoxBytes;
    barrier_wait(ring.empty(ring.stage), ring.parity ^ 1);
    barrier_expect(ready, (boxes + kWeightBoxes) * kBoxBytes);
    for (int box = 0; box < boxes; ++box) {
      copy_box(ring.input() + box * kBoxBytes, &args.x, column, tile.begin + box * kMapRows, ready);
    }
    copy_box(weights, first, column, output, ready);
    copy_box(weights + kBoxBytes, second, column, kSwiglu ? output : output + kMapRows, ready);
  }
}

// A group has every second box of 64 rows. Sums 4 i + 2 r + c are of row g + 8 r of a warp's 16 and of output
// 8 i + 2 t
// + c.
template <bool kSwiglu>
__device__ __forceinline__ void consume(const Fp8Args& args, const ExpertTile& tile, int32_t first_output,
                                        int blocks, Ring& ring) {
  const TensorArgs& a = args.a;
  const int group = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kGroupThreads, 0);
  const int warp = static_cast<int>(threadIdx.x) / kWarp % 4, lane = threadIdx.x % kWarp, g = lane / 4,
            t = lane % 4;
  const uint64_t weights0 = swizzled_descriptor(ring.stages + kInputBoxes * kBoxBytes),
                 rows0 = swizzled_descriptor(ring.stages + group * kBoxBytes);
  const int32_t scale_row = first_output < a.outputs ? first_output / static_cast<int32_t>(kQuantBlock) : 0;
  const float *w_scale, *up_scale = nullptr;
  if constexpr (kSwiglu) {
    const WeightView &gate = a.ffn[tile.expert].gate, &up = a.ffn[tile.expert].up;
    w_scale = gate.scale + scale_row * gate.scale_cols;
    up_scale = up.scale + scale_row * up.scale_cols;
  } else {
    const WeightView& w = a.kind == TensorKind::down ? a.ffn[tile.expert].down : a.weight;
    w_scale = w.scale + scale_row * w.scale_cols;
  }
  const int mine = group * kMapRows + warp * 16 + g;  // the first of this lane's rows
  const float* x_scale[kTurns][2];
#pragma unroll
  for (int h = 0; h < kTurns; ++h) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = h * kGroups * kMapRows + mine + 8 * r;
      x_scale[h][r] = a.x.scale + (tile.begin + (row < tile.count ? row : 0)) * a.x.scale_cols;
    }
  }
  float next_x[kTurns][2], next_w[2] = {};
  const auto load_scales = [&](int block) {
#pragma unroll
    for (int h = 0; h < kTurns; ++h) {
      next_x[h][0] = __ldg(x_scale[h][0] + block), next_x[h][1] = __ldg(x_scale[h][1] + block);
    }
    next_w[0] = __ldg(w_scale + block);
    if (kSwiglu) next_w[1] = __ldg(up_scale + block);
  };
  load_scales(0);
  float sum[kTurns][64];
#pragma unroll
  for (auto& box : sum) {
#pragma unroll
    for (float& s : box) s = 0;
  }
  for (int block = 0; block < blocks; ++block, ring.next()) {
    float x[kTurns][2];
#pragma unroll
    for (int h = 0; h < kTurns; ++h) x[h][0] = next_x[h][0], x[h][1] = next_x[h][1];
    const float w[2] = {next_w[0], kSwiglu ? next_w[1] : next_w[0]};
    load_scales(block + 1 < blocks ? block + 1 : block);
    const uint64_t stage = static_cast<uint32_t>(ring.stage * (kStageBytes >> 4));
    barrier_wait(ring.full(ring.stage), ring.parity);
#pragma unroll
    for (int h = 0; h < kTurns; ++h) {
      const int box = h * kGroups + group;
      const bool any = box * kMapRows < tile.count, more = (box + kGroups) * kMapRows < tile.count;
      if (!any && h > 0) break;
      float part[64];
      if (any) {
        const uint64_t rows = rows0 + stage + h * (kGroups * kBoxBytes >> 4), weights = weights0 + stage;
        forget(part);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; ++k) wgmma_e4m3(part, rows + 2 * k, weights + 2 * k, k);
        wgmma_commit();
        wgmma_wait<0>(part);
      }
      if (h + 1 == kTurns || !more) {  // done with the stage
        __syncwarp();
        if (lane == 0) barrier_arrive(ring.empty(ring.stage));
      }
      if (!any) break;
      const float factor[2][2] = {{x[h][0] * w[0], x[h][1] * w[0]}, {x[h][0] * w[1], x[h][1] * w[1]}};
#pragma unroll
      for (int i = 0; i < 64; ++i) sum[h][i] = fmaf(part[i], factor[i / 32][i / 2 % 2], sum[h][i]);
    }
  }

  // Lanes swap so that each has four neighbouring outputs of every second block of 8.
  const bool aligned = a.y_stride % 4 == 0 && reinterpret_cast<uintptr_t>(a.y) % 16 == 0, odd = t % 2;
  constexpr int kOutputs = kSwiglu ? kMapRows : kTileOutputs;
#pragma unroll
  for (int h = 0; h < kTurns; ++h) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = h * kGroups * kMapRows + mine + 8 * r;
      float* const y = a.y + (tile.begin + row) * a.y_stride;
#pragma unroll
      for (int p = 0; p < kOutputs / 16; ++p) {
        float v[2][2];
#pragma unroll
        for (int b = 0; b < 2; ++b) {
#pragma unroll
          for (int c = 0; c < 2; ++c) {
            const int i = (2 * p + b) * 4 + 2 * r + c;
            const float s = (kSwiglu ? swiglu(sum[h][i], sum[h][i + 32 * kSwiglu]) : sum[h][i]) * a.factor;
            v[b][c] = a.to_bf16 ? round_bf16(s) : s;
          }
        }
        const float other0 = __shfl_xor_sync(kAllLanes, odd ? v[0][0] : v[1][0], 1);
        const float other1 = __shfl_xor_sync(kAllLanes, odd ? v[0][1] : v[1][1], 1);
        const float four[4] = {odd ? other0 : v[0][0], odd ? other1 : v[0][1], odd ? v[1][0] : other0,
                               odd ? v[1][1] : other1};
        const int64_t output = first_output + (2 * p + odd) * 8 + 2 * (t & 2);
        if (row < tile.count && aligned && output + 3 < a.outputs) {
          *reinterpret_cast<float4*>(y + output) = {four[0], four[1], four[2], four[3]};
        } else {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            if (row < tile.count && output + i < a.outputs) y[output + i] = four[i];
          }
        }
      }
    }
  }
}
#endif

// Persistent blocks, one a processor.
template <bool kSwiglu>
__global__ void __launch_bounds__(kThreads, 1)
    fp8_kernel([[maybe_unused]] const __grid_constant__ Fp8Args args) {
#ifdef DSV_HOPPER
  Ring ring;
  ring.stages = (shared_address(shared_memory()) + 1023) / 1024 * 1024;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      barrier_init(ring.full(s), 1);
      barrier_init(ring.empty(s), kConsumers / kWarp);
    }
    barriers_ready();
  }
  __syncthreads();
  const TensorArgs& a = args.a;
  const int blocks = tensor_blocks(a.pitch);
  const int32_t row_tiles = a.tiles ? *a.n_tiles : args.row_tiles;
  const auto for_tiles = [&](auto&& body) {
    for (auto at = static_cast<int32_t>(blockIdx.x); at < row_tiles * args.columns;
         at += static_cast<int32_t>(gridDim.x)) {
      const TilePlace place = tile_place(at, row_tiles, args.columns, a.tiles ? 1 : kTilesTogether);
      const int32_t begin = place.row_tile * kFp8Rows;
      body(a.tiles ? a.tiles[place.row_tile]
                   : ExpertTile{0, begin, a.rows - begin < kFp8Rows ? a.rows - begin : kFp8Rows},
           place.column * (kSwiglu ? kMapRows : kTileOutputs));
    }
  };
  if (threadIdx.x >= kConsumers) {
    give_registers<40>();
    if (threadIdx.x == kConsumers) {
      for_tiles([&](const ExpertTile& tile, int32_t output) {
        produce<kSwiglu>(args, tile, output, blocks, ring);
      });
    }
  } else {
    take_registers<232>();
    for_tiles(
        [&](const ExpertTile& tile, int32_t output) { consume<kSwiglu>(args, tile, output, blocks, ring); });
  }
#endif
}

}  // namespace

void launch_tensor_fp8(const TensorArgs& a, Stream stream) {
  const bool swiglu = a.kind == TensorKind::swiglu;
  const int64_t outputs = swiglu ? kMapRows : kTileOutputs;
  Fp8Args args = {};
  args.x = input_map(a.x, a.rows);
  if (a.kind == TensorKind::linear) args.weight = weight_map(a.weight);
  args.a = a;
  args.row_tiles = (a.rows + kFp8Rows - 1) / kFp8Rows;
  args.columns = static_cast<int32_t>((a.outputs + outputs - 1) / outputs);
  const int64_t tiles = int64_t{a.tiles ? a.tile_bound : args.row_tiles} * args.columns;
  launch(swiglu ? fp8_kernel<true> : fp8_kernel<false>, {tiles < processors() ? tiles : processors()},
         kThreads, kSharedBytes, stream, args);
}

}  // namespace dsv::cuda
