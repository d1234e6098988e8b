#include "session/stop_matcher.h"

#include <gtest/gtest.h>

namespace dsv {
namespace {

std::string feed(const std::vector<std::string>& stops, const std::string& text, size_t piece,
                 bool& stopped) {
  StopMatcher matcher;
  matcher.start(stops);
  std::string out;
  for (size_t at = 0; at < text.size(); at += piece) out += matcher.push(text.substr(at, piece));
  stopped = matcher.stopped();
  return out += matcher.flush();
}

TEST(StopMatcher, FindsTheFirstStopHoweverTextIsCut) {
  for (size_t piece = 1; piece < 20; ++piece) {
    bool stopped = false;
    EXPECT_EQ(feed({"END", "\n\n"}, "one ENtwo END three", piece, stopped), "one ENtwo ");
    EXPECT_TRUE(stopped);
    EXPECT_EQ(feed({"aab"}, "aaaab", piece, stopped), "aa");
    EXPECT_TRUE(stopped);
    EXPECT_EQ(feed({"END"}, "ends in EN", piece, stopped), "ends in EN");
    EXPECT_FALSE(stopped);
    EXPECT_EQ(feed({}, "no stops", piece, stopped), "no stops");
    EXPECT_FALSE(stopped);
  }
}

TEST(StopMatcher, HoldsBackOnlyWhatCouldStop) {
  StopMatcher matcher;
  matcher.start({"###"});
  EXPECT_EQ(matcher.push("a#"), "a");
  EXPECT_EQ(matcher.push("b##"), "#b");
  EXPECT_EQ(matcher.flush(), "##");
}

}  // namespace
}  // namespace dsv
