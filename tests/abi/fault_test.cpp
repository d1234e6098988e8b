// Memory and threads run out at every place where they are asked for. Whatever was called then says so with a
// status, changes nothing, works when it is called again, and in the end nothing is lost.
#include <dlfcn.h>
#include <pthread.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "samples/cli/synth_tokenizer.h"
#include "tests/abi/counted_new.h"
#include "tests/session/session_fixture.h"

namespace {
std::atomic<int64_t> threads_left{-1};  // < 0: any number
}

// Stands before the C library's, so that threads can run out.
extern "C" __attribute__((visibility("default"))) int pthread_create(pthread_t* thread,
                                                                     const pthread_attr_t* attributes,
                                                                     void* (*start)(void*),
                                                                     void* argument) noexcept {
  using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const auto create = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
  if (threads_left >= 0 && threads_left.fetch_sub(1) <= 0) return EAGAIN;
  return create(thread, attributes, start, argument);
}

namespace dsv::test {
namespace {

constexpr const char* kRequest = R"({"messages": [{"role": "user", "content": "hi"}]})";
constexpr size_t kMostTokens = 64;

// What one run of everything gave. No memory of its own, so that it is not part of what is counted.
struct Outcome {
  std::array<int32_t, kMostTokens> tokens{};
  size_t count = 0;
  float logit = 0;
  bool operator==(const Outcome& other) const {
    return tokens == other.tokens && count == other.count && logit == other.logit;
  }
};

// The allocator hook, which obeys a fault of its own.
struct HookedMemory {
  MemoryFault fault;
  std::atomic<int64_t> live{0};
  dsv_hooks hooks{};

  HookedMemory() {
    dsv_hooks_init(&hooks);
    hooks.user = this;
    hooks.allocate = [](void* self, int64_t size, int64_t alignment) -> void* {
      auto& memory = *static_cast<HookedMemory*>(self);
      if (memory.fault.spend()) return nullptr;
      memory.live += size;
      return std::aligned_alloc(static_cast<size_t>(alignment),
                                static_cast<size_t>((size + alignment - 1) / alignment * alignment));
    };
    hooks.deallocate = [](void* self, void* memory, int64_t size, int64_t) {
      static_cast<HookedMemory*>(self)->live -= size;
      std::free(memory);
    };
  }
};

// Makes calls that may fail for want of memory, each again when it has.
class Caller {
 public:
  Caller(const std::string& folder, MemoryFault& fault) : folder_(folder), fault_(fault) {}

  template <class Call>
  void must(Call call) {
    const dsv_status status = call();
    if (status == DSV_OK) return;
    const bool expected = status == DSV_ERROR_OUT_OF_MEMORY && fault_.struck() && fault_.armed();
    fault_.disarm();
    ASSERT_TRUE(expected) << dsv_status_name(status) << ": " << dsv_error_message();
    ASSERT_STRNE(dsv_error_message(), "");
    const dsv_status again = call();
    ASSERT_EQ(again, DSV_OK) << "the second time: " << dsv_error_message();
  }

  // Everything from an engine to logits; `sessions` are polled and called back.
  Outcome run(const char* backend, const dsv_hooks* hooks) {
    Outcome outcome;
    dsv_engine* engine = nullptr;
    dsv_model* model = nullptr;
    dsv_session *polled = nullptr, *called = nullptr;
    dsv_tokenizer* tokenizer = nullptr;

    EXPECT_STRNE(dsv_build_info(), "");
    EXPECT_EQ(dsv_has_feature("mtp"), 1);
    dsv_engine_options engine_options;
    dsv_engine_options_init(&engine_options);
    engine_options.backend = backend;
    engine_options.threads = 3;
    engine_options.hooks = hooks;
    must([&] { return dsv_engine_create(&engine_options, &engine); });
    dsv_model_options options = exact_options();
    options.context_tokens = 128;
    options.batch_rows = 16;
    options.load_mtp = 1;
    dsv_memory_plan plan{};
    plan.struct_size = sizeof plan;
    must([&] { return dsv_model_plan(engine, folder_.c_str(), &options, &plan); });
    must([&] {
      dsv_model_destroy(model);  // one that failed to load
      model = nullptr;
      const dsv_status status = dsv_model_load(engine, folder_.c_str(), &options, &model);
      return status == DSV_OK ? dsv_model_wait(model, -1) : status;
    });
    must([&] { return dsv_model_tokenizer(model, &tokenizer); });
    must([&] { return dsv_session_create(model, nullptr, &polled); });
    dsv_session_options session_options;
    dsv_session_options_init(&session_options);
    session_options.user = &outcome;
    session_options.on_event = [](void* user, const dsv_event* event) -> int32_t {
      take(*static_cast<Outcome*>(user), *event);
      return DSV_ACTION_CONTINUE;
    };
    must([&] { return dsv_session_create(model, &session_options, &called); });
    text(tokenizer);

    request(engine, polled, &outcome, false);
    request(engine, called, &outcome, true);
    request(engine, polled, &outcome, false);  // from what is held

    std::array<float, 300> logits{};
    const std::array<int32_t, 5> ids = {1, 2, 3, 4, 5};
    must([&] { return dsv_session_logits(polled, ids.data(), 5, 4, 1, DSV_LOGITS_MAIN, logits.data()); });
    must([&] { return dsv_session_logits(called, ids.data(), 5, 3, 1, DSV_LOGITS_DRAFT, logits.data()); });
    outcome.logit = logits[7];

    dsv_engine_destroy(engine);
    dsv_session_destroy(polled);
    dsv_model_destroy(model);
    dsv_tokenizer_destroy(tokenizer);
    dsv_session_destroy(called);
    return outcome;
  }

 private:
  static void take(Outcome& outcome, const dsv_event& event) {
    if (event.kind == DSV_EVENT_TOKEN && outcome.count < kMostTokens) {
      outcome.tokens[outcome.count++] = event.token;
    }
    if (event.kind == DSV_EVENT_FINISHED) last_ = event;
  }

  // A request that ends for want of memory is made again.
  void request(dsv_engine* engine, dsv_session* session, Outcome* outcome, bool has_callback) {
    const size_t before = outcome->count;
    dsv_generate_options options;
    dsv_generate_options_init(&options);
    options.max_tokens = 5;
    options.logprobs = 2;
    options.ignore_eos = 1;
    const dsv_string stop = {"\x01\x02\x03", 3};
    options.stop = &stop;
    options.stop_count = 1;
    for (int attempt = 0; attempt < 2; ++attempt) {
      outcome->count = before;
      last_ = {};
      must([&] { return dsv_session_chat(session, kRequest, DSV_NUL_TERMINATED, &options, nullptr); });
      must([&] { return dsv_engine_run(engine); });
      for (bool more = !has_callback; more;) {
        dsv_event event{};
        event.struct_size = sizeof event;
        must([&] { return dsv_session_poll(session, &event); });
        take(*outcome, event);
        more = event.kind != DSV_EVENT_NONE;
      }
      ASSERT_EQ(last_.kind, DSV_EVENT_FINISHED);
      if (last_.finish_reason != DSV_FINISH_ERROR) break;
      ASSERT_EQ(last_.status, DSV_ERROR_OUT_OF_MEMORY);
      ASSERT_TRUE(fault_.armed() && fault_.struck());
      fault_.disarm();
    }
    ASSERT_EQ(last_.finish_reason, DSV_FINISH_LENGTH);
  }

  void text(dsv_tokenizer* tokenizer) {
    std::array<char, 256> out{};
    std::array<int32_t, 16> ids{};
    int64_t size = 0;
    must([&] { return dsv_tokenizer_encode(tokenizer, "a b", 3, ids.data(), 16, &size); });
    must([&] { return dsv_tokenizer_decode(tokenizer, ids.data(), 3, out.data(), 256, &size); });
    must([&] { return dsv_chat_encode(kRequest, DSV_NUL_TERMINATED, 0, out.data(), 256, &size); });
    must([&] { return dsv_chat_parse("yes", 3, 0, out.data(), 256, &size); });
  }

  const std::string& folder_;
  MemoryFault& fault_;
  static inline dsv_event last_{};
};

const std::string& chat_checkpoint() {
  static const TempFolder folder;
  static const std::string path = [] {
    write_checkpoint(folder.path(), small_config(), 7, "F32");
    write_file(folder.path() + "/tokenizer.json", cli::tokenizer_json(kVocab));
    return folder.path();
  }();
  return path;
}

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define DSV_TSAN
#endif
#elif defined(__SANITIZE_THREAD__)
#define DSV_TSAN
#endif

// The places are many; most are alike and close together. So all of the first hundred, every second of the
// next, .. Under TSan a run of the reference takes most of a second, and what TSan looks for, races, depends
// little on the place: there all of the first ten, every second of the next, ..
#ifdef DSV_TSAN
constexpr int64_t kDense = 10;
#else
constexpr int64_t kDense = 100;
#endif
int64_t next_place(int64_t n) { return n + 1 + n / kDense; }

class Fault : public ::testing::TestWithParam<const char*> {};

TEST_P(Fault, OfTheRuntimesMemoryIsAStatusEverywhere) {
  const std::string& folder = chat_checkpoint();
  MemoryFault& fault = memory_fault;
  const Outcome expected = Caller(folder, fault).run(GetParam(), nullptr);
  ASSERT_EQ(expected.count, 15u);
  int64_t places = 0;
  for (int64_t n = 1;; n = next_place(n)) {
    const int64_t live = live_blocks;
    fault.arm(n);
    const Outcome outcome = Caller(folder, fault).run(GetParam(), nullptr);
    fault.disarm();
    ASSERT_FALSE(HasFatalFailure()) << "at allocation " << n;
    ASSERT_TRUE(outcome == expected) << "at allocation " << n;
    ASSERT_EQ(live_blocks, live) << "left behind after allocation " << n << " was refused";
    if (!fault.struck()) break;
    ++places;
  }
  EXPECT_GT(places, 2 * kDense);
  RecordProperty("places", static_cast<int>(places));
}

TEST_P(Fault, OfTheHostsMemoryIsAStatusEverywhere) {
  const std::string& folder = chat_checkpoint();
  HookedMemory memory;
  const Outcome expected = Caller(folder, memory.fault).run(GetParam(), &memory.hooks);
  int64_t n = 1;
  for (;; ++n) {
    memory.fault.arm(n);
    const Outcome outcome = Caller(folder, memory.fault).run(GetParam(), &memory.hooks);
    memory.fault.disarm();
    ASSERT_FALSE(HasFatalFailure()) << "at allocation " << n;
    ASSERT_TRUE(outcome == expected) << "at allocation " << n;
    ASSERT_EQ(memory.live, 0) << "left behind after allocation " << n << " was refused";
    if (!memory.fault.struck()) break;
  }
  EXPECT_GT(n, 2);  // the CPU device's one block and its KV pool are all it takes; the reference takes more
}

INSTANTIATE_TEST_SUITE_P(Backends, Fault, ::testing::Values("cpu", "reference"),
                         [](const auto& info) { return std::string(info.param); });

TEST(ThreadFault, OfEveryThreadIsAStatus) {
  dsv_engine_options options;
  dsv_engine_options_init(&options);
  options.threads = 4;
  for (int64_t left = 0; left < 3; ++left) {
    dsv_engine* engine = nullptr;
    threads_left = left;
    const dsv_status status = dsv_engine_create(&options, &engine);
    threads_left = -1;
    EXPECT_EQ(status, DSV_ERROR_OUT_OF_MEMORY);
    EXPECT_NE(std::string(dsv_error_message()).find("thread"), std::string::npos) << dsv_error_message();
    EXPECT_EQ(engine, nullptr);
  }
  const EngineHandle engine = make_engine();
  dsv_model* model = nullptr;
  threads_left = 0;
  const dsv_status status = dsv_model_load(engine.get(), tiny_checkpoint().c_str(), nullptr, &model);
  threads_left = -1;
  EXPECT_EQ(status, DSV_ERROR_OUT_OF_MEMORY);
  EXPECT_NE(std::string(dsv_error_message()).find("thread"), std::string::npos) << dsv_error_message();
  EXPECT_EQ(model, nullptr);
  load(engine.get(), exact_options());
}

}  // namespace
}  // namespace dsv::test
