/* What property_test calls, and what each call may return. */
#include <string.h>

#include "property_test.h"

static void drain(Talk* talk) {
  dsv_event event;
  for (;;) {
    event.struct_size = sizeof event;
    allow("poll", dsv_session_poll(talk->handle, &event), OK);
    if (event.kind == DSV_EVENT_NONE) return;
    check_event(talk, &event);
  }
}

void create_session(Talk* talk) {
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
  int which, well_formed, spoilt = one_in(8);
  int64_t number = -1;
  dsv_generate_options options;
  const int64_t size = make_request(request, sizeof request, &which, &well_formed);
  if (!talk->has_callback) drain(talk);
  some_options(&options);
  if (spoilt) spoil(&options);
  unsigned allowed = spoilt        ? INVALID | BUSY
                     : well_formed ? if_free(talk)
                                   : OK | INVALID | UNSUPPORTED | BUSY;
  if (well_formed && request_tokens[which][options.thinking] > info.context_tokens) allowed = INVALID | BUSY;
  const dsv_status status = dsv_session_chat(talk->handle, request, size, &options, &number);
  allow("session_chat", status, allowed);
  expect((status == DSV_OK) == (number != -1), "only a started request has a number");
  started(talk, status, number, -1, &options);
}

void complete(Talk* talk) {
  int64_t number = -1;
  const int prompt = one_in(8) ? 0 : 1 + pick(PROMPTS - 1); /* the long one costs as much as seven others */
  int64_t count = kPromptSizes[prompt];
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
  int which, well_formed;
  const int64_t request_size = make_request(request, sizeof request, &which, &well_formed);
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

void run_all(void) {
  allow("engine_run", dsv_engine_run(engine), OK);
  for (int t = 0; t < TALKS; ++t) {
    Talk* talk = &talks[t];
    if (!talk->handle) continue;
    if (!talk->has_callback) drain(talk);
    expect(talk->paused || talk->finished == talk->started, "run ends every request that is not paused");
  }
}

void call(void) {
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
