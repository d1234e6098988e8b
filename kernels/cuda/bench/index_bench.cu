// Checks and times the indexer's kernels on a GPU:
//
//   cuda_index_bench [quick | check | time]      checks and times without an argument; 1 if a check fails
//
// Checks: scores against fp64, each row's bits in every tile; the top-k against a sort; `quick`: small ones.
// Times: medians, with the L2 cache flushed before each launch. Floors: bytes at the copy bandwidth of this
// GPU, FLOPs at 1585 TFLOP/s.
#include <string>

#include "kernels/cuda/bench/index_bench.h"

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  const dsv::cuda::bench::Timer timer;
  const int failures = what == "time" ? 0 : dsv::cuda::check_index(what == "quick");
  if (what == "time" || what.empty()) dsv::cuda::time_index(timer);
  std::printf(failures ? "FAILED: %d checks\n" : "every check passed\n", failures);
  return failures ? 1 : 0;
}
