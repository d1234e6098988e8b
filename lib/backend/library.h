// Backends that are shared libraries of their own, opened when a program asks for them: so libdsv loads where
// their drivers are not.
#pragma once

#include <cstdint>
#include <string_view>

#include "backend/ops.h"

namespace dsv {

// What such a library exports, as dsv_backend_library(). The first three are checked before anything else is
// read: a library of another build may have other structs behind the table's pointers.
struct BackendLibrary {
  int64_t struct_size;   // sizeof(BackendLibrary)
  int64_t abi;           // DSV_ABI_VERSION
  const char* build_id;  // equal builds of the op table's headers
  const OpTable* ops;
  // Throws dsv::Error if `device` (a number as text; "" is the first) cannot be used on this machine, with a
  // sentence that names the remedy. Any thread.
  void (*check)(const char* device);
};
using GetBackendLibrary = const BackendLibrary*();
inline constexpr const char* kGetBackendLibrary = "dsv_backend_library";

// The CUDA backend, from libdsv_cuda.so: in the folder of this library (or program), in ../lib beside it, or
// where the dynamic loader looks. Opened once and never closed. Throws UNSUPPORTED if it cannot be opened or
// is of another build. Any thread.
const BackendLibrary& cuda_library();

// The same from one file; for tests.
const BackendLibrary& open_backend_library(const char* path);

}  // namespace dsv
