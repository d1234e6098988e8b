// What libdsv_cuda.so exports.
#include "backend/library.h"

#include <dsv/dsv.h>

#include "kernels/cuda/device.h"

// Outside the namespaces: libdsv looks it up by name.
extern "C" __attribute__((visibility("default"))) const dsv::BackendLibrary* dsv_backend_library() {
  static const dsv::BackendLibrary library = {sizeof(dsv::BackendLibrary), DSV_ABI_VERSION,
                                              DSV_BACKEND_BUILD_ID, &dsv::cuda_ops(),
                                              dsv::cuda::check_device};
  return &library;
}
