// A checkpoint folder in the official layout: config.json and safetensors (single or sharded), checked as a
// whole before any weight is placed.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backend/ops.h"
#include "base/host.h"
#include "model/config.h"

namespace dsv {

struct TensorInfo {
  std::string name, dtype, file;  // file: its name in the folder
  std::vector<int64_t> shape;
  int64_t bytes = 0;
  const unsigned char* data = nullptr;  // mapped
};

// Shared between the loading thread and whoever polls.
struct LoadMonitor {
  std::atomic<int64_t> done{0}, total{0};  // bytes of weights
  std::atomic<bool> cancel{false};         // load() then throws DSV_ERROR_CANCELLED soon
};

// Immutable after open; any thread may read it. Keeps the files mapped: weights point into them, so it
// outlives the device that loaded them. `host` outlives it.
class Checkpoint {
 public:
  // Reads config.json and all tensor headers; checks that every tensor of the architecture is there with the
  // right dtype and shape, inside its file, overlapping nothing. with_mtp: also the MTP layer, if the config
  // and files have it. Throws IO, INVALID_FILE or UNSUPPORTED naming file, tensor and remedy.
  static std::unique_ptr<Checkpoint> open(const Host& host, const std::string& folder, bool with_mtp);

  const ModelConfig& config() const { return config_; }
  std::string_view config_text() const;      // config.json as it is
  bool has_mtp() const { return has_mtp_; }  // asked for and present
  const std::string& folder() const { return folder_; }
  // All that the files hold, by file and then by place in it; also what load() has no use for.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  int64_t weight_bytes() const { return weight_bytes_; }  // of the tensors that load() uses, scales included
  int64_t parameters() const { return parameters_; }      // values of those, scales excluded
  int64_t active_bytes_per_token() const { return active_bytes_; }  // read for one token, MTP excluded
  // Every matrix load() would hand to the backend, for planning.
  void for_each_matrix(const std::function<void(const HostMatrix&)>& visit) const;
  // Hands every weight to the device, layer by layer and experts in order. Checks that block scales and
  // vectors are finite; pages are not touched beyond that. Throws INVALID_FILE, CANCELLED, or what the device
  // throws.
  ModelWeights load(const OpTable& ops, Device* device, LoadMonitor& monitor) const;

 private:
  Checkpoint() = default;
  void read_tensors(const Host& host);
  void read_file(const Host& host, const std::string& name,
                 const std::function<bool(const std::string& tensor)>& take);
  void check_architecture(bool with_mtp);
  const TensorInfo* find(const std::string& name) const;

  std::string folder_;
  ModelConfig config_;
  bool has_mtp_ = false;
  std::vector<std::unique_ptr<HostFile>> files_;  // config.json first
  std::string source_;                            // the file that lists the tensors, for messages
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string_view, size_t> by_name_;  // into tensors_
  std::vector<HostMatrix> matrices_;                      // in the order of load()
  int64_t weight_bytes_ = 0, parameters_ = 0, active_bytes_ = 0;
};

}  // namespace dsv
