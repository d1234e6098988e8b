// The command families; each adds its subcommands to `app`. Their callbacks throw std::exception with one
// sentence.
#pragma once

#include <CLI/CLI.hpp>

namespace cli {

void add_chat(CLI::App& app);        // chat
void add_run(CLI::App& app);         // run
void add_generate(CLI::App& app);    // generate, logits
void add_text(CLI::App& app);        // tokenize, detokenize, encode, parse
void add_model_info(CLI::App& app);  // inspect, plan, synth
void add_eval(CLI::App& app);        // eval
void add_bench(CLI::App& app);       // bench

}  // namespace cli
