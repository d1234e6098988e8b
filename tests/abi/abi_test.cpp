// The C API as hosts of any age and mood use it: struct sizes, arguments, sentences, hooks, loading, handles.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>
#include <thread>

#include "tests/abi/counted_new.h"
#include "tests/session/session_fixture.h"

namespace dsv::test {
namespace {

std::string sentence() { return dsv_error_message(); }

TEST(Library, NamesVersionsAndFeatures) {
  EXPECT_STREQ(dsv_status_name(DSV_OK), "DSV_OK");
  EXPECT_STREQ(dsv_status_name(DSV_ERROR_BUDGET), "DSV_ERROR_BUDGET");
  EXPECT_STREQ(dsv_status_name(77), "DSV_ERROR_UNKNOWN");
  EXPECT_EQ(dsv_version(), DSV_VERSION_MAJOR * 1000000 + DSV_VERSION_MINOR * 1000 + DSV_VERSION_PATCH);
  EXPECT_EQ(dsv_abi_version(), DSV_ABI_VERSION);
  EXPECT_NE(std::string(dsv_build_info()).find("dsv 0.1.0"), std::string::npos);
  EXPECT_EQ(dsv_has_feature("backend.cpu"), 1);
  EXPECT_EQ(dsv_has_feature("backend.reference"), 1);
  EXPECT_EQ(dsv_has_feature("mtp"), 1);
  EXPECT_EQ(dsv_has_feature("backend"), 0);
  EXPECT_EQ(dsv_has_feature("cpu."), 0);
  EXPECT_EQ(dsv_has_feature(nullptr), 0);
  std::istringstream targets(dsv_cpu_targets());
  for (std::string target; targets >> target;) EXPECT_EQ(dsv_has_feature(("cpu." + target).c_str()), 1);
}

TEST(Structs, OlderAndNewerHostsAreUnderstood) {
  const EngineHandle engine = make_engine();
  // An older header: it ends before `batch_rows`. What lies behind must not be read.
  dsv_model_options options = exact_options();
  options.struct_size = offsetof(dsv_model_options, batch_rows);
  options.batch_rows = -5;
  options.load_mtp = 99;
  dsv_memory_plan plan{};
  plan.struct_size = sizeof plan;
  expect_ok(dsv_model_plan(engine.get(), tiny_checkpoint().c_str(), &options, &plan));
  EXPECT_EQ(plan.total_bytes,
            plan.weight_bytes + plan.weight_copy_bytes + plan.kv_pool_bytes + plan.scratch_bytes);
  EXPECT_EQ(plan.struct_size, sizeof plan);
  options.struct_size = sizeof options;
  EXPECT_EQ(dsv_model_plan(engine.get(), tiny_checkpoint().c_str(), &options, &plan),
            DSV_ERROR_INVALID_ARGUMENT);
  EXPECT_NE(sentence().find("batch_rows"), std::string::npos);

  // A newer header: it goes on behind what this library knows.
  struct {
    dsv_model_options known;
    int64_t unknown[4];
  } newer{exact_options(), {-1, -1, -1, -1}};
  newer.known.struct_size = sizeof newer;
  expect_ok(dsv_model_plan(engine.get(), tiny_checkpoint().c_str(), &newer.known, &plan));

  // Out: only what the host's struct has room for is written.
  dsv_memory_plan part;
  std::memset(&part, 0x5A, sizeof part);
  part.struct_size = offsetof(dsv_memory_plan, kv_bytes_per_1k);
  expect_ok(dsv_model_plan(engine.get(), tiny_checkpoint().c_str(), nullptr, &part));
  EXPECT_EQ(part.weight_bytes, plan.weight_bytes);
  EXPECT_EQ(part.kv_bytes_per_1k, 0x5A5A5A5A5A5A5A5A);

  plan.struct_size = 0;
  EXPECT_EQ(dsv_model_plan(engine.get(), tiny_checkpoint().c_str(), nullptr, &plan),
            DSV_ERROR_INVALID_ARGUMENT);
  EXPECT_NE(sentence().find("plan->struct_size"), std::string::npos);
  options = exact_options();
  options.struct_size = 0;
  dsv_model* model = nullptr;
  EXPECT_EQ(dsv_model_load(engine.get(), "x", &options, &model), DSV_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(model, nullptr);
}

TEST(Arguments, AreNamedWhenWrong) {
  EXPECT_EQ(dsv_engine_create(nullptr, nullptr), DSV_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(sentence(), "engine is NULL");
  dsv_engine* none = nullptr;
  dsv_engine_options options;
  dsv_engine_options_init(&options);
  options.backend = "abacus";
  EXPECT_EQ(dsv_engine_create(&options, &none), DSV_ERROR_UNSUPPORTED);
  EXPECT_NE(sentence().find("abacus"), std::string::npos);
  dsv_engine_options_init(&options);
  options.cpu_target = "z80";
  EXPECT_EQ(dsv_engine_create(&options, &none), DSV_ERROR_UNSUPPORTED);
  EXPECT_NE(sentence().find("z80"), std::string::npos);
  dsv_engine_options_init(&options);
  options.threads = -1;
  EXPECT_EQ(dsv_engine_create(&options, &none), DSV_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(none, nullptr);

  const EngineHandle engine = make_engine();
  const ModelHandle model = load(engine.get(), exact_options());
  Recorder session(model.get());
  const auto refuses = [&](auto change, const char* field) {
    dsv_generate_options generate = token_options(1);
    change(generate);
    EXPECT_EQ(complete(session.handle.get(), {1, 2}, generate), DSV_ERROR_INVALID_ARGUMENT) << field;
    EXPECT_NE(sentence().find(field), std::string::npos) << sentence();
  };
  const dsv_logit_bias bias{kVocab, 1};
  const dsv_string empty{"", 0}, broken{"\xC0\xAF", 2};
  refuses([](auto& o) { o.temperature = -1; }, "temperature");
  refuses([](auto& o) { o.top_p = 0; }, "top_p");
  refuses([](auto& o) { o.min_p = 1; }, "min_p");
  refuses([](auto& o) { o.top_k = -1; }, "top_k");
  refuses([](auto& o) { o.logprobs = 21; }, "logprobs");
  refuses([](auto& o) { o.max_tokens = -1; }, "max_tokens");
  refuses([](auto& o) { o.stop_count = 17; }, "stop_count");
  refuses([&](auto& o) { o.stop = &empty, o.stop_count = 1; }, "stop");
  refuses([&](auto& o) { o.stop = &broken, o.stop_count = 1; }, "UTF-8");
  refuses([&](auto& o) { o.logit_bias = &bias, o.logit_bias_count = 1; }, "logit_bias[0].token");
  EXPECT_EQ(complete(session.handle.get(), {}, token_options(1)), DSV_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(complete(session.handle.get(), {1, kVocab}, token_options(1)), DSV_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(complete(nullptr, {1}, token_options(1)), DSV_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(dsv_engine_step(engine.get(), -1, nullptr), DSV_ERROR_INVALID_ARGUMENT);
  dsv_event event{};
  event.struct_size = sizeof event;
  EXPECT_EQ(dsv_session_poll(session.handle.get(), &event), DSV_ERROR_INVALID_ARGUMENT);  // it has on_event
  EXPECT_TRUE(session.events.empty());

  int64_t needed = -1;
  char small[4] = "---";
  EXPECT_EQ(dsv_model_inspect(engine.get(), tiny_checkpoint().c_str(), nullptr, small, 3, &needed),
            DSV_ERROR_BUFFER_TOO_SMALL);
  EXPECT_GT(needed, 1000);
  EXPECT_STREQ(small, "{\"c");
  EXPECT_EQ(dsv_model_inspect(engine.get(), tiny_checkpoint().c_str(), nullptr, nullptr, 0, &needed), DSV_OK);
  EXPECT_EQ(dsv_model_inspect(engine.get(), tiny_checkpoint().c_str(), nullptr, nullptr, 9, &needed),
            DSV_ERROR_INVALID_ARGUMENT);
}

TEST(Arguments, DestroyingNothingIsFine) {
  dsv_engine_destroy(nullptr);
  dsv_model_destroy(nullptr);
  dsv_session_destroy(nullptr);
  dsv_tokenizer_destroy(nullptr);
  dsv_session_cancel(nullptr);
  dsv_model_cancel_load(nullptr);
}

TEST(Loading, ReportsItsFailureToWhoeverAsks) {
  const EngineHandle engine = make_engine();
  dsv_model* raw = nullptr;
  expect_ok(dsv_model_load(engine.get(), "/no/such/folder", nullptr, &raw));
  const ModelHandle model(raw);
  EXPECT_EQ(dsv_model_wait(raw, -1), DSV_ERROR_IO);
  EXPECT_NE(sentence().find("/no/such/folder"), std::string::npos);
  dsv_load_progress progress{};
  progress.struct_size = sizeof progress;
  EXPECT_EQ(dsv_model_progress(raw, &progress), DSV_ERROR_IO);
  EXPECT_EQ(progress.state, DSV_LOAD_FAILED);
  dsv_session* session = nullptr;
  EXPECT_EQ(dsv_session_create(raw, nullptr, &session), DSV_ERROR_NOT_READY);
  dsv_model_info info{};
  info.struct_size = sizeof info;
  EXPECT_EQ(dsv_model_get_info(raw, &info), DSV_ERROR_NOT_READY);
}

TEST(Loading, BudgetsHold) {
  const EngineHandle engine = make_engine();
  const auto fails_with = [&](dsv_model_options options, const char* words) {
    dsv_model* raw = nullptr;
    expect_ok(dsv_model_load(engine.get(), tiny_checkpoint().c_str(), &options, &raw));
    const ModelHandle model(raw);
    const dsv_status status = dsv_model_wait(raw, -1);
    EXPECT_NE(sentence().find(words), std::string::npos) << sentence();
    return status;
  };
  dsv_model_options options = exact_options();
  options.weight_budget_bytes = 1000;
  EXPECT_EQ(fails_with(options, "weight_budget_bytes"), DSV_ERROR_BUDGET);
  options = exact_options();
  options.kv_budget_bytes = 1000;
  EXPECT_EQ(fails_with(options, "kv_budget_bytes"), DSV_ERROR_BUDGET);
  options = exact_options();
  options.context_tokens = kContext + 1;
  EXPECT_EQ(fails_with(options, "context_tokens"), DSV_ERROR_INVALID_ARGUMENT);
}

// Files from memory, opened by a host that can be told to wait: a load that is certainly still running.
struct MemoryHost {
  std::map<std::string, std::string> files;
  std::mutex gate;
  std::atomic<int64_t> allocated{0}, allocations{0}, open_files{0}, jobs{0};
  std::string log;
  dsv_hooks hooks{};

  explicit MemoryHost(const std::string& folder) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      std::ifstream in(entry.path(), std::ios::binary);
      files["game/" + entry.path().filename().string()] = std::string(std::istreambuf_iterator<char>(in), {});
    }
    dsv_hooks_init(&hooks);
    hooks.user = this;
    hooks.allocate = [](void* self, int64_t size, int64_t alignment) {
      of(self).allocated += size;
      ++of(self).allocations;
      return std::aligned_alloc(static_cast<size_t>(alignment),
                                static_cast<size_t>((size + alignment - 1) / alignment * alignment));
    };
    hooks.deallocate = [](void* self, void* memory, int64_t size, int64_t) {
      of(self).allocated -= size;
      std::free(memory);
    };
    hooks.log = [](void* self, int32_t, const char* text, int64_t size) {
      of(self).log.append(text, static_cast<size_t>(size));
    };
    hooks.file_open = [](void* self, const char* path, void** file, int64_t* size) -> dsv_status {
      const std::lock_guard wait(of(self).gate);
      const auto found = of(self).files.find(path);
      if (found == of(self).files.end()) return DSV_ERROR_IO;
      ++of(self).open_files;
      *file = &found->second;
      *size = static_cast<int64_t>(found->second.size());
      return DSV_OK;
    };
    hooks.file_read = [](void*, void* file, int64_t offset, void* out, int64_t size) -> dsv_status {
      std::memcpy(out, static_cast<std::string*>(file)->data() + offset, static_cast<size_t>(size));
      return DSV_OK;
    };
    hooks.file_close = [](void* self, void*) { --of(self).open_files; };
    hooks.run_jobs = [](void* self, void (*job)(void*, int32_t), void* argument, int32_t count) {
      of(self).jobs += count;
      for (int32_t i = count; i-- > 0;) job(argument, i);
    };
  }
  static MemoryHost& of(void* self) { return *static_cast<MemoryHost*>(self); }
};

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
}

TEST(Hooks, HalfAGroupIsRefused) {
  dsv_hooks hooks;
  dsv_hooks_init(&hooks);
  hooks.deallocate = [](void*, void*, int64_t, int64_t) {};
  dsv_engine_options options;
  dsv_engine_options_init(&options);
  options.hooks = &hooks;
  dsv_engine* engine = nullptr;
  EXPECT_EQ(dsv_engine_create(&options, &engine), DSV_ERROR_INVALID_ARGUMENT);
}

TEST(Hooks, ARefusedAllocationFailsTheLoadAlone) {
  MemoryHost host(tiny_checkpoint());
  host.hooks.allocate = [](void* self, int64_t size, int64_t) -> void* {
    MemoryHost::of(self).allocated += size;
    return size > (1 << 18) ? (MemoryHost::of(self).allocated -= size, nullptr)
                            : std::aligned_alloc(64, static_cast<size_t>((size + 63) / 64 * 64));
  };
  const EngineHandle engine = make_engine({"cpu", 1, &host.hooks});
  dsv_model* raw = nullptr;
  const dsv_model_options options = exact_options();
  expect_ok(dsv_model_load(engine.get(), "game", &options, &raw));
  EXPECT_EQ(dsv_model_wait(raw, -1), DSV_ERROR_OUT_OF_MEMORY);
  dsv_model_destroy(raw);
  EXPECT_EQ(host.allocated, 0);
}

TEST(Loading, CanBeWatchedCancelledAndDestroyed) {
  MemoryHost host(tiny_checkpoint());
  const EngineHandle engine = make_engine({"reference", 1, &host.hooks});
  dsv_model* raw = nullptr;
  {
    const std::lock_guard closed(host.gate);
    expect_ok(dsv_model_load(engine.get(), "game", nullptr, &raw));
    EXPECT_EQ(dsv_model_wait(raw, 1), DSV_ERROR_NOT_READY);
    dsv_load_progress progress{};
    progress.struct_size = sizeof progress;
    expect_ok(dsv_model_progress(raw, &progress));
    EXPECT_EQ(progress.state, DSV_LOAD_RUNNING);
    dsv_session* session = nullptr;
    EXPECT_EQ(dsv_session_create(raw, nullptr, &session), DSV_ERROR_NOT_READY);
    dsv_model_cancel_load(raw);
  }
  EXPECT_EQ(dsv_model_wait(raw, -1), DSV_ERROR_CANCELLED);
  dsv_load_progress progress{};
  progress.struct_size = sizeof progress;
  EXPECT_EQ(dsv_model_progress(raw, &progress), DSV_ERROR_CANCELLED);
  EXPECT_EQ(progress.state, DSV_LOAD_CANCELLED);
  dsv_model_destroy(raw);

  std::thread opener;
  {
    const std::lock_guard closed(host.gate);
    expect_ok(dsv_model_load(engine.get(), "game", nullptr, &raw));
    opener = std::thread([raw] { dsv_model_destroy(raw); });  // waits for the loading thread
  }
  opener.join();
  EXPECT_EQ(host.open_files, 0);

  // One that ends well, watched to its end.
  const ModelHandle model = load(engine.get(), exact_options(), "game");
  expect_ok(dsv_model_progress(model.get(), &progress));
  EXPECT_EQ(progress.state, DSV_LOAD_READY);
  EXPECT_GT(progress.total, 0);
  EXPECT_EQ(progress.done, progress.total);
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

TEST(Busy, OverlappingCallsAreRefusedAtOnce) {
  MemoryHost host(tiny_checkpoint());
  const EngineHandle engine = make_engine({"reference", 1, &host.hooks});
  const ModelHandle model = load(engine.get(), exact_options(), "game");
  Recorder session(model.get());
  std::atomic<bool> inside{false}, go_on{false};
  session.act = [&](const dsv_event&) {
    inside = true;
    while (!go_on) std::this_thread::yield();
    return DSV_ACTION_CONTINUE;
  };
  expect_ok(complete(session.handle.get(), prompt(3), token_options(1)));
  std::thread stepper([&] { expect_ok(dsv_engine_run(engine.get())); });
  while (!inside) std::this_thread::yield();
  EXPECT_EQ(dsv_engine_step(engine.get(), 1, nullptr), DSV_ERROR_BUSY);
  int64_t count = -3;
  EXPECT_EQ(dsv_session_tokens(session.handle.get(), nullptr, 0, &count), DSV_ERROR_BUSY);
  EXPECT_EQ(count, -3);
  const EngineHandle another = make_engine();  // engines are independent
  expect_ok(dsv_engine_run(another.get()));
  go_on = true;
  stepper.join();
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(session.count(DSV_EVENT_FINISHED), 1);
}

TEST(Handles, AreCountedAndMayGoInAnyOrder) {
  const auto counts = [] {
    dsv_handle_counts now{};
    now.struct_size = sizeof now;
    expect_ok(dsv_live_handles(&now));
    return std::vector<int64_t>{now.engines, now.models, now.sessions, now.tokenizers};
  };
  const std::vector<int64_t> none(4);
  EXPECT_EQ(counts(), none);
  {
    EngineHandle engine = make_engine();
    ModelHandle model = load(engine.get(), exact_options());
    Recorder session(model.get());
    EXPECT_EQ(counts(), (std::vector<int64_t>{1, 1, 1, 0}));
    expect_ok(complete(session.handle.get(), prompt(3), token_options(1)));
    model.reset();
    expect_ok(dsv_engine_run(engine.get()));
    engine.reset();
    EXPECT_EQ(counts(), (std::vector<int64_t>{0, 0, 1, 0}));
    EXPECT_EQ(session.held().size(), 3u);
    std::vector<float> logits(kVocab);
    const std::vector<int32_t> tokens = prompt(5);
    expect_ok(
        dsv_session_logits(session.handle.get(), tokens.data(), 5, 4, 1, DSV_LOGITS_MAIN, logits.data()));
  }
  EXPECT_EQ(counts(), none);
}

TEST(Errors, BelongToTheirThread) {
  EXPECT_EQ(dsv_engine_create(nullptr, nullptr), DSV_ERROR_INVALID_ARGUMENT);
  const std::string mine = sentence();
  std::thread([] { EXPECT_STREQ(dsv_error_message(), ""); }).join();
  EXPECT_EQ(sentence(), mine);
}

}  // namespace
}  // namespace dsv::test
