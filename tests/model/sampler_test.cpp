// Options as backends take them, and log probabilities. tests/kernels/sample_test.cpp has the choice.
#include "model/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

namespace dsv {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(Sampler, SameSeedSameDraws) {
  SamplingOptions options;
  options.seed = 42;
  std::set<uint64_t> draws;
  for (uint64_t step = 0; step < 100; ++step) {
    EXPECT_EQ(sample_row(options, step).draw, sample_row(options, step).draw);
    draws.insert(sample_row(options, step).draw);
  }
  options.seed = 43;
  draws.insert(sample_row(options, 0).draw);
  EXPECT_EQ(draws.size(), 101u);
}

TEST(Sampler, OptionsAreWithinTheirFormats) {
  SamplingOptions options;
  SampleRow row = sample_row(options, 0);
  EXPECT_EQ(row.top_p, 0u);
  EXPECT_EQ(row.least, 1u);
  EXPECT_EQ(row.top_k, INT32_MAX);
  EXPECT_FLOAT_EQ(row.scale, 0x1p25f * 1.44269504f);
  options = {1e-45f, 1e-45f, std::nextafter(1.0f, 0.0f), 3, 0, {}};
  row = sample_row(options, 0);
  EXPECT_TRUE(std::isfinite(row.scale));
  EXPECT_EQ(row.top_p, 1u);
  EXPECT_LT(row.least, kBestWeight);
  EXPECT_EQ(row.top_k, 3);
  options.temperature = std::numeric_limits<float>::max();
  EXPECT_GT(sample_row(options, 0).scale, 0);
  options.temperature = 0;
  EXPECT_EQ(sample_row(options, 0).scale, 0);
}

TEST(Sampler, LogProbabilities) {
  const std::vector<float> logits{0, std::log(2.f), std::log(5.f), std::log(2.f)};
  std::vector<dsv_token_logprob> top(3);
  log_probabilities(logits, top);
  EXPECT_EQ(top[0].token, 2);
  EXPECT_EQ(top[1].token, 1);
  EXPECT_EQ(top[2].token, 3);
  EXPECT_NEAR(top[0].logprob, std::log(0.5), 1e-6);
  EXPECT_NEAR(log_probability(logits, 0), std::log(0.1), 1e-6);
}

TEST(Sampler, LogProbabilitiesOfFewNumbers) {
  const std::vector<float> logits{kNan, 1, kNan, 3, 2};
  std::vector<dsv_token_logprob> top(5);
  log_probabilities(logits, top);
  EXPECT_EQ(top[0].token, 3);
  EXPECT_EQ(top[1].token, 4);
  EXPECT_EQ(top[2].token, 1);
  EXPECT_EQ(top[3].token, -1);
  EXPECT_EQ(top[4].token, -1);
  EXPECT_NEAR(std::exp(top[0].logprob) + std::exp(top[1].logprob) + std::exp(top[2].logprob), 1, 1e-6);
  log_probabilities(logits, {});
}

}  // namespace
}  // namespace dsv
