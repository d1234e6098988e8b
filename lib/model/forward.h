// The forward pass of DeepSeek-V3.2, written once over the op table. Knows no device and no session.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "backend/ops.h"
#include "base/host.h"
#include "model/batch.h"

namespace dsv {

// What a layer (or the logits) of n rows costs, learnt from what it took. Kept per power of two, because one
// row costs nearly as much as several (weights are read once) and a range that is too large would break the
// step's budget. As long as twice the rows cost at most twice the time, no estimate is too low.
class RowCost {
 public:
  // Most rows, at least 1 and at most `rows`, that should fit in `seconds`: `rows` itself or a power of two.
  // Before anything is measured: 1.
  int32_t rows_within(double seconds, int32_t rows) const;
  void measured(int32_t rows, double seconds);

 private:
  static constexpr int kSizes = 24;
  struct Cost {
    int32_t rows = 0;  // 0 = not measured yet
    double seconds = 0;
  };
  static int size_of(int32_t rows);  // least i with 2^i >= rows
  double estimate(int32_t rows) const;
  std::array<Cost, kSizes> cost_{};  // [i] of 2^(i-1) + 1 to 2^i rows
};

// Runs one batch at a time. It can stop and go on later: that is how a step keeps its budget. On a device
// whose ops compute before they return it stops between layers, and inside a layer between rows. On one that
// works on its own it enqueues layers of all rows, then the device goes on whether or not somebody waits, and
// stopping is to look again later. Results do not depend on where it stopped. Not thread-safe. No allocation
// after construction.
class Forward {
 public:
  using Clock = std::chrono::steady_clock;

  // All references outlive this.
  Forward(const Host& host, const OpTable& ops, Device* device, const Geometry& geometry,
          const ModelWeights& weights);

  // Starts `batch`, which stays unchanged until advance() returns true or abandon(). Must not be running.
  void begin(const Batch& batch);
  bool running() const { return batch_ != nullptr; }
  // Computes until done (true) or until going on would overshoot `deadline` by more than one layer of one row
  // (false); where ops are enqueued: by more than it takes to enqueue one layer. Makes at least that much
  // progress. Also returns false soon after *stop (if given) has become true, from whatever thread.
  bool advance(Clock::time_point deadline, const std::atomic<bool>* stop = nullptr);
  // Runs what a device does at its first steps only, on no batch of anybody's: a prompt and a token in
  // `page`, which no sequence has, and the steps that the device prepares itself with. Later results and
  // costs are as without it. Returns early when `stop` has become true.
  void prepare(int32_t page, int32_t max_context, int32_t max_rows, const std::atomic<bool>& stop);
  // Drops the running batch. What it wrote to the cache at its rows' positions is undefined.
  void abandon();

  // Of batch.logit_row[i], until the next begin():
  // [V] fp32, valid until the next call.
  const float* logits(int32_t i);
  // What was drawn as batch.sample[i] says; -1: every logit is NaN.
  int32_t token(int32_t i) const { return ops_.token(device_, i); }

  // Rows (at most `rows`) that should pass all layers within `budget`; at least 1. For sizing prefill chunks.
  // A device that works on its own does so between steps, too: then a small budget does not make chunks
  // small.
  int32_t rows_within(Clock::duration budget, int32_t rows) const;

  // Host memory this allocates, for the plan.
  static int64_t scratch_bytes(const OpTable& ops, const Geometry& geometry);

 private:
  bool enqueues() const { return ops_.wait != nullptr; }
  bool advance_rows(Clock::time_point deadline, const std::atomic<bool>* stop);
  bool advance_enqueued(Clock::time_point deadline, const std::atomic<bool>* stop);
  void layer(int32_t index, const LayerWeights& weights, Act stream, RowRange rows);
  void advance_stage(RowRange rows);
  void draft_input(RowRange rows);
  void compute_logits(RowRange rows);
  void run_unmeasured(const Batch& batch, const std::atomic<bool>& stop);
  int32_t layer_stages() const { return geometry_.num_layers + (kind_.draft ? 1 : 0); }

  const OpTable& ops_;
  Device* device_;
  const Geometry& geometry_;
  const ModelWeights& weights_;
  const Batch* batch_ = nullptr;
  PassKind kind_;  // of the batch
  StepPlan plan_;
  bool ended_ = false;    // the device has all of the step
  bool paused_ = false;   // while it was enqueued, so that what it took says nothing
  int32_t stage_ = 0;     // 0 .. num_layers - 1: that layer; then the MTP layer if `draft`; then the logits
  int32_t next_row_ = 0;  // rows [0, next_row_) have passed the stage (of logit_row in the last one)
  RowCost layer_cost_, logits_cost_;
  HostArray<float> logits_;  // a row, if they are not where the host can read them
};

}  // namespace dsv
