#include "samples/cli/synth_tensors.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <numbers>
#include <stdexcept>
#include <utility>

namespace cli::synthetic {
namespace {

using nlohmann::ordered_json;

// ------------------------------------------------------------------------------------------------ presets

// What presets share; a preset is merged over it.
constexpr const char* kBase = R"({
  "architectures": ["DeepseekV32ForCausalLM"], "model_type": "deepseek_v32", "vocab_size": 129280,
  "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61,
  "num_attention_heads": 128, "num_key_value_heads": 128, "n_shared_experts": 1, "n_routed_experts": 256,
  "routed_scaling_factor": 2.5, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64,
  "qk_nope_head_dim": 128, "v_head_dim": 128, "n_group": 8, "topk_group": 4, "num_experts_per_tok": 8,
  "first_k_dense_replace": 3, "moe_layer_freq": 1, "norm_topk_prob": true, "scoring_func": "sigmoid",
  "topk_method": "noaux_tc", "hidden_act": "silu", "max_position_embeddings": 163840, "rms_norm_eps": 1e-6,
  "rope_theta": 10000, "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096,
  "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}, "index_n_heads": 64, "index_head_dim": 128,
  "index_topk": 2048, "num_nextn_predict_layers": 1, "tie_word_embeddings": false, "attention_bias": false,
  "attention_dropout": 0.0})";
constexpr const char* kBench2b5 = R"({
  "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768,
  "num_hidden_layers": 8, "num_attention_heads": 32, "num_key_value_heads": 32, "n_routed_experts": 64,
  "q_lora_rank": 768, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "index_n_heads": 16,
  "num_nextn_predict_layers": 0})";
constexpr const char* kTiny = R"({
  "vocab_size": 512, "hidden_size": 256, "intermediate_size": 512, "moe_intermediate_size": 128,
  "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4, "n_routed_experts": 16,
  "num_experts_per_tok": 4, "n_group": 4, "topk_group": 2, "kv_lora_rank": 128, "q_lora_rank": 128,
  "qk_rope_head_dim": 32, "qk_nope_head_dim": 64, "v_head_dim": 64, "first_k_dense_replace": 1,
  "max_position_embeddings": 2048, "rope_scaling": {"factor": 8, "original_max_position_embeddings": 256},
  "index_n_heads": 4, "index_head_dim": 64, "index_topk": 64})";

}  // namespace

ordered_json read_config(const SynthOptions& options) {
  ordered_json config;
  if (options.config.empty()) {
    config = ordered_json::parse(kBase);
    if (options.preset == "bench-2b5") {
      config.merge_patch(ordered_json::parse(kBench2b5));
    } else if (options.preset == "tiny") {
      config.merge_patch(ordered_json::parse(kTiny));
    } else if (options.preset != "v32") {
      throw std::runtime_error("there is no preset '" + options.preset + "': use v32, bench-2b5 or tiny");
    }
  } else {
    std::ifstream file(options.config);
    if (!file) throw std::runtime_error(options.config + " cannot be opened: check the path");
    config = ordered_json::parse(file, nullptr, false);
    if (!config.is_object()) throw std::runtime_error(options.config + " is not a JSON object");
  }
  if (options.layers > 0) {
    config["num_hidden_layers"] = options.layers;
    for (const char* list : {"mlp_layer_types", "layer_types"}) {
      if (!config.contains(list) || config[list].empty()) continue;
      while (config[list].size() > static_cast<size_t>(options.layers))
        config[list].erase(config[list].size() - 1);
      while (config[list].size() < static_cast<size_t>(options.layers))
        config[list].push_back(config[list].back());
    }
  }
  config["bos_token_id"] = 0;
  config["eos_token_id"] = 1;
  config.erase("dtype");
  config["torch_dtype"] = options.dtype == "f32" ? "float32" : "bfloat16";
  config.erase("quantization_config");
  if (options.dtype == "fp8") {
    config["quantization_config"] = {{"quant_method", "fp8"},
                                     {"fmt", "e4m3"},
                                     {"weight_block_size", {kBlock, kBlock}},
                                     {"activation_scheme", "dynamic"},
                                     {"scale_fmt", "ue8m0"}};
  }
  return config;
}

// ------------------------------------------------------------------------------------------------ tensors

namespace {

// Every tensor of the architecture with the spread that keeps activations at a root mean square near one: a
// matrix over n inputs has sigma gain / sqrt(n).
class Tensors {
 public:
  Tensors(const ordered_json& config, const std::string& dtype)
      : config_(config),
        matrix_type_(dtype == "fp8"    ? Type::f8
                     : dtype == "bf16" ? Type::bf16
                                       : Type::f32) {
    hidden_ = number("hidden_size");
    heads_ = number("num_attention_heads");
    nope_ = number("qk_nope_head_dim");
    rope_ = number("qk_rope_head_dim");
    v_ = number("v_head_dim");
    kv_rank_ = number("kv_lora_rank");
    q_rank_ = number("q_lora_rank", 0);
    experts_ = number("n_routed_experts", 0);
    const int64_t layers = number("num_hidden_layers"), vocab = number("vocab_size");
    // Logits get a sigma of about 2.5, so that the best token stands out without being certain.
    const double head = 2.5 / std::sqrt(static_cast<double>(hidden_));
    const bool tied = config_.value("tie_word_embeddings", false);
    add("model.embed_tokens.weight", plain_type(), {vocab, hidden_}, 0, tied ? head : 1);
    for (int64_t i = 0; i < layers; ++i) layer(i, is_moe(i));
    norm("model.norm.weight", hidden_);
    if (!tied) add("lm_head.weight", plain_type(), {vocab, hidden_}, 0, head);
    if (number("num_nextn_predict_layers", 0) > 0) {
      const std::string at = prefix(layers);
      norm(at + "enorm.weight", hidden_);
      norm(at + "hnorm.weight", hidden_);
      add(at + "eh_proj.weight", plain_type(), {hidden_, 2 * hidden_}, 0, 1 / std::sqrt(2.0 * hidden_));
      layer(layers, is_moe(layers));
      norm(at + "shared_head.norm.weight", hidden_);
      add(at + "embed_tokens.weight", plain_type(), {vocab, hidden_}, 0, 1);
      add(at + "shared_head.head.weight", plain_type(), {vocab, hidden_}, 0, head);
    }
  }
  std::vector<Tensor> take() { return std::move(tensors_); }

 private:
  static std::string prefix(int64_t layer) { return "model.layers." + std::to_string(layer) + "."; }
  Type plain_type() const { return matrix_type_ == Type::f8 ? Type::bf16 : matrix_type_; }

  int64_t number(const char* name) const {
    const int64_t value = number(name, 0);
    if (value < 1) throw std::runtime_error(std::string("config.json needs a positive number for ") + name);
    return value;
  }
  int64_t number(const char* name, int64_t absent) const {
    const auto at = config_.find(name);
    if (at == config_.end() || at->is_null()) return absent;
    if (!at->is_number_integer() || at->get<double>() < 0 || at->get<double>() > 1e9) {
      throw std::runtime_error(std::string("config.json needs a whole number for ") + name);
    }
    return at->get<int64_t>();
  }
  bool is_moe(int64_t layer) const {
    if (experts_ == 0) return false;
    const auto types = config_.find("mlp_layer_types");
    if (types == config_.end() || !types->is_array()) {
      return layer >= number("first_k_dense_replace", 0) && layer % number("moe_layer_freq", 1) == 0;
    }
    return static_cast<size_t>(layer) >= types->size() || types->at(static_cast<size_t>(layer)) == "sparse";
  }

  void add(const std::string& name, Type type, std::vector<int64_t> shape, double mean, double sigma) {
    tensors_.push_back({name, type, std::move(shape), mean, sigma});
  }
  void norm(const std::string& name, int64_t size) { add(name, plain_type(), {size}, 1, 0.1); }
  void linear(const std::string& name, int64_t rows, int64_t cols, double gain) {
    double sigma = gain / std::sqrt(static_cast<double>(cols));
    if (matrix_type_ != Type::f8) return add(name, matrix_type_, {rows, cols}, 0, sigma);
    // Block scales are 2^k times 1/2, 1 or 2, so that a wrong block shows; this keeps the mean square.
    sigma /= std::sqrt((0.25 + 1 + 4) / 3);
    const double exponent = std::ceil(std::log2(sigma / 64));  // stored values then have a sigma of 32 to 64
    add(name, Type::f8, {rows, cols}, 0, sigma / std::exp2(exponent));
    add(name + "_scale_inv", Type::scale, {(rows + kBlock - 1) / kBlock, (cols + kBlock - 1) / kBlock}, 0,
        exponent);
  }
  void ffn(const std::string& at, int64_t intermediate) {
    linear(at + "gate_proj.weight", intermediate, hidden_, 1);
    linear(at + "up_proj.weight", intermediate, hidden_, 1);
    linear(at + "down_proj.weight", hidden_, intermediate, 1);
  }

  void layer(int64_t i, bool moe) {
    const std::string at = prefix(i), attention = at + "self_attn.", mlp = at + "mlp.";
    const double by_hidden = 1 / std::sqrt(static_cast<double>(hidden_));
    norm(at + "input_layernorm.weight", hidden_);
    // Gain 1.5: attention scores then have a sigma of 1.5 to 3, neither flat nor one-hot.
    if (q_rank_ > 0) {
      linear(attention + "q_a_proj.weight", q_rank_, hidden_, 1);
      norm(attention + "q_a_layernorm.weight", q_rank_);
      linear(attention + "q_b_proj.weight", heads_ * (nope_ + rope_), q_rank_, 1.5);
    } else {
      linear(attention + "q_proj.weight", heads_ * (nope_ + rope_), hidden_, 1.5);
    }
    linear(attention + "kv_a_proj_with_mqa.weight", kv_rank_ + rope_, hidden_, 1);
    norm(attention + "kv_a_layernorm.weight", kv_rank_);
    linear(attention + "kv_b_proj.weight", heads_ * (nope_ + v_), kv_rank_, 1);
    linear(attention + "o_proj.weight", hidden_, heads_ * v_, 1.5);
    if (config_.value("model_type", "") == "deepseek_v32") {
      const int64_t index_heads = number("index_n_heads"), index_dim = number("index_head_dim");
      linear(attention + "indexer.wq_b.weight", index_heads * index_dim, q_rank_, 1);
      linear(attention + "indexer.wk.weight", index_dim, hidden_, 1);
      add(attention + "indexer.k_norm.weight", Type::f32, {index_dim}, 1, 0.1);
      add(attention + "indexer.k_norm.bias", Type::f32, {index_dim}, 0, 0.1);
      add(attention + "indexer.weights_proj.weight", plain_type(), {index_heads, hidden_}, 0, by_hidden);
    }
    norm(at + "post_attention_layernorm.weight", hidden_);
    if (!moe) return ffn(mlp, number("intermediate_size"));
    const int64_t intermediate = number("moe_intermediate_size");
    add(mlp + "gate.weight", plain_type(), {experts_, hidden_}, 0, 1.5 * by_hidden);
    add(mlp + "gate.e_score_correction_bias", Type::f32, {experts_}, 0, 0.05);
    for (int64_t e = 0; e < experts_; ++e) ffn(mlp + "experts." + std::to_string(e) + ".", intermediate);
    const int64_t shared = number("n_shared_experts", 0);
    if (shared > 0) ffn(mlp + "shared_experts.", shared * intermediate);
  }

  const ordered_json& config_;
  Type matrix_type_;
  int64_t hidden_, heads_, nope_, rope_, v_, kv_rank_, q_rank_, experts_;
  std::vector<Tensor> tensors_;
};

}  // namespace

std::vector<Tensor> tensors_of(const ordered_json& config, const SynthOptions& options) {
  try {
    return Tensors(config, options.dtype).take();
  } catch (const ordered_json::exception& error) {
    throw std::runtime_error(options.config + " has a field of the wrong type: " + error.what());
  }
}

nlohmann::json header_entry(const Tensor& tensor, int64_t begin) {
  static constexpr const char* kNames[] = {"F8_E4M3", "BF16", "F32", "F32"};
  return {{"dtype", kNames[static_cast<int>(tensor.type)]},
          {"shape", tensor.shape},
          {"data_offsets", {begin, begin + tensor.bytes()}}};
}

// ------------------------------------------------------------------------------------------------ values

uint64_t next_random(uint64_t& state) {
  uint64_t z = state += 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return z ^ z >> 31;
}

uint64_t seed_of(const std::string& name, uint64_t seed) {
  uint64_t h = 0xCBF29CE484222325u;  // FNV-1a
  for (const char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return h ^ seed * 0xD1342543DE82EF95u;
}

namespace {

uint16_t to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

// Nearest, ties to even; saturates at 448, because e4m3 has no infinity.
uint8_t to_e4m3(double value) {
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  const double size = std::min(std::abs(value), 448.0);
  if (size < std::exp2(-10)) return sign;
  const int exponent = std::max(std::ilogb(size), -6);
  // Below 2^-6 the steps stay 2^-9 (subnormals); rounding up carries into the exponent field by itself.
  const auto steps = static_cast<int>(std::nearbyint(size * std::exp2(3 - exponent)));
  return static_cast<uint8_t>(sign | ((exponent + 6) * 8 + steps));
}

template <size_t kSize>
void fill_by(unsigned char* out, size_t bytes, const unsigned char* table, uint64_t& state) {
  for (size_t at = 0; at < bytes; at += 4 * kSize) {
    const uint64_t random = next_random(state);
    unsigned char four[4 * kSize];
    for (size_t i = 0; i < 4; ++i)
      std::memcpy(four + i * kSize, table + (random >> (16 * i) & 0xFFFF) * kSize, kSize);
    std::memcpy(out + at, four, std::min(sizeof four, bytes - at));
  }
}

}  // namespace

Normals::Normals() : values_(kCount) {
  uint64_t state = 1;
  const auto uniform = [&state] { return (static_cast<double>(next_random(state) >> 11) + 0.5) * 0x1p-53; };
  for (size_t i = 0; i < kCount / 2; ++i) {
    values_[i] = std::sqrt(-2 * std::log(uniform())) * std::cos(2 * std::numbers::pi * uniform());
    values_[i + kCount / 2] = -values_[i];
  }
}

const std::vector<unsigned char>& Normals::stored(Type type, double mean, double sigma) {
  std::vector<unsigned char>& bytes = stored_[{type, mean, sigma}];
  if (!bytes.empty()) return bytes;
  const size_t size = type == Type::f8 ? 1 : type == Type::bf16 ? 2 : 4;
  bytes.resize(kCount * size);
  for (size_t i = 0; i < kCount; ++i) {
    const double value = mean + sigma * values_[i];
    const auto single = static_cast<float>(value);
    const uint16_t half = to_bf16(single);
    const uint8_t quarter = to_e4m3(value);
    const void* from = size == 1   ? static_cast<const void*>(&quarter)
                       : size == 2 ? static_cast<const void*>(&half)
                                   : static_cast<const void*>(&single);
    std::memcpy(bytes.data() + i * size, from, size);
  }
  return bytes;
}

void Normals::fill(const Tensor& tensor, unsigned char* out, int64_t bytes, uint64_t& state) {
  const unsigned char* table = stored(tensor.type, tensor.mean, tensor.sigma).data();
  const auto size = static_cast<size_t>(bytes);
  if (tensor.type == Type::f8) {
    fill_by<1>(out, size, table, state);
  } else if (tensor.type == Type::bf16) {
    fill_by<2>(out, size, table, state);
  } else {
    fill_by<4>(out, size, table, state);
  }
}

std::vector<float> scales_of(const Tensor& tensor, uint64_t& state) {
  std::vector<float> scales(static_cast<size_t>(tensor.count()));
  for (float& scale : scales) {
    scale = static_cast<float>(std::exp2(tensor.sigma + static_cast<double>(next_random(state) % 3) - 1));
  }
  return scales;
}

}  // namespace cli::synthetic
