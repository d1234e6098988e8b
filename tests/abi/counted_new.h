#pragma once

#include <atomic>
#include <cstdint>

namespace dsv::test {
extern std::atomic<int64_t> news;  // calls of operator new in this process
}  // namespace dsv::test
