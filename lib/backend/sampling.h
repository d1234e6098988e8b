// How a row of logits becomes a token: defined by integers, so that every backend, in whatever order it adds,
// chooses the same one.
//
//   1. The row's biases are added. Ids that are not allowed and NaN count as -infinity. If every logit is NaN
//      there is no token (-1); if nothing is left, it is the lowest allowed id.
//   2. The best is the greatest logit, the lowest id of equals. With a temperature of 0, or if it is
//      +infinity, it is the token.
//   3. The others weigh 2^39 * e^((logit - best) / temperature), as sample_weight() gives it: within 2^-17 of
//      that, and 0 below 2^-40 of the best.
//   4. In descending order of logits, ties to the lowest id: the first top_k of those that weigh anything; of
//      these the shortest start that has top_p of their weight; of these who weighs min_p of the best.
//   5. Of the weight of who is left, a part is drawn, [0, 1) of it. The token is where the sum over ids,
//      ascending, exceeds that.
#pragma once

#include <cstdint>

#include "backend/both.h"

namespace dsv {

struct TokenBias {
  int32_t token;
  float bias;
};

// What one row is sampled by, worked out from the request's options.
struct SampleRow {
  float scale = 0;                         // log2(e) / temperature, in 2^-25; 0: the best
  int32_t top_k = INT32_MAX;               // at least 1
  uint64_t top_p = 0;                      // of 2^64; 0: all
  uint64_t least = 1;                      // weight that is kept
  uint64_t draw = 0;                       // of 2^64
  int32_t bias_first = 0, bias_count = 0;  // in the batch's list; each token once
};

inline constexpr uint64_t kBestWeight = uint64_t{1} << 39;  // 2^24 of them fit in 64 bits
inline constexpr uint32_t kWeighsNothing = uint32_t{40} << 25;

// How far a logit is below the best: 2^-25 octaves of weight, kWeighsNothing at most. Never less for a lower
// logit.
DSV_BOTH uint32_t sample_distance(float logit, float best, float scale) {
  const float distance = (best - logit) * scale;  // nothing here that could be fused
  return distance < static_cast<float>(kWeighsNothing) ? static_cast<uint32_t>(static_cast<int32_t>(distance))
                                                       : kWeighsNothing;
}

DSV_BOTH uint32_t sample_mulhi(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>(uint64_t{a} * b >> 32);
}
// 2^-x of the distance's fraction by a polynomial of degree 6, within 4e-9; its octaves are a shift.
DSV_BOTH uint64_t sample_weight(uint32_t distance) {
  const uint32_t x = distance << 7;  // of 2^32
  uint32_t p = 0x0007346Bu;
  p = 0x0053B870u - sample_mulhi(x, p);
  p = 0x0273FADFu - sample_mulhi(x, p);
  p = 0x0E34BE41u - sample_mulhi(x, p);
  p = 0x3D7F5DDDu - sample_mulhi(x, p);
  p = 0xB1721670u - sample_mulhi(x, p);
  return ((uint64_t{1} << 32) - sample_mulhi(x, p)) << 7 >> (distance >> 25);
}

// A part of `whole`, of 2^64: less than it if that is not 0.
DSV_BOTH uint64_t sample_part(uint64_t whole, uint64_t part) {
#ifdef __CUDA_ARCH__
  return __umul64hi(whole, part);
#else
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>(Wide{whole} * part >> 64);
#endif
}
// The weight that top_p asks for.
DSV_BOTH uint64_t sample_target(uint64_t whole, uint64_t top_p) {
  const uint64_t target = sample_part(whole, top_p);
  return target > 0 ? target : 1;
}

}  // namespace dsv
