// Text into the pieces that BPE works on: the split patterns of tokenizer.json, one after the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace dsv {

struct SplitPattern {
  std::string pattern;  // PCRE2's language
  std::string where;    // file and field, for messages
};

// Each pattern cuts every piece the one before it left: its matches are pieces, and so is what lies between
// them. Immutable; any number of threads may use one.
class Splitter {
 public:
  using Take = std::function<void(size_t offset, size_t size)>;
  struct Step;

  // Throws UNSUPPORTED for a pattern that PCRE2 does not compile.
  explicit Splitter(std::vector<SplitPattern> patterns);
  ~Splitter();

  // The working memory of one encode, and what its patterns may cost in all: so that no pattern and text
  // together can take forever. (Backtracking is what explodes. A pattern that reads ahead to the end of the
  // text from each of its characters still takes quadratic time.)
  class Run {
   public:
    Run(const Splitter& splitter, size_t text_size);
    ~Run();

    // Calls `take` for the pieces of `text` (valid UTF-8) in order; none is empty, together they are `text`.
    // Throws UNSUPPORTED for a pattern that backtracks out of proportion to the text.
    void split(std::string_view text, const Take& take);

   private:
    struct State;
    void cut(size_t step, std::string_view text, size_t offset, const Take& take);
    bool find(const Step& step, std::string_view piece, size_t from);
    int match(const Step& step, std::string_view piece, size_t from, uint32_t options, uint32_t steps);

    const std::vector<Step>& steps_;
    std::unique_ptr<State> state_;
  };

 private:
  std::vector<Step> steps_;
};

}  // namespace dsv
