#include "backend/library.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstring>
#include <mutex>
#include <string>

#include "base/error.h"

namespace dsv {
namespace {

constexpr const char* kCudaFile = "libdsv_cuda.so";

// "/usr/lib/" for /usr/lib/libdsv.so.0: of the file this code is in, library or program.
std::string own_folder() {
  Dl_info info;
  if (dladdr(reinterpret_cast<const void*>(&open_backend_library), &info) == 0 || !info.dli_fname) return "";
  const std::string path = info.dli_fname;
  return path.substr(0, path.rfind('/') + 1);
}

const BackendLibrary& find_cuda_library() {
  const std::string folder = own_folder();
  for (const std::string& path : {folder + kCudaFile, folder + "../lib/" + kCudaFile}) {
    if (access(path.c_str(), F_OK) == 0) return open_backend_library(path.c_str());
  }
  return open_backend_library(kCudaFile);
}

}  // namespace

const BackendLibrary& open_backend_library(const char* path) {
  void* const handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const char* const why = dlerror();
    fail(DSV_ERROR_UNSUPPORTED,
         "the backend's library cannot be opened ({}): install dsv with CUDA, so that {} lies beside libdsv, "
         "or use "
         "the cpu backend",
         why ? why : path, kCudaFile);
  }
  auto* const get = reinterpret_cast<GetBackendLibrary*>(dlsym(handle, kGetBackendLibrary));
  const BackendLibrary* const library = get ? get() : nullptr;
  if (!library || library->struct_size != sizeof(BackendLibrary) || library->abi != DSV_ABI_VERSION ||
      std::strcmp(library->build_id, DSV_BACKEND_BUILD_ID) != 0) {
    fail(DSV_ERROR_UNSUPPORTED,
         "{} is not of the same build as libdsv: install both from one package or build", path);
  }
  return *library;
}

const BackendLibrary& cuda_library() {
  static std::mutex mutex;
  static const BackendLibrary* library = nullptr;  // a failure is tried again: the remedy may have been taken
  const std::lock_guard lock(mutex);
  if (!library) library = &find_cuda_library();
  return *library;
}

}  // namespace dsv
