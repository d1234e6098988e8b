#include "text/utf8.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "text/detokenizer.h"

namespace dsv {
namespace {

// Table 3-7 of the Unicode Standard: the byte sequences that are code points.
struct Row {
  struct {
    unsigned char low, high;
  } bytes[4];
  size_t size;
};
constexpr Row kWellFormed[] = {
    {{{0x00, 0x7F}}, 1},
    {{{0xC2, 0xDF}, {0x80, 0xBF}}, 2},
    {{{0xE0, 0xE0}, {0xA0, 0xBF}, {0x80, 0xBF}}, 3},
    {{{0xE1, 0xEC}, {0x80, 0xBF}, {0x80, 0xBF}}, 3},
    {{{0xED, 0xED}, {0x80, 0x9F}, {0x80, 0xBF}}, 3},
    {{{0xEE, 0xEF}, {0x80, 0xBF}, {0x80, 0xBF}}, 3},
    {{{0xF0, 0xF0}, {0x90, 0xBF}, {0x80, 0xBF}, {0x80, 0xBF}}, 4},
    {{{0xF1, 0xF3}, {0x80, 0xBF}, {0x80, 0xBF}, {0x80, 0xBF}}, 4},
    {{{0xF4, 0xF4}, {0x80, 0x8F}, {0x80, 0xBF}, {0x80, 0xBF}}, 4},
};

// What the table makes of the front of a text.
struct Front {
  size_t size;
  bool valid, cut;
};
Front front_of(std::string_view text) {
  Front front{1, false, false};
  for (const Row& row : kWellFormed) {
    size_t n = 0;
    while (n < row.size && n < text.size() && static_cast<unsigned char>(text[n]) >= row.bytes[n].low &&
           static_cast<unsigned char>(text[n]) <= row.bytes[n].high) {
      ++n;
    }
    if (n == row.size) return {n, true, false};
    if (n > 0) front = {n, false, n == text.size()};
  }
  return front;
}

// `text` with U+FFFD for what is no code point; a cut end is left out if more may come.
std::string repaired(std::string_view text, bool more) {
  std::string out;
  while (!text.empty()) {
    const Front front = front_of(text);
    if (front.cut && more) break;
    out += front.valid ? text.substr(0, front.size) : kReplacement;
    text.remove_prefix(front.size);
  }
  return out;
}

// Bytes on both sides of every border in the table.
constexpr unsigned char kBorders[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF,
                                      0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE,
                                      0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF};

// All texts of four such bytes, handed to `take`.
template <class Take>
void for_border_texts(const Take& take) {
  std::string text(4, '\0');
  for (const unsigned char a : kBorders) {
    for (const unsigned char b : kBorders) {
      for (const unsigned char c : kBorders) {
        for (const unsigned char d : kBorders) {
          text[0] = static_cast<char>(a), text[1] = static_cast<char>(b), text[2] = static_cast<char>(c),
          text[3] = static_cast<char>(d);
          take(text);
        }
      }
    }
  }
}

// Mostly code points, some of them cut, with stray bytes between.
std::string random_bytes(std::mt19937_64& random, size_t size) {
  std::string out;
  while (out.size() < size) {
    std::string next;
    switch (random() % 4) {
      case 0:
        next = static_cast<char>(random());
        break;
      case 1:
        append_utf8(next, static_cast<char32_t>(random() % 0x80));
        break;
      default:
        append_utf8(next, static_cast<char32_t>(random() % 0x110000));  // surrogates among them
    }
    if (random() % 8 == 0) next.resize(random() % next.size() + 1);
    out += next;
  }
  return out;
}

TEST(Utf8, ReadsEveryCodePointItWrites) {
  for (char32_t value = 0; value <= 0x10FFFF; ++value) {
    std::string text;
    append_utf8(text, value);
    const CodePoint first = first_code_point(text);
    if (value >= 0xD800 && value <= 0xDFFF) {
      ASSERT_FALSE(first.valid) << uint32_t{value};
    } else {
      ASSERT_TRUE(first.valid && first.value == value && static_cast<size_t>(first.size) == text.size())
          << uint32_t{value};
    }
  }
}

TEST(Utf8, FollowsTheTableAtItsBorders) {
  for_border_texts([](const std::string& text) {
    for (size_t size = 1; size <= text.size(); ++size) {
      const std::string_view part = std::string_view(text).substr(0, size);
      const Front front = front_of(part);
      const CodePoint first = first_code_point(part);
      ASSERT_EQ(first.valid, front.valid) << testing::PrintToString(part);
      ASSERT_EQ(static_cast<size_t>(first.size), front.size) << testing::PrintToString(part);
      ASSERT_EQ(first.cut, front.cut) << testing::PrintToString(part);
      ASSERT_TRUE(first.valid || first.value == 0xFFFD);
    }
    ASSERT_EQ(replace_invalid_utf8(text), repaired(text, false));
    ASSERT_EQ(is_utf8(text), repaired(text, false) == text);
  });
}

TEST(Utf8, ReplacesMaximalPartsAsTheStandardShows) {
  // Tables 3-8 to 3-11 of the Unicode Standard.
  const std::string r(kReplacement);
  EXPECT_EQ(replace_invalid_utf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"),
            r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(replace_invalid_utf8("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"),
            r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(replace_invalid_utf8("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"),
            r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(replace_invalid_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), r + r + r + r + "A");
}

TEST(Utf8, FindsTheAsciiAtTheFront) {
  const std::string ascii(40, 'x');
  for (size_t at = 0; at < ascii.size(); ++at) {
    std::string text = ascii;
    text[at] = '\x80';
    EXPECT_EQ(ascii_prefix(text), at);
    EXPECT_EQ(ascii_prefix(std::string_view(ascii).substr(0, at)), at);
  }
}

TEST(Detokenizer, SplitsAnywhereWithoutLoss) {
  std::mt19937_64 random(1);
  Detokenizer detokenizer;  // one for all streams: finish() makes it new
  for (int round = 0; round < 2000; ++round) {
    const std::string bytes = random_bytes(random, random() % 200);
    const size_t longest = 1 + random() % 9;
    std::string text;
    for (size_t at = 0; at < bytes.size();) {
      const size_t size = std::min(random() % (longest + 1), bytes.size() - at);
      const std::string_view piece = detokenizer.push(std::string_view(bytes).substr(at, size));
      at += size;
      ASSERT_TRUE(is_utf8(piece));
      text += piece;
      // Nothing is kept back but a code point that may still be completed.
      ASSERT_EQ(text, repaired(std::string_view(bytes).substr(0, at), true));
    }
    const std::string_view rest = detokenizer.finish();
    ASSERT_TRUE(is_utf8(rest));
    ASSERT_EQ(text + std::string(rest), repaired(bytes, false));
  }
}

TEST(Detokenizer, SplitsBorderTextsByteByByte) {
  Detokenizer detokenizer;
  for_border_texts([&](const std::string& bytes) {
    std::string text;
    for (const char& byte : bytes) text += detokenizer.push({&byte, 1});
    text += detokenizer.finish();
    ASSERT_EQ(text, repaired(bytes, false)) << testing::PrintToString(bytes);
  });
}

TEST(Detokenizer, EmitsNoSurrogates) {
  // A pair of them in three bytes each, as CESU-8 writes U+1F600, whole and split.
  const std::string_view pair = "\xED\xA0\xBD\xED\xB8\x80";
  for (size_t at = 0; at <= pair.size(); ++at) {
    Detokenizer detokenizer;
    std::string text(detokenizer.push(pair.substr(0, at)));
    text += detokenizer.push(pair.substr(at));
    text += detokenizer.finish();
    std::string expected;
    for (int i = 0; i < 6; ++i) expected += kReplacement;
    EXPECT_EQ(text, expected);
  }
}

}  // namespace
}  // namespace dsv
