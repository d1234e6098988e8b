// A completion's text, in any pieces, into typed events while it comes: reasoning, content, tool calls.
//
//   [reasoning </think>] content [\n\n <｜DSML｜function_calls> ... </｜DSML｜function_calls>]
//
// Text that could be the start of a marker is held back until it is one or is not. What departs from the
// format is text: it goes out as content (inside the thinking part: as reasoning) and an event says so.
// Nothing is dropped.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace dsv {

// As dsv_event; the views are valid inside the call only.
struct TextEvent {
  int32_t kind = 0;  // DSV_EVENT_REASONING, _CONTENT, _TOOL_*, _MALFORMED
  std::string_view text, tool_name, tool_id;
  int32_t tool_index = 0;
};

class Marker;

// Not thread-safe. Outside a call block nothing is stored and nothing allocated; inside one, the call at hand
// is kept: its text, to give back should it turn out malformed, and its arguments. The buffers for that are
// there from the start; a call longer than they are makes them grow.
class StreamParser {
 public:
  enum class Kind {
    raw,
    answer,
    thinking
  };  // raw: all is content; thinking: begins inside the thinking part
  using Take = std::function<void(const TextEvent&)>;

  // calls_stay_text: tool markup is content like any other.
  StreamParser(Kind kind, bool calls_stay_text);

  // Whole code points. Events do not depend on how the text was cut, except for where text and deltas are.
  void push(std::string_view text, const Take& take);
  void finish(const Take& take);  // what was held back; nothing may follow
  bool in_reasoning() const { return state_ == State::reasoning; }
  int32_t tool_calls() const { return ended_; }  // that have ended

 private:
  enum class State {
    reasoning,
    answer,
    plain,  // content to the end, whatever it is
    // Inside the block of calls. Named by what comes next.
    block_line,
    invoke_or_end,
    invoke_name,
    name_end,
    parameter_after_name,
    parameter_after_blank,
    parameter_name,
    parameter_head,
    parameter_value,
    parameter_line,
    parameter_or_end,
    invoke_line,
    closed,  // after the block
  };
  static constexpr size_t kMore = SIZE_MAX, kWrong = SIZE_MAX - 1;

  bool in_block() const { return state_ >= State::block_line && state_ < State::closed; }
  void enter(State state);
  bool until(const Marker& marker, int32_t kind, std::string_view& text, const Take& take);
  void emit(int32_t kind, std::string_view text, const Take& take);
  void report(std::string_view sentence, const Take& take);

  bool advance(const Take& take);
  size_t expect(std::initializer_list<std::string_view> texts);
  size_t search(std::initializer_list<const Marker*> markers);
  void begin_call(const Take& take);
  void begin_parameter(bool is_string, const Take& take);
  bool take_value(const Take& take);
  void end_call(const Take& take);
  void call_event(int32_t kind, std::string_view text, const Take& take) const;
  void malformed(std::string_view reason, const Take& take);

  State state_;
  bool calls_stay_text_, watch_;                // watch_: say so if a marker stands where it is none
  std::array<size_t, 3> matched_{}, strays_{};  // bytes matched of each marker looked for

  std::string raw_;                    // the block's text that is still needed
  size_t start_ = 0;                   // in raw_: where the text of the call at hand begins
  size_t at_ = 0;                      // .. up to where it is parsed
  size_t mark_ = 0;                    // .. where the name or value at hand begins
  bool is_string_ = false;             // the value at hand
  int32_t begun_ = 0, ended_ = 0;      // calls
  std::string name_, id_, arguments_;  // of the call at hand
  struct Range {
    size_t begin, size;
  };
  std::vector<Range> parameters_;  // names in raw_, counted from start_
};

}  // namespace dsv
