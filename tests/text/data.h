// Files of the text tests.
#pragma once

#include <string>

namespace dsv::test {

// Both throw std::runtime_error naming the file.
std::string read_whole(const std::string& path);
std::string read_zstd(const std::string& path);

}  // namespace dsv::test
