#include "text/chat_encoding.h"

#include "base/error.h"
#include "text/markers.h"
#include "text/stream_parser.h"

namespace dsv {
namespace {

using namespace markers;

// The model was trained on exactly these words. {0}: kDsml, {1}: the functions, {2} and {3}: kThink,
// kEndThink.
constexpr char kTools[] =
    R"(## Tools

You have access to a set of tools you can use to answer the user's question.
You can invoke functions by writing a "<{0}function_calls>" block like the following as part of your reply to the user:
<{0}function_calls>
<{0}invoke name="$FUNCTION_NAME">
<{0}parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</{0}parameter>
...
</{0}invoke>
<{0}invoke name="$FUNCTION_NAME2">
...
</{0}invoke>
</{0}function_calls>

String and scalar parameters should be specified as is without any escaping or quotes, while lists and objects should use JSON format. The "string" attribute should be set to "true" for string type parameters and "false" for other types (numbers, booleans, arrays, objects).

If the thinking_mode is enabled, then after function results you should strongly consider outputting a thinking block. Here is an example:

<{0}function_calls>
...
</{0}function_calls>

<function_results>
...
</function_results>

{2}...thinking about results{3}

Here are the functions available in JSONSchema format:
<functions>
{1}
</functions>
)";
constexpr std::string_view kFormat =
    "## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n";

// Tools and response format, each after an empty line.
void render_instructions(const ChatMessage& message, std::string& out) {
  if (!message.tools.empty()) {
    std::string functions;
    for (const std::string& tool : message.tools) {
      if (!functions.empty()) functions += '\n';
      functions += tool;
    }
    out += "\n\n";
    out += fmt::format(kTools, kDsml, functions, kThink, kEndThink);
  }
  if (!message.response_format.empty()) out.append("\n\n").append(kFormat).append(message.response_format);
}

void render_calls(const std::vector<ChatMessage::Call>& calls, std::string& out) {
  out.append("\n\n").append(kCalls).append(">\n");
  for (const ChatMessage::Call& call : calls) {
    out.append(kInvoke).append(" name=\"").append(call.name).append("\">\n");
    for (size_t i = 0; i < call.arguments.size(); ++i) {
      const auto& [key, value] = call.arguments[i];
      if (i > 0) out += '\n';
      out.append(kParameter).append(" name=\"").append(key).append("\" string=\"");
      if (value.is_string()) {
        out.append("true\">").append(value.text);
      } else {
        out += "false\">";
        dump_python_json(value, out);
      }
      out += kEndParameter;
    }
    out.append("\n").append(kEndInvoke).append("\n");
  }
  out += kEndCalls;
}

class Renderer {
 public:
  Renderer(const ChatRequest& request, bool thinking, bool keep_thinking)
      : request_(request), messages_(request.messages), thinking_(thinking), keep_thinking_(keep_thinking) {
    for (size_t i = 0; i < messages_.size(); ++i) {
      if (is_question(messages_[i])) last_question_ = static_cast<int64_t>(i);
    }
  }

  std::string render() {
    out_ += kBos;
    for (size_t i = 0; i < messages_.size(); ++i) {
      const ChatMessage& message = messages_[i];
      switch (message.role) {
        case ChatRole::system:
          out_ += message.content;
          render_instructions(message, out_);
          break;
        case ChatRole::developer:
          developer(i);
          break;
        case ChatRole::user:
          out_.append(kUser).append(message.content).append(kAssistant).append(start_of_answer(i));
          break;
        case ChatRole::assistant:
          assistant(i);
          break;
        case ChatRole::tool:
          tool(i);
          break;
      }
    }
    return std::move(out_);
  }

 private:
  static bool is_question(const ChatMessage& message) {
    return message.role == ChatRole::user || message.role == ChatRole::developer;
  }
  // Thinking happens after the last question only.
  bool thinks(size_t i) const { return thinking_ && static_cast<int64_t>(i) >= last_question_; }
  std::string_view start_of_answer(size_t i) const { return thinks(i) ? kThink : kEndThink; }

  void developer(size_t i) {
    const ChatMessage& message = messages_[i];
    if (message.content.empty()) {
      fail(DSV_ERROR_INVALID_ARGUMENT, "{} is an empty developer message: give it content",
           request_.name_of(i));
    }
    if (thinking_ && !keep_thinking_ && static_cast<int64_t>(i) < last_question_) {
      fail(
          DSV_ERROR_INVALID_ARGUMENT,
          "{} is a developer message before the last user message, which thinking mode leaves out: make it a "
          "system message, or keep the thinking",
          request_.name_of(i));
    }
    out_ += kUser;
    render_instructions(message, out_);
    out_.append("\n\n# The user's message is: ").append(message.content);
    out_.append(kAssistant).append(start_of_answer(i));
  }

  void assistant(size_t i) {
    const ChatMessage& message = messages_[i];
    if (thinks(i)) {
      if (message.reasoning.empty() && message.calls.empty()) {
        fail(DSV_ERROR_INVALID_ARGUMENT,
             "{} is an assistant message after the last user message with neither reasoning_content nor "
             "tool_calls, which thinking mode does not have: add one, or ask without thinking",
             request_.name_of(i));
      }
      out_.append(message.reasoning).append(kEndThink);
    }
    out_ += message.content;
    if (!message.calls.empty()) render_calls(message.calls, out_);
    out_ += kEos;
    caller_ = i;
  }

  // Unlike the others this looks back: the block opens at the first result and closes at the last call's.
  void tool(size_t i) {
    if (i == caller_ + 1) out_ += "\n\n<function_results>";
    out_.append("\n<result>").append(messages_[i].content).append("</result>");
    if (i != caller_ + messages_[caller_].calls.size()) return;
    out_.append("\n</function_results>\n\n").append(start_of_answer(i));
  }

  const ChatRequest& request_;
  const std::vector<ChatMessage>& messages_;
  const bool thinking_, keep_thinking_;
  int64_t last_question_ = -1;
  size_t caller_ = 0;  // the assistant message read last
  std::string out_;
};

}  // namespace

std::string render_chat(const ChatRequest& request, bool thinking, bool keep_thinking) {
  return Renderer(request, thinking, keep_thinking).render();
}

std::string parse_completion(std::string_view text, bool thinking) {
  // One EOS ends the turn; spaces after it are how files end.
  const size_t last = text.find_last_not_of(" \t\r\n");
  const std::string_view trimmed = text.substr(0, last == std::string_view::npos ? 0 : last + 1);
  if (trimmed.ends_with(kEos)) text = trimmed.substr(0, trimmed.size() - kEos.size());

  std::string reasoning, content, calls;
  StreamParser parser(thinking ? StreamParser::Kind::thinking : StreamParser::Kind::answer, false);
  const StreamParser::Take take = [&](const TextEvent& event) {
    switch (event.kind) {
      case DSV_EVENT_REASONING:
        reasoning += event.text;
        break;
      case DSV_EVENT_CONTENT:
        content += event.text;
        break;
      case DSV_EVENT_TOOL_END:
        calls += calls.empty() ? "" : ", ";
        calls += "{\"id\": ";
        dump_python_string(event.tool_id, calls);
        calls += ", \"type\": \"function\", \"function\": {\"name\": ";
        dump_python_string(event.tool_name, calls);
        calls += ", \"arguments\": ";
        dump_python_string(event.text, calls);
        calls += "}}";
        break;
      default:
        break;
    }
  };
  parser.push(text, take);
  parser.finish(take);

  std::string out = "{\"role\": \"assistant\"";
  if (!reasoning.empty()) {
    out += ", \"reasoning_content\": ";
    dump_python_string(reasoning, out);
  }
  out += ", \"content\": ";
  dump_python_string(content, out);
  if (!calls.empty()) out.append(", \"tool_calls\": [").append(calls).append("]");
  return out += "}";
}

}  // namespace dsv
