// Linears and SwiGLU for few rows of input: every byte of the weight goes from memory to registers once.
//
// Bound: the weight's bytes (o of the released model, 7168 x 16384 FP8, 117 MB: 39 us at 3 TB/s; an H200
// reads as much in 34). To keep 3 TB/s busy at a latency of about 1 us, 132 processors need 23 KB under way
// each. A warp takes 16 or 32 rows of weights (kTiles) times a split's columns and has kDepth blocks of 2 or
// 4 KB under way; tensor_splits makes at least some 8 warps a processor. Input comes from L1 and L2: at 8
// rows and 32 outputs a quarter of the weight's bytes. The mmas take a few percent of the tensor cores' time.
//
// Small weights wait for a launch and a few loads one after another, not for bytes. So nothing is divided
// before the first load, and the code is short: a launch's code is in no cache, and each line of it is a
// wait. SwiGLU takes 32 rows a warp for any input: with 16 its blocks fill all processors, and a layer takes
// 6 us longer, though the launch alone does not.
#include <type_traits>

#include "kernels/cuda/tensor.cuh"

namespace dsv::cuda {
namespace {

[[maybe_unused]] constexpr int kMaxWarps = 8;

// What a launch is compiled for.
template <TensorFormat format, bool swiglu, int tiles, int groups>
struct FewForm {
  static constexpr TensorFormat kFormat = format;
  static constexpr bool kSwiglu = swiglu;
  static constexpr int kTiles = tiles, kGroups = groups;  // of 16 rows of weights, of 8 rows of input
  // Blocks that a warp has under way: as many as the registers hold.
  static constexpr int kDepth = tiles * groups == 1 ? 3 : groups == 4 ? 1 : 2;
  // Blocks of kMaxWarps that a processor has at once, at least.
  static constexpr int kAtOnce = tiles * groups * input_chunks(format) == 1 ? 2 : 1;
};

// Outputs of a tile: for SwiGLU 8 rows of gate are above the same 8 of up.
constexpr int tile_outputs(bool swiglu) { return swiglu ? kMmaRows / 2 : kMmaRows; }

struct FewArgs {
  TensorArgs a;
  int split_bits;     // log2 of the splits
  int item_bits;      // .. of an item's outputs: kOutputs for each of a block's slots
  int items;          // that a block takes one after another: 1 or 2
  int all_items;      // if it is 2
  int more_block[2];  // the first block of a's further linears
};

// Grid: x outputs, y tiles of kGroups * 8 rows of input. A warp of the block has one split of one slot:
// kTiles * tile_outputs outputs; and then the same of the next item, whose first blocks are under way when
// the last one's sums are added.
template <class Form>
__global__ void __launch_bounds__(kMaxWarps* kWarp, Form::kAtOnce) few_kernel(FewArgs args) {
  constexpr TensorFormat kFormat = Form::kFormat;
  constexpr bool kSwiglu = Form::kSwiglu;
  constexpr int kTiles = Form::kTiles, kGroups = Form::kGroups, kDepth = Form::kDepth;
  constexpr int kHalves = kSwiglu ? 2 : 1;  // of a tile, of different weights
  constexpr int kTileOutputs = tile_outputs(kSwiglu), kOutputs = kTiles * kTileOutputs;
  constexpr int kSlotSums = kTiles * kMmaRows * kGroups * kMmaCols;
  constexpr int kInputChunks = input_chunks(kFormat);
  const TensorArgs& a = args.a;
  if (a.tiles) wait_for_last();  // whose tiles these are
  TensorTile tile;
  if (!tensor_tile(a, static_cast<int32_t>(blockIdx.y), blockIdx.z, &tile)) return;
  auto outputs = static_cast<int>(a.outputs);
  int64_t y_stride = a.y_stride;
  auto block_x = static_cast<int>(blockIdx.x);
  const auto take = [&](int i, const LinearPart& other) {
    if (i >= a.n_more || block_x < args.more_block[i]) return false;
    block_x -= args.more_block[i];
    tile.weight = other.weight, tile.y = other.y;
    outputs = static_cast<int>(other.weight.rows), y_stride = other.y_stride;
    return true;
  };
  if (!take(1, a.third)) take(0, a.second);
  const unsigned tid = threadIdx.x, lane = tid % kWarp;
  const int warp = static_cast<int>(tid / kWarp), g = static_cast<int>(lane / 4),
            t = static_cast<int>(lane % 4);
  const int splits = 1 << args.split_bits, split = warp & (splits - 1);
  const int per_item = 1 << args.item_bits, first_item = block_x * args.items;
  const int items = args.items > args.all_items - first_item ? args.all_items - first_item : args.items;
  int output = first_item * per_item + (warp >> args.split_bits) * kOutputs;  // the item's first

  // Row g of a tile, and from there to row g + 8, or to the same row of up. Rows past the last one are that
  // again, and their results are dropped.
  const unsigned char* w[kTiles];
  std::conditional_t<kSwiglu, int64_t, int> other_half[kSwiglu ? 1 : kTiles];
  const float* w_scale[kHalves];  // one row of scales for all tiles of an item
  const auto pitch = static_cast<int>(a.pitch), chunks = pitch / 16, blocks = tensor_blocks(pitch);
  const auto row = [&](int r) { return r < outputs ? r : outputs - 1; };
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
    const int first = row(output + m * kTileOutputs + g);
    w[m] = tile.weight.data + int64_t{first} * pitch + 16 * t;
    if constexpr (!kSwiglu) other_half[m] = (row(output + m * kTileOutputs + g + 8) - first) * pitch;
  }
  if constexpr (kSwiglu) other_half[0] = tile.up.data - tile.weight.data;
  if constexpr (weight_scaled(kFormat)) {
    const int at = row(output) / kQuantBlock * tile.weight.scale_cols;
    w_scale[0] = tile.weight.scale + at;
    if constexpr (kSwiglu) w_scale[1] = tile.up.scale + at;
  }
  const int first_block = blocks * split >> args.split_bits,
            own_blocks = (blocks * (split + 1) >> args.split_bits) - first_block;
  // To the next item.
  const int item_bytes = per_item * pitch;
  const auto item_scales = [&] {
    return ((output + per_item) / kQuantBlock - output / kQuantBlock) * tile.weight.scale_cols;
  };

  uint4 w_raw[kDepth][kUnits][kTiles][2], x_raw[kDepth][kUnits][kGroups][kInputChunks];
  float w_factor[kDepth][kHalves] = {}, x_factor[kDepth][kGroups][2] = {};
  const uint4 zero = {0, 0, 0, 0};
  const auto load_weight = [&](int d, int block, bool of_next) {
    const int at = block * kTensorBlock + (of_next ? item_bytes : 0);
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      const unsigned char *const first = w[m] + at, *const second = first + other_half[kSwiglu ? 0 : m];
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        const bool inside = (block * kUnits + u) * (kUnitBytes / 16) + t < chunks;
        w_raw[d][u][m][0] = inside ? load_once(first + u * kUnitBytes) : zero;
        w_raw[d][u][m][1] = inside ? load_once(second + u * kUnitBytes) : zero;
      }
    }
    if constexpr (weight_scaled(kFormat)) {
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
        w_factor[d][half] = w_scale[half][block + (of_next ? item_scales() : 0)];
      }
    }
  };
#pragma unroll
  for (int d = 0; d < kDepth; ++d) {
    if (d < own_blocks) load_weight(d, first_block + d, false);
  }
  if (!a.tiles) wait_for_last();

  const unsigned char* x[kGroups];
  int x_scale[kGroups][2];  // of a.x.scale
#pragma unroll
  for (int n = 0; n < kGroups; ++n) {
    const int i = n * kMmaCols + g;
    x[n] = i < tile.count ? tile.x + input_row(a, tile, i) * a.x.pitch + kInputChunks * 16 * t : nullptr;
    if constexpr (input_scaled(kFormat)) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const int column = n * kMmaCols + 2 * t + c;
        const int64_t row = input_row(a, tile, column < tile.count ? column : 0);
        x_scale[n][c] = static_cast<int>(row * a.x.scale_cols);
      }
    }
  }

  const auto load_input = [&](int d, int block) {
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const int at = block * kTensorBlock + u * kUnitBytes;
#pragma unroll
      for (int n = 0; n < kGroups; ++n) {
#pragma unroll
        for (int c = 0; c < kInputChunks; ++c) {
          x_raw[d][u][n][c] =
              x[n] ? *reinterpret_cast<const uint4*>(x[n] + kInputChunks * at + 16 * c) : zero;
        }
      }
    }
    if constexpr (input_scaled(kFormat)) {
#pragma unroll
      for (int n = 0; n < kGroups; ++n) {
        x_factor[d][n][0] = a.x.scale[x_scale[n][0] + block];
        x_factor[d][n][1] = a.x.scale[x_scale[n][1] + block];
      }
    }
  };
#pragma unroll
  for (int d = 0; d < kDepth; ++d) {
    if (d < own_blocks) load_input(d, first_block + d);
  }
  MmaSums sums[kTiles][kGroups], part[kTiles][kGroups];
  // [2][warps][kTiles][kGroups * 8][16]: an item's sums are added while the next one's are made.
  auto* const parts = reinterpret_cast<float*>(shared_memory());
  const auto finish = [&](int item) {
    float* const own = parts + item % 2 * (static_cast<int>(blockDim.x) / kWarp) * kSlotSums;
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kGroups; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int column = n * kMmaCols + 2 * t + i % 2, output = g + i / 2 * 8;
          own[warp * kSlotSums + (m * kGroups * kMmaCols + column) * kMmaRows + output] = part[m][n].value[i];
          part[m][n].value[i] = 0;
        }
      }
    }
    // Not sooner: blocks that only wait would keep others from running, and what they ask for from staying.
    if (item + 1 == items) let_next_begin();
    __syncthreads();
    // Consecutive threads a row of y.
    for (auto i = static_cast<int>(tid); i < tile.count << args.item_bits;
         i += static_cast<int>(blockDim.x)) {
      const int column = i >> args.item_bits, in_item = i & (per_item - 1), o = in_item % kOutputs;
      const int y = ((first_item + item) << args.item_bits) + in_item;
      if (y >= outputs) continue;
      const auto total = [&](int half) {
        const int m = o / kTileOutputs, row = o % kTileOutputs + 8 * half;
        const float* at = own + (in_item / kOutputs << args.split_bits) * kSlotSums +
                          (m * kGroups * kMmaCols + column) * kMmaRows + row;
        float sum = 0;
#pragma unroll
        for (int s = 0; s < kMaxWarps; ++s) {
          if (s < splits) sum += at[s * kSlotSums];
        }
        return sum;
      };
      store_output(a, tile, y_stride, column, y, kSwiglu ? swiglu(total(0), total(1)) : total(0));
    }
  };

  for (int item = 0; item < items; ++item) {
    for (int block = 0; block < own_blocks; block += kDepth) {
#pragma unroll
      for (int d = 0; d < kDepth; ++d) {
        if (block + d >= own_blocks) break;
#pragma unroll
        for (int u = 0; u < kUnits; ++u) {
          Operand<kFormat> b[kGroups];
#pragma unroll
          for (int n = 0; n < kGroups; ++n) b[n].set_input(x_raw[d][u][n]);
#pragma unroll
          for (int m = 0; m < kTiles; ++m) {
            Operand<kFormat> a0, a1;
            a0.set_weight(w_raw[d][u][m][0]);
            a1.set_weight(w_raw[d][u][m][1]);
#pragma unroll
            for (int j = 0; j < Operand<kFormat>::kSteps; ++j) {
#pragma unroll
              for (int n = 0; n < kGroups; ++n) add_step<kFormat>(sums[m][n], a0, a1, b[n], j);
            }
          }
        }
#pragma unroll
        for (int m = 0; m < kTiles; ++m) {
#pragma unroll
          for (int n = 0; n < kGroups; ++n) {
            if constexpr (kSwiglu && weight_scaled(kFormat)) {  // end_block, but of two weights
#pragma unroll
              for (int i = 0; i < 4; ++i) {
                float& p = part[m][n].value[i];
                p = fmaf(sums[m][n].value[i], w_factor[d][i / 2] * x_factor[d][n][i % 2], p);
                sums[m][n].value[i] = 0;
              }
            } else {
              end_block<kFormat>(part[m][n], sums[m][n], w_factor[d][0], x_factor[d][n][0],
                                 x_factor[d][n][1]);
            }
          }
        }
        // What comes next into these registers: of this item, or else of the next.
        const bool of_next = block + d + kDepth >= own_blocks;
        if (of_next && item + 1 == items) continue;
        const int next = first_block + d + (of_next ? 0 : block + kDepth);
        load_weight(d, next, of_next);
        load_input(d, next);
      }
    }
    finish(item);
#pragma unroll
    for (int m = 0; m < kTiles; ++m) w[m] += item_bytes;
    if constexpr (weight_scaled(kFormat)) {
#pragma unroll
      for (int half = 0; half < kHalves; ++half) w_scale[half] += item_scales();
    }
    output += per_item;
  }
}

int log2_of(int power) {
  int bits = 0;
  while (1 << bits < power) ++bits;
  return bits;
}

// A launch of a form: blocks of so many warps.
template <class Form>
struct Few {
  static constexpr int kTileOutputs = tile_outputs(Form::kSwiglu), kWarpOutputs = Form::kTiles * kTileOutputs;
  const TensorArgs& a;
  int splits, warps, per_item;

  explicit Few(const TensorArgs& args)
      : a(args),
        splits(tensor_splits(a)),
        warps(splits > 4 ? splits : 4),
        per_item(warps / splits * kWarpOutputs) {}
  int64_t items(int64_t outputs) const { return (outputs + per_item - 1) / per_item; }
  int64_t all_items() const { return items(a.outputs) * a.tile_bound * a.groups; }
  // Of sums of all warps.
  static int64_t shared_bytes(int warps) {
    return int64_t{4} * warps * Form::kTiles * kMmaRows * Form::kGroups * kMmaCols;
  }
  // Blocks that the GPU works on at once.
  int64_t at_once() const {
#ifdef DSV_CUDA_EMULATION
    return 3;  // so few that small cases take both ways
#else
    const auto ask = [](int n) {
      const int64_t bytes = 2 * shared_bytes(n);
      if (bytes > 48 * 1024) {
        cudaFuncSetAttribute(reinterpret_cast<const void*>(few_kernel<Form>),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
      }
      int blocks = 0;
      if (cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, few_kernel<Form>, n * kWarp,
                                                        static_cast<size_t>(bytes)) != cudaSuccess) {
        cudaGetLastError();  // it is about speed only, and no fault of the GPU's
      }
      return blocks > 0 ? blocks : 1;
    };
    static const int of_few_warps = ask(4), of_most = ask(kMaxWarps);
    return int64_t{processors()} * (warps == 4 ? of_few_warps : of_most);
#endif
  }

  void launch_in(Stream stream) const {
    FewArgs args = {a, log2_of(splits), log2_of(per_item), 1, INT32_MAX, {}};
    // A few blocks more than the GPU works on at once would leave it nearly idle at the end: then each takes
    // two items. If there are many more, that end is short, and blocks that follow each other are the
    // quickest.
    const int64_t all = all_items(), most = at_once();
    if (a.n_more == 0 && a.outputs % per_item == 0 && all > most && 2 * all <= 3 * most) {
      args.items = 2;
      args.all_items = static_cast<int>(items(a.outputs));
    }
    int64_t blocks = (items(a.outputs) + args.items - 1) / args.items;
    for (int i = 0; i < a.n_more; ++i) {
      args.more_block[i] = static_cast<int>(blocks);
      blocks += items((i == 0 ? a.second : a.third).weight.rows);
    }
    launch(few_kernel<Form>, {blocks, a.tile_bound, a.groups, a.early}, warps * kWarp,
           args.items * shared_bytes(warps), stream, args);
  }
};

template <TensorFormat kFormat, int kGroups>
void launch_kind(const TensorArgs& a, Stream stream) {
  if constexpr (kFormat == TensorFormat::mixed) {
    return Few<FewForm<kFormat, false, 1, kGroups>>(a).launch_in(stream);
  } else {
    if (a.kind == TensorKind::swiglu) return Few<FewForm<kFormat, true, 2, kGroups>>(a).launch_in(stream);
    // 32 outputs a warp share the input, where there is more than a little of it and if enough warps remain.
    if constexpr (kGroups > 1) {
      const int64_t outputs = a.outputs * a.groups;
      const bool wide = outputs / 32 * tensor_splits(a) * a.tile_bound >= 700;
      if (wide) return Few<FewForm<kFormat, false, 2, kGroups>>(a).launch_in(stream);
    }
    Few<FewForm<kFormat, false, 1, kGroups>>(a).launch_in(stream);
  }
}

template <TensorFormat kFormat>
void launch_groups(const TensorArgs& a, Stream stream) {
  if (a.tile_rows <= 8) return launch_kind<kFormat, 1>(a, stream);
  if (a.tile_rows <= 16) return launch_kind<kFormat, 2>(a, stream);
  launch_kind<kFormat, 4>(a, stream);
}

}  // namespace

void launch_tensor_few(const TensorArgs& a, Stream stream) {
  static_assert(kFewRows == 32);
  const TensorFormat format = tensor_format(a);
  if (format == TensorFormat::e4m3) return launch_groups<TensorFormat::e4m3>(a, stream);
  if (format == TensorFormat::bf16) return launch_groups<TensorFormat::bf16>(a, stream);
  launch_groups<TensorFormat::mixed>(a, stream);
}

}  // namespace dsv::cuda
