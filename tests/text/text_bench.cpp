// MB/s a core of text: tokenizer.json read, encode, decode, a completion parsed. The texts are those that the
// ids are compared on.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "tests/text/corpus.h"
#include "tests/text/data.h"
#include "text/detokenizer.h"
#include "text/stream_parser.h"
#include "text/tokenizer.h"

namespace dsv::test {
namespace {

struct Bench {
  std::string file = read_zstd(DSV_TEXT_DATA "/deepseek_v3_tokenizer.json.zst");
  std::shared_ptr<const Tokenizer> tokenizer = Tokenizer::parse(file, "deepseek_v3_tokenizer.json");
  std::vector<CorpusSection> corpus = make_corpus(*tokenizer);

  // Of one section, or of all of them for "".
  std::vector<std::string> texts(const std::string& section) const {
    std::vector<std::string> out;
    for (const CorpusSection& part : corpus) {
      if (section.empty() || part.name == section)
        out.insert(out.end(), part.texts.begin(), part.texts.end());
    }
    return out;
  }
  static Bench& instance() {
    static Bench bench;
    return bench;
  }
};

int64_t bytes_of(const std::vector<std::string>& texts) {
  int64_t bytes = 0;
  for (const std::string& text : texts) bytes += static_cast<int64_t>(text.size());
  return bytes;
}

void load(benchmark::State& state) {
  const std::string& file = Bench::instance().file;
  for (auto _ : state) benchmark::DoNotOptimize(Tokenizer::parse(file, "deepseek_v3_tokenizer.json"));
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * file.size()));
}

void encode(benchmark::State& state, const std::string& section) {
  const Bench& bench = Bench::instance();
  const std::vector<std::string> texts = bench.texts(section);
  for (auto _ : state) {
    for (const std::string& text : texts) benchmark::DoNotOptimize(bench.tokenizer->encode(text));
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * bytes_of(texts));
}

// Token by token into whole code points, as a session does it.
void decode(benchmark::State& state) {
  const Bench& bench = Bench::instance();
  const std::vector<std::string> texts = bench.texts("");
  std::vector<int32_t> ids;
  for (const std::string& text : texts) {
    const std::vector<int32_t> more = bench.tokenizer->encode(text);
    ids.insert(ids.end(), more.begin(), more.end());
  }
  for (auto _ : state) {
    Detokenizer detokenizer;
    for (const int32_t id : ids) benchmark::DoNotOptimize(detokenizer.push(bench.tokenizer->bytes(id)));
    benchmark::DoNotOptimize(detokenizer.finish());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * bytes_of(texts));
}

// A completion token by token through detokenizer and parser.
void parse(benchmark::State& state, const std::string& completion, StreamParser::Kind kind) {
  const Tokenizer& tokenizer = *Bench::instance().tokenizer;
  const std::vector<int32_t> ids = tokenizer.encode(completion);
  size_t taken = 0;
  const StreamParser::Take take = [&](const TextEvent& event) { taken += event.text.size(); };
  for (auto _ : state) {
    Detokenizer detokenizer;
    StreamParser parser(kind, false);
    for (const int32_t id : ids) parser.push(detokenizer.push(tokenizer.bytes(id)), take);
    parser.push(detokenizer.finish(), take);
    parser.finish(take);
  }
  benchmark::DoNotOptimize(taken);
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * completion.size()));
}

std::string prose() {
  std::string out;
  for (const std::string& text : Bench::instance().texts("prose")) {
    out += text;
    if (out.size() > size_t{1} << 20) break;
  }
  return out;
}

// Some hundred calls, each with a long string and some JSON.
std::string calls() {
  const std::string text = prose();
  std::string out = "\n\n<｜DSML｜function_calls>\n";
  for (size_t at = 0; at + 4000 < text.size(); at += 4000) {
    out += "<｜DSML｜invoke name=\"write_file\">\n<｜DSML｜parameter name=\"text\" string=\"true\">";
    out += text.substr(at, 4000);
    out +=
        "</｜DSML｜parameter>\n<｜DSML｜parameter name=\"n\" string=\"false\">[1, {\"a\": "
        "2.5}]</｜DSML｜parameter>\n";
    out += "</｜DSML｜invoke>\n";
  }
  return out + "</｜DSML｜function_calls>";
}

void register_benchmarks() {
  const auto add = [](const std::string& name, auto run) {
    benchmark::RegisterBenchmark(name.c_str(), run)->Unit(benchmark::kMillisecond);
  };
  add("load", load);
  for (const char* section : {"", "prose", "code", "foreign", "numbers", "spaces", "emoji", "runs"}) {
    add(std::string("encode/") + (*section ? section : "all"),
        [section](benchmark::State& state) { encode(state, section); });
  }
  add("decode/all", decode);
  add("parse/prose", [](benchmark::State& state) { parse(state, prose(), StreamParser::Kind::answer); });
  add("parse/reasoning",
      [](benchmark::State& state) { parse(state, prose(), StreamParser::Kind::thinking); });
  add("parse/calls", [](benchmark::State& state) { parse(state, calls(), StreamParser::Kind::answer); });
}

}  // namespace
}  // namespace dsv::test

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  dsv::test::register_benchmarks();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
