#include "text/vocabulary.h"

#include <algorithm>
#include <array>
#include <bit>
#include <functional>

#include "base/error.h"
#include "base/json.h"
#include "text/utf8.h"

namespace dsv {
namespace {

// Honest tokens share a slot with a handful of others.
constexpr int32_t kMaxProbes = 1000;

// The byte that each character below U+0144 stands for, or -1.
constexpr std::array<int16_t, 0x144> byte_of_character() {
  std::array<int16_t, 0x144> byte{};
  byte.fill(-1);
  int next = 0x100;
  for (int16_t b = 0; b < 256; ++b) {
    const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b != 0xAD);
    byte[printable ? b : next++] = b;
  }
  return byte;
}
constexpr auto kByteOfCharacter = byte_of_character();

}  // namespace

bool read_byte_level(std::string_view written, std::string& bytes) {
  bytes.clear();
  while (!written.empty()) {
    const CodePoint first = first_code_point(written);
    if (first.value >= kByteOfCharacter.size() || kByteOfCharacter[first.value] < 0) return false;
    bytes += static_cast<char>(kByteOfCharacter[first.value]);
    written.remove_prefix(first.size);
  }
  return true;
}

Vocabulary::Vocabulary(size_t count) : slots_(std::bit_ceil(2 * count + 2)) {}

size_t Vocabulary::hash_of(std::string_view bytes) { return std::hash<std::string_view>()(bytes); }

void Vocabulary::add(int32_t id, std::string_view bytes, bool of_text, std::string_view where) {
  if (of_text) {
    const size_t hash = hash_of(bytes);
    size_t slot = hash & (slots_.size() - 1);
    for (int32_t probes = 0; slots_[slot].id >= 0; slot = (slot + 1) & (slots_.size() - 1)) {
      if (this->bytes(slots_[slot].id) == bytes) {
        fail(DSV_ERROR_INVALID_FILE, "{} has the token {} twice (ids {} and {}); remove one", where,
             shown(replace_invalid_utf8(bytes)), slots_[slot].id, id);
      }
      if (++probes > kMaxProbes) {
        fail(DSV_ERROR_INVALID_FILE,
             "{} has tokens made to collide in a hash table; is the file from its author?", where);
      }
    }
    slots_[slot] = {static_cast<uint32_t>(hash >> 32), id};
    longest_ = std::max(longest_, bytes.size());
  }
  if (id >= size()) spans_.resize(id + 1);
  spans_[id] = {static_cast<uint32_t>(pool_.size()), static_cast<uint32_t>(bytes.size())};
  pool_ += bytes;
}

int32_t Vocabulary::find(std::string_view bytes) const {
  if (bytes.size() > longest_) return -1;
  const size_t hash = hash_of(bytes);
  const auto tag = static_cast<uint32_t>(hash >> 32);
  size_t slot = hash & (slots_.size() - 1);
  while (slots_[slot].id >= 0 && !(slots_[slot].hash == tag && this->bytes(slots_[slot].id) == bytes)) {
    slot = (slot + 1) & (slots_.size() - 1);
  }
  return slots_[slot].id;
}

std::string_view Vocabulary::bytes(int32_t id) const {
  if (id < 0 || id >= size()) return {};
  return std::string_view(pool_).substr(spans_[id].offset, spans_[id].size);
}

}  // namespace dsv
