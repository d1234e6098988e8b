// Events on their way to the host: straight into its callback, or queued with storage of their own.
#pragma once

#include <dsv/dsv.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace dsv {

// Copies of events until the host polls them. A ring whose slots keep their buffers, so that a host that
// polls in time makes it allocate nothing per event. Not thread-safe.
class EventQueue {
 public:
  // Makes room for one event of a request that must come whatever happens.
  void reserve_last();
  void push(const dsv_event& event);
  // Uses that room: cannot fail. A text that is longer than kReservedText bytes is cut.
  void push_last(const dsv_event& event) noexcept;
  // The oldest event, or false. What it points to stays valid until the next pop().
  bool pop(dsv_event& event);

 private:
  static constexpr size_t kReservedText = 512;  // a sentence
  struct Slot {
    dsv_event event{};
    std::string text, tool_name, tool_id;
    std::vector<dsv_token_logprob> top;
  };
  void make_room(size_t slots);
  Slot& next_slot() { return *ring_[(head_ + count_) % ring_.size()]; }

  std::vector<std::unique_ptr<Slot>> ring_;  // slots do not move: short strings live inside them
  size_t head_ = 0, count_ = 0;
  bool lent_ = false;  // the slot at head_ was given out by the last pop()
};

// Where a session's events go.
class EventSink {
 public:
  EventSink(dsv_event_callback callback, void* user) : callback_(callback), user_(user) {}

  // Before a request starts: what its deliver_last() will need.
  void reserve_last() {
    if (polled()) queue_.reserve_last();
  }
  // Returns the callback's DSV_ACTION; DSV_ACTION_CONTINUE when queued or closed. On the stepping thread.
  int32_t deliver(const dsv_event& event) { return deliver(event, false); }
  // The request's terminal event. Cannot fail.
  void deliver_last(const dsv_event& event) noexcept { deliver(event, true); }
  // [any thread] Nothing is delivered once this has returned. Waits for a callback that another thread is in,
  // but not from inside a callback: two of them could wait for each other.
  void close();
  bool polled() const { return callback_ == nullptr; }
  EventQueue& queue() { return queue_; }

 private:
  int32_t deliver(const dsv_event& event, bool last);

  dsv_event_callback callback_;
  void* user_;
  EventQueue queue_;
  std::mutex delivering_;
  std::atomic<bool> closed_{false};
};

}  // namespace dsv
