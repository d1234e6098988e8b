#include "session/model.h"

#include <utility>

#include "abi/abi.h"
#include "model/inspect.h"
#include "session/utf8.h"

using namespace dsv::abi;

namespace {

dsv_model_options default_model_options() {
  dsv_model_options options{};
  options.struct_size = sizeof options;
  return options;
}

dsv::ModelOptions model_options(const dsv_model_options* given) {
  return dsv::check_model_options(read_options(given, default_model_options(), "options"));
}

std::string folder_path(const char* path) {
  const std::string_view text = dsv::check_utf8(path, DSV_NUL_TERMINATED, "path");
  if (text.empty()) dsv::fail(DSV_ERROR_INVALID_ARGUMENT, "path is empty: give the checkpoint's folder");
  return std::string(text);
}

// A loaded model, entered. Members in order: the entry goes first when it is over.
struct Entered {
  explicit Entered(dsv_model* handle) : model(require(handle, "model").model), entry(model->engine()) {
    model->require_loaded();
  }
  std::shared_ptr<dsv::Model> model;
  dsv::Engine::Entry entry;
};

}  // namespace

extern "C" {

void dsv_model_options_init_sized(dsv_model_options* options, uint32_t struct_size) {
  init_options(options, struct_size, default_model_options());
}

dsv_status dsv_model_plan(dsv_engine* handle, const char* path, const dsv_model_options* given,
                          dsv_memory_plan* plan) {
  return guarded([&] {
    const std::shared_ptr<dsv::Engine> engine = require(handle, "engine").engine;
    known_size(require(plan, "plan"), "plan");
    const dsv::ModelOptions options = model_options(given);
    const std::string folder = folder_path(path);
    const dsv::Engine::Entry entry(*engine);
    const auto checkpoint = dsv::Checkpoint::open(engine->host(), folder, options.load_mtp);
    write_struct(*plan, dsv::plan_memory(*engine, *checkpoint, options), "plan");
  });
}

dsv_status dsv_model_inspect(dsv_engine* handle, const char* path, const dsv_model_options* given, char* out,
                             int64_t capacity, int64_t* size) {
  return guarded([&] {
    const std::shared_ptr<dsv::Engine> engine = require(handle, "engine").engine;
    check_out(out, capacity, size);
    const dsv::ModelOptions options = model_options(given);
    const std::string folder = folder_path(path);
    const dsv::Engine::Entry entry(*engine);
    const auto checkpoint = dsv::Checkpoint::open(engine->host(), folder, options.load_mtp);
    const dsv_memory_plan plan = dsv::plan_memory(*engine, *checkpoint, options);
    copy_text(dsv::inspect_json(*checkpoint, plan), out, capacity, size);
  });
}

dsv_status dsv_model_load(dsv_engine* handle, const char* path, const dsv_model_options* given,
                          dsv_model** model) {
  return guarded([&] {
    const std::shared_ptr<dsv::Engine> engine = require(handle, "engine").engine;
    require(model, "model");
    dsv::ModelOptions options = model_options(given);
    std::string folder = folder_path(path);
    const dsv::Engine::Entry entry(*engine);
    *model = new dsv_model{std::make_shared<dsv::Model>(engine, std::move(folder), std::move(options))};
  });
}

dsv_status dsv_model_progress(dsv_model* handle, dsv_load_progress* out) {
  return guarded([&] {
    const std::shared_ptr<dsv::Model> model = require(handle, "model").model;
    known_size(require(out, "progress"), "progress");
    dsv_load_progress progress{};
    // The state first: what is done by then is in the numbers, so a model that is ready has all of it.
    const auto report = [&](int32_t state) {
      progress.state = state;
      progress.done = model->monitor().done.load();
      progress.total = model->monitor().total.load();
      write_struct(*out, progress, "progress");
    };
    try {
      report(model->wait(0) ? DSV_LOAD_READY : DSV_LOAD_RUNNING);
    } catch (const dsv::Error& error) {
      report(error.status() == DSV_ERROR_CANCELLED ? DSV_LOAD_CANCELLED : DSV_LOAD_FAILED);
      throw;
    } catch (...) {
      report(DSV_LOAD_FAILED);
      throw;
    }
  });
}

dsv_status dsv_model_wait(dsv_model* handle, int64_t timeout_ms) {
  return guarded([&] {
    const std::shared_ptr<dsv::Model> model = require(handle, "model").model;
    if (!model->wait(timeout_ms)) {
      dsv::fail(DSV_ERROR_NOT_READY, "the model is still loading after {} ms: wait longer or cancel the load",
                timeout_ms);
    }
  });
}

void dsv_model_cancel_load(dsv_model* model) {
  if (model) model->model->cancel_load();
}

void dsv_model_destroy(dsv_model* model) { delete model; }

dsv_status dsv_model_get_info(dsv_model* handle, dsv_model_info* out) {
  return guarded([&] {
    known_size(require(out, "info"), "info");
    const Entered entered(handle);
    const dsv::Model& model = *entered.model;
    const dsv::Geometry& geometry = model.config().geometry;
    dsv_model_info info{};
    info.vocab_size = model.vocab_size();
    info.context_tokens = model.context_tokens();
    info.num_layers = geometry.num_layers;
    info.hidden_size = static_cast<int32_t>(geometry.hidden_size);
    info.index_topk = geometry.has_indexer() ? geometry.index_topk : 0;
    info.has_chat = model.has_chat();
    info.has_mtp = model.has_mtp();
    info.bos_token = model.config().bos_token_id;
    info.eos_token = model.config().eos_token_id;
    info.precision =
        model.options().precision == dsv::Precision::exact ? DSV_PRECISION_EXACT : DSV_PRECISION_OFFICIAL;
    write_struct(*out, info, "info");
  });
}

dsv_status dsv_model_memory(dsv_model* handle, dsv_memory_use* out) {
  return guarded([&] {
    known_size(require(out, "use"), "use");
    const Entered entered(handle);
    const dsv_memory_plan& plan = entered.model->plan();
    const dsv::KvPagePool& pool = entered.model->pool();
    dsv_memory_use use{};
    use.weight_bytes = plan.weight_bytes;
    use.weight_copy_bytes = plan.weight_copy_bytes;
    use.scratch_bytes = plan.scratch_bytes;
    use.kv_pool_bytes = plan.kv_pool_bytes;
    use.kv_pages_used = pool.total() - pool.available();
    use.kv_pages_total = pool.total();
    write_struct(*out, use, "use");
  });
}

dsv_status dsv_model_tokenizer(dsv_model* handle, dsv_tokenizer** tokenizer) {
  return guarded([&] {
    require(tokenizer, "tokenizer");
    const Entered entered(handle);
    if (!entered.model->tokenizer()) {
      dsv::fail(DSV_ERROR_UNSUPPORTED,
                "this model's folder has no tokenizer.json: it takes and gives tokens only");
    }
    *tokenizer = new dsv_tokenizer{entered.model->tokenizer()};
  });
}

}  // extern "C"
