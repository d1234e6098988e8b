// Attention: W_k^T q (absorb.cu, absorb_many.cu) and the softmax-weighted latents (attend*.cu).
#pragma once

#include <cstdint>

#include "kernels/cuda/packed.h"
#include "kernels/cuda/views.h"

namespace dsv::cuda {

// q_abs[r, h, j] = sum_i W[h * group_rows + i, j] q[r, h, i]   for i < nope (W_k^T q_nope)
struct AbsorbArgs {
  int32_t rows, heads;
  WeightView weight;  // kv_b
  int64_t group_rows, nope, head_dim;
  ValueRows q;   // [R, heads * head_dim]; bf16: a head's lie in the first half of its place as f32
  bool to_bf16;  // round q_abs
  bool packed;   // q_abs is bf16, or else f32
  void* q_abs;   // out [R, heads, cols]
};
void launch_absorb(const AbsorbArgs&, Stream);
// absorb_many.cu: the same bits sooner, for many rows of the released latent and FP8 weights; q is f32.
inline constexpr int32_t kAbsorbManyRows = 128;
bool takes_absorb_many(const AbsorbArgs&);
void launch_absorb_many(const AbsorbArgs&, Stream);
// absorb_wgmma.cu: the same rows and bits on Hopper, where q may be bf16.
void launch_absorb_wgmma(const AbsorbArgs&, Stream);

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

// The released latent in `official` has kernels of its own, attend_mma.cu, with tiles of as many positions as
// a split has at least: attend_most_splits holds for both.
inline constexpr int32_t kAttendMmaTile = 64, kAttendMmaRowBytes = 656;
static_assert(kAttendMmaTile == 4 * kAttendTile);
inline constexpr bool attend_mma(bool official, int64_t rank, int64_t rope) {
  return official && rank == 512 && rope == 64;
}
inline constexpr int32_t attend_mma_split(int32_t n) {
  const int32_t tiles = (n + kAttendMmaTile - 1) / kAttendMmaTile;
  return (tiles + kMostSplits - 1) / kMostSplits * kAttendMmaTile;
}
// Up to this number of positions a split is one tile, and one block gets the bits for a whole row that the
// splits get.
inline constexpr int32_t kAttendMmaFold = kMostSplits * kAttendMmaTile;

struct AttendRowsArgs {
  int32_t rows, heads;
  StepView step;
  CacheView cache;
  const int32_t* selected;    // [R, topk]; or null: every position up to the row's own
  const int32_t* n_selected;  // [R]; null with selected
  int32_t topk;
  int32_t splits;  // that a row has at most. attend_mma and attend_wgmma: or 1, if no row has more than
                   // kAttendMmaFold positions
  ValueRows q;     // as AbsorbArgs has it; its last rope values of a head are used
  int64_t head_dim;
  const void* q_abs;  // [R, heads, rank], f32. attend_mma: bf16
  float softmax_scale;
  // f32, [R, splits, heads, rank + 2]: sum of e^(s - m) c, then m, then the sum of e^(s - m). attend_mma: the
  // sums, [R, splits, heads, rank], then what belongs to them, [R, splits, heads, 2]; unused if splits is 1.
  // attend_wgmma: weights and what belongs to them, heads made up to multiples of 64.
  float* partial;
  bool to_bf16;
  float* mixed;                            // out [R, heads, padded(rank)]: softmax-weighted latents, packed
  int64_t shared_limit = kPortableShared;  // shared memory that a block can have
  bool f16_latents = true;                 // none is larger than kAttendLargestLatent
  // attend_wgmma, for speed: the positions of the one sequence that all rows are of as launch_expand writes
  // them, or null.
  const unsigned char* expanded = nullptr;
  uint16_t* codes = nullptr;  // attend_wgmma: out [R, heads, rank], bf16, instead of `mixed`, if there is
  // attend_wgmma, if splits is 1: blocks for 64 heads of a row, 1, 2 or 4; or 0, what is fastest.
  int32_t cluster = 0;
};
void launch_attend(const AttendRowsArgs&, Stream);
// Of `most` rows, as many as keep all processors of a Hopper GPU busy to the end.
int32_t attend_even_rows(int32_t heads, int32_t most);
// Whether a launch's rows, each of which one block or a cluster could have, are faster if they are split.
bool attend_prefers_splits(const AttendRowsArgs&);
// attend_wgmma: of how many blocks a cluster is that has 64 heads of a row, if rows are not split.
int32_t attend_cluster(const AttendRowsArgs&);
void launch_attend_mma(const AttendRowsArgs&, Stream);
// Hopper's own, attend_wgmma.cu: for selected positions that fit into kAttendMmaFold, latents that f16 holds,
// and heads that fill blocks of 64 at least by half. So which kernel takes a row is up to the model and the
// GPU, not to the batch. It has a smaller use for `partial`: a row needs less than a seventh of what it does
// in attend_mma.
inline constexpr int64_t kAttendWgmmaShared = 227 * 1024;
inline constexpr float kAttendLargestLatent = 57344;  // e4m3's largest times 2^7: f16 has it
inline bool attend_wgmma(const AttendRowsArgs& a) {
  return a.selected && a.topk <= kAttendMmaFold && a.heads > 32 && a.shared_limit >= kAttendWgmmaShared &&
         a.f16_latents;
}
bool takes_attend_wgmma(const AttendRowsArgs&);  // .. and where Hopper's instructions run
void launch_attend_wgmma(const AttendRowsArgs&, Stream);
// The same for rows that see so much of one sequence that it pays to bring its latents to f16 beforehand,
// attend_expanded.cu: the same bits, as codes.
inline constexpr int64_t kExpandedRowBytes = 2 * (512 + 64);  // latent as f16, RoPE part as bf16
struct ExpandArgs {
  int32_t positions;     // of the sequence, from the first on
  const int32_t* pages;  // of the sequence
  CacheView cache;
  unsigned char* expanded;  // out [positions, kExpandedRowBytes]
};
void launch_expand(const ExpandArgs&, Stream);
// It pays for this many rows at least, which select each position kExpandedUses times on average.
inline constexpr int32_t kLeastExpandingRows = 128;
inline constexpr int64_t kExpandedUses = 4;
void launch_attend_expanded(const AttendRowsArgs&, Stream);
// attend_heads.cu: a run of a sequence's rows, one position after another, that attend to all positions up to
// their own, as multi-head attention of the released head (128 + 64, values of 128) over keys and values that
// launch_head_keys makes. For kLeastHeadsRows rows or more it pays to make them; other bits.
inline constexpr int32_t kLeastHeadsRows = 256;
inline bool attend_heads(bool official, const Geometry& g) {
  return attend_mma(official, g.kv_lora_rank, g.qk_rope_head_dim) && g.qk_nope_head_dim == 128 &&
         g.v_head_dim == 128;
}
// Bytes of a position: of each head the key's 128 values and the value's, then the RoPE part, as bf16.
inline constexpr int64_t head_keys_pitch(int64_t heads) { return 2 * (256 * heads + 64); }
// .. and of all of them, with what kv_b reads behind.
inline constexpr int64_t head_keys_bytes(int64_t positions, int64_t heads) {
  return positions * head_keys_pitch(heads) + packed_bytes(positions, 512);
}
struct HeadKeysArgs {
  int32_t positions, heads;  // positions of the sequence, from the first on
  const int32_t* pages;      // of the sequence
  CacheView cache;
  WeightView kv_b;      // FP8
  unsigned char* keys;  // out [positions, head_keys_pitch(heads)], in head_keys_bytes
};
void launch_head_keys(const HeadKeysArgs&, Stream);
struct AttendHeadsArgs {
  int32_t rows, heads;
  int32_t first_position;  // of the first row
  const void* q;           // [R, heads * 192], in bf16 as AbsorbArgs has it
  const unsigned char* keys;
  float softmax_scale;
  float* y;        // out [R, heads * 128], rounded to bf16
  CodesOut codes;  // or, if there is data: the codes of that, [R, heads * 128] in e4m3, scales powers of two
};
void launch_attend_heads(const AttendHeadsArgs&, Stream);
int64_t attend_shared_bytes(int64_t rank, int64_t rope);

}  // namespace dsv::cuda
