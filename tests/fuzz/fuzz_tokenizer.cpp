// Any bytes as a tokenizer.json: parsed or refused, and what is accepted encodes text into tokens that it has
// and that are the text again.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

void check(const dsv::Tokenizer& tokenizer, std::string_view text) {
  const std::vector<int32_t> ids = tokenizer.encode(text);
  std::string decoded;
  for (const int32_t id : ids) {
    require(tokenizer.has(id) && id < tokenizer.size());
    decoded += tokenizer.bytes(id);
  }
  const std::string repaired = dsv::replace_invalid_utf8(text);
  // Bytes without a token are left out, nothing else; then the rest stands in its order.
  size_t at = 0;
  for (const char byte : decoded) {
    at = repaired.find(byte, at);
    require(at++ != std::string::npos);
  }
  require(tokenizer.encode(text) == ids);  // now with what the first one has learnt
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  try {
    const auto tokenizer = dsv::Tokenizer::parse(json, "fuzz");
    for (int32_t id = 0; id < std::min(tokenizer->size(), 1000); ++id) {
      const int32_t added = tokenizer->find(tokenizer->bytes(id));
      require(added < 0 || tokenizer->bytes(added) == tokenizer->bytes(id));
    }
    check(*tokenizer, "");
    check(*tokenizer, "Hello, w\u00F6rld! 12345  \r\n\tdon't \u4F60\u597D \U0001F600<think>aaaaaaab\xFF\xC3");
    check(*tokenizer, json.substr(0, 2000));
  } catch (const dsv::Error& error) {
    require(dsv::is_utf8(error.what()));
  }
  return 0;
}
