#include "kernels/cpu/device.h"

#include <algorithm>
#include <cmath>
#include <new>

#include "base/error.h"
#include "kernels/cpu/ops.h"

namespace dsv::cpu {
namespace {

constexpr int64_t kAlignment = 64;

int64_t round_up(int64_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

void* allocate(const DeviceOptions& options, int64_t size) {
  if (options.allocate != nullptr) return options.allocate(options.user, size, kAlignment);
  void* const memory = ::operator new (static_cast<size_t>(size), std::align_val_t{kAlignment}, std::nothrow);
  if (memory == nullptr) {
    fail(DSV_ERROR_OUT_OF_MEMORY,
         "no memory for {} bytes of the CPU device; lower the context, the batch or "
         "the KV budget",
         size);
  }
  return memory;
}

int64_t row_bytes_of(const Geometry& g, bool official, Act kind) {
  const int64_t values = row_values(g, kind);
  return official && kind == Act::index_q ? 2 * values + 4 * int64_t{g.index_n_heads} : 4 * values;
}

// Where everything but the KV pool lies in one block.
struct Layout {
  int64_t act[static_cast<int>(Act::count)] = {};
  int64_t act_bytes[static_cast<int>(Act::count)] = {};
  int64_t cos = 0, sin = 0, allowed = 0, jobs = 0, shared = 0, bytes = 0;
  int64_t job_bytes = 0, shared_bytes = 0;
  int32_t max_jobs = 1;

  explicit Layout(const DeviceOptions& o) {
    const Geometry& g = *o.geometry;
    const auto place = [this](int64_t size) {
      const int64_t at = bytes;
      bytes += round_up(size);
      return at;
    };
    for (int kind = 0; kind < static_cast<int>(Act::count); ++kind) {
      const bool made = static_cast<Act>(kind) != Act::mtp_x || o.with_mtp;
      act_bytes[kind] = row_bytes_of(g, o.precision == Precision::official, static_cast<Act>(kind));
      act[kind] = made ? place(buffer_rows(o, static_cast<Act>(kind)) * act_bytes[kind]) : -1;
    }
    cos = place(o.batch_rows * g.qk_rope_head_dim / 2 * 4);
    sin = place(o.batch_rows * g.qk_rope_head_dim / 2 * 4);
    allowed = place(g.vocab_size);
    max_jobs = o.jobs != nullptr ? std::max(1, o.jobs->width()) : 1;
    for (const ScratchSize& s :
         {attention_scratch(o), blocks_scratch(o), moe_scratch(o), sample_scratch(o)}) {
      job_bytes = std::max(job_bytes, round_up(s.per_job));
      shared_bytes = std::max(shared_bytes, round_up(s.shared));
    }
    jobs = place(max_jobs * job_bytes);
    shared = place(shared_bytes);
  }
};

Device* open(const DeviceOptions& o) {
  auto d = std::make_unique<CpuDevice>();
  d->geometry = *o.geometry;
  d->precision = o.precision;
  d->with_mtp = o.with_mtp;
  d->batch_rows = o.batch_rows;
  d->max_context = o.max_context;
  d->kv_pages = o.kv_pages;
  d->kv = KvLayout(*o.geometry, o.precision, o.with_mtp);
  const CpuTarget target = choose_target(o.target);
  d->kernels = target.kernels;
  d->attention = target.attention;
  if (o.jobs == nullptr) d->own_jobs = make_thread_pool(1);
  d->jobs = o.jobs != nullptr ? o.jobs : d->own_jobs.get();
  d->options = o;

  const Layout layout(o);
  d->block_bytes = std::max(layout.bytes, kAlignment);
  d->kv_bytes = std::max(d->kv.page_bytes() * o.kv_pages, kAlignment);
  d->block = static_cast<unsigned char*>(allocate(o, d->block_bytes));
  try {
    d->kv_pool = static_cast<unsigned char*>(allocate(o, d->kv_bytes));
  } catch (...) {
    close(reinterpret_cast<Device*>(d.release()));
    throw;
  }
  for (int kind = 0; kind < static_cast<int>(Act::count); ++kind) {
    d->act_row_bytes[kind] = layout.act_bytes[kind];
    if (layout.act[kind] >= 0) d->act[kind] = d->block + layout.act[kind];
  }
  d->cos = reinterpret_cast<float*>(d->block + layout.cos);
  d->sin = reinterpret_cast<float*>(d->block + layout.sin);
  d->allowed = d->block + layout.allowed;
  for (int64_t id = 0; id < o.geometry->vocab_size; ++id) d->allowed[id] = !o.allowed || o.allowed[id];
  d->max_jobs = layout.max_jobs;
  d->job_scratch_memory = d->block + layout.jobs;
  d->job_scratch_bytes = layout.job_bytes;
  d->shared_scratch = d->block + layout.shared;
  d->shared_scratch_bytes = layout.shared_bytes;
  return reinterpret_cast<Device*>(d.release());
}

const char* target(const Device* device) { return cpu_device(device).kernels->name; }

int64_t plan_scratch(const DeviceOptions& options) { return Layout(options).bytes; }

// Vectors are kept as f32, because they are small and read on every row; matrices stay where they are mapped.
bool is_vector(const HostMatrix& matrix) { return matrix.rows == 1; }

int64_t plan_weight_copy(const DeviceOptions&, const HostMatrix& matrix) {
  return is_vector(matrix) ? 4 * matrix.cols : 0;
}

const Weight* load_weight(Device* device, const HostMatrix& matrix) {
  CpuDevice& d = cpu_device(device);
  auto weight = std::make_unique<CpuWeight>();
  weight->dtype = matrix.dtype;
  weight->rows = matrix.rows;
  weight->cols = matrix.cols;
  weight->data = static_cast<const unsigned char*>(matrix.data);
  weight->scale_inv = static_cast<const unsigned char*>(matrix.scale_inv);
  if (is_vector(matrix)) {
    weight->vector.resize(static_cast<size_t>(matrix.cols));
    d.kernels->decode_row(*weight, 0, weight->vector.data());
  }
  d.weights.push_back(std::move(weight));
  return reinterpret_cast<const Weight*>(d.weights.back().get());
}

Buffer buffer(Device* device, Act kind) { return cpu_device(device).act[static_cast<int>(kind)]; }

// index_q is quantised in `official`; the others of the bf16 grid are rounded to it.
void store(Device* device, Act kind, Buffer buffer, RowRange rows, const float* values) {
  const CpuDevice& d = cpu_device(device);
  const Geometry& g = d.geometry;
  const int64_t n = row_values(g, kind);
  const bool rounded =
      d.official() && (kind == Act::h || kind == Act::q_latent || kind == Act::q || kind == Act::heads);
  for (int32_t r = 0; r < rows.count; ++r) {
    const float* from = values + r * n;
    if (is_integer(kind)) {
      std::transform(from, from + n, d.integers(buffer, kind, rows.first + r),
                     [](float value) { return static_cast<int32_t>(value); });
      continue;
    }
    if (kind == Act::index_q && d.official()) {
      std::vector<float> head(static_cast<size_t>(g.index_head_dim));
      for (int32_t i = 0; i < g.index_n_heads; ++i) {
        std::copy_n(from + i * g.index_head_dim, g.index_head_dim, head.begin());
        store_index_query(d, head.data(), d.index_q_values(buffer, rows.first + r) + i * g.index_head_dim,
                          d.index_q_scales(buffer, rows.first + r) + i);
      }
      continue;
    }
    float* const to = d.row(kind, buffer, rows.first + r);
    std::copy_n(from, n, to);
    if (rounded) d.kernels->round_bf16(to, n);
  }
}

void fetch(Device* device, Act kind, const void* buffer, RowRange rows, float* values) {
  const CpuDevice& d = cpu_device(device);
  const Geometry& g = d.geometry;
  const int64_t n = row_values(g, kind);
  for (int32_t r = 0; r < rows.count; ++r) {
    float* const to = values + r * n;
    if (kind == Act::index_q && d.official()) {
      const uint16_t* const from = d.index_q_values(buffer, rows.first + r);
      const float* const scale = d.index_q_scales(buffer, rows.first + r);
      for (int64_t i = 0; i < n; ++i) to[i] = bf16_to_float(from[i]) * scale[i / g.index_head_dim];
    } else if (is_integer(kind)) {
      const int32_t* const from = d.integers(buffer, kind, rows.first + r);
      std::transform(from, from + n, to, [](int32_t value) { return static_cast<float>(value); });
    } else {
      std::copy_n(d.row(kind, buffer, rows.first + r), n, to);
    }
  }
}

void read_kv(Device* device, int32_t layer, int32_t page, void* out) {
  const CpuDevice& d = cpu_device(device);
  const int64_t latent = kPageTokens * d.kv.latent_row_bytes;
  std::memcpy(out, d.latent_page(layer, page), static_cast<size_t>(latent));
  std::memcpy(static_cast<unsigned char*>(out) + latent, d.index_page(layer, page),
              static_cast<size_t>(d.kv.index_page_bytes));
}

void write_kv(Device* device, int32_t layer, int32_t page, const void* in) {
  const CpuDevice& d = cpu_device(device);
  const int64_t latent = kPageTokens * d.kv.latent_row_bytes;
  std::memcpy(d.latent_page(layer, page), in, static_cast<size_t>(latent));
  std::memcpy(d.index_page(layer, page), static_cast<const unsigned char*>(in) + latent,
              static_cast<size_t>(d.kv.index_page_bytes));
}

// Angles in fp64: at position 160000 an f32 product would be wrong in the third digit of its sine.
StepPlan begin_step(Device* device, const StepArgs& args) {
  CpuDevice& d = cpu_device(device);
  d.step = args;
  const Geometry& g = d.geometry;
  const int64_t half = g.qk_rope_head_dim / 2;
  d.parallel(args.rows, [&](int64_t r, int32_t) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = args.position[r] * g.inv_freq[static_cast<size_t>(i)];
      d.cos[r * half + i] = static_cast<float>(std::cos(angle) * g.rope_mscale);
      d.sin[r * half + i] = static_cast<float>(std::sin(angle) * g.rope_mscale);
    }
  });
  return {args.rows, args.logit_rows, false};
}

int32_t token(Device* device, int32_t i) {
  const CpuDevice& d = cpu_device(device);
  return *d.integers(d.act[static_cast<int>(Act::token)], Act::token, i);
}

const float* logits_row(Device* device, int32_t i) {
  const CpuDevice& d = cpu_device(device);
  return d.row(Act::logits, d.act[static_cast<int>(Act::logits)], i);
}

}  // namespace

void close(Device* device) {
  const std::unique_ptr<CpuDevice> d(&cpu_device(device));
  const auto give_back = [&](unsigned char* memory, int64_t size) {
    if (memory == nullptr) return;
    if (d->options.deallocate != nullptr) {
      d->options.deallocate(d->options.user, memory, size, kAlignment);
    } else {
      ::operator delete (memory, std::align_val_t{kAlignment});
    }
  };
  give_back(d->block, d->block_bytes);
  give_back(d->kv_pool, d->kv_bytes);
}

}  // namespace dsv::cpu

namespace dsv {

const OpTable& cpu_ops() {
  using namespace cpu;
  static constexpr OpTable table = {
      "cpu",        open,   cpu::close, target,  plan_scratch, plan_weight_copy,
      load_weight,  buffer, store,      fetch,   read_kv,      write_kv,
      begin_step,   embed,  add_norm,   attn_in, attn_q,       cache_append,
      index_select, attend, attn_out,   route,   experts,      ffn,
      mtp_in,       logits, sample,     token,   logits_row,
  };
  return table;
}

}  // namespace dsv
