// Router and feed-forward blocks.
#include <algorithm>
#include <vector>

#include "kernels/cuda/experts.h"
#include "kernels/cuda/linear_ops.h"
#include "kernels/cuda/rows.h"

namespace dsv::cuda {
namespace {

// The views of a block's FFNs on the device: made when a block is first met, in memory that open() took.
const CudaDevice::FfnTable& table_of(CudaDevice& d, const void* key, const FfnWeights* ffns, int64_t count) {
  for (const CudaDevice::FfnTable& table : d.ffn_table_index) {
    if (table.key == key) return table;
  }
  // A model has fewer; another caller's tables may be made again, because the stream keeps the order.
  if (d.ffn_table_index.size() == d.ffn_table_index.capacity() || d.ffn_views + count > d.layout.ffn_views) {
    d.runtime->synchronize();
    d.drop_graphs();  // which read the old ones
    d.ffn_table_index.clear();
    d.ffn_views = 0;
  }
  CudaDevice::FfnTable table{key, d.ffn_tables + d.ffn_views, {}, {}};
  Upload upload(d, d.ffn_tables + d.ffn_views);
  for (int64_t i = 0; i < count; ++i) {
    FfnView view = {cuda_weight(ffns[i].gate).view, cuda_weight(ffns[i].up).view,
                    cuda_weight(ffns[i].down).view};
    if (d.wgmma) view.make_maps();
    upload.put(&view, sizeof view);
    table.in.add(view.gate.dtype);
    table.in.add(view.up.dtype);
    table.down.add(view.down.dtype);
  }
  upload.finish();
  d.ffn_views += count;
  d.ffn_table_index.push_back(table);
  return d.ffn_table_index.back();
}

// Pairs of an FFN run: those of the device's tiles, or with `grouped` false one for each row.
struct Pairs {
  bool grouped;
  int32_t count, tile_rows, tile_bound;
  HopperPath hopper;
};

// The tensor cores run a table if they take all its weights, because its tiles serve both its launches.
bool on_tensor_cores(const CudaDevice& d, const CudaDevice::FfnTable& table) {
  return d.official() && table.in.tensor() && table.down.tensor();
}

bool fp8_ffn(const CudaDevice& d, const CudaDevice::FfnTable& table) {
  return on_tensor_cores(d, table) && table.in.dtype() == Dtype::f8_e4m3 &&
         table.down.dtype() == Dtype::f8_e4m3;
}

// `rows`: that a weight of the table meets, about.
Pairs cut(const CudaDevice& d, const CudaDevice::FfnTable& table, bool grouped, int32_t count, int32_t rows,
          int64_t outputs) {
  Pairs pairs = {grouped, count, kTilePairs, 0, HopperPath::none};
  if (on_tensor_cores(d, table)) {
    if (fp8_ffn(d, table)) pairs.hopper = hopper_path(d, rows);
    pairs.tile_rows = pairs.hopper == HopperPath::fp8_sums    ? (grouped ? kFp8Pairs : kFp8Rows)
                      : pairs.hopper == HopperPath::same_bits ? kWgmmaRows
                                                              : tensor_tile_rows(rows, outputs);
  }
  pairs.tile_bound = (count + pairs.tile_rows - 1) / pairs.tile_rows;
  return pairs;
}

const CudaDevice::FfnTable& routed_table(CudaDevice& d, const MoeWeights& w) {
  return table_of(d, &w, w.experts.data(), d.geometry.n_routed_experts);
}

// Of `count` rows.
Pairs routed_pairs(const CudaDevice& d, const CudaDevice::FfnTable& table, int32_t count) {
  const Geometry& g = d.geometry;
  const int32_t n = count * g.num_experts_per_tok;
  // An expert that is touched meets some 2 * n / experts rows at most, as a rule; of few rows hardly any
  // twice.
  const int32_t meets = count > 8 ? 2 * n / g.n_routed_experts : 1;
  Pairs pairs = cut(d, table, true, n, meets, g.hidden_size * g.n_routed_experts);
  pairs.tile_bound = most_tiles(n, g.n_routed_experts, pairs.tile_rows);
  return pairs;
}

GroupArgs group_args(const CudaDevice& d, const int32_t* expert, int32_t count, const Pairs& pairs) {
  return {count,
          d.geometry.num_experts_per_tok,
          d.geometry.n_routed_experts,
          pairs.tile_rows,
          expert,
          d.pair_row,
          d.pair_of,
          d.tiles,
          d.n_tiles,
          reinterpret_cast<int32_t*>(d.wide)};
}

// Where an FFN's launches go, and what they keep in between.
struct FfnPlace {
  Stream stream;
  float* inner;
  float* const* packed;  // [2]
};
FfnPlace main_place(const CudaDevice& d) { return {d.stream(), d.inner, d.inner_packed}; }

// Whether an FFN's launches write codes: SwiGLU those that down takes, and down bf16 if that is asked for.
bool writes_codes(const Pairs& pairs) {
  return pairs.hopper == HopperPath::fp8_sums && !few_for_fp8(pairs.grouped, pairs.count);
}

// y[p] = down(silu(gate h) * up h) for every pair. On another stream than h's, h is packed already. `bf16`: y
// may be in bf16, as it is in the released model's own code.
ValueRows run_ffn(CudaDevice& d, const CudaDevice::FfnTable& table, const Pairs& pairs, PackedInput& h,
                  int64_t inner, float* y, bool bf16, const FfnPlace& at) {
  const ExpertTile* tiles = pairs.grouped ? d.tiles : nullptr;
  const int32_t* pair_row = pairs.grouped ? d.pair_row : nullptr;
  const int64_t dim = d.geometry.hidden_size;
  PackedInput a(d, at.inner, inner, inner, pairs.count, at.packed, at.stream);
  if (on_tensor_cores(d, table)) {
    const bool codes = writes_codes(pairs);
    const auto run = [&](TensorKind kind, Dtype dtype, PackedRows in, const int32_t* row, int64_t cols,
                         int64_t outputs, float* out, const CodesOut& out_codes) {
      if (row && pairs.hopper != HopperPath::none) {  // whose copies take neighbouring rows only
        auto* const gathered = reinterpret_cast<unsigned char*>(d.outer);  // down's output comes later
        launch_gather_rows({pairs.count, in, row, tensor_blocks(cols), gathered}, at.stream);
        in = packed_rows(gathered, pairs.count, cols, Rounding::e4m3, in.form);
        row = nullptr;
      }
      TensorArgs args = {kind,
                         dtype,
                         pairs.count,
                         in,
                         {},
                         table.views,
                         tiles,
                         d.n_tiles,
                         row,
                         pairs.tile_bound,
                         pairs.tile_rows,
                         outputs,
                         weight_pitch(dtype, cols),
                         out,
                         outputs,
                         1,
                         false};
      args.fp8_sums = pairs.hopper == HopperPath::fp8_sums;
      args.early = at.stream == d.stream() || kind == TensorKind::down;
      args.codes = out_codes;
      args.power_of_two = d.geometry.ue8m0_scales;
      launch_tensor(args, at.stream);
    };
    const PackedRows coded =
        packed_rows(at.packed[0], pairs.count, inner, Rounding::e4m3, PackedForm::by_block);
    run(TensorKind::swiglu, table.in.dtype(), h.codes(table.in.dtype(), pairs.hopper), pair_row, dim, inner,
        at.inner, codes ? codes_out(coded) : CodesOut{});
    bf16 = bf16 && codes && dim >= 64;  // from where rows of whole blocks take no more than f32's
    run(TensorKind::down, table.down.dtype(), codes ? coded : a.codes(table.down.dtype(), pairs.hopper),
        nullptr, inner, dim, y,
        bf16 ? codes_out(packed_rows(y, pairs.count, dim, Rounding::bf16)) : CodesOut{});
    return {y, bf16};
  }
  launch_swiglu({pairs.count, pairs.tile_bound, table.views, tiles, d.n_tiles, pair_row,
                 h.pair(table.in.fp8, table.in.bf16 || table.in.rest), dim, inner, at.inner},
                at.stream);
  launch_down({pairs.count, pairs.tile_bound, table.views, tiles, d.n_tiles,
               a.pair(table.down.fp8, table.down.bf16 || table.down.rest), inner, dim, y},
              at.stream);
  return {y};
}

// Whether a recorded step runs the shared expert beside the routing and the routed experts: it needs the
// codes of h that the norm before has written.
bool shared_beside(CudaDevice& d, const MoeWeights& w, const float* h, int32_t rows) {
  const CudaDevice::NormedRows& normed = d.normed[0];
  return d.recording && rows <= kSideRows && w.shared.gate && normed.x == h && normed.rows == rows &&
         normed.form == InputForm{Rounding::e4m3, true} && fp8_ffn(d, table_of(d, &w.shared, &w.shared, 1));
}

}  // namespace

void route(Device* handle, const RouteArgs& args) {
  CudaDevice& d = cuda_device(handle);
  const Geometry& g = d.geometry;
  const MoeWeights& w = *args.weights;
  const bool beside = shared_beside(d, w, d.row_of(Act::h, args.h, args.rows.first), args.rows.count);
  if (beside) {
    d.point();
    d.follow();
  }
  for_tiles(args.rows, d.tile.rows, [&](int32_t first, int32_t count) {
    PackedInput h(d, d.row_of(Act::h, args.h, first), g.hidden_size, g.hidden_size, count);
    int32_t* const expert = d.integers(Act::expert, args.expert, first);
    const RouteRowsArgs rows = {count,
                                g.n_routed_experts,
                                g.num_experts_per_tok,
                                g.n_group,
                                g.topk_group,
                                d.wide,
                                cuda_weight(w.bias).vector,
                                g.norm_topk_prob,
                                g.routed_scaling_factor,
                                expert,
                                d.row_of(Act::expert_weight, args.expert_weight, first)};
    const WeightView& gate = cuda_weight(w.gate).view;
    if (d.official() && takes_route_few(rows, gate)) {
      const Pairs pairs = routed_pairs(d, routed_table(d, w), count);
      d.grouped = {expert, count, pairs.tile_rows};
      return launch_route_few({rows, gate, h.codes(gate.dtype, HopperPath::none),
                               group_args(d, expert, count, pairs), d.wide, d.arrived},
                              d.stream());
    }
    h.linear(w.gate, d.wide, g.n_routed_experts, false);
    launch_route(rows, d.stream());
  });
}

void experts(Device* handle, const ExpertsArgs& args) {
  CudaDevice& d = cuda_device(handle);
  const Geometry& g = d.geometry;
  const int64_t dim = g.hidden_size;
  const MoeWeights& w = *args.weights;
  const CudaDevice::FfnTable routed = routed_table(d, w);
  const bool bf16_delta =
      begin_delta(d, d.row_of(Act::delta, args.delta, args.rows.first), args.rows.count).data;
  for_tiles(args.rows, d.tile.rows, [&](int32_t first, int32_t count) {
    PackedInput h(d, d.row_of(Act::h, args.h, first), dim, dim, count);
    const Pairs pairs = routed_pairs(d, routed, count);
    const bool bf16 = writes_codes(pairs);
    ValueRows shared_rows;
    if (w.shared.gate) {  // first, because elsewhere than beside the routed ones the two use the same scratch
      const CudaDevice::FfnTable shared = table_of(d, &w.shared, &w.shared, 1);
      const FfnPlace place = d.follows ? FfnPlace{d.side(), d.side_inner, d.side_packed} : main_place(d);
      shared_rows = run_ffn(d, shared, cut(d, shared, false, count, count, dim), h,
                            g.shared_intermediate_size(), d.shared, bf16, place);
    }
    const int32_t* const expert = d.integers(Act::expert, args.expert, first);
    if (!(d.grouped == CudaDevice::Grouped{expert, count, pairs.tile_rows}))
      launch_group(group_args(d, expert, count, pairs), d.stream());
    d.grouped = {};
    const ValueRows y = run_ffn(d, routed, pairs, h, g.moe_intermediate_size, d.outer, bf16, main_place(d));
    const bool joined = d.join();
    float* const delta = d.row_of(Act::delta, args.delta, first);
    launch_mix_experts({count, g.num_experts_per_tok, dim, y, d.pair_of,
                        d.row_of(Act::expert_weight, args.expert_weight, first), shared_rows, delta, !joined,
                        bf16_delta && y.bf16},
                       d.stream());
    if (bf16_delta && y.bf16) leave_delta(d, delta, count);
  });
}

void ffn(Device* handle, const FfnArgs& args) {
  CudaDevice& d = cuda_device(handle);
  const Geometry& g = d.geometry;
  const CudaDevice::FfnTable table = table_of(d, args.weights, args.weights, 1);
  const bool bf16_delta =
      begin_delta(d, d.row_of(Act::delta, args.delta, args.rows.first), args.rows.count).data;
  for_tiles(args.rows, d.tile.rows, [&](int32_t first, int32_t count) {
    PackedInput h(d, d.row_of(Act::h, args.h, first), g.hidden_size, g.hidden_size, count);
    float* const delta = d.row_of(Act::delta, args.delta, first);
    if (run_ffn(d, table, cut(d, table, false, count, count, g.hidden_size), h, g.intermediate_size, delta,
                bf16_delta, main_place(d))
            .bf16)
      leave_delta(d, delta, count);
  });
}

}  // namespace dsv::cuda
