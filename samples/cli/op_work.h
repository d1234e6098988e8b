// What the ops of a pass must read and do, from the sizes of the architecture.
#pragma once

#include <array>

#include "model/checkpoint.h"
#include "samples/cli/op_times.h"

namespace cli {

enum Op {
  add_norm,
  attn_in,
  attn_q,
  cache_append,
  index_select,
  attend,
  attn_out,
  route,
  experts,
  ffn,
  logits,
  ops
};

// `by_heads`: rows that see all positions before them attend by heads, which is less work, where there are
// enough of them. `experts_read`: of a MoE layer, by all rows together.
std::array<OpTime, ops> work_of(const dsv::Checkpoint& checkpoint, const PassShape& pass, bool official,
                                bool by_heads, double experts_read);

}  // namespace cli
