#include "base/json.h"

#include <vector>

#include "base/error.h"

namespace dsv {

using nlohmann::json;

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

void JsonDocument::take_apart(json& value) {
  if (value.is_structured()) {
    for (json& child : value) take_apart(child);
    value.clear();
  }
}

JsonDocument JsonReader::read(std::string_view text) {
  if (static_cast<int64_t>(text.size()) > limits_.bytes) {
    fail(DSV_ERROR_INVALID_FILE, "{} has {} bytes, more than the {} that are read; is it the right file?",
         shown(file_), text.size(), limits_.bytes);
  }
  nlohmann::json_sax<json>* events = this;
  json::sax_parse(text, events);
  return std::move(document_);
}

bool JsonReader::key(string_t& name) {
  auto [at, is_new] = stack_.back()->get_ref<json::object_t&>().try_emplace(name);
  if (!is_new) {
    fail(DSV_ERROR_INVALID_FILE, "{}: the key {} stands twice in one object; remove one", shown(file_),
         shown(name));
  }
  slot_ = &at->second;
  return true;
}

bool JsonReader::parse_error(std::size_t position, const std::string&, const json::exception&) {
  // The library's own sentence quotes the input at any length, so only the place is kept.
  fail(DSV_ERROR_INVALID_FILE, "{} is not valid JSON (byte {}); correct it or download it again",
       shown(file_), position);
}

json* JsonReader::place(json value) {
  if (++nodes_ > limits_.nodes) {
    fail(DSV_ERROR_INVALID_FILE, "{} holds more than {} JSON values; is it the right file?", shown(file_),
         limits_.nodes);
  }
  if (stack_.empty()) {
    document_.root = std::move(value);
    return &document_.root;
  }
  if (stack_.back()->is_array()) {
    auto& items = stack_.back()->get_ref<json::array_t&>();
    items.push_back(std::move(value));
    return &items.back();
  }
  *slot_ = std::move(value);
  return slot_;
}

bool JsonReader::open(json container) {
  if (static_cast<int64_t>(stack_.size()) >= limits_.depth) {
    fail(DSV_ERROR_INVALID_FILE, "{}: JSON nested deeper than {} levels; is it the right file?", shown(file_),
         limits_.depth);
  }
  stack_.push_back(place(std::move(container)));
  return true;
}

JsonDocument parse_json_file(std::string_view text, std::string_view file, const JsonLimits& limits) {
  return JsonReader(file, limits).read(text);
}

}  // namespace dsv
