// inspect, plan, synth: checkpoints before they are loaded.
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "samples/cli/commands.h"
#include "samples/cli/common.h"
#include "samples/cli/synth.h"

namespace cli {
namespace {

using nlohmann::ordered_json;

struct InspectArgs {
  ModelArgs model;
  bool json = false;
};

void inspect(const InspectArgs& args) {
  dsv::Engine engine = args.model.engine();
  dsv::ModelOptions options = args.model.options();
  options.load_mtp = 1;
  const std::string path = args.model.path.empty() ? bundled_checkpoint() : args.model.path;
  const std::string text = dsv::Model::inspect(engine, path, options);
  if (args.json) return write_stdout(text + "\n");
  const ordered_json parsed = ordered_json::parse(text);
  std::string out;
  for (const auto& [name, value] : parsed["config"].items()) out += name + ": " + value.dump() + "\n";
  char line[512];
  std::snprintf(line, sizeof line, "\n%-64s %-8s %-16s %12s\n", "tensor", "dtype", "shape", "bytes");
  out += line;
  for (const auto& tensor : parsed["tensors"]) {
    std::snprintf(line, sizeof line, "%-64s %-8s %-16s %12lld\n", tensor["name"].get<std::string>().c_str(),
                  tensor["dtype"].get<std::string>().c_str(), tensor["shape"].dump().c_str(),
                  static_cast<long long>(tensor["bytes"].get<int64_t>()));
    out += line;
  }
  out += "\n";
  for (const auto& [name, value] : parsed["plan"].items()) out += name + ": " + value.dump() + "\n";
  write_stdout(out);
}

struct PlanArgs {
  ModelArgs model;
  int64_t sessions = 1;
  bool json = false;
};

void plan(const PlanArgs& args) {
  dsv::Engine engine = args.model.engine();
  dsv::ModelOptions options = args.model.options();
  const std::string path = args.model.path.empty() ? bundled_checkpoint() : args.model.path;
  dsv_memory_plan plan = dsv::Model::plan(engine, path, options);
  if (args.model.context > 0) {
    // Pages hold 64 tokens, so a session takes whole ones.
    const int64_t pages = (args.model.context + 63) / 64;
    if (__builtin_mul_overflow(args.sessions, pages * (plan.kv_bytes_per_1k / 16),
                               &options.kv_budget_bytes)) {
      throw std::runtime_error("--sessions is " + std::to_string(args.sessions) +
                               ": no machine holds as many; give fewer");
    }
    plan = dsv::Model::plan(engine, path, options);
  }
  const std::pair<const char*, int64_t> bytes[] = {{"weight_bytes", plan.weight_bytes},
                                                   {"weight_copy_bytes", plan.weight_copy_bytes},
                                                   {"kv_pool_bytes", plan.kv_pool_bytes},
                                                   {"scratch_bytes", plan.scratch_bytes},
                                                   {"total_bytes", plan.total_bytes},
                                                   {"kv_bytes_per_1k", plan.kv_bytes_per_1k},
                                                   {"active_bytes_per_token", plan.active_bytes_per_token}};
  const std::pair<const char*, int64_t> counts[] = {{"kv_pool_tokens", plan.kv_pool_tokens},
                                                    {"parameters", plan.parameters}};
  std::string out;
  if (args.json) {
    ordered_json json;
    for (const auto& [name, value] : bytes) json[name] = value;
    for (const auto& [name, value] : counts) json[name] = value;
    return write_stdout(json.dump() + "\n");
  }
  char line[128];
  for (const auto& [name, value] : bytes) {
    std::snprintf(line, sizeof line, "%-24s %18lld  %s\n", name, static_cast<long long>(value),
                  format_bytes(value).c_str());
    out += line;
  }
  for (const auto& [name, value] : counts) {
    std::snprintf(line, sizeof line, "%-24s %18lld\n", name, static_cast<long long>(value));
    out += line;
  }
  write_stdout(out);
}

void show_progress(int64_t done, int64_t total) {
  std::fprintf(stderr, "\rwriting %3.0f%% of %s", total > 0 ? 100.0 * done / total : 100.0,
               format_bytes(total).c_str());
  if (done == total) std::fputs("\n", stderr);
}

}  // namespace

void add_model_info(CLI::App& app) {
  const auto inspect_args = std::make_shared<InspectArgs>();
  CLI::App* command = app.add_subcommand("inspect", "Config, tensors and sizes of a checkpoint, all checked");
  inspect_args->model.add_to(*command);
  command->add_flag("--json", inspect_args->json, "As JSON");
  command->callback([inspect_args] { inspect(*inspect_args); });

  const auto plan_args = std::make_shared<PlanArgs>();
  command = app.add_subcommand("plan", "What a model would take in memory, before it is loaded");
  plan_args->model.add_to(*command);
  command->add_option("--context", plan_args->model.context, "Tokens of one session (0: the model's longest)")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--sessions", plan_args->sessions, "Sessions of that length at once (needs --context)")
      ->check(CLI::PositiveNumber)
      ->needs("--context");
  command->add_flag("--json", plan_args->json, "As JSON");
  command->callback([plan_args] { plan(*plan_args); });

  const auto options = std::make_shared<SynthOptions>();
  command = app.add_subcommand("synth", "Write a random checkpoint of any geometry");
  CLI::Option_group* source = command->add_option_group("geometry");
  source->add_option("--config", options->config, "A config.json to follow");
  source->add_option("--preset", options->preset, "v32, bench-2b5 or tiny");
  source->require_option(1);
  command->add_option("--layers", options->layers, "Instead of the config's num_hidden_layers")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--dtype", options->dtype, "Of the matrices: fp8, bf16 or f32")
      ->check(CLI::IsMember({"fp8", "bf16", "f32"}))
      ->capture_default_str();
  command->add_option("--seed", options->seed, "Same options, same bytes")->capture_default_str();
  command->add_option("--out", options->out, "A folder that is empty or does not exist")->required();
  command->callback([options] {
    if (isatty(STDERR_FILENO) != 0) options->progress = show_progress;
    synth(*options);
  });
}

}  // namespace cli
