/* Random sequences of API calls, right and wrong ones, against what dsv.h allows each to return.
 *   property_test CHECKPOINT SEQUENCES [SEED]
 * A sequence is 1 to 16 calls on up to five sessions that are its own, most of which then run to their end;
 * 500 sequences share a world: engine, model and tokenizer with options that are drawn for it. A world is a
 * function of its seed, the next world's is one higher, and a failure names it: property_test CHECKPOINT 500
 * SEED repeats it. So processes share the work by seeds that are far apart. Besides the statuses it holds the
 * library to: one FINISHED per request, no field that its event does not name, text in whole code points, the
 * same tokens for the same prompt and seed whatever happened before, and no handle left. Sanitizers see the
 * rest. */
#include "property_test.h"

#include <dsv/dsv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORLD = 500, CALLS = 16 };

static uint64_t world_seed, state;

const char* checkpoint;
dsv_engine* engine;
dsv_model* model;
dsv_tokenizer* tokenizer;
dsv_model_info info;
int32_t prompts[PROMPTS][PROMPT_SIZE];
const int64_t kPromptSizes[PROMPTS] = {PROMPT_SIZE, 1, 5, 9, 14, 20};
int64_t request_tokens[REQUESTS][2];
Talk talks[TALKS];
static int32_t first_tokens[PROMPTS][SEEDS][MOST_TOKENS]; /* -1: not seen yet */

uint64_t chance(void) {
  uint64_t z = (state += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}
int pick(int n) { return (int)(chance() % (uint64_t)n); }
int one_in(int n) { return pick(n) == 0; }

void fail(const char* what, const char* detail) {
  fprintf(stderr, "FAILED in the world of seed %llu: %s: %s\n", (unsigned long long)world_seed, what, detail);
  exit(1);
}
void expect(int holds, const char* what) {
  if (!holds) fail(what, "does not hold");
}
dsv_status allow(const char* call, dsv_status status, unsigned allowed) {
  if (status < 0 || status > 30 || !(allowed >> status & 1))
    fail(call, status ? dsv_error_message() : "succeeded");
  if (status != DSV_OK && dsv_error_message()[0] == '\0') fail(call, "no sentence");
  return status;
}

/* ------------------------------------------------------------------------------------------------ events */

static void check_fields(const dsv_event* event) {
  const int kind = event->kind, tool_end = kind == DSV_EVENT_TOOL_BEGIN || kind == DSV_EVENT_TOOL_END;
  const int tool = tool_end || kind == DSV_EVENT_TOOL_DELTA, last = kind == DSV_EVENT_FINISHED;
  const int text = kind == DSV_EVENT_REASONING || kind == DSV_EVENT_CONTENT || kind == DSV_EVENT_MALFORMED ||
                   kind == DSV_EVENT_TOOL_DELTA || kind == DSV_EVENT_TOOL_END;
  const int token = kind == DSV_EVENT_TOKEN, prefill = kind == DSV_EVENT_PREFILL;
  expect(text ? event->text != NULL && event->text_size > 0 : event->text == NULL && event->text_size == 0,
         "text comes with its kinds");
  expect((event->tool_name != NULL) == tool_end && (event->tool_name_size != 0) == tool_end &&
             (event->tool_id != NULL) == tool_end && (event->tool_id_size != 0) == tool_end &&
             (tool || event->tool_index == 0),
         "calls come with their kinds");
  expect(token || (event->token == 0 && event->logprob == 0 && event->top_count == 0 && event->top == NULL),
         "tokens come with their kind");
  expect(prefill || (event->done == 0 && event->total == 0), "progress comes with its kind");
  expect(last || (event->finish_reason == 0 && event->prompt_tokens == 0 && event->cached_tokens == 0 &&
                  event->completion_tokens == 0 && event->reasoning_tokens == 0),
         "usage comes with its kind");
  expect(event->status == DSV_OK && event->request > 0, "an event names its request");
}

void check_event(Talk* talk, const dsv_event* event) {
  expect(event->kind >= DSV_EVENT_PREFILL && event->kind <= DSV_EVENT_FINISHED,
         "the kind of an event is known");
  check_fields(event);
  expect(talk->finished < talk->started, "no event comes without a running request");
  expect(event->text_size >= 0 && (event->text_size == 0 || event->text), "a text has bytes");
  expect(is_utf8((const unsigned char*)event->text, event->text_size), "text comes in whole code points");
  if (event->kind == DSV_EVENT_PREFILL) expect(event->done <= event->total, "prefill does at most all");
  if (event->kind == DSV_EVENT_TOKEN) {
    expect(event->token >= 0 && event->token < info.vocab_size, "a token is in the vocabulary");
    expect(event->logprob <= 0, "a log probability is not above 0");
    if (talk->prompt >= 0 && talk->tokens < MOST_TOKENS) {
      int32_t* known = &first_tokens[talk->prompt][talk->seed][talk->tokens++];
      if (*known < 0) *known = event->token;
      expect(*known == event->token, "the same prompt and seed give the same tokens");
    }
  }
  if (event->kind == DSV_EVENT_FINISHED) {
    ++talk->finished;
    talk->paused = 0;
    expect(event->request == talk->request || !talk->has_callback, "FINISHED names its request");
    expect(event->finish_reason >= DSV_FINISH_STOP && event->finish_reason <= DSV_FINISH_CANCELLED,
           "a request ends for a known reason other than an error");
    expect(event->prompt_tokens > 0 && event->cached_tokens <= event->prompt_tokens, "usage adds up");
    expect(!talk->has_callback || talk->max_tokens == 0 || event->completion_tokens <= talk->max_tokens,
           "no more than max_tokens come");
  }
}

/* Inside a callback only functions for any thread may be called; the others say so and change nothing. */
int32_t on_event(void* user, const dsv_event* event) {
  Talk* talk = user;
  expect(talk->handle != NULL, "a destroyed session is silent");
  check_event(talk, event);
  switch (pick(40)) {
    case 0:
      allow("step in a callback", dsv_engine_step(engine, 0, NULL), BUSY);
      break;
    case 1:
      allow("poll in a callback", dsv_session_resume(talk->handle), BUSY);
      break;
    case 2:
      dsv_session_cancel(talk->handle);
      break;
    case 3:
      allow("progress in a callback", dsv_model_progress(model, &(dsv_load_progress){.struct_size = 24}), OK);
      break;
    case 4:
      if (one_in(4)) {
        dsv_session_destroy(talk->handle);
        talk->handle = NULL;
      }
      break;
    case 5:
      if (event->kind != DSV_EVENT_FINISHED) talk->paused = 1;
      return DSV_ACTION_PAUSE;
    case 6:
      return DSV_ACTION_STOP;
    case 7:
      return 1000 + pick(10); /* no DSV_ACTION */
    default:
      break;
  }
  return DSV_ACTION_CONTINUE;
}

/* ------------------------------------------------------------------------------------------------ worlds */

static void open_world(void) {
  dsv_engine_options engine_options;
  dsv_model_options options;
  state = world_seed;
  dsv_engine_options_init(&engine_options);
  engine_options.threads = one_in(4) ? 2 : 1;
  /* A world costs it five to ten times what one costs cpu, and sees the same calls. */
  if (one_in(40)) engine_options.backend = "reference";
  allow("engine_create", dsv_engine_create(&engine_options, &engine), OK);
  dsv_model_options_init(&options);
  options.context_tokens = 128 << pick(4);
  options.batch_rows = one_in(2) ? 0 : 1 + pick(64);
  options.load_mtp = one_in(2);
  options.precision = one_in(4) ? DSV_PRECISION_EXACT : DSV_PRECISION_OFFICIAL;
  options.schedule = one_in(4) ? DSV_SCHEDULE_FAST : DSV_SCHEDULE_DETERMINISTIC;
  options.gpu_stream_priority = pick(9) - 4;
  if (one_in(3)) { /* a few pages */
    dsv_memory_plan plan = {.struct_size = sizeof plan};
    allow("model_plan", dsv_model_plan(engine, checkpoint, &options, &plan), OK);
    options.kv_budget_bytes = plan.kv_bytes_per_1k / 16 * (1 + pick(6));
  }
  allow("model_load", dsv_model_load(engine, checkpoint, &options, &model), OK);
  allow("model_wait", dsv_model_wait(model, -1), OK);
  info.struct_size = sizeof info;
  allow("get_info", dsv_model_get_info(model, &info), OK);
  allow("model_tokenizer", dsv_model_tokenizer(model, &tokenizer), OK);
  for (int p = 0; p < PROMPTS; ++p) {
    for (int i = 0; i < PROMPT_SIZE; ++i) prompts[p][i] = 3 + pick(250); /* byte tokens */
    /* Prefixes in common, so that what one request computed serves the next. */
    if (p > 0) memcpy(prompts[p], prompts[p - 1], (size_t)pick(20) * sizeof(int32_t));
  }
  memset(first_tokens, -1, sizeof first_tokens);
  for (int r = 0; r < REQUESTS; ++r) {
    for (int thinking = 0; thinking < 2; ++thinking) {
      char prompt[4000];
      int64_t size = 0;
      allow("chat_encode",
            dsv_chat_encode(kRequests[r], DSV_NUL_TERMINATED, thinking ? DSV_CHAT_THINKING : 0, prompt,
                            sizeof prompt, &size),
            OK);
      allow("tokenizer_encode",
            dsv_tokenizer_encode(tokenizer, prompt, size, NULL, 0, &request_tokens[r][thinking]), OK);
    }
  }
}

static void end_sequence(void) {
  if (!one_in(4)) { /* let all end; otherwise they are destroyed as they are */
    for (int t = 0; t < TALKS; ++t) {
      if (talks[t].handle && one_in(2)) dsv_session_cancel(talks[t].handle);
    }
    int again = 1;
    for (int round = 0; again; ++round) { /* callbacks may pause once more */
      again = 0;
      for (int t = 0; t < TALKS; ++t) {
        if (!talks[t].handle) continue;
        talks[t].paused = 0;
        allow("session_resume", dsv_session_resume(talks[t].handle), OK);
      }
      run_all();
      for (int t = 0; t < TALKS; ++t) again |= talks[t].handle && talks[t].paused;
      expect(round < 10000, "requests end");
    }
  }
  for (int t = 0; t < TALKS; ++t) {
    dsv_session_destroy(talks[t].handle);
    talks[t].handle = NULL;
  }
}

static void close_world(void) {
  dsv_handle_counts counts = {sizeof counts, 0, -1, -1, -1, -1};
  create_session(&talks[0]);
  create_session(&talks[1]);
  complete(&talks[0]);
  if (one_in(2)) allow("engine_step", dsv_engine_step(engine, 0, NULL), OK);
  for (int order = pick(4), i = 0; i < 4; ++i) { /* any order, also under running requests */
    switch ((order + i) % 4) {
      case 0:
        dsv_session_destroy(talks[0].handle), talks[0].handle = NULL;
        break;
      case 1:
        dsv_engine_destroy(engine);
        break;
      case 2:
        dsv_model_destroy(model);
        break;
      default:
        dsv_session_destroy(talks[1].handle), talks[1].handle = NULL;
        break;
    }
  }
  dsv_tokenizer_destroy(tokenizer);
  allow("live_handles", dsv_live_handles(&counts), OK);
  expect(counts.engines == 0 && counts.models == 0 && counts.sessions == 0 && counts.tokenizers == 0,
         "no handle is left");
}

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: property_test CHECKPOINT SEQUENCES [SEED]\n");
    return 2;
  }
  checkpoint = argv[1];
  const long sequences = atol(argv[2]);
  world_seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
  long calls = 0;
  for (long done = 0; done < sequences; ++world_seed) {
    if (done > 0 && done % 50000 == 0) fprintf(stderr, "%ld sequences, %ld calls\n", done, calls);
    open_world();
    for (int s = 0; s < WORLD && done < sequences; ++s, ++done) {
      for (int n = 1 + pick(CALLS); n > 0; --n, ++calls) call();
      end_sequence();
    }
    close_world();
  }
  printf("%ld sequences, %ld calls\n", sequences, calls);
  return 0;
}
