// A request's life: how it starts, stops, pauses and ends, and what the session holds then.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <thread>

#include "tests/session/session_fixture.h"

namespace dsv::test {
namespace {

class Request : public ::testing::Test {
 protected:
  void SetUp() override {
    engine = make_engine();
    dsv_model_options options = exact_options();
    options.load_mtp = 1;
    options.batch_rows = 16;
    options.kv_budget_bytes = int64_t{1} << 26;
    model = load(engine.get(), options);
  }
  int64_t pages_used() {
    dsv_memory_use use{};
    use.struct_size = sizeof use;
    expect_ok(dsv_model_memory(model.get(), &use));
    return use.kv_pages_used;
  }
  EngineHandle engine;
  ModelHandle model;
};

TEST_F(Request, FailsWhenTheWeightsMakeNoNumbers) {
  const TempFolder folder;
  TestTensors tensors = random_tensors(small_config(), 7, "F32");
  std::string& head = tensors.at("lm_head.weight").bytes;
  std::fill(head.begin(), head.end(), '\xFF');  // NaN in F32
  write_file(folder.file("config.json"), small_config().dump());
  write_tensors(folder.path(), tensors);
  const ModelHandle damaged = load(engine.get(), exact_options(), folder.path());
  Recorder session(damaged.get());
  expect_ok(complete(session.handle.get(), prompt(5), token_options(4)));
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(session.finished().finish_reason, DSV_FINISH_ERROR);
  EXPECT_EQ(session.finished().status, DSV_ERROR_INVALID_FILE);
  EXPECT_NE(session.events.back().text.find("NaN"), std::string::npos) << session.events.back().text;
  EXPECT_EQ(session.count(DSV_EVENT_TOKEN), 0);
}

TEST_F(Request, ComputesOnlyWhatFollowsTheCommonPrefix) {
  Recorder session(model.get());
  std::vector<int32_t> tokens = prompt(20);
  expect_ok(complete(session.handle.get(), tokens, token_options(4)));
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(session.finished().cached_tokens, 0);
  EXPECT_EQ(session.finished().prompt_tokens, 20);
  EXPECT_EQ(session.finished().completion_tokens, 4);
  EXPECT_EQ(session.held().size(), 23u);  // the last token was never fed

  // The next turn: the same conversation, the answer, and something new.
  const std::vector<int32_t> answer = session.tokens();
  tokens.insert(tokens.end(), answer.begin(), answer.end());
  tokens.push_back(5);
  expect_ok(complete(session.handle.get(), tokens, token_options(3)));
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(session.finished().cached_tokens, 23);
  const std::vector<int32_t> reused = session.tokens();

  Recorder fresh(model.get());
  expect_ok(complete(fresh.handle.get(), tokens, token_options(3)));
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(std::vector<int32_t>(reused.end() - 3, reused.end()), fresh.tokens());

  // A conversation that turns off earlier keeps what comes before.
  std::vector<int32_t> other(tokens.begin(), tokens.begin() + 10);
  other.push_back((tokens[10] + 1) % kVocab);
  expect_ok(complete(session.handle.get(), other, token_options(1)));
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(session.finished().cached_tokens, 10);
  EXPECT_EQ(session.held(), other);

  // All of it again: one token is computed anew to have logits.
  expect_ok(complete(fresh.handle.get(), tokens, token_options(3)));
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(fresh.finished().cached_tokens, static_cast<int64_t>(tokens.size()) - 1);
}

TEST_F(Request, ReportsPromptProgressWithoutWhatWasCached) {
  Recorder session(model.get());
  expect_ok(complete(session.handle.get(), prompt(40), token_options(1)));
  expect_ok(dsv_engine_run(engine.get()));
  ASSERT_EQ(session.count(DSV_EVENT_PREFILL), 3);  // 16 + 16 + 8 rows
  EXPECT_EQ(session.events[0].raw.done, 16);
  EXPECT_EQ(session.events[0].raw.total, 40);
  EXPECT_EQ(session.events[2].raw.done, 40);
}

TEST_F(Request, EndsAtTheEndOfTurnToken) {
  Recorder session(model.get());
  dsv_generate_options options = token_options(5);
  options.ignore_eos = 0;
  const dsv_logit_bias bias{kEos, 1000};
  options.logit_bias = &bias;
  options.logit_bias_count = 1;
  expect_ok(complete(session.handle.get(), prompt(3), options));
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(session.finished().finish_reason, DSV_FINISH_STOP);
  EXPECT_EQ(session.finished().completion_tokens, 1);
  options.ignore_eos = 1;
  expect_ok(complete(session.handle.get(), prompt(3), options));
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(session.finished().finish_reason, DSV_FINISH_LENGTH);
  EXPECT_EQ(session.finished().completion_tokens, 5);
}

// A token that is given several times has the sum.
TEST_F(Request, BiasesOfATokenAddUp) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const auto tokens = [&](const std::vector<dsv_logit_bias>& biases) {
    Recorder session(model.get());
    dsv_generate_options options = token_options(4);
    options.logit_bias = biases.data();
    options.logit_bias_count = static_cast<int64_t>(biases.size());
    expect_ok(complete(session.handle.get(), prompt(5), options));
    expect_ok(dsv_engine_run(engine.get()));
    return session.tokens();
  };
  EXPECT_EQ(tokens({{9, 600}, {3, 1}, {9, -600}, {3, -1}}), tokens({}));
  EXPECT_EQ(tokens({{9, 600}, {3, 1}, {9, 400}}), (std::vector<int32_t>{9, 9, 9, 9}));
  EXPECT_EQ(tokens({{9, kInf}, {8, 1000}, {9, -kInf}}), (std::vector<int32_t>{8, 8, 8, 8}));
}

// A batch holds as many biases as there are tokens: who has more than that together takes turns.
TEST_F(Request, AnyNumberOfBiases) {
  const auto run = [&](int sessions) {
    std::vector<dsv_logit_bias> biases;
    for (int32_t id = 0; id < kVocab; ++id) biases.push_back({id, static_cast<float>(id % 7)});
    std::vector<std::unique_ptr<Recorder>> all;
    for (int i = 0; i < sessions; ++i) {
      all.push_back(std::make_unique<Recorder>(model.get()));
      dsv_generate_options options = token_options(4);
      options.logit_bias = biases.data();
      options.logit_bias_count = kVocab - (i % 2) * 200;
      expect_ok(complete(all.back()->handle.get(), prompt(5 + i), options));
    }
    expect_ok(dsv_engine_run(engine.get()));
    std::vector<std::vector<int32_t>> tokens;
    for (const auto& session : all) tokens.push_back(session->tokens());
    return tokens;
  };
  const std::vector<std::vector<int32_t>> together = run(5);
  EXPECT_EQ(together[0].size(), 4u);
  EXPECT_EQ(together[4].size(), 4u);
  EXPECT_EQ(run(1)[0], together[0]);
}

TEST_F(Request, EndsWhenTheContextIsFull) {
  Recorder session(model.get());
  expect_ok(complete(session.handle.get(), prompt(kContext - 2), token_options(0)));
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(session.finished().finish_reason, DSV_FINISH_CONTEXT_FULL);
  EXPECT_EQ(session.finished().completion_tokens, 3);  // two that are fed, and the one after them
  EXPECT_EQ(session.held().size(), static_cast<size_t>(kContext));
  EXPECT_EQ(complete(session.handle.get(), prompt(kContext + 1), token_options(1)),
            DSV_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(session.held().size(), static_cast<size_t>(kContext)) << "a refused request changed the session";
}

TEST_F(Request, EndsWhenNoPageIsFree) {
  dsv_memory_plan plan{};
  plan.struct_size = sizeof plan;
  dsv_model_options options = exact_options();
  expect_ok(dsv_model_plan(engine.get(), tiny_checkpoint().c_str(), &options, &plan));
  options.kv_budget_bytes = plan.kv_bytes_per_1k / 16 * 2;  // two pages of 64 tokens
  const ModelHandle small = load(engine.get(), options);
  Recorder first(small.get()), second(small.get());
  expect_ok(complete(first.handle.get(), prompt(60), token_options(0)));
  expect_ok(complete(second.handle.get(), prompt(30), token_options(0)));
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(first.finished().finish_reason, DSV_FINISH_KV_BUDGET);
  EXPECT_EQ(second.finished().finish_reason, DSV_FINISH_KV_BUDGET);
  EXPECT_EQ(first.held().size(), 64u);
  EXPECT_EQ(second.held().size(), 64u);
  second.handle.reset();
  const std::vector<int32_t> held = first.held();
  expect_ok(complete(first.handle.get(), held, token_options(3)));
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(first.finished().finish_reason, DSV_FINISH_LENGTH);
}

TEST_F(Request, LogitsWithoutAFreePageGiveBackWhatTheyTook) {
  dsv_memory_plan plan{};
  plan.struct_size = sizeof plan;
  dsv_model_options options = exact_options();
  expect_ok(dsv_model_plan(engine.get(), tiny_checkpoint().c_str(), &options, &plan));
  options.kv_budget_bytes = plan.kv_bytes_per_1k / 16 * 3;
  options.batch_rows = 16;
  model = load(engine.get(), options);
  Recorder first(model.get()), second(model.get());
  const std::vector<int32_t> tokens = prompt(200);
  std::vector<float> logits(kVocab);
  const auto ask = [&](Recorder& session, int64_t count) {
    return dsv_session_logits(session.handle.get(), tokens.data(), count, count - 1, 1, DSV_LOGITS_MAIN,
                              logits.data());
  };
  expect_ok(ask(first, 20));
  EXPECT_EQ(ask(second, 150), DSV_ERROR_BUDGET);
  EXPECT_EQ(second.held(), prompt(128)) << "a prefix is kept";
  EXPECT_EQ(pages_used(), 3);
  expect_ok(ask(second, 60));
  EXPECT_EQ(pages_used(), 2);
  expect_ok(ask(first, 70));
  EXPECT_EQ(ask(first, 200), DSV_ERROR_BUDGET);
  EXPECT_EQ(first.held(), prompt(118)) << "the batches of 16 rows after the 70 that it held";
  second.handle.reset();
  EXPECT_EQ(pages_used(), 2);
  EXPECT_EQ(ask(first, 0), DSV_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(first.held(), prompt(118)) << "a refused call changed the session";
}

TEST_F(Request, CancelEndsItInEveryState) {
  Recorder session(model.get());
  dsv_session_cancel(session.handle.get());  // without a request: nothing
  expect_ok(complete(session.handle.get(), prompt(40), token_options(4)));
  dsv_session_cancel(session.handle.get());  // not begun
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(session.finished().finish_reason, DSV_FINISH_CANCELLED);
  EXPECT_EQ(session.held().size(), 0u);

  expect_ok(complete(session.handle.get(), prompt(40), token_options(4)));
  expect_ok(dsv_engine_step(engine.get(), 0, nullptr));  // a batch is in flight
  dsv_session_cancel(session.handle.get());
  int32_t pending = -1;
  expect_ok(dsv_engine_step(engine.get(), 0, &pending));
  EXPECT_EQ(pending, 0);
  EXPECT_EQ(session.count(DSV_EVENT_FINISHED), 2);

  session.act = [](const dsv_event& event) {
    return event.kind == DSV_EVENT_TOKEN ? DSV_ACTION_STOP : DSV_ACTION_CONTINUE;
  };
  expect_ok(complete(session.handle.get(), prompt(40), token_options(4)));
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(session.finished().finish_reason, DSV_FINISH_CANCELLED);
  EXPECT_EQ(session.finished().completion_tokens, 1);
  EXPECT_EQ(session.held(), prompt(40)) << "the tokens computed so far are kept";

  session.act = [](const dsv_event& event) {
    return event.kind == DSV_EVENT_PREFILL ? DSV_ACTION_PAUSE : DSV_ACTION_CONTINUE;
  };
  expect_ok(complete(session.handle.get(), prompt(50, 2), token_options(4)));
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(session.count(DSV_EVENT_FINISHED), 3);  // paused
  dsv_session_cancel(session.handle.get());
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(session.count(DSV_EVENT_FINISHED), 4);
  EXPECT_EQ(session.finished().finish_reason, DSV_FINISH_CANCELLED);
}

TEST_F(Request, CancelWorksFromAnotherThreadWhileStepping) {
  Recorder session(model.get());
  expect_ok(complete(session.handle.get(), prompt(10), token_options(0)));
  std::atomic<bool> began{false};
  session.act = [&](const dsv_event& event) {
    if (event.kind == DSV_EVENT_TOKEN) began = true;
    return DSV_ACTION_CONTINUE;
  };
  std::thread other([&] {
    while (!began) std::this_thread::yield();
    dsv_session_cancel(session.handle.get());
    dsv_load_progress progress{};
    progress.struct_size = sizeof progress;
    EXPECT_EQ(dsv_model_progress(model.get(), &progress), DSV_OK);
    EXPECT_EQ(progress.state, DSV_LOAD_READY);
  });
  expect_ok(dsv_engine_run(engine.get()));
  other.join();
  EXPECT_EQ(session.count(DSV_EVENT_FINISHED), 1);
}

TEST_F(Request, PauseKeepsItsPlace) {
  Recorder straight(model.get()), paused(model.get());
  expect_ok(complete(straight.handle.get(), prompt(12), token_options(6)));
  expect_ok(complete(paused.handle.get(), prompt(12), token_options(6)));
  paused.act = [](const dsv_event& event) {
    return event.kind == DSV_EVENT_TOKEN ? DSV_ACTION_PAUSE : DSV_ACTION_CONTINUE;
  };
  int rounds = 0;
  for (int32_t pending = 0; paused.count(DSV_EVENT_FINISHED) == 0; ++rounds) {
    ASSERT_LT(rounds, 20);
    expect_ok(dsv_engine_run(engine.get()));
    expect_ok(dsv_engine_step(engine.get(), 1000, &pending));
    EXPECT_EQ(pending, 0);
    EXPECT_EQ(paused.tokens().size(), static_cast<size_t>(rounds) + 1);
    if (paused.count(DSV_EVENT_FINISHED) == 0) {
      EXPECT_EQ(complete(paused.handle.get(), prompt(3), token_options(1)), DSV_ERROR_BUSY);
    }
    expect_ok(dsv_session_resume(paused.handle.get()));
  }
  EXPECT_EQ(paused.tokens(), straight.tokens());
}

TEST_F(Request, DestroyingInsideCallbacksIsSafe) {
  auto first = std::make_unique<Recorder>(model.get());
  auto second = std::make_unique<Recorder>(model.get());
  expect_ok(complete(first->handle.get(), prompt(30), token_options(0)));
  expect_ok(complete(second->handle.get(), prompt(30), token_options(0)));
  first->act = [&](const dsv_event& event) {
    if (event.kind == DSV_EVENT_TOKEN) {
      first->handle.reset();
      second->handle.reset();
      model.reset();
      engine.reset();
    }
    return DSV_ACTION_CONTINUE;
  };
  dsv_engine* stepped = engine.get();
  expect_ok(dsv_engine_run(stepped));
  EXPECT_EQ(first->count(DSV_EVENT_TOKEN), 1);
  EXPECT_EQ(first->count(DSV_EVENT_FINISHED), 0);
  EXPECT_EQ(second->count(DSV_EVENT_FINISHED), 0);
}

TEST_F(Request, DestroyingGivesThePagesBack) {
  auto session = std::make_unique<Recorder>(model.get());
  Recorder other(model.get());
  expect_ok(complete(session->handle.get(), prompt(130), token_options(0)));
  expect_ok(complete(other.handle.get(), prompt(10), token_options(2)));
  expect_ok(dsv_engine_step(engine.get(), 0, nullptr));
  EXPECT_GT(pages_used(), 0);
  session->handle.reset();
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(pages_used(), 1);
  EXPECT_EQ(other.count(DSV_EVENT_FINISHED), 1);
  other.handle.reset();
  EXPECT_EQ(pages_used(), 0);
}

TEST_F(Request, SessionsAreDestroyedFromOtherThreadsWhileStepping) {
  Recorder survivor(model.get());
  std::vector<std::unique_ptr<Recorder>> doomed;
  for (int i = 0; i < 4; ++i) {
    doomed.push_back(std::make_unique<Recorder>(model.get()));
    expect_ok(complete(doomed.back()->handle.get(), prompt(20 + i), token_options(0)));
  }
  expect_ok(complete(survivor.handle.get(), prompt(5), token_options(40)));
  std::thread other([&] {
    for (auto& session : doomed) session->handle.reset();
  });
  expect_ok(dsv_engine_run(engine.get()));
  other.join();
  EXPECT_EQ(survivor.count(DSV_EVENT_FINISHED), 1);
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(pages_used(), 1);
}

TEST_F(Request, CallsFromCallbacksAreBusyAndChangeNothing) {
  Recorder session(model.get());
  session.act = [&](const dsv_event&) {
    dsv_session* created = nullptr;
    EXPECT_EQ(dsv_session_create(model.get(), nullptr, &created), DSV_ERROR_BUSY);
    EXPECT_EQ(created, nullptr);
    EXPECT_EQ(dsv_engine_step(engine.get(), 1, nullptr), DSV_ERROR_BUSY);
    EXPECT_EQ(dsv_engine_run(engine.get()), DSV_ERROR_BUSY);
    EXPECT_EQ(dsv_session_resume(session.handle.get()), DSV_ERROR_BUSY);
    int64_t count = -7;
    EXPECT_EQ(dsv_session_tokens(session.handle.get(), nullptr, 0, &count), DSV_ERROR_BUSY);
    EXPECT_EQ(count, -7);
    return DSV_ACTION_CONTINUE;
  };
  expect_ok(complete(session.handle.get(), prompt(4), token_options(2)));
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(session.finished().finish_reason, DSV_FINISH_LENGTH);
}

TEST_F(Request, PolledEventsKeepTheirStorageUntilTheNextPoll) {
  dsv_session* raw = nullptr;
  expect_ok(dsv_session_create(model.get(), nullptr, &raw));
  const SessionHandle session(raw);
  dsv_generate_options options = token_options(30);
  options.logprobs = 2;
  expect_ok(complete(raw, prompt(4), options));
  dsv_event event{};
  event.struct_size = sizeof event;
  int tokens = 0, finished = 0;
  for (int round = 0; round < 500 && finished == 0; ++round) {
    for (;;) {
      expect_ok(dsv_session_poll(raw, &event));
      if (event.kind == DSV_EVENT_NONE) break;
      EXPECT_EQ(finished, 0) << "an event after the last";
      finished += event.kind == DSV_EVENT_FINISHED;
      if (event.kind != DSV_EVENT_TOKEN) continue;
      ++tokens;
      ASSERT_EQ(event.top_count, 2);
      const dsv_token_logprob best = event.top[0];
      expect_ok(dsv_engine_step(engine.get(), 2000, nullptr));  // more events queue up meanwhile
      EXPECT_EQ(event.top[0].token, best.token);
    }
    expect_ok(dsv_engine_step(engine.get(), 2000, nullptr));
  }
  EXPECT_EQ(tokens, 30);
  EXPECT_EQ(finished, 1);
}

TEST_F(Request, LogitsOfARangeAreThoseOfTheWhole) {
  const std::vector<int32_t> tokens = prompt(37);
  const auto logits = [&](dsv_session* session, int64_t first, int64_t rows, int32_t source) {
    std::vector<float> out(static_cast<size_t>(rows * kVocab));
    expect_ok(dsv_session_logits(session, tokens.data(), 37, first, rows, source, out.data()));
    return out;
  };
  Recorder whole(model.get()), part(model.get());
  const std::vector<float> all = logits(whole.handle.get(), 0, 37, DSV_LOGITS_MAIN);
  EXPECT_EQ(whole.held(), tokens);
  const std::vector<float> some = logits(part.handle.get(), 20, 10, DSV_LOGITS_MAIN);
  EXPECT_EQ(some, std::vector<float>(all.begin() + 20 * kVocab, all.begin() + 30 * kVocab));
  EXPECT_EQ(logits(part.handle.get(), 30, 7, DSV_LOGITS_MAIN),
            std::vector<float>(all.begin() + 30 * kVocab, all.end()));
  EXPECT_EQ(part.held(), tokens);

  const std::vector<float> draft = logits(whole.handle.get(), 0, 36, DSV_LOGITS_DRAFT);
  EXPECT_NE(draft, std::vector<float>(all.begin(), all.begin() + 36 * kVocab));
  EXPECT_TRUE(std::all_of(draft.begin(), draft.end(), [](float v) { return std::isfinite(v); }));
  EXPECT_EQ(logits(part.handle.get(), 35, 1, DSV_LOGITS_DRAFT),
            std::vector<float>(draft.begin() + 35 * kVocab, draft.end()));
  EXPECT_EQ(whole.held(), tokens);
  float unused = 0;
  EXPECT_EQ(dsv_session_logits(whole.handle.get(), tokens.data(), 37, 36, 1, DSV_LOGITS_DRAFT, &unused),
            DSV_ERROR_INVALID_ARGUMENT);

  // They are what generation starts from, also with another session's batch in flight.
  Recorder other(model.get());
  expect_ok(complete(other.handle.get(), prompt(60, 9), token_options(3)));
  expect_ok(dsv_engine_step(engine.get(), 0, nullptr));
  EXPECT_EQ(logits(part.handle.get(), 36, 1, DSV_LOGITS_MAIN),
            std::vector<float>(all.end() - kVocab, all.end()));
  expect_ok(dsv_engine_run(engine.get()));
  Recorder alone(model.get());
  expect_ok(complete(alone.handle.get(), prompt(60, 9), token_options(3)));
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(other.tokens(), alone.tokens());
  dsv_generate_options greedy = token_options(1);
  greedy.temperature = 0;
  expect_ok(complete(part.handle.get(), tokens, greedy));
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(part.tokens()[0], std::max_element(all.end() - kVocab, all.end()) - (all.end() - kVocab));
}

TEST_F(Request, MessagesAreRefusedByNameWithoutATokenizer) {
  Recorder session(model.get());
  EXPECT_EQ(
      dsv_session_chat(session.handle.get(), R"({"messages": []})", DSV_NUL_TERMINATED, nullptr, nullptr),
      DSV_ERROR_UNSUPPORTED);
  EXPECT_NE(std::string(dsv_error_message()).find("tokenizer.json"), std::string::npos);
}

// Any order of calls: every request that starts ends once, and what is held stays computable.
TEST_F(Request, RandomCallsGiveEveryRequestOneEnd) {
  std::mt19937 random(20);
  std::vector<std::unique_ptr<Recorder>> sessions;
  int64_t started = 0, ended = 0, dropped = 0;
  const auto finish_count = [](const Recorder& r) { return r.count(DSV_EVENT_FINISHED); };
  for (int round = 0; round < 600; ++round) {
    const auto pick = [&](uint32_t n) { return static_cast<size_t>(random() % n); };
    const size_t what = pick(10);
    if (sessions.size() < 4 && what < 2) {
      sessions.push_back(std::make_unique<Recorder>(model.get()));
      sessions.back()->act = [&random](const dsv_event&) {
        const uint32_t draw = random() % 16;
        return draw == 0 ? DSV_ACTION_STOP : draw == 1 ? DSV_ACTION_PAUSE : DSV_ACTION_CONTINUE;
      };
      continue;
    }
    if (sessions.empty()) continue;
    const size_t at = pick(static_cast<uint32_t>(sessions.size()));
    Recorder& session = *sessions[at];
    if (what < 5) {
      const auto n = static_cast<int32_t>(1 + pick(40));
      const dsv_status status = complete(session.handle.get(), prompt(n, static_cast<int32_t>(pick(2))),
                                         token_options(1 + pick(5)));
      ASSERT_TRUE(status == DSV_OK || status == DSV_ERROR_BUSY) << dsv_error_message();
      started += status == DSV_OK;
    } else if (what == 5) {
      dsv_session_cancel(session.handle.get());
    } else if (what == 6) {
      expect_ok(dsv_session_resume(session.handle.get()));
    } else if (what == 7 && pick(4) == 0) {
      ended += finish_count(session);
      const bool running = complete(session.handle.get(), prompt(1), token_options(1)) == DSV_ERROR_BUSY;
      started += !running;
      ++dropped;
      session.handle.reset();
      sessions.erase(sessions.begin() + static_cast<std::ptrdiff_t>(at));
    } else {
      expect_ok(dsv_engine_step(engine.get(), static_cast<int64_t>(pick(3000)), nullptr));
    }
  }
  for (auto& session : sessions) {
    session->act = [](const dsv_event&) { return DSV_ACTION_CONTINUE; };
    expect_ok(dsv_session_resume(session->handle.get()));
  }
  expect_ok(dsv_engine_run(engine.get()));
  for (auto& session : sessions) ended += finish_count(*session);
  EXPECT_EQ(started, ended + dropped);
  EXPECT_GT(ended, 20);
  for (auto& session : sessions) {
    const std::vector<int32_t> held = session->held();
    if (held.empty()) continue;
    std::vector<float> kept(kVocab), fresh(kVocab);
    const auto n = static_cast<int64_t>(held.size());
    Recorder judge(model.get());
    std::vector<int32_t> tokens = held;
    tokens.push_back(3);
    expect_ok(
        dsv_session_logits(session->handle.get(), tokens.data(), n + 1, n, 1, DSV_LOGITS_MAIN, kept.data()));
    expect_ok(
        dsv_session_logits(judge.handle.get(), tokens.data(), n + 1, n, 1, DSV_LOGITS_MAIN, fresh.data()));
    EXPECT_EQ(kept, fresh) << "the cache held something else";
  }
  sessions.clear();
  EXPECT_EQ(pages_used(), 0);
}

}  // namespace
}  // namespace dsv::test
