// Small checkpoints for tests: the architecture's tensors listed by hand, apart from the code under test.
#pragma once

#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace dsv::test {

// A folder that goes away with the object.
class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "dsv-test-XXXXXX").string();
    if (!mkdtemp(name.data())) throw std::runtime_error("no temporary folder");
    path_ = name;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  std::string path() const { return path_.string(); }
  std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

inline void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!out) throw std::runtime_error("cannot write " + path);
}

struct TestTensor {
  std::string dtype;  // as in the file
  std::vector<int64_t> shape;
  std::string bytes;
};
using TestTensors = std::map<std::string, TestTensor>;

// 3 layers (1 dense) and MTP with sizes that are no multiples of 128, so that FP8 blocks are partial.
inline nlohmann::json small_config() {
  return nlohmann::json::parse(R"({
    "architectures": ["DeepseekV32ForCausalLM"], "model_type": "deepseek_v32", "vocab_size": 300, "hidden_size": 144,
    "intermediate_size": 160, "moe_intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 2, "n_shared_experts": 1, "n_routed_experts": 8, "routed_scaling_factor": 2.5,
    "kv_lora_rank": 48, "q_lora_rank": 56, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 24,
    "n_group": 4, "topk_group": 2, "num_experts_per_tok": 3, "first_k_dense_replace": 1, "moe_layer_freq": 1,
    "norm_topk_prob": true, "scoring_func": "sigmoid", "topk_method": "noaux_tc", "hidden_act": "silu",
    "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 10000, "rope_scaling": {"type": "yarn",
    "factor": 8, "original_max_position_embeddings": 64, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0,
    "mscale_all_dim": 1.0}, "index_n_heads": 2, "index_head_dim": 16, "index_topk": 4,
    "num_nextn_predict_layers": 1, "tie_word_embeddings": false, "attention_bias": false, "bos_token_id": 0,
    "eos_token_id": 1, "torch_dtype": "bfloat16"})");
}

class TensorMaker {
 public:
  // dtype of the matrices: "F8_E4M3" (with scales; embeddings, head, router and weights_proj are BF16 then),
  // "BF16", "F16" or "F32". Vectors are BF16 or of that dtype; the router's bias is F32.
  TensorMaker(const nlohmann::json& config, uint64_t seed, std::string dtype)
      : config_(config),
        random_(seed),
        dtype_(std::move(dtype)),
        plain_(dtype_ == "F8_E4M3" ? "BF16" : dtype_) {}

  TestTensors make() {
    const int64_t hidden = size("hidden_size"), vocab = size("vocab_size"),
                  layers = size("num_hidden_layers");
    add("model.embed_tokens.weight", plain_, {vocab, hidden}, 0, 1);
    add("model.norm.weight", plain_, {hidden}, 1, 0.1);
    if (!config_.value("tie_word_embeddings", false)) head("lm_head.weight");
    const bool mtp = config_.value("num_nextn_predict_layers", 0) > 0;
    for (int64_t i = 0; i < layers + (mtp ? 1 : 0); ++i) {
      const std::string at = "model.layers." + std::to_string(i) + ".";
      add(at + "input_layernorm.weight", plain_, {hidden}, 1, 0.1);
      add(at + "post_attention_layernorm.weight", plain_, {hidden}, 1, 0.1);
      attention(at + "self_attn.");
      if (is_moe(i)) {
        moe(at + "mlp.");
      } else {
        ffn(at + "mlp.", size("intermediate_size"));
      }
    }
    if (mtp) {
      const std::string at = "model.layers." + std::to_string(layers) + ".";
      for (const char* name : {"enorm", "hnorm", "shared_head.norm"}) {
        add(at + name + ".weight", plain_, {hidden}, 1, 0.1);
      }
      add(at + "eh_proj.weight", plain_, {hidden, 2 * hidden}, 0,
          1 / std::sqrt(2.0 * static_cast<double>(hidden)));
      add(at + "embed_tokens.weight", plain_, {vocab, hidden}, 0, 1);
      head(at + "shared_head.head.weight");
    }
    return std::move(tensors_);
  }

 private:
  int64_t size(const char* name) const {
    const auto at = config_.find(name);
    return at == config_.end() || at->is_null() ? 0 : at->get<int64_t>();
  }
  bool is_moe(int64_t i) const {
    if (size("n_routed_experts") == 0) return false;
    if (config_.contains("mlp_layer_types")) {
      const nlohmann::json& types = config_["mlp_layer_types"];
      return static_cast<size_t>(i) >= types.size() || types[static_cast<size_t>(i)] == "sparse";
    }
    return i >= size("first_k_dense_replace") && i % config_.value("moe_layer_freq", 1) == 0;
  }

  void attention(const std::string& at) {
    const int64_t hidden = size("hidden_size"), heads = size("num_attention_heads"),
                  q_rank = size("q_lora_rank"), kv_rank = size("kv_lora_rank"),
                  nope = size("qk_nope_head_dim"), rope = size("qk_rope_head_dim"), v = size("v_head_dim");
    if (q_rank > 0) {
      linear(at + "q_a_proj.weight", q_rank, hidden);
      add(at + "q_a_layernorm.weight", plain_, {q_rank}, 1, 0.1);
      linear(at + "q_b_proj.weight", heads * (nope + rope), q_rank);
    } else {
      linear(at + "q_proj.weight", heads * (nope + rope), hidden);
    }
    linear(at + "kv_a_proj_with_mqa.weight", kv_rank + rope, hidden);
    add(at + "kv_a_layernorm.weight", plain_, {kv_rank}, 1, 0.1);
    linear(at + "kv_b_proj.weight", heads * (nope + v), kv_rank);
    linear(at + "o_proj.weight", hidden, heads * v);
    if (config_["model_type"] != "deepseek_v32") return;
    const int64_t index_heads = size("index_n_heads"), index_dim = size("index_head_dim");
    linear(at + "indexer.wq_b.weight", index_heads * index_dim, q_rank);
    linear(at + "indexer.wk.weight", index_dim, hidden);
    add(at + "indexer.k_norm.weight", plain_, {index_dim}, 1, 0.1);
    add(at + "indexer.k_norm.bias", plain_, {index_dim}, 0, 0.1);
    add(at + "indexer.weights_proj.weight", plain_, {index_heads, hidden}, 0, 0.1);
  }
  void ffn(const std::string& at, int64_t intermediate) {
    linear(at + "gate_proj.weight", intermediate, size("hidden_size"));
    linear(at + "up_proj.weight", intermediate, size("hidden_size"));
    linear(at + "down_proj.weight", size("hidden_size"), intermediate);
  }
  void moe(const std::string& at) {
    const int64_t experts = size("n_routed_experts"), intermediate = size("moe_intermediate_size");
    add(at + "gate.weight", plain_, {experts, size("hidden_size")}, 0, 0.1);
    add(at + "gate.e_score_correction_bias", "F32", {experts}, 0, 0.1);
    for (int64_t e = 0; e < experts; ++e) ffn(at + "experts." + std::to_string(e) + ".", intermediate);
    if (size("n_shared_experts") > 0) ffn(at + "shared_experts.", size("n_shared_experts") * intermediate);
  }
  void head(const std::string& name) {
    const int64_t hidden = size("hidden_size");
    add(name, plain_, {size("vocab_size"), hidden}, 0, 2 / std::sqrt(static_cast<double>(hidden)));
  }

  void linear(const std::string& name, int64_t rows, int64_t cols) {
    const double sigma = 1 / std::sqrt(static_cast<double>(cols));
    if (dtype_ != "F8_E4M3") return add(name, dtype_, {rows, cols}, 0, sigma);
    TestTensor codes{dtype_, {rows, cols}, {}};
    for (int64_t i = 0; i < rows * cols; ++i) {
      const auto code = static_cast<unsigned char>(random_());
      codes.bytes += static_cast<char>((code & 0x7F) == 0x7F ? 0 : code);  // no NaN
    }
    // Codes drawn evenly have a root mean square of about 100.
    TestTensor scales{"F32", {(rows + 127) / 128, (cols + 127) / 128}, {}};
    for (int64_t i = 0; i < scales.shape[0] * scales.shape[1]; ++i) {
      append(scales, sigma / 100 * std::uniform_real_distribution(0.5, 1.5)(random_));
    }
    tensors_[name] = std::move(codes);
    tensors_[name + "_scale_inv"] = std::move(scales);
  }
  void add(const std::string& name, const std::string& dtype, std::vector<int64_t> shape, double mean,
           double sigma) {
    TestTensor tensor{dtype, std::move(shape), {}};
    int64_t count = 1;
    for (const int64_t n : tensor.shape) count *= n;
    std::normal_distribution<double> normal(mean, sigma);
    for (int64_t i = 0; i < count; ++i) append(tensor, normal(random_));
    tensors_[name] = std::move(tensor);
  }
  static void append(TestTensor& tensor, double value) {
    const auto single = static_cast<float>(value);
    uint32_t bits;
    std::memcpy(&bits, &single, sizeof bits);
    if (tensor.dtype == "F32") {
      tensor.bytes.append(reinterpret_cast<const char*>(&bits), 4);
      return;
    }
    // Truncated: any nearby value will do.
    uint32_t half = bits >> 16;
    if (tensor.dtype == "F16") {
      const int32_t exponent = static_cast<int32_t>(bits >> 23 & 0xFF) - 127;
      half = exponent < -14
                 ? 0
                 : (bits >> 16 & 0x8000) | static_cast<uint32_t>(exponent + 15) << 10 | (bits >> 13 & 0x3FF);
    }
    tensor.bytes.append(reinterpret_cast<const char*>(&half), 2);
  }

  const nlohmann::json& config_;
  std::mt19937_64 random_;
  std::string dtype_, plain_;
  TestTensors tensors_;
};

// All tensors of the architecture, with values that keep activations in range.
inline TestTensors random_tensors(const nlohmann::json& config, uint64_t seed, const std::string& dtype) {
  return TensorMaker(config, seed, dtype).make();
}

// length, header, data
inline std::string safetensors_bytes(const std::string& header, const std::string& data) {
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(static_cast<uint64_t>(header.size()) >> (8 * i));
  return out + header + data;
}

inline std::string safetensors_bytes(const TestTensors& tensors) {
  nlohmann::json header = nlohmann::json::object();
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {{"dtype", tensor.dtype},
                    {"shape", tensor.shape},
                    {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  return safetensors_bytes(header.dump(), data);
}

// Tensors are dealt out over the shards; one shard is a single model.safetensors without index.
inline void write_tensors(const std::string& folder, const TestTensors& tensors, int shards = 1) {
  if (shards == 1) return write_file(folder + "/model.safetensors", safetensors_bytes(tensors));
  std::vector<TestTensors> parts(static_cast<size_t>(shards));
  nlohmann::json map = nlohmann::json::object();
  size_t next = 0;
  const auto name_of = [](size_t part) { return "model-" + std::to_string(part + 1) + ".safetensors"; };
  for (const auto& [name, tensor] : tensors) {
    const size_t part = next++ % parts.size();
    parts[part][name] = tensor;
    map[name] = name_of(part);
  }
  for (size_t part = 0; part < parts.size(); ++part) {
    write_file(folder + "/" + name_of(part), safetensors_bytes(parts[part]));
  }
  write_file(folder + "/model.safetensors.index.json", nlohmann::json{{"weight_map", map}}.dump());
}

// config.json and the tensors; `dtype` F8_E4M3 adds the quantization_config. The folder must exist.
inline void write_checkpoint(const std::string& folder, nlohmann::json config, uint64_t seed,
                             const std::string& dtype, int shards = 1) {
  if (dtype == "F8_E4M3") {
    config["quantization_config"] = {{"quant_method", "fp8"},
                                     {"fmt", "e4m3"},
                                     {"weight_block_size", {128, 128}},
                                     {"activation_scheme", "dynamic"},
                                     {"scale_fmt", "ue8m0"}};
  }
  write_file(folder + "/config.json", config.dump(1));
  write_tensors(folder, random_tensors(config, seed, dtype), shards);
}

}  // namespace dsv::test
