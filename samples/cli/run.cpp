// run: the tool loop. The model asks for tools, they run here, it answers from what they return.
#include <cstdio>
#include <memory>
#include <stdexcept>

#include "demo_tools.h"
#include "samples/cli/commands.h"
#include "samples/cli/common.h"
#include "samples/cli/terminal.h"
#include "samples/cli/tools.h"

namespace cli {
namespace {

struct RunArgs {
  ModelArgs model;
  SamplingArgs sampling;
  std::string tools_dir, prompt, system;
  bool think = false;
  int rounds = 8;
};

void run(const RunArgs& args) {
  const LocalTools tools(args.tools_dir);
  dsv::Engine engine = args.model.engine();
  const dsv::Model model = args.model.load(engine, args.model.options());
  dsv::Session session(model);
  dsv::Conversation conversation;
  dsv::GenerateOptions options = args.sampling.options();
  options.thinking = args.think;
  conversation.set_tools(kDemoTools);
  if (!args.system.empty()) conversation.add("system", args.system);
  conversation.add("user", args.prompt);
  catch_interrupts();
  for (int round = 0; round < args.rounds; ++round) {
    const Answer reply = answer(engine, session, conversation, options);
    if (reply.finished.finish_reason != DSV_FINISH_TOOL_CALLS) return;
    const auto calls = conversation.tool_calls();
    for (const auto& call : calls) {
      const std::string result = tools.call(call.name, call.arguments);
      std::fprintf(stderr, "<- %s\n", result.c_str());
      conversation.add_tool_result(call.id, result);
    }
  }
  throw std::runtime_error("the model still asked for tools after " + std::to_string(args.rounds) +
                           " rounds: raise --rounds, or ask for less at once");
}

}  // namespace

void add_run(CLI::App& app) {
  const auto args = std::make_shared<RunArgs>();
  CLI::App* command =
      app.add_subcommand("run", "Answer a prompt with tools: clock, calculator, files of a folder");
  args->model.add_to(*command);
  args->sampling.add_to(*command);
  command->add_option("--tools-dir", args->tools_dir, "The folder whose files the tools may read")
      ->required();
  command->add_option("--prompt", args->prompt, "What to do")->required();
  command->add_option("--system", args->system, "System message");
  command->add_flag("--think", args->think, "Let the model think before it answers");
  command->add_option("--rounds", args->rounds, "Most rounds of tool calls")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->callback([args] { run(*args); });
}

}  // namespace cli
