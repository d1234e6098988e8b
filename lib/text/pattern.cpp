#include "text/pattern.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/error.h"
#include "base/json.h"
#include "text/utf8.h"

namespace dsv {
namespace {

constexpr std::array<std::string_view, 36> kCategories = {
    "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",  "Nd",
    "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm",
    "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Co", "Cn"};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view where) : rest_(pattern), where_(where) {}

  std::string run() {
    while (!rest_.empty()) {
      const char c = rest_[0];
      if (c == '\\') {
        escape();
      } else if (c == '[') {
        character_class();
      } else if (c == '(') {
        group();
      } else if (c == '{' || c == '*' || c == '+' || c == '?') {
        quantifier();
      } else {
        take(1);  // a literal, or one of . ^ $ | )
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(size_t size) const {
    while (size < rest_.size() && (static_cast<unsigned char>(rest_[size]) & 0xC0) == 0x80) ++size;
    fail(DSV_ERROR_UNSUPPORTED,
         "{}: the pattern uses {}, which is not built; use the tokenizer.json released with the model",
         where_, shown(rest_.substr(0, size)));
  }

  void take(size_t size) {
    out_ += rest_.substr(0, size);
    rest_.remove_prefix(size);
  }

  // One escape, inside or outside a class. True if it stands for one character.
  bool escape() {
    if (rest_.size() < 2) refuse(1);
    const char c = rest_[1];
    if (c == 'p' || c == 'P') {
      const size_t close = rest_.find('}');
      if (rest_.substr(2, 1) != "{" || close == std::string_view::npos ||
          std::find(kCategories.begin(), kCategories.end(), rest_.substr(3, close - 3)) ==
              kCategories.end()) {
        refuse(close == std::string_view::npos ? 2 : close + 1);
      }
      take(close + 1);
      return false;
    }
    if (c == 's' || c == 'S' || c == 'd' || c == 'D') {
      take(2);
      return false;
    }
    if (c == 'u') {
      hex("\\u", 4, 4, "");
    } else if (c == 'x' && rest_.substr(2, 1) == "{") {
      hex("\\x{", 1, 8, "}");
    } else if (c == 'n' || c == 'r' || c == 't' || c == 'f' || std::ispunct(static_cast<unsigned char>(c)) ||
               c == ' ' || c == '\r' || c == '\n') {
      take(2);
    } else {
      refuse(2);
    }
    return true;
  }

  // PREFIX digits SUFFIX: a code point.
  void hex(std::string_view prefix, size_t min_digits, size_t max_digits, std::string_view suffix) {
    size_t end = prefix.size();
    while (end < rest_.size() && end < prefix.size() + max_digits &&
           std::isxdigit(static_cast<unsigned char>(rest_[end]))) {
      ++end;
    }
    if (end < prefix.size() + min_digits || rest_.substr(end, suffix.size()) != suffix) refuse(end);
    out_ += fmt::format("\\x{{{}}}", rest_.substr(prefix.size(), end - prefix.size()));
    rest_.remove_prefix(end + suffix.size());
  }

  void character_class() {
    take(1);
    if (rest_.substr(0, 1) == "^") take(1);
    if (rest_.empty() || rest_[0] == ']') refuse(1);  // empty in one language, a literal in the other
    bool may_begin_range = false;                     // a single character was read last
    for (bool first = true; rest_.substr(0, 1) != "]"; first = false) {
      if (rest_.empty() || rest_[0] == '[' || rest_.substr(0, 2) == "&&") refuse(2);
      if (rest_[0] == '-' && !first && rest_.substr(1, 1) != "]") {
        if (!may_begin_range || rest_.size() < 2 || rest_[1] == '-' || rest_[1] == '[') refuse(2);
        take(1);
        if (!class_member()) refuse(1);
        may_begin_range = false;
      } else {
        may_begin_range = class_member();
      }
    }
    take(1);
  }

  // True if it is one character.
  bool class_member() {
    if (rest_.empty()) refuse(0);
    if (rest_[0] == '\\') return escape();
    take(first_code_point(rest_).size);
    return true;
  }

  void group() {
    for (const std::string_view opening : {"(?:", "(?=", "(?!", "(?i:"}) {
      if (rest_.substr(0, opening.size()) == opening) return take(opening.size());
    }
    if (rest_.substr(1, 1) == "?" || rest_.substr(1, 1) == "*") refuse(4);
    take(1);
  }

  // * + ? {n} {n,} {n,m}; and after the first three, ? (as few as possible) or + (all or nothing).
  void quantifier() {
    if (rest_[0] != '{') {
      take(1);
      if (!rest_.empty() && (rest_[0] == '?' || rest_[0] == '+')) take(1);
      return;
    }
    size_t at = 1;
    const auto digits = [&] {
      const size_t begin = at;
      while (at < rest_.size() && is_digit(rest_[at])) ++at;
      return at - begin;
    };
    bool well_formed = digits() > 0;
    if (well_formed && rest_.substr(at, 1) == ",") {
      ++at;
      digits();
    }
    well_formed = well_formed && rest_.substr(at, 1) == "}";
    ++at;
    // What may follow the others means something else here.
    const std::string_view next = rest_.substr(std::min(at, rest_.size()), 1);
    if (!well_formed || next == "?" || next == "+") refuse(at + 1);
    take(at);
  }

  std::string_view rest_, where_;
  std::string out_;
};

}  // namespace

std::string pcre2_pattern(std::string_view pattern, std::string_view where) {
  return Translator(pattern, where).run();
}

std::string pcre2_literal(std::string_view literal) {
  std::string out;
  for (; !literal.empty(); literal.remove_prefix(first_code_point(literal).size)) {
    out += fmt::format("\\x{{{:x}}}", static_cast<uint32_t>(first_code_point(literal).value));
  }
  return out;
}

}  // namespace dsv
