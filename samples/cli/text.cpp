// tokenize, detokenize, encode, parse: the text half of the library, without a model.
#include <memory>
#include <nlohmann/json.hpp>

#include "samples/cli/commands.h"
#include "samples/cli/common.h"

namespace cli {

void add_text(CLI::App& app) {
  const auto path = std::make_shared<std::string>();
  const auto tokenizer = [path] {
    return dsv::Tokenizer(path->empty() ? bundled_checkpoint() + "/tokenizer.json" : *path);
  };
  CLI::App* tokenize =
      app.add_subcommand("tokenize", "Text on stdin to a JSON array of ids (no BOS is added)");
  tokenize->add_option("--tokenizer", *path, "tokenizer.json (default: the bundled one)");
  tokenize->callback(
      [tokenizer] { write_stdout(nlohmann::json(tokenizer().encode(read_file("-"))).dump() + "\n"); });
  CLI::App* detokenize = app.add_subcommand("detokenize", "A JSON array of ids on stdin to bytes");
  detokenize->add_option("--tokenizer", *path, "tokenizer.json (default: the bundled one)");
  detokenize->callback(
      [tokenizer] { write_stdout(tokenizer().decode(parse_ids(read_file("-"), "standard input"))); });

  const auto keep = std::make_shared<bool>(false);
  const auto thinking = std::make_shared<bool>(false);
  CLI::App* encode = app.add_subcommand("encode", "A request (JSON) on stdin to the prompt text");
  encode->add_flag("--thinking,!--no-thinking", *thinking, "Thinking mode");
  encode->add_flag("--keep-thinking", *keep, "Keep the reasoning of earlier turns (drop_thinking=False)");
  encode->callback([thinking, keep] {
    const int32_t flags = (*thinking ? DSV_CHAT_THINKING : 0) | (*keep ? DSV_CHAT_KEEP_THINKING : 0);
    write_stdout(dsv::chat_encode(read_file("-"), flags));
  });
  CLI::App* parse = app.add_subcommand("parse", "A completion on stdin to the assistant's message (JSON)");
  parse->add_flag("--thinking,!--no-thinking", *thinking, "Thinking mode");
  parse->callback([thinking] {
    write_stdout(dsv::chat_parse(read_file("-"), *thinking ? DSV_CHAT_THINKING : 0) + "\n");
  });
}

}  // namespace cli
