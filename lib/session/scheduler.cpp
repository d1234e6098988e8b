#include "session/scheduler.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "session/session.h"

namespace dsv {

Scheduler::Scheduler(Forward& forward, int32_t batch_rows, int32_t max_logit_rows, int32_t vocab_size,
                     int64_t context_tokens)
    : forward_(forward),
      batch_rows_(batch_rows),
      max_logit_rows_(max_logit_rows),
      vocab_size_(vocab_size),
      batch_(batch_rows, batch_rows, context_tokens, vocab_size) {
  parts_.reserve(static_cast<size_t>(batch_rows));
}

int64_t Scheduler::scratch_bytes(int32_t batch_rows, int32_t vocab_size, int64_t context_tokens) {
  const int64_t pages = (context_tokens + kPageTokens - 1) / kPageTokens;
  return batch_rows * (4 * (pages + 5) + static_cast<int64_t>(sizeof(SampleRow))) +
         static_cast<int64_t>(sizeof(TokenBias)) * vocab_size;
}

void Scheduler::add(Session& session) { sessions_.push_back(&session); }

void Scheduler::remove(Session& session) {
  forget(session);
  std::erase(sessions_, &session);
  if (at_work_ == &session) at_work_ = nullptr;
}

int32_t Scheduler::pending() const {
  return static_cast<int32_t>(
      std::count_if(sessions_.begin(), sessions_.end(), [](const Session* s) { return s->can_advance(); }));
}

// The rows themselves go on being computed: they write only where a later batch, if any, writes before it
// reads, because batches run one after the other.
void Scheduler::forget(const Session& session) {
  for (Part& part : parts_) {
    if (part.session == &session) part.session = nullptr;
  }
  const bool wanted = std::any_of(parts_.begin(), parts_.end(), [](const Part& p) { return p.session; });
  if (!wanted) drop_batch();
}

void Scheduler::drop_batch() {
  if (forward_.running()) forward_.abandon();
  parts_.clear();
  computed_ = false;
}

void Scheduler::settle() {
  interrupted_.store(false);  // before looking, so that none is missed
  for (Session* session : sessions_) {
    if (session->closed()) {
      forget(*session);
    } else if (session->cancelled()) {
      forget(*session);
      at_work_ = session;
      session->finish(DSV_FINISH_CANCELLED);
      at_work_ = nullptr;
    }
  }
}

void Scheduler::advance(Clock::time_point deadline, Clock::duration budget) {
  if (!computed_) {
    if (!forward_.running()) {
      build(budget);
      if (batch_.rows() == 0) return;  // every request has just ended
    }
    try {
      if (!forward_.running()) forward_.begin(batch_);
      if (!forward_.advance(deadline, &interrupted_)) return;
    } catch (...) {
      drop_batch();  // half an op may have changed its rows: they cannot go on from here
      throw;
    }
    computed_ = true;
    next_part_ = 0;
  }
  hand_out(deadline);
}

// Rows of generation come first, because somebody waits for each; then prompts, in equal shares. A prompt's
// chunk is no larger than what one step can pass, so that it does not hold up generation for long.
void Scheduler::build(Clock::duration budget) {
  batch_.clear();
  parts_.clear();
  const size_t n = sessions_.size();
  ++turn_;
  int32_t prompts = 0;
  for (size_t i = 0; i < n; ++i) {
    Session& session = *sessions_[(turn_ + i) % n];
    if (!session.runnable()) continue;
    if (session.rows_left() > 1) {
      ++prompts;
    } else if (batch_.rows() < batch_rows_ && has_room_to_sample(session)) {
      add_part(session, 1);
    }
  }
  int32_t room = std::min(batch_rows_ - batch_.rows(), forward_.rows_within(budget, batch_rows_));
  for (size_t i = 0; i < n && prompts > 0 && room > 0; ++i) {
    Session& session = *sessions_[(turn_ + i) % n];
    if (!session.runnable() || session.rows_left() == 1) continue;
    const auto share =
        static_cast<int32_t>(std::min<int64_t>((room + prompts - 1) / prompts, session.rows_left()));
    --prompts;
    const int32_t before = batch_.rows();
    add_part(session, share);
    room -= batch_.rows() - before;
  }
}

// A request has at most as many biases as there are tokens, so it always has room in a batch of its own.
bool Scheduler::has_room_to_sample(const Session& session) const {
  return batch_.logit_row.size() < static_cast<size_t>(max_logit_rows_) &&
         batch_.bias.size() + session.biases().size() <= static_cast<size_t>(vocab_size_);
}

void Scheduler::add_part(Session& session, int32_t rows) {
  rows = session.reserve(rows);
  if (rows == 0) {
    at_work_ = &session;
    session.finish(DSV_FINISH_KV_BUDGET);
    at_work_ = nullptr;
    return;
  }
  bool logits = rows == session.rows_left();
  if (logits && !has_room_to_sample(session)) {
    logits = false;
    if (--rows == 0) return;
  }
  const int32_t sequence = batch_.add_sequence(session.pages());
  const int64_t first = session.held();
  const std::span<const int32_t> tokens = session.sequence();
  for (int32_t i = 0; i < rows; ++i) {
    batch_.add_row(tokens[static_cast<size_t>(first + i)], static_cast<int32_t>(first + i), sequence,
                   logits && i == rows - 1);
  }
  if (logits) {
    SampleRow row = session.sampling();
    row.bias_first = static_cast<int32_t>(batch_.bias.size());
    row.bias_count = static_cast<int32_t>(session.biases().size());
    batch_.sample.push_back(row);
    batch_.bias.insert(batch_.bias.end(), session.biases().begin(), session.biases().end());
  }
  parts_.push_back({&session, rows, logits ? static_cast<int32_t>(batch_.logit_row.size()) - 1 : -1});
}

// Logprobs and callbacks take their time: a step can end between two sessions.
void Scheduler::hand_out(Clock::time_point deadline) {
  while (next_part_ < parts_.size()) {
    const Part part = std::exchange(parts_[next_part_++], {});
    if (!part.session || part.session->closed()) continue;
    at_work_ = part.session;
    part.session->rows_done(part.rows, part.logit, forward_);
    at_work_ = nullptr;
    if (Clock::now() >= deadline) break;
  }
  if (next_part_ == parts_.size()) drop_batch();
}

bool Scheduler::fail_request(dsv_status status, const char* sentence) {
  Session* session = at_work_;
  at_work_ = nullptr;
  if (!session || !session->running()) return false;
  forget(*session);
  session->fail(status, sentence);
  return true;
}

void Scheduler::compute_now(Session& session, std::span<const int32_t> tokens, int64_t first, int64_t rows,
                            bool draft, float* out) {
  drop_batch();
  const auto count = static_cast<int64_t>(tokens.size());
  while (session.held() < count) {
    const int64_t at = session.held();
    // The last token has no next one to feed the MTP layer: it passes the main layers only.
    const bool with_draft = draft && at < count - 1;
    int64_t end = std::min(at + batch_rows_, with_draft ? count - 1 : count);
    // No more wanted rows than there is room for their logits.
    end = std::min(end, std::max(first, at) + max_logit_rows_);
    const auto n = static_cast<int32_t>(end - at);
    if (session.reserve(n) < n) {
      fail(DSV_ERROR_BUDGET,
           "no KV page is free for position {}: destroy or shorten other sessions, or raise kv_budget_bytes",
           at);
    }
    batch_.clear();
    batch_.draft = with_draft;
    const int32_t sequence = batch_.add_sequence(session.pages());
    for (int64_t t = at; t < end; ++t) {
      const bool wanted = t >= first && t < first + rows;
      batch_.add_row(tokens[static_cast<size_t>(t)], static_cast<int32_t>(t), sequence, wanted);
      if (with_draft) batch_.next_token.push_back(tokens[static_cast<size_t>(t + 1)]);
    }
    try {
      forward_.begin(batch_);
      while (!forward_.advance(Clock::time_point::max(), nullptr)) {
      }
    } catch (...) {
      drop_batch();
      throw;
    }
    const auto vocab = static_cast<size_t>(vocab_size_);
    for (size_t i = 0; i < batch_.logit_row.size(); ++i) {
      const int64_t t = at + batch_.logit_row[i];
      std::memcpy(out + static_cast<size_t>(t - first) * vocab, forward_.logits(static_cast<int32_t>(i)),
                  vocab * sizeof(float));
    }
    session.hold(end);
  }
}

}  // namespace dsv
