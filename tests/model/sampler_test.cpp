#include "model/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

namespace dsv {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

Sampler all_allowed(int32_t vocab) { return Sampler(vocab, std::vector<bool>(static_cast<size_t>(vocab), true)); }

TEST(Sampler, GreedyTakesTheBestAndTiesGoToTheLowestId) {
  Sampler sampler = all_allowed(5);
  std::vector<float> logits{1, 3, 3, 2, -1};
  SamplingOptions greedy;
  greedy.temperature = 0;
  EXPECT_EQ(sampler.sample(logits, greedy, 0), 1);
}

TEST(Sampler, NeverReturnsIdsWithoutAToken) {
  Sampler sampler(4, {false, true, false, true});
  for (float temperature : {0.f, 1.f}) {
    SamplingOptions options;
    options.temperature = temperature;
    for (uint64_t step = 0; step < 200; ++step) {
      std::vector<float> logits{100, 1, 100, 1};
      const int32_t id = sampler.sample(logits, options, step);
      EXPECT_TRUE(id == 1 || id == 3);
    }
    std::vector<float> hopeless(4, -kInf);
    EXPECT_EQ(sampler.sample(hopeless, options, 0), 1);
    std::vector<float> nan(4, std::numeric_limits<float>::quiet_NaN());
    EXPECT_EQ(sampler.sample(nan, options, 0), 1);
  }
}

TEST(Sampler, BiasForbidsAndForces) {
  Sampler sampler = all_allowed(3);
  SamplingOptions options;
  options.bias = {{0, -kInf}};
  for (uint64_t step = 0; step < 50; ++step) {
    std::vector<float> logits{50, 1, 1};
    EXPECT_NE(sampler.sample(logits, options, step), 0);
  }
  options.bias = {{2, 1000}};
  std::vector<float> logits{50, 1, 1};
  EXPECT_EQ(sampler.sample(logits, options, 0), 2);
}

// 20000 draws: a frequency's standard error is at most 0.5 / sqrt(20000) = 0.0035; 5 of them never fail by chance. The
// draws are a fixed function of the seeds, so the test is repeatable.
std::map<int32_t, double> frequencies(const std::vector<float>& logits, const SamplingOptions& options) {
  Sampler sampler = all_allowed(static_cast<int32_t>(logits.size()));
  std::map<int32_t, double> seen;
  for (uint64_t step = 0; step < 20000; ++step) {
    std::vector<float> copy = logits;
    seen[sampler.sample(copy, options, step)] += 1.0 / 20000;
  }
  return seen;
}

TEST(Sampler, DrawsFollowTheSoftmax) {
  const std::vector<float> logits{0, 1, 2, -kInf, 0.5f};
  SamplingOptions options;
  options.seed = 7;
  options.temperature = 0.7f;
  double sum = 0;
  for (float v : logits) sum += std::exp(v / 0.7);
  auto seen = frequencies(logits, options);
  EXPECT_EQ(seen.count(3), 0u);
  for (size_t i = 0; i < logits.size(); ++i) {
    EXPECT_NEAR(seen[static_cast<int32_t>(i)], std::exp(logits[i] / 0.7) / sum, 0.0175) << i;
  }
}

TEST(Sampler, FiltersKeepWhatTheyPromise) {
  std::vector<float> logits;
  for (float p : {0.4f, 0.3f, 0.2f, 0.06f, 0.04f}) logits.push_back(std::log(p));
  const auto kept = [&](float top_p, float min_p, int32_t top_k) {
    SamplingOptions options;
    options.top_p = top_p;
    options.min_p = min_p;
    options.top_k = top_k;
    return frequencies(logits, options).size();
  };
  EXPECT_EQ(kept(1, 0, 0), 5u);
  EXPECT_EQ(kept(0.69f, 0, 0), 2u);
  EXPECT_EQ(kept(0.71f, 0, 0), 3u);
  EXPECT_EQ(kept(1e-6f, 0, 0), 1u);
  EXPECT_EQ(kept(1, 0.4f, 0), 3u);
  EXPECT_EQ(kept(1, 0, 2), 2u);
  EXPECT_EQ(kept(0.5f, 0, 2), 1u);  // top_p is of what top_k left: 0.4 / 0.7 > 0.5
}

TEST(Sampler, NucleusLargerThanTheFirstSort) {
  std::vector<float> logits(1000, 0.f);
  SamplingOptions options;
  options.top_p = 0.5f;
  const auto seen = frequencies(logits, options);
  EXPECT_EQ(seen.size(), 500u);
  EXPECT_EQ(seen.rbegin()->first, 499);  // equal logits: lowest ids first
}

TEST(Sampler, SameSeedSameDraws) {
  Sampler a = all_allowed(100), b = all_allowed(100);
  SamplingOptions options;
  options.seed = 42;
  for (uint64_t step = 0; step < 100; ++step) {
    std::vector<float> x(100, 0.f), y(100, 0.f);
    EXPECT_EQ(a.sample(x, options, step), b.sample(y, options, step));
  }
}

TEST(Sampler, LogProbabilities) {
  Sampler sampler = all_allowed(4);
  const std::vector<float> logits{0, std::log(2.f), std::log(5.f), std::log(2.f)};
  std::vector<dsv_token_logprob> top(3);
  sampler.log_probabilities(logits, top);
  EXPECT_EQ(top[0].token, 2);
  EXPECT_EQ(top[1].token, 1);
  EXPECT_EQ(top[2].token, 3);
  EXPECT_NEAR(top[0].logprob, std::log(0.5), 1e-6);
  EXPECT_NEAR(sampler.log_probability(logits, 0), std::log(0.1), 1e-6);
}

}  // namespace
}  // namespace dsv
