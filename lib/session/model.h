// A checkpoint on an engine: loaded by a thread of its own, then shared by its sessions.
#pragma once

#include <dsv/dsv.h>

#include <chrono>
#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "memory/kv_pages.h"
#include "model/checkpoint.h"
#include "model/forward.h"
#include "session/engine.h"
#include "session/generate_options.h"
#include "session/scheduler.h"

namespace dsv {

class Tokenizer;

struct ModelOptions {
  Precision precision = Precision::official;
  int64_t context_tokens = 0, kv_budget_bytes = 0, weight_budget_bytes = 0;
  int32_t batch_rows = 0;
  bool load_mtp = false;
  std::string chat_profile;  // "" = by the checkpoint
  bool fast = false;         // DSV_SCHEDULE_FAST
  int32_t gpu_stream_priority = 0;
};

// Throws INVALID_ARGUMENT or UNSUPPORTED naming the field.
ModelOptions check_model_options(const dsv_model_options& options);

// What dsv_model_plan and dsv_model_inspect say of an opened checkpoint. Throws what loading would throw.
dsv_memory_plan plan_memory(const Engine& engine, const Checkpoint& checkpoint, const ModelOptions& options);

class Model {
 public:
  // Starts the loading thread.
  Model(std::shared_ptr<Engine> engine, std::string folder, ModelOptions options);
  ~Model();  // cancels a running load and waits for its thread; any thread
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  Engine& engine() const { return *engine_; }
  const std::shared_ptr<Engine>& shared_engine() const { return engine_; }

  // [any thread] Waits until the load has ended; false if the time is over first. Throws what the load threw.
  bool wait(int64_t timeout_ms) const;
  const LoadMonitor& monitor() const { return monitor_; }  // [any thread]
  void cancel_load() { monitor_.cancel.store(true); }      // [any thread]
  // Throws NOT_READY unless the load has ended well. All below is for loaded models.
  void require_loaded() const;

  const ModelConfig& config() const { return checkpoint_->config(); }
  const ModelOptions& options() const { return options_; }
  const dsv_memory_plan& plan() const { return plan_; }
  int32_t vocab_size() const { return static_cast<int32_t>(config().geometry.vocab_size); }
  int32_t eos_token() const { return config().eos_token_id; }
  int64_t context_tokens() const { return context_tokens_; }
  bool has_mtp() const { return checkpoint_->has_mtp(); }
  bool has_chat() const { return tokenizer_ && chat_profile_ != "none"; }
  const std::shared_ptr<const Tokenizer>& tokenizer() const { return tokenizer_; }  // null: tokens only
  KvPagePool& pool() { return *pool_; }
  Scheduler& scheduler() { return *scheduler_; }

  // The prompt's tokens for {"messages": ...} under the model's chat profile. Throws UNSUPPORTED by name
  // where the model or its profile cannot.
  std::vector<int32_t> encode_chat(std::string_view request_json, const GenerateOptions& options) const;

 private:
  struct DeviceCloser {
    const OpTable* ops;
    void operator()(Device* device) const { ops->close(device); }
  };
  void load();
  void load_tokenizer();
  std::unique_ptr<bool[]> allowed_tokens() const;  // [V]

  std::shared_ptr<Engine> engine_;
  std::string folder_;
  ModelOptions options_;
  LoadMonitor monitor_;

  // Written by the loading thread, read by others once loaded_ is ready. Each needs those before it.
  dsv_memory_plan plan_{};
  int64_t context_tokens_ = 0;
  std::string chat_profile_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<Device, DeviceCloser> device_{nullptr, {nullptr}};
  ModelWeights weights_;
  std::unique_ptr<KvPagePool> pool_;
  std::unique_ptr<Forward> forward_;
  std::unique_ptr<Scheduler> scheduler_;

  std::shared_future<void> loaded_;
  std::thread thread_;
};

}  // namespace dsv
