/* bench CHECKPOINT: "<events> <ns per event>" of dsv_session_poll, for bench.sh. The other languages do the
 * same. */
#define _POSIX_C_SOURCE 200809L
#include <dsv/dsv.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 20, TOKENS = 200 };

static double now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return 1e9 * (double)time.tv_sec + (double)time.tv_nsec;
}

static void check(dsv_status status) {
  if (status == DSV_OK) return;
  fprintf(stderr, "%s\n", dsv_error_message());
  exit(1);
}

static int compare(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

int main(int argc, char** argv) {
  dsv_engine* engine;
  dsv_model* model;
  dsv_session* session;
  dsv_generate_options options;
  dsv_generate_options_init(&options);
  options.max_tokens = TOKENS;
  options.ignore_eos = 1;
  options.seed = 1;
  if (argc != 2) return 2;
  check(dsv_engine_create(NULL, &engine));
  check(dsv_model_load(engine, argv[1], NULL, &model));
  check(dsv_model_wait(model, -1));
  check(dsv_session_create(model, NULL, &session));
  double ns[ROUNDS];
  int64_t events = 0, bytes = 0;
  for (int round = 0; round < ROUNDS; ++round) {
    const int32_t prompt = 5;
    check(dsv_session_complete(session, &prompt, 1, &options, NULL));
    check(dsv_engine_run(engine));
    events = 0;
    const double start = now_ns();
    dsv_event event = {0};
    event.struct_size = sizeof event;
    do {
      check(dsv_session_poll(session, &event));
      bytes += event.text_size;
      ++events;
    } while (event.kind != DSV_EVENT_FINISHED);
    ns[round] = (now_ns() - start) / (double)events;
  }
  qsort(ns, ROUNDS, sizeof ns[0], compare);
  printf("%lld %.1f\n", (long long)events, ns[ROUNDS / 2]);
  dsv_session_destroy(session);
  dsv_model_destroy(model);
  dsv_engine_destroy(engine);
  return bytes == 0;
}
