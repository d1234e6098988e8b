// The kernels and their arguments: one struct each, every pointer with its shape, all in device memory. The
// launch_* functions enqueue and return; a kernel's bound is derived at its head in the .cu file.
//
// Rows of activations are f32, `*_stride` values apart. R rows of the launch.
#pragma once

#include <cstdint>

#include "backend/geometry.h"
#include "backend/sampling.h"
#include "backend/weights.h"

namespace dsv::cuda {

using Stream = void*;

// Shared memory that a block can have on every GPU from sm_80 on.
inline constexpr int64_t kPortableShared = 99 * 1024;

// A matrix on the device. Rows are padded with zeros to whole 16-byte chunks.
struct WeightView {
  const unsigned char* data = nullptr;  // [rows, pitch] bytes, 256-byte aligned
  const float* scale = nullptr;         // f8_e4m3: [ceil(rows / 128), scale_cols]
  int64_t rows = 0, cols = 0;
  int64_t pitch = 0;  // bytes of a row
  int32_t scale_cols = 0;
  Dtype dtype = Dtype::f32;
};

inline constexpr int64_t weight_pitch(Dtype dtype, int64_t cols) {
  return (cols * dtype_bytes(dtype) + 15) / 16 * 16;
}

// Packed input of a linear, for the plain kernels: rounded as the number format says, as f32; rows padded
// with zeros to this many values.
inline constexpr int64_t padded(int64_t n) { return (n + 15) / 16 * 16; }
enum class Rounding : int32_t { none, bf16, e4m3 };

// Packed input for the tensor cores: codes of the weight's kind, rows padded with zeros to whole blocks.
inline constexpr int64_t kTensorBlock = 128;  // bytes
inline constexpr int tensor_blocks(int64_t row_bytes) {
  return static_cast<int>((row_bytes + kTensorBlock - 1) / kTensorBlock);
}
// How rows of e4m3 lie in memory: scales of 128 values each as [R, blocks]; as [blocks, R], what
// linear_fp8.cu copies to shared memory; or so with the codes as f16, each block in the order of its mma
// steps (spread_word), what linear_wgmma.cu copies.
enum class PackedForm : int32_t { by_row, by_block, spread };
struct PackedRows {
  const unsigned char* data = nullptr;  // [R, pitch]: e4m3 or bf16
  int64_t pitch = 0;                    // bytes
  const float* scale = nullptr;         // e4m3: [R, scale_cols] or [blocks, scale_cols]
  int64_t scale_cols = 0;
  PackedForm form = PackedForm::by_row;
};
// Where the two halves of word i of a spread row's e4m3 codes go, in words: to this one, and 4 on. Word 4 t +
// j of a unit of 16 is lane t's part of step j (tensor.cuh); a step has 8 words, its columns 0 to 7 first.
inline constexpr int64_t spread_word(int64_t i) { return (i / 16 * 4 + i % 4) * 8 + i / 4 % 4; }
// Rows of e4m3 or bf16 codes in one piece of memory: the codes and, behind them, the scales of e4m3.
inline constexpr int64_t packed_pitch(int64_t cols, Rounding rounding) {
  return tensor_blocks(rounding == Rounding::e4m3 ? cols : 2 * cols) * kTensorBlock;
}
inline constexpr int64_t packed_bytes(int64_t rows, int64_t cols) {  // enough for any form, f32 included
  const int64_t blocks = tensor_blocks(cols), f32 = 4 * padded(cols);
  const int64_t codes = 2 * packed_pitch(cols, Rounding::e4m3) + 4 * blocks;
  return rows * (codes > f32 ? codes : f32) + 12 * blocks;
}
inline PackedRows packed_rows(void* memory, int64_t rows, int64_t cols, Rounding rounding,
                              PackedForm form = PackedForm::by_row) {
  const int64_t pitch = packed_pitch(cols, rounding) * (form == PackedForm::spread ? 2 : 1);
  const auto* data = static_cast<const unsigned char*>(memory);
  if (rounding != Rounding::e4m3) return {data, pitch};
  const int64_t scale_cols = form == PackedForm::by_row ? tensor_blocks(cols) : (rows + 3) / 4 * 4;
  return {data, pitch, reinterpret_cast<const float*>(data + rows * pitch), scale_cols, form};
}

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

// Words from or to pinned host memory, which a launch reaches sooner than a copy begins. For few.
struct CopyWordsArgs {
  int64_t words;
  const int32_t* from;
  int32_t* to;  // out
};
void launch_copy_words(const CopyWordsArgs&, Stream);

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
  // `out` as codes, too, as packed_rows says; or null.
  unsigned char *e4m3 = nullptr, *bf16 = nullptr;
  PackedForm form = PackedForm::by_row;  // of e4m3
  bool power_of_two = false;
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

struct PackCodesArgs {  // x as codes, for the tensor cores
  int32_t rows;
  int64_t cols;
  const float* x;
  int64_t x_stride;
  Rounding rounding;   // bf16 or e4m3
  bool power_of_two;   // e4m3 scales
  unsigned char* out;  // as packed_rows says
  PackedForm form = PackedForm::by_row;
};
void launch_pack_codes(const PackCodesArgs&, Stream);

struct GatherRowsArgs {  // out[p] = from[row[p]], as packed_rows has e4m3 rows of its form
  int32_t rows;
  PackedRows from;
  const int32_t* row;  // [R]
  int32_t blocks;      // of a row
  unsigned char* out;
};
void launch_gather_rows(const GatherRowsArgs&, Stream);

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

// ------------------------------------------------------------------------------------- sample.cu

struct SampleRowsArgs {  // lib/backend/sampling.h
  int32_t rows;
  int64_t vocab;
  float* logits;            // [R, vocab]; biased while the kernel runs
  const uint32_t* allowed;  // bits, from the lowest: [ceil(vocab / 32)]
  int32_t first_allowed;    // the lowest such id
  const SampleRow* row;     // [R]
  const TokenBias* bias;    // what the rows' ranges are in
  float* unbiased;          // scratch: one for each of these
  int32_t* token;           // out [R]; -1: every logit is NaN
};
void launch_sample(const SampleRowsArgs&, Stream);

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
  bool early = true;  // as TensorArgs has it
};
void launch_cache_append(const CacheAppendRowsArgs&, Stream);
bool takes_released(const CacheAppendRowsArgs&);  // whether it goes to cache_released.cu
void launch_cache_append_released(const CacheAppendRowsArgs&, Stream);

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
  bool early = true;  // as TensorArgs has it
};
void launch_index_query(const IndexQueryArgs&, Stream);
bool takes_released(const IndexQueryArgs&);
void launch_index_query_released(const IndexQueryArgs&, Stream);

// ------------------------------------------------------------------------------------- index.cu

// Which kernels score an official index of 128 values and at most 64 heads; every other takes the plain one.
enum class IndexPath : int32_t {
  plain,
  portable,  // f16 mma.sync with f32 sums, sm_80 and newer
  f32_sums,  // Hopper's f16 tensor cores; portable elsewhere, for at most 8 heads and for odd row strides
  fp8_sums,  // Hopper's FP8 tensor cores, twice as fast with coarser sums; likewise
};
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
  IndexPath path = IndexPath::f32_sums;
  int32_t rows_together = 1;  // consecutive rows that mostly are of one sequence; for speed only
};
void launch_index_scores(const IndexScoresArgs&, Stream);

struct TopKArgs {  // the min(k, position + 1) largest, ties to the lowest position, ascending
  int32_t rows, topk;
  const int32_t* position;  // [R]
  const float* scores;      // [R, score_stride]
  int64_t score_stride;
  int32_t* selected;                 // out [R, topk]
  int32_t* n_selected;               // out [R]
  int32_t longest;                   // most positions that a row of this launch sees
  unsigned char* scratch = nullptr;  // top_k_scratch_bytes(longest), 16-byte aligned; or null: slower
};
void launch_top_k(const TopKArgs&, Stream);
void launch_top_k_portable(const TopKArgs&, Stream);
void launch_top_k_plain(const TopKArgs&, Stream);  // any length, slow
bool takes_top_k_short(const TopKArgs&);           // topk_hopper.cu: a row in a block's registers
void launch_top_k_short(const TopKArgs&, Stream);
bool takes_top_k_hopper(const TopKArgs&);  // .. and few long rows have clusters of blocks each
void launch_top_k_hopper(const TopKArgs&, Stream);
void launch_top_k_blocks(const TopKArgs&, int32_t blocks, Stream);  // of the same, 1, 2, 4 or 8 a row
int64_t top_k_scratch_bytes(int64_t longest);

// ------------------------------------------------------------------------------------- absorb.cu

// q_abs[r, h, j] = sum_i W[h * group_rows + i, j] q[r, h, i]   for i < nope (W_k^T q_nope)
struct AbsorbArgs {
  int32_t rows, heads;
  WeightView weight;  // kv_b
  int64_t group_rows, nope, head_dim;
  const float* q;  // [R, heads * head_dim]
  bool to_bf16;    // round q_abs
  bool packed;     // q_abs is bf16, or else f32
  void* q_abs;     // out [R, heads, cols]
};
void launch_absorb(const AbsorbArgs&, Stream);
// absorb_many.cu: the same bits sooner, for many rows of the released latent and FP8 weights.
inline constexpr int32_t kAbsorbManyRows = 128;
bool takes_absorb_many(const AbsorbArgs&);
void launch_absorb_many(const AbsorbArgs&, Stream);

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
  const float* q;  // [R, heads * head_dim]; its last rope values of a head are used
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
};
void launch_attend(const AttendRowsArgs&, Stream);
// Of `most` rows, as many as keep all processors of a Hopper GPU busy to the end.
int32_t attend_even_rows(int32_t heads, int32_t most);
// Whether a launch's rows, each of which one block could have, are faster if they are split.
bool attend_prefers_splits(const AttendRowsArgs&);
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

// ------------------------------------------------------------------------------------- FFNs

// What Hopper's copy engine knows of a matrix (a CUtensorMap).
struct alignas(128) TensorMap {
  uint64_t words[16] = {};
};
// Of bytes: in boxes of 128 columns and kMapRows rows.
inline constexpr int kMapRows = 64;
bool wgmma_works();  // whether the current device has that engine, and Hopper's tensor cores
TensorMap weight_map(const WeightView&, int64_t box_rows = kMapRows);
TensorMap input_map(const PackedRows&, int64_t rows, int64_t box_rows = kMapRows);
TensorMap scale_map(const PackedRows&, int64_t rows, int64_t blocks, int64_t box);  // not of form by_row

// One FFN, or one of several by tile.
struct FfnMaps {
  TensorMap gate, up, down;
};
struct FfnView {
  WeightView gate, up, down;
  FfnMaps maps = {}, few_maps = {};  // few: in boxes for launch_tensor_fp8_few
  void make_maps();
};
// Pairs (row, expert) of one expert: at most as many as the launch says.
struct ExpertTile {
  int32_t expert, begin, count;  // pairs [begin, begin + count)
};
// A tile holds pairs of one expert, so there are at most pairs / rows full ones and one more for each expert.
inline constexpr int32_t most_tiles(int32_t pairs, int32_t experts, int32_t tile_rows) {
  const int32_t bound = pairs / tile_rows + experts;
  return bound < pairs ? bound : pairs;
}

// ------------------------------------------------------------------------------------- linear_few.cu,
// linear_many.cu

// Splits of a sum over a weight's columns: by the weight's shape alone, so that a matrix of few outputs keeps
// the whole GPU busy (1024 warps of 16 outputs are 8 a processor) and a split is two blocks at least.
inline constexpr int tensor_splits(int64_t outputs, int64_t row_bytes) {
  int splits = 1;
  while (splits < 8 && (outputs + 15) / 16 * splits < 1024 && tensor_blocks(row_bytes) >= 4 * splits)
    splits *= 2;
  return splits;
}

enum class TensorKind : int32_t { linear, swiglu, down };
enum class TensorFormat : int32_t { e4m3, bf16, mixed };  // mixed: FP8 weight, bf16 input
struct LinearPart {                                       // y[r, o] = factor * W x_r
  WeightView weight;
  float* y = nullptr;
  int64_t y_stride = 0;
};
// FP8 weights with e4m3 input, bf16 ones with bf16 input, or a linear's FP8 weight with bf16 input (tiles of
// 64 rows at most), on the tensor cores.
//   linear: y[r, o] = factor * W x_r            down: y[p] = ffn.down x_p
//   swiglu: y[p] = silu(gate x[row of p]) * up x[row of p]
// FFNs: pairs are those of `tiles`; with tiles null, row r is pair r and all are of ffn[0].
struct TensorArgs {
  TensorKind kind;
  Dtype dtype;   // f8_e4m3 or bf16: of every weight of the launch
  int32_t rows;  // of y
  PackedRows x;
  WeightView weight;        // of a linear
  const FfnView* ffn;       // of the others: [experts]
  const ExpertTile* tiles;  // or null
  const int32_t* n_tiles;
  const int32_t* pair_row;  // [rows]: row of x; or null: the same
  int32_t tile_bound;       // tiles at most; with tiles null, how many there are
  int32_t tile_rows;        // rows of a tile at most
  int64_t outputs, pitch;   // of the weight: its rows, and bytes of one
  float* y;                 // out [rows, y_stride]
  int64_t y_stride;
  float factor;
  bool to_bf16;  // round y
  // A linear's weight may be many, each for its own part of x and y: y[r, g, o] = W[g * group_rows +
  // first_row + o] x[r, g]. Both are multiples of 128, and a part of x is whole blocks.
  int32_t groups = 1;
  int64_t group_rows = 0, first_row = 0;
  int64_t x_group = 0, y_group = 0;  // bytes, values
  bool fp8_sums = false;             // on Hopper's FP8 tensor cores, in tiles of kFp8Rows: other bits
  // For few rows a linear may be several of the same input in one launch, each of as many splits.
  LinearPart second = {}, third = {};
  int32_t n_more = 0;
  bool early = true;  // the launch before is in the same stream, and the only one that this one follows
};
// .. A token of routed experts has several weights at a time.
inline constexpr int tensor_splits(const TensorArgs& a) {
  return tensor_splits(a.outputs * a.groups * (a.tiles ? 8 : 1), a.pitch);
}
inline TensorFormat tensor_format(const TensorArgs& a) {
  return a.dtype == Dtype::bf16 ? TensorFormat::bf16 : a.x.scale ? TensorFormat::e4m3 : TensorFormat::mixed;
}
// Tiles of 8, 16 or 32 rows, and of 64 or 128: one K order, so the same bits.
inline constexpr int32_t kFewRows = 32;
void launch_tensor_few(const TensorArgs&, Stream);
void launch_tensor_many(const TensorArgs&, Stream);
// On Hopper tiles of up to 128 rows of spread input: the same bits again. Splits may be worked on side by
// side, by 1, 2, 4 or 8 blocks of threads a tile of 64 rows; 0: one after another, in tiles of 128.
inline constexpr int32_t kWgmmaRows = 128;
void launch_tensor_wgmma(const TensorArgs&, Stream);
void launch_tensor_wgmma_as(const TensorArgs&, Stream, int side_by_side);
bool wgmma_takes_side_by_side(const TensorArgs&, int blocks);
int wgmma_side_by_side(const TensorArgs&);  // the quickest
// .. or of up to 256 rows for FP8 sums. Both take what the copy engine can read: rows of x one after another
// (pair_row is null), and FFNs with maps.
inline constexpr int32_t kFp8Rows = 256, kFp8Pairs = 192;  // pairs: of routed experts
void launch_tensor_fp8(const TensorArgs&, Stream);
// .. of up to kFp8FewRows rows all together, of one weight.
inline constexpr int32_t kFp8FewRows = 128;
void launch_tensor_fp8_few(const TensorArgs&, Stream);
int fp8_few_outputs(bool swiglu, int64_t outputs);  // of a tile: rows of each weight
// heads_wgmma.cu: W_v of many rows on Hopper, the same bits.
inline constexpr int32_t kHeadsLeastRows = 128;
bool takes_heads_wgmma(const TensorArgs&);
void launch_heads_wgmma(const TensorArgs&, Stream);
inline void launch_tensor(const TensorArgs& a, Stream stream) {
  if (a.fp8_sums)
    return !a.tiles && a.rows <= kFp8FewRows ? launch_tensor_fp8_few(a, stream)
                                             : launch_tensor_fp8(a, stream);
  if (a.x.form == PackedForm::spread) return launch_tensor_wgmma(a, stream);
  a.tile_rows <= kFewRows ? launch_tensor_few(a, stream) : launch_tensor_many(a, stream);
}
// Rows of a tile for a launch in which weights of all these outputs meet about so many rows. Large tiles use
// the tensor cores best, if there are enough (tiles are 128 x 128) for a GPU of some 130 processors.
inline constexpr int32_t tensor_tile_rows(int64_t rows, int64_t outputs) {
  if (rows <= 32) return rows <= 8 ? 8 : rows <= 16 ? 16 : 32;
  return rows > 64 && (rows + 127) / 128 * ((outputs + 127) / 128) >= 130 ? 128 : 64;
}

// ------------------------------------------------------------------------------------- values.cu

// y[r, h, o] = W[h * group_rows + first_row + o] mixed[r, h], rounded to bf16, and y as codes: of few rows
// and heads of 128 values.
inline constexpr int32_t kValuesFewRows = 8;
struct ValuesArgs {
  int32_t rows, heads, splits;  // splits: as tensor_splits has it for all heads' values together
  WeightView weight;            // kv_b
  int64_t group_rows, first_row;
  const float* mixed;    // [R, heads, rank]
  float* y;              // out [R, heads * 128]
  unsigned char* codes;  // out: y in e4m3, as packed_rows has it; or null
  bool power_of_two;     // their scales
};
bool takes_values(const ValuesArgs&, int64_t values);
void launch_values(const ValuesArgs&, Stream);

// ------------------------------------------------------------------------------------- experts.cu

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
};
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
  bool early = true;       // as TensorArgs has it
};
void launch_mix_experts(const MixExpertsArgs&, Stream);

}  // namespace dsv::cuda
