#include "session/events.h"

#include <algorithm>
#include <string_view>

#include "session/utf8.h"

namespace dsv {
namespace {

thread_local int callback_depth = 0;  // callbacks this thread is in, of any engine

void keep(std::string& storage, const char*& data, int64_t size) {
  if (!data) return;
  storage.assign(data, static_cast<size_t>(size));
  data = storage.data();
}

}  // namespace

void EventQueue::make_room(size_t slots) {
  if (count_ + slots <= ring_.size()) return;
  std::vector<std::unique_ptr<Slot>> grown(std::max<size_t>(8, 2 * ring_.size()));
  for (size_t i = ring_.size(); i < grown.size(); ++i) {
    grown[i] = std::make_unique<Slot>();
    grown[i]->text.reserve(kReservedText);
  }
  for (size_t i = 0; i < ring_.size(); ++i) grown[i] = std::move(ring_[(head_ + i) % ring_.size()]);
  ring_ = std::move(grown);
  head_ = 0;
}

void EventQueue::reserve_last() { make_room(1); }

void EventQueue::push(const dsv_event& event) {
  make_room(2);
  Slot& slot = next_slot();
  slot.event = event;
  keep(slot.text, slot.event.text, event.text_size);
  keep(slot.tool_name, slot.event.tool_name, event.tool_name_size);
  keep(slot.tool_id, slot.event.tool_id, event.tool_id_size);
  if (event.top) {
    slot.top.assign(event.top, event.top + event.top_count);
    slot.event.top = slot.top.data();
  }
  ++count_;
}

void EventQueue::push_last(const dsv_event& event) noexcept {
  Slot& slot = next_slot();
  slot.event = event;
  if (event.text) {
    const std::string_view text =
        whole_code_points({event.text, static_cast<size_t>(event.text_size)}, kReservedText);
    slot.event.text_size = static_cast<int64_t>(text.size());
    keep(slot.text, slot.event.text, slot.event.text_size);
  }
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

int32_t EventSink::deliver(const dsv_event& event, bool last) {
  if (closed_.load(std::memory_order_acquire)) return DSV_ACTION_CONTINUE;
  if (!callback_) {
    last ? queue_.push_last(event) : queue_.push(event);
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
