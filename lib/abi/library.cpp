// Versions, features, errors: what belongs to no handle.
#include "backend/library.h"

#include <algorithm>
#include <array>

#include "abi/abi.h"
#include "session/utf8.h"

namespace dsv::abi {
namespace {

// A plain array: setting it cannot fail, and it has no destructor that could run before a last call.
thread_local char error_sentence[2048] = "";

bool lists(std::string_view words, std::string_view word) {
  for (size_t at = 0; at < words.size();) {
    const size_t end = std::min(words.find(' ', at), words.size());
    if (words.substr(at, end - at) == word) return true;
    at = end + 1;
  }
  return false;
}

bool has_cuda() noexcept {
  try {
    cuda_library().check("");
    return true;
  } catch (...) {
    return false;
  }
}

}  // namespace

dsv_status set_error(dsv_status status, std::string_view sentence) noexcept {
  const std::string_view kept = dsv::whole_code_points(sentence, sizeof error_sentence - 1);
  std::memmove(error_sentence, kept.data(), kept.size());
  error_sentence[kept.size()] = '\0';
  return status;
}

void check_out(const void* out, int64_t capacity, const int64_t* size) {
  require_size(capacity, "capacity");
  require(size, "the pointer that receives the size");
  if (capacity > 0 && !out)
    fail(DSV_ERROR_INVALID_ARGUMENT, "the buffer is NULL but its capacity is {}", capacity);
}

void copy_text(std::string_view text, char* out, int64_t capacity, int64_t* size) {
  check_out(out, capacity, size);
  *size = static_cast<int64_t>(text.size());
  if (capacity == 0) return;
  std::memcpy(out, text.data(), static_cast<size_t>(std::min(capacity, *size)));
  if (capacity > *size) out[*size] = '\0';
  if (capacity < *size) {
    fail(DSV_ERROR_BUFFER_TOO_SMALL, "the buffer has {} bytes and {} are needed", capacity, *size);
  }
}

void copy_ids(const int32_t* ids, size_t count, int32_t* out, int64_t capacity, int64_t* size) {
  check_out(out, capacity, size);
  *size = static_cast<int64_t>(count);
  std::copy_n(ids, std::min(capacity, *size), out);
  if (capacity > 0 && capacity < *size) {
    fail(DSV_ERROR_BUFFER_TOO_SMALL, "the buffer has room for {} ids and {} are needed", capacity, *size);
  }
}

}  // namespace dsv::abi

using namespace dsv::abi;

extern "C" {

const char* dsv_status_name(dsv_status status) {
  switch (status) {
#define DSV_NAME(name) \
  case name:           \
    return #name
    DSV_NAME(DSV_OK);
    DSV_NAME(DSV_ERROR_INVALID_ARGUMENT);
    DSV_NAME(DSV_ERROR_BUSY);
    DSV_NAME(DSV_ERROR_NOT_READY);
    DSV_NAME(DSV_ERROR_BUFFER_TOO_SMALL);
    DSV_NAME(DSV_ERROR_INVALID_FILE);
    DSV_NAME(DSV_ERROR_IO);
    DSV_NAME(DSV_ERROR_UNSUPPORTED);
    DSV_NAME(DSV_ERROR_OUT_OF_MEMORY);
    DSV_NAME(DSV_ERROR_BUDGET);
    DSV_NAME(DSV_ERROR_CANCELLED);
    DSV_NAME(DSV_ERROR_DEVICE_LOST);
    DSV_NAME(DSV_ERROR_INTERNAL);
#undef DSV_NAME
    default:
      return "DSV_ERROR_UNKNOWN";
  }
}

const char* dsv_error_message(void) { return error_sentence; }

int32_t dsv_version(void) {
  return DSV_VERSION_MAJOR * 1000000 + DSV_VERSION_MINOR * 1000 + DSV_VERSION_PATCH;
}
int32_t dsv_abi_version(void) { return DSV_ABI_VERSION; }

const char* dsv_cpu_targets(void) { return dsv::cpu_targets(); }

const char* dsv_build_info(void) {
#if defined(__clang__)
#define DSV_COMPILER "clang " __clang_version__
#else
#define DSV_COMPILER "gcc " __VERSION__
#endif
  // An array, because asking must not fail for want of memory, nor leave anything to be done at exit.
  static const std::array<char, 512> line = [] {
    std::array<char, 512> text{};
    fmt::format_to_n(text.data(), text.size() - 1, "dsv {}, {}, {}, CPU targets: {}", DSV_PROJECT_VERSION,
                     DSV_COMPILER, DSV_BUILD_TYPE, dsv::cpu_targets());
    return text;
  }();
  return line.data();
}

int32_t dsv_has_feature(const char* name) {
  if (!name) return 0;
  const std::string_view feature = name;
  if (feature.starts_with("cpu.")) return lists(dsv::cpu_targets(), feature.substr(4));
  if (feature == "backend.cuda") return has_cuda();
  return lists("backend.cpu backend.reference mtp", feature);
}

dsv_status dsv_live_handles(dsv_handle_counts* counts) {
  return guarded([&] {
    dsv_handle_counts now{};
    now.engines = live.engines;
    now.models = live.models;
    now.sessions = live.sessions;
    now.tokenizers = live.tokenizers;
    write_struct(require(counts, "counts"), now, "counts");
  });
}

}  // extern "C"
