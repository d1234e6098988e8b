#include "samples/cli/synth.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>
#include <vector>

#include "samples/cli/synth_tensors.h"
#include "samples/cli/synth_tokenizer.h"

namespace cli {
namespace {

using nlohmann::ordered_json;
using synthetic::Tensor;
using synthetic::Type;
namespace fs = std::filesystem;

constexpr int64_t kShardBytes = 1'000'000'000;
constexpr int64_t kPiece = 4 << 20;

class Output {
 public:
  explicit Output(const fs::path& path) : path_(path), file_(path, std::ios::binary) { check(); }
  void write(const void* data, int64_t size) {
    file_.write(static_cast<const char*>(data), size);
    check();
  }
  void finish() {
    file_.close();
    check();
  }

 private:
  void check() {
    if (!file_)
      throw std::runtime_error(path_.string() + " cannot be written: check the disk and its permissions");
  }
  fs::path path_;
  std::ofstream file_;
};

class Writer {
 public:
  explicit Writer(const SynthOptions& options) : options_(options), buffer_(kPiece) {}

  void write(const std::vector<Tensor>& tensors) {
    std::vector<std::pair<size_t, size_t>> shards;  // [first, last)
    int64_t shard_bytes = kShardBytes;
    for (size_t i = 0; i < tensors.size(); ++i) {
      const int64_t bytes = tensors[i].bytes();
      total_ += bytes;
      if (shard_bytes + bytes > kShardBytes) {
        shards.push_back({i, i});
        shard_bytes = 0;
      }
      shard_bytes += bytes;
      shards.back().second = i + 1;
    }
    if (fs::space(options_.out).available < static_cast<uintmax_t>(total_)) {
      throw std::runtime_error(options_.out + " has no room for " + std::to_string(total_) +
                               " bytes of tensors: choose another disk or fewer --layers");
    }
    for (size_t s = 0; s < shards.size(); ++s) {
      char name[64] = "model.safetensors";
      if (shards.size() > 1) {
        std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", s + 1, shards.size());
      }
      write_shard(name, tensors, shards[s]);
      for (size_t i = shards[s].first; i < shards[s].second; ++i) weight_map_[tensors[i].name] = name;
    }
    if (shards.size() > 1) {
      const nlohmann::json index = {{"metadata", {{"total_size", total_}}}, {"weight_map", weight_map_}};
      write_text("model.safetensors.index.json", index.dump(1));
    }
  }
  void write_text(const std::string& name, const std::string& text) {
    Output out(fs::path(options_.out) / name);
    out.write(text.data(), static_cast<int64_t>(text.size()));
    out.finish();
  }

 private:
  void write_shard(const std::string& name, const std::vector<Tensor>& tensors,
                   std::pair<size_t, size_t> range) {
    nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
    int64_t at = 0;
    for (size_t i = range.first; i < range.second; ++i) {
      header[tensors[i].name] = synthetic::header_entry(tensors[i], at);
      at += tensors[i].bytes();
    }
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    unsigned char length[8];
    for (int i = 0; i < 8; ++i) length[i] = static_cast<unsigned char>(text.size() >> (8 * i));
    Output out(fs::path(options_.out) / name);
    out.write(length, sizeof length);
    out.write(text.data(), static_cast<int64_t>(text.size()));
    for (size_t i = range.first; i < range.second; ++i) write_tensor(out, tensors[i]);
    out.finish();
  }

  void write_tensor(Output& out, const Tensor& tensor) {
    uint64_t state = synthetic::seed_of(tensor.name, options_.seed);
    if (tensor.type == Type::scale) {
      const std::vector<float> scales = synthetic::scales_of(tensor, state);
      out.write(scales.data(), tensor.bytes());
      return report(tensor.bytes());
    }
    for (int64_t left = tensor.bytes(); left > 0;) {
      const int64_t piece = std::min(left, kPiece);
      normals_.fill(tensor, buffer_.data(), piece, state);
      out.write(buffer_.data(), piece);
      left -= piece;
      report(piece);
    }
  }
  void report(int64_t bytes) {
    done_ += bytes;
    if (options_.progress) options_.progress(done_, total_);
  }

  const SynthOptions& options_;
  std::vector<unsigned char> buffer_;
  synthetic::Normals normals_;
  nlohmann::json weight_map_ = nlohmann::json::object();
  int64_t done_ = 0, total_ = 0;
};

}  // namespace

void synth(const SynthOptions& options) {
  if (options.config.empty() == options.preset.empty()) {
    throw std::runtime_error("synth needs either --config or --preset");
  }
  if (options.dtype != "fp8" && options.dtype != "bf16" && options.dtype != "f32") {
    throw std::runtime_error("there is no dtype '" + options.dtype + "': use fp8, bf16 or f32");
  }
  const ordered_json config = synthetic::read_config(options);
  const std::vector<Tensor> tensors = synthetic::tensors_of(config, options);
  const std::string tokenizer = tokenizer_json(config["vocab_size"].get<int64_t>());

  std::error_code error;
  fs::create_directories(options.out, error);
  if (error || !fs::is_directory(options.out)) {
    throw std::runtime_error("the folder " + options.out + " cannot be made: check the path");
  }
  if (!fs::is_empty(options.out)) {
    throw std::runtime_error("the folder " + options.out + " is not empty: choose a new one for --out");
  }
  Writer writer(options);
  writer.write(tensors);
  writer.write_text("tokenizer.json", tokenizer);
  writer.write_text("config.json", config.dump(1));  // last, so that an interrupted run is no checkpoint
}

}  // namespace cli
