// Norms of many rows, in the bits of rows.cu's.
//
// Bound: memory. 4096 rows of 7168 to which as much is added, and which are written as sums and as codes of
// both kinds, move 440 MB: 107 us at 4.1 TB/s (93 if what is added is bf16). So each thread has what it will
// read of the next rows copied to shared memory while it adds up this one and writes it, and reads it there
// twice, which spares the registers that two blocks a processor do not have. A warp has the groups of two of
// rows.cu's and adds them up as those do.
#include "kernels/cuda/codes.cuh"
#include "kernels/cuda/copies.cuh"
#include "kernels/cuda/rows.h"

namespace dsv::cuda {
namespace {

constexpr int kThreads = 512, kBlocks = 2;  // at most; a processor at least
constexpr int kShares = 2;                  // warps of rows.cu that a warp stands for
constexpr int kSums = kNormWarps;           // of a row
static_assert(kSums == kShares * kThreads / kWarp);

// Persistent blocks, each of which has rows a grid apart. kStages of them are on their way.
template <int kStages, bool kBf16Delta>
__global__ void __launch_bounds__(kThreads, kBlocks) norm_many_kernel(NormArgs a) {
  const int warps = static_cast<int>(blockDim.x) / kWarp, warp = static_cast<int>(threadIdx.x) / kWarp,
            lane = threadIdx.x % kWarp;
  constexpr int kGroup = static_cast<int>(kQuantBlock);
  const int n = static_cast<int>(a.n), step = warps * kGroup, width = (n + kGroup - 1) / kGroup * kGroup;
  auto* const sums = reinterpret_cast<float*>(shared_memory());  // [2][kSums]
  float* const places = sums + 2 * kSums;                        // [kStages] of x [width] and delta [width]
  const auto* const delta = static_cast<const unsigned char*>(a.delta.data);
  constexpr int kBytes = kBf16Delta ? 2 : 4;  // of a value of delta
  const int64_t delta_pitch = kBf16Delta ? packed_pitch(a.n, Rounding::bf16) : 4 * a.delta_stride;
  const int stage_values = width + (delta ? width * kBytes / 4 : 0), first = warp * kGroup,
            mine = lane * kPerLane;
  begin_early();
  const auto fill = [&](int64_t r, float* to) {
    if (r < a.rows) {
      const int64_t from = a.row ? a.row[r] : r;
#pragma unroll 2
      for (int c = first + mine; c < n; c += step) {
        copy_async(to + c, a.x + from * a.x_stride + c);
        const unsigned char* const more = delta + from * delta_pitch + kBytes * c;
        if (kBf16Delta) {
          copy_async_8(to + width + c / 2, more);
        } else if (delta) {
          copy_async(to + width + c, more);
        }
      }
    }
    copy_commit();
  };
  int64_t r = blockIdx.x;
#pragma unroll
  for (int s = 0; s < kStages; ++s) fill(r + s * int64_t{gridDim.x}, places + s * stage_values);
  const CodeRows e4m3 = {a.e4m3, a.rows, packed_pitch(a.n, Rounding::e4m3), a.form};
  const CodeRows bf16 = {a.bf16, a.rows, packed_pitch(a.n, Rounding::bf16), PackedForm::by_row};
  for (int turn = 0; r < a.rows; r += gridDim.x, ++turn) {
    copy_wait<kStages - 1>();
    float* const place = places + turn % kStages * stage_values;
    const auto read = [&](int c, float(&value)[kPerLane]) {
      const float4 x = *reinterpret_cast<const float4*>(place + c);
      value[0] = x.x, value[1] = x.y, value[2] = x.z, value[3] = x.w;
      if (kBf16Delta) {
        const uint2 d = *reinterpret_cast<const uint2*>(place + width + c / 2);
        value[0] += float_of(d.x << 16), value[1] += float_of(d.x & 0xFFFF0000u);
        value[2] += float_of(d.y << 16), value[3] += float_of(d.y & 0xFFFF0000u);
      } else if (delta) {
        const float4 d = *reinterpret_cast<const float4*>(place + width + c);
        value[0] += d.x, value[1] += d.y, value[2] += d.z, value[3] += d.w;
      }
    };
    // Those of the row before are read until the barrier: these are others.
    float* const row_sums = sums + turn % 2 * kSums;
#pragma unroll
    for (int share = 0; share < kShares; ++share) {
      float squares = 0;
#pragma unroll
      for (int k = 0; k < kNormRounds; ++k) {
        const int c = first + mine + (k * kShares + share) * step;
        if (c >= n) break;
        float value[kPerLane];
        read(c, value);
#pragma unroll
        for (int j = 0; j < kPerLane; ++j) squares = fmaf(value[j], value[j], squares);
      }
      squares = warp_sum(squares);
      if (lane == 0) row_sums[share * warps + warp] = squares;
    }
    __syncthreads();
    const float all = warp_sum(lane < kShares * warps ? row_sums[lane] : 0);
    const float factor = 1 / sqrtf(all / static_cast<float>(a.n) + a.eps);
#pragma unroll 2
    for (int begin = first; begin < n; begin += step) {
      const int c = begin + mine;
      float normed[kPerLane] = {};
      if (c < n) {
        float value[kPerLane];
        read(c, value);
        const float4 w = *reinterpret_cast<const float4*>(a.weight + c);
        const float by[kPerLane] = {w.x, w.y, w.z, w.w};
        if (a.x_out) {
          *reinterpret_cast<float4*>(a.x_out + r * a.x_stride + c) = {value[0], value[1], value[2], value[3]};
        }
#pragma unroll
        for (int j = 0; j < kPerLane; ++j) {
          normed[j] = value[j] * factor * by[j];
          if (a.to_bf16) normed[j] = round_bf16(normed[j]);
        }
        if (a.out) {
          *reinterpret_cast<float4*>(a.out + r * a.out_stride + c) = {normed[0], normed[1], normed[2],
                                                                      normed[3]};
        }
      }
      if (a.e4m3) put_e4m3(e4m3, r, begin / kGroup, normed, a.power_of_two);
      if (a.bf16) put_bf16(bf16, r, begin / kGroup, normed);
    }
    fill(r + kStages * int64_t{gridDim.x}, place);  // what this thread has read
  }
}

}  // namespace

bool takes_norm_many(const NormArgs& a) {
  const NormShape shape(a.n);
  return (a.rows >= kNormManyRows || a.delta.bf16) && shape.rounds <= kNormRounds &&
         shape.warps % kShares == 0 && a.n % kPerLane == 0 && a.x_stride % kPerLane == 0 &&
         a.out_stride % kPerLane == 0 && a.delta_stride % kPerLane == 0;
}

void launch_norm_many(const NormArgs& a, Stream stream) {
  const NormShape shape(a.n);
  const int threads = shape.warps / kShares * kWarp;
  const int64_t row = (a.delta.bf16   ? 6
                       : a.delta.data ? 8
                                      : 4) *
                      shape.groups * kQuantBlock,
                blocks = int64_t{processors()} * (kBlocks * kThreads / threads);
  const Grid grid = {blocks < 1 ? 1 : blocks < a.rows ? blocks : a.rows, 1, 1, true};
  const int64_t ahead = on_hopper() ? 2 : 1;
  const auto kernel = a.delta.bf16 ? (ahead == 2 ? norm_many_kernel<2, true> : norm_many_kernel<1, true>)
                                   : (ahead == 2 ? norm_many_kernel<2, false> : norm_many_kernel<1, false>);
  launch(kernel, grid, threads, 8 * kSums + ahead * row, stream, a);
}

}  // namespace dsv::cuda
