// dsv-bench-ops: `dsv bench kernels` and `dsv bench layers`. Built on the library's internals, because a host
// neither sees nor calls ops.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "backend/ops.h"
#include "samples/cli/machine.h"
#include "samples/cli/op_times.h"

namespace cli {
namespace {

using nlohmann::ordered_json;

struct BenchArgs {
  OpTimesArgs ops;
  std::string what;
  std::vector<int64_t> contexts, rows;
  int64_t prefill = 512;
  bool json = false;
};

// kernels: an op a line, by rows. layers: a pass a block, time per layer.
ordered_json bench_ops(const BenchArgs& args) {
  const std::string targets = dsv::cpu_targets();
  const std::string target =
      args.ops.cpu_target.empty() ? targets.substr(0, targets.find(' ')) : args.ops.cpu_target;
  const Machine machine = measure_machine(args.ops.threads, target, args.ops.precision == "official");
  std::vector<PassShape> passes;
  if (args.what == "kernels") {
    for (const int64_t rows : args.rows) passes.push_back({static_cast<int32_t>(rows), args.contexts.back()});
  } else {
    for (const int64_t context : args.contexts) passes.push_back({1, context});
    passes.push_back({static_cast<int32_t>(args.prefill), 0});
  }
  const auto times = time_ops(args.ops, passes);
  ordered_json out;
  out["model"] = args.ops.model;
  out["precision"] = args.ops.precision;
  out["target"] = target;
  out["machine"] = {{"read_bytes_per_s", machine.read_bytes_per_s},
                    {"multiply_adds_per_s", machine.multiply_adds_per_s},
                    {"unit", machine.unit}};
  out["passes"] = ordered_json::array();
  for (size_t i = 0; i < passes.size(); ++i) {
    ordered_json ops = ordered_json::array();
    for (const OpTime& t : times[i]) {
      const double bytes = t.weight_bytes + t.cache_bytes;
      const double floor =
          std::max(bytes / machine.read_bytes_per_s, t.multiply_adds / machine.multiply_adds_per_s);
      ops.push_back({{"op", t.op},
                     {"calls", t.calls},
                     {"seconds", t.seconds},
                     {"bytes", bytes},
                     {"multiply_adds", t.multiply_adds},
                     {"floor_s", floor}});
    }
    out["passes"].push_back({{"rows", passes[i].rows}, {"context", passes[i].context}, {"ops", ops}});
  }
  return out;
}

void print_ops(const ordered_json& out) {
  const auto number = [](const ordered_json& value) { return value.get<double>(); };
  char line[256];
  std::string text = "target " + out["target"].get<std::string>() + "\n";
  const auto add = [&](const char* format, auto... values) {
    std::snprintf(line, sizeof line, format, values...);
    text += line;
  };
  const double read = number(out["machine"]["read_bytes_per_s"]),
               peak = number(out["machine"]["multiply_adds_per_s"]);
  add("machine: reads %.1f GB/s, %.1f G multiply-adds/s (%s)\n", read / 1e9, peak / 1e9,
      out["machine"]["unit"].get<std::string>().c_str());
  for (const auto& pass : out["passes"]) {
    add("\n%lld rows at %lld\n%-13s %5s %10s %10s %8s %8s %8s %8s %10s\n", pass["rows"].get<long long>(),
        pass["context"].get<long long>(), "op", "calls", "us/call", "us/pass", "MB", "GB/s", "% read",
        "% peak", "floor us");
    double all = 0, floors = 0;
    for (const auto& op : pass["ops"]) {
      const double seconds = number(op["seconds"]), bytes = number(op["bytes"]), calls = number(op["calls"]);
      all += seconds, floors += number(op["floor_s"]);
      add("%-13s %5.0f %10.1f %10.1f %8.2f %8.2f %8.0f %8.0f %10.1f\n", op["op"].get<std::string>().c_str(),
          calls, seconds / calls * 1e6, seconds * 1e6, bytes / 1e6, bytes / seconds / 1e9,
          bytes / seconds / read * 100, number(op["multiply_adds"]) / seconds / peak * 100,
          number(op["floor_s"]) * 1e6);
    }
    add("%-13s %5s %10s %10.1f %8s %8s %8s %8s %10.1f\n", "all", "", "", all * 1e6, "", "", "", "",
        floors * 1e6);
  }
  std::fwrite(text.data(), 1, text.size(), stdout);
}

int run(int argc, char** argv) {
  BenchArgs args;
  CLI::App app("Times of the ops of a checkpoint; run by `dsv bench kernels` and `dsv bench layers`");
  app.add_option("what", args.what)->required()->check(CLI::IsMember({"kernels", "layers"}));
  app.add_option("--model", args.ops.model)->required();
  app.add_option("--precision", args.ops.precision);
  app.add_option("--cpu-target", args.ops.cpu_target);
  app.add_option("--threads", args.ops.threads);
  app.add_option("--repeat", args.ops.repeat);
  app.add_option("--contexts", args.contexts)->delimiter(',')->required();
  app.add_option("--rows", args.rows)->delimiter(',')->required();
  app.add_option("--prefill", args.prefill);
  app.add_flag("--json", args.json);
  CLI11_PARSE(app, argc, argv);
  try {
    const ordered_json out = bench_ops(args);
    if (args.json) {
      std::puts(out.dump(1).c_str());
    } else {
      print_ops(out);
    }
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

}  // namespace
}  // namespace cli

int main(int argc, char** argv) { return cli::run(argc, argv); }
