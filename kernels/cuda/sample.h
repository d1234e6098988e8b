// Sampling: sample.cu.
#pragma once

#include <cstdint>

#include "backend/sampling.h"
#include "kernels/cuda/views.h"

namespace dsv::cuda {

struct SampleRowsArgs {  // lib/backend/sampling.h
  int32_t rows;
  int64_t vocab;
  float* logits;            // [R, vocab]; biased while the kernel runs
  const uint32_t* allowed;  // bits, from the lowest: [ceil(vocab / 32)]
  int32_t first_allowed;    // the lowest such id
  const SampleRow* row;     // [R]
  const TokenBias* bias;    // what the rows' ranges are in
  float* unbiased;          // scratch: one for each of these
  int32_t* token;           // out [R]; -1: every logit is NaN
};
void launch_sample(const SampleRowsArgs&, Stream);

}  // namespace dsv::cuda
