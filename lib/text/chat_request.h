// A conversation as the host gives it, {"messages": [...], "tools": [...]?, "response_format": {...}?} in
// OpenAI's style, read and checked.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/python_json.h"

namespace dsv {

enum class ChatRole { system, user, developer, assistant, tool };
std::string_view chat_role_name(ChatRole role);

struct ChatMessage {
  struct Call {
    std::string id, name;  // id: "" if the host gave none
    std::vector<PythonJson::Member> arguments;
  };

  ChatRole role = ChatRole::user;
  std::string content;             // list-style content has been joined
  std::string reasoning;           // assistant
  std::vector<Call> calls;         // assistant
  std::string call_id;             // tool; "" if the host gave none
  std::vector<std::string> tools;  // system, developer: each function's schema as Python writes it
  std::string response_format;     // system, developer: as Python writes it; "" = none
};

struct ChatRequest {
  std::vector<ChatMessage> messages;
  // A system message that the host did not write stands in front, for the request's own tools or format.
  bool system_added = false;

  bool has_tools() const;
  // "messages[3]", as the host counts them.
  std::string name_of(size_t message) const;
  // Of an assistant message: how many tool messages follow it directly.
  size_t results_of(size_t message) const;
};

// The request's own "tools" and "response_format" go on the first system message; without one, on an empty
// one in front. What this does not know among the keys has no meaning and is passed over. Throws
// INVALID_ARGUMENT naming the field, and UNSUPPORTED for kinds of content and tools that the model does not
// have.
ChatRequest parse_chat_request(std::string_view json);

}  // namespace dsv
