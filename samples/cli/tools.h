// The local tools of `dsv run`. What they are asked for comes from a model, so nothing they are given is
// trusted.
#pragma once

#include <string>

namespace cli {

class LocalTools {
 public:
  // Files are those under `folder`. Throws std::runtime_error if it cannot be opened.
  explicit LocalTools(const std::string& folder);
  ~LocalTools();
  LocalTools(const LocalTools&) = delete;
  LocalTools& operator=(const LocalTools&) = delete;

  // The result as the model is to see it, UTF-8; "error: ..." if it failed. Never throws for bad arguments.
  std::string call(const std::string& name, const std::string& arguments_json) const;

 private:
  std::string list_files(const std::string& path) const;
  std::string read_file(const std::string& path) const;
  std::string find_in_file(const std::string& path, const std::string& text) const;
  std::string read_text(const std::string& path, size_t limit) const;

  int folder_;
};

}  // namespace cli
