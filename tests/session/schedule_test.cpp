// What is computed does not depend on how: alone or together, in chunks of any size, under any step budget.
#include <atomic>
#include <cstring>
#include <random>

#include "session/engine.h"
#include "session/model.h"
#include "session/scheduler.h"
#include "session/session.h"
#include "tests/session/session_fixture.h"

namespace dsv::test {
namespace {

struct Run {
  EngineSetup engine;
  int32_t batch_rows = 0;
  int64_t budget_us = -1;  // -1: dsv_engine_run
  bool together = false;
};

// Tokens and alternatives of three requests, as bytes.
std::vector<std::string> generate(const Run& run) {
  const EngineHandle engine = make_engine(run.engine);
  dsv_model_options options = exact_options();
  options.batch_rows = run.batch_rows;
  const ModelHandle model = load(engine.get(), options);
  std::vector<std::unique_ptr<Recorder>> sessions;
  const auto advance = [&] {
    if (run.budget_us < 0) return expect_ok(dsv_engine_run(engine.get()));
    int32_t pending = 1;
    while (pending > 0) expect_ok(dsv_engine_step(engine.get(), run.budget_us, &pending));
  };
  for (int32_t i = 0; i < 3; ++i) {
    sessions.push_back(std::make_unique<Recorder>(model.get()));
    dsv_generate_options generate = token_options(9);
    generate.logprobs = 4;
    generate.seed = static_cast<uint64_t>(i);
    expect_ok(complete(sessions.back()->handle.get(), prompt(9 + 7 * i, i), generate));
    if (!run.together) advance();
  }
  advance();
  std::vector<std::string> results;
  for (const auto& session : sessions) {
    EXPECT_EQ(session->count(DSV_EVENT_FINISHED), 1);
    std::string bytes;
    for (const Event& event : session->events) {
      if (event.raw.kind != DSV_EVENT_TOKEN) continue;
      bytes.append(reinterpret_cast<const char*>(&event.raw.token), sizeof event.raw.token);
      bytes.append(reinterpret_cast<const char*>(&event.raw.logprob), sizeof event.raw.logprob);
      bytes.append(reinterpret_cast<const char*>(event.top.data()), event.top.size() * sizeof event.top[0]);
    }
    EXPECT_EQ(bytes.size(), 9 * (8 + 4 * sizeof(dsv_token_logprob)));
    results.push_back(std::move(bytes));
  }
  return results;
}

TEST(Schedule, ResultsDoNotDependOnHowRowsAreBatched) {
  for (const std::string backend : {"reference", "cpu"}) {
    SCOPED_TRACE(backend);
    const EngineSetup one{backend, 1, nullptr}, three{backend, 3, nullptr};
    const std::vector<std::string> expected = generate({one});
    EXPECT_EQ(generate({one, 0, -1, true}), expected);
    EXPECT_EQ(generate({three, 0, -1, true}), expected);
    EXPECT_EQ(generate({one, 1, -1, true}), expected);
    EXPECT_EQ(generate({one, 5, -1, true}), expected);
    EXPECT_EQ(generate({one, 0, 0, true}), expected);
    EXPECT_EQ(generate({three, 7, 300, true}), expected);
  }
}

// Counts what one step computes, in layers of one row: a table that wraps a table.
std::atomic<int64_t> layer_rows{0};
const OpTable& counting_ops() {
  static const OpTable table = [] {
    OpTable ops = reference_ops();
    ops.attend = [](Device* device, const AttendArgs& args) {
      layer_rows += args.rows.count;
      reference_ops().attend(device, args);
    };
    return ops;
  }();
  return table;
}

TEST(Schedule, AStepWithoutBudgetComputesOneLayerOfOneRow) {
  const auto engine = std::make_shared<Engine>(counting_ops(), 1, nullptr, std::string());
  const dsv_model_options options = exact_options();
  const auto model = std::make_shared<Model>(engine, tiny_checkpoint(), check_model_options(options));
  ASSERT_TRUE(model->wait(-1));
  const auto session = std::make_shared<Session>(model, nullptr, nullptr);
  {
    const Engine::Entry entry(*engine);
    engine->attach(*session);
    session->complete(prompt(6), token_options(2));
    int steps = 0;
    layer_rows = 0;
    for (int64_t before = 0; engine->step(0) > 0; before = layer_rows) {
      ASSERT_LE(layer_rows - before, 1);
      ASSERT_LT(++steps, 100);
    }
    // Six rows of the prompt and the first token's, and each step computes a layer's row or logits.
    EXPECT_EQ(layer_rows, 7 * kTinyLayers);
    EXPECT_GE(steps, layer_rows - 1);
  }
  session->close();
  engine->bury(session);
}

// The sampling of many sessions' tokens is work of a step, too.
TEST(Schedule, AStepWithoutBudgetSamplesOneToken) {
  const EngineHandle engine = make_engine();
  const ModelHandle model = load(engine.get(), exact_options());
  std::vector<std::unique_ptr<Recorder>> sessions;
  for (int32_t i = 0; i < 4; ++i) {
    sessions.push_back(std::make_unique<Recorder>(model.get()));
    expect_ok(complete(sessions.back()->handle.get(), prompt(1, i), token_options(3)));
  }
  const auto tokens = [&] {
    int n = 0;
    for (const auto& session : sessions) n += session->count(DSV_EVENT_TOKEN);
    return n;
  };
  int32_t pending = 1;
  for (int before = 0; pending > 0; before = tokens()) {
    expect_ok(dsv_engine_step(engine.get(), 0, &pending));
    ASSERT_LE(tokens() - before, 1);
  }
  EXPECT_EQ(tokens(), 12);
}

// Requests end, sessions go and logits are computed between two samplings of one batch: the others lose
// nothing.
TEST(Schedule, WhatHappensBetweenSamplingsConcernsItsSessionOnly) {
  const EngineHandle engine = make_engine();
  const ModelHandle model = load(engine.get(), exact_options());
  const auto generate = [&](int what) {
    std::vector<std::unique_ptr<Recorder>> sessions;
    for (int32_t i = 0; i < 4; ++i) {
      sessions.push_back(std::make_unique<Recorder>(model.get()));
      expect_ok(complete(sessions.back()->handle.get(), prompt(1, i), token_options(6)));
    }
    Recorder other(model.get());
    std::vector<float> logits(kVocab);
    const std::vector<int32_t> ids = prompt(4);
    int32_t pending = 1;
    for (int step = 0; pending > 0; ++step) {
      expect_ok(dsv_engine_step(engine.get(), what == 0 ? 1'000'000 : 0, &pending));
      const bool between = sessions[0]->count(DSV_EVENT_TOKEN) != sessions[3]->count(DSV_EVENT_TOKEN);
      if (what == 0 || !between) continue;
      if (what == 1) sessions[1]->handle.reset();
      if (what == 2) dsv_session_cancel(sessions[1]->handle.get());
      if (what == 3) {
        expect_ok(
            dsv_session_logits(other.handle.get(), ids.data(), 4, 3, 1, DSV_LOGITS_MAIN, logits.data()));
        what = 4;  // once: it makes the batch begin anew
      }
    }
    return std::vector<std::vector<int32_t>>{sessions[0]->tokens(), sessions[2]->tokens(),
                                             sessions[3]->tokens()};
  };
  const auto expected = generate(0);
  EXPECT_EQ(expected[0].size(), 6u);
  for (int what = 1; what <= 3; ++what) EXPECT_EQ(generate(what), expected) << what;
}

// What a step's pieces cost decides where it stops. Costs here are a function of the rows, not of the clock.
TEST(RowCost, NeverLetsMoreThanOneRowOvershoot) {
  std::mt19937 random(11);
  const auto draw = [&](double from, double to) { return std::uniform_real_distribution(from, to)(random); };
  for (int round = 0; round < 200; ++round) {
    const double base = draw(0, 10), per_row = draw(0.01, 10);
    const auto cost = [&](int32_t rows) { return base + per_row * rows; };
    RowCost known;
    EXPECT_EQ(known.rows_within(1, 100), 1);
    for (int i = 0; i < 100; ++i) {
      const auto rows = static_cast<int32_t>(1 + random() % 200);
      const double budget = draw(0, 2 * cost(100));
      const int32_t taken = known.rows_within(budget, rows);
      ASSERT_TRUE(taken >= 1 && taken <= rows);
      ASSERT_TRUE(taken == 1 || cost(taken) <= budget * 1.000001)
          << rows << " rows of " << base << " + " << per_row;
      known.measured(taken, cost(taken));
    }
    // What is known is used: a budget that is ample is not wasted on few rows.
    for (int i = 0; i < 20; ++i) {
      const int32_t taken = known.rows_within(3 * cost(64), 64);
      known.measured(taken, cost(taken));
    }
    EXPECT_EQ(known.rows_within(3 * cost(64), 64), 64);
  }
}

TEST(Schedule, GenerationGoesOnBesideALongPrompt) {
  const EngineHandle engine = make_engine();
  dsv_model_options options = exact_options();
  options.batch_rows = 4;
  options.kv_budget_bytes = int64_t{1} << 26;
  const ModelHandle model = load(engine.get(), options);
  Recorder quick(model.get()), slow(model.get());
  expect_ok(complete(quick.handle.get(), prompt(1), token_options(8)));
  expect_ok(complete(slow.handle.get(), prompt(80), token_options(1)));
  size_t prefills_before = 0;
  quick.act = [&](const dsv_event& event) {
    if (event.kind == DSV_EVENT_FINISHED)
      prefills_before = static_cast<size_t>(slow.count(DSV_EVENT_PREFILL));
    return DSV_ACTION_CONTINUE;
  };
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_LE(prefills_before, 9u);  // 3 rows beside each of its 8 rows: the prompt was not done first
  EXPECT_GE(slow.count(DSV_EVENT_PREFILL), 20);
}

// What an engine's backend is told of the model's options.
TEST(Models, OptionsReachTheDevice) {
  static DeviceOptions seen;
  static OpTable table = reference_ops();
  table.open = [](const DeviceOptions& options) {
    seen = options;
    return reference_ops().open(options);
  };
  const auto engine = std::make_shared<Engine>(table, 1, nullptr, "");
  for (const bool fast : {false, true}) {
    dsv_model_options options = exact_options();
    options.schedule = fast ? DSV_SCHEDULE_FAST : DSV_SCHEDULE_DETERMINISTIC;
    options.gpu_stream_priority = fast ? -3 : 2;
    Model model(engine, tiny_checkpoint(), check_model_options(options));
    EXPECT_TRUE(model.wait(-1));
    EXPECT_EQ(seen.fast, fast);
    EXPECT_EQ(seen.stream_priority, options.gpu_stream_priority);
  }
}

}  // namespace
}  // namespace dsv::test
