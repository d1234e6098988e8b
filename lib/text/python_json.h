// JSON as Python's json module reads and writes it, which is how the official encoding puts tools and
// arguments into the prompt: key order kept, of duplicate keys the last value in the first one's place,
// numbers in Python's spelling, non-ASCII text as it is.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dsv {

struct PythonJson {
  enum class Kind { null, boolean, number, string, array, object };
  struct Member;

  Kind kind = Kind::null;
  bool boolean = false;
  std::string text;               // a string's value (UTF-8), or a number as Python spells it
  std::vector<PythonJson> items;  // array
  std::vector<Member> members;    // object

  bool is_null() const { return kind == Kind::null; }
  bool is_string() const { return kind == Kind::string; }
  bool is_array() const { return kind == Kind::array; }
  bool is_object() const { return kind == Kind::object; }
  const PythonJson* find(std::string_view key) const;  // null if there is none, or this is no object
};
struct PythonJson::Member {
  std::string key;
  PythonJson value;
};

struct PythonJsonLimits {
  size_t bytes = size_t{64} << 20;
  int64_t values = int64_t{1} << 20;  // of any kind
  int32_t depth = 128;
};

// json.loads of valid UTF-8, but for NaN and Infinity, which are no JSON. Throws INVALID_ARGUMENT with `what`
// (a field's name) and the byte.
PythonJson parse_python_json(std::string_view text, std::string_view what,
                             const PythonJsonLimits& limits = {});

// json.dumps(value, ensure_ascii=False), appended.
void dump_python_json(const PythonJson& value, std::string& out);
// The same for a string: with quotes, and without.
void dump_python_string(std::string_view text, std::string& out);
void escape_python_string(std::string_view text, std::string& out);

}  // namespace dsv
