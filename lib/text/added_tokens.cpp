#include "text/added_tokens.h"

#include <algorithm>
#include <utility>

namespace dsv {

AddedTokens::AddedTokens(std::vector<Token> tokens) : tokens_(std::move(tokens)) {
  std::sort(tokens_.begin(), tokens_.end(),
            [](const Token& a, const Token& b) { return a.content < b.content; });
  for (const Token& token : tokens_) begins_[static_cast<unsigned char>(token.content[0])] = true;
}

AddedTokens::Found AddedTokens::find_in(std::string_view text, size_t from) const {
  for (size_t at = from; at < text.size(); ++at) {
    if (!begins_[static_cast<unsigned char>(text[at])]) continue;
    // Narrow the sorted contents byte by byte to those that share what the text has here.
    auto first = tokens_.begin(), last = tokens_.end();
    const Token* longest = nullptr;
    for (size_t n = 0; at + n < text.size(); ++n) {
      const auto byte = static_cast<unsigned char>(text[at + n]);
      first = std::partition_point(first, last, [&](const Token& token) {
        return token.content.size() <= n || static_cast<unsigned char>(token.content[n]) < byte;
      });
      last = std::partition_point(first, last, [&](const Token& token) {
        return static_cast<unsigned char>(token.content[n]) == byte;
      });
      if (first == last) break;
      if (first->content.size() == n + 1) longest = &*first;
    }
    if (longest) return {at, longest->content.size(), longest->id};
  }
  return {text.size(), 0, -1};
}

int32_t AddedTokens::find(std::string_view content) const {
  const auto at = std::lower_bound(tokens_.begin(), tokens_.end(), content,
                                   [](const Token& token, std::string_view c) { return token.content < c; });
  return at != tokens_.end() && at->content == content ? at->id : -1;
}

}  // namespace dsv
