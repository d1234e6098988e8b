// Any text as a completion: the same events however it is cut, every promise of the parser kept. The first
// two bytes choose the kind of completion and the cuts.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "tests/text/parser_events.h"
#include "text/chat_encoding.h"
#include "text/utf8.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using dsv::StreamParser;
  if (size < 2) return 0;
  const auto kind = static_cast<StreamParser::Kind>(data[0] % 3);
  const bool calls_stay_text = data[0] >= 128;
  const std::string text = dsv::replace_invalid_utf8({reinterpret_cast<const char*>(data) + 2, size - 2});
  const auto whole = dsv::test::parse_whole(text, kind, calls_stay_text);
  require(dsv::test::broken_promise(text, kind, calls_stay_text, whole).empty());
  std::minstd_rand random(data[1]);
  const size_t longest = 1 + data[1] % 16;
  require(dsv::test::parse_pieces(text, kind, calls_stay_text, [&] { return 1 + random() % longest; }) ==
          whole);
  require(nlohmann::json::accept(dsv::parse_completion(text, kind == StreamParser::Kind::thinking)));
  return 0;
}
