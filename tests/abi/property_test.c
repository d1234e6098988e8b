/* Random sequences of API calls, right and wrong ones, against what dsv.h allows each to return.
 *   property_test CHECKPOINT SEQUENCES [SEED]
 * A world (engine, model, tokenizer) serves 500 sequences, each on sessions of its own. A failure names the
 * world's seed: property_test CHECKPOINT 500 SEED repeats it. Besides the statuses it holds the library to:
 * one FINISHED per request, text in whole code points, the same tokens for the same prompt and seed whatever
 * happened before, and no handle left. Sanitizers see the rest. */
#include <dsv/dsv.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORLD = 500, TALKS = 5, CALLS = 16, PROMPTS = 6, PROMPT_SIZE = 40, SEEDS = 3, MOST_TOKENS = 5 };

#define OK (1u << DSV_OK)
#define INVALID (1u << DSV_ERROR_INVALID_ARGUMENT)
#define BUSY (1u << DSV_ERROR_BUSY)
#define NOT_READY (1u << DSV_ERROR_NOT_READY)
#define SMALL (1u << DSV_ERROR_BUFFER_TOO_SMALL)
#define IO (1u << DSV_ERROR_IO)
#define INVALID_FILE (1u << DSV_ERROR_INVALID_FILE)
#define UNSUPPORTED (1u << DSV_ERROR_UNSUPPORTED)
#define BUDGET (1u << DSV_ERROR_BUDGET)
#define CANCELLED (1u << DSV_ERROR_CANCELLED)

/* ------------------------------------------------------------------------------------------------ chance */

static uint64_t world_seed, state;

static uint64_t chance(void) {
  uint64_t z = (state += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}
static int pick(int n) { return (int)(chance() % (uint64_t)n); }
static int one_in(int n) { return pick(n) == 0; }

static void fail(const char* what, const char* detail) {
  fprintf(stderr, "FAILED in the world of seed %llu: %s: %s\n", (unsigned long long)world_seed, what, detail);
  exit(1);
}
static void expect(int holds, const char* what) {
  if (!holds) fail(what, "does not hold");
}
static dsv_status allow(const char* call, dsv_status status, unsigned allowed) {
  if (status < 0 || status > 30 || !(allowed >> status & 1))
    fail(call, status ? dsv_error_message() : "succeeded");
  if (status != DSV_OK && dsv_error_message()[0] == '\0') fail(call, "no sentence");
  return status;
}

/* ------------------------------------------------------------------------------------------------ world */

static const char* checkpoint;
static dsv_engine* engine;
static dsv_model* model;
static dsv_tokenizer* tokenizer;
static dsv_model_info info;
static int32_t prompts[PROMPTS][PROMPT_SIZE];
static int32_t first_tokens[PROMPTS][SEEDS][MOST_TOKENS]; /* -1: not seen yet */

typedef struct Talk {
  dsv_session* handle; /* NULL: free, or destroyed */
  int has_callback, paused;
  int64_t request; /* of the last one that started */
  int started, finished;
  int prompt, seed, tokens; /* prompt -1: its tokens are not compared */
  int64_t max_tokens;
} Talk;
static Talk talks[TALKS];

static int is_utf8(const unsigned char* s, int64_t n) {
  for (int64_t i = 0; i < n;) {
    int more = s[i] < 0x80                   ? 0
               : s[i] >= 0xC2 && s[i] < 0xE0 ? 1
               : s[i] >= 0xE0 && s[i] < 0xF0 ? 2
               : s[i] >= 0xF0 && s[i] < 0xF5 ? 3
                                             : -1;
    if (more < 0 || i + more >= n) return 0;
    if (s[i] == 0xE0 && s[i + 1] < 0xA0) return 0;
    if (s[i] == 0xED && s[i + 1] > 0x9F) return 0;
    if (s[i] == 0xF0 && s[i + 1] < 0x90) return 0;
    if (s[i] == 0xF4 && s[i + 1] > 0x8F) return 0;
    for (int k = 1; k <= more; ++k) {
      if ((s[i + k] & 0xC0) != 0x80) return 0;
    }
    i += 1 + more;
  }
  return 1;
}

static void check_event(Talk* talk, const dsv_event* event) {
  expect(event->kind >= DSV_EVENT_PREFILL && event->kind <= DSV_EVENT_FINISHED,
         "the kind of an event is known");
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
static int32_t on_event(void* user, const dsv_event* event) {
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

/* ------------------------------------------------------------------------------------------------ arguments
 */

static const char* const kRequests[] = {
    "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}",
    "{\"messages\": [{\"role\": \"system\", \"content\": \"be brief\"}, {\"role\": \"user\", \"content\": "
    "\"a \\u00e9 \\ud83d\\ude00\"}]}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", \"content\": "
    "\"yes\"},"
    " {\"role\": \"user\", \"content\": \"so\"}]}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"?\"}], \"tools\": [{\"type\": \"function\", "
    "\"function\":"
    " {\"name\": \"f\", \"description\": \"d\", \"parameters\": {\"type\": \"object\", \"properties\": "
    "{}}}}]}",
};
enum { REQUESTS = sizeof kRequests / sizeof *kRequests };

/* A request into `out`, mostly well-formed; returns its size. */
static int64_t make_request(char* out, int64_t capacity, int* well_formed) {
  *well_formed = 1;
  const char* good = kRequests[pick(REQUESTS)];
  int64_t size = (int64_t)strlen(good);
  memcpy(out, good, (size_t)size);
  if (one_in(3)) {
    *well_formed = 0;
    for (int n = 1 + pick(4); n > 0; --n) out[pick((int)size)] = (char)chance();
  } else if (one_in(20)) { /* nested deeply */
    *well_formed = 0;
    size = 1 + pick((int)capacity);
    memset(out, one_in(2) ? '[' : '{', (size_t)size);
  } else if (one_in(20)) { /* cut off */
    *well_formed = 0;
    size = pick((int)size);
  }
  return size;
}

static void some_options(dsv_generate_options* options) {
  dsv_generate_options_init(options);
  options->max_tokens = 1 + pick(MOST_TOKENS);
  options->seed = chance() % SEEDS;
  options->thinking = one_in(4);
  options->ignore_eos = one_in(2);
  if (one_in(3)) options->temperature = 0;
  if (one_in(3)) options->top_p = 0.5f;
  if (one_in(3)) options->top_k = 1 + pick(50);
  if (one_in(3)) options->logprobs = pick(5);
}

/* Spoils one field; all of these are to be refused. */
static void spoil(dsv_generate_options* options) {
  static const dsv_string empty = {"", 0}, broken = {"\xff", 1}, none = {NULL, 3};
  static const dsv_logit_bias outside = {1 << 30, 0};
  switch (pick(14)) {
    case 0:
      options->temperature = -1;
      break;
    case 1:
      options->temperature = NAN;
      break;
    case 2:
      options->top_p = 0;
      break;
    case 3:
      options->top_p = NAN;
      break;
    case 4:
      options->min_p = 1;
      break;
    case 5:
      options->top_k = -1;
      break;
    case 6:
      options->logprobs = 21;
      break;
    case 7:
      options->max_tokens = -1;
      break;
    case 8:
      options->stop = &empty, options->stop_count = 1;
      break;
    case 9:
      options->stop = &broken, options->stop_count = 1;
      break;
    case 10:
      options->stop = &none, options->stop_count = 1;
      break;
    case 11:
      options->stop = NULL, options->stop_count = 1;
      break;
    case 12:
      options->logit_bias = &outside, options->logit_bias_count = 1;
      break;
    default:
      options->struct_size = 0;
      break;
  }
}

/* ------------------------------------------------------------------------------------------------ calls */

static void drain(Talk* talk) {
  dsv_event event;
  for (;;) {
    event.struct_size = sizeof event;
    allow("poll", dsv_session_poll(talk->handle, &event), OK);
    if (event.kind == DSV_EVENT_NONE) return;
    check_event(talk, &event);
  }
}

static void create_session(Talk* talk) {
  dsv_session_options options;
  dsv_session_options_init(&options);
  memset(talk, 0, sizeof *talk);
  talk->has_callback = one_in(2);
  options.user = talk;
  if (talk->has_callback) options.on_event = on_event;
  if (one_in(50)) allow("create without model", dsv_session_create(NULL, &options, &talk->handle), INVALID);
  if (one_in(50)) allow("create without output", dsv_session_create(model, &options, NULL), INVALID);
  expect(talk->handle == NULL, "a failed create leaves its output alone");
  allow("session_create",
        dsv_session_create(model, talk->has_callback || one_in(2) ? &options : NULL, &talk->handle), OK);
}

static void started(Talk* talk, dsv_status status, int64_t request, int prompt,
                    const dsv_generate_options* options) {
  if (status != DSV_OK) return;
  expect(talk->started == 0 || request > talk->request, "requests have numbers of their own");
  talk->request = request;
  talk->prompt = prompt;
  talk->seed = (int)options->seed;
  talk->tokens = 0;
  talk->max_tokens = options->max_tokens;
  ++talk->started;
}

/* Whether a poller's request still runs is known for certain only when its FINISHED has been read. */
static unsigned if_free(const Talk* talk) {
  if (talk->finished == talk->started) return OK;
  return talk->has_callback ? BUSY : OK | BUSY;
}

static void chat(Talk* talk) {
  char request[3000];
  int well_formed, spoilt = one_in(8);
  int64_t number = -1;
  dsv_generate_options options;
  const int64_t size = make_request(request, sizeof request, &well_formed);
  if (!talk->has_callback) drain(talk);
  some_options(&options);
  if (spoilt) spoil(&options);
  unsigned allowed = spoilt        ? INVALID | BUSY
                     : well_formed ? if_free(talk)
                                   : OK | INVALID | UNSUPPORTED | BUSY;
  /* A conversation that no longer fits the context is refused. */
  if (info.context_tokens < 400) allowed |= INVALID | BUDGET;
  if (!info.has_chat) allowed |= UNSUPPORTED | INVALID;
  const dsv_status status = dsv_session_chat(talk->handle, request, size, &options, &number);
  allow("session_chat", status, allowed);
  expect((status == DSV_OK) == (number != -1), "only a started request has a number");
  started(talk, status, number, -1, &options);
}

static void complete(Talk* talk) {
  int64_t number = -1;
  const int prompt = pick(PROMPTS);
  int64_t count = PROMPT_SIZE - prompt;
  dsv_generate_options options;
  if (!talk->has_callback) drain(talk);
  dsv_generate_options_init(&options);
  options.max_tokens = 1 + pick(MOST_TOKENS);
  options.seed = chance() % SEEDS;
  options.ignore_eos = 1;
  options.logprobs = pick(3);
  unsigned allowed = if_free(talk);
  int32_t tokens[PROMPT_SIZE];
  memcpy(tokens, prompts[prompt], sizeof tokens);
  if (one_in(10)) {
    allowed = INVALID | BUSY;
    switch (pick(4)) {
      case 0:
        count = 0;
        break;
      case 1:
        count = -(int64_t)(chance() >> 2) - 1;
        break;
      case 2:
        tokens[pick((int)count)] = info.vocab_size + pick(1000);
        break;
      default:
        tokens[pick((int)count)] = -1 - pick(1000);
        break;
    }
  }
  const dsv_status status = dsv_session_complete(talk->handle, tokens, count, &options, &number);
  allow("session_complete", status, allowed);
  started(talk, status, number, prompt, &options);
}

static void logits(Talk* talk) {
  static float out[4 * 8192];
  int64_t count = 2 + pick(20), first = pick(20), rows = 1 + pick(4);
  const int draft = one_in(4);
  if (!talk->has_callback) drain(talk);
  unsigned allowed = if_free(talk);
  if (rows * info.vocab_size > (int64_t)(sizeof out / sizeof *out)) return;
  if (first + rows + draft > count) allowed = INVALID | BUSY;
  if (draft && !info.has_mtp) allowed = INVALID | UNSUPPORTED | BUSY;
  if (one_in(20)) count = -count, allowed = INVALID | BUSY | UNSUPPORTED;
  const int32_t source = draft ? DSV_LOGITS_DRAFT : DSV_LOGITS_MAIN;
  allow("session_logits", dsv_session_logits(talk->handle, prompts[0], count, first, rows, source, out),
        allowed | BUDGET);
}

static void text_calls(void) {
  char text[64], out[80];
  int32_t ids[80];
  int64_t count = -7, size = -7, length = pick((int)sizeof text);
  for (int64_t i = 0; i < length; ++i) text[i] = (char)(one_in(10) ? chance() : (uint64_t)(32 + pick(90)));
  const int valid = is_utf8((const unsigned char*)text, length);
  const dsv_status status = dsv_tokenizer_encode(tokenizer, text, length, ids, 80, &count);
  allow("tokenizer_encode", status, valid ? OK : INVALID);
  if (status == DSV_OK) {
    allow("tokenizer_decode", dsv_tokenizer_decode(tokenizer, ids, count, out, sizeof out, &size), OK);
    expect(size == length && memcmp(text, out, (size_t)size) == 0, "decoding what was encoded gives it back");
    if (count > 1)
      allow("encode, small", dsv_tokenizer_encode(tokenizer, text, length, ids, 1, &size), SMALL);
  } else {
    expect(count == -7, "a failed call leaves its output alone");
  }
  ids[0] = (int32_t)chance();
  allow("decode any id", dsv_tokenizer_decode(tokenizer, ids, 1, out, sizeof out, &size), OK | INVALID);

  char request[3000], prompt[64];
  int well_formed;
  const int64_t request_size = make_request(request, sizeof request, &well_formed);
  allow("chat_encode", dsv_chat_encode(request, request_size, pick(8), NULL, 0, &size),
        well_formed ? OK | INVALID : OK | INVALID | UNSUPPORTED);
  allow("chat_encode", dsv_chat_encode(request, request_size, 0, prompt, pick((int)sizeof prompt), &size),
        OK | SMALL | INVALID | UNSUPPORTED);
  allow("chat_parse", dsv_chat_parse(text, length, pick(4), NULL, 0, &size), valid ? OK : INVALID);
}

static void model_calls(void) {
  dsv_model_options options;
  dsv_model* other = NULL;
  dsv_memory_use use;
  int64_t size = 0;
  char out[32];
  use.struct_size = (uint32_t)pick((int)sizeof use + 1);
  allow("model_memory", dsv_model_memory(model, &use), OK | INVALID);
  dsv_model_options_init(&options);
  switch (pick(8)) {
    case 0:
      allow("load nothing", dsv_model_load(engine, NULL, NULL, &other), INVALID);
      break;
    case 1:
      options.precision = 2 + pick(100);
      allow("load, bad precision", dsv_model_load(engine, checkpoint, &options, &other), INVALID);
      break;
    case 2:
      options.context_tokens = -1 - pick(1000);
      allow("load, bad context", dsv_model_load(engine, checkpoint, &options, &other), INVALID);
      break;
    case 3:
      options.chat_profile = "nobody";
      allow("load, bad profile", dsv_model_load(engine, checkpoint, &options, &other), INVALID | UNSUPPORTED);
      break;
    case 4:
      allow("load from nowhere", dsv_model_load(engine, "/nonexistent", NULL, &other), OK);
      allow("session on it", dsv_session_create(other, NULL, &talks[0].handle), NOT_READY | IO);
      allow("wait for it", dsv_model_wait(other, one_in(2) ? -1 : 60000), IO);
      break;
    case 5:
      options.weight_budget_bytes = 1;
      allow("load, no budget", dsv_model_load(engine, checkpoint, &options, &other), OK);
      allow("wait for it", dsv_model_wait(other, -1), BUDGET);
      break;
    case 6:
      options.context_tokens = 128;
      allow("load", dsv_model_load(engine, checkpoint, &options, &other), OK);
      if (one_in(2)) dsv_model_cancel_load(other);
      if (one_in(2)) allow("wait", dsv_model_wait(other, pick(3)), OK | NOT_READY | CANCELLED);
      break;
    default:
      allow("inspect", dsv_model_inspect(engine, checkpoint, NULL, out, pick((int)sizeof out), &size),
            OK | SMALL);
      break;
  }
  dsv_model_destroy(other);
}

static void engine_calls(void) {
  dsv_engine_options options;
  dsv_engine* other = NULL;
  int32_t pending = -1;
  dsv_engine_options_init(&options);
  options.threads = pick(4) - 1;
  if (one_in(4)) options.backend = one_in(2) ? "" : "abacus";
  if (one_in(4)) options.cpu_target = "z80";
  const dsv_status status = dsv_engine_create(&options, &other);
  allow("engine_create", status, OK | INVALID | UNSUPPORTED);
  expect((status == DSV_OK) == (other != NULL), "a failed create leaves its output alone");
  allow("step", dsv_engine_step(other, pick(100), &pending), other ? OK : INVALID);
  dsv_engine_destroy(other);
  allow("step backwards", dsv_engine_step(engine, -1 - pick(100), NULL), INVALID);
}

static void null_calls(void) {
  int64_t n = 0;
  dsv_event event;
  dsv_load_progress progress;
  allow("step", dsv_engine_step(NULL, 0, NULL), INVALID);
  allow("run", dsv_engine_run(NULL), INVALID);
  allow("chat", dsv_session_chat(NULL, "{}", 2, NULL, NULL), INVALID);
  allow("complete", dsv_session_complete(NULL, NULL, 0, NULL, NULL), INVALID);
  allow("poll", dsv_session_poll(NULL, &event), INVALID);
  allow("resume", dsv_session_resume(NULL), INVALID);
  allow("tokens", dsv_session_tokens(NULL, NULL, 0, &n), INVALID);
  allow("logits", dsv_session_logits(NULL, NULL, 0, 0, 0, 0, NULL), INVALID);
  allow("wait", dsv_model_wait(NULL, 0), INVALID);
  allow("progress", dsv_model_progress(NULL, &progress), INVALID);
  allow("info", dsv_model_get_info(NULL, NULL), INVALID);
  allow("info", dsv_model_get_info(model, NULL), INVALID);
  allow("memory", dsv_model_memory(model, NULL), INVALID);
  allow("plan", dsv_model_plan(NULL, NULL, NULL, NULL), INVALID);
  allow("tokenizer_open", dsv_tokenizer_open(NULL, NULL), INVALID);
  allow("encode", dsv_tokenizer_encode(NULL, "a", 1, NULL, 0, &n), INVALID);
  allow("decode", dsv_tokenizer_decode(tokenizer, NULL, 1, NULL, 0, &n), INVALID);
  allow("chat_encode", dsv_chat_encode(NULL, 5, 0, NULL, 0, &n), INVALID);
  allow("chat_encode", dsv_chat_encode("{}", 2, 0, NULL, 0, NULL), INVALID);
  allow("chat_parse", dsv_chat_parse(NULL, DSV_NUL_TERMINATED, 0, NULL, 0, &n), INVALID);
  allow("live_handles", dsv_live_handles(NULL), INVALID);
  dsv_engine_options_init(NULL);
  dsv_session_cancel(NULL);
  dsv_session_destroy(NULL);
  expect(strcmp(dsv_status_name((int32_t)chance() | 128), "DSV_ERROR_UNKNOWN") == 0,
         "other statuses have no name");
}

static void run_all(void) {
  allow("engine_run", dsv_engine_run(engine), OK);
  for (int t = 0; t < TALKS; ++t) {
    Talk* talk = &talks[t];
    if (!talk->handle) continue;
    if (!talk->has_callback) drain(talk);
    expect(talk->paused || talk->finished == talk->started, "run ends every request that is not paused");
  }
}

static void call(void) {
  Talk* talk = &talks[pick(TALKS)];
  int64_t count = 0;
  int32_t ids[8], pending = -1;
  if (!talk->handle) create_session(talk);
  switch (pick(24)) {
    case 0:
    case 1:
    case 2:
      chat(talk);
      break;
    case 3:
    case 4:
    case 5:
    case 6:
      complete(talk);
      break;
    case 7:
    case 8:
    case 9:
    case 10:
    case 11:
    case 12:
      allow("engine_step", dsv_engine_step(engine, pick(300), one_in(2) ? &pending : NULL), OK);
      expect(pending >= -1 && pending <= TALKS, "no more are pending than there are");
      break;
    case 13:
      run_all();
      break;
    case 14:
      dsv_session_cancel(talk->handle);
      break;
    case 15:
    case 16:
      allow("session_resume", dsv_session_resume(talk->handle), OK);
      talk->paused = 0;
      break;
    case 17:
      if (talk->has_callback) {
        allow("poll with a callback",
              dsv_session_poll(talk->handle, &(dsv_event){.struct_size = sizeof(dsv_event)}), INVALID);
      } else {
        drain(talk);
      }
      break;
    case 18:
      allow("session_tokens", dsv_session_tokens(talk->handle, ids, pick(9), &count), OK | SMALL);
      expect(count >= 0 && count <= info.context_tokens, "a session holds at most its context");
      break;
    case 19:
      logits(talk);
      break;
    case 20:
      dsv_session_destroy(talk->handle);
      talk->handle = NULL;
      break;
    case 21:
      text_calls();
      break;
    case 22:
      if (one_in(10)) {
        model_calls();
      } else if (one_in(5)) {
        engine_calls();
      }
      break;
    default:
      if (one_in(4)) null_calls();
      break;
  }
}

/* ------------------------------------------------------------------------------------------------ sequences
 */

static void open_world(void) {
  dsv_engine_options engine_options;
  dsv_model_options options;
  state = world_seed;
  dsv_engine_options_init(&engine_options);
  engine_options.threads = 1 + pick(2);
  if (one_in(8)) engine_options.backend = "reference";
  allow("engine_create", dsv_engine_create(&engine_options, &engine), OK);
  dsv_model_options_init(&options);
  options.context_tokens = 128 << pick(4);
  options.batch_rows = one_in(2) ? 0 : 1 + pick(64);
  options.load_mtp = one_in(2);
  options.precision = one_in(4) ? DSV_PRECISION_EXACT : DSV_PRECISION_OFFICIAL;
  allow("model_load", dsv_model_load(engine, checkpoint, &options, &model), OK);
  allow("model_wait", dsv_model_wait(model, -1), OK);
  info.struct_size = sizeof info;
  allow("get_info", dsv_model_get_info(model, &info), OK);
  allow("model_tokenizer", dsv_model_tokenizer(model, &tokenizer), OK);
  for (int p = 0; p < PROMPTS; ++p) {
    for (int i = 0; i < PROMPT_SIZE; ++i) prompts[p][i] = 3 + pick(250); /* byte tokens */
    /* Prefixes in common, so that cached pages serve several. */
    if (p > 0) memcpy(prompts[p], prompts[p - 1], (size_t)pick(PROMPT_SIZE) * sizeof(int32_t));
  }
  memset(first_tokens, -1, sizeof first_tokens);
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
