// Reading JSON files that may be hostile: bounded size, depth and node count, no duplicate keys, errors as
// dsv::Error.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dsv {

// `text` for use in a sentence: in quotes, its middle left out if it is long, control
// characters replaced.
std::string shown(std::string_view text);

struct JsonLimits {
  int64_t bytes = int64_t{1} << 20;
  int64_t nodes = int64_t{1} << 18;  // values of any kind
  int32_t depth = 32;
};

// A parsed document. nlohmann's destructor asks for memory, and ends the process when there is none; so this
// one takes the document apart before.
class JsonDocument {
 public:
  JsonDocument() = default;
  JsonDocument(JsonDocument&& other) noexcept = default;
  JsonDocument& operator=(JsonDocument&& other) = delete;
  ~JsonDocument() { take_apart(root); }

  nlohmann::json root;

 private:
  static void take_apart(nlohmann::json& value);  // recurses as deep as the document is
};

// Builds the document as nlohmann's own reader does, and also counts, measures depth and refuses duplicates.
// A derived class may take values for itself, out of files too large for a document.
class JsonReader : protected nlohmann::json_sax<nlohmann::json> {
 public:
  JsonReader(std::string_view file, const JsonLimits& limits) : file_(file), limits_(limits) {}
  JsonDocument read(std::string_view text);  // once; throws as parse_json_file

 protected:
  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // JSON text has none
  bool start_object(std::size_t) override { return open(nlohmann::json::object()); }
  bool start_array(std::size_t) override { return open(nlohmann::json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override;
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) override;

  size_t depth() const { return stack_.size(); }  // containers open

  std::string_view file_;
  JsonLimits limits_;

 private:
  template <class Value>
  bool put(Value&& value) {
    place(nlohmann::json(std::forward<Value>(value)));
    return true;
  }
  nlohmann::json* place(nlohmann::json value);
  bool open(nlohmann::json container);
  bool close() {
    stack_.pop_back();
    return true;
  }

  JsonDocument document_;
  // Open containers, outermost first; a parent does not change while a child is open.
  std::vector<nlohmann::json*> stack_;
  nlohmann::json* slot_ = nullptr;  // value of the key read last
  int64_t nodes_ = 0;
};

// Throws INVALID_FILE naming `file` and the byte where reading stopped. Strings are valid UTF-8.
JsonDocument parse_json_file(std::string_view text, std::string_view file, const JsonLimits& limits);

}  // namespace dsv
