// index_select: scores of the visible positions page by page, then the exact top-k of a row.
//
// A thread takes a few rows of a sequence at a time, so that a page of keys is expanded once for them; when
// there are too few rows for that, the threads share the pages of one row.
#include <algorithm>
#include <numeric>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/topk.h"

namespace dsv::cpu {
namespace {

constexpr int32_t kGroup = 4;        // rows that share an expanded page
constexpr int32_t kSharedPages = 8;  // pages a thread takes at a time when one row is shared

struct IndexScratch {
  int64_t packed, scores, kernel;  // bytes, multiples of 64

  IndexScratch(const AttentionKernels& kernels, const IndexShape& shape, int32_t max_context)
      : packed(round_up(shape.packed_query_bytes(), 64)),
        scores(4 * round_up(max_context, kPageTokens)),
        kernel(round_up(kernels.index_scratch(shape), 64)) {}

  int64_t head_scales(const IndexShape& shape) const { return round_up(4 * shape.heads, 64); }
  ScratchSize size(const IndexShape& shape) const {
    return {kGroup * (packed + scores) + kernel + head_scales(shape), packed + scores};
  }
};

class Select {
 public:
  Select(const CpuDevice& device, const IndexSelectArgs& args)
      : device_(device),
        kernels_(*device.attention),
        args_(args),
        shape_(device.geometry, device.precision),
        sizes_(kernels_, shape_, device.max_context) {}

  void run() const {
    const int32_t first = args_.rows.first, count = args_.rows.count;
    if (count >= 2 * kGroup * device_.max_jobs || device_.max_jobs == 1) {
      device_.parallel((count + kGroup - 1) / kGroup, [&](int64_t i, int32_t job) {
        const int32_t begin = first + static_cast<int32_t>(i) * kGroup;
        group(begin, std::min(first + count, begin + kGroup), device_.job_scratch(job));
      });
    } else {
      for (int32_t row = first; row < first + count; ++row) {
        if (!take_all(row)) shared_row(row);
      }
    }
  }

 private:
  int32_t visible(int32_t row) const { return device_.step.position[row] + 1; }
  const int32_t* pages(int32_t row) const {
    return device_.step.page_table + int64_t{device_.step.sequence[row]} * device_.step.page_stride;
  }
  static int32_t page_count(int32_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

  int32_t* selected(int32_t row) const { return device_.integers(args_.selected, Act::selected, row); }

  // Whether the row sees no more than it may select.
  bool take_all(int32_t row) const {
    const int32_t k = device_.geometry.index_topk, n = visible(row);
    if (n > k) return false;
    std::iota(selected(row), selected(row) + n, 0);
    *device_.integers(args_.n_selected, Act::n_selected, row) = n;
    return true;
  }

  void pack(int32_t row, unsigned char* packed, float* head_scales) const {
    const float* weights = device_.row(Act::index_weight, args_.index_weight, row);
    if (!shape_.official) {
      kernels_.pack_index_query(shape_, device_.row(Act::index_q, args_.index_q, row), weights, packed);
      return;
    }
    const float* scales = device_.index_q_scales(args_.index_q, row);
    for (int64_t h = 0; h < shape_.heads; ++h) head_scales[h] = weights[h] * scales[h];
    kernels_.pack_index_query(shape_, device_.index_q_values(args_.index_q, row), head_scales, packed);
  }

  void select(int32_t row, const float* scores) const {
    const int32_t k = device_.geometry.index_topk;
    const TopK top = find_top_k(scores, visible(row), k);
    *device_.integers(args_.n_selected, Act::n_selected, row) =
        kernels_.select_above(scores, visible(row), top.threshold, top.ties, selected(row));
  }

  // Rows [begin, end), at most kGroup; those of one sequence are scored together.
  void group(int32_t begin, int32_t end, unsigned char* scratch) const {
    unsigned char* kernel_scratch = scratch + kGroup * (sizes_.packed + sizes_.scores);
    auto* head_scales = reinterpret_cast<float*>(kernel_scratch + sizes_.kernel);
    int32_t rows[kGroup];
    const void* packed[kGroup];
    float* scores[kGroup];
    while (begin < end) {
      const int32_t sequence = device_.step.sequence[begin];
      int32_t count = 0, longest = 0;
      for (; begin < end && device_.step.sequence[begin] == sequence; ++begin) {
        if (take_all(begin)) continue;
        unsigned char* memory = scratch + count * (sizes_.packed + sizes_.scores);
        pack(begin, memory, head_scales);
        packed[count] = memory;
        scores[count] = reinterpret_cast<float*>(memory + sizes_.packed);
        rows[count++] = begin;
        longest = std::max(longest, visible(begin));
      }
      if (count == 0) continue;
      kernels_.index_scores(shape_, packed, count, device_.index_page(args_.layer, 0),
                            device_.kv.index_page_bytes, pages(rows[0]), page_count(longest), scores,
                            kernel_scratch);
      for (int32_t i = 0; i < count; ++i) select(rows[i], scores[i]);
    }
  }

  void shared_row(int32_t row) const {
    unsigned char* packed = device_.shared_scratch;
    auto* scores = reinterpret_cast<float*>(packed + sizes_.packed);
    pack(row, packed, reinterpret_cast<float*>(device_.job_scratch(0)));
    const int32_t count = page_count(visible(row));
    device_.parallel((count + kSharedPages - 1) / kSharedPages, [&](int64_t i, int32_t job) {
      const int32_t at = static_cast<int32_t>(i) * kSharedPages;
      const void* query = packed;
      float* out = scores + at * kPageTokens;
      kernels_.index_scores(shape_, &query, 1, device_.index_page(args_.layer, 0),
                            device_.kv.index_page_bytes, pages(row) + at, std::min(kSharedPages, count - at),
                            &out, device_.job_scratch(job));
    });
    select(row, scores);
  }

  const CpuDevice& device_;
  const AttentionKernels& kernels_;
  const IndexSelectArgs& args_;
  const IndexShape shape_;
  const IndexScratch sizes_;
};

}  // namespace

void index_select(Device* device, const IndexSelectArgs& args) { Select(cpu_device(device), args).run(); }

ScratchSize index_scratch(const DeviceOptions& options) {
  if (!options.geometry->has_indexer()) return {};
  const IndexShape shape(*options.geometry, options.precision);
  return IndexScratch(*choose_target(options.target).attention, shape, options.max_context).size(shape);
}

}  // namespace dsv::cpu
