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
double uniform(uint64_t seed, uint64_t step) {  // [0, 1)
  return static_cast<double>(mix(mix(seed) ^ step) >> 11) * 0x1p-53;
}

struct Better {  // descending logit, ties to the lowest id
  const float* logits;
  bool operator()(int32_t a, int32_t b) const {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  }
};

std::vector<int32_t>::iterator at(std::vector<int32_t>& v, size_t i) {
  return v.begin() + static_cast<std::ptrdiff_t>(i);
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

Sampler::Sampler(int32_t vocab_size, std::vector<bool> allowed) : allowed_(std::move(allowed)) {
  const auto size = static_cast<size_t>(vocab_size);
  allowed_.resize(size, false);
  order_.reserve(size);
  probability_.reserve(size);
}

int32_t Sampler::sample(std::span<float> logits, const SamplingOptions& options, uint64_t step) {
  for (const dsv_logit_bias& b : options.bias) logits[static_cast<size_t>(b.token)] += b.bias;
  const auto size = static_cast<int32_t>(logits.size());
  int32_t best = -1, first_allowed = -1;
  for (int32_t id = 0; id < size; ++id) {
    float& logit = logits[static_cast<size_t>(id)];
    if (!allowed_[static_cast<size_t>(id)] || logit != logit) {
      logit = kMinusInfinity;
    } else if (best < 0 || logit > logits[static_cast<size_t>(best)]) {
      best = id;
    }
    if (first_allowed < 0 && allowed_[static_cast<size_t>(id)]) first_allowed = id;
  }
  if (best < 0 || logits[static_cast<size_t>(best)] == kMinusInfinity) return first_allowed;
  const float top_logit = logits[static_cast<size_t>(best)];
  if (options.temperature <= 0 || top_logit == std::numeric_limits<float>::infinity()) return best;

  // Candidates: everything that could survive. A token e^-104 below the best has a probability of zero in
  // fp32.
  const double inverse = 1.0 / options.temperature;
  order_.clear();
  for (int32_t id = 0; id < size; ++id) {
    if ((logits[static_cast<size_t>(id)] - static_cast<double>(top_logit)) * inverse > -104)
      order_.push_back(id);
  }
  const Better better{logits.data()};
  const auto relative = [&](int32_t id) {
    return static_cast<float>(
        std::exp((logits[static_cast<size_t>(id)] - static_cast<double>(top_logit)) * inverse));
  };
  size_t keep = order_.size();
  if (options.top_k > 0 && static_cast<size_t>(options.top_k) < keep) {
    keep = static_cast<size_t>(options.top_k);
    std::nth_element(order_.begin(), at(order_, keep - 1), order_.end(), better);
  }
  probability_.clear();
  if (options.top_p < 1) {  // the shortest prefix, best first, that reaches top_p of the mass
    double sum = 0, mass = 0;
    for (size_t i = 0; i < keep; ++i) sum += relative(order_[i]);
    size_t sorted = 0, n = 0;
    while (n < keep && (n == 0 || mass < options.top_p * sum)) {
      if (n == sorted) {  // a nucleus is usually small: sort a little, then four times as much
        sorted = std::min(keep, std::max<size_t>(64, 4 * sorted));
        std::partial_sort(at(order_, n), at(order_, sorted), at(order_, keep), better);
      }
      probability_.push_back(relative(order_[n]));
      mass += probability_[n++];
    }
    keep = n;
  } else {
    for (size_t i = 0; i < keep; ++i) probability_.push_back(relative(order_[i]));
  }
  // The best token has probability 1 here (before normalisation), so min_p compares directly.
  double sum = 0;
  for (size_t i = 0; i < keep; ++i) {
    if (probability_[i] < options.min_p) probability_[i] = 0;
    sum += probability_[i];
  }
  double draw = uniform(options.seed, step) * sum;
  for (size_t i = 0; i < keep; ++i) {
    draw -= probability_[i];
    if (draw < 0) return order_[i];
  }
  return best;  // rounding used up the mass
}

void Sampler::log_probabilities(std::span<const float> logits, std::span<dsv_token_logprob> top) {
  const double normaliser = log_sum_exp(logits);
  order_.clear();
  for (int32_t id = 0; id < static_cast<int32_t>(logits.size()); ++id) {
    if (logits[static_cast<size_t>(id)] == logits[static_cast<size_t>(id)]) order_.push_back(id);
  }
  const size_t n = std::min(top.size(), order_.size());
  std::partial_sort(order_.begin(), at(order_, n), order_.end(), Better{logits.data()});
  for (size_t i = 0; i < n; ++i) {
    top[i] = {order_[i], static_cast<float>(logits[static_cast<size_t>(order_[i])] - normaliser)};
  }
  for (size_t i = n; i < top.size(); ++i) top[i] = {-1, kMinusInfinity};
}

float Sampler::log_probability(std::span<const float> logits, int32_t token) const {
  return static_cast<float>(logits[static_cast<size_t>(token)] - log_sum_exp(logits));
}

}  // namespace dsv
