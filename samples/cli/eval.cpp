// eval: run a suite of cases, judge the answers, report shares with confidence intervals.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <stdexcept>

#include "samples/cli/commands.h"
#include "samples/cli/common.h"
#include "samples/cli/suite.h"

namespace cli {
namespace {

using nlohmann::ordered_json;

struct EvalArgs {
  ModelArgs model;
  SamplingArgs sampling;
  std::string suite, only, compare, plot;
  int samples = 1, sessions = 8;
  int64_t limit = 0;
  bool mtp = false, json = false;
};

// What the MTP layer drafted of one answer.
struct Drafts {
  int64_t tokens = 0, right = 0;
};

ordered_json judged(const Case& one, int sample, const Completion& completion) {
  const std::string why = judge(one, completion);
  ordered_json result = {{"id", one.id}, {"suite", one.suite}, {"sample", sample}, {"passed", why.empty()}};
  if (!why.empty()) {
    result["why"] = why;
    if (!completion.reasoning.empty()) result["reasoning"] = completion.reasoning;
    result["content"] = completion.content;
    if (!completion.calls.empty()) result["calls"] = completion.calls;
  }
  return result;
}

// The MTP layer is fed each token of the answer and drafts the one that follows it; right is what the model
// wrote.
Drafts draft(dsv::Session& session, int64_t prompt_tokens, int64_t vocabulary) {
  const std::vector<int32_t> tokens = session.tokens();
  // Row t is fed token t + 1 and drafts token t + 2. The answer's first token comes from the prompt, without
  // a draft.
  const int64_t first = prompt_tokens - 1, rows = static_cast<int64_t>(tokens.size()) - 2 - first;
  if (first < 0 || rows <= 0) return {};
  std::vector<float> logits(static_cast<size_t>(rows * vocabulary));
  session.logits(tokens, first, rows, DSV_LOGITS_DRAFT, logits.data());
  Drafts out{rows, 0};
  for (int64_t row = 0; row < rows; ++row) {
    const float* from = logits.data() + row * vocabulary;
    const int64_t best = std::max_element(from, from + vocabulary) - from;
    out.right += best == tokens[static_cast<size_t>(first + row + 2)] ? 1 : 0;
  }
  return out;
}

void collect(const dsv::Event& event, Completion& completion) {
  switch (event.kind) {
    case DSV_EVENT_REASONING:
      completion.reasoning += event.text;
      break;
    case DSV_EVENT_CONTENT:
      completion.content += event.text;
      break;
    case DSV_EVENT_MALFORMED:
      completion.malformed = true;
      break;
    case DSV_EVENT_TOOL_END:
      completion.calls.push_back(
          {{"name", event.tool_name}, {"arguments", nlohmann::json::parse(event.text)}});
      break;
    case DSV_EVENT_FINISHED:
      if (event.finish_reason == DSV_FINISH_ERROR || event.finish_reason == DSV_FINISH_KV_BUDGET) {
        throw std::runtime_error(event.finish_reason == DSV_FINISH_ERROR
                                     ? event.text
                                     : "the KV budget is used up: lower --sessions");
      }
      completion.ended =
          event.finish_reason == DSV_FINISH_STOP || event.finish_reason == DSV_FINISH_TOOL_CALLS;
      break;
    default:
      break;
  }
}

// Results in the order of cases and samples. A request's tokens do not depend on its neighbours in the batch,
// so the number of sessions changes the time only.
std::vector<ordered_json> evaluate(const EvalArgs& args, const std::vector<Case>& cases) {
  dsv::Engine engine = args.model.engine();
  dsv::ModelOptions options = args.model.options();
  options.load_mtp = args.mtp ? 1 : 0;
  // Room for a full context in every session, as far as that is a small part of any machine.
  const std::string path = args.model.path.empty() ? bundled_checkpoint() : args.model.path;
  const int64_t one_context = dsv::Model::plan(engine, path, options).kv_pool_bytes;
  options.kv_budget_bytes = std::max(one_context, std::min<int64_t>(one_context * args.sessions, 1 << 30));
  const dsv::Model model = args.model.load(engine, options);
  const int64_t vocabulary = model.info().vocab_size;
  if (args.mtp && model.info().has_mtp == 0)
    throw std::runtime_error(path + " has no MTP layer: leave --mtp out");
  const size_t total = cases.size() * static_cast<size_t>(args.samples);
  std::vector<ordered_json> results(total);
  struct Running {
    dsv::Session session;
    size_t job;
    Completion completion;
  };
  std::vector<std::unique_ptr<Running>> running;
  size_t next = 0, done = 0;
  const bool terminal = isatty(STDERR_FILENO) != 0;
  while (done < total) {
    while (next < total && running.size() < static_cast<size_t>(args.sessions)) {
      const Case& one = cases[next / static_cast<size_t>(args.samples)];
      dsv::GenerateOptions options = args.sampling.options();
      options.thinking = one.thinking;
      options.max_tokens = one.max_tokens;
      options.seed = args.sampling.seed + next % static_cast<size_t>(args.samples);
      auto lane = std::make_unique<Running>(Running{dsv::Session(model), next++, {}});
      lane->session.chat(one.request, options);
      running.push_back(std::move(lane));
    }
    engine.step(100'000);
    std::erase_if(running, [&](const std::unique_ptr<Running>& lane) {
      for (dsv::Event event; lane->session.poll(event);) {
        collect(event, lane->completion);
        if (event.kind != DSV_EVENT_FINISHED) continue;
        const auto samples = static_cast<size_t>(args.samples);
        results[lane->job] =
            judged(cases[lane->job / samples], static_cast<int>(lane->job % samples), lane->completion);
        if (args.mtp) {
          const Drafts drafts = draft(lane->session, event.prompt_tokens, vocabulary);
          results[lane->job]["drafts"] = drafts.tokens;
          results[lane->job]["drafts_right"] = drafts.right;
        }
        ++done;
        return true;
      }
      return false;
    });
    if (terminal) std::fprintf(stderr, "\r%zu of %zu", done, total);
  }
  if (terminal) std::fputs("\r\033[K", stderr);
  return results;
}

// Share of passed samples by suite and case.
std::map<std::string, std::map<std::string, double>> shares(const ordered_json& results) {
  std::map<std::string, std::map<std::string, std::pair<double, double>>> counts;
  for (const auto& result : results) {
    auto& [passed, samples] =
        counts[result.at("suite").get<std::string>()][result.at("id").get<std::string>()];
    passed += result.at("passed").get<bool>() ? 1 : 0;
    samples += 1;
  }
  std::map<std::string, std::map<std::string, double>> out;
  for (const auto& [suite, cases] : counts) {
    for (const auto& [id, count] : cases) out[suite][id] = count.first / count.second;
  }
  return out;
}

ordered_json summarise(const ordered_json& results) {
  ordered_json suites = ordered_json::array();
  for (const auto& [suite, cases] : shares(results)) {
    double passed = 0;
    for (const auto& [id, share] : cases) passed += share;
    const auto count = static_cast<double>(cases.size());
    const Interval interval = wilson(passed, count);
    suites.push_back({{"suite", suite},
                      {"cases", cases.size()},
                      {"passed", passed},
                      {"share", passed / count},
                      {"low", interval.low},
                      {"high", interval.high}});
  }
  for (auto& row : suites) {
    Drafts sum;
    for (const auto& result : results) {
      if (!result.contains("drafts") || result["suite"] != row["suite"]) continue;
      sum.tokens += result["drafts"].get<int64_t>();
      sum.right += result["drafts_right"].get<int64_t>();
    }
    if (sum.tokens > 0)
      row["drafts_right"] = static_cast<double>(sum.right) / static_cast<double>(sum.tokens);
  }
  return suites;
}

// This run minus an earlier one over the cases that both have, by suite and in all.
ordered_json compare(const ordered_json& earlier, const ordered_json& results) {
  struct Sum {
    double lost = 0, won = 0, count = 0;
  };
  const auto before = shares(earlier);
  std::map<std::string, Sum> sums;
  for (const auto& [suite, cases] : shares(results)) {
    for (const auto& [id, share] : cases) {
      if (!before.contains(suite) || !before.at(suite).contains(id)) continue;
      const double gain = share - before.at(suite).at(id);
      for (Sum* sum : {&sums[suite], &sums["all"]}) {
        (gain < 0 ? sum->lost : sum->won) += std::abs(gain);
        sum->count += 1;
      }
    }
  }
  ordered_json out = ordered_json::array();
  for (const auto& [suite, sum] : sums) {
    const Paired paired = paired_difference(sum.lost, sum.won, sum.count);
    out.push_back({{"suite", suite},
                   {"cases", sum.count},
                   {"lost", sum.lost},
                   {"won", sum.won},
                   {"difference", paired.difference},
                   {"low", paired.interval.low},
                   {"high", paired.interval.high}});
  }
  return out;
}

std::string table(const ordered_json& out) {
  std::string text;
  char line[256];
  const auto add = [&](const char* format, auto... values) {
    std::snprintf(line, sizeof line, format, values...);
    text += line;
  };
  const auto percent = [](const ordered_json& value) { return value.get<double>() * 100; };
  add("%-28s %7s %8s %7s  %s\n", "suite", "cases", "passed", "%", "95% interval");
  for (const auto& row : out["suites"]) {
    add("%-28s %7d %8.1f %7.1f  %.1f to %.1f", row["suite"].get<std::string>().c_str(),
        row["cases"].get<int>(), row["passed"].get<double>(), percent(row["share"]), percent(row["low"]),
        percent(row["high"]));
    if (row.contains("drafts_right")) add("  drafts right: %.1f%%", percent(row["drafts_right"]));
    text += '\n';
  }
  if (!out.contains("compared")) return text;
  add("\n%-28s %7s %6s %6s %7s  %s\n", "against the earlier run", "cases", "lost", "won", "points",
      "95% interval");
  for (const auto& row : out["compared"]) {
    add("%-28s %7.0f %6.1f %6.1f %+7.2f  %+.2f to %+.2f\n", row["suite"].get<std::string>().c_str(),
        row["cases"].get<double>(), row["lost"].get<double>(), row["won"].get<double>(),
        percent(row["difference"]), percent(row["low"]), percent(row["high"]));
  }
  return text;
}

// A bar per suite with its interval, as SVG.
std::string plot(const ordered_json& suites) {
  std::string svg;
  char line[512];
  const auto add = [&](const char* format, auto... values) {
    std::snprintf(line, sizeof line, format, values...);
    svg += line;
  };
  add("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"%d\" font-family=\"sans-serif\" "
      "font-size=\"13\">\n",
      static_cast<int>(suites.size()) * 24 + 30);
  int y = 10;
  for (const auto& row : suites) {
    std::string name;
    for (const char c : row["suite"].get<std::string>()) {
      name += c == '<' ? "&lt;" : c == '&' ? "&amp;" : std::string(1, c);
    }
    const double share = row["share"], low = row["low"], high = row["high"];
    svg += "<text x=\"210\" y=\"" + std::to_string(y + 14) + "\" text-anchor=\"end\">" + name + "</text>\n";
    add("<rect x=\"220\" y=\"%d\" width=\"%.1f\" height=\"16\" fill=\"#4a7ab0\"/>\n", y, share * 450);
    add("<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\" stroke=\"black\"/>\n", 220 + low * 450,
        220 + high * 450, y + 8, y + 8);
    add("<text x=\"690\" y=\"%d\">%.1f%%</text>\n", y + 14, share * 100);
    y += 24;
  }
  return svg + "</svg>\n";
}

void eval(const EvalArgs& args) {
  std::vector<Case> cases = parse_suite(read_file(args.suite), args.suite);
  if (!args.only.empty()) std::erase_if(cases, [&](const Case& one) { return one.suite != args.only; });
  if (cases.empty()) throw std::runtime_error(args.suite + " has no cases of the suite " + args.only);
  if (args.limit > 0 && static_cast<size_t>(args.limit) < cases.size())
    cases.resize(static_cast<size_t>(args.limit));
  ordered_json earlier;
  if (!args.compare.empty()) {
    earlier = ordered_json::parse(read_file(args.compare), nullptr, false);
    if (!earlier.is_object() || !earlier.contains("results")) {
      throw std::runtime_error(args.compare + " is not the output of dsv eval --json");
    }
  }
  ordered_json out;
  out["file"] = args.suite;
  out["precision"] = args.model.precision;
  out["schedule"] = args.model.schedule;
  out["samples"] = args.samples;
  out["temperature"] = args.sampling.temperature;
  out["seed"] = args.sampling.seed;
  const ordered_json results = evaluate(args, cases);
  out["suites"] = summarise(results);
  if (!args.compare.empty()) out["compared"] = compare(earlier["results"], results);
  if (!args.plot.empty()) {
    std::ofstream file(args.plot);
    file << plot(out["suites"]);
    file.close();
    if (!file) throw std::runtime_error(args.plot + " cannot be written: check the path and the disk");
  }
  if (!args.json) return write_stdout(table(out));
  out["results"] = results;
  // What a model wrote is UTF-8; `replace` only guards the output against a broken suite file.
  write_stdout(out.dump(1, ' ', false, ordered_json::error_handler_t::replace) + "\n");
}

}  // namespace

void add_eval(CLI::App& app) {
  const auto args = std::make_shared<EvalArgs>();
  CLI::App* command = app.add_subcommand("eval", "Run a suite of cases and judge the answers");
  command->add_option("suite", args->suite, "JSONL file; samples/nano/SUITES.md has the format")->required();
  args->model.add_to(*command);
  command->add_option("--n", args->samples, "Samples of every case, with seeds seed, seed + 1, ...")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--temperature", args->sampling.temperature, "0: always the most likely token")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--seed", args->sampling.seed, "Seed of the first sample")->capture_default_str();
  command->add_option("--sessions", args->sessions, "Cases that run side by side")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--only", args->only, "Only the cases of this suite");
  command->add_option("--limit", args->limit, "Only this many cases, from the first (0: all)")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--compare", args->compare, "An earlier --json output: paired differences to it");
  command->add_option("--plot", args->plot, "Write a bar chart (SVG)");
  command->add_flag("--mtp", args->mtp, "Also count how often the MTP layer drafts the token that follows");
  command->add_flag("--json", args->json, "As JSON, with the result of every case");
  command->callback([args] { eval(*args); });
}

}  // namespace cli
