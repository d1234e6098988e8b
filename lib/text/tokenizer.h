// tokenizer.json executed: text to token ids and back, as Hugging Face `tokenizers` does it, for byte-level
// BPE.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace dsv {

// Immutable; any number of threads may use one.
class Tokenizer {
 public:
  // `json` is the content of a tokenizer.json and `path` names it in messages. Throws INVALID_FILE for a file
  // that contradicts itself and UNSUPPORTED for a kind of tokenizer that is not built, by name.
  static std::shared_ptr<const Tokenizer> parse(std::string_view json, const std::string& path);
  ~Tokenizer();

  // Ids of `text`, added tokens recognised, nothing put in front or behind. Bytes that are not UTF-8 are read
  // as U+FFFD, one for each maximal part of a code point, as Python's decode(errors="replace") does.
  std::vector<int32_t> encode(std::string_view text) const;

  // The bytes of a token, of an added token its content; empty when the id has no token.
  std::string_view bytes(int32_t id) const;
  bool has(int32_t id) const;
  bool special(int32_t id) const;                // as marked in the file
  int32_t find(std::string_view content) const;  // id of the added token with this content, or -1
  int32_t size() const;                          // largest id + 1; ids below it may have no token

 private:
  struct State;
  explicit Tokenizer(std::unique_ptr<const State> state);
  std::unique_ptr<const State> state_;
};

}  // namespace dsv
