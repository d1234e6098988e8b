#include "text/splitter.h"

#include <algorithm>
#include <utility>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/error.h"
#include "text/utf8.h"

namespace dsv {
namespace {

// Backtracking steps from one start. What a sensible pattern needs is far below, but for a run of white space
// as long as this and the like.
constexpr uint32_t kFreeSteps = 1000;
// Steps that starts beyond kFreeSteps may use together: so that no pattern and text can hang an encode.
constexpr uint64_t kSteps = uint64_t{1} << 24, kStepsPerByte = 64;
// A pattern's memory when the compiled code's stack is too small for it.
constexpr uint32_t kHeapKiB = 64 << 10;
constexpr size_t kPatternBytes = size_t{1} << 16;
constexpr uint32_t kPatternDepth = 50;

struct Free {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
template <class T>
using Owned = std::unique_ptr<T, Free>;

// PCRE2 returns null for a handle only when memory is short.
template <class T>
Owned<T> own(T* handle) {
  if (!handle) throw std::bad_alloc();
  return Owned<T>(handle);
}

}  // namespace

struct Splitter::Step {
  Owned<pcre2_code> code;
  std::string where;
};

Splitter::Splitter(std::vector<SplitPattern> patterns) {
  const auto context = own(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_max_pattern_length(context.get(), kPatternBytes);
  pcre2_set_parens_nest_limit(context.get(), kPatternDepth);
  for (SplitPattern& split : patterns) {
    int error = 0;
    size_t offset = 0;
    Owned<pcre2_code> code(pcre2_compile(
        reinterpret_cast<PCRE2_SPTR>(split.pattern.data()), split.pattern.size(),
        PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_AUTO_CAPTURE, &error, &offset, context.get()));
    if (!code) {
      char reason[256] = "";
      pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(reason), sizeof reason);
      fail(DSV_ERROR_UNSUPPORTED,
           "{}: the pattern cannot be compiled ({}); use the tokenizer.json released with the model",
           split.where, reason);
    }
    // Where the machine forbids generated code, matching is interpreted: slower, the same result.
    pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
    steps_.push_back({std::move(code), std::move(split.where)});
  }
}

Splitter::~Splitter() = default;

namespace {

template <class Step>
[[noreturn]] void refuse(const Step& step, std::string_view what) {
  fail(DSV_ERROR_UNSUPPORTED,
       "{}: the pattern {} on this text; use the tokenizer.json released with the model", step.where, what);
}

}  // namespace

struct Splitter::Run::State {
  Owned<pcre2_match_data> data = own(pcre2_match_data_create(1, nullptr));
  Owned<pcre2_match_context> context = own(pcre2_match_context_create(nullptr));
  uint64_t budget;                  // steps left to starts beyond kFreeSteps
  std::pair<size_t, size_t> found;  // begin and end of the last match
};

Splitter::Run::Run(const Splitter& splitter, size_t text_size)
    : steps_(splitter.steps_), state_(std::make_unique<State>()) {
  state_->budget = kSteps + kStepsPerByte * text_size;
  pcre2_set_heap_limit(state_->context.get(), kHeapKiB);
}

Splitter::Run::~Run() = default;

void Splitter::Run::split(std::string_view text, const Take& take) { cut(0, text, 0, take); }

// Cuts `piece`, which stands at `offset` of the text, by the patterns from `step` on. Each pattern sees its
// piece alone: looking ahead ends where the piece ends.
void Splitter::Run::cut(size_t step, std::string_view piece, size_t offset, const Take& take) {
  if (piece.empty()) return;
  if (step == steps_.size()) return take(offset, piece.size());
  const auto pass_on = [&](size_t begin, size_t end) {
    cut(step + 1, piece.substr(begin, end - begin), offset + begin, take);
  };
  size_t done = 0;  // what lies before has been passed on
  size_t from = 0;
  bool is_first = true;
  while (from <= piece.size() && find(steps_[step], piece, from)) {
    const auto [begin, end] = state_->found;
    if (begin == end && end == done &&
        !is_first) {  // an empty match does not count directly behind another match
      from += from < piece.size() ? first_code_point(piece.substr(from)).size : 1;
      continue;
    }
    pass_on(done, begin);
    pass_on(begin, end);
    done = from = end;
    is_first = false;
  }
  pass_on(done, piece.size());
}

// The first match at `from` or behind, into found.
bool Splitter::Run::find(const Step& step, std::string_view piece, size_t from) {
  int count = match(step, piece, from, 0, kFreeSteps);
  if (count != PCRE2_ERROR_MATCHLIMIT) return count > 0;
  // Some start needs more: try them one by one, so that it is known what each costs.
  for (size_t at = from;; at += first_code_point(piece.substr(at)).size) {
    for (uint64_t steps = kFreeSteps;; steps *= 2) {
      count = match(step, piece, at, PCRE2_ANCHORED,
                    static_cast<uint32_t>(std::min<uint64_t>(steps, UINT32_MAX)));
      if (count != PCRE2_ERROR_MATCHLIMIT) break;
      if (steps > state_->budget) refuse(step, "backtracks without end");
      state_->budget -= steps;
    }
    if (count > 0) return true;
    if (at == piece.size()) return false;
  }
}

// Above 0 for a match, PCRE2_ERROR_NOMATCH, or PCRE2_ERROR_MATCHLIMIT when one start takes more than `steps`.
int Splitter::Run::match(const Step& step, std::string_view piece, size_t from, uint32_t options,
                         uint32_t steps) {
  pcre2_set_match_limit(state_->context.get(), steps);
  const auto attempt = [&](uint32_t more) {
    return pcre2_match(step.code.get(), reinterpret_cast<PCRE2_SPTR>(piece.data()), piece.size(), from,
                       PCRE2_NO_UTF_CHECK | options | more, state_->data.get(), state_->context.get());
  };
  int count = attempt(0);
  if (count == PCRE2_ERROR_JIT_STACKLIMIT)
    count = attempt(PCRE2_NO_JIT);  // the interpreter's stack is on the heap
  if (count == PCRE2_ERROR_NOMEMORY) throw std::bad_alloc();
  if (count == PCRE2_ERROR_HEAPLIMIT) refuse(step, "needs too much memory");
  if (count == PCRE2_ERROR_NOMATCH || count == PCRE2_ERROR_MATCHLIMIT) return count;
  if (count != 1) refuse(step, fmt::format("fails with PCRE2's error {}", count));
  const size_t* offsets = pcre2_get_ovector_pointer(state_->data.get());
  state_->found = {offsets[0], offsets[1]};
  return count;
}

}  // namespace dsv
