// FFNs for many rows of e4m3 input on Hopper's FP8 tensor cores, and linears where linear_fp8_tiles.cu has no
// quicker form: for the `fast` schedule, in other bits than linear_wgmma.cu's.
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
// 0.60 ms at the 1.5 to 1.6 GHz that 700 W leave). Shared memory has 1150 cycles' work with it: 48 KB come,
// and each of four products reads 8 KB of input and 16 KB of weights. Experts: the bytes of the weights, each
// read once for all its rows up to 192 (7.5 GB for gate and up of 256: 1.8 ms at 4.1 TB/s).
//
// What that took, for 4096 rows of 7168 x 16384 on an H200: copies of all rows at once, because the copying
// thread needs a few hundred cycles for each, and scales that are copied with the stage (0.90 ms with boxes
// of 64 rows and scales from global memory, 0.76 so); waiting for the next stage while a product runs,
// because a group scales for some 200 cycles, in which only the other group's product has the tensor cores
// (0.72); two blocks of threads that share rows (0.71).
//
// The end of a tile: a processor writes 32 bytes a cycle at most, and nothing multiplies meanwhile. 4096 rows
// of 24576 x 1536 in tiles of 256 rows take 22,000 cycles a tile, of which 12 blocks' products are 12,300.
// Tiles of 192 rows take 15,200 (products: 9,200): a third group of warps multiplies while one scales, but
// they read more bytes for a product, so that long sums (7168 x 16384) are 7% slower, and short ones faster
// (2048 rows of 32768 x 512 in bf16: 95 us against 105). Both give the same bits.
//
// SwiGLU's output may be codes, its scales those of 128 neighbours, of which each of the cluster's two blocks
// has half: a warp sends its rows' largest magnitudes to the same warp of the other block, and waits for
// those while the other groups multiply. 64 bytes of a row are stored where 256 were, and no launch reads
// them to pack them; outputs in bf16, experts' and queries, take half (192 rows of 128: 48 KB,
// 1,540 cycles at 32 bytes).
#include "kernels/cuda/linear_fp8.cuh"

namespace dsv::cuda {
namespace {

constexpr int kTileOutputs = 128;
constexpr int kBlocks = 2;  // of threads with the same rows, a cluster
[[maybe_unused]] constexpr int kTilesTogether = 8;
constexpr int kShortSum = 4;  // blocks: tiles are written for longer than they are multiplied

// What a warp is sent of its 16 rows: their maxima, in one of two places in turns, and a barrier for each.
constexpr int kMaximaBytes = 16 * 4, kWarpMaxima = 2 * kMaximaBytes + 16;

// A tile: kBoxes of 64 rows, which kGroups groups of warps take in turns, times 128 rows of the weight (for
// SwiGLU half of gate, half of up).
template <bool kSwiglu_, bool kCodes_, int kBoxes_, int kGroups_>
struct FormOf {
  static constexpr bool kSwiglu = kSwiglu_, kCodes = kCodes_;  // codes: what is written is
  static constexpr int kBoxes = kBoxes_, kGroups = kGroups_, kTurns = (kBoxes + kGroups - 1) / kGroups;
  static constexpr int kConsumers = kGroups * kGroupThreads;
  static constexpr int kThreads =
      kConsumers + kGroupThreads;  // two warps of the last group bring what is read
  static constexpr int kRows = kBoxes * kMapRows, kStep = kSwiglu ? kTileOutputs / 2 : kTileOutputs;
  static constexpr int kInput = kBoxes * kBoxBytes, kStage = kInput + 2 * kBoxBytes;
  // Of the tile's rows and those from a multiple of four on before, where a copy may begin.
  static constexpr int kRowScales = 4 * (kRows + 4), kScales = kRowScales + 112;
  static constexpr int kReaders = kBlocks * kConsumers / kWarp;
  static constexpr int kMaxima = kSwiglu && kCodes ? kConsumers / kWarp * kWarpMaxima : 0;
  static constexpr int kStages = (kMostShared - 1024 - kMaxima) / (kStage + kScales + 16);
  static constexpr int kShared = 1024 + kStages * (kStage + kScales + 16) + kMaxima;
};
// Routed experts and short sums take the small one, other weights the one that leaves a processor less to do.
template <bool kSwiglu, bool kCodes>
using LargeForm = FormOf<kSwiglu, kCodes, kFp8Rows / kMapRows, 2>;
template <bool kSwiglu, bool kCodes>
using SmallForm = FormOf<kSwiglu, kCodes, kFp8Pairs / kMapRows, 3>;

#ifdef DSV_HOPPER

using namespace hopper;

// One thread has a tile copied: all rows of the form, of which the tile may need fewer; those by halves, each
// to both blocks of the cluster.
template <class Form>
__device__ __forceinline__ void produce(const Fp8Args& args, const ExpertTile& tile, int32_t output,
                                        int blocks, Fp8Ring<Form>& ring) {
  constexpr int kPart = Form::kInput / kBlocks, kPartRows = Form::kRows / kBlocks;
  const auto rank = static_cast<int>(cluster_rank());
  Fp8Source from = source_of<Form, false>(args, tile.expert, tile.begin);
  for (int block = 0; block < blocks; ++block, ring.next(), from.scale += args.a.x.scale_cols) {
    const int32_t column = block * static_cast<int32_t>(kTensorBlock);
    const uint32_t ready = ring.full(ring.stage);
    barrier_wait(ring.empty(ring.stage), ring.parity ^ 1);
    barrier_expect(ready, Form::kStage + from.scale_bytes);
    copy_box_to(ring.input() + rank * kPart, &args.x, column, tile.begin + rank * kPartRows, ready,
                (1 << kBlocks) - 1);
    copy_box(ring.weight(), from.first, column, output, ready);
    if (Form::kSwiglu) copy_box(ring.weight() + kBoxBytes, from.second, column, output, ready);
    copy_bytes(ring.row_scales(), from.scale, from.scale_bytes, ready);
  }
}

template <class Form>
__device__ __forceinline__ void produce_scales(const Fp8Args& args, const ExpertTile& tile, int32_t output,
                                               int blocks, Fp8Ring<Form>& ring) {
  const TensorArgs& a = args.a;
  if constexpr (Form::kSwiglu) {
    const FfnView& ffn = a.ffn[tile.expert];
    bring_scales({scales_from(ffn.gate, output, a.outputs), scales_from(ffn.up, output, a.outputs)}, blocks,
                 ring);
  } else {
    const WeightView& w = a.kind == TensorKind::down ? a.ffn[tile.expert].down : a.weight;
    bring_scales({scales_from(w, output, a.outputs)}, blocks, ring);
  }
}

// Largest magnitudes of a warp's rows in both blocks of the cluster; `at` is where the warp's lie in shared
// memory.
__device__ __forceinline__ void init_maxima(uint32_t at) {
  for (uint32_t i = 0; i < 2; ++i) barrier_init(at + 2 * kMaximaBytes + 8 * i, 1);
}
// amax: of rows g and g + 8 of lanes 4 g to 4 g + 3. Exchange n: the other block may be one ahead, which is
// in the other place, and no more.
__device__ __forceinline__ void exchange_maxima(uint32_t at, uint32_t n, float (&amax)[2]) {
  const uint32_t place = at + n % 2 * kMaximaBytes, barrier = at + 2 * kMaximaBytes + n % 2 * 8;
  const uint32_t g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
  if (threadIdx.x % kWarp == 0) barrier_expect(barrier, kMaximaBytes);
  if (t < 2) send_to_block(place + 4 * (g + 8 * t), barrier, cluster_rank() ^ 1, t == 0 ? amax[0] : amax[1]);
  barrier_wait_together(barrier, n / 2 % 2);
#pragma unroll
  for (uint32_t r = 0; r < 2; ++r) amax[r] = fmaxf(amax[r], load_shared(place + 4 * (g + 8 * r)));
}

// SwiGLU of rows g and g + 8 as codes: of each 64 outputs from first_output on, here, and the scale of their
// group. Lane t gets 16 neighbours of a row.
__device__ __forceinline__ void store_swiglu_codes(const TensorArgs& a, const float (&sum)[64], int64_t row,
                                                   const bool (&valid)[2], int64_t first_output,
                                                   uint32_t maxima, uint32_t n) {
  const int t = threadIdx.x % 4;
  float value[2][4][4], amax[2] = {};
#pragma unroll
  for (int i = 0; i < 32; ++i) {  // output 8 (i / 4) + 2 t + i % 2
    const float v = output_of<true>(a, sum, i);
    value[i / 2 % 2][i / 8][i / 4 % 2 * 2 + i % 2] = v;
    amax[i / 2 % 2] = fmaxf(amax[i / 2 % 2], fabsf(v));
  }
#pragma unroll
  for (float& m : amax) {
    m = fmaxf(m, __shfl_xor_sync(kAllLanes, m, 1));
    m = fmaxf(m, __shfl_xor_sync(kAllLanes, m, 2));
  }
  exchange_maxima(maxima, n, amax);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float scale = e4m3_scale(amax[r], a.power_of_two);
    const uint4 codes = codes_of_sums(value[r], scale, a.power_of_two);
    if (!valid[r]) continue;
    *reinterpret_cast<uint4*>(a.codes.data + (row + 8 * r) * a.codes.pitch + first_output + 16 * t) = codes;
    if (t == 0 && first_output % kQuantBlock == 0)
      a.codes.scale[first_output / kQuantBlock * a.codes.scale_cols + row + 8 * r] = scale;
  }
}

// A group has every kGroups-th box of 64 rows. While a product runs, the next one's stage is waited for and
// its scales are read.
template <class Form>
__device__ __forceinline__ void consume(const Fp8Args& args, const ExpertTile& tile, int32_t first_output,
                                        int blocks, Fp8Ring<Form>& ring, uint32_t& exchanges) {
  constexpr int kGroups = Form::kGroups;
  const int group = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kGroupThreads, 0);
  const int warp = static_cast<int>(threadIdx.x) / kWarp % 4, lane = threadIdx.x % kWarp;
  const uint32_t maxima =
      ring.end() + __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kWarp, 0) * kWarpMaxima;
  const int mine = group * kMapRows + warp * 16 + lane / 4;  // the first of this lane's rows
  const int turns =                                          // boxes of this group
      ((tile.count + kMapRows - 1) / kMapRows - group + kGroups - 1) / kGroups;
  const auto release = [&](int stage) {
    __syncwarp();
    if (lane < kBlocks) barrier_arrive_at(ring.empty(stage), static_cast<uint32_t>(lane));
  };
  if (turns == 0) {
    for (int block = 0; block < blocks; ++block, ring.next()) {
      barrier_wait(ring.full(ring.stage), ring.parity);
      release(ring.stage);
    }
    return;
  }
  const uint64_t weights0 = swizzled_descriptor(ring.stages + Form::kInput),
                 rows0 = swizzled_descriptor(ring.stages + group * kBoxBytes);
  const uint32_t my_scales = 4 * ((tile.begin & 3) + mine);
  struct Scales {
    float2 rows, weight;  // rows g and g + 8; gate and up
  };
  const auto row_scales = [&](int h) {
    const uint32_t at = ring.row_scales() + my_scales + 4 * h * kGroups * kMapRows;
    return float2{load_shared(at), load_shared(at + 32)};
  };
  const auto wait = [&] {
    barrier_wait(ring.full(ring.stage), ring.parity);
    const float w = load_shared(ring.weight_scales());
    return Scales{row_scales(0), {w, Form::kSwiglu ? load_shared(ring.weight_scales() + 4) : w}};
  };
  float sum[Form::kTurns][64];
#pragma unroll
  for (auto& box : sum) {
#pragma unroll
    for (float& s : box) s = 0;
  }
  Scales next = wait();
  for (int block = 0; block < blocks; ++block) {
    const int stage = ring.stage;
    const auto offset = static_cast<uint32_t>(stage * (Form::kStage >> 4));
#pragma unroll
    for (int h = 0; h < Form::kTurns; ++h) {
      const uint64_t rows = rows0 + offset + h * (kGroups * kBoxBytes >> 4), weights = weights0 + offset;
      float part[64];
      forget(part);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4; ++k) wgmma_e4m3(part, rows + 2 * k, weights + 2 * k, k);
      wgmma_commit();
      const Scales now = next;
      const bool last = h + 1 == Form::kTurns || h + 1 >= turns;
      if (!last) {
        next.rows = row_scales(h + 1);
      } else {
        ring.next();
        if (block + 1 < blocks) next = wait();
      }
      wgmma_wait<0>(part);
      if (last) release(stage);
      const float factor[2][2] = {{now.rows.x * now.weight.x, now.rows.y * now.weight.x},
                                  {now.rows.x * now.weight.y, now.rows.y * now.weight.y}};
#pragma unroll
      for (int i = 0; i < 64; ++i) sum[h][i] = fmaf(part[i], factor[i / 32][i / 2 % 2], sum[h][i]);
      if (last) break;
    }
  }
#pragma unroll
  for (int h = 0; h < Form::kTurns; ++h) {
    if (h >= turns) break;
    if constexpr (Form::kSwiglu && Form::kCodes) {
      const int row = h * kGroups * kMapRows + mine;
      const bool valid[2] = {row < tile.count, row + 8 < tile.count};
      store_swiglu_codes(args.a, sum[h], tile.begin + row, valid, first_output, maxima, exchanges++);
    } else {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int row = h * kGroups * kMapRows + mine + 8 * r;
        if constexpr (Form::kCodes && !Form::kSwiglu) {
          store_bf16_row(args.a, sum[h], r, tile.begin + row, row < tile.count, first_output);
        } else {
          store_row<Form::kSwiglu>(args.a, sum[h], r, tile.begin + row, row < tile.count, first_output);
        }
      }
    }
  }
}
#endif

// Persistent blocks, one a processor.
template <class Form>
__global__ void DSV_CLUSTER(kBlocks) __launch_bounds__(Form::kThreads, 1)
    fp8_kernel([[maybe_unused]] const __grid_constant__ Fp8Args args) {
#ifdef DSV_HOPPER
  Fp8Ring<Form> ring;
  ring.stages = (shared_address(shared_memory()) + 1023) / 1024 * 1024;
  uint32_t exchanges = 0;
  if (threadIdx.x == 0) {
    ring.init();
    if (Form::kSwiglu && Form::kCodes)
      for (int i = 0; i < Form::kConsumers / kWarp; ++i) init_maxima(ring.end() + i * kWarpMaxima);
    fence_barriers();
  }
  cluster_sync();
  const TensorArgs& a = args.a;
  const int blocks = tensor_blocks(a.pitch);
  const int32_t row_tiles = a.tiles ? *a.n_tiles : args.row_tiles, columns = args.columns / kBlocks;
  const auto rank = static_cast<int32_t>(cluster_rank());
  const auto for_tiles = [&](auto&& body) {
    for (auto at = static_cast<int32_t>(blockIdx.x) / kBlocks; at < row_tiles * columns;
         at += static_cast<int32_t>(gridDim.x) / kBlocks) {
      const TilePlace place = tile_place(at, row_tiles, columns, a.tiles ? 1 : kTilesTogether);
      const int32_t begin = place.row_tile * a.tile_rows;
      body(a.tiles ? a.tiles[place.row_tile]
                   : ExpertTile{0, begin, a.rows - begin < a.tile_rows ? a.rows - begin : a.tile_rows},
           (place.column * kBlocks + rank) * Form::kStep);
    }
  };
  if (threadIdx.x >= Form::kConsumers) {
    fewer_registers<Form::kGroups == 2 ? 40 : 56>();
    if (threadIdx.x == Form::kConsumers) {
      for_tiles([&](const ExpertTile& tile, int32_t output) { produce(args, tile, output, blocks, ring); });
    } else if (threadIdx.x / kWarp == Form::kConsumers / kWarp + 1) {
      for_tiles(
          [&](const ExpertTile& tile, int32_t output) { produce_scales(args, tile, output, blocks, ring); });
    }
  } else {
    more_registers<Form::kGroups == 2 ? 232 : 152>();
    for_tiles([&](const ExpertTile& tile, int32_t output) {
      consume(args, tile, output, blocks, ring, exchanges);
    });
  }
  cluster_sync();  // until nobody copies to another block or arrives there
#endif
}

template <class Form>
int64_t tiles_of_outputs(const TensorArgs& a) {
  constexpr int64_t kStep = int64_t{Form::kStep} * kBlocks;
  return (a.outputs + kStep - 1) / kStep * kBlocks;
}

// How many boxes a processor takes one after another, if every tile had all of a form's: one that has fewer
// hardly takes less.
template <class Form>
int64_t boxes_in_turn(const TensorArgs& a) {
  const int64_t tiles = (a.rows + Form::kRows - 1) / Form::kRows * tiles_of_outputs<Form>(a);
  return (tiles + processors() - 1) / processors() * Form::kBoxes;
}

template <class Form>
void launch_form(const TensorArgs& a, Stream stream) {
  static_assert(Form::kTurns * Form::kGroups >= Form::kBoxes && Form::kReaders % kBlocks == 0);
  Fp8Args args = {};
  args.x = input_map(a.x, a.rows, Form::kRows / kBlocks);
  if (a.kind == TensorKind::linear) args.weight = weight_map(a.weight, kTileOutputs);
  args.a = a;
  args.row_tiles = (a.rows + Form::kRows - 1) / Form::kRows;
  if (!a.tiles && a.rows > 0) {  // tiles of about the same number of rows
    const int32_t each = (a.rows + args.row_tiles - 1) / args.row_tiles;
    args.a.tile_rows = (each + kMapRows - 1) / kMapRows * kMapRows;
  }
  args.columns = static_cast<int32_t>(tiles_of_outputs<Form>(a));
  const int64_t tiles = int64_t{a.tiles ? a.tile_bound : args.row_tiles} * args.columns;
  const int64_t most = processors() / kBlocks * kBlocks;
  launch(fp8_kernel<Form>, {.x = tiles < most ? tiles : most, .cluster = emulated_cluster(kBlocks)},
         Form::kThreads, Form::kShared, stream, args);
}

template <bool kSwiglu, bool kCodes>
void launch_kind(const TensorArgs& a, Stream stream) {
  using Large = LargeForm<kSwiglu, kCodes>;
  using Small = SmallForm<kSwiglu, kCodes>;
  a.tiles || tensor_blocks(a.pitch) <= kShortSum || boxes_in_turn<Small>(a) <= boxes_in_turn<Large>(a)
      ? launch_form<Small>(a, stream)
      : launch_form<Large>(a, stream);
}

}  // namespace

void launch_tensor_fp8(const TensorArgs& a, Stream stream) {
  if (a.kind == TensorKind::swiglu)
    return a.codes.data ? launch_kind<true, true>(a, stream) : launch_kind<true, false>(a, stream);
  a.codes.data ? launch_kind<false, true>(a, stream) : launch_kind<false, false>(a, stream);
}

}  // namespace dsv::cuda
