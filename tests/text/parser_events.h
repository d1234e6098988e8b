// What a stream parser says of a text, and what must hold of it whatever the text is. For the tests and the
// fuzzer.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "text/stream_parser.h"

namespace dsv::test {

struct ParserEvent {
  int32_t kind = 0;
  std::string text, tool_name, tool_id;
  int32_t tool_index = 0;
  bool operator==(const ParserEvent&) const = default;
};

// The events of a parser that gets `text` in pieces, neighbours joined that only the cutting parts.
// next_size() gives the bytes of each piece, which may end anywhere: code points are put together as a
// session does it. Throws std::logic_error for a text event that is empty or not UTF-8.
std::vector<ParserEvent> parse_pieces(std::string_view text, StreamParser::Kind kind, bool calls_stay_text,
                                      const std::function<size_t()>& next_size);
std::vector<ParserEvent> parse_whole(std::string_view text, StreamParser::Kind kind, bool calls_stay_text);

// `events` are those of all of `text`, which is UTF-8: nothing is lost or put in another order, calls begin
// and end in turn, their arguments are JSON objects that the deltas add up to and that say what the markup
// says, reasoning comes before all else. Returns what does not hold, or "".
std::string broken_promise(std::string_view text, StreamParser::Kind kind, bool calls_stay_text,
                           const std::vector<ParserEvent>& events);

}  // namespace dsv::test
