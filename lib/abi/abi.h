// What every C function is made of: handles, the one place that catches, struct sizes, strings out.
#pragma once

#include <dsv/dsv.h>

#include <atomic>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "session/engine.h"
#include "session/model.h"
#include "session/session.h"

namespace dsv::abi {

struct LiveHandles {
  std::atomic<int64_t> engines{0}, models{0}, sessions{0}, tokenizers{0};
};
inline LiveHandles live;

// Counts a handle for as long as the struct that holds this lives.
class Counted {
 public:
  explicit Counted(std::atomic<int64_t>& count) : count_(count) { ++count_; }
  ~Counted() { --count_; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  std::atomic<int64_t>& count_;
};

}  // namespace dsv::abi

struct dsv_engine {
  std::shared_ptr<dsv::Engine> engine;
  dsv::abi::Counted counted{dsv::abi::live.engines};
};
struct dsv_model {
  std::shared_ptr<dsv::Model> model;
  dsv::abi::Counted counted{dsv::abi::live.models};
};
struct dsv_session {
  std::shared_ptr<dsv::Session> session;
  dsv::abi::Counted counted{dsv::abi::live.sessions};
};
struct dsv_tokenizer {
  std::shared_ptr<const dsv::Tokenizer> tokenizer;
  dsv::abi::Counted counted{dsv::abi::live.tokenizers};
};

namespace dsv::abi {

// Keeps the sentence for this thread's dsv_error_message(); returns `status`.
dsv_status set_error(dsv_status status, std::string_view sentence) noexcept;

// Hands (status, sentence) of whatever is being handled to `report`. Inside a catch block only.
template <class F>
dsv_status translate(F&& report) noexcept {
  try {
    throw;
  } catch (const Error& error) {
    return report(error.status(), error.what());
  } catch (const std::bad_alloc&) {
    return report(DSV_ERROR_OUT_OF_MEMORY, "the C++ runtime has no memory left: free some and try again");
  } catch (const std::exception& error) {
    return report(DSV_ERROR_INTERNAL, error.what());
  } catch (...) {
    return report(DSV_ERROR_INTERNAL, "an exception of unknown type");
  }
}

// Runs `body` and turns what it throws into a status and the thread's sentence.
template <class F>
dsv_status guarded(F&& body) noexcept {
  try {
    body();
    return DSV_OK;
  } catch (...) {
    return translate([](dsv_status status, const char* sentence) { return set_error(status, sentence); });
  }
}

template <class T>
T& require(T* pointer, const char* argument) {
  if (!pointer) fail(DSV_ERROR_INVALID_ARGUMENT, "{} is NULL", argument);
  return *pointer;
}
inline int64_t require_size(int64_t size, const char* argument) {
  if (size < 0) fail(DSV_ERROR_INVALID_ARGUMENT, "{} is {}: give 0 or more", argument, size);
  return size;
}

// A struct's own idea of its size, from the header its host was compiled with.
template <class T>
size_t known_size(const T& given, const char* argument) {
  if (given.struct_size < sizeof given.struct_size) {
    fail(DSV_ERROR_INVALID_ARGUMENT,
         "{}->struct_size is {}: fill the struct with its _init function, or set "
         "struct_size to its sizeof",
         argument, given.struct_size);
  }
  return given.struct_size < sizeof(T) ? given.struct_size : sizeof(T);
}
// The options with defaults where the host's header did not know a field. NULL: all defaults.
template <class T>
T read_options(const T* given, T defaults, const char* argument) {
  if (given) std::memcpy(&defaults, given, known_size(*given, argument));
  defaults.struct_size = sizeof(T);
  return defaults;
}
// The defaults in a struct of the host's size. What only a newer header knows becomes zero, which is its
// default.
template <class T>
void init_options(T* out, uint32_t struct_size, T defaults) {
  if (!out || struct_size < sizeof struct_size) return;
  std::memset(static_cast<void*>(out), 0, struct_size);
  defaults.struct_size = struct_size;
  std::memcpy(static_cast<void*>(out), &defaults, struct_size < sizeof(T) ? struct_size : sizeof(T));
}
// Fills what the host's header knows of the struct; struct_size stays the host's.
template <class T>
void write_struct(T& out, T value, const char* argument) {
  const size_t size = known_size(out, argument);
  value.struct_size = out.struct_size;
  std::memcpy(&out, &value, size);
}

// The contract of strings and id lists out (dsv.h, STRINGS): what fits is copied, the full count goes to
// *size.
void check_out(const void* out, int64_t capacity, const int64_t* size);
void copy_text(std::string_view text, char* out, int64_t capacity, int64_t* size);
void copy_ids(const int32_t* ids, size_t count, int32_t* out, int64_t capacity, int64_t* size);

}  // namespace dsv::abi
