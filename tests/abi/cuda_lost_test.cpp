// A GPU that fails in the middle of a request: a kernel of this program's own traps in the context that the
// backend computes in, as a fault in any other kernel of the process would. After it nothing in the process
// can use that GPU again, so this is a program of its own. Skipped where the cuda backend cannot be used.
#include <dlfcn.h>

#include <algorithm>
#include <string>

#include "tests/session/session_fixture.h"

namespace dsv::test {
namespace {

constexpr char kTrap[] =
    ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry trap_here() {\n  trap;\n  ret;\n}\n";

// The driver's functions, by name: tests are built without the toolkit, too.
template <class... Args>
int driver(const char* name, Args... args) {
  static void* const library = dlopen("libcuda.so.1", RTLD_NOW);
  void* const symbol = library ? dlsym(library, name) : nullptr;
  return symbol ? reinterpret_cast<int (*)(Args...)>(symbol)(args...) : -1;
}

// The first GPU's primary context is what the CUDA runtime in the backend uses.
void lose_gpu() {
  int device = 0;
  void *context = nullptr, *module = nullptr, *kernel = nullptr;
  ASSERT_EQ(driver("cuInit", 0u), 0);
  ASSERT_EQ(driver("cuDeviceGet", &device, 0), 0);
  ASSERT_EQ(driver("cuDevicePrimaryCtxRetain", &context, device), 0);
  ASSERT_EQ(driver("cuCtxSetCurrent", context), 0);
  ASSERT_EQ(driver("cuModuleLoadData", &module, static_cast<const void*>(kTrap)), 0);
  ASSERT_EQ(driver("cuModuleGetFunction", &kernel, module, static_cast<const char*>("trap_here")), 0);
  void* const none = nullptr;
  ASSERT_EQ(driver("cuLaunchKernel", kernel, 1u, 1u, 1u, 1u, 1u, 1u, 0u, none, none, none), 0);
  EXPECT_NE(driver("cuCtxSynchronize"), 0);
}

void complete(const Recorder& session, const std::vector<int32_t>& tokens, size_t count) {
  dsv_generate_options options = token_options(static_cast<int32_t>(count));
  options.temperature = 0;
  expect_ok(dsv_session_complete(session.handle.get(), tokens.data(), static_cast<int64_t>(tokens.size()),
                                 &options, nullptr));
}

TEST(CudaLost, TheHostGoesOnWithTheTokensOnTheCpu) {
  if (!dsv_has_feature("backend.cuda")) GTEST_SKIP() << "no GPU: what happens when one fails is not shown";
  constexpr size_t kTokens = 40;
  const std::vector<int32_t> request = prompt(70);
  const EngineHandle cpu = make_engine({"cpu"});
  const ModelHandle cpu_model = load(cpu.get(), exact_options());
  Recorder whole(cpu_model.get());
  complete(whole, request, kTokens);
  expect_ok(dsv_engine_run(cpu.get()));

  const EngineHandle gpu = make_engine({"cuda"});
  const ModelHandle gpu_model = load(gpu.get(), exact_options());
  Recorder first(gpu_model.get());
  complete(first, request, kTokens);
  int32_t pending = 1;
  while (pending > 0 && first.count(DSV_EVENT_TOKEN) < 12) expect_ok(dsv_engine_step(gpu.get(), 0, &pending));
  ASSERT_NO_FATAL_FAILURE(lose_gpu());
  for (int i = 0; i < 2; ++i) {  // and it stays lost
    ASSERT_EQ(dsv_engine_run(gpu.get()), DSV_ERROR_DEVICE_LOST) << dsv_error_message();
    EXPECT_NE(std::string(dsv_error_message()).find("GPU 0 failed"), std::string::npos)
        << dsv_error_message();
  }
  const std::vector<int32_t> held = first.held();
  ASSERT_GE(held.size(), request.size() + 11);
  ASSERT_LT(held.size(), request.size() + kTokens);

  Recorder second(cpu_model.get());
  complete(second, held, request.size() + kTokens - held.size());
  expect_ok(dsv_engine_run(cpu.get()));
  EXPECT_EQ(second.held(), whole.held());
}

}  // namespace
}  // namespace dsv::test
