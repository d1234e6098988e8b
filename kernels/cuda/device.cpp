#include "kernels/cuda/device.h"

#include <algorithm>
#include <type_traits>

#include "base/error.h"
#include "kernels/cuda/experts.h"
#include "kernels/cuda/index.h"

namespace dsv::cuda {
namespace {

// The plain kernels hold a tile of latents, or the scores of a router, in the 99 KB that every card has.
void check_geometry(const Geometry& g) {
  constexpr int64_t kShared = 99 * 1024;
  if (attend_shared_bytes(g.kv_lora_rank, g.qk_rope_head_dim) > kShared) {
    fail(DSV_ERROR_UNSUPPORTED,
         "the cuda backend has no room for latents of {} + {} values (kv_lora_rank + qk_rope_head_dim) in a "
         "GPU's shared memory: use the cpu backend",
         g.kv_lora_rank, g.qk_rope_head_dim);
  }
  if (route_shared_bytes(g.n_routed_experts, g.n_group) > kShared) {
    fail(DSV_ERROR_UNSUPPORTED,
         "the cuda backend has no room for the scores of {} experts (n_routed_experts) in a GPU's shared "
         "memory: use the cpu backend",
         g.n_routed_experts);
  }
  if (4 * (g.latent_dim() + g.index_head_dim) + 1024 > kShared) {
    fail(
        DSV_ERROR_UNSUPPORTED,
        "the cuda backend has no room for index keys of {} values (index_head_dim) in a GPU's shared memory: "
        "use the cpu backend",
        g.index_head_dim);
  }
}

int32_t rows_in(int64_t bytes, int64_t row, int32_t most) {
  return static_cast<int32_t>(std::clamp<int64_t>(bytes / std::max<int64_t>(row, 1), 1, most));
}

Device* open(const DeviceOptions& options) {
  check_geometry(*options.geometry);
  auto device = std::make_unique<CudaDevice>(options);
  return reinterpret_cast<Device*>(device.release());
}

void close(Device* device) { delete &cuda_device(device); }

const char* target(const Device* device) { return cuda_device(device).runtime->description(); }

// What the driver takes besides, 2 MB at a time (on an H200): the first time in a process 2 for streams and
// events and 4 for code, and for each recorded step so much a layer.
constexpr int64_t kDriverBytes = int64_t{6} << 20, kRecordedLayerBytes = int64_t{240} << 10;

int64_t plan_scratch(const DeviceOptions& options) {
  const Layout layout(options);
  return layout.bytes() - layout.kv + kDriverBytes +
         prepared_graphs(options) * options.geometry->num_layers * kRecordedLayerBytes;
}

Buffer buffer(Device* device, Act kind) { return cuda_device(device).act[static_cast<int>(kind)]; }

}  // namespace

Layout::Layout(const DeviceOptions& o) {
  const Geometry& g = *o.geometry;
  const int64_t rows = o.batch_rows, d = g.hidden_size;
  page_stride = (o.max_context + kPageTokens - 1) / kPageTokens;
  attend_splits = attend_most_splits(o.max_context);
  // On tensor cores a block can take all of a row, and few rows need partial results.
  const bool official = o.precision == Precision::official;
  const bool mma = attend_mma(official, g.kv_lora_rank, g.qk_rope_head_dim);
  const int64_t q_abs_row = (mma ? 2 : 4) * g.num_heads * g.kv_lora_rank;
  const int64_t mixed_row = 4 * g.num_heads * padded(g.kv_lora_rank);
  const int64_t partial_row = 4 * g.num_heads * attend_splits * (g.kv_lora_rank + 2);
  const int64_t score_row = 4 * int64_t{page_stride} * kPageTokens;
  // Every tile of a long batch reads all experts again, so tiles are as long as 10 GB of scratch allow: 16384
  // rows of the released model (a batch of fewer takes less).
  const int64_t widest = std::max({2 * d, g.q_lora_rank, g.num_heads * g.v_head_dim});
  const int64_t top = g.n_routed_experts > 0 ? g.num_experts_per_tok : 0;
  tile.rows =
      rows_in(int64_t{10} << 30,
              2 * packed_bytes(1, widest) + top * (4 * d + 3 * packed_bytes(1, g.moe_intermediate_size)),
              o.batch_rows);
  tile.split = rows_in(int64_t{64} << 20, q_abs_row + mixed_row + partial_row, tile.rows);
  tile.attend = mma ? rows_in(int64_t{512} << 20, q_abs_row + mixed_row, tile.rows) : tile.split;
  const int64_t codes_row = packed_pitch(g.num_heads * g.kv_lora_rank, Rounding::bf16);
  tile.coded = mma ? rows_in(int64_t{1} << 30, q_abs_row + codes_row, tile.rows) : tile.attend;
  tile.select = rows_in(int64_t{128} << 20, score_row, tile.rows);

  for (int kind = 0; kind < static_cast<int>(Act::count); ++kind) {
    const auto act_kind = static_cast<Act>(kind);
    act_row[kind] = 4 * row_values(g, act_kind);
    if (act_kind == Act::index_q && official) {
      act_row[kind] = index_query_codes(g) + 4 * int64_t{g.index_n_heads};
    }
    if (act_kind != Act::mtp_x || o.with_mtp) act[kind] = buffer_rows(o, act_kind) * act_row[kind];
  }
  inputs = 4 * StepInputs(o, page_stride).count;
  inv_freq = 8 * (g.qk_rope_head_dim / 2);
  angles = 4 * rows * (g.qk_rope_head_dim / 2);
  const int64_t t = tile.rows;
  packed = packed_bytes(t, widest);
  const int64_t routing =
      g.n_routed_experts * int64_t{tensor_splits(g.n_routed_experts, weight_pitch(Dtype::bf16, d))};
  wide = 4 * t * std::max({row_values(g, Act::index_q), 2 * d, routing});
  allowed = 4 * ((g.vocab_size + 31) / 32);
  biases = static_cast<int64_t>(sizeof(TokenBias)) * g.vocab_size;
  unbiased = 4 * g.vocab_size;
  if (g.has_indexer()) {
    scores = tile.select * score_row;
    // After selection its scores' memory is attention's: room for the longest sequence's expanded latents.
    if (mma && g.num_heads > 32 && tile.rows >= kLeastExpandingRows) {
      scores = std::max(scores, int64_t{page_stride} * kPageTokens * kExpandedRowBytes);
    }
    // .. or for the keys and values of one that is not selected from.
    if (o.fast && attend_heads(official, g) && tile.rows >= kLeastHeadsRows) {
      scores = std::max(scores, head_keys_bytes(std::min<int64_t>(g.index_topk, o.max_context), g.num_heads));
    }
    top_k = top_k_scratch_bytes(int64_t{page_stride} * kPageTokens);
  }
  q_abs = std::max(tile.attend, tile.coded) * q_abs_row;
  mixed = tile.attend * mixed_row;
  if (official) mixed_codes = std::max(tile.attend, tile.coded) * codes_row;
  partial = tile.split * partial_row;

  const int64_t k = top, pairs = std::max<int64_t>(t * k, t);
  const int64_t dense = std::max(g.intermediate_size, g.shared_intermediate_size());
  inner = 4 * std::max(t * k * g.moe_intermediate_size, t * dense);
  inner_packed = std::max(packed_bytes(t * k, g.moe_intermediate_size), packed_bytes(t, dense));
  outer = packed_bytes(pairs, d);  // f32; before that the input of every pair
  ffn_views = g.num_layers + 1;    // a dense FFN or a shared expert each
  if (k > 0) {
    ffn_views += (g.num_layers + 1) * int64_t{g.n_routed_experts};
    pair_row = pair_of = 4 * t * k;
    tiles = static_cast<int64_t>(sizeof(ExpertTile)) *
            most_tiles(static_cast<int32_t>(t * k), g.n_routed_experts, kTilePairs);
    n_tiles = arrived = 4;
    if (g.n_shared_experts > 0) {
      shared = 4 * t * d;
      side_inner = 4 * kSideRows * g.shared_intermediate_size();
      side_packed = packed_bytes(kSideRows, g.shared_intermediate_size());
    }
  }
  ffn_tables = static_cast<int64_t>(sizeof(FfnView)) * ffn_views;
  kv = KvLayout(g, o.precision, o.with_mtp).page_bytes() * o.kv_pages;
}

int64_t Layout::bytes() const {
  int64_t sum = 0;
  for (const int64_t part : act) sum += aligned(part);
  for (const int64_t part :
       {inputs,      inv_freq,    angles,     angles, packed,       packed,       wide,  allowed,  biases,
        unbiased,    scores,      q_abs,      mixed,  mixed_codes,  partial,      top_k, pair_row, pair_of,
        tiles,       n_tiles,     arrived,    inner,  inner_packed, inner_packed, outer, shared,   side_inner,
        side_packed, side_packed, ffn_tables, kv}) {
    sum += aligned(part);
  }
  return sum;
}

CudaDevice::CudaDevice(const DeviceOptions& o)
    : geometry(*o.geometry),
      options(o),
      kv(*o.geometry, o.precision, o.with_mtp),
      runtime(open_runtime(o.target, o.stream_priority)),
      layout(o) {
  options.geometry = &geometry;
  tile = layout.tile;
  wgmma = runtime->shared_limit() > kPortableShared && wgmma_works();
  host_position.resize(static_cast<size_t>(o.batch_rows));
  host_sequence.resize(static_cast<size_t>(o.batch_rows));
  recorded.reserve(kMostGraphs);
  seen.reserve(kMostSeen);
  ffn_table_index.reserve(2 * static_cast<size_t>(kv.layers) + 2);
  const auto make = [this](auto*& pointer, int64_t bytes, const char* what) {
    if (bytes == 0) return;
    void* memory = runtime->allocate(bytes, what);
    allocations.push_back(memory);
    pointer = static_cast<std::remove_reference_t<decltype(pointer)>>(memory);
  };
  try {
    const auto pin = [this](auto*& pointer, int64_t bytes, const char* what) {
      void* memory = runtime->allocate_pinned(bytes, what);
      pinned.push_back(memory);
      pointer = static_cast<std::remove_reference_t<decltype(pointer)>>(memory);
    };
    if (o.weight_copy_bytes > 0) runtime->reserve(layout.bytes() + o.weight_copy_bytes);
    for (unsigned char*& chunk : staging) pin(chunk, Upload::kChunk, "uploads");
    pin(pinned_inputs, layout.inputs, "a step's inputs");
    pin(pinned_biases, layout.biases, "a step's logit biases");
    pin(pinned_tokens, layout.act[static_cast<int>(Act::token)], "a step's tokens");
    make(kv_pool, layout.kv, "the KV pool");
    for (int kind = 0; kind < static_cast<int>(Act::count); ++kind) {
      make(act[kind], layout.act[kind], "activations");
    }
    const char* const scratch = "scratch";
    make(inputs, layout.inputs, scratch);
    const StepInputs at(options, layout.page_stride);
    token = inputs + at.token;
    position = inputs + at.position;
    sequence = inputs + at.sequence;
    next_token = inputs + at.next_token;
    logit_row = inputs + at.logit_row;
    sample_rows = reinterpret_cast<SampleRow*>(inputs + at.sample);
    page_table = inputs + at.page_table;
    make(inv_freq, layout.inv_freq, scratch);
    make(cos, layout.angles, scratch);
    make(sin, layout.angles, scratch);
    for (float*& form : packed) make(form, layout.packed, scratch);
    make(wide, layout.wide, scratch);
    make(allowed, layout.allowed, scratch);
    make(biases, layout.biases, scratch);
    make(unbiased, layout.unbiased, scratch);
    make(scores, layout.scores, scratch);
    make(q_abs, layout.q_abs, scratch);
    make(mixed, layout.mixed, scratch);
    make(mixed_codes, layout.mixed_codes, scratch);
    make(partial, layout.partial, scratch);
    make(top_k_scratch, layout.top_k, scratch);
    make(pair_row, layout.pair_row, scratch);
    make(pair_of, layout.pair_of, scratch);
    make(tiles, layout.tiles, scratch);
    make(n_tiles, layout.n_tiles, scratch);
    make(arrived, layout.arrived, scratch);
    make(inner, layout.inner, scratch);
    for (float*& form : inner_packed) make(form, layout.inner_packed, scratch);
    make(outer, layout.outer, scratch);
    make(shared, layout.shared, scratch);
    make(side_inner, layout.side_inner, scratch);
    for (float*& form : side_packed) make(form, layout.side_packed, scratch);
    make(ffn_tables, layout.ffn_tables, "tables of experts");
    upload(inv_freq, geometry.inv_freq.data(), layout.inv_freq);
    constexpr int kSelected = static_cast<int>(Act::selected);
    if (act[kSelected]) {  // attention reads ahead of knowing how many there are
      Upload none(*this, act[kSelected]);
      none.zeros(layout.act[kSelected]);
      none.finish();
    }
    if (arrived) {
      Upload none(*this, arrived);
      none.zeros(layout.arrived);
      none.finish();
    }
    Upload flags(*this, allowed);
    uint32_t bits = 0;
    for (int64_t id = 0; id < geometry.vocab_size; ++id) {
      const bool flag = !o.allowed || o.allowed[id];
      if (flag && first_allowed < 0) first_allowed = static_cast<int32_t>(id);
      bits |= static_cast<uint32_t>(flag) << id % 32;
      if (id % 32 != 31 && id + 1 != geometry.vocab_size) continue;
      flags.put(&bits, sizeof bits);
      bits = 0;
    }
    flags.finish();
  } catch (...) {
    release();
    throw;
  }
}

void CudaDevice::release() noexcept {
  if (recording) runtime->drop_recording();
  try {
    runtime->synchronize();
  } catch (const Error&) {  // a device that is lost has nothing left to wait for
  }
  drop_graphs();
  for (void* memory : allocations) runtime->free(memory);
  for (void* memory : pinned) runtime->free_pinned(memory);
}

StepView CudaDevice::step(int32_t first) const {
  const int64_t half = geometry.qk_rope_head_dim / 2;
  return {token + first, position + first,   sequence + first,  page_table,
          page_stride,   cos + first * half, sin + first * half};
}

CacheView CudaDevice::cache(int32_t layer) const {
  const int64_t latent_bytes = kPageTokens * kv.latent_row_bytes;
  unsigned char* pool = kv_pool + layer * options.kv_pages * (latent_bytes + kv.index_page_bytes);
  return {pool,
          pool + options.kv_pages * latent_bytes,
          kv.latent_row_bytes,
          kv.index_page_bytes,
          geometry.kv_lora_rank,
          geometry.qk_rope_head_dim,
          geometry.has_indexer() ? geometry.index_head_dim : 0,
          official()};
}

}  // namespace dsv::cuda

namespace dsv {

const OpTable& cuda_ops() {
  using namespace cuda;
  static constexpr OpTable table = {
      "cuda",       open,   cuda::close, target,  plan_scratch, plan_weight_copy,
      load_weight,  buffer, store,       fetch,   read_kv,      write_kv,
      begin_step,   embed,  add_norm,    attn_in, attn_q,       cache_append,
      index_select, attend, attn_out,    route,   experts,      ffn,
      mtp_in,       logits, sample,      token,   nullptr,      end_step,
      cuda::wait,   stamp,  between,     true,    prepare,
  };
  return table;
}

}  // namespace dsv
