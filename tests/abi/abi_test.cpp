// The C API as hosts of any mood use it: arguments, strings, sentences, loading, handles.
#include <cstring>
#include <sstream>
#include <thread>

#include "tests/abi/memory_host.h"

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

TEST(Arguments, TextIsSizedOrTerminatedAndUtf8) {
  constexpr const char* kRequest = R"({"messages": [{"role": "user", "content": "hi"}]})";
  const auto size = static_cast<int64_t>(std::strlen(kRequest));
  char out[200], same[200];
  int64_t needed = 0, again = 0;
  expect_ok(dsv_chat_encode(kRequest, size, 0, out, sizeof out, &needed));
  EXPECT_EQ(static_cast<int64_t>(std::strlen(out)), needed) << "a NUL is added if there is room";
  expect_ok(dsv_chat_encode(kRequest, DSV_NUL_TERMINATED, 0, same, sizeof same, &again));
  EXPECT_STREQ(out, same);
  EXPECT_EQ(again, needed);
  std::memset(same, '-', sizeof same);
  expect_ok(dsv_chat_encode(kRequest, size, 0, same, needed, &again));
  EXPECT_EQ(std::memcmp(out, same, static_cast<size_t>(needed)), 0);
  EXPECT_EQ(same[needed], '-') << "the terminator is not needed";
  std::memset(same, '-', sizeof same);
  EXPECT_EQ(dsv_chat_encode(kRequest, size, 0, same, 5, &again), DSV_ERROR_BUFFER_TOO_SMALL);
  EXPECT_EQ(again, needed);
  EXPECT_EQ(std::memcmp(out, same, 5), 0);
  EXPECT_EQ(same[5], '-');
  again = 0;
  expect_ok(dsv_chat_encode(kRequest, size, 0, nullptr, 0, &again));
  EXPECT_EQ(again, needed);

  again = -7;
  const auto refused = [&](const char* text, int64_t text_size, const char* word) {
    EXPECT_EQ(dsv_chat_parse(text, text_size, 0, out, sizeof out, &again), DSV_ERROR_INVALID_ARGUMENT);
    EXPECT_NE(sentence().find(word), std::string::npos) << sentence();
    EXPECT_EQ(again, -7);
  };
  refused("a", -2, "-2");
  refused(nullptr, 3, "NULL");
  refused("a\xFF", 2, "byte 1");
  refused("\xED\xA0\x80", 3, "UTF-8");  // a surrogate
  refused("\xC3", DSV_NUL_TERMINATED, "UTF-8");
  EXPECT_EQ(dsv_chat_parse("a", 1, 0, out, -1, &again), DSV_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(dsv_chat_parse("a", 1, 4, out, 9, &again), DSV_ERROR_INVALID_ARGUMENT);
  expect_ok(dsv_chat_parse("a\0b", 3, 0, out, sizeof out, &again));  // NUL is a character
  EXPECT_NE(std::string(out).find("a\\u0000b"), std::string::npos) << out;

  dsv_engine_options options;
  dsv_engine_options_init(&options);
  dsv_engine* engine = nullptr;
  options.backend = "\xFF";
  EXPECT_EQ(dsv_engine_create(&options, &engine), DSV_ERROR_INVALID_ARGUMENT);
  const std::string long_name(100000, 'x');
  options.backend = long_name.c_str();
  EXPECT_EQ(dsv_engine_create(&options, &engine), DSV_ERROR_UNSUPPORTED);
  EXPECT_LT(sentence().size(), 1000u);
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

TEST(Loading, SchedulesAreTheTwo) {
  const EngineHandle engine = make_engine();
  dsv_model_options options = exact_options();
  EXPECT_EQ(options.schedule, DSV_SCHEDULE_DETERMINISTIC);
  EXPECT_EQ(options.gpu_stream_priority, 0);
  options.schedule = DSV_SCHEDULE_FAST;
  options.gpu_stream_priority = INT32_MIN;
  const ModelHandle model = load(engine.get(), options);
  for (const int32_t schedule : {-1, 2}) {
    options.schedule = schedule;
    dsv_model* raw = nullptr;
    EXPECT_EQ(dsv_model_load(engine.get(), tiny_checkpoint().c_str(), &options, &raw),
              DSV_ERROR_INVALID_ARGUMENT);
    EXPECT_NE(sentence().find("options->schedule"), std::string::npos) << sentence();
  }
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
