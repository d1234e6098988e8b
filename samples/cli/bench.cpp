// bench: end-to-end speed and memory, as shares of what the machine can do.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "samples/cli/commands.h"
#include "samples/cli/common.h"
#include "samples/cli/machine.h"

namespace cli {
namespace {

using nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct BenchArgs {
  ModelArgs model;
  std::string what = "e2e";
  std::vector<int64_t> contexts = {0, 2048, 8192, 32768};
  std::vector<int64_t> rows = {1, 8, 64, 512};
  int64_t prefill = 512, decode = 32, chunk = 16384;
  int32_t sessions = 1, layers = 8;
  int repeat = 3;
  bool json = false;
};

// The instruction set that the engine runs on: the one asked for, or the first it names.
std::string target_in_use(const ModelArgs& args) {
  if (!args.cpu_target.empty()) return args.cpu_target;
  const std::string info = dsv_build_info(), label = "CPU targets: ";
  const size_t begin = info.find(label) + label.size();
  return info.substr(begin, info.find(' ', begin) - begin);
}

int64_t resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmRSS:", 0) == 0) return std::stoll(line.substr(6)) * 1024;
  }
  return 0;
}

// Multiply-adds with weights that one prompt token takes: every matrix once, of the routed experts top-k, and
// no embedding or head (only a prompt's last row has logits).
double multiply_adds_per_token(const ordered_json& inspected) {
  const auto& config = inspected["config"];
  const double experts = config.value("n_routed_experts", 0), chosen = config.value("num_experts_per_tok", 0);
  const std::string mtp_layer = "model.layers." + std::to_string(config.value("num_hidden_layers", 0)) + ".";
  double count = 0;
  for (const auto& tensor : inspected["tensors"]) {
    const auto name = tensor["name"].get<std::string>();
    const auto& shape = tensor["shape"];
    if (shape.size() != 2 || name.ends_with("_scale_inv") || name.starts_with(mtp_layer) ||
        name == "lm_head.weight" || name == "model.embed_tokens.weight") {
      continue;
    }
    const double share = name.find(".mlp.experts.") != std::string::npos ? chosen / experts : 1;
    count += share * shape[0].get<double>() * shape[1].get<double>();
  }
  return count;
}

// A session that notes when its prompt was done, which is when its first token came, and its last token.
class TimedSession {
 public:
  TimedSession(dsv::Engine& engine, const dsv::Model& model, uint64_t seed = 1)
      : engine_(engine),
        vocab_(model.info().vocab_size),
        random_(seed),
        session_(model, [this](const dsv::Event& event) {
          if (event.kind == DSV_EVENT_PREFILL) first_ = Clock::now();
          if (event.kind == DSV_EVENT_FINISHED) {
            last_ = Clock::now();
            finished_ = event;
          }
          return DSV_ACTION_CONTINUE;
        }) {}

  // Asks for `tokens` behind what the session holds, extended by random tokens to `context`.
  void start(int64_t context, int64_t tokens) {
    std::vector<int32_t> prompt = session_.tokens();
    while (static_cast<int64_t>(prompt.size()) < std::max<int64_t>(context, 1)) {
      random_ = random_ * 6364136223846793005u + 1442695040888963407u;
      prompt.push_back(static_cast<int32_t>((random_ >> 33) % static_cast<uint64_t>(vocab_)));
    }
    dsv::GenerateOptions options;
    options.temperature = 0;
    options.max_tokens = tokens;
    options.ignore_eos = 1;
    session_.complete(prompt, options);
  }
  void check() const {
    if (finished_.finish_reason == DSV_FINISH_ERROR) throw dsv::Error(finished_.status, finished_.text);
    if (finished_.finish_reason != DSV_FINISH_LENGTH) {
      throw std::runtime_error(std::string("a request ended early: ") + finish_name(finished_.finish_reason));
    }
  }
  TimedSession& run(int64_t context, int64_t tokens) {
    start(context, tokens);
    engine_.run();
    check();
    return *this;
  }
  Clock::time_point first() const { return first_; }
  Clock::time_point last() const { return last_; }

 private:
  dsv::Engine& engine_;
  int32_t vocab_;
  uint64_t random_;
  Clock::time_point first_, last_;
  dsv::Event finished_;
  dsv::Session session_;
};

double seconds_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

// Tokens a second of all sessions together, from the first one's first token on, so what is left of the
// others' prompts is in the time.
double sessions_rate(dsv::Engine& engine, const dsv::Model& model, const BenchArgs& args) {
  std::vector<std::unique_ptr<TimedSession>> sessions;
  for (int32_t i = 0; i < args.sessions; ++i) {
    sessions.push_back(std::make_unique<TimedSession>(engine, model, static_cast<uint64_t>(i) + 1));
    sessions.back()->start(args.contexts.front(), args.decode + 1);
  }
  engine.run();
  auto first = Clock::time_point::max(), last = Clock::time_point::min();
  for (const auto& session : sessions) {
    session->check();
    first = std::min(first, session->first());
    last = std::max(last, session->last());
  }
  return static_cast<double>(args.sessions * args.decode) / seconds_between(first, last);
}

ordered_json bench(const BenchArgs& args) {
  const std::string path = args.model.path.empty() ? bundled_checkpoint() : args.model.path;
  dsv::Engine engine = args.model.engine();
  dsv::ModelOptions options = args.model.options();
  const int64_t longest = *std::max_element(args.contexts.begin(), args.contexts.end());
  options.context_tokens = std::max(longest, args.prefill) + args.decode + 64;
  if (args.sessions > 1) {
    // Beside them lives the session that the contexts extend.
    const int64_t each = (args.contexts.front() + args.decode + 1) / 64 + 1,
                  own = options.context_tokens / 64 + 1;
    const int64_t pages = args.sessions * each + 2 * own;
    options.kv_budget_bytes = pages * dsv::Model::plan(engine, path, options).kv_bytes_per_1k / 16;
  }
  const double multiply_adds =
      multiply_adds_per_token(ordered_json::parse(dsv::Model::inspect(engine, path, options)));
  const dsv_memory_plan plan = dsv::Model::plan(engine, path, options);
  const Machine machine =
      measure_machine(args.model.threads, target_in_use(args.model), args.model.precision == "official");

  const auto start = Clock::now();
  const dsv::Model model(engine, path, options);
  TimedSession(engine, model).run(1, 1);
  const double load_seconds = seconds_since(start);

  ordered_json out;
  out["model"] = path;
  out["precision"] = args.model.precision;
  out["schedule"] = args.model.schedule;
  out["build"] = dsv_build_info();
  out["machine"] = {{"read_bytes_per_s", machine.read_bytes_per_s},
                    {"multiply_adds_per_s", machine.multiply_adds_per_s},
                    {"unit", machine.unit}};
  out["load_to_first_token_s"] = load_seconds;

  double prefill_seconds = 1e30;
  for (int round = 0; round < args.repeat; ++round) {
    TimedSession session(engine, model);
    const auto begin = Clock::now();
    prefill_seconds = std::min(prefill_seconds, seconds_between(begin, session.run(args.prefill, 1).last()));
  }
  out["prefill"] = {
      {"tokens", args.prefill},
      {"tokens_per_s", args.prefill / prefill_seconds},
      {"share_of_peak", args.prefill / prefill_seconds * multiply_adds / machine.multiply_adds_per_s}};

  out["decode"] = ordered_json::array();
  TimedSession session(engine, model);
  for (const int64_t context : args.contexts) {
    // The first token closes the prompt; the others are this frontier's own stretch.
    std::vector<double> rates;
    for (int round = 0; round < args.repeat; ++round) {
      TimedSession fresh(engine, model);
      auto& timed = context == 0 ? fresh : session;
      timed.run(context, args.decode + 1);
      rates.push_back(args.decode / seconds_between(timed.first(), timed.last()));
      if (context != 0) break;  // a stretch is reached once
    }
    std::sort(rates.begin(), rates.end());
    const double rate = rates[rates.size() / 2];
    out["decode"].push_back({{"context", context},
                             {"tokens_per_s", rate},
                             {"weight_bytes_per_s", rate * static_cast<double>(plan.active_bytes_per_token)},
                             {"share_of_bandwidth", rate * static_cast<double>(plan.active_bytes_per_token) /
                                                        machine.read_bytes_per_s}});
  }
  if (args.sessions > 1) {
    double best = 0;
    for (int round = 0; round < args.repeat; ++round)
      best = std::max(best, sessions_rate(engine, model, args));
    out["sessions"] = {
        {"sessions", args.sessions}, {"context", args.contexts.front()}, {"tokens_per_s", best}};
  }
  const int64_t resident = resident_bytes();
  out["memory"] = {{"resident_bytes", resident},
                   {"plan_bytes", plan.total_bytes},
                   {"over_plan_bytes", resident - plan.total_bytes}};
  return out;
}

// Ops are behind the C interface, whose C++ names a program cannot have beside those of dsv.hpp: a program of
// its own, beside this one, times them. Takes this process's place.
[[noreturn]] void run_bench_ops(const BenchArgs& args) {
  const auto list = [](const std::vector<int64_t>& values) {
    std::string text;
    for (const int64_t value : values) text += (text.empty() ? "" : ",") + std::to_string(value);
    return text;
  };
  const std::string program = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "dsv-bench-ops";
  std::vector<std::string> words = {program,
                                    args.what,
                                    "--backend=" + args.model.backend,
                                    "--precision=" + args.model.precision,
                                    "--schedule=" + args.model.schedule,
                                    "--threads=" + std::to_string(args.model.threads),
                                    "--contexts=" + list(args.contexts),
                                    "--rows=" + list(args.rows),
                                    "--prefill=" + std::to_string(args.prefill),
                                    "--chunk=" + std::to_string(args.chunk),
                                    "--sessions=" + std::to_string(args.sessions),
                                    "--layers=" + std::to_string(args.layers),
                                    "--repeat=" + std::to_string(args.repeat)};
  const bool random = args.model.path.empty() && args.model.backend != "cpu";
  if (!random)
    words.push_back("--model=" + (args.model.path.empty() ? bundled_checkpoint() : args.model.path));
  if (!args.model.cpu_target.empty()) words.push_back("--cpu-target=" + args.model.cpu_target);
  if (args.json) words.push_back("--json");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  execv(program.c_str(), argv.data());
  throw std::runtime_error(program + " cannot be run: build it with the tool, or install it beside it");
}

void print_table(const ordered_json& out) {
  const auto number = [](const ordered_json& value) { return value.get<double>(); };
  char line[256];
  std::string text = out["build"].get<std::string>() + "\n";
  const auto add = [&](const char* format, auto... values) {
    std::snprintf(line, sizeof line, format, values...);
    text += line;
  };
  const auto& machine = out["machine"];
  add("machine: reads %.1f GB/s, %.1f G multiply-adds/s (%s)\n", number(machine["read_bytes_per_s"]) / 1e9,
      number(machine["multiply_adds_per_s"]) / 1e9, machine["unit"].get<std::string>().c_str());
  add("load to first token: %.3f s\n", number(out["load_to_first_token_s"]));
  const auto& prefill = out["prefill"];
  add("prefill %lld: %.1f tok/s, %.0f%% of that peak\n", prefill["tokens"].get<long long>(),
      number(prefill["tokens_per_s"]), number(prefill["share_of_peak"]) * 100);
  add("%10s %12s %14s %14s\n", "context", "decode tok/s", "weights GB/s", "% of bandwidth");
  for (const auto& row : out["decode"]) {
    add("%10lld %12.1f %14.2f %14.0f\n", row["context"].get<long long>(), number(row["tokens_per_s"]),
        number(row["weight_bytes_per_s"]) / 1e9, number(row["share_of_bandwidth"]) * 100);
  }
  if (out.contains("sessions")) {
    const auto& sessions = out["sessions"];
    add("%lld sessions at %lld: %.1f tok/s together\n", sessions["sessions"].get<long long>(),
        sessions["context"].get<long long>(), number(sessions["tokens_per_s"]));
  }
  const auto& memory = out["memory"];
  add("resident: %s; planned: %s\n", format_bytes(memory["resident_bytes"].get<int64_t>()).c_str(),
      format_bytes(memory["plan_bytes"].get<int64_t>()).c_str());
  write_stdout(text);
}

}  // namespace

void add_bench(CLI::App& app) {
  const auto args = std::make_shared<BenchArgs>();
  CLI::App* command = app.add_subcommand("bench", "Speed and memory, beside what the machine can do");
  command
      ->add_option("what", args->what,
                   "e2e: the whole engine; kernels: each op by rows; layers: each op by context")
      ->check(CLI::IsMember({"e2e", "kernels", "layers"}))
      ->capture_default_str();
  args->model.add_to(*command);
  const CLI::Option* contexts = command->add_option("--contexts", args->contexts, "Where to measure decoding")
                                    ->delimiter(',')
                                    ->check(CLI::NonNegativeNumber)
                                    ->capture_default_str();
  const CLI::Option* prefill = command->add_option("--prefill", args->prefill, "Prompt tokens")
                                   ->check(CLI::PositiveNumber)
                                   ->capture_default_str();
  command->add_option("--decode", args->decode, "Tokens per context")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--repeat", args->repeat, "Rounds of prefill (best) and of decoding at 0 (median)")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--rows", args->rows, "kernels: rows of a batch, at the last context")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  const CLI::Option* sessions =
      command
          ->add_option("--sessions", args->sessions,
                       "Also measure as many sessions at once, at the first context")
          ->check(CLI::Range(1, 512));
  const CLI::Option* layers =
      command
          ->add_option(
              "--layers", args->layers,
              "kernels, layers on a GPU: of the released geometry with random weights, without --model")
          ->check(CLI::PositiveNumber)
          ->capture_default_str();
  command->add_option("--chunk", args->chunk, "layers: rows of a pass of the prompt")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_flag("--json", args->json, "As JSON");
  command->callback([=] {
    if (args->what != "e2e" && args->model.backend != "cpu") {  // a large model's sizes
      if (contexts->empty()) args->contexts = {4096, 32768, 131072};
      if (prefill->empty()) args->prefill = 16384;
      if (sessions->empty()) args->sessions = 64;
      if (layers->empty() && args->what == "kernels") args->layers = 5;
    }
    std::sort(args->contexts.begin(), args->contexts.end());
    if (args->what != "e2e") run_bench_ops(*args);
    const ordered_json out = bench(*args);
    if (args->json) return write_stdout(out.dump(1) + "\n");
    print_table(out);
  });
}

}  // namespace cli
