// What an instruction set provides for the ops that read the cache: absorbed attention and index scores.
// The ops (attend.cpp, index.cpp) cut the work; these kernels do the arithmetic of one piece on one thread.
#pragma once

#include <cstdint>

#include "backend/geometry.h"
#include "kernels/cpu/weight.h"

// Before a loop over accumulators of constant count, so that they stay in registers (g++ -O2 does not
// unroll).
#if defined(__clang__)
#define DSV_UNROLL _Pragma("unroll")
#else
#define DSV_UNROLL _Pragma("GCC unroll 16")
#endif

namespace dsv::cpu {

inline constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Sizes of absorbed attention. Heads are padded to 16, so that a vector or a matrix tile holds whole heads;
// latent columns and the RoPE part to 32 each. Padding is zero.
struct AttendShape {
  int64_t heads = 0, rank = 0, nope = 0, rope = 0, v = 0;
  bool official = false;  // the cache row is FP8 + bf16, else f32
  float scale = 0;        // softmax scale

  AttendShape() = default;
  AttendShape(const Geometry& g, Precision precision)
      : heads(g.num_heads),
        rank(g.kv_lora_rank),
        nope(g.qk_nope_head_dim),
        rope(g.qk_rope_head_dim),
        v(g.v_head_dim),
        official(precision == Precision::official),
        scale(static_cast<float>(g.softmax_scale)) {}

  int64_t padded_heads() const { return round_up(heads, 16); }
  int64_t padded_rank() const { return round_up(rank, 32); }
  int64_t padded_latent() const { return padded_rank() + round_up(rope, 32); }
  int64_t packed_query_bytes() const { return 4 * padded_heads() * padded_latent(); }
  // The floats of an AttendState.
  int64_t state_floats() const { return padded_heads() * (padded_rank() + 2); }
};

// Selected cache rows of one sequence: position i of the selection is positions[i], or i without positions.
struct LatentRows {
  const unsigned char* pool;  // [pages][64][row_bytes] of the layer
  const int32_t* pages;       // the sequence's pages
  int64_t row_bytes;
  const int32_t* positions;

  const unsigned char* row(int64_t i) const {
    const int64_t position = positions != nullptr ? positions[i] : i;
    return pool + (pages[position / kPageTokens] * int64_t{kPageTokens} + position % kPageTokens) * row_bytes;
  }
};

// Softmax-weighted sum over some of the selected rows, not yet normalised: with s the scores in powers of two
// (scale * log2(e) * q . k), max = max s, sum = sum 2^(s - max), out = sum 2^(s - max) c.
struct AttendState {
  float* out;  // [padded heads][padded rank], columns in the kernel's own order
  float* max;  // [padded heads]
  float* sum;  // [padded heads]

  AttendState(const AttendShape& shape, float* memory)
      : out(memory),
        max(memory + shape.padded_heads() * shape.padded_rank()),
        sum(max + shape.padded_heads()) {}
};

// Sizes of index scores; heads and the head dim are padded to 16 and 32 with zeros.
struct IndexShape {
  int64_t heads = 0, dim = 0;
  bool official = false;  // keys are e4m3 with a scale each, else f32

  IndexShape() = default;
  IndexShape(const Geometry& g, Precision precision)
      : heads(g.index_n_heads), dim(g.index_head_dim), official(precision == Precision::official) {}

  int64_t padded_heads() const { return round_up(heads, 16); }
  int64_t padded_dim() const { return round_up(dim, 32); }
  // A packed query: the values, then the f32 weight of each head.
  int64_t packed_query_bytes() const { return 4 * padded_heads() * (padded_dim() + 1); }
  float* packed_weights(void* packed) const {
    return static_cast<float*>(packed) + padded_heads() * padded_dim();
  }
  const float* packed_weights(const void* packed) const { return packed_weights(const_cast<void*>(packed)); }
};

// Scratch is 64-byte aligned and of the size that the function before it gives. Every result depends on the
// arguments of its own row (and head) only.
struct AttentionKernels {
  // out[r] = W_k^T q[r] of one head for `rows` rows; W_k = kv_b rows [head * (nope + v), + nope). The inputs
  // are on the bf16 grid in official. q[r] = q + r * q_stride, out[r] = out + r * out_stride.
  void (*absorb)(const AttendShape&, const CpuWeight& kv_b, int64_t head, int32_t rows, const float* q,
                 int64_t q_stride, float* out, int64_t out_stride, unsigned char* scratch);
  // out[r] = W_v x[r] of one head, W_v = kv_b rows [head * (nope + v) + nope, + v).
  void (*project)(const AttendShape&, const CpuWeight& kv_b, int64_t head, int32_t rows, const float* x,
                  int64_t x_stride, float* out, int64_t out_stride, unsigned char* scratch);
  int64_t (*project_scratch)(const AttendShape&, int32_t rows);  // of absorb and project

  // Lays out one row's query. q_abs [heads, rank], q [heads, nope + rope].
  void (*pack_query)(const AttendShape&, const float* q_abs, const float* q, void* packed);
  // The state of selected rows [begin, end), end > begin.
  void (*attend)(const AttendShape&, const void* packed, const LatentRows&, int64_t begin, int64_t end,
                 AttendState state, unsigned char* scratch);
  int64_t (*attend_scratch)(const AttendShape&);
  // into = the state of the rows of both, for heads [h0, h1).
  void (*merge)(const AttendShape&, int64_t h0, int64_t h1, AttendState into, AttendState from);
  // out [heads, rank] = state.out / state.sum for heads [h0, h1).
  void (*finish)(const AttendShape&, int64_t h0, int64_t h1, AttendState state, float* out);

  // Lays out one row's index query: values [heads, dim] (bf16 if official, else f32) and weights [heads].
  void (*pack_index_query)(const IndexShape&, const void* values, const float* weights, void* packed);
  // scores[i][64 j + t] = I(query i, position t of page pages[j]) for j in [0, count); pool
  // [pages][page_bytes]. scores never holds -0, so that equal scores have equal bits.
  void (*index_scores)(const IndexShape&, const void* const* packed, int32_t queries,
                       const unsigned char* pool, int64_t page_bytes, const int32_t* pages, int32_t count,
                       float* const* scores, unsigned char* scratch);
  int64_t (*index_scratch)(const IndexShape&);
  // Writes the positions i (ascending) with key(scores[i]) > threshold and the first `ties` of those that
  // equal it (order_key in topk.h); returns how many.
  int32_t (*select_above)(const float* scores, int32_t n, uint32_t threshold, int32_t ties, int32_t* out);
};

// The table of a Highway target (HWY_AVX2 and so on), and the one of AVX-512 with bf16 products, on AMX tiles
// or without.
const AttentionKernels& attention_kernels(int64_t hwy_target);
const AttentionKernels& attention_kernels_bf16(bool amx);

}  // namespace dsv::cpu
