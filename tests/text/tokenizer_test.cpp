// tokenizer.json: what is refused, with which sentence, and what the fields that the released file does not
// use do. That its ids are those of Hugging Face `tokenizers` is in reference_test.cpp.
#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"
#include "text/utf8.h"

namespace dsv {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

// Each byte as tokenizer.json writes it.
std::string written(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    char32_t next = 0x100, character = byte;
    for (int b = 0; b <= byte; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b != 0xAD);
      character = printable ? static_cast<char32_t>(b) : next++;
    }
    append_utf8(out, character);
  }
  return out;
}

// Every byte is the token of its value; 256 on: "he", "ll", "hell", " w".
json small() {
  json file = json::parse(R"({
    "normalizer": null,
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}"}, "behavior": "Isolated", "invert": false},
      {"type": "Split", "pattern": {"Regex": " ?\\p{L}+|\\s+"}, "behavior": "Isolated", "invert": false},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]},
    "decoder": {"type": "ByteLevel"},
    "added_tokens": [
      {"id": 300, "content": "<a>", "special": true, "normalized": false},
      {"id": 301, "content": "<a><b>", "special": false, "normalized": false},
      {"id": 302, "content": "<late>", "special": false, "normalized": true}],
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false, "byte_fallback": false,
              "ignore_merges": false, "merges": ["h e", "l l", "he ll"]}})");
  json& vocab = file["model"]["vocab"];
  for (int b = 0; b < 256; ++b) vocab[written(std::string(1, static_cast<char>(b)))] = b;
  vocab["he"] = 256, vocab["ll"] = 257, vocab["hell"] = 258, vocab[written(" w")] = 259;
  file["model"]["merges"].push_back(written(" ") + " w");
  return file;
}

std::shared_ptr<const Tokenizer> parse(const std::string& text) {
  return Tokenizer::parse(text, "some/tokenizer.json");
}

// Refused with `status` and a sentence that names the file, `field` and a remedy.
void expect_refused(const std::string& text, dsv_status status, const std::string& field) {
  try {
    parse(text);
    ADD_FAILURE() << "is not refused: " << field;
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), status) << error.what();
    EXPECT_THAT(error.what(), HasSubstr("some/tokenizer.json"));
    EXPECT_THAT(error.what(), HasSubstr(field));
    EXPECT_TRUE(is_utf8(error.what()));
    EXPECT_LT(std::string(error.what()).size(), 1000u);
  }
}

void expect_refused_with(const std::string& pointer, const json& value, dsv_status status,
                         const std::string& field) {
  SCOPED_TRACE(pointer + " = " + value.dump().substr(0, 200));
  json file = small();
  file[json::json_pointer(pointer)] = value;
  expect_refused(file.dump(), status, field);
}

void expect_refused_without(const std::string& parent, const std::string& key, const std::string& field) {
  SCOPED_TRACE(parent + "/" + key);
  json file = small();
  ASSERT_EQ(file[json::json_pointer(parent)].erase(key), 1u);
  expect_refused(file.dump(), DSV_ERROR_INVALID_FILE, field);
}

TEST(Tokenizer, FollowsTheFile) {
  const auto tokenizer = parse(small().dump());
  EXPECT_EQ(tokenizer->size(), 303);
  EXPECT_THAT(tokenizer->encode(""), ElementsAre());
  EXPECT_THAT(tokenizer->encode("hello w"), ElementsAre(258, 'o', 259));
  EXPECT_THAT(tokenizer->encode("1234 w"), ElementsAre('1', '2', '3', '4', 259));
  EXPECT_THAT(tokenizer->encode(std::string("\0h", 2)), ElementsAre(0, 'h'));
  // The longest added token counts, next to text or to another one; cut short it is text.
  EXPECT_THAT(tokenizer->encode("he<a><a><b>he<a"), ElementsAre(256, 300, 301, 256, '<', 'a'));
  EXPECT_THAT(tokenizer->encode("<late><a>"), ElementsAre(302, 300));
  EXPECT_EQ(tokenizer->find("<a>"), 300);
  EXPECT_EQ(tokenizer->find("<late>"), 302);
  EXPECT_EQ(tokenizer->find("he"), -1);
  EXPECT_EQ(tokenizer->find(""), -1);
  EXPECT_TRUE(tokenizer->special(300));
  EXPECT_FALSE(tokenizer->special(301));
  EXPECT_EQ(tokenizer->bytes(259), " w");
  for (const int32_t id : {-1, INT32_MIN, 260, 299, 303, INT32_MAX}) {
    EXPECT_FALSE(tokenizer->has(id) || tokenizer->special(id)) << id;
    EXPECT_EQ(tokenizer->bytes(id), "");
  }
}

TEST(Tokenizer, IgnoreMergesTakesAPieceThatIsAToken) {
  json file = small();
  file["model"]["vocab"]["hello"] = 260;  // no merges lead there
  EXPECT_THAT(parse(file.dump())->encode("hello"), ElementsAre(258, 'o'));
  file["model"]["ignore_merges"] = true;
  EXPECT_THAT(parse(file.dump())->encode("hello"), ElementsAre(260));
}

TEST(Tokenizer, MergesMayBePairs) {
  json file = small();
  file["model"]["merges"] = json::parse(R"([["h", "e"], ["l", "l"], ["he", "ll"]])");
  EXPECT_THAT(parse(file.dump())->encode("hell"), ElementsAre(258));
}

TEST(Tokenizer, SplitsByDigitsAndByLiterals) {
  json file = small();
  file["pre_tokenizer"]["pretokenizers"][0] = {{"type", "Digits"}, {"individual_digits", true}};
  file["pre_tokenizer"]["pretokenizers"][1] = {
      {"type", "Split"}, {"pattern", {{"String", "e"}}}, {"behavior", "Isolated"}, {"invert", false}};
  EXPECT_THAT(parse(file.dump())->encode("hell"), ElementsAre('h', 'e', 257));
}

TEST(Tokenizer, RefusesWhatIsNoJson) {
  const json file = small();
  const std::string good = file.dump();
  const std::string deep(100000, '['), deep_objects = [] {
    std::string out;
    for (int i = 0; i < 100000; ++i) out += "{\"a\":";
    return out;
  }();
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("\0", 1), good.substr(0, good.size() / 2), good + "x",
        std::string("{\"a\": \"\xFF\"}"), std::string("{\"a\": \"\\ud800\"}"), std::string("{\"a\": 1e999}"),
        deep, deep_objects, "{\"model\": {\"vocab\": " + deep, "{\"model\": {\"merges\": " + deep,
        std::string("{\"model\": {}, \"model\": {}}")}) {
    SCOPED_TRACE(text.substr(0, 100));
    expect_refused(text, DSV_ERROR_INVALID_FILE, "");
  }
  for (const char* text : {"[]", "null", "1", "\"model\""}) {
    expect_refused(text, DSV_ERROR_INVALID_FILE, "its root is no object");
  }
  expect_refused(std::string((size_t{64} << 20) + 1, ' '), DSV_ERROR_INVALID_FILE, "bytes");
}

TEST(Tokenizer, RefusesFieldsOfTheWrongKind) {
  constexpr auto kInvalid = DSV_ERROR_INVALID_FILE;
  const json wrong[] = {nullptr, true, -1, 1.5, "x", json::array(), json::object()};
  for (const json& value : wrong) {
    if (!value.is_object()) expect_refused_with("/model", value, kInvalid, "model");
    expect_refused_with("/model/vocab", value, kInvalid, "model.vocab");
    if (!value.is_array()) expect_refused_with("/model/merges", value, kInvalid, "model.merges");
    expect_refused_with("/model/vocab/he", value, kInvalid, "model.vocab");
    expect_refused_with("/model/merges/1", value, kInvalid, "model.merges");
    if (!value.is_null() && !value.is_array()) {
      expect_refused_with("/added_tokens", value, kInvalid, "added_tokens");
    }
    if (!value.is_string()) {
      expect_refused_with("/added_tokens/0/content", value, kInvalid, "added_tokens[0].content");
    }
    expect_refused_with("/added_tokens/1/id", value, kInvalid, "added_tokens[1].id");
    if (!value.is_object()) expect_refused_with("/added_tokens/1", value, kInvalid, "added_tokens[1]");
    if (!value.is_boolean() && !value.is_null()) {
      expect_refused_with("/added_tokens/0/special", value, kInvalid, "added_tokens[0].special");
      expect_refused_with("/model/ignore_merges", value, kInvalid, "model.ignore_merges");
    }
    if (!value.is_object() && !value.is_null()) {
      expect_refused_with("/pre_tokenizer", value, kInvalid, "pre_tokenizer");
      expect_refused_with("/decoder", value, kInvalid, "decoder");
      expect_refused_with("/normalizer", value, kInvalid, "normalizer");
    }
    if (!value.is_array()) {
      expect_refused_with("/pre_tokenizer/pretokenizers", value, kInvalid, "pre_tokenizer.pretokenizers");
    }
    if (!value.is_string()) {
      expect_refused_with("/pre_tokenizer/pretokenizers/0/pattern/Regex", value, kInvalid,
                          "pre_tokenizer.pretokenizers[0].pattern.Regex");
    }
  }
  expect_refused_without("", "model", "model");
  expect_refused_without("/model", "vocab", "model.vocab");
  expect_refused_without("/model", "merges", "model.merges");
  expect_refused_without("/added_tokens/0", "id", "added_tokens[0].id");
  expect_refused_without("/added_tokens/0", "content", "added_tokens[0].content");
  expect_refused_without("/pre_tokenizer/pretokenizers/0", "pattern", "pretokenizers[0].pattern");
  expect_refused_without("/pre_tokenizer/pretokenizers/0", "type", "pretokenizers[0].type");
}

TEST(Tokenizer, RefusesContradictions) {
  constexpr auto kInvalid = DSV_ERROR_INVALID_FILE;
  for (const json& id : {json(-1), json(1 << 22), json(INT64_MAX), json(UINT64_MAX)}) {
    expect_refused_with("/model/vocab/he", id, kInvalid, "model.vocab");
    expect_refused_with("/added_tokens/0/id", id, kInvalid, "added_tokens[0].id");
  }
  expect_refused_with("/model/vocab/he", 257, kInvalid, "model.vocab gives the id 257");
  expect_refused_with("/model/vocab/", 260, kInvalid, "model.vocab has a token without a character");
  expect_refused_with("/added_tokens/0/id", 256, kInvalid, "added_tokens gives '<a>' the id 256");
  expect_refused_with("/added_tokens/0/id", 301, kInvalid, "added_tokens gives '<a><b>' the id 301");
  expect_refused_with("/added_tokens/0/content", "<late>", kInvalid,
                      "added_tokens gives '<late>' the id 302");
  expect_refused_with("/added_tokens/0/content", "he", kInvalid, "added_tokens gives 'he' the id 300");
  expect_refused_with("/added_tokens/0/content", "", kInvalid, "added_tokens[0].content");
  expect_refused_with("/added_tokens/0/content", std::string(1025, 'x'), kInvalid, "added_tokens[0].content");
  // Merges of what is no token, into what is none, of one part or three, of characters that are no bytes.
  for (const char* merge : {"h x", "xy z", "hello w", "h", "", " ", "h e l", "中 e"}) {
    expect_refused_with("/model/merges/1", merge, kInvalid, "model.merges");
  }
  expect_refused_with("/model/merges/1", {"h"}, kInvalid, "model.merges");
  expect_refused_with("/model/merges/1", {"h", "e", "l"}, kInvalid, "model.merges");
  expect_refused_with("/model/merges/1", {"h", 1}, kInvalid, "model.merges");
  std::string twice = small().dump();
  twice.replace(twice.find("\"he\":256"), 8, "\"he\":256,\"he\":260");
  expect_refused(twice, kInvalid, "model.vocab has the token 'he' twice");
  std::string half = small().dump();  // a byte that is no code point
  half.replace(half.find("\"he\":256"), 8, "\"he\":256,\"Ã\":260");
  expect_refused(half, kInvalid, "model.vocab has the token '\uFFFD' twice");
  // The same of a name that is not written byte by byte.
  twice.replace(twice.find("\"he\":256,\"he\":260"), 17, "\"he\":256,\"中\":260,\"中\":261");
  expect_refused(twice, kInvalid, "model.vocab has the token '中' twice");
}

TEST(Tokenizer, RefusesByNameWhatIsNotBuilt) {
  constexpr auto kUnsupported = DSV_ERROR_UNSUPPORTED;
  for (const char* type : {"WordPiece", "Unigram", "WordLevel", ""}) {
    expect_refused_with("/model/type", type, kUnsupported, "model.type '" + std::string(type) + "'");
  }
  for (const char* type : {"Metaspace", "Whitespace", "WhitespaceSplit", "BertPreTokenizer", "Punctuation",
                           "CharDelimiterSplit", "UnicodeScripts", "NoSuchThing"}) {
    expect_refused_with("/pre_tokenizer/pretokenizers/1", {{"type", type}}, kUnsupported,
                        "pre_tokenizer.pretokenizers[1].type '" + std::string(type) + "'");
  }
  for (const char* type : {"NFC", "Lowercase", "Prepend", "Replace"}) {
    expect_refused_with("/normalizer", {{"type", type}}, kUnsupported,
                        "normalizer.type '" + std::string(type) + "'");
    const json sequence{{"type", "Sequence"}, {"normalizers", {{{"type", type}}}}};
    expect_refused_with("/normalizer", sequence, kUnsupported, "normalizer.normalizers[0].type");
  }
  for (const char* type : {"Metaspace", "WordPiece", "Sequence"}) {
    expect_refused_with("/decoder/type", type, kUnsupported, "decoder.type '" + std::string(type) + "'");
  }
  for (const char* behavior : {"Removed", "MergedWithPrevious", "Contiguous"}) {
    expect_refused_with("/pre_tokenizer/pretokenizers/0/behavior", behavior, kUnsupported,
                        "pre_tokenizer.pretokenizers[0].behavior '" + std::string(behavior) + "'");
  }
  expect_refused_with("/pre_tokenizer", nullptr, kUnsupported, "without a ByteLevel step");
  expect_refused_with("/pre_tokenizer/pretokenizers/2/add_prefix_space", true, kUnsupported,
                      "add_prefix_space");
  expect_refused_with("/pre_tokenizer/pretokenizers/0", {{"type", "ByteLevel"}, {"add_prefix_space", false}},
                      kUnsupported, "pretokenizers[1] behind ByteLevel");
  expect_refused_with("/model/dropout", 0.1, kUnsupported, "model.dropout 0.1");
  expect_refused_with("/model/continuing_subword_prefix", "##", kUnsupported,
                      "model.continuing_subword_prefix");
  expect_refused_with("/model/end_of_word_suffix", "</w>", kUnsupported, "model.end_of_word_suffix");
  for (const char* flag : {"single_word", "lstrip", "rstrip"}) {
    expect_refused_with(std::string("/added_tokens/0/") + flag, true, kUnsupported,
                        std::string("added_tokens[0].") + flag);
  }
  json file = small();
  file["model"]["unk_token"] = "<a>";
  EXPECT_NO_THROW(parse(file.dump()));  // it has every byte
  file["model"]["vocab"].erase("!");
  expect_refused(file.dump(), kUnsupported, "model.unk_token or byte_fallback");
}

TEST(Tokenizer, RefusesPatternsItCannotRun) {
  const std::string pattern = "/pre_tokenizer/pretokenizers/0/pattern/Regex";
  const std::string where = "pre_tokenizer.pretokenizers[0].pattern.Regex";
  // Not the same in the reference's language and PCRE2's, or in neither.
  for (const char* regex :
       {"\\w+",   "\\h",    "\\é",     "[a-\\中]", "(?中",    "\\R",   "\\X",         "\\G",
        "\\bx",   "\\A",    "(?<n>a)", "(?>a)",    "(?<=a)b", "\\1",   "(?i)a",       "[[:alpha:]]",
        "[a&&b]", "[a[b]]", "[]",      "\\p{Han}", "\\pL",    "a{,3}", "a{2}+",       "\\",
        "\\p{",   "[a",     "(a",      "a)",       "a**",     "*",     "\\x{110000}", "\\u12"}) {
    expect_refused_with(pattern, regex, DSV_ERROR_UNSUPPORTED, where);
  }
  expect_refused_with(pattern, std::string(100000, 'a'), DSV_ERROR_UNSUPPORTED, where);
  expect_refused_with(pattern, std::string(1000, '(') + std::string(1000, ')'), DSV_ERROR_UNSUPPORTED, where);
  json file = small();
  auto& steps = file["pre_tokenizer"]["pretokenizers"].get_ref<json::array_t&>();
  steps.insert(steps.begin(), 40, json{{"type", "Digits"}, {"individual_digits", true}});
  expect_refused(file.dump(), DSV_ERROR_UNSUPPORTED, "more than 32 patterns");
}

TEST(Tokenizer, EndsAPatternThatBacktracksWithoutEnd) {
  json file = small();
  file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(?:a+)+[bc]|(?:a|aa)+$x";
  const auto tokenizer = parse(file.dump());
  EXPECT_EQ(tokenizer->encode("aaaab").size(), 5u);
  try {
    tokenizer->encode(std::string(100, 'a'));
    ADD_FAILURE() << "is not refused";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), DSV_ERROR_UNSUPPORTED);
    EXPECT_THAT(error.what(), HasSubstr("pre_tokenizer.pretokenizers[0].pattern.Regex"));
    EXPECT_THAT(error.what(), HasSubstr("backtracks without end"));
  }
}

}  // namespace
}  // namespace dsv
