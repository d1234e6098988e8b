// Routed experts: choosing them (route.cu, route_few.cu), their plain kernels and their sum (experts.cu).
#pragma once

#include <cstdint>

#include "kernels/cuda/ffn.h"
#include "kernels/cuda/packed.h"
#include "kernels/cuda/views.h"

namespace dsv::cuda {

struct RouteRowsArgs {
  int32_t rows, experts, k, groups, kept_groups;
  const float* logits;  // [R, experts]
  const float* bias;    // [experts]
  bool normalise;
  double scale;
  int32_t* expert;  // out [R, k] ascending
  float* weight;    // out [R, k]
};
void launch_route(const RouteRowsArgs&, Stream);
// .. by a block a row, of any experts; or, the same, by a warp: of up to kWarpExperts experts in groups of
// whole 32s.
inline constexpr int32_t kWarpRows = 512, kWarpExperts = 256;
void launch_route_by_block(const RouteRowsArgs&, Stream);
bool takes_route_by_warp(const RouteRowsArgs&);
void launch_route_by_warp(const RouteRowsArgs&, Stream);
int64_t route_shared_bytes(int32_t experts, int32_t groups);

// The plain kernels take up to kTilePairs pairs of one expert.
inline constexpr int32_t kTilePairs = 8;

struct GroupArgs {  // pairs sorted by expert, and then by row
  int32_t rows, k, experts;
  int32_t tile_rows;      // of a tile at most
  const int32_t* expert;  // [R, k]
  int32_t* pair_row;      // out [R * k]: row of a pair
  int32_t* pair_of;       // out [R * k]: pair of (row, i)
  ExpertTile* tiles;      // out [most_tiles]
  int32_t* n_tiles;       // out [1]
  // Scratch [kGroupBlocks, experts], for many rows to be sorted by several blocks; or null.
  int32_t* counts = nullptr;
};
inline constexpr int32_t kGroupManyRows = 1024, kGroupBlocks = 32;
void launch_group(const GroupArgs&, Stream);
// Of at most as many pairs as threads fit into a block; route.cu.
inline constexpr int32_t kFewPairs = 512;
void launch_group_few(const GroupArgs&, Stream);

// route_few.cu: a router's linear, the choice and the pairs, of few rows, groups of 1, 2, 4 .. 32 experts.
inline constexpr int32_t kRouteFewRows = 8;
struct RouteFewArgs {
  RouteRowsArgs route;  // logits: unused
  WeightView gate;      // [experts, D]
  PackedRows x;         // [R, D] in bf16
  GroupArgs group;      // expert: unused
  float* parts;         // scratch [R, tensor_splits of gate, experts]
  unsigned* arrived;    // [1] 0 before and after
};
bool takes_route_few(const RouteRowsArgs&, const WeightView& gate);
void launch_route_few(const RouteFewArgs&, Stream);

// Pairs: those of `tiles`; with tiles null, row r is pair r and all are of ffn[0].
struct SwigluArgs {  // a[p] = silu(gate h[row of p]) * up h
  int32_t pairs, tile_bound;
  const FfnView* ffn;       // [experts]
  const ExpertTile* tiles;  // or null
  const int32_t* n_tiles;
  const int32_t* pair_row;  // [pairs]; null with tiles
  PackedPair h;             // [R, padded(D)]
  int64_t dim, inner;       // D, I
  float* a;                 // out [pairs, I]
};
void launch_swiglu(const SwigluArgs&, Stream);

struct DownArgs {  // y[p] = down a[p]
  int32_t pairs, tile_bound;
  const FfnView* ffn;
  const ExpertTile* tiles;
  const int32_t* n_tiles;
  PackedPair a;  // [pairs, padded(I)]
  int64_t inner, dim;
  float* y;  // out [pairs, D]
};
void launch_down(const DownArgs&, Stream);

struct MixExpertsArgs {  // delta[r] = sum over i of weight[r, i] * y[pair_of[r, i]], in order, + shared[r]
  int32_t rows, k;
  int64_t dim;
  ValueRows y;              // of pairs; in bf16 if `shared` is
  const int32_t* pair_of;   // [R, k]
  const float* weight;      // [R, k]
  ValueRows shared;         // of R, or none
  float* delta;             // out [R, D]
  bool early = true;        // as TensorArgs has it
  bool bf16_delta = false;  // delta is bf16 as packed_rows has it; and y is
};
void launch_mix_experts(const MixExpertsArgs&, Stream);

}  // namespace dsv::cuda
