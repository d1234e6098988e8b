#include "memory/safetensors.h"

#include <algorithm>
#include <limits>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "base/json.h"

namespace dsv {
namespace {

using nlohmann::json;

constexpr int64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr size_t kMaxDims = 8;
constexpr std::string_view kRemedy = "; the file is damaged: download it again, or write it anew";

// Bits of one value; 0 for a dtype this file does not know (its tensors are then checked by offsets only).
int64_t dtype_bits(std::string_view dtype) {
  if (dtype == "BOOL" || dtype == "U8" || dtype == "I8") return 8;
  if (dtype == "F8_E4M3" || dtype == "F8_E5M2" || dtype == "F8_E8M0") return 8;
  if (dtype == "F16" || dtype == "BF16" || dtype == "I16" || dtype == "U16") return 16;
  if (dtype == "F32" || dtype == "I32" || dtype == "U32") return 32;
  if (dtype == "F64" || dtype == "I64" || dtype == "U64") return 64;
  return 0;
}

// {"tensor": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}, ..., "__metadata__": {"k": "v"}}
// read value by value, so that memory stays in proportion to the tensors and nesting is bounded by the form.
class HeaderReader final : public nlohmann::json_sax<json> {
 public:
  explicit HeaderReader(std::string_view file) : file_(file) {}

  std::vector<SafetensorsEntry> take() { return std::move(entries_); }

  bool start_object(std::size_t) override {
    switch (state_) {
      case State::start:
        state_ = State::names;
        return true;
      case State::tensor_value:
        fields_seen_ = 0;
        state_ = State::fields;
        return true;
      case State::metadata_value:
        state_ = State::metadata;
        return true;
      default:
        unexpected("an object");
    }
  }
  bool key(string_t& name) override {
    switch (state_) {
      case State::names:
        if (name == "__metadata__") {
          state_ = State::metadata_value;
        } else {
          if (!names_.insert(name).second) {
            fail(DSV_ERROR_INVALID_FILE, "{}: the tensor {} stands twice in the header{}", shown(file_),
                 shown(name), kRemedy);
          }
          entries_.emplace_back().name = name;
          state_ = State::tensor_value;
        }
        return true;
      case State::fields:
        return field(name);
      case State::metadata:
        return true;
      default:
        unexpected("a key");
    }
  }
  bool end_object() override {
    if (state_ == State::fields) {
      if (fields_seen_ != (kDtype | kShape | kOffsets)) {
        fail(DSV_ERROR_INVALID_FILE, "{}: the tensor {} lacks dtype, shape or data_offsets{}", shown(file_),
             shown(entries_.back().name), kRemedy);
      }
      state_ = State::names;
    } else {
      state_ = state_ == State::metadata ? State::names : State::end;
    }
    return true;
  }
  bool start_array(std::size_t) override {
    if (state_ == State::shape_value) {
      state_ = State::shape;
    } else if (state_ == State::offsets_value) {
      offset_count_ = 0;
      state_ = State::offsets;
    } else {
      unexpected("an array");
    }
    return true;
  }
  bool end_array() override {
    if (state_ == State::offsets && offset_count_ != 2) {
      fail(DSV_ERROR_INVALID_FILE, "{}: data_offsets of {} is not [begin, end]{}", shown(file_),
           shown(entries_.back().name), kRemedy);
    }
    state_ = State::fields;
    return true;
  }
  bool string(string_t& value) override {
    if (state_ == State::metadata) return true;
    if (state_ != State::dtype_value) unexpected("a string");
    entries_.back().dtype = value;
    state_ = State::fields;
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<number_unsigned_t>(std::numeric_limits<int64_t>::max())) {
      unexpected("a number beyond 2^63");
    }
    SafetensorsEntry* entry = entries_.empty() ? nullptr : &entries_.back();
    if (state_ == State::shape) {
      if (entry->shape.size() == kMaxDims) {
        fail(DSV_ERROR_INVALID_FILE, "{}: the tensor {} has more than {} dimensions{}", shown(file_),
             shown(entry->name), kMaxDims, kRemedy);
      }
      entry->shape.push_back(static_cast<int64_t>(value));
    } else if (state_ == State::offsets && offset_count_ < 2) {
      // `bytes` holds the end until the header is complete.
      (offset_count_++ == 0 ? entry->offset : entry->bytes) = static_cast<int64_t>(value);
    } else {
      unexpected("a number");
    }
    return true;
  }
  bool null() override { unexpected("null"); }
  bool boolean(bool) override { unexpected("true or false"); }
  bool number_integer(number_integer_t) override { unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { unexpected("a number that is not whole"); }
  bool binary(binary_t&) override { return false; }  // JSON text has none
  bool parse_error(std::size_t position, const std::string&, const json::exception&) override {
    fail(DSV_ERROR_INVALID_FILE, "{}: the header is not valid JSON (byte {} of it){}", shown(file_), position,
         kRemedy);
  }

 private:
  enum class State {
    start,
    names,
    tensor_value,
    fields,
    dtype_value,
    shape_value,
    shape,
    offsets_value,
    offsets,
    metadata_value,
    metadata,
    end
  };
  static constexpr int kDtype = 1, kShape = 2, kOffsets = 4;

  bool field(const std::string& name) {
    int bit = 0;
    if (name == "dtype") {
      bit = kDtype;
      state_ = State::dtype_value;
    } else if (name == "shape") {
      bit = kShape;
      state_ = State::shape_value;
    } else if (name == "data_offsets") {
      bit = kOffsets;
      state_ = State::offsets_value;
    }
    if (bit == 0 || (fields_seen_ & bit)) {
      fail(DSV_ERROR_INVALID_FILE, "{}: the tensor {} has an unknown or repeated field {}{}", shown(file_),
           shown(entries_.back().name), shown(name), kRemedy);
    }
    fields_seen_ |= bit;
    return true;
  }
  [[noreturn]] void unexpected(std::string_view what) {
    if (entries_.empty()) {
      fail(DSV_ERROR_INVALID_FILE, "{}: the header holds {} where an object of tensors is expected{}",
           shown(file_), what, kRemedy);
    }
    fail(DSV_ERROR_INVALID_FILE, "{}: the header holds {} where it cannot stand, at or after the tensor {}{}",
         shown(file_), what, shown(entries_.back().name), kRemedy);
  }

  std::string_view file_;
  std::vector<SafetensorsEntry> entries_;
  std::unordered_set<std::string> names_;
  State state_ = State::start;
  int fields_seen_ = 0;
  int offset_count_ = 0;
};

// Bytes that dtype and shape ask for; -1 if no file can hold as many.
int64_t bytes_of(int64_t bits, const std::vector<int64_t>& shape) {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  int64_t bytes = bits / 8;
  for (const int64_t size : shape) {
    if (__builtin_mul_overflow(bytes, size, &bytes)) return -1;
  }
  return bytes;
}

}  // namespace

std::vector<SafetensorsEntry> parse_safetensors(const unsigned char* data, int64_t size,
                                                std::string_view file) {
  if (size < 8) {
    fail(DSV_ERROR_INVALID_FILE, "{} has {} bytes and cannot be a safetensors file; download it again",
         shown(file), size);
  }
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | data[i];
  if (length > static_cast<uint64_t>(kMaxHeaderBytes)) {
    fail(DSV_ERROR_INVALID_FILE,
         "{}: a header of {} bytes is more than safetensors allows; is it another format?", shown(file),
         length);
  }
  const int64_t header_bytes = static_cast<int64_t>(length);
  if (header_bytes > size - 8) {
    fail(DSV_ERROR_INVALID_FILE, "{} is truncated: its header has {} bytes, the file {}; download it again",
         shown(file), header_bytes, size);
  }
  HeaderReader reader(file);
  json::sax_parse(data + 8, data + 8 + header_bytes, &reader);
  std::vector<SafetensorsEntry> entries = reader.take();

  const int64_t data_bytes = size - 8 - header_bytes;
  for (SafetensorsEntry& entry : entries) {
    const int64_t end = entry.bytes;
    if (entry.offset > end) {
      fail(DSV_ERROR_INVALID_FILE, "{}: data_offsets of the tensor {} end before they begin{}", shown(file),
           shown(entry.name), kRemedy);
    }
    if (end > data_bytes) {
      fail(DSV_ERROR_INVALID_FILE,
           "{}: the tensor {} ends at byte {} of the data, which has {}: the file is truncated; download it "
           "again",
           shown(file), shown(entry.name), end, data_bytes);
    }
    entry.bytes = end - entry.offset;
    const int64_t bits = dtype_bits(entry.dtype);
    if (bits > 0 && bytes_of(bits, entry.shape) != entry.bytes) {
      fail(DSV_ERROR_INVALID_FILE,
           "{}: the tensor {} has {} bytes, which is not what its shape [{}] in {} takes{}", shown(file),
           shown(entry.name), entry.bytes, fmt::join(entry.shape, ", "), shown(entry.dtype), kRemedy);
    }
    entry.offset += 8 + header_bytes;
  }

  // Empty tensors share an offset with their successor and go first.
  std::sort(entries.begin(), entries.end(), [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.bytes < b.bytes;
  });
  int64_t at = 8 + header_bytes;
  std::string_view previous = "the header";
  for (const SafetensorsEntry& entry : entries) {
    if (entry.offset != at) {
      fail(DSV_ERROR_INVALID_FILE, "{}: the tensor {} {} {}{}", shown(file), shown(entry.name),
           entry.offset < at ? "overlaps" : "leaves a gap after", shown(previous), kRemedy);
    }
    at += entry.bytes;
    previous = entry.name;
  }
  if (at != size) {
    fail(DSV_ERROR_INVALID_FILE, "{}: {} bytes after the last tensor belong to none{}", shown(file),
         size - at, kRemedy);
  }
  return entries;
}

}  // namespace dsv
