#include "text/python_json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "text/utf8.h"

namespace dsv {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The decimal exponent of a number's first digit that is not 0: 2 for 123.4, -3 for 0.00123; 0 for zero.
int64_t decimal_exponent(std::string_view number) {
  constexpr int64_t kFar = int64_t{1} << 40;
  int64_t point = 0, first = -1, digits = 0, exponent = 0;
  bool after_point = false;
  size_t at = number.starts_with('-') ? 1 : 0;
  for (; at < number.size() && (is_digit(number[at]) || number[at] == '.'); ++at) {
    if (number[at] == '.') {
      after_point = true;
      continue;
    }
    if (first < 0 && number[at] != '0') first = digits;
    ++digits;
    if (!after_point) ++point;
  }
  if (first < 0) return 0;
  if (at < number.size()) {
    const bool negative = number[++at] == '-';
    if (negative || number[at] == '+') ++at;
    for (; at < number.size(); ++at) exponent = std::min(exponent * 10 + (number[at] - '0'), kFar);
    if (negative) exponent = -exponent;
  }
  return point - 1 - first + exponent;
}

// repr(float(number)): the fewest digits that read back as the same double, with an exponent outside
// [1e-4, 1e16).
std::string python_float(std::string_view number) {
  double value = 0;
  const std::errc error = std::from_chars(number.data(), number.data() + number.size(), value).ec;
  const bool negative = number.starts_with('-');
  if (error == std::errc::result_out_of_range) value = decimal_exponent(number) > 0 ? HUGE_VAL : 0.0;
  if (std::isinf(value)) return negative ? "-Infinity" : "Infinity";
  if (value == 0) return negative ? "-0.0" : "0.0";

  char buffer[40];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, std::abs(value), std::chars_format::scientific).ptr;
  const std::string_view scientific(buffer, static_cast<size_t>(end - buffer));
  const size_t e = scientific.find('e');
  int exponent = 0;
  const size_t exponent_at = e + (scientific[e + 1] == '+' ? 2 : 1);
  std::from_chars(buffer + exponent_at, end, exponent);
  std::string digits(1, scientific[0]);
  if (e > 1) digits += scientific.substr(2, e - 2);

  std::string out = negative ? "-" : "";
  const int count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    out += digits[0];
    if (count > 1) out.append(".").append(digits, 1);
    out += exponent < 0 ? "e-" : "e+";
    const std::string power = std::to_string(std::abs(exponent));
    return out.append(power.size() < 2 ? "0" : "").append(power);
  }
  if (exponent < 0) return out.append("0.").append(static_cast<size_t>(-exponent - 1), '0').append(digits);
  if (count <= exponent + 1)
    return out.append(digits).append(static_cast<size_t>(exponent + 1 - count), '0') + ".0";
  return out.append(digits, 0, static_cast<size_t>(exponent) + 1)
      .append(".")
      .append(digits, static_cast<size_t>(exponent) + 1);
}

// Of members with the same key, the last one's value in the first one's place.
void merge_duplicates(std::vector<PythonJson::Member>& members) {
  std::vector<size_t> order(members.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return members[a].key < members[b].key; });
  std::vector<bool> dead(members.size());
  bool any = false;
  for (size_t i = 0; i < order.size();) {
    size_t next = i + 1;
    while (next < order.size() && members[order[next]].key == members[order[i]].key)
      dead[order[next++]] = true;
    if (next > i + 1) {
      members[order[i]].value = std::move(members[order[next - 1]].value);
      any = true;
    }
    i = next;
  }
  if (!any) return;
  size_t kept = 0;
  for (size_t i = 0; i < members.size(); ++i) {
    if (dead[i]) continue;
    if (kept != i) members[kept] = std::move(members[i]);
    ++kept;
  }
  members.resize(kept);
}

class Reader {
 public:
  Reader(std::string_view text, std::string_view what, const PythonJsonLimits& limits)
      : text_(text), what_(what), limits_(limits) {}

  PythonJson document() {
    if (text_.size() > limits_.bytes) {
      fail(DSV_ERROR_INVALID_ARGUMENT, "{} has {} bytes of JSON, more than the {} that are read: shorten it",
           what_, text_.size(), limits_.bytes);
    }
    PythonJson value = read(0);
    skip_space();
    if (at_ < text_.size()) wrong("has more than one value");
    return value;
  }

 private:
  [[noreturn]] void wrong(const char* why) const {
    fail(DSV_ERROR_INVALID_ARGUMENT, "{} is not valid JSON: at byte {} it {}", what_, at_, why);
  }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void skip_space() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r'))
      ++at_;
  }
  bool take(char c) {
    skip_space();
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  bool take_word(std::string_view word) {
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }

  PythonJson read(int32_t depth) {
    if (++values_ > limits_.values) {
      fail(DSV_ERROR_INVALID_ARGUMENT, "{} holds more than {} JSON values: shorten it", what_,
           limits_.values);
    }
    if (depth >= limits_.depth) {
      fail(DSV_ERROR_INVALID_ARGUMENT, "{} nests JSON deeper than {} levels at byte {}", what_, limits_.depth,
           at_);
    }
    skip_space();
    PythonJson value;
    const char c = peek();
    if (c == '{') {
      value.kind = PythonJson::Kind::object;
      read_object(value, depth);
    } else if (c == '[') {
      value.kind = PythonJson::Kind::array;
      read_array(value, depth);
    } else if (c == '"') {
      value.kind = PythonJson::Kind::string;
      value.text = read_string();
    } else if (c == '-' || is_digit(c)) {
      value.kind = PythonJson::Kind::number;
      value.text = read_number();
    } else if (take_word("true") || take_word("false")) {
      value.kind = PythonJson::Kind::boolean;
      value.boolean = c == 't';
    } else if (!take_word("null")) {
      wrong("has no value");
    }
    return value;
  }

  void read_object(PythonJson& value, int32_t depth) {
    ++at_;
    if (take('}')) return;
    do {
      skip_space();
      if (peek() != '"') wrong("has no key in quotes");
      std::string key = read_string();
      if (!take(':')) wrong("lacks a ':'");
      value.members.push_back({std::move(key), read(depth + 1)});
    } while (take(','));
    if (!take('}')) wrong("lacks a ',' or '}'");
    merge_duplicates(value.members);
  }

  void read_array(PythonJson& value, int32_t depth) {
    ++at_;
    if (take(']')) return;
    do value.items.push_back(read(depth + 1));
    while (take(','));
    if (!take(']')) wrong("lacks a ',' or ']'");
  }

  std::string read_number() {
    const size_t begin = at_;
    bool integer = true;
    const auto digits = [&] {
      if (!is_digit(peek())) wrong("lacks a digit");
      while (is_digit(peek())) ++at_;
    };
    if (peek() == '-') ++at_;
    if (peek() == '0') {
      ++at_;
    } else {
      digits();
    }
    if (peek() == '.') {
      integer = false;
      ++at_;
      digits();
    }
    if (peek() == 'e' || peek() == 'E') {
      integer = false;
      ++at_;
      if (peek() == '+' || peek() == '-') ++at_;
      digits();
    }
    const std::string_view number = text_.substr(begin, at_ - begin);
    if (!integer) return python_float(number);
    return number == "-0" ? "0" : std::string(number);
  }

  uint32_t read_hex4() {
    uint32_t value = 0;
    if (text_.size() - at_ < 4) wrong("lacks four hex digits");
    const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + at_ + 4, value, 16);
    if (error != std::errc() || end != text_.data() + at_ + 4) wrong("lacks four hex digits");
    at_ += 4;
    return value;
  }

  std::string read_string() {
    std::string out;
    ++at_;
    while (true) {
      const size_t begin = at_;
      while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\' &&
             static_cast<unsigned char>(text_[at_]) >= 0x20)
        ++at_;
      out += text_.substr(begin, at_ - begin);
      if (at_ == text_.size()) wrong("ends inside a string");
      if (text_[at_] == '"') break;
      if (text_[at_] != '\\') wrong("has a control character in a string: escape it");
      ++at_;
      read_escape(out);
    }
    ++at_;
    return out;
  }

  void read_escape(std::string& out) {
    constexpr std::string_view kNames = "\"\\/bfnrt", kValues = "\"\\/\b\f\n\r\t";
    const char name = peek();
    if (const size_t i = kNames.find(name); name != '\0' && i != std::string_view::npos) {
      ++at_;
      out += kValues[i];
      return;
    }
    if (name != 'u') wrong("has an unknown escape");
    ++at_;
    uint32_t c = read_hex4();
    if (c >= 0xD800 && c < 0xE000) {
      if (c >= 0xDC00 || !take_word("\\u")) wrong("has half of a surrogate pair");
      const uint32_t low = read_hex4();
      if (low < 0xDC00 || low >= 0xE000) wrong("has half of a surrogate pair");
      c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
    }
    append_utf8(out, c);
  }

  std::string_view text_, what_;
  PythonJsonLimits limits_;
  size_t at_ = 0;
  int64_t values_ = 0;
};

}  // namespace

const PythonJson* PythonJson::find(std::string_view key) const {
  for (const Member& member : members) {
    if (member.key == key) return &member.value;
  }
  return nullptr;
}

PythonJson parse_python_json(std::string_view text, std::string_view what, const PythonJsonLimits& limits) {
  return Reader(text, what, limits).document();
}

void escape_python_string(std::string_view text, std::string& out) {
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    out += text.substr(begin, i - begin);
    begin = i + 1;
    constexpr std::string_view kValues = "\"\\\b\f\n\r\t", kNames = "\"\\bfnrt";
    if (const size_t at = kValues.find(text[i]); at != std::string_view::npos) {
      out += '\\';
      out += kNames[at];
    } else {
      constexpr std::string_view kHex = "0123456789abcdef";
      out += "\\u00";
      out += kHex[c >> 4];
      out += kHex[c & 15];
    }
  }
  out += text.substr(begin);
}

void dump_python_string(std::string_view text, std::string& out) {
  out += '"';
  escape_python_string(text, out);
  out += '"';
}

void dump_python_json(const PythonJson& value, std::string& out) {
  switch (value.kind) {
    case PythonJson::Kind::null:
      out += "null";
      break;
    case PythonJson::Kind::boolean:
      out += value.boolean ? "true" : "false";
      break;
    case PythonJson::Kind::number:
      out += value.text;
      break;
    case PythonJson::Kind::string:
      dump_python_string(value.text, out);
      break;
    case PythonJson::Kind::array:
      out += '[';
      for (size_t i = 0; i < value.items.size(); ++i) {
        if (i > 0) out += ", ";
        dump_python_json(value.items[i], out);
      }
      out += ']';
      break;
    case PythonJson::Kind::object:
      out += '{';
      for (size_t i = 0; i < value.members.size(); ++i) {
        if (i > 0) out += ", ";
        dump_python_string(value.members[i].key, out);
        out += ": ";
        dump_python_json(value.members[i].value, out);
      }
      out += '}';
      break;
  }
}

}  // namespace dsv
