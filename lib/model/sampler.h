// From logits to a token. Deterministic: a function of logits, options, seed and step only.
#pragma once

#include <dsv/dsv.h>

#include <cstdint>
#include <span>
#include <vector>

namespace dsv {

struct SamplingOptions {
  float temperature = 1, top_p = 1, min_p = 0;
  int32_t top_k = 0;
  uint64_t seed = 0;
  std::vector<dsv_logit_bias> bias;
};

// Scratch for one vocabulary; no allocation after construction. Not thread-safe.
class Sampler {
 public:
  // allowed[id] is false for ids without a token: those are never sampled.
  Sampler(int32_t vocab_size, std::vector<bool> allowed);

  // `step`: how many tokens the request has sampled before. `logits` [vocab_size] is overwritten by biased
  // logits. Order of filters: bias, temperature, top_k, top_p, min_p. NaN logits count as -inf; with nothing
  // left the result is the lowest allowed id.
  int32_t sample(std::span<float> logits, const SamplingOptions& options, uint64_t step);

  // Natural-log probabilities of the raw logits: of `token`, and the `top` best ids, best first (ties: lowest
  // id). Call before sample(), which overwrites the logits.
  void log_probabilities(std::span<const float> logits, std::span<dsv_token_logprob> top);
  float log_probability(std::span<const float> logits, int32_t token) const;

 private:
  std::vector<bool> allowed_;
  std::vector<int32_t> order_;
  std::vector<float> probability_;
};

}  // namespace dsv
