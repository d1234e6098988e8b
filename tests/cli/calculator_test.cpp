#include "samples/cli/calculator.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace cli {
namespace {

TEST(Calculator, Computes) {
  EXPECT_EQ(calculate("123 * 456"), "56088");
  EXPECT_EQ(calculate("12 * (3 + 4)"), "84");
  EXPECT_EQ(calculate("5 / 2"), "2.5");
  EXPECT_EQ(calculate("0.1 + 0.2"), "0.3");
  EXPECT_EQ(calculate("2 - 3 - 4"), "-5");
  EXPECT_EQ(calculate("2 ^ 3 ^ 2"), "512");
  EXPECT_EQ(calculate("-2 ^ 2"), "-4");
  EXPECT_EQ(calculate("2 ^ -1"), "0.5");
  EXPECT_EQ(calculate("--3 % 2"), "1");
  EXPECT_EQ(calculate("0 * -1"), "0");
  EXPECT_EQ(calculate("9007199254740991"), "9007199254740991");
}

TEST(Calculator, RefusesWhatIsNoExpression) {
  for (const std::string text : {"", " ", "1 +", "(1", "1)", "1 2", "x", "inf", "nan", "0x10", "1 / 0",
                                 "1 % 0", "1e308 * 10", "()", "2 * * 3", "system(1)"}) {
    EXPECT_THROW(calculate(text), std::runtime_error) << text;
  }
}

TEST(Calculator, BoundsItsNesting) {
  EXPECT_EQ(calculate(std::string(50, '(') + "1" + std::string(50, ')')), "1");
  EXPECT_THROW(calculate(std::string(1'000'000, '(')), std::runtime_error);
  EXPECT_THROW(calculate(std::string(1'000'000, '-')), std::runtime_error);
  std::string powers = "1";
  for (int i = 0; i < 100'000; ++i) powers += "^1";
  EXPECT_THROW(calculate(powers), std::runtime_error);
}

}  // namespace
}  // namespace cli
