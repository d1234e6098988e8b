// write_corpus FILE: the seeded corpus for make_reference.py, and where it comes from, the unpacked
// tokenizer.
//   corpus       each section: name, number of texts, texts; a string is its size (uint32) and its bytes
#include <cstdint>
#include <cstdio>
#include <fstream>

#include "tests/text/corpus.h"
#include "tests/text/data.h"

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: write_corpus FILE\n"), 2;
  const auto tokenizer = dsv::Tokenizer::parse(
      dsv::test::read_zstd(DSV_TEXT_DATA "/deepseek_v3_tokenizer.json.zst"), "deepseek_v3_tokenizer.json");
  std::ofstream file(argv[1], std::ios::binary);
  const auto put_number = [&](size_t value) {
    const auto number = static_cast<uint32_t>(value);
    file.write(reinterpret_cast<const char*>(&number), sizeof number);
  };
  const auto put = [&](const std::string& text) {
    put_number(text.size());
    file << text;
  };
  for (const dsv::test::CorpusSection& section : dsv::test::make_corpus(*tokenizer)) {
    put(section.name);
    put_number(section.texts.size());
    for (const std::string& text : section.texts) put(text);
  }
  return file.flush() ? 0 : 1;
}
