// Launches that only say which kernels they would run.
#pragma once

#include <algorithm>
#include <vector>

namespace dsv::cuda {

// While there is one, launches of its thread add their kernels to it, each once, and do nothing else.
inline thread_local std::vector<const void*>* noted_kernels = nullptr;

inline void note_kernel(const void* kernel) {
  std::vector<const void*>& all = *noted_kernels;
  if (std::find(all.begin(), all.end(), kernel) == all.end()) all.push_back(kernel);
}

}  // namespace dsv::cuda
