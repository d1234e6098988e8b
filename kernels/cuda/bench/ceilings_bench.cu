// What the tensor cores and the memory of a GPU give at most: the ceilings that `dsv bench` measures against.
// Prints one line of JSON.
//
// Tensor cores: wgmma.m64n256 by two warpgroups a processor, operands of random values in shared memory,
// nothing else moved: what power and clocks leave of the nominal 2 * 4096 (e4m3) or 2 * 2048 (bf16)
// operations a cycle and processor. Other cards than Hopper's have no wgmma and report 0.
#include "kernels/cuda/bench/bench.cuh"

namespace dsv::cuda {
namespace {

constexpr int kThreads = 256, kSteps = 4096;
// 64 rows of A for each warpgroup and 256 of B, 128 bytes of K each.
constexpr int kRowBytes = 128, kA = 64 * kRowBytes, kB = 256 * kRowBytes, kShared = 2 * kA + kB + 1024;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define DSV_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define DSV_D16(i) DSV_D4(i), DSV_D4(i + 4), DSV_D4(i + 8), DSV_D4(i + 12)
#define DSV_WGMMA(types, rest)                                                                              \
  asm volatile("wgmma.mma_async.sync.aligned." types                                                        \
               " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "    \
               "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, " \
               "%37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, " \
               "%55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, " \
               "%73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, " \
               "%91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, "    \
               "%107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, " \
               "%122, %123, %124, %125, %126, %127}, "                                                      \
               "%128, %129, " rest ";"                                                                      \
               : DSV_D16(0), DSV_D16(16), DSV_D16(32), DSV_D16(48), DSV_D16(64), DSV_D16(80), DSV_D16(96),  \
                 DSV_D16(112)                                                                               \
               : "l"(a), "l"(b))

// Rows of 128 bytes, swizzled by 128; eight rows are 1024 bytes.
__device__ uint64_t descriptor(const unsigned char* at) {
  const auto address = static_cast<uint64_t>(__cvta_generic_to_shared(at));
  return (address & 0x3FFFF) >> 4 | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}
#endif

template <bool kFp8>
__global__ void __launch_bounds__(kThreads, 1) products([[maybe_unused]] float* out) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ unsigned char raw[];
  unsigned char* shared = raw + (1024 - __cvta_generic_to_shared(raw) % 1024) % 1024;
  uint32_t random = blockIdx.x * kThreads + threadIdx.x + 1;
  for (int i = static_cast<int>(threadIdx.x); i < (2 * kA + kB) / 4; i += kThreads) {
    random = random * 1664525u + 1013904223u;
    // Values of 1 to 4 with signs.
    const uint32_t word = random >> 8 ^ random << 20;
    reinterpret_cast<uint32_t*>(shared)[i] =
        kFp8 ? (word & 0x8F8F8F8Fu) + 0x38383838u : (word & 0x807F807Fu) + 0x3F803F80u;
  }
  __syncthreads();
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  float d[128];
  for (float& value : d) value = 0;
  const uint64_t first_a = descriptor(shared + threadIdx.x / 128 * kA), first_b = descriptor(shared + 2 * kA);
  for (int step = 0; step < kSteps; ++step) {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      const uint64_t a = first_a + part * (32 >> 4), b = first_b + part * (32 >> 4);
      if constexpr (kFp8) {
        DSV_WGMMA("m64n256k32.f32.e4m3.e4m3", "1, 1, 1");
      } else {
        DSV_WGMMA("m64n256k16.f32.bf16.bf16", "1, 1, 1, 0, 0");
      }
    }
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  }
  float sum = 0;
  for (const float value : d) sum += value;
  out[blockIdx.x * kThreads + threadIdx.x] = sum;
#endif
}

template <bool kFp8>
double flop_per_s(const bench::Timer& timer) {
  cudaDeviceProp p;
  bench::check_cuda(cudaGetDeviceProperties(&p, 0));
  if (p.major != 9) return 0;
  const bench::Memory out(int64_t{4} * p.multiProcessorCount * kThreads);
  bench::check_cuda(
      cudaFuncSetAttribute(products<kFp8>, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared));
  const double us = timer.median_us([&] {
    // Long enough for the clocks to settle under the load.
    for (int i = 0; i < 4; ++i) products<kFp8><<<p.multiProcessorCount, kThreads, kShared>>>(out.as<float>());
  });
  const double k = kFp8 ? 32 : 16;
  return 4.0 * p.multiProcessorCount * 2 * kSteps * 4 * (2 * 64 * 256 * k) / (us * 1e-6);
}

}  // namespace
}  // namespace dsv::cuda

int main() {
  using namespace dsv::cuda;
  const bench::Timer timer;
  const double fp8 = flop_per_s<true>(timer), bf16 = flop_per_s<false>(timer);
  std::printf("{\"copy_bytes_per_s\": %.6g, \"fp8_flop_per_s\": %.6g, \"bf16_flop_per_s\": %.6g}\n",
              timer.copy(), fp8, bf16);
  return 0;
}
