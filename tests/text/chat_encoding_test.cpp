// The chat encoding against what the official encoder made of the same requests (data/encoding).
#include "text/chat_encoding.h"

#include <dsv/dsv.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "tests/text/data.h"
#include "text/python_json.h"

namespace dsv::test {
namespace {

using nlohmann::json;

const std::string kFolder = std::string(DSV_TEXT_DATA) + "/encoding/";

std::vector<json> rows(const std::string& name) {
  std::vector<json> out;
  std::istringstream lines(read_zstd(kFolder + name));
  for (std::string line; std::getline(lines, line);) out.push_back(json::parse(line));
  return out;
}

TEST(ChatEncoding, RendersThePublishedVector) {
  const ChatRequest request = parse_chat_request(read_whole(kFolder + "weather.input.json"));
  // The file ends with a line end that is not part of the prompt, as text files do.
  EXPECT_EQ(render_chat(request, true, false) + "\n", read_whole(kFolder + "weather.expected.txt"));
}

TEST(ChatEncoding, RendersWhatTheOfficialEncoderRenders) {
  int refused = 0, rendered = 0;
  for (const json& row : rows("rendered.jsonl.zst")) {
    SCOPED_TRACE(row["name"].get<std::string>() + (row["thinking"] ? ", thinking" : "") +
                 (row["keep_thinking"] ? ", kept" : ""));
    const auto render = [&] {
      return render_chat(parse_chat_request(row["request"].get<std::string>()), row["thinking"],
                         row["keep_thinking"]);
    };
    if (row["prompt"].is_null()) {
      try {
        ADD_FAILURE() << "is not refused: " << render();
      } catch (const Error& error) {
        EXPECT_EQ(error.status(), DSV_ERROR_INVALID_ARGUMENT);
        EXPECT_NE(std::string(error.what()).find("messages["), std::string::npos) << error.what();
      }
      ++refused;
    } else {
      EXPECT_EQ(render(), row["prompt"]) << row["request"];
      ++rendered;
    }
  }
  EXPECT_GT(refused, 20);
  EXPECT_GT(rendered, 800);
}

// What the official parser takes as a message must be the same one here; what it refuses stays text.
TEST(ChatEncoding, ParsesWhatTheOfficialParserParses) {
  int taken = 0, with_calls = 0;
  for (const json& row : rows("parsed.jsonl.zst")) {
    const std::string text = row["text"];
    SCOPED_TRACE(text);
    json message = json::parse(parse_completion(text, row["thinking"]));
    EXPECT_EQ(message["role"], "assistant");
    const json& official = row["message"];
    if (official.is_null()) continue;
    ++taken;
    EXPECT_EQ(message["content"], official["content"]);
    EXPECT_EQ(message.value("reasoning_content", ""), official["reasoning_content"]);
    json calls = message.value("tool_calls", json::array());
    for (size_t i = 0; i < calls.size(); ++i) {
      EXPECT_EQ(calls[i]["id"], "call_" + std::to_string(i));
      calls[i].erase("id");
    }
    EXPECT_EQ(calls, official["tool_calls"]);
    with_calls += !calls.empty();
  }
  EXPECT_GT(taken, 500);
  EXPECT_GT(with_calls, 200);
}

TEST(ChatEncoding, ACompletionEndsWithOrWithoutItsMarker) {
  const auto content = [](const std::string& text) {
    return json::parse(parse_completion(text, false))["content"].get<std::string>();
  };
  EXPECT_EQ(content("a\n"), "a\n");
  EXPECT_EQ(content("a\n<｜end▁of▁sentence｜>\n"), "a\n");
  EXPECT_EQ(content("<｜end▁of▁sentence｜>"), "");
  EXPECT_EQ(content("a<｜end▁of▁sentence｜>b"), "a<｜end▁of▁sentence｜>b");
}

TEST(PythonJson, WritesNumbersAsPythonDoes) {
  const json pairs = json::parse(read_whole(kFolder + "numbers.json"));
  ASSERT_GT(pairs.size(), 400u);
  for (const json& pair : pairs) {
    std::string out;
    dump_python_json(parse_python_json(pair[0].get<std::string>(), "a number"), out);
    EXPECT_EQ(out, pair[1]) << pair[0];
  }
}

}  // namespace
}  // namespace dsv::test
