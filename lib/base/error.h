// Errors inside libdsv: one exception type, thrown anywhere below lib/abi and caught only there.
#pragma once

#include <dsv/dsv.h>
#include <fmt/format.h>

#include <exception>
#include <string>
#include <utility>

namespace dsv {

// A status for programs and one sentence for people: what failed, where (file, tensor, JSON field), and the
// remedy.
class Error : public std::exception {
 public:
  Error(dsv_status status, std::string message) : status_(status), message_(std::move(message)) {}
  const char* what() const noexcept override { return message_.c_str(); }
  dsv_status status() const noexcept { return status_; }

 private:
  dsv_status status_;
  std::string message_;
};

template <class... Args>
[[noreturn]] void fail(dsv_status status, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(status, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace dsv
