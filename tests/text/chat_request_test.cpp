// Requests that are refused, each by the field or message that is wrong; and what the Speciale profile
// refuses.
#include "text/chat_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "session/chat.h"
#include "tests/text/data.h"
#include "text/chat_encoding.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace dsv {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// `run` fails with `status` and a sentence that has `words`.
template <class Run>
void expect_error(const Run& run, dsv_status status, const std::string& words) {
  try {
    run();
    ADD_FAILURE() << "is not refused: " << words;
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), status) << error.what();
    EXPECT_THAT(error.what(), HasSubstr(words));
    EXPECT_TRUE(is_utf8(error.what()));
    EXPECT_LT(std::string(error.what()).size(), 1000u);
  }
}

void expect_refused(const std::string& request, const std::string& words,
                    dsv_status status = DSV_ERROR_INVALID_ARGUMENT) {
  SCOPED_TRACE(request.substr(0, 300));
  expect_error([&] { parse_chat_request(request); }, status, words);
}

// messages[0] is a user's, `message` is messages[1].
void expect_message_refused(const std::string& message, const std::string& words,
                            dsv_status status = DSV_ERROR_INVALID_ARGUMENT) {
  expect_refused(R"({"messages": [{"role": "user", "content": "a"}, )" + message + "]}", words, status);
}

const char* const kTool = R"({"type": "function", "function": {"name": "f", "parameters": {}}})";

std::string call(const std::string& arguments) {
  return R"({"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": )" +
         json(arguments).dump() + "}}]}";
}

TEST(ChatRequest, RefusesWhatIsNoJson) {
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{\"messages\":";
  for (const std::string& text : {std::string(),
                                  std::string(" "),
                                  std::string("{"),
                                  std::string("{\"messages\": [1,]}"),
                                  std::string("\0", 1),
                                  std::string("{\"a\": \"\n\"}"),
                                  std::string("{'messages': []}"),
                                  std::string("{} {}"),
                                  std::string("[NaN]"),
                                  std::string("[01]"),
                                  std::string("[1.]"),
                                  std::string("[1e]"),
                                  std::string("[-]"),
                                  std::string("[+1]"),
                                  std::string("\"\\x\""),
                                  std::string("\"\\u12\""),
                                  std::string("\"\\ud83d\""),
                                  std::string("\"\\ud83d\\u0041\""),
                                  std::string("\"\\ude00\\ud83d\""),
                                  std::string("\"abc")}) {
    expect_refused(text, "the request is not valid JSON: at byte ");
  }
  for (const std::string& text :
       {std::string(100000, '['), std::string(100000, '[') + std::string(100000, ']'), objects}) {
    expect_refused(text, "the request nests JSON deeper than 128 levels");
  }
  std::string many = "[0";
  many.reserve(size_t{1} << 22);
  for (int i = 0; i < 1 << 20; ++i) many += ",0";
  expect_refused(many + "]", "holds more than 1048576 JSON values");
}

TEST(ChatRequest, NamesTheFieldOfAWrongKind) {
  for (const char* text : {"[]", "1", "null", "\"messages\""}) expect_refused(text, "must be a JSON object");
  expect_refused("{}", "has no \"messages\"");
  expect_refused(R"({"messages": {}})", "messages must be an array");
  expect_refused(R"({"messages": []})", "messages is empty");
  expect_refused(R"({"messages": [1]})", "messages[0] must be an object");
  expect_message_refused(R"({"content": "a"})", "messages[1].role must be a string");
  expect_message_refused(R"({"role": "robot", "content": "a"})", "messages[1].role is 'robot'");
  expect_message_refused(R"({"role": "user"})", "messages[1].content must be a string");
  expect_message_refused(R"({"role": "user", "content": 1})", "messages[1].content must be a string");
  expect_message_refused(R"({"role": "user", "content": [{"type": "text", "text": "a"}, 1]})",
                         "messages[1].content[1] must be an object");
  expect_message_refused(R"({"role": "user", "content": [{"type": "text"}]})",
                         "messages[1].content[0].text must be a string");
  expect_message_refused(R"({"role": "user", "content": [{"type": "image_url"}]})",
                         "messages[1].content[0].type is 'image_url'", DSV_ERROR_UNSUPPORTED);
  expect_message_refused(R"({"role": "user", "content": "a", "reasoning_content": "b"})",
                         "messages[1].reasoning_content: only an assistant message has it");
  expect_message_refused(R"({"role": "assistant", "reasoning_content": 1})",
                         "messages[1].reasoning_content must be a string");
  expect_message_refused(R"({"role": "user", "content": "a", "tools": [)" + std::string(kTool) + "]}",
                         "messages[1].tools: only system and developer messages carry it");
  expect_refused(R"({"messages": [{"role": "user", "content": "a"}], "tools": {}})",
                 "tools must be an array");
  expect_refused(R"({"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "web_search"}]})",
                 "tools[0].type is 'web_search'", DSV_ERROR_UNSUPPORTED);
  expect_refused(R"({"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "function"}]})",
                 "tools[0].function must be an object");
  expect_refused(R"({"messages": [{"role": "user", "content": "a"}], "tools": [{"function": {}}]})",
                 "tools[0].function.name must be a string");
  expect_refused(R"({"messages": [{"role": "user", "content": "a"}], "response_format": "json"})",
                 "response_format must be an object");
  expect_refused(R"({"messages": [{"role": "system", "tools": [)" + std::string(kTool) +
                     R"(]}], "tools": [)" + kTool + "]}",
                 "tools: the request and messages[0] both have it");
}

TEST(ChatRequest, NamesTheCallOfWrongArguments) {
  const std::string field = "messages[1].tool_calls[0].function.arguments";
  expect_message_refused(call("[]"), field + " must be a string that holds a JSON object");
  expect_message_refused(call(""), field + " is not valid JSON: at byte 0");
  expect_message_refused(call("{\"a\": nope}"), field + " is not valid JSON: at byte 6");
  expect_message_refused(call(std::string(100000, '[')), field + " nests JSON deeper");
  expect_message_refused(
      R"({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]})",
      field + " must be a string");
  expect_message_refused(R"({"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]})",
                         "messages[1].tool_calls[0].function.name must be a string");
  expect_message_refused(R"({"role": "assistant", "tool_calls": [{}]})",
                         "messages[1].tool_calls[0].function must be an object");
  expect_message_refused(
      R"({"role": "user", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]})",
      "messages[1].tool_calls: only an assistant message has them");
}

TEST(ChatRequest, NamesTheResultWithoutACall) {
  const std::string result = R"({"role": "tool", "tool_call_id": "c", "content": "1"})";
  expect_message_refused(result, "messages[1] is a tool result without a call");
  expect_message_refused(call("{}") + "," + result + "," + result,
                         "messages[3] is a tool result without a call");
  const std::string two = R"({"role": "assistant", "tool_calls": [
      {"id": "a", "function": {"name": "f", "arguments": "{}"}}, {"id": "b", "function": {"name": "f", "arguments": "{}"}}]})";
  const std::string second = R"({"role": "tool", "tool_call_id": "b", "content": "1"})";
  expect_message_refused(two + "," + second, "messages[2].tool_call_id names call 1 of messages[1]");
  // The host's own count, also with a system message put in front for the tools.
  expect_refused(R"({"tools": [)" + std::string(kTool) +
                     R"(], "messages": [{"role": "user", "content": "a"},)" + result + "]}",
                 "messages[1] is a tool result without a call");
}

TEST(ChatRequest, NamesTheMessageThatTheFormatDoesNotHave) {
  const auto render = [](const std::string& messages, bool keep_thinking) {
    return
        [=] { render_chat(parse_chat_request("{\"messages\": [" + messages + "]}"), true, keep_thinking); };
  };
  const std::string user = R"({"role": "user", "content": "a"})";
  const std::string developer = R"({"role": "developer", "content": "d"})";
  expect_error(render(user + R"(,{"role": "assistant", "content": "b"})", false), DSV_ERROR_INVALID_ARGUMENT,
               "messages[1] is an assistant message after the last user message with neither");
  expect_error(render(user + R"(,{"role": "developer", "content": ""})", false), DSV_ERROR_INVALID_ARGUMENT,
               "messages[1] is an empty developer message");
  expect_error(render(developer + "," + user, false), DSV_ERROR_INVALID_ARGUMENT,
               "messages[0] is a developer message before the last user message");
  EXPECT_NO_THROW(render(developer + "," + user, true)());
}

TEST(ChatRequest, SpecialeRefusesToolsByName) {
  const auto tokenizer =
      Tokenizer::parse(test::read_zstd(DSV_TEXT_DATA "/deepseek_v3_tokenizer.json.zst"), "tokenizer.json");
  const std::string user = R"({"role": "user", "content": "a"})";
  const std::string plain = "{\"messages\": [" + user + "]}";
  const std::string tools = "{\"tools\": [" + std::string(kTool) + "], \"messages\": [" + user + "]}";
  const std::string calls =
      "{\"messages\": [" + user + "," + call("{}") + R"(, {"role": "tool", "content": "1"}]})";
  const auto encode = [&](const std::string& request, bool thinking, bool speciale) {
    GenerateOptions options;
    options.thinking = thinking;
    return [=] { return encode_prompt(*tokenizer, speciale, request, options); };
  };
  EXPECT_EQ(encode(plain, true, true)(), encode(plain, true, false)());
  EXPECT_NO_THROW(encode(tools, true, false)());
  EXPECT_NO_THROW(encode(calls, true, false)());
  expect_error(encode(tools, true, true), DSV_ERROR_UNSUPPORTED,
               "the \"speciale\" chat profile has no tools");
  expect_error(encode(calls, true, true), DSV_ERROR_UNSUPPORTED, "leave out messages[1].tool_calls");
  expect_error(encode(plain, false, true), DSV_ERROR_UNSUPPORTED,
               "the \"speciale\" chat profile always thinks");
  // Not every rendered list can be answered.
  expect_error(encode("{\"messages\": [" + user +
                          R"(, {"role": "assistant", "content": "b", "reasoning_content": "r"}]})",
                      true, false),
               DSV_ERROR_INVALID_ARGUMENT, "messages[1] is the last one and its role is assistant");
}

}  // namespace
}  // namespace dsv
