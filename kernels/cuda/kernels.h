// The kernels and their arguments: one struct each, every pointer with its shape, all in device memory. The
// launch_* functions enqueue and return; a kernel's bound is derived at its head in the .cu file.
//
// Rows of activations are f32, `*_stride` values apart. R rows of the launch.
#pragma once

#include <cstdint>

#include "backend/geometry.h"
#include "backend/weights.h"

namespace dsv::cuda {

using Stream = void*;

// A matrix on the device. Rows are padded with zeros to whole 16-byte chunks.
struct WeightView {
  const unsigned char* data = nullptr;  // [rows, pitch] bytes, 256-byte aligned
  const float* scale = nullptr;         // f8_e4m3: [ceil(rows / 128), scale_cols]
  int64_t rows = 0, cols = 0;
  int64_t pitch = 0;  // bytes of a row
  int32_t scale_cols = 0;
  Dtype dtype = Dtype::f32;
};

// Packed input of a linear: rounded as the number format says, rows padded with zeros to this many values.
inline constexpr int64_t padded(int64_t n) { return (n + 15) / 16 * 16; }
enum class Rounding : int32_t { none, bf16, e4m3 };

// Where the rows of a batch are and what they see.
struct StepView {
  const int32_t* token = nullptr;       // [rows]
  const int32_t* position = nullptr;    // [rows]
  const int32_t* sequence = nullptr;    // [rows]
  const int32_t* page_table = nullptr;  // [sequences, page_stride]
  int32_t page_stride = 0;
  const float* cos = nullptr;  // [rows, rope / 2] of the position, times rope_mscale
  const float* sin = nullptr;
};

// One cache layer (KvLayout).
struct CacheView {
  unsigned char* latent = nullptr;  // [pages][64][latent_row_bytes]
  unsigned char* index = nullptr;   // [pages][index_page_bytes]
  int64_t latent_row_bytes = 0, index_page_bytes = 0;
  int64_t rank = 0, rope = 0, index_dim = 0;
  bool official = false;
};

// ------------------------------------------------------------------------------------- rows.cu

struct AnglesArgs {  // cos and sin of position * inv_freq
  int32_t rows;
  const int32_t* position;  // [R]
  const double* inv_freq;   // [half]
  int64_t half;
  double mscale;
  float* cos;  // out [R, half]
  float* sin;
};
void launch_angles(const AnglesArgs&, Stream);

struct EmbedRowsArgs {  // x[r] = table[token[r]]
  int32_t rows;
  WeightView table;
  const int32_t* token;     // [R]
  const int32_t* position;  // [R]: the row is zero at position 0; or null
  float* x;                 // out [R, cols]
  int64_t x_stride;
};
void launch_embed(const EmbedRowsArgs&, Stream);

struct NormArgs {  // x' = x + delta; out = x' / sqrt(mean(x'^2) + eps) * weight
  int32_t rows;
  int64_t n;
  const int32_t* row;  // [R] row of x and delta to take; or null: the same
  const float* x;
  int64_t x_stride;
  const float* delta;  // or null
  int64_t delta_stride;
  float* x_out;         // x' goes here; or null. May be x, out may be x.
  const float* weight;  // [n]
  float eps;
  bool to_bf16;  // round `out`
  float* out;
  int64_t out_stride;
};
void launch_norm(const NormArgs&, Stream);

struct PackArgs {  // out = x rounded, padded with zeros
  int32_t rows;
  int64_t cols;
  const float* x;
  int64_t x_stride;
  Rounding rounding;
  bool power_of_two;  // e4m3 scales
  float* out;         // [R, padded(cols)]: dequantised values
};
void launch_pack(const PackArgs&, Stream);

struct RopeQueryArgs {  // in place: RoPE interleaved on the last rope values of each head, then rounding
  int32_t rows;
  int32_t heads;
  int64_t head_dim, rope;
  const float* cos;  // [R, rope / 2]
  const float* sin;
  bool to_bf16;
  float* q;  // [R, heads * head_dim]
};
void launch_rope_query(const RopeQueryArgs&, Stream);

// ------------------------------------------------------------------------------------- linear.cu

// y[r, g, o] = factor * W[g * group_rows + first_row + o] . x[r, g]   for o < outputs, g < groups
struct LinearArgs {
  int32_t rows;
  WeightView weight;
  const float* x;  // packed: [R] rows of x_stride values, [groups] of x_group_stride in each
  int64_t x_stride;
  float* y;
  int64_t y_stride, y_group_stride;
  float factor;
  bool to_bf16;  // round y
  // One plain matrix is one group of all its rows.
  int32_t groups;
  int64_t group_rows, first_row, outputs, x_group_stride;
};
void launch_linear(const LinearArgs&, Stream);

// q_abs[r, h, j] = sum_i W[h * group_rows + i, j] q[r, h, i]   for i < nope (W_k^T q_nope)
struct AbsorbArgs {
  int32_t rows, heads;
  WeightView weight;  // kv_b
  int64_t group_rows, nope, head_dim;
  const float* q;  // [R, heads * head_dim]
  bool to_bf16;
  float* q_abs;  // out [R, heads, cols]
};
void launch_absorb(const AbsorbArgs&, Stream);

// ------------------------------------------------------------------------------------- sample.cu

struct GreedyArgs {  // the allowed id with the greatest logit, the lowest of equals; -1: none above -inf
  int32_t rows;
  int64_t vocab;
  const float* logits;           // [R, vocab]
  const unsigned char* allowed;  // [vocab] not 0: allowed
  int32_t* token;                // out [R]
};
void launch_greedy(const GreedyArgs&, Stream);

// ------------------------------------------------------------------------------------- cache.cu

struct CacheAppendRowsArgs {  // norms, RoPE, quantisation, and the two cache rows
  int32_t rows;
  StepView step;
  CacheView cache;
  const float* kv_raw;       // [R, rank + rope]
  const float* kv_a_norm;    // [rank]
  const float* index_k_raw;  // [R, index_dim]; unused without an indexer
  const float* k_norm_weight;
  const float* k_norm_bias;
  float eps;
  bool power_of_two;  // scales of index keys; latent scales always are
};
void launch_cache_append(const CacheAppendRowsArgs&, Stream);

// An official index_q row: e4m3 [heads * dim], then at a multiple of 4 f32 scale [heads].
// An exact one: f32 [heads * dim].
struct IndexQueryArgs {  // RoPE halves and, if official, Hadamard and quantisation
  int32_t rows, heads;
  int64_t dim, rope;
  const float* in;  // [R, heads * dim]
  const float* cos;
  const float* sin;
  bool official, power_of_two;
  unsigned char* out;  // [R, out_stride bytes]
  int64_t out_stride;
};
void launch_index_query(const IndexQueryArgs&, Stream);

// ------------------------------------------------------------------------------------- index.cu

struct IndexScoresArgs {  // scores of positions 0 .. position[r] of rows that see more than k
  int32_t rows, heads, topk;
  int32_t longest;  // most positions that a row of this launch sees
  StepView step;
  CacheView cache;
  const unsigned char* index_q;  // [R, q_stride bytes]
  int64_t q_stride;
  const float* weight;  // [R, heads]
  float* scores;        // out [R, score_stride]
  int64_t score_stride;
};
void launch_index_scores(const IndexScoresArgs&, Stream);

struct TopKArgs {  // the min(k, position + 1) largest, ties to the lowest position, ascending
  int32_t rows, topk;
  const int32_t* position;  // [R]
  const float* scores;      // [R, score_stride]
  int64_t score_stride;
  int32_t* selected;    // out [R, topk]
  int32_t* n_selected;  // out [R]
};
void launch_top_k(const TopKArgs&, Stream);

// ------------------------------------------------------------------------------------- attend.cu

// A row's positions are cut into at most kMostSplits splits of whole tiles, by their number alone.
inline constexpr int32_t kAttendTile = 16, kMostSplits = 32;
inline constexpr int32_t kAttendHeads = 8;          // heads that share a block's latents
inline constexpr int32_t attend_split(int32_t n) {  // positions of a split
  const int32_t tiles = (n + kAttendTile - 1) / kAttendTile;
  const int32_t per_split = (tiles + kMostSplits - 1) / kMostSplits;
  return (per_split < 4 ? 4 : per_split) * kAttendTile;
}
inline constexpr int32_t attend_splits(int32_t n) { return (n + attend_split(n) - 1) / attend_split(n); }
// Most that any number up to n has.
inline constexpr int32_t attend_most_splits(int32_t n) {
  const int32_t splits = (n + 4 * kAttendTile - 1) / (4 * kAttendTile);
  return splits < kMostSplits ? splits : kMostSplits;
}

struct AttendRowsArgs {
  int32_t rows, heads;
  StepView step;
  CacheView cache;
  const int32_t* selected;    // [R, topk]; or null: every position up to the row's own
  const int32_t* n_selected;  // [R]; null with selected
  int32_t topk;
  int32_t splits;  // of the row with most positions
  const float* q;  // [R, heads * head_dim]; its last rope values of a head are used
  int64_t head_dim;
  const float* q_abs;  // [R, heads, rank]
  float softmax_scale;
  float* partial;  // [R, splits, heads, rank + 2]: sum of e^(s - m) c, then m, then the sum of e^(s - m)
  bool to_bf16;
  float* mixed;  // out [R, heads, padded(rank)]: softmax-weighted latents, packed
};
void launch_attend(const AttendRowsArgs&, Stream);
int64_t attend_shared_bytes(int64_t rank, int64_t rope);

// ------------------------------------------------------------------------------------- route.cu

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
int64_t route_shared_bytes(int32_t experts, int32_t groups);

// ------------------------------------------------------------------------------------- experts.cu

// Up to kTilePairs pairs (row, expert) of one expert.
inline constexpr int32_t kTilePairs = 8;
struct ExpertTile {
  int32_t expert, begin, count;  // pairs [begin, begin + count)
};
// A tile holds pairs of one expert, so there are at most pairs / 8 full ones and one more for each expert.
inline constexpr int32_t most_tiles(int32_t pairs, int32_t experts) {
  const int32_t bound = pairs / kTilePairs + experts;
  return bound < pairs ? bound : pairs;
}

struct GroupArgs {  // pairs sorted by expert, and then by row
  int32_t rows, k, experts;
  const int32_t* expert;  // [R, k]
  int32_t* offset;        // scratch [experts + 1]
  int32_t* pair_row;      // out [R * k]: row of a pair
  int32_t* pair_of;       // out [R * k]: pair of (row, i)
  ExpertTile* tiles;      // out [most_tiles]
  int32_t* n_tiles;       // out [1]
};
void launch_group(const GroupArgs&, Stream);

// One FFN, or one of several by tile.
struct FfnView {
  WeightView gate, up, down;
};
// The input of a linear of either kind of weight.
struct PackedPair {
  const float* e4m3;   // for FP8 weights
  const float* other;  // for the others
};
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
  const float* y;          // [pairs, D]
  const int32_t* pair_of;  // [R, k]
  const float* weight;     // [R, k]
  const float* shared;     // [R, D] or null
  float* delta;            // out [R, D]
};
void launch_mix_experts(const MixExpertsArgs&, Stream);

}  // namespace dsv::cuda
