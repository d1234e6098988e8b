// cache_append: norms, RoPE and quantisation of a token's latent and index rows.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/rope.h"

namespace dsv::cpu {
namespace {

// The e4m3 code of a value on its grid; NaN for what is not.
uint8_t e4m3_code(float value) {
  const auto sign = static_cast<uint8_t>(std::signbit(value) ? 0x80 : 0);
  const float magnitude = std::fabs(value);
  if (!(magnitude <= 448.0f)) return sign | 0x7F;
  if (magnitude < 0x1p-6f) return sign | static_cast<uint8_t>(magnitude * 0x1p9f);
  uint32_t bits;
  std::memcpy(&bits, &magnitude, sizeof bits);
  return sign | static_cast<uint8_t>((bits >> 20) - (120 << 3));
}

// Quantises n values with one scale, and destroys them.
float store_e4m3(const CpuDevice& device, float* x, int64_t n, bool ue8m0, unsigned char* out) {
  const float scale = device.kernels->quantise_e4m3(x, n, ue8m0);
  for (int64_t i = 0; i < n; ++i) out[i] = e4m3_code(x[i]);
  return scale;
}

void store_f32(const float* x, int64_t n, unsigned char* out) {
  std::memcpy(out, x, static_cast<size_t>(n) * sizeof(float));
}

void append_latent(const CpuDevice& device, const CacheAppendArgs& args, int32_t row, float* x) {
  const Geometry& g = device.geometry;
  const int64_t rank = g.kv_lora_rank, rope = g.qk_rope_head_dim;
  const int32_t position = device.step.position[row];
  unsigned char* out = device.latent_page(args.layer, device.page_of(row, position)) +
                       position % kPageTokens * device.kv.latent_row_bytes;
  const float* raw = device.row(Act::kv_raw, args.kv_raw, row);
  device.kernels->rms_norm(raw, cpu_weight(args.weights->kv_a_norm).vector.data(), rank,
                           static_cast<float>(kLatentEps), false, x);
  std::copy_n(raw + rank, rope, x + rank);
  rope_interleaved(x + rank, device.row_cos(row), device.row_sin(row), rope);
  if (!device.official()) return store_f32(x, rank + rope, out);

  unsigned char* scales = out + rank;
  for (int64_t i = 0; i < rank; i += kQuantBlock, scales += 4) {
    const float scale = store_e4m3(device, x + i, std::min<int64_t>(kQuantBlock, rank - i), true, out + i);
    std::memcpy(scales, &scale, sizeof scale);
  }
  device.kernels->round_bf16(x + rank, rope);
  for (int64_t i = 0; i < rope; ++i) {
    uint32_t bits;
    std::memcpy(&bits, x + rank + i, sizeof bits);
    const auto half = static_cast<uint16_t>(bits >> 16);
    std::memcpy(scales + 2 * i, &half, sizeof half);
  }
}

// LayerNorm with weight and bias, eps kLatentEps.
void layer_norm(const float* x, const float* weight, const float* bias, int64_t n, float* out) {
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i];
  const double mean = sum / static_cast<double>(n);
  for (int64_t i = 0; i < n; ++i) squares += (x[i] - mean) * (x[i] - mean);
  const double factor = 1 / std::sqrt(squares / static_cast<double>(n) + kLatentEps);
  for (int64_t i = 0; i < n; ++i) {
    out[i] = static_cast<float>((x[i] - mean) * factor) * weight[i] + bias[i];
  }
}

void append_index_key(const CpuDevice& device, const CacheAppendArgs& args, int32_t row, float* x) {
  const Geometry& g = device.geometry;
  const int64_t dim = g.index_head_dim;
  const int32_t position = device.step.position[row];
  unsigned char* page = device.index_page(args.layer, device.page_of(row, position));
  const int64_t slot = position % kPageTokens;
  layer_norm(device.row(Act::index_k_raw, args.index_k_raw, row),
             cpu_weight(args.weights->k_norm_weight).vector.data(),
             cpu_weight(args.weights->k_norm_bias).vector.data(), dim, x);
  rope_halves(x, device.row_cos(row), device.row_sin(row), g.qk_rope_head_dim);
  if (!device.official()) return store_f32(x, dim, page + slot * dim * 4);

  hadamard(x, dim);
  const float scale = store_e4m3(device, x, dim, g.ue8m0_scales, page + slot * dim);
  std::memcpy(page + kPageTokens * dim + 4 * slot, &scale, sizeof scale);
}

}  // namespace

void cache_append(Device* handle, const CacheAppendArgs& args) {
  const CpuDevice& device = cpu_device(handle);
  constexpr int32_t kRows = 16;  // a work item: a row alone is not worth a thread
  device.parallel((args.rows.count + kRows - 1) / kRows, [&](int64_t item, int32_t job) {
    auto* x = reinterpret_cast<float*>(device.job_scratch(job));
    const int32_t begin = static_cast<int32_t>(item) * kRows;
    for (int32_t i = begin; i < std::min(args.rows.count, begin + kRows); ++i) {
      append_latent(device, args, args.rows.first + i, x);
      if (device.geometry.has_indexer()) append_index_key(device, args, args.rows.first + i, x);
    }
  });
}

ScratchSize cache_scratch(const DeviceOptions& options) {
  const Geometry& g = *options.geometry;
  return {4 * std::max(g.latent_dim(), g.index_head_dim), 0};
}

}  // namespace dsv::cpu
