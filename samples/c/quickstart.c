#include <dsv/dsv.h>
#include <stdio.h>

static int32_t print(void* user, const dsv_event* event) {
  (void)user;
  if (event->kind == DSV_EVENT_CONTENT) fwrite(event->text, 1, (size_t)event->text_size, stdout);
  return DSV_ACTION_CONTINUE;
}

int main(int argc, char** argv) {
  const char* request = "{\"messages\": [{\"role\": \"user\", \"content\": \"Hello! Who are you?\"}]}";
  dsv_engine* engine = NULL;
  dsv_model* model = NULL;
  dsv_session* session = NULL;
  dsv_session_options options;
  dsv_session_options_init(&options);
  options.on_event = print;
  int ok = dsv_engine_create(NULL, &engine) == DSV_OK &&
           dsv_model_load(engine, argc > 1 ? argv[1] : "samples/nano/checkpoint", NULL, &model) == DSV_OK &&
           dsv_model_wait(model, -1) == DSV_OK && dsv_session_create(model, &options, &session) == DSV_OK &&
           dsv_session_chat(session, request, DSV_NUL_TERMINATED, NULL, NULL) == DSV_OK &&
           dsv_engine_run(engine) == DSV_OK;
  if (!ok) fprintf(stderr, "%s\n", dsv_error_message());
  dsv_session_destroy(session);
  dsv_model_destroy(model);
  dsv_engine_destroy(engine);
  return !ok;
}
