// The choice of a token (lib/backend/sampling.h), by sorting.
#include "kernels/reference/sample.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dsv::reference {

int32_t sample_row(std::vector<float> logits, const bool* allowed, const SampleRow& how,
                   const TokenBias* bias) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (int32_t i = 0; i < how.bias_count; ++i) {
    const TokenBias& b = bias[how.bias_first + i];
    logits[static_cast<size_t>(b.token)] += b.bias;
  }
  if (std::all_of(logits.begin(), logits.end(), [](float logit) { return std::isnan(logit); })) return -1;

  struct Candidate {
    int32_t id;
    float logit;
    uint64_t weight;
  };
  std::vector<Candidate> left;
  int32_t first_allowed = -1;
  for (size_t i = 0; i < logits.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    if (allowed && !allowed[i]) continue;
    if (first_allowed < 0) first_allowed = id;
    if (logits[i] > -kInfinity) left.push_back({id, logits[i], 0});  // no NaN
  }
  if (left.empty()) return first_allowed;
  std::stable_sort(left.begin(), left.end(),
                   [](const Candidate& a, const Candidate& b) { return a.logit > b.logit; });
  const float best = left[0].logit;
  if (how.scale == 0 || best == kInfinity) return left[0].id;

  for (Candidate& c : left) {
    const uint32_t distance = sample_distance(c.logit, best, how.scale);
    c.weight = distance == kWeighsNothing ? 0 : sample_weight(distance);
  }
  const auto sum = [](const std::vector<Candidate>& of) {
    uint64_t weight = 0;
    for (const Candidate& c : of) weight += c.weight;
    return weight;
  };
  std::erase_if(left, [](const Candidate& c) { return c.weight == 0; });
  if (static_cast<size_t>(how.top_k) < left.size()) left.resize(static_cast<size_t>(how.top_k));
  if (how.top_p != 0) {
    const uint64_t target = sample_target(sum(left), how.top_p);
    size_t n = 0;
    for (uint64_t reached = 0; reached < target; ++n) reached += left[n].weight;
    left.resize(n);
  }
  std::erase_if(left, [&](const Candidate& c) { return c.weight < how.least; });
  std::sort(left.begin(), left.end(), [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  uint64_t drawn = sample_part(sum(left), how.draw);
  for (const Candidate& c : left) {
    if (drawn < c.weight) return c.id;
    drawn -= c.weight;
  }
  return -1;  // never: what is drawn is less than the sum
}

}  // namespace dsv::reference
