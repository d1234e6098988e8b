// The choice of a token (lib/backend/sampling.h). Rows follow each other: there are few, and a model's layers
// take a hundred times longer.
#include <algorithm>
#include <limits>

#include "kernels/cpu/ops.h"

namespace dsv::cpu {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

struct Row {
  const float* logits;
  const unsigned char* allowed;
  int32_t vocab;
  float best;
  float scale;
  uint64_t least;

  uint64_t weight(int32_t id) const {
    const float logit = logits[id];
    if (!allowed[id] || logit != logit) return 0;
    const uint32_t distance = sample_distance(logit, best, scale);
    return distance == kWeighsNothing ? 0 : sample_weight(distance);
  }
  uint64_t kept_weight(int32_t id) const {
    const uint64_t w = weight(id);
    return w < least ? 0 : w;
  }
};

// Where the sum over the ids that `id_of` counts up exceeds the drawn part of it.
template <class F>
int32_t draw(const Row& row, uint64_t part, int32_t count, F&& id_of) {
  uint64_t sum = 0;
  for (int32_t i = 0; i < count; ++i) sum += row.kept_weight(id_of(i));
  uint64_t left = sample_part(sum, part);
  for (int32_t i = 0;; ++i) {  // ends: what is drawn is less than the sum
    const uint64_t weight = row.kept_weight(id_of(i));
    if (left < weight) return id_of(i);
    left -= weight;
  }
}

// Ids that top_k and top_p keep, ascending; returns how many. `order` [V]
int32_t keep_first(const Row& row, const SampleRow& how, int32_t* order) {
  int32_t all = 0;
  for (int32_t id = 0; id < row.vocab; ++id) {
    if (row.weight(id) > 0) order[all++] = id;
  }
  const auto better = [&](int32_t a, int32_t b) {
    return row.logits[a] != row.logits[b] ? row.logits[a] > row.logits[b] : a < b;
  };
  int32_t keep = std::min(all, how.top_k);
  if (keep < all) std::nth_element(order, order + keep - 1, order + all, better);
  if (how.top_p != 0) {
    uint64_t sum = 0, reached = 0;
    for (int32_t i = 0; i < keep; ++i) sum += row.weight(order[i]);
    const uint64_t target = sample_target(sum, how.top_p);
    int32_t n = 0;
    for (int32_t sorted = 0; reached < target; ++n) {
      if (n == sorted) {  // they are few usually: sort a little, then four times as much
        sorted = std::min(keep, std::max(64, 4 * sorted));
        std::partial_sort(order + n, order + sorted, order + keep, better);
      }
      reached += row.weight(order[n]);
    }
    keep = n;
  }
  std::sort(order, order + keep);
  return keep;
}

int32_t choose(const CpuDevice& d, const float* logits, const SampleRow& how, int32_t* order) {
  const auto vocab = static_cast<int32_t>(d.geometry.vocab_size);
  const unsigned char* const allowed = d.allowed;
  float best = kMinusInfinity;
  int32_t best_id = -1;
  bool number = false;
  for (int32_t id = 0; id < vocab; ++id) {
    const float logit = logits[id];
    number |= logit == logit;
    if (logit > best && allowed[id]) best = logit, best_id = id;
  }
  if (!number) return -1;
  if (best_id < 0) {
    const unsigned char* const first =
        std::find_if(allowed, allowed + vocab, [](unsigned char a) { return a != 0; });
    return first == allowed + vocab ? -1 : static_cast<int32_t>(first - allowed);
  }
  if (how.scale == 0 || best == -kMinusInfinity) return best_id;
  const Row row{logits, allowed, vocab, best, how.scale, how.least};
  if (how.top_k >= vocab && how.top_p == 0) return draw(row, how.draw, vocab, [](int32_t i) { return i; });
  const int32_t keep = keep_first(row, how, order);
  return draw(row, how.draw, keep, [&](int32_t i) { return order[i]; });
}

}  // namespace

void sample(Device* device, const SampleArgs& args) {
  const CpuDevice& d = cpu_device(device);
  auto* const order = reinterpret_cast<int32_t*>(d.shared_scratch);
  float* const unbiased = reinterpret_cast<float*>(order + d.geometry.vocab_size);
  for (int32_t i = args.rows.first; i < args.rows.first + args.rows.count; ++i) {
    const SampleRow& how = d.step.sample[i];
    float* const logits = d.row(Act::logits, args.logits, i);
    const TokenBias* const bias = d.step.bias + how.bias_first;
    for (int32_t b = 0; b < how.bias_count; ++b) {
      unbiased[b] = logits[bias[b].token];
      logits[bias[b].token] += bias[b].bias;
    }
    *d.integers(args.token, Act::token, i) = choose(d, logits, how, order);
    for (int32_t b = 0; b < how.bias_count; ++b) logits[bias[b].token] = unbiased[b];
  }
}

ScratchSize sample_scratch(const DeviceOptions& options) { return {0, 8 * options.geometry->vocab_size}; }

}  // namespace dsv::cpu
