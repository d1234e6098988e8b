// dsv-bench-ops: `dsv bench kernels` and `dsv bench layers`. Built on the library's internals, because a host
// neither sees nor calls ops.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>

#include "backend/ops.h"
#include "samples/cli/machine.h"
#include "samples/cli/op_times.h"
#include "samples/cli/projection.h"

namespace cli {
namespace {

using nlohmann::ordered_json;

struct BenchArgs {
  OpTimesArgs ops;
  std::string what;
  std::vector<int64_t> contexts, rows;
  int64_t prefill = 512, chunk = 16384;
  int32_t sessions = 0;
  bool json = false;
  bool gpu() const { return ops.backend != "cpu"; }
};

std::filesystem::path beside(const char* program) {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path() / program;
}

// What cuda_ceilings_bench prints last.
ordered_json measure_gpu() {
  const std::string program = beside("cuda_ceilings_bench");
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(program.c_str(), "r"), pclose);
  std::string last;
  char line[512];
  while (pipe && std::fgets(line, sizeof line, pipe.get())) last = line;
  const ordered_json machine = ordered_json::parse(last, nullptr, false);
  if (!machine.is_object())
    throw std::runtime_error(program +
                             " does not run: build it (cuda_ceilings_bench) for a machine with a GPU");
  return {{"bytes_per_s", machine["copy_bytes_per_s"]},
          {"multiply_adds_per_s", machine["bf16_flop_per_s"].get<double>() / 2},
          {"fp8_multiply_adds_per_s", machine["fp8_flop_per_s"].get<double>() / 2},
          {"unit", "bf16 and FP8 by wgmma; bytes of a copy"}};
}

// The rows of the benches of single kernels that lie beside this program.
ordered_json time_kernels(const ordered_json& machine) {
  ordered_json out = ordered_json::array();
  const auto rate = [&](const char* name) { return machine[name].get<double>(); };
  for (const auto& [program, words] :
       {std::pair("cuda_attend_bench", " --time"), std::pair("cuda_index_bench", " time"),
        std::pair("cuda_linear_bench", " time")}) {
    const std::string path = beside(program);
    if (access(path.c_str(), X_OK) != 0) {
      std::fprintf(stderr, "%s is not there: build it to have its kernels timed\n", path.c_str());
      continue;
    }
    const std::string rows =
        std::filesystem::temp_directory_path() / ("dsv-bench-" + std::to_string(getpid()) + ".jsonl");
    const std::string command = "DSV_BENCH_ROWS='" + rows + "' '" + path + "'" + words + " >/dev/null";
    if (std::system(command.c_str()) != 0) throw std::runtime_error(path + " failed: see what it says");
    std::ifstream file(rows);
    for (std::string line; std::getline(file, line);) {
      ordered_json row = ordered_json::parse(line);
      const double bytes = row["bytes"], flop = row["flop"];
      const bool bf16 = row["what"].get<std::string>().find("bf16") != std::string::npos;
      const double peak = 2 * rate(bf16 ? "multiply_adds_per_s" : "fp8_multiply_adds_per_s");
      const double floor = std::max(
          {row["floor_us"].get<double>() * 1e-6, bytes / rate("bytes_per_s"), peak > 0 ? flop / peak : 0});
      out.push_back({{"bench", program},
                     {"kernel", row["what"]},
                     {"rows", row["rows"]},
                     {"seconds", row["us"].get<double>() * 1e-6},
                     {"floor_s", floor}});
    }
    std::filesystem::remove(rows);
  }
  return out;
}

ordered_json measure_cpu(const BenchArgs& args, const std::string& target) {
  const Machine machine = measure_machine(args.ops.threads, target, args.ops.precision == "official");
  return {{"bytes_per_s", machine.read_bytes_per_s},
          {"multiply_adds_per_s", machine.multiply_adds_per_s},
          {"fp8_multiply_adds_per_s", machine.multiply_adds_per_s},
          {"unit", machine.unit}};
}

// kernels: each op by rows. layers: a pass a block; on a GPU also that of many sessions, and a long prompt in
// chunks.
std::vector<PassShape> shapes(const BenchArgs& args) {
  std::vector<PassShape> passes;
  const auto add = [&](int64_t rows, int64_t context, int64_t sequences) {
    passes.push_back(
        {static_cast<int32_t>(rows), std::max(context, rows / sequences), static_cast<int32_t>(sequences)});
  };
  if (args.what == "kernels") {
    // On a GPU few rows are those of as many sessions.
    for (const int64_t n : args.rows) add(n, args.contexts.back(), args.gpu() && n <= 64 ? n : 1);
    return passes;
  }
  for (const int64_t context : args.contexts) add(1, context, 1);
  if (args.sessions > 1) add(args.sessions, args.contexts.front(), args.sessions);
  for (int64_t done = 0; done < args.prefill;) {
    const int64_t rows = std::min(args.chunk, args.prefill - done);
    add(rows, done += rows, 1);
  }
  return passes;
}

ordered_json bench_ops(const BenchArgs& args) {
  check_backend(args.ops.backend);
  const std::string targets = dsv::cpu_targets();
  const ordered_json machine =
      args.gpu() ? measure_gpu()
                 : measure_cpu(args, args.ops.cpu_target.empty() ? targets.substr(0, targets.find(' '))
                                                                 : args.ops.cpu_target);
  const auto rate = [&](const char* name) { return machine[name].get<double>(); };
  ordered_json kernels;  // before the model takes the GPU's memory
  if (args.gpu() && args.what == "kernels") kernels = time_kernels(machine);
  const std::vector<PassShape> passes = shapes(args);
  const OpTimes times = time_ops(args.ops, passes);
  ordered_json out;
  out["model"] = times.model;
  out["precision"] = args.ops.precision;
  out["schedule"] = args.ops.fast ? "fast" : "deterministic";
  out["backend"] = args.ops.backend;
  out["target"] = times.target;
  out["layers"] = {{"dense", times.dense_layers}, {"moe", times.layers - times.dense_layers}};
  out["load_s"] = times.load_seconds;
  out["machine"] = machine;
  out["passes"] = ordered_json::array();
  for (size_t i = 0; i < passes.size(); ++i) {
    ordered_json list = ordered_json::array();
    for (const OpTime& t : times.passes[i].ops) {
      const double bytes = t.weight_bytes + t.cache_bytes;
      const double flop_seconds = t.multiply_adds / rate("multiply_adds_per_s") +
                                  t.fp8_multiply_adds / rate("fp8_multiply_adds_per_s");
      list.push_back({{"op", t.op},
                      {"calls", t.calls},
                      {"seconds", t.seconds},
                      {"dense_seconds", t.dense_seconds},
                      {"bytes", bytes},
                      {"multiply_adds", t.multiply_adds},
                      {"fp8_multiply_adds", t.fp8_multiply_adds},
                      {"flop_s", flop_seconds},
                      {"floor_s", std::max(bytes / rate("bytes_per_s"), flop_seconds)}});
    }
    ordered_json pass = {{"rows", passes[i].rows},
                         {"context", passes[i].context},
                         {"sessions", passes[i].sequences},
                         {"seconds", times.passes[i].seconds},
                         {"experts", times.passes[i].experts},
                         {"ops", list}};
    add_totals(pass, out);
    out["passes"].push_back(pass);
  }
  if (args.what == "layers") add_projection(out);
  if (kernels.is_array()) out["kernels"] = kernels;
  return out;
}

int run(int argc, char** argv) {
  BenchArgs args;
  CLI::App app("Times of the ops of a checkpoint; run by `dsv bench kernels` and `dsv bench layers`");
  app.add_option("what", args.what)->required()->check(CLI::IsMember({"kernels", "layers"}));
  app.add_option("--model", args.ops.model);
  app.add_option("--layers", args.ops.layers);
  app.add_option("--backend", args.ops.backend);
  app.add_option("--precision", args.ops.precision);
  std::string schedule;
  app.add_option("--schedule", schedule)->check(CLI::IsMember({"deterministic", "fast"}));
  app.add_option("--cpu-target", args.ops.cpu_target);
  app.add_option("--threads", args.ops.threads);
  app.add_option("--repeat", args.ops.repeat);
  app.add_option("--contexts", args.contexts)->delimiter(',')->required();
  app.add_option("--rows", args.rows)->delimiter(',')->required();
  app.add_option("--prefill", args.prefill);
  app.add_option("--chunk", args.chunk);
  app.add_option("--sessions", args.sessions);
  app.add_flag("--json", args.json);
  CLI11_PARSE(app, argc, argv);
  args.ops.fast = schedule == "fast";
  try {
    const ordered_json out = bench_ops(args);
    const std::string text = args.json ? out.dump(1) + "\n" : ops_table(out);
    std::fwrite(text.data(), 1, text.size(), stdout);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

}  // namespace
}  // namespace cli

int main(int argc, char** argv) { return cli::run(argc, argv); }
