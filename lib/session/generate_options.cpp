#include "session/generate_options.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "session/utf8.h"

namespace dsv {
namespace {

void require(bool ok, const char* field, const char* rule) {
  if (!ok) fail(DSV_ERROR_INVALID_ARGUMENT, "options->{} must be {}", field, rule);
}

bool is_flag(int32_t value) { return value == 0 || value == 1; }

// A token that is given several times has the sum; of +infinity and -infinity, the latter.
void join_biases(std::vector<TokenBias>& biases) {
  std::stable_sort(biases.begin(), biases.end(),
                   [](const TokenBias& a, const TokenBias& b) { return a.token < b.token; });
  size_t n = 0;
  for (const TokenBias& bias : biases) {
    if (n > 0 && biases[n - 1].token == bias.token) {
      float& sum = biases[n - 1].bias;
      sum += bias.bias;
      if (std::isnan(sum)) sum = -std::numeric_limits<float>::infinity();
    } else {
      biases[n++] = bias;
    }
  }
  biases.resize(n);
}

}  // namespace

GenerateOptions check_generate_options(const dsv_generate_options& o, int32_t vocab_size) {
  constexpr int64_t kMostStops = 16;
  require(is_flag(o.thinking), "thinking", "0 or 1");
  require(is_flag(o.keep_thinking), "keep_thinking", "0 or 1");
  require(is_flag(o.ignore_eos), "ignore_eos", "0 or 1");
  require(o.tool_choice == DSV_TOOL_CHOICE_AUTO || o.tool_choice == DSV_TOOL_CHOICE_NONE, "tool_choice",
          "DSV_TOOL_CHOICE_AUTO or DSV_TOOL_CHOICE_NONE");
  require(std::isfinite(o.temperature) && o.temperature >= 0, "temperature",
          "0 (greedy) or greater, and finite");
  require(o.top_p > 0 && o.top_p <= 1, "top_p", "greater than 0 and at most 1");
  require(o.min_p >= 0 && o.min_p < 1, "min_p", "at least 0 and less than 1");
  require(o.top_k >= 0, "top_k", "0 (off) or greater");
  require(o.max_tokens >= 0, "max_tokens", "0 (until the context is full) or greater");
  require(o.logprobs >= -1 && o.logprobs <= kMostLogprobs, "logprobs", "-1 (none) to 20");
  require(o.stop_count >= 0 && o.stop_count <= kMostStops, "stop_count", "0 to 16");
  require(o.stop_count == 0 || o.stop, "stop", "given when stop_count is not 0");
  require(o.logit_bias_count >= 0 && o.logit_bias_count <= vocab_size, "logit_bias_count",
          "at least 0 and at most the vocabulary");
  require(o.logit_bias_count == 0 || o.logit_bias, "logit_bias", "given when logit_bias_count is not 0");

  GenerateOptions result;
  result.sampling = {o.temperature, o.top_p, o.min_p, o.top_k, o.seed, {}};
  for (int64_t i = 0; i < o.logit_bias_count; ++i) {
    const dsv_logit_bias& bias = o.logit_bias[i];
    if (bias.token < 0 || bias.token >= vocab_size) {
      fail(DSV_ERROR_INVALID_ARGUMENT, "options->logit_bias[{}].token is {}: token ids are 0 to {}", i,
           bias.token, vocab_size - 1);
    }
    if (std::isnan(bias.bias)) {
      fail(DSV_ERROR_INVALID_ARGUMENT, "options->logit_bias[{}].bias is not a number", i);
    }
    result.sampling.bias.push_back({bias.token, bias.bias});
  }
  join_biases(result.sampling.bias);
  for (int64_t i = 0; i < o.stop_count; ++i) {
    const std::string_view stop = check_utf8(o.stop[i].data, o.stop[i].size, "options->stop");
    if (stop.empty())
      fail(DSV_ERROR_INVALID_ARGUMENT, "options->stop[{}] is empty: it would stop at once", i);
    result.stop.emplace_back(stop);
  }
  result.max_tokens = o.max_tokens;
  result.logprobs = o.logprobs;
  result.thinking = o.thinking == 1;
  result.keep_thinking = o.keep_thinking == 1;
  result.hide_tools = o.tool_choice == DSV_TOOL_CHOICE_NONE;
  result.ignore_eos = o.ignore_eos == 1;
  return result;
}

}  // namespace dsv
