// A step: its inputs go up in one copy, its launches are recorded where that pays, and the host looks for its
// end. README.md says why it is done this way.
#include <algorithm>
#include <bit>
#include <chrono>
#include <iterator>
#include <thread>

#include "base/error.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/noted.h"
#include "kernels/cuda/rows.h"

namespace dsv::cuda {
namespace {

// Steps of more rows keep the GPU busy for longer than their launches take.
constexpr int32_t kRecordedRows = 64;
// Rows are made up to one of these by repeating the last, so that few graphs serve all batches.
constexpr int32_t kRowBuckets[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, kRecordedRows};

int32_t row_bucket(int32_t rows, int32_t most) {
  if (rows == 0) return 0;
  return std::min(most, *std::lower_bound(std::begin(kRowBuckets), std::end(kRowBuckets), rows));
}

// Up to index_topk positions no scores are needed, which is a graph of its own; from there on powers of two:
// blocks beyond a row's positions end at once.
int32_t context_bucket(const DeviceOptions& o, int32_t longest) {
  int64_t bucket = o.geometry->has_indexer() ? o.geometry->index_topk : 1024;
  while (bucket < longest) bucket = bucket < 1024 ? 1024 : 2 * bucket;
  return static_cast<int32_t>(std::min<int64_t>(bucket, o.max_context));
}

// Copies the batch to pinned memory and from there to the device, at once. The table of pages holds one row
// for each run of rows of one sequence, as far as its rows see.
void upload_inputs(CudaDevice& d, const StepArgs& args, const StepPlan& plan) {
  d.runtime->wait(kInputs);
  const StepInputs at(d.options, d.layout.page_stride);
  int32_t* const in = d.pinned_inputs;
  // Values beyond the batch's own repeat its last one.
  const auto put = [&](int64_t to, const int32_t* from, int32_t count, int32_t padded_count) {
    std::copy_n(from, count, in + to);
    std::fill(in + to + count, in + to + padded_count, count > 0 ? from[count - 1] : 0);
  };
  put(at.token, args.token, args.rows, plan.rows);
  put(at.position, args.position, args.rows, plan.rows);
  if (args.next_token) put(at.next_token, args.next_token, args.rows, plan.rows);
  put(at.logit_row, args.logit_row, args.logit_rows, plan.logit_rows);
  if (args.sample) {
    // Nobody reads the tokens of rows that are made up.
    auto* const rows = reinterpret_cast<SampleRow*>(in + at.sample);
    std::fill(std::copy_n(args.sample, args.logit_rows, rows), rows + plan.logit_rows, SampleRow{});
  }
  int32_t runs = 0;
  int32_t* pages = in + at.page_table;
  for (int32_t first = 0, r = 1; r <= args.rows; ++r) {
    if (r < args.rows && args.sequence[r] == args.sequence[first]) continue;
    const int32_t used = *std::max_element(args.position + first, args.position + r) / kPageTokens + 1;
    std::copy_n(args.page_table + int64_t{args.sequence[first]} * args.page_stride, used, pages);
    std::fill(pages + used, pages + d.page_stride, 0);
    pages += d.page_stride;
    std::fill(d.host_sequence.begin() + first, d.host_sequence.begin() + r, runs);
    std::fill(in + at.sequence + first, in + at.sequence + r, runs++);
    first = r;
  }
  std::fill(in + at.sequence + args.rows, in + at.sequence + plan.rows, runs - 1);
  // A hint for speed. A recorded step serves other batches, too, and most of those are rows of different
  // sequences.
  d.rows_together = d.recorded_longest > 0 ? 1 : args.rows / runs;
  constexpr int64_t kFewWords = 16384;
  if (pages - in <= kFewWords) {
    launch_copy_words({pages - in, in, d.inputs}, d.stream());
  } else {
    d.runtime->copy_in(d.inputs, in, 4 * (pages - in));
  }
  if (args.biases > 0) {
    std::copy_n(args.bias, args.biases, d.pinned_biases);
    d.runtime->copy_in(d.biases, d.pinned_biases, args.biases * static_cast<int64_t>(sizeof(TokenBias)));
  }
  d.runtime->mark(kInputs);
}

void drop_recording(CudaDevice& d) noexcept {
  if (d.recording) d.runtime->drop_recording();
  if (d.preparing) noted_kernels = nullptr;
  d.recording = d.follows = d.exchanged = d.preparing = false;
}

CudaDevice::Recorded* find_graph(CudaDevice& d, const CudaDevice::StepKind& kind) {
  for (CudaDevice::Recorded& r : d.recorded) {
    if (r.step == kind) return &r;
  }
  return nullptr;
}

// Whether a step of this kind was begun before. Most prompts' last chunks are of a kind that never comes
// again; to record them would cost more than it saves.
bool seen_before(CudaDevice& d, const CudaDevice::StepKind& kind) {
  if (std::find(d.seen.begin(), d.seen.end(), kind) != d.seen.end()) return true;
  if (d.seen.size() == CudaDevice::kMostSeen) d.seen.clear();
  d.seen.push_back(kind);
  return false;
}

// Takes the place of the graph that was not used for longest, if there are many.
void keep_graph(CudaDevice& d, Graph graph) {
  if (d.recorded.size() == CudaDevice::kMostGraphs) {
    const auto oldest =
        std::min_element(d.recorded.begin(), d.recorded.end(),
                         [](const auto& a, const auto& b) { return a.last_used < b.last_used; });
    d.runtime->synchronize();
    d.runtime->free_graph(oldest->graph);
    d.recorded.erase(oldest);
  }
  d.recorded.push_back({d.step_kind, graph, ++d.steps});
}

void begin_launches(CudaDevice& d, int32_t rows) {
  const Geometry& g = d.geometry;
  launch_angles({rows, d.position, d.inv_freq, g.qk_rope_head_dim / 2, g.rope_mscale, d.cos, d.sin},
                d.stream());
}

// From `first` to `last`, so many to an octave.
std::vector<int32_t> spread(int32_t first, int32_t last, uint32_t parts) {
  std::vector<int32_t> all;
  for (auto n = static_cast<uint32_t>(first); n < static_cast<uint32_t>(last);
       n += std::max(1u, std::bit_floor(n) / parts)) {
    all.push_back(static_cast<int32_t>(n));
  }
  all.push_back(last);
  return all;
}

// A session alone never meets a step that is to be recorded: those of one row are at load, one for each of
// these.
std::vector<int32_t> prepared_lengths(const DeviceOptions& o) {
  std::vector<int32_t> all;
  for (int32_t longest = 0; longest < o.max_context; all.push_back(longest)) {
    longest = context_bucket(o, longest + 1);
  }
  return all;
}

// Which kernels a step runs is up to its rows and, those of selection and attention, to its longest context
// and how many rows of a sequence it has. So these go through all of that, in steps within which no kernel
// begins and ends. What is recorded comes after what loads its kernels.
std::vector<CudaDevice::Preparation> all_preparations(const CudaDevice& d) {
  const int32_t most = d.options.batch_rows, most_logits = buffer_rows(d.options, Act::logits);
  const int32_t shortest = context_bucket(d.options, 1);
  std::vector<CudaDevice::Preparation> all;
  for (const int32_t rows : spread(1, most, 2)) {
    const int32_t wanted = std::min(rows, most_logits);
    all.push_back({{rows, wanted, shortest, false, true}, 1, false, false});
    if (d.options.with_mtp) all.push_back({{rows, wanted, shortest, true, false}, 1, false, false});
    for (const int32_t longest : spread(kPageTokens, d.options.max_context, 4)) {
      int32_t last = 0;
      for (const int32_t together : {1, std::min(2, rows), std::min(rows, longest)}) {
        if (together == last || together > longest) continue;
        all.push_back({{rows, 0, longest, false, false}, together, true, false});
        last = together;
      }
    }
  }
  for (const int32_t longest : prepared_lengths(d.options)) {
    all.push_back({{1, 1, longest, false, true}, 1, false, true});
  }
  return all;
}

void end_preparation(CudaDevice& d) {
  d.preparing = false;
  noted_kernels = nullptr;
  while (d.loaded_kernels < d.kernels.size()) d.runtime->load(d.kernels[d.loaded_kernels++]);
  for (CudaDevice::NormedRows& normed : d.normed) normed.x = nullptr;  // nothing has been computed
  d.grouped = {};
  d.bf16_delta = {};
}

}  // namespace

int64_t prepared_graphs(const DeviceOptions& options) {
  return static_cast<int64_t>(prepared_lengths(options).size());
}

StepInputs::StepInputs(const DeviceOptions& o, int64_t page_stride) {
  const int64_t rows = o.batch_rows;
  position = rows;
  sequence = 2 * rows;
  next_token = 3 * rows;
  logit_row = 4 * rows;
  constexpr int64_t kSampleWords = sizeof(SampleRow) / 4;
  static_assert(alignof(SampleRow) == 8 && sizeof(SampleRow) % 8 == 0);
  sample = (logit_row + buffer_rows(o, Act::logits) + 1) / 2 * 2;
  page_table = sample + buffer_rows(o, Act::logits) * kSampleWords;
  count = page_table + rows * page_stride;
}

StepPlan begin_step(Device* handle, const StepArgs& args) {
  CudaDevice& d = cuda_device(handle);
  drop_recording(d);
  d.graph = nullptr;
  d.recorded_longest = 0;
  d.bf16_delta = {};
  StepPlan plan{args.rows, args.logit_rows, false};
  d.step_kind = {plan.rows, plan.logit_rows, 0, args.next_token != nullptr, args.sample != nullptr};
  if (args.rows == 0) return plan;
  std::copy_n(args.position, args.rows, d.host_position.begin());
  int32_t longest = *std::max_element(args.position, args.position + args.rows) + 1;
  bool record = false;
  // The first pass with or without the MTP layer makes the tables of experts, which cannot be recorded.
  if (args.whole && args.rows <= kRecordedRows && d.met[d.step_kind.draft]) {
    const CudaDevice::StepKind kind = {row_bucket(args.rows, d.options.batch_rows),
                                       row_bucket(args.logit_rows, buffer_rows(d.options, Act::logits)),
                                       context_bucket(d.options, longest), d.step_kind.draft,
                                       d.step_kind.sample};
    CudaDevice::Recorded* const known = find_graph(d, kind);
    if (known || seen_before(d, kind)) {
      record = true;
      d.step_kind = kind;
      plan = {kind.rows, kind.logit_rows, known != nullptr};
      longest = d.recorded_longest = kind.longest;
      if (known) {
        known->last_used = ++d.steps;
        d.graph = known->graph;
      }
    }
  }
  if (args.whole && !record) d.runtime->mark(kStepBegin);
  d.page_stride = (longest + kPageTokens - 1) / kPageTokens;
  upload_inputs(d, args, plan);
  if (plan.recorded) return plan;
  if (record) {
    d.runtime->begin_recording();
    d.recording = true;
  }
  begin_launches(d, plan.rows);
  return plan;
}

bool prepare(Device* handle, int32_t i, PassKind* kind) {
  CudaDevice& d = cuda_device(handle);
  drop_recording(d);
  if (i == 0) d.preparations = all_preparations(d);
  if (i == static_cast<int32_t>(d.preparations.size())) {
    d.preparations = {};
    return false;
  }
  const auto& [step, together, first_layer, record] = d.preparations[static_cast<size_t>(i)];
  d.graph = nullptr;
  d.step_kind = step;
  d.recorded_longest = step.longest;
  d.page_stride = (step.longest + kPageTokens - 1) / kPageTokens;
  d.rows_together = together;
  for (int32_t r = 0; r < step.rows; ++r) d.host_sequence[static_cast<size_t>(r)] = r / together;
  d.preparing = true;
  if (record) {
    d.runtime->begin_recording();
    d.recording = true;
  } else {
    noted_kernels = &d.kernels;
  }
  begin_launches(d, step.rows);
  *kind = {step.rows, step.logit_rows, step.draft, step.sample, first_layer};
  return true;
}

void end_step(Device* handle, bool complete) {
  CudaDevice& d = cuda_device(handle);
  if (!complete) return drop_recording(d);
  if (!d.graph && d.step_kind.sample) {
    launch_copy_words(
        {d.step_kind.logit_rows, reinterpret_cast<const int32_t*>(d.act[static_cast<int>(Act::token)]),
         d.pinned_tokens},
        d.stream());
  }
  if (d.recording) {
    d.recording = false;  // whatever comes
    d.graph = d.runtime->end_recording();
    keep_graph(d, d.graph);
  }
  d.met[d.step_kind.draft] = true;
  if (d.preparing) return end_preparation(d);
  if (d.graph) {
    d.runtime->mark(kStepBegin);
    d.runtime->run(d.graph);
  }
  d.runtime->mark(kStepEnd);
  d.step_enqueued = CudaDevice::Clock::now();
}

// Asks again and again at first: a step of a small model takes less time than to sleep and be woken up. Later
// it sleeps between two looks for 1/32 of what the step has taken so far, so that the end is not missed by
// more.
bool wait(Device* handle, double seconds, double* took) {
  constexpr double kShortSleep = 50e-6, kLongSleep = 1e-3;
  CudaDevice& d = cuda_device(handle);
  const auto since = [](CudaDevice::Clock::time_point start) {
    return std::chrono::duration<double>(CudaDevice::Clock::now() - start).count();
  };
  const CudaDevice::Clock::time_point start = CudaDevice::Clock::now();
  for (;;) {
    if (d.runtime->reached(kStepEnd)) {
      *took = d.runtime->seconds_of_step();
      return true;
    }
    const double left = seconds - since(start);
    if (left <= 0) return false;
    const double sleep = std::min(since(d.step_enqueued) / 32, kLongSleep);
    sleep < kShortSleep ? std::this_thread::yield() : d.runtime->rest(std::min(sleep, left));
  }
}

int32_t token(Device* handle, int32_t i) { return cuda_device(handle).pinned_tokens[i]; }

void stamp(Device* handle, int32_t i) { cuda_device(handle).runtime->stamp(i); }
double between(Device* handle, int32_t from, int32_t to) {
  return cuda_device(handle).runtime->between(from, to);
}

int32_t CudaDevice::longest(int32_t first, int32_t count) const {
  if (recorded_longest > 0) return recorded_longest;
  const int32_t* const at = host_position.data() + first;
  return *std::max_element(at, at + count) + 1;
}

void CudaDevice::point() {
  if (recording) runtime->point();
}

void CudaDevice::follow() {
  if (!recording || exchanged) return;
  runtime->follow();
  follows = true;
}

bool CudaDevice::join() {
  const bool any = follows;
  if (any) runtime->join();
  follows = exchanged = false;
  return any;
}

void CudaDevice::exchange() {
  if (!recording) return;
  runtime->exchange();
  exchanged = true;
}

void CudaDevice::drop_graphs() noexcept {
  for (const Recorded& r : recorded) runtime->free_graph(r.graph);
  recorded.clear();
}

}  // namespace dsv::cuda
