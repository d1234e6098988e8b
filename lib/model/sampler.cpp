#include "model/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dsv {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// SplitMix64 (Steele, Lea, Flood 2014) as a counter-based generator: the draw of a step depends on nothing
// else.
uint64_t mix(uint64_t z) {
  z += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

double log_sum_exp(std::span<const float> logits) {
  float best = kMinusInfinity;
  for (float v : logits)
    if (v > best) best = v;
  if (best == kMinusInfinity) return kMinusInfinity;
  double sum = 0;
  for (float v : logits)
    if (v == v) sum += std::exp(static_cast<double>(v) - best);
  return best + std::log(sum);
}

}  // namespace

SampleRow sample_row(const SamplingOptions& options, uint64_t step) {
  SampleRow row;
  if (options.temperature <= 0) return row;
  // A temperature so low that this is no float leaves the best and its equals all the same.
  row.scale = static_cast<float>(std::min(0x1p25 / std::log(2.0) / static_cast<double>(options.temperature),
                                          static_cast<double>(std::numeric_limits<float>::max())));
  if (options.top_k > 0) row.top_k = options.top_k;
  if (options.top_p < 1) {
    row.top_p = std::max<uint64_t>(1, static_cast<uint64_t>(static_cast<double>(options.top_p) * 0x1p64));
  }
  const double least = std::ceil(static_cast<double>(options.min_p) * static_cast<double>(kBestWeight));
  row.least = std::max<uint64_t>(1, static_cast<uint64_t>(least));
  row.draw = mix(mix(options.seed) ^ step);
  return row;
}

void log_probabilities(std::span<const float> logits, std::span<dsv_token_logprob> top) {
  const double normaliser = log_sum_exp(logits);
  size_t n = 0;  // of `top`, sorted, as logits for now
  for (size_t id = 0; id < logits.size(); ++id) {
    const float logit = logits[id];
    if (std::isnan(logit) || (n == top.size() && (n == 0 || logit <= top[n - 1].logprob))) continue;
    size_t at = n < top.size() ? n++ : n - 1;
    for (; at > 0 && top[at - 1].logprob < logit; --at) top[at] = top[at - 1];
    top[at] = {static_cast<int32_t>(id), logit};
  }
  for (dsv_token_logprob& one : top.first(n)) one.logprob = static_cast<float>(one.logprob - normaliser);
  for (dsv_token_logprob& none : top.subspan(n)) none = {-1, kMinusInfinity};
}

float log_probability(std::span<const float> logits, int32_t token) {
  return static_cast<float>(logits[static_cast<size_t>(token)] - log_sum_exp(logits));
}

}  // namespace dsv
