// The parts of linear_bench.cu.
#pragma once

#include "kernels/cuda/bench/bench.cuh"

namespace dsv::cuda {

// linear_check.cu: whether all checks passed. Quick: small ones, for compute-sanitizer.
bool check_linears(bool quick);
// linear_time.cu: up to most_rows rows of input.
void time_linears(const bench::Timer& timer, int32_t most_rows);

}  // namespace dsv::cuda
