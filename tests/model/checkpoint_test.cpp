#include "model/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <set>

#include "base/error.h"
#include "model/inspect.h"
#include "tests/support/checkpoint_writer.h"

namespace dsv {
namespace {

using nlohmann::json;
using test::random_tensors;
using test::small_config;
using test::TempFolder;
using test::TestTensor;
using test::TestTensors;
using test::write_checkpoint;
using test::write_file;
using testing::HasSubstr;

// A device that only notes what it is given.
struct Recorder {
  std::vector<HostMatrix> given;
  LoadMonitor* cancel_after = nullptr;  // cancelled by the 10th matrix

  static Recorder& of(Device* device) { return *reinterpret_cast<Recorder*>(device); }
  static OpTable table() {
    OpTable ops{};
    ops.load_weight = [](Device* device, const HostMatrix& matrix) {
      Recorder& self = of(device);
      self.given.push_back(matrix);
      if (self.cancel_after && self.given.size() == 10) self.cancel_after->cancel = true;
      return reinterpret_cast<const Weight*>(matrix.data);
    };
    return ops;
  }
  Device* device() { return reinterpret_cast<Device*>(this); }
};

const unsigned char* bytes_of(const Weight* weight) { return reinterpret_cast<const unsigned char*>(weight); }

bool holds(const Weight* weight, const TestTensor& tensor) {
  return std::memcmp(bytes_of(weight), tensor.bytes.data(), tensor.bytes.size()) == 0;
}

class CheckpointTest : public testing::Test {
 protected:
  std::unique_ptr<Checkpoint> open(bool with_mtp = false) const {
    return Checkpoint::open(host_, folder_.path(), with_mtp);
  }
  ModelWeights load(const Checkpoint& checkpoint) {
    recorder_.given.clear();
    return checkpoint.load(Recorder::table(), recorder_.device(), monitor_);
  }
  // Expects open() and load() with MTP to fail with this status and words.
  void expect_error(dsv_status status, const std::vector<std::string>& says) {
    try {
      load(*open(true));
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), status) << error.what();
      for (const std::string& words : says) EXPECT_THAT(error.what(), HasSubstr(words));
    }
  }

  const Host host_{nullptr};
  TempFolder folder_;
  Recorder recorder_;
  LoadMonitor monitor_;
};

TEST_F(CheckpointTest, LoadsEveryDtypeSingleAndSharded) {
  const json config = small_config();
  for (const char* dtype : {"F8_E4M3", "BF16", "F16", "F32"}) {
    for (const int shards : {1, 3}) {
      SCOPED_TRACE(std::string(dtype) + " in " + std::to_string(shards));
      const TempFolder folder;
      write_checkpoint(folder.path(), config, 1, dtype, shards);
      const auto checkpoint = Checkpoint::open(host_, folder.path(), true);
      const ModelWeights w = load(*checkpoint);
      const TestTensors tensors = random_tensors(config, 1, dtype);
      EXPECT_EQ(checkpoint->tensors().size(), tensors.size());
      int64_t bytes = 0;
      for (const auto& [name, tensor] : tensors) bytes += static_cast<int64_t>(tensor.bytes.size());
      EXPECT_EQ(checkpoint->weight_bytes(), bytes);
      EXPECT_EQ(monitor_.done, bytes);
      EXPECT_EQ(monitor_.total, bytes);

      // Each handle is the tensor of its name.
      ASSERT_EQ(w.layers.size(), 3u);
      EXPECT_TRUE(holds(w.embed, tensors.at("model.embed_tokens.weight")));
      EXPECT_TRUE(holds(w.norm, tensors.at("model.norm.weight")));
      EXPECT_TRUE(holds(w.head, tensors.at("lm_head.weight")));
      const AttentionWeights& a = w.layers[2].attention;
      const std::string at = "model.layers.2.self_attn.";
      EXPECT_TRUE(holds(a.q_a, tensors.at(at + "q_a_proj.weight")));
      EXPECT_TRUE(holds(a.q_a_norm, tensors.at(at + "q_a_layernorm.weight")));
      EXPECT_TRUE(holds(a.q_b, tensors.at(at + "q_b_proj.weight")));
      EXPECT_TRUE(holds(a.kv_a, tensors.at(at + "kv_a_proj_with_mqa.weight")));
      EXPECT_TRUE(holds(a.kv_a_norm, tensors.at(at + "kv_a_layernorm.weight")));
      EXPECT_TRUE(holds(a.kv_b, tensors.at(at + "kv_b_proj.weight")));
      EXPECT_TRUE(holds(a.o, tensors.at(at + "o_proj.weight")));
      EXPECT_TRUE(holds(a.wq_b, tensors.at(at + "indexer.wq_b.weight")));
      EXPECT_TRUE(holds(a.wk, tensors.at(at + "indexer.wk.weight")));
      EXPECT_TRUE(holds(a.k_norm_weight, tensors.at(at + "indexer.k_norm.weight")));
      EXPECT_TRUE(holds(a.k_norm_bias, tensors.at(at + "indexer.k_norm.bias")));
      EXPECT_TRUE(holds(a.weights_proj, tensors.at(at + "indexer.weights_proj.weight")));
      EXPECT_FALSE(w.layers[0].is_moe);
      EXPECT_TRUE(holds(w.layers[0].ffn.gate, tensors.at("model.layers.0.mlp.gate_proj.weight")));
      EXPECT_TRUE(holds(w.layers[0].ffn.up, tensors.at("model.layers.0.mlp.up_proj.weight")));
      EXPECT_TRUE(holds(w.layers[0].ffn.down, tensors.at("model.layers.0.mlp.down_proj.weight")));
      const MoeWeights& moe = w.layers[1].moe;
      EXPECT_TRUE(holds(moe.gate, tensors.at("model.layers.1.mlp.gate.weight")));
      EXPECT_TRUE(holds(moe.bias, tensors.at("model.layers.1.mlp.gate.e_score_correction_bias")));
      ASSERT_EQ(moe.experts.size(), 8u);
      for (size_t e = 0; e < 8; ++e) {
        const std::string expert = "model.layers.1.mlp.experts." + std::to_string(e);
        EXPECT_TRUE(holds(moe.experts[e].gate, tensors.at(expert + ".gate_proj.weight")));
        EXPECT_TRUE(holds(moe.experts[e].up, tensors.at(expert + ".up_proj.weight")));
        EXPECT_TRUE(holds(moe.experts[e].down, tensors.at(expert + ".down_proj.weight")));
      }
      EXPECT_TRUE(holds(moe.shared.up, tensors.at("model.layers.1.mlp.shared_experts.up_proj.weight")));
      ASSERT_TRUE(w.has_mtp);
      EXPECT_TRUE(holds(w.mtp.eh_proj, tensors.at("model.layers.3.eh_proj.weight")));
      EXPECT_TRUE(holds(w.mtp.embed, tensors.at("model.layers.3.embed_tokens.weight")));
      EXPECT_TRUE(holds(w.mtp.head_norm, tensors.at("model.layers.3.shared_head.norm.weight")));
      EXPECT_TRUE(w.mtp.layer.is_moe);

      // Scales go with their matrix, and the plan sees what the device sees.
      for (const HostMatrix& m : recorder_.given) {
        const auto scale = tensors.find(std::string(m.name) + "_scale_inv");
        ASSERT_EQ(m.scale_inv != nullptr, scale != tensors.end()) << m.name;
        EXPECT_EQ(m.scale_inv != nullptr, m.dtype == Dtype::f8_e4m3);
        if (m.scale_inv) {
          EXPECT_EQ(std::memcmp(m.scale_inv, scale->second.bytes.data(), scale->second.bytes.size()), 0);
        }
      }
      size_t planned = 0;
      checkpoint->for_each_matrix(
          [&](const HostMatrix& m) { EXPECT_EQ(m.data, recorder_.given[planned++].data); });
      EXPECT_EQ(planned, recorder_.given.size());
    }
  }
}

TEST_F(CheckpointTest, LoadsEveryShapeOfTheArchitecture) {
  for (const char* patch :
       {R"({"tie_word_embeddings": true})", R"({"n_shared_experts": 3})", R"({"n_shared_experts": null})",
        R"({"first_k_dense_replace": 0})", R"({"first_k_dense_replace": 4, "n_routed_experts": null})",
        R"({"model_type": "deepseek_v3", "architectures": null, "q_lora_rank": null})",
        R"({"first_k_dense_replace": null, "mlp_layer_types": ["sparse", "dense", "sparse"]})",
        R"({"num_nextn_predict_layers": 0})", R"({"v_head_dim": 5, "qk_nope_head_dim": 3})"}) {
    SCOPED_TRACE(patch);
    json config = small_config();
    config.merge_patch(json::parse(patch));
    const TempFolder folder;
    write_checkpoint(folder.path(), config, 2, "F8_E4M3");
    const auto checkpoint = Checkpoint::open(host_, folder.path(), true);
    const ModelWeights w = load(*checkpoint);
    EXPECT_EQ(w.head == w.embed, checkpoint->config().tie_word_embeddings);
    EXPECT_EQ(w.has_mtp, config["num_nextn_predict_layers"] != 0);
    // Every tensor was used: nothing of the architecture was passed over.
    std::set<std::string> used;
    for (const HostMatrix& m : recorder_.given) {
      used.insert(std::string(m.name));
      if (m.scale_inv) used.insert(std::string(m.name) + "_scale_inv");
    }
    EXPECT_EQ(used.size(), checkpoint->tensors().size());
  }
}

TEST_F(CheckpointTest, MixedDtypesAreFine) {
  const json config = small_config();
  TestTensors tensors = random_tensors(config, 1, "F8_E4M3");
  const TestTensors wide = random_tensors(config, 2, "F32");
  for (const char* name : {"lm_head.weight", "model.norm.weight", "model.layers.1.mlp.gate.weight",
                           "model.layers.1.mlp.experts.3.up_proj.weight"}) {
    tensors.at(name) = wide.at(name);
  }
  write_checkpoint(folder_.path(), config, 1, "F8_E4M3");
  test::write_tensors(folder_.path(), tensors);
  load(*open(true));
}

TEST_F(CheckpointTest, MtpIsOptional) {
  const json config = small_config();
  const TestTensors all = random_tensors(config, 1, "BF16");
  write_checkpoint(folder_.path(), config, 1, "BF16");
  EXPECT_FALSE(open(false)->has_mtp());
  EXPECT_TRUE(open(true)->has_mtp());
  EXPECT_LT(open(false)->parameters(), open(true)->parameters());
  EXPECT_EQ(open(false)->active_bytes_per_token(), open(true)->active_bytes_per_token());

  TestTensors shared = all;  // embedding and head come from the main model
  shared.erase("model.layers.3.embed_tokens.weight");
  shared.erase("model.layers.3.shared_head.head.weight");
  test::write_tensors(folder_.path(), shared);
  const auto checkpoint = open(true);
  const ModelWeights w = load(*checkpoint);
  EXPECT_EQ(w.mtp.embed, w.embed);
  EXPECT_EQ(w.mtp.head, w.head);

  TestTensors none;
  for (const auto& [name, tensor] : all) {
    if (!name.starts_with("model.layers.3.")) none[name] = tensor;
  }
  test::write_tensors(folder_.path(), none);
  EXPECT_FALSE(open(true)->has_mtp());
}

TEST_F(CheckpointTest, CountsWhatATokenReads) {
  write_checkpoint(folder_.path(), small_config(), 1, "BF16");
  const auto checkpoint = open();
  // 8 experts in 2 layers, 3 of them read; one row of the embedding.
  const int64_t experts = 2 * 8 * 3 * 40 * 144 * 2, embed = 300 * 144 * 2;
  EXPECT_EQ(checkpoint->active_bytes_per_token(),
            checkpoint->weight_bytes() - experts + experts / 8 * 3 - embed + 144 * 2);
}

TEST_F(CheckpointTest, CancelEndsALoad) {
  write_checkpoint(folder_.path(), small_config(), 1, "BF16");
  recorder_.cancel_after = &monitor_;
  expect_error(DSV_ERROR_CANCELLED, {"cancelled"});
  EXPECT_EQ(recorder_.given.size(), 10u);
}

TEST_F(CheckpointTest, InspectIsJson) {
  write_checkpoint(folder_.path(), small_config(), 1, "F8_E4M3", 2);
  dsv_memory_plan plan{};
  plan.parameters = 7;
  const auto checkpoint = open();
  const json report = json::parse(inspect_json(*checkpoint, plan));
  EXPECT_EQ(report["config"]["hidden_size"], 144);
  EXPECT_EQ(report["plan"]["parameters"], 7);
  ASSERT_EQ(report["tensors"].size(), checkpoint->tensors().size());
  std::set<std::string> names;
  for (const json& tensor : report["tensors"]) {
    names.insert(tensor["name"]);
    EXPECT_TRUE(tensor["file"] == "model-1.safetensors" || tensor["file"] == "model-2.safetensors");
    if (tensor["name"] == "model.norm.weight") {
      EXPECT_EQ(tensor["shape"], json({144}));
      EXPECT_EQ(tensor["dtype"], "BF16");
      EXPECT_EQ(tensor["bytes"], 288);
    }
  }
  EXPECT_EQ(names.size(), checkpoint->tensors().size());
}

// ------------------------------------------------------------------------------------------------ hostile

void set_f32(TestTensor& tensor, size_t i, float value) {
  std::memcpy(tensor.bytes.data() + 4 * i, &value, 4);
}

void reshape(TestTensor& tensor, std::vector<int64_t> shape) {
  int64_t count = tensor.dtype == "F32" ? 4 : tensor.dtype == "F8_E4M3" ? 1 : 2;
  for (const int64_t n : shape) count *= n;
  tensor.shape = std::move(shape);
  tensor.bytes.resize(static_cast<size_t>(count));
}

TEST_F(CheckpointTest, RefusesWrongTensorsByName) {
  constexpr dsv_status kInvalid = DSV_ERROR_INVALID_FILE, kUnsupported = DSV_ERROR_UNSUPPORTED;
  const std::string q_b = "model.layers.1.self_attn.q_b_proj.weight";
  const std::string expert = "model.layers.2.mlp.experts.7.down_proj.weight";
  const std::string bias = "model.layers.2.mlp.gate.e_score_correction_bias";
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              infinity = std::numeric_limits<float>::infinity();
  struct Case {
    const char* what;
    std::string tensor;
    std::function<void(TestTensors&, const std::string&)> damage;
    dsv_status status;
    std::string says;
  };
  const auto erase = [](TestTensors& t, const std::string& name) { t.erase(name); };
  const auto shape = [](std::vector<int64_t> to) {
    return [to](TestTensors& t, const std::string& name) { reshape(t.at(name), to); };
  };
  const auto dtype = [](const char* to) {
    return [to](TestTensors& t, const std::string& name) { t.at(name).dtype = to; };
  };
  const auto value = [](size_t at, float to) {
    return [at, to](TestTensors& t, const std::string& name) { set_f32(t.at(name), at, to); };
  };
  const Case cases[] = {
      {"no embedding", "model.embed_tokens.weight", erase, kInvalid, "no tensor"},
      {"no head", "lm_head.weight", erase, kInvalid, "no tensor"},
      {"no norm", "model.norm.weight", erase, kInvalid, "no tensor"},
      {"no projection", q_b, erase, kInvalid, "no tensor"},
      {"no expert", expert, erase, kInvalid, "no tensor"},
      {"no router", "model.layers.1.mlp.gate.weight", erase, kInvalid, "no tensor"},
      {"no router bias", bias, erase, kInvalid, "no tensor"},
      {"no shared expert", "model.layers.1.mlp.shared_experts.up_proj.weight", erase, kInvalid, "no tensor"},
      {"no index key", "model.layers.0.self_attn.indexer.wk.weight", erase, kInvalid, "no tensor"},
      {"no index bias", "model.layers.0.self_attn.indexer.k_norm.bias", erase, kInvalid, "no tensor"},
      {"half an MTP layer", "model.layers.3.enorm.weight", erase, kInvalid, "no tensor"},
      {"no scale", q_b + "_scale_inv", erase, kInvalid, "scales"},
      {"embedding of fewer tokens", "model.embed_tokens.weight", shape({299, 144}), kInvalid, "[299, 144]"},
      {"transposed", q_b, shape({56, 48}), kInvalid, "[56, 48]"},
      {"flat", q_b, shape({48 * 56}), kInvalid, "[2688]"},
      {"empty", q_b, shape({0, 56}), kInvalid, "[0, 56]"},
      {"three dimensions", q_b, shape({48, 56, 1}), kInvalid, "[48, 56, 1]"},
      {"scalar", "model.norm.weight", shape({}), kInvalid, "[]"},
      {"norm with a row", "model.norm.weight", shape({1, 144}), kInvalid, "[1, 144]"},
      {"expert too wide", expert, shape({144, 41}), kInvalid, "[144, 41]"},
      {"bias for fewer experts", bias, shape({7}), kInvalid, "[7]"},
      {"scale of one block too few", "model.layers.0.mlp.gate_proj.weight_scale_inv", shape({1, 2}), kInvalid,
       "[1, 2]"},
      {"scale transposed", "model.layers.0.mlp.gate_proj.weight_scale_inv", shape({4, 1}), kInvalid,
       "[4, 1]"},
      {"scale flat", q_b + "_scale_inv", shape({1}), kInvalid, "[1]"},
      {"weights of another FP8", q_b, dtype("F8_E5M2"), kUnsupported, "F8_E5M2"},
      {"integers", q_b, dtype("I8"), kUnsupported, "I8"},
      {"an unknown dtype", q_b, dtype("F8_NEW"), kUnsupported, "F8_NEW"},
      {"integer scales", q_b + "_scale_inv", dtype("I32"), kUnsupported, "I32"},
      {"FP8 embedding", "model.embed_tokens.weight",
       [](TestTensors& t, const std::string& name) {
         t.at(name).dtype = "F8_E4M3";
         t.at(name).bytes.resize(t.at(name).bytes.size() / 2);
       },
       kUnsupported, "F8_E4M3"},
      {"FP8 norm", "model.norm.weight",
       [](TestTensors& t, const std::string& name) {
         t.at(name).dtype = "F8_E4M3";
         t.at(name).bytes.resize(t.at(name).bytes.size() / 2);
       },
       kUnsupported, "F8_E4M3"},
      {"NaN scale", q_b + "_scale_inv", value(0, nan), kInvalid, "NaN"},
      {"infinite scale", q_b + "_scale_inv", value(0, -infinity), kInvalid, "infinity"},
      {"NaN in the last scale", "model.layers.0.mlp.gate_proj.weight_scale_inv", value(3, nan), kInvalid,
       "NaN"},
      {"NaN scale of an MTP expert", "model.layers.3.mlp.experts.0.up_proj.weight_scale_inv", value(0, nan),
       kInvalid, "NaN"},
      {"NaN router bias", bias, value(7, nan), kInvalid, "NaN"},
      {"NaN norm", "model.norm.weight",
       [](TestTensors& t, const std::string& name) { t.at(name).bytes.replace(286, 2, "\xC0\x7F"); },
       kInvalid, "NaN"},
  };
  write_checkpoint(folder_.path(), small_config(), 1, "F8_E4M3");
  const TestTensors good = random_tensors(small_config(), 1, "F8_E4M3");
  load(*open(true));
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    TestTensors tensors = good;
    c.damage(tensors, c.tensor);
    test::write_tensors(folder_.path(), tensors);
    expect_error(c.status, {"model.safetensors", c.tensor, c.says});
  }
}

TEST_F(CheckpointTest, RefusesIndexesByName) {
  const json config = small_config();
  write_checkpoint(folder_.path(), config, 1, "BF16", 2);
  const std::string path = folder_.file("model.safetensors.index.json");
  const json good = json::parse(std::ifstream(path));
  const std::string tensor = "model.norm.weight";
  const auto with = [&](const json& file) {
    json index = good;
    index["weight_map"][tensor] = file;
    return index.dump();
  };
  write_file(folder_.file("other.safetensors"), test::safetensors_bytes(TestTensors{}));
  struct Case {
    std::string index;
    dsv_status status;
    std::vector<std::string> says;
  };
  const Case cases[] = {
      {"", DSV_ERROR_INVALID_FILE, {"index.json", "not valid JSON"}},
      {"[]", DSV_ERROR_INVALID_FILE, {"index.json", "weight_map"}},
      {"{}", DSV_ERROR_INVALID_FILE, {"index.json", "weight_map"}},
      {R"({"weight_map": []})", DSV_ERROR_INVALID_FILE, {"index.json", "weight_map"}},
      {R"({"weight_map": {}})", DSV_ERROR_INVALID_FILE, {"index.json", "model.embed_tokens.weight"}},
      {"{\"weight_map\":" + std::string(99, '[') + std::string(99, ']') + "}",
       DSV_ERROR_INVALID_FILE,
       {"nested"}},
      {with("../model-1.safetensors"), DSV_ERROR_INVALID_FILE, {tensor, "../model-1.safetensors"}},
      {with("/etc/passwd"), DSV_ERROR_INVALID_FILE, {tensor, "/etc/passwd"}},
      {with("a/b.safetensors"), DSV_ERROR_INVALID_FILE, {tensor, "a/b.safetensors"}},
      {with("a\\b.safetensors"), DSV_ERROR_INVALID_FILE, {tensor}},
      {with(".."), DSV_ERROR_INVALID_FILE, {tensor, "'..'"}},
      {with(""), DSV_ERROR_INVALID_FILE, {tensor}},
      {with(std::string("model-1.safetensors\0x", 21)), DSV_ERROR_INVALID_FILE, {tensor}},
      {with(7), DSV_ERROR_INVALID_FILE, {tensor}},
      {with(nullptr), DSV_ERROR_INVALID_FILE, {tensor}},
      {with("missing.safetensors"), DSV_ERROR_IO, {"missing.safetensors"}},
      {with("config.json"), DSV_ERROR_INVALID_FILE, {"config.json"}},
      {with("other.safetensors"), DSV_ERROR_INVALID_FILE, {"other.safetensors", tensor}},
  };
  load(*open(true));
  for (const Case& c : cases) {
    SCOPED_TRACE(c.index.substr(0, 60));
    write_file(path, c.index);
    expect_error(c.status, c.says);
  }
}

TEST_F(CheckpointTest, RefusesFoldersThatAreNoCheckpoint) {
  expect_error(DSV_ERROR_IO, {"config.json"});
  write_file(folder_.file("config.json"), small_config().dump());
  expect_error(DSV_ERROR_IO, {"model.safetensors"});
  write_checkpoint(folder_.path(), small_config(), 1, "BF16");
  std::filesystem::resize_file(folder_.file("model.safetensors"), 100'000);
  expect_error(DSV_ERROR_INVALID_FILE, {"model.safetensors", "truncated"});
  std::filesystem::resize_file(folder_.file("model.safetensors"), 0);
  expect_error(DSV_ERROR_INVALID_FILE, {"model.safetensors", "0 bytes"});

  // A config that promises far more than the file holds is refused at the first tensor.
  json config = small_config();
  write_checkpoint(folder_.path(), config, 1, "BF16");
  config.merge_patch(json::parse(R"({"num_hidden_layers": 1024, "n_routed_experts": 16384})"));
  write_file(folder_.file("config.json"), config.dump());
  expect_error(DSV_ERROR_INVALID_FILE, {"gate.weight", "[8, 144]", "[16384, 144]"});

  write_checkpoint(folder_.path(), small_config(), 1, "BF16");
  config = small_config();
  config["num_nextn_predict_layers"] = 2;
  write_file(folder_.file("config.json"), config.dump());
  expect_error(DSV_ERROR_UNSUPPORTED, {"num_nextn_predict_layers"});
}

}  // namespace
}  // namespace dsv
