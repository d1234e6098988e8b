#include "session/model.h"

#include <unistd.h>

#include <algorithm>
#include <limits>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "session/chat.h"
#include "session/utf8.h"

namespace dsv {
namespace {

constexpr int32_t kDefaultBatchRows = 512;
constexpr int32_t kMostBatchRows = 1 << 16;

// What the device and the pool are made of; the same numbers for the plan and for the load.
struct Sizes {
  int64_t context_tokens = 0;
  int32_t batch_rows = 0, max_logit_rows = 0;
  int64_t page_bytes = 0, pages = 0;
};

int64_t machine_memory() {
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<int64_t>(sysconf(_SC_PAGESIZE));
}

// Rows of logits in one batch: 32 MB of them, so that they stay small beside the weights.
int32_t logit_rows(int64_t vocab_size, int32_t batch_rows) {
  constexpr int64_t kBytes = int64_t{32} << 20;
  constexpr int64_t kLeast = 16;
  return static_cast<int32_t>(std::min<int64_t>(batch_rows, std::max(kLeast, kBytes / (4 * vocab_size))));
}

Sizes size_up(const Checkpoint& checkpoint, const ModelOptions& options) {
  const ModelConfig& config = checkpoint.config();
  check_precision(config, options.precision);
  Sizes sizes;
  sizes.context_tokens = options.context_tokens > 0 ? options.context_tokens : config.max_position_embeddings;
  if (sizes.context_tokens > config.max_position_embeddings ||
      sizes.context_tokens > std::numeric_limits<int32_t>::max() - kPageTokens) {
    fail(DSV_ERROR_INVALID_ARGUMENT, "options->context_tokens is {}: this model has {} positions",
         sizes.context_tokens, config.max_position_embeddings);
  }
  sizes.batch_rows = options.batch_rows > 0 ? options.batch_rows : kDefaultBatchRows;
  sizes.max_logit_rows = logit_rows(config.geometry.vocab_size, sizes.batch_rows);
  sizes.page_bytes = KvLayout(config.geometry, options.precision, checkpoint.has_mtp()).page_bytes();
  if (options.kv_budget_bytes > 0) {
    sizes.pages = options.kv_budget_bytes / sizes.page_bytes;
    if (sizes.pages == 0) {
      fail(DSV_ERROR_BUDGET, "options->kv_budget_bytes is {}: one page of {} tokens takes {} bytes",
           options.kv_budget_bytes, kPageTokens, sizes.page_bytes);
    }
  } else {
    const int64_t context_pages = (sizes.context_tokens + kPageTokens - 1) / kPageTokens;
    sizes.pages = std::clamp<int64_t>(machine_memory() / 4 / sizes.page_bytes, 1, context_pages);
  }
  sizes.pages = std::min<int64_t>(sizes.pages, std::numeric_limits<int32_t>::max() / kPageTokens);
  return sizes;
}

DeviceOptions device_options(const Engine& engine, const Checkpoint& checkpoint, const ModelOptions& options,
                             const Sizes& sizes) {
  DeviceOptions device;
  device.geometry = &checkpoint.config().geometry;
  device.precision = options.precision;
  device.with_mtp = checkpoint.has_mtp();
  device.batch_rows = sizes.batch_rows;
  device.logit_rows = sizes.max_logit_rows;
  device.max_context = static_cast<int32_t>(sizes.context_tokens);
  device.kv_pages = sizes.pages;
  device.fast = options.fast;
  device.stream_priority = options.gpu_stream_priority;
  device.target = engine.target();
  device.jobs = &engine.jobs();
  device.allocate = [](void* host, int64_t size, int64_t alignment) {
    return static_cast<const Host*>(host)->allocate(size, alignment, "the model");
  };
  device.deallocate = [](void* host, void* memory, int64_t size, int64_t alignment) {
    static_cast<const Host*>(host)->deallocate(memory, size, alignment);
  };
  device.user = const_cast<Host*>(&engine.host());
  return device;
}

dsv_memory_plan plan_sizes(const Engine& engine, const Checkpoint& checkpoint, const ModelOptions& options,
                           const Sizes& sizes) {
  const DeviceOptions device = device_options(engine, checkpoint, options, sizes);
  const Geometry& geometry = checkpoint.config().geometry;
  dsv_memory_plan plan{};
  plan.struct_size = sizeof plan;
  plan.weight_bytes = checkpoint.weight_bytes();
  checkpoint.for_each_matrix([&](const HostMatrix& matrix) {
    plan.weight_copy_bytes += engine.ops().plan_weight_copy(device, matrix);
  });
  plan.kv_bytes_per_1k = 1024 / kPageTokens * sizes.page_bytes;
  plan.kv_pool_bytes = sizes.pages * sizes.page_bytes;
  plan.kv_pool_tokens = sizes.pages * kPageTokens;
  plan.scratch_bytes = engine.ops().plan_scratch(device);
  plan.total_bytes = plan.weight_copy_bytes + plan.kv_pool_bytes;
  if (!engine.ops().own_memory) {
    plan.scratch_bytes +=
        Forward::scratch_bytes(engine.ops(), geometry) +
        Scheduler::scratch_bytes(sizes.batch_rows, static_cast<int32_t>(geometry.vocab_size),
                                 sizes.context_tokens);
    plan.total_bytes += plan.weight_bytes;
  }
  plan.total_bytes += plan.scratch_bytes;
  plan.parameters = checkpoint.parameters();
  plan.active_bytes_per_token = checkpoint.active_bytes_per_token();
  return plan;
}

void require_not_negative(int64_t value, const char* field) {
  if (value < 0) fail(DSV_ERROR_INVALID_ARGUMENT, "options->{} is {}: give 0 or more", field, value);
}

}  // namespace

ModelOptions check_model_options(const dsv_model_options& o) {
  if (o.precision != DSV_PRECISION_OFFICIAL && o.precision != DSV_PRECISION_EXACT) {
    fail(DSV_ERROR_INVALID_ARGUMENT,
         "options->precision is {}: give DSV_PRECISION_OFFICIAL or DSV_PRECISION_EXACT", o.precision);
  }
  require_not_negative(o.context_tokens, "context_tokens");
  require_not_negative(o.kv_budget_bytes, "kv_budget_bytes");
  require_not_negative(o.weight_budget_bytes, "weight_budget_bytes");
  require_not_negative(o.batch_rows, "batch_rows");
  if (o.batch_rows > kMostBatchRows) {
    fail(DSV_ERROR_INVALID_ARGUMENT, "options->batch_rows is {}: the most is {}", o.batch_rows,
         kMostBatchRows);
  }
  if (o.load_mtp != 0 && o.load_mtp != 1) {
    fail(DSV_ERROR_INVALID_ARGUMENT, "options->load_mtp is {}: give 0 or 1", o.load_mtp);
  }
  if (o.schedule != DSV_SCHEDULE_DETERMINISTIC && o.schedule != DSV_SCHEDULE_FAST) {
    fail(DSV_ERROR_INVALID_ARGUMENT,
         "options->schedule is {}: give DSV_SCHEDULE_DETERMINISTIC or DSV_SCHEDULE_FAST", o.schedule);
  }
  const std::string profile(
      o.chat_profile ? check_utf8(o.chat_profile, DSV_NUL_TERMINATED, "options->chat_profile") : "");
  if (!profile.empty() && profile != "v32" && profile != "speciale" && profile != "none") {
    fail(DSV_ERROR_UNSUPPORTED, "there is no chat profile {}: give \"v32\", \"speciale\", \"none\" or NULL",
         shown(profile));
  }
  return {o.precision == DSV_PRECISION_EXACT ? Precision::exact : Precision::official,
          o.context_tokens,
          o.kv_budget_bytes,
          o.weight_budget_bytes,
          o.batch_rows,
          o.load_mtp == 1,
          profile,
          o.schedule == DSV_SCHEDULE_FAST,
          o.gpu_stream_priority};
}

dsv_memory_plan plan_memory(const Engine& engine, const Checkpoint& checkpoint, const ModelOptions& options) {
  return plan_sizes(engine, checkpoint, options, size_up(checkpoint, options));
}

// The task keeps what load() throws; wait() throws it again on the thread that asks.
Model::Model(std::shared_ptr<Engine> engine, std::string folder, ModelOptions options)
    : engine_(std::move(engine)), folder_(std::move(folder)), options_(std::move(options)) {
  std::packaged_task<void()> task([this] { load(); });
  loaded_ = task.get_future().share();
  try {
    thread_ = std::thread(std::move(task));
  } catch (const std::system_error&) {
    fail(DSV_ERROR_OUT_OF_MEMORY, "cannot start a thread to load {}: end some threads and try again",
         shown(folder_));
  }
}

Model::~Model() {
  cancel_load();
  thread_.join();
}

bool Model::wait(int64_t timeout_ms) const {
  // More than a year is for ever, and keeps the sum in range.
  constexpr int64_t kLongest = int64_t{366} * 24 * 3600 * 1000;
  if (timeout_ms < 0 || timeout_ms > kLongest) {
    loaded_.wait();
  } else if (loaded_.wait_for(std::chrono::milliseconds(timeout_ms)) != std::future_status::ready) {
    return false;
  }
  loaded_.get();
  return true;
}

void Model::require_loaded() const {
  if (loaded_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    fail(DSV_ERROR_NOT_READY, "the model is still loading: call dsv_model_wait first");
  }
  if (!scheduler_) {
    fail(DSV_ERROR_NOT_READY, "the model did not load: dsv_model_wait says why; destroy it and load again");
  }
}

void Model::load() {
  const auto check_cancel = [this] {
    if (monitor_.cancel.load()) fail(DSV_ERROR_CANCELLED, "loading {} was cancelled", shown(folder_));
  };
  const OpTable& ops = engine_->ops();
  checkpoint_ = Checkpoint::open(engine_->host(), folder_, options_.load_mtp);
  check_cancel();
  const Sizes sizes = size_up(*checkpoint_, options_);
  plan_ = plan_sizes(*engine_, *checkpoint_, options_, sizes);
  const int64_t weights = plan_.weight_copy_bytes + (ops.own_memory ? 0 : plan_.weight_bytes);
  if (options_.weight_budget_bytes > 0 && weights > options_.weight_budget_bytes) {
    fail(DSV_ERROR_BUDGET, "the weights of {} take {} bytes: options->weight_budget_bytes allows {}",
         shown(folder_), weights, options_.weight_budget_bytes);
  }
  context_tokens_ = sizes.context_tokens;
  load_tokenizer();
  check_cancel();

  const Geometry& geometry = config().geometry;
  const std::unique_ptr<bool[]> allowed = allowed_tokens();
  DeviceOptions device = device_options(*engine_, *checkpoint_, options_, sizes);
  device.allowed = allowed.get();
  device.weight_copy_bytes = plan_.weight_copy_bytes;
  device_ = {ops.open(device), DeviceCloser{&ops}};
  weights_ = checkpoint_->load(ops, device_.get(), monitor_);
  pool_ = std::make_unique<KvPagePool>(static_cast<int32_t>(sizes.pages));
  forward_ = std::make_unique<Forward>(engine_->host(), ops, device_.get(), geometry, weights_);
  // No session has a page yet, and what is in a page that comes to one is nothing to it.
  forward_->prepare(static_cast<int32_t>(sizes.pages) - 1, static_cast<int32_t>(context_tokens_),
                    sizes.batch_rows, monitor_.cancel);
  check_cancel();
  scheduler_ = std::make_unique<Scheduler>(*forward_, sizes.batch_rows, sizes.max_logit_rows, vocab_size(),
                                           context_tokens_);
  engine_->host().log(DSV_LOG_INFO, "loaded {}: {} bytes of weights, {} KV pages, backend {} ({})",
                      shown(folder_), plan_.weight_bytes, sizes.pages, ops.name, ops.target(device_.get()));
}

void Model::load_tokenizer() {
  chat_profile_ = options_.chat_profile;
  if (chat_profile_.empty()) chat_profile_ = config().model_type == "deepseek_v32" ? "v32" : "none";
  const std::string path = folder_ + "/tokenizer.json";
  if (const std::unique_ptr<HostFile> file = engine_->host().open_if_exists(path)) {
    tokenizer_ = open_tokenizer(*file, path);
  } else {
    engine_->host().log(DSV_LOG_WARNING, "there is no {}: this model takes and gives tokens only",
                        shown(path));
  }
}

std::unique_ptr<bool[]> Model::allowed_tokens() const {
  std::unique_ptr<bool[]> allowed(new bool[static_cast<size_t>(vocab_size())]);
  for (int32_t id = 0; id < vocab_size(); ++id) allowed[id] = !tokenizer_ || has_token(*tokenizer_, id);
  return allowed;
}

std::vector<int32_t> Model::encode_chat(std::string_view request_json, const GenerateOptions& options) const {
  if (chat_profile_ == "none") {
    fail(DSV_ERROR_UNSUPPORTED,
         "{} has no chat profile (\"none\"): give raw tokens to dsv_session_complete, or load it with "
         "options->chat_profile",
         shown(folder_));
  }
  if (!tokenizer_) {
    fail(DSV_ERROR_UNSUPPORTED,
         "{} has no tokenizer.json, so it takes no messages: add the file, or give raw tokens to "
         "dsv_session_complete",
         shown(folder_));
  }
  return encode_prompt(*tokenizer_, chat_profile_ == "speciale", request_json, options);
}

}  // namespace dsv
