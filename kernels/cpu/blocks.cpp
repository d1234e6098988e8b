// Ops around the linears of a layer: embedding, norms, attention's projections, the MTP input, logits.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/linear.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/rope.h"

namespace dsv::cpu {
namespace {

constexpr float kLatentNormEps = static_cast<float>(kLatentEps);

int64_t floats_bytes(int64_t rows, int64_t n) { return (4 * rows * n + 63) / 64 * 64; }

}  // namespace

ScratchSize blocks_scratch(const DeviceOptions& options) {
  const Geometry& g = *options.geometry;
  const int64_t rows = options.batch_rows;
  const int64_t from_h = std::max(g.hidden_size, g.q_lora_rank), heads = g.num_heads * g.v_head_dim;
  const int64_t index_q = int64_t{g.index_n_heads} * g.index_head_dim;
  ScratchSize size;
  size.shared =
      std::max({linears_bytes(rows, from_h) + floats_bytes(rows, index_q), linears_bytes(rows, heads),
                linears_bytes(rows, 2 * g.hidden_size) + floats_bytes(rows, 2 * g.hidden_size)});
  size.per_job = linear_job_bytes(rows, std::max({2 * g.hidden_size, from_h, heads}));
  return size;
}

void embed(Device* device, const EmbedArgs& args) {
  const CpuDevice& d = cpu_device(device);
  d.parallel(args.rows.count, [&](int64_t i, int32_t) {
    const auto row = static_cast<int32_t>(args.rows.first + i);
    d.kernels->decode_row(cpu_weight(args.table), d.step.token[row], d.row(Act::x, args.x, row));
  });
}

void add_norm(Device* device, const AddNormArgs& args) {
  const CpuDevice& d = cpu_device(device);
  const int64_t n = d.geometry.hidden_size;
  const float* const weight = cpu_weight(args.weight).vector.data();
  d.parallel(args.rows.count, [&](int64_t i, int32_t) {
    const auto row = static_cast<int32_t>(args.rows.first + i);
    float* const x = d.row(Act::x, args.x, row);
    if (args.delta != nullptr) d.kernels->multiply_add(x, 1.0f, d.row(Act::delta, args.delta, row), n);
    d.kernels->rms_norm(x, weight, n, static_cast<float>(d.geometry.rms_norm_eps), d.official(),
                        d.row(Act::h, args.h, row));
  });
}

void attn_in(Device* device, const AttnInArgs& args) {
  const CpuDevice& d = cpu_device(device);
  const Geometry& g = d.geometry;
  const int32_t first = args.rows.first;
  Linear linears[kMaxLinears];
  int count = 0;
  const auto add = [&](const Weight* weight, Act kind, Buffer out, bool as_it_is) {
    linears[count++] = {weight, as_it_is ? Rounding::none : input_rounding(d, cpu_weight(weight)),
                        d.row(kind, out, first), d.act_row_bytes[static_cast<int>(kind)] / 4};
  };
  if (g.q_lora_rank > 0) add(args.weights->q_a, Act::q_latent, args.q_latent, false);
  add(args.weights->kv_a, Act::kv_raw, args.kv_raw, false);
  if (g.has_indexer()) {
    add(args.weights->wk, Act::index_k_raw, args.index_k_raw, false);
    add(args.weights->weights_proj, Act::index_weight, args.index_weight, true);
  }
  run_linears(d, d.row(Act::h, args.h, first), g.hidden_size, args.rows.count, linears, count,
              d.shared_scratch);

  const double scale =
      g.has_indexer() ? 1 / std::sqrt(static_cast<double>(g.index_n_heads * g.index_head_dim)) : 0;
  d.parallel(args.rows.count, [&](int64_t i, int32_t) {
    const auto row = static_cast<int32_t>(first + i);
    if (g.q_lora_rank > 0) {
      float* const latent = d.row(Act::q_latent, args.q_latent, row);
      d.kernels->rms_norm(latent, cpu_weight(args.weights->q_a_norm).vector.data(), g.q_lora_rank,
                          kLatentNormEps, d.official(), latent);
    }
    if (g.has_indexer()) {
      float* const weight = d.row(Act::index_weight, args.index_weight, row);
      for (int32_t h = 0; h < g.index_n_heads; ++h) weight[h] *= static_cast<float>(scale);
    }
  });
}

void attn_q(Device* device, const AttnQArgs& args) {
  const CpuDevice& d = cpu_device(device);
  const Geometry& g = d.geometry;
  const int32_t first = args.rows.first;
  const Act input = g.q_lora_rank > 0 ? Act::q_latent : Act::h;
  const int64_t q_dim = g.num_heads * g.qk_head_dim(),
                index_dim = int64_t{g.index_n_heads} * g.index_head_dim;
  auto* const index_q = reinterpret_cast<float*>(d.shared_scratch);
  Linear linears[2];
  int count = 0;
  linears[count++] = {args.weights->q_b, input_rounding(d, cpu_weight(args.weights->q_b)),
                      d.row(Act::q, args.q, first), q_dim};
  if (g.has_indexer()) {
    linears[count++] = {args.weights->wq_b, input_rounding(d, cpu_weight(args.weights->wq_b)), index_q,
                        index_dim};
  }
  run_linears(d, d.row(input, g.q_lora_rank > 0 ? args.q_latent : args.h, first),
              d.act_row_bytes[static_cast<int>(input)] / 4, args.rows.count, linears, count,
              d.shared_scratch + floats_bytes(args.rows.count, index_dim));

  d.parallel(args.rows.count, [&](int64_t i, int32_t) {
    const auto row = static_cast<int32_t>(first + i);
    float* const q = d.row(Act::q, args.q, row);
    for (int32_t h = 0; h < g.num_heads; ++h) {
      rope_interleaved(q + h * g.qk_head_dim() + g.qk_nope_head_dim, d.row_cos(row), d.row_sin(row),
                       g.qk_rope_head_dim);
    }
    if (d.official()) d.kernels->round_bf16(q, q_dim);
    for (int32_t h = 0; h < g.index_n_heads; ++h) {
      float* const head = index_q + i * index_dim + h * g.index_head_dim;
      rope_halves(head, d.row_cos(row), d.row_sin(row), g.qk_rope_head_dim);
      if (d.official()) {
        hadamard(head, g.index_head_dim);
        store_index_query(d, head, d.index_q_values(args.index_q, row) + h * g.index_head_dim,
                          d.index_q_scales(args.index_q, row) + h);
      } else {
        std::copy_n(head, g.index_head_dim, d.row(Act::index_q, args.index_q, row) + h * g.index_head_dim);
      }
    }
  });
}

void attn_out(Device* device, const AttnOutArgs& args) {
  const CpuDevice& d = cpu_device(device);
  const Linear linear = {args.weights->o, input_rounding(d, cpu_weight(args.weights->o)),
                         d.row(Act::delta, args.delta, args.rows.first), d.geometry.hidden_size};
  run_linears(d, d.row(Act::heads, args.heads, args.rows.first), d.geometry.num_heads * d.geometry.v_head_dim,
              args.rows.count, &linear, 1, d.shared_scratch);
}

void mtp_in(Device* device, const MtpInArgs& args) {
  const CpuDevice& d = cpu_device(device);
  const int64_t n = d.geometry.hidden_size;
  const auto eps = static_cast<float>(d.geometry.rms_norm_eps);
  auto* const joined = reinterpret_cast<float*>(d.shared_scratch);  // [rows, 2 D]
  d.parallel(args.rows.count, [&](int64_t i, int32_t) {
    const auto row = static_cast<int32_t>(args.rows.first + i);
    float* const embedded = joined + i * 2 * n;
    float* const hidden = embedded + n;
    if (d.step.position[row] == 0) {
      std::fill_n(embedded, n, 0.0f);
    } else {
      d.kernels->decode_row(cpu_weight(args.weights->embed), d.step.next_token[row], embedded);
    }
    d.kernels->rms_norm(embedded, cpu_weight(args.weights->enorm).vector.data(), n, eps, false, embedded);
    d.kernels->rms_norm(d.row(Act::x, args.x, row), cpu_weight(args.norm).vector.data(), n, eps, false,
                        hidden);
    d.kernels->rms_norm(hidden, cpu_weight(args.weights->hnorm).vector.data(), n, eps, false, hidden);
  });
  const Weight* const weight = args.weights->eh_proj;
  const Linear linear = {weight, input_rounding(d, cpu_weight(weight)),
                         d.row(Act::mtp_x, args.x_out, args.rows.first), n};
  run_linears(d, joined, 2 * n, args.rows.count, &linear, 1,
              d.shared_scratch + floats_bytes(args.rows.count, 2 * n));
}

void logits(Device* device, const LogitsArgs& args) {
  const CpuDevice& d = cpu_device(device);
  const int64_t n = d.geometry.hidden_size;
  const int32_t count = args.rows.count;
  auto* const normed = reinterpret_cast<float*>(d.shared_scratch);  // [count, D]
  d.parallel(count, [&](int64_t i, int32_t) {
    float* const h = normed + i * n;
    const int32_t row = d.step.logit_row[args.rows.first + i];
    std::copy_n(d.row(Act::x, args.x, row), n, h);
    if (args.delta != nullptr) d.kernels->multiply_add(h, 1.0f, d.row(Act::delta, args.delta, row), n);
    d.kernels->rms_norm(h, cpu_weight(args.norm).vector.data(), n,
                        static_cast<float>(d.geometry.rms_norm_eps), d.official(), h);
  });
  const Linear linear = {args.head, input_rounding(d, cpu_weight(args.head)),
                         d.row(Act::logits, args.logits, args.rows.first), d.geometry.vocab_size};
  run_linears(d, normed, n, count, &linear, 1, d.shared_scratch + floats_bytes(count, n));
}

}  // namespace dsv::cpu
