// Tensor-core fragments for kernels that run from sm_80 on, and the 16-bit formats they take.
//
// A warp multiplies a [16, 16] matrix A by a [16, 8] matrix B onto a [16, 8] matrix C of f32. With g = lane /
// 4 and t = 2 * (lane % 4), a lane holds
//   A  a[0]: (g, t), (g, t + 1)           a[1]: the same of row g + 8
//      a[2]: (g, t + 8), (g, t + 9)       a[3]: the same of row g + 8
//   B  b0: (t, g), (t + 1, g)             b1: (t + 8, g), (t + 9, g)
//   C  c[0], c[1]: (g, t), (g, t + 1)     c[2], c[3]: the same of row g + 8
// two 16-bit values in a register, the first in the lower half.
#pragma once

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/formats.h"

namespace dsv::cuda {

// Two neighbours in memory, moved by one access.
struct alignas(8) Pair {
  float x, y;
};
struct alignas(8) WordPair {
  uint32_t x, y;
};

#ifdef DSV_CUDA_EMULATION

inline uint32_t pack_bf16(float low, float high) {
  return float_to_bf16(low) | static_cast<uint32_t>(float_to_bf16(high)) << 16;
}
inline uint32_t pack_f16(float low, float high) {
  return float_to_f16(low) | static_cast<uint32_t>(float_to_f16(high)) << 16;
}
inline uint32_t mul_f16(uint32_t a, uint32_t b) {
  const auto half = [](uint32_t x, int which) {
    return f16_to_float(static_cast<uint16_t>(x >> 16 * which));
  };
  return pack_f16(half(a, 0) * half(b, 0), half(a, 1) * half(b, 1));
}

inline float exp2_fast(float x) { return exp2f(x); }
inline Pair unpack_f16(uint32_t word) {
  return {f16_to_float(static_cast<uint16_t>(word)), f16_to_float(static_cast<uint16_t>(word >> 16))};
}

// f32 sums, k ascending; the products are exact.
template <class Decode>
void emulated_mma(float* c, const uint32_t* a, uint32_t b0, uint32_t b1, Decode decode) {
  const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
  const auto* all = emulation::exchange_wide(kAllLanes, mine, 6);
  const unsigned lane = threadIdx.x % kWarp;
  const auto value = [&](uint32_t word, unsigned k) {
    return decode(static_cast<uint16_t>(word >> 16 * (k & 1)));
  };
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane / 4, column = 2 * (lane % 4) + i % 2;
    for (unsigned k = 0; k < 16; ++k) {
      const unsigned from = k % 8 / 2, upper = k / 8;
      c[i] += value(all[4 * row + from][2 * upper + i / 2], k) * value(all[4 * column + from][4 + upper], k);
    }
  }
}
inline void mma_f16(float* c, const uint32_t* a, uint32_t b0, uint32_t b1) {
  emulated_mma(c, a, b0, b1, f16_to_float);
}
inline void mma_bf16(float* c, const uint32_t* a, uint32_t b0, uint32_t b1) {
  emulated_mma(c, a, b0, b1, bf16_to_float);
}

template <bool kTransposed>
void emulated_load(uint32_t* out, const uint16_t* row) {
  const auto offset =
      static_cast<uint32_t>(reinterpret_cast<const unsigned char*>(row) - emulation::block_memory);
  if (offset % 16 != 0) std::abort();  // a misaligned row
  const uint32_t* all = emulation::exchange(kAllLanes, offset);
  const unsigned lane = threadIdx.x % kWarp, g = lane / 4, t = 2 * (lane % 4);
  for (unsigned m = 0; m < 4; ++m) {
    uint32_t word = 0;
    for (unsigned i = 0; i < 2; ++i) {
      const unsigned r = kTransposed ? t + i : g, c = kTransposed ? g : t + i;
      uint16_t value;
      std::memcpy(&value, emulation::block_memory + all[8 * m + r] + 2 * c, 2);
      word |= static_cast<uint32_t>(value) << 16 * i;
    }
    out[m] = word;
  }
}
inline void load_matrices(uint32_t* out, const uint16_t* row) { emulated_load<false>(out, row); }
inline void load_transposed(uint32_t* out, const uint16_t* row) { emulated_load<true>(out, row); }

#else

__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  uint32_t out;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
}
__device__ __forceinline__ uint32_t pack_f16(float low, float high) {
  uint32_t out;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
}
__device__ __forceinline__ uint32_t mul_f16(uint32_t a, uint32_t b) {
  uint32_t out;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
}

// 2^x to 2 ulp, without subnormal results.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ Pair unpack_f16(uint32_t word) {
  Pair out;
  asm("{ .reg .b16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b; }"
      : "=f"(out.x), "=f"(out.y)
      : "r"(word));
  return out;
}

// c += a b
__device__ __forceinline__ void mma_f16(float* c, const uint32_t* a, uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void mma_bf16(float* c, const uint32_t* a, uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four [8, 8] matrices of 16-bit values from shared memory: lane l brings the address of row l % 8 of matrix
// l / 8, 16-byte aligned, and gets of each matrix (g, t), (g, t + 1), or if transposed (t, g), (t + 1, g).
__device__ __forceinline__ void load_matrices(uint32_t* out, const uint16_t* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
}
__device__ __forceinline__ void load_transposed(uint32_t* out, const uint16_t* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
}

#endif

// A [16, 16] matrix as A, rows `stride` values apart. stride: such that 8 rows lie in different banks.
__device__ __forceinline__ void load_a(uint32_t* a, const uint16_t* matrix, int stride) {
  const int lane = threadIdx.x % kWarp;
  load_matrices(a, matrix + lane % 16 * stride + lane / 16 * 8);
}
// A [16, 16] matrix whose rows are the columns of two B: b[0], b[1] of its first 8 rows, b[2], b[3] of the
// others. swap: 1 if columns 8 to 15 lie before 0 to 7.
__device__ __forceinline__ void load_b_rows(uint32_t* b, const uint16_t* matrix, int stride, int swap = 0) {
  const int lane = threadIdx.x % kWarp;
  load_matrices(b, matrix + (lane / 16 * 8 + lane % 8) * stride + (lane / 8 % 2 ^ swap) * 8);
}
// A [16, 16] matrix [k, n] as two B: b[0], b[1] of its first 8 columns, b[2], b[3] of the others.
__device__ __forceinline__ void load_b(uint32_t* b, const uint16_t* matrix, int stride, int swap = 0) {
  const int lane = threadIdx.x % kWarp;
  load_transposed(b, matrix + lane % 16 * stride + (lane / 16 ^ swap) * 8);
}

// Two bytes of a word as the upper halves of 16-bit values.
template <int kLow, int kHigh>
__device__ __forceinline__ uint32_t spread_bytes(uint32_t word) {
#ifdef __CUDA_ARCH__
  return __byte_perm(word, 0, 0x404 | kLow << 4 | kHigh << 12);
#else
  return (word >> 8 * kLow & 0xFF) << 8 | (word >> 8 * kHigh & 0xFF) << 24;
#endif
}

// A half of a word twice.
__device__ __forceinline__ uint32_t spread_lower(uint32_t word) {
#ifdef __CUDA_ARCH__
  return __byte_perm(word, 0, 0x1010);
#else
  return word << 16 | (word & 0xFFFF);
#endif
}
__device__ __forceinline__ uint32_t spread_upper(uint32_t word) {
#ifdef __CUDA_ARCH__
  return __byte_perm(word, 0, 0x3232);
#else
  return word >> 16 | (word & 0xFFFF0000u);
#endif
}

// Writes NaN where it has become 480.
__device__ __forceinline__ void keep_nan(uint32_t codes, uint32_t& low, uint32_t& high) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if ((codes >> 8 * i & 0x7F) == 0x7F) (i < 2 ? low : high) |= 0x7FFFu << 16 * (i % 2);
  }
}

// Four e4m3 codes as two pairs of f16, which holds every e4m3 value. Before sm_89 NaN becomes 480.
__device__ __forceinline__ void e4m3x4_to_f16(uint32_t codes, uint32_t& low, uint32_t& high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  asm("{ .reg .b16 a, b; mov.b32 {a, b}, %2; cvt.rn.f16x2.e4m3x2 %0, a; cvt.rn.f16x2.e4m3x2 %1, b; }"
      : "=r"(low), "=r"(high)
      : "r"(codes));
#else
  // Exponent and mantissa where f16 has them, 8 too small, which a product with 2^8 mends, subnormals
  // included.
  constexpr uint32_t kSign = 0x80008000u, kRest = 0x7F007F00u, k256 = 0x5C005C00u;
  low = spread_bytes<0, 1>(codes), high = spread_bytes<2, 3>(codes);
  low = (low & kSign) | (low & kRest) >> 1;
  high = (high & kSign) | (high & kRest) >> 1;
#ifdef DSV_CUDA_EMULATION
  low = mul_f16(low, k256), high = mul_f16(high, k256);
  keep_nan(codes, low, high);  // memory is poisoned with it
#else
  asm("mul.f16x2 %0, %0, %1;" : "+r"(low) : "r"(k256));
  asm("mul.f16x2 %0, %0, %1;" : "+r"(high) : "r"(k256));
#endif
#endif
}

// Sixteen, and NaN stays.
__device__ __forceinline__ void e4m3_to_f16(const uint4& codes, uint32_t* out) {
  const uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) e4m3x4_to_f16(words[i], out[2 * i], out[2 * i + 1]);
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ < 890
  uint32_t nan = 0;
  for (const uint32_t word : words) nan |= (word & 0x7F7F7F7Fu) + 0x01010101u;
  if ((nan & 0x80808080u) == 0) return;
#pragma unroll
  for (int i = 0; i < 4; ++i) keep_nan(words[i], out[2 * i], out[2 * i + 1]);
#endif
}

// Four e4m3 codes as two pairs of bf16: the code's bits in bf16's places are the value * 2^-120.
__device__ __forceinline__ void e4m3x4_to_bf16(uint32_t codes, uint32_t& low, uint32_t& high) {
#ifdef DSV_CUDA_EMULATION
  const auto code = [&](int i) { return uint32_t{float_to_bf16(e4m3_to_float(codes >> 8 * i & 0xFF))}; };
  low = code(0) | code(1) << 16;
  high = code(2) | code(3) << 16;
#else
  constexpr uint32_t kSign = 0x80008000u, kRest = 0x7F007F00u;
  low = spread_bytes<0, 1>(codes), high = spread_bytes<2, 3>(codes);
  low = (low & kSign) | (low & kRest) >> 4;
  high = (high & kSign) | (high & kRest) >> 4;
  asm("fma.rn.bf16x2 %0, %0, %1, %2;" : "+r"(low) : "r"(0x7B807B80u), "r"(kSign));
  asm("fma.rn.bf16x2 %0, %0, %1, %2;" : "+r"(high) : "r"(0x7B807B80u), "r"(kSign));
#endif
}

// Four e4m3 codes as two pairs of f16, the even ones and the odd ones, times 2^-8: the exponent's bias stays.
// Exact, subnormals included. (The code of NaN becomes a number.)
__device__ __forceinline__ void e4m3x4_to_small_f16(uint32_t codes, uint32_t& even, uint32_t& odd) {
  const uint32_t up = codes << 8;
  even = (up & 0x80008000u) | (up >> 1 & 0x3F803F80u);
  odd = (codes & 0x80008000u) | (codes >> 1 & 0x3F803F80u);
}

}  // namespace dsv::cuda
