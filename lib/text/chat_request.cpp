#include "text/chat_request.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/json.h"

namespace dsv {
namespace {

constexpr std::string_view kRoleNames[] = {"system", "user", "developer", "assistant", "tool"};

template <class... Args>
[[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) {
  fail(DSV_ERROR_INVALID_ARGUMENT, format, std::forward<Args>(args)...);
}

// A key's value, with null as if the key were not there.
const PythonJson* find(const PythonJson& object, std::string_view key) {
  const PythonJson* value = object.find(key);
  return value && !value->is_null() ? value : nullptr;
}

std::string optional_string(const PythonJson& object, std::string_view key, const std::string& where) {
  const PythonJson* value = find(object, key);
  if (!value) return {};
  if (!value->is_string()) refuse("{}.{} must be a string", where, key);
  return value->text;
}

std::string required_string(const PythonJson& object, std::string_view key, const std::string& where) {
  const PythonJson* value = object.find(key);
  if (!value || !value->is_string()) refuse("{}.{} must be a string", where, key);
  return value->text;
}

const std::vector<PythonJson>& array(const PythonJson& value, const std::string& where) {
  if (!value.is_array()) refuse("{} must be an array", where);
  return value.items;
}

const PythonJson& required_object(const PythonJson& object, std::string_view key, const std::string& where) {
  const PythonJson* value = object.find(key);
  if (!value || !value->is_object()) refuse("{}.{} must be an object", where, key);
  return *value;
}

// OpenAI's {"type": ..} where the model knows one type only.
void check_type(const PythonJson& object, std::string_view only, bool required, const std::string& where) {
  const PythonJson* type = find(object, "type");
  if (!type && !required) return;
  if (!type || !type->is_string()) refuse("{}.type must be a string: \"{}\"", where, only);
  if (type->text != only) {
    fail(DSV_ERROR_UNSUPPORTED, "{}.type is {}: this model takes \"{}\" only", where, shown(type->text),
         only);
  }
}

// Text, or a list of parts that are all text. Nothing if there is none.
std::optional<std::string> content(const PythonJson& message, const std::string& where) {
  const PythonJson* value = find(message, "content");
  if (!value) return {};
  if (value->is_string()) return value->text;
  if (!value->is_array()) refuse("{}.content must be a string", where);
  std::string joined;
  for (size_t i = 0; i < value->items.size(); ++i) {
    const std::string part = fmt::format("{}.content[{}]", where, i);
    if (!value->items[i].is_object()) refuse("{} must be an object", part);
    check_type(value->items[i], "text", true, part);
    joined += required_string(value->items[i], "text", part);
  }
  return joined;
}

std::vector<std::string> read_tools(const PythonJson& object, const std::string& where) {
  std::vector<std::string> tools;
  const PythonJson* value = find(object, "tools");
  if (!value) return tools;
  const std::string list = where + "tools";
  for (const PythonJson& tool : array(*value, list)) {
    const std::string name = fmt::format("{}[{}]", list, tools.size());
    if (!tool.is_object()) refuse("{} must be an object", name);
    check_type(tool, "function", false, name);
    const PythonJson& function = required_object(tool, "function", name);
    required_string(function, "name", name + ".function");
    dump_python_json(function, tools.emplace_back());
  }
  return tools;
}

std::string read_format(const PythonJson& object, const std::string& where) {
  std::string out;
  const PythonJson* format = find(object, "response_format");
  if (!format) return out;
  if (!format->is_object()) refuse("{}response_format must be an object", where);
  if (!format->members.empty()) dump_python_json(*format, out);  // Python holds {} for nothing
  return out;
}

std::vector<ChatMessage::Call> read_calls(const PythonJson& message, const std::string& where) {
  std::vector<ChatMessage::Call> calls;
  const PythonJson* value = find(message, "tool_calls");
  if (!value) return calls;
  const std::string list = where + ".tool_calls";
  for (const PythonJson& given : array(*value, list)) {
    const std::string name = fmt::format("{}[{}]", list, calls.size());
    if (!given.is_object()) refuse("{} must be an object", name);
    check_type(given, "function", false, name);
    const PythonJson& function = required_object(given, "function", name);
    ChatMessage::Call& call = calls.emplace_back();
    call.id = optional_string(given, "id", name);
    call.name = required_string(function, "name", name + ".function");
    const std::string field = name + ".function.arguments";
    const std::string text = required_string(function, "arguments", name + ".function");
    PythonJson arguments = parse_python_json(text, field);
    if (!arguments.is_object()) refuse("{} must be a string that holds a JSON object", field);
    call.arguments = std::move(arguments.members);
  }
  return calls;
}

ChatRole read_role(const PythonJson& message, const std::string& where) {
  const std::string role = required_string(message, "role", where);
  const auto at = std::find(std::begin(kRoleNames), std::end(kRoleNames), role);
  if (at == std::end(kRoleNames)) {
    refuse("{}.role is {}: give system, user, developer, assistant or tool", where, shown(role));
  }
  return static_cast<ChatRole>(at - std::begin(kRoleNames));
}

ChatMessage read_message(const PythonJson& given, const std::string& where) {
  if (!given.is_object()) refuse("{} must be an object", where);
  ChatMessage message;
  message.role = read_role(given, where);
  const bool assistant = message.role == ChatRole::assistant;
  std::optional<std::string> text = content(given, where);
  if (!text && !assistant && message.role != ChatRole::system) refuse("{}.content must be a string", where);
  message.content = std::move(text).value_or("");
  message.calls = read_calls(given, where);
  message.reasoning = optional_string(given, "reasoning_content", where);
  if (!assistant && !message.calls.empty())
    refuse("{}.tool_calls: only an assistant message has them", where);
  if (!assistant && !message.reasoning.empty()) {
    refuse("{}.reasoning_content: only an assistant message has it", where);
  }
  message.tools = read_tools(given, where + ".");
  message.response_format = read_format(given, where + ".");
  const bool instructs = message.role == ChatRole::system || message.role == ChatRole::developer;
  if (!instructs && (!message.tools.empty() || !message.response_format.empty())) {
    refuse("{}.{}: only system and developer messages carry it; give it at the top of the request", where,
           message.tools.empty() ? "response_format" : "tools");
  }
  if (message.role == ChatRole::tool) message.call_id = optional_string(given, "tool_call_id", where);
  return message;
}

// Results belong to calls by their order; ids, where both sides have them, must not say otherwise.
void check_results(const ChatRequest& request) {
  const std::vector<ChatMessage>& messages = request.messages;
  size_t caller = messages.size();
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role != ChatRole::tool) {
      caller = i;
      continue;
    }
    if (caller == messages.size() || messages[caller].role != ChatRole::assistant ||
        messages[caller].calls.size() < i - caller) {
      refuse(
          "{} is a tool result without a call: it must follow an assistant message with as many tool_calls",
          request.name_of(i));
    }
    const std::vector<ChatMessage::Call>& calls = messages[caller].calls;
    const std::string& id = messages[i].call_id;
    const size_t order = i - caller - 1;
    if (id.empty() || calls[order].id.empty() || calls[order].id == id) continue;
    for (size_t other = 0; other < calls.size(); ++other) {
      if (calls[other].id == id) {
        refuse(
            "{}.tool_call_id names call {} of {} but stands in the place of call {}: give the results in "
            "the order of the calls",
            request.name_of(i), other, request.name_of(caller), order);
      }
    }
  }
}

}  // namespace

std::string_view chat_role_name(ChatRole role) { return kRoleNames[static_cast<size_t>(role)]; }

bool ChatRequest::has_tools() const {
  return std::any_of(messages.begin(), messages.end(), [](const ChatMessage& m) { return !m.tools.empty(); });
}

std::string ChatRequest::name_of(size_t message) const {
  return fmt::format("messages[{}]", message - (system_added ? 1 : 0));
}

size_t ChatRequest::results_of(size_t message) const {
  size_t next = message + 1;
  while (next < messages.size() && messages[next].role == ChatRole::tool) ++next;
  return next - message - 1;
}

ChatRequest parse_chat_request(std::string_view json) {
  const PythonJson root = parse_python_json(json, "the request");
  if (!root.is_object()) refuse("the request must be a JSON object with \"messages\"");
  ChatRequest request;
  const PythonJson* messages = root.find("messages");
  if (!messages) refuse("the request has no \"messages\"");
  for (const PythonJson& message : array(*messages, "messages")) {
    request.messages.push_back(read_message(message, request.name_of(request.messages.size())));
  }
  if (request.messages.empty()) refuse("messages is empty: give at least one");

  std::vector<std::string> tools = read_tools(root, "");
  std::string format = read_format(root, "");
  if (!tools.empty() || !format.empty()) {
    auto system = std::find_if(request.messages.begin(), request.messages.end(),
                               [](const ChatMessage& m) { return m.role == ChatRole::system; });
    if (system == request.messages.end()) {
      system = request.messages.insert(request.messages.begin(), ChatMessage{});
      system->role = ChatRole::system;
      request.system_added = true;
    }
    const auto give = [&](auto& own, auto&& given, const char* name) {
      if (given.empty()) return;
      if (!own.empty()) {
        refuse("{}: the request and {} both have it; give it once", name,
               request.name_of(static_cast<size_t>(system - request.messages.begin())));
      }
      own = std::move(given);
    };
    give(system->tools, std::move(tools), "tools");
    give(system->response_format, std::move(format), "response_format");
  }
  check_results(request);
  return request;
}

}  // namespace dsv
