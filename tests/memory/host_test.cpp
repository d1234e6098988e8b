#include "base/host.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <map>

#include "tests/support/checkpoint_writer.h"

namespace dsv {
namespace {

using testing::HasSubstr;

template <class F>
Error error_of(F&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error";
  return Error(DSV_OK, "");
}

TEST(Host, GivesAlignedBlocksOfAnySize) {
  const Host host(nullptr);
  for (const int64_t size :
       {int64_t{0}, int64_t{1}, int64_t{100}, int64_t{4} << 20, (int64_t{9} << 20) + 1}) {
    for (const int64_t alignment : {8, 64, 4096}) {
      void* block = host.allocate(size, alignment, "a test");
      ASSERT_NE(block, nullptr);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(block) % static_cast<uintptr_t>(alignment), 0u);
      std::memset(block, 1, static_cast<size_t>(size));
      host.deallocate(block, size, alignment);
    }
  }
  host.deallocate(nullptr, 0, 8);
}

TEST(Host, SaysWhatDidNotFit) {
  const Host host(nullptr);
  for (const int64_t size : {int64_t{-1}, int64_t{1} << 55, INT64_MAX}) {
    const Error error = error_of([&] { host.allocate(size, 64, "the KV pool"); });
    EXPECT_EQ(error.status(), DSV_ERROR_OUT_OF_MEMORY);
    EXPECT_THAT(error.what(), HasSubstr("the KV pool"));
  }
}

TEST(Host, RefusesHalfGroupsOfHooks) {
  dsv_hooks hooks{};
  hooks.struct_size = sizeof hooks;
  hooks.allocate = [](void*, int64_t, int64_t) -> void* { return nullptr; };
  EXPECT_EQ(error_of([&] { Host host(&hooks); }).status(), DSV_ERROR_INVALID_ARGUMENT);
  hooks = {};
  hooks.struct_size = sizeof hooks;
  hooks.file_close = [](void*, void*) {};
  EXPECT_EQ(error_of([&] { Host host(&hooks); }).status(), DSV_ERROR_INVALID_ARGUMENT);
}

TEST(Host, OpensRegularFilesOnly) {
  const Host host(nullptr);
  const test::TempFolder folder;
  test::write_file(folder.file("a"), "hello");
  test::write_file(folder.file("empty"), "");
  const auto file = host.open(folder.file("a"));
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(file->data()), static_cast<size_t>(file->size())),
            "hello");
  EXPECT_EQ(host.open(folder.file("empty"))->size(), 0);

  ASSERT_EQ(mkfifo(folder.file("fifo").c_str(), 0600), 0);
  EXPECT_EQ(error_of([&] { host.open(folder.file("fifo")); }).status(), DSV_ERROR_INVALID_FILE);
  EXPECT_EQ(error_of([&] { host.open(folder.path()); }).status(), DSV_ERROR_INVALID_FILE);
  const Error missing = error_of([&] { host.open(folder.file("missing")); });
  EXPECT_EQ(missing.status(), DSV_ERROR_IO);
  EXPECT_THAT(missing.what(), HasSubstr("missing'"));
  EXPECT_EQ(error_of([&] { host.open(std::string("a\0b", 3)); }).status(), DSV_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(host.open_if_exists(folder.file("missing")), nullptr);
  EXPECT_NE(host.open_if_exists(folder.file("a")), nullptr);
}

// An archive in memory, as a game might have.
struct Archive {
  std::map<std::string, std::string> files;
  bool maps = false, fails_to_read = false;
  int open = 0, blocks = 0;

  dsv_hooks hooks() {
    dsv_hooks h{};
    h.struct_size = sizeof h;
    h.user = this;
    h.allocate = [](void* user, int64_t size, int64_t alignment) {
      ++static_cast<Archive*>(user)->blocks;
      return std::aligned_alloc(static_cast<size_t>(alignment),
                                static_cast<size_t>((size + alignment - 1) / alignment * alignment));
    };
    h.deallocate = [](void* user, void* memory, int64_t, int64_t) {
      --static_cast<Archive*>(user)->blocks;
      std::free(memory);
    };
    h.file_open = [](void* user, const char* path, void** file, int64_t* size) -> dsv_status {
      auto* self = static_cast<Archive*>(user);
      const auto at = self->files.find(path);
      if (at == self->files.end()) return DSV_ERROR_IO;
      ++self->open;
      *file = &at->second;
      *size = static_cast<int64_t>(at->second.size());
      return DSV_OK;
    };
    h.file_map = [](void* user, void* file) -> const void* {
      return static_cast<Archive*>(user)->maps ? static_cast<std::string*>(file)->data() : nullptr;
    };
    h.file_read = [](void* user, void* file, int64_t offset, void* out, int64_t size) -> dsv_status {
      if (static_cast<Archive*>(user)->fails_to_read) return DSV_ERROR_IO;
      std::memcpy(out, static_cast<std::string*>(file)->data() + offset, static_cast<size_t>(size));
      return DSV_OK;
    };
    h.file_close = [](void* user, void*) { --static_cast<Archive*>(user)->open; };
    return h;
  }
};

TEST(Host, ReadsOrMapsThroughHooks) {
  for (const bool maps : {false, true}) {
    Archive archive;
    archive.maps = maps;
    archive.files["pak/a"] = "hello";
    archive.files["pak/empty"] = "";
    const dsv_hooks hooks = archive.hooks();
    const Host host(&hooks);
    {
      const auto file = host.open("pak/a");
      EXPECT_EQ(std::string(reinterpret_cast<const char*>(file->data()), 5), "hello");
      EXPECT_EQ(archive.open, 1);
      EXPECT_EQ(archive.blocks, maps ? 0 : 1);
      EXPECT_EQ(host.open("pak/empty")->size(), 0);
    }
    EXPECT_EQ(host.open_if_exists("pak/b"), nullptr);
    EXPECT_EQ(error_of([&] { host.open("pak/b"); }).status(), DSV_ERROR_IO);
    archive.fails_to_read = true;
    if (!maps) {
      EXPECT_EQ(error_of([&] { host.open("pak/a"); }).status(), DSV_ERROR_IO);
    }
    EXPECT_EQ(archive.open, 0);
    EXPECT_EQ(archive.blocks, 0);
  }
}

TEST(Host, LogsOnlyThroughTheHook) {
  const Host silent(nullptr);
  silent.log(DSV_LOG_INFO, "{}", 1);
  std::string line;
  dsv_hooks hooks{};
  hooks.struct_size = sizeof hooks;
  hooks.user = &line;
  hooks.log = [](void* user, int32_t, const char* text, int64_t size) {
    static_cast<std::string*>(user)->assign(text, static_cast<size_t>(size));
  };
  const Host host(&hooks);
  host.log(DSV_LOG_INFO, "layer {}", 7);
  EXPECT_EQ(line, "layer 7");
}

}  // namespace
}  // namespace dsv
