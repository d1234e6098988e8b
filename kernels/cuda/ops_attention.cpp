// The cache, selection and attention.
//
// `selected` and `n_selected` are host arrays, so selection ends with a download and attention begins with an
// upload: two synchronisations a layer that the op table asks for.
#include <algorithm>

#include "kernels/cuda/linear_ops.h"

namespace dsv::cuda {

void cache_append(Device* device, const CacheAppendArgs& args) {
  const CudaDevice& d = cuda_device(device);
  const AttentionWeights& w = *args.weights;
  const int32_t first = args.rows.first;
  const bool indexed = d.geometry.has_indexer();
  launch_cache_append({args.rows.count, d.step(first), d.cache(args.layer),
                       d.row_of(Act::kv_raw, args.kv_raw, first), cuda_weight(w.kv_a_norm).vector,
                       indexed ? d.row_of(Act::index_k_raw, args.index_k_raw, first) : nullptr,
                       indexed ? cuda_weight(w.k_norm_weight).vector : nullptr,
                       indexed ? cuda_weight(w.k_norm_bias).vector : nullptr, static_cast<float>(kLatentEps),
                       d.geometry.ue8m0_scales},
                      d.stream());
}

void index_select(Device* handle, const IndexSelectArgs& args) {
  CudaDevice& d = cuda_device(handle);
  const Geometry& g = d.geometry;
  const int64_t topk = g.index_topk;
  for_tiles(args.rows, d.tile.select, [&](int32_t first, int32_t count) {
    const int32_t* position = d.host_position.data() + first;
    const int32_t longest = *std::max_element(position, position + count) + 1;
    const StepView step = d.step(first);
    const int64_t score_stride = int64_t{d.layout.page_stride} * kPageTokens;
    if (longest > topk) {
      launch_index_scores(
          {count, g.index_n_heads, g.index_topk, longest, step, d.cache(args.layer),
           reinterpret_cast<const unsigned char*>(d.row_of(Act::index_q, args.index_q, first)),
           d.layout.act_row[static_cast<int>(Act::index_q)],
           d.row_of(Act::index_weight, args.index_weight, first), d.scores, score_stride},
          d.stream());
    }
    launch_top_k({count, g.index_topk, step.position, d.scores, score_stride, d.selected, d.n_selected},
                 d.stream());
    // Entries past n_selected are nobody's: row by row, so that they stay untouched in the host's array.
    d.download(args.n_selected + first, d.n_selected, 4 * int64_t{count});
    for (int32_t r = 0; r < count; ++r) {
      d.download(args.selected + (first + r) * topk, d.selected + r * topk,
                 4 * int64_t{args.n_selected[first + r]});
    }
  });
}

void attend(Device* handle, const AttendArgs& args) {
  CudaDevice& d = cuda_device(handle);
  const Geometry& g = d.geometry;
  const WeightView& kv_b = cuda_weight(args.weights->kv_b).view;
  const int64_t per_head = g.qk_nope_head_dim + g.v_head_dim, topk = g.index_topk;
  for_tiles(args.rows, d.tile.attend, [&](int32_t first, int32_t count) {
    int32_t splits = 1;
    for (int32_t r = first; r < first + count; ++r) {
      const int32_t n = args.selected ? args.n_selected[r] : d.host_position[static_cast<size_t>(r)] + 1;
      splits = std::max(splits, attend_splits(n));
    }
    if (args.selected) {
      d.upload(d.selected, args.selected + first * topk, 4 * count * topk);
      d.upload(d.n_selected, args.n_selected + first, 4 * int64_t{count});
    }
    const float* q = d.row_of(Act::q, args.q, first);
    launch_absorb(
        {count, g.num_heads, kv_b, per_head, g.qk_nope_head_dim, g.qk_head_dim(), q, d.official(), d.q_abs},
        d.stream());
    launch_attend(
        {count, g.num_heads, d.step(first), d.cache(args.layer), args.selected ? d.selected : nullptr,
         args.selected ? d.n_selected : nullptr, g.index_topk, splits, q, g.qk_head_dim(), d.q_abs,
         static_cast<float>(g.softmax_scale), d.partial, d.official(), d.mixed},
        d.stream());
    apply_values(d, args.weights->kv_b, count, d.mixed, d.row_of(Act::heads, args.heads, first));
  });
}

}  // namespace dsv::cuda
