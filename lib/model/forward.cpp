#include "model/forward.h"

#include <algorithm>
#include <bit>

namespace dsv {
namespace {

// A budget this long is no budget: dsv_engine_run, and hosts that do not care.
constexpr double kNoHurry = 3600;

// A chunk of a prompt that a device computes on its own should not hold up others' tokens for longer.
constexpr std::chrono::milliseconds kLeastChunk{20};

double seconds(Forward::Clock::duration d) { return std::chrono::duration<double>(d).count(); }

}  // namespace

// The newest measurement counts in full if it is dearer than what was known, so that a budget is kept from
// the next range on; a cheaper one only in part, because layers differ and a context grows.
void RowCost::measured(int32_t rows, double seconds) {
  constexpr double kCheaper = 0.25;
  Cost& cost = cost_[static_cast<size_t>(size_of(rows))];
  const double known = cost.rows > 0 ? estimate(rows) : 0;
  cost = {rows, seconds >= known ? seconds : known + kCheaper * (seconds - known)};
}

int RowCost::size_of(int32_t rows) {
  return std::min<int>(std::bit_width(static_cast<uint32_t>(rows) - 1), kSizes - 1);
}

// From the nearest measurement that is not of more rows' size: an upper bound.
double RowCost::estimate(int32_t rows) const {
  int size = size_of(rows);
  while (size > 0 && cost_[static_cast<size_t>(size)].rows == 0) --size;
  const Cost& cost = cost_[static_cast<size_t>(size)];
  return cost.rows > 0 ? cost.seconds * std::max(1.0, static_cast<double>(rows) / cost.rows) : 0;
}

int32_t RowCost::rows_within(double seconds, int32_t rows) const {
  if (seconds >= kNoHurry) return rows;
  if (cost_[0].rows == 0) return 1;
  if (estimate(rows) <= seconds) return rows;
  int size = size_of(rows);
  do --size;
  while (size > 0 && estimate(1 << size) > seconds);
  return 1 << std::max(size, 0);
}

Forward::Forward(const Host& host, const OpTable& ops, Device* device, const Geometry& geometry,
                 const ModelWeights& weights)
    : ops_(ops), device_(device), geometry_(geometry), weights_(weights) {
  if (!ops.logits_row) logits_ = {host, geometry.vocab_size, "the logits"};
}

// Pre-norm decoder layer: x += attention(norm(x)); x += ffn_or_moe(norm(x)). The block's output stays in
// `delta` until the next norm adds it, so that a backend can fuse the two.
void Forward::layer(int32_t index, const LayerWeights& weights, Act stream, RowRange rows) {
  const auto buffer = [&](Act act) { return ops_.buffer(device_, act); };
  const AttentionWeights& attention = weights.attention;
  const Buffer x = buffer(stream), h = buffer(Act::h), delta = buffer(Act::delta);
  const bool first_of_stream = index == 0 || stream == Act::mtp_x;  // nothing to add yet

  ops_.add_norm(device_, {rows, x, first_of_stream ? nullptr : delta, weights.input_norm, h});
  ops_.attn_in(device_, {rows, &attention, h, buffer(Act::q_latent), buffer(Act::kv_raw),
                         buffer(Act::index_k_raw), buffer(Act::index_weight)});
  ops_.attn_q(device_, {rows, &attention, buffer(Act::q_latent), h, buffer(Act::q), buffer(Act::index_q)});
  ops_.cache_append(device_, {rows, index, &attention, buffer(Act::kv_raw), buffer(Act::index_k_raw)});
  const bool sparse = geometry_.has_indexer();
  if (sparse) {
    ops_.index_select(device_, {rows, index, buffer(Act::index_q), buffer(Act::index_weight),
                                buffer(Act::selected), buffer(Act::n_selected)});
  }
  ops_.attend(device_, {rows, index, &attention, buffer(Act::q), sparse ? buffer(Act::selected) : nullptr,
                        sparse ? buffer(Act::n_selected) : nullptr, buffer(Act::heads)});
  ops_.attn_out(device_, {rows, &attention, buffer(Act::heads), delta});

  ops_.add_norm(device_, {rows, x, delta, weights.post_norm, h});
  if (weights.is_moe) {
    const Buffer expert = buffer(Act::expert), weight = buffer(Act::expert_weight);
    ops_.route(device_, {rows, &weights.moe, h, expert, weight});
    ops_.experts(device_, {rows, &weights.moe, h, expert, weight, delta});
  } else {
    ops_.ffn(device_, {rows, &weights.ffn, h, delta});
  }
}

void Forward::begin(const Batch& batch) {
  stage_ = 0;
  next_row_ = 0;
  ended_ = paused_ = false;
  kind_ = {batch.rows(), static_cast<int32_t>(batch.logit_row.size()), batch.draft, !batch.sample.empty()};
  plan_ = ops_.begin_step(
      device_, {batch.rows(), batch.token.data(), batch.position.data(), batch.sequence.data(),
                batch.page_table.data(), batch.sequences, batch.page_stride,
                batch.draft ? batch.next_token.data() : nullptr, batch.logit_row.data(), kind_.logit_rows,
                kind_.sample ? batch.sample.data() : nullptr, batch.bias.data(),
                static_cast<int32_t>(batch.bias.size()), true});
  batch_ = &batch;
}

void Forward::abandon() {
  if (enqueues() && !ended_) ops_.end_step(device_, false);
  batch_ = nullptr;
}

void Forward::prepare(int32_t page, int32_t max_context, int32_t max_rows, const std::atomic<bool>& stop) {
  constexpr int32_t kPrompt = 4;
  if (!ops_.prepare) return;
  const int32_t rows = std::min({kPrompt, max_context, max_rows});
  Batch batch(rows, 1, kPageTokens);
  const auto add = [&](int32_t first, int32_t end) {
    batch.clear();
    batch.add_sequence({page});
    for (int32_t at = first; at < end; ++at) batch.add_row(0, at, 0, at == end - 1);
    batch.sample.push_back({});
  };
  add(0, rows);
  run_unmeasured(batch, stop);
  for (int32_t i = 0; !stop && ops_.prepare(device_, i, &kind_); ++i) {
    try {
      for (stage_ = 0; stage_ < layer_stages(); ++stage_) {
        if (stage_ == 0 || !kind_.first_layer) advance_stage({0, kind_.rows});
      }
      advance_stage({0, kind_.logit_rows});
    } catch (...) {
      ops_.end_step(device_, false);
      throw;
    }
    ops_.end_step(device_, true);
  }
  const int32_t last = std::min(rows, max_context - 1);
  add(last, last + 1);
  if (!stop) run_unmeasured(batch, stop);
}

void Forward::run_unmeasured(const Batch& batch, const std::atomic<bool>& stop) {
  begin(batch);
  paused_ = true;
  try {
    while (!stop && !advance(Clock::time_point::max(), &stop)) {
    }
  } catch (...) {
    abandon();
    throw;
  }
  if (running()) abandon();
}

bool Forward::advance(Clock::time_point deadline, const std::atomic<bool>* stop) {
  return enqueues() ? advance_enqueued(deadline, stop) : advance_rows(deadline, stop);
}

bool Forward::advance_enqueued(Clock::time_point deadline, const std::atomic<bool>* stop) {
  const auto over = [&] { return Clock::now() >= deadline || (stop && *stop); };
  while (!ended_) {
    if (!plan_.recorded) {
      const bool in_layers = stage_ < layer_stages();
      advance_stage({0, in_layers ? plan_.rows : plan_.logit_rows});
      if (stage_++ < layer_stages()) {
        if (!over()) continue;
        paused_ = true;
        return false;
      }
    }
    ops_.end_step(device_, true);
    ended_ = true;
  }
  // In slices, to look at `stop`.
  constexpr double kSlice = 1e-3;
  for (;;) {
    double took = 0;
    if (ops_.wait(device_, std::min(kSlice, seconds(deadline - Clock::now())), &took)) {
      if (!paused_) layer_cost_.measured(plan_.rows, took / layer_stages());
      batch_ = nullptr;
      return true;
    }
    if (over()) return false;
  }
}

bool Forward::advance_rows(Clock::time_point deadline, const std::atomic<bool>* stop) {
  for (Clock::time_point now = Clock::now();;) {
    const bool in_layers = stage_ < layer_stages();
    const int32_t rows = in_layers ? kind_.rows : kind_.logit_rows;
    RowCost& cost = in_layers ? layer_cost_ : logits_cost_;
    if (next_row_ < rows) {
      const int32_t count = cost.rows_within(seconds(deadline - now), rows - next_row_);
      advance_stage({next_row_, count});
      next_row_ += count;
      const Clock::time_point after = Clock::now();
      cost.measured(count, seconds(after - now));
      now = after;
    }
    if (next_row_ == rows) {
      if (!in_layers) {
        batch_ = nullptr;
        return true;
      }
      next_row_ = 0;
      ++stage_;
    }
    if (now >= deadline || (stop && *stop)) return false;
  }
}

void Forward::advance_stage(RowRange rows) {
  if (stage_ < geometry_.num_layers) {
    if (stage_ == 0) ops_.embed(device_, {rows, weights_.embed, ops_.buffer(device_, Act::x)});
    layer(stage_, weights_.layers[static_cast<size_t>(stage_)], Act::x, rows);
  } else if (stage_ < layer_stages()) {
    draft_input(rows);
    layer(stage_, weights_.mtp.layer, Act::mtp_x, rows);
  } else {
    compute_logits(rows);
  }
}

// The stream enters the MTP layer with the main model's last delta added; mtp_in applies the final norm
// itself.
void Forward::draft_input(RowRange rows) {
  const Buffer x = ops_.buffer(device_, Act::x);
  ops_.add_norm(device_,
                {rows, x, ops_.buffer(device_, Act::delta), weights_.norm, ops_.buffer(device_, Act::h)});
  ops_.mtp_in(device_, {rows, &weights_.mtp, weights_.norm, x, ops_.buffer(device_, Act::mtp_x)});
}

void Forward::compute_logits(RowRange rows) {
  const bool draft = kind_.draft;
  ops_.logits(device_, {rows, ops_.buffer(device_, draft ? Act::mtp_x : Act::x),
                        ops_.buffer(device_, Act::delta), draft ? weights_.mtp.head_norm : weights_.norm,
                        draft ? weights_.mtp.head : weights_.head, ops_.buffer(device_, Act::logits)});
  if (!kind_.sample) return;
  ops_.sample(device_, {rows, ops_.buffer(device_, Act::logits), ops_.buffer(device_, Act::token)});
}

const float* Forward::logits(int32_t i) {
  if (ops_.logits_row) return ops_.logits_row(device_, i);
  ops_.fetch(device_, Act::logits, ops_.buffer(device_, Act::logits), {i, 1}, logits_.data());
  return logits_.data();
}

int32_t Forward::rows_within(Clock::duration budget, int32_t rows) const {
  if (enqueues()) budget = std::max<Clock::duration>(budget, kLeastChunk);
  return layer_cost_.rows_within(seconds(budget) / geometry_.num_layers, rows);
}

int64_t Forward::scratch_bytes(const OpTable& ops, const Geometry& g) {
  return ops.logits_row ? 0 : 4 * g.vocab_size;
}

}  // namespace dsv
