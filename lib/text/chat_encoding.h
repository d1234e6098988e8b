// The official V3.2 chat encoding, both ways: a conversation to the prompt's text, a completion to a message.
#pragma once

#include <string>
#include <string_view>

#include "text/chat_request.h"

namespace dsv {

// The prompt, BOS included, byte for byte as the official encode_messages gives it. keep_thinking: its
// drop_thinking=False (reasoning before the last user message is left out either way; what differs is whether
// a developer message may stand there). Where the official code asserts: INVALID_ARGUMENT naming the message.
std::string render_chat(const ChatRequest& request, bool thinking, bool keep_thinking);

// A whole completion, with EOS or without, to {"role", "reasoning_content"?, "content", "tool_calls"?} as
// JSON. Markup that cannot be parsed stays in the content.
std::string parse_completion(std::string_view text, bool thinking);

}  // namespace dsv
