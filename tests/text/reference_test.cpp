// Ids and text against Hugging Face `tokenizers`, by the hashes that make_reference.py wrote.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cinttypes>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "tests/text/corpus.h"
#include "tests/text/data.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace dsv {
namespace {

using nlohmann::json;
using test::CorpusSection;

// xxhash64 of numbers and texts, in hexadecimal.
class Hash {
 public:
  Hash() { XXH64_reset(&state_, 0); }
  void add(const void* bytes, size_t size) { XXH64_update(&state_, bytes, size); }
  void add_number(size_t value) {
    const auto number = static_cast<uint32_t>(value);
    add(&number, sizeof number);
  }
  std::string hex() const {
    char out[17];
    std::snprintf(out, sizeof out, "%016" PRIx64, static_cast<uint64_t>(XXH64_digest(&state_)));
    return out;
  }

 private:
  XXH64_state_t state_;
};

const std::string& deepseek_file() {
  static const std::string file = test::read_zstd(DSV_TEXT_DATA "/deepseek_v3_tokenizer.json.zst");
  return file;
}

const std::vector<CorpusSection>& corpus() {
  static const std::vector<CorpusSection> corpus =
      test::make_corpus(*Tokenizer::parse(deepseek_file(), "deepseek_v3_tokenizer.json"));
  return corpus;
}

json reference() { return json::parse(test::read_whole(DSV_TEXT_DATA "/reference.json")); }

TEST(TokenizerReference, CorpusIsTheOneOfTheReference) {
  const json expected = reference()["corpus"];
  ASSERT_EQ(corpus().size(), expected.size());
  size_t total = 0;
  for (const CorpusSection& section : corpus()) {
    Hash hash;
    size_t bytes = 0;
    for (const std::string& text : section.texts) {
      hash.add_number(text.size());
      hash.add(text.data(), text.size());
      bytes += text.size();
    }
    ASSERT_TRUE(expected.contains(section.name)) << section.name;
    EXPECT_EQ(bytes, expected[section.name]["bytes"]) << section.name;
    EXPECT_EQ(hash.hex(), expected[section.name]["texts_xxh64"]) << section.name;
    total += bytes;
  }
  EXPECT_GE(total, size_t{10} << 20);
}

// Every section's ids are those of the reference, and token by token, in whole code points, the text again.
void expect_reference(const std::string& name, const std::string& file) {
  const json expected = reference()["files"][name];
  Hash file_hash;
  file_hash.add(file.data(), file.size());
  ASSERT_EQ(file_hash.hex(), expected["file_xxh64"])
      << "the tokenizer.json of " << name << " has changed: run tests/text/make_reference.py";
  const auto tokenizer = Tokenizer::parse(file, name + "/tokenizer.json");
  Detokenizer detokenizer;
  for (const CorpusSection& section : corpus()) {
    Hash hash;
    size_t count = 0;
    for (const std::string& text : section.texts) {
      const std::vector<int32_t> ids = tokenizer->encode(text);
      hash.add_number(ids.size());
      hash.add(ids.data(), ids.size() * sizeof ids[0]);
      count += ids.size();
      std::string decoded;
      for (const int32_t id : ids) {
        const std::string_view piece = detokenizer.push(tokenizer->bytes(id));
        ASSERT_TRUE(is_utf8(piece)) << section.name;
        decoded += piece;
      }
      decoded += detokenizer.finish();
      ASSERT_TRUE(decoded == replace_invalid_utf8(text)) << section.name;
    }
    EXPECT_EQ(count, expected["sections"][section.name]["ids"]) << section.name;
    EXPECT_EQ(hash.hex(), expected["sections"][section.name]["ids_xxh64"]) << section.name;
  }
}

TEST(TokenizerReference, DeepSeekV3) { expect_reference("deepseek_v3", deepseek_file()); }

TEST(TokenizerReference, Nano) { expect_reference("nano", test::read_whole(DSV_NANO_TOKENIZER)); }

}  // namespace
}  // namespace dsv
