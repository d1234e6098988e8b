// The tokenizer.json of a random checkpoint.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace cli {

inline std::string utf8(int code) {  // below U+0800
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
}

// Byte-level BPE without merges: a token for each byte, in the layout of the released tokenizer.json.
inline std::string tokenizer_json(int64_t vocab_size) {
  using nlohmann::ordered_json;
  const std::vector<std::string> first = {"<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"};
  const std::vector<std::string> last = {"<｜User｜>", "<｜Assistant｜>", "<think>", "</think>", "｜DSML｜"};
  const auto needed = static_cast<int64_t>(first.size() + 256 + last.size());
  if (vocab_size < needed) {
    throw std::runtime_error("vocab_size " + std::to_string(vocab_size) +
                             " is too small for a tokenizer: it needs " + std::to_string(needed));
  }
  ordered_json vocab, added = ordered_json::array();
  const auto add = [&added](const std::string& content, int64_t id, bool special) {
    added.push_back({{"id", id},
                     {"content", content},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", special}});
  };
  int64_t id = 0;
  for (const std::string& content : first) {
    vocab[content] = id;
    add(content, id++, true);
  }
  // The byte-level alphabet: printable Latin-1 characters stand for themselves, the others for U+0100 and up.
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
    vocab[utf8(printable ? byte : next++)] = id++;
  }
  // Right behind the vocabulary: Hugging Face numbers added tokens so, whatever the file says.
  for (const std::string& content : last) add(content, id++, false);
  const ordered_json document = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer", {{"type", "Sequence"}, {"normalizers", ordered_json::array()}}},
      {"pre_tokenizer",
       {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}}},
      {"post_processor",
       {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}, {"use_regex", true}}},
      {"decoder",
       {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"vocab", vocab},
        {"merges", ordered_json::array()}}}};
  return document.dump(1);
}

}  // namespace cli
