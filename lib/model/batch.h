// Rows, not sequences: what one forward pass computes. Prefill chunks and decode steps of any number of
// sequences are rows of one batch.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/sampling.h"

namespace dsv {

struct Batch {
  // Rows of one sequence are consecutive positions, in order; its earlier positions are in the cache already.
  std::vector<int32_t> token;       // [rows]
  std::vector<int32_t> position;    // [rows]
  std::vector<int32_t> sequence;    // [rows] index into the page table
  std::vector<int32_t> next_token;  // [rows] draft only: the token after each row's
  std::vector<int32_t> logit_row;   // rows whose logits are wanted, ascending, at most max_logit_rows
  std::vector<SampleRow> sample;    // one for each of those, or none: then there is no sampling
  std::vector<TokenBias> bias;      // what their ranges are in, at most max_biases
  std::vector<int32_t> page_table;  // [sequences, page_stride]
  int32_t sequences = 0;
  int32_t page_stride = 0;
  bool draft = false;  // run the MTP layer after the main layers; logits are then its

  Batch(int32_t max_rows, int32_t max_sequences, int64_t max_context, int32_t max_biases = 0);
  void clear();  // keeps the capacity: filling a cleared batch allocates nothing
  int32_t rows() const { return static_cast<int32_t>(token.size()); }

  // Adds a sequence by its pages; returns its index for add_row.
  int32_t add_sequence(const std::vector<int32_t>& pages);
  void add_row(int32_t token_id, int32_t pos, int32_t seq, bool want_logits);
};

}  // namespace dsv
