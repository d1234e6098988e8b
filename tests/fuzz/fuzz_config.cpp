// Any bytes as a config.json: parsed or refused, and whatever is accepted has sizes that can be computed
// with.
#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "model/config.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const dsv::ModelConfig config =
        dsv::parse_config(std::string_view(reinterpret_cast<const char*>(data), size), "fuzz");
    const dsv::Geometry& g = config.geometry;
    require(g.vocab_size > 0 && g.hidden_size > 0 && g.num_layers > 0 && g.num_heads > 0);
    require(g.kv_lora_rank > 0 && g.qk_nope_head_dim > 0 && g.v_head_dim > 0 && g.qk_rope_head_dim % 2 == 0);
    require(config.layer_is_moe.size() == static_cast<size_t>(g.num_layers));
    require(g.inv_freq.size() == static_cast<size_t>(g.qk_rope_head_dim / 2));
    for (const double frequency : g.inv_freq) require(std::isfinite(frequency));
    require(std::isfinite(g.softmax_scale) && g.softmax_scale > 0);
    require(std::isfinite(g.rope_mscale) && g.rope_mscale > 0);
    if (g.n_routed_experts > 0) require(g.n_routed_experts % g.n_group == 0 && g.num_experts_per_tok > 0);
    require(dsv::KvLayout(g, dsv::Precision::official, true).page_bytes() > 0);
    require(dsv::KvLayout(g, dsv::Precision::exact, true).page_bytes() > 0);
    // The widest products that a plan computes.
    require(g.num_heads * (g.qk_head_dim() + g.v_head_dim) * g.hidden_size > 0);
    require(g.vocab_size * g.hidden_size > 0);
  } catch (const dsv::Error&) {
  }
  return 0;
}
