// W_v of every head for many rows on Hopper, in the bits of linear_many.cu; or the codes of that which the
// output projection takes with FP8 sums, in those of rows.cu: a head is a group of 128 values.
//
// Bound: memory. A row of 128 heads brings 128 KB of mixed latents as bf16 and takes 64 KB of f32, or 16.5 KB
// of codes: 4096 rows move 805 or 604 MB, 196 or 147 us at 4.1 TB/s; their products take 100 by wgmma. A
// block keeps a head's weights in shared memory, as bf16 and in the order of tensor.cuh's steps, which wgmma
// sums as mma.sync does. Two groups of warps go through its rows, 64 at a time, which come to registers as
// operand A; two blocks of columns are on their way to shared memory while one is multiplied.
#include "kernels/cuda/attend.h"
#include "kernels/cuda/codes.cuh"
#include "kernels/cuda/head_rows.cuh"
#include "kernels/cuda/tensor.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace dsv::cuda {
namespace {

constexpr int kOutputs = 128, kThreads = kHeadGroups * 128, kWarps = kThreads / kWarp;
constexpr int kBlocks = 4, kPitch = kBlocks * static_cast<int>(kTensorBlock);  // columns of 128 latents
constexpr int kBox = kOutputs * 128;  // bytes of a unit of columns: a row of 64 bf16 for each output
constexpr int kWeights = kBlocks * kUnits * kBox, kStages = 2;
constexpr int kRowBytes = 256;                     // of a block of columns
using Latents = WarpRows<kRowBytes, 16, kStages>;  // 2 rows of every other chunk meet all banks
constexpr int kShared = kWeights + kWarps * Latents::kMemory;
static_assert(kShared <= kAttendWgmmaShared);

#ifdef DSV_HOPPER

using namespace hopper;

// Row n of the products' operand B is output 16 (n / 16) + 4 (n % 8 / 2) + 2 (n / 8 % 2) + n % 2, so that a
// lane's sums are of four neighbours.
__device__ __forceinline__ int output_of_row(int n) {
  return n / 16 * 16 + n % 8 / 2 * 4 + n / 8 % 2 * 2 + n % 2;
}

// A head's weights as operand B: word t of step j of a unit is columns 16 t + 4 j + 0 and 1, word t + 4 the
// next two. A thread brings a unit of an output at a time, and all of its units at once.
__device__ __forceinline__ void put_weights(const TensorArgs& a, int64_t first_row, unsigned char* boxes) {
  constexpr int kLoads = kOutputs * kBlocks * kUnits / kThreads;
  const int n = static_cast<int>(threadIdx.x) % kOutputs, first = static_cast<int>(threadIdx.x) / kOutputs;
  const unsigned char* const from = a.weight.data + (first_row + output_of_row(n)) * a.weight.pitch;
  uint4 raw[kLoads][4];
#pragma unroll
  for (int i = 0; i < kLoads; ++i) {
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      raw[i][t] = load_once(from + (first + i * (kThreads / kOutputs)) * kUnitBytes + 16 * t);
    }
  }
#pragma unroll
  for (int i = 0; i < kLoads; ++i) {
    unsigned char* const row = boxes + (first + i * (kThreads / kOutputs)) * kBox + n * 128;
    const auto put = [&](int chunk, const uint32_t(&words)[4]) {
      *reinterpret_cast<uint4*>(row + (chunk ^ n % 8) * 16) = {words[0], words[1], words[2], words[3]};
    };
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      uint32_t low[4], high[4];
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        const uint32_t words[4] = {raw[i][t].x, raw[i][t].y, raw[i][t].z, raw[i][t].w};
        e4m3x4_to_bf16(words[j], low[t], high[t]);
      }
      put(2 * j, low);
      put(2 * j + 1, high);
    }
  }
}

// A row's codes of a head, of which a lane has the values 16 i + 4 t .. + 3. All lanes; `valid`: the row is
// there.
__device__ __forceinline__ void put_codes(const TensorArgs& a, int64_t row, bool valid,
                                          const float (&v)[8][kPerLane]) {
  const int t = threadIdx.x % 4;
  const int64_t head = blockIdx.y;
  float amax = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
#pragma unroll
    for (int c = 0; c < kPerLane; ++c) amax = fmaxf(amax, fabsf(v[i][c]));
  }
  amax = fmaxf(amax, __shfl_xor_sync(kAllLanes, amax, 1));
  amax = fmaxf(amax, __shfl_xor_sync(kAllLanes, amax, 2));
  const float scale = e4m3_scale(amax, true);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    uint32_t word[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) word[i] = four_e4m3(v[4 * half + i], scale, true);
    transpose_fours(word);
    if (valid)
      *reinterpret_cast<uint4*>(a.codes.data + row * a.codes.pitch + head * kOutputs + 64 * half + 16 * t) = {
          word[0], word[1], word[2], word[3]};
  }
  if (valid && t == 0) a.codes.scale[head * a.codes.scale_cols + row] = scale;
}

#endif

// Grid: x parts of the rows, y heads.
__global__ void __launch_bounds__(kThreads, 1)
    heads_wgmma_kernel([[maybe_unused]] const __grid_constant__ TensorArgs a) {
#ifdef DSV_HOPPER
  const int tid = static_cast<int>(threadIdx.x), warp = tid / kWarp, lane = tid % kWarp, g = lane / 4,
            t = lane % 4;
  const int64_t head = blockIdx.y, first_weight = head * a.group_rows + a.first_row;
  unsigned char* const boxes = shared_memory();  // 1024-byte aligned
  const Latents latents = {boxes + kWeights + warp * Latents::kMemory};
  put_weights(a, first_weight, boxes);
  const float* const scales = a.weight.scale + first_weight / kQuantBlock * a.weight.scale_cols;
  float scale[kBlocks];
#pragma unroll
  for (int b = 0; b < kBlocks; ++b) scale[b] = scales[b];
  fence_for_wgmma();
  __syncthreads();
  wait_for_last();

  const int all = (a.rows + kHeadTile - 1) / kHeadTile, parts = static_cast<int>(gridDim.x),
            part = static_cast<int>(blockIdx.x);
  const int end = all * (part + 1) / parts, mine = warp % 4 * 16;  // rows of a tile
  const unsigned char* const x = a.x.data + head * a.x_group;
  const auto fill = [&](int tile, int block) {
    latents.fill(block % kStages, [&](int r) {
      const int row = tile * kHeadTile + mine + r;
      return x + (row < a.rows ? row : a.rows - 1) * a.x.pitch + block * kRowBytes;
    });
  };
  const uint64_t weights = swizzled_descriptor(shared_address(boxes));
  float* const y = a.y + head * a.y_group + 4 * t;
  const int first = all * part / parts + warp / 4;
  if (first < end) fill(first, 0), fill(first, 1);
  for (int tile = first; tile < end; tile += kHeadGroups) {
    float total[64];
#pragma unroll
    for (float& v : total) v = 0;
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      latents.wait();
      uint32_t fragment[kUnits * 4][4];
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        const auto words = [&](int r, uint32_t(&to)[8]) {
          const auto* const at =
              reinterpret_cast<const uint4*>(latents.at(b % kStages, g + 8 * r) + u * 128 + 32 * t);
          const uint4 p = at[0], q = at[1];
          to[0] = p.x, to[1] = p.y, to[2] = p.z, to[3] = p.w, to[4] = q.x, to[5] = q.y, to[6] = q.z,
          to[7] = q.w;
        };
        uint32_t one[8], two[8];
        words(0, one), words(1, two);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          uint32_t(&f)[4] = fragment[4 * u + j];
          f[0] = one[2 * j], f[1] = two[2 * j], f[2] = one[2 * j + 1], f[3] = two[2 * j + 1];
          keep(f);
        }
      }
      const int ahead = tile + (b + kStages) / kBlocks * kHeadGroups;
      if (ahead < end) {
        fill(ahead, (b + kStages) % kBlocks);
      } else {
        copy_commit();  // so that groups are counted to the end
      }
      float sums[64];
      forget(sums);
      wgmma_fence();
#pragma unroll
      for (int s = 0; s < kUnits * 4; ++s) {
        const int at = (b * kUnits + s / 4) * kBox + 32 * (s % 4);
        wgmma_bf16(sums, fragment[s], weights + (at >> 4), s);
      }
      wgmma_commit();
      wgmma_wait<0>(sums);
#pragma unroll
      for (int i = 0; i < 64; ++i) total[i] = fmaf(sums[i], scale[b], total[i]);
#pragma unroll
      for (int s = 0; s < kUnits * 4; ++s) keep(fragment[s]);  // until no product reads them
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int64_t row = tile * kHeadTile + mine + g + 8 * r;
      float v[8][kPerLane];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
#pragma unroll
        for (int c = 0; c < kPerLane; ++c) {
          const float sum = total[4 * (2 * i + c / 2) + 2 * r + c % 2] * a.factor;
          v[i][c] = a.to_bf16 ? round_bf16(sum) : sum;
        }
      }
      if (a.codes.data) {
        put_codes(a, row, row < a.rows, v);
      } else if (row < a.rows) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          *reinterpret_cast<float4*>(y + row * a.y_stride + 16 * i) = {v[i][0], v[i][1], v[i][2], v[i][3]};
        }
      }
    }
  }
#endif
}

}  // namespace

bool takes_heads_wgmma(const TensorArgs& a) {
  return a.kind == TensorKind::linear && tensor_format(a) == TensorFormat::mixed && a.groups > 1 &&
         (a.rows >= kHeadsLeastRows || a.codes.data) && a.outputs == kOutputs && a.pitch == kPitch &&
         tensor_splits(a) == 1 && a.y_stride % 4 == 0 && a.y_group % 4 == 0;
}

void launch_heads_wgmma(const TensorArgs& a, Stream stream) {
  launch(heads_wgmma_kernel, {head_parts(a.groups, a.rows, processors()), a.groups, 1, a.early}, kThreads,
         kShared, stream, a);
}

}  // namespace dsv::cuda
