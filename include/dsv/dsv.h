/* dsv.h - run DeepSeek-V3.2 (and V3/R1-shaped models) inside your program.
 *
 * MENTAL MODEL
 *   engine   the machine: threads, host hooks, the clock of all work. One per program is usual.
 *   model    a checkpoint on an engine: weights (mapped, not copied), tokenizer, one pool of KV pages.
 *   session  one conversation on a model: the tokens it holds, their KV pages, at most one running request.
 * A request puts a conversation in; typed events (reasoning, text, tool calls, finished) come out. The library does
 * nothing on its own: generation advances only inside dsv_engine_step() and dsv_engine_run(), and event callbacks run
 * only there. The one exception is loading, which has a thread of its own and is polled.
 *
 *   dsv_engine_create -> dsv_model_load -> dsv_model_wait -> dsv_session_create
 *   -> { dsv_session_chat -> dsv_engine_step ... -> DSV_EVENT_FINISHED } -> destroy in any order
 *
 * ERRORS. Every function that can fail returns dsv_status and, on failure, leaves its outputs untouched unless it says
 * otherwise; dsv_error_message() then holds one sentence that names what failed, where, and the remedy. A failed call
 * never loses a session's state. Nothing here throws, exits, prints or raises signals.
 *
 * THREADS. Functions marked [any thread] may be called at any time. All others touch an engine (their handle's engine)
 * and must not overlap on it: a call that would overlap, or that is made from inside an event callback of that engine,
 * returns DSV_ERROR_BUSY and changes nothing. Different engines are independent.
 *
 * HANDLES. One create, one destroy; destroying NULL is fine. Models keep their engine alive and sessions their model,
 * so handles may be destroyed in any order, from any thread and from inside a callback. Destroying a handle is the last
 * call on it: none may begin after that has begun.
 *
 * STRINGS. In: UTF-8 and a length in bytes, or DSV_NUL_TERMINATED; copied before the call returns. Invalid UTF-8 is
 * refused. Out: either copied into your buffer (`capacity` bytes; the needed size, without a terminator, always goes to
 * `*size`; a NUL is added if there is room; a buffer that is too small is filled as far as it goes and the call returns
 * DSV_ERROR_BUFFER_TOO_SMALL; capacity 0 asks for the size only and returns DSV_OK), or valid until a stated moment.
 *
 * OPTION STRUCTS begin with struct_size. Fill them with their *_init function, then change fields: code compiled
 * against an older header keeps working with a newer library, which neither reads nor writes beyond the size that the
 * struct had there. (The *_init functions are inline for that reason: they hand the caller's sizeof to *_init_sized,
 * which is what a program that binds symbols by name calls.) Pass NULL for all defaults.
 *
 * SIZES, counts and lengths are int64_t so that Java and C# read them as they are; a negative one is an invalid
 * argument. Token ids are int32_t.
 *
 * UNTRUSTED INPUT. Checkpoints, tokenizer files, JSON and model output are checked; none can crash the host.
 */
#ifndef DSV_DSV_H
#define DSV_DSV_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define DSV_API __declspec(dllimport)
#else
#define DSV_API __attribute__((visibility("default")))
#endif

#define DSV_VERSION_MAJOR 0
#define DSV_VERSION_MINOR 1
#define DSV_VERSION_PATCH 0
/* Raised when a struct or function changes incompatibly; equals the shared library's soname number. */
#define DSV_ABI_VERSION 0

#define DSV_NUL_TERMINATED ((int64_t)-1)

/* ------------------------------------------------------------------------------------------------ status */

typedef int32_t dsv_status;
enum {
  DSV_OK = 0,
  DSV_ERROR_INVALID_ARGUMENT = 1,  /* NULL, out of range, invalid UTF-8, malformed request JSON */
  DSV_ERROR_BUSY = 2,              /* overlapping call on one engine, call from a callback, request already running */
  DSV_ERROR_NOT_READY = 3,         /* the model is still loading, or its load failed or was cancelled */
  DSV_ERROR_BUFFER_TOO_SMALL = 4,  /* *size says how much is needed */
  DSV_ERROR_INVALID_FILE = 10,     /* checkpoint, config or tokenizer file is damaged or inconsistent */
  DSV_ERROR_IO = 11,               /* a file cannot be opened or read */
  DSV_ERROR_UNSUPPORTED = 12,      /* valid, but not something this build does; the sentence names it */
  DSV_ERROR_OUT_OF_MEMORY = 20,    /* the allocator refused */
  DSV_ERROR_BUDGET = 21,           /* would exceed a memory budget the host set */
  DSV_ERROR_CANCELLED = 30,
  DSV_ERROR_DEVICE_LOST = 40,      /* the GPU failed: destroy the model, and continue its sessions' tokens elsewhere */
  DSV_ERROR_INTERNAL = 90          /* a bug in dsv: please report the sentence */
};

/* The constant's name ("DSV_ERROR_BUSY"), static; "DSV_ERROR_UNKNOWN" for other values. [any thread] */
DSV_API const char* dsv_status_name(dsv_status status);
/* Sentence about this thread's last failed call; "" if none. Valid until this thread's next dsv call. [any thread] */
DSV_API const char* dsv_error_message(void);

/* ------------------------------------------------------------------------------------------------ library */

/* major * 1000000 + minor * 1000 + patch of the library that runs (may differ from the header). [any thread] */
DSV_API int32_t dsv_version(void);
DSV_API int32_t dsv_abi_version(void);
/* One line: version, compiler, build type, CPU targets. Static. [any thread] */
DSV_API const char* dsv_build_info(void);
/* 1 if the named feature can be used here, else 0. Names: "backend.cpu", "backend.reference", "backend.cuda" (its
 * library is installed, and this machine has a driver and a GPU for it), "cpu.<target>" for each CPU target that this
 * machine can run (e.g. "cpu.avx2"), "mtp". [any thread] */
DSV_API int32_t dsv_has_feature(const char* name);

/* Handles created and not yet destroyed by the host, over all engines: zero each when you have closed everything. */
typedef struct dsv_handle_counts {
  uint32_t struct_size;
  uint32_t reserved;
  int64_t engines, models, sessions, tokenizers;
} dsv_handle_counts;
/* Set counts->struct_size before. [any thread] */
DSV_API dsv_status dsv_live_handles(dsv_handle_counts* counts);

/* ------------------------------------------------------------------------------------------------ host hooks */

enum { DSV_LOG_DEBUG = 0, DSV_LOG_INFO = 1, DSV_LOG_WARNING = 2, DSV_LOG_ERROR = 3 };

/* All hooks are optional (NULL = the library's own) and may be called from any thread, never after the engine and
 * everything on it is gone. They must not call dsv functions and must not throw. Hooks of one group (allocate with
 * deallocate; the four file hooks) are given together or not at all. */
typedef struct dsv_hooks {
  uint32_t struct_size;
  uint32_t reserved;
  void* user; /* passed to every hook */

  /* Every large block: KV pool, activations, logits, repacked weights. Small bookkeeping (strings, JSON, vocabulary,
   * page tables) uses the C++ runtime. Nothing is asked for per decoded token. Return NULL to refuse. alignment is a
   * power of two. */
  void* (*allocate)(void* user, int64_t size, int64_t alignment);
  void (*deallocate)(void* user, void* memory, int64_t size, int64_t alignment);

  /* One line without newline; not NUL-terminated. Without this hook nothing is logged. */
  void (*log)(void* user, int32_t level, const char* text, int64_t size);

  /* Files by path (the checkpoint folder joined with the file's name by '/'). Default: mmap of local files.
   * file_open gives a handle and the size, or DSV_ERROR_IO. file_map may be NULL or return NULL: then the whole file
   * is read into memory from `allocate` as it is opened. What it returns must stay valid until file_close. */
  dsv_status (*file_open)(void* user, const char* path, void** file, int64_t* size);
  const void* (*file_map)(void* user, void* file);
  dsv_status (*file_read)(void* user, void* file, int64_t offset, void* out, int64_t size);
  void (*file_close)(void* user, void* file);

  /* The host's job system: call job(argument, i) once for every i in [0, count), in any order, in parallel or not, and
   * return when all have returned. Replaces the library's thread pool. Called from loading threads and from those
   * inside dsv_engine_step, _run and dsv_session_logits. */
  void (*run_jobs)(void* user, void (*job)(void* argument, int32_t index), void* argument, int32_t count);
} dsv_hooks;
DSV_API void dsv_hooks_init_sized(dsv_hooks* hooks, uint32_t struct_size); /* [any thread], like all *_init */
static inline void dsv_hooks_init(dsv_hooks* hooks) { dsv_hooks_init_sized(hooks, (uint32_t)sizeof *hooks); }

/* ------------------------------------------------------------------------------------------------ engine */

typedef struct dsv_engine dsv_engine;
typedef struct dsv_model dsv_model;
typedef struct dsv_session dsv_session;
typedef struct dsv_tokenizer dsv_tokenizer;

typedef struct dsv_engine_options {
  uint32_t struct_size;
  int32_t threads;         /* worker count, the stepping thread included; 0 = one per core. Results never depend on it. */
  const char* backend;     /* "cpu" (default), "cuda" or "cuda:N" (the first or the N-th NVIDIA GPU, from 0, by
                              libdsv_cuda.so, which is opened now), or "reference" (fp64, slow: for checking) */
  const char* cpu_target;  /* NULL = best of this machine; else force one ("cpu" only): dsv_cpu_targets() lists them */
  const dsv_hooks* hooks;  /* copied */
} dsv_engine_options;
DSV_API void dsv_engine_options_init_sized(dsv_engine_options* options, uint32_t struct_size);
static inline void dsv_engine_options_init(dsv_engine_options* options) {
  dsv_engine_options_init_sized(options, (uint32_t)sizeof *options);
}

/* Space-separated CPU targets that this machine can run, best first ("amx avx512_bf16 avx2 sse4 ..."). Static.
 * [any thread] */
DSV_API const char* dsv_cpu_targets(void);

DSV_API dsv_status dsv_engine_create(const dsv_engine_options* options, dsv_engine** engine); /* [any thread] */
DSV_API void dsv_engine_destroy(dsv_engine* engine); /* [any thread] */

/* Advances every running request by as much as fits in budget_us microseconds and runs event callbacks on this thread.
 * Prompt chunks and decode steps of all sessions share batches. Stops between layers, rows and sampled tokens, by what
 * these have cost so far: as long as they cost no more now, it overshoots by at most one layer (or the sampling) of one
 * row. It always makes at least that much progress. On a GPU it hands over work, layer by layer, and returns when that
 * is done or the budget is over: the GPU works on, and a later step finds what it has computed. *pending (may be NULL)
 * receives the number of requests that can still advance (paused ones do not count). If it fails
 * (DSV_ERROR_OUT_OF_MEMORY), every request keeps its place. */
DSV_API dsv_status dsv_engine_step(dsv_engine* engine, int64_t budget_us, int32_t* pending);
/* Steps until no request can advance. Failure: as dsv_engine_step. */
DSV_API dsv_status dsv_engine_run(dsv_engine* engine);

/* ------------------------------------------------------------------------------------------------ model */

enum {
  DSV_PRECISION_OFFICIAL = 0, /* FP8 activations (1x128), FP8 KV (656 B) and index (132 B) rows, as released: fast */
  DSV_PRECISION_EXACT = 1     /* stored weights, fp32 activations and caches: to compare with other implementations */
};

/* In which order numbers are added. */
enum {
  DSV_SCHEDULE_DETERMINISTIC = 0, /* a token's result is bitwise the same alone, in any batch and in any chunks */
  DSV_SCHEDULE_FAST = 1           /* it is the same for the same batches only: where many rows meet, other kernels may
                                     compute them. CPU backends ignore it: theirs are deterministic at no cost */
};

typedef struct dsv_model_options {
  uint32_t struct_size;
  int32_t precision;
  int64_t context_tokens;      /* longest sequence a session may hold; 0 = the model's max_position_embeddings */
  int64_t kv_budget_bytes;     /* size of the KV pool; 0 = one full context, at most a quarter of the machine's memory */
  int64_t weight_budget_bytes; /* refuse to load more weight bytes than this; 0 = no limit */
  int32_t batch_rows;          /* most rows (tokens) in one forward pass; 0 = 512. Results depend on it with
                                  DSV_SCHEDULE_FAST only. */
  int32_t load_mtp;            /* 1: load the MTP layer if the checkpoint has it (needed for draft logits) */
  const char* chat_profile;    /* NULL = by the checkpoint ("v32" for deepseek_v32, none for deepseek_v3); "v32",
                                  "speciale" (thinking only, no tools) or "none" (raw tokens only) */
  int32_t schedule;            /* DSV_SCHEDULE_DETERMINISTIC (default) or DSV_SCHEDULE_FAST */
  int32_t gpu_stream_priority; /* of the model's work among this process's streams, in CUDA's numbers: lower goes
                                  first. 0 (default) is the lowest priority, so a renderer's streams with a negative
                                  one go before the model; what the GPU does not have becomes the nearest it has.
                                  Read by the "cuda" backend only. */
} dsv_model_options;
DSV_API void dsv_model_options_init_sized(dsv_model_options* options, uint32_t struct_size);
static inline void dsv_model_options_init(dsv_model_options* options) {
  dsv_model_options_init_sized(options, (uint32_t)sizeof *options);
}

/* What a model would take, before anything is allocated. All in bytes unless named otherwise. On a GPU the files are
 * mapped only to be read once, weight_copy_bytes is all weights, and what is said to be allocated is the GPU's memory:
 * total_bytes is then without weight_bytes, and beside it lie what the driver takes and some MB of the host's memory. */
typedef struct dsv_memory_plan {
  uint32_t struct_size;
  int32_t reserved;
  int64_t weight_bytes;         /* mapped from the files, shared with other processes */
  int64_t weight_copy_bytes;    /* allocated besides: aligned scales, norms */
  int64_t kv_bytes_per_1k;      /* for 1024 tokens of one session, all layers */
  int64_t kv_pool_bytes;        /* allocated for the pool under these options */
  int64_t kv_pool_tokens;       /* tokens that fit in it, over all sessions */
  int64_t scratch_bytes;        /* activations, logits, per-thread buffers */
  int64_t total_bytes;          /* weight_bytes (not on a GPU) + weight_copy_bytes + kv_pool_bytes + scratch_bytes */
  int64_t parameters;           /* stored weights, MTP layer included if loaded */
  int64_t active_bytes_per_token; /* weight bytes that one decoded token reads (top-k experts only) */
} dsv_memory_plan;
/* Reads config.json and the tensor headers only. `path`: the checkpoint's folder. Set plan->struct_size before. */
DSV_API dsv_status dsv_model_plan(dsv_engine* engine, const char* path, const dsv_model_options* options,
                                  dsv_memory_plan* plan);
/* The checkpoint as JSON: {"config": {...}, "tensors": [{"name", "dtype", "shape", "bytes", "file"}...], "plan": {...}}.
 * Checks what loading checks, except for the values of the weights and tokenizer.json. */
DSV_API dsv_status dsv_model_inspect(dsv_engine* engine, const char* path, const dsv_model_options* options, char* out,
                                     int64_t capacity, int64_t* size);

/* Starts loading and returns at once; *model is valid, and must be destroyed, whenever DSV_OK is returned. Arguments
 * are checked here; the files are checked by the loading thread, so their errors come from dsv_model_wait or
 * dsv_model_progress. */
DSV_API dsv_status dsv_model_load(dsv_engine* engine, const char* path, const dsv_model_options* options,
                                  dsv_model** model);

enum { DSV_LOAD_RUNNING = 0, DSV_LOAD_READY = 1, DSV_LOAD_FAILED = 2, DSV_LOAD_CANCELLED = 3 };
typedef struct dsv_load_progress {
  uint32_t struct_size;
  int32_t state;
  int64_t done, total;     /* bytes checked and placed, of all; total is 0 until it is known */
} dsv_load_progress;
/* Set progress->struct_size before. If the load failed or was cancelled, fills *progress all the same and returns its
 * status with the sentence. [any thread] */
DSV_API dsv_status dsv_model_progress(dsv_model* model, dsv_load_progress* progress);
/* Waits until the load has ended (timeout_ms < 0: for ever). DSV_OK = ready; DSV_ERROR_NOT_READY = timed out; else why
 * it failed. [any thread] */
DSV_API dsv_status dsv_model_wait(dsv_model* model, int64_t timeout_ms);
/* Ends a running load soon; it then reports DSV_ERROR_CANCELLED. Nothing happens if it has ended. [any thread] */
DSV_API void dsv_model_cancel_load(dsv_model* model);
DSV_API void dsv_model_destroy(dsv_model* model); /* [any thread] */

typedef struct dsv_model_info {
  uint32_t struct_size;
  int32_t vocab_size;        /* columns of a logits row */
  int64_t context_tokens;
  int32_t num_layers, hidden_size, index_topk; /* index_topk 0: no indexer, dense attention */
  int32_t has_chat;          /* 1: dsv_session_chat works; 0: tokens only */
  int32_t has_mtp;           /* 1: draft logits can be asked for */
  int32_t bos_token, eos_token; /* -1 if the model has none */
  int32_t precision;
} dsv_model_info;
/* Set info->struct_size before. DSV_ERROR_NOT_READY until loaded. */
DSV_API dsv_status dsv_model_get_info(dsv_model* model, dsv_model_info* info);

typedef struct dsv_memory_use {
  uint32_t struct_size;
  int32_t reserved;
  int64_t weight_bytes, weight_copy_bytes, scratch_bytes, kv_pool_bytes;
  int64_t kv_pages_used, kv_pages_total; /* pages of 64 tokens, all layers */
} dsv_memory_use;
/* Set use->struct_size before. DSV_ERROR_NOT_READY until loaded. */
DSV_API dsv_status dsv_model_memory(dsv_model* model, dsv_memory_use* use);

/* ------------------------------------------------------------------------------------------------ text */

/* A tokenizer by itself, from tokenizer.json. Immutable: every function on it is [any thread]. */
DSV_API dsv_status dsv_tokenizer_open(const char* path, dsv_tokenizer** tokenizer);
DSV_API void dsv_tokenizer_destroy(dsv_tokenizer* tokenizer);
/* The model's own; a new handle, to be destroyed. DSV_ERROR_NOT_READY until loaded. */
DSV_API dsv_status dsv_model_tokenizer(dsv_model* model, dsv_tokenizer** tokenizer);
/* Ids of text, exactly as the official tokenizer without its BOS. Up to `capacity` ids go to `ids`, the full count to
 * *count (DSV_ERROR_BUFFER_TOO_SMALL if it did not fit and capacity > 0). Markers such as "<think>" become their id. */
DSV_API dsv_status dsv_tokenizer_encode(const dsv_tokenizer* tokenizer, const char* text, int64_t text_size,
                                        int32_t* ids, int64_t capacity, int64_t* count);
/* Bytes of ids, special tokens included; ids without a token are an error. */
DSV_API dsv_status dsv_tokenizer_decode(const dsv_tokenizer* tokenizer, const int32_t* ids, int64_t count, char* out,
                                        int64_t capacity, int64_t* size);

enum {
  DSV_CHAT_THINKING = 1,      /* thinking mode */
  DSV_CHAT_KEEP_THINKING = 2  /* the official drop_thinking=False */
};
/* The official V3.2 encoding of {"messages": [...], "tools": [...]?, "response_format": {...}?}, BOS included.
 * [any thread] */
DSV_API dsv_status dsv_chat_encode(const char* request_json, int64_t request_size, int32_t flags, char* out,
                                   int64_t capacity, int64_t* size);
/* A completion (text after the prompt, EOS or not) -> {"role", "reasoning_content"?, "content", "tool_calls"?}.
 * Malformed markup stays in the content. [any thread] */
DSV_API dsv_status dsv_chat_parse(const char* completion, int64_t completion_size, int32_t flags, char* out,
                                  int64_t capacity, int64_t* size);

/* ------------------------------------------------------------------------------------------------ events */

enum {
  DSV_EVENT_NONE = 0,
  DSV_EVENT_PREFILL = 1,       /* prompt progress: done of total tokens (total excludes what was cached) */
  DSV_EVENT_REASONING = 2,     /* text: whole code points of the thinking part */
  DSV_EVENT_CONTENT = 3,       /* text: whole code points of the answer */
  DSV_EVENT_TOOL_BEGIN = 4,    /* tool_index, tool_name, tool_id */
  DSV_EVENT_TOOL_DELTA = 5,    /* tool_index, text: next piece of the arguments' JSON */
  DSV_EVENT_TOOL_END = 6,      /* tool_index, tool_name, tool_id, text: all arguments, valid JSON (an object) */
  DSV_EVENT_TOKEN = 7,         /* only if logprobs were asked for: token, logprob, top */
  DSV_EVENT_MALFORMED = 8,     /* text: a sentence; the markup that could not be parsed has gone out as content */
  DSV_EVENT_FINISHED = 9       /* exactly one per request, the last: finish_reason, usage, status and text if failed */
};

enum {
  DSV_FINISH_STOP = 1,         /* the model ended its turn */
  DSV_FINISH_TOOL_CALLS = 2,   /* .. with tool calls: run them, append results, ask again */
  DSV_FINISH_STOP_STRING = 3,  /* a stop string came up; it is not part of the text */
  DSV_FINISH_LENGTH = 4,       /* max_tokens */
  DSV_FINISH_CONTEXT_FULL = 5, /* the session's context is full */
  DSV_FINISH_KV_BUDGET = 6,    /* no KV page is free: destroy or shorten sessions, or raise kv_budget_bytes */
  DSV_FINISH_CANCELLED = 7,    /* dsv_session_cancel or DSV_ACTION_STOP, also if another end came at the same row */
  DSV_FINISH_ERROR = 8         /* status and text say why; the session keeps the tokens computed so far */
};

typedef struct dsv_token_logprob {
  int32_t token;
  float logprob;
} dsv_token_logprob;

/* Fields that a kind does not name are zero. Pointers are valid until the callback returns, or until the next
 * dsv_session_poll or dsv_session_destroy on the session. Strings are not NUL-terminated. */
typedef struct dsv_event {
  uint32_t struct_size;
  int32_t kind;
  int64_t request; /* as given by dsv_session_chat / _complete */
  const char* text;
  int64_t text_size;
  const char* tool_name;
  int64_t tool_name_size;
  const char* tool_id;
  int64_t tool_id_size;
  int32_t tool_index;
  int32_t finish_reason;
  dsv_status status;
  int32_t token;
  float logprob;                /* of the sampled token, natural log, before temperature and filters */
  int32_t top_count;
  const dsv_token_logprob* top; /* the most likely, best first */
  int64_t done, total;          /* DSV_EVENT_PREFILL */
  int64_t prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens; /* DSV_EVENT_FINISHED */
} dsv_event;

enum {
  DSV_ACTION_CONTINUE = 0,
  DSV_ACTION_PAUSE = 1, /* the request keeps its place until dsv_session_resume; events of the row at hand still come */
  DSV_ACTION_STOP = 2   /* as dsv_session_cancel */
};
/* Runs on the stepping thread. May call functions marked [any thread], nothing else on this engine; must not throw.
 * Returns a DSV_ACTION; other values count as DSV_ACTION_CONTINUE. What it returns for DSV_EVENT_FINISHED is ignored. */
typedef int32_t (*dsv_event_callback)(void* user, const dsv_event* event);

/* ------------------------------------------------------------------------------------------------ session */

typedef struct dsv_session_options {
  uint32_t struct_size;
  uint32_t reserved;
  dsv_event_callback on_event; /* NULL: events queue up for dsv_session_poll */
  void* user;
} dsv_session_options;
DSV_API void dsv_session_options_init_sized(dsv_session_options* options, uint32_t struct_size);
static inline void dsv_session_options_init(dsv_session_options* options) {
  dsv_session_options_init_sized(options, (uint32_t)sizeof *options);
}
/* DSV_ERROR_NOT_READY until the model has loaded. */
DSV_API dsv_status dsv_session_create(dsv_model* model, const dsv_session_options* options, dsv_session** session);
/* A running request is cancelled and drained, without a DSV_EVENT_FINISHED: the callback is not called any more once
 * this has returned. A call of it that another thread is in is waited for, except from inside a callback. The pages go
 * back to the pool at the latest when the current step returns. [any thread] */
DSV_API void dsv_session_destroy(dsv_session* session);

typedef struct dsv_logit_bias {
  int32_t token;
  float bias; /* added to the logit; -INFINITY forbids the token */
} dsv_logit_bias;

typedef struct dsv_string {
  const char* data;
  int64_t size;
} dsv_string;

enum { DSV_TOOL_CHOICE_AUTO = 0, DSV_TOOL_CHOICE_NONE = 1 };

typedef struct dsv_generate_options {
  uint32_t struct_size;
  int32_t thinking;      /* 1: the model thinks before it answers (dsv_session_chat only) */
  int32_t keep_thinking; /* the official drop_thinking=False */
  int32_t tool_choice;   /* NONE: tools are not shown to the model and calls stay text */
  float temperature;     /* 0 = greedy (default 1) */
  float top_p;           /* (0, 1], 1 = off */
  float min_p;           /* [0, 1): drop tokens below min_p times the most likely; 0 = off */
  int32_t top_k;         /* 0 = off */
  uint64_t seed;         /* a request's tokens are a function of model, prompt, options and seed only (with
                            DSV_SCHEDULE_FAST, of the batches, too) */
  int64_t max_tokens;    /* 0 = until the context is full */
  int32_t logprobs;      /* -1 = none (default), else DSV_EVENT_TOKEN with this many alternatives (0..20) */
  int32_t ignore_eos;    /* 1: go on after the end-of-turn token (benchmarks) */
  const dsv_string* stop; /* stop strings, matched in content text only */
  int64_t stop_count;    /* at most 16 */
  const dsv_logit_bias* logit_bias;
  int64_t logit_bias_count;
} dsv_generate_options;
DSV_API void dsv_generate_options_init_sized(dsv_generate_options* options, uint32_t struct_size);
static inline void dsv_generate_options_init(dsv_generate_options* options) {
  dsv_generate_options_init_sized(options, (uint32_t)sizeof *options);
}

/* Starts a request: {"messages": [...], "tools": [...]?, "response_format": {...}?}, OpenAI style, the whole
 * conversation each time. Only the tokens after the longest common prefix with what the session holds are computed.
 * *request (may be NULL) receives a number, unique in the session. Work happens in dsv_engine_step. On failure the
 * session is as before. DSV_ERROR_BUSY while a request is running. */
DSV_API dsv_status dsv_session_chat(dsv_session* session, const char* request_json, int64_t request_size,
                                    const dsv_generate_options* options, int64_t* request);
/* The same with raw tokens, used as they are (no BOS is added); everything comes out as DSV_EVENT_CONTENT. A model
 * without tokenizer.json has no text: ask for logprobs to see its tokens. */
DSV_API dsv_status dsv_session_complete(dsv_session* session, const int32_t* tokens, int64_t count,
                                        const dsv_generate_options* options, int64_t* request);
/* Ends the running request: the step at work, at the end of the layer that it computes, or else the next step delivers
 * its DSV_EVENT_FINISHED, which says CANCELLED. The session keeps the tokens computed so far. Nothing happens without a
 * request. [any thread] */
DSV_API void dsv_session_cancel(dsv_session* session);
/* Lets a paused request run again. Nothing happens if none is paused. */
DSV_API dsv_status dsv_session_resume(dsv_session* session);
/* Next queued event, or one of kind DSV_EVENT_NONE. Set event->struct_size before. Only without on_event. */
DSV_API dsv_status dsv_session_poll(dsv_session* session, dsv_event* event);
/* The tokens whose keys and values the session holds; as dsv_tokenizer_encode. */
DSV_API dsv_status dsv_session_tokens(dsv_session* session, int32_t* ids, int64_t capacity, int64_t* count);

enum { DSV_LOGITS_MAIN = 0, DSV_LOGITS_DRAFT = 1 };
/* Logits of positions [first, first + rows) of `tokens`: float [rows, vocab_size] to `out`. Blocks until computed; the
 * session then holds `tokens`. MAIN: row t scores token t+1. DRAFT: the MTP layer's row t, fed token t+1, scores token
 * t+2 (DeepSeek-V3 report, section 2.2); rows must stop one before the last token, and all of `tokens` is computed
 * anew, because the MTP layer's own cache is filled by such calls only. DSV_ERROR_BUSY while a request is running.
 * If it fails on the way (DSV_ERROR_BUDGET: no page is free; DSV_ERROR_OUT_OF_MEMORY), `out` is undefined and the
 * session holds a prefix of `tokens`. */
DSV_API dsv_status dsv_session_logits(dsv_session* session, const int32_t* tokens, int64_t count, int64_t first,
                                      int64_t rows, int32_t source, float* out);

#ifdef __cplusplus
}
#endif
#endif
