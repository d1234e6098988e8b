// The tables that are judged: the CPU's targets and the CUDA backend, which runs on the CPU by emulation, or
// in the programs built with DSV_ON_GPU on the first GPU.
#pragma once

#include <string>
#include <vector>

#include "backend/ops.h"

namespace dsv::test {

// A table and how to open it.
struct Target {
  const OpTable* ops;
  std::string name;
  bool threaded = false;  // takes a number of threads
  bool emulated = false;
  std::string other;  // another way to run it, or the same again, that must give the same bits; or ""
};

// Emulation takes minutes for what is seconds otherwise, under sanitizers above all: small cases stand for all unless
// the environment has DSV_EMULATE_ALL.
bool emulate_all();
// Why there is no CUDA target here; "" if there is one.
std::string why_no_cuda();
// Emulated threads run in ascending order; in the other way in descending order.
Target cuda_target();
std::vector<Target> targets();  // all that conformance judges here

}  // namespace dsv::test
