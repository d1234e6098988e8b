#include "tests/text/data.h"

#include <zstd.h>

#include <fstream>
#include <iterator>
#include <stdexcept>

namespace dsv::test {

std::string read_whole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + " cannot be read");
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string read_zstd(const std::string& path) {
  const std::string packed = read_whole(path);
  const unsigned long long size = ZSTD_getFrameContentSize(packed.data(), packed.size());
  if (size > 1u << 30) throw std::runtime_error(path + " is no zstd file with a size in its header");
  std::string out(size, '\0');
  if (ZSTD_decompress(out.data(), out.size(), packed.data(), packed.size()) != size) {
    throw std::runtime_error(path + " is damaged");
  }
  return out;
}

}  // namespace dsv::test
