// Any UTF-8 as a request: refused with a sentence, or rendered in every mode into UTF-8 that begins with BOS.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "text/chat_encoding.h"
#include "text/markers.h"
#include "text/utf8.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

// Runs `read` and checks how it fails. False if it did.
template <class Read>
bool accepted(const Read& read) {
  try {
    read();
    return true;
  } catch (const dsv::Error& error) {
    require(error.status() == DSV_ERROR_INVALID_ARGUMENT || error.status() == DSV_ERROR_UNSUPPORTED);
    require(dsv::is_utf8(error.what()));
    return false;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (!dsv::is_utf8(text)) return 0;  // the C functions refuse it
  accepted([&] {
    std::string written, again;
    dump_python_json(dsv::parse_python_json(text, "fuzz"), written);
    dump_python_json(dsv::parse_python_json(written, "fuzz"), again);
    require(written == again);
  });
  dsv::ChatRequest request;
  if (!accepted([&] { request = dsv::parse_chat_request(text); })) return 0;
  for (const bool thinking : {false, true}) {
    for (const bool keep_thinking : {false, true}) {
      accepted([&] {
        const std::string prompt = dsv::render_chat(request, thinking, keep_thinking);
        require(prompt.starts_with(dsv::markers::kBos) && dsv::is_utf8(prompt));
        for (const dsv::ChatMessage& message : request.messages) {
          if (message.role != dsv::ChatRole::assistant)
            require(prompt.find(message.content) != std::string::npos);
        }
      });
    }
  }
  return 0;
}
