// Rotations of a query or key vector: RoPE in its two orders, and the Hadamard transform of the indexer.
// A few dozen values a vector, so plain loops that the compiler vectorises for the baseline are enough.
#pragma once

#include <cmath>
#include <cstdint>

namespace dsv::cpu {

// RoPE of MLA: pairs (0, 1), (2, 3), ... of x[0, rope_dim) turn by their angle. cos and sin hold rope_dim / 2
// values with rope_mscale folded in.
inline void rope_interleaved(float* x, const float* cos, const float* sin, int64_t rope_dim) {
  for (int64_t i = 0; i < rope_dim / 2; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    x[2 * i] = a * cos[i] - b * sin[i];
    x[2 * i + 1] = a * sin[i] + b * cos[i];
  }
}

// RoPE of the indexer: the pairs are (i, i + rope_dim / 2).
inline void rope_halves(float* x, const float* cos, const float* sin, int64_t rope_dim) {
  const int64_t half = rope_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[i + half];
    x[i] = a * cos[i] - b * sin[i];
    x[i + half] = a * sin[i] + b * cos[i];
  }
}

// x = H x * n^-0.5 with the Hadamard matrix H[i][j] = (-1)^popcount(i & j), by the fast Walsh-Hadamard
// transform. n is a power of two.
inline void hadamard(float* x, int64_t n) {
  for (int64_t half = 1; half < n; half *= 2) {
    for (int64_t block = 0; block < n; block += 2 * half) {
      for (int64_t i = block; i < block + half; ++i) {
        const float a = x[i], b = x[i + half];
        x[i] = a + b;
        x[i + half] = a - b;
      }
    }
  }
  const float scale = 1 / std::sqrt(static_cast<float>(n));
  for (int64_t i = 0; i < n; ++i) x[i] *= scale;
}

}  // namespace dsv::cpu
