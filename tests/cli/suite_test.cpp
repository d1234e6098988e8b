#include "samples/cli/suite.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace cli {
namespace {

using nlohmann::json;

Case with_check(const json& check, bool thinking = false) {
  const json line = {{"id", "a"},       {"suite", "s"},  {"messages", json::array()}, {"thinking", thinking},
                     {"max_tokens", 8}, {"check", check}};
  return parse_suite(line.dump(), "test").front();
}

bool passes(const json& check, const std::string& content, const json& calls = json::array()) {
  Completion completion;
  completion.content = content;
  completion.calls = calls;
  completion.ended = true;
  return judge(with_check(check), completion).empty();
}

TEST(Suite, Verifiers) {
  EXPECT_TRUE(passes({{"type", "exact"}, {"value", "Yes."}}, " Yes.\n"));
  EXPECT_FALSE(passes({{"type", "exact"}, {"value", "Yes."}}, "yes."));
  EXPECT_TRUE(passes({{"type", "contains_all"}, {"values", {"Tallow", "street"}}}, "in TALLOW Street"));
  EXPECT_FALSE(passes({{"type", "contains_all"}, {"values", {"Tallow", "Road"}}}, "in Tallow Street"));
  EXPECT_TRUE(passes({{"type", "contains_any"}, {"values", {"Road", "Street"}}}, "Tallow Street"));
  EXPECT_TRUE(passes({{"type", "number"}, {"value", "42"}}, "142 and 42."));
  EXPECT_FALSE(passes({{"type", "number"}, {"value", "42"}}, "142, 421"));
  EXPECT_TRUE(passes({{"type", "regex"}, {"pattern", "^[0-9]+$"}}, "123"));
  EXPECT_TRUE(passes({{"type", "no_tool_call"}}, "hello"));
  EXPECT_FALSE(passes({{"type", "no_tool_call"}, {"values", {"hi"}}}, "hello"));
}

TEST(Suite, ToolCallsAreComparedAsValues) {
  const json check = {{"type", "tool_calls"},
                      {"calls", {{{"name", "f"}, {"arguments", {{"x", 1}, {"y", "a"}}}}}}};
  EXPECT_TRUE(passes(check, "", json::parse(R"([{"name": "f", "arguments": {"y": "a", "x": 1.0}}])")));
  EXPECT_FALSE(passes(check, "", json::parse(R"([{"name": "f", "arguments": {"y": "A", "x": 1}}])")));
  EXPECT_FALSE(passes(check, "", json::parse(R"([{"name": "f", "arguments": {"x": 1}}])")));
  EXPECT_FALSE(passes(check, "f(1)"));
  EXPECT_FALSE(passes({{"type", "contains_any"}, {"values", {"a"}}}, "a", check["calls"]));
}

TEST(Suite, FormComesBeforeContent) {
  const json check = {{"type", "contains_any"}, {"values", {"a"}}};
  Completion completion;
  completion.content = "a";
  EXPECT_EQ(judge(with_check(check), completion), "did not end its turn");
  completion.ended = true;
  EXPECT_EQ(judge(with_check(check), completion), "");
  completion.content = "a</think>";
  EXPECT_EQ(judge(with_check(check), completion), "think tag in the content");
  completion.content = "";
  completion.reasoning = "a";
  EXPECT_EQ(judge(with_check(check, true), completion), "reasoning was not closed");
}

TEST(Suite, NamesTheBadLine) {
  for (const char* check :
       {R"({"type": "exact"})", R"({"type": "magic"})", R"({"type": "regex", "pattern": "("})",
        R"({"type": "contains_all", "values": [1]})", "7"}) {
    const std::string line =
        std::string(R"({"id": "a", "suite": "s", "messages": [], "max_tokens": 1, "check": )") + check + "}";
    try {
      parse_suite("\n" + line, "file.jsonl");
      FAIL() << check;
    } catch (const std::runtime_error& error) {
      EXPECT_EQ(std::string(error.what()).rfind("file.jsonl line 2: ", 0), 0u) << error.what();
    }
  }
  EXPECT_THROW(parse_suite("", "empty"), std::runtime_error);
  EXPECT_THROW(parse_suite("{", "broken"), std::runtime_error);
}

// Values from the formulas' papers' own arithmetic, done by hand to four digits.
TEST(Suite, Intervals) {
  EXPECT_NEAR(wilson(5, 10).low, 0.2366, 1e-4);
  EXPECT_NEAR(wilson(5, 10).high, 0.7634, 1e-4);
  EXPECT_NEAR(wilson(200, 200).low, 0.9812, 1e-4);
  EXPECT_NEAR(wilson(200, 200).high, 1, 1e-9);
  const Paired same = paired_difference(0, 0, 1000);
  EXPECT_EQ(same.difference, 0);
  EXPECT_GT(same.interval.low, -0.01);
  EXPECT_LT(same.interval.low, 0);
  EXPECT_LT(paired_difference(30, 2, 1000).interval.high, 0);
}

}  // namespace
}  // namespace cli
