// Continuous batching: which rows of which sessions the next forward pass computes.
#pragma once

#include <dsv/dsv.h>

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "model/batch.h"
#include "model/forward.h"

namespace dsv {

class Session;

// One for each model. Everything but interrupt() is called inside an Engine::Entry. Allocates when sessions
// come, not when they advance.
class Scheduler {
 public:
  using Clock = Forward::Clock;

  // Forward outlives this and is used by nobody else.
  Scheduler(Forward& forward, int32_t batch_rows, int32_t max_logit_rows, int32_t vocab_size,
            int64_t context_tokens);

  void add(Session& session);
  void remove(Session& session);
  bool empty() const { return sessions_.empty(); }
  int32_t pending() const;  // requests that can still advance

  // Ends cancelled requests, and forgets the rows in flight of sessions that are gone.
  void settle();
  // Computes until the running batch is done or `deadline` is near; starts a batch if none runs. `budget`: of
  // the whole step, for the size of prompt chunks. If an op throws, the batch is dropped: its rows are
  // computed again later.
  void advance(Clock::time_point deadline, Clock::duration budget);
  // [any thread] Makes advance() return at the next row.
  void interrupt() { interrupted_.store(true); }
  // Ends the request that was at work when an exception came through, if any.
  bool fail_request(dsv_status status, const char* sentence);

  // Computes positions [session.held(), tokens.size()) of `tokens` now, and copies logits of positions
  // [first, first + rows) to `out`; `draft`: the MTP layer's. The session holds what was computed, also when
  // this throws BUDGET. A batch in flight is dropped: its rows are computed again later.
  void compute_now(Session& session, std::span<const int32_t> tokens, int64_t first, int64_t rows, bool draft,
                   float* out);

  // Host memory this allocates, for the plan.
  static int64_t scratch_bytes(int32_t batch_rows, int32_t vocab_size, int64_t context_tokens);

 private:
  struct Part {
    Session* session;  // null: its rows are no longer wanted, or the session has them
    int32_t rows;
    int32_t logit;  // index of its logits row, or -1
  };
  void forget(const Session& session);
  void drop_batch();
  void build(Clock::duration budget);
  void add_part(Session& session, int32_t rows);
  bool has_room_to_sample(const Session& session) const;
  void hand_out(Clock::time_point deadline);

  Forward& forward_;
  int32_t batch_rows_, max_logit_rows_, vocab_size_;
  std::vector<Session*> sessions_;
  size_t turn_ = 0;  // who comes first in the next batch
  Batch batch_;      // of forward_, while that runs
  std::vector<Part> parts_;
  bool computed_ = false;  // the batch of parts_, whose sessions are being told: parts before next_part_ were
  size_t next_part_ = 0;
  Session* at_work_ = nullptr;
  std::atomic<bool> interrupted_{false};
};

}  // namespace dsv
