// Checks and times the tensor-core linears and FFNs on a GPU, on the released model's shapes.
//
//   cuda_linear_bench [quick | check | time [ROWS]]
//
// Without an argument it checks and times; `quick` checks small shapes, `time 8` stops at 8 rows. Exits with
// 1 if a check fails.
//
// Checks: against sums in fp64, and each row's bits against the same row alone. Times: medians, with the L2
// cache flushed before every launch; GB/s counts the weight's bytes that the rows need, once.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "kernels/cuda/bench/linear_bench.h"

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  const dsv::cuda::bench::Timer timer;
  const bool ok = what == "time" || dsv::cuda::check_linears(what == "quick");
  if (what == "time" || what.empty())
    dsv::cuda::time_linears(timer, argc > 2 ? std::atoi(argv[2]) : INT32_MAX);
  std::printf("%s\n", ok ? "no check failed" : "CHECKS FAILED");
  return ok ? 0 : 1;
}
