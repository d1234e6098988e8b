// Tokenizers and the chat encoding by themselves, without a model.
#include <memory>
#include <string>

#include "abi/abi.h"
#include "base/host.h"
#include "session/chat.h"
#include "session/utf8.h"
#include "text/chat_encoding.h"
#include "text/tokenizer.h"

using namespace dsv::abi;

namespace {

bool thinking_flag(int32_t flags) {
  constexpr int32_t kKnown = DSV_CHAT_THINKING | DSV_CHAT_KEEP_THINKING;
  if ((flags & ~kKnown) != 0) {
    dsv::fail(DSV_ERROR_INVALID_ARGUMENT,
              "flags is {}: give any of DSV_CHAT_THINKING and DSV_CHAT_KEEP_THINKING, or 0", flags);
  }
  return (flags & DSV_CHAT_THINKING) != 0;
}

}  // namespace

extern "C" {

dsv_status dsv_tokenizer_open(const char* path, dsv_tokenizer** tokenizer) {
  return guarded([&] {
    const std::string name(dsv::check_utf8(path, DSV_NUL_TERMINATED, "path"));
    require(tokenizer, "tokenizer");
    const auto file = dsv::Host(nullptr).open(name);
    *tokenizer = new dsv_tokenizer{dsv::open_tokenizer(*file, name)};
  });
}

void dsv_tokenizer_destroy(dsv_tokenizer* tokenizer) { delete tokenizer; }

dsv_status dsv_tokenizer_encode(const dsv_tokenizer* handle, const char* text, int64_t text_size,
                                int32_t* ids, int64_t capacity, int64_t* count) {
  return guarded([&] {
    const std::shared_ptr<const dsv::Tokenizer> tokenizer = require(handle, "tokenizer").tokenizer;
    check_out(ids, capacity, count);
    const std::vector<int32_t> found = tokenizer->encode(dsv::check_utf8(text, text_size, "text"));
    copy_ids(found.data(), found.size(), ids, capacity, count);
  });
}

dsv_status dsv_tokenizer_decode(const dsv_tokenizer* handle, const int32_t* ids, int64_t count, char* out,
                                int64_t capacity, int64_t* size) {
  return guarded([&] {
    const std::shared_ptr<const dsv::Tokenizer> tokenizer = require(handle, "tokenizer").tokenizer;
    if (require_size(count, "count") > 0) require(ids, "ids");
    check_out(out, capacity, size);
    std::string text;
    for (int64_t i = 0; i < count; ++i) {
      if (!tokenizer->has(ids[i])) {
        dsv::fail(DSV_ERROR_INVALID_ARGUMENT, "ids[{}] is {}: this tokenizer has no such token", i, ids[i]);
      }
      text += tokenizer->bytes(ids[i]);
    }
    copy_text(text, out, capacity, size);
  });
}

dsv_status dsv_chat_encode(const char* request_json, int64_t request_size, int32_t flags, char* out,
                           int64_t capacity, int64_t* size) {
  return guarded([&] {
    const bool thinking = thinking_flag(flags);
    check_out(out, capacity, size);
    const dsv::ChatRequest request =
        dsv::parse_chat_request(dsv::check_utf8(request_json, request_size, "request_json"));
    copy_text(dsv::render_chat(request, thinking, (flags & DSV_CHAT_KEEP_THINKING) != 0), out, capacity,
              size);
  });
}

dsv_status dsv_chat_parse(const char* completion, int64_t completion_size, int32_t flags, char* out,
                          int64_t capacity, int64_t* size) {
  return guarded([&] {
    const bool thinking = thinking_flag(flags);
    check_out(out, capacity, size);
    const std::string_view text = dsv::check_utf8(completion, completion_size, "completion");
    copy_text(dsv::parse_completion(text, thinking), out, capacity, size);
  });
}

}  // extern "C"
