// W_v of every head for many rows on Hopper, in the bits of linear_many.cu.
//
// Bound: memory. A row of 128 heads brings 128 KB of mixed latents as bf16 and takes 64 KB of f32: 4096 rows
// move 805 MB, 196 us at 4.1 TB/s; their products take half of that by wgmma. A block keeps a head's weights
// in shared memory, as bf16 and in the order of tensor.cuh's steps, which wgmma sums as mma.sync does. Two
// groups of warps go through its rows, 64 at a time, which come to registers as operand A: a block of columns
// comes while the one before is multiplied.
#include "kernels/cuda/tensor.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace dsv::cuda {
namespace {

constexpr int kOutputs = 128, kRows = 64, kGroupThreads = 128, kGroups = 2,
              kThreads = kGroups * kGroupThreads;
constexpr int kBlocks = 4, kPitch = kBlocks * static_cast<int>(kTensorBlock);  // columns of 128 latents
constexpr int kBox = kOutputs * 128;  // bytes of a unit of columns: a row of 64 bf16 for each output
constexpr int kShared = 1024 + kBlocks * kUnits * kBox;

#ifdef DSV_HOPPER

using namespace hopper;

// Row n of the products' operand B is output 16 (n / 16) + 4 (n % 8 / 2) + 2 (n / 8 % 2) + n % 2, so that a
// lane's sums are of four neighbours.
__device__ __forceinline__ int output_of_row(int n) {
  return n / 16 * 16 + n % 8 / 2 * 4 + n / 8 % 2 * 2 + n % 2;
}

// A head's weights as operand B: word t of step j of a unit is columns 16 t + 4 j + 0 and 1, word t + 4 the
// next two.
__device__ __forceinline__ void put_weights(const TensorArgs& a, int64_t first_row, unsigned char* boxes) {
  for (int i = static_cast<int>(threadIdx.x); i < kOutputs * kBlocks * kUnits; i += kThreads) {
    const int n = i % kOutputs, unit = i / kOutputs;
    const unsigned char* const from =
        a.weight.data + (first_row + output_of_row(n)) * a.weight.pitch + unit * kUnitBytes;
    uint4 raw[4];
#pragma unroll
    for (int t = 0; t < 4; ++t) raw[t] = load_once(from + 16 * t);
    unsigned char* const row = boxes + unit * kBox + n * 128;
    const auto put = [&](int chunk, const uint32_t(&words)[4]) {
      *reinterpret_cast<uint4*>(row + (chunk ^ n % 8) * 16) = {words[0], words[1], words[2], words[3]};
    };
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      uint32_t low[4], high[4];
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        const uint32_t words[4] = {raw[t].x, raw[t].y, raw[t].z, raw[t].w};
        e4m3x4_to_bf16(words[j], low[t], high[t]);
      }
      put(2 * j, low);
      put(2 * j + 1, high);
    }
  }
}

// A lane's columns of a block, of rows g and g + 8 of its warp's 16.
using Columns = uint4[2][kUnits][2];

#endif

// Grid: x parts of the rows, y heads.
__global__ void __launch_bounds__(kThreads, 1)
    heads_wgmma_kernel([[maybe_unused]] const __grid_constant__ TensorArgs a) {
#ifdef DSV_HOPPER
  const int tid = static_cast<int>(threadIdx.x), warp = tid / kWarp, lane = tid % kWarp, g = lane / 4,
            t = lane % 4, group = tid / kGroupThreads;
  const int64_t head = blockIdx.y, first_weight = head * a.group_rows + a.first_row;
  unsigned char* const boxes = shared_memory();  // 1024-byte aligned
  put_weights(a, first_weight, boxes);
  const float* const scales = a.weight.scale + first_weight / kQuantBlock * a.weight.scale_cols;
  float scale[kBlocks];
#pragma unroll
  for (int b = 0; b < kBlocks; ++b) scale[b] = scales[b];
  fence_for_wgmma();
  __syncthreads();
  wait_for_last();

  const int all = (a.rows + kRows - 1) / kRows, parts = static_cast<int>(gridDim.x),
            part = static_cast<int>(blockIdx.x);
  const int end = all * (part + 1) / parts;
  const unsigned char* const x = a.x.data + head * a.x_group + 32 * t;
  const int mine = warp % 4 * 16 + g;  // row of a tile
  const auto load = [&](Columns& to, int tile, int block) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = tile * kRows + mine + 8 * r;
      const bool valid = tile < end && row < a.rows;
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        const auto* const at =
            reinterpret_cast<const uint4*>(x + row * a.x.pitch + (block * kUnits + u) * 128);
        to[r][u][0] = valid ? at[0] : uint4{0, 0, 0, 0};
        to[r][u][1] = valid ? at[1] : uint4{0, 0, 0, 0};
      }
    }
  };
  const uint64_t weights = swizzled_descriptor(shared_address(boxes));
  float* const y = a.y + head * a.y_group + 4 * t;
  Columns next;
  int tile = all * part / parts + group;
  load(next, tile, 0);
  for (; tile < end; tile += kGroups) {
    float total[64];
#pragma unroll
    for (float& v : total) v = 0;
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      uint32_t fragment[kUnits][4][4];
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        const auto words = [&](int r, uint32_t(&to)[8]) {
          const uint4 &p = next[r][u][0], &q = next[r][u][1];
          to[0] = p.x, to[1] = p.y, to[2] = p.z, to[3] = p.w, to[4] = q.x, to[5] = q.y, to[6] = q.z,
          to[7] = q.w;
        };
        uint32_t one[8], two[8];
        words(0, one), words(1, two);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          uint32_t(&f)[4] = fragment[u][j];
          f[0] = one[2 * j], f[1] = two[2 * j], f[2] = one[2 * j + 1], f[3] = two[2 * j + 1];
          keep(f);
        }
      }
      b + 1 < kBlocks ? load(next, tile, b + 1) : load(next, tile + kGroups, 0);
#pragma unroll
      for (int half = 0; half < 2; ++half) {  // of the outputs, so that there are registers enough
        float sums[32];
        forget(sums);
        wgmma_fence();
#pragma unroll
        for (int s = 0; s < kUnits * 4; ++s) {
          const int at = (b * kUnits + s / 4) * kBox + half * kBox / 2 + 32 * (s % 4);
          wgmma_bf16(sums, fragment[s / 4][s % 4], weights + (at >> 4), s);
        }
        wgmma_commit();
        wgmma_wait<0>(sums);
#pragma unroll
        for (int i = 0; i < 32; ++i) total[32 * half + i] = fmaf(sums[i], scale[b], total[32 * half + i]);
      }
#pragma unroll
      for (int j = 0; j < kUnits * 4; ++j) keep(fragment[j / 4][j % 4]);  // until no product reads them
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int64_t row = tile * kRows + mine + 8 * r;
      if (row >= a.rows) continue;
#pragma unroll
      for (int i = 0; i < 16; i += 2) {
        float v[4];
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          v[c] = total[4 * (i + c / 2) + 2 * r + c % 2] * a.factor;
          if (a.to_bf16) v[c] = round_bf16(v[c]);
        }
        *reinterpret_cast<float4*>(y + row * a.y_stride + 8 * i) = {v[0], v[1], v[2], v[3]};
      }
    }
  }
#endif
}

}  // namespace

bool takes_heads_wgmma(const TensorArgs& a) {
  return a.kind == TensorKind::linear && tensor_format(a) == TensorFormat::mixed && a.groups > 1 &&
         a.rows >= kHeadsLeastRows && a.outputs == kOutputs && a.pitch == kPitch && tensor_splits(a) == 1 &&
         a.y_stride % 4 == 0 && a.y_group % 4 == 0;
}

void launch_heads_wgmma(const TensorArgs& a, Stream stream) {
  const int64_t tiles = (a.rows + kRows - 1) / kRows, fit = processors() / a.groups,
                parts = fit < 1       ? 1
                        : fit < tiles ? fit
                                      : tiles;
  launch(heads_wgmma_kernel, {parts, a.groups, 1, a.early}, kThreads, kShared, stream, a);
}

}  // namespace dsv::cuda
