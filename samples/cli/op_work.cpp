#include "samples/cli/op_work.h"

#include <algorithm>
#include <string_view>

namespace cli {
namespace {

constexpr const char* kNames[ops] = {"add_norm",     "attn_in", "attn_q",   "cache_append",
                                     "index_select", "attend",  "attn_out", "route",
                                     "experts",      "ffn",     "logits"};

class Work {
 public:
  Work(const dsv::Checkpoint& checkpoint, const PassShape& pass, bool official, bool by_heads,
       double experts_read)
      : g_(checkpoint.config().geometry), rows_(pass.rows), official_(official), experts_read_(experts_read) {
    for (int op = 0; op < ops; ++op) of[static_cast<size_t>(op)].op = kNames[op];
    // Rows of each sequence that see all positions before them, from its first one on.
    const int64_t before = pass.context - pass.own(),
                  whole = std::clamp<int64_t>(g_.index_topk - before, 0, pass.own());
    if (by_heads && g_.has_indexer() && whole >= kLeastByHeads) {
      rows_by_heads_ = static_cast<double>(pass.sequences * whole);
      keys_ = static_cast<double>(pass.sequences * (before + whole));
    }
    checkpoint.for_each_matrix([&](const dsv::HostMatrix& m) { matrix(m); });
    const dsv::KvLayout kv(g_, official ? dsv::Precision::official : dsv::Precision::exact, false);
    double scored = 0, selected = 0, by_heads_sees = 0;
    for (int32_t r = 0; r < pass.own(); ++r) {
      const double sees = static_cast<double>(pass.context) - r;
      const bool all = sees <= g_.index_topk;
      if (!all) scored += pass.sequences * sees;
      if (all && rows_by_heads_ > 0) by_heads_sees += pass.sequences * sees;
      selected += pass.sequences * (g_.has_indexer() ? std::min<double>(sees, g_.index_topk) : sees);
    }
    const double layers = g_.num_layers;
    const double all = pass.sequences * static_cast<double>(pass.context);
    const double heads = g_.num_heads, latent = static_cast<double>(g_.latent_dim());
    // Rows of a prompt share what they read, at best.
    const double read = pass.rows == pass.sequences ? selected : all;
    of[attend].cache_bytes = layers * read * static_cast<double>(kv.latent_row_bytes);
    of[attend].multiply_adds +=
        layers * heads *
        ((selected - by_heads_sees) * (latent + static_cast<double>(g_.kv_lora_rank)) +
         by_heads_sees * static_cast<double>(g_.qk_head_dim() + g_.v_head_dim));
    if (g_.has_indexer() && all > pass.sequences * static_cast<double>(g_.index_topk)) {
      of[index_select].cache_bytes =
          layers * all / dsv::kPageTokens * static_cast<double>(kv.index_page_bytes);
      multiply(index_select, layers * scored * g_.index_n_heads * static_cast<double>(g_.index_head_dim),
               official);
    }
  }
  std::array<OpTime, ops> of;

 private:
  void multiply(Op op, double count, bool fp8) {
    (fp8 ? of[op].fp8_multiply_adds : of[op].multiply_adds) += count;
  }
  void matrix(const dsv::HostMatrix& m) {
    const std::string_view name = m.name;
    const auto has = [&](std::string_view part) { return name.find(part) != std::string_view::npos; };
    if (m.rows == 1 || name == "model.embed_tokens.weight") return;
    const double values = static_cast<double>(m.rows) * static_cast<double>(m.cols);
    const double bytes = values * static_cast<double>(dsv::dtype_bytes(m.dtype));
    double read = 1, rows = rows_;  // part of the weight that is read; rows that meet it
    bool fp8 = official_ && m.dtype == dsv::Dtype::f8_e4m3;
    Op op = ops;
    if (has("lm_head")) {
      op = logits, rows = 1;
    } else if (has(".mlp.experts.")) {
      op = experts;
      rows = static_cast<double>(rows_) * g_.num_experts_per_tok / g_.n_routed_experts;
      read = experts_read_ / g_.n_routed_experts;
    } else if (has("shared_experts")) {
      op = experts;
    } else if (has(".mlp.gate.")) {
      op = route;
    } else if (has(".mlp.")) {
      op = ffn;
    } else if (has("kv_b_proj")) {
      op = attend;
      multiply(op, values * keys_, fp8);
      rows -= rows_by_heads_, fp8 = false;  // the others' input is bf16
    } else if (has("o_proj")) {
      op = attn_out;
    } else if (has("q_b_proj") || has("wq_b") || has("q_proj")) {
      op = attn_q;
    } else {
      op = attn_in;
    }
    of[op].weight_bytes += bytes * read;
    multiply(op, values * rows, fp8);
  }
  const dsv::Geometry& g_;
  static constexpr int64_t kLeastByHeads = 256;
  const int32_t rows_;
  const bool official_;
  const double experts_read_;
  double rows_by_heads_ = 0, keys_ = 0;  // rows whose attention is by heads; positions they need keys of
};

}  // namespace

std::array<OpTime, ops> work_of(const dsv::Checkpoint& checkpoint, const PassShape& pass, bool official,
                                bool by_heads, double experts_read) {
  return Work(checkpoint, pass, official, by_heads, experts_read).of;
}

}  // namespace cli
