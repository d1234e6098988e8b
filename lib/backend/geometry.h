// The numbers of one architecture instance: all that a backend may know of a model. Filled and checked by
// lib/model.
#pragma once

#include <cstdint>
#include <vector>

namespace dsv {

inline constexpr int32_t kPageTokens = 64;   // tokens in a KV page
inline constexpr int32_t kQuantBlock = 128;  // activation group, weight block edge
inline constexpr double kLatentEps =
    1e-6;  // q_a_layernorm, kv_a_layernorm and index k_norm, whatever rms_norm_eps

enum class Precision : int32_t {
  official,  // FP8 activations per 128 values, FP8 KV and index rows, as released
  exact,     // stored weights, fp32 activations and caches
};

struct Geometry {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int32_t num_layers = 0;  // main layers; cache layer num_layers is the MTP layer's if it is loaded
  int32_t num_heads = 0;
  int64_t q_lora_rank = 0;  // 0: queries come from the hidden state directly (q_lora_rank: null)
  int64_t kv_lora_rank = 0;
  int64_t qk_nope_head_dim = 0;
  int64_t qk_rope_head_dim = 0;
  int64_t v_head_dim = 0;
  int64_t intermediate_size = 0;  // dense layers
  int64_t moe_intermediate_size = 0;
  int32_t n_routed_experts = 0;  // 0: no MoE layer
  int32_t n_shared_experts = 0;  // one FFN of n_shared_experts * moe_intermediate_size
  int32_t num_experts_per_tok = 0;
  int32_t n_group = 1;
  int32_t topk_group = 1;
  bool norm_topk_prob = true;
  double routed_scaling_factor = 1;
  int32_t index_n_heads = 0;   // 0: no indexer, dense attention (deepseek_v3)
  int64_t index_head_dim = 0;  // its first qk_rope_head_dim values carry RoPE
  int32_t index_topk = 0;
  double rms_norm_eps = 1e-6;
  double softmax_scale = 0;      // (nope + rope)^-0.5, times the YaRN m^2
  double rope_mscale = 1;        // factor on cos and sin (indexer too)
  std::vector<double> inv_freq;  // [qk_rope_head_dim / 2], YaRN applied
  bool ue8m0_scales = true;      // scales of quantised activations are powers of two (scale_fmt)

  bool has_indexer() const { return index_n_heads > 0; }
  int64_t qk_head_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }
  int64_t latent_dim() const { return kv_lora_rank + qk_rope_head_dim; }
  int64_t shared_intermediate_size() const { return n_shared_experts * moe_intermediate_size; }
};

// KV cache layout. A page holds kPageTokens tokens of every cache layer; layer blocks are apart so that one
// layer's page is contiguous:  pool[layer] = { latent [pages][64][latent_row_bytes], index
// [pages][index_page_bytes] }.
//   official latent row: e4m3 [kv_lora_rank], f32 scale [ceil(kv_lora_rank/128)] (powers of two), bf16 rope
//   [rope dim]
//                        (656 bytes for 512 + 64, the FlashMLA layout)
//   official index page: e4m3 [64][index_head_dim], then f32 scale [64]   (132 bytes a token for 128)
//   exact: f32 [kv_lora_rank + rope dim] and f32 [64][index_head_dim]
struct KvLayout {
  int64_t latent_row_bytes = 0;
  int64_t index_page_bytes = 0;  // 0 without indexer
  int32_t layers = 0;            // num_layers, + 1 with MTP

  KvLayout() = default;
  KvLayout(const Geometry& g, Precision precision, bool with_mtp)
      : layers(g.num_layers + (with_mtp ? 1 : 0)) {
    if (precision == Precision::official) {
      const int64_t groups = (g.kv_lora_rank + kQuantBlock - 1) / kQuantBlock;
      latent_row_bytes = g.kv_lora_rank + 4 * groups + 2 * g.qk_rope_head_dim;
      if (g.has_indexer()) index_page_bytes = kPageTokens * (g.index_head_dim + 4);
    } else {
      latent_row_bytes = 4 * g.latent_dim();
      if (g.has_indexer()) index_page_bytes = kPageTokens * 4 * g.index_head_dim;
    }
  }
  int64_t page_bytes() const { return layers * (kPageTokens * latent_row_bytes + index_page_bytes); }
};

}  // namespace dsv
