#include "base/host.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <system_error>

#include "base/json.h"

namespace dsv {
namespace {

// Blocks from this size on get pages of their own: zero, given back at once, and backed by huge pages where
// the system allows it, which the KV pool and repacked weights profit from.
constexpr int64_t kLargeBlock = int64_t{4} << 20;
constexpr int64_t kHugePage = int64_t{2} << 20;

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

bool is_large(int64_t size, int64_t alignment) { return size >= kLargeBlock && alignment <= kHugePage; }

void* map_large(int64_t size) {
  const size_t bytes = static_cast<size_t>(round_up(size, kHugePage));
  const size_t slack = static_cast<size_t>(kHugePage);
  void* mapped = mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  // Trim to a huge page boundary.
  auto* begin = static_cast<unsigned char*>(mapped);
  const size_t head = (slack - reinterpret_cast<uintptr_t>(begin) % slack) % slack;
  if (head > 0) munmap(begin, head);
  if (head < slack) munmap(begin + head + bytes, slack - head);
  madvise(begin + head, bytes, MADV_HUGEPAGE);  // a hint: refusal costs speed only
  return begin + head;
}

class MappedFile final : public HostFile {
 public:
  MappedFile(const unsigned char* data, int64_t size) : data_(data), size_(size) {}
  ~MappedFile() override {
    if (size_ > 0) munmap(const_cast<unsigned char*>(data_), static_cast<size_t>(size_));
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  const unsigned char* data() const override { return data_; }
  int64_t size() const override { return size_; }
  void expect_sparse_reads(bool sparse) override {
    if (size_ == 0) return;
    madvise(const_cast<unsigned char*>(data_), static_cast<size_t>(size_),
            sparse ? MADV_RANDOM : MADV_NORMAL);
  }

 private:
  const unsigned char* data_;
  int64_t size_;
};

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

std::string reason(int error) { return std::generic_category().message(error); }

std::unique_ptr<HostFile> map_local(const std::string& path, bool missing_is_null) {
  if (path.find('\0') != std::string::npos) {
    fail(DSV_ERROR_INVALID_ARGUMENT, "the path {} contains a NUL byte", shown(path));
  }
  // O_NONBLOCK so that a FIFO is refused below and not waited for.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) {
    if (missing_is_null && (errno == ENOENT || errno == ENOTDIR)) return nullptr;
    fail(DSV_ERROR_IO, "{} cannot be opened ({}): check the path and its permissions", shown(path),
         reason(errno));
  }
  struct stat info {};
  if (fstat(file.get(), &info) != 0) {
    fail(DSV_ERROR_IO, "{} cannot be examined ({})", shown(path), reason(errno));
  }
  if (!S_ISREG(info.st_mode)) fail(DSV_ERROR_INVALID_FILE, "{} is not a regular file; give a file or a link to one", shown(path));
  const int64_t size = info.st_size;
  if (size == 0) return std::make_unique<MappedFile>(nullptr, 0);
  void* data = mmap(nullptr, static_cast<size_t>(size), PROT_READ, MAP_SHARED, file.get(), 0);
  if (data == MAP_FAILED) {
    fail(DSV_ERROR_IO, "{} ({} bytes) cannot be mapped ({})", shown(path), size, reason(errno));
  }
  return std::make_unique<MappedFile>(static_cast<const unsigned char*>(data), size);
}

class HookedFile final : public HostFile {
 public:
  HookedFile(const Host& host, void* file, int64_t size) : host_(host), file_(file), size_(size) {}
  ~HookedFile() override {
    if (copy_) host_.deallocate(copy_, size_, kAlignment);
    host_.hooks().file_close(host_.hooks().user, file_);
  }
  HookedFile(const HookedFile&) = delete;
  HookedFile& operator=(const HookedFile&) = delete;

  void make_readable(const std::string& path) {
    const dsv_hooks& hooks = host_.hooks();
    if (size_ == 0) return;
    if (hooks.file_map) data_ = static_cast<const unsigned char*>(hooks.file_map(hooks.user, file_));
    if (data_) return;
    copy_ = static_cast<unsigned char*>(host_.allocate(size_, kAlignment, path));
    constexpr int64_t kPiece = int64_t{64} << 20;
    for (int64_t at = 0; at < size_; at += kPiece) {
      const int64_t count = std::min(kPiece, size_ - at);
      if (hooks.file_read(hooks.user, file_, at, copy_ + at, count) != DSV_OK) {
        fail(DSV_ERROR_IO, "{} cannot be read: the file_read hook refused {} bytes at {}", shown(path), count,
             at);
      }
    }
    data_ = copy_;
  }
  const unsigned char* data() const override { return data_; }
  int64_t size() const override { return size_; }

 private:
  static constexpr int64_t kAlignment = 64;
  const Host& host_;
  void* file_;
  int64_t size_;
  const unsigned char* data_ = nullptr;
  unsigned char* copy_ = nullptr;  // owned, if the host cannot map
};

std::unique_ptr<HostFile> open_hooked(const Host& host, const std::string& path, bool missing_is_null) {
  const dsv_hooks& hooks = host.hooks();
  void* handle = nullptr;
  int64_t size = -1;
  const dsv_status status = hooks.file_open(hooks.user, path.c_str(), &handle, &size);
  if (status != DSV_OK) {
    if (missing_is_null) return nullptr;
    fail(DSV_ERROR_IO, "{} cannot be opened: the file_open hook refused it with {}", shown(path), status);
  }
  auto file = std::make_unique<HookedFile>(host, handle, std::max<int64_t>(size, 0));
  if (size < 0) {
    fail(DSV_ERROR_IO, "{}: the file_open hook gave no size; it must set *size to the file's bytes",
         shown(path));
  }
  file->make_readable(path);
  return file;
}

}  // namespace

Host::Host(const dsv_hooks* hooks) : hooks_{} {
  if (hooks) {
    // A host compiled against another header may know fewer or more hooks.
    std::memcpy(&hooks_, hooks, std::min<size_t>(hooks->struct_size, sizeof hooks_));
  }
  hooks_.struct_size = sizeof hooks_;
  if (!hooks_.allocate != !hooks_.deallocate) {
    fail(DSV_ERROR_INVALID_ARGUMENT, "the hooks allocate and deallocate must be given together");
  }
  const int files = (hooks_.file_open ? 1 : 0) + (hooks_.file_read ? 1 : 0) + (hooks_.file_close ? 1 : 0);
  if (files % 3 != 0 || (files == 0 && hooks_.file_map)) {
    fail(DSV_ERROR_INVALID_ARGUMENT, "the hooks file_open, file_read and file_close must be given together");
  }
}

void* Host::allocate(int64_t size, int64_t alignment, std::string_view what) const {
  // Rounding up must not overflow; no machine has a block of this size.
  constexpr int64_t kImpossible = int64_t{1} << 56;
  void* memory = nullptr;
  if (size >= 0 && size < kImpossible) {
    const int64_t bytes = std::max<int64_t>(size, 1);
    if (hooks_.allocate) {
      memory = hooks_.allocate(hooks_.user, bytes, alignment);
    } else if (is_large(bytes, alignment)) {
      memory = map_large(bytes);
    } else {
      const int64_t step = std::max<int64_t>(alignment, alignof(std::max_align_t));
      memory = std::aligned_alloc(static_cast<size_t>(step), static_cast<size_t>(round_up(bytes, step)));
    }
  }
  if (!memory) {
    fail(DSV_ERROR_OUT_OF_MEMORY, "no memory for {} ({} bytes): free memory or ask for less", shown(what),
         size);
  }
  return memory;
}

void Host::deallocate(void* memory, int64_t size, int64_t alignment) const noexcept {
  if (!memory) return;
  const int64_t bytes = std::max<int64_t>(size, 1);
  if (hooks_.deallocate) {
    hooks_.deallocate(hooks_.user, memory, bytes, alignment);
  } else if (is_large(bytes, alignment)) {
    munmap(memory, static_cast<size_t>(round_up(bytes, kHugePage)));
  } else {
    std::free(memory);
  }
}

std::unique_ptr<HostFile> Host::open(const std::string& path) const {
  return hooks_.file_open ? open_hooked(*this, path, false) : map_local(path, false);
}

std::unique_ptr<HostFile> Host::open_if_exists(const std::string& path) const {
  return hooks_.file_open ? open_hooked(*this, path, true) : map_local(path, true);
}

void Host::log_line(int32_t level, std::string_view line) const {
  hooks_.log(hooks_.user, level, line.data(), static_cast<int64_t>(line.size()));
}

}  // namespace dsv
