// Weights times rows of input on the tensor cores: what linear_few.cu and linear_many.cu share.
//
// The order of a sum is fixed by the weight's shape alone, so a row's result is bitwise the same whichever
// kernel computes it and whatever rows are beside it. The columns are cut into blocks of 128 bytes (128 FP8
// values with one scale, or 64 bf16 values). A block's products are added by mma instructions in one order,
// in fp32 (both formats' products are exact in it); the block's sum is scaled and added to its split's; the
// splits (tensor_splits: contiguous blocks) are added in order at the end.
//
// Weights are the 16 x 16 operand and inputs the 16 x 8 one, so few rows waste little. An mma does not care
// which columns its 16 are, as long as both operands agree: a lane takes 16 consecutive bytes of its row,
// four lanes 64 bytes (a unit), and word j of each is an mma's (FP8), or words 2 j and 2 j + 1 are (bf16).
#pragma once

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/formats.h"

namespace dsv::cuda {

inline constexpr int kUnitBytes = 64, kUnits = kTensorBlock / kUnitBytes;  // of a block
inline constexpr int kMmaRows = 16, kMmaCols = 8;                          // outputs, rows of input

// Column 2 t + i % 2 and output g + i / 2 * 8 of sum i; lane = 4 g + t.
struct MmaSums {
  float value[4] = {};
};

#ifdef DSV_CUDA_EMULATION

inline uint4 load_once(const unsigned char* at) { return *reinterpret_cast<const uint4*>(at); }
inline void copy_async_16(void* shared, const void* global, bool valid) {
  const uint4 zero = {0, 0, 0, 0};
  memcpy(shared, valid ? global : &zero, 16);
}
inline void copy_async_4(void* shared, const void* global, bool valid) {
  const uint32_t zero = 0;
  memcpy(shared, valid ? global : &zero, 4);
}
inline void copy_commit() {}
template <int kPending>
void copy_wait() {}

inline void e4m3x4_to_f16(uint32_t codes, uint32_t& low, uint32_t& high) {
  const auto half = [&](int i) { return uint32_t{e4m3_to_f16(codes >> 8 * i & 0xFF)}; };
  low = half(0) | half(1) << 16;
  high = half(2) | half(3) << 16;
}

template <Dtype kDtype>
void mma(MmaSums& sums, const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  uint32_t words[6][kWarp];
  for (int i = 0; i < 6; ++i) {
    memcpy(words[i], emulation::exchange(kAllLanes, i < 4 ? a[i] : b[i - 4]), sizeof words[i]);
  }
  const auto value = [](uint32_t word, int k) {
    const auto code = static_cast<uint16_t>(word >> 16 * (k % 2));
    return kDtype == Dtype::bf16 ? bf16_to_float(code) : f16_to_float(code);
  };
  const unsigned g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
  for (unsigned i = 0; i < 4; ++i) {
    for (int k = 0; k < 16; ++k) {  // column k: word k / 8 of lane k % 8 / 2
      const int lane = k % 8 / 2;
      const float w = value(words[k / 8 * 2 + i / 2][4 * g + lane], k);
      const float x = value(words[4 + k / 8][4 * (2 * t + i % 2) + lane], k);
      sums.value[i] = fmaf(w, x, sums.value[i]);
    }
  }
}

#else

// A weight's bytes, which nothing reads again before the cache has forgotten them.
__device__ __forceinline__ uint4 load_once(const unsigned char* at) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(at));
  return v;
}

__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
               "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void copy_async_4(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
               "l"(global), "r"(valid ? 4 : 0)
               : "memory");
}
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Four e4m3 codes as two pairs of f16, which holds every e4m3 value.
__device__ __forceinline__ void e4m3x4_to_f16(uint32_t codes, uint32_t& low, uint32_t& high) {
#if __CUDA_ARCH__ >= 890
  asm("{ .reg .b16 a, b; mov.b32 {a, b}, %2; cvt.rn.f16x2.e4m3x2 %0, a; cvt.rn.f16x2.e4m3x2 %1, b; }"
      : "=r"(low), "=r"(high)
      : "r"(codes));
#else
  // The code's bits in f16's places are the value * 2^-8, subnormals included; NaN becomes 480.
  const uint32_t two = __byte_perm(codes, 0, 0x1404), other = __byte_perm(codes, 0, 0x3424);
  low = (two & 0x80008000u) | (two & 0x7F007F00u) >> 1;
  high = (other & 0x80008000u) | (other & 0x7F007F00u) >> 1;
  asm("mul.f16x2 %0, %0, %1;" : "+r"(low) : "r"(0x5C005C00u));
  asm("mul.f16x2 %0, %0, %1;" : "+r"(high) : "r"(0x5C005C00u));
#endif
}

template <Dtype kDtype>
__device__ __forceinline__ void mma(MmaSums& s, const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (kDtype == Dtype::bf16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(s.value[0]), "+f"(s.value[1]), "+f"(s.value[2]), "+f"(s.value[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(s.value[0]), "+f"(s.value[1]), "+f"(s.value[2]), "+f"(s.value[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

#endif

// A lane's 16 bytes of a row, unit by unit, as words of mma operands.
template <Dtype kDtype>
struct Operand {
  static constexpr int kSteps = kDtype == Dtype::bf16 ? 2 : 4;  // mmas of a unit
  uint32_t low[kSteps], high[kSteps];                           // columns 0 to 7, and 8 to 15

  __device__ __forceinline__ void set(const uint4& raw) {
    if constexpr (kDtype == Dtype::bf16) {
      low[0] = raw.x, high[0] = raw.y, low[1] = raw.z, high[1] = raw.w;
    } else {
      e4m3x4_to_f16(raw.x, low[0], high[0]);
      e4m3x4_to_f16(raw.y, low[1], high[1]);
      e4m3x4_to_f16(raw.z, low[2], high[2]);
      e4m3x4_to_f16(raw.w, low[3], high[3]);
    }
  }
};

// Mma j of a unit: outputs from rows g and g + 8 of a, rows of input from row g of b. In order, all kSteps.
template <Dtype kDtype>
__device__ __forceinline__ void add_step(MmaSums& sums, const Operand<kDtype>& a0, const Operand<kDtype>& a1,
                                         const Operand<kDtype>& b, int j) {
  const uint32_t a[4] = {a0.low[j], a1.low[j], a0.high[j], a1.high[j]}, two[2] = {b.low[j], b.high[j]};
  mma<kDtype>(sums, a, two);
}

// part += sums, scaled if the weight is FP8; sums = 0: the end of a block.
template <Dtype kDtype>
__device__ __forceinline__ void end_block(MmaSums& part, MmaSums& sums, float weight_scale, float x_scale0,
                                          float x_scale1) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (kDtype == Dtype::f8_e4m3) {
      part.value[i] = fmaf(sums.value[i], weight_scale * (i % 2 ? x_scale1 : x_scale0), part.value[i]);
    } else {
      part.value[i] += sums.value[i];
    }
    sums.value[i] = 0;
  }
}

// What a block of threads works on: some outputs of a weight, or of one expert's, for some rows of input.
struct TensorTile {
  WeightView weight, up;  // up only for SwiGLU
  int32_t begin, count;   // rows of y
};

__device__ __forceinline__ bool tensor_tile(const TensorArgs& a, int32_t at, TensorTile* tile) {
  int32_t expert = 0;
  if (a.tiles) {
    const ExpertTile t = a.tiles[at];  // has tile_bound elements: read beside n_tiles, not after it
    if (at >= *a.n_tiles) return false;
    expert = t.expert, tile->begin = t.begin, tile->count = t.count;
  } else {
    tile->begin = at * a.tile_rows;
    tile->count = a.rows - tile->begin < a.tile_rows ? a.rows - tile->begin : a.tile_rows;
  }
  if (a.kind == TensorKind::linear) {
    tile->weight = a.weight;
  } else if (a.kind == TensorKind::down) {
    tile->weight = a.ffn[expert].down;
  } else {
    tile->weight = a.ffn[expert].gate;
    tile->up = a.ffn[expert].up;
  }
  return true;
}

// Row of x of row i of a tile.
__device__ __forceinline__ int64_t input_row(const TensorArgs& a, const TensorTile& tile, int i) {
  return a.pair_row ? a.pair_row[tile.begin + i] : tile.begin + i;
}

__device__ __forceinline__ float swiglu(float gate, float up) { return gate / (1 + expf(-gate)) * up; }

__device__ __forceinline__ void store_output(const TensorArgs& a, int64_t row, int64_t output, float sum) {
  const float y = sum * a.factor;
  a.y[row * a.y_stride + output] = a.to_bf16 ? round_bf16(y) : y;
}

}  // namespace dsv::cuda
