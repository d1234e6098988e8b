// The cache, selection and attention.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/index.h"
#include "kernels/cuda/linear_ops.h"

namespace dsv::cuda {
namespace {

// Rows [first, first + count) of those.
AttendRowsArgs part_of(AttendRowsArgs a, int64_t first, int32_t count) {
  a.rows = count;
  a.step.position += first;
  a.step.sequence += first;
  a.selected += first * a.topk;
  a.n_selected += first;
  a.q.data = static_cast<const float*>(a.q.data) + first * a.heads * a.head_dim;
  a.q_abs = static_cast<const uint16_t*>(a.q_abs) + first * a.heads * a.cache.rank;
  a.mixed += first * a.heads * a.cache.rank;
  if (a.codes) a.codes += first * a.heads * a.cache.rank;
  return a;
}

// Where the rows end, of those up to `end`, that are of one sequence with row `first`.
int32_t run_end(const CudaDevice& d, int32_t first, int32_t end) {
  const int32_t* const sequence = d.host_sequence.data();
  return static_cast<int32_t>(std::find_if(sequence + first, sequence + end,
                                           [&](int32_t other) { return other != sequence[first]; }) -
                              sequence);
}

// A tile of an op's rows whose selected positions a block each goes through, on Hopper. Rows that see much of
// one sequence have its latents expanded once, into what selection has its scores in: *expanded is the
// sequence whose latents are there. A row's bits are the same either way.
void attend_whole(CudaDevice& d, const AttendRowsArgs& tile, RowRange op, int32_t first, int32_t* expanded) {
  const int32_t* const sequence = d.host_sequence.data();
  const int32_t op_end = op.first + op.count, end = first + tile.rows;
  int32_t plain = first;  // rows from here on have not been launched
  const auto launch_plain = [&](int32_t until) {
    if (plain < until) launch_attend(part_of(tile, plain - first, until - plain), d.stream());
  };
  for (int32_t begin = first; begin < end;) {
    const int32_t after = run_end(d, begin, end);
    int32_t op_begin = begin, op_last = after;  // of the run, in the op
    while (op_begin > op.first && sequence[op_begin - 1] == sequence[begin]) --op_begin;
    while (op_last < op_end && sequence[op_last] == sequence[begin]) ++op_last;
    const int32_t rows = op_last - op_begin, positions = d.longest(op_begin, rows);
    const int64_t selected = int64_t{rows} * std::min(tile.topk, positions);
    if (rows >= d.expanding_rows && selected >= kExpandedUses * positions &&
        positions * kExpandedRowBytes <= d.layout.scores) {
      launch_plain(begin);
      auto* const memory = reinterpret_cast<unsigned char*>(d.scores);
      if (*expanded != sequence[begin]) {
        *expanded = sequence[begin];
        ++d.expanded_runs;
        launch_expand({positions, tile.step.page_table + int64_t{*expanded} * tile.step.page_stride,
                       tile.cache, memory},
                      d.stream());
      }
      AttendRowsArgs run = part_of(tile, begin - first, after - begin);
      run.expanded = memory;
      launch_attend(run, d.stream());
      plain = after;
    }
    begin = after;
  }
  launch_plain(end);
}

// Whether these rows of an op, of one sequence, go to attend_heads.cu: each sees all positions up to its own,
// and there are enough of them.
bool takes_attend_heads(const CudaDevice& d, const AttendArgs& args, RowRange run, int32_t positions) {
  const Geometry& g = d.geometry;
  if (!d.bf16_queries() || !attend_heads(d.official(), g) || d.recording || !args.selected ||
      run.count < d.heads_rows || positions > g.index_topk ||
      cuda_weight(args.weights->kv_b).view.dtype != Dtype::f8_e4m3 ||
      head_keys_bytes(positions, g.num_heads) > d.layout.scores) {
    return false;
  }
  const int32_t* const position = d.host_position.data() + run.first;
  for (int32_t r = 0; r < run.count && !d.preparing; ++r) {
    if (position[r] != positions - run.count + r) return false;
  }
  return true;
}

// Values of those rows' heads. Keys and values of the sequence lie where selection has its scores.
void attend_as_heads(CudaDevice& d, const AttendArgs& args, RowRange run, int32_t positions,
                     const CodesOut& codes) {
  const Geometry& g = d.geometry;
  const StepView step = d.step(run.first);
  auto* const keys = reinterpret_cast<unsigned char*>(d.scores);
  const int64_t sequence = d.host_sequence[static_cast<size_t>(run.first)];
  ++d.heads_runs;
  launch_head_keys({positions, g.num_heads, step.page_table + sequence * step.page_stride,
                    d.cache(args.layer), cuda_weight(args.weights->kv_b).view, keys},
                   d.stream());
  launch_attend_heads(
      {run.count, g.num_heads, positions - run.count, d.row_of(Act::q, args.q, run.first), keys,
       static_cast<float>(g.softmax_scale), d.row_of(Act::heads, args.heads, run.first), codes},
      d.stream());
}

}  // namespace

void cache_append(Device* device, const CacheAppendArgs& args) {
  CudaDevice& d = cuda_device(device);
  const AttentionWeights& w = *args.weights;
  const int32_t first = args.rows.first;
  const bool indexed = d.geometry.has_indexer();
  launch_cache_append({args.rows.count, d.step(first), d.cache(args.layer),
                       d.row_of(Act::kv_raw, args.kv_raw, first), cuda_weight(w.kv_a_norm).vector,
                       indexed ? d.row_of(Act::index_k_raw, args.index_k_raw, first) : nullptr,
                       indexed ? cuda_weight(w.k_norm_weight).vector : nullptr,
                       indexed ? cuda_weight(w.k_norm_bias).vector : nullptr, static_cast<float>(kLatentEps),
                       d.geometry.ue8m0_scales, !d.follows},
                      d.side());
  if (!d.follows) return;
  d.follow();
  launch_index_query(d.index_queries, d.side());
}

void index_select(Device* handle, const IndexSelectArgs& args) {
  CudaDevice& d = cuda_device(handle);
  const Geometry& g = d.geometry;
  // Rows of scores as long as this op's need, so that more of them are worked on at once than of the longest.
  const int64_t pages = (d.longest(args.rows.first, args.rows.count) + kPageTokens - 1) / kPageTokens,
                score_stride = std::max<int64_t>(pages, 1) * kPageTokens;
  const auto at_once =
      static_cast<int32_t>(std::min<int64_t>(d.tile.rows, d.layout.scores / (4 * score_stride)));
  for_tiles(args.rows, std::max(at_once, d.tile.select), [&](int32_t first, int32_t count) {
    const int32_t longest = d.longest(first, count);
    const StepView step = d.step(first);
    const Stream stream = d.side();
    if (longest > g.index_topk) {
      launch_index_scores(
          {count, g.index_n_heads, g.index_topk, longest, step, d.cache(args.layer),
           reinterpret_cast<const unsigned char*>(d.row_of(Act::index_q, args.index_q, first)),
           d.layout.act_row[static_cast<int>(Act::index_q)],
           d.row_of(Act::index_weight, args.index_weight, first), d.scores, score_stride,
           d.fast() ? IndexPath::fp8_sums : IndexPath::f32_sums, d.rows_together},
          stream);
    }
    launch_top_k({count, g.index_topk, step.position, d.scores, score_stride,
                  d.integers(Act::selected, args.selected, first),
                  d.integers(Act::n_selected, args.n_selected, first), longest, d.top_k_scratch},
                 stream);
  });
}

void attend(Device* handle, const AttendArgs& args) {
  CudaDevice& d = cuda_device(handle);
  const Geometry& g = d.geometry;
  const WeightView& kv_b = cuda_weight(args.weights->kv_b).view;
  const int64_t rank = g.kv_lora_rank, per_head = g.qk_nope_head_dim + g.v_head_dim;
  if (args.rows.count == 0) return;
  // Positions that a row has at most: how many it has is known on the device.
  const int32_t most = args.selected ? g.index_topk : d.longest(args.rows.first, args.rows.count);
  const bool mma = attend_mma(d.official(), rank, g.qk_rope_head_dim), whole = mma && most <= kAttendMmaFold;
  const auto rows_of = [&](int32_t first, int32_t count) {
    AttendRowsArgs rows{};
    rows.rows = count;
    rows.heads = g.num_heads;
    rows.step = d.step(first);
    rows.cache = d.cache(args.layer);
    if (args.selected) {
      rows.selected = d.integers(Act::selected, args.selected, first);
      rows.n_selected = d.integers(Act::n_selected, args.n_selected, first);
    }
    rows.topk = g.index_topk;
    rows.splits = attend_most_splits(std::min(most, d.options.max_context));
    rows.q = {d.row_of(Act::q, args.q, first), d.bf16_queries()};
    rows.head_dim = g.qk_head_dim();
    rows.q_abs = d.q_abs;
    rows.softmax_scale = static_cast<float>(g.softmax_scale);
    rows.partial = d.partial;
    rows.to_bf16 = d.official();
    rows.mixed = d.mixed;
    rows.shared_limit = d.runtime->shared_limit();
    // A latent is a vector of length sqrt(rank) at most, times the norm's weights.
    rows.f16_latents = cuda_weight(args.weights->kv_a_norm).largest * std::sqrt(static_cast<float>(rank)) <=
                       kAttendLargestLatent;
    return rows;
  };
  const bool coded = whole && takes_attend_wgmma(rows_of(args.rows.first, args.rows.count)) &&
                     values_take_codes(d, args.weights->kv_b);
  const int32_t at_once =
      whole ? attend_even_rows(g.num_heads, coded ? d.tile.coded : d.tile.attend) : d.tile.split;
  int32_t expanded = -1;
  const PackedRows codes = value_codes(d, *args.weights, args.rows.count);
  if (codes.data) {
    d.normed[0] = {CudaDevice::Normed::heads, d.row_of(Act::heads, args.heads, args.rows.first),
                   args.rows.count, InputForm{Rounding::e4m3, true, codes.form}, true};
  }
  const auto codes_of = [&](int32_t first) {
    return codes.data ? codes_out(codes, first - args.rows.first) : CodesOut{};
  };
  const auto attend_tile = [&](RowRange range, int32_t first, int32_t count) {
    AttendRowsArgs rows = rows_of(first, count);
    // `partial` is for tile.split rows of attend_mma, or seven times as many of attend_wgmma.
    if (whole && (count > 7 * d.tile.split || !attend_prefers_splits(rows))) rows.splits = 1;
    const AbsorbArgs absorb = {count,           g.num_heads, kv_b,         per_head, g.qk_nope_head_dim,
                               g.qk_head_dim(), rows.q,      d.official(), mma,      d.q_abs};
    (!takes_absorb_many(absorb) ? launch_absorb
     : d.wgmma                  ? launch_absorb_wgmma
                                : launch_absorb_many)(absorb, d.stream());
    d.join();
    if (coded && count > kValuesFewRows) rows.codes = reinterpret_cast<uint16_t*>(d.mixed_codes);
    if (rows.codes && rows.splits == 1 && !d.recording) {
      attend_whole(d, rows, range, first, &expanded);
    } else {
      launch_attend(rows, d.stream());
    }
    apply_values(d, args.weights->kv_b, count, rows.codes ? nullptr : d.mixed,
                 d.row_of(Act::heads, args.heads, first), codes_of(first));
  };
  const int32_t end = args.rows.first + args.rows.count;
  int32_t rest = args.rows.first;  // rows from here on have not been launched
  const auto attend_rest = [&](int32_t until) {
    const RowRange range = {rest, until - rest};
    for_tiles(range, at_once, [&](int32_t first, int32_t count) { attend_tile(range, first, count); });
  };
  for (int32_t first = rest; first < end;) {
    RowRange run = {first, run_end(d, first, end) - first};
    first += run.count;
    int32_t positions = d.longest(run.first, run.count);
    if (positions > g.index_topk && !d.preparing) {  // then the first ones, up to there
      const int32_t before = d.host_position[static_cast<size_t>(run.first)];
      run.count = std::clamp(g.index_topk - before, 0, run.count);
      positions = before + run.count;
    }
    if (!takes_attend_heads(d, args, run, positions)) continue;
    attend_rest(run.first);
    attend_as_heads(d, args, run, positions, codes_of(run.first));
    rest = run.first + run.count;
    expanded = -1;  // what was there
  }
  attend_rest(end);
}

}  // namespace dsv::cuda
