// Linears of many rows with FP8 sums on Hopper: linear_fp8.cu's products and bits, in tiles of several forms,
// whose groups of warps never stop multiplying at a tile's end.
//
// Bound: the tensor cores. A product of 64 rows, kOutputs of the weight and 128 columns takes them 2 kOutputs
// cycles; 256 rows times 128 are 1,024 for a block of columns, 3 KB of input and weight for every 64 of them.
//
// What that took on an H200, in cycles for a block of 256 x 128 x 128 (4096 rows of 7168 x 16384): a group
// takes its sums in for some 200 cycles, in which the other group's product has the tensor cores; so neither
// may come late. One loop for all blocks of all tiles, with a product always on its way and its addresses in
// uniform registers: 1,083 (products that nothing takes in: 1,029). Groups in turns (each begins a product
// once the other's is on its way, for if both run side by side both end together): 1,103 for 1,083 here, but
// 835 for 1,020 with 128 x 192, whose products are longer, and 1,127 for 1,160 with bf16 output.
//
// The end of a tile: f32 goes straight to memory, at 16 bytes a cycle from all processors together (5,000
// cycles of 128 KB; it does not fit beside three stages). bf16 goes to shared memory and the copy engine
// takes it while the next tile multiplies: 1,080 cycles, of which 256 hide behind the next tile's first
// product, and 3 stages are enough. Warps that store it instead wait in front of the tensor cores' operands
// (24576 x 1536: 256 us for 242).
//
// Tiles of 128 rows times 96 to 192 outputs leave fewer processors without work where rows are few; a
// cluster's two blocks share the weight then. Scales end within such tiles, at places that the code has to
// know (with_former): 128 x 192 took 1.4 times as long where it compared.
#include <algorithm>
#include <array>

#include "kernels/cuda/linear_fp8.cuh"

namespace dsv::cuda {
namespace {

constexpr int kBlocks = 2;  // of threads, a cluster
[[maybe_unused]] constexpr int kTilesTogether = 8;

// A tile: kTurns x kGroups boxes of 64 rows, a group of warps has every kGroups-th, times kOutputs rows of
// the weight. A cluster's blocks have the same rows, or else the same outputs.
template <bool kCodes_, int kGroups_, int kTurns_, int kOutputs_, bool kSameRows_, int kCycles_>
struct FormOf {
  static constexpr bool kSwiglu = false, kCodes = kCodes_, kSameRows = kSameRows_;
  static constexpr bool kBoxes = kCodes && kTurns_ == 2;        // stored by the copy engine
  static constexpr bool kInTurns = kCodes || kOutputs_ != 128;  // groups multiply one after another
  static constexpr bool kTwoScales = kOutputs_ % kQuantBlock != 0;
  static constexpr int kCycles = kCycles_;  // of a processor for a block of columns
  static constexpr int kGroups = kGroups_, kTurns = kTurns_, kOutputs = kOutputs_, kSums = kOutputs / 2;
  static constexpr int kConsumers = kGroups * kGroupThreads;
  static constexpr int kThreads = kConsumers + kGroupThreads;  // the last group brings and takes away
  static constexpr int kRows = kGroups * kTurns * kMapRows;
  static constexpr int kInput = kRows * static_cast<int>(kTensorBlock);
  static constexpr int kWeight = kOutputs * static_cast<int>(kTensorBlock), kStage = kInput + kWeight;
  // Of the tile's rows and those from a multiple of four on before, where a copy may begin.
  static constexpr int kRowScales = 4 * (kRows + 4), kScales = kRowScales + 112;
  static constexpr int kReaders = kBlocks * kConsumers / kWarp;
  static constexpr int kOut = kBoxes ? 2 * kRows * kOutputs : 0;
  static constexpr int kBehind = 3 * 8 * kGroups;
  static constexpr int kStages = (kMostShared - 1024 - kOut - kBehind) / (kStage + kScales + 16);
  static constexpr int kShared = 1024 + kOut + kStages * (kStage + kScales + 16) + kBehind;
};
template <bool kCodes>
using LargeForm = FormOf<kCodes, 2, 2, 128, true, 1110>;
template <bool kCodes, int kOutputs>
using NarrowForm = FormOf<kCodes, 2, 1, kOutputs, false, 400 + 265 * kOutputs / 100>;
constexpr int64_t kSmallCycles = 870, kSmallRows = 192, kSmallOutputs = 256;  // of linear_fp8.cu's tiles

struct TileArgs {
  Fp8Args fp8;
  TensorMap y;  // of codes
};

#ifdef DSV_HOPPER

using namespace hopper;

struct TileOf {
  int32_t begin, count, output;  // rows; the first output
};

// The tiles of a block of threads, of which a cluster's two are side by side: of a row tile two columns, or
// of a column two row tiles, of which the second may not be there.
template <class Form>
struct Tiles {
  int32_t end;
  __device__ __forceinline__ explicit Tiles(const Fp8Args& args) : end(args.row_tiles * args.columns) {}
  __device__ __forceinline__ static int32_t first() { return static_cast<int32_t>(blockIdx.x) / kBlocks; }
  __device__ __forceinline__ static int32_t step() { return static_cast<int32_t>(gridDim.x) / kBlocks; }
  __device__ __forceinline__ TileOf at(const Fp8Args& args, int32_t i) const {
    const auto rank = static_cast<int32_t>(cluster_rank());
    const TilePlace place = tile_place(i, args.row_tiles, args.columns, kTilesTogether);
    const int32_t row_tile = Form::kSameRows ? place.row_tile : place.row_tile * kBlocks + rank;
    const int32_t column = Form::kSameRows ? place.column * kBlocks + rank : place.column;
    const int32_t begin = row_tile * args.a.tile_rows, left = args.a.rows - begin;
    TileOf of = {0, 0, column * Form::kOutputs};
    if (left > 0) of.begin = begin, of.count = left < args.a.tile_rows ? left : args.a.tile_rows;
    return of;
  }
};

// One thread has a tile copied: all rows of the form, of which the tile may need fewer. What both blocks of
// the cluster need comes in halves, each to both.
template <class Form>
__device__ __forceinline__ void produce(const Fp8Args& args, const TileOf& of, int blocks,
                                        Fp8Ring<Form>& ring) {
  constexpr int kInput = Form::kInput / kBlocks, kRows = Form::kRows / kBlocks;
  constexpr int kWeight = Form::kWeight / kBlocks, kOutputs = Form::kOutputs / kBlocks;
  constexpr uint16_t kBoth = (1 << kBlocks) - 1;
  const auto rank = static_cast<int>(cluster_rank());
  Fp8Source from = source_of<Form, false>(args, 0, of.begin);
  for (int block = 0; block < blocks; ++block, ring.next(), from.scale += args.a.x.scale_cols) {
    const int32_t column = block * static_cast<int32_t>(kTensorBlock);
    const uint32_t ready = ring.full(ring.stage);
    barrier_wait(ring.empty(ring.stage), ring.parity ^ 1);
    barrier_expect(ready, Form::kStage + from.scale_bytes);
    if constexpr (Form::kSameRows) {
      copy_box_to(ring.input() + rank * kInput, &args.x, column, of.begin + rank * kRows, ready, kBoth);
      copy_box(ring.weight(), from.first, column, of.output, ready);
    } else {
      copy_box(ring.input(), &args.x, column, of.begin, ready);
      copy_box_to(ring.weight() + rank * kWeight, from.first, column, of.output + rank * kOutputs, ready,
                  kBoth);
    }
    copy_bytes(ring.row_scales(), from.scale, from.scale_bytes, ready);
  }
}

template <class Form>
__device__ __forceinline__ void produce_scales(const TensorArgs& a, const TileOf& of, int blocks,
                                               Fp8Ring<Form>& ring) {
  const float* const first = scales_from(a.weight, of.output, a.outputs);
  if constexpr (Form::kTwoScales) {
    bring_scales({first, scales_from(a.weight, of.output + kQuantBlock, a.outputs)}, blocks, ring);
  } else {
    bring_scales({first}, blocks, ring);
  }
}

// Of a group of warps, behind the ring: its turn at the tensor cores; and its rows of a tile on their way
// out, kTurns x 2 boxes of 64 rows and 128 bytes in front of it, which are written, or taken away.
template <class Form>
struct GroupPlace {
  uint32_t turn, written, taken, rows;
  __device__ __forceinline__ GroupPlace(const Fp8Ring<Form>& ring, int group)
      : turn(ring.end() + 24 * group),
        written(turn + 8),
        taken(turn + 16),
        rows(ring.stages - Form::kOut + group * (Form::kOut / Form::kGroups)) {}
};
constexpr int kOutBox = kMapRows * 128;

// One thread has the copy engine take a group's rows of a tile away.
template <class Form>
__device__ __forceinline__ void take(const TileArgs& args, const TileOf& of, int group, uint32_t parity,
                                     const Fp8Ring<Form>& ring) {
  const GroupPlace<Form> place(ring, group);
  const auto part = static_cast<int32_t>(args.fp8.a.codes.part);
  barrier_wait(place.written, parity);
  for (int h = 0; h < Form::kTurns; ++h) {
    const int first = (h * Form::kGroups + group) * kMapRows;
    if (first >= of.count) break;
    for (int i = 0; i < 2; ++i) {
      const int32_t output = of.output + 64 * i, gap = part ? output / part * part : 0;
      store_box(&args.y, 2 * (output + gap), of.begin + first, place.rows + (2 * h + i) * kOutBox);
    }
  }
  wait_for_stores();
  barrier_arrive(place.taken);
}

// Puts a group's sums of a tile out; `n`: tiles before.
template <class Form>
__device__ __forceinline__ void put(const TensorArgs& a, const TileOf& of, int group, uint32_t n,
                                    const float (&sum)[Form::kTurns][Form::kSums],
                                    const Fp8Ring<Form>& ring) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp % 4, lane = threadIdx.x % kWarp, g = lane / 4;
  if constexpr (Form::kBoxes) {
    const GroupPlace<Form> place(ring, group);
    barrier_wait(place.taken, n % 2 ^ 1);
    const uint32_t to = place.rows + (warp * 16 + g) * 128 + 4 * (lane % 4);  // swizzled by the row's place
#pragma unroll
    for (int h = 0; h < Form::kTurns; ++h) {
#pragma unroll
      for (int i = 0; i < Form::kSums; i += 2) {
        const int eight = i / 4, box = 2 * h + eight / 8;
        store_shared(to + box * kOutBox + i / 2 % 2 * 8 * 128 + (eight % 8 ^ g) * 16,
                     pack_bf16(output_of<false>(a, sum[h], i), output_of<false>(a, sum[h], i + 1)));
      }
    }
    fence_for_wgmma();
    __syncwarp();
    if (lane == 0) barrier_arrive(place.written);
  } else {
#pragma unroll
    for (int h = 0; h < Form::kTurns; ++h) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int row = (h * Form::kGroups + group) * kMapRows + warp * 16 + g + 8 * r;
        if constexpr (Form::kCodes) {
          store_bf16_row(a, sum[h], r, of.begin + row, row < of.count, of.output);
        } else {
          store_row<false>(a, sum[h], r, of.begin + row, row < of.count, of.output);
        }
      }
    }
  }
}

// All tiles of a group of warps. There is always a product on its way: while it runs, the next one's stage is
// waited for and its scales are read; then the sums take it in and the next one begins. Behind a tile's last
// one that is the next tile's first, which runs while the tile is put out (behind the last tile, of what lies
// there, for nobody: a product in a branch would be waited for at once).
template <class Form>
__device__ __forceinline__ void consume(const Fp8Args& args, const Tiles<Form>& tiles, int blocks,
                                        Fp8Ring<Form>& ring) {
  constexpr int kGroups = Form::kGroups, kTurns = Form::kTurns, kSums = Form::kSums;
  const int group = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kGroupThreads, 0);
  const int lane = threadIdx.x % kWarp;
  const int mine = static_cast<int>(threadIdx.x) / kWarp * 16 + lane / 4;  // the first of this lane's rows
  const uint64_t weights0 = swizzled_descriptor(ring.stages + Form::kInput),
                 rows0 = swizzled_descriptor(ring.stages + group * kBoxBytes);
  const auto release = [&](int stage) {
    __syncwarp();
    if (lane < kBlocks) barrier_arrive_at(ring.empty(stage), static_cast<uint32_t>(lane));
  };
  struct Scales {
    float2 rows, weight;  // rows g and g + 8; the first outputs and the others
  };
  const auto row_scales = [&](int32_t begin, int h) {
    const uint32_t at = ring.row_scales() + 4 * ((begin & 3) + mine + h * kGroups * kMapRows);
    return float2{load_shared(at), load_shared(at + 32)};
  };
  const auto wait = [&](int32_t begin) {
    barrier_wait(ring.full(ring.stage), ring.parity);
    const float w = load_shared(ring.weight_scales());
    return Scales{row_scales(begin, 0), {w, Form::kTwoScales ? load_shared(ring.weight_scales() + 4) : w}};
  };
  float part[kSums];
  forget(part);
  uint32_t turn_parity = group == 0;
  const auto begin_product = [&](int stage, int h) {
    const auto offset = static_cast<uint32_t>(stage * (Form::kStage >> 4));
    const uint64_t rows = rows0 + offset + h * (kGroups * kBoxBytes >> 4), weights = weights0 + offset;
    if (Form::kInTurns) barrier_wait(GroupPlace<Form>(ring, group).turn, turn_parity);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; ++k) wgmma_e4m3(part, rows + 2 * k, weights + 2 * k, k);
    wgmma_commit();
    turn_parity ^= 1;
    if (Form::kInTurns && lane == 0)
      barrier_arrive(GroupPlace<Form>(ring, group + 1 == kGroups ? 0 : group + 1).turn);
  };
  int32_t at = tiles.first();
  if (at >= tiles.end) return;
  TileOf now = tiles.at(args, at);
  Scales next = wait(now.begin);
  begin_product(ring.stage, 0);
  for (uint32_t n = 0; at < tiles.end; at += tiles.step(), ++n) {
    const bool more = at + tiles.step() < tiles.end;
    const TileOf after = more ? tiles.at(args, at + tiles.step()) : now;
    float sum[kTurns][kSums];
#pragma unroll
    for (auto& box : sum) {
#pragma unroll
      for (float& s : box) s = 0;
    }
    with_former<Form::kOutputs>(now.output, [&](auto former) {
      for (int block = 0; block < blocks; ++block) {
        const int stage = ring.stage;
        const bool end_of_tile = block + 1 == blocks;
#pragma unroll
        for (int h = 0; h < kTurns; ++h) {
          const Scales scales = next;
          const bool last = h + 1 == kTurns;
          if (!last) {
            next.rows = row_scales(now.begin, h + 1);
          } else {
            ring.next();
            if (!end_of_tile || more) next = wait(end_of_tile ? after.begin : now.begin);
          }
          wgmma_wait<0>(part);
          if (last) release(stage);
          const float factor[2][2] = {{scales.rows.x * scales.weight.x, scales.rows.y * scales.weight.x},
                                      {scales.rows.x * scales.weight.y, scales.rows.y * scales.weight.y}};
#pragma unroll
          for (int i = 0; i < kSums; ++i)
            sum[h][i] = fmaf(part[i], factor[i / 4 >= decltype(former)::kValue][i / 2 % 2], sum[h][i]);
          begin_product(last ? ring.stage : stage, last ? 0 : h + 1);
        }
      }
    });
    put(args.a, now, group, n, sum, ring);
    now = after;
  }
  wgmma_wait<0>(part);
}
#endif

// Persistent blocks, one a processor.
template <class Form>
__global__ void DSV_CLUSTER(kBlocks) __launch_bounds__(Form::kThreads, 1)
    fp8_tiles_kernel([[maybe_unused]] const __grid_constant__ TileArgs args) {
#ifdef DSV_HOPPER
  Fp8Ring<Form> ring;
  ring.stages = (shared_address(shared_memory()) + 1023) / 1024 * 1024 + Form::kOut;
  if (threadIdx.x == 0) {
    ring.init();
    for (int group = 0; group < Form::kGroups; ++group) {
      const GroupPlace<Form> place(ring, group);
      barrier_init(place.turn, kGroupThreads / kWarp);
      barrier_init(place.written, kGroupThreads / kWarp);
      barrier_init(place.taken, 1);
    }
    fence_barriers();
  }
  cluster_sync();
  const int blocks = tensor_blocks(args.fp8.a.pitch);
  const Tiles<Form> tiles(args.fp8);
  const auto for_tiles = [&](auto&& body) {
    uint32_t n = 0;
    for (int32_t at = tiles.first(); at < tiles.end; at += tiles.step()) body(tiles.at(args.fp8, at), n++);
  };
  if (threadIdx.x >= Form::kConsumers) {
    fewer_registers<40>();
    // A thread each of four warps: copies, scales (a whole warp), and stores for two groups.
    const int warp = (static_cast<int>(threadIdx.x) - Form::kConsumers) / kWarp;
    const bool first_lane = threadIdx.x % kWarp == 0;
    if (warp == 0 && first_lane) {
      for_tiles([&](const TileOf& of, uint32_t) { produce(args.fp8, of, blocks, ring); });
    } else if (warp == 1) {
      for_tiles([&](const TileOf& of, uint32_t) { produce_scales(args.fp8.a, of, blocks, ring); });
    } else if (Form::kBoxes && warp >= 2 && first_lane) {
      for_tiles([&](const TileOf& of, uint32_t n) { take(args, of, warp - 2, n % 2, ring); });
    }
  } else {
    more_registers<232>();
    consume(args.fp8, tiles, blocks, ring);
  }
  cluster_sync();  // until nobody copies to another block or arrives there
#endif
}

// Tiles of rows and of outputs, as a cluster's blocks take them together.
template <class Form>
int32_t row_tiles(const TensorArgs& a) {
  constexpr int32_t kRows = Form::kRows * (Form::kSameRows ? 1 : kBlocks);
  return (a.rows + kRows - 1) / kRows;
}
template <class Form>
int32_t column_tiles(const TensorArgs& a) {
  constexpr int64_t kOutputs = int64_t{Form::kOutputs} * (Form::kSameRows ? kBlocks : 1);
  return static_cast<int32_t>((a.outputs + kOutputs - 1) / kOutputs);
}

template <class Form>
void launch_form(const TensorArgs& a, Stream stream) {
  static_assert(Form::kGroups == 2 && Form::kStages >= 3 && Form::kReaders % kBlocks == 0);
  static_assert(!Form::kSwiglu && (Form::kInTurns || !Form::kTwoScales));
  static_assert((Form::kTurns + 1) * Form::kSums <= 192);  // registers
  TileArgs args = {};
  args.fp8.x = input_map(a.x, a.rows, Form::kRows / (Form::kSameRows ? kBlocks : 1));
  args.fp8.weight = weight_map(a.weight, Form::kOutputs / (Form::kSameRows ? 1 : kBlocks));
  if (Form::kBoxes) args.y = input_map({a.codes.data, a.codes.pitch}, a.rows);
  args.fp8.a = a;
  args.fp8.row_tiles = row_tiles<Form>(a);
  args.fp8.columns = column_tiles<Form>(a);
  if (a.rows > 0) {  // tiles of about the same number of rows
    const int32_t n = args.fp8.row_tiles * (Form::kSameRows ? 1 : kBlocks), each = (a.rows + n - 1) / n;
    args.fp8.a.tile_rows = (each + kMapRows - 1) / kMapRows * kMapRows;
  }
  const int64_t tiles = int64_t{args.fp8.row_tiles} * args.fp8.columns * kBlocks;
  const int64_t most = processors() / kBlocks * kBlocks;
  launch(fp8_tiles_kernel<Form>, {.x = tiles < most ? tiles : most, .cluster = emulated_cluster(kBlocks)},
         Form::kThreads, Form::kShared, stream, args);
}

// Ways to have the same bits, and what a processor takes for a block of columns of all its tiles.
struct Choice {
  int64_t cycles;
  void (*launch)(const TensorArgs&, Stream);
};
int64_t in_turn(int64_t tiles) { return (tiles + processors() - 1) / processors(); }
template <class Form>
Choice choice(const TensorArgs& a) {
  return {in_turn(int64_t{row_tiles<Form>(a)} * column_tiles<Form>(a) * kBlocks) * Form::kCycles,
          launch_form<Form>};
}
template <bool kCodes>
std::array<Choice, kFp8Forms> choices(const TensorArgs& a) {
  const int64_t small =
      (a.rows + kSmallRows - 1) / kSmallRows * ((a.outputs + kSmallOutputs - 1) / kSmallOutputs);
  Choice large = choice<LargeForm<kCodes>>(a);
  if (a.codes.part % 64 != 0) large = {INT64_MAX, launch_tensor_fp8};  // parts of a box
  return {Choice{in_turn(small * kBlocks) * kSmallCycles, launch_tensor_fp8}, large,
          choice<NarrowForm<kCodes, 96>>(a), choice<NarrowForm<kCodes, kCodes ? 128 : 112>>(a),
          choice<NarrowForm<kCodes, 192>>(a)};
}
std::array<Choice, kFp8Forms> choices(const TensorArgs& a) {
  return a.codes.data ? choices<true>(a) : choices<false>(a);
}

}  // namespace

void launch_tensor_fp8_tiles_as(const TensorArgs& a, Stream stream, int form) {
  choices(a)[static_cast<size_t>(form)].launch(a, stream);
}

void launch_tensor_fp8_tiles(const TensorArgs& a, Stream stream) {
  const auto all = choices(a);
  if (noted_kernels) {  // by who loads all kernels that other numbers of rows may bring
    for (const Choice& c : all) c.launch(a, stream);
    return;
  }
  const auto less = [](const Choice& x, const Choice& y) { return x.cycles < y.cycles; };
  std::min_element(all.begin(), all.end(), less)->launch(a, stream);
}

}  // namespace dsv::cuda
