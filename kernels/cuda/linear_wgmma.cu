// Linears and FFNs for many rows of e4m3 input on Hopper: the copy engine fills a ring of stages in shared
// memory, wgmma multiplies in f16. The bits are those of linear_few.cu and linear_many.cu: the order of
// tensor.cuh, and wgmma's sum of 16 products is mma.sync's (compared on an H200 for operands of every
// exponent: 74 million sums of up to 8 steps, none differs, nor does it with the 16 products in another
// order).
//
// The weight is operand A: a lane's 16-byte loads are its mma fragments, and it converts them (a conversion
// of the weight's tile for 128 rows, where mma.sync has one for 32). The input is operand B, in shared
// memory, in f16 and in the order of the mma steps already (PackedRows::spread).
//
// Bound, many rows: tensor cores in f16, 1024 cycles for a block of 128 x 128 x 128 (4096 rows of 7168 x
// 16384: 0.96 PFLOP, 1.05 ms at 1.75 GHz). Shared memory has 1130 cycles' work with it: 48 KB come, the two
// groups of warps read 16 KB of weights and 32 KB of input each, and scales. L2 gives 48 KB for it, 6.2 TB/s.
// Measured 1.6 to 1.8 ms: a group does not multiply while it converts (some 400 cycles a block: cvt takes 8 a
// warp) and scales, which the other one hides in part. Bound, up to some 100 rows: the weight's bytes, and as
// many again of the input from L2 for each 128 outputs.
#include "kernels/cuda/linear_wgmma.cuh"

namespace dsv::cuda {
namespace {

[[maybe_unused]] constexpr int kTilesTogether = 16;  // of rows, whose weights are read at about the same time
// A tile's outputs: rows of the weight, half of them of gate and half of up for SwiGLU.
constexpr int tile_outputs(bool swiglu) { return swiglu ? kMapRows : 2 * kMapRows; }

struct WgmmaArgs {
  TensorMap x, x_both, scale, weight;  // x: in boxes of 64 rows, and of 128; weight: of a linear
  TensorArgs a;
  int32_t row_tiles, columns, splits;  // columns: tiles of outputs
};

#ifdef DSV_HOPPER

using namespace hopper;

template <int kRows>
__device__ __forceinline__ ExpertTile tile_of(const TensorArgs& a, int32_t at) {
  if (a.tiles) return a.tiles[at];
  const int32_t begin = at * kRows;
  return {0, begin, a.rows - begin < kRows ? a.rows - begin : kRows};
}

// One thread has blocks [first_block, last_block) of a tile copied.
template <bool kSwiglu, class Ring>
__device__ __forceinline__ void produce(const WgmmaArgs& args, const ExpertTile& tile, int32_t output,
                                        int first_block, int last_block, Ring& ring) {
  const TensorArgs& a = args.a;
  const int boxes = tile.count > kMapRows ? 2 : 1;
  const TensorMap *first = &args.weight, *second = first;
  if (a.kind == TensorKind::down) {
    first = second = &a.ffn[tile.expert].maps.down;
  } else if (a.kind == TensorKind::swiglu) {
    first = &a.ffn[tile.expert].maps.gate, second = &a.ffn[tile.expert].maps.up;
  }
  if (a.kind != TensorKind::linear) {
    acquire_map(first);
    if (second != first) acquire_map(second);
  }
  for (int block = first_block; block < last_block; ++block, ring.next()) {
    const int32_t column = block * static_cast<int32_t>(kTensorBlock);
    const uint32_t ready = ring.full(ring.stage);
    barrier_wait(ring.empty(ring.stage), ring.parity ^ 1);
    barrier_expect(ready, (2 + 2 * boxes) * kBoxBytes + 4 * Ring::kScaleRows);
    for (int half = 0; half < 2; ++half) {
      copy_box(ring.input() + half * Ring::kHalf, boxes == 1 ? &args.x : &args.x_both,
               2 * column + half * 128, tile.begin, ready);
    }
    copy_box(ring.scales(), &args.scale, tile.begin & ~3, block, ready);
    copy_box(ring.weight(), first, column, output, ready);
    if (kSwiglu) copy_box(ring.weight() + kBoxBytes, second, column, output, ready);
  }
}

// What a consumer's lane reads of a weight's tile.
template <bool kSwiglu>
struct Lane {
  int g, t, row;      // row of the weight's tile that is a product's row g
  uint32_t at[2][2];  // [unit read first, second][product's row g, g + 8], in a stage
  const float *scale, *up;
  __device__ __forceinline__ Lane(const TensorArgs& a, int32_t expert, int32_t first_output) {
    const int group = static_cast<int>(threadIdx.x) / kGroupThreads;
    const int warp = static_cast<int>(threadIdx.x) / kWarp % 4, lane = threadIdx.x % kWarp;
    g = lane / 4, t = lane % 4;
    // A product's rows g and g + 8 are outputs 2 g and 2 g + 1 of a warp's 16, so that a lane's are
    // neighbours; or the same one of gate and up.
    row = kSwiglu ? 32 * group + 8 * warp + g : kMapRows * group + 16 * warp + 2 * g;
    // Lanes of odd g load the second unit first, so that eight lanes meet all banks.
    for (int u = 0; u < 2; ++u) {
      for (int r = 0; r < 2; ++r) {
        at[u][r] = row * 128 + r * (kSwiglu ? kBoxBytes : 128) +
                   ((4 * ((u ^ g) & 1) + t) ^ ((row + (kSwiglu ? 0 : r)) & 7)) * 16;
      }
    }
    const int32_t scale_row = first_output < a.outputs ? first_output / static_cast<int32_t>(kQuantBlock) : 0;
    if constexpr (kSwiglu) {
      const FfnView& ffn = a.ffn[expert];
      scale = ffn.gate.scale + scale_row * ffn.gate.scale_cols;
      up = ffn.up.scale + scale_row * ffn.up.scale_cols;
    } else {
      const WeightView& w = a.kind == TensorKind::down ? a.ffn[expert].down : a.weight;
      scale = up = w.scale + scale_row * w.scale_cols;
    }
  }
};

// A lane's part of a block of the weight: operand A of its 8 mma steps.
using Fragments = uint32_t[8][4];

template <bool kSwiglu, class Ring>
__device__ __forceinline__ void load_fragments(Fragments& fragment, const Lane<kSwiglu>& lane,
                                               const Ring& ring) {
  barrier_wait(ring.full(ring.stage), ring.parity);
  uint4 raw[2][2];  // [read first, second][row]
#pragma unroll
  for (int u = 0; u < 2; ++u) {
#pragma unroll
    for (int r = 0; r < 2; ++r) raw[u][r] = load_shared_16(ring.weight() + lane.at[u][r]);
  }
  const bool odd = lane.g & 1;
#pragma unroll
  for (int u = 0; u < 2; ++u) {
    Operand<TensorFormat::e4m3> rows[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint4 &x = raw[u][r], &y = raw[u ^ 1][r];
      rows[r].set_weight({odd ? y.x : x.x, odd ? y.y : x.y, odd ? y.z : x.z, odd ? y.w : x.w});
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      uint32_t(&f)[4] = fragment[4 * u + j];
      f[0] = rows[0].low[j], f[1] = rows[1].low[j], f[2] = rows[0].high[j], f[3] = rows[1].high[j];
      keep(f);
    }
  }
}

// part += the tile's product over blocks [first_block, last_block): sums 4 i + 2 r + c are of the lane's
// output r and of row 8 i + 2 t + c of the input. With up to 64 rows there are registers to make the next
// block's fragments while a product is under way. kPairs: the tile's scales are 8-byte aligned.
template <bool kPairs, bool kSwiglu, int kSums, class Ring>
__device__ __forceinline__ void multiply_as(float (&part)[kSums], const Lane<kSwiglu>& lane, int32_t begin,
                                            int first_block, int last_block, Ring& ring) {
  constexpr bool kAhead = kSums <= 32;
  const uint64_t input0 = swizzled_descriptor(ring.stages + Ring::kWeight);
  float next_w = __ldg(lane.scale + first_block), next_up = __ldg(lane.up + first_block);
  Fragments fragment[kAhead ? 2 : 1];
  if (kAhead) load_fragments(fragment[0], lane, ring);
  const auto step = [&](int block, Fragments& now, [[maybe_unused]] Fragments& then) {
    const float w = next_w, up = kSwiglu ? next_up : next_w;
    const int following = block + 1 < last_block ? block + 1 : block;
    next_w = __ldg(lane.scale + following);
    if (kSwiglu) next_up = __ldg(lane.up + following);
    if (!kAhead) load_fragments(now, lane, ring);
    const uint64_t input = input0 + static_cast<uint32_t>(ring.stage * (Ring::kStage >> 4));
    float sums[kSums];
    forget(sums);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      wgmma_f16(sums, now[k], input + k / 4 * (Ring::kHalf >> 4) + k % 4 * 2, k);
    }
    wgmma_commit();
    if constexpr (kAhead) {
      Ring ahead = ring;
      ahead.next();
      if (block + 1 < last_block) load_fragments(then, lane, ahead);
    }
    wgmma_wait<0>(sums);
    const uint32_t scales = ring.scales() + 4 * (begin & 3) + 8 * lane.t;
#pragma unroll
    for (int i = 0; i < kSums / 4; ++i) {
      const uint32_t at = scales + 32 * i;
      const float2 x = kPairs ? load_shared_pair(at) : float2{load_shared(at), load_shared(at + 4)};
      part[4 * i] = fmaf(sums[4 * i], w * x.x, part[4 * i]);
      part[4 * i + 1] = fmaf(sums[4 * i + 1], w * x.y, part[4 * i + 1]);
      part[4 * i + 2] = fmaf(sums[4 * i + 2], up * x.x, part[4 * i + 2]);
      part[4 * i + 3] = fmaf(sums[4 * i + 3], up * x.y, part[4 * i + 3]);
    }
    __syncwarp();
    if (threadIdx.x % kWarp == 0) barrier_arrive(ring.empty(ring.stage));
    ring.next();
  };
  if constexpr (kAhead) {
    for (int block = first_block; block < last_block; block += 2) {
      step(block, fragment[0], fragment[1]);
      if (block + 1 < last_block) step(block + 1, fragment[1], fragment[0]);
    }
  } else {
    for (int block = first_block; block < last_block; ++block) step(block, fragment[0], fragment[0]);
  }
}
template <bool kSwiglu, int kSums, class Ring>
__device__ __forceinline__ void multiply(float (&part)[kSums], const Lane<kSwiglu>& lane, int32_t begin,
                                         int first_block, int last_block, Ring& ring) {
  if (begin % 2 == 0) {
    multiply_as<true>(part, lane, begin, first_block, last_block, ring);
  } else {
    multiply_as<false>(part, lane, begin, first_block, last_block, ring);
  }
}

// A tile of at most 2 kSums rows.
template <bool kSwiglu, bool kSplit, int kSums, class Ring>
__device__ __forceinline__ void consume(const WgmmaArgs& args, const ExpertTile& tile, int32_t first_output,
                                        int blocks, Ring& ring) {
  const TensorArgs& a = args.a;
  const Lane<kSwiglu> lane(a, tile.expert, first_output);
  float part[kSums];
#pragma unroll
  for (float& p : part) p = 0;
  if constexpr (!kSplit) {
    multiply(part, lane, tile.begin, 0, blocks, ring);
  } else {
    float* const totals = behind(ring);
    for (int split = 0; split < args.splits; ++split) {
      multiply(part, lane, tile.begin, blocks * split / args.splits, blocks * (split + 1) / args.splits,
               ring);
      const bool last = split + 1 == args.splits;
#pragma unroll
      for (int i = 0; i < kSums; ++i) {
        float& total = totals[i * kConsumers + threadIdx.x];
        const float sum = (split == 0 ? 0.0f : total) + part[i];
        if (!last) total = sum;
        part[i] = last ? sum : 0;
      }
    }
  }
  const bool aligned = a.y_stride % 2 == 0 && reinterpret_cast<uintptr_t>(a.y) % 8 == 0;
  const int64_t output = first_output + lane.row;
#pragma unroll
  for (int i = 0; i < kSums / 4; ++i) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const int row = 8 * i + 2 * lane.t + c;
      if (row >= tile.count) continue;
      float* const y = a.y + (tile.begin + row) * a.y_stride;
      float v[2] = {part[4 * i + c], part[4 * i + 2 + c]};
      if constexpr (kSwiglu) v[0] = swiglu(v[0], v[1]);
#pragma unroll
      for (float& value : v) value = a.to_bf16 ? round_bf16(value * a.factor) : value * a.factor;
      if (!kSwiglu && aligned && output + 1 < a.outputs) {
        *reinterpret_cast<float2*>(y + output) = {v[0], v[1]};
      } else {
        if (output < a.outputs) y[output] = v[0];
        if (!kSwiglu && output + 1 < a.outputs) y[output + 1] = v[1];
      }
    }
  }
}
#endif

// Persistent blocks, one a processor.
template <bool kSwiglu, bool kSplit, class Ring>
__global__ void __launch_bounds__(kThreads, 1)
    wgmma_kernel([[maybe_unused]] const __grid_constant__ WgmmaArgs args) {
#ifdef DSV_HOPPER
  Ring ring = start<Ring>();
  const TensorArgs& a = args.a;
  const int blocks = tensor_blocks(a.pitch);
  const int32_t tiles = (a.tiles ? *a.n_tiles : args.row_tiles) * args.columns;
  const auto for_tiles = [&](auto&& body) {
    for (auto at = static_cast<int32_t>(blockIdx.x); at < tiles; at += static_cast<int32_t>(gridDim.x)) {
      const TilePlace place =
          tile_place(at, tiles / args.columns, args.columns, a.tiles ? 1 : kTilesTogether);
      body(tile_of<kWgmmaRows>(a, place.row_tile), place.column * tile_outputs(kSwiglu));
    }
  };
  if (threadIdx.x >= kConsumers) {
    fewer_registers<40>();
    if (threadIdx.x == kConsumers) {
      for_tiles([&](const ExpertTile& tile, int32_t output) {
        produce<kSwiglu>(args, tile, output, 0, blocks, ring);
      });
    }
  } else {
    more_registers<232>();
    for_tiles([&](const ExpertTile& tile, int32_t output) {
      if (tile.count > kMapRows) {
        consume<kSwiglu, kSplit, 64>(args, tile, output, blocks, ring);
      } else {
        // Of routed experts with more than 128 rows the rest is often small.
        tile.count > 32 ? consume<kSwiglu, kSplit, 32>(args, tile, output, blocks, ring)
                        : consume<kSwiglu, kSplit, 16>(args, tile, output, blocks, ring);
      }
    });
  }
#endif
}

// A cluster's kBlocks blocks of threads share a tile's splits, and then the rows of the result. Grid: x
// outputs, y tiles of 64 rows.
template <bool kSwiglu, int kBlocks>
__global__ void DSV_CLUSTER(kBlocks) __launch_bounds__(kThreads, 1)
    wgmma_split_kernel([[maybe_unused]] const __grid_constant__ WgmmaArgs args) {
#ifdef DSV_HOPPER
  FewRing ring = start<FewRing>();
  const TensorArgs& a = args.a;
  const int blocks = tensor_blocks(a.pitch), splits = args.splits, each = splits / kBlocks;
  const auto rank = static_cast<int>(cluster_rank());
  const ExpertTile tile = tile_of<kMapRows>(a, static_cast<int32_t>(blockIdx.y));
  const int32_t first_output = static_cast<int32_t>(blockIdx.x) / kBlocks * tile_outputs(kSwiglu);
  float* const parts = behind(ring);
  if (threadIdx.x >= kConsumers) {
    if (threadIdx.x == kConsumers) {
      produce<kSwiglu>(args, tile, first_output, blocks * (rank * each) / splits,
                       blocks * ((rank + 1) * each) / splits, ring);
    }
    __syncwarp();
  } else {
    const Lane<kSwiglu> lane(a, tile.expert, first_output);
    for (int s = 0; s < each; ++s) {
      const int split = rank * each + s;
      float part[32];
#pragma unroll
      for (float& p : part) p = 0;
      multiply(part, lane, tile.begin, blocks * split / splits, blocks * (split + 1) / splits, ring);
      float* const to = parts + s * (kPart / 4) + lane.row;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          float* const at = to + (8 * i + 2 * lane.t + c) * kPartPitch;
          if constexpr (kSwiglu) {
            at[0] = part[4 * i + c], at[kMapRows] = part[4 * i + 2 + c];
          } else {
            *reinterpret_cast<float2*>(at) = {part[4 * i + c], part[4 * i + 2 + c]};
          }
        }
      }
    }
  }
  cluster_sync();
  const bool aligned = a.y_stride % 4 == 0 && reinterpret_cast<uintptr_t>(a.y) % 16 == 0;
  constexpr int kFours = tile_outputs(kSwiglu) / 4;
  const int rows = (tile.count + kBlocks - 1) / kBlocks, first_row = rank * rows;
  const uint32_t my_parts = shared_address(parts);
  for (int i = static_cast<int>(threadIdx.x); i < rows * kFours; i += kThreads) {
    const int row = first_row + i / kFours, four = i % kFours;
    if (row >= tile.count) break;
    const auto total = [&](int at) {
      float4 sum = {0, 0, 0, 0};
      for (int split = 0; split < splits; ++split) {
        const float4 v =
            load_cluster(my_parts + split % each * kPart + (row * kPartPitch + at) * 4, split / each);
        sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
      }
      return sum;
    };
    float4 sum = total(4 * four);
    if constexpr (kSwiglu) {
      const float4 up = total(kMapRows + 4 * four);
      sum = {swiglu(sum.x, up.x), swiglu(sum.y, up.y), swiglu(sum.z, up.z), swiglu(sum.w, up.w)};
    }
    float v[4] = {sum.x, sum.y, sum.z, sum.w};
#pragma unroll
    for (float& value : v) value = a.to_bf16 ? round_bf16(value * a.factor) : value * a.factor;
    const int64_t output = first_output + 4 * four;
    float* const y = a.y + (tile.begin + row) * a.y_stride + output;
    if (aligned && output + 3 < a.outputs) {
      *reinterpret_cast<float4*>(y) = {v[0], v[1], v[2], v[3]};
    } else {
#pragma unroll
      for (int o = 0; o < 4; ++o) {
        if (output + o < a.outputs) y[o] = v[o];
      }
    }
  }
  cluster_sync();  // parts stay until all have read them
#endif
}

template <bool kSwiglu>
void launch_persistent(const WgmmaArgs& args, Stream stream) {
  const int64_t tiles = int64_t{args.a.tiles ? args.a.tile_bound : args.row_tiles} * args.columns;
  const Grid grid = {tiles < processors() ? tiles : processors()};
  if (args.splits > 1) {
    return launch(wgmma_kernel<kSwiglu, true, SplitRing>, grid, kThreads, SplitRing::kShared + kTotals,
                  stream, args);
  }
  launch(wgmma_kernel<kSwiglu, false, ManyRing>, grid, kThreads, ManyRing::kShared, stream, args);
}
template <bool kSwiglu, int kBlocks>
void launch_side_by_side(const WgmmaArgs& args, Stream stream) {
  launch(wgmma_split_kernel<kSwiglu, kBlocks>,
         {int64_t{args.columns} * kBlocks, (args.a.rows + kMapRows - 1) / kMapRows}, kThreads,
         FewRing::kShared + args.splits / kBlocks * kPart, stream, args);
}
template <bool kSwiglu>
void launch_kind(const WgmmaArgs& args, Stream stream, int side_by_side) {
  if (side_by_side == 8) return launch_side_by_side<kSwiglu, 8>(args, stream);
  if (side_by_side == 4) return launch_side_by_side<kSwiglu, 4>(args, stream);
  if (side_by_side == 2) return launch_side_by_side<kSwiglu, 2>(args, stream);
  if (side_by_side == 1) return launch_side_by_side<kSwiglu, 1>(args, stream);
  launch_persistent<kSwiglu>(args, stream);
}

int32_t columns_of(const TensorArgs& a) {
  const int outputs = tile_outputs(a.kind == TensorKind::swiglu);
  return static_cast<int32_t>((a.outputs + outputs - 1) / outputs);
}

}  // namespace

bool wgmma_takes_side_by_side(const TensorArgs& a, int blocks) {
  const int splits = tensor_splits(a);
  return !a.tiles && blocks <= kMostCluster && splits % blocks == 0 && splits / blocks <= 2;
}

int wgmma_side_by_side(const TensorArgs& a) {
  // Blocks of columns that a processor works on one after another, and what a launch and its end cost beside
  // them, in the same unit of some 0.7 us: as measured on 9 weights, for 64 to 256 rows.
  const int blocks = tensor_blocks(a.pitch);
  const auto turns = [](int64_t tiles, int64_t at_once) {
    return static_cast<double>((tiles + at_once - 1) / at_once);
  };
  const int64_t columns = columns_of(a), gpu = processors();
  const double persistent = turns((a.rows + kWgmmaRows - 1) / kWgmmaRows * columns, gpu) * blocks;
  double least = persistent * (a.rows > kMapRows ? 1.25 : 1) + 5;
  int best = 0;
  for (const int n : {1, 2, 4, 8}) {
    if (!wgmma_takes_side_by_side(a, n) || tensor_splits(a) == 1) continue;
    // Larger clusters do not fill every part of the chip.
    const int64_t tiles = (a.rows + kMapRows - 1) / kMapRows * columns * n,
                  at_once = n > 2 ? gpu * 6 / 7 : gpu;
    const double cost = turns(tiles, at_once) * (static_cast<double>(blocks) / n + 8);
    if (cost <= least) least = cost, best = n;
  }
  return best;
}

void launch_tensor_wgmma_as(const TensorArgs& a, Stream stream, int side_by_side) {
  WgmmaArgs args = {};
  args.x = input_map(a.x, a.rows), args.x_both = input_map(a.x, a.rows, 2 * kMapRows);
  args.scale = scale_map(a.x, a.rows, tensor_blocks(a.pitch),
                         side_by_side ? FewRing::kScaleRows : ManyRing::kScaleRows);
  if (a.kind == TensorKind::linear) args.weight = weight_map(a.weight, 2 * kMapRows);
  args.a = a;
  args.row_tiles = (a.rows + kWgmmaRows - 1) / kWgmmaRows;
  args.columns = columns_of(a);
  args.splits = tensor_splits(a);
  a.kind == TensorKind::swiglu ? launch_kind<true>(args, stream, side_by_side)
                               : launch_kind<false>(args, stream, side_by_side);
}

void launch_tensor_wgmma(const TensorArgs& a, Stream stream) {
  launch_tensor_wgmma_as(a, stream, wgmma_side_by_side(a));
}

}  // namespace dsv::cuda
