// What the embedding program provides: memory, log, files, jobs. Built from dsv_hooks with the library's own
// as default.
#pragma once

#include <dsv/dsv.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "base/error.h"

namespace dsv {

// An open file: mapped if the host can, else read into host memory. The bytes stay valid until it is
// destroyed.
class HostFile {
 public:
  virtual ~HostFile() = default;
  virtual const unsigned char* data() const = 0;  // not aligned in any way; null only if size() is 0
  virtual int64_t size() const = 0;
  // While true, reading a few bytes here and there does not fetch their surroundings from the disk. A hint;
  // starts as false.
  virtual void expect_sparse_reads(bool) {}
};

// Thread-safe; outlives everything made through it.
class Host {
 public:
  explicit Host(
      const dsv_hooks* hooks);  // null: all defaults. Throws INVALID_ARGUMENT for half-given groups.

  // Throws DSV_ERROR_OUT_OF_MEMORY naming `what` and the size. Memory is zero-filled lazily by the OS by
  // default, but not by hooks: callers must not rely on its content.
  void* allocate(int64_t size, int64_t alignment, std::string_view what) const;
  void deallocate(void* memory, int64_t size, int64_t alignment) const noexcept;

  template <class... Args>
  void log(int32_t level, fmt::format_string<Args...> format, Args&&... args) const {
    if (hooks_.log) log_line(level, fmt::format(format, std::forward<Args>(args)...));
  }

  // Throws DSV_ERROR_IO / INVALID_FILE naming the path. Regular files only. A mapped file must not be
  // shortened by others while it is open: reading what is gone raises SIGBUS, as with any mmap.
  std::unique_ptr<HostFile> open(const std::string& path) const;
  // The same, but null if there is no such file (with file hooks: if file_open refuses).
  std::unique_ptr<HostFile> open_if_exists(const std::string& path) const;

  const dsv_hooks& hooks() const { return hooks_; }  // run_jobs is used by the engine

 private:
  void log_line(int32_t level, std::string_view line) const;
  dsv_hooks hooks_;
};

// Memory from the host for what is too large to be bookkeeping. Its content is undefined until written.
template <class T>
class HostArray {
  static_assert(std::is_trivial_v<T>);

 public:
  HostArray() = default;
  HostArray(const Host& host, int64_t count, std::string_view what)
      : host_(&host), bytes_(count * static_cast<int64_t>(sizeof(T))) {
    data_ = static_cast<T*>(host.allocate(bytes_, kAlignment, what));
  }
  HostArray(HostArray&& other) noexcept { *this = std::move(other); }
  HostArray& operator=(HostArray&& other) noexcept {
    std::swap(host_, other.host_);
    std::swap(bytes_, other.bytes_);
    std::swap(data_, other.data_);
    return *this;
  }
  ~HostArray() {
    if (host_) host_->deallocate(data_, bytes_, kAlignment);
  }

  T* data() const { return data_; }

 private:
  static constexpr int64_t kAlignment = 64;
  const Host* host_ = nullptr;
  int64_t bytes_ = 0;
  T* data_ = nullptr;
};

}  // namespace dsv
