// What linear_fp8.cu and linear_fp8_few.cu share.
#pragma once

#include "kernels/cuda/codes.cuh"
#include "kernels/cuda/tensor.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace dsv::cuda {

inline constexpr int kBoxBytes = kMapRows * static_cast<int>(kTensorBlock);
inline constexpr int kGroupThreads = 128;
inline constexpr int kMostShared = 227 * 1024;

struct Fp8Args {
  TensorMap x, weight;  // weight: of a linear; FFNs bring theirs
  TensorArgs a;
  int32_t row_tiles, columns;  // columns: tiles of outputs
};

// Scales of the weight's rows from `row` on, one for each block of columns.
__device__ __forceinline__ const float* scales_from(const WeightView& w, int64_t row, int64_t outputs) {
  const int64_t at = row / kQuantBlock, last = (outputs - 1) / kQuantBlock;
  return w.scale + (at < last ? at : last) * w.scale_cols;
}

// Tells f, as a constant, how many eights of kOutputs outputs from `first` on have the scale of the first;
// the others have the next. Choosing by a number that the compiler does not know takes longer than the sums.
template <int kCount>
struct Eights {
  static constexpr int kValue = kCount;
};
template <int kOutputs, int kFirst = kQuantBlock - (kOutputs & -kOutputs), class F>
__device__ __forceinline__ void with_former(int first, const F& f) {
  constexpr int kBlock = static_cast<int>(kQuantBlock), kLeft = kBlock - kFirst;
  if constexpr (kOutputs <= kLeft) {
    f(Eights<kOutputs / 8>{});
  } else if constexpr (kFirst == 0) {
    f(Eights<kBlock / 8>{});
  } else if (first % kBlock == kFirst) {
    f(Eights<kLeft / 8>{});
  } else {
    with_former<kOutputs, kFirst - (kOutputs & -kOutputs)>(first, f);
  }
}

// Output i of a lane's sums; for SwiGLU the first half of them is gate, the other up.
template <bool kSwiglu, int kSums>
__device__ __forceinline__ float output_of(const TensorArgs& a, const float (&sum)[kSums], int i) {
  return (kSwiglu ? swiglu(sum[i], sum[i + kSums / 2 * kSwiglu]) : sum[i]) * a.factor;
}

// A product's sums 4 i + 2 r + c are of row g + 8 r of a warp's 16 and of output 8 i + 2 t + c. Writes those
// of row g + 8 r, which is row `row` of y. Lanes swap so that each has four neighbouring outputs of every
// second eight; all lanes of the warp come here.
template <bool kSwiglu, int kSums>
__device__ __forceinline__ void store_row(const TensorArgs& a, const float (&sum)[kSums], int r, int64_t row,
                                          bool valid, int64_t first_output) {
  constexpr int kEights = kSums / 4 / (kSwiglu ? 2 : 1);
  const int t = threadIdx.x % 4;
  const bool odd = t % 2, whole = a.y_stride % 4 == 0 && reinterpret_cast<uintptr_t>(a.y) % 16 == 0 &&
                                  first_output + 8 * kEights <= a.outputs;
  const int64_t output = first_output + 8 * odd + 2 * (t & 2);
  float* const y = a.y + row * a.y_stride + output;
#pragma unroll
  for (int p = 0; p < (kEights + 1) / 2; ++p) {
    float v[2][2];
#pragma unroll
    for (int b = 0; b < 2; ++b) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const int eight = 2 * p + b < kEights ? 2 * p + b : kEights - 1;
        v[b][c] = output_of<kSwiglu>(a, sum, eight * 4 + 2 * r + c);
      }
    }
    const float other0 = __shfl_xor_sync(kAllLanes, odd ? v[0][0] : v[1][0], 1);
    const float other1 = __shfl_xor_sync(kAllLanes, odd ? v[0][1] : v[1][1], 1);
    const float four[4] = {odd ? other0 : v[0][0], odd ? other1 : v[0][1], odd ? v[1][0] : other0,
                           odd ? v[1][1] : other1};
    if (!valid || (2 * p + 1 == kEights && odd)) continue;
    if (whole) {
      *reinterpret_cast<float4*>(y + 16 * p) = {four[0], four[1], four[2], four[3]};
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (output + 16 * p + i < a.outputs) y[16 * p + i] = four[i];
      }
    }
  }
}

// store_row's, as bf16 codes: lanes swap so that each has eight neighbouring outputs of every fourth eight.
template <int kSums>
__device__ __forceinline__ void store_bf16_row(const TensorArgs& a, const float (&sum)[kSums], int r,
                                               int64_t row, bool valid, int64_t first_output) {
  constexpr int kFours = kSums / 16, kTurn = 32;  // outputs of four lanes at a time
  static_assert(kSums % 16 == 0);
  unsigned char* const to = a.codes.data + row * a.codes.pitch;
  // Byte of the row, where what comes before in parts takes as much again; and outputs left of this part.
  const auto part = static_cast<int32_t>(a.codes.part), first = static_cast<int32_t>(first_output);
  int32_t gap = part ? first / part * part : 0, left = part ? gap + part - first : kFours * kTurn;
#pragma unroll
  for (int q = 0; q < kFours; ++q) {
    uint32_t word[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = (4 * q + i) * 4 + 2 * r;
      word[i] = pack_bf16(output_of<false>(a, sum, at), output_of<false>(a, sum, at + 1));
    }
    transpose_fours(word);
    const int64_t at = 2 * (first + gap + kTurn * q + 8 * static_cast<int32_t>(threadIdx.x % 4));
    if (valid && at < a.codes.pitch)  // a row is whole blocks, or parts
      *reinterpret_cast<uint4*>(to + at) = {word[0], word[1], word[2], word[3]};
    left -= kTurn;
    if (left == 0) gap += part, left = part;
  }
}

#ifdef DSV_HOPPER

// A ring of stages in shared memory: kStages blocks of Form::kStage bytes, then as many of scales, of the
// input's rows and of the weight; barriers behind them. A stage is full when its bytes and the weight's
// scales are there, and empty when Form::kReaders warps have read it.
template <class Form>
struct Fp8Ring {
  uint32_t stages;
  int stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ uint32_t input() const { return stages + stage * Form::kStage; }
  __device__ __forceinline__ uint32_t weight() const { return input() + Form::kInput; }
  __device__ __forceinline__ uint32_t row_scales() const {
    return stages + Form::kStages * Form::kStage + stage * Form::kScales;
  }
  __device__ __forceinline__ uint32_t weight_scales() const { return row_scales() + Form::kRowScales; }
  __device__ __forceinline__ uint32_t full(int s) const {
    return stages + Form::kStages * (Form::kStage + Form::kScales) + 8 * s;
  }
  __device__ __forceinline__ uint32_t empty(int s) const { return full(Form::kStages) + 8 * s; }
  __device__ __forceinline__ uint32_t end() const { return empty(Form::kStages); }
  __device__ __forceinline__ void next(int by = 1) {
    stage += by;
    if (stage >= Form::kStages) stage -= Form::kStages, parity ^= 1;
  }
  __device__ __forceinline__ void back() {
    if (--stage < 0) stage = Form::kStages - 1, parity ^= 1;
  }
  __device__ __forceinline__ void init() {
    for (int s = 0; s < Form::kStages; ++s) {
      hopper::barrier_init(full(s), 2);
      hopper::barrier_init(empty(s), Form::kReaders);
    }
  }
};

// What a tile's copies take: the weight, or gate and up, and the scales of its rows from a multiple of four
// on, where a copy may begin.
struct Fp8Source {
  const TensorMap *first, *second;
  const float* scale;
  uint32_t scale_bytes;
};
template <class Form, bool kFew>
__device__ __forceinline__ Fp8Source source_of(const Fp8Args& args, int32_t expert, int32_t begin) {
  const TensorArgs& a = args.a;
  Fp8Source from = {&args.weight, &args.weight, a.x.scale + (begin & ~3), Form::kRowScales};
  if (a.kind != TensorKind::linear) {
    const FfnMaps& maps = kFew ? a.ffn[expert].few_maps : a.ffn[expert].maps;
    from.first = Form::kSwiglu ? &maps.gate : &maps.down, from.second = &maps.up;
    hopper::acquire_map(from.first);
    if (Form::kSwiglu) hopper::acquire_map(from.second);
  }
  const int64_t rest = 4 * (a.x.scale_cols - (begin & ~3));  // bytes, a multiple of 16
  if (rest < Form::kRowScales) from.scale_bytes = static_cast<uint32_t>(rest);
  return from;
}

// A warp puts a tile's scales of the weight into the stages: of each block kScales, from as many rows.
template <int kScales, class Form>
__device__ __forceinline__ void bring_scales(const float* const (&scale)[kScales], int blocks,
                                             Fp8Ring<Form>& ring) {
  const int lane = threadIdx.x % kWarp;
  for (int block = 0; block < blocks; block += kWarp) {
    const int at = block + lane < blocks ? block + lane : blocks - 1;
    float mine[kScales];
#pragma unroll
    for (int i = 0; i < kScales; ++i) mine[i] = __ldg(scale[i] + at);
    const int most = blocks - block < kWarp ? blocks - block : kWarp;
    for (int whose = 0; whose < most; ++whose, ring.next()) {
      hopper::barrier_wait(ring.empty(ring.stage), ring.parity ^ 1);
      if (lane != whose) continue;
#pragma unroll
      for (int i = 0; i < kScales; ++i) hopper::store_shared(ring.weight_scales() + 4 * i, mine[i]);
      hopper::barrier_arrive(ring.full(ring.stage));
    }
  }
}

#endif

}  // namespace dsv::cuda
