#include "base/json.h"

#include <vector>

#include "base/error.h"

namespace dsv {
namespace {

using nlohmann::json;

// Builds the document as nlohmann's own reader does, and also counts, measures depth and refuses duplicates.
class Builder final : public nlohmann::json_sax<json> {
 public:
  Builder(std::string_view file, const JsonLimits& limits) : file_(file), limits_(limits) {}

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // JSON text has none
  bool start_object(std::size_t) override { return open(json::object()); }
  bool start_array(std::size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    auto [at, is_new] = stack_.back()->get_ref<json::object_t&>().try_emplace(name);
    if (!is_new) {
      fail(DSV_ERROR_INVALID_FILE, "{}: the key {} stands twice in one object; remove one", shown(file_),
           shown(name));
    }
    slot_ = &at->second;
    return true;
  }
  // The library's own sentence quotes the input at any length, so only the place is kept.
  bool parse_error(std::size_t position, const std::string&, const json::exception&) override {
    fail(DSV_ERROR_INVALID_FILE, "{} is not valid JSON (byte {})", shown(file_), position);
  }

  json take() { return std::move(root_); }

 private:
  template <class Value>
  bool put(Value&& value) {
    place(json(std::forward<Value>(value)));
    return true;
  }
  json* place(json value) {
    if (++nodes_ > limits_.nodes) {
      fail(DSV_ERROR_INVALID_FILE, "{} holds more than {} JSON values", shown(file_), limits_.nodes);
    }
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (stack_.back()->is_array()) {
      auto& items = stack_.back()->get_ref<json::array_t&>();
      items.push_back(std::move(value));
      return &items.back();
    }
    *slot_ = std::move(value);
    return slot_;
  }
  bool open(json container) {
    if (static_cast<int64_t>(stack_.size()) >= limits_.depth) {
      fail(DSV_ERROR_INVALID_FILE, "{}: JSON nested deeper than {} levels", shown(file_), limits_.depth);
    }
    stack_.push_back(place(std::move(container)));
    return true;
  }
  bool close() {
    stack_.pop_back();
    return true;
  }

  std::string_view file_;
  JsonLimits limits_;
  json root_;
  std::vector<json*>
      stack_;             // open containers, outermost first; a parent does not change while a child is open
  json* slot_ = nullptr;  // value of the key read last
  int64_t nodes_ = 0;
};

}  // namespace

std::string shown(std::string_view text) {
  // Both ends say most: of a path the file, of a tensor's name the layer and the matrix.
  constexpr size_t kEnd = 150;
  const auto is_inside = [&](size_t at) { return (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80; };
  size_t head = text.size(), tail = text.size();
  if (text.size() > 2 * kEnd + 3) {
    head = kEnd;
    tail = text.size() - kEnd;
    while (head > 0 && is_inside(head)) --head;  // whole code points
    while (tail < text.size() && is_inside(tail)) ++tail;
  }
  std::string out =
      fmt::format("'{}{}{}'", text.substr(0, head), head < tail ? "..." : "", text.substr(tail));
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  }
  return out;
}

json parse_json_file(std::string_view text, std::string_view file, const JsonLimits& limits) {
  if (static_cast<int64_t>(text.size()) > limits.bytes) {
    fail(DSV_ERROR_INVALID_FILE, "{} has {} bytes, more than the {} that are read; is it the right file?",
         shown(file), text.size(), limits.bytes);
  }
  Builder builder(file, limits);
  json::sax_parse(text, &builder);
  return builder.take();
}

}  // namespace dsv
