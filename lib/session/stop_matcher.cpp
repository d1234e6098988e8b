#include "session/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace dsv {
namespace {

// Length of the longest end of `text` that begins `stop`, the whole of it excluded.
size_t partial_match(std::string_view text, std::string_view stop) {
  for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n) {
    if (text.ends_with(stop.substr(0, n))) return n;
  }
  return 0;
}

}  // namespace

void StopMatcher::start(std::vector<std::string> stops) {
  stops_ = std::move(stops);
  held_.clear();
  stopped_ = false;
}

std::string_view StopMatcher::push(std::string_view text) {
  if (stopped_) return {};
  held_ += text;
  size_t end = std::string::npos, keep = 0;
  for (const std::string& stop : stops_) {
    end = std::min(end, held_.find(stop));
    keep = std::max(keep, partial_match(held_, stop));
  }
  if (end != std::string::npos) {
    stopped_ = true;
  } else {
    end = held_.size() - keep;
  }
  out_.assign(held_, 0, end);
  held_.erase(0, end);
  return out_;
}

std::string_view StopMatcher::flush() {
  if (stopped_) return {};
  out_.assign(held_);
  held_.clear();
  return out_;
}

}  // namespace dsv
