// The stream parser's events, however the text is cut. That whole completions parse as the official parser
// has them is in chat_encoding_test.cpp.
#include "text/stream_parser.h"

#include <dsv/dsv.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <utility>

#include "base/error.h"
#include "tests/text/data.h"
#include "tests/text/parser_events.h"
#include "text/python_json.h"
#include "text/tokenizer.h"

namespace dsv::test {
namespace {

using Kind = StreamParser::Kind;
using Lines = std::vector<std::string>;

const std::string kOpen = "\n\n<｜DSML｜function_calls>\n", kClose = "\n</｜DSML｜function_calls>";
const std::string kClock = "<｜DSML｜invoke name=\"clock\">\n\n</｜DSML｜invoke>";

std::string parameter(const std::string& name, const std::string& value, bool is_string) {
  return "<｜DSML｜parameter name=\"" + name + "\" string=\"" + (is_string ? "true" : "false") + "\">" +
         value + "</｜DSML｜parameter>";
}
std::string invoke(const std::string& name, const std::string& inside) {
  return "<｜DSML｜invoke name=\"" + name + "\">\n" + inside + "\n</｜DSML｜invoke>";
}

// The events as lines, to be read next to the text they come from.
Lines lines(const std::vector<ParserEvent>& events) {
  Lines out;
  for (const ParserEvent& event : events) {
    const std::string call = event.tool_id + " " + event.tool_name;
    switch (event.kind) {
      case DSV_EVENT_REASONING:
        out.push_back("reasoning: " + event.text);
        break;
      case DSV_EVENT_CONTENT:
        out.push_back("content: " + event.text);
        break;
      case DSV_EVENT_TOOL_BEGIN:
        out.push_back("begin " + call);
        break;
      case DSV_EVENT_TOOL_DELTA:
        out.push_back("delta " + event.text);
        break;
      case DSV_EVENT_TOOL_END:
        out.push_back("end " + call + " " + event.text);
        break;
      case DSV_EVENT_MALFORMED:
        out.push_back("malformed: " + event.text);
        break;
      default:
        out.push_back("kind " + std::to_string(event.kind));
    }
  }
  return out;
}

// One text in every cut there is between two bytes, byte by byte, and in random pieces.
void expect_same_in_pieces(const std::string& text, Kind kind, bool calls_stay_text) {
  const std::vector<ParserEvent> whole = parse_whole(text, kind, calls_stay_text);
  const auto expect = [&](const std::function<size_t()>& next_size, const std::string& cut) {
    const std::vector<ParserEvent> events = parse_pieces(text, kind, calls_stay_text, next_size);
    ASSERT_EQ(lines(events), lines(whole)) << cut << " of: " << text;
    ASSERT_TRUE(events == whole) << cut << " of: " << text;
  };
  for (size_t at = 1; at < text.size(); ++at) {
    bool first = true;
    expect([&] { return std::exchange(first, false) ? at : text.size(); }, "cut at " + std::to_string(at));
  }
  expect([] { return size_t{1}; }, "single bytes");
  std::mt19937_64 random(text.size());
  for (size_t longest = 2; longest < 20; longest += 3) {
    expect([&] { return 1 + random() % longest; }, "pieces up to " + std::to_string(longest));
  }
}

void expect_events(const std::string& text, Kind kind, const Lines& expected, bool calls_stay_text = false) {
  SCOPED_TRACE(text);
  const std::vector<ParserEvent> events = parse_whole(text, kind, calls_stay_text);
  EXPECT_EQ(lines(events), expected);
  EXPECT_EQ(broken_promise(text, kind, calls_stay_text, events), "");
  expect_same_in_pieces(text, kind, calls_stay_text);
}

// A block that fails: `before` it all of it as content, in which the report stands where reading ended.
void expect_malformed(const std::string& text, const std::string& sentence, const Lines& before = {}) {
  SCOPED_TRACE(text);
  const std::vector<ParserEvent> events = parse_whole(text, Kind::answer, false);
  EXPECT_EQ(broken_promise(text, Kind::answer, false, events), "");
  expect_same_in_pieces(text, Kind::answer, false);
  Lines expected = before, joined;
  expected.push_back("malformed: " + sentence);
  std::string content;
  for (const ParserEvent& event : events) {
    if (event.kind == DSV_EVENT_CONTENT) {
      content += event.text;
    } else {
      joined.push_back(lines({event})[0]);
    }
  }
  EXPECT_EQ(joined, expected);
  EXPECT_EQ(content, text);
}

TEST(StreamParser, TellsReasoningFromContent) {
  expect_events("", Kind::answer, {});
  expect_events("", Kind::thinking, {});
  expect_events("Yes.", Kind::answer, {"content: Yes."});
  expect_events("Yes.", Kind::raw, {"content: Yes."});
  expect_events("hm\n</think>Yes.", Kind::thinking, {"reasoning: hm\n", "content: Yes."});
  expect_events("</think>Yes.", Kind::thinking, {"content: Yes."});
  expect_events("hm</think>", Kind::thinking, {"reasoning: hm"});
  // Reasoning that does not end is not an answer.
  expect_events("hm", Kind::thinking, {"reasoning: hm"});
  expect_events("hm</think", Kind::thinking, {"reasoning: hm</think"});
  expect_events("a</thin</th</</think>b", Kind::thinking, {"reasoning: a</thin</th</", "content: b"});
}

TEST(StreamParser, TextThatLooksLikeAMarkerIsText) {
  for (const std::string& text :
       Lines{"a\n\n", "\n\n<", "\n\n<｜", "\n\n<｜DSM", "a\n\n\n\n<b>", "<｜User｜>",
             "\n\n<｜DSL｜function_calls>", "a < b\n\n</a>", "\n\n\n\n<｜D\n\n<｜D"}) {
    expect_events(text, Kind::answer, {"content: " + text});
    expect_events("hm</think>" + text, Kind::thinking, {"reasoning: hm", "content: " + text});
    expect_events(text, Kind::thinking, {"reasoning: " + text});
  }
}

TEST(StreamParser, ReadsCalls) {
  expect_events(kOpen + kClock + kClose, Kind::answer,
                {"begin call_0 clock", "delta {}", "end call_0 clock {}"});
  // No line, one line or two between the tags of a call without arguments.
  expect_events(kOpen + "<｜DSML｜invoke name=\"f\">\n</｜DSML｜invoke>" + kClose, Kind::answer,
                {"begin call_0 f", "delta {}", "end call_0 f {}"});
  const std::string all =
      R"({"s": "a \"b\"\n\\c <d> \u0001", "n": [1, {"k": 2.50}], "empty": "", "b": true})";
  const std::string inside = parameter("s", "a \"b\"\n\\c <d> \x01", true) + "\n" +
                             parameter("n", "[1, {\"k\": 2.50}]", false) + "\n" +
                             parameter("empty", "", true) + "\n" + parameter("b", "true", false);
  expect_events("Let me see." + kOpen + invoke("get_x", inside) + kClose, Kind::answer,
                {"content: Let me see.", "begin call_0 get_x", "delta " + all, "end call_0 get_x " + all});
  const std::string place = R"({"地": "München, \\ 好 😀"})";
  expect_events(
      "hm</think>" + kOpen + kClock + "\n" + invoke("f", parameter("地", "München, \\ 好 😀", true)) + "\n" +
          kClock + kClose,
      Kind::thinking,
      {"reasoning: hm", "begin call_0 clock", "delta {}", "end call_0 clock {}", "begin call_1 f",
       "delta " + place, "end call_1 f " + place, "begin call_2 clock", "delta {}", "end call_2 clock {}"});
}

// Which tools there are is not the parser's business: any name is a call, for the host to answer.
TEST(StreamParser, ReadsCallsOfAnyTool) {
  for (const std::string& name : Lines{"no_such_tool", "weird name", "名", "a\"b", "a\">b", ""}) {
    expect_events(kOpen + invoke(name, "") + kClose, Kind::answer,
                  {"begin call_0 " + name, "delta {}", "end call_0 " + name + " {}"});
  }
}

TEST(StreamParser, KeepsValuesAsTheyAre) {
  // A string is raw to its end tag, other markup inside it too.
  for (const std::string& value :
       Lines{"<", "</", "</｜DSML｜param", "</｜DSML｜invoke>", "<｜DSML｜invoke name=\"g\">", "</think>",
             "{\"a\": 1}", "\n", " x ", "</｜DSML｜parameter</｜DSML｜"}) {
    const std::string arguments = nlohmann::json{{"x", value}}.dump();
    const std::string spaced = "{\"x\": " + arguments.substr(5);
    expect_events(kOpen + invoke("f", parameter("x", value, true)) + kClose, Kind::answer,
                  {"begin call_0 f", "delta " + spaced, "end call_0 f " + spaced});
  }
  // Other values go out as written, numbers of any size too.
  for (const std::string& value : Lines{"1", "-0.50", "12345678901234567890123", "1e999", "null", "false",
                                        "\"s\"", "[]", "{\"a\": {\"a\": [1,2]}}", " 1 ", "\n[ ]\n"}) {
    const std::string arguments = "{\"x\": " + value + "}";
    expect_events(kOpen + invoke("f", parameter("x", value, false)) + kClose, Kind::answer,
                  {"begin call_0 f", "delta " + arguments, "end call_0 f " + arguments});
  }
}

TEST(StreamParser, RefusesValuesThatAreNoJson) {
  for (const std::string& value : Lines{"", "nope", "NaN", "Infinity", "1 2", "{\"a\": }", "'a'", "[1,]",
                                        "\"\\ud800\"", "01", std::string(200, '[') + std::string(200, ']')}) {
    std::string reason;
    try {
      parse_python_json(value, "the value");
      ADD_FAILURE() << value;
    } catch (const Error& error) {
      reason = error.what();
    }
    expect_malformed(kOpen + invoke("f", parameter("x", value, false)) + kClose,
                     "the call of 'f' is malformed: a parameter with string=\"false\" must be JSON: " +
                         reason + "; its markup went out as content",
                     {"begin call_0 f", "delta {\"x\": "});
  }
}

TEST(StreamParser, MalformedMarkupIsContent) {
  const std::string no_call = "tool call markup is malformed: ", sentence = "; it went out as content";
  expect_malformed(kOpen + "</｜DSML｜function_calls>", no_call + "the block holds no call" + sentence);
  expect_malformed("\n\n<｜DSML｜function_calls >\n" + kClock + kClose,
                   no_call + "it lacks '>' and a line end after '<｜DSML｜function_calls'" + sentence);
  expect_malformed(kOpen + "好" + kClock + kClose,
                   no_call + "it lacks '<｜DSML｜invoke' or the end of the block" + sentence);
  expect_malformed(kOpen + "<｜DSML｜invoke nam=\"f\">\n",
                   no_call + "it lacks 'name=\"' after '<｜DSML｜invoke'" + sentence);
  expect_malformed(kOpen + "<｜DSML｜invoke name=\"f\"><｜DSML｜parameter",
                   no_call + "it lacks '\">' and a line end after the name" + sentence);
  const std::string of_f = "the call of 'f' is malformed: ", markup = "; its markup went out as content";
  expect_malformed(kOpen + invoke("f", "junk") + kClose,
                   of_f + "it lacks '<｜DSML｜parameter' or '</｜DSML｜invoke>'" + markup,
                   {"begin call_0 f"});
  expect_malformed(kOpen + invoke("f", "\n\n") + kClose,
                   of_f + "it lacks '<｜DSML｜parameter' or '</｜DSML｜invoke>'" + markup,
                   {"begin call_0 f"});
  expect_malformed(kOpen + invoke("f", "<｜DSML｜parameter nam"),
                   of_f + "it lacks ' name=\"' after '<｜DSML｜parameter'" + markup, {"begin call_0 f"});
  expect_malformed(
      kOpen + invoke("f", "<｜DSML｜parameter name=\"x\" string=\"maybe\">1</｜DSML｜parameter>"),
      of_f + "it lacks 'string=\"true\">' or 'string=\"false\">' after a parameter's name" + markup,
      {"begin call_0 f"});
  expect_malformed(kOpen + invoke("f", parameter("x", "1", false) + " "),
                   of_f + "it lacks a line end after '</｜DSML｜parameter>'" + markup,
                   {"begin call_0 f", "delta {\"x\": 1"});
  expect_malformed(kOpen + invoke("f", parameter("x", "a", true) + "\n" + parameter("x", "b", true)) + kClose,
                   of_f + "it repeats the parameter 'x'" + markup, {"begin call_0 f", "delta {\"x\": \"a\""});
}

TEST(StreamParser, ACallHasAtMostAThousandParameters) {
  std::string inside = parameter("0", "", true);
  for (int i = 1; i < 1000; ++i) inside += "\n" + parameter(std::to_string(i), "", true);
  const auto count = [](const std::string& text, int32_t kind) {
    const auto events = parse_whole(text, Kind::answer, false);
    EXPECT_EQ(broken_promise(text, Kind::answer, false, events), "");
    return std::count_if(events.begin(), events.end(), [&](const ParserEvent& e) { return e.kind == kind; });
  };
  EXPECT_EQ(count(kOpen + invoke("f", inside) + kClose, DSV_EVENT_TOOL_END), 1);
  inside += "\n" + parameter("1000", "", true);
  EXPECT_EQ(count(kOpen + invoke("f", inside) + kClose, DSV_EVENT_TOOL_END), 0);
  EXPECT_EQ(count(kOpen + invoke("f", inside) + kClose, DSV_EVENT_MALFORMED), 1);
}

TEST(StreamParser, CallsBeforeAMalformedOneStand) {
  const Lines clock{"begin call_0 clock", "delta {}", "end call_0 clock {}"};
  const auto with = [&](const Lines& more) {
    Lines out = clock;
    out.insert(out.end(), more.begin(), more.end());
    return out;
  };
  const std::string lacks =
      "malformed: the call of 'g' is malformed: it lacks '<｜DSML｜parameter' or "
      "'</｜DSML｜invoke>'; its markup went out as content";
  expect_events(kOpen + kClock + "\n" + invoke("g", "junk") + kClose, Kind::answer,
                with({"begin call_1 g", "content: \n<｜DSML｜invoke name=\"g\">\nj", lacks,
                      "content: unk\n</｜DSML｜invoke>" + kClose}));
  const std::string no_call =
      "malformed: tool call markup is malformed: it lacks '<｜DSML｜invoke' or the end of "
      "the block; it went out as content";
  expect_events(kOpen + kClock + "\nand so on", Kind::answer,
                with({"content: \na", no_call, "content: nd so on"}));
  expect_events(
      kOpen + kClock + kClose.substr(0, 20), Kind::answer,
      with({"content: " + kClose.substr(0, 20),
            "malformed: tool call markup is malformed: the block of calls is not closed; it went out as "
            "content"}));
}

// A completion may stop anywhere, as when max_tokens is reached.
TEST(StreamParser, UnfinishedMarkupIsContent) {
  const std::string text = "a" + kOpen +
                           invoke("f", parameter("x", "é\"", true) + "\n" + parameter("n", "[1]", false)) +
                           "\n" + kClock + kClose;
  // "\n\n<｜DSML｜" alone is a marker out of place; from the block's name on, the block is what is
  // unfinished.
  const size_t marker = 1 + std::string_view("\n\n<｜DSML｜").size();
  const std::string end = "</｜DSML｜invoke>";
  const size_t first_end = text.find(end) + end.size(), second_end = text.rfind(end) + end.size();
  for (size_t size = 0; size <= text.size(); ++size) {
    if (size < text.size() && (static_cast<unsigned char>(text[size]) & 0xC0) == 0x80) continue;
    const std::string part = text.substr(0, size);
    SCOPED_TRACE(part);
    const auto events = parse_whole(part, Kind::answer, false);
    ASSERT_EQ(broken_promise(part, Kind::answer, false, events), "");
    const auto count = [&](int32_t kind) {
      return std::count_if(events.begin(), events.end(),
                           [&](const ParserEvent& e) { return e.kind == kind; });
    };
    EXPECT_EQ(count(DSV_EVENT_TOOL_END), (size >= first_end) + (size >= second_end));
    EXPECT_EQ(count(DSV_EVENT_MALFORMED), size >= marker && size < text.size());
    expect_same_in_pieces(part, Kind::answer, false);
  }
}

TEST(StreamParser, MarkupInTheThinkingPartStaysReasoning) {
  const std::string block = kOpen + kClock + kClose;
  const Lines reported{"reasoning: hm\n\n<｜DSML｜",
                       "malformed: tool call markup stands in the thinking part; it stays reasoning",
                       "reasoning: " + block.substr(std::string_view("\n\n<｜DSML｜").size())};
  expect_events("hm" + block, Kind::thinking, reported);
  // The answer behind it is watched anew.
  Lines both = reported;
  for (const char* line : {"begin call_0 clock", "delta {}", "end call_0 clock {}"}) both.push_back(line);
  expect_events("hm" + block + "</think>" + block, Kind::thinking, both);
}

TEST(StreamParser, MarkersOutOfPlaceAreContentAndReported) {
  expect_events(
      "a<think>b</think>c", Kind::answer,
      {"content: a<think>", "malformed: a thinking marker stands in the answer; it went out as content",
       "content: b</think>c"});
  expect_events("hm</think>a</think>b", Kind::thinking,
                {"reasoning: hm", "content: a</think>",
                 "malformed: a thinking marker stands in the answer; it went out as content", "content: b"});
  // Not behind an empty line: no block.
  const std::string rest = "function_calls>\n" + kClock + kClose;
  expect_events("a\n<｜DSML｜" + rest, Kind::answer,
                {"content: a\n<｜DSML｜",
                 "malformed: tool call markup that opens no block of calls stands in the answer; it went out "
                 "as content",
                 "content: " + rest});
}

TEST(StreamParser, TextAfterTheCallsIsContentAndReported) {
  const Lines call{"begin call_0 clock", "delta {}", "end call_0 clock {}"};
  const std::string report =
      "malformed: text follows the tool calls, which end a turn; it went out as content";
  const auto with = [&](const Lines& more) {
    Lines out = call;
    out.insert(out.end(), more.begin(), more.end());
    return out;
  };
  const std::string block = kOpen + kClock + kClose;
  expect_events(block + "\n", Kind::answer, with({"content: \n", report}));
  expect_events(block + "好了", Kind::answer, with({"content: 好", report, "content: 了"}));
  // A second block is not a block.
  expect_events(block + block, Kind::answer, with({"content: \n", report, "content: " + block.substr(1)}));
}

TEST(StreamParser, CallsStayTextWhereToolsAreOff) {
  const std::string block = kOpen + kClock + kClose;
  expect_events("a" + block + "b", Kind::answer, {"content: a" + block + "b"}, true);
  expect_events("hm" + block + "</think>a" + block, Kind::thinking,
                {"reasoning: hm" + block, "content: a" + block}, true);
  expect_events("<think>" + block + "</think>", Kind::raw, {"content: <think>" + block + "</think>"});
}

// What a host counts on while it reads a call: no event waits for the next one's text.
TEST(StreamParser, SendsArgumentsAsTheyCome) {
  StreamParser parser(Kind::answer, false);
  std::string seen;
  const StreamParser::Take take = [&](const TextEvent& event) {
    seen += event.kind == DSV_EVENT_TOOL_BEGIN ? "[" + std::string(event.tool_name) + "]"
                                               : std::string(event.text);
  };
  parser.push(kOpen + "<｜DSML｜invoke name=\"f\">\n", take);
  EXPECT_EQ(seen, "[f]");
  parser.push("<｜DSML｜parameter name=\"x\" string=\"true\">ab", take);
  EXPECT_EQ(seen, "[f]{\"x\": \"ab");
  parser.push("c</｜DSML｜", take);
  EXPECT_EQ(seen, "[f]{\"x\": \"abc");
  parser.push("par", take);
  EXPECT_EQ(seen, "[f]{\"x\": \"abc");
  parser.push("rot", take);
  EXPECT_EQ(seen, "[f]{\"x\": \"abc</｜DSML｜parrot");
  EXPECT_EQ(parser.tool_calls(), 0);
  parser.push("</｜DSML｜parameter>\n</｜DSML｜invoke>", take);
  EXPECT_EQ(parser.tool_calls(), 1);
}

// The official encoder's completions, most of them damaged, in random pieces and token by token.
TEST(StreamParser, KeepsItsPromisesOnDamagedCompletions) {
  const auto tokenizer =
      Tokenizer::parse(read_zstd(DSV_TEXT_DATA "/deepseek_v3_tokenizer.json.zst"), "tokenizer.json");
  std::istringstream rows(read_zstd(DSV_TEXT_DATA "/encoding/parsed.jsonl.zst"));
  std::mt19937_64 random(1);
  int texts = 0;
  for (std::string row; std::getline(rows, row); ++texts) {
    const std::string text = nlohmann::json::parse(row)["text"];
    const std::vector<int32_t> ids = tokenizer->encode(text);
    for (const Kind kind : {Kind::answer, Kind::thinking, Kind::raw}) {
      for (const bool calls_stay_text : {false, true}) {
        const auto whole = parse_whole(text, kind, calls_stay_text);
        ASSERT_EQ(broken_promise(text, kind, calls_stay_text, whole), "") << text;
        size_t next = 0;
        const auto token = [&] { return tokenizer->bytes(ids[next++]).size(); };
        ASSERT_EQ(lines(parse_pieces(text, kind, calls_stay_text, token)), lines(whole)) << text;
        const auto piece = [&] { return 1 + random() % 12; };
        ASSERT_EQ(lines(parse_pieces(text, kind, calls_stay_text, piece)), lines(whole)) << text;
      }
    }
  }
  EXPECT_GT(texts, 1500);
}

// What must not hold is found out: the checker itself is checked.
TEST(StreamParser, BrokenPromisesAreNoticed) {
  const std::string text = "a" + kOpen + invoke("f", parameter("x", "b", true)) + kClose;
  const auto good = parse_whole(text, Kind::answer, false);
  ASSERT_EQ(broken_promise(text, Kind::answer, false, good), "");
  for (size_t i = 0; i < good.size(); ++i) {
    auto bad = good;
    bad.erase(bad.begin() + static_cast<std::ptrdiff_t>(i));
    EXPECT_NE(broken_promise(text, Kind::answer, false, bad), "") << "without event " << i;
    bad = good;
    bad[i].text += "x";
    EXPECT_NE(broken_promise(text, Kind::answer, false, bad), "") << "with more in event " << i;
  }
  EXPECT_NE(broken_promise(text + "!", Kind::answer, false, good), "");
  EXPECT_NE(broken_promise(text, Kind::answer, true, good), "");
  EXPECT_NE(broken_promise("hm", Kind::answer, false, {{DSV_EVENT_REASONING, "hm", "", "", 0}}), "");
}

}  // namespace
}  // namespace dsv::test
