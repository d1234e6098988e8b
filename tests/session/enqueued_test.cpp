// Sessions on a device that works on its own: the CUDA backend, emulated. What is enqueued there runs when
// somebody waits or looks, so whatever counts on an earlier end gives other tokens.
#include <functional>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"
#include "session/engine.h"
#include "session/model.h"
#include "session/scheduler.h"
#include "session/session.h"
#include "tests/session/session_fixture.h"

namespace dsv::test {
namespace {

struct Request {
  std::vector<int32_t> prompt;
  float temperature = 0;
  int32_t logprobs = -1;
  dsv_logit_bias bias{};
  float top_p = 1;
};

// Runs the requests at once, each step with this budget; returns what the sessions hold.
std::vector<std::vector<int32_t>> generate(const OpTable& ops, int64_t budget_us, int32_t batch_rows,
                                           const std::vector<Request>& requests,
                                           const std::function<void(int step)>& between = nullptr,
                                           int32_t tokens = 6) {
  const auto engine = std::make_shared<Engine>(ops, 1, nullptr, ops.wait ? "descending" : "");
  dsv_model_options options = exact_options();
  options.batch_rows = batch_rows;
  const auto model = std::make_shared<Model>(engine, tiny_checkpoint(), check_model_options(options));
  EXPECT_TRUE(model->wait(-1));
  std::vector<std::shared_ptr<Session>> sessions;
  std::vector<std::vector<int32_t>> held;
  {
    const Engine::Entry entry(*engine);
    for (const Request& request : requests) {
      sessions.push_back(std::make_shared<Session>(model, nullptr, nullptr));
      engine->attach(*sessions.back());
      dsv_generate_options generate = token_options(tokens);
      generate.temperature = request.temperature;
      generate.top_p = request.top_p;
      generate.logprobs = request.logprobs;
      generate.seed = request.prompt.size();
      if (request.bias.bias != 0) {
        generate.logit_bias = &request.bias;
        generate.logit_bias_count = 1;
      }
      sessions.back()->complete(request.prompt, generate);
    }
    for (int step = 0; engine->step(budget_us) > 0; ++step) {
      if (between) between(step);
    }
    for (const auto& session : sessions) {
      held.emplace_back(session->held_tokens().begin(), session->held_tokens().end());
    }
  }
  for (const auto& session : sessions) {
    session->close();
    engine->bury(session);
  }
  return held;
}

constexpr int64_t kNoHurry = int64_t{1} << 40;

// The pieces of a step that the host sees: recorded or not, waited for or looked at, in any batch.
TEST(Enqueued, TokensDoNotDependOnHowTheHostLooks) {
  const std::vector<Request> requests = {{prompt(9), 0, -1, {}},
                                         {prompt(13, 2), 1, -1, {}},
                                         {prompt(18, 3), 0, 3, {}},
                                         {prompt(5, 4), 0, -1, {7, 3.0f}}};
  std::vector<std::vector<int32_t>> expected;
  for (const Request& request : requests) {
    expected.push_back(generate(cuda_ops(), kNoHurry, 0, {request})[0]);
    EXPECT_EQ(expected.back().size(), request.prompt.size() + 5);
  }
  EXPECT_EQ(generate(cuda_ops(), kNoHurry, 0, requests), expected);
  EXPECT_EQ(generate(cuda_ops(), 0, 0, requests), expected);
  EXPECT_EQ(generate(cuda_ops(), 300, 5, requests), expected);
}

// One request's later tokens come from a graph that its load has made and run.
TEST(Enqueued, PassesOfAKindAreReplayed) {
  const int64_t before = cuda::emulation::graph_runs;
  generate(cuda_ops(), kNoHurry, 0, {{prompt(9), 0, -1, {}}});
  EXPECT_EQ(cuda::emulation::graph_runs - before, 1 + 5);
}

// Who asks for log probabilities gets the same tokens.
TEST(Enqueued, LogProbabilitiesChangeNoToken) {
  for (const float temperature : {0.0f, 1.0f}) {
    EXPECT_EQ(generate(cuda_ops(), kNoHurry, 0, {{prompt(9), temperature, -1, {5, 2.0f}}}),
              generate(cuda_ops(), kNoHurry, 0, {{prompt(9), temperature, 3, {5, 2.0f}}}));
  }
}

// Rows of logits that tables hand out.
int rows_fetched = 0;
template <const OpTable& (*kTable)()>
const OpTable& counting() {
  static const OpTable table = [] {
    OpTable ops = kTable();
    ops.fetch = [](Device* device, Act kind, const void* buffer, RowRange rows, float* values) {
      rows_fetched += kind == Act::logits ? rows.count : 0;
      kTable().fetch(device, kind, buffer, rows, values);
    };
    return ops;
  }();
  return table;
}

// A row of logits leaves a device only for who wants log probabilities, and is never copied on a CPU.
TEST(Enqueued, SamplingFetchesNoLogits) {
  const std::vector<Request> requests = {
      {prompt(9), 0, -1, {}}, {prompt(13, 2), 1, -1, {}}, {prompt(18, 3), 0.7f, -1, {7, 3.0f}, 0.9f}};
  rows_fetched = 0;
  generate(counting<cuda_ops>(), kNoHurry, 0, requests);
  EXPECT_EQ(rows_fetched, 0);
  generate(counting<cuda_ops>(), kNoHurry, 0, {{prompt(9), 1, 2, {}}});
  EXPECT_EQ(rows_fetched, 6);
  rows_fetched = 0;
  generate(counting<cpu_ops>(), kNoHurry, 0, {{prompt(9), 1, 2, {}}, {prompt(13, 2), 1, -1, {}}});
  EXPECT_EQ(rows_fetched, 0);
}

// The reference sums in fp64; these prompts have no near ties, and their draws are not near a limit.
TEST(Enqueued, SameTokensAsTheReference) {
  const std::vector<Request> requests = {{prompt(9), 0, -1, {}},
                                         {prompt(13, 2), 0, -1, {}},
                                         {prompt(18, 3), 1, -1, {}},
                                         {prompt(5, 4), 0.8f, -1, {7, 3.0f}, 0.9f}};
  EXPECT_EQ(generate(cuda_ops(), kNoHurry, 0, requests), generate(reference_ops(), kNoHurry, 0, requests));
}

// A step without budget returns while the device works: many steps go by for one pass.
TEST(Enqueued, AStepReturnsWhileTheDeviceWorks) {
  int steps = 0;
  generate(cuda_ops(), 0, 0, {{prompt(9), 0, -1, {}}}, [&](int) { ++steps; });
  EXPECT_GT(steps, 6 * 20);
}

// What a session held when its GPU was lost.
std::vector<int32_t> held_when_lost(int64_t pieces, const std::vector<int32_t>& request, bool* lost) {
  const auto engine = std::make_shared<Engine>(cuda_ops(), 1, nullptr, "descending");
  const auto model = std::make_shared<Model>(engine, tiny_checkpoint(), check_model_options(exact_options()));
  EXPECT_TRUE(model->wait(-1));
  const auto session = std::make_shared<Session>(model, nullptr, nullptr);
  std::vector<int32_t> held;
  {
    const Engine::Entry entry(*engine);
    engine->attach(*session);
    dsv_generate_options generate = token_options(6);
    generate.temperature = 0;
    session->complete(request, generate);
    cuda::emulation::pieces_until_lost = pieces;
    *lost = false;
    for (int failures = 0; failures < 2;) {  // once lost it stays lost
      try {
        if (engine->step(kNoHurry) == 0) break;
      } catch (const Error& error) {
        EXPECT_EQ(error.status(), DSV_ERROR_DEVICE_LOST) << error.what();
        *lost = true;
        ++failures;
      }
    }
    cuda::emulation::pieces_until_lost = -1;
    held.assign(session->held_tokens().begin(), session->held_tokens().end());
    if (*lost) {  // a request that cannot go on can be given up, and a new one fails like it
      session->cancel();
      EXPECT_EQ(engine->step(kNoHurry), 0);
      session->complete(request, generate);
      EXPECT_THROW(engine->step(kNoHurry), Error);
    }
  }
  session->close();
  engine->bury(session);
  return held;
}

// Wherever a GPU is lost, the tokens that a session holds are right, and another backend goes on from them to
// the same end.
TEST(Enqueued, ALostGpuLosesNoTokens) {
  const std::vector<int32_t> request = prompt(9);
  const std::vector<int32_t> expected = generate(cpu_ops(), kNoHurry, 0, {{request, 0, -1, {}}})[0];
  bool lost = true;
  int64_t pieces = 0;
  for (; lost; pieces += pieces < 12 ? 1 : 53) {  // of some 690 in all
    const std::vector<int32_t> held = held_when_lost(pieces, request, &lost);
    ASSERT_LE(held.size(), expected.size());
    EXPECT_TRUE(std::equal(held.begin(), held.end(), expected.begin())) << "lost after " << pieces;
    if (!lost) {
      EXPECT_EQ(held, expected);
      break;
    }
    if (held.size() < request.size()) continue;  // the host has the prompt
    const auto left = static_cast<int32_t>(expected.size() + 1 - held.size());
    EXPECT_EQ(generate(cpu_ops(), kNoHurry, 0, {{held, 0, -1, {}}}, nullptr, left)[0], expected)
        << "lost after " << pieces;
  }
  EXPECT_GT(pieces, 100);
}

}  // namespace
}  // namespace dsv::test
