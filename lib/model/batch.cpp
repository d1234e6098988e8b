#include "model/batch.h"

#include <algorithm>

#include "backend/geometry.h"

namespace dsv {

Batch::Batch(int32_t max_rows, int32_t max_sequences, int64_t max_context, int32_t max_biases)
    : page_stride(static_cast<int32_t>((max_context + kPageTokens - 1) / kPageTokens)) {
  const auto rows = static_cast<size_t>(max_rows);
  token.reserve(rows);
  position.reserve(rows);
  sequence.reserve(rows);
  next_token.reserve(rows);
  logit_row.reserve(rows);
  sample.reserve(rows);
  bias.reserve(static_cast<size_t>(max_biases));
  page_table.reserve(static_cast<size_t>(max_sequences) * static_cast<size_t>(page_stride));
}

void Batch::clear() {
  token.clear();
  position.clear();
  sequence.clear();
  next_token.clear();
  logit_row.clear();
  sample.clear();
  bias.clear();
  page_table.clear();
  sequences = 0;
  draft = false;
}

int32_t Batch::add_sequence(const std::vector<int32_t>& pages) {
  // Unused entries repeat no real page: a kernel that reads one fails its test instead of reading a
  // neighbour's cache.
  page_table.resize(page_table.size() + static_cast<size_t>(page_stride), -1);
  std::copy(pages.begin(), pages.end(), page_table.end() - page_stride);
  return sequences++;
}

void Batch::add_row(int32_t token_id, int32_t pos, int32_t seq, bool want_logits) {
  if (want_logits) logit_row.push_back(rows());
  token.push_back(token_id);
  position.push_back(pos);
  sequence.push_back(seq);
}

}  // namespace dsv
