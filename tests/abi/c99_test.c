/* The header and the shared library from strict C99: compiled with -std=c99 -pedantic-errors. */
#include <dsv/dsv.h>
#include <stdio.h>
#include <string.h>

#define CHECK(condition)                                                       \
  do {                                                                         \
    if (!(condition)) {                                                        \
      printf("line %d: %s (%s)\n", __LINE__, #condition, dsv_error_message()); \
      return 1;                                                                \
    }                                                                          \
  } while (0)

static int32_t on_event(void* user, const dsv_event* event) {
  (void)user;
  (void)event;
  return DSV_ACTION_CONTINUE;
}

int main(void) {
  dsv_hooks hooks;
  dsv_engine_options engine_options;
  dsv_model_options model_options;
  dsv_session_options session_options;
  dsv_generate_options generate_options;
  dsv_handle_counts counts;
  dsv_engine* engine = NULL;
  dsv_model* model = NULL;
  int32_t pending = -1;

  dsv_hooks_init(&hooks);
  dsv_engine_options_init(&engine_options);
  dsv_model_options_init(&model_options);
  dsv_session_options_init(&session_options);
  dsv_generate_options_init(&generate_options);
  session_options.on_event = on_event;
  CHECK(generate_options.temperature == 1.0f && generate_options.logprobs == -1);
  CHECK(dsv_version() == 1000 * DSV_VERSION_MINOR + 1000000 * DSV_VERSION_MAJOR + DSV_VERSION_PATCH);
  engine_options.hooks = &hooks;
  engine_options.threads = 1;
  CHECK(dsv_engine_create(&engine_options, &engine) == DSV_OK);
  CHECK(dsv_engine_step(engine, 1000, &pending) == DSV_OK && pending == 0);
  CHECK(dsv_model_load(engine, "/nowhere", &model_options, &model) == DSV_OK);
  CHECK(dsv_model_wait(model, -1) == DSV_ERROR_IO);
  CHECK(strstr(dsv_error_message(), "/nowhere") != NULL);
  dsv_engine_destroy(engine);
  dsv_model_destroy(model);
  memset(&counts, 0, sizeof counts);
  counts.struct_size = sizeof counts;
  CHECK(dsv_live_handles(&counts) == DSV_OK);
  CHECK(counts.engines == 0 && counts.models == 0 && counts.sessions == 0 && counts.tokenizers == 0);
  return 0;
}
