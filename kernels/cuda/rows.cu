// Kernels over whole rows: angles, embedding, norms, rounding, RoPE of queries. All are bound by the bytes of
// their rows (a row of 7168 f32 is 28 KB: 10 ns at 3 TB/s), so at small batches by the launch itself.
#include "kernels/cuda/decode.cuh"
#include "kernels/cuda/reduce.cuh"

namespace dsv::cuda {
namespace {

constexpr int kThreads = 256;

// Angles in fp64: at position 160000 an f32 product would be wrong in the third digit of its sine.
__global__ void angles_kernel(AnglesArgs a) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= a.rows * a.half) return;
  const double angle = a.position[i / a.half] * a.inv_freq[i % a.half];
  a.cos[i] = static_cast<float>(cos(angle) * a.mscale);
  a.sin[i] = static_cast<float>(sin(angle) * a.mscale);
}

__global__ void embed_kernel(EmbedRowsArgs a) {
  const int64_t r = blockIdx.x;
  const bool zero = a.position && a.position[r] == 0;
  for (int64_t c = threadIdx.x; c < a.table.cols; c += blockDim.x) {
    a.x[r * a.x_stride + c] = zero ? 0 : weight_at(a.table, a.token[r], c);
  }
}

// A block a row. A row of up to kKept values a thread is read once, all loads in flight together, as few rows
// wait for memory and for nothing else; what is longer is read twice.
constexpr int kNormThreads = 1024, kKept = 8;
__global__ void norm_kernel(NormArgs a) {
  auto* shared = reinterpret_cast<float*>(shared_memory());
  const int64_t r = blockIdx.x, from = a.row ? a.row[r] : r;
  const float* x = a.x + from * a.x_stride;
  const float* delta = a.delta ? a.delta + from * a.delta_stride : nullptr;
  const auto value_at = [&](int64_t i) { return delta ? x[i] + delta[i] : x[i]; };
  const int64_t step = blockDim.x, rest = threadIdx.x + kKept * step;
  float kept[kKept], weight[kKept], squares = 0;
#pragma unroll
  for (int j = 0; j < kKept; ++j) {
    const int64_t i = threadIdx.x + j * step;
    kept[j] = i < a.n ? value_at(i) : 0;
    weight[j] = i < a.n ? a.weight[i] : 0;
  }
#pragma unroll
  for (int j = 0; j < kKept; ++j) squares = fmaf(kept[j], kept[j], squares);
  for (int64_t i = rest; i < a.n; i += step) squares = fmaf(value_at(i), value_at(i), squares);
  const float factor = 1 / sqrtf(block_sum(squares, shared) / static_cast<float>(a.n) + a.eps);
  const auto put = [&](int64_t i, float value, float by) {  // each thread what it read: in place is fine
    if (a.x_out) a.x_out[r * a.x_stride + i] = value;
    const float normed = value * factor * by;
    a.out[r * a.out_stride + i] = a.to_bf16 ? round_bf16(normed) : normed;
  };
#pragma unroll
  for (int j = 0; j < kKept; ++j) {
    const int64_t i = threadIdx.x + j * step;
    if (i < a.n) put(i, kept[j], weight[j]);
  }
  for (int64_t i = rest; i < a.n; i += step) put(i, value_at(i), a.weight[i]);
}

// A warp for each group of 128 values.
__global__ void pack_kernel(PackArgs a) {
  constexpr int kPerLane = kQuantBlock / kWarp;
  const int lane = threadIdx.x % kWarp;
  const int64_t groups = (a.cols + kQuantBlock - 1) / kQuantBlock, width = padded(a.cols);
  const int64_t group = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
  if (group >= a.rows * groups) return;
  const int64_t r = group / groups, begin = group % groups * kQuantBlock;
  float value[kPerLane], amax = 0;
  for (int i = 0; i < kPerLane; ++i) {
    const int64_t c = begin + lane + i * kWarp;
    value[i] = c < a.cols ? a.x[r * a.x_stride + c] : 0;
    amax = fmaxf(amax, fabsf(value[i]));
  }
  float scale = 1;
  if (a.rounding == Rounding::e4m3) scale = e4m3_scale(warp_max(amax), a.power_of_two);
  for (int i = 0; i < kPerLane; ++i) {
    const int64_t c = begin + lane + i * kWarp;
    if (c >= width) continue;
    float out = value[i];
    if (a.rounding == Rounding::e4m3) out = e4m3_to_float(float_to_e4m3(out / scale)) * scale;
    if (a.rounding == Rounding::bf16) out = round_bf16(out);
    a.out[r * width + c] = out;
  }
}

// A warp for each group of 128 values, and zeros up to the end of the row's last block.
__global__ void pack_codes_kernel(PackCodesArgs a) {
  constexpr int kPerLane = kQuantBlock / kWarp;
  const int lane = threadIdx.x % kWarp;
  const bool e4m3 = a.rounding == Rounding::e4m3;
  const int64_t pitch = packed_pitch(a.cols, a.rounding), width = e4m3 ? pitch : pitch / 2;
  const int64_t groups = (width + kQuantBlock - 1) / kQuantBlock;
  const int64_t group = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
  if (group >= a.rows * groups) return;
  const int64_t r = group / groups, first = group % groups * kQuantBlock + lane * kPerLane;
  float value[kPerLane], amax = 0;
  for (int i = 0; i < kPerLane; ++i) {
    value[i] = first + i < a.cols ? a.x[r * a.x_stride + first + i] : 0;
    amax = fmaxf(amax, fabsf(value[i]));
  }
  const bool spread = a.form == PackedForm::spread;
  const int64_t out_pitch = spread ? 2 * pitch : pitch;
  unsigned char* const row = a.out + r * out_pitch;
  if (e4m3) {
    const float scale = e4m3_scale(warp_max(amax), a.power_of_two);
    uint32_t codes = 0;
    for (int i = 0; i < kPerLane; ++i) codes |= float_to_e4m3(value[i] / scale) << 8 * i;
    auto* const words = reinterpret_cast<uint32_t*>(row);
    if (spread) {
      const auto half = [&](int i) { return e4m3_to_f16(codes >> 8 * i & 0xFF); };
      const int64_t to = spread_word(first / kPerLane);
      words[to] = half(0) | half(1) << 16, words[to + 4] = half(2) | half(3) << 16;
    } else {
      words[first / kPerLane] = codes;
    }
    // As packed_rows has it.
    auto* const scales = reinterpret_cast<float*>(a.out + a.rows * out_pitch);
    const bool by_row = a.form == PackedForm::by_row;
    if (lane == 0) scales[by_row ? group : group % groups * ((a.rows + 3) / 4 * 4) + r] = scale;
  } else if (first < width) {
    const auto pair = [&](int i) {
      return float_to_bf16(value[i]) | static_cast<uint32_t>(float_to_bf16(value[i + 1])) << 16;
    };
    *reinterpret_cast<uint2*>(row + 2 * first) = {pair(0), pair(2)};
  }
}

// A block of threads a row.
__global__ void gather_rows_kernel(GatherRowsArgs a) {
  const int64_t p = blockIdx.x, r = a.row[p];
  const auto* from = reinterpret_cast<const uint4*>(a.from.data + r * a.from.pitch);
  auto* to = reinterpret_cast<uint4*>(a.out + p * a.from.pitch);
  for (int64_t i = threadIdx.x; i < a.from.pitch / 16; i += blockDim.x) to[i] = from[i];
  auto* const scales = reinterpret_cast<float*>(a.out + a.rows * a.from.pitch);
  if (a.from.form == PackedForm::by_row) {
    for (int64_t b = threadIdx.x; b < a.blocks; b += blockDim.x) {
      scales[p * a.from.scale_cols + b] = a.from.scale[r * a.from.scale_cols + b];
    }
    return;
  }
  // Of [blocks, R] this block's part: neighbours in memory.
  const int64_t pitch = (a.rows + 3) / 4 * 4;
  for (int64_t i = threadIdx.x; i < a.blocks; i += blockDim.x) {
    const int64_t at = p * a.blocks + i, b = at / a.rows, q = at % a.rows;
    scales[b * pitch + q] = a.from.scale[b * a.from.scale_cols + a.row[q]];
  }
}

__global__ void rope_query_kernel(RopeQueryArgs a) {
  const int64_t r = blockIdx.x, half = a.rope / 2, nope = a.head_dim - a.rope;
  float* const q = a.q + r * a.heads * a.head_dim;
  for (int64_t i = threadIdx.x; i < a.heads * half; i += blockDim.x) {
    float* const pair = q + i / half * a.head_dim + nope + 2 * (i % half);
    const float c = a.cos[r * half + i % half], s = a.sin[r * half + i % half];
    const float x = pair[0] * c - pair[1] * s, y = pair[0] * s + pair[1] * c;
    pair[0] = a.to_bf16 ? round_bf16(x) : x;
    pair[1] = a.to_bf16 ? round_bf16(y) : y;
  }
  if (!a.to_bf16) return;
  for (int64_t i = threadIdx.x; i < a.heads * nope; i += blockDim.x) {
    float* const value = q + i / nope * a.head_dim + i % nope;
    *value = round_bf16(*value);
  }
}

// Threads of a block that handles a row of n values.
int threads_for(int64_t n, int most = kThreads) {
  return n >= most ? most : static_cast<int>((n + kWarp - 1) / kWarp * kWarp);
}
int64_t blocks_for(int64_t threads) { return (threads + kThreads - 1) / kThreads; }

}  // namespace

void launch_angles(const AnglesArgs& a, Stream stream) {
  launch(angles_kernel, {blocks_for(a.rows * a.half)}, kThreads, 0, stream, a);
}
void launch_embed(const EmbedRowsArgs& a, Stream stream) {
  launch(embed_kernel, {a.rows}, threads_for(a.table.cols), 0, stream, a);
}
void launch_norm(const NormArgs& a, Stream stream) {
  launch(norm_kernel, {a.rows}, threads_for(a.n, kNormThreads), kNormThreads / kWarp * 4, stream, a);
}
void launch_pack(const PackArgs& a, Stream stream) {
  const int64_t groups = a.rows * ((a.cols + kQuantBlock - 1) / kQuantBlock);
  launch(pack_kernel, {blocks_for(groups * kWarp)}, kThreads, 0, stream, a);
}
void launch_pack_codes(const PackCodesArgs& a, Stream stream) {
  const int64_t pitch = packed_pitch(a.cols, a.rounding);
  const int64_t width = a.rounding == Rounding::e4m3 ? pitch : pitch / 2;
  const int64_t groups = a.rows * ((width + kQuantBlock - 1) / kQuantBlock);
  launch(pack_codes_kernel, {blocks_for(groups * kWarp)}, kThreads, 0, stream, a);
}
void launch_gather_rows(const GatherRowsArgs& a, Stream stream) {
  launch(gather_rows_kernel, {a.rows}, kThreads, 0, stream, a);
}
void launch_rope_query(const RopeQueryArgs& a, Stream stream) {
  launch(rope_query_kernel, {a.rows}, threads_for(a.heads * a.head_dim), 0, stream, a);
}

}  // namespace dsv::cuda
