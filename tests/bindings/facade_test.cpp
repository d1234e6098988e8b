// facade_test CHECKPOINT: the native half of all bindings by itself, on the scripted checkpoint, so that
// sanitizers see it.
#include "bindings/facade.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <thread>

namespace {

namespace calls = dsv::calls;
using dsv::binding::OwnedGenerateOptions;

std::string checkpoint;

constexpr const char* kHello = R"({"messages": [{"role": "user", "content": "#hello"}]})";
constexpr const char* kSpin = R"({"messages": [{"role": "user", "content": "#spin"}]})";

struct World {
  int64_t engine = 0, model = 0, session = 0;
};
World open() {
  World world;
  world.engine = calls::engine_create(nullptr);
  world.model = calls::model_load(world.engine, checkpoint, nullptr);
  calls::model_wait(world.model, -1);
  world.session = calls::session_create(world.model);
  return world;
}
void close(const World& world) {
  calls::engine_close(world.engine);
  calls::session_close(world.session);
  calls::model_close(world.model);
}

// Steps and polls until the request has finished.
std::string answer(int64_t engine, int64_t session) {
  std::string text;
  for (;;) {
    const std::unique_ptr<dsv::Event> event(calls::session_poll(session));
    if (!event) {
      calls::engine_step(engine, 1000);
      continue;
    }
    text += event->text;
    if (event->kind == DSV_EVENT_FINISHED) return text;
  }
}

dsv_status status_of(const std::function<void()>& call) {
  try {
    call();
  } catch (...) {
    return dsv::binding::current_failure().status;
  }
  return DSV_OK;
}

void expect_nothing_open() {
  const dsv_handle_counts counts = calls::live_handles();
  EXPECT_EQ(counts.engines + counts.models + counts.sessions + counts.tokenizers, 0);
}

TEST(Facade, ClosedAndForeignHandlesAreRefused) {
  const World world = open();
  const int64_t tokenizer = calls::model_tokenizer(world.model);
  close(world);
  close(world);
  calls::tokenizer_close(tokenizer);
  for (const int64_t handle : {world.session, int64_t{0}, int64_t{-1}, INT64_MAX}) {
    EXPECT_EQ(status_of([&] { calls::session_poll(handle); }), DSV_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(status_of([&] { calls::session_chat(handle, kHello, nullptr); }), DSV_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(status_of([&] { calls::session_create(handle); }), DSV_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(status_of([&] { calls::engine_step(handle, 1); }), DSV_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(status_of([&] { calls::tokenizer_encode(handle, ""); }), DSV_ERROR_INVALID_ARGUMENT);
  }
  expect_nothing_open();
}

TEST(Facade, AnEventOutlivesItsSession) {
  const World world = open();
  calls::session_chat(world.session, kHello, nullptr);
  while (calls::engine_step(world.engine, 1000) > 0) {
  }
  const std::unique_ptr<dsv::Event> first(calls::session_poll(world.session));
  close(world);
  EXPECT_EQ(first->kind, DSV_EVENT_PREFILL);
  expect_nothing_open();
}

TEST(Facade, OptionsOwnWhatTheyPointTo) {
  const World world = open();
  OwnedGenerateOptions options;
  for (int i = 0; i < 15; ++i) dsv::binding::add_stop(options, std::string(100, static_cast<char>('a' + i)));
  dsv::binding::add_stop(options, " there");
  dsv::binding::add_logit_bias(options, 7, -1);
  calls::session_chat(world.session, kHello, &options);
  EXPECT_EQ(answer(world.engine, world.session), "Hello");
  dsv::binding::OwnedEngineOptions machine;
  dsv::binding::set_text(machine.backend_text, machine.backend, "cpu", "backend");
  EXPECT_STREQ(machine.backend, "cpu");
  dsv::binding::set_text(machine.backend_text, machine.backend, "", "backend");
  EXPECT_EQ(machine.backend, nullptr);
  EXPECT_EQ(status_of([&] {
              dsv::binding::set_text(machine.backend_text, machine.backend, std::string("a\0b", 3),
                                     "backend");
            }),
            DSV_ERROR_INVALID_ARGUMENT);
  close(world);
}

TEST(Facade, ThreadsTakeTurns) {
  const World world = open();
  std::vector<std::thread> threads;
  std::atomic<int> right = 0;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      const int64_t session = calls::session_create(world.model);
      for (int j = 0; j < 5; ++j) {
        calls::session_chat(session, kHello, nullptr);
        right += answer(world.engine, session) == "Hello there!";
      }
      calls::session_close(session);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 20);
  close(world);
  expect_nothing_open();
}

TEST(Facade, ClosingUnderACallIsSafe) {
  for (int i = 0; i < 10; ++i) {
    const World world = open();
    calls::session_chat(world.session, kSpin, nullptr);
    std::atomic<bool> speaking = false;
    dsv_status status = DSV_OK;
    std::thread asking([&] {
      status = status_of([&] {
        for (;;) {
          delete calls::session_poll(world.session);
          calls::engine_step(world.engine, 1000);
          speaking = true;
        }
      });
    });
    while (!speaking) std::this_thread::yield();
    calls::session_cancel(world.session);
    close(world);
    asking.join();
    EXPECT_EQ(status, DSV_ERROR_INVALID_ARGUMENT);
    expect_nothing_open();
  }
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (argc != 2) return 2;
  checkpoint = argv[1];
  return RUN_ALL_TESTS();
}
