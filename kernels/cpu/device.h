// The CPU backend's device: where activations, cache and scratch live, and how ops spread work over threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "backend/ops.h"
#include "kernels/cpu/targets.h"
#include "kernels/cpu/weight.h"

namespace dsv::cpu {

// Scratch of an op family: `per_job` bytes for each job that runs at once, `shared` bytes for the whole op.
// The families use the same memory one after the other; nothing in it survives an op.
struct ScratchSize {
  int64_t per_job = 0, shared = 0;
};

// Work items [begin, end) that are left of a job's share; a take returns -1 when there is none.
class alignas(64) ItemRun {
 public:
  void set(int64_t begin, int64_t end) {
    left_.store(static_cast<uint64_t>(begin) << 32 | static_cast<uint64_t>(end), std::memory_order_relaxed);
  }
  int64_t take_front() {
    uint64_t left = left_.load(std::memory_order_relaxed);
    while (begin(left) < end(left)) {
      if (left_.compare_exchange_weak(left, left + (uint64_t{1} << 32), std::memory_order_relaxed)) {
        return begin(left);
      }
    }
    return -1;
  }
  int64_t take_back() {
    uint64_t left = left_.load(std::memory_order_relaxed);
    while (begin(left) < end(left)) {
      if (left_.compare_exchange_weak(left, left - 1, std::memory_order_relaxed)) return end(left) - 1;
    }
    return -1;
  }

 private:
  static int64_t begin(uint64_t left) { return static_cast<int64_t>(left >> 32); }
  static int64_t end(uint64_t left) { return static_cast<int64_t>(left & 0xffffffff); }
  std::atomic<uint64_t> left_;
};
inline constexpr int32_t kMaxRuns = 256;  // jobs that an op is cut for at most

// Rows of every activation are f32 (on the bf16 grid where ops.h says that `official` rounds), except
// index_q:
//   official: bf16 [Hi * Di], unscaled values on the e4m3 grid, then f32 scale [Hi];   exact: f32 [Hi * Di].
struct CpuDevice {
  Geometry geometry;
  Precision precision = Precision::official;
  bool with_mtp = false;
  int32_t batch_rows = 0;
  int32_t max_context = 0;
  int64_t kv_pages = 0;
  KvLayout kv;
  const CpuKernels* kernels = nullptr;
  const AttentionKernels* attention = nullptr;
  Jobs* jobs = nullptr;
  int32_t max_jobs = 1;  // jobs that run at once at most: parts of the per-job scratch

  unsigned char* kv_pool = nullptr;  // [layers] of { latent [kv_pages][64][row], index [kv_pages][page] }
  unsigned char* act[static_cast<int>(Act::count)] = {};  // [batch_rows][act_row_bytes]
  int64_t act_row_bytes[static_cast<int>(Act::count)] = {};

  StepArgs step;         // of the running batch
  float* cos = nullptr;  // [batch_rows, rope / 2] of each row's position, times rope_mscale
  float* sin = nullptr;
  unsigned char* allowed = nullptr;  // [V] not 0: ids that may be sampled

  unsigned char* job_scratch_memory = nullptr;  // [max_jobs][job_scratch_bytes]
  int64_t job_scratch_bytes = 0;
  unsigned char* shared_scratch = nullptr;
  int64_t shared_scratch_bytes = 0;

  std::vector<std::unique_ptr<CpuWeight>> weights;

  DeviceOptions options;  // for the memory functions
  std::unique_ptr<Jobs> own_jobs;
  unsigned char* block = nullptr;  // holds all of the above but the KV pool
  int64_t block_bytes = 0, kv_bytes = 0;

  bool official() const { return precision == Precision::official; }

  // 64 latent rows of one page, and its index keys (KvLayout).
  unsigned char* latent_page(int32_t layer, int32_t page) const {
    return layer_pool(layer) + page * kPageTokens * kv.latent_row_bytes;
  }
  unsigned char* index_page(int32_t layer, int32_t page) const {
    return layer_pool(layer) + kv_pages * kPageTokens * kv.latent_row_bytes + page * kv.index_page_bytes;
  }
  // The page that holds `position` of the sequence of batch row `row`.
  int32_t page_of(int32_t row, int32_t position) const {
    return step.page_table[int64_t{step.sequence[row]} * step.page_stride + position / kPageTokens];
  }

  const float* row_cos(int32_t row) const { return cos + row * (geometry.qk_rope_head_dim / 2); }
  const float* row_sin(int32_t row) const { return sin + row * (geometry.qk_rope_head_dim / 2); }

  // A row of an f32 activation buffer.
  float* row(Act kind, Buffer buffer, int32_t row) const {
    return reinterpret_cast<float*>(static_cast<unsigned char*>(buffer) +
                                    row * act_row_bytes[static_cast<int>(kind)]);
  }
  const float* row(Act kind, const void* buffer, int32_t row) const {
    return reinterpret_cast<const float*>(static_cast<const unsigned char*>(buffer) +
                                          row * act_row_bytes[static_cast<int>(kind)]);
  }
  // A row of a buffer of integers.
  int32_t* integers(Buffer buffer, Act kind, int32_t row) const {
    return reinterpret_cast<int32_t*>(static_cast<unsigned char*>(buffer) +
                                      row * act_row_bytes[static_cast<int>(kind)]);
  }
  const int32_t* integers(const void* buffer, Act kind, int32_t row) const {
    return integers(const_cast<void*>(buffer), kind, row);
  }
  // The parts of an official index_q row.
  uint16_t* index_q_values(Buffer buffer, int32_t row) const {
    return reinterpret_cast<uint16_t*>(static_cast<unsigned char*>(buffer) +
                                       row * act_row_bytes[static_cast<int>(Act::index_q)]);
  }
  const uint16_t* index_q_values(const void* buffer, int32_t row) const {
    return index_q_values(const_cast<void*>(buffer), row);
  }
  float* index_q_scales(Buffer buffer, int32_t row) const {
    return reinterpret_cast<float*>(index_q_values(buffer, row) +
                                    geometry.index_n_heads * geometry.index_head_dim);
  }
  const float* index_q_scales(const void* buffer, int32_t row) const {
    return index_q_scales(const_cast<void*>(buffer), row);
  }

  unsigned char* job_scratch(int32_t job) const { return job_scratch_memory + job * job_scratch_bytes; }

  // Calls body(item, job) once for every item in [0, items); `job` < max_jobs names the scratch to use. Each
  // job takes a run of items of its own from front to back, so that it reads a weight as one stream; a job
  // that is done takes from the backs of the others' runs, so items may differ in cost. Results must not
  // depend on which job computes an item.
  template <class F>
  void parallel(int64_t items, F&& body) const {
    const auto count = static_cast<int32_t>(std::min<int64_t>({items, max_jobs, kMaxRuns}));
    if (count <= 1) {
      for (int64_t item = 0; item < items; ++item) body(item, 0);
      return;
    }
    ItemRun runs[kMaxRuns];
    for (int32_t i = 0; i < count; ++i) runs[i].set(items * i / count, items * (i + 1) / count);
    jobs->for_each(count, [&](int32_t job) {
      for (int64_t item; (item = runs[job].take_front()) >= 0;) body(item, job);
      for (int32_t other = 1; other < count; ++other) {
        ItemRun& run = runs[(job + other) % count];
        for (int64_t item; (item = run.take_back()) >= 0;) body(item, job);
      }
    });
  }

 private:
  unsigned char* layer_pool(int32_t layer) const {
    return kv_pool + layer * kv_pages * (kPageTokens * kv.latent_row_bytes + kv.index_page_bytes);
  }
};

inline float bf16_to_float(uint16_t bits) {
  const uint32_t word = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

// Quantises one head of an index query (overwritten) into an official index_q row.
inline void store_index_query(const CpuDevice& d, float* head, uint16_t* values, float* scale) {
  *scale = d.kernels->quantise_e4m3(head, d.geometry.index_head_dim, d.geometry.ue8m0_scales);
  for (int64_t i = 0; i < d.geometry.index_head_dim; ++i) {
    uint32_t word;  // e4m3 values are bf16 values: the upper half is all of them
    std::memcpy(&word, head + i, sizeof word);
    values[i] = static_cast<uint16_t>(word >> 16);
  }
}

inline CpuDevice& cpu_device(Device* device) { return *reinterpret_cast<CpuDevice*>(device); }
inline const CpuDevice& cpu_device(const Device* device) {
  return *reinterpret_cast<const CpuDevice*>(device);
}

}  // namespace dsv::cpu
