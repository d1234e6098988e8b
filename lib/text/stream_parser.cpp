#include "text/stream_parser.h"

#include <dsv/dsv.h>

#include <algorithm>

#include "base/error.h"
#include "base/json.h"
#include "text/markers.h"
#include "text/python_json.h"

namespace dsv {

// A text to look for in a stream: after each byte, how much of its beginning the bytes so far end with
// (Knuth, Morris and Pratt). What is matched but not complete is a prefix of the marker, so it needs no
// buffer.
class Marker {
 public:
  constexpr explicit Marker(std::string_view text) : text_(text) {
    for (size_t i = 1; i < text.size(); ++i)
      borders_[i] = static_cast<uint8_t>(step(borders_[i - 1], text[i]));
  }
  constexpr std::string_view text() const { return text_; }
  constexpr size_t size() const { return text_.size(); }
  constexpr size_t step(size_t matched, char next) const {
    while (matched > 0 && text_[matched] != next) matched = borders_[matched - 1];
    return text_[matched] == next ? matched + 1 : 0;
  }

 private:
  std::string_view text_;
  std::array<uint8_t, 40> borders_{};  // the longest proper prefix of [0, i] that it also ends with
};

namespace {

constexpr Marker kDsml(markers::kDsml), kThink(markers::kThink), kEndThink(markers::kEndThink);
constexpr Marker kCallsStart(markers::kCallsStart), kEndParameter(markers::kEndParameter);
constexpr Marker kNameEnd("\">\n"), kStringHead("\" string=\"true\">"), kJsonHead("\" string=\"false\">");
constexpr const Marker* kStrays[] = {&kDsml, &kThink, &kEndThink};

// Names are compared with each other, so their number must not be the model's to choose.
constexpr size_t kMostParameters = 1000;

bool is_inside_code_point(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }
bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

}  // namespace

StreamParser::StreamParser(Kind kind, bool calls_stay_text)
    : state_(kind == Kind::thinking                 ? State::reasoning
             : kind == Kind::raw || calls_stay_text ? State::plain
                                                    : State::answer),
      calls_stay_text_(calls_stay_text),
      watch_(kind != Kind::raw && !calls_stay_text) {
  if (state_ == State::plain) return;
  constexpr size_t kCallBytes = 4096, kNameBytes = 64, kParameters = 16;
  raw_.reserve(kCallBytes);
  arguments_.reserve(kCallBytes);
  name_.reserve(kNameBytes);
  id_.reserve(kNameBytes);
  parameters_.reserve(kParameters);
}

void StreamParser::enter(State state) {
  state_ = state;
  matched_.fill(0);
}

void StreamParser::push(std::string_view text, const Take& take) {
  while (!text.empty()) {
    switch (state_) {
      case State::reasoning:
        if (until(kEndThink, DSV_EVENT_REASONING, text, take)) {
          enter(calls_stay_text_ ? State::plain : State::answer);
          watch_ = !calls_stay_text_;
          strays_.fill(0);
        }
        break;
      case State::answer:
        if (until(kCallsStart, DSV_EVENT_CONTENT, text, take)) {
          enter(State::block_line);
          raw_ = kCallsStart.text();
          start_ = 0;
          at_ = raw_.size();
        }
        break;
      case State::plain:
        emit(DSV_EVENT_CONTENT, text, take);
        return;
      case State::closed: {
        size_t first = 1;
        while (first < text.size() && is_inside_code_point(text[first])) ++first;
        emit(DSV_EVENT_CONTENT, text.substr(0, first), take);
        report("text follows the tool calls, which end a turn; it went out as content", take);
        text.remove_prefix(first);
        enter(State::plain);
        break;
      }
      default:
        raw_ += text;
        while (in_block() && advance(take)) {
        }
        if (in_block()) {
          // The calls that have ended are not needed any more.
          raw_.erase(0, start_);
          at_ -= start_;
          mark_ -= std::min(mark_, start_);
          start_ = 0;
          return;
        }
        // Out of the block: what was not parsed is still to be handled, and is the end of `text`.
        text = text.substr(text.size() - (raw_.size() - at_));
        raw_.clear();
    }
  }
}

void StreamParser::finish(const Take& take) {
  if (state_ == State::reasoning) {
    emit(DSV_EVENT_REASONING, kEndThink.text().substr(0, matched_[0]), take);
  } else if (state_ == State::answer) {
    emit(DSV_EVENT_CONTENT, kCallsStart.text().substr(0, matched_[0]), take);
  } else if (in_block()) {
    at_ = raw_.size();
    malformed(begun_ == ended_ && ended_ > 0 ? "the block of calls is not closed" : "it ends too early",
              take);
  }
  enter(State::plain);
}

// Hands out text up to the marker. True if it was found: then `text` is what follows it, else nothing.
bool StreamParser::until(const Marker& marker, int32_t kind, std::string_view& text, const Take& take) {
  const size_t held = matched_[0];
  size_t& matched = matched_[0];
  size_t at = 0;
  while (at < text.size() && matched < marker.size()) matched = marker.step(matched, text[at++]);
  const size_t free = held + at - matched;
  const size_t of_held = std::min(held, free);
  emit(kind, marker.text().substr(0, of_held), take);
  emit(kind, text.substr(0, free - of_held), take);
  text.remove_prefix(at);
  return matched == marker.size();
}

void StreamParser::emit(int32_t kind, std::string_view text, const Take& take) {
  const auto out = [&](std::string_view piece) {
    if (!piece.empty()) take({kind, piece, {}, {}, 0});
  };
  for (size_t i = 0; watch_ && i < text.size(); ++i) {
    for (size_t k = 0; k < std::size(kStrays); ++k) {
      strays_[k] = kStrays[k]->step(strays_[k], text[i]);
      if (strays_[k] < kStrays[k]->size()) continue;
      strays_[k] = 0;
      if (kind == DSV_EVENT_REASONING && kStrays[k] != &kDsml) continue;
      watch_ = false;
      out(text.substr(0, i + 1));
      report(kind == DSV_EVENT_REASONING ? "tool call markup stands in the thinking part; it stays reasoning"
             : kStrays[k] == &kDsml
                 ? "tool call markup that opens no block of calls stands in the answer; it went "
                   "out as content"
                 : "a thinking marker stands in the answer; it went out as content",
             take);
      text.remove_prefix(i + 1);
      break;
    }
  }
  out(text);
}

void StreamParser::report(std::string_view sentence, const Take& take) {
  watch_ = false;
  take({DSV_EVENT_MALFORMED, sentence, {}, {}, 0});
}

// One step of the block's grammar. False if it needs more text.
bool StreamParser::advance(const Take& take) {
  using namespace markers;
  size_t found = kMore;
  std::string_view wanted;
  switch (state_) {
    case State::block_line:
      wanted = "'>' and a line end after '<｜DSML｜function_calls'";
      if ((found = expect({">\n"})) == 0) enter(State::invoke_or_end);
      break;
    case State::invoke_or_end:
      wanted = "'<｜DSML｜invoke' or the end of the block";
      if ((found = expect({kInvoke, kEndCalls})) == 0) {
        enter(State::invoke_name);
      } else if (found == 1) {
        if (ended_ == 0) {
          malformed("the block holds no call", take);
          return true;
        }
        start_ = at_;
        enter(State::closed);
      }
      break;
    case State::invoke_name:
      while (at_ < raw_.size() && is_space(raw_[at_])) ++at_;
      wanted = "'name=\"' after '<｜DSML｜invoke'";
      if ((found = expect({"name=\""})) == 0) {
        enter(State::name_end);
        mark_ = at_;
      }
      break;
    case State::name_end:
      wanted = "'\">' and a line end after the name";
      if ((found = search({&kNameEnd, &dsv::kDsml})) == 0) begin_call(take);
      if (found == 1) found = kWrong;
      break;
    case State::parameter_after_name:
    case State::parameter_after_blank:
    case State::parameter_or_end: {
      wanted = "'<｜DSML｜parameter' or '</｜DSML｜invoke>'";
      const bool blank =
          state_ == State::parameter_after_name;  // a call without parameters has an empty line
      found = blank ? expect({kParameter, kEndInvoke, "\n"}) : expect({kParameter, kEndInvoke});
      if (found == 0) enter(State::parameter_name);
      if (found == 1) end_call(take);
      if (found == 2) enter(State::parameter_after_blank);
      break;
    }
    case State::parameter_name:
      wanted = "' name=\"' after '<｜DSML｜parameter'";
      if ((found = expect({" name=\""})) == 0) {
        enter(State::parameter_head);
        mark_ = at_;
      }
      break;
    case State::parameter_head:
      wanted = "'string=\"true\">' or 'string=\"false\">' after a parameter's name";
      found = search({&kStringHead, &kJsonHead, &dsv::kDsml});
      if (found == 2) found = kWrong;
      if (found < 2) begin_parameter(found == 0, take);
      break;
    case State::parameter_value:
      if (!take_value(take)) return false;
      return true;
    case State::parameter_line:
      wanted = "a line end after '</｜DSML｜parameter>'";
      if ((found = expect({"\n"})) == 0) enter(State::parameter_or_end);
      break;
    case State::invoke_line:
      wanted = "a line end after '</｜DSML｜invoke>'";
      if ((found = expect({"\n"})) == 0) enter(State::invoke_or_end);
      break;
    default:
      return false;
  }
  if (found == kWrong) malformed(fmt::format("it lacks {}", wanted), take);
  return found != kMore;
}

// Which of `texts` comes next; at_ moves behind it, or behind the first code point that rules all of them
// out.
size_t StreamParser::expect(std::initializer_list<std::string_view> texts) {
  const std::string_view next = std::string_view(raw_).substr(at_);
  size_t common = 0, index = 0;
  for (const std::string_view text : texts) {
    const size_t same = static_cast<size_t>(
        std::mismatch(text.begin(), text.end(), next.begin(), next.end()).first - text.begin());
    if (same == text.size()) {
      at_ += same;
      return index;
    }
    if (same == next.size()) return kMore;
    common = std::max(common, same);
    ++index;
  }
  at_ += common + 1;
  while (at_ < raw_.size() && is_inside_code_point(raw_[at_])) ++at_;
  return kWrong;
}

// Which of the markers is complete first; at_ moves behind it.
size_t StreamParser::search(std::initializer_list<const Marker*> markers) {
  while (at_ < raw_.size()) {
    const char next = raw_[at_++];
    size_t index = 0;
    for (const Marker* marker : markers) {
      matched_[index] = marker->step(matched_[index], next);
      if (matched_[index] == marker->size()) return index;
      ++index;
    }
  }
  return kMore;
}

void StreamParser::begin_call(const Take& take) {
  name_.assign(raw_, mark_, at_ - kNameEnd.size() - mark_);
  id_ = "call_" + std::to_string(begun_);
  arguments_.clear();
  parameters_.clear();
  ++begun_;
  call_event(DSV_EVENT_TOOL_BEGIN, {}, take);
  enter(State::parameter_after_name);
}

void StreamParser::begin_parameter(bool is_string, const Take& take) {
  const size_t head = is_string ? kStringHead.size() : kJsonHead.size();
  const std::string_view name = std::string_view(raw_).substr(mark_, at_ - head - mark_);
  if (parameters_.size() == kMostParameters)
    return malformed(fmt::format("it has more than {} parameters", kMostParameters), take);
  for (const Range& other : parameters_) {
    if (std::string_view(raw_).substr(start_ + other.begin, other.size) == name)
      return malformed(fmt::format("it repeats the parameter {}", shown(name)), take);
  }
  parameters_.push_back({mark_ - start_, name.size()});
  const size_t size = arguments_.size();
  arguments_ += size == 0 ? "{" : ", ";
  dump_python_string(name, arguments_);
  arguments_ += is_string ? ": \"" : ": ";
  call_event(DSV_EVENT_TOOL_DELTA, std::string_view(arguments_).substr(size), take);
  is_string_ = is_string;
  enter(State::parameter_value);
  mark_ = at_;
}

bool StreamParser::take_value(const Take& take) {
  const bool ended = search({&kEndParameter}) == 0;
  const size_t end = at_ - matched_[0];
  const size_t size = arguments_.size();
  if (is_string_) {
    escape_python_string(std::string_view(raw_).substr(mark_, end - mark_), arguments_);
    mark_ = end;
    if (ended) arguments_ += '"';
  } else if (ended) {
    const std::string_view value = std::string_view(raw_).substr(mark_, end - mark_);
    try {
      parse_python_json(value, "the value");
    } catch (const Error& error) {
      malformed(fmt::format("a parameter with string=\"false\" must be JSON: {}", error.what()), take);
      return true;
    }
    arguments_ += value;
  }
  if (arguments_.size() > size)
    call_event(DSV_EVENT_TOOL_DELTA, std::string_view(arguments_).substr(size), take);
  if (ended) enter(State::parameter_line);
  return ended;
}

void StreamParser::end_call(const Take& take) {
  const size_t size = arguments_.size();
  arguments_ += size == 0 ? "{}" : "}";
  call_event(DSV_EVENT_TOOL_DELTA, std::string_view(arguments_).substr(size), take);
  call_event(DSV_EVENT_TOOL_END, arguments_, take);
  ++ended_;
  start_ = at_;
  enter(State::invoke_line);
}

void StreamParser::call_event(int32_t kind, std::string_view text, const Take& take) const {
  take({kind, text, name_, id_, begun_ - 1});
}

void StreamParser::malformed(std::string_view reason, const Take& take) {
  watch_ = false;
  emit(DSV_EVENT_CONTENT, std::string_view(raw_).substr(start_, at_ - start_), take);
  report(begun_ > ended_ ? fmt::format("the call of {} is malformed: {}; its markup went out as content",
                                       shown(name_), reason)
                         : fmt::format("tool call markup is malformed: {}; it went out as content", reason),
         take);
  enter(State::plain);
}

}  // namespace dsv
