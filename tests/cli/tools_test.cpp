#include "samples/cli/tools.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace cli {
namespace {

namespace fs = std::filesystem;
using testing::MatchesRegex;
using testing::StartsWith;

class ToolsTest : public testing::Test {
 protected:
  ToolsTest() {
    root_ = fs::path(testing::TempDir()) / ("dsv-tools-" + std::to_string(getpid()));
    fs::create_directories(root_ / "inside" / "sub");
    write("secret.txt", "secret");
    write("inside/notes.txt", "milk\nthe key is red\nbread\n");
    write("inside/sub/deep.txt", "deep");
    write("inside/binary", std::string("\xFF\xFE\x00", 3));
    write("inside/large.txt", std::string(100'000, 'x'));
    fs::create_symlink("../secret.txt", root_ / "inside" / "link.txt");
    fs::create_symlink("..", root_ / "inside" / "up");
    fs::create_symlink("/", root_ / "inside" / "slash");
    fs::create_symlink("sub", root_ / "inside" / "within");
    mkfifo((root_ / "inside" / "fifo").c_str(), 0600);
  }
  ~ToolsTest() override { fs::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    std::ofstream(root_ / path, std::ios::binary) << text;
  }
  std::string call(const std::string& name, const nlohmann::json& arguments) {
    return LocalTools((root_ / "inside").string()).call(name, arguments.dump());
  }

  fs::path root_;
};

TEST_F(ToolsTest, ReadsListsAndFinds) {
  EXPECT_EQ(call("list_files", {{"path", "."}}), "binary\nlarge.txt\nnotes.txt\nsub/");
  EXPECT_EQ(call("list_files", {{"path", "sub/"}}), "deep.txt");
  EXPECT_EQ(call("read_file", {{"path", "./sub//deep.txt"}}), "deep");
  EXPECT_EQ(call("find_in_file", {{"path", "notes.txt"}, {"text", "key"}}), "2: the key is red");
  EXPECT_EQ(call("find_in_file", {{"path", "notes.txt"}, {"text", "gold"}}), "no match");
  fs::create_directory(root_ / "inside" / "empty");
  EXPECT_EQ(call("list_files", {{"path", "empty"}}), "(empty)");
}

TEST_F(ToolsTest, HasNoWayOut) {
  for (const std::string path :
       {"../secret.txt", "sub/../../secret.txt", "sub/../notes.txt", "..", "link.txt", "up/secret.txt", "up",
        "slash/etc/passwd", "/etc/passwd", "within/deep.txt", "", "./..", "sub/..", "//etc/passwd"}) {
    EXPECT_THAT(call("read_file", {{"path", path}}), StartsWith("error: ")) << path;
    EXPECT_THAT(call("list_files", {{"path", path}}), StartsWith("error: ")) << path;
    EXPECT_THAT(call("find_in_file", {{"path", path}, {"text", "s"}}), StartsWith("error: ")) << path;
  }
  EXPECT_THAT(call("read_file", {{"path", std::string("notes.txt\0/x", 12)}}), StartsWith("error: "));
}

TEST_F(ToolsTest, SaysWhyItFailed) {
  EXPECT_EQ(call("read_file", {{"path", "nothing"}}), "error: no such file");
  EXPECT_EQ(call("read_file", {{"path", "sub"}}), "error: not a file");
  EXPECT_EQ(call("read_file", {{"path", "fifo"}}), "error: not a file");  // and does not wait for a writer
  EXPECT_EQ(call("read_file", {{"path", "binary"}}), "error: not a text file");
  EXPECT_EQ(call("read_file", {{"path", "large.txt"}}), "error: file too large");
  EXPECT_EQ(call("read_file", nlohmann::json::object()), "error: missing argument path");
  EXPECT_EQ(call("read_file", {{"path", nullptr}}), "error: argument path must be a string");
  EXPECT_EQ(call("remove_file", {{"path", "notes.txt"}}), "error: no such tool");
  EXPECT_EQ(call("calculator", {{"expression", "1 / 0"}}), "error: division by zero");
  EXPECT_EQ(LocalTools(root_.string()).call("clock", "[1"), "error: arguments are not a JSON object");
  EXPECT_THROW(LocalTools((root_ / "nowhere").string()), std::runtime_error);
}

TEST_F(ToolsTest, ComputesAndTellsTheTime) {
  EXPECT_EQ(call("calculator", {{"expression", "123 * 456"}}), "56088");
  EXPECT_THAT(call("clock", nlohmann::json::object()),
              MatchesRegex("[A-Z][a-z]+day [0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}"));
}

}  // namespace
}  // namespace cli
