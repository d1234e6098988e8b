// What a load on the emulated GPU does besides placing weights, so that no later step makes anything for the
// first time: kernels are loaded, passes of few rows recorded, and a prompt and a token computed for nobody.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"
#include "session/engine.h"
#include "session/model.h"
#include "session/scheduler.h"
#include "session/session.h"
#include "tests/session/session_fixture.h"

namespace dsv::test {
namespace {

using cuda::CudaDevice;

constexpr int64_t kNoHurry = int64_t{1} << 40;

// What is made once and then used again and again.
struct Made {
  int64_t allocations = cuda::emulation::allocations, recordings = cuda::emulation::recordings;
  size_t kernels = cuda::emulation::loaded_kernels.size();
  bool operator==(const Made&) const = default;
};

std::shared_ptr<Model> start(const OpTable& ops, const std::string& folder,
                             const dsv_model_options& options) {
  const auto engine = std::make_shared<Engine>(ops, 1, nullptr, "descending");
  return std::make_shared<Model>(engine, folder, check_model_options(options));
}
std::shared_ptr<Model> loaded(const OpTable& ops = cuda_ops(),
                              const dsv_model_options& options = exact_options()) {
  auto model = start(ops, tiny_checkpoint(), options);
  EXPECT_TRUE(model->wait(-1));
  return model;
}

// Sessions that end with the object.
class Talk {
 public:
  explicit Talk(std::shared_ptr<Model> model) : model_(std::move(model)), entry_(model_->engine()) {}
  ~Talk() {
    for (const auto& session : sessions) {
      session->close();
      model_->engine().bury(session);
    }
  }
  Session& add(const std::vector<int32_t>& tokens, int32_t count, float temperature = 0, float top_p = 1) {
    sessions.push_back(std::make_shared<Session>(model_, nullptr, nullptr));
    model_->engine().attach(*sessions.back());
    dsv_generate_options options = token_options(count);
    options.temperature = temperature;
    options.top_p = top_p;
    options.seed = tokens.size();
    sessions.back()->complete(tokens, options);
    return *sessions.back();
  }
  int32_t step() { return model_->engine().step(kNoHurry); }
  std::vector<std::vector<int32_t>> held() const {
    std::vector<std::vector<int32_t>> all;
    for (const auto& session : sessions) {
      all.emplace_back(session->held_tokens().begin(), session->held_tokens().end());
    }
    return all;
  }

  std::vector<std::shared_ptr<Session>> sessions;

 private:
  std::shared_ptr<Model> model_;
  Engine::Entry entry_;
};

TEST(Prepared, NoStepOfASessionMakesAnything) {
  cuda::emulation::loaded_kernels.clear();
  const std::shared_ptr<Model> model = loaded();
  EXPECT_EQ(model->pool().available(), model->pool().total());
  const Made before;
  EXPECT_GT(before.kernels, 20u);
  {
    Talk talk(model);
    talk.add(prompt(9), 6);
    while (talk.step() > 0) EXPECT_EQ(Made(), before);
    EXPECT_EQ(Made(), before);
  }
  {  // longer, and drawn
    Talk talk(model);
    talk.add(prompt(130, 2), 4, 0.8f, 0.9f);
    while (talk.step() > 0) {
    }
  }
  EXPECT_EQ(Made(), before);
  {  // sessions whose tokens are computed together: passes of as many rows are recorded when they come again
    Talk talk(model);
    for (int32_t i = 0; i < 4; ++i) talk.add(prompt(3 + i), 4, 1);
    while (talk.step() > 0) {
    }
  }
  const Made after;
  EXPECT_EQ(after.allocations, before.allocations);
  EXPECT_EQ(after.kernels, before.kernels);
  EXPECT_EQ(after.recordings, before.recordings + 1);
}

OpTable without_preparations() {
  OpTable ops = cuda_ops();
  ops.prepare = nullptr;
  return ops;
}

// Neither in tokens nor in how many steps of what rows there are.
TEST(Prepared, NothingElseTellsThatAnythingHasRun) {
  static const OpTable without = without_preparations();
  std::vector<std::vector<std::vector<int32_t>>> held;
  std::vector<std::vector<int32_t>> free_pages;
  for (const OpTable* ops : {&without, &cuda_ops()}) {
    const std::shared_ptr<Model> model = loaded(*ops);
    Talk talk(model);
    talk.add(prompt(9), 6);
    talk.add(prompt(70, 2), 5, 1);
    talk.add(prompt(18, 3), 6, 0.7f, 0.9f);
    std::vector<int32_t> free;
    while (talk.step() > 0) free.push_back(model->pool().available());
    held.push_back(talk.held());
    free_pages.push_back(std::move(free));
  }
  EXPECT_EQ(held[0], held[1]);
  EXPECT_EQ(free_pages[0], free_pages[1]);
}

// The model that the table below cancels at its preparation `cancel_at`.
Model* cancelled = nullptr;
int32_t cancel_at = 0;
const OpTable& cancelling() {
  static const OpTable table = [] {
    OpTable ops = cuda_ops();
    ops.prepare = [](Device* device, int32_t i, PassKind* kind) {
      const bool more = cuda_ops().prepare(device, i, kind);
      if (i == cancel_at || !more) cancelled->cancel_load();
      return more;
    };
    ops.end_step = [](Device* device, bool complete) {
      if (cancel_at < 0) cancelled->cancel_load();
      cuda_ops().end_step(device, complete);
    };
    return ops;
  }();
  return table;
}

TEST(Prepared, ALoadCanBeCancelledMeanwhile) {
  const auto engine = std::make_shared<Engine>(cancelling(), 1, nullptr, "descending");
  for (const int32_t at : {-1, 0, 5, 1 << 20}) {
    cancel_at = at;
    // Its thread may be there before the pointer is.
    alignas(Model) unsigned char memory[sizeof(Model)];
    cancelled = reinterpret_cast<Model*>(memory);
    const auto options = check_model_options(exact_options());
    auto* const model = new (memory) Model(engine, tiny_checkpoint(), options);
    try {
      model->wait(-1);
      ADD_FAILURE() << at;
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), DSV_ERROR_CANCELLED) << error.what();
    }
    EXPECT_EQ(model->monitor().done.load(), model->monitor().total.load());
    model->~Model();
  }
  Talk talk(loaded());
  talk.add(prompt(9), 2);
  while (talk.step() > 0) {
  }
  EXPECT_EQ(talk.held()[0].size(), 10u);
}

// Wherever the GPU is lost while a model loads, the load says so, and another one is as if that had not been.
TEST(Prepared, AGpuThatIsLostMeanwhileFailsTheLoad) {
  int64_t pieces = 0;
  int failures = 0;
  for (bool lost = true; lost; pieces += 47) {
    cuda::emulation::pieces_until_lost = pieces;
    lost = false;
    try {
      loaded();
    } catch (const Error& error) {
      lost = true;
      ++failures;
      EXPECT_EQ(error.status(), DSV_ERROR_DEVICE_LOST) << error.what();
      EXPECT_NE(std::string(error.what()).find("GPU failed"), std::string::npos) << error.what();
    }
    cuda::emulation::pieces_until_lost = -1;
  }
  EXPECT_GT(failures, 3);
  Talk talk(loaded());
  talk.add(prompt(9), 2);
  while (talk.step() > 0) {
  }
  EXPECT_EQ(talk.held()[0].size(), 10u);
}

// After the backend's own preparations come others, of many more counts of rows, contexts and rows of a
// sequence. None of them may meet a kernel that those have not met.
size_t own_kernels = 0;
int32_t own_preparations = 0;
CudaDevice::Preparation last;
const OpTable& exhaustive() {
  static const OpTable table = [] {
    OpTable ops = cuda_ops();
    ops.prepare = [](Device* device, int32_t i, PassKind* kind) {
      CudaDevice& d = cuda::cuda_device(device);
      if (i == 0) own_preparations = 0;
      if (own_preparations == 0) {
        if (cuda_ops().prepare(device, i, kind)) return true;
        own_preparations = i;
        own_kernels = d.kernels.size();
        d.preparations.emplace_back();  // the first is the table's own
        const int32_t most = d.options.batch_rows, longest = d.options.max_context;
        for (int32_t rows = 1; rows <= most; rows += 1 + rows / 24) {
          for (int32_t length = 1; length <= longest; length += 21 + length / 12) {
            for (const int32_t together : {1, 2, 3, rows / 2, rows}) {
              if (together < 1 || together > std::min(rows, length)) continue;
              const int32_t wanted = together == 1 ? std::min(rows, buffer_rows(d.options, Act::logits)) : 1;
              d.preparations.push_back({{rows, wanted, length, false, true}, together, false, false});
            }
          }
        }
      } else if (d.kernels.size() > own_kernels) {
        ADD_FAILURE() << "a new kernel with " << last.step.rows << " rows, " << last.together
                      << " of a sequence, " << last.step.longest << " positions";
        own_kernels = d.kernels.size();
      }
      const auto at = static_cast<size_t>(i - own_preparations + 1);
      if (at < d.preparations.size()) last = d.preparations[at];
      return cuda_ops().prepare(device, static_cast<int32_t>(at), kind);
    };
    return ops;
  }();
  return table;
}

nlohmann::json released_attention() {
  nlohmann::json config = small_config();
  const nlohmann::json changes = {{"hidden_size", 256},
                                  {"intermediate_size", 256},
                                  {"moe_intermediate_size", 128},
                                  {"n_routed_experts", 32},
                                  {"num_attention_heads", 128},
                                  {"num_key_value_heads", 128},
                                  {"kv_lora_rank", 512},
                                  {"q_lora_rank", 128},
                                  {"qk_rope_head_dim", 64},
                                  {"qk_nope_head_dim", 128},
                                  {"v_head_dim", 128},
                                  {"index_n_heads", 64},
                                  {"index_head_dim", 128},
                                  {"index_topk", 2048},
                                  {"num_hidden_layers", 2},
                                  {"max_position_embeddings", 131072}};
  config.update(changes);
  return config;
}

struct Kernels : testing::Test {
  ~Kernels() override { cuda::emulation::hopper = false; }
  void check(const std::string& folder, bool exact, bool hopper, bool fast, int32_t batch_rows) {
    cuda::emulation::hopper = hopper;
    dsv_model_options options = exact_options();
    if (!exact) options.precision = DSV_PRECISION_OFFICIAL;
    options.schedule = fast ? DSV_SCHEDULE_FAST : DSV_SCHEDULE_DETERMINISTIC;
    options.batch_rows = batch_rows;
    options.load_mtp = 1;
    options.kv_budget_bytes = int64_t{16} << 20;
    EXPECT_TRUE(start(exhaustive(), folder, options)->wait(-1));
    EXPECT_GT(own_preparations, 100);
    EXPECT_GT(own_kernels, 20u);
  }
};

TEST_F(Kernels, OfAllStepsAreLoaded) {
  check(tiny_checkpoint(), true, false, false, 600);
  check(tiny_checkpoint(), false, true, false, 7);
}

TEST_F(Kernels, OfAllStepsOfTheReleasedAttentionAreLoaded) {
  const TempFolder folder;
  write_checkpoint(folder.path(), released_attention(), 7, "F8_E4M3");
  // Some eight seconds each: unless DSV_EMULATE_ALL is set, the form with the most kernels stands for all.
  if (!std::getenv("DSV_EMULATE_ALL")) return check(folder.path(), false, true, true, 1100);
  for (const bool hopper : {false, true}) {
    for (const bool fast : {false, true}) check(folder.path(), false, hopper, fast, 1100);
  }
}

}  // namespace
}  // namespace dsv::test
