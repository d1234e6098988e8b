#include "samples/cli/projection.h"

#include <cstdio>

namespace cli {
namespace {

using nlohmann::ordered_json;

// The released model, its layers spread over the GPUs of one machine as a pipeline.
constexpr int kDense = 3, kMoe = 58, kGpus = 8;
constexpr double kHop = 10e-6;  // handing a row's 14 KB of residual stream to the next GPU

double number(const ordered_json& value) { return value.get<double>(); }

bool is_prompt(const ordered_json& pass) { return pass["rows"] > pass["sessions"]; }

}  // namespace

// The ops' own times tell how a pass's time divides between dense layers and MoE layers.
void add_totals(ordered_json& pass, const ordered_json& out) {
  double seconds = 0, dense = 0, bytes = 0, flop = 0, logits = 0;
  for (const ordered_json& op : pass["ops"]) {
    if (op["op"] == "logits") {
      logits = number(op["seconds"]);
      continue;
    }
    seconds += number(op["seconds"]);
    dense += number(op["dense_seconds"]);
    bytes += number(op["bytes"]);
    flop += number(op["flop_s"]);
  }
  const double all = number(pass["seconds"]), dense_layers = number(out["layers"]["dense"]),
               moe_layers = number(out["layers"]["moe"]);
  pass["ops_s"] = seconds;
  pass["bytes"] = bytes;
  pass["share_of_bandwidth"] = bytes / number(out["machine"]["bytes_per_s"]) / all;
  pass["share_of_peak"] = flop / all;
  pass["dense_layer_s"] = dense_layers > 0 ? all * dense / seconds / dense_layers : 0;
  pass["moe_layer_s"] = moe_layers > 0 ? all * (1 - dense / seconds) / moe_layers : 0;
  pass["logits_s"] = logits;
}

void add_projection(ordered_json& out) {
  double prompt_seconds = 0, prompt_tokens = 0, flop_seconds = 0, prompt_model = 0, slowest = 0;
  ordered_json decode = ordered_json::array();
  for (const ordered_json& pass : out["passes"]) {
    const double model = kDense * number(pass["dense_layer_s"]) + kMoe * number(pass["moe_layer_s"]);
    if (is_prompt(pass)) {
      prompt_seconds += number(pass["seconds"]);
      prompt_tokens += number(pass["rows"]);
      flop_seconds += number(pass["share_of_peak"]) * number(pass["seconds"]);
      prompt_model += model;
      slowest = model;
      continue;
    }
    const double step = model + number(pass["logits_s"]) + (kGpus - 1) * kHop;
    decode.push_back({{"sessions", pass["sessions"]},
                      {"context", pass["context"]},
                      {"step_s", step},
                      {"tokens_per_s", number(pass["rows"]) / step},
                      {"tokens_per_s_all_stages", number(pass["rows"]) * kGpus / step}});
  }
  if (prompt_seconds > 0) {
    out["prefill"] = {{"tokens", prompt_tokens},
                      {"seconds", prompt_seconds},
                      {"share_of_peak", flop_seconds / prompt_seconds}};
  }
  out["projection"] = {
      {"assumptions",
       "3 dense and 58 MoE layers with these times, in a pipeline over 8 GPUs, 10 us from one to the next; "
       "one batch "
       "in flight, or one for each GPU (all stages); no draft tokens; a prompt's chunks follow each other"},
      {"decode", decode}};
  if (prompt_seconds > 0) {
    // The last chunk comes out after all of them have passed the first stage, and it the others.
    const double whole = prompt_model / kGpus + slowest * (kGpus - 1) / kGpus;
    out["projection"]["prefill_tokens_per_s"] = prompt_tokens / whole;
  }
}

std::string ops_table(const ordered_json& out) {
  char line[512];
  std::string text;
  const auto add = [&](const char* format, auto... values) {
    std::snprintf(line, sizeof line, format, values...);
    text += line;
  };
  const auto text_of = [](const ordered_json& value) { return value.get<std::string>(); };
  const ordered_json& machine = out["machine"];
  const double bandwidth = number(machine["bytes_per_s"]);
  add("%s; %d dense layers and %d of experts\ntarget %s\n", text_of(out["model"]).c_str(),
      out["layers"]["dense"].get<int>(), out["layers"]["moe"].get<int>(), text_of(out["target"]).c_str());
  add("machine: %.1f GB/s, %.1f G multiply-adds/s, %.1f in FP8 (%s)\n", bandwidth / 1e9,
      number(machine["multiply_adds_per_s"]) / 1e9, number(machine["fp8_multiply_adds_per_s"]) / 1e9,
      text_of(machine["unit"]).c_str());
  for (const ordered_json& pass : out["passes"]) {
    add("\n%lld rows at %lld, sessions: %lld\n%-13s %5s %10s %10s %9s %9s %8s %8s %10s\n",
        pass["rows"].get<long long>(), pass["context"].get<long long>(), pass["sessions"].get<long long>(),
        "op", "calls", "us/call", "us/pass", "MB", "GB/s", "% bytes", "% peak", "floor us");
    double floors = 0;
    for (const ordered_json& op : pass["ops"]) {
      const double seconds = number(op["seconds"]), bytes = number(op["bytes"]), calls = number(op["calls"]);
      floors += number(op["floor_s"]);
      add("%-13s %5.0f %10.1f %10.1f %9.2f %9.1f %8.1f %8.1f %10.1f\n", text_of(op["op"]).c_str(), calls,
          seconds / calls * 1e6, seconds * 1e6, bytes / 1e6, bytes / seconds / 1e9,
          bytes / seconds / bandwidth * 100, number(op["flop_s"]) / seconds * 100,
          number(op["floor_s"]) * 1e6);
    }
    add("%-13s %5s %10s %10.1f %9s %9s %8s %8s %10.1f\n", "ops", "", "",
        (number(pass["ops_s"]) + number(pass["logits_s"])) * 1e6, "", "", "", "", floors * 1e6);
    add("layers together %.1f us: %.2f MB, %.1f%% of the bandwidth, %.1f%% of the peak; a dense one %.1f us, "
        "one of "
        "experts %.1f us (%.1f chosen)\n",
        number(pass["seconds"]) * 1e6, number(pass["bytes"]) / 1e6, number(pass["share_of_bandwidth"]) * 100,
        number(pass["share_of_peak"]) * 100, number(pass["dense_layer_s"]) * 1e6,
        number(pass["moe_layer_s"]) * 1e6, number(pass["experts"]));
  }
  if (out.contains("prefill")) {
    const ordered_json& prefill = out["prefill"];
    add("\nprompt of %.0f: %.3f s in these layers, %.1f%% of the peak\n", number(prefill["tokens"]),
        number(prefill["seconds"]), number(prefill["share_of_peak"]) * 100);
  }
  if (out.contains("kernels")) {
    add("\nsingle kernels, L2 flushed\n%-60s %6s %10s %10s %7s\n", "kernel", "rows", "us", "floor us",
        "share");
    for (const ordered_json& row : out["kernels"]) {
      const double seconds = number(row["seconds"]), floor = number(row["floor_s"]);
      add("%-60s %6lld %10.2f %10.2f %6.1f%%\n", text_of(row["kernel"]).c_str(), row["rows"].get<long long>(),
          seconds * 1e6, floor * 1e6, floor / seconds * 100);
    }
  }
  if (!out.contains("projection")) return text;
  const ordered_json& projection = out["projection"];
  add("\nthe released model: %s\n%10s %10s %10s %12s %20s\n", text_of(projection["assumptions"]).c_str(),
      "sessions", "context", "step ms", "tok/s", "tok/s, all stages");
  for (const ordered_json& row : projection["decode"]) {
    add("%10lld %10lld %10.2f %12.1f %20.1f\n", row["sessions"].get<long long>(),
        row["context"].get<long long>(), number(row["step_s"]) * 1e3, number(row["tokens_per_s"]),
        number(row["tokens_per_s_all_stages"]));
  }
  if (projection.contains("prefill_tokens_per_s")) {
    add("prompt: %.0f tok/s\n", number(projection["prefill_tokens_per_s"]));
  }
  return text;
}

}  // namespace cli
