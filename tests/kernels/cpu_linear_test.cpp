// The CPU's linear kernels against plain double loops, on every target this machine runs: formats, tails, odd
// addresses, and the promise that a row's result is bitwise the same alone and in any batch and slice.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/targets.h"

namespace dsv::cpu {
namespace {

double e4m3_value(uint8_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const double magnitude = exponent == 15 && mantissa == 7 ? std::nan("")
                           : exponent == 0                 ? std::ldexp(mantissa, -9)
                                                           : std::ldexp(8 + mantissa, exponent - 10);
  return code & 0x80 ? -magnitude : magnitude;
}

double bf16_value(uint16_t bits) { return bf16_to_float(bits); }

// A weight in memory of its own, one byte off any alignment, with NaN behind its end.
struct TestWeight {
  CpuWeight weight;
  std::vector<unsigned char> bytes, scales;
  std::vector<double> values;  // dequantised

  TestWeight(Dtype dtype, int64_t rows, int64_t cols, uint32_t seed) {
    std::mt19937 random(seed);
    const int64_t blocks = (cols + 127) / 128;
    bytes.assign(static_cast<size_t>(1 + rows * cols * dtype_bytes(dtype) + 256), 0xff);
    values.resize(static_cast<size_t>(rows * cols));
    if (dtype == Dtype::f8_e4m3) {
      scales.resize(static_cast<size_t>(1 + 4 * (rows + 127) / 128 * blocks + 4 * blocks));
      for (int64_t i = 0; i < (rows + 127) / 128 * blocks; ++i) {
        const float scale = 0.5f + static_cast<float>(random() % 1000) * 0.001f;
        std::memcpy(&scales[static_cast<size_t>(1 + 4 * i)], &scale, 4);
      }
    }
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        unsigned char* const at = &bytes[static_cast<size_t>(1 + (r * cols + c) * dtype_bytes(dtype))];
        double& value = values[static_cast<size_t>(r * cols + c)];
        const float wanted = std::normal_distribution<float>()(random);
        if (dtype == Dtype::f8_e4m3) {
          uint8_t code = static_cast<uint8_t>(random());
          if ((code & 0x7f) == 0x7f) code ^= 1;
          *at = code;
          float scale;
          std::memcpy(&scale, &scales[static_cast<size_t>(1 + 4 * (r / 128 * blocks + c / 128))], 4);
          value = e4m3_value(code) * scale;
        } else if (dtype == Dtype::f32) {
          std::memcpy(at, &wanted, 4);
          value = wanted;
        } else if (dtype == Dtype::bf16) {
          uint32_t word;
          std::memcpy(&word, &wanted, 4);
          const auto half = static_cast<uint16_t>(word >> 16);
          std::memcpy(at, &half, 2);
          value = bf16_value(half);
        } else {  // f16, normal and subnormal
          const auto half = static_cast<uint16_t>((random() & 0x83ff) | (random() % 20) << 10);
          std::memcpy(at, &half, 2);
          const int exponent = half >> 10 & 31;
          value =
              exponent == 0 ? std::ldexp(half & 1023, -24) : std::ldexp(1024 + (half & 1023), exponent - 25);
          if (half & 0x8000) value = -value;
        }
      }
    }
    weight.dtype = dtype;
    weight.rows = rows;
    weight.cols = cols;
    weight.data = bytes.data() + 1;
    weight.scale_inv = scales.empty() ? nullptr : scales.data() + 1;
  }
};

struct Result {
  std::vector<float> out;
  std::vector<double> input;  // [rows, cols] as the kernel sees it
};

CpuDevice device_for(const CpuKernels& kernels) {
  CpuDevice d;
  d.kernels = &kernels;
  return d;
}

// The linear of `x` [rows, cols] for weight rows [n0, n1).
std::vector<float> run(const CpuKernels& kernels, const TestWeight& w, Rounding rounding,
                       const std::vector<float>& x, int32_t rows, int64_t n0, int64_t n1) {
  const CpuDevice d = device_for(kernels);
  const int64_t cols = w.weight.cols;
  struct Block {
    alignas(64) unsigned char bytes[64];
  };
  std::vector<Block> memory(static_cast<size_t>(packed_bytes(rows, cols) / 64));
  std::vector<Block> scratch(static_cast<size_t>(linear_job_bytes(rows, cols) / 64 + 1));
  std::vector<const float*> row;
  for (int32_t r = 0; r < rows; ++r) row.push_back(x.data() + r * cols);
  const Packed packed = place(d, w.weight, rounding, rows, memory.data()->bytes);
  for (int32_t group = 0; group < (rows + 15) / 16; ++group) kernels.pack(row.data(), group, packed);
  std::vector<float> out(static_cast<size_t>(rows * (n1 - n0)), NAN);
  kernels.linear(w.weight, n0, n1, packed, out.data(), n1 - n0, scratch.data()->bytes);
  return out;
}

// What the formats of ops.h make of the input.
std::vector<double> rounded(const CpuKernels& kernels, Rounding rounding, const std::vector<float>& x,
                            int64_t cols) {
  std::vector<double> result(x.begin(), x.end());
  if (rounding == Rounding::none) return result;
  for (size_t begin = 0; begin < x.size();) {
    const size_t left = static_cast<size_t>(cols) - begin % static_cast<size_t>(cols);
    const size_t n = std::min<size_t>(128, left);
    std::vector<float> part(x.begin() + static_cast<int64_t>(begin),
                            x.begin() + static_cast<int64_t>(begin + n));
    float scale = 1;
    if (rounding == Rounding::e4m3) {
      scale = kernels.quantise_e4m3(part.data(), static_cast<int64_t>(n), true);
    } else {
      kernels.round_bf16(part.data(), static_cast<int64_t>(n));
    }
    for (size_t i = 0; i < n; ++i) result[begin + i] = static_cast<double>(part[i]) * scale;
    begin += n;
  }
  return result;
}

std::vector<float> random_input(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(count));
  for (float& v : x) v = normal(random);
  return x;
}

class CpuLinear : public testing::TestWithParam<std::string> {
 protected:
  const CpuKernels& kernels() { return *choose_target(GetParam().c_str()).kernels; }
};

TEST_P(CpuLinear, MatchesDoubleLoops) {
  for (Dtype dtype : {Dtype::f8_e4m3, Dtype::bf16, Dtype::f16, Dtype::f32}) {
    for (Rounding rounding : {Rounding::none, Rounding::bf16, Rounding::e4m3}) {
      for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 1},
                                       {3, 7},
                                       {37, 130},
                                       {128, 128},
                                       {161, 96},
                                       {64, 512},
                                       {200, 333}}) {
        for (int32_t m : {1, 2, 5, 16, 17, 50}) {
          const TestWeight w(dtype, rows, cols, 1);
          const std::vector<float> x = random_input(m * cols, 2);
          const std::vector<double> input = rounded(kernels(), rounding, x, cols);
          const std::vector<float> out = run(kernels(), w, rounding, x, m, 0, rows);
          for (int32_t r = 0; r < m; ++r) {
            for (int64_t n = 0; n < rows; ++n) {
              double sum = 0, size = 0;
              for (int64_t k = 0; k < cols; ++k) {
                const double product =
                    w.values[static_cast<size_t>(n * cols + k)] * input[static_cast<size_t>(r * cols + k)];
                sum += product;
                size += std::abs(product);
              }
              // Each of at most cols / 4 + 32 dependent f32 additions errs by 2^-24 of a partial sum.
              const double limit = (static_cast<double>(cols) / 4 + 32) * 0x1p-24 * size + 1e-30;
              ASSERT_NEAR(out[static_cast<size_t>(r * rows + n)], sum, limit)
                  << "dtype " << static_cast<int>(dtype) << " rounding " << static_cast<int>(rounding)
                  << " weight " << rows << " x " << cols << " rows " << m << " at " << r << ", " << n;
            }
          }
        }
      }
    }
  }
}

TEST_P(CpuLinear, RowAloneIsBitwiseTheSame) {
  for (Dtype dtype : {Dtype::f8_e4m3, Dtype::bf16, Dtype::f16, Dtype::f32}) {
    for (Rounding rounding : {Rounding::none, Rounding::bf16, Rounding::e4m3}) {
      const int64_t rows = 75, cols = 700;
      const int32_t m = 67;
      const TestWeight w(dtype, rows, cols, 3);
      const std::vector<float> x = random_input(m * cols, 4);
      const std::vector<float> all = run(kernels(), w, rounding, x, m, 0, rows);
      for (int32_t batch : {1, 2, 3, 7, 16, 33}) {
        for (int32_t first = 0; first + batch <= m; first += 11) {
          const std::vector<float> part(x.begin() + first * cols, x.begin() + (first + batch) * cols);
          const int64_t n0 = first % 40, n1 = rows - first % 7;
          const std::vector<float> out = run(kernels(), w, rounding, part, batch, n0, n1);
          for (int32_t r = 0; r < batch; ++r) {
            ASSERT_EQ(0, std::memcmp(&out[static_cast<size_t>(r * (n1 - n0))],
                                     &all[static_cast<size_t>((first + r) * rows + n0)],
                                     static_cast<size_t>(4 * (n1 - n0))))
                << "dtype " << static_cast<int>(dtype) << " rounding " << static_cast<int>(rounding)
                << " batch " << batch << " first " << first;
          }
        }
      }
    }
  }
}

// Every e4m3 code by itself: a weight of one column meets the input 1.
TEST_P(CpuLinear, DecodesEveryCode) {
  TestWeight w(Dtype::f8_e4m3, 256, 1, 5);
  const float one = 1;
  for (int64_t block = 0; block < 2; ++block)
    std::memcpy(&w.scales[static_cast<size_t>(1 + 4 * block)], &one, 4);
  for (int code = 0; code < 256; ++code) w.bytes[static_cast<size_t>(1 + code)] = static_cast<uint8_t>(code);
  for (Rounding rounding : {Rounding::none, Rounding::bf16, Rounding::e4m3}) {
    const std::vector<float> out = run(kernels(), w, rounding, {1.0f}, 1, 0, 256);
    for (int code = 0; code < 256; ++code) {
      const double value = e4m3_value(static_cast<uint8_t>(code));
      if (std::isnan(value)) {
        EXPECT_TRUE(std::isnan(out[static_cast<size_t>(code)])) << code;
      } else {
        EXPECT_EQ(out[static_cast<size_t>(code)], value) << code;
      }
    }
  }
}

// Against the definition: the nearest of all grid values, ties to the even code.
TEST_P(CpuLinear, QuantisesToTheNearestGridValue) {
  std::mt19937 random(6);
  for (int trial = 0; trial < 200; ++trial) {
    const auto n = static_cast<int64_t>(1 + random() % 150);
    std::vector<float> x(static_cast<size_t>(n));
    for (float& v : x) {
      v = std::ldexp(std::normal_distribution<float>()(random), static_cast<int>(random() % 20) - 14);
      if (random() % 4 == 0)
        v = static_cast<float>(e4m3_value(random() % 127) + e4m3_value(random() % 127)) / 2;
    }
    std::vector<float> q = x;
    const float scale = kernels().quantise_e4m3(q.data(), n, true);
    float amax = 0;
    for (float v : x) amax = std::max(amax, std::abs(v));
    EXPECT_EQ(scale, std::exp2(std::ceil(std::log2(std::max(amax, 1e-4f) / 448.0))));
    for (int64_t i = 0; i < n; ++i) {
      const double value = static_cast<double>(x[static_cast<size_t>(i)]) / scale;
      int nearest = 0;
      for (int code = 1; code < 127; ++code) {
        const double better = std::abs(std::abs(value) - e4m3_value(static_cast<uint8_t>(code))) -
                              std::abs(std::abs(value) - e4m3_value(static_cast<uint8_t>(nearest)));
        if (better < 0 || (better == 0 && code % 2 == 0)) nearest = code;
      }
      EXPECT_EQ(std::abs(q[static_cast<size_t>(i)]), e4m3_value(static_cast<uint8_t>(nearest))) << value;
    }
  }
}

std::vector<std::string> targets() {
  std::istringstream list(cpu_targets());
  std::vector<std::string> names;
  for (std::string name; list >> name;) names.push_back(name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Targets, CpuLinear, testing::ValuesIn(targets()),
                         [](const auto& target) { return target.param; });

TEST(CpuTargets, UnknownNameIsRefusedWithWhatThereIs) {
  try {
    choose_target("pentium");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), DSV_ERROR_UNSUPPORTED);
    EXPECT_NE(std::string(error.what()).find(cpu_targets()), std::string::npos);
  }
}

}  // namespace
}  // namespace dsv::cpu
