// A bench's rows for other programs: `dsv bench kernels` names a file in the environment, and reads it.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace dsv::cuda::bench {

// A row of the table as a line of JSON, if DSV_BENCH_ROWS names a file. rows: 0 if `what` says all. What the
// floor comes from is the bench's to say: floor_us, or the bytes and operations that there are.
inline void record(const char* what, int64_t rows, double us, double floor_us, double bytes = 0,
                   double flop = 0) {
  const char* const name = std::getenv("DSV_BENCH_ROWS");
  std::FILE* const file = name ? std::fopen(name, "a") : nullptr;
  if (!file) return;
  std::fprintf(
      file,
      "{\"what\": \"%s\", \"rows\": %lld, \"us\": %.3f, \"floor_us\": %.3f, \"bytes\": %.0f, \"flop\": "
      "%.0f}\n",
      what, static_cast<long long>(rows), us, floor_us, bytes, flop);
  std::fclose(file);
}

}  // namespace dsv::cuda::bench
