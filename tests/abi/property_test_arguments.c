/* What property_test calls with. */
#include <math.h>
#include <string.h>

#include "property_test.h"

int is_utf8(const unsigned char* s, int64_t n) {
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
const char* const kRequests[REQUESTS] = {
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

int64_t make_request(char* out, int64_t capacity, int* which, int* well_formed) {
  *well_formed = 1;
  *which = one_in(12) ? REQUESTS - 1 : pick(REQUESTS - 1); /* the last, with tools, is long */
  const char* good = kRequests[*which];
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

void some_options(dsv_generate_options* options) {
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

void spoil(dsv_generate_options* options) {
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
