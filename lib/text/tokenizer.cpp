#include "text/tokenizer.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/splitter.h"
#include "text/tokenizer_file.h"
#include "text/unicode_16.h"
#include "text/utf8.h"

namespace dsv {
namespace {

using Names = std::map<std::string_view, int32_t>;

// Fills the vocabulary with the file's tokens, then with the added ones that have ids of their own. `plain`:
// names that are not written byte by byte (markers that the file lists with the vocabulary); no text becomes
// them.
Vocabulary make_vocabulary(const TokenizerFile& file, const std::string& path) {
  const std::string where = shown(path) + ": model.vocab";
  Vocabulary vocabulary(file.vocab.size());
  Names plain;
  std::string bytes;
  for (const TokenizerFile::Token& token : file.vocab) {
    const std::string_view name = std::string_view(file.names).substr(token.offset, token.size);
    if (!vocabulary.bytes(token.id).empty()) {
      fail(DSV_ERROR_INVALID_FILE,
           "{} gives the id {} to {} and to another token; use the tokenizer.json released with "
           "the model",
           where, token.id, shown(name));
    }
    if (read_byte_level(name, bytes)) {
      vocabulary.add(token.id, bytes, true, where);
    } else {
      if (const auto [at, is_new] = plain.emplace(name, token.id); !is_new) {
        fail(DSV_ERROR_INVALID_FILE, "{} has the token {} twice (ids {} and {}); remove one", where,
             shown(name), at->second, token.id);
      }
      vocabulary.add(token.id, name, false, where);
    }
  }
  Names seen;
  for (const TokenizerFile::AddedToken& token : file.added) {
    // The vocabulary may list it too, with the same id.
    int32_t listed = -1;
    if (read_byte_level(token.content, bytes)) {
      listed = vocabulary.find(bytes);
    } else if (const auto at = plain.find(token.content); at != plain.end()) {
      listed = at->second;
    }
    const bool is_first = seen.emplace(token.content, token.id).second;
    const bool id_is_free = vocabulary.bytes(token.id).empty();
    if (!is_first || (listed < 0 ? !id_is_free : listed != token.id)) {
      fail(DSV_ERROR_INVALID_FILE,
           "{}: added_tokens gives {} the id {}, but that token or that id is in use; use the tokenizer.json "
           "released with the model",
           shown(path), shown(token.content), token.id);
    }
    if (id_is_free) vocabulary.add(token.id, token.content, false, where);
  }
  return vocabulary;
}

Merges make_merges(const TokenizerFile& file, const Vocabulary& vocabulary, const std::string& path) {
  const std::string where = shown(path) + ": model.merges";
  Merges merges(file.merges.size());
  std::string bytes;
  for (size_t rank = 0; rank < file.merges.size(); ++rank) {
    const TokenizerFile::Merge& merge = file.merges[rank];
    const std::string_view left = std::string_view(file.names).substr(merge.offset, merge.left_size);
    const std::string_view right =
        std::string_view(file.names).substr(merge.offset + merge.left_size, merge.right_size);
    const auto id_of = [&](std::string_view name) {
      const int32_t id = read_byte_level(name, bytes) ? vocabulary.find(bytes) : -1;
      if (id < 0) {
        fail(DSV_ERROR_INVALID_FILE,
             "{}[{}] names {}, which model.vocab does not have in bytes; use the tokenizer.json "
             "released with the model",
             where, rank, shown(name));
      }
      return id;
    };
    const int32_t left_id = id_of(left), right_id = id_of(right);
    const std::string_view both =
        std::string_view(file.names).substr(merge.offset, left.size() + right.size());
    merges.add(left_id, right_id, {static_cast<uint32_t>(rank), id_of(both)}, where);
  }
  return merges;
}

AddedTokens make_added(const TokenizerFile& file, bool normalized) {
  std::vector<AddedTokens::Token> tokens;
  for (const TokenizerFile::AddedToken& token : file.added) {
    if (token.normalized == normalized) tokens.push_back({token.content, token.id});
  }
  return AddedTokens(std::move(tokens));
}

Bpe make_bpe(const TokenizerFile& file, const std::string& path) {
  Vocabulary vocabulary = make_vocabulary(file, path);
  if (file.drops_nothing) {
    for (int b = 0; b < 256; ++b) {
      const char byte = static_cast<char>(b);
      if (vocabulary.find({&byte, 1}) < 0) {
        fail(DSV_ERROR_UNSUPPORTED,
             "{}: model.unk_token or byte_fallback with a vocabulary that lacks the byte {} is "
             "not built; use the tokenizer.json released with the model",
             shown(path), b);
      }
    }
  }
  Merges merges = make_merges(file, vocabulary, path);
  return Bpe(std::move(vocabulary), std::move(merges), file.ignore_merges);
}

}  // namespace

struct Tokenizer::State {
  State(TokenizerFile file, const std::string& path)
      : bpe(make_bpe(file, path)),
        added(make_added(file, false)),
        added_late(make_added(file, true)),
        splitter(std::move(file.patterns)),
        special(bpe.vocabulary().size()) {
    for (const TokenizerFile::AddedToken& token : file.added) special[token.id] = token.special;
  }

  Bpe bpe;
  AddedTokens added, added_late;  // the second only in what the first leave: those marked as normalized
  Splitter splitter;
  std::vector<bool> special;  // by id
};

namespace {

// Calls `rest` for what lies between the added tokens in `text`, and puts their ids between.
template <class Rest>
void cut_out(const AddedTokens& added, std::string_view text, std::vector<int32_t>& ids, const Rest& rest) {
  for (size_t at = 0; at < text.size();) {
    const AddedTokens::Found found = added.find_in(text, at);
    if (found.offset > at) rest(text.substr(at, found.offset - at));
    if (found.id >= 0) ids.push_back(found.id);
    at = found.offset + found.size;
  }
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<const State> state) : state_(std::move(state)) {}
Tokenizer::~Tokenizer() = default;

std::shared_ptr<const Tokenizer> Tokenizer::parse(std::string_view json, const std::string& path) {
  auto state = std::make_unique<const State>(read_tokenizer_file(json, path), path);
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(state)));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  if (text.size() > static_cast<size_t>(INT32_MAX)) {
    fail(DSV_ERROR_INVALID_ARGUMENT, "the text has {} bytes; at most {} are encoded at once", text.size(),
         INT32_MAX);
  }
  std::string repaired;
  if (!is_utf8(text)) {
    repaired = replace_invalid_utf8(text);
    text = repaired;
  }
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 4);
  std::string copy;
  Bpe::Scratch scratch;
  Splitter::Run run(state_->splitter, text.size());
  cut_out(state_->added, text, ids, [&](std::string_view part) {
    cut_out(state_->added_late, part, ids, [&](std::string_view rest) {
      run.split(with_known_code_points(rest, copy), [&](size_t offset, size_t size) {
        state_->bpe.encode(rest.substr(offset, size), scratch, ids);
      });
    });
  });
  return ids;
}

std::string_view Tokenizer::bytes(int32_t id) const { return state_->bpe.vocabulary().bytes(id); }

bool Tokenizer::has(int32_t id) const { return !bytes(id).empty(); }

bool Tokenizer::special(int32_t id) const { return has(id) && state_->special[id]; }

int32_t Tokenizer::find(std::string_view content) const {
  return std::max(state_->added.find(content), state_->added_late.find(content));
}

int32_t Tokenizer::size() const { return state_->bpe.vocabulary().size(); }

}  // namespace dsv
