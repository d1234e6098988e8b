// Requests with text: a model with a tokenizer whose next token is forced, so that what it says is known.
#include "samples/cli/synth_tokenizer.h"
#include "tests/session/session_fixture.h"

namespace dsv::test {
namespace {

constexpr const char* kRequest = R"({"messages": [{"role": "user", "content": "hi"}]})";

class Text : public ::testing::Test {
 protected:
  static const std::string& checkpoint() {
    static const TempFolder folder;
    static const std::string path = [] {
      write_checkpoint(folder.path(), small_config(), 7, "F32");
      write_file(folder.path() + "/tokenizer.json", cli::tokenizer_json(kVocab));
      return folder.path();
    }();
    return path;
  }
  void SetUp() override {
    engine = make_engine();
    model = load(engine.get(), exact_options(), checkpoint());
  }
  int32_t id_of(const std::string& text) {
    dsv_tokenizer* tokenizer = nullptr;
    expect_ok(dsv_model_tokenizer(model.get(), &tokenizer));
    int32_t ids[2] = {-1, -1};
    int64_t count = 0;
    expect_ok(
        dsv_tokenizer_encode(tokenizer, text.data(), static_cast<int64_t>(text.size()), ids, 2, &count));
    dsv_tokenizer_destroy(tokenizer);
    return ids[0];
  }
  // Says the first token of `text` again and again.
  dsv_generate_options saying(const std::string& text, int64_t max_tokens) {
    bias = {id_of(text), 1000};
    dsv_generate_options options;
    dsv_generate_options_init(&options);
    options.max_tokens = max_tokens;
    options.logit_bias = &bias;
    options.logit_bias_count = 1;
    return options;
  }
  static std::string text_of(const Recorder& session, int32_t kind) {
    std::string text;
    for (const Event& event : session.events) text += event.raw.kind == kind ? event.text : "";
    return text;
  }
  EngineHandle engine;
  ModelHandle model;
  dsv_logit_bias bias{};
};

TEST_F(Text, StopStringsEndContentAndAreNoPartOfIt) {
  Recorder session(model.get());
  dsv_generate_options options = saying("a", 20);
  const dsv_string stops[] = {{"zz", 2}, {"aaa", 3}};
  options.stop = stops;
  options.stop_count = 2;
  expect_ok(dsv_session_chat(session.handle.get(), kRequest, DSV_NUL_TERMINATED, &options, nullptr));
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(session.finished().finish_reason, DSV_FINISH_STOP_STRING);
  EXPECT_EQ(session.finished().completion_tokens, 3);
  EXPECT_EQ(text_of(session, DSV_EVENT_CONTENT), "");

  // Not in the thinking part.
  session.events.clear();
  options.thinking = 1;
  expect_ok(dsv_session_chat(session.handle.get(), kRequest, DSV_NUL_TERMINATED, &options, nullptr));
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(session.finished().finish_reason, DSV_FINISH_LENGTH);
  EXPECT_EQ(session.finished().reasoning_tokens, 20);
  EXPECT_EQ(text_of(session, DSV_EVENT_REASONING), std::string(20, 'a'));
  EXPECT_EQ(text_of(session, DSV_EVENT_CONTENT), "");

  // What could have become one comes at the end.
  session.events.clear();
  options = saying("a", 2);
  options.stop = stops;
  options.stop_count = 2;
  expect_ok(dsv_session_chat(session.handle.get(), kRequest, DSV_NUL_TERMINATED, &options, nullptr));
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(session.finished().finish_reason, DSV_FINISH_LENGTH);
  EXPECT_EQ(text_of(session, DSV_EVENT_CONTENT), "aa");
}

TEST_F(Text, ComesInWholeCodePoints) {
  Recorder session(model.get());
  // The first byte of a code point, for ever: none is ever whole.
  dsv_generate_options options = saying("\xC3\xA9", 3);
  expect_ok(dsv_session_chat(session.handle.get(), kRequest, DSV_NUL_TERMINATED, &options, nullptr));
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(text_of(session, DSV_EVENT_CONTENT), "\uFFFD\uFFFD\uFFFD");
}

TEST_F(Text, CallbackAndPollingGiveTheSameEvents) {
  Recorder called(model.get());
  dsv_session* raw = nullptr;
  expect_ok(dsv_session_create(model.get(), nullptr, &raw));
  const SessionHandle polled(raw);
  dsv_generate_options options;
  dsv_generate_options_init(&options);
  options.max_tokens = 40;
  options.logprobs = 3;
  options.thinking = 1;
  for (uint64_t seed = 0; seed < 3; ++seed) {
    options.seed = seed;
    for (dsv_session* session : {called.handle.get(), raw}) {
      expect_ok(dsv_session_chat(session, kRequest, DSV_NUL_TERMINATED, &options, nullptr));
    }
    expect_ok(dsv_engine_run(engine.get()));
  }
  size_t i = 0;
  for (;; ++i) {
    dsv_event event{};
    event.struct_size = sizeof event;
    expect_ok(dsv_session_poll(raw, &event));
    if (event.kind == DSV_EVENT_NONE) break;
    ASSERT_LT(i, called.events.size());
    const Event& same = called.events[i];
    EXPECT_EQ(event.kind, same.raw.kind);
    EXPECT_EQ(event.request, same.raw.request);
    EXPECT_EQ(std::string(event.text ? event.text : "", static_cast<size_t>(event.text_size)), same.text);
    EXPECT_EQ(event.token, same.raw.token);
    EXPECT_EQ(event.logprob, same.raw.logprob);
    ASSERT_EQ(event.top_count, static_cast<int32_t>(same.top.size()));
    for (int32_t k = 0; k < event.top_count; ++k)
      EXPECT_EQ(event.top[k].token, same.top[static_cast<size_t>(k)].token);
    EXPECT_EQ(event.finish_reason, same.raw.finish_reason);
    EXPECT_EQ(event.cached_tokens, same.raw.cached_tokens);
    EXPECT_EQ(event.reasoning_tokens, same.raw.reasoning_tokens);
    EXPECT_EQ(event.done, same.raw.done);
  }
  EXPECT_EQ(i, called.events.size());
  EXPECT_EQ(called.count(DSV_EVENT_FINISHED), 3);
}

// The next turn shares the whole conversation so far, but for the answer's last token, which was never fed.
TEST_F(Text, ANewTurnComputesOnlyWhatIsNew) {
  Recorder session(model.get());
  const dsv_generate_options options = saying("a", 4);
  expect_ok(dsv_session_chat(session.handle.get(), kRequest, DSV_NUL_TERMINATED, &options, nullptr));
  expect_ok(dsv_engine_run(engine.get()));
  const int64_t first = session.finished().prompt_tokens;
  EXPECT_EQ(session.finished().cached_tokens, 0);
  constexpr const char* kNext = R"({"messages": [{"role": "user", "content": "hi"},
      {"role": "assistant", "content": "aaaa"}, {"role": "user", "content": "more"}]})";
  expect_ok(dsv_session_chat(session.handle.get(), kNext, DSV_NUL_TERMINATED, &options, nullptr));
  expect_ok(dsv_engine_run(engine.get()));
  EXPECT_EQ(session.finished().cached_tokens, first + 3);

  // A refused one changes nothing.
  const std::vector<int32_t> held = session.held();
  for (const char* wrong :
       {"{", R"({"messages": []})", R"({"messages": [{"role": "ghost", "content": "x"}]})",
        R"({"messages": [{"role": "assistant", "content": "x"}]})"}) {
    int64_t number = -1;
    EXPECT_EQ(dsv_session_chat(session.handle.get(), wrong, DSV_NUL_TERMINATED, &options, &number),
              DSV_ERROR_INVALID_ARGUMENT)
        << wrong;
    EXPECT_EQ(number, -1);
  }
  EXPECT_EQ(session.held(), held);
  EXPECT_EQ(session.count(DSV_EVENT_FINISHED), 2);
}

}  // namespace
}  // namespace dsv::test
