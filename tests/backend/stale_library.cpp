// A backend's library of another build.
#include <dsv/dsv.h>

#include "backend/library.h"

extern "C" __attribute__((visibility("default"))) const dsv::BackendLibrary* dsv_backend_library() {
  static const dsv::BackendLibrary library = {sizeof(dsv::BackendLibrary), DSV_ABI_VERSION, "another",
                                              nullptr, nullptr};
  return &library;
}
