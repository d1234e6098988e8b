// The op table: all that a port must provide, and all that the forward pass calls.
//
// An op works on rows [first, first + count) of buffers that hold a whole batch (row 0 = the batch's first
// row), so a layer can be advanced a few rows at a time: rows of a layer depend on each other only through
// the KV cache, and rows are always advanced in order. A row's result is bitwise the same alone or in any
// batch, in any row ranges, on any number of threads.
//
// Buffers are opaque: each backend stores a row of a kind as it likes (`row_bytes`), and converts on request
// (`store`, `fetch`; for tests and for reading results). The shapes below are the logical ones. Symbols: R
// rows, D hidden_size, H num_heads, Hi index_n_heads, Di index_head_dim, k index_topk, V vocab_size.
//
// Number formats, binding for every backend (what `official` rounds, so that a backend can be judged):
//   linear, FP8 weight   official: input quantised to e4m3 per 128 values (scale = max(amax, 1e-4) / 448,
//   rounded up to
//                        a power of two if ue8m0_scales), products summed in >= fp32 within each 128, then *
//                        scales. exact: fp32 input, dequantised weight.
//   linear, other weight official: input rounded to bf16. exact: fp32.
//   router gate, weights_proj: fp32 input (bf16 grid in official, as h is), >= fp32 sums, in both.
//   h, q_latent, q, q_abs (= W_k^T q_nope), heads: official rounds to bf16; kv_b is applied with bf16 input
//   in
//                        official. x and deltas stay fp32. Softmax weights may be rounded to bf16 in
//                        official.
//   kv row, index row    KvLayout; index queries and keys are e4m3 with one power-of-two (ue8m0) or f32 scale
//   per
//                        vector in official, after RoPE (halves) and Hadamard * Di^-0.5; exact has fp32, no
//                        Hadamard.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/geometry.h"
#include "backend/jobs.h"
#include "backend/sampling.h"
#include "backend/weights.h"

namespace dsv {

struct Device;         // opaque, one open backend instance
using Buffer = void*;  // rows in the backend's own storage

enum class Act : int32_t {  // kinds of activation buffer, with the logical shape of a row
  x,                        // [D] residual stream
  mtp_x,                    // [D] residual stream of the MTP layer; null buffer without MTP
  h,                        // [D] normalised input of a block
  delta,                    // [D] output of a block, added by the next add_norm
  q_latent,                 // [q_lora_rank]
  kv_raw,                   // [kv_lora_rank + rope] before norm and RoPE
  index_k_raw,              // [Di] before LayerNorm
  index_weight,             // [Hi] weights_proj(h) * Hi^-0.5 * Di^-0.5
  q,                        // [H, nope + rope], RoPE applied
  index_q,  // [Hi, Di], RoPE and in official Hadamard + e4m3 applied (fetch returns dequantised values)
  heads,    // [H, v_head_dim]
  // Integers, which fetch and store give and take as floats (all are below 2^24):
  selected,       // [k] positions, ascending; what is past n_selected is nobody's } null buffers without
  n_selected,     // [1]                                                           } indexer
  expert,         // [num_experts_per_tok], ascending     } null buffers
  expert_weight,  // [num_experts_per_tok] of those, f32  } without experts
  logits,         // [V], f32; has DeviceOptions::logit_rows rows, one for each wanted row of the batch
  token,          // [1] what was drawn from such a row; -1: every logit is NaN
  count
};

inline constexpr bool is_integer(Act kind) {
  return kind == Act::selected || kind == Act::n_selected || kind == Act::expert || kind == Act::token;
}

// Values of a row; 0: the geometry has no such buffer.
inline int64_t row_values(const Geometry& g, Act kind) {
  switch (kind) {
    case Act::x:
    case Act::mtp_x:
    case Act::h:
    case Act::delta:
      return g.hidden_size;
    case Act::q_latent:
      return g.q_lora_rank;
    case Act::kv_raw:
      return g.latent_dim();
    case Act::index_k_raw:
      return g.has_indexer() ? g.index_head_dim : 0;
    case Act::index_weight:
      return g.index_n_heads;
    case Act::q:
      return g.num_heads * g.qk_head_dim();
    case Act::index_q:
      return g.has_indexer() ? g.index_n_heads * g.index_head_dim : 0;
    case Act::heads:
      return g.num_heads * g.v_head_dim;
    case Act::selected:
      return g.has_indexer() ? g.index_topk : 0;
    case Act::n_selected:
      return g.has_indexer() ? 1 : 0;
    case Act::expert:
    case Act::expert_weight:
      return g.n_routed_experts > 0 ? g.num_experts_per_tok : 0;
    case Act::logits:
      return g.vocab_size;
    case Act::token:
      return 1;
    case Act::count:
      break;
  }
  return 0;
}

struct DeviceOptions {
  const Geometry* geometry = nullptr;  // copied
  Precision precision = Precision::official;
  bool with_mtp = false;
  int32_t batch_rows = 0;   // R: rows of a batch at most
  int32_t logit_rows = 0;   // rows of a batch whose logits are wanted at most; 0: all of them
  int32_t max_context = 0;  // positions of a sequence at most
  int64_t kv_pages = 0;     // pages of the pool
  // What plan_weight_copy says of all weights to come, for a device that takes its memory at once; 0: unknown
  int64_t weight_copy_bytes = 0;
  // A row's result may depend on how many rows are computed with it; for the same batches it is the same.
  // Where many rows meet, products may be summed on FP8 tensor cores, attention may be over keys and values
  // of heads in bf16, and what an expert gives may be bf16 before it is weighted and added, as queries before
  // they are turned and delta before it is added, in the released model's own code. For tables that are faster
  // so; others ignore it.
  bool fast = false;
  int32_t stream_priority = 0;   // of a GPU's stream: lower goes first. What there is not becomes the nearest
  const char* target = nullptr;  // CPU: force an instruction set; null = best. CUDA: the GPU's number
  const bool* allowed = nullptr;  // [V] ids that `sample` may choose; null: all. Copied
  Jobs* jobs = nullptr;           // outlives the device
  // Large blocks; nothing is allocated after open and load_weight. Throws dsv::Error (OUT_OF_MEMORY, BUDGET).
  void* (*allocate)(void* user, int64_t size, int64_t alignment) = nullptr;
  void (*deallocate)(void* user, void* memory, int64_t size, int64_t alignment) = nullptr;
  void* user = nullptr;
};

// Rows that a buffer of that kind has.
inline int32_t buffer_rows(const DeviceOptions& options, Act kind) {
  const bool wanted = kind == Act::logits || kind == Act::token;
  return wanted && options.logit_rows > 0 ? options.logit_rows : options.batch_rows;
}

struct RowRange {
  int32_t first = 0, count = 0;
};

// A batch. Arrays stay valid until the next begin_step. Row r reads and writes the cache of its sequence
// only.
struct StepArgs {
  int32_t rows = 0;
  const int32_t* token = nullptr;       // [rows] in [0, V)
  const int32_t* position = nullptr;    // [rows]; row r sees positions 0 .. position[r]
  const int32_t* sequence = nullptr;    // [rows] row of page_table
  const int32_t* page_table = nullptr;  // [sequences, page_stride]: page of positions 64 i .. 64 i + 63
  int32_t sequences = 0;
  int32_t page_stride = 0;
  const int32_t* next_token = nullptr;  // [rows] the token after each row's, for mtp_in; null: no MTP layer
  const int32_t* logit_row = nullptr;   // [logit_rows] rows whose logits are wanted, ascending
  int32_t logit_rows = 0;
  const SampleRow* sample = nullptr;  // [logit_rows] how each is sampled; null: there is no sample op
  const TokenBias* bias = nullptr;    // [biases] what their ranges are in
  int32_t biases = 0;                 // at most V
  // The ops of a whole forward pass follow, always the same for the same kind of pass (with the MTP layer or
  // without, with sampling or without), on all rows, and then end_step. For tables that have one.
  bool whole = false;
};
// How the ops of a step are to be called: on rows [0, rows), and logits on [0, logit_rows). A device may ask
// for more rows than the batch has; those repeat its last one.
struct StepPlan {
  int32_t rows = 0, logit_rows = 0;
  bool recorded = false;  // of a whole step: the device knows its ops. Call none but end_step.
};

// A kind of whole step.
struct PassKind {
  int32_t rows = 0, logit_rows = 0;
  bool draft = false, sample = false;  // with the MTP layer; with sampling
  bool first_layer = false;            // when a device prepares: of the main layers only the first
};

struct EmbedArgs {
  RowRange rows;
  const Weight* table;  // [V, D]
  Buffer x;             // out
};
struct AddNormArgs {  // x += delta (if given); h = RMSNorm(x) * weight, eps = rms_norm_eps
  RowRange rows;
  Buffer x;              // in, out
  const void* delta;     // or null
  const Weight* weight;  // [D]
  Buffer h;              // out
};
struct AttnInArgs {
  RowRange rows;
  const AttentionWeights* weights;
  const void* h;
  Buffer q_latent;      // out: RMSNorm(q_a h); unused when q_lora_rank is 0
  Buffer kv_raw;        // out: kv_a h
  Buffer index_k_raw;   // out: wk h          } unused without
  Buffer index_weight;  // out: weights_proj  } indexer
};
struct AttnQArgs {
  RowRange rows;
  const AttentionWeights* weights;
  const void* q_latent;
  const void* h;   // read instead of q_latent when q_lora_rank is 0
  Buffer q;        // out: q_b, RoPE interleaved on the last rope values of each head
  Buffer index_q;  // out: wq_b, RoPE halves on the first rope values; then as `official` says
};
struct CacheAppendArgs {  // the only writer of the cache; runs before index_select, because s <= t includes t
  RowRange rows;
  int32_t layer;  // cache layer
  const AttentionWeights* weights;
  const void* kv_raw;
  const void* index_k_raw;
};
// I(t, s) = k_scale_s * sum_h relu(q_h . k_s) * w_h * q_scale_h (paper eq. 1; w_h holds Hi^-0.5 Di^-0.5).
// Selects the min(k, t + 1) largest, ties to the lowest position. Called only with an indexer. Rows with t +
// 1 <= k need no scores.
struct IndexSelectArgs {
  RowRange rows;
  int32_t layer;
  const void* index_q;
  const void* index_weight;
  Buffer selected;    // out
  Buffer n_selected;  // out
};
struct AttendArgs {  // softmax over the selected positions, absorbed form (MQA over latents), then W_v per
                     // head
  RowRange rows;
  int32_t layer;
  const AttentionWeights* weights;  // kv_b
  const void* q;
  const void* selected;    // or null: every position 0 .. t
  const void* n_selected;  // at most min(k, t + 1); null with selected
  Buffer heads;            // out
};
struct AttnOutArgs {
  RowRange rows;
  const AttentionWeights* weights;  // o
  const void* heads;
  Buffer delta;  // out
};
// scores = sigmoid(gate h); choice = scores + bias; keep the topk_group best groups (sum of a group's two
// best choices; groups of one expert count it once); the num_experts_per_tok best choices in them; weight =
// score, normalised and scaled. Ties to the lowest index. Experts ascending by index.
struct RouteArgs {
  RowRange rows;
  const MoeWeights* weights;
  const void* h;
  Buffer expert;         // out
  Buffer expert_weight;  // out
};
struct ExpertsArgs {  // delta = sum_e weight_e * down_e(silu(gate_e h) * up_e h), in expert order, + shared
                      // expert
  RowRange rows;
  const MoeWeights* weights;
  const void* h;
  const void* expert;
  const void* expert_weight;
  Buffer delta;  // out
};
struct FfnArgs {
  RowRange rows;
  const FfnWeights* weights;
  const void* h;
  Buffer delta;  // out
};
// x' = eh_proj [enorm(embed(next)); hnorm(norm(x))], embed = 0 at position 0 (DeepSeek-V3 eq. 21; facts: `x`
// goes in after the main model's final norm).
struct MtpInArgs {
  RowRange rows;
  const MtpWeights* weights;
  const Weight* norm;  // [D] the main model's final norm
  const void* x;       // main residual stream, last delta added
  Buffer x_out;
};
// logits[i] = head RMSNorm(x[row[i]] + delta[row[i]]), fp32, row = StepArgs::logit_row.
struct LogitsArgs {
  RowRange rows;  // i
  const void* x;
  const void* delta;   // or null
  const Weight* norm;  // [D]
  const Weight* head;  // [V, D]
  Buffer logits;       // out
};

struct SampleArgs {  // token[i] from logits[i] as StepArgs::sample[i] and backend/sampling.h say
  RowRange rows;     // i
  Buffer logits;     // biased meanwhile, then as before
  Buffer token;      // out
};

// Every entry is set unless it says so. Functions report failure by throwing dsv::Error from open and
// load_weight only; ops cannot fail and do not allocate. But a GPU can be lost: then every function except
// close, target, buffer and the plans may throw DEVICE_LOST.
struct OpTable {
  const char* name;  // "cpu", "cuda", "reference"

  Device* (*open)(const DeviceOptions&);
  void (*close)(Device*);
  const char* (*target)(const Device*);  // instruction set in use
  // Memory is the host's, or where a GPU computes the GPU's: `own_memory`. Then its host memory beside, some
  // MB for transfers, is in no plan.
  int64_t (*plan_scratch)(const DeviceOptions&);  // bytes that open will allocate, KV pool excluded
  int64_t (*plan_weight_copy)(const DeviceOptions&, const HostMatrix&);  // bytes load_weight will allocate
  const Weight* (*load_weight)(Device*, const HostMatrix&);  // references the mapped bytes where it can
  Buffer (*buffer)(Device*, Act);  // the device's buffer of that kind, batch_rows rows, made at open
  void (*store)(Device*, Act, Buffer, RowRange, const float* values);  // logical rows in
  void (*fetch)(Device*, Act, const void*, RowRange, float* values);   // logical rows out
  void (*read_kv)(Device*, int32_t layer, int32_t page, void* out);    // one layer's page, in KvLayout bytes
  void (*write_kv)(Device*, int32_t layer, int32_t page, const void* in);

  StepPlan (*begin_step)(Device*, const StepArgs&);
  void (*embed)(Device*, const EmbedArgs&);
  void (*add_norm)(Device*, const AddNormArgs&);
  void (*attn_in)(Device*, const AttnInArgs&);
  void (*attn_q)(Device*, const AttnQArgs&);
  void (*cache_append)(Device*, const CacheAppendArgs&);
  void (*index_select)(Device*, const IndexSelectArgs&);
  void (*attend)(Device*, const AttendArgs&);
  void (*attn_out)(Device*, const AttnOutArgs&);
  void (*route)(Device*, const RouteArgs&);
  void (*experts)(Device*, const ExpertsArgs&);
  void (*ffn)(Device*, const FfnArgs&);
  void (*mtp_in)(Device*, const MtpInArgs&);
  void (*logits)(Device*, const LogitsArgs&);
  void (*sample)(Device*, const SampleArgs&);

  // Row i of the device's buffer of tokens, after sample; where ops are enqueued: after a whole step.
  int32_t (*token)(Device*, int32_t i);
  // Row i of the device's buffer of logits where that is the host's memory, f32; or null: fetch it.
  const float* (*logits_row)(Device*, int32_t i) = nullptr;

  // For devices that work on their own while the host goes on: there an op only enqueues its work, in order.
  // All null where an op is done when it returns. `store` and `fetch` come after what was enqueued.

  // Ends a whole step; `complete` false drops one whose ops have not all been called, and never throws.
  void (*end_step)(Device*, bool complete) = nullptr;
  // Whether the last whole step is done; waits for that as long at most. Then *took: what it took the device.
  bool (*wait)(Device*, double seconds, double* took) = nullptr;
  // For benches: enqueues a reading of the device's clock, the i-th of kStamps at most; the seconds between
  // two that have been reached. Not in steps that are recorded, so not in whole ones.
  static constexpr int32_t kStamps = 4096;
  void (*stamp)(Device*, int32_t i) = nullptr;
  double (*between)(Device*, int32_t from, int32_t to) = nullptr;
  bool own_memory = false;
  // For devices on which the first step of a kind takes longer than later ones; null where none does. Begins
  // the i-th of the steps that make it ready for all kinds, of which nothing is computed and nothing remains
  // but that; false: there are no more. The ops of a whole step follow (or of less of it: PassKind), on rows
  // [0, rows) and logits on [0, logit_rows), and end_step.
  bool (*prepare)(Device*, int32_t i, PassKind*) = nullptr;
};

const OpTable& cpu_ops();        // kernels/cpu
const OpTable& reference_ops();  // kernels/reference, fp64
// kernels/cuda is a library of its own: cuda_library() in backend/library.h.

// CPU targets this machine can run, best first, space separated. Static storage.
const char* cpu_targets();

}  // namespace dsv
