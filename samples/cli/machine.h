// What this machine can do, measured: the yardsticks that `dsv bench` divides by.
#pragma once

#include <string_view>

namespace cli {

struct Machine {
  double read_bytes_per_s;     // all threads reading memory far larger than any cache
  double multiply_adds_per_s;  // from registers, all threads, on `unit`
  const char* unit;            // what the engine multiplies large batches on, for example "bf16 on AMX"
};
// target: an instruction set of dsv_build_info(), as the engine uses it; bf16: whether it may round input to
// bf16 (precision official). threads <= 0: one for each processor.
Machine measure_machine(int threads, std::string_view target, bool bf16);

}  // namespace cli
