// A request's options, checked and owned.
#pragma once

#include <dsv/dsv.h>

#include <string>
#include <vector>

#include "model/sampler.h"

namespace dsv {

struct GenerateOptions {
  SamplingOptions sampling;
  int64_t max_tokens = 0;  // 0 = no limit
  int32_t logprobs = -1;
  bool thinking = false, keep_thinking = false, hide_tools = false, ignore_eos = false;
  std::vector<std::string> stop;
};

inline constexpr int32_t kMostLogprobs = 20;

// Throws INVALID_ARGUMENT naming the field.
GenerateOptions check_generate_options(const dsv_generate_options& options, int32_t vocab_size);

}  // namespace dsv
