// Operands of the tests of single CUDA launches: normal values from a seed, and memory nobody has written.
#pragma once

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

template <class T>
std::vector<T> unset(int64_t n) {
  std::vector<T> out(static_cast<size_t>(n));
  std::memset(out.data(), 0x77, out.size() * sizeof(T));
  return out;
}

}  // namespace dsv::cuda
