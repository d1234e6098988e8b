// KV pages: who owns which page of a model's pool. The bytes live in the device (KvLayout in
// backend/geometry.h); a page number stands for kPageTokens tokens of every cache layer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend/geometry.h"

namespace dsv {

// Not thread-safe: only the stepping thread takes and returns pages. No allocation after construction.
class KvPagePool {
 public:
  explicit KvPagePool(int32_t pages) : total_(pages) {
    free_.reserve(static_cast<size_t>(pages));
    for (int32_t page = pages; page-- > 0;) free_.push_back(page);
  }
  int32_t total() const { return total_; }
  int32_t available() const { return static_cast<int32_t>(free_.size()); }
  // A free page, or -1.
  int32_t take() {
    if (free_.empty()) return -1;
    const int32_t page = free_.back();
    free_.pop_back();
    return page;
  }
  void give_back(int32_t page) { free_.push_back(page); }

 private:
  int32_t total_;
  std::vector<int32_t> free_;  // a stack, so that pages touched last are used first
};

// The pages of one sequence: page i holds positions [64 i, 64 i + 64).
class PageList {
 public:
  PageList(KvPagePool& pool, int64_t max_tokens) : pool_(&pool) {
    pages_.reserve(static_cast<size_t>((max_tokens + kPageTokens - 1) / kPageTokens));
  }
  ~PageList() { truncate(0); }
  PageList(const PageList&) = delete;
  PageList& operator=(const PageList&) = delete;

  // Makes room for `tokens` tokens; false (and no change) if the pool has too few pages.
  bool reserve(int64_t tokens) {
    const int64_t want = (tokens + kPageTokens - 1) / kPageTokens;
    const int64_t more = want - static_cast<int64_t>(pages_.size());
    if (more > pool_->available()) return false;
    for (int64_t i = 0; i < more; ++i) pages_.push_back(pool_->take());
    return true;
  }
  // Gives back the pages that only hold positions >= tokens.
  void truncate(int64_t tokens) {
    const int64_t keep = (tokens + kPageTokens - 1) / kPageTokens;
    while (static_cast<int64_t>(pages_.size()) > keep) {
      pool_->give_back(pages_.back());
      pages_.pop_back();
    }
  }
  const std::vector<int32_t>& pages() const { return pages_; }

 private:
  KvPagePool* pool_;
  std::vector<int32_t> pages_;
};

}  // namespace dsv
