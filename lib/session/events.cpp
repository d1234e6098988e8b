#include "session/events.h"

#include <algorithm>
#include <string_view>

namespace dsv {
namespace {

thread_local int callback_depth = 0;  // callbacks this thread is in, of any engine

void keep(std::string& storage, const char*& data, int64_t size) {
  if (!data) return;
  storage.assign(data, static_cast<size_t>(size));
  data = storage.data();
}

}  // namespace

void EventQueue::push(const dsv_event& event) {
  if (count_ == ring_.size()) {
    std::vector<std::unique_ptr<Slot>> grown(std::max<size_t>(8, 2 * ring_.size()));
    for (size_t i = count_; i < grown.size(); ++i) grown[i] = std::make_unique<Slot>();
    for (size_t i = 0; i < count_; ++i) grown[i] = std::move(ring_[(head_ + i) % ring_.size()]);
    ring_ = std::move(grown);
    head_ = 0;
  }
  Slot& slot = *ring_[(head_ + count_) % ring_.size()];
  slot.event = event;
  keep(slot.text, slot.event.text, event.text_size);
  keep(slot.tool_name, slot.event.tool_name, event.tool_name_size);
  keep(slot.tool_id, slot.event.tool_id, event.tool_id_size);
  slot.top.assign(event.top, event.top + event.top_count);
  slot.event.top = slot.top.data();
  ++count_;
}

bool EventQueue::pop(dsv_event& event) {
  if (lent_) {
    head_ = (head_ + 1) % ring_.size();
    --count_;
    lent_ = false;
  }
  if (count_ == 0) return false;
  lent_ = true;
  event = ring_[head_]->event;
  return true;
}

int32_t EventSink::deliver(const dsv_event& event) {
  if (closed_.load(std::memory_order_acquire)) return DSV_ACTION_CONTINUE;
  if (!callback_) {
    queue_.push(event);
    return DSV_ACTION_CONTINUE;
  }
  const std::lock_guard lock(delivering_);
  if (closed_.load(std::memory_order_acquire)) return DSV_ACTION_CONTINUE;
  ++callback_depth;
  const int32_t action = callback_(user_, &event);
  --callback_depth;
  return action;
}

void EventSink::close() {
  closed_.store(true, std::memory_order_release);
  if (callback_depth == 0) const std::lock_guard wait_for_callback(delivering_);
}

}  // namespace dsv
