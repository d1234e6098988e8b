// A host that provides everything itself, and watches.
#pragma once

#include <atomic>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "tests/session/session_fixture.h"

namespace dsv::test {

// Files from memory, opened by a host that can be told to wait: a load that is certainly still running.
struct MemoryHost {
  std::map<std::string, std::string> files;
  std::mutex gate;
  std::atomic<int64_t> allocated{0}, allocations{0}, open_files{0}, jobs{0};
  std::atomic<int64_t> largest{INT64_MAX};  // larger blocks are refused
  std::atomic<bool> over{false};            // no hook may be called any more
  std::string log;                          // a newline after each line
  dsv_hooks hooks{};

  explicit MemoryHost(const std::string& folder) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      std::ifstream in(entry.path(), std::ios::binary);
      files["game/" + entry.path().filename().string()] = std::string(std::istreambuf_iterator<char>(in), {});
    }
    dsv_hooks_init(&hooks);
    hooks.user = this;
    hooks.allocate = [](void* self, int64_t size, int64_t alignment) -> void* {
      MemoryHost& host = of(self);
      EXPECT_GT(size, 0);
      EXPECT_TRUE(std::has_single_bit(static_cast<uint64_t>(alignment))) << alignment;
      if (size > host.largest) return nullptr;
      host.allocated += size;
      ++host.allocations;
      void* const memory =
          std::aligned_alloc(static_cast<size_t>(alignment),
                             static_cast<size_t>((size + alignment - 1) / alignment * alignment));
      const std::lock_guard lock(host.blocks_mutex_);
      host.blocks_[memory] = {size, alignment};
      return memory;
    };
    hooks.deallocate = [](void* self, void* memory, int64_t size, int64_t alignment) {
      MemoryHost& host = of(self);
      {
        const std::lock_guard lock(host.blocks_mutex_);
        const auto block = host.blocks_.extract(memory);
        EXPECT_TRUE(block && block.mapped() == std::pair(size, alignment)) << size << ", " << alignment;
      }
      host.allocated -= size;
      std::free(memory);
    };
    hooks.log = [](void* self, int32_t level, const char* text, int64_t size) {
      const std::string line(text, static_cast<size_t>(size));
      EXPECT_TRUE(level >= DSV_LOG_DEBUG && level <= DSV_LOG_ERROR);
      EXPECT_EQ(line.find('\n'), std::string::npos) << line;
      of(self).log += line + "\n";
    };
    hooks.file_open = [](void* self, const char* path, void** file, int64_t* size) -> dsv_status {
      const std::lock_guard wait(of(self).gate);
      const auto found = of(self).files.find(path);
      if (found == of(self).files.end()) return DSV_ERROR_IO;
      ++of(self).open_files;
      *file = &found->second;
      *size = static_cast<int64_t>(found->second.size());
      return DSV_OK;
    };
    hooks.file_read = [](void*, void* file, int64_t offset, void* out, int64_t size) -> dsv_status {
      std::memcpy(out, static_cast<std::string*>(file)->data() + offset, static_cast<size_t>(size));
      return DSV_OK;
    };
    hooks.file_close = [](void* self, void*) { --of(self).open_files; };
    hooks.run_jobs = [](void* self, void (*job)(void*, int32_t), void* argument, int32_t count) {
      of(self).jobs += count;
      for (int32_t i = count; i-- > 0;) job(argument, i);
    };
  }
  static MemoryHost& of(void* self) {
    auto& host = *static_cast<MemoryHost*>(self);
    EXPECT_FALSE(host.over) << "a hook was called after everything was gone";
    return host;
  }

 private:
  std::mutex blocks_mutex_;
  std::map<void*, std::pair<int64_t, int64_t>> blocks_;
};

}  // namespace dsv::test
