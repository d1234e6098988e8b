// The parts of index_bench.cu.
#pragma once

#include "kernels/cuda/bench/bench.cuh"

namespace dsv::cuda {

// index_check.cu: how many checks failed. Quick: small ones, for compute-sanitizer.
int check_index(bool quick);
// index_time.cu
void time_index(const bench::Timer& timer);

}  // namespace dsv::cuda
