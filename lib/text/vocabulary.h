// The tokens of a byte-level BPE model, by id and by their bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dsv {

// tokenizer.json writes each byte of a token as a printable character: itself if it is one in Latin-1, else a
// character from U+0100 on. False if `written` has a character that stands for no byte.
bool read_byte_level(std::string_view written, std::string& bytes);

// Filled once, then read by any number of threads. Ids need not be dense.
class Vocabulary {
 public:
  static constexpr int32_t kMaxId = (1 << 22) - 1;

  // At most `count` tokens that stand for text will be added.
  explicit Vocabulary(size_t count);

  // Requires 0 <= id <= kMaxId, an id not in use and at least one byte. `of_text`: find() finds it. Throws
  // INVALID_FILE (the sentence begins with `where`) if find() has a token of these bytes already, and for
  // tokens that are made to slow their own search down.
  void add(int32_t id, std::string_view bytes, bool of_text, std::string_view where);

  int32_t find(std::string_view bytes) const;                           // or -1
  std::string_view bytes(int32_t id) const;                             // empty when no token has the id
  int32_t size() const { return static_cast<int32_t>(spans_.size()); }  // largest id + 1

 private:
  struct Span {
    uint32_t offset = 0, size = 0;
  };

  struct Slot {
    uint32_t hash = 0;  // its upper half, which tells most tokens apart without a look at their bytes
    int32_t id = -1;    // -1: free
  };
  static size_t hash_of(std::string_view bytes);

  std::string pool_;
  std::vector<Span> spans_;  // by id
  std::vector<Slot> slots_;  // hash table; a power of two, at most half full
  size_t longest_ = 0;       // bytes of the longest token that find() knows
};

}  // namespace dsv
