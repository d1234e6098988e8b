// The choice of a token, on every target: the reference's to the last, in pieces and in any company; and what
// the reference promises: who is kept, and how often.
#include "kernels/reference/sample.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <random>

#include "backend/ops.h"
#include "model/sampler.h"
#include "tests/kernels/targets.h"

namespace dsv::test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

using Logits = std::vector<float>;

struct Rows {
  int32_t vocab = 1;
  std::vector<Logits> logits;
  std::vector<SampleRow> how;
  std::vector<TokenBias> bias;
  std::unique_ptr<bool[]> allowed;  // or null

  void add(Logits row, const SampleRow& sample, const std::vector<TokenBias>& biases = {}) {
    SampleRow with = sample;
    with.bias_first = static_cast<int32_t>(bias.size());
    with.bias_count = static_cast<int32_t>(biases.size());
    vocab = static_cast<int32_t>(row.size());
    logits.push_back(std::move(row));
    how.push_back(with);
    bias.insert(bias.end(), biases.begin(), biases.end());
  }
  int32_t count() const { return static_cast<int32_t>(logits.size()); }
};

Geometry geometry(int32_t vocab) {
  Geometry g;
  g.vocab_size = vocab;
  g.hidden_size = 16;
  g.num_layers = 1;
  g.num_heads = 1;
  g.kv_lora_rank = 16;
  g.qk_nope_head_dim = 8;
  g.qk_rope_head_dim = 8;
  g.v_head_dim = 8;
  g.intermediate_size = 16;
  g.inv_freq.assign(4, 1.0);
  return g;
}

// Tokens of the rows, the op called on `pieces` rows at a time (0: on all).
std::vector<int32_t> choose(const OpTable& ops, const char* target, const Rows& rows, int32_t pieces = 0) {
  const Geometry g = geometry(rows.vocab);
  DeviceOptions options;
  options.geometry = &g;
  options.batch_rows = rows.count();
  options.max_context = kPageTokens;
  options.kv_pages = 1;
  options.target = target;
  options.allowed = rows.allowed.get();
  const std::unique_ptr<Device, void (*)(Device*)> owner(ops.open(options), ops.close);
  Device* const device = owner.get();
  const std::vector<int32_t> zeros(rows.logits.size(), 0);
  std::vector<int32_t> wanted;
  for (int32_t r = 0; r < rows.count(); ++r) wanted.push_back(r);
  const Buffer logits = ops.buffer(device, Act::logits), token = ops.buffer(device, Act::token);
  StepArgs step{rows.count(),
                zeros.data(),
                zeros.data(),
                zeros.data(),
                zeros.data(),
                1,
                1,
                nullptr,
                wanted.data(),
                rows.count(),
                rows.how.data(),
                rows.bias.data(),
                static_cast<int32_t>(rows.bias.size())};
  ops.begin_step(device, step);
  for (int32_t r = 0; r < rows.count(); ++r) {
    ops.store(device, Act::logits, logits, {r, 1}, rows.logits[static_cast<size_t>(r)].data());
  }
  const int32_t most = pieces > 0 ? pieces : rows.count();
  for (int32_t r = 0; r < rows.count(); r += most) {
    ops.sample(device, {{r, std::min(most, rows.count() - r)}, logits, token});
  }
  std::vector<float> tokens(rows.logits.size());
  ops.fetch(device, Act::token, token, {0, rows.count()}, tokens.data());
  for (int32_t r = 0; r < rows.count(); ++r) {
    Logits now(static_cast<size_t>(rows.vocab));
    ops.fetch(device, Act::logits, logits, {r, 1}, now.data());
    for (size_t id = 0; id < now.size(); ++id) {
      const float before = rows.logits[static_cast<size_t>(r)][id];
      EXPECT_TRUE(now[id] == before || (std::isnan(now[id]) && std::isnan(before)))
          << "row " << r << " id " << id << ": " << now[id] << " is left of " << before;
    }
  }
  return {tokens.begin(), tokens.end()};
}

// How rows are drawn: 0 what a model gives (most far below a few), 1 normal, 2 many ties, 3 all equal,
// 4 far apart.
Logits draw_row(int32_t vocab, int kind, std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  Logits row(static_cast<size_t>(vocab));
  for (float& logit : row) {
    const float z = normal(random);
    logit = kind == 0 ? 3 * z : kind == 1 ? z : kind == 2 ? std::round(2 * z) : kind == 3 ? 1.5f : 1e4f * z;
  }
  for (int i = 0; kind == 0 && i < 20; ++i) row[random() % row.size()] = 12.0f + 3 * normal(random);
  return row;
}

SamplingOptions draw_options(std::mt19937_64& random) {
  const float temperatures[] = {0, 1, 0.7f, 1e-30f, 5, 1e30f}, top_ps[] = {1, 0.95f, 0.5f, 1e-9f, 0.999999f},
              min_ps[] = {0, 0.05f, 0.9f};
  const int32_t top_ks[] = {0, 1, 7, 50, 5000};
  SamplingOptions options;
  options.temperature = temperatures[random() % 6];
  options.top_p = top_ps[random() % 5];
  options.min_p = min_ps[random() % 3];
  options.top_k = top_ks[random() % 5];
  options.seed = random();
  return options;
}

// A few rows of each kind, some of them biased or damaged.
Rows draw_rows(int32_t vocab, int32_t count) {
  Rows rows;
  std::mt19937_64 random(static_cast<uint64_t>(vocab));
  rows.allowed.reset(new bool[static_cast<size_t>(vocab)]);
  for (int32_t id = 0; id < vocab; ++id) rows.allowed[static_cast<size_t>(id)] = vocab == 1 || id % 9 != 4;
  size_t room = static_cast<size_t>(vocab);  // for biases
  for (int32_t r = 0; r < count; ++r) {
    Logits row = draw_row(vocab, r % 5, random);
    if (r % 13 == 5) row[random() % row.size()] = kNan;
    if (r % 13 == 6) row[random() % row.size()] = kInf;
    if (r % 13 == 7) row.assign(row.size(), kNan);
    if (r % 13 == 8) row.assign(row.size(), -kInf);
    std::vector<TokenBias> bias;
    for (int32_t id = static_cast<int32_t>(random() % 3);
         r % 3 == 1 && id < vocab && bias.size() < room / 4 + 1;
         id += 1 + static_cast<int32_t>(random() % 5)) {
      bias.push_back({id, id % 11 == 0 ? -kInf : static_cast<float>(random() % 100) / 25 - 2});
    }
    if (bias.size() > room) bias.clear();
    room -= bias.size();
    rows.add(std::move(row), sample_row(draw_options(random), static_cast<uint64_t>(r)), bias);
  }
  return rows;
}

std::vector<int32_t> expected(const Rows& rows) {
  std::vector<int32_t> tokens;
  for (size_t r = 0; r < rows.logits.size(); ++r) {
    tokens.push_back(
        reference::sample_row(rows.logits[r], rows.allowed.get(), rows.how[r], rows.bias.data()));
  }
  return tokens;
}

class Sampling : public testing::TestWithParam<int32_t> {
 protected:
  void SetUp() override {
    if (const std::string why = why_no_cuda(); !why.empty()) GTEST_SKIP() << why;
  }
};

TEST_P(Sampling, TheReferencesTokens) {
  const int32_t vocab = GetParam();
  for (const Target& target : targets()) {
    SCOPED_TRACE(std::string(target.ops->name) + " " + target.name);
    const int32_t count = target.emulated && !emulate_all() ? (vocab > 5000 ? 5 : 40)
                          : vocab > 5000                    ? 40
                                                            : 300;
    const Rows rows = draw_rows(vocab, count);
    const std::vector<int32_t> tokens = expected(rows);
    EXPECT_EQ(choose(*target.ops, target.name.c_str(), rows), tokens);
    EXPECT_EQ(choose(*target.ops, target.name.c_str(), rows, 3), tokens) << "in pieces";
    if (!target.other.empty()) {
      EXPECT_EQ(choose(*target.ops, target.other.c_str(), rows), tokens) << target.other;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, Sampling, testing::Values(1, 2, 31, 33, 90, 1000, 4097, 129280));

// All but one are masked, by what is allowed or by bias; nothing is left; nothing is a number.
TEST(CudaSampling, WhatCannotBeChosen) {
  if (const std::string why = why_no_cuda(); !why.empty()) GTEST_SKIP() << why;
  Rows rows;
  constexpr size_t kVocab = 16;  // all but five of them are never allowed, and room for biases
  const auto add = [&](Logits logits, const std::vector<TokenBias>& bias) {
    logits.resize(kVocab, kNan);
    for (const float temperature : {0.0f, 1.0f}) {
      SamplingOptions options;
      options.temperature = temperature;
      rows.add(logits, sample_row(options, 3), bias);
    }
  };
  rows.allowed.reset(new bool[kVocab]{false, true, false, true, true});
  add({9, 1, 9, 1, 1}, {{1, -kInf}, {4, -kInf}});              // 3 is left
  add({9, 1, 9, 2, 1}, {{1, -kInf}, {3, -kInf}, {4, -kInf}});  // nothing: the lowest allowed
  add({9, -kInf, 9, -kInf, kNan}, {});                         // the same
  add({kNan, kNan, 0, kNan, kNan}, {});                        // the same: a number is there
  add({kNan, kNan, kNan, kNan, kNan}, {});                     // nothing is a number
  add({kInf, 1, kInf, 1, kInf}, {});                           // 4
  add({0, 1, 0, 1, 1}, {{3, 1000}});                           // 3
  const std::vector<int32_t> tokens = {3, 3, 1, 1, 1, 1, 1, 1, -1, -1, 4, 4, 3, 3};
  EXPECT_EQ(choose(reference_ops(), nullptr, rows), tokens);
  for (const Target& target : targets()) {
    EXPECT_EQ(choose(*target.ops, target.name.c_str(), rows), tokens)
        << target.ops->name << " " << target.name;
  }
}

// ------------------------------------------------------------------------------------------ what is promised

// The CPU's best target and the reference.
std::vector<const OpTable*> tables() { return {&reference_ops(), &cpu_ops()}; }

// 20000 draws: a frequency's standard error is at most 0.5 / sqrt(20000) = 0.0035; 5 of them never fail by
// chance. The draws are a fixed function of the seeds, so the test is repeatable.
std::map<int32_t, double> frequencies(const OpTable& ops, const Logits& logits,
                                      const SamplingOptions& options) {
  constexpr uint64_t kDraws = 20000, kAtOnce = 1000;
  std::map<int32_t, double> seen;
  for (uint64_t step = 0; step < kDraws;) {
    Rows rows;
    for (uint64_t i = 0; i < kAtOnce; ++i) rows.add(logits, sample_row(options, step++));
    for (const int32_t token : choose(ops, nullptr, rows)) seen[token] += 1.0 / kDraws;
  }
  return seen;
}

TEST(SamplingPromises, GreedyTakesTheBestAndTiesGoToTheLowestId) {
  SamplingOptions greedy;
  greedy.temperature = 0;
  for (const OpTable* ops : tables()) {
    Rows rows;
    rows.add({1, 3, 3, 2, -1}, sample_row(greedy, 0));
    rows.add({-0.0f, 0.0f, -1, -2, -3}, sample_row(greedy, 0));
    EXPECT_EQ(choose(*ops, nullptr, rows), (std::vector<int32_t>{1, 0}));
  }
}

TEST(SamplingPromises, NeverReturnsIdsWithoutAToken) {
  for (const OpTable* ops : tables()) {
    for (float temperature : {0.f, 1.f}) {
      SamplingOptions options;
      options.temperature = temperature;
      Rows rows;
      rows.allowed.reset(new bool[4]{false, true, false, true});
      for (uint64_t step = 0; step < 200; ++step) rows.add({100, 1, 100, 1}, sample_row(options, step));
      for (const int32_t id : choose(*ops, nullptr, rows)) EXPECT_TRUE(id == 1 || id == 3);
    }
  }
}

TEST(SamplingPromises, BiasForbidsAndForces) {
  for (const OpTable* ops : tables()) {
    Rows rows;
    for (uint64_t step = 0; step < 3; ++step) rows.add({50, 1, 1}, sample_row({}, step), {{0, -kInf}});
    for (const int32_t id : choose(*ops, nullptr, rows)) EXPECT_NE(id, 0);
    rows = {};
    rows.add({50, 1, 1}, sample_row({}, 0), {{2, 1000}});
    EXPECT_EQ(choose(*ops, nullptr, rows)[0], 2);
  }
}

TEST(SamplingPromises, DrawsFollowTheSoftmax) {
  const Logits logits{0, 1, 2, -kInf, 0.5f};
  SamplingOptions options;
  options.seed = 7;
  options.temperature = 0.7f;
  double sum = 0;
  for (float v : logits) sum += std::exp(v / 0.7);
  for (const OpTable* ops : tables()) {
    auto seen = frequencies(*ops, logits, options);
    EXPECT_EQ(seen.count(3), 0u);
    for (size_t i = 0; i < logits.size(); ++i) {
      EXPECT_NEAR(seen[static_cast<int32_t>(i)], std::exp(logits[i] / 0.7) / sum, 0.0175) << i;
    }
  }
}

// Of weights in integers: as near the softmax as fp32.
TEST(SamplingPromises, WeightsAreTheSoftmax) {
  for (const float temperature : {0.1f, 0.7f, 1.0f, 3.0f}) {
    SamplingOptions options;
    options.temperature = temperature;
    const float scale = sample_row(options, 0).scale;
    uint32_t last = 0;
    for (float logit = 20; logit > -40; logit -= 0.0137f) {
      const uint32_t distance = sample_distance(logit, 20, scale);
      ASSERT_GE(distance, last);
      last = distance;
      const double weight = distance == kWeighsNothing ? 0 : static_cast<double>(sample_weight(distance));
      const double exact =
          std::exp((double{logit} - 20) / double{temperature}) * static_cast<double>(kBestWeight);
      ASSERT_NEAR(weight, exact, exact * 0x1p-17 + 1) << logit << " at " << temperature;
    }
  }
  EXPECT_EQ(sample_weight(0), kBestWeight);
  for (uint32_t octave = 1; octave < 40; ++octave) {
    EXPECT_GE(sample_weight((octave << 25) - 1), sample_weight(octave << 25));
    EXPECT_EQ(sample_weight(octave << 25), kBestWeight >> octave);
  }
}

TEST(SamplingPromises, FiltersKeepWhatTheyPromise) {
  Logits logits;
  for (float p : {0.4f, 0.3f, 0.2f, 0.06f, 0.04f}) logits.push_back(std::log(p));
  for (const OpTable* ops : tables()) {
    const auto kept = [&](float top_p, float min_p, int32_t top_k) {
      SamplingOptions options;
      options.top_p = top_p;
      options.min_p = min_p;
      options.top_k = top_k;
      return frequencies(*ops, logits, options).size();
    };
    EXPECT_EQ(kept(1, 0, 0), 5u);
    EXPECT_EQ(kept(0.69f, 0, 0), 2u);
    EXPECT_EQ(kept(0.71f, 0, 0), 3u);
    EXPECT_EQ(kept(1e-6f, 0, 0), 1u);
    EXPECT_EQ(kept(1, 0.4f, 0), 3u);
    EXPECT_EQ(kept(1, 0, 2), 2u);
    EXPECT_EQ(kept(0.5f, 0, 2), 1u);  // top_p is of what top_k left: 0.4 / 0.7 > 0.5
  }
}

TEST(SamplingPromises, NucleusLargerThanTheFirstSort) {
  SamplingOptions options;
  options.top_p = 0.5f;
  const auto seen = frequencies(cpu_ops(), Logits(1000, 0.f), options);
  EXPECT_EQ(seen.size(), 500u);
  EXPECT_EQ(seen.rbegin()->first, 499);  // equal logits: lowest ids first
}

}  // namespace
}  // namespace dsv::test
