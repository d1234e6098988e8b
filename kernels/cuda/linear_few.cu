// Linears and SwiGLU for few rows of input: every byte of the weight goes from memory to registers once.
//
// Bound: the weight's bytes (o of the released model, 7168 x 16384 FP8, 117 MB: 39 us at 3 TB/s). To keep 3
// TB/s busy at a latency of about 1 us, 132 processors need 23 KB under way each. A warp takes 16 or 32
// outputs (kTiles) times a split's columns and has kDepth blocks of 2 or 4 KB under way; tensor_splits makes
// at least some 8 warps a processor. Input comes from L1 and L2: at 8 rows and 32 outputs a quarter of the
// weight's bytes. The mmas take a few percent of the tensor cores' time.
#include <algorithm>

#include "kernels/cuda/tensor.cuh"

namespace dsv::cuda {
namespace {

[[maybe_unused]] constexpr int kMaxWarps = 8;

// Blocks that a warp has under way: as many as the registers hold.
constexpr int few_depth(int tiles, int groups) { return tiles * groups == 1 ? 3 : groups == 4 ? 1 : 2; }

// Blocks of kMaxWarps that a processor has at once.
constexpr int few_blocks(int tiles, int groups, int chunks) { return tiles * groups * chunks == 1 ? 2 : 1; }

struct FewArgs {
  TensorArgs a;
  int splits;
  int more_block[2];  // the first block of a's further linears
  int items;          // that a block takes one after another: kOutputs for each of its slots
};
constexpr int kMostItems = 4;

// Grid: x outputs, y tiles of kGroups * 8 rows of input. A warp of the block has one split of one slot:
// kTiles * 16 outputs, or for SwiGLU 16 of gate and the same of up; and then the same of the next item, whose
// first blocks are under way when the last one's sums are added.
template <TensorFormat kFormat, bool kSwiglu, int kTiles, int kGroups>
__global__ void __launch_bounds__(kMaxWarps* kWarp, few_blocks(kTiles, kGroups, input_chunks(kFormat)))
    few_kernel(FewArgs args) {
  static_assert(!kSwiglu || kTiles == 2);
  constexpr int kDepth = few_depth(kTiles, kGroups);
  constexpr int kOutputs = kSwiglu ? kMmaRows : kTiles * kMmaRows;
  constexpr int kSlotSums = kTiles * kMmaRows * kGroups * kMmaCols;
  constexpr int kInputChunks = input_chunks(kFormat);
  const TensorArgs& a = args.a;
  if (a.tiles) wait_for_last();  // whose tiles these are
  TensorTile tile;
  if (!tensor_tile(a, static_cast<int32_t>(blockIdx.y), blockIdx.z, &tile)) return;
  int64_t outputs = a.outputs, y_stride = a.y_stride;
  int block_x = static_cast<int>(blockIdx.x);
  const auto take = [&](int i, const LinearPart& other) {
    if (i >= a.n_more || block_x < args.more_block[i]) return false;
    block_x -= args.more_block[i];
    tile.weight = other.weight, tile.y = other.y;
    outputs = other.weight.rows, y_stride = other.y_stride;
    return true;
  };
  if (!take(1, a.third)) take(0, a.second);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const int splits = args.splits, slots = static_cast<int>(blockDim.x) / kWarp / splits;
  const int split = warp % splits;
  const int per_item = slots * kOutputs, first_item = block_x * args.items;
  const int all_items = (static_cast<int>(outputs) + per_item - 1) / per_item;
  const int items = all_items - first_item < args.items ? all_items - first_item : args.items;
  const int first_output = first_item * per_item + warp / splits * kOutputs;
  int load_output = first_output;  // of what is loaded next

  // Rows of the weight; past the last one again, and the results are dropped.
  const unsigned char* w[kTiles];
  int w_next[kTiles];  // from row g to row g + 8
  const float* w_scale[kTiles];
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
    const WeightView& view = kSwiglu && m == 1 ? tile.up : tile.weight;
    const int64_t first = kSwiglu ? first_output : first_output + m * kMmaRows;
    const auto row = [&](int64_t r) { return r < outputs ? r : outputs - 1; };
    w[m] = view.data + row(first + g) * view.pitch + 16 * t;
    w_next[m] = static_cast<int>((row(first + g + 8) - row(first + g)) * view.pitch);
    if constexpr (weight_scaled(kFormat)) {
      w_scale[m] = view.scale + (first < outputs ? first : outputs - 1) / kQuantBlock * view.scale_cols;
    }
  }
  const int chunks = static_cast<int>(tile.weight.pitch / 16), blocks = tensor_blocks(tile.weight.pitch);
  const int first_block = blocks * split / splits, last_block = blocks * (split + 1) / splits;
  const int own_blocks = last_block - first_block, total_blocks = items * own_blocks;
  int load_block = first_block;
  uint4 w_raw[kDepth][kUnits][kTiles][2], x_raw[kDepth][kUnits][kGroups][kInputChunks];
  float w_factor[kDepth][kTiles] = {}, x_factor[kDepth][kGroups][2] = {};
  const uint4 zero = {0, 0, 0, 0};
  const auto load_weight = [&](int d, int block) {
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const int at = block * kTensorBlock + u * kUnitBytes;
      const bool inside = at / 16 + t < chunks;
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
        w_raw[d][u][m][0] = inside ? load_once(w[m] + at) : zero;
        w_raw[d][u][m][1] = inside ? load_once(w[m] + w_next[m] + at) : zero;
      }
    }
    if constexpr (weight_scaled(kFormat)) {
#pragma unroll
      for (int m = 0; m < kTiles; ++m) w_factor[d][m] = w_scale[m][block];
    }
  };
  const auto advance = [&] {
    if (++load_block < last_block) return;
    load_block = first_block;
    const int next_output = load_output + per_item;  // past the last item nothing is loaded
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      w[m] += int64_t{per_item} * (16 * chunks);
      const int more = kSwiglu ? 0 : m * kMmaRows;
      if constexpr (weight_scaled(kFormat)) {
        w_scale[m] += ((next_output + more) / kQuantBlock - (load_output + more) / kQuantBlock) *
                      tile.weight.scale_cols;
      }
    }
    load_output = next_output;
  };
#pragma unroll
  for (int d = 0; d < kDepth; ++d) {
    if (d >= total_blocks) break;
    load_weight(d, load_block);
    advance();
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
    if (d < total_blocks) load_input(d, first_block + d % own_blocks);
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
    // kOutputs consecutive threads a row of y.
    for (int i = threadIdx.x; i < slots * kOutputs * tile.count; i += blockDim.x) {
      const int slot = i / (kOutputs * tile.count), column = i / kOutputs % tile.count, o = i % kOutputs;
      const int64_t output = int64_t{first_item + item} * per_item + slot * kOutputs + o;
      if (output >= outputs) continue;
      const auto total = [&](int m) {
        const float* at =
            own + slot * splits * kSlotSums + (m * kGroups * kMmaCols + column) * kMmaRows + o % kMmaRows;
        float sum = 0;
        for (int s = 0; s < splits; ++s) sum += at[s * kSlotSums];
        return sum;
      };
      store_output(a, tile, y_stride, column, output,
                   kSwiglu ? swiglu(total(0), total(1)) : total(o / kMmaRows));
    }
  };

  int left = own_blocks, item = 0;
  for (int block = 0; block < total_blocks; block += kDepth) {
#pragma unroll
    for (int d = 0; d < kDepth; ++d) {
      if (block + d >= total_blocks) break;
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
          end_block<kFormat>(part[m][n], sums[m][n], w_factor[d][m], x_factor[d][n][0], x_factor[d][n][1]);
        }
      }
      if (block + d + kDepth < total_blocks) {
        load_weight(d, load_block);
        load_input(d, load_block);
        advance();
      }
      if (--left > 0) continue;
      left = own_blocks;
      finish(item++);
    }
  }
}

template <TensorFormat kFormat, bool kSwiglu, int kTiles, int kGroups>
void launch_few(const TensorArgs& a, Stream stream) {
  const int splits = tensor_splits(a);
  const int warps = splits > 4 ? splits : 4, slots = warps / splits;
  const int64_t per_block = slots * (kSwiglu ? kMmaRows : kTiles * kMmaRows);
  FewArgs args = {a, splits, {}, 1};
  const auto blocks_of = [&](int64_t outputs) {
    return ((outputs + per_block - 1) / per_block + args.items - 1) / args.items;
  };
  // As many items a block as let all blocks run at once.
  const int64_t at_once =
      int64_t{processors()} * few_blocks(kTiles, kGroups, input_chunks(kFormat)) * kMaxWarps / warps;
  if (a.n_more == 0 && a.outputs % per_block == 0) {
    args.items = static_cast<int>(std::clamp<int64_t>(
        (blocks_of(a.outputs) * a.tile_bound * a.groups + at_once - 1) / at_once, 1, kMostItems));
  }
  int64_t blocks = blocks_of(a.outputs);
  for (int i = 0; i < a.n_more; ++i) {
    args.more_block[i] = static_cast<int>(blocks);
    blocks += blocks_of((i == 0 ? a.second : a.third).weight.rows);
  }
  launch(few_kernel<kFormat, kSwiglu, kTiles, kGroups>, {blocks, a.tile_bound, a.groups, a.early},
         warps * kWarp, int64_t{args.items > 1 ? 8 : 4} * warps * kTiles * kMmaRows * kGroups * kMmaCols,
         stream, args);
}

template <TensorFormat kFormat, int kGroups>
void launch_kind(const TensorArgs& a, Stream stream) {
  if constexpr (kFormat == TensorFormat::mixed) {
    return launch_few<kFormat, false, 1, kGroups>(a, stream);
  } else {
    if (a.kind == TensorKind::swiglu) return launch_few<kFormat, true, 2, kGroups>(a, stream);
    // 32 outputs a warp share the input, where there is more than a little of it and if enough warps remain.
    if constexpr (kGroups > 1) {
      const int64_t outputs = a.outputs * a.groups;
      const bool wide = outputs / 32 * tensor_splits(a) * a.tile_bound >= 700;
      if (wide) return launch_few<kFormat, false, 2, kGroups>(a, stream);
    }
    launch_few<kFormat, false, 1, kGroups>(a, stream);
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
