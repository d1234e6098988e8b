// Ops around the linears of a layer: embedding, norms, attention's projections, the MTP input, logits.
#include <cmath>
#include <cstring>

#include "kernels/cuda/linear_ops.h"

namespace dsv::cuda {

float* PackedInput::packed(InputForm form) {
  const int at = form.rounding == Rounding::e4m3 ? 0 : 1;
  float* const out = memory_[at];
  if (filled_[at] && form_[at] == form) return out;
  const bool power_of_two = d_.geometry.ue8m0_scales;
  if (form.codes) {
    launch_pack_codes({rows_, cols_, x_, stride_, form.rounding, power_of_two,
                       reinterpret_cast<unsigned char*>(out), form.layout},
                      d_.stream());
  } else {
    launch_pack({rows_, cols_, x_, stride_, form.rounding, power_of_two, out}, d_.stream());
  }
  filled_[at] = true;
  form_[at] = form;
  return out;
}

void PackedInput::linear(const Weight* weight, float* y, int64_t y_stride, bool rounded, float factor) {
  const WeightView& w = cuda_weight(weight).view;
  InputForm form = input_form(d_, w.dtype, rounded);
  const HopperPath hopper = form.rounding == Rounding::e4m3 ? hopper_path(d_, rows_) : HopperPath::none;
  form.layout = packed_form(hopper);
  float* const x = packed(form);
  if (!form.codes) {
    return launch_linear({rows_, w, x, padded(cols_), y, y_stride, 0, factor, false, 1, 0, 0, w.rows, 0},
                         d_.stream());
  }
  const int32_t tile_rows = tensor_tile_rows(rows_, w.rows), tiles = (rows_ + tile_rows - 1) / tile_rows;
  TensorArgs args = {TensorKind::linear,
                     w.dtype,
                     rows_,
                     packed_rows(x, rows_, cols_, form.rounding, form.layout),
                     w,
                     nullptr,
                     nullptr,
                     nullptr,
                     nullptr,
                     tiles,
                     tile_rows,
                     w.rows,
                     w.pitch,
                     y,
                     y_stride,
                     factor,
                     false};
  args.fp8_sums = hopper == HopperPath::fp8_sums;
  launch_tensor(args, d_.stream());
}

PackedRows PackedInput::codes(Dtype dtype, HopperPath hopper) {
  InputForm form = input_form(d_, dtype);
  form.layout = packed_form(hopper);
  return packed_rows(packed(form), rows_, cols_, form.rounding, form.layout);
}

PackedPair PackedInput::pair(bool fp8, bool other) {
  if (!d_.official()) {
    const float* x = packed({});
    return {x, x};
  }
  return {fp8 ? packed({Rounding::e4m3, false}) : nullptr, other ? packed({Rounding::bf16, false}) : nullptr};
}

void apply_values(const CudaDevice& d, const Weight* kv_b, int32_t rows, const float* mixed, float* heads) {
  const Geometry& g = d.geometry;
  const WeightView& w = cuda_weight(kv_b).view;
  const int64_t rank = g.kv_lora_rank, width = padded(rank), v = g.v_head_dim, v_dim = g.num_heads * v;
  const int64_t per_head = g.qk_nope_head_dim + v, first = g.qk_nope_head_dim, cols = g.num_heads * rank;
  const bool whole = rank % 128 == 0 && per_head % 128 == 0 && first % 128 == 0;
  if (!d.official() || !whole || (w.dtype != Dtype::f8_e4m3 && w.dtype != Dtype::bf16)) {
    return launch_linear({rows, w, mixed, g.num_heads * width, heads, v_dim, v, 1, d.official(), g.num_heads,
                          per_head, first, v, width},
                         d.stream());
  }
  launch_pack_codes({rows, cols, mixed, cols, Rounding::bf16, false, d.mixed_codes}, d.stream());
  const int32_t tile_rows = tensor_tile_rows(rows < 64 ? rows : 64, v),
                tiles = (rows + tile_rows - 1) / tile_rows;
  launch_tensor({TensorKind::linear,
                 w.dtype,
                 rows,
                 packed_rows(d.mixed_codes, rows, cols, Rounding::bf16),
                 w,
                 nullptr,
                 nullptr,
                 nullptr,
                 nullptr,
                 tiles,
                 tile_rows,
                 v,
                 w.pitch,
                 heads,
                 v_dim,
                 1,
                 true,
                 g.num_heads,
                 per_head,
                 first,
                 2 * rank,
                 v},
                d.stream());
}

void embed(Device* device, const EmbedArgs& args) {
  const CudaDevice& d = cuda_device(device);
  const int32_t first = args.rows.first;
  launch_embed({args.rows.count, cuda_weight(args.table).view, d.token + first, nullptr,
                d.row_of(Act::x, args.x, first), d.geometry.hidden_size},
               d.stream());
}

void add_norm(Device* device, const AddNormArgs& args) {
  const CudaDevice& d = cuda_device(device);
  const int64_t n = d.geometry.hidden_size;
  float* const x = d.row_of(Act::x, args.x, args.rows.first);
  const float* delta = args.delta ? d.row_of(Act::delta, args.delta, args.rows.first) : nullptr;
  launch_norm({args.rows.count, n, nullptr, x, n, delta, n, delta ? x : nullptr,
               cuda_weight(args.weight).vector, static_cast<float>(d.geometry.rms_norm_eps), d.official(),
               d.row_of(Act::h, args.h, args.rows.first), n},
              d.stream());
}

void attn_in(Device* device, const AttnInArgs& args) {
  const CudaDevice& d = cuda_device(device);
  const Geometry& g = d.geometry;
  const AttentionWeights& w = *args.weights;
  for_tiles(args.rows, d.tile.rows, [&](int32_t first, int32_t count) {
    PackedInput h(d, d.row_of(Act::h, args.h, first), g.hidden_size, g.hidden_size, count);
    if (g.q_lora_rank > 0) {
      float* const latent = d.row_of(Act::q_latent, args.q_latent, first);
      h.linear(w.q_a, latent, g.q_lora_rank);
      launch_norm({count, g.q_lora_rank, nullptr, latent, g.q_lora_rank, nullptr, 0, nullptr,
                   cuda_weight(w.q_a_norm).vector, static_cast<float>(kLatentEps), d.official(), latent,
                   g.q_lora_rank},
                  d.stream());
    }
    h.linear(w.kv_a, d.row_of(Act::kv_raw, args.kv_raw, first), g.latent_dim());
    if (!g.has_indexer()) return;
    h.linear(w.wk, d.row_of(Act::index_k_raw, args.index_k_raw, first), g.index_head_dim);
    const double factor = 1 / std::sqrt(static_cast<double>(g.index_n_heads * g.index_head_dim));
    h.linear(w.weights_proj, d.row_of(Act::index_weight, args.index_weight, first), g.index_n_heads, false,
             static_cast<float>(factor));
  });
}

void attn_q(Device* device, const AttnQArgs& args) {
  const CudaDevice& d = cuda_device(device);
  const Geometry& g = d.geometry;
  const Act input = g.q_lora_rank > 0 ? Act::q_latent : Act::h;
  const int64_t cols = g.q_lora_rank > 0 ? g.q_lora_rank : g.hidden_size;
  const int64_t q_dim = g.num_heads * g.qk_head_dim(), index_dim = g.index_n_heads * g.index_head_dim;
  for_tiles(args.rows, d.tile.rows, [&](int32_t first, int32_t count) {
    const StepView step = d.step(first);
    PackedInput in(d, d.row_of(input, g.q_lora_rank > 0 ? args.q_latent : args.h, first), cols, cols, count);
    float* const q = d.row_of(Act::q, args.q, first);
    in.linear(args.weights->q_b, q, q_dim);
    launch_rope_query(
        {count, g.num_heads, g.qk_head_dim(), g.qk_rope_head_dim, step.cos, step.sin, d.official(), q},
        d.stream());
    if (!g.has_indexer()) return;
    in.linear(args.weights->wq_b, d.wide, index_dim);
    launch_index_query({count, g.index_n_heads, g.index_head_dim, g.qk_rope_head_dim, d.wide, step.cos,
                        step.sin, d.official(), g.ue8m0_scales,
                        reinterpret_cast<unsigned char*>(d.row_of(Act::index_q, args.index_q, first)),
                        d.layout.act_row[static_cast<int>(Act::index_q)]},
                       d.stream());
  });
}

void attn_out(Device* device, const AttnOutArgs& args) {
  const CudaDevice& d = cuda_device(device);
  const int64_t cols = d.geometry.num_heads * d.geometry.v_head_dim;
  for_tiles(args.rows, d.tile.rows, [&](int32_t first, int32_t count) {
    PackedInput heads(d, d.row_of(Act::heads, args.heads, first), cols, cols, count);
    heads.linear(args.weights->o, d.row_of(Act::delta, args.delta, first), d.geometry.hidden_size);
  });
}

void mtp_in(Device* handle, const MtpInArgs& args) {
  CudaDevice& d = cuda_device(handle);
  const int64_t n = d.geometry.hidden_size;
  const auto eps = static_cast<float>(d.geometry.rms_norm_eps);
  for_tiles(args.rows, d.tile.rows, [&](int32_t first, int32_t count) {
    float *const embedded = d.wide, *const hidden = d.wide + n;  // halves of rows of 2 D values
    launch_embed({count, cuda_weight(args.weights->embed).view, d.next_token + first, d.position + first,
                  embedded, 2 * n},
                 d.stream());
    const auto norm = [&](const float* x, int64_t stride, const Weight* weight, float* out) {
      launch_norm({count, n, nullptr, x, stride, nullptr, 0, nullptr, cuda_weight(weight).vector, eps, false,
                   out, 2 * n},
                  d.stream());
    };
    norm(embedded, 2 * n, args.weights->enorm, embedded);
    norm(d.row_of(Act::x, args.x, first), n, args.norm, hidden);
    norm(hidden, 2 * n, args.weights->hnorm, hidden);
    PackedInput joined(d, d.wide, 2 * n, 2 * n, count);
    joined.linear(args.weights->eh_proj, d.row_of(Act::mtp_x, args.x_out, first), n);
  });
}

void logits(Device* handle, const LogitsArgs& args) {
  CudaDevice& d = cuda_device(handle);
  const int64_t n = d.geometry.hidden_size, vocab = d.geometry.vocab_size;
  for_tiles(args.rows, d.tile.rows, [&](int32_t first, int32_t count) {
    launch_norm(
        {count, n, d.logit_row + first, d.row_of(Act::x, args.x, 0), n,
         args.delta ? d.row_of(Act::delta, args.delta, 0) : nullptr, n, nullptr,
         cuda_weight(args.norm).vector, static_cast<float>(d.geometry.rms_norm_eps), d.official(), d.wide, n},
        d.stream());
    PackedInput normed(d, d.wide, n, n, count);
    normed.linear(args.head, d.row_of(Act::logits, args.logits, first), vocab);
  });
}

void sample(Device* handle, const SampleArgs& args) {
  const CudaDevice& d = cuda_device(handle);
  const int32_t first = args.rows.first;
  launch_sample({args.rows.count, d.geometry.vocab_size, d.row_of(Act::logits, args.logits, first), d.allowed,
                 d.first_allowed, d.sample_rows + first, d.biases, d.unbiased,
                 d.integers(Act::token, args.token, first)},
                d.stream());
}

}  // namespace dsv::cuda
