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
  double dense_seconds = 0;                  // of those in dense layers
  double weight_bytes = 0, cache_bytes = 0;  // that they must read
  double multiply_adds = 0;                  // that they must do, in bf16 or wider
  double fp8_multiply_adds = 0;              // and with FP8 operands
};

// One forward pass: rows / sequences rows of each sequence.
struct PassShape {
  int32_t rows = 1;
  int64_t context = 1;  // positions that a sequence's last row sees
  int32_t sequences = 1;
  int32_t own() const { return rows / sequences; }
};

struct PassTimes {
  double seconds = 0;       // all layers at once, as an engine runs them; without logits
  double experts = 0;       // of a MoE layer that some row chose; the mean of the layers
  std::vector<OpTime> ops;  // each by itself, in the order of a layer
};

struct OpTimesArgs {
  std::string model;            // a folder; empty: random weights in the released geometry
  int32_t layers = 8;           // of those
  std::string backend = "cpu";  // or "cuda", "cuda:N"
  std::string cpu_target, precision = "official";
  bool fast = false;  // schedule
  int32_t threads = 0, repeat = 5;
};

struct OpTimes {
  std::string model, target;
  int32_t layers = 0, dense_layers = 0;
  double load_seconds = 0;
  std::vector<PassTimes> passes;
};

// Throws, with a sentence that names the remedy, if this machine has not got the backend.
void check_backend(const std::string& backend);

// The cache is filled with random rows; tokens are random, too, so that rows choose experts of their own. Of
// `repeat` passes of each shape (two at most of those with 512 rows and more) the median counts on a GPU, the
// least on the CPU.
OpTimes time_ops(const OpTimesArgs& args, const std::vector<PassShape>& passes);

}  // namespace cli
