// The terminal side of a conversation: streaming an answer, dimmed reasoning, Ctrl-C, reading a line.
#pragma once

#include <optional>
#include <string>

#include "dsv/dsv.hpp"

namespace cli {

// From now on Ctrl-C sets a flag instead of ending the program.
void catch_interrupts();
// Whether Ctrl-C came since the last call.
bool take_interrupt();

// One line of stdin, with a prompt on stderr if both are terminals. Nothing at the end of input, or after
// Ctrl-C on an empty line twice in a row.
std::optional<std::string> read_line(const char* prompt);

struct Answer {
  dsv::Event finished;
  bool stopped = false;  // by Ctrl-C
};
// Runs one request to its end: content to stdout, reasoning (dimmed on a terminal) and tool calls to stderr.
// Adds the assistant's message to `conversation`.
Answer answer(dsv::Engine& engine, dsv::Session& session, dsv::Conversation& conversation,
              const dsv::GenerateOptions& options);

}  // namespace cli
