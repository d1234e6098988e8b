// dsv.hpp over the shared library, on a random checkpoint.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "dsv/dsv.hpp"
#include "samples/cli/synth.h"

namespace {

namespace fs = std::filesystem;

class HppTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    path_ = testing::TempDir() + "/dsv-hpp-" + std::to_string(getpid());
    cli::SynthOptions options;
    options.preset = "tiny";
    options.out = path_;
    cli::synth(options);
  }
  static void TearDownTestSuite() { fs::remove_all(path_); }

  static dsv::GenerateOptions few_tokens() {
    dsv::GenerateOptions options;
    options.max_tokens = 8;
    options.ignore_eos = 1;
    return options;
  }

  static inline std::string path_;
};

TEST_F(HppTest, ErrorsCarryTheirStatus) {
  dsv::Engine engine;
  try {
    dsv::Model(engine, path_ + "/nowhere");
    FAIL();
  } catch (const dsv::Error& error) {
    EXPECT_EQ(error.status(), DSV_ERROR_IO);
    EXPECT_NE(std::string(error.what()).find("nowhere"), std::string::npos);
  }
}

TEST_F(HppTest, ThrowingCallbackStopsTheRequestAndComesOutOfTheStep) {
  dsv::Engine engine;
  dsv::Model model(engine, path_);
  int events = 0;
  dsv::Session session(model, [&](const dsv::Event&) -> int32_t {
    ++events;
    throw std::logic_error("mine");
  });
  session.complete({1, 2, 3}, few_tokens());
  EXPECT_THROW(engine.run(), std::logic_error);
  EXPECT_EQ(events, 1);  // what came after it is not delivered
  engine.run();          // the engine goes on, without a leftover
  EXPECT_EQ(engine.step(0), 0);
}

TEST_F(HppTest, EventsByPollingAndCallbackAreTheSame) {
  dsv::Engine engine;
  dsv::Model model(engine, path_);
  std::string called, polled;
  dsv::Session by_callback(model, [&](const dsv::Event& event) {
    if (event.kind == DSV_EVENT_CONTENT) called += event.text;
    return DSV_ACTION_CONTINUE;
  });
  dsv::Session by_poll(model);
  by_callback.complete({1, 2, 3}, few_tokens());
  by_poll.complete({1, 2, 3}, few_tokens());
  engine.run();
  int finished = 0;
  for (dsv::Event event; by_poll.poll(event);) {
    if (event.kind == DSV_EVENT_CONTENT) polled += event.text;
    finished += event.kind == DSV_EVENT_FINISHED;
  }
  EXPECT_EQ(called, polled);
  EXPECT_EQ(finished, 1);
}

TEST_F(HppTest, HandlesCloseThemselves) {
  {
    dsv::Engine engine;
    dsv::Model model(engine, path_);
    dsv::Session session(model);
    dsv::Session moved = std::move(session);
    dsv::Tokenizer tokenizer = model.tokenizer();
    EXPECT_EQ(tokenizer.decode(tokenizer.encode("a b")), "a b");
  }
  dsv_handle_counts counts{};
  counts.struct_size = sizeof counts;
  dsv::check(dsv_live_handles(&counts));
  EXPECT_EQ(counts.engines + counts.models + counts.sessions + counts.tokenizers, 0);
}

TEST(Conversation, IsTheMessageListAsJson) {
  dsv::Conversation talk;
  talk.set_tools("[]");
  talk.add("user", "a \"quoted\"\n\\line\x01");
  dsv::Event event;
  event.kind = DSV_EVENT_CONTENT;
  event.text = "hm";
  talk.collect(event);
  event.kind = DSV_EVENT_TOOL_END;
  event.text = R"({"x": "y"})";
  event.tool_name = "f";
  event.tool_id = "call_0";
  talk.collect(event);
  event = {};
  event.kind = DSV_EVENT_FINISHED;
  talk.collect(event);
  ASSERT_EQ(talk.tool_calls().size(), 1u);
  talk.add_tool_result(talk.tool_calls()[0].id, "ok");
  const auto parsed = nlohmann::json::parse(talk.json());
  ASSERT_EQ(parsed["messages"].size(), 3u);
  EXPECT_EQ(parsed["messages"][0]["content"], "a \"quoted\"\n\\line\x01");
  EXPECT_EQ(parsed["messages"][1]["tool_calls"][0]["function"]["arguments"], R"({"x": "y"})");
  EXPECT_EQ(parsed["messages"][2]["tool_call_id"], "call_0");
}

}  // namespace
