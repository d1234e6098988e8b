// Which calls may be made while another is at work, and what destroying waits for.
#include <atomic>
#include <thread>

#include "tests/abi/memory_host.h"

namespace dsv::test {
namespace {

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

// Waits for what another thread does.
void wait_until(const std::atomic<bool>& flag) {
  while (!flag) std::this_thread::yield();
}

// Every function that is not for any thread, made while a callback runs: from another thread and from inside
// it.
TEST(Busy, HoldsForEveryCallThatTouchesTheEngine) {
  const EngineHandle engine = make_engine();
  const ModelHandle model = load(engine.get(), exact_options());
  Recorder session(model.get());
  dsv_session* raw = nullptr;
  expect_ok(dsv_session_create(model.get(), nullptr, &raw));
  const SessionHandle polled(raw);
  const auto all_busy = [&] {
    const int32_t ids[] = {1, 2};
    float logits[2 * kVocab];
    int64_t size = -3, request = -3;
    dsv_model* loaded = nullptr;
    dsv_session* created = nullptr;
    dsv_tokenizer* tokenizer = nullptr;
    dsv_memory_plan plan{};
    plan.struct_size = sizeof plan;
    dsv_model_info info{};
    info.struct_size = sizeof info;
    dsv_memory_use use{};
    use.struct_size = sizeof use;
    dsv_event event{};
    event.struct_size = sizeof event;
    const char* path = tiny_checkpoint().c_str();
    EXPECT_EQ(dsv_engine_step(engine.get(), 1, nullptr), DSV_ERROR_BUSY);
    EXPECT_EQ(dsv_engine_run(engine.get()), DSV_ERROR_BUSY);
    EXPECT_EQ(dsv_model_plan(engine.get(), path, nullptr, &plan), DSV_ERROR_BUSY);
    EXPECT_EQ(dsv_model_inspect(engine.get(), path, nullptr, nullptr, 0, &size), DSV_ERROR_BUSY);
    EXPECT_EQ(dsv_model_load(engine.get(), path, nullptr, &loaded), DSV_ERROR_BUSY);
    EXPECT_EQ(dsv_model_get_info(model.get(), &info), DSV_ERROR_BUSY);
    EXPECT_EQ(dsv_model_memory(model.get(), &use), DSV_ERROR_BUSY);
    EXPECT_EQ(dsv_model_tokenizer(model.get(), &tokenizer), DSV_ERROR_BUSY);
    EXPECT_EQ(dsv_session_create(model.get(), nullptr, &created), DSV_ERROR_BUSY);
    EXPECT_EQ(dsv_session_chat(raw, "{}", 2, nullptr, &request), DSV_ERROR_BUSY);
    EXPECT_EQ(dsv_session_complete(raw, ids, 2, nullptr, &request), DSV_ERROR_BUSY);
    EXPECT_EQ(dsv_session_resume(raw), DSV_ERROR_BUSY);
    EXPECT_EQ(dsv_session_poll(raw, &event), DSV_ERROR_BUSY);
    EXPECT_EQ(dsv_session_tokens(raw, nullptr, 0, &size), DSV_ERROR_BUSY);
    EXPECT_EQ(dsv_session_logits(raw, ids, 2, 0, 2, DSV_LOGITS_MAIN, logits), DSV_ERROR_BUSY);
    EXPECT_TRUE(loaded == nullptr && created == nullptr && tokenizer == nullptr);
    EXPECT_TRUE(size == -3 && request == -3);
    EXPECT_TRUE(plan.total_bytes == 0 && info.vocab_size == 0 && use.kv_pages_total == 0);
  };
  const auto any_thread = [&] {
    dsv_load_progress progress{};
    progress.struct_size = sizeof progress;
    expect_ok(dsv_model_progress(model.get(), &progress));
    expect_ok(dsv_model_wait(model.get(), 0));
    dsv_model_cancel_load(model.get());
    dsv_handle_counts counts{};
    counts.struct_size = sizeof counts;
    expect_ok(dsv_live_handles(&counts));
    EXPECT_EQ(counts.sessions, 2);
    EXPECT_STRNE(dsv_build_info(), "");
    int64_t size = 0;
    expect_ok(dsv_chat_parse("a", 1, 0, nullptr, 0, &size));
    const EngineHandle another = make_engine();  // engines are independent
    expect_ok(dsv_engine_run(another.get()));
  };
  std::atomic<bool> inside{false}, go_on{false};
  session.act = [&](const dsv_event& event) {
    if (event.kind != DSV_EVENT_TOKEN) return DSV_ACTION_CONTINUE;
    all_busy();
    any_thread();
    inside = true;
    wait_until(go_on);
    return DSV_ACTION_CONTINUE;
  };
  expect_ok(complete(session.handle.get(), prompt(3), token_options(1)));
  std::thread stepper([&] { expect_ok(dsv_engine_run(engine.get())); });
  wait_until(inside);
  all_busy();
  any_thread();
  dsv_session_cancel(raw);
  go_on = true;
  stepper.join();
  EXPECT_EQ(session.count(DSV_EVENT_FINISHED), 1);
  EXPECT_EQ(session.finished().finish_reason, DSV_FINISH_LENGTH);
}

TEST(Destroying, WaitsForTheCallbackThatRuns) {
  const EngineHandle engine = make_engine();
  const ModelHandle model = load(engine.get(), exact_options());
  Recorder session(model.get());
  std::atomic<bool> inside{false}, destroying{false}, left{false}, destroyed{false};
  session.act = [&](const dsv_event&) {
    inside = true;
    wait_until(destroying);
    for (int i = 0; i < 100; ++i) std::this_thread::yield();
    EXPECT_FALSE(destroyed);
    left = true;
    return DSV_ACTION_CONTINUE;
  };
  expect_ok(complete(session.handle.get(), prompt(3), token_options(0)));
  std::thread other([&] {
    wait_until(inside);
    destroying = true;
    session.handle.reset();
    EXPECT_TRUE(left);
    destroyed = true;
  });
  expect_ok(dsv_engine_run(engine.get()));
  other.join();
  EXPECT_EQ(session.events.size(), 1u) << "the callback was called after its session was destroyed";
}

// Two callbacks that destroy each other's session do not wait for each other.
TEST(Destroying, InCallbacksOfTwoEnginesDoesNotDeadlock) {
  const EngineHandle engines[] = {make_engine(), make_engine()};
  const ModelHandle models[] = {load(engines[0].get(), exact_options()),
                                load(engines[1].get(), exact_options())};
  Recorder sessions[] = {Recorder(models[0].get()), Recorder(models[1].get())};
  std::atomic<int> inside{0};
  for (size_t i = 0; i < 2; ++i) {
    sessions[i].act = [&, i](const dsv_event&) {
      ++inside;
      while (inside < 2) std::this_thread::yield();
      sessions[1 - i].handle.reset();
      return DSV_ACTION_CONTINUE;
    };
    expect_ok(complete(sessions[i].handle.get(), prompt(3), token_options(0)));
  }
  std::thread other([&] { expect_ok(dsv_engine_run(engines[1].get())); });
  expect_ok(dsv_engine_run(engines[0].get()));
  other.join();
  EXPECT_TRUE(sessions[0].handle == nullptr && sessions[1].handle == nullptr);
}

// A load that is cancelled half-way, from another thread, gives back what it had.
TEST(Loading, IsCancelledBetweenItsWeights) {
  MemoryHost host(tiny_checkpoint());
  static std::atomic<bool> reached, cancelled;
  reached = cancelled = false;
  static void* (*allocate)(void*, int64_t, int64_t);
  allocate = host.hooks.allocate;
  host.hooks.allocate = [](void* self, int64_t size, int64_t alignment) -> void* {
    reached = true;
    wait_until(cancelled);
    return allocate(self, size, alignment);
  };
  host.hooks.file_map = [](void*, void* file) -> const void* {
    return static_cast<std::string*>(file)->data();
  };
  const EngineHandle engine = make_engine({"cpu", 1, &host.hooks});
  dsv_model* raw = nullptr;
  expect_ok(dsv_model_load(engine.get(), "game", nullptr, &raw));
  wait_until(reached);
  dsv_model_cancel_load(raw);
  cancelled = true;
  EXPECT_EQ(dsv_model_wait(raw, -1), DSV_ERROR_CANCELLED);
  dsv_load_progress progress{};
  progress.struct_size = sizeof progress;
  EXPECT_EQ(dsv_model_progress(raw, &progress), DSV_ERROR_CANCELLED);
  EXPECT_LT(progress.done, progress.total);
  dsv_model_destroy(raw);
  EXPECT_EQ(host.allocated, 0);
  EXPECT_EQ(host.open_files, 0);
}

// Progress only grows, and several threads may ask for it and wait.
TEST(Loading, IsWatchedFromSeveralThreads) {
  const EngineHandle engine = make_engine();
  dsv_model* raw = nullptr;
  const dsv_model_options options = exact_options();
  expect_ok(dsv_model_load(engine.get(), tiny_checkpoint().c_str(), &options, &raw));
  const ModelHandle model(raw);
  const auto watch = [&] {
    dsv_load_progress progress{};
    progress.struct_size = sizeof progress;
    for (int64_t done = 0; progress.state != DSV_LOAD_READY; done = progress.done) {
      expect_ok(dsv_model_progress(raw, &progress));
      EXPECT_GE(progress.done, done);
      EXPECT_LE(progress.done, progress.total);
    }
    expect_ok(dsv_model_wait(raw, -1));
    EXPECT_EQ(progress.done, progress.total);
  };
  std::thread other(watch);
  watch();
  other.join();
}

}  // namespace
}  // namespace dsv::test
