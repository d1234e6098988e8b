#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/error.h"

namespace dsv {
namespace {

constexpr int32_t kMaxProbes = 1000;  // as for the vocabulary

uint64_t pair_of(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

}  // namespace

Merges::Merges(size_t count) : slots_(std::bit_ceil(2 * count + 2)), some_(4 * slots_.size()) {}

uint64_t Merges::hash_of(uint64_t pair) const {
  return (pair * 0x9E3779B97F4A7C15) >> (64 - std::countr_zero(some_.size()));
}

void Merges::add(int32_t left, int32_t right, Merge merge, std::string_view where) {
  const uint64_t pair = pair_of(left, right);
  const uint64_t hash = hash_of(pair);
  some_[hash] = true;
  size_t slot = hash / 4;
  for (int32_t probes = 0; slots_[slot].pair != kFree && slots_[slot].pair != pair;
       slot = (slot + 1) & (slots_.size() - 1)) {
    if (++probes > kMaxProbes) {
      fail(DSV_ERROR_INVALID_FILE,
           "{} has merges made to collide in a hash table; is the file from its author?", where);
    }
  }
  slots_[slot] = {pair, merge};
}

const Merges::Merge* Merges::find(int32_t left, int32_t right) const {
  const uint64_t pair = pair_of(left, right);
  const uint64_t hash = hash_of(pair);
  if (!some_[hash]) return nullptr;
  size_t slot = hash / 4;
  while (slots_[slot].pair != pair) {
    if (slots_[slot].pair == kFree) return nullptr;
    slot = (slot + 1) & (slots_.size() - 1);
  }
  return &slots_[slot].merge;
}

Bpe::Bpe(Vocabulary vocabulary, Merges merges, bool whole_first)
    : vocabulary_(std::move(vocabulary)),
      merges_(std::move(merges)),
      whole_first_(whole_first),
      known_(std::make_unique<std::atomic<Known>[]>(vocabulary_.size())) {
  for (int32_t b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    byte_ids_[b] = vocabulary_.find({&byte, 1});
  }
  byte_merges_.reserve(1 << 16);
  for (const int32_t left : byte_ids_) {
    for (const int32_t right : byte_ids_) {
      const Merges::Merge* merge = left < 0 || right < 0 ? nullptr : merges_.find(left, right);
      byte_merges_.push_back(merge ? *merge : Merges::Merge{0, -1});
    }
  }
}

void Bpe::encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const {
  const int32_t whole = vocabulary_.find(piece);
  if (whole < 0) return merge(piece, scratch, ids);
  std::atomic<Known>& known = known_[whole];
  if (whole_first_ || known.load(std::memory_order_relaxed) == kWhole) {
    ids.push_back(whole);
    return;
  }
  const size_t before = ids.size();
  merge(piece, scratch, ids);
  const bool again = ids.size() == before + 1 && ids.back() == whole;
  known.store(again ? kWhole : kParts, std::memory_order_relaxed);
}

void Bpe::merge(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const {
  std::vector<Scratch::Symbol>& symbols = scratch.symbols;
  std::vector<Scratch::Candidate>& candidates = scratch.candidates;
  symbols.clear();
  candidates.clear();
  const auto add = [&](int32_t left, Merges::Merge merge) {
    symbols[left].product = merge.id;
    if (merge.id < 0) return false;
    candidates.push_back({uint64_t{merge.rank} << 32 | static_cast<uint32_t>(left), merge.id});
    return true;
  };
  size_t last = 0;  // byte of the last symbol
  for (const char c : piece) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte_ids_[byte] < 0) continue;
    const auto at = static_cast<int32_t>(symbols.size());
    if (at > 0) add(at - 1, byte_merges_[last << 8 | byte]);
    symbols.push_back({byte_ids_[byte], at - 1, at + 1, -1});
    last = byte;
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;

  // A heap with the lowest rank in front, and of equal ranks the leftmost. Entries whose symbols have changed
  // since stay in it and are known by a product that the pair at their place no longer has. (The reference
  // goes by the product too, not by the rank: it matters where two merges make one token.)
  const auto later = [](const Scratch::Candidate& a, const Scratch::Candidate& b) {
    return a.order > b.order;
  };
  const auto find_and_add = [&](int32_t left) {
    const Merges::Merge* merge = merges_.find(symbols[left].id, symbols[symbols[left].next].id);
    if (add(left, merge ? *merge : Merges::Merge{0, -1}))
      std::push_heap(candidates.begin(), candidates.end(), later);
  };
  std::make_heap(candidates.begin(), candidates.end(), later);
  while (!candidates.empty()) {
    const auto [order, product] = candidates.front();
    std::pop_heap(candidates.begin(), candidates.end(), later);
    candidates.pop_back();
    const auto at = static_cast<int32_t>(order & 0xFFFFFFFF);
    Scratch::Symbol& left = symbols[at];
    if (left.id < 0 || left.product != product) continue;
    Scratch::Symbol& right = symbols[left.next];
    left.id = product;
    left.next = right.next;
    left.product = -1;
    right.id = -1;
    if (left.next >= 0) symbols[left.next].previous = at;
    if (left.previous >= 0) find_and_add(left.previous);
    if (left.next >= 0) find_and_add(at);
  }
  for (int32_t at = 0; at >= 0; at = symbols[at].next) ids.push_back(symbols[at].id);
}

}  // namespace dsv
