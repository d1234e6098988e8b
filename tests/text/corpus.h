// A seeded corpus of text and code for comparing tokenizers: the same bytes on every machine.
#pragma once

#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace dsv::test {

struct CorpusSection {
  std::string name;
  std::vector<std::string> texts;  // not all of them UTF-8
};

// About 14 MB. Words and markers are those of `tokenizer`, of which the text takes the common ones more
// often.
std::vector<CorpusSection> make_corpus(const Tokenizer& tokenizer);

}  // namespace dsv::test
