#include "memory/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/checkpoint_writer.h"

namespace dsv {
namespace {

using test::safetensors_bytes;

std::vector<SafetensorsEntry> parse(const std::string& bytes) {
  return parse_safetensors(reinterpret_cast<const unsigned char*>(bytes.data()),
                           static_cast<int64_t>(bytes.size()), "folder/x.safetensors");
}

TEST(Safetensors, ReadsEveryDtypeInOrderOfOffset) {
  const std::string header = R"({"__metadata__":{"format":"pt"},
    "b":{"dtype":"F8_E4M3","shape":[2,3],"data_offsets":[4,10]},
    "a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},
    "none":{"dtype":"F32","shape":[0,7],"data_offsets":[4,4]},
    "scalar":{"dtype":"F32","shape":[],"data_offsets":[10,14]},
    "wide":{"dtype":"I64","shape":[1],"data_offsets":[14,22]},
    "strange":{"dtype":"F4_NEW","shape":[9],"data_offsets":[22,27]}}   )";
  const std::string bytes = safetensors_bytes(header, std::string(27, 'x'));
  const std::vector<SafetensorsEntry> entries = parse(bytes);
  ASSERT_EQ(entries.size(), 6u);
  const auto data = static_cast<int64_t>(8 + header.size());
  EXPECT_EQ(entries[0].name, "a");
  EXPECT_EQ(entries[0].offset, data);
  EXPECT_EQ(entries[0].bytes, 4);
  EXPECT_EQ(entries[1].name, "none");
  EXPECT_EQ(entries[1].bytes, 0);
  EXPECT_EQ(entries[2].dtype, "F8_E4M3");
  EXPECT_EQ(entries[2].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(entries[2].offset, data + 4);
  EXPECT_TRUE(entries[3].shape.empty());
  EXPECT_EQ(entries[5].bytes, 5);
}

TEST(Safetensors, AnEmptyFileOfTensorsIsFine) { EXPECT_TRUE(parse(safetensors_bytes("{}", "")).empty()); }

struct Hostile {
  const char* what;
  std::string bytes;
  std::string says;
};

std::string one(const std::string& fields, size_t data = 4) {
  return safetensors_bytes(R"({"layer.w":{)" + fields + "}}", std::string(data, 'x'));
}

std::string with_length(uint64_t length, const std::string& rest) {
  std::string out = safetensors_bytes("", "");
  for (int i = 0; i < 8; ++i) out[static_cast<size_t>(i)] = static_cast<char>(length >> (8 * i));
  return out + rest;
}

TEST(Safetensors, RefusesDamagedFilesByName) {
  const std::string deep = R"({"layer.w":)" + std::string(100000, '[') + std::string(100000, ']') + "}";
  const Hostile cases[] = {
      {"empty file", "", "has 0 bytes"},
      {"seven bytes", "1234567", "has 7 bytes"},
      {"length beyond the file", with_length(100, "{}"), "truncated"},
      {"length of the format's limit", with_length(100'000'001, "{}"), "more than safetensors allows"},
      {"length of 2^64 - 1", with_length(~uint64_t{0}, "{}"), "more than safetensors allows"},
      {"length of 2^63", with_length(uint64_t{1} << 63, "{}"), "more than safetensors allows"},
      {"length zero", with_length(0, ""), "not valid JSON"},
      {"half a header", safetensors_bytes(R"({"layer.w":{"dtype":"F32")", ""), "not valid JSON"},
      {"text after the header", safetensors_bytes("{} x", ""), "not valid JSON"},
      {"a list", safetensors_bytes("[]", ""), "an array where"},
      {"a number", safetensors_bytes("7", ""), "a number where"},
      {"tensor is a number", safetensors_bytes(R"({"layer.w":7})", ""), "layer.w"},
      {"tensor is null", safetensors_bytes(R"({"layer.w":null})", ""), "layer.w"},
      {"tensor is a list", safetensors_bytes(R"({"layer.w":[]})", ""), "layer.w"},
      {"metadata is a list", safetensors_bytes(R"({"__metadata__":[]})", ""), "an array where"},
      {"metadata holds an object", safetensors_bytes(R"({"__metadata__":{"a":{}}})", ""), "an object where"},
      {"100000 levels", safetensors_bytes(deep, ""), "layer.w"},
      {"invalid UTF-8", safetensors_bytes("{\"\xFF\":{}}", ""), "not valid JSON"},
      {"no fields", one(""), "lacks dtype, shape or data_offsets"},
      {"no shape", one(R"("dtype":"F32","data_offsets":[0,4])"), "lacks"},
      {"no offsets", one(R"("dtype":"F32","shape":[1])"), "lacks"},
      {"unknown field", one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4],"strides":[1])"), "strides"},
      {"repeated field", one(R"("dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4])"), "dtype"},
      {"dtype is a number", one(R"("dtype":3,"shape":[1],"data_offsets":[0,4])"), "a number where"},
      {"shape is a string", one(R"("dtype":"F32","shape":"1","data_offsets":[0,4])"), "a string where"},
      {"shape is nested", one(R"("dtype":"F32","shape":[[1]],"data_offsets":[0,4])"), "an array where"},
      {"negative size", one(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), "negative"},
      {"fractional size", one(R"("dtype":"F32","shape":[1.5],"data_offsets":[0,4])"), "not whole"},
      {"size of 2^63", one(R"("dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4])"),
       "beyond 2^63"},
      {"size of 10^30",
       one(R"("dtype":"F32","shape":[1000000000000000000000000000000],"data_offsets":[0,4])"), "not whole"},
      {"product of 2^64 + 4", one(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,4])"),
       "shape"},
      {"product that wraps to 4", one(R"("dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4])"),
       "shape"},
      {"nine dimensions", one(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4])"),
       "more than 8 dimensions"},
      {"one offset", one(R"("dtype":"F32","shape":[1],"data_offsets":[0])"), "not [begin, end]"},
      {"three offsets", one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,8])"), "a number where"},
      {"end before begin", one(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"), "end before they begin"},
      {"end past the file", one(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])"), "truncated"},
      {"offsets near 2^63",
       one(R"("dtype":"F32","shape":[1],"data_offsets":[9223372036854775803,9223372036854775807])"),
       "truncated"},
      {"bytes and shape differ", one(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"),
       "not what its shape [2]"},
      {"bytes and dtype differ", one(R"("dtype":"BF16","shape":[1],"data_offsets":[0,4])"), "BF16"},
      {"gap at the front", one(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])", 8), "leaves a gap"},
      {"bytes behind the last", one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])", 5),
       "belong to none"},
      {"overlap",
       safetensors_bytes(R"({"layer.v":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                             "layer.w":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
                         "123456"),
       "overlaps 'layer.v'"},
      {"the same bytes twice",
       safetensors_bytes(R"({"layer.v":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                             "layer.w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                         "1234"),
       "overlaps"},
      {"the same name twice",
       safetensors_bytes(R"({"layer.w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                             "layer.w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                         "12345678"),
       "stands twice"},
  };
  for (const Hostile& c : cases) {
    SCOPED_TRACE(c.what);
    try {
      parse(c.bytes);
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), DSV_ERROR_INVALID_FILE);
      EXPECT_THAT(error.what(), testing::HasSubstr("folder/x.safetensors"));
      EXPECT_THAT(error.what(), testing::HasSubstr(c.says));
    }
  }
}

TEST(Safetensors, ALongNameIsShortenedInTheSentence) {
  const std::string name(1'000'000, 'n');
  try {
    parse(safetensors_bytes("{\"" + name + "\":{}}", ""));
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_LT(std::string(error.what()).size(), 600u);
  }
}

// Cut at every byte, a good file is refused each time and never read past its end (which ASan would see).
TEST(Safetensors, EveryTruncationIsRefused) {
  const std::string good = safetensors_bytes(R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},
    "b":{"dtype":"F8_E4M3","shape":[2,3],"data_offsets":[4,10]}})",
                                             "0123456789");
  EXPECT_EQ(parse(good).size(), 2u);
  for (size_t size = 0; size < good.size(); ++size) {
    const std::vector<char> cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_THROW(parse_safetensors(reinterpret_cast<const unsigned char*>(cut.data()),
                                   static_cast<int64_t>(size), "cut"),
                 Error)
        << size;
  }
}

}  // namespace
}  // namespace dsv
