// Tokens that are looked for in the text before it is split.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dsv {

// Immutable. The leftmost one counts, and of those that begin there the longest.
class AddedTokens {
 public:
  struct Token {
    std::string content;  // not empty
    int32_t id;
  };
  struct Found {
    size_t offset, size;
    int32_t id;  // -1: none, and offset is the end of the text
  };

  explicit AddedTokens(std::vector<Token> tokens);
  Found find_in(std::string_view text, size_t from) const;
  int32_t find(std::string_view content) const;  // or -1

 private:
  std::vector<Token> tokens_;  // by content
  bool begins_[256] = {};      // some content begins with the byte
};

}  // namespace dsv
