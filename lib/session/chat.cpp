#include "session/chat.h"

#include "base/error.h"
#include "text/chat_encoding.h"
#include "text/markers.h"
#include "text/tokenizer.h"

namespace dsv {
namespace {

// Without thinking and with tools there is no such model.
void check_speciale(const ChatRequest& request, bool thinking) {
  if (!thinking) {
    fail(DSV_ERROR_UNSUPPORTED, "the \"speciale\" chat profile always thinks: set options->thinking to 1");
  }
  if (request.has_tools()) {
    fail(DSV_ERROR_UNSUPPORTED, "the \"speciale\" chat profile has no tools: leave \"tools\" out");
  }
  for (size_t i = 0; i < request.messages.size(); ++i) {
    if (request.messages[i].calls.empty()) continue;
    fail(DSV_ERROR_UNSUPPORTED, "the \"speciale\" chat profile has no tools: leave out {}.tool_calls",
         request.name_of(i));
  }
}

// The official encoding renders any list; an answer can follow only where the format has one.
void check_answerable(const ChatRequest& request) {
  for (size_t i = 0; i < request.messages.size(); ++i) {
    const size_t calls = request.messages[i].calls.size(), results = request.results_of(i);
    if (results > 0 && results < calls && request.messages[i].role == ChatRole::assistant) {
      fail(DSV_ERROR_INVALID_ARGUMENT, "{} has {} tool_calls but {} results follow: give one for each",
           request.name_of(i), calls, results);
    }
  }
  const ChatRole last = request.messages.back().role;
  if (last == ChatRole::system || last == ChatRole::assistant) {
    fail(DSV_ERROR_INVALID_ARGUMENT,
         "{} is the last one and its role is {}: end with a user, developer or tool message to be answered",
         request.name_of(request.messages.size() - 1), chat_role_name(last));
  }
}

// Spelled out as text these would mean nothing to the model.
void check_markers(const Tokenizer& tokenizer) {
  for (const std::string_view marker : {markers::kBos, markers::kUser, markers::kAssistant}) {
    if (tokenizer.find(marker) < 0) {
      fail(DSV_ERROR_UNSUPPORTED,
           "tokenizer.json has no added token {}, so this model takes no messages: give raw tokens to "
           "dsv_session_complete",
           marker);
    }
  }
}

}  // namespace

std::shared_ptr<const Tokenizer> open_tokenizer(const HostFile& file, const std::string& path) {
  return Tokenizer::parse({reinterpret_cast<const char*>(file.data()), static_cast<size_t>(file.size())},
                          path);
}

bool has_token(const Tokenizer& tokenizer, int32_t id) { return tokenizer.has(id); }

std::vector<int32_t> encode_prompt(const Tokenizer& tokenizer, bool speciale, std::string_view request_json,
                                   const GenerateOptions& options) {
  check_markers(tokenizer);
  ChatRequest request = parse_chat_request(request_json);
  if (options.hide_tools) {
    for (ChatMessage& message : request.messages) message.tools.clear();
  }
  if (speciale) check_speciale(request, options.thinking);
  check_answerable(request);
  return tokenizer.encode(render_chat(request, options.thinking, options.keep_thinking));
}

}  // namespace dsv
