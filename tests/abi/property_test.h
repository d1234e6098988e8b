/* What the files of property_test share. */
#ifndef TESTS_ABI_PROPERTY_TEST_H
#define TESTS_ABI_PROPERTY_TEST_H

#include <dsv/dsv.h>

enum { TALKS = 5, PROMPTS = 6, PROMPT_SIZE = 70, REQUESTS = 4, SEEDS = 3, MOST_TOKENS = 5 };

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

/* Chance, from the world's seed on. */
uint64_t chance(void);
int pick(int n);
int one_in(int n);

void fail(const char* what, const char* detail);
void expect(int holds, const char* what);
/* The status, which must be one of those allowed. */
dsv_status allow(const char* call, dsv_status status, unsigned allowed);

typedef struct Talk {
  dsv_session* handle; /* NULL: free, or destroyed */
  int has_callback, paused;
  int64_t request; /* of the last one that started */
  int started, finished;
  int prompt, seed, tokens; /* prompt -1: its tokens are not compared */
  int64_t max_tokens;
} Talk;

/* The world. */
extern const char* checkpoint;
extern dsv_engine* engine;
extern dsv_model* model;
extern dsv_tokenizer* tokenizer;
extern dsv_model_info info;
extern int32_t prompts[PROMPTS][PROMPT_SIZE];
extern const int64_t kPromptSizes[PROMPTS]; /* the longest does not fit in a page of 64 tokens */
extern int64_t request_tokens[REQUESTS][2]; /* of kRequests, without and with thinking */
extern Talk talks[TALKS];

void check_event(Talk* talk, const dsv_event* event);
int32_t on_event(void* user, const dsv_event* event);

/* Arguments. */
extern const char* const kRequests[REQUESTS];
int is_utf8(const unsigned char* s, int64_t n);
/* A request into `out`, mostly kRequests[*which] as it is (well-formed); returns its size. */
int64_t make_request(char* out, int64_t capacity, int* which, int* well_formed);
void some_options(dsv_generate_options* options);
/* Spoils one field; all of these are to be refused. */
void spoil(dsv_generate_options* options);

/* Calls. */
void create_session(Talk* talk);
void complete(Talk* talk);
void run_all(void);
/* Any call. */
void call(void);

#endif
