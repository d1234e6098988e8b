// What tokenizer.json says, checked, before tables are made of it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/splitter.h"

namespace dsv {

struct TokenizerFile {
  struct Token {
    uint32_t offset, size;  // of its name in `names`
    int32_t id;
  };
  struct Merge {
    uint32_t offset, left_size, right_size;  // both names in `names`, side by side
  };
  struct AddedToken {
    std::string content;  // not empty
    int32_t id;
    bool special;
    bool normalized;  // looked for after the others
  };

  std::string names;  // as in the file: a character for each byte
  std::vector<Token> vocab;
  std::vector<Merge> merges;  // lowest rank first
  std::vector<AddedToken> added;
  std::vector<SplitPattern> patterns;
  bool ignore_merges = false;
  bool drops_nothing =
      false;  // unk_token or byte_fallback is set: only read rightly if every byte has a token
};

// Throws INVALID_FILE or UNSUPPORTED naming `path`, the field and the remedy.
TokenizerFile read_tokenizer_file(std::string_view json, const std::string& path);

}  // namespace dsv
