// A request's sampling options as backends take them (backend/sampling.h), and log probabilities.
#pragma once

#include <dsv/dsv.h>

#include <cstdint>
#include <span>
#include <vector>

#include "backend/sampling.h"

namespace dsv {

struct SamplingOptions {
  float temperature = 1, top_p = 1, min_p = 0;
  int32_t top_k = 0;  // 0: all
  uint64_t seed = 0;
  std::vector<TokenBias> bias;  // each token once
};

// How the token is drawn that comes after `step` others of the request: a function of these two only. Without
// its biases.
SampleRow sample_row(const SamplingOptions& options, uint64_t step);

// Natural-log probabilities of the logits: of the `top` best ids, best first (ties: lowest id), and of
// `token`. NaN counts as -infinity.
void log_probabilities(std::span<const float> logits, std::span<dsv_token_logprob> top);
float log_probability(std::span<const float> logits, int32_t token);

}  // namespace dsv
