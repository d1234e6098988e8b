#include "samples/cli/common.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace cli {
namespace fs = std::filesystem;

std::string bundled_checkpoint() {
  const fs::path bin = fs::read_symlink("/proc/self/exe").parent_path();
  const fs::path in_tree = bin / "../../../samples/nano/checkpoint", installed = bin / "../share/dsv/nano";
  return fs::weakly_canonical(fs::exists(in_tree / "config.json") ? in_tree : installed).string();
}

void ModelArgs::add_to(CLI::App& app) {
  app.add_option("--model", path, "Folder of the checkpoint (default: the bundled one)");
  app.add_option("--backend", backend, "cpu, cuda (or cuda:N) or reference")->capture_default_str();
  app.add_option("--precision", precision, "official or exact")
      ->check(CLI::IsMember({"official", "exact"}))
      ->capture_default_str();
  app.add_option("--schedule", schedule, "deterministic or fast (cuda: other kernels for many rows)")
      ->check(CLI::IsMember({"deterministic", "fast"}))
      ->capture_default_str();
  app.add_option("--threads", threads, "Threads (0: one per core)")->check(CLI::NonNegativeNumber);
  app.add_option("--cpu-target", cpu_target, "Force a CPU target (default: the best)");
}

dsv::Engine ModelArgs::engine() const {
  dsv::EngineOptions options;
  options.threads = threads;
  options.backend = backend.c_str();
  options.cpu_target = cpu_target.empty() ? nullptr : cpu_target.c_str();
  return dsv::Engine(options);
}

dsv::ModelOptions ModelArgs::options() const {
  dsv::ModelOptions options;
  options.precision = precision == "exact" ? DSV_PRECISION_EXACT : DSV_PRECISION_OFFICIAL;
  options.context_tokens = context;
  options.schedule = schedule == "fast" ? DSV_SCHEDULE_FAST : DSV_SCHEDULE_DETERMINISTIC;
  return options;
}

dsv::Model ModelArgs::load(dsv::Engine& engine, const dsv::ModelOptions& options) const {
  dsv::Model model = dsv::Model::start(engine, path.empty() ? bundled_checkpoint() : path, options);
  if (!isatty(STDERR_FILENO)) {
    model.wait();
    return model;
  }
  bool shown = false;
  while (!model.wait(100)) {
    const dsv_load_progress progress = model.progress();
    const double share = progress.total > 0 ? static_cast<double>(progress.done) / progress.total : 0;
    const int filled = static_cast<int>(share * 30);
    std::fprintf(stderr, "\rloading [%.*s%*s] %3.0f%%", filled, "##############################", 30 - filled,
                 "", share * 100);
    shown = true;
  }
  if (shown) std::fputs("\r\033[K", stderr);
  return model;
}

void SamplingArgs::add_to(CLI::App& app) {
  app.add_option("--temperature", temperature, "0: always the most likely token")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--top-p", top_p, "Keep the likeliest tokens up to this probability")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--min-p", min_p, "Drop tokens below this share of the likeliest")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--top-k", top_k, "Keep this many tokens (0: all)")->check(CLI::NonNegativeNumber);
  app.add_option("--seed", seed, "Seed of the sampler")->capture_default_str();
  app.add_option("--max-tokens", max_tokens, "Longest answer (0: until the context is full)")
      ->check(CLI::NonNegativeNumber);
}

dsv::GenerateOptions SamplingArgs::options() const {
  dsv::GenerateOptions options;
  options.temperature = static_cast<float>(temperature);
  options.top_p = static_cast<float>(top_p);
  options.min_p = static_cast<float>(min_p);
  options.top_k = top_k;
  options.seed = seed;
  options.max_tokens = max_tokens;
  return options;
}

std::string read_file(const std::string& path) {
  if (path == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file || fs::is_directory(path)) throw std::runtime_error(path + " cannot be read: check the path");
  return text;
}

std::vector<int32_t> parse_ids(const std::string& json, const std::string& from) {
  const auto parsed = nlohmann::json::parse(json, nullptr, false);
  const std::string expected = from + " is not a JSON array of token ids";
  if (!parsed.is_array()) throw std::runtime_error(expected);
  std::vector<int32_t> ids;
  ids.reserve(parsed.size());
  for (const auto& id : parsed) {
    if (!id.is_number_integer() || id < 0 || id > INT32_MAX) throw std::runtime_error(expected);
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

void write_stdout(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    throw std::runtime_error("standard output cannot be written");
  }
}

const char* finish_name(int32_t finish_reason) {
  static constexpr const char* kNames[] = {
      "", "stop", "tool_calls", "stop_string", "length", "context_full", "kv_budget", "cancelled", "error"};
  const bool known = finish_reason > 0 && finish_reason <= DSV_FINISH_ERROR;
  return known ? kNames[finish_reason] : "unknown";
}

void report_finish(const dsv::Event& finished) {
  switch (finished.finish_reason) {
    case DSV_FINISH_ERROR:
      throw dsv::Error(finished.status, finished.text);
    case DSV_FINISH_LENGTH:
      std::fputs("(cut off: --max-tokens reached)\n", stderr);
      break;
    case DSV_FINISH_CONTEXT_FULL:
      std::fputs("(cut off: the context is full)\n", stderr);
      break;
    case DSV_FINISH_KV_BUDGET:
      std::fputs("(cut off: the KV budget is used up)\n", stderr);
      break;
    case DSV_FINISH_CANCELLED:
      std::fputs("(stopped)\n", stderr);
      break;
    default:
      break;
  }
}

std::string format_bytes(int64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  for (; std::abs(value) >= 1024 && unit < 4; ++unit) value /= 1024;
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text;
}

}  // namespace cli
