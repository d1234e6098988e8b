#include "model/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "memory/safetensors.h"

namespace dsv {
namespace {

constexpr JsonLimits kIndexLimits{.bytes = int64_t{64} << 20, .nodes = int64_t{1} << 21, .depth = 16};

// ------------------------------------------------------------------------------------- names and shapes

enum class Role {
  vector,  // [cols], any float dtype, few enough to look at every value
  table,   // read by row or in fp32: no FP8
  linear,
  expert,  // linear, and read by some tokens only
};

// The architecture's tensors, said once. `Place` is called as place(name, rows, cols, role) in the order of
// computation and gives the handle, or null while only checking; place.has(name) asks for optional ones.
template <class Place>
class Layout {
 public:
  Layout(const ModelConfig& config, Place& place) : config_(config), g_(config.geometry), place_(place) {}

  ModelWeights model(bool with_mtp) {
    ModelWeights w;
    w.embed = place_("model.embed_tokens.weight", g_.vocab_size, g_.hidden_size, Role::table);
    for (int32_t i = 0; i < g_.num_layers; ++i) {
      w.layers.push_back(layer(i, config_.layer_is_moe[static_cast<size_t>(i)]));
    }
    w.norm = vector("model.norm.weight", g_.hidden_size);
    w.head = config_.tie_word_embeddings
                 ? w.embed
                 : place_("lm_head.weight", g_.vocab_size, g_.hidden_size, Role::linear);
    w.has_mtp = with_mtp;
    if (with_mtp) w.mtp = mtp(w);
    return w;
  }

 private:
  static std::string layer_prefix(int32_t i) { return fmt::format("model.layers.{}.", i); }

  const Weight* vector(const std::string& name, int64_t size) { return place_(name, 1, size, Role::vector); }

  LayerWeights layer(int32_t i, bool is_moe) {
    const std::string at = layer_prefix(i);
    LayerWeights w;
    w.input_norm = vector(at + "input_layernorm.weight", g_.hidden_size);
    w.attention = attention(at + "self_attn.");
    w.post_norm = vector(at + "post_attention_layernorm.weight", g_.hidden_size);
    w.is_moe = is_moe;
    if (is_moe) {
      w.moe = moe(at + "mlp.");
    } else {
      w.ffn = ffn(at + "mlp.", g_.intermediate_size, Role::linear);
    }
    return w;
  }

  AttentionWeights attention(const std::string& at) {
    const int64_t q_rows = g_.num_heads * g_.qk_head_dim();
    AttentionWeights w;
    if (g_.q_lora_rank > 0) {
      w.q_a = place_(at + "q_a_proj.weight", g_.q_lora_rank, g_.hidden_size, Role::linear);
      w.q_a_norm = vector(at + "q_a_layernorm.weight", g_.q_lora_rank);
      w.q_b = place_(at + "q_b_proj.weight", q_rows, g_.q_lora_rank, Role::linear);
    } else {
      w.q_b = place_(at + "q_proj.weight", q_rows, g_.hidden_size, Role::linear);
    }
    w.kv_a = place_(at + "kv_a_proj_with_mqa.weight", g_.latent_dim(), g_.hidden_size, Role::linear);
    w.kv_a_norm = vector(at + "kv_a_layernorm.weight", g_.kv_lora_rank);
    w.kv_b = place_(at + "kv_b_proj.weight", g_.num_heads * (g_.qk_nope_head_dim + g_.v_head_dim),
                    g_.kv_lora_rank, Role::linear);
    w.o = place_(at + "o_proj.weight", g_.hidden_size, g_.num_heads * g_.v_head_dim, Role::linear);
    if (g_.has_indexer()) {
      const int64_t heads = g_.index_n_heads;
      w.wq_b = place_(at + "indexer.wq_b.weight", heads * g_.index_head_dim, g_.q_lora_rank, Role::linear);
      w.wk = place_(at + "indexer.wk.weight", g_.index_head_dim, g_.hidden_size, Role::linear);
      w.k_norm_weight = vector(at + "indexer.k_norm.weight", g_.index_head_dim);
      w.k_norm_bias = vector(at + "indexer.k_norm.bias", g_.index_head_dim);
      w.weights_proj = place_(at + "indexer.weights_proj.weight", heads, g_.hidden_size, Role::table);
    }
    return w;
  }

  FfnWeights ffn(const std::string& at, int64_t intermediate, Role role) {
    FfnWeights w;
    w.gate = place_(at + "gate_proj.weight", intermediate, g_.hidden_size, role);
    w.up = place_(at + "up_proj.weight", intermediate, g_.hidden_size, role);
    w.down = place_(at + "down_proj.weight", g_.hidden_size, intermediate, role);
    return w;
  }

  MoeWeights moe(const std::string& at) {
    MoeWeights w;
    w.gate = place_(at + "gate.weight", g_.n_routed_experts, g_.hidden_size, Role::table);
    w.bias = vector(at + "gate.e_score_correction_bias", g_.n_routed_experts);
    for (int32_t e = 0; e < g_.n_routed_experts; ++e) {
      w.experts.push_back(ffn(fmt::format("{}experts.{}.", at, e), g_.moe_intermediate_size, Role::expert));
    }
    if (g_.n_shared_experts > 0) {
      w.shared = ffn(at + "shared_experts.", g_.shared_intermediate_size(), Role::linear);
    }
    return w;
  }

  // The layer behind the last one. Its embedding and head are copies of the main ones, and may be left out.
  MtpWeights mtp(const ModelWeights& main) {
    const std::string at = layer_prefix(g_.num_layers);
    MtpWeights w;
    w.embed = main.embed;
    if (place_.has(at + "embed_tokens.weight")) {
      w.embed = place_(at + "embed_tokens.weight", g_.vocab_size, g_.hidden_size, Role::table);
    }
    w.enorm = vector(at + "enorm.weight", g_.hidden_size);
    w.hnorm = vector(at + "hnorm.weight", g_.hidden_size);
    w.eh_proj = place_(at + "eh_proj.weight", g_.hidden_size, 2 * g_.hidden_size, Role::linear);
    w.layer = layer(g_.num_layers, config_.mtp_is_moe);
    w.head_norm = vector(at + "shared_head.norm.weight", g_.hidden_size);
    w.head = main.head;
    if (place_.has(at + "shared_head.head.weight")) {
      w.head = place_(at + "shared_head.head.weight", g_.vocab_size, g_.hidden_size, Role::linear);
    }
    return w;
  }

  const ModelConfig& config_;
  const Geometry& g_;
  Place& place_;
};

// ------------------------------------------------------------------------------------- checks

int64_t blocks(int64_t size) { return (size + kQuantBlock - 1) / kQuantBlock; }

int64_t scale_bytes(const HostMatrix& m) { return m.scale_inv ? 4 * blocks(m.rows) * blocks(m.cols) : 0; }

int64_t matrix_bytes(const HostMatrix& m) { return m.rows * m.cols * dtype_bytes(m.dtype) + scale_bytes(m); }

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

void check_shape(const TensorInfo& tensor, const std::vector<int64_t>& expected) {
  if (tensor.shape != expected) {
    fail(DSV_ERROR_INVALID_FILE,
         "{}: the tensor {} has shape {}, but config.json makes it {}; they do not belong together",
         shown(tensor.file), shown(tensor.name), shape_text(tensor.shape), shape_text(expected));
  }
}

Dtype float_dtype(const TensorInfo& tensor) {
  if (tensor.dtype == "BF16") return Dtype::bf16;
  if (tensor.dtype == "F16") return Dtype::f16;
  if (tensor.dtype == "F32") return Dtype::f32;
  fail(DSV_ERROR_UNSUPPORTED, "{}: the tensor {} has dtype {}; dsv needs BF16, F16 or F32 there",
       shown(tensor.file), shown(tensor.name), shown(tensor.dtype));
}

// `exponent`: the bits that are all ones in NaN and infinities.
template <class Bits>
bool all_finite(const void* data, int64_t count, Bits exponent) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  for (int64_t i = 0; i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, bytes + i * static_cast<int64_t>(sizeof bits), sizeof bits);
    if ((bits & exponent) == exponent) return false;
  }
  return true;
}

bool all_finite(Dtype dtype, const void* data, int64_t count) {
  switch (dtype) {
    case Dtype::bf16:
      return all_finite<uint16_t>(data, count, 0x7F80);
    case Dtype::f16:
      return all_finite<uint16_t>(data, count, 0x7C00);
    case Dtype::f32:
      return all_finite<uint32_t>(data, count, 0x7F800000);
    case Dtype::f8_e4m3:
      break;
  }
  return true;
}

// A shard's name as the index gives it: a plain file of the folder.
bool is_plain_name(const std::string& name) {
  if (name.empty() || name == "." || name == "..") return false;
  return std::none_of(name.begin(), name.end(),
                      [](char c) { return c == '/' || c == '\\' || static_cast<unsigned char>(c) < 0x20; });
}

}  // namespace

// ------------------------------------------------------------------------------------- open

std::unique_ptr<Checkpoint> Checkpoint::open(const Host& host, const std::string& folder, bool with_mtp) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint);
  checkpoint->folder_ = folder;
  const std::string path = folder + "/config.json";
  checkpoint->files_.push_back(host.open(path));
  checkpoint->config_ = parse_config(checkpoint->config_text(), path);
  checkpoint->read_tensors(host);
  checkpoint->check_architecture(with_mtp);
  return checkpoint;
}

std::string_view Checkpoint::config_text() const {
  const HostFile& file = *files_.front();
  return {reinterpret_cast<const char*>(file.data()), static_cast<size_t>(file.size())};
}

const TensorInfo* Checkpoint::find(const std::string& name) const {
  const auto at = by_name_.find(name);
  return at == by_name_.end() ? nullptr : &tensors_[at->second];
}

void Checkpoint::read_file(const Host& host, const std::string& name,
                           const std::function<bool(const std::string& tensor)>& take) {
  const std::string path = folder_ + "/" + name;
  files_.push_back(host.open(path));
  const unsigned char* data = files_.back()->data();
  for (SafetensorsEntry& entry : parse_safetensors(data, files_.back()->size(), path)) {
    if (!take(entry.name)) continue;
    tensors_.push_back({.name = std::move(entry.name),
                        .dtype = std::move(entry.dtype),
                        .file = name,
                        .shape = std::move(entry.shape),
                        .bytes = entry.bytes,
                        .data = data + entry.offset});
  }
}

void Checkpoint::read_tensors(const Host& host) {
  source_ = folder_ + "/model.safetensors.index.json";
  if (const std::unique_ptr<HostFile> index = host.open_if_exists(source_)) {
    const std::string_view text(reinterpret_cast<const char*>(index->data()),
                                static_cast<size_t>(index->size()));
    const JsonDocument parsed = parse_json_file(text, source_, kIndexLimits);
    const nlohmann::json& document = parsed.root;
    const auto map = document.is_object() ? document.find("weight_map") : document.end();
    if (map == document.end() || !map->is_object()) {
      fail(DSV_ERROR_INVALID_FILE, "{} has no weight_map object; download it again", shown(source_));
    }
    std::map<std::string, int64_t> tensors_of_file;
    for (const auto& [tensor, file] : map->items()) {
      if (!file.is_string() || !is_plain_name(file.get<std::string>())) {
        fail(DSV_ERROR_INVALID_FILE,
             "{}: the tensor {} must name a file of the same folder, without a path, and names {}",
             shown(source_), shown(tensor), file.is_string() ? shown(file.get<std::string>()) : "none");
      }
      ++tensors_of_file[file.get<std::string>()];
    }
    for (const auto& [file, count] : tensors_of_file) {
      const size_t before = tensors_.size();
      read_file(host, file, [&map, &file = file](const std::string& tensor) {
        const auto at = map->find(tensor);
        return at != map->end() && *at == file;
      });
      if (static_cast<int64_t>(tensors_.size() - before) == count) continue;
      std::unordered_set<std::string_view> held;
      for (size_t i = before; i < tensors_.size(); ++i) held.insert(tensors_[i].name);
      for (const auto& [tensor, owner] : map->items()) {
        if (owner == file && !held.contains(tensor)) {
          fail(DSV_ERROR_INVALID_FILE,
               "{} does not hold the tensor {} that {} places there; download both again",
               shown(folder_ + "/" + file), shown(tensor), shown(source_));
        }
      }
    }
  } else {
    source_ = folder_ + "/model.safetensors";
    read_file(host, "model.safetensors", [](const std::string&) { return true; });
  }
  for (size_t i = 0; i < tensors_.size(); ++i) by_name_.emplace(tensors_[i].name, i);
}

void Checkpoint::check_architecture(bool with_mtp) {
  const Geometry& g = config_.geometry;
  if (with_mtp && config_.num_nextn_predict_layers > 0) {
    const std::string at = fmt::format("model.layers.{}.", g.num_layers);
    has_mtp_ = find(at + "eh_proj.weight") || find(at + "enorm.weight") || find(at + "hnorm.weight");
    if (has_mtp_ && config_.num_nextn_predict_layers > 1) {
      fail(DSV_ERROR_UNSUPPORTED, "{}: num_nextn_predict_layers is {}, and dsv runs one: load without MTP",
           shown(folder_ + "/config.json"), config_.num_nextn_predict_layers);
    }
  }

  struct Checker {
    Checkpoint& self;
    int64_t expert_bytes = 0;

    bool has(const std::string& name) const { return self.find(name) != nullptr; }
    const TensorInfo& require(const std::string& name) const {
      const TensorInfo* tensor = self.find(name);
      if (!tensor) {
        fail(DSV_ERROR_INVALID_FILE,
             "{} has no tensor {}, which config.json asks for; the checkpoint is incomplete: download it "
             "again",
             shown(self.source_), shown(name));
      }
      return *tensor;
    }
    const Weight* operator()(const std::string& name, int64_t rows, int64_t cols, Role role) {
      const TensorInfo& tensor = require(name);
      check_shape(tensor,
                  role == Role::vector ? std::vector<int64_t>{cols} : std::vector<int64_t>{rows, cols});
      HostMatrix matrix{.name = tensor.name, .rows = rows, .cols = cols, .data = tensor.data};
      if (tensor.dtype == "F8_E4M3" && (role == Role::linear || role == Role::expert)) {
        const TensorInfo* scale = self.find(name + "_scale_inv");
        if (!scale) {
          fail(DSV_ERROR_INVALID_FILE,
               "{}: the tensor {} is F8_E4M3, but its block scales {}_scale_inv are missing; download it "
               "again",
               shown(tensor.file), shown(name), name);
        }
        if (scale->dtype != "F32") {
          fail(DSV_ERROR_UNSUPPORTED, "{}: the tensor {} has dtype {}; block scales must be F32",
               shown(scale->file), shown(scale->name), shown(scale->dtype));
        }
        check_shape(*scale, {blocks(rows), blocks(cols)});
        matrix.dtype = Dtype::f8_e4m3;
        matrix.scale_inv = scale->data;
      } else {
        matrix.dtype = float_dtype(tensor);
      }
      self.weight_bytes_ += matrix_bytes(matrix);
      self.parameters_ += rows * cols;
      if (role == Role::expert) expert_bytes += matrix_bytes(matrix);
      self.matrices_.push_back(matrix);
      return nullptr;
    }
  };
  // Without the MTP layer first, for what one token reads.
  Checker checker{*this};
  Layout<Checker>(config_, checker).model(false);
  const HostMatrix& embed = matrices_.front();
  const int64_t unread =
      config_.tie_word_embeddings ? 0 : (g.vocab_size - 1) * g.hidden_size * dtype_bytes(embed.dtype);
  active_bytes_ = weight_bytes_ - unread - checker.expert_bytes;
  if (g.n_routed_experts > 0)
    active_bytes_ += checker.expert_bytes / g.n_routed_experts * g.num_experts_per_tok;
  if (has_mtp_) {
    matrices_.clear();
    weight_bytes_ = parameters_ = 0;
    Layout<Checker>(config_, checker).model(true);
  }
}

// ------------------------------------------------------------------------------------- use

void Checkpoint::for_each_matrix(const std::function<void(const HostMatrix&)>& visit) const {
  for (const HostMatrix& matrix : matrices_) visit(matrix);
}

ModelWeights Checkpoint::load(const OpTable& ops, Device* device, LoadMonitor& monitor) const {
  struct Loader {
    const Checkpoint& self;
    const OpTable& ops;
    Device* device;
    LoadMonitor& monitor;
    size_t next = 0;  // into matrices_, which the same layout has filled

    bool has(const std::string& name) const { return self.find(name) != nullptr; }
    const Weight* operator()(const std::string& name, int64_t, int64_t, Role role) {
      if (monitor.cancel.load(std::memory_order_relaxed)) {
        fail(DSV_ERROR_CANCELLED, "loading {} was cancelled", shown(self.folder_));
      }
      const HostMatrix& matrix = self.matrices_[next++];
      if (role == Role::vector && !all_finite(matrix.dtype, matrix.data, matrix.cols)) damaged(name);
      if (matrix.scale_inv && !all_finite(Dtype::f32, matrix.scale_inv, scale_bytes(matrix) / 4)) {
        damaged(name + "_scale_inv");
      }
      const Weight* weight = ops.load_weight(device, matrix);
      monitor.done.fetch_add(matrix_bytes(matrix), std::memory_order_relaxed);
      return weight;
    }
    [[noreturn]] void damaged(const std::string& name) const {
      fail(DSV_ERROR_INVALID_FILE,
           "{}: the tensor {} holds NaN or infinity; the file is damaged: download it again",
           shown(self.find(name)->file), shown(name));
    }
  };
  monitor.done = 0;
  monitor.total = weight_bytes_;
  // Block scales lie between weights that a load has no reason to read.
  struct SparseReads {
    const std::vector<std::unique_ptr<HostFile>>& files;
    explicit SparseReads(const std::vector<std::unique_ptr<HostFile>>& f) : files(f) { set(true); }
    ~SparseReads() { set(false); }
    void set(bool sparse) const {
      for (const auto& file : files) file->expect_sparse_reads(sparse);
    }
  };
  const SparseReads sparse_reads(files_);
  Loader loader{*this, ops, device, monitor};
  return Layout<Loader>(config_, loader).model(has_mtp_);
}

}  // namespace dsv
