/* overhead CHECKPOINT TOKENS: nanoseconds a call takes in C, one line each: poll that gives an event, poll that gives
 * none, step that has nothing to do. overhead.py measures the same calls and compares. */
#define _POSIX_C_SOURCE 199309L
#include <dsv/dsv.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static void need(dsv_status status) {
  if (status == DSV_OK) return;
  fprintf(stderr, "%s\n", dsv_error_message());
  exit(1);
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const int64_t tokens = atoll(argv[2]);
  const int32_t prompt[] = {1, 2, 3};
  dsv_engine_options engine_options;
  dsv_generate_options options;
  dsv_engine* engine = NULL;
  dsv_model* model = NULL;
  dsv_session* session = NULL;
  dsv_event event = {.struct_size = sizeof event};
  dsv_engine_options_init(&engine_options);
  engine_options.threads = 1;
  dsv_generate_options_init(&options);
  options.max_tokens = tokens;
  options.ignore_eos = 1;
  options.logprobs = 0;
  need(dsv_engine_create(&engine_options, &engine));
  need(dsv_model_load(engine, argv[1], NULL, &model));
  need(dsv_model_wait(model, -1));
  need(dsv_session_create(model, NULL, &session));
  need(dsv_session_complete(session, prompt, 3, &options, NULL));
  need(dsv_engine_run(engine));

  int64_t events = 0, bytes = 0;
  double start = now();
  while (event.kind != DSV_EVENT_FINISHED) {
    need(dsv_session_poll(session, &event));
    bytes += event.text_size;
    ++events;
  }
  printf("%.1f\n", (now() - start) / (double)events);
  start = now();
  for (int64_t i = 0; i < tokens; ++i) need(dsv_session_poll(session, &event));
  printf("%.1f\n", (now() - start) / (double)tokens);
  start = now();
  for (int64_t i = 0; i < tokens; ++i) need(dsv_engine_step(engine, 1000, NULL));
  printf("%.1f\n", (now() - start) / (double)tokens);
  dsv_session_destroy(session);
  dsv_model_destroy(model);
  dsv_engine_destroy(engine);
  return bytes == 0;
}
