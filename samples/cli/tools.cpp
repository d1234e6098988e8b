#include "samples/cli/tools.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <utility>
#include <vector>

#include "samples/cli/calculator.h"

namespace cli {
namespace {

using nlohmann::json;

constexpr size_t kReadLimit = 64 << 10;    // bytes of a file that read_file gives to the model
constexpr size_t kSearchLimit = 16 << 20;  // bytes of a file that find_in_file looks through
constexpr size_t kMatchLimit = 50;
constexpr size_t kNameLimit = 500;

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  File& operator=(File&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

[[noreturn]] void fail_open(int error) {
  // A link that was not followed reports ELOOP, or ENOTDIR where a folder was wanted.
  throw std::runtime_error(error == ENOENT                      ? "no such file"
                           : error == ELOOP || error == ENOTDIR ? "not a file or folder here"
                           : error == EACCES || error == EPERM  ? "permission denied"
                                                                : "cannot be opened");
}

// Opens one component at a time and follows no link, so that there is no way out of `root`, not even for a
// moment while someone renames folders.
File open_beneath(int root, const std::string& path, int flags) {
  if (path.empty()) throw std::runtime_error("empty path");
  if (path[0] == '/') throw std::runtime_error("path must be relative");
  if (path.find('\0') != std::string::npos) throw std::runtime_error("no such file");
  std::vector<std::string> parts;
  std::istringstream stream(path);
  for (std::string part; std::getline(stream, part, '/');) {
    if (part == "..") throw std::runtime_error("path leaves the folder");
    if (!part.empty() && part != ".") parts.push_back(part);
  }
  constexpr int kFolder = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  File at(openat(root, ".", kFolder));
  if (at.get() < 0) fail_open(errno);
  for (size_t i = 0; i < parts.size(); ++i) {
    // O_NONBLOCK: opening a FIFO must not wait for its writer.
    const int how = i + 1 < parts.size() ? kFolder : flags | O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;
    File next(openat(at.get(), parts[i].c_str(), how));
    if (next.get() < 0) fail_open(errno);
    at = std::move(next);
  }
  return at;
}

bool is_utf8(const std::string& text) {
  try {
    (void)json(text).dump();
    return true;
  } catch (const json::type_error&) {
    return false;
  }
}

std::string clock_text() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char text[64];
  return std::string(text, std::strftime(text, sizeof text, "%A %Y-%m-%d %H:%M:%S", &local));
}

std::string argument(const json& arguments, const char* name) {
  const auto at = arguments.find(name);
  if (at == arguments.end()) throw std::runtime_error(std::string("missing argument ") + name);
  if (at->is_number()) return at->dump();
  if (!at->is_string()) throw std::runtime_error(std::string("argument ") + name + " must be a string");
  return at->get<std::string>();
}

}  // namespace

LocalTools::LocalTools(const std::string& folder)
    : folder_(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (folder_ < 0)
    throw std::runtime_error(folder + " is not a folder that can be opened: check --tools-dir");
}
LocalTools::~LocalTools() { close(folder_); }

std::string LocalTools::call(const std::string& name, const std::string& arguments_json) const {
  try {
    const json arguments = json::parse(arguments_json, nullptr, false);
    if (!arguments.is_object()) throw std::runtime_error("arguments are not a JSON object");
    if (name == "clock") return clock_text();
    if (name == "calculator") return calculate(argument(arguments, "expression"));
    if (name == "list_files") return list_files(argument(arguments, "path"));
    if (name == "read_file") return read_file(argument(arguments, "path"));
    if (name == "find_in_file") return find_in_file(argument(arguments, "path"), argument(arguments, "text"));
    throw std::runtime_error("no such tool");
  } catch (const std::exception& error) {
    return std::string("error: ") + error.what();
  }
}

std::string LocalTools::list_files(const std::string& path) const {
  File folder = open_beneath(folder_, path, O_DIRECTORY);
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(fdopendir(folder.get()), &closedir);
  if (!dir) fail_open(errno);
  folder.release();
  std::vector<std::string> names;
  while (const dirent* entry = readdir(dir.get())) {
    std::string name = entry->d_name;
    struct stat info {};
    if (name == "." || name == ".." || !is_utf8(name)) continue;
    if (fstatat(dirfd(dir.get()), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (S_ISDIR(info.st_mode)) {
      names.push_back(name + "/");
    } else if (S_ISREG(info.st_mode)) {
      names.push_back(name);
    }
  }
  if (names.empty()) return "(empty)";
  std::sort(names.begin(), names.end());
  std::string out;
  for (size_t i = 0; i < names.size() && i < kNameLimit; ++i) out += (i > 0 ? "\n" : "") + names[i];
  if (names.size() > kNameLimit) out += "\n(and " + std::to_string(names.size() - kNameLimit) + " more)";
  return out;
}

std::string LocalTools::read_text(const std::string& path, size_t limit) const {
  const File file = open_beneath(folder_, path, 0);
  struct stat info {};
  if (fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) throw std::runtime_error("not a file");
  std::string text;
  char buffer[1 << 16];
  while (true) {
    const ssize_t got = read(file.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw std::runtime_error("cannot be read");
    if (got == 0) break;
    text.append(buffer, static_cast<size_t>(got));
    if (text.size() > limit) throw std::runtime_error("file too large");
  }
  if (!is_utf8(text)) throw std::runtime_error("not a text file");
  return text;
}

std::string LocalTools::read_file(const std::string& path) const { return read_text(path, kReadLimit); }

std::string LocalTools::find_in_file(const std::string& path, const std::string& text) const {
  if (text.empty()) throw std::runtime_error("empty text");
  std::istringstream lines(read_text(path, kSearchLimit));
  std::string out;
  size_t number = 0, matches = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.find(text) == std::string::npos) continue;
    if (++matches > kMatchLimit) continue;
    if (!out.empty()) out += '\n';
    out += std::to_string(number) + ": " + line;
  }
  if (matches > kMatchLimit) out += "\n(and " + std::to_string(matches - kMatchLimit) + " more)";
  return matches == 0 ? "no match" : out;
}

}  // namespace cli
