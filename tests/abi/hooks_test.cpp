// What the host provides and what it bounds: memory, files, jobs, log, budgets.
#include <atomic>
#include <thread>

#include "tests/abi/counted_new.h"
#include "tests/abi/memory_host.h"

namespace dsv::test {
namespace {

std::vector<int32_t> generate(dsv_model* model, dsv_engine* engine) {
  Recorder session(model);
  expect_ok(complete(session.handle.get(), prompt(20), token_options(5)));
  expect_ok(dsv_engine_run(engine));
  return session.tokens();
}

TEST(Hooks, AModelLivesOnWhatTheHostProvides) {
  std::vector<int32_t> expected;
  {
    const EngineHandle engine = make_engine({"cpu", 2, nullptr});
    expected = generate(load(engine.get(), exact_options()).get(), engine.get());
  }
  MemoryHost host(tiny_checkpoint());
  {
    const EngineHandle engine = make_engine({"cpu", 2, &host.hooks});
    const ModelHandle model = load(engine.get(), exact_options(), "game");
    EXPECT_GT(host.open_files, 0);
    EXPECT_GT(host.allocated, 0);
    EXPECT_EQ(generate(model.get(), engine.get()), expected);
    EXPECT_GT(host.jobs, 0);
    EXPECT_NE(host.log.find("tokenizer.json"), std::string::npos) << host.log;
  }
  EXPECT_EQ(host.open_files, 0);
  EXPECT_EQ(host.allocated, 0);
  host.over = true;
}

// A line is a line, whatever a folder is called.
TEST(Hooks, LogLinesHaveNoNewline) {
  MemoryHost host(tiny_checkpoint());
  for (auto& [name, bytes] : std::map(host.files)) host.files["a\nb/" + name.substr(5)] = bytes;
  const EngineHandle engine = make_engine({"cpu", 1, &host.hooks});
  load(engine.get(), exact_options(), "a\nb");
  EXPECT_FALSE(host.log.empty());
}

TEST(Hooks, FilesMayBeMappedOrReadWhateverFileMapSays) {
  MemoryHost host(tiny_checkpoint());
  static std::atomic<int> reads;
  reads = 0;
  host.hooks.file_read = [](void*, void*, int64_t, void*, int64_t) -> dsv_status {
    ++reads;
    return DSV_ERROR_IO;
  };
  host.hooks.file_map = [](void*, void* file) -> const void* {
    return static_cast<std::string*>(file)->data();
  };
  int64_t mapped_bytes = 0;
  {
    const EngineHandle engine = make_engine({"cpu", 1, &host.hooks});
    const ModelHandle model = load(engine.get(), exact_options(), "game");
    EXPECT_EQ(reads, 0);
    mapped_bytes = host.allocated;
  }
  host.hooks.file_map = [](void*, void*) -> const void* { return nullptr; };  // not this file
  {
    const EngineHandle engine = make_engine({"cpu", 1, &host.hooks});
    dsv_model* raw = nullptr;
    expect_ok(dsv_model_load(engine.get(), "game", nullptr, &raw));
    const ModelHandle model(raw);
    EXPECT_EQ(dsv_model_wait(raw, -1), DSV_ERROR_IO);
    EXPECT_NE(std::string(dsv_error_message()).find("file_read"), std::string::npos) << dsv_error_message();
    EXPECT_EQ(reads, 1);
  }
  host.hooks.file_read = MemoryHost(tiny_checkpoint()).hooks.file_read;
  {
    const EngineHandle engine = make_engine({"cpu", 1, &host.hooks});
    const ModelHandle model = load(engine.get(), exact_options(), "game");
    int64_t file_bytes = 0;
    for (const auto& [name, bytes] : host.files) file_bytes += static_cast<int64_t>(bytes.size());
    EXPECT_EQ(host.allocated, mapped_bytes + file_bytes) << "the files are read whole";
  }
  EXPECT_EQ(host.open_files, 0);
  EXPECT_EQ(host.allocated, 0);
}

// Jobs on threads of the host's own, started for each call.
TEST(Hooks, JobsMayRunInParallelAndInAnyOrder) {
  const auto generate_with = [](const dsv_hooks* hooks) {
    const EngineHandle engine = make_engine({"cpu", 3, hooks});
    return generate(load(engine.get(), exact_options()).get(), engine.get());
  };
  dsv_hooks hooks;
  dsv_hooks_init(&hooks);
  hooks.run_jobs = [](void*, void (*job)(void*, int32_t), void* argument, int32_t count) {
    std::thread other([&] {
      for (int32_t i = count - 1; i > 0; i -= 2) job(argument, i);
    });
    for (int32_t i = (count - 1) % 2 == 0 ? 1 : 0; i < count; i += 2) job(argument, i);
    if ((count - 1) % 2 == 0) job(argument, 0);
    other.join();
  };
  EXPECT_EQ(generate_with(&hooks), generate_with(nullptr));
}

TEST(Hooks, HalfAGroupIsRefused) {
  const auto refused = [](auto set) {
    dsv_hooks hooks;
    dsv_hooks_init(&hooks);
    set(hooks);
    dsv_engine_options options;
    dsv_engine_options_init(&options);
    options.hooks = &hooks;
    dsv_engine* engine = nullptr;
    EXPECT_EQ(dsv_engine_create(&options, &engine), DSV_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(engine, nullptr);
  };
  const dsv_hooks all = MemoryHost(tiny_checkpoint()).hooks;
  refused([&](dsv_hooks& hooks) { hooks.allocate = all.allocate; });
  refused([&](dsv_hooks& hooks) { hooks.deallocate = all.deallocate; });
  refused([&](dsv_hooks& hooks) { hooks.file_open = all.file_open; });
  refused([&](dsv_hooks& hooks) { hooks.file_open = all.file_open, hooks.file_close = all.file_close; });
  refused([&](dsv_hooks& hooks) { hooks.file_read = all.file_read; });
  refused([&](dsv_hooks& hooks) { hooks.file_map = [](void*, void*) -> const void* { return nullptr; }; });
}

TEST(Hooks, ARefusedAllocationFailsTheLoadAlone) {
  MemoryHost host(tiny_checkpoint());
  host.largest = 1 << 18;
  const EngineHandle engine = make_engine({"cpu", 1, &host.hooks});
  dsv_model* raw = nullptr;
  const dsv_model_options options = exact_options();
  expect_ok(dsv_model_load(engine.get(), "game", &options, &raw));
  EXPECT_EQ(dsv_model_wait(raw, -1), DSV_ERROR_OUT_OF_MEMORY);
  dsv_model_destroy(raw);
  EXPECT_EQ(host.allocated, 0);
}

TEST(Memory, NothingIsAllocatedPerDecodedToken) {
  MemoryHost host(tiny_checkpoint());
  host.hooks.run_jobs = nullptr;
  const EngineHandle engine = make_engine({"cpu", 2, &host.hooks});
  const ModelHandle model = load(engine.get(), exact_options(), "game");
  static int32_t tokens;
  tokens = 0;
  dsv_session_options options;
  dsv_session_options_init(&options);
  options.on_event = [](void*, const dsv_event* event) -> int32_t {
    tokens += event->kind == DSV_EVENT_TOKEN;
    return DSV_ACTION_CONTINUE;
  };
  dsv_session *called = nullptr, *polled = nullptr;
  expect_ok(dsv_session_create(model.get(), &options, &called));
  expect_ok(dsv_session_create(model.get(), nullptr, &polled));
  const SessionHandle close_called(called), close_polled(polled);
  dsv_generate_options generate = token_options(120);
  generate.logprobs = 5;
  expect_ok(complete(called, prompt(20), generate));
  expect_ok(complete(polled, prompt(20), generate));
  const auto advance = [&](int32_t until) {
    dsv_event event{};
    event.struct_size = sizeof event;
    while (tokens < until) {
      ASSERT_EQ(dsv_engine_step(engine.get(), 500, nullptr), DSV_OK);
      do ASSERT_EQ(dsv_session_poll(polled, &event), DSV_OK);
      while (event.kind != DSV_EVENT_NONE);
    }
  };
  advance(20);  // buffers have found their size
  const int64_t news_before = news, allocations_before = host.allocations;
  advance(110);
  EXPECT_EQ(news - news_before, 0);
  EXPECT_EQ(host.allocations - allocations_before, 0);
}

// The plan is what is allocated, to the byte, and the budgets are its bounds.
TEST(Memory, PlanAndBudgetsHold) {
  MemoryHost host(tiny_checkpoint());
  host.hooks.file_map = [](void*, void* file) -> const void* {
    return static_cast<std::string*>(file)->data();
  };
  for (const char* backend : {"cpu", "reference"}) {
    SCOPED_TRACE(backend);
    const EngineHandle engine = make_engine({backend, 3, &host.hooks});
    dsv_model_options options = exact_options();
    options.kv_budget_bytes = 300000;
    options.context_tokens = 200;
    options.batch_rows = 40;
    options.load_mtp = 1;
    dsv_memory_plan plan{};
    plan.struct_size = sizeof plan;
    expect_ok(dsv_model_plan(engine.get(), "game", &options, &plan));
    EXPECT_EQ(host.allocated, 0) << "a plan allocates nothing";
    EXPECT_LE(plan.kv_pool_bytes, options.kv_budget_bytes);
    EXPECT_GT(plan.kv_pool_bytes, options.kv_budget_bytes - plan.kv_bytes_per_1k / 16)
        << "a page more would fit";
    EXPECT_EQ(plan.kv_pool_tokens * plan.kv_bytes_per_1k, plan.kv_pool_bytes * 1024);
    {
      const ModelHandle model = load(engine.get(), options, "game");
      EXPECT_LE(host.allocated, plan.kv_pool_bytes + plan.scratch_bytes);
      EXPECT_GE(host.allocated, plan.kv_pool_bytes);
      dsv_memory_use use{};
      use.struct_size = sizeof use;
      expect_ok(dsv_model_memory(model.get(), &use));
      EXPECT_EQ(use.weight_bytes, plan.weight_bytes);
      EXPECT_EQ(use.weight_copy_bytes, plan.weight_copy_bytes);
      EXPECT_EQ(use.scratch_bytes, plan.scratch_bytes);
      EXPECT_EQ(use.kv_pool_bytes, plan.kv_pool_bytes);
      EXPECT_EQ(use.kv_pages_total * 64, plan.kv_pool_tokens);
      EXPECT_EQ(use.kv_pages_used, 0);
    }
    EXPECT_EQ(host.allocated, 0);

    options.weight_budget_bytes = plan.weight_bytes + plan.weight_copy_bytes;
    load(engine.get(), options, "game");
    --options.weight_budget_bytes;
    dsv_model* raw = nullptr;
    expect_ok(dsv_model_load(engine.get(), "game", &options, &raw));
    EXPECT_EQ(dsv_model_wait(raw, -1), DSV_ERROR_BUDGET);
    dsv_model_destroy(raw);
  }
}

}  // namespace
}  // namespace dsv::test
