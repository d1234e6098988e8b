// Byte pair encoding of one piece of text.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace dsv {

// Filled once, then read by any number of threads.
class Merges {
 public:
  struct Merge {
    uint32_t rank;
    int32_t id;
  };
  // At most `count` will be added.
  explicit Merges(size_t count);

  // `left` and `right` side by side become `id`; the lowest rank goes first. A pair added again takes the new
  // rank. Throws INVALID_FILE (the sentence begins with `where`) for pairs that are made to slow their own
  // search down.
  void add(int32_t left, int32_t right, Merge merge, std::string_view where);
  const Merge* find(int32_t left, int32_t right) const;  // or null

 private:
  struct Slot {
    uint64_t pair = kFree;
    Merge merge{};
  };
  static constexpr uint64_t kFree = ~uint64_t{0};
  uint64_t hash_of(uint64_t pair) const;  // below 4 slots_.size()

  std::vector<Slot> slots_;  // a power of two, at most half full
  // A bit for each hash: most pairs asked for have no merge, and this much stays in the processor's cache.
  std::vector<bool> some_;
};

class Bpe {
 public:
  // Working memory, to be kept between calls.
  struct Scratch {
    struct Symbol {
      int32_t id, previous, next;  // -1: none; an id of -1: merged into its left neighbour
      int32_t product;             // what this and the next one become, or -1
    };
    struct Candidate {
      uint64_t order;  // rank and place
      int32_t product;
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> candidates;
  };

  // `whole_first`: a piece that is a token is that token, whatever the merges make of it ("ignore_merges").
  Bpe(Vocabulary vocabulary, Merges merges, bool whole_first);

  // Appends the ids of `piece`, in O(n log n). Bytes without a token of their own are left out, as in the
  // reference.
  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const;
  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  void merge(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const;

  Vocabulary vocabulary_;
  Merges merges_;
  bool whole_first_;
  int32_t byte_ids_[256];
  // merges_.find() of two bytes' tokens, an id of -1 for none: half of all look-ups, and next to each other
  // in memory those that a language needs.
  std::vector<Merges::Merge> byte_merges_;
  // By token, whether its bytes as a piece are this token again: most pieces are, and then need no merging.
  // Found out when first needed; every thread finds the same.
  enum Known : uint8_t { kUnknown, kWhole, kParts };
  std::unique_ptr<std::atomic<Known>[]> known_;
};

}  // namespace dsv
