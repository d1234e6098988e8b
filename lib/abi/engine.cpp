#include "session/engine.h"

#include <utility>

#include "abi/abi.h"

using namespace dsv::abi;

namespace {

dsv_hooks default_hooks() {
  dsv_hooks hooks{};
  hooks.struct_size = sizeof hooks;
  return hooks;
}

dsv_engine_options default_engine_options() {
  dsv_engine_options options{};
  options.struct_size = sizeof options;
  return options;
}

// Runs `body` until it returns. What it throws ends the request that was at work, if one was; then it goes on
// with the others.
template <class F>
void with_failing_requests(dsv::Engine& engine, F&& body) {
  for (bool again = true; again;) {
    again = false;
    try {
      body();
    } catch (...) {
      translate([&](dsv_status status, const char* sentence) {
        again = engine.fail_request(status, sentence);
        return status;
      });
      if (!again) throw;
    }
  }
}

}  // namespace

extern "C" {

void dsv_hooks_init_sized(dsv_hooks* hooks, uint32_t struct_size) {
  init_options(hooks, struct_size, default_hooks());
}
void dsv_engine_options_init_sized(dsv_engine_options* options, uint32_t struct_size) {
  init_options(options, struct_size, default_engine_options());
}

dsv_status dsv_engine_create(const dsv_engine_options* given, dsv_engine** engine) {
  return guarded([&] {
    require(engine, "engine");
    dsv_engine_options options = read_options(given, default_engine_options(), "options");
    const dsv_hooks hooks = read_options(options.hooks, default_hooks(), "options->hooks");
    options.hooks = &hooks;
    *engine = new dsv_engine{dsv::make_engine(options)};
  });
}

void dsv_engine_destroy(dsv_engine* engine) { delete engine; }

dsv_status dsv_engine_step(dsv_engine* handle, int64_t budget_us, int32_t* pending) {
  return guarded([&] {
    const std::shared_ptr<dsv::Engine> engine = require(handle, "engine").engine;
    require_size(budget_us, "budget_us");
    const dsv::Engine::Entry entry(*engine);
    int32_t left = 0;
    with_failing_requests(*engine, [&] { left = engine->step(budget_us); });
    if (pending) *pending = left;
  });
}

dsv_status dsv_engine_run(dsv_engine* handle) {
  return guarded([&] {
    const std::shared_ptr<dsv::Engine> engine = require(handle, "engine").engine;
    const dsv::Engine::Entry entry(*engine);
    with_failing_requests(*engine, [&] { engine->run(); });
  });
}

}  // extern "C"
