// attend: absorbed attention over the selected rows of the cache.
//
//   q_abs = W_k^T q_nope                       by head, for a block of rows: W_k is read once a block
//   o = softmax(q_abs . c + q_rope . k_rope) c by row, all heads at once: a cache row is expanded once
//   out = W_v o                                by head again
//
// A row's selection is cut into parts by its length alone; the parts' states are merged in their order,
// whichever threads computed them.
#include <algorithm>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/ops.h"

namespace dsv::cpu {
namespace {

constexpr int32_t kRowBlock = 64;  // rows that share one pass over W_k and W_v
constexpr int64_t kMaxParts = 16;
constexpr int64_t kPartRows = 256;  // of a part, until there are kMaxParts

struct Parts {
  int64_t count, size;

  // An even number of parts, unless there is one: two threads then share a row fairly.
  explicit Parts(int64_t n) {
    if (n <= kPageTokens) {
      count = 1;
      size = n;
    } else {
      const int64_t want = std::min(kMaxParts, 2 * ((n + 2 * kPartRows - 1) / (2 * kPartRows)));
      size = round_up((n + want - 1) / want, 32);
      count = (n + size - 1) / size;
    }
  }
};

int32_t block_rows(int32_t batch_rows) { return std::min(kRowBlock, batch_rows); }

struct AttendScratch {
  int64_t project, packed, state, attend, q_abs;  // bytes, multiples of 64

  AttendScratch(const AttentionKernels& kernels, const AttendShape& shape, int32_t batch_rows)
      : project(round_up(kernels.project_scratch(shape, block_rows(batch_rows)), 64)),
        packed(round_up(shape.packed_query_bytes(), 64)),
        state(round_up(4 * shape.state_floats(), 64)),
        attend(round_up(kernels.attend_scratch(shape), 64)),
        q_abs(round_up(4 * block_rows(batch_rows) * shape.heads * shape.rank, 64)) {}

  ScratchSize size() const {
    return {std::max(project, packed + 2 * state + attend), q_abs + packed + kMaxParts * state};
  }
};

// One attend, with what all its parts need.
class Attend {
 public:
  Attend(const CpuDevice& device, const AttendArgs& args)
      : device_(device),
        kernels_(*device.attention),
        args_(args),
        shape_(device.geometry, device.precision),
        sizes_(kernels_, shape_, device.batch_rows),
        q_abs_(reinterpret_cast<float*>(device.shared_scratch)) {}

  void run() const {
    for (int32_t done = 0; done < args_.rows.count; done += kRowBlock) {
      block(args_.rows.first + done, std::min(kRowBlock, args_.rows.count - done));
    }
  }

 private:
  int64_t stride(Act kind) const { return device_.act_row_bytes[static_cast<int>(kind)] / 4; }
  const float* q(int32_t row) const { return device_.row(Act::q, args_.q, row); }
  // [heads, rank] of row `first + i`: q_abs, and once that is packed the latent sum.
  float* latent(int32_t i) const { return q_abs_ + i * shape_.heads * shape_.rank; }

  void block(int32_t first, int32_t count) const {
    const CpuWeight& kv_b = cpu_weight(args_.weights->kv_b);
    const int64_t latent_stride = shape_.heads * shape_.rank;
    device_.parallel(shape_.heads, [&](int64_t head, int32_t job) {
      float* out = q_abs_ + head * shape_.rank;
      kernels_.absorb(shape_, kv_b, head, count, q(first) + head * (shape_.nope + shape_.rope),
                      stride(Act::q), out, latent_stride, device_.job_scratch(job));
      round_rows(out, latent_stride, shape_.rank, count);
    });

    // With rows enough to keep the threads busy a thread takes a row at a time; else they share each row.
    if (count >= 4 * device_.max_jobs || device_.max_jobs == 1) {
      device_.parallel(count, [&](int64_t i, int32_t job) {
        whole_row(first + static_cast<int32_t>(i), latent(static_cast<int32_t>(i)), device_.job_scratch(job));
      });
    } else {
      for (int32_t i = 0; i < count; ++i) shared_row(first + i, latent(i));
    }

    device_.parallel(shape_.heads, [&](int64_t head, int32_t job) {
      float* out = device_.row(Act::heads, args_.heads, first) + head * shape_.v;
      kernels_.project(shape_, kv_b, head, count, q_abs_ + head * shape_.rank, latent_stride, out,
                       stride(Act::heads), device_.job_scratch(job));
      round_rows(out, stride(Act::heads), shape_.v, count);
    });
  }

  void round_rows(float* x, int64_t x_stride, int64_t n, int32_t rows) const {
    if (!shape_.official) return;
    for (int32_t r = 0; r < rows; ++r) device_.kernels->round_bf16(x + r * x_stride, n);
  }

  int64_t selected(int32_t row) const {
    return args_.selected != nullptr ? *device_.integers(args_.n_selected, Act::n_selected, row)
                                     : device_.step.position[row] + 1;
  }
  LatentRows latent_rows(int32_t row) const {
    return {device_.latent_page(args_.layer, 0),
            device_.step.page_table + int64_t{device_.step.sequence[row]} * device_.step.page_stride,
            device_.kv.latent_row_bytes,
            args_.selected != nullptr ? device_.integers(args_.selected, Act::selected, row) : nullptr};
  }

  void whole_row(int32_t row, float* latent, unsigned char* scratch) const {
    unsigned char* packed = scratch;
    const AttendState total(shape_, reinterpret_cast<float*>(packed + sizes_.packed));
    const AttendState part(shape_, reinterpret_cast<float*>(packed + sizes_.packed + sizes_.state));
    unsigned char* work = packed + sizes_.packed + 2 * sizes_.state;
    const int64_t n = selected(row);
    const LatentRows rows = latent_rows(row);
    const Parts parts(n);
    kernels_.pack_query(shape_, latent, q(row), packed);
    for (int64_t p = 0; p < parts.count; ++p) {
      kernels_.attend(shape_, packed, rows, p * parts.size, std::min(n, (p + 1) * parts.size),
                      p == 0 ? total : part, work);
      if (p > 0) kernels_.merge(shape_, 0, shape_.heads, total, part);
    }
    finish(0, shape_.heads, total, latent);
  }

  void shared_row(int32_t row, float* latent) const {
    unsigned char* packed = device_.shared_scratch + sizes_.q_abs;
    const auto state = [&](int64_t p) {
      return AttendState(shape_, reinterpret_cast<float*>(packed + sizes_.packed + p * sizes_.state));
    };
    const int64_t n = selected(row);
    const LatentRows rows = latent_rows(row);
    const Parts parts(n);
    kernels_.pack_query(shape_, latent, q(row), packed);
    device_.parallel(parts.count, [&](int64_t p, int32_t job) {
      kernels_.attend(shape_, packed, rows, p * parts.size, std::min(n, (p + 1) * parts.size), state(p),
                      device_.job_scratch(job));
    });
    const int64_t heads = round_up((shape_.heads + device_.max_jobs - 1) / device_.max_jobs, 4);
    device_.parallel((shape_.heads + heads - 1) / heads, [&](int64_t i, int32_t) {
      const int64_t h0 = i * heads, h1 = std::min(shape_.heads, h0 + heads);
      for (int64_t p = 1; p < parts.count; ++p) kernels_.merge(shape_, h0, h1, state(0), state(p));
      finish(h0, h1, state(0), latent);
    });
  }

  void finish(int64_t h0, int64_t h1, AttendState state, float* latent) const {
    kernels_.finish(shape_, h0, h1, state, latent);
    round_rows(latent + h0 * shape_.rank, 0, (h1 - h0) * shape_.rank, 1);
  }

  const CpuDevice& device_;
  const AttentionKernels& kernels_;
  const AttendArgs& args_;
  const AttendShape shape_;
  const AttendScratch sizes_;
  float* const q_abs_;
};

}  // namespace

void attend(Device* device, const AttendArgs& args) { Attend(cpu_device(device), args).run(); }

ScratchSize attend_scratch(const DeviceOptions& options) {
  return AttendScratch(*choose_target(options.target).attention,
                       AttendShape(*options.geometry, options.precision), options.batch_rows)
      .size();
}

ScratchSize attention_scratch(const DeviceOptions& options) {
  ScratchSize size = attend_scratch(options);
  for (const ScratchSize& other : {cache_scratch(options), index_scratch(options)}) {
    size.per_job = std::max(size.per_job, other.per_job);
    size.shared = std::max(size.shared, other.shared);
  }
  return size;
}

}  // namespace dsv::cpu
