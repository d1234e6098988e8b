// A checkpoint folder in the official layout: config.json and safetensors (single or sharded), checked as a whole
// before any weight is placed.
#pragma once

#include <atomic>
#include <functional>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/ops.h"
#include "base/host.h"
#include "model/config.h"

namespace dsv {

struct TensorInfo {  // for inspection
  std::string name, dtype, file;
  std::vector<int64_t> shape;
  int64_t bytes = 0;
};

// Shared between the loading thread and whoever polls.
struct LoadMonitor {
  std::atomic<int64_t> done{0}, total{0};  // bytes of weights
  std::atomic<bool> cancel{false};         // load() then throws DSV_ERROR_CANCELLED soon
};

// Immutable after open. Keeps the files mapped: weights point into them, so it outlives the device that loaded them.
class Checkpoint {
 public:
  // Reads config.json and all tensor headers; checks that every tensor of the architecture is there with the right
  // dtype and shape, inside its file, overlapping nothing. with_mtp: also the MTP layer, if the config and files have it.
  static std::unique_ptr<Checkpoint> open(const Host& host, const std::string& folder, bool with_mtp);
  virtual ~Checkpoint() = default;

  virtual const ModelConfig& config() const = 0;
  virtual bool has_mtp() const = 0;                 // asked for and present
  virtual const std::string& folder() const = 0;
  virtual std::vector<TensorInfo> tensors() const = 0;
  virtual int64_t weight_bytes() const = 0;         // of the tensors that load() uses
  virtual int64_t parameters() const = 0;
  virtual int64_t active_bytes_per_token() const = 0;
  // Every matrix load() would hand to the backend, for planning.
  virtual void for_each_matrix(const std::function<void(const HostMatrix&)>& visit) const = 0;
  // Hands every weight to the device. Checks block scales (finite). Pages are not touched beyond that.
  virtual ModelWeights load(const OpTable& ops, Device* device, LoadMonitor& monitor) const = 0;
};

}  // namespace dsv
