// generate and logits: raw tokens in, text, ids or logits out.
#include <algorithm>
#include <bit>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "samples/cli/commands.h"
#include "samples/cli/common.h"

namespace cli {
namespace {

struct GenerateArgs {
  ModelArgs model;
  SamplingArgs sampling;
  std::string tokens, prompt;
  bool ids = false, ignore_eos = false;
};

void generate(const GenerateArgs& args) {
  dsv::Engine engine = args.model.engine();
  const dsv::Model model = args.model.load(engine, args.model.options());
  std::vector<int32_t> prompt;
  if (!args.tokens.empty()) {
    prompt = parse_ids(read_file(args.tokens), args.tokens);
  } else {
    prompt = model.tokenizer().encode(args.prompt);
    if (model.info().bos_token >= 0) prompt.insert(prompt.begin(), model.info().bos_token);
  }
  dsv::GenerateOptions options = args.sampling.options();
  options.ignore_eos = args.ignore_eos;
  if (args.ids) options.logprobs = 0;  // asks for an event per token
  std::vector<int32_t> ids;
  dsv::Event finished;
  dsv::Session session(model, [&](const dsv::Event& event) {
    if (event.kind == DSV_EVENT_TOKEN) ids.push_back(event.token);
    if (event.kind == DSV_EVENT_CONTENT && !args.ids) write_stdout(event.text);
    if (event.kind == DSV_EVENT_FINISHED) finished = event;
    return DSV_ACTION_CONTINUE;
  });
  session.complete(prompt, options);
  engine.run();
  if (!args.ids) write_stdout("\n");
  if (finished.finish_reason == DSV_FINISH_ERROR) throw dsv::Error(finished.status, finished.text);
  if (args.ids) {
    const nlohmann::ordered_json out = {{"ids", ids},
                                        {"finish_reason", finish_name(finished.finish_reason)},
                                        {"prompt_tokens", finished.prompt_tokens}};
    write_stdout(out.dump() + "\n");
  }
}

struct LogitsArgs {
  ModelArgs model;
  std::string tokens, out;
  int32_t chunk = 0;
  bool draft = false;
};

// NumPy's format 1.0: magic, header padded to 64 bytes, then the array in C order.
std::string npy_header(int64_t rows, int64_t columns) {
  static_assert(std::endian::native == std::endian::little);
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + std::to_string(rows) + ", " +
                       std::to_string(columns) + "), }";
  header.resize((10 + header.size() + 1 + 63) / 64 * 64 - 11, ' ');
  header += '\n';
  const std::string size = {static_cast<char>(header.size() & 0xFF), static_cast<char>(header.size() >> 8)};
  return std::string("\x93NUMPY\x01\x00", 8) + size + header;
}

void logits(const LogitsArgs& args) {
  dsv::Engine engine = args.model.engine();
  dsv::ModelOptions options = args.model.options();
  options.batch_rows = args.chunk;
  options.load_mtp = args.draft;
  const dsv::Model model = args.model.load(engine, options);
  const std::vector<int32_t> tokens = parse_ids(read_file(args.tokens), args.tokens);
  const int64_t count = static_cast<int64_t>(tokens.size()), vocab = model.info().vocab_size;
  // A draft row is fed the token after it, so the last position has none.
  const int64_t rows = args.draft ? std::max<int64_t>(count - 1, 0) : count;
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(args.out.c_str(), "wb"), &std::fclose);
  const auto write = [&](const void* data, size_t size) {
    if (!file || std::fwrite(data, 1, size, file.get()) != size || std::fflush(file.get()) != 0) {
      throw std::runtime_error(args.out + " cannot be written: check the path and the disk");
    }
  };
  const std::string header = npy_header(rows, vocab);
  write(header.data(), header.size());
  dsv::Session session(model);
  if (args.draft) {  // computed anew by every call, so in one piece
    std::vector<float> out(static_cast<size_t>(rows * vocab));
    if (rows > 0) session.logits(tokens, 0, rows, DSV_LOGITS_DRAFT, out.data());
    return write(out.data(), out.size() * sizeof(float));
  }
  // In pieces, so that a long text with a large vocabulary needs little memory; each continues the last.
  const int64_t piece = args.chunk > 0 ? args.chunk : 512;
  std::vector<float> out;
  for (int64_t first = 0; first < count; first += piece) {
    const int64_t end = std::min(first + piece, count);
    out.resize(static_cast<size_t>((end - first) * vocab));
    session.logits({tokens.begin(), tokens.begin() + end}, first, end - first, DSV_LOGITS_MAIN, out.data());
    write(out.data(), out.size() * sizeof(float));
  }
}

}  // namespace

void add_generate(CLI::App& app) {
  const auto args = std::make_shared<GenerateArgs>();
  CLI::App* command = app.add_subcommand("generate", "Continue raw tokens or text");
  args->model.add_to(*command);
  args->sampling.add_to(*command);
  CLI::Option_group* source = command->add_option_group("input");
  source->add_option("--tokens", args->tokens, "JSON array of ids, used as they are (-: stdin)");
  source->add_option("--prompt", args->prompt, "Text; the model's BOS goes before it");
  source->require_option(1);
  command->add_flag("--ids", args->ids, "Print {\"ids\": [...], ...} instead of text");
  command->add_flag("--ignore-eos", args->ignore_eos, "Go on after the end-of-turn token");
  command->callback([args] { generate(*args); });

  const auto logits_args = std::make_shared<LogitsArgs>();
  command =
      app.add_subcommand("logits", "Logits of every position as float32 [tokens, vocab] in a .npy file");
  logits_args->model.add_to(*command);
  command->add_option("--tokens", logits_args->tokens, "JSON array of ids (-: stdin)")->required();
  command->add_option("--out", logits_args->out, "The .npy file to write")->required();
  command->add_option("--chunk", logits_args->chunk, "Tokens in one forward pass (0: 512)")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--draft", logits_args->draft, "Logits of the MTP layer");
  command->callback([logits_args] { logits(*logits_args); });
}

}  // namespace cli
