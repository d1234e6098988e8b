// What this machine can do, measured: the yardsticks that `dsv bench` divides by.
#pragma once

namespace cli {

struct Machine {
  double read_bytes_per_s;     // all threads reading memory far larger than any cache
  double multiply_adds_per_s;  // fp32, fused, from registers, all threads
  const char* vector;          // the instruction set that the second was measured with
};
Machine measure_machine(int threads);

}  // namespace cli
