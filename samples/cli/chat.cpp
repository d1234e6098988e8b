// chat: a conversation, interactive or one prompt.
#include <cstdio>
#include <memory>

#include "samples/cli/commands.h"
#include "samples/cli/common.h"
#include "samples/cli/terminal.h"

namespace cli {
namespace {

struct ChatArgs {
  ModelArgs model;
  SamplingArgs sampling;
  std::string prompt, system, tools;
  bool think = false;
};

// Tools belong to the user here: what they return is asked for. False at the end of input.
bool ask_for_results(dsv::Conversation& conversation) {
  const auto calls = conversation.tool_calls();
  for (const auto& call : calls) {
    const auto result = read_line(("result of " + call.name + "> ").c_str());
    if (!result) return false;
    conversation.add_tool_result(call.id, *result);
  }
  return true;
}

void chat(const ChatArgs& args) {
  dsv::Engine engine = args.model.engine();
  const dsv::Model model = args.model.load(engine, args.model.options());
  dsv::Session session(model);
  dsv::Conversation conversation;
  dsv::GenerateOptions options = args.sampling.options();
  options.thinking = args.think;
  if (!args.tools.empty()) conversation.set_tools(read_file(args.tools));
  if (!args.system.empty()) conversation.add("system", args.system);
  catch_interrupts();
  if (!args.prompt.empty()) {
    conversation.add("user", args.prompt);
    answer(engine, session, conversation, options);
    return;
  }
  while (const auto line = read_line("> ")) {
    if (line->empty()) continue;
    // A request that fails must not take the conversation with it.
    const dsv::Conversation before = conversation;
    conversation.add("user", *line);
    try {
      while (answer(engine, session, conversation, options).finished.finish_reason == DSV_FINISH_TOOL_CALLS) {
        if (!ask_for_results(conversation)) return;
      }
    } catch (const dsv::Error& error) {
      std::fprintf(stderr, "dsv: %s\n", error.what());
      conversation = before;
    }
  }
}

}  // namespace

void add_chat(CLI::App& app) {
  const auto args = std::make_shared<ChatArgs>();
  CLI::App* command = app.add_subcommand("chat", "Talk to a model; Ctrl-C stops an answer, Ctrl-D leaves");
  args->model.add_to(*command);
  args->sampling.add_to(*command);
  command->add_option("--prompt", args->prompt, "Answer this and end, instead of a conversation");
  command->add_option("--system", args->system, "System message");
  command->add_option("--tools", args->tools, "JSON array of tools; you are asked for their results");
  command->add_flag("--think", args->think, "Let the model think before it answers");
  command->add_option("--context", args->model.context, "Longest conversation in tokens (0: the model's)")
      ->check(CLI::NonNegativeNumber);
  command->callback([args] { chat(*args); });
}

}  // namespace cli
