// Hosts compiled against an older or a newer header: their structs are shorter or longer than the library's.
#include <array>
#include <cmath>
#include <cstring>

#include "tests/session/session_fixture.h"

namespace dsv::test {
namespace {

std::string sentence() { return dsv_error_message(); }

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

constexpr unsigned char kUntouched = 0x5A;

// A struct as a host of any age sees it: `size` bytes, and a guard behind them.
template <class T>
struct AnySize {
  alignas(T) std::array<unsigned char, sizeof(T) + 64> bytes;
  AnySize() { bytes.fill(kUntouched); }
  T* get() { return reinterpret_cast<T*>(bytes.data()); }
  uint32_t size_field() const {
    uint32_t size;
    std::memcpy(&size, bytes.data(), sizeof size);
    return size;
  }
  bool guarded_from(size_t size) const {
    return std::all_of(bytes.begin() + static_cast<std::ptrdiff_t>(size), bytes.end(),
                       [](unsigned char byte) { return byte == kUntouched; });
  }
};

template <class T>
void init_fits(void (*init_sized)(T*, uint32_t)) {
  T whole;
  init_sized(&whole, sizeof whole);
  EXPECT_EQ(whole.struct_size, sizeof whole);
  for (uint32_t size = sizeof(uint32_t); size <= sizeof(T); size += sizeof(uint32_t)) {
    AnySize<T> part;
    init_sized(part.get(), size);
    EXPECT_EQ(part.size_field(), size);
    EXPECT_EQ(std::memcmp(part.bytes.data() + 4, reinterpret_cast<unsigned char*>(&whole) + 4, size - 4), 0);
    EXPECT_TRUE(part.guarded_from(size)) << size;
  }
  AnySize<T> newer;
  constexpr auto kNewer = static_cast<uint32_t>(sizeof(T) + 32);
  init_sized(newer.get(), kNewer);
  EXPECT_EQ(newer.size_field(), kNewer);
  EXPECT_EQ(std::memcmp(newer.bytes.data() + 4, reinterpret_cast<unsigned char*>(&whole) + 4, sizeof(T) - 4),
            0);
  for (size_t i = sizeof(T); i < kNewer; ++i)
    EXPECT_EQ(newer.bytes[i], 0) << "the default of what comes later";
  EXPECT_TRUE(newer.guarded_from(kNewer));
  init_sized(nullptr, sizeof(T));
  AnySize<T> none;
  init_sized(none.get(), 0);
  EXPECT_TRUE(none.guarded_from(0));
}

TEST(Structs, DefaultsFitInWhatTheHostHas) {
  init_fits(dsv_hooks_init_sized);
  init_fits(dsv_engine_options_init_sized);
  init_fits(dsv_model_options_init_sized);
  init_fits(dsv_session_options_init_sized);
  init_fits(dsv_generate_options_init_sized);
  dsv_generate_options options;
  dsv_generate_options_init(&options);
  EXPECT_EQ(options.struct_size, sizeof options);
  EXPECT_EQ(options.temperature, 1);
  EXPECT_EQ(options.top_p, 1);
  EXPECT_EQ(options.logprobs, -1);
}

template <class T, class Fill>
void writes_fit(Fill fill) {
  for (uint32_t size = 0; size <= sizeof(T) + 32; size += 4) {
    AnySize<T> part;
    std::memcpy(part.bytes.data(), &size, sizeof size);
    const dsv_status status = fill(part.get());
    EXPECT_EQ(status, size < 4 ? DSV_ERROR_INVALID_ARGUMENT : DSV_OK) << size;
    EXPECT_EQ(part.size_field(), size);
    EXPECT_TRUE(part.guarded_from(std::min<size_t>(std::max<uint32_t>(size, 4), sizeof(T)))) << size;
  }
}

TEST(Structs, ResultsFitInWhatTheHostHas) {
  const EngineHandle engine = make_engine();
  const ModelHandle model = load(engine.get(), exact_options());
  dsv_session* raw = nullptr;
  expect_ok(dsv_session_create(model.get(), nullptr, &raw));
  const SessionHandle session(raw);
  writes_fit<dsv_handle_counts>([](auto* out) { return dsv_live_handles(out); });
  writes_fit<dsv_memory_plan>(
      [&](auto* out) { return dsv_model_plan(engine.get(), tiny_checkpoint().c_str(), nullptr, out); });
  writes_fit<dsv_load_progress>([&](auto* out) { return dsv_model_progress(model.get(), out); });
  writes_fit<dsv_model_info>([&](auto* out) { return dsv_model_get_info(model.get(), out); });
  writes_fit<dsv_memory_use>([&](auto* out) { return dsv_model_memory(model.get(), out); });
  writes_fit<dsv_event>([&](auto* out) { return dsv_session_poll(session.get(), out); });
  expect_ok(complete(raw, prompt(30), token_options(30)));
  expect_ok(dsv_engine_run(engine.get()));
  writes_fit<dsv_event>([&](auto* out) { return dsv_session_poll(session.get(), out); });  // queued ones
}

TEST(Structs, OptionsAreReadAsFarAsTheHostHasThem) {
  const EngineHandle engine = make_engine();
  const ModelHandle model = load(engine.get(), exact_options());
  Recorder session(model.get());
  // Each field of a struct that ends before it has its default, whatever lies there.
  dsv_generate_options options;
  std::memset(&options, 0xFF, sizeof options);
  for (const size_t size :
       {offsetof(dsv_generate_options, thinking), offsetof(dsv_generate_options, keep_thinking)}) {
    options.thinking = 0;
    options.struct_size = static_cast<uint32_t>(size);
    expect_ok(complete(session.handle.get(), prompt(3), options));
    dsv_session_cancel(session.handle.get());
    expect_ok(dsv_engine_run(engine.get()));
  }
  options.struct_size = sizeof options;
  EXPECT_EQ(complete(session.handle.get(), prompt(3), options), DSV_ERROR_INVALID_ARGUMENT);

  dsv_session_options session_options;
  std::memset(&session_options, 0xFF, sizeof session_options);
  session_options.struct_size = offsetof(dsv_session_options, on_event);
  dsv_session* polled = nullptr;
  expect_ok(dsv_session_create(model.get(), &session_options, &polled));
  dsv_event event{};
  event.struct_size = sizeof event;
  EXPECT_EQ(dsv_session_poll(polled, &event), DSV_OK) << "it has no callback";
  dsv_session_destroy(polled);

  dsv_hooks hooks;
  std::memset(&hooks, 0xFF, sizeof hooks);
  hooks.struct_size = offsetof(dsv_hooks, allocate);
  dsv_engine_options engine_options;
  std::memset(&engine_options, 0xFF, sizeof engine_options);
  engine_options.struct_size = offsetof(dsv_engine_options, threads);
  dsv_engine* made = nullptr;
  expect_ok(dsv_engine_create(&engine_options, &made));
  dsv_engine_destroy(made);
  dsv_engine_options_init(&engine_options);
  engine_options.threads = 1;
  engine_options.hooks = &hooks;
  expect_ok(dsv_engine_create(&engine_options, &made));
  load(made, exact_options());
  dsv_engine_destroy(made);
}

}  // namespace
}  // namespace dsv::test
