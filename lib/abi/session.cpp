#include "session/session.h"

#include <utility>

#include "abi/abi.h"
#include "session/utf8.h"

using namespace dsv::abi;

namespace {

dsv_session_options default_session_options() {
  dsv_session_options options{};
  options.struct_size = sizeof options;
  return options;
}

dsv_generate_options default_generate_options() {
  dsv_generate_options options{};
  options.struct_size = sizeof options;
  options.temperature = 1;
  options.top_p = 1;
  options.logprobs = -1;
  return options;
}

// Keeps the session, and with it model and engine, until the entry is over: the members go in reverse order.
struct Entered {
  explicit Entered(dsv_session* handle)
      : session(require(handle, "session").session), entry(session->model().engine()) {}
  std::shared_ptr<dsv::Session> session;
  dsv::Engine::Entry entry;
};

std::span<const int32_t> token_span(const int32_t* tokens, int64_t count) {
  require_size(count, "count");
  if (count > 0) require(tokens, "tokens");
  return {tokens, static_cast<size_t>(count)};
}

}  // namespace

extern "C" {

void dsv_session_options_init_sized(dsv_session_options* options, uint32_t struct_size) {
  init_options(options, struct_size, default_session_options());
}
void dsv_generate_options_init_sized(dsv_generate_options* options, uint32_t struct_size) {
  init_options(options, struct_size, default_generate_options());
}

dsv_status dsv_session_create(dsv_model* handle, const dsv_session_options* given, dsv_session** out) {
  return guarded([&] {
    const std::shared_ptr<dsv::Model> model = require(handle, "model").model;
    require(out, "session");
    const dsv_session_options options = read_options(given, default_session_options(), "options");
    const dsv::Engine::Entry entry(model->engine());
    model->require_loaded();
    auto created = std::make_unique<dsv_session>();
    created->session = std::make_shared<dsv::Session>(model, options.on_event, options.user);
    model->engine().attach(*created->session);
    *out = created.release();
  });
}

void dsv_session_destroy(dsv_session* handle) {
  if (!handle) return;
  std::shared_ptr<dsv::Session> session = std::move(handle->session);
  delete handle;
  session->close();
  // The engine must outlast its own bury(), whose last act may be to let go of this session.
  const std::shared_ptr<dsv::Engine> engine = session->model().shared_engine();
  engine->bury(std::move(session));
}

dsv_status dsv_session_chat(dsv_session* handle, const char* request_json, int64_t request_size,
                            const dsv_generate_options* given, int64_t* request) {
  return guarded([&] {
    const Entered entered(handle);
    const std::string_view json = dsv::check_utf8(request_json, request_size, "request_json");
    const int64_t number =
        entered.session->chat(json, read_options(given, default_generate_options(), "options"));
    if (request) *request = number;
  });
}

dsv_status dsv_session_complete(dsv_session* handle, const int32_t* tokens, int64_t count,
                                const dsv_generate_options* given, int64_t* request) {
  return guarded([&] {
    const Entered entered(handle);
    const int64_t number = entered.session->complete(
        token_span(tokens, count), read_options(given, default_generate_options(), "options"));
    if (request) *request = number;
  });
}

void dsv_session_cancel(dsv_session* session) {
  if (session) session->session->cancel();
}

dsv_status dsv_session_resume(dsv_session* handle) {
  return guarded([&] { Entered(handle).session->resume(); });
}

dsv_status dsv_session_poll(dsv_session* handle, dsv_event* out) {
  return guarded([&] {
    known_size(require(out, "event"), "event");
    const Entered entered(handle);
    dsv_event event{};
    if (!entered.session->poll(event)) event = dsv_event{};
    write_struct(*out, event, "event");
  });
}

dsv_status dsv_session_tokens(dsv_session* handle, int32_t* ids, int64_t capacity, int64_t* count) {
  return guarded([&] {
    const Entered entered(handle);
    const std::span<const int32_t> held = entered.session->held_tokens();
    copy_ids(held.data(), held.size(), ids, capacity, count);
  });
}

dsv_status dsv_session_logits(dsv_session* handle, const int32_t* tokens, int64_t count, int64_t first,
                              int64_t rows, int32_t source, float* out) {
  return guarded([&] {
    const Entered entered(handle);
    entered.session->logits(token_span(tokens, count), first, rows, source, out);
  });
}

}  // extern "C"
