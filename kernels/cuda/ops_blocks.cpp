// Ops around the linears of a layer: embedding, norms, attention's projections, the MTP input, logits.
#include <cmath>

#include "base/error.h"
#include "kernels/cuda/linear_ops.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/sample.h"

namespace dsv::cuda {

namespace {

// A norm whose rows go to linears: in `official` it packs them, too, in the forms that were wanted before.
// `only_fp8`: and leaves packed[1] as it is, which work beside it may read. Many rows of h are codes only, as
// long as nobody reads them otherwise; experts of fewer rows do.
void launch_packing_norm(const CudaDevice& d, CudaDevice::Normed kind, NormArgs a, bool only_fp8 = false) {
  const bool packs = d.official() && a.rows <= d.tile.rows && a.out_stride == a.n;
  for (const int at : {0, 1}) {
    if (at == 1 && only_fp8) continue;
    InputForm form;
    if (packs && d.wanted[static_cast<int>(kind)][at]) {
      form = {at == 0 ? Rounding::e4m3 : Rounding::bf16, true};
      if (at == 0) form.layout = packed_form(hopper_path(d, a.rows));
      auto* const out = reinterpret_cast<unsigned char*>(d.packed[at]);
      (at == 0 ? a.e4m3 : a.bf16) = out;
      if (at == 0) a.form = form.layout;
    }
    d.normed[at] = {kind, a.out, a.rows, form};
  }
  if (kind == CudaDevice::Normed::h && a.to_bf16 && a.e4m3 && a.bf16 && !d.values_wanted &&
      a.rows >= d.coded_norm_rows && hopper_path(d, a.rows) == HopperPath::fp8_sums) {
    for (CudaDevice::NormedRows& normed : d.normed) normed.only_codes = true;
    a.out = nullptr;
  }
  a.power_of_two = d.geometry.ue8m0_scales;
  launch_norm(a, d.stream());
}

}  // namespace

// The f32 values of rows that are there as codes only. Those of h are what bf16 says, and from here on they
// are written.
void PackedInput::restore_values(CudaDevice::Normed kind) {
  CudaDevice::NormedRows& normed = d_.normed[1];
  if (kind != CudaDevice::Normed::h || !normed.only_codes || !normed.holds(x_, stride_)) {
    fail(DSV_ERROR_INTERNAL, "rows that are there as codes only are read otherwise: {} of {}", rows_,
         normed.rows);
  }
  launch_unpack({normed.rows, cols_, packed_rows(d_.packed[1], normed.rows, cols_, Rounding::bf16),
                 const_cast<float*>(normed.x)},
                stream_);
  d_.values_wanted = true;
  for (CudaDevice::NormedRows& either : d_.normed) either.only_codes = false;
}

float* PackedInput::packed(InputForm form) {
  const int at = form.rounding == Rounding::e4m3 ? 0 : 1;
  float* const out = memory_[at];
  if (filled_[at] && form_[at] == form) return out;
  filled_[at] = true;
  form_[at] = form;
  if (memory_ == d_.packed) {
    CudaDevice::NormedRows& normed = d_.normed[at];
    if (normed.x == x_ && normed.rows == rows_) {
      if (form.codes && normed.form == form) return out;
      if (form.codes) d_.wanted[static_cast<int>(normed.kind)][at] = true;
    }
    if (normed.only_codes && normed.holds(x_, stride_)) restore_values(normed.kind);
    normed.x = nullptr;
  }
  const bool power_of_two = d_.geometry.ue8m0_scales;
  if (form.codes) {
    launch_pack_codes({rows_, cols_, x_, stride_, form.rounding, power_of_two,
                       reinterpret_cast<unsigned char*>(out), form.layout},
                      stream_);
  } else {
    launch_pack({rows_, cols_, x_, stride_, form.rounding, power_of_two, out}, stream_);
  }
  return out;
}

InputForm PackedInput::form_for(const Weight* weight, bool rounded) const {
  InputForm form = input_form(d_, cuda_weight(weight).view.dtype, rounded);
  if (form.rounding == Rounding::e4m3) form.layout = packed_form(hopper_path(d_, rows_));
  return form;
}

bool PackedInput::linear(const Weight* weight, float* y, int64_t y_stride, bool rounded, float factor,
                         Stream stream, const CodesOut& codes) {
  const WeightView& w = cuda_weight(weight).view;
  const InputForm form = form_for(weight, rounded);
  float* const x = packed(form);
  if (!form.codes) {
    launch_linear({rows_, w, x, padded(cols_), y, y_stride, 0, factor, false, 1, 0, 0, w.rows, 0}, stream);
    return false;
  }
  TensorArgs args = linear_args(w, packed_rows(x, rows_, cols_, form.rounding, form.layout), rows_);
  args.y = y;
  args.y_stride = y_stride;
  args.factor = factor;
  args.fp8_sums = form.rounding == Rounding::e4m3 && hopper_path(d_, rows_) == HopperPath::fp8_sums;
  args.early = stream == stream_;
  if (args.fp8_sums && !few_for_fp8(false, rows_)) args.codes = codes;
  d_.wgmma&& d_.fast() && takes_linear_bf16(args) ? launch_linear_bf16(args, stream)
                                                  : launch_tensor(args, stream);
  return args.codes.data;
}

void PackedInput::linears(std::initializer_list<Linear> list) {
  const WeightView& first = cuda_weight(list.begin()->weight).view;
  bool together = d_.official() && first.dtype == Dtype::f8_e4m3 && rows_ <= kFewRows;
  for (const Linear& l : list) {
    const WeightView& w = cuda_weight(l.weight).view;
    together &=
        w.dtype == first.dtype && tensor_splits(w.rows, w.pitch) == tensor_splits(first.rows, first.pitch);
  }
  if (!together) {
    for (const Linear& l : list) linear(l.weight, l.y, l.y_stride);
    return;
  }
  TensorArgs args = linear_args(first, codes(first.dtype, HopperPath::none), rows_);
  args.y = list.begin()->y;
  args.y_stride = list.begin()->y_stride;
  for (const Linear* l = list.begin() + 1; l != list.end(); ++l) {
    LinearPart& part = args.n_more++ == 0 ? args.second : args.third;
    part = LinearPart{cuda_weight(l->weight).view, l->y, l->y_stride};
  }
  launch_tensor(args, stream_);
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

bool values_take_codes(const CudaDevice& d, const Weight* kv_b) {
  const Geometry& g = d.geometry;
  const Dtype dtype = cuda_weight(kv_b).view.dtype;
  return d.official() && g.kv_lora_rank % 128 == 0 && (g.qk_nope_head_dim + g.v_head_dim) % 128 == 0 &&
         g.qk_nope_head_dim % 128 == 0 && (dtype == Dtype::f8_e4m3 || dtype == Dtype::bf16);
}

namespace {

// W_v's launch over bf16 codes of the mixed latents.
TensorArgs values_args(const CudaDevice& d, const WeightView& w, int32_t rows, float* heads,
                       const CodesOut& codes) {
  const Geometry& g = d.geometry;
  const int64_t v = g.v_head_dim, cols = g.num_heads * int64_t{g.kv_lora_rank};
  TensorArgs args = linear_args(w, packed_rows(d.mixed_codes, rows, cols, Rounding::bf16), rows);
  args.tile_rows = tensor_tile_rows(rows < 64 ? rows : 64, v);
  args.tile_bound = (rows + args.tile_rows - 1) / args.tile_rows;
  args.outputs = v;
  args.y = heads;
  args.y_stride = g.num_heads * v;
  args.to_bf16 = true;
  args.groups = g.num_heads;
  args.group_rows = g.qk_nope_head_dim + v;
  args.first_row = g.qk_nope_head_dim;
  args.x_group = 2 * g.kv_lora_rank;
  args.y_group = v;
  args.codes = codes;
  return args;
}

}  // namespace

PackedRows value_codes(const CudaDevice& d, const AttentionWeights& w, int32_t rows) {
  const Geometry& g = d.geometry;
  if (hopper_path(d, rows) != HopperPath::fp8_sums || !d.official() || !g.ue8m0_scales ||
      rows < d.coding_rows || rows > d.tile.rows || !values_take_codes(d, w.kv_b) ||
      cuda_weight(w.o).view.dtype != Dtype::f8_e4m3) {
    return {};
  }
  const PackedRows codes = packed_rows(d.packed[0], rows, g.num_heads * int64_t{g.v_head_dim}, Rounding::e4m3,
                                       packed_form(HopperPath::fp8_sums));
  const bool taken =
      takes_heads_wgmma(values_args(d, cuda_weight(w.kv_b).view, rows, nullptr, codes_out(codes)));
  return taken ? codes : PackedRows{};
}

void apply_values(const CudaDevice& d, const Weight* kv_b, int32_t rows, const float* mixed, float* heads,
                  const CodesOut& codes) {
  const Geometry& g = d.geometry;
  const WeightView& w = cuda_weight(kv_b).view;
  const int64_t rank = g.kv_lora_rank, width = padded(rank), v = g.v_head_dim, v_dim = g.num_heads * v;
  const int64_t per_head = g.qk_nope_head_dim + v, first = g.qk_nope_head_dim, cols = g.num_heads * rank;
  if (!values_take_codes(d, kv_b)) {
    return launch_linear({rows, w, mixed, g.num_heads * width, heads, v_dim, v, 1, d.official(), g.num_heads,
                          per_head, first, v, width},
                         d.stream());
  }
  if (mixed) {  // else attention has packed what it gave
    ValuesArgs few = {rows,    g.num_heads,   tensor_splits(v_dim, w.pitch), w, per_head, first, mixed, heads,
                      nullptr, g.ue8m0_scales};
    if (!codes.data && takes_values(few, v)) {
      InputForm form;
      if (d.wanted[static_cast<int>(CudaDevice::Normed::heads)][0]) {
        form = {Rounding::e4m3, true};
        few.codes = reinterpret_cast<unsigned char*>(d.packed[0]);
      }
      d.normed[0] = {CudaDevice::Normed::heads, heads, rows, form};
      return launch_values(few, d.stream());
    }
    launch_pack_codes({rows, cols, mixed, cols, Rounding::bf16, false, d.mixed_codes}, d.stream());
  }
  const TensorArgs args = values_args(d, w, rows, heads, codes);
  (d.wgmma && takes_heads_wgmma(args) ? launch_heads_wgmma : launch_tensor)(args, d.stream());
}

bool index_beside(const CudaDevice& d, const AttentionWeights& w, int32_t rows) {
  const auto fp8 = [](const Weight* weight) { return cuda_weight(weight).view.dtype == Dtype::f8_e4m3; };
  return d.recording && rows <= kSideRows && d.geometry.has_indexer() && d.geometry.q_lora_rank > 0 &&
         d.official() && fp8(w.q_a) && fp8(w.q_b) && fp8(w.wq_b) && !fp8(w.weights_proj);
}

CodesOut begin_delta(const CudaDevice& d, float* at, int32_t rows) {
  if (d.bf16_delta.at == at && d.bf16_delta.rows <= rows) d.bf16_delta = {};
  restore_delta(d);  // what is not written now
  const int64_t n = d.geometry.hidden_size;
  NormArgs next = {};
  next.rows = rows, next.delta = {at, true};
  next.n = next.x_stride = next.out_stride = next.delta_stride = n;
  const bool may = d.official() && d.wgmma && d.fast() && rows >= d.bf16_delta_rows && rows <= d.tile.rows &&
                   takes_norm_many(next);
  return may ? codes_out(packed_rows(at, rows, n, Rounding::bf16)) : CodesOut{};
}

void restore_delta(const CudaDevice& d) {
  const auto [at, rows] = d.bf16_delta;
  if (rows == 0) return;
  const int64_t n = d.geometry.hidden_size, words = rows * packed_pitch(n, Rounding::bf16) / 4;
  launch_copy_words({words, reinterpret_cast<const int32_t*>(at), reinterpret_cast<int32_t*>(d.outer)},
                    d.stream());
  launch_unpack({rows, n, packed_rows(d.outer, rows, n, Rounding::bf16), at}, d.stream());
  d.bf16_delta = {};
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
  ValueRows delta = args.delta ? d.row_of(Act::delta, args.delta, args.rows.first) : nullptr;
  delta.bf16 = delta.data && d.bf16_delta.at == delta.data && d.bf16_delta.rows == args.rows.count;
  if (delta.data && !delta.bf16) restore_delta(d);
  launch_packing_norm(d, CudaDevice::Normed::h,
                      {args.rows.count, n, nullptr, x, n, delta, n, delta.data ? x : nullptr,
                       cuda_weight(args.weight).vector, static_cast<float>(d.geometry.rms_norm_eps),
                       d.official(), d.row_of(Act::h, args.h, args.rows.first), n});
}

void attn_in(Device* device, const AttnInArgs& args) {
  CudaDevice& d = cuda_device(device);
  const Geometry& g = d.geometry;
  const AttentionWeights& w = *args.weights;
  for_tiles(args.rows, d.tile.rows, [&](int32_t first, int32_t count) {
    PackedInput h(d, d.row_of(Act::h, args.h, first), g.hidden_size, g.hidden_size, count);
    float* const kv_raw = d.row_of(Act::kv_raw, args.kv_raw, first);
    const auto scale_heads = [&](Stream stream) {
      const double factor = 1 / std::sqrt(static_cast<double>(g.index_n_heads * g.index_head_dim));
      h.linear(w.weights_proj, d.row_of(Act::index_weight, args.index_weight, first), g.index_n_heads, false,
               static_cast<float>(factor), stream);
    };
    const bool beside = index_beside(d, w, count);
    if (beside) {
      h.pack_for(w.weights_proj, false);
      d.point();
      d.follow();
      scale_heads(d.side());
    }
    float* const latent = g.q_lora_rank > 0 ? d.row_of(Act::q_latent, args.q_latent, first) : nullptr;
    if (g.has_indexer()) {
      float* const key = d.row_of(Act::index_k_raw, args.index_k_raw, first);
      const PackedInput::Linear kv_a = {w.kv_a, kv_raw, g.latent_dim()}, wk = {w.wk, key, g.index_head_dim};
      latent ? h.linears({{w.q_a, latent, g.q_lora_rank}, kv_a, wk}) : h.linears({kv_a, wk});
      if (!beside) scale_heads(d.stream());
    } else {
      if (latent) h.linear(w.q_a, latent, g.q_lora_rank);
      h.linear(w.kv_a, kv_raw, g.latent_dim());
    }
    if (!latent) return;
    launch_packing_norm(
        d, CudaDevice::Normed::q_latent,
        {count, g.q_lora_rank, nullptr, latent, g.q_lora_rank, nullptr, 0, nullptr,
         cuda_weight(w.q_a_norm).vector, static_cast<float>(kLatentEps), d.official(), latent, g.q_lora_rank},
        beside);
  });
}

void attn_q(Device* device, const AttnQArgs& args) {
  CudaDevice& d = cuda_device(device);
  const Geometry& g = d.geometry;
  const Act input = g.q_lora_rank > 0 ? Act::q_latent : Act::h;
  const int64_t cols = g.q_lora_rank > 0 ? g.q_lora_rank : g.hidden_size;
  const int64_t q_dim = g.num_heads * g.qk_head_dim(), index_dim = g.index_n_heads * g.index_head_dim;
  for_tiles(args.rows, d.tile.rows, [&](int32_t first, int32_t count) {
    const StepView step = d.step(first);
    PackedInput in(d, d.row_of(input, g.q_lora_rank > 0 ? args.q_latent : args.h, first), cols, cols, count);
    float* const q = d.row_of(Act::q, args.q, first);
    const auto queries = [&] {
      CodesOut codes;
      if (d.bf16_queries()) {
        codes = {reinterpret_cast<unsigned char*>(q), 4 * q_dim};
        codes.part = g.qk_head_dim();
      }
      const bool bf16 = in.linear(args.weights->q_b, q, q_dim, true, 1, d.stream(), codes);
      launch_rope_query(
          {count, g.num_heads, g.qk_head_dim(), g.qk_rope_head_dim, step.cos, step.sin, d.official(), q,
           bf16         ? QueryForm::bf16
           : codes.data ? QueryForm::f32_to_bf16
                        : QueryForm::f32},
          d.stream());
    };
    if (!g.has_indexer()) return queries();
    const bool beside = index_beside(d, *args.weights, count);
    if (beside) {
      in.pack_for(args.weights->q_b);
      d.point();
    } else {
      queries();
    }
    in.linear(args.weights->wq_b, d.wide, index_dim);
    d.index_queries = {count,
                       g.index_n_heads,
                       g.index_head_dim,
                       g.qk_rope_head_dim,
                       d.wide,
                       step.cos,
                       step.sin,
                       d.official(),
                       g.ue8m0_scales,
                       reinterpret_cast<unsigned char*>(d.row_of(Act::index_q, args.index_q, first)),
                       d.layout.act_row[static_cast<int>(Act::index_q)]};
    if (!beside) return launch_index_query(d.index_queries, d.stream());
    d.join();  // the heads' weights
    d.follow();
    // Choosing goes on where wq_b is, cache_append first, and the queries follow the point, beside it.
    d.exchange();
    queries();
  });
}

void attn_out(Device* device, const AttnOutArgs& args) {
  const CudaDevice& d = cuda_device(device);
  const int64_t cols = d.geometry.num_heads * d.geometry.v_head_dim;
  const CodesOut codes = begin_delta(d, d.row_of(Act::delta, args.delta, args.rows.first), args.rows.count);
  for_tiles(args.rows, d.tile.rows, [&](int32_t first, int32_t count) {
    PackedInput heads(d, d.row_of(Act::heads, args.heads, first), cols, cols, count);
    float* const delta = d.row_of(Act::delta, args.delta, first);
    if (heads.linear(args.weights->o, delta, d.geometry.hidden_size, true, 1, d.stream(), codes))
      leave_delta(d, delta, count);
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
  if (args.delta) restore_delta(d);
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
