// Operands of the tests of single CUDA launches: normal values from a seed, and memory nobody has written.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cuda/formats.h"

namespace dsv::cuda {

inline std::vector<float> draw(int64_t n, unsigned seed = 5) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(static_cast<size_t>(n));
  for (float& x : out) x = normal(random);
  return out;
}

inline std::vector<uint16_t> draw_bf16(int64_t n, unsigned seed) {
  std::vector<uint16_t> out;
  for (const float x : draw(n, seed)) out.push_back(float_to_bf16(x));
  return out;
}

inline std::vector<unsigned char> draw_e4m3(int64_t n, unsigned seed) {
  std::vector<unsigned char> out;
  for (const float x : draw(n, seed)) out.push_back(static_cast<unsigned char>(float_to_e4m3(x)));
  return out;
}

// Queries on the bf16 grid as AbsorbArgs has them in bf16; nobody has written what is beside them.
inline std::vector<float> bf16_queries(const std::vector<float>& q, int64_t head_dim) {
  std::vector<float> out(q.size(), NAN);
  for (size_t i = 0; i < q.size(); ++i) {
    const uint16_t code = float_to_bf16(q[i]);
    const size_t dim = static_cast<size_t>(head_dim), head = i / dim * dim;
    std::memcpy(reinterpret_cast<unsigned char*>(&out[head]) + 2 * (i - head), &code, sizeof code);
  }
  return out;
}

template <class T>
std::vector<T> unset(int64_t n) {
  std::vector<T> out(static_cast<size_t>(n));
  std::memset(out.data(), 0x77, out.size() * sizeof(T));
  return out;
}

}  // namespace dsv::cuda
