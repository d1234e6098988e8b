// The judge itself, by values worked out by hand. (tests/model/fixtures_test.cpp compares it with
// transformers.)
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "backend/ops.h"

namespace dsv {
namespace {

Geometry released_cache() {
  Geometry g;
  g.vocab_size = 4;
  g.hidden_size = 2;
  g.num_layers = 1;
  g.num_heads = 1;
  g.kv_lora_rank = 512;
  g.qk_nope_head_dim = 2;
  g.qk_rope_head_dim = 64;
  g.v_head_dim = 2;
  g.index_n_heads = 1;
  g.index_head_dim = 128;
  g.index_topk = 2;
  g.inv_freq.assign(32, 0.5);
  return g;
}

class Reference : public testing::Test {
 protected:
  void open(const Geometry& geometry, Precision precision) {
    DeviceOptions options;
    options.geometry = &geometry;
    options.precision = precision;
    options.batch_rows = 4;
    options.max_context = kPageTokens;
    options.kv_pages = 1;
    device_.reset(ops_.open(options));
  }
  const Weight* vector(std::vector<float> values) {
    values_.push_back(std::make_unique<std::vector<float>>(std::move(values)));
    return ops_.load_weight(device_.get(),
                            {"vector", Dtype::f32, 1, static_cast<int64_t>(values_.back()->size()),
                             values_.back()->data(), nullptr});
  }
  void store(Act act, const std::vector<float>& row) {
    ops_.store(device_.get(), act, ops_.buffer(device_.get(), act), {0, 1}, row.data());
  }
  Buffer buffer(Act act) { return ops_.buffer(device_.get(), act); }

  struct Close {
    void operator()(Device* device) const { reference_ops().close(device); }
  };
  const OpTable& ops_ = reference_ops();
  std::unique_ptr<Device, Close> device_;
  std::vector<std::unique_ptr<std::vector<float>>> values_;
};

// A token's 656 bytes as FlashMLA lays them out, and its 132 of the index page.
TEST_F(Reference, OfficialCacheBytes) {
  const Geometry g = released_cache();
  const KvLayout layout(g, Precision::official, false);
  ASSERT_EQ(layout.latent_row_bytes, 656);
  ASSERT_EQ(layout.index_page_bytes, 64 * 132);
  open(g, Precision::official);
  AttentionWeights weights;
  std::vector<float> gain(512, 1);
  for (int i = 128; i < 256; ++i) gain[static_cast<size_t>(i)] = 3;
  weights.kv_a_norm = vector(gain);
  weights.k_norm_weight = vector(std::vector<float>(128, 0));
  std::vector<float> bias(128, 0);
  bias[64] = 1;  // behind the values that RoPE turns
  weights.k_norm_bias = vector(bias);

  // Latents of +-5 have the norm 5: c is +-1 times the gain. At position 0 RoPE turns nothing.
  std::vector<float> raw(576, 5);
  raw[1] = -5;
  for (int i = 512; i < 576; ++i) raw[static_cast<size_t>(i)] = 3.01f;
  store(Act::kv_raw, raw);
  store(Act::index_k_raw, std::vector<float>(128, 0.25f));
  const int32_t zero = 0;
  ops_.begin_step(device_.get(), {1, &zero, &zero, &zero, &zero, 1, 1});
  ops_.cache_append(device_.get(), {{0, 1}, 0, &weights, buffer(Act::kv_raw), buffer(Act::index_k_raw)});
  std::vector<unsigned char> page(static_cast<size_t>(64 * 656 + layout.index_page_bytes));
  ops_.read_kv(device_.get(), 0, 0, page.data());

  const auto f32 = [&](size_t at) {
    float value;
    std::memcpy(&value, &page[at], sizeof value);
    return value;
  };
  // 1 / 448 rounds up to 2^-8, and 1 = 256 * 2^-8: exponent 8, field 15, mantissa 0.
  EXPECT_EQ(page[0], 0x78);
  EXPECT_EQ(page[1], 0xF8);
  EXPECT_EQ(page[511], 0x78);
  EXPECT_EQ(f32(512), 0x1p-8f);
  // 3 / 448 rounds up to 2^-7, and 3 = 384 * 2^-7: 384 = 1.5 * 2^8.
  EXPECT_EQ(page[128], 0x7C);
  EXPECT_EQ(f32(516), 0x1p-7f);
  EXPECT_EQ(f32(524), 0x1p-8f);
  // 3.01 lies between the bf16 values 3 (0x4040) and 3.015625 (0x4041), nearer to the latter.
  EXPECT_EQ(page[528], 0x41);
  EXPECT_EQ(page[529], 0x40);
  EXPECT_EQ(page[655], 0x40);
  // The key is the bias alone: a unit vector, which Hadamard spreads to +-128^-0.5 = +-0.0884 by the sign of
  // bit 6. 0.0884 / 448 rounds up to 2^-12, and 0.0884 * 2^12 = 362: nearest is 352 = 1.375 * 2^8.
  const size_t keys = 64 * 656;
  EXPECT_EQ(page[keys], 0x7B);
  EXPECT_EQ(page[keys + 63], 0x7B);
  EXPECT_EQ(page[keys + 64], 0xFB);
  EXPECT_EQ(f32(keys + 64 * 128), 0x1p-12f);
}

// RoPE: MLA turns neighbours. One pair of frequency 0.5 at position 2 turns by one radian.
TEST_F(Reference, RopeTurnsNeighbours) {
  Geometry g = released_cache();
  g.kv_lora_rank = 1;
  g.qk_rope_head_dim = 4;
  g.index_n_heads = 0;
  g.inv_freq = {0.5, 0};
  open(g, Precision::exact);
  AttentionWeights weights;
  weights.kv_a_norm = vector({7});
  store(Act::kv_raw, {-2, 1, 0, 5, 6});
  const int32_t zero = 0, two = 2;
  ops_.begin_step(device_.get(), {1, &zero, &two, &zero, &zero, 1, 1});
  ops_.cache_append(device_.get(), {{0, 1}, 0, &weights, buffer(Act::kv_raw), nullptr});
  float page[64][5];
  ops_.read_kv(device_.get(), 0, 0, page);
  EXPECT_NEAR(page[2][0], -7, 1e-5);
  EXPECT_NEAR(page[2][1], 0.5403023, 1e-6);
  EXPECT_NEAR(page[2][2], 0.8414710, 1e-6);
  EXPECT_EQ(page[2][3], 5);
  EXPECT_EQ(page[2][4], 6);
}

// Six experts in three groups: the best single choice is in a group whose sum loses.
TEST_F(Reference, GroupsAreChosenByTheirTwoBest) {
  Geometry g = released_cache();
  g.index_n_heads = 0;
  g.hidden_size = 1;
  g.n_routed_experts = 6;
  g.num_experts_per_tok = 2;
  g.n_group = 3;
  g.topk_group = 1;
  g.routed_scaling_factor = 2;
  open(g, Precision::exact);
  const std::vector<float> gate(6, 0);  // every score is 1/2, so that the bias decides
  MoeWeights weights;
  weights.gate = ops_.load_weight(device_.get(), {"gate", Dtype::f32, 6, 1, gate.data(), nullptr});
  weights.bias = vector({0.9f, -0.9f, 0.3f, 0.3f, 0.3f, 0.3f});
  store(Act::h, {1});
  float expert[2], weight[2];
  ops_.route(device_.get(),
             {{0, 1}, &weights, buffer(Act::h), buffer(Act::expert), buffer(Act::expert_weight)});
  ops_.fetch(device_.get(), Act::expert, buffer(Act::expert), {0, 1}, expert);
  ops_.fetch(device_.get(), Act::expert_weight, buffer(Act::expert_weight), {0, 1}, weight);
  EXPECT_EQ(expert[0], 2);  // groups 1 and 2 tie: the lower
  EXPECT_EQ(expert[1], 3);
  EXPECT_FLOAT_EQ(weight[0], 1);  // 1/2 of the sum, times 2
  EXPECT_FLOAT_EQ(weight[1], 1);
}

}  // namespace
}  // namespace dsv
