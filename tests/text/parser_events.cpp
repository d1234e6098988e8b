#include "tests/text/parser_events.h"

#include <dsv/dsv.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "base/error.h"
#include "text/detokenizer.h"
#include "text/python_json.h"
#include "text/utf8.h"

namespace dsv::test {
namespace {

// The markup again, spelled out: what the parser knows must not be what it is judged by.
const std::string kBlock = "\n\n<｜DSML｜function_calls>\n", kEndBlock = "\n</｜DSML｜function_calls>";
const std::string kInvoke = "<｜DSML｜invoke", kEndInvoke = "</｜DSML｜invoke>";
const std::string kEndParameter = "</｜DSML｜parameter>";

bool is_text(int32_t kind) {
  return kind == DSV_EVENT_REASONING || kind == DSV_EVENT_CONTENT || kind == DSV_EVENT_TOOL_DELTA;
}

void take_event(const TextEvent& event, std::vector<ParserEvent>& events) {
  if (!is_utf8(event.text)) throw std::logic_error("an event's text is not UTF-8");
  if (is_text(event.kind)) {
    if (event.text.empty()) throw std::logic_error("an event of text has none");
    if (!events.empty() && events.back().kind == event.kind && events.back().tool_index == event.tool_index) {
      events.back().text += event.text;
      return;
    }
  }
  events.push_back({event.kind, std::string(event.text), std::string(event.tool_name),
                    std::string(event.tool_id), event.tool_index});
}

// Follows the events through the text.
class Checker {
 public:
  Checker(std::string_view text, StreamParser::Kind kind, bool calls_stay_text,
          const std::vector<ParserEvent>& events)
      : rest_(text),
        thinking_(kind == StreamParser::Kind::thinking),
        plain_(kind == StreamParser::Kind::raw || calls_stay_text),
        events_(events) {}

  std::string run() {
    for (at_ = 0; at_ < events_.size() && wrong_.empty(); ++at_) event(events_[at_]);
    if (!wrong_.empty()) return wrong_;
    if (thinking_) take("</think>");
    if (!rest_.empty()) return fmt::format("lost: {}", rest_);
    return "";
  }

 private:
  void require(bool holds, std::string_view what) {
    if (!holds && wrong_.empty()) wrong_ = fmt::format("event {}: {}", at_, what);
  }
  bool take(std::string_view text) {
    if (!rest_.starts_with(text)) return false;
    rest_.remove_prefix(text.size());
    return true;
  }
  void must_take(std::string_view text) {
    require(take(text), fmt::format("'{}' expected at '{}'", text, rest_.substr(0, 200)));
  }

  void event(const ParserEvent& event) {
    if (event.kind == DSV_EVENT_REASONING) {
      require(thinking_, "reasoning outside the thinking part");
      require(event.text.find("</think>") == std::string::npos, "reasoning beyond its end");
      return must_take(event.text);
    }
    if (event.kind == DSV_EVENT_MALFORMED) {
      require(!plain_, "malformed text where all is text");
      require(!event.text.empty(), "a report without a sentence");
      require(++reports_ <= 3, "more than a report for the thinking part, the answer and its calls");
      return;
    }
    if (thinking_) {
      must_take("</think>");
      thinking_ = false;
    }
    if (event.kind == DSV_EVENT_CONTENT) return must_take(event.text);
    require(!plain_, "a call where calls are text");
    require(event.kind == DSV_EVENT_TOOL_BEGIN, "an event of a call that has not begun");
    call(event);
  }

  // A call's events from its beginning on; at_ ends at the last one.
  void call(const ParserEvent& begin) {
    require(begin.text.empty(), "a beginning with text");
    require(begin.tool_index == calls_, fmt::format("call {} has index {}", calls_, begin.tool_index));
    require(begin.tool_id == fmt::format("call_{}", calls_), fmt::format("has id {}", begin.tool_id));
    ++calls_;
    std::string arguments;
    for (; at_ + 1 < events_.size(); ++at_) {
      const ParserEvent& next = events_[at_ + 1];
      if (next.kind != DSV_EVENT_TOOL_DELTA && next.kind != DSV_EVENT_TOOL_END) break;
      require(next.tool_index == begin.tool_index && next.tool_name == begin.tool_name &&
                  next.tool_id == begin.tool_id,
              "an event of another call inside a call");
      if (next.kind == DSV_EVENT_TOOL_DELTA) {
        arguments += next.text;
        continue;
      }
      ++at_;
      require(next.text == arguments, "the deltas do not add up to the arguments");
      if (wrong_.empty()) ended_call(next);
      return;
    }
    // Not ended: the markup is content again, and no call follows.
    require(at_ + 2 < events_.size() && events_[at_ + 1].kind == DSV_EVENT_CONTENT &&
                events_[at_ + 2].kind == DSV_EVENT_MALFORMED,
            "a call that is neither ended nor malformed");
  }

  void ended_call(const ParserEvent& end) {
    must_take(end.tool_index == 0 ? kBlock : "\n");
    must_take(kInvoke);
    rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t\n\v\f\r"), rest_.size()));
    must_take("name=\"" + end.tool_name + "\">\n");
    try {
      const auto parsed = nlohmann::json::parse(end.text);
      require(parsed.is_object(), "arguments that are no object");
    } catch (const nlohmann::json::out_of_range&) {
      // A number too large for a double is JSON all the same.
    } catch (const nlohmann::json::exception& error) {
      return require(false, fmt::format("arguments that are no JSON: {}", error.what()));
    }
    const PythonJson arguments = parse_python_json(end.text, "the arguments");
    take("\n");  // an empty line for no parameters, and allowed for some
    for (const auto& [name, value] : arguments.members) {
      const std::string head = fmt::format("<｜DSML｜parameter name=\"{}\" string=\"", name);
      const bool as_string = take(head + "true\">");
      if (!as_string) must_take(head + "false\">");
      const std::string_view written = rest_.substr(0, rest_.find(kEndParameter));
      if (!as_string) {
        std::string again, given;
        dump_python_json(parse_python_json(written, "the value"), again);
        dump_python_json(value, given);
        require(again == given, "an argument that is not the parameter's value");
      } else {
        require(written == value.text, "an argument that is not the parameter's text");
      }
      rest_.remove_prefix(written.size());
      must_take(kEndParameter);
      must_take("\n");
    }
    must_take(kEndInvoke);
    take(kEndBlock);
  }

  std::string_view rest_;
  bool thinking_, plain_;
  const std::vector<ParserEvent>& events_;
  size_t at_ = 0;
  int32_t calls_ = 0, reports_ = 0;
  std::string wrong_;
};

}  // namespace

std::vector<ParserEvent> parse_pieces(std::string_view text, StreamParser::Kind kind, bool calls_stay_text,
                                      const std::function<size_t()>& next_size) {
  std::vector<ParserEvent> events;
  const StreamParser::Take take = [&](const TextEvent& event) { take_event(event, events); };
  StreamParser parser(kind, calls_stay_text);
  Detokenizer code_points;
  while (!text.empty()) {
    const size_t size = std::min(next_size(), text.size());
    parser.push(code_points.push(text.substr(0, size)), take);
    text.remove_prefix(size);
  }
  parser.push(code_points.finish(), take);
  parser.finish(take);
  return events;
}

std::vector<ParserEvent> parse_whole(std::string_view text, StreamParser::Kind kind, bool calls_stay_text) {
  return parse_pieces(text, kind, calls_stay_text, [&] { return text.size(); });
}

std::string broken_promise(std::string_view text, StreamParser::Kind kind, bool calls_stay_text,
                           const std::vector<ParserEvent>& events) {
  try {
    return Checker(text, kind, calls_stay_text, events).run();
  } catch (const Error& error) {
    return error.what();  // an argument that should be JSON
  }
}

}  // namespace dsv::test
