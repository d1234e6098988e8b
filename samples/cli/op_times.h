// Times of the ops of the table: what `dsv bench kernels` and `dsv bench layers` print. Looks behind the C
// interface, because a host neither sees nor calls ops.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace cli {

struct OpTime {
  std::string op;
  int calls = 0;                             // of one forward pass
  double seconds = 0;                        // of those calls
  double weight_bytes = 0, cache_bytes = 0;  // that they must read
  double multiply_adds = 0;                  // that they must do
};

// One forward pass of `rows` rows, the last of them at the end of a context.
struct PassShape {
  int32_t rows = 1;
  int64_t context = 0;  // positions before the rows
};

struct OpTimesArgs {
  std::string model, cpu_target, precision = "official";
  int32_t threads = 0, repeat = 5;
};

// The ops of each pass in the order of a layer, the least of `repeat` passes each. The CPU backend.
std::vector<std::vector<OpTime>> time_ops(const OpTimesArgs& args, const std::vector<PassShape>& passes);

}  // namespace cli
