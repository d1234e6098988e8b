// Weights as the backend holds them: plain structs of handles, filled once at load, every pointer with its
// shape. D hidden_size, H num_heads, E n_routed_experts; shapes are [out, in] as stored in the checkpoint.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace dsv {

enum class Dtype : int32_t { f8_e4m3, bf16, f16, f32 };
inline constexpr int64_t dtype_bytes(Dtype t) { return t == Dtype::f8_e4m3 ? 1 : t == Dtype::f32 ? 4 : 2; }

// A matrix or vector (rows == 1) in the mapped checkpoint. Nothing is aligned. Stays valid until the device
// closes.
struct HostMatrix {
  std::string_view name;
  Dtype dtype = Dtype::f32;
  int64_t rows = 0, cols = 0;
  const void* data = nullptr;  // [rows, cols], row-major, little endian
  const void* scale_inv =
      nullptr;  // f8_e4m3 only: f32 [ceil(rows/128), ceil(cols/128)]; w = fp8 * scale_inv; finite
};

struct Weight;  // opaque, owned by the device that made it

struct AttentionWeights {
  const Weight* q_a = nullptr;        // [q_lora_rank, D]; null when q_lora_rank is 0
  const Weight* q_a_norm = nullptr;   // [q_lora_rank]; null with q_a
  const Weight* q_b = nullptr;        // [H * (nope + rope), q_lora_rank], or q_proj [.., D]
  const Weight* kv_a = nullptr;       // [kv_lora_rank + rope, D]
  const Weight* kv_a_norm = nullptr;  // [kv_lora_rank]
  const Weight* kv_b = nullptr;       // [H * (nope + v), kv_lora_rank]: per head W_k then W_v
  const Weight* o = nullptr;          // [D, H * v]
  // Indexer; all null without one. Hi index_n_heads, Di index_head_dim.
  const Weight* wq_b = nullptr;           // [Hi * Di, q_lora_rank]
  const Weight* wk = nullptr;             // [Di, D]
  const Weight* k_norm_weight = nullptr;  // [Di]
  const Weight* k_norm_bias = nullptr;    // [Di]
  const Weight* weights_proj = nullptr;   // [Hi, D]
};

struct FfnWeights {
  const Weight* gate = nullptr;  // [I, D]
  const Weight* up = nullptr;    // [I, D]
  const Weight* down = nullptr;  // [D, I]
};

struct MoeWeights {
  const Weight* gate = nullptr;     // [E, D], the router
  const Weight* bias = nullptr;     // [E], e_score_correction_bias
  std::vector<FfnWeights> experts;  // E of I = moe_intermediate_size
  FfnWeights shared;                // I = n_shared_experts * moe_intermediate_size; null without
};

struct LayerWeights {
  const Weight* input_norm = nullptr;  // [D]
  const Weight* post_norm = nullptr;   // [D], post_attention_layernorm
  AttentionWeights attention;
  bool is_moe = false;
  FfnWeights ffn;  // if !is_moe
  MoeWeights moe;  // if is_moe
};

struct MtpWeights {
  const Weight* embed = nullptr;    // [V, D]
  const Weight* enorm = nullptr;    // [D]
  const Weight* hnorm = nullptr;    // [D]
  const Weight* eh_proj = nullptr;  // [D, 2 D]
  LayerWeights layer;
  const Weight* head_norm = nullptr;  // [D], shared_head.norm
  const Weight* head = nullptr;       // [V, D], shared_head.head
};

struct ModelWeights {
  const Weight* embed = nullptr;  // [V, D]
  std::vector<LayerWeights> layers;
  const Weight* norm = nullptr;  // [D]
  const Weight* head = nullptr;  // [V, D]; == embed when tied
  bool has_mtp = false;
  MtpWeights mtp;
};

}  // namespace dsv
