#include "text/tokenizer.h"

#include "base/error.h"

namespace dsv {

struct Tokenizer::State {};

Tokenizer::Tokenizer(std::unique_ptr<const State> state) : state_(std::move(state)) {}
Tokenizer::~Tokenizer() = default;

std::shared_ptr<const Tokenizer> Tokenizer::parse(std::string_view, const std::string& path) {
  fail(DSV_ERROR_UNSUPPORTED, "{}: no tokenizer is read", path);
}
std::vector<int32_t> Tokenizer::encode(std::string_view) const { return {}; }
std::string_view Tokenizer::bytes(int32_t) const { return {}; }
bool Tokenizer::has(int32_t) const { return false; }
bool Tokenizer::special(int32_t) const { return false; }
int32_t Tokenizer::find(std::string_view) const { return -1; }
int32_t Tokenizer::size() const { return 0; }

}  // namespace dsv
