// What goes up to the GPU and down from it: weights, rows of activations and pages, by way of pinned memory.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/formats.h"
#include "kernels/cuda/linear_ops.h"

namespace dsv::cuda {
namespace {

int64_t pitch_of(const HostMatrix& m) { return weight_pitch(m.dtype, m.cols); }
int64_t blocks(int64_t n) { return (n + kQuantBlock - 1) / kQuantBlock; }

// One allocation: values, block scales, the values as f32 (for vectors).
struct WeightLayout {
  int64_t values, scales, vector;
  explicit WeightLayout(const HostMatrix& m)
      : values(aligned(m.rows * pitch_of(m))),
        scales(m.scale_inv ? aligned(4 * blocks(m.rows) * blocks(m.cols)) : 0),
        vector(m.rows == 1 ? aligned(4 * m.cols) : 0) {}
  int64_t bytes() const { return values + scales + vector; }
};

float value_at(const HostMatrix& m, int64_t i) {
  const auto* data = static_cast<const unsigned char*>(m.data) + i * dtype_bytes(m.dtype);
  uint16_t half;
  switch (m.dtype) {
    case Dtype::f8_e4m3:
      return e4m3_to_float(*data) *
             load_f32(static_cast<const unsigned char*>(m.scale_inv) + 4 * (i / kQuantBlock));
    case Dtype::bf16:
      std::memcpy(&half, data, sizeof half);
      return bf16_to_float(half);
    case Dtype::f16:
      std::memcpy(&half, data, sizeof half);
      return f16_to_float(half);
    case Dtype::f32:
      break;
  }
  return load_f32(data);
}

// A row of turned index queries in the official form.
void store_index_query(const Geometry& g, const float* values, unsigned char* row) {
  const int64_t dim = g.index_head_dim;
  unsigned char* scales = row + index_query_codes(g);
  for (int32_t h = 0; h < g.index_n_heads; ++h, values += dim, row += dim) {
    float amax = 0;
    for (int64_t i = 0; i < dim; ++i) amax = std::fmax(amax, std::fabs(values[i]));
    const float scale = e4m3_scale(amax, g.ue8m0_scales);
    for (int64_t i = 0; i < dim; ++i) row[i] = static_cast<unsigned char>(float_to_e4m3(values[i] / scale));
    store_f32(scales + 4 * h, scale);
  }
}

}  // namespace

int64_t plan_weight_copy(const DeviceOptions&, const HostMatrix& matrix) {
  return WeightLayout(matrix).bytes();
}

const Weight* load_weight(Device* handle, const HostMatrix& m) {
  CudaDevice& d = cuda_device(handle);
  const WeightLayout layout(m);
  auto* memory = static_cast<unsigned char*>(d.runtime->allocate(layout.bytes(), "weights"));
  d.allocations.push_back(memory);
  auto weight = std::make_unique<CudaWeight>();
  weight->view = {memory,      m.scale_inv ? reinterpret_cast<const float*>(memory + layout.values) : nullptr,
                  m.rows,      m.cols,
                  pitch_of(m), static_cast<int32_t>(m.scale_inv ? blocks(m.cols) : 0),
                  m.dtype};
  const int64_t row_bytes = m.cols * dtype_bytes(m.dtype), pitch = pitch_of(m);
  const auto* data = static_cast<const unsigned char*>(m.data);
  Upload values(d, memory);
  if (row_bytes == pitch) {
    values.put(data, m.rows * pitch);
  } else {
    for (int64_t r = 0; r < m.rows; ++r) {
      values.put(data + r * row_bytes, row_bytes);
      values.zeros(pitch - row_bytes);
    }
  }
  values.finish();
  if (m.scale_inv) d.upload(memory + layout.values, m.scale_inv, 4 * blocks(m.rows) * blocks(m.cols));
  if (m.rows == 1) {
    Upload vector(d, memory + layout.values + layout.scales);
    for (int64_t i = 0; i < m.cols; ++i) {
      const float value = value_at(m, i);
      vector.put(&value, sizeof value);
      weight->largest = std::fmax(weight->largest, std::fabs(value));
    }
    vector.finish();
    weight->vector = reinterpret_cast<const float*>(memory + layout.values + layout.scales);
  }
  d.weights.push_back(std::move(weight));
  return reinterpret_cast<const Weight*>(d.weights.back().get());
}

void store(Device* handle, Act kind, Buffer buffer, RowRange rows, const float* values) {
  CudaDevice& d = cuda_device(handle);
  const Geometry& g = d.geometry;
  const int64_t n = row_values(g, kind);
  if (n == 0) return;
  const bool rounded =
      d.official() && (kind == Act::h || kind == Act::q_latent || kind == Act::q || kind == Act::heads);
  for (CudaDevice::NormedRows& normed : d.normed) normed.x = nullptr;
  d.grouped = {};
  if (kind == Act::delta) restore_delta(d);
  Upload upload(d, d.row_of(kind, buffer, rows.first));
  if (kind == Act::index_q && d.official()) {
    std::vector<unsigned char> row(static_cast<size_t>(d.layout.act_row[static_cast<int>(kind)]));
    for (int32_t r = 0; r < rows.count; ++r) {
      store_index_query(g, values + r * n, row.data());
      upload.put(row.data(), static_cast<int64_t>(row.size()));
    }
    return upload.finish();
  }
  if (is_integer(kind)) {
    for (int64_t i = 0; i < rows.count * n; ++i) {
      const auto value = static_cast<int32_t>(values[i]);
      upload.put(&value, sizeof value);
    }
    return upload.finish();
  }
  if (kind == Act::q && d.bf16_queries()) {
    const int64_t dim = g.qk_head_dim();
    for (int64_t i = 0; i < rows.count * n; ++i) {
      const uint16_t code = float_to_bf16(values[i]);
      upload.put(&code, sizeof code);
      if (i % dim == dim - 1) upload.zeros(2 * dim);
    }
    return upload.finish();
  }
  if (!rounded) {
    upload.put(values, rows.count * n * 4);
    return upload.finish();
  }
  for (int64_t i = 0; i < rows.count * n; ++i) {
    const float value = round_bf16(values[i]);
    upload.put(&value, sizeof value);
  }
  upload.finish();
}

// Rows that are there as codes only, decoded: h, whose codes in bf16 are exact, and heads.
void fetch_coded(CudaDevice& d, const CudaDevice::NormedRows& coded, const float* from, int64_t n,
                 float* values) {
  const int64_t at = (from - coded.x) / n;
  const PackedRows codes = coded.kind == CudaDevice::Normed::h
                               ? packed_rows(d.packed[1], coded.rows, n, Rounding::bf16)
                               : packed_rows(d.packed[0], coded.rows, n, Rounding::e4m3, coded.form.layout);
  std::vector<unsigned char> row(static_cast<size_t>(codes.pitch));
  d.download(row.data(), codes.data + at * codes.pitch, codes.pitch);
  float scale = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (!codes.scale) {
      uint16_t code;
      std::memcpy(&code, row.data() + 2 * i, sizeof code);
      values[i] = bf16_to_float(code);
      continue;
    }
    if (i % kQuantBlock == 0) d.download(&scale, codes.scale + i / kQuantBlock * codes.scale_cols + at, 4);
    values[i] = e4m3_to_float(row[static_cast<size_t>(i)]) * scale;
  }
}

void fetch(Device* handle, Act kind, const void* buffer, RowRange rows, float* values) {
  CudaDevice& d = cuda_device(handle);
  const Geometry& g = d.geometry;
  const int64_t n = row_values(g, kind);
  if (n == 0) return;
  if (kind == Act::delta) restore_delta(d);
  if (kind != Act::index_q || !d.official()) {
    d.download(values, d.row_of(kind, buffer, rows.first), rows.count * n * 4);
    for (int32_t r = 0; d.normed[0].only_codes && r < rows.count; ++r) {
      const auto* const from = static_cast<const float*>(d.row_of(kind, buffer, rows.first + r));
      if (d.normed[0].holds(from, n)) fetch_coded(d, d.normed[0], from, n, values + r * n);
    }
    for (int64_t i = 0; is_integer(kind) && i < rows.count * n; ++i) {
      int32_t value;
      std::memcpy(&value, values + i, sizeof value);
      values[i] = static_cast<float>(value);
    }
    const int64_t dim = g.qk_head_dim();
    for (int64_t head = 0; kind == Act::q && d.bf16_queries() && head < rows.count * n / dim; ++head) {
      std::vector<uint16_t> codes(static_cast<size_t>(dim));
      std::memcpy(codes.data(), values + head * dim, static_cast<size_t>(2 * dim));
      std::transform(codes.begin(), codes.end(), values + head * dim, bf16_to_float);
    }
    return;
  }
  const int64_t row_bytes = d.layout.act_row[static_cast<int>(kind)];
  std::vector<unsigned char> row(static_cast<size_t>(row_bytes));
  for (int32_t r = 0; r < rows.count; ++r) {
    d.download(row.data(), d.row_of(kind, buffer, rows.first + r), row_bytes);
    const unsigned char* scales = row.data() + index_query_codes(g);
    for (int64_t i = 0; i < n; ++i) {
      values[r * n + i] =
          e4m3_to_float(row[static_cast<size_t>(i)]) * load_f32(scales + 4 * (i / g.index_head_dim));
    }
  }
}

void read_kv(Device* handle, int32_t layer, int32_t page, void* out) {
  CudaDevice& d = cuda_device(handle);
  const CacheView cache = d.cache(layer);
  const int64_t latent = kPageTokens * cache.latent_row_bytes;
  d.download(out, cache.latent + page * latent, latent);
  if (cache.index_page_bytes > 0) {
    d.download(static_cast<unsigned char*>(out) + latent, cache.index + page * cache.index_page_bytes,
               cache.index_page_bytes);
  }
}

void write_kv(Device* handle, int32_t layer, int32_t page, const void* in) {
  CudaDevice& d = cuda_device(handle);
  const CacheView cache = d.cache(layer);
  const int64_t latent = kPageTokens * cache.latent_row_bytes;
  d.upload(cache.latent + page * latent, in, latent);
  if (cache.index_page_bytes > 0) {
    d.upload(cache.index + page * cache.index_page_bytes, static_cast<const unsigned char*>(in) + latent,
             cache.index_page_bytes);
  }
}

void CudaDevice::upload(void* device, const void* host, int64_t bytes) {
  Upload upload(*this, device);
  upload.put(host, bytes);
  upload.finish();
}

void CudaDevice::download(void* host, const void* device, int64_t bytes) {
  if (recording) fail(DSV_ERROR_INTERNAL, "a download cannot be part of a recorded step");
  auto* to = static_cast<unsigned char*>(host);
  const auto* from = static_cast<const unsigned char*>(device);
  for (int64_t done = 0; done < bytes; done += Upload::kChunk) {
    const int64_t size = std::min(Upload::kChunk, bytes - done);
    runtime->copy_out(staging[0], from + done, size);
    runtime->synchronize();
    std::memcpy(to + done, staging[0], static_cast<size_t>(size));
  }
}

unsigned char* Upload::room(int64_t* size) {
  if (chunk_ >= 0 && used_ == kChunk) finish();
  if (chunk_ < 0) {
    chunk_ = device_.next_staging;
    device_.next_staging = 1 - chunk_;
    if (device_.recording) fail(DSV_ERROR_INTERNAL, "an upload cannot be part of a recorded step");
    device_.runtime->wait(static_cast<Mark>(chunk_));
  }
  *size = std::min(*size, kChunk - used_);
  unsigned char* at = device_.staging[chunk_] + used_;
  used_ += *size;
  return at;
}

void Upload::put(const void* bytes, int64_t size) {
  for (const auto* from = static_cast<const unsigned char*>(bytes); size > 0;) {
    int64_t part = size;
    unsigned char* at = room(&part);
    std::memcpy(at, from, static_cast<size_t>(part));
    from += part;
    size -= part;
  }
}

void Upload::zeros(int64_t size) {
  while (size > 0) {
    int64_t part = size;
    unsigned char* at = room(&part);
    std::memset(at, 0, static_cast<size_t>(part));
    size -= part;
  }
}

void Upload::finish() {
  if (chunk_ < 0 || used_ == 0) return;
  device_.runtime->copy_in(destination_, device_.staging[chunk_], used_);
  device_.runtime->mark(static_cast<Mark>(chunk_));
  destination_ += used_;
  chunk_ = -1;
  used_ = 0;
}

}  // namespace dsv::cuda
