// The choice of a token, as a function: for the op, and to check others by.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/sampling.h"

namespace dsv::reference {

// `allowed` [V]; null: all. `bias`: what the row's range is in.
int32_t sample_row(std::vector<float> logits, const bool* allowed, const SampleRow& how,
                   const TokenBias* bias);

}  // namespace dsv::reference
