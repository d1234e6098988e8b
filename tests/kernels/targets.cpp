#include "tests/kernels/targets.h"

#include <cstdlib>
#include <sstream>

#ifdef DSV_ON_GPU
#include "backend/library.h"
#include "base/error.h"
#else
#include "kernels/cuda/device.h"
#endif

namespace dsv::test {

bool emulate_all() { return std::getenv("DSV_EMULATE_ALL") != nullptr; }

#ifdef DSV_ON_GPU

std::string why_no_cuda() {
  try {
    cuda_library().check("");
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

Target cuda_target() { return {cuda_library().ops, "0", false, false, "0"}; }

std::vector<Target> targets() { return {cuda_target()}; }

#else

std::string why_no_cuda() { return ""; }

Target cuda_target() { return {&cuda_ops(), "ascending", false, true, "descending"}; }

std::vector<Target> targets() {
  std::istringstream list(cpu_targets());
  std::vector<Target> out;
  for (std::string name; list >> name;) out.push_back({&cpu_ops(), name, true, false, ""});
  out.push_back(cuda_target());
  return out;
}

#endif

}  // namespace dsv::test
