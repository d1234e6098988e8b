#include "kernels/reference/device.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "kernels/reference/formats.h"

namespace dsv::reference {
namespace {

constexpr int64_t kAlignment = 64;

// Hooks are optional, as for every table.
void* allocate(const DeviceOptions& o, int64_t bytes) {
  if (o.allocate) return o.allocate(o.user, bytes, kAlignment);
  return ::operator new (static_cast<size_t>(bytes), std::align_val_t{kAlignment});
}
void deallocate(const DeviceOptions& o, void* memory, int64_t bytes) {
  if (!memory) return;
  if (o.deallocate) return o.deallocate(o.user, memory, bytes, kAlignment);
  ::operator delete (memory, std::align_val_t{kAlignment});
}

int64_t act_bytes(const RefDevice& device, Act kind) {
  return buffer_rows(device.options, kind) * device.width(kind) * static_cast<int64_t>(sizeof(double));
}
int64_t pool_bytes(const RefDevice& device) { return device.options.kv_pages * device.kv.page_bytes(); }

void fill(RefDevice& device, const DeviceOptions& options) {
  device.options = options;
  device.geometry = *options.geometry;
  device.options.geometry = &device.geometry;
  device.kv = KvLayout(device.geometry, options.precision, options.with_mtp);
}

void close(Device* handle) {
  RefDevice& device = device_of(handle);
  const DeviceOptions& o = device.options;
  for (int kind = 0; kind < static_cast<int>(Act::count); ++kind)
    deallocate(o, device.act[kind], act_bytes(device, static_cast<Act>(kind)));
  deallocate(o, device.pool, pool_bytes(device));
  delete &device;
}

Device* open(const DeviceOptions& options) {
  struct Close {
    void operator()(RefDevice* device) const { close(reinterpret_cast<Device*>(device)); }
  };
  std::unique_ptr<RefDevice, Close> device(new RefDevice);
  fill(*device, options);
  if (options.allowed) {
    device->allowed.reset(new bool[static_cast<size_t>(device->geometry.vocab_size)]);
    std::copy_n(options.allowed, device->geometry.vocab_size, device->allowed.get());
  }
  for (int kind = 0; kind < static_cast<int>(Act::count); ++kind) {
    const int64_t bytes = act_bytes(*device, static_cast<Act>(kind));
    if (bytes > 0) device->act[kind] = static_cast<double*>(allocate(options, bytes));
  }
  if (pool_bytes(*device) > 0)
    device->pool = static_cast<unsigned char*>(allocate(options, pool_bytes(*device)));
  return reinterpret_cast<Device*>(device.release());
}

const char* target(const Device*) { return "fp64"; }

int64_t plan_scratch(const DeviceOptions& options) {
  RefDevice device;
  fill(device, options);
  int64_t bytes = 0;
  for (int kind = 0; kind < static_cast<int>(Act::count); ++kind)
    bytes += act_bytes(device, static_cast<Act>(kind));
  return bytes;
}

int64_t plan_weight_copy(const DeviceOptions&, const HostMatrix&) { return 0; }

const Weight* load_weight(Device* handle, const HostMatrix& matrix) {
  RefDevice& device = device_of(handle);
  device.weights.push_back(std::make_unique<RefWeight>(RefWeight{matrix}));
  return reinterpret_cast<const Weight*>(device.weights.back().get());
}

Buffer buffer(Device* handle, Act kind) { return device_of(handle).act[static_cast<int>(kind)]; }

void store(Device* handle, Act kind, Buffer buffer, RowRange rows, const float* values) {
  const RefDevice& device = device_of(handle);
  const int64_t width = device.width(kind), head = device.geometry.index_head_dim;
  for (int32_t r = 0; r < rows.count; ++r) {
    Vector row(values + r * width, values + (r + 1) * width);
    if (kind == Act::index_q && device.official()) {
      for (int64_t h = 0; h < width; h += head)
        quantise_group(row.data() + h, head, device.geometry.ue8m0_scales);
    } else if (kind == Act::h || kind == Act::q_latent || kind == Act::q || kind == Act::heads) {
      round_activation(device, row);
    }
    device.write(kind, buffer, rows.first + r, row);
  }
}

void fetch(Device* handle, Act kind, const void* buffer, RowRange rows, float* values) {
  for (const Vector& row : device_of(handle).read(kind, buffer, rows)) {
    for (const double value : row) *values++ = static_cast<float>(value);
  }
}

void read_kv(Device* handle, int32_t layer, int32_t page, void* out) {
  const RefDevice& device = device_of(handle);
  const int64_t latent_bytes = kPageTokens * device.kv.latent_row_bytes;
  std::memcpy(out, device.latent_page(layer, page), static_cast<size_t>(latent_bytes));
  std::memcpy(static_cast<unsigned char*>(out) + latent_bytes, device.index_page(layer, page),
              static_cast<size_t>(device.kv.index_page_bytes));
}

void write_kv(Device* handle, int32_t layer, int32_t page, const void* in) {
  const RefDevice& device = device_of(handle);
  const int64_t latent_bytes = kPageTokens * device.kv.latent_row_bytes;
  std::memcpy(device.latent_page(layer, page), in, static_cast<size_t>(latent_bytes));
  std::memcpy(device.index_page(layer, page), static_cast<const unsigned char*>(in) + latent_bytes,
              static_cast<size_t>(device.kv.index_page_bytes));
}

StepPlan begin_step(Device* handle, const StepArgs& step) {
  device_of(handle).step = step;
  return {step.rows, step.logit_rows, false};
}

int32_t token(Device* handle, int32_t i) {
  return static_cast<int32_t>(*device_of(handle).row(Act::token, buffer(handle, Act::token), i));
}

}  // namespace

int64_t RefDevice::width(Act kind) const {
  return kind == Act::mtp_x && !options.with_mtp ? 0 : row_values(geometry, kind);
}

void RefDevice::write(Act kind, Buffer buffer, int32_t r, const Vector& values) const {
  std::copy(values.begin(), values.end(), row(kind, buffer, r));
}

void RefDevice::write(Act kind, Buffer buffer, RowRange range, const Rows& values) const {
  for (int32_t r = 0; r < range.count; ++r)
    write(kind, buffer, range.first + r, values[static_cast<size_t>(r)]);
}

unsigned char* RefDevice::latent_page(int32_t layer, int32_t page) const {
  const int64_t latent_bytes = kPageTokens * kv.latent_row_bytes;
  return pool + layer * options.kv_pages * (latent_bytes + kv.index_page_bytes) + page * latent_bytes;
}

unsigned char* RefDevice::index_page(int32_t layer, int32_t page) const {
  return latent_page(layer, 0) + options.kv_pages * kPageTokens * kv.latent_row_bytes +
         page * kv.index_page_bytes;
}

int32_t RefDevice::page_of(int32_t r, int32_t position) const {
  return step.page_table[int64_t{step.sequence[r]} * step.page_stride + position / kPageTokens];
}

Vector RefDevice::angles(int32_t position) const {
  Vector out = geometry.inv_freq;
  for (double& angle : out) angle *= position;
  return out;
}

Vector RefWeight::row(int64_t r) const {
  const HostMatrix& m = matrix;
  const int64_t blocks = (m.cols + kQuantBlock - 1) / kQuantBlock;
  const unsigned char* bytes = static_cast<const unsigned char*>(m.data) + r * m.cols * dtype_bytes(m.dtype);
  const auto load = [](auto& value, const void* at) { std::memcpy(&value, at, sizeof value); };
  Vector out(static_cast<size_t>(m.cols));
  for (int64_t c = 0; c < m.cols; ++c) {
    double& value = out[static_cast<size_t>(c)];
    uint16_t half;
    float single, scale;
    switch (m.dtype) {
      case Dtype::f8_e4m3:
        load(scale, static_cast<const unsigned char*>(m.scale_inv) +
                        4 * (r / kQuantBlock * blocks + c / kQuantBlock));
        value = decode_e4m3(bytes[c]) * scale;
        break;
      case Dtype::bf16:
        load(half, bytes + 2 * c);
        value = decode_bf16(half);
        break;
      case Dtype::f16:
        load(half, bytes + 2 * c);
        value = decode_f16(half);
        break;
      case Dtype::f32:
        load(single, bytes + 4 * c);
        value = single;
        break;
    }
  }
  return out;
}

}  // namespace dsv::reference

namespace dsv {

const OpTable& reference_ops() {
  using namespace reference;
  static constexpr OpTable kTable = {"reference",  open,   close,    target,  plan_scratch, plan_weight_copy,
                                     load_weight,  buffer, store,    fetch,   read_kv,      write_kv,
                                     begin_step,   embed,  add_norm, attn_in, attn_q,       cache_append,
                                     index_select, attend, attn_out, route,   experts,      ffn,
                                     mtp_in,       logits, sample,   token};
  return kTable;
}

}  // namespace dsv
