#include "samples/cli/calculator.h"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <stdexcept>

namespace cli {
namespace {

// sum = product {(+|-) product}; product = unary {(*|/|%) unary}; unary = [+|-] unary | power;
// power = atom [^ unary]; atom = number | "(" sum ")". The model writes the text, so nesting is bounded.
class Parser {
 public:
  explicit Parser(std::string_view text) : at_(text.data()), end_(text.data() + text.size()) {}

  double parse() {
    const double value = sum();
    if (!done()) throw std::runtime_error(std::string("unexpected '") + *at_ + "'");
    return value;
  }

 private:
  static constexpr int kMaxDepth = 100;

  bool done() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\n' || *at_ == '\r')) ++at_;
    return at_ == end_;
  }
  bool take(char c) {
    if (done() || *at_ != c) return false;
    ++at_;
    return true;
  }

  double sum() {
    double value = product();
    while (true) {
      if (take('+')) {
        value += product();
      } else if (take('-')) {
        value -= product();
      } else {
        return value;
      }
    }
  }
  double product() {
    double value = unary();
    while (true) {
      if (take('*')) {
        value *= unary();
      } else if (take('/')) {
        value /= divisor(unary());
      } else if (take('%')) {
        value = std::fmod(value, divisor(unary()));
      } else {
        return value;
      }
    }
  }
  static double divisor(double value) {
    if (value == 0) throw std::runtime_error("division by zero");
    return value;
  }
  double unary() {
    if (++depth_ > kMaxDepth) throw std::runtime_error("expression nested too deeply");
    const double value = take('-') ? -unary() : take('+') ? unary() : power();
    --depth_;
    return value;
  }
  double power() {
    const double base = atom();
    return take('^') ? std::pow(base, unary()) : base;
  }
  double atom() {
    if (take('(')) {
      const double value = sum();
      if (!take(')')) throw std::runtime_error("missing ')'");
      return value;
    }
    double value = 0;
    const bool number = !done() && ((*at_ >= '0' && *at_ <= '9') || *at_ == '.');
    const auto [next, error] =
        number ? std::from_chars(at_, end_, value) : std::from_chars_result{at_, std::errc::invalid_argument};
    if (error != std::errc()) throw std::runtime_error("not an arithmetic expression");
    at_ = next;
    return value;
  }

  const char* at_;
  const char* end_;
  int depth_ = 0;
};

}  // namespace

std::string calculate(std::string_view expression) {
  double value = Parser(expression).parse();
  if (!std::isfinite(value)) throw std::runtime_error("result out of range");
  if (value == 0) value = 0;  // no "-0"
  char text[32];
  // Whole numbers exactly as far as a double is exact; fractions without the noise of the last digits.
  const bool whole = value == std::floor(value) && std::abs(value) < 0x1p53;
  std::snprintf(text, sizeof text, whole ? "%.0f" : "%.10g", value);
  return text;
}

}  // namespace cli
