#include "model/config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <optional>

#include "base/error.h"
#include "base/json.h"

namespace dsv {
namespace {

using nlohmann::json;

// Bounds far above any model, so that products of four of them stay within int64_t.
constexpr int64_t kMaxDim = int64_t{1} << 20;
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxHeads = int64_t{1} << 14;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxExperts = int64_t{1} << 14;
constexpr int64_t kMaxPositions = int64_t{1} << 30;

// Typed access to one object of the file. null counts as absent, as it does for Hugging Face.
class Fields {
 public:
  Fields(const json& object, std::string file, std::string prefix)
      : object_(object), file_(std::move(file)), prefix_(std::move(prefix)) {
    if (!object_.is_object()) invalid("", "must be an object");
  }

  const json* find(const char* name) const {
    const auto at = object_.find(name);
    return at == object_.end() || at->is_null() ? nullptr : &*at;
  }
  std::optional<int64_t> integer_if(const char* name, int64_t low, int64_t high) const {
    const json* value = find(name);
    if (!value) return std::nullopt;
    // Unsigned numbers above the int64_t range would turn negative on conversion.
    const bool fits = value->is_number_integer() &&
                      !(value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(high));
    if (!fits || value->get<int64_t>() < low || value->get<int64_t>() > high) {
      invalid(name,
              fmt::format("is {}; it must be a whole number from {} to {}", text_of(*value), low, high));
    }
    return value->get<int64_t>();
  }
  int64_t integer(const char* name, int64_t low, int64_t high) const {
    const std::optional<int64_t> value = integer_if(name, low, high);
    if (!value) invalid(name, "is missing; a complete config.json has it");
    return *value;
  }
  std::optional<double> number_if(const char* name, double low, double high) const {
    const json* value = find(name);
    if (!value) return std::nullopt;
    const double number =
        value->is_number() ? value->get<double>() : std::numeric_limits<double>::quiet_NaN();
    if (!(number >= low && number <= high)) {
      invalid(name, fmt::format("is {}; it must be a number from {} to {}", text_of(*value), low, high));
    }
    return number;
  }
  double number(const char* name, double low, double high) const {
    const std::optional<double> value = number_if(name, low, high);
    if (!value) invalid(name, "is missing; a complete config.json has it");
    return *value;
  }
  std::optional<bool> flag_if(const char* name) const {
    const json* value = find(name);
    if (!value) return std::nullopt;
    if (!value->is_boolean()) invalid(name, fmt::format("is {}; it must be true or false", text_of(*value)));
    return value->get<bool>();
  }
  std::optional<std::string> text_if(const char* name) const {
    const json* value = find(name);
    if (!value) return std::nullopt;
    if (!value->is_string()) invalid(name, fmt::format("is {}; it must be a string", text_of(*value)));
    return value->get<std::string>();
  }
  // A list of `count` strings, or of `count + extra`.
  std::optional<std::vector<std::string>> texts_if(const char* name, int64_t count, int64_t extra) const {
    const json* value = find(name);
    if (!value) return std::nullopt;
    const auto size = value->is_array() ? static_cast<int64_t>(value->size()) : -1;
    if (size != count && size != count + extra) {
      invalid(name, fmt::format("must be a list of {} strings, one for each layer", count));
    }
    std::vector<std::string> texts;
    for (const json& item : *value) {
      if (!item.is_string()) invalid(name, "must be a list of strings");
      texts.push_back(item.get<std::string>());
    }
    return texts;
  }
  // For options with one value that dsv implements.
  void only(const char* name, const json& built) const {
    const json* value = find(name);
    if (value && *value != built) {
      unsupported(name, fmt::format("is {}; dsv implements {} only", text_of(*value), text_of(built)));
    }
  }
  // For fields that repeat what others say.
  void same(const char* name, int64_t expected, const char* source) const {
    const std::optional<int64_t> value = integer_if(name, 0, kMaxPositions);
    if (value && *value != expected) {
      invalid(name, fmt::format("is {}, but {} makes it {}; correct one of them", *value, source, expected));
    }
  }
  [[noreturn]] void invalid(std::string_view name, std::string_view what) const {
    // Without a name it is the object itself: rope_scaling for the prefix "rope_scaling.".
    const std::string_view object =
        prefix_.empty() ? "the whole file" : std::string_view(prefix_).substr(0, prefix_.size() - 1);
    fail(DSV_ERROR_INVALID_FILE, "{}: {}{} {}", shown(file_), name.empty() ? "" : prefix_,
         name.empty() ? object : name, what);
  }
  [[noreturn]] void unsupported(std::string_view name, std::string_view what) const {
    fail(DSV_ERROR_UNSUPPORTED, "{}: {}{} {}", shown(file_), prefix_, name, what);
  }
  Fields inner(const char* name) const { return Fields(object_.at(name), file_, prefix_ + name + "."); }

 private:
  static std::string text_of(const json& value) {
    if (value.is_object()) return "an object";
    const std::string text = value.dump();
    return text.size() <= 60 ? text : value.is_array() ? "a long list" : "a long value";
  }
  const json& object_;
  std::string file_;
  std::string prefix_;
};

// ------------------------------------------------------------------------------------------------ RoPE

struct Rope {
  double theta = 10000;
  bool yarn = false;
  double factor = 1;
  double original_positions = 0;
  double beta_fast = 32, beta_slow = 1;
  double mscale = 0, mscale_all_dim = 0;  // 0: absent
  double attention_factor = 0;            // 0: absent
  bool truncate = true;
  bool operator==(const Rope&) const = default;
};

constexpr double kMinTheta = 1.0001;  // the YaRN ramp divides by ln(theta)
constexpr double kMaxTheta = 1e15;

Rope read_rope(const Fields& fields, double theta, int64_t max_positions) {
  Rope rope;
  rope.theta = theta;
  const std::optional<std::string> type = fields.text_if("rope_type"), old_type = fields.text_if("type");
  if (type && old_type && *type != *old_type) fields.invalid("rope_type", "and type differ; keep one");
  const std::string kind = type ? *type : old_type ? *old_type : "default";
  fields.only("partial_rotary_factor", 1);
  if (kind == "default") return rope;
  if (kind != "yarn") {
    fields.unsupported(type ? "rope_type" : "type",
                       fmt::format("is {}; dsv implements yarn and default", shown(kind)));
  }
  rope.yarn = true;
  rope.factor = fields.number("factor", 1e-3, 1e6);
  rope.original_positions = static_cast<double>(
      fields.integer_if("original_max_position_embeddings", 1, kMaxPositions).value_or(max_positions));
  rope.beta_fast = fields.number_if("beta_fast", 1e-6, 1e6).value_or(32);
  rope.beta_slow = fields.number_if("beta_slow", 1e-6, 1e6).value_or(1);
  rope.mscale = fields.number_if("mscale", 0, 1e3).value_or(0);
  rope.mscale_all_dim = fields.number_if("mscale_all_dim", 0, 1e3).value_or(0);
  rope.attention_factor = fields.number_if("attention_factor", 1e-6, 1e6).value_or(0);
  rope.truncate = fields.flag_if("truncate").value_or(true);
  return rope;
}

// rope_theta + rope_scaling, or rope_parameters with everything inside, or both if they agree.
Rope find_rope(const Fields& root, int64_t max_positions) {
  const std::optional<double> theta = root.number_if("rope_theta", kMinTheta, kMaxTheta);
  std::optional<Rope> rope;
  if (root.find("rope_parameters")) {
    const Fields parameters = root.inner("rope_parameters");
    const std::optional<double> inner = parameters.number_if("rope_theta", kMinTheta, kMaxTheta);
    if (theta && inner && *theta != *inner) {
      root.invalid("rope_theta", "and rope_parameters.rope_theta differ; keep one");
    }
    rope = read_rope(parameters, inner ? *inner : theta.value_or(10000), max_positions);
  }
  if (root.find("rope_scaling")) {
    const Rope scaling =
        read_rope(root.inner("rope_scaling"), rope ? rope->theta : theta.value_or(10000), max_positions);
    if (rope && *rope != scaling) root.invalid("rope_scaling", "and rope_parameters differ; keep one");
    rope = scaling;
  }
  if (!rope) {
    rope.emplace();
    rope->theta = theta.value_or(10000);
  }
  return *rope;
}

double yarn_mscale(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

// The dimension pair (as a real number) whose wave turns `rotations` times within the original context.
double yarn_dimension(const Rope& rope, double dim, double rotations) {
  return dim * std::log(rope.original_positions / (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(rope.theta));
}

void apply_rope(const Rope& rope, Geometry& g) {
  const auto dim = static_cast<double>(g.qk_rope_head_dim);
  g.softmax_scale = 1 / std::sqrt(static_cast<double>(g.qk_head_dim()));
  g.rope_mscale = 1;
  g.inv_freq.resize(static_cast<size_t>(g.qk_rope_head_dim / 2));
  for (size_t i = 0; i < g.inv_freq.size(); ++i) {
    g.inv_freq[i] = std::pow(rope.theta, -2.0 * static_cast<double>(i) / dim);
  }
  if (!rope.yarn) return;

  const double m = yarn_mscale(rope.factor, rope.mscale_all_dim);
  g.softmax_scale *= m * m;
  if (rope.attention_factor > 0) {
    g.rope_mscale = rope.attention_factor;
  } else if (rope.mscale > 0 && rope.mscale_all_dim > 0) {
    g.rope_mscale = yarn_mscale(rope.factor, rope.mscale) / m;
  } else {
    g.rope_mscale = yarn_mscale(rope.factor, 1);
  }

  double low = yarn_dimension(rope, dim, rope.beta_fast), high = yarn_dimension(rope, dim, rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < g.inv_freq.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    g.inv_freq[i] *= (1 - ramp) + ramp / rope.factor;
  }
}

// ------------------------------------------------------------------------------------------------ parts

void read_attention(const Fields& root, bool has_indexer, Geometry& g) {
  g.num_heads = static_cast<int32_t>(root.integer("num_attention_heads", 1, kMaxHeads));
  if (!root.find("q_lora_rank")) {
    if (has_indexer) {
      root.unsupported("q_lora_rank", "is null, but the indexer of deepseek_v32 reads the query latent");
    }
  } else {
    g.q_lora_rank = root.integer("q_lora_rank", 1, kMaxDim);
  }
  g.kv_lora_rank = root.integer("kv_lora_rank", 1, kMaxDim);
  g.qk_nope_head_dim = root.integer("qk_nope_head_dim", 1, kMaxDim);
  g.qk_rope_head_dim = root.integer("qk_rope_head_dim", 2, kMaxDim);
  g.v_head_dim = root.integer("v_head_dim", 1, kMaxDim);
  if (g.qk_rope_head_dim % 2 != 0) root.invalid("qk_rope_head_dim", "is odd; RoPE turns pairs");
  root.same("qk_head_dim", g.qk_head_dim(), "qk_nope_head_dim + qk_rope_head_dim");
  root.same("head_dim", g.qk_rope_head_dim, "qk_rope_head_dim");
  root.same("num_key_value_heads", g.num_heads, "num_attention_heads");
  root.only("partial_rotary_factor", 1);
  root.only("attention_bias", false);
  root.only("rope_interleave", true);
  root.only("indexer_rope_interleave", false);
  if (!has_indexer) return;
  g.index_n_heads = static_cast<int32_t>(root.integer("index_n_heads", 1, kMaxHeads));
  g.index_head_dim = root.integer("index_head_dim", 1, kMaxDim);
  g.index_topk = static_cast<int32_t>(root.integer("index_topk", 1, kMaxDim));
  if (g.index_head_dim < g.qk_rope_head_dim) {
    root.invalid("index_head_dim",
                 fmt::format("is {}, less than the {} values of qk_rope_head_dim that it carries",
                             g.index_head_dim, g.qk_rope_head_dim));
  }
}

void check_layer_types(const Fields& root, const Geometry& g) {
  const auto types = root.texts_if("layer_types", g.num_layers, 1);
  if (!types) return;
  for (const std::string& type : *types) {
    const bool built = g.has_indexer() ? type == "indexed_attention" || type == "deepseek_sparse_attention"
                                       : type == "full_attention";
    if (!built) {
      root.unsupported("layer_types",
                       fmt::format("names {}, which is not built for this model_type", shown(type)));
    }
  }
}

// first_k_dense_replace with moe_layer_freq, or mlp_layer_types. With both, the list decides for
// deepseek_v32, because transformers reads it alone there and writes its default of 3 beside it; for
// deepseek_v3, where it reads the number alone, they must agree.
void read_layers(const Fields& root, ModelConfig& config) {
  const int32_t layers = config.geometry.num_layers;
  const std::optional<int64_t> first_moe = root.integer_if("first_k_dense_replace", 0, kMaxPositions);
  const int64_t every = root.integer_if("moe_layer_freq", 1, kMaxLayers).value_or(1);
  const bool any_experts = root.integer_if("n_routed_experts", 0, kMaxExperts).value_or(0) > 0;
  const auto types = root.texts_if("mlp_layer_types", layers, config.num_nextn_predict_layers);
  if (!types && !first_moe && any_experts) {
    root.invalid("first_k_dense_replace",
                 "is missing; say which layers are dense, by it or by mlp_layer_types");
  }
  const auto by_count = [&](int64_t layer) {
    return any_experts && first_moe && layer >= *first_moe && layer % every == 0;
  };
  const bool list_decides = types && config.geometry.has_indexer();
  config.mtp_is_moe = first_moe && !list_decides ? by_count(layers) : any_experts;
  for (int32_t i = 0; i < layers; ++i) config.layer_is_moe.push_back(by_count(i));
  if (types) {
    for (size_t i = 0; i < types->size(); ++i) {
      const std::string& type = (*types)[i];
      if (type != "dense" && type != "sparse") {
        root.unsupported("mlp_layer_types", fmt::format("names {}; dsv knows dense and sparse", shown(type)));
      }
      const bool is_moe = type == "sparse";
      if (is_moe && !any_experts)
        root.invalid("mlp_layer_types", "has sparse layers, but n_routed_experts none");
      if (i >= config.layer_is_moe.size()) {
        config.mtp_is_moe = is_moe;
      } else if (first_moe && config.layer_is_moe[i] != is_moe && !list_decides) {
        root.invalid("mlp_layer_types",
                     fmt::format("and first_k_dense_replace differ about layer {}; correct one of them", i));
      } else {
        config.layer_is_moe[i] = is_moe;
      }
    }
  }
  const auto moe = std::find(config.layer_is_moe.begin(), config.layer_is_moe.end(), true);
  config.first_k_dense_replace = static_cast<int32_t>(moe - config.layer_is_moe.begin());
}

void read_mlp(const Fields& root, const ModelConfig& config, Geometry& g) {
  root.only("hidden_act", "silu");
  root.only("mlp_bias", false);
  const bool mtp = config.num_nextn_predict_layers > 0;
  const bool any_moe = config.first_k_dense_replace < g.num_layers || (mtp && config.mtp_is_moe);
  const bool any_dense =
      std::find(config.layer_is_moe.begin(), config.layer_is_moe.end(), false) != config.layer_is_moe.end() ||
      (mtp && !config.mtp_is_moe);
  if (any_dense) g.intermediate_size = root.integer("intermediate_size", 1, kMaxDim);
  if (!any_moe) return;
  root.only("scoring_func", "sigmoid");
  root.only("topk_method", "noaux_tc");
  g.moe_intermediate_size = root.integer("moe_intermediate_size", 1, kMaxDim);
  g.n_routed_experts = static_cast<int32_t>(root.integer("n_routed_experts", 1, kMaxExperts));
  g.n_shared_experts = static_cast<int32_t>(root.integer_if("n_shared_experts", 0, 1024).value_or(0));
  g.num_experts_per_tok = static_cast<int32_t>(root.integer("num_experts_per_tok", 1, kMaxExperts));
  g.n_group = static_cast<int32_t>(root.integer_if("n_group", 1, kMaxExperts).value_or(1));
  g.topk_group = g.n_group == 1 ? 1 : static_cast<int32_t>(root.integer("topk_group", 1, kMaxExperts));
  g.norm_topk_prob = root.flag_if("norm_topk_prob").value_or(true);
  g.routed_scaling_factor = root.number("routed_scaling_factor", -1e6, 1e6);
  if (g.n_routed_experts % g.n_group != 0) {
    root.invalid("n_group", fmt::format("is {}, which does not divide the {} experts of n_routed_experts",
                                        g.n_group, g.n_routed_experts));
  }
  if (g.topk_group > g.n_group) {
    root.invalid("topk_group", fmt::format("is {}, more than the {} of n_group", g.topk_group, g.n_group));
  }
  const int32_t candidates = g.topk_group * (g.n_routed_experts / g.n_group);
  if (g.num_experts_per_tok > candidates) {
    root.invalid("num_experts_per_tok",
                 fmt::format("is {}, more than the {} experts in the groups that are kept",
                             g.num_experts_per_tok, candidates));
  }
}

void read_quantization(const Fields& root, Geometry& g) {
  if (!root.find("quantization_config")) return;
  const Fields quant = root.inner("quantization_config");
  quant.only("quant_method", "fp8");
  quant.only("fmt", "e4m3");
  quant.only("activation_scheme", "dynamic");
  quant.only("weight_block_size", json::array({128, 128}));
  if (!quant.find("quant_method")) quant.invalid("quant_method", "is missing; for block FP8 it is \"fp8\"");
  if (!quant.find("weight_block_size")) {
    quant.unsupported("weight_block_size", "is missing; dsv implements blocks of [128, 128] only");
  }
  quant.only("scale_fmt", "ue8m0");
  g.ue8m0_scales = quant.find("scale_fmt") != nullptr;
}

void check_dtype(const Fields& root) {
  std::optional<std::string> names[2] = {root.text_if("dtype"), root.text_if("torch_dtype")};
  for (std::optional<std::string>& name : names) {
    if (name && name->starts_with("torch.")) name->erase(0, 6);
    if (name && *name != "bfloat16" && *name != "float16" && *name != "float32") {
      root.unsupported("dtype", fmt::format("is {}; dsv reads bfloat16, float16 and float32", shown(*name)));
    }
  }
  if (names[0] && names[1] && names[0] != names[1]) root.invalid("dtype", "and torch_dtype differ; keep one");
}

void check_architectures(const Fields& root, bool has_indexer) {
  const json* list = root.find("architectures");
  if (!list) return;
  const char* expected = has_indexer ? "DeepseekV32ForCausalLM" : "DeepseekV3ForCausalLM";
  if (!list->is_array()) root.invalid("architectures", "must be a list of names");
  if (std::find(list->begin(), list->end(), json(expected)) == list->end()) {
    root.unsupported("architectures",
                     fmt::format("does not name {}, the one built for this model_type", expected));
  }
}

int32_t read_token(const Fields& root, const char* name, int64_t vocab_size) {
  const json* value = root.find(name);
  if (!value) return -1;
  if (value->is_array()) {
    if (value->size() != 1) root.unsupported(name, "is a list; dsv implements one token only");
    value = &value->front();
  }
  if (!value->is_number_unsigned() || value->get<uint64_t>() >= static_cast<uint64_t>(vocab_size)) {
    root.invalid(name, fmt::format("must be a token id below vocab_size {}", vocab_size));
  }
  return value->get<int32_t>();
}

}  // namespace

ModelConfig parse_config(std::string_view text, std::string_view file) {
  const JsonDocument document = parse_json_file(text, file, JsonLimits{});
  const Fields root(document.root, std::string(file), "");
  ModelConfig config;
  Geometry& g = config.geometry;

  const std::optional<std::string> model_type = root.text_if("model_type");
  if (!model_type) root.invalid("model_type", "is missing; it must be deepseek_v32 or deepseek_v3");
  config.model_type = *model_type;
  const bool has_indexer = *model_type == "deepseek_v32";
  if (!has_indexer && *model_type != "deepseek_v3") {
    root.unsupported("model_type",
                     fmt::format("is {}; dsv runs deepseek_v32 and deepseek_v3", shown(*model_type)));
  }
  check_architectures(root, has_indexer);

  g.vocab_size = root.integer("vocab_size", 1, kMaxVocab);
  g.hidden_size = root.integer("hidden_size", 1, kMaxDim);
  g.num_layers = static_cast<int32_t>(root.integer("num_hidden_layers", 1, kMaxLayers));
  g.rms_norm_eps = root.number_if("rms_norm_eps", 1e-30, 1).value_or(1e-6);
  config.max_position_embeddings = root.integer("max_position_embeddings", 1, kMaxPositions);
  config.num_nextn_predict_layers =
      static_cast<int32_t>(root.integer_if("num_nextn_predict_layers", 0, kMaxLayers).value_or(0));
  config.tie_word_embeddings = root.flag_if("tie_word_embeddings").value_or(false);
  config.bos_token_id = read_token(root, "bos_token_id", g.vocab_size);
  config.eos_token_id = read_token(root, "eos_token_id", g.vocab_size);

  read_attention(root, has_indexer, g);
  check_layer_types(root, g);
  read_layers(root, config);
  read_mlp(root, config, g);
  read_quantization(root, g);
  check_dtype(root);
  apply_rope(find_rope(root, config.max_position_embeddings), g);
  return config;
}

void check_precision(const ModelConfig& config, Precision precision) {
  const Geometry& g = config.geometry;
  const int64_t dim = g.index_head_dim;
  if (precision == Precision::official && g.has_indexer() && (dim & (dim - 1)) != 0) {
    fail(DSV_ERROR_UNSUPPORTED,
         "precision official needs an index_head_dim that is a power of two for its Hadamard transform, and "
         "config.json has {}: use precision exact",
         dim);
  }
}

}  // namespace dsv
