#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "base/error.h"
#include "tests/support/checkpoint_writer.h"

namespace dsv {
namespace {

using nlohmann::json;
using test::small_config;
using testing::HasSubstr;

ModelConfig parse(const json& config) { return parse_config(config.dump(), "folder/config.json"); }

// The small config with a JSON merge patch: null removes a field.
ModelConfig patched(const std::string& patch) {
  json config = small_config();
  config.merge_patch(json::parse(patch));
  return parse(config);
}

// merge_patch cannot write null.
ModelConfig with_null(const std::string& field) {
  json config = small_config();
  config[field] = nullptr;
  return parse(config);
}

TEST(Config, ReadsEveryDimension) {
  const ModelConfig config = parse(small_config());
  const Geometry& g = config.geometry;
  EXPECT_EQ(config.model_type, "deepseek_v32");
  EXPECT_EQ(g.vocab_size, 300);
  EXPECT_EQ(g.hidden_size, 144);
  EXPECT_EQ(g.num_layers, 3);
  EXPECT_EQ(g.num_heads, 2);
  EXPECT_EQ(g.q_lora_rank, 56);
  EXPECT_EQ(g.kv_lora_rank, 48);
  EXPECT_EQ(g.qk_nope_head_dim, 16);
  EXPECT_EQ(g.qk_rope_head_dim, 8);
  EXPECT_EQ(g.v_head_dim, 24);
  EXPECT_EQ(g.intermediate_size, 160);
  EXPECT_EQ(g.moe_intermediate_size, 40);
  EXPECT_EQ(g.n_routed_experts, 8);
  EXPECT_EQ(g.n_shared_experts, 1);
  EXPECT_EQ(g.num_experts_per_tok, 3);
  EXPECT_EQ(g.n_group, 4);
  EXPECT_EQ(g.topk_group, 2);
  EXPECT_TRUE(g.norm_topk_prob);
  EXPECT_EQ(g.routed_scaling_factor, 2.5);
  EXPECT_EQ(g.index_n_heads, 2);
  EXPECT_EQ(g.index_head_dim, 16);
  EXPECT_EQ(g.index_topk, 4);
  EXPECT_EQ(g.rms_norm_eps, 1e-6);
  EXPECT_TRUE(g.ue8m0_scales);
  EXPECT_EQ(config.first_k_dense_replace, 1);
  EXPECT_EQ(config.layer_is_moe, (std::vector<bool>{false, true, true}));
  EXPECT_TRUE(config.mtp_is_moe);
  EXPECT_EQ(config.num_nextn_predict_layers, 1);
  EXPECT_EQ(config.max_position_embeddings, 512);
  EXPECT_EQ(config.bos_token_id, 0);
  EXPECT_EQ(config.eos_token_id, 1);
  EXPECT_FALSE(config.tie_word_embeddings);
}

TEST(Config, ReadsEveryOption) {
  EXPECT_TRUE(patched(R"({"tie_word_embeddings": true})").tie_word_embeddings);
  EXPECT_EQ(patched(R"({"n_shared_experts": 3})").geometry.shared_intermediate_size(), 120);
  EXPECT_EQ(with_null("n_shared_experts").geometry.n_shared_experts, 0);
  EXPECT_FALSE(patched(R"({"norm_topk_prob": false})").geometry.norm_topk_prob);
  const Geometry one_group = patched(R"({"n_group": 1, "topk_group": 1, "num_experts_per_tok": 8})").geometry;
  EXPECT_EQ(one_group.n_group, 1);
  EXPECT_EQ(one_group.topk_group, 1);
  EXPECT_EQ(patched(R"({"v_head_dim": 7})").geometry.v_head_dim, 7);
  EXPECT_EQ(with_null("eos_token_id").eos_token_id, -1);
  EXPECT_EQ(patched(R"({"eos_token_id": [5]})").eos_token_id, 5);
  EXPECT_EQ(patched(R"({"num_nextn_predict_layers": null})").num_nextn_predict_layers, 0);
  const Geometry f32_scales = patched(R"({"quantization_config": {"quant_method": "fp8", "fmt": "e4m3",
      "weight_block_size": [128, 128]}})")
                                  .geometry;
  EXPECT_FALSE(f32_scales.ue8m0_scales);
}

TEST(Config, KnowsWhichLayersAreDense) {
  using Layers = std::vector<bool>;
  EXPECT_EQ(patched(R"({"first_k_dense_replace": 0})").layer_is_moe, (Layers{true, true, true}));
  const ModelConfig dense = patched(R"({"first_k_dense_replace": 4, "n_routed_experts": null,
      "moe_intermediate_size": null, "routed_scaling_factor": null})");
  EXPECT_EQ(dense.layer_is_moe, (Layers{false, false, false}));
  EXPECT_EQ(dense.geometry.n_routed_experts, 0);
  EXPECT_FALSE(dense.mtp_is_moe);
  EXPECT_EQ(patched(R"({"moe_layer_freq": 2})").layer_is_moe, (Layers{false, false, true}));
  EXPECT_FALSE(patched(R"({"moe_layer_freq": 2})").mtp_is_moe);
  const ModelConfig listed =
      patched(R"({"first_k_dense_replace": null, "mlp_layer_types": ["sparse", "dense", "sparse"]})");
  EXPECT_EQ(listed.layer_is_moe, (Layers{true, false, true}));
  EXPECT_TRUE(listed.mtp_is_moe);
  EXPECT_EQ(listed.first_k_dense_replace, 0);
  EXPECT_EQ(patched(R"({"mlp_layer_types": ["dense", "sparse", "sparse"]})").first_k_dense_replace, 1);
  EXPECT_FALSE(patched(R"({"mlp_layer_types": ["dense", "sparse", "sparse", "dense"],
      "first_k_dense_replace": null})")
                   .mtp_is_moe);
  // As transformers saves it: the list, and a default that nobody reads.
  EXPECT_EQ(patched(R"({"mlp_layer_types": ["sparse", "dense", "sparse"], "first_k_dense_replace": 3})")
                .layer_is_moe,
            (Layers{true, false, true}));
}

TEST(Config, OpensDeepseekV3WithoutIndexer) {
  const ModelConfig config =
      patched(R"({"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"],
      "index_n_heads": null, "index_head_dim": null, "index_topk": null, "q_lora_rank": null,
      "layer_types": ["full_attention", "full_attention", "full_attention"]})");
  EXPECT_FALSE(config.geometry.has_indexer());
  EXPECT_EQ(config.geometry.q_lora_rank, 0);
  check_precision(config, Precision::official);
}

TEST(Config, AcceptsTheNewerSpelling) {
  const ModelConfig old = parse(small_config());
  const ModelConfig now = patched(R"({"rope_theta": null, "rope_scaling": null, "torch_dtype": null,
      "dtype": "bfloat16", "head_dim": 8, "qk_head_dim": 24, "rope_interleave": true,
      "layer_types": ["indexed_attention", "deepseek_sparse_attention", "indexed_attention"],
      "mlp_layer_types": ["dense", "sparse", "sparse"], "rope_parameters": {"rope_theta": 10000.0,
      "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "beta_fast": 32.0,
      "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}})");
  EXPECT_EQ(now.geometry.inv_freq, old.geometry.inv_freq);
  EXPECT_EQ(now.geometry.softmax_scale, old.geometry.softmax_scale);
  EXPECT_EQ(now.layer_is_moe, old.layer_is_moe);
  // Both at once, saying the same.
  patched(R"({"rope_parameters": {"rope_theta": 10000, "rope_type": "yarn", "factor": 8,
      "original_max_position_embeddings": 64, "mscale": 1.0, "mscale_all_dim": 1.0},
      "dtype": "bfloat16", "torch_dtype": "torch.bfloat16"})");
}

// ------------------------------------------------------------------------------------------------ RoPE

double yarn_m(double factor, double mscale) { return 0.1 * mscale * std::log(factor) + 1; }

TEST(Config, PlainRope) {
  for (const char* patch : {R"({"rope_scaling": null, "rope_theta": 500})",
                            R"({"rope_scaling": {"type": "default"}, "rope_theta": 500})",
                            R"({"rope_scaling": null, "rope_theta": null,
                                "rope_parameters": {"rope_type": "default", "rope_theta": 500}})"}) {
    const Geometry g = patched(patch).geometry;
    ASSERT_EQ(g.inv_freq.size(), 4u);
    for (int i = 0; i < 4; ++i) {
      EXPECT_DOUBLE_EQ(g.inv_freq[static_cast<size_t>(i)], 1 / std::pow(500, 2 * i / 8.0));
    }
    EXPECT_DOUBLE_EQ(g.softmax_scale, 1 / std::sqrt(24));
    EXPECT_EQ(g.rope_mscale, 1);
  }
}

// The released model: 64 dims, factor 40 over 4096. low = floor(10.24..) = 10 and high = ceil(22.28..) = 23,
// so pairs up to 10 keep their frequency, from 23 on it is divided by 40, and pair 15 lies 5/13 of the way.
TEST(Config, YarnOfTheReleasedModel) {
  const Geometry g = patched(R"({"qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "index_head_dim": 128,
      "max_position_embeddings": 163840, "rope_scaling": {"factor": 40, "original_max_position_embeddings": 4096}})")
                         .geometry;
  ASSERT_EQ(g.inv_freq.size(), 32u);
  const auto plain = [](int i) { return std::pow(1e4, -2 * i / 64.0); };
  for (const int i : {0, 5, 10}) EXPECT_DOUBLE_EQ(g.inv_freq[static_cast<size_t>(i)], plain(i));
  for (const int i : {23, 24, 31}) EXPECT_DOUBLE_EQ(g.inv_freq[static_cast<size_t>(i)], plain(i) / 40);
  EXPECT_DOUBLE_EQ(g.inv_freq[15], plain(15) * (8.0 / 13 + 5.0 / 13 / 40));
  const double m = yarn_m(40, 1);
  EXPECT_DOUBLE_EQ(g.softmax_scale, m * m / std::sqrt(192.0));
  EXPECT_EQ(g.rope_mscale, 1);
}

TEST(Config, YarnWithoutTruncation) {
  const Geometry g = patched(R"({"qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "index_head_dim": 128,
      "rope_scaling": {"factor": 40, "original_max_position_embeddings": 4096, "truncate": false}})")
                         .geometry;
  const auto dim_of = [](double rotations) {
    return 64 * std::log(4096 / (rotations * 2 * std::numbers::pi)) / (2 * std::log(1e4));
  };
  const double ramp = (15 - dim_of(32)) / (dim_of(1) - dim_of(32));
  EXPECT_DOUBLE_EQ(g.inv_freq[15], std::pow(1e4, -30 / 64.0) * ((1 - ramp) + ramp / 40));
}

TEST(Config, YarnScalesOfCosAndSin) {
  // The ratio of the two; either absent or zero: mscale(factor, 1); attention_factor overrides.
  const auto mscale = [](const std::string& fields) {
    return patched(R"({"rope_scaling": {"factor": 8, )" + fields + "}}").geometry.rope_mscale;
  };
  EXPECT_DOUBLE_EQ(mscale(R"("mscale": 0.7, "mscale_all_dim": 1.5)"), yarn_m(8, 0.7) / yarn_m(8, 1.5));
  EXPECT_DOUBLE_EQ(mscale(R"("mscale": null)"), yarn_m(8, 1));
  EXPECT_DOUBLE_EQ(mscale(R"("mscale_all_dim": 0)"), yarn_m(8, 1));
  EXPECT_DOUBLE_EQ(mscale(R"("mscale": null, "mscale_all_dim": null)"), yarn_m(8, 1));
  EXPECT_DOUBLE_EQ(mscale(R"("attention_factor": 1.25)"), 1.25);
  EXPECT_DOUBLE_EQ(patched(R"({"rope_scaling": {"factor": 0.5, "mscale": 3}})").geometry.rope_mscale, 1);
  EXPECT_DOUBLE_EQ(patched(R"({"rope_scaling": {"mscale_all_dim": null}})").geometry.softmax_scale,
                   1 / std::sqrt(24.0));
}

// ------------------------------------------------------------------------------------------------ refusals

struct Refusal {
  const char* patch;
  dsv_status status;
  const char* says;
};

TEST(Config, RefusesByFieldName) {
  constexpr dsv_status kInvalid = DSV_ERROR_INVALID_FILE, kUnsupported = DSV_ERROR_UNSUPPORTED;
  const Refusal cases[] = {
      // valid options that are not built
      {R"({"model_type": "llama"})", kUnsupported, "model_type is 'llama'"},
      {R"({"model_type": "deepseek_v2"})", kUnsupported, "deepseek_v2"},
      {R"({"architectures": ["DeepseekV32ForSequenceClassification"]})", kUnsupported, "architectures"},
      {R"({"attention_bias": true})", kUnsupported, "attention_bias is true"},
      {R"({"mlp_bias": true})", kUnsupported, "mlp_bias"},
      {R"({"scoring_func": "softmax"})", kUnsupported, "scoring_func is \"softmax\""},
      {R"({"topk_method": "group_limited_greedy"})", kUnsupported, "topk_method"},
      {R"({"hidden_act": "gelu"})", kUnsupported, "hidden_act is \"gelu\""},
      {R"({"rope_scaling": {"type": "linear"}})", kUnsupported, "rope_scaling.type is 'linear'"},
      {R"({"rope_parameters": {"rope_type": "llama3"}})", kUnsupported,
       "rope_parameters.rope_type is 'llama3'"},
      {R"({"rope_interleave": false})", kUnsupported, "rope_interleave"},
      {R"({"q_lora_rank": null})", kUnsupported, "q_lora_rank"},
      {R"({"layer_types": ["full_attention", "indexed_attention", "indexed_attention"]})", kUnsupported,
       "layer_types names 'full_attention'"},
      {R"({"mlp_layer_types": ["dense", "sparse", "mamba"]})", kUnsupported, "mamba"},
      {R"({"quantization_config": {"quant_method": "awq"}})", kUnsupported,
       "quantization_config.quant_method"},
      {R"({"quantization_config": {"quant_method": "fp8", "fmt": "e5m2"}})", kUnsupported, "fmt"},
      {R"({"quantization_config": {"quant_method": "fp8", "weight_block_size": [64, 64]}})", kUnsupported,
       "weight_block_size is [64,64]"},
      {R"({"quantization_config": {"quant_method": "fp8"}})", kUnsupported, "weight_block_size"},
      {R"({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128],
           "activation_scheme": "static"}})",
       kUnsupported, "activation_scheme"},
      {R"({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128], "scale_fmt": "e8"}})",
       kUnsupported, "scale_fmt"},
      {R"({"torch_dtype": "int8"})", kUnsupported, "int8"},
      {R"({"eos_token_id": [1, 2]})", kUnsupported, "eos_token_id"},
      // missing
      {R"({"model_type": null})", kInvalid, "model_type is missing"},
      {R"({"hidden_size": null})", kInvalid, "hidden_size is missing"},
      {R"({"num_hidden_layers": null})", kInvalid, "num_hidden_layers is missing"},
      {R"({"kv_lora_rank": null})", kInvalid, "kv_lora_rank is missing"},
      {R"({"index_topk": null})", kInvalid, "index_topk is missing"},
      {R"({"intermediate_size": null})", kInvalid, "intermediate_size is missing"},
      {R"({"first_k_dense_replace": null})", kInvalid, "first_k_dense_replace is missing"},
      {R"({"topk_group": null})", kInvalid, "topk_group is missing"},
      {R"({"routed_scaling_factor": null})", kInvalid, "routed_scaling_factor is missing"},
      {R"({"rope_scaling": {"factor": null}})", kInvalid, "rope_scaling.factor is missing"},
      {R"({"quantization_config": {"fmt": "e4m3", "weight_block_size": [128, 128]}})", kInvalid,
       "quant_method"},
      // out of range or of the wrong type
      {R"({"num_hidden_layers": 0})", kInvalid, "num_hidden_layers is 0"},
      {R"({"num_hidden_layers": -1})", kInvalid, "num_hidden_layers is -1"},
      {R"({"num_hidden_layers": 1000000000})", kInvalid, "num_hidden_layers is 1000000000"},
      {R"({"hidden_size": 18446744073709551615})", kInvalid, "hidden_size is 18446744073709551615"},
      {R"({"hidden_size": 144.5})", kInvalid, "hidden_size is 144.5"},
      {R"({"hidden_size": "144"})", kInvalid, "hidden_size is \"144\""},
      {R"({"hidden_size": [144]})", kInvalid, "hidden_size is [144]"},
      {R"({"hidden_size": {"a": 1}})", kInvalid, "hidden_size is an object"},
      {R"({"hidden_size": true})", kInvalid, "hidden_size is true"},
      {R"({"vocab_size": 4000000000})", kInvalid, "vocab_size"},
      {R"({"num_attention_heads": 0})", kInvalid, "num_attention_heads"},
      {R"({"qk_rope_head_dim": 7})", kInvalid, "qk_rope_head_dim is odd"},
      {R"({"qk_rope_head_dim": 0})", kInvalid, "qk_rope_head_dim is 0"},
      {R"({"index_head_dim": 4})", kInvalid, "index_head_dim is 4"},
      {R"({"index_topk": 0})", kInvalid, "index_topk"},
      {R"({"n_routed_experts": -8})", kInvalid, "n_routed_experts"},
      {R"({"n_group": 3})", kInvalid, "n_group is 3"},
      {R"({"topk_group": 5})", kInvalid, "topk_group is 5"},
      {R"({"num_experts_per_tok": 5})", kInvalid, "num_experts_per_tok is 5, more than the 4"},
      {R"({"num_experts_per_tok": 0})", kInvalid, "num_experts_per_tok"},
      {R"({"norm_topk_prob": 1})", kInvalid, "norm_topk_prob"},
      {R"({"routed_scaling_factor": 1e300})", kInvalid, "routed_scaling_factor"},
      {R"({"rms_norm_eps": 0})", kInvalid, "rms_norm_eps"},
      {R"({"max_position_embeddings": 0})", kInvalid, "max_position_embeddings"},
      {R"({"moe_layer_freq": 0})", kInvalid, "moe_layer_freq"},
      {R"({"rope_theta": 1})", kInvalid, "rope_theta"},
      {R"({"rope_theta": -10000})", kInvalid, "rope_theta"},
      {R"({"rope_scaling": 8})", kInvalid, "rope_scaling"},
      {R"({"rope_scaling": {"factor": 0}})", kInvalid, "rope_scaling.factor"},
      {R"({"rope_scaling": {"original_max_position_embeddings": 0}})", kInvalid,
       "original_max_position_embeddings"},
      {R"({"rope_scaling": {"beta_slow": 0}})", kInvalid, "beta_slow"},
      {R"({"rope_scaling": {"truncate": 3}})", kInvalid, "truncate"},
      {R"({"bos_token_id": 300})", kInvalid, "bos_token_id"},
      {R"({"eos_token_id": -1})", kInvalid, "eos_token_id"},
      {R"({"architectures": "DeepseekV32ForCausalLM"})", kInvalid, "architectures"},
      {R"({"quantization_config": []})", kInvalid, "quantization_config"},
      // fields that contradict each other
      {R"({"rope_parameters": {"rope_theta": 20000}})", kInvalid, "rope_theta"},
      {R"({"rope_parameters": {"rope_type": "yarn", "factor": 4}})", kInvalid, "rope_scaling"},
      {R"({"rope_scaling": {"rope_type": "default"}})", kInvalid, "rope_type"},
      {R"({"dtype": "float32"})", kInvalid, "dtype"},
      {R"({"head_dim": 64})", kInvalid, "head_dim is 64"},
      {R"({"qk_head_dim": 64})", kInvalid, "qk_head_dim is 64"},
      {R"({"model_type": "deepseek_v3", "architectures": null,
           "mlp_layer_types": ["sparse", "sparse", "sparse"]})",
       kInvalid, "differ about layer 0"},
      {R"({"num_key_value_heads": 1})", kInvalid, "num_key_value_heads is 1"},
      {R"({"rope_scaling": {"partial_rotary_factor": 0.5}})", kUnsupported, "partial_rotary_factor"},
      {R"({"mlp_layer_types": ["dense"]})", kInvalid, "mlp_layer_types"},
      {R"({"mlp_layer_types": [1, 2, 3]})", kInvalid, "mlp_layer_types"},
      {R"({"layer_types": []})", kInvalid, "layer_types"},
      {R"({"mlp_layer_types": ["dense", "sparse", "sparse"], "n_routed_experts": null})", kInvalid,
       "n_routed_experts"},
  };
  for (const Refusal& c : cases) {
    SCOPED_TRACE(c.patch);
    try {
      patched(c.patch);
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), c.status) << error.what();
      EXPECT_THAT(error.what(), HasSubstr("folder/config.json"));
      EXPECT_THAT(error.what(), HasSubstr(c.says));
    }
  }
}

TEST(Config, RefusesTextThatIsNoConfig) {
  const std::string deep = R"({"a": )" + std::string(1'000, '[') + std::string(1'000, ']') + "}";
  std::string list = "[0";
  for (int i = 0; i < 300'000; ++i) list += ",0";
  const std::pair<std::string, const char*> cases[] = {
      {"", "not valid JSON (byte 1)"},
      {"{", "not valid JSON"},
      {"\xFF\xFE", "not valid JSON"},
      {"{\"a\": \"\xC3\"}", "not valid JSON"},
      {"{} {}", "not valid JSON"},
      {R"({"hidden_size": NaN})", "not valid JSON"},
      {R"({"rope_theta": 1e999})", "not valid JSON"},
      {R"({"a": 1, "a": 2})", "'a' stands twice"},
      {"[]", "must be an object"},
      {"7", "must be an object"},
      {deep, "nested deeper"},
      {"[00]", "not valid JSON"},
      {list + "]", "more than 262144 JSON values"},
      {std::string(2'000'000, ' '), "more than the 1048576 that are read"},
  };
  for (const auto& [text, says] : cases) {
    SCOPED_TRACE(text.substr(0, 40));
    try {
      parse_config(text, "folder/config.json");
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), DSV_ERROR_INVALID_FILE);
      EXPECT_THAT(error.what(), HasSubstr("folder/config.json"));
      EXPECT_THAT(error.what(), HasSubstr(says));
    }
  }
}

TEST(Config, OfficialNeedsAPowerOfTwoForTheHadamard) {
  const ModelConfig odd = patched(R"({"index_head_dim": 24})");
  check_precision(odd, Precision::exact);
  check_precision(parse(small_config()), Precision::official);
  try {
    check_precision(odd, Precision::official);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), DSV_ERROR_UNSUPPORTED);
    EXPECT_THAT(error.what(), HasSubstr("index_head_dim"));
    EXPECT_THAT(error.what(), HasSubstr("exact"));
  }
}

}  // namespace
}  // namespace dsv
