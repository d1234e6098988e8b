// The small formats, every code of each.
#include "kernels/reference/formats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace dsv::reference {
namespace {

// Codes 0 .. last of a sign-less format decode to an ascending grid; each value, and each point between two
// neighbours, must round to the nearest, ties to the even code.
template <class Decode, class Encode>
void check_rounding(uint32_t last, uint32_t sign, Decode decode, Encode encode) {
  for (uint32_t code = 0; code <= last; ++code) {
    const double value = decode(code);
    ASSERT_EQ(encode(value), code);
    ASSERT_EQ(encode(-value), code | sign);
    ASSERT_EQ(decode(code | sign), -value);
    if (code == last) break;
    const double next = decode(code + 1), middle = (value + next) / 2;
    ASSERT_LT(value, next);
    ASSERT_EQ(encode(middle), code % 2 ? code + 1 : code);
    ASSERT_EQ(encode(std::nextafter(middle, 0)), code);
    ASSERT_EQ(encode(std::nextafter(middle, next)), code + 1);
  }
}

TEST(Formats, E4m3) {
  check_rounding(0x7E, 0x80, decode_e4m3, encode_e4m3);
  EXPECT_EQ(decode_e4m3(0x7E), 448);
  EXPECT_EQ(decode_e4m3(0x01), 0x1p-9);
  EXPECT_EQ(decode_e4m3(0x38), 1);
  EXPECT_TRUE(std::isnan(decode_e4m3(0x7F)));
  EXPECT_TRUE(std::isnan(decode_e4m3(0xFF)));
  EXPECT_TRUE(std::isnan(decode_e4m3(encode_e4m3(NAN))));
  EXPECT_EQ(encode_e4m3(1e9), 0x7E);  // saturates
  EXPECT_EQ(encode_e4m3(-465), 0xFE);
}

TEST(Formats, Bf16) {
  check_rounding(0x7F7F, 0x8000, decode_bf16, encode_bf16);
  EXPECT_EQ(decode_bf16(0x3F80), 1);
  EXPECT_EQ(decode_bf16(0x0001), 0x1p-133);
  EXPECT_EQ(round_bf16(3.4e38), INFINITY);
  EXPECT_EQ(round_bf16(-INFINITY), -INFINITY);
  EXPECT_TRUE(std::isnan(round_bf16(NAN)));
  for (uint32_t code = 0; code < 0x10000; ++code) {
    const double value = decode_bf16(static_cast<uint16_t>(code));
    if (std::isfinite(value)) {
      ASSERT_EQ(round_bf16(value), value);
    }
  }
}

TEST(Formats, F16) {
  for (uint32_t code = 0; code < 0x8000; ++code) {
    const uint32_t exponent = code >> 10, fraction = code & 0x3FF;
    const double value = decode_f16(static_cast<uint16_t>(code));
    const double negative = decode_f16(static_cast<uint16_t>(code | 0x8000));
    if (exponent == 31) {
      ASSERT_EQ(std::isnan(value), fraction != 0);
      ASSERT_EQ(std::isinf(value), fraction == 0);
      continue;
    }
    ASSERT_EQ(negative, -value);
    ASSERT_EQ(value, exponent == 0
                         ? fraction * 0x1p-24
                         : (1 + fraction * 0x1p-10) * std::pow(2.0, static_cast<int>(exponent) - 15));
  }
}

TEST(Formats, ScaleCoversTheLargestValue) {
  for (const double amax : {0.0, 1e-9, 1e-4, 0.3, 1.0, 447.0, 448.0, 448.1, 896.0, 1e6, 1e30}) {
    const std::vector<double> group = {-amax, amax / 3};
    const double scale = e4m3_scale(group.data(), 2, false), power = e4m3_scale(group.data(), 2, true);
    EXPECT_EQ(scale, static_cast<float>(std::fmax(amax, 1e-4f) / 448));
    int exponent;
    EXPECT_EQ(std::frexp(power, &exponent), 0.5) << "a power of two";
    EXPECT_GE(power * 448, amax);
    EXPECT_TRUE(amax <= 1e-4 || power * 224 < amax) << "the least that is enough";
  }
}

TEST(Formats, QuantisingTwiceChangesNothing) {
  std::vector<double> values;
  for (int i = 0; i < 300; ++i) values.push_back(std::sin(i * 1.7) * std::pow(2.0, i % 23 - 11));
  for (const bool power_of_two : {true, false}) {
    std::vector<double> once = values;
    quantise(once.data(), 300, power_of_two);
    for (int i = 0; i < 300; ++i) {
      const double largest = 0x1p11;  // amax of a group is below it
      ASSERT_NEAR(once[i], values[i], std::fabs(values[i]) / 16 + 2 * largest / 448 * 0x1p-10);
    }
    if (!power_of_two) continue;
    std::vector<double> twice = once;
    quantise(twice.data(), 300, power_of_two);
    EXPECT_EQ(once, twice);
  }
}

}  // namespace
}  // namespace dsv::reference
