#include "text/tokenizer_file.h"

#include <cstddef>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "text/pattern.h"
#include "text/vocabulary.h"

namespace dsv {
namespace {

using nlohmann::json;

// The largest files in use have 20 MB, 300,000 tokens and as many merges.
constexpr JsonLimits kLimits{.bytes = int64_t{64} << 20, .nodes = int64_t{1} << 20, .depth = 16};
constexpr size_t kMaxTokens = size_t{1} << 22, kMaxAddedBytes = 1024, kMaxSteps = 32;
constexpr std::string_view kRemedy = "use the tokenizer.json released with the model";

// What ByteLevel splits by when use_regex is set: GPT-2's pattern.
constexpr std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Puts the vocabulary and the merges, all but a few kilobytes of the file, straight into flat arrays.
class Reader final : public JsonReader {
 public:
  Reader(const std::string& path, TokenizerFile& out) : JsonReader(path, kLimits), out_(out) {}

 private:
  enum class Place { elsewhere, vocab, merges, pair };

  bool key(string_t& name) override {
    if (place_ == Place::vocab) {
      if (out_.vocab.size() == kMaxTokens) {
        fail(DSV_ERROR_INVALID_FILE, "{}: model.vocab has more than {} tokens; {}", shown(file_), kMaxTokens,
             kRemedy);
      }
      if (name.empty()) {
        fail(DSV_ERROR_INVALID_FILE, "{}: model.vocab has a token without a character; {}", shown(file_),
             kRemedy);
      }
      out_.vocab.push_back({append(name), static_cast<uint32_t>(name.size()), -1});
      return true;
    }
    if (depth() == 1) in_model_ = name == "model";
    key_ = name;
    return JsonReader::key(name);
  }

  bool start_object(std::size_t size) override {
    if (place_ != Place::elsewhere) wrong();
    if (at_model_field("vocab")) place_ = Place::vocab;
    return JsonReader::start_object(size);  // the document keeps an empty one
  }
  bool end_object() override {
    place_ = Place::elsewhere;
    return JsonReader::end_object();
  }

  bool start_array(std::size_t size) override {
    if (place_ == Place::merges) {
      place_ = Place::pair;
      pair_items_ = 0;
      return true;
    }
    if (place_ != Place::elsewhere) wrong();
    if (at_model_field("merges")) place_ = Place::merges;
    return JsonReader::start_array(size);
  }
  bool end_array() override {
    if (place_ == Place::pair) {
      if (pair_items_ != 2) wrong();
      place_ = Place::merges;
      return true;
    }
    place_ = Place::elsewhere;
    return JsonReader::end_array();
  }

  bool string(string_t& value) override {
    switch (place_) {
      case Place::elsewhere:
        return JsonReader::string(value);
      case Place::vocab:
        wrong();
      case Place::pair:
        if (++pair_items_ == 1) {
          left_ = value;
        } else {
          if (pair_items_ > 2) wrong();
          add_merge(left_, value);
        }
        return true;
      case Place::merges:
        break;
    }
    if (value.starts_with("#version")) return true;
    const size_t space = value.find(' ');
    if (space == std::string::npos || value.find(' ', space + 1) != std::string::npos) wrong();
    const std::string_view both = value;
    add_merge(both.substr(0, space), both.substr(space + 1));
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::elsewhere) return JsonReader::number_unsigned(value);
    if (place_ != Place::vocab) wrong();
    if (value > static_cast<number_unsigned_t>(Vocabulary::kMaxId)) {
      fail(DSV_ERROR_INVALID_FILE, "{}: model.vocab gives a token the id {}; ids go up to {}; {}",
           shown(file_), value, Vocabulary::kMaxId, kRemedy);
    }
    out_.vocab.back().id = static_cast<int32_t>(value);
    return true;
  }
  bool number_integer(number_integer_t value) override {
    return place_ == Place::elsewhere ? JsonReader::number_integer(value) : wrong();
  }
  bool number_float(number_float_t value, const string_t& text) override {
    return place_ == Place::elsewhere ? JsonReader::number_float(value, text) : wrong();
  }
  bool boolean(bool value) override {
    return place_ == Place::elsewhere ? JsonReader::boolean(value) : wrong();
  }
  bool null() override { return place_ == Place::elsewhere ? JsonReader::null() : wrong(); }

  bool at_model_field(std::string_view name) const { return in_model_ && depth() == 2 && key_ == name; }

  [[noreturn]] bool wrong() const {
    if (place_ == Place::vocab) {
      fail(DSV_ERROR_INVALID_FILE, "{}: model.vocab gives the token {} something else than an id; {}",
           shown(file_),
           shown(std::string_view(out_.names).substr(out_.vocab.empty() ? 0 : out_.vocab.back().offset)),
           kRemedy);
    }
    fail(DSV_ERROR_INVALID_FILE,
         "{}: model.merges[{}] is neither \"left right\" nor [\"left\", \"right\"]; {}", shown(file_),
         out_.merges.size(), kRemedy);
  }

  uint32_t append(std::string_view name) {
    const auto offset = static_cast<uint32_t>(out_.names.size());  // fits: no longer than the file
    out_.names += name;
    return offset;
  }
  void add_merge(std::string_view left, std::string_view right) {
    if (out_.merges.size() == kMaxTokens) {
      fail(DSV_ERROR_INVALID_FILE, "{}: model.merges has more than {} merges; {}", shown(file_), kMaxTokens,
           kRemedy);
    }
    const uint32_t offset = append(left);
    append(right);
    out_.merges.push_back({offset, static_cast<uint32_t>(left.size()), static_cast<uint32_t>(right.size())});
  }

  TokenizerFile& out_;
  Place place_ = Place::elsewhere;
  bool in_model_ = false;  // below the key "model" of the root
  std::string key_;        // the last one read outside the vocabulary
  std::string left_;
  int pair_items_ = 0;
};

// The rest of the file.
class Checker {
 public:
  Checker(const json& root, const std::string& path, TokenizerFile& out)
      : root_(root), path_(path), out_(out) {}

  void run() {
    if (!root_.is_object()) {
      fail(DSV_ERROR_INVALID_FILE, "{} is not a tokenizer.json: its root is no object; {}", shown(path_),
           kRemedy);
    }
    model();
    normalizer(field(root_, "normalizer"), "normalizer");
    split(field(root_, "pre_tokenizer"), "pre_tokenizer");
    if (!byte_level_) unsupported("pre_tokenizer", "without a ByteLevel step");
    decoder();
    added_tokens();
  }

 private:
  [[noreturn]] void invalid(std::string_view at, std::string_view what) const {
    fail(DSV_ERROR_INVALID_FILE, "{}: {} {}; {}", shown(path_), at, what, kRemedy);
  }
  [[noreturn]] void unsupported(std::string_view at, std::string_view what) const {
    fail(DSV_ERROR_UNSUPPORTED, "{}: {} {} is not built; {}", shown(path_), at, what, kRemedy);
  }

  // Null if it is not there.
  const json& field(const json& object, const char* name) const {
    const auto at = object.find(name);
    return at == object.end() ? null_ : *at;
  }

  bool flag(const json& object, const char* name, std::string_view at) const {
    const json& value = field(object, name);
    if (value.is_null()) return false;
    if (!value.is_boolean()) invalid(fmt::format("{}.{}", at, name), "is neither true nor false");
    return value.get<bool>();
  }
  // The text of a field that must be a string.
  const std::string& text(const json& object, const char* name, std::string_view at) const {
    const json& value = field(object, name);
    if (!value.is_string()) invalid(fmt::format("{}.{}", at, name), "is no string");
    return value.get_ref<const std::string&>();
  }
  const json::array_t& items(const json& object, const char* name, std::string_view at) const {
    const json& value = field(object, name);
    if (!value.is_array()) invalid(fmt::format("{}.{}", at, name), "is no array");
    return value.get_ref<const json::array_t&>();
  }
  const std::string& type(const json& object, std::string_view at) const {
    if (!object.is_object()) invalid(at, "is no object");
    return text(object, "type", at);
  }

  void model() {
    const json& model = field(root_, "model");
    if (!model.is_object()) invalid("model", "is no object");
    if (model.contains("type") && text(model, "type", "model") != "BPE") {
      unsupported("model.type", shown(text(model, "type", "model")));
    }
    if (out_.vocab.empty()) invalid("model.vocab", "is missing, empty or no object");
    if (!field(model, "merges").is_array()) invalid("model.merges", "is missing or no array");
    if (const json& dropout = field(model, "dropout"); !dropout.is_null() && dropout != 0) {
      unsupported("model.dropout", dropout.dump());
    }
    for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (const json& value = field(model, name); !value.is_null() && value != "") {
        unsupported(fmt::format("model.{}", name), "other than null");
      }
    }
    flag(model, "fuse_unk", "model");
    out_.drops_nothing = !field(model, "unk_token").is_null() || flag(model, "byte_fallback", "model");
    out_.ignore_merges = flag(model, "ignore_merges", "model");
  }

  void normalizer(const json& value, const std::string& at) const {
    if (value.is_null()) return;
    if (type(value, at) != "Sequence") unsupported(at + ".type", shown(type(value, at)));
    const json::array_t& steps = items(value, "normalizers", at);
    for (size_t i = 0; i < steps.size(); ++i) normalizer(steps[i], fmt::format("{}.normalizers[{}]", at, i));
  }

  void split(const json& value, const std::string& at) {
    if (value.is_null()) return;
    const std::string& kind = type(value, at);
    if (byte_level_) unsupported(at, "behind ByteLevel");
    if (kind == "Sequence") {
      const json::array_t& steps = items(value, "pretokenizers", at);
      for (size_t i = 0; i < steps.size(); ++i) split(steps[i], fmt::format("{}.pretokenizers[{}]", at, i));
    } else if (kind == "Split") {
      if (text(value, "behavior", at) != "Isolated") {
        unsupported(at + ".behavior", shown(text(value, "behavior", at)));
      }
      flag(value, "invert", at);  // the same pieces either way
      const json& pattern = field(value, "pattern");
      if (!pattern.is_object()) invalid(at + ".pattern", "is no object");
      if (pattern.contains("String")) {
        const std::string where = at + ".pattern.String";
        add_pattern(pcre2_literal(text(pattern, "String", at + ".pattern")), where);
      } else {
        const std::string where = at + ".pattern.Regex";
        add_pattern(pcre2_pattern(text(pattern, "Regex", at + ".pattern"),
                                  fmt::format("{}: {}", shown(path_), where)),
                    where);
      }
    } else if (kind == "Digits") {
      add_pattern(flag(value, "individual_digits", at) ? "\\p{N}" : "\\p{N}+", at);
    } else if (kind == "ByteLevel") {
      // Left out, add_prefix_space and use_regex are true.
      if (!value.contains("add_prefix_space") || flag(value, "add_prefix_space", at)) {
        unsupported(at + ".add_prefix_space", "true");
      }
      if (!value.contains("use_regex") || flag(value, "use_regex", at)) {
        add_pattern(std::string(kByteLevelPattern), at);
      }
      byte_level_ = true;
    } else {
      unsupported(at + ".type", shown(kind));
    }
  }

  void add_pattern(std::string pattern, const std::string& at) {
    if (out_.patterns.size() == kMaxSteps) {
      fail(DSV_ERROR_UNSUPPORTED, "{}: pre_tokenizer splits by more than {} patterns; {}", shown(path_),
           kMaxSteps, kRemedy);
    }
    out_.patterns.push_back({std::move(pattern), fmt::format("{}: {}", shown(path_), at)});
  }

  void decoder() const {
    const json& decoder = field(root_, "decoder");
    if (!decoder.is_null() && type(decoder, "decoder") != "ByteLevel") {
      unsupported("decoder.type", shown(type(decoder, "decoder")));
    }
  }

  void added_tokens() {
    const json& added = field(root_, "added_tokens");
    if (added.is_null()) return;
    if (!added.is_array()) invalid("added_tokens", "is no array");
    for (size_t i = 0; i < added.size(); ++i) {
      const std::string at = fmt::format("added_tokens[{}]", i);
      const json& token = added[i];
      if (!token.is_object()) invalid(at, "is no object");
      const std::string& content = text(token, "content", at);
      if (content.empty() || content.size() > kMaxAddedBytes) {
        invalid(at + ".content",
                fmt::format("has {} bytes; 1 to {} are read", content.size(), kMaxAddedBytes));
      }
      const json& id = field(token, "id");
      if (!id.is_number_unsigned() || id.get<uint64_t>() > static_cast<uint64_t>(Vocabulary::kMaxId)) {
        invalid(at + ".id", fmt::format("is no number from 0 to {}", Vocabulary::kMaxId));
      }
      for (const char* name : {"single_word", "lstrip", "rstrip"}) {
        if (flag(token, name, at)) unsupported(fmt::format("{}.{}", at, name), "true");
      }
      out_.added.push_back(
          {content, id.get<int32_t>(), flag(token, "special", at), flag(token, "normalized", at)});
    }
  }

  const json& root_;
  const std::string& path_;
  const json null_;
  TokenizerFile& out_;
  bool byte_level_ = false;
};

}  // namespace

TokenizerFile read_tokenizer_file(std::string_view json, const std::string& path) {
  TokenizerFile file;
  const JsonDocument document = Reader(path, file).read(json);
  Checker(document.root, path, file).run();
  return file;
}

}  // namespace dsv
