// The forms that kernels over rows have for many of them, emulated: the bits of those for few.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cuda/attend.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/experts.h"
#include "kernels/cuda/formats.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/rows.h"
#include "tests/kernels/draw.h"
#include "tests/kernels/targets.h"

namespace dsv::cuda {
namespace {

// Codes of all rows at once, and of a few at a time.
void check_pack(int32_t rows, int64_t cols, Rounding rounding, bool power_of_two) {
  const std::vector<float> x = draw(rows * cols, 3);
  const auto pack = [&](int32_t first, int32_t count) {
    std::vector<unsigned char> out = unset<unsigned char>(packed_bytes(count, cols));
    launch_pack_codes({count, cols, x.data() + first * cols, cols, rounding, power_of_two, out.data()},
                      nullptr);
    return out;
  };
  const std::vector<unsigned char> all = pack(0, rows);
  const PackedRows whole = packed_rows(const_cast<unsigned char*>(all.data()), rows, cols, rounding);
  constexpr int32_t kFew = 7;
  for (int32_t first = 0; first < rows; first += kFew) {
    const int32_t count = rows - first < kFew ? rows - first : kFew;
    std::vector<unsigned char> some = pack(first, count);
    const PackedRows part = packed_rows(some.data(), count, cols, rounding);
    ASSERT_EQ(
        std::memcmp(whole.data + first * whole.pitch, part.data, static_cast<size_t>(count * part.pitch)), 0);
    if (!whole.scale) continue;
    ASSERT_EQ(std::memcmp(whole.scale + first * whole.scale_cols, part.scale,
                          static_cast<size_t>(4 * count * part.scale_cols)),
              0);
  }
}

// Queries that end in bf16 have the bits of those that end as f32.
TEST(CudaMany, RopeOfQueries) {
  constexpr int32_t kRows = 5, kHeads = 7;
  constexpr int64_t kHeadDim = 192, kRope = 64;
  const std::vector<float> cosines = draw(kRows * kRope / 2, 21), sines = draw(kRows * kRope / 2, 22);
  const auto run = [&](std::vector<float> q, QueryForm form) {
    launch_rope_query({kRows, kHeads, kHeadDim, kRope, cosines.data(), sines.data(), true, q.data(), form},
                      nullptr);
    return q;
  };
  const auto same = [&](const std::vector<float>& got, const std::vector<float>& want) {
    const std::vector<float> codes = bf16_queries(want, kHeadDim);
    for (size_t head = 0; head < want.size(); head += kHeadDim) {
      ASSERT_EQ(std::memcmp(&got[head], &codes[head], 2 * kHeadDim), 0) << head / kHeadDim;
    }
  };
  std::vector<float> q = draw(kRows * kHeads * kHeadDim, 23);
  same(run(q, QueryForm::f32_to_bf16), run(q, QueryForm::f32));
  for (float& x : q) x = round_bf16(x);
  same(run(bf16_queries(q, kHeadDim), QueryForm::bf16), run(q, QueryForm::f32));
}

TEST(CudaMany, PackedRows) {
  check_pack(1101, 2000, Rounding::e4m3, true);
  check_pack(5500, 330, Rounding::e4m3, false);  // partial blocks, not by fours
  check_pack(5500, 330, Rounding::bf16, true);
}

struct Normed {
  std::vector<float> x, out;
  std::vector<unsigned char> e4m3, bf16;
};
void check_norm(int32_t rows, int64_t n) {
  const std::vector<float> x = draw(rows * n, 5), delta = draw(rows * n, 6), weight = draw(n, 7);
  const auto run = [&](int32_t first, int32_t count) {
    Normed to = {{x.begin() + first * n, x.begin() + (first + count) * n},
                 unset<float>(count * n),
                 unset<unsigned char>(packed_bytes(count, n)),
                 unset<unsigned char>(packed_bytes(count, n))};
    NormArgs a = {count,         n,     nullptr, to.x.data(),   n, delta.data() + first * n, n, to.x.data(),
                  weight.data(), 1e-6f, true,    to.out.data(), n};
    a.e4m3 = to.e4m3.data(), a.bf16 = to.bf16.data();
    launch_norm(a, nullptr);
    return to;
  };
  Normed all = run(0, rows);
  const PackedRows e4m3 = packed_rows(all.e4m3.data(), rows, n, Rounding::e4m3),
                   bf16 = packed_rows(all.bf16.data(), rows, n, Rounding::bf16);
  for (const int32_t first : {0, rows / 2, rows - 9}) {
    Normed some = run(first, 9);
    const auto same = [&](const void* a, const void* b, int64_t row_bytes) {
      return std::memcmp(static_cast<const unsigned char*>(a) + first * row_bytes, b,
                         static_cast<size_t>(9 * row_bytes)) == 0;
    };
    const PackedRows some_e4m3 = packed_rows(some.e4m3.data(), 9, n, Rounding::e4m3);
    EXPECT_TRUE(same(all.x.data(), some.x.data(), 4 * n)) << n;
    EXPECT_TRUE(same(all.out.data(), some.out.data(), 4 * n)) << n;
    EXPECT_TRUE(same(e4m3.data, some_e4m3.data, e4m3.pitch)) << n;
    EXPECT_TRUE(same(e4m3.scale, some_e4m3.scale, 4 * e4m3.scale_cols)) << n;
    EXPECT_TRUE(same(bf16.data, some.bf16.data(), bf16.pitch)) << n;
  }
}

TEST(CudaMany, Norms) {
  for (const bool hopper : {false, true}) {  // one row on its way, or two
    emulation::hopper = hopper;
    emulation::shared_limit = hopper ? 227 * 1024 : kPortableShared;
    emulation::set_descending(hopper);
    for (const int64_t n : {330, 1536, 7168, 9000}) check_norm(hopper ? 1100 : 1024, n);
  }
  emulation::hopper = false;
  emulation::shared_limit = kPortableShared;
  emulation::set_descending(false);
}

// W_v by blocks that keep a head's weights, and by tiles of few rows.
void check_values(int32_t rows) {
  constexpr int32_t heads = 128;  // as many as have one split
  constexpr int64_t rank = 512;
  constexpr int64_t kValue = 128, kNope = 128, kPerHead = kNope + kValue;
  const std::vector<unsigned char> weight = draw_e4m3(heads * kPerHead * rank, 8);
  const std::vector<float> scale = draw(heads * 2 * (rank / 128), 9), mixed = draw(rows * heads * rank, 10);
  std::vector<unsigned char> codes = unset<unsigned char>(packed_bytes(rows, heads * rank));
  launch_pack_codes({rows, heads * rank, mixed.data(), heads * rank, Rounding::bf16, false, codes.data()},
                    nullptr);
  const PackedRows x = packed_rows(codes.data(), rows, heads * rank, Rounding::bf16);
  const auto run = [&](int32_t first, int32_t count, auto launch_it) {
    std::vector<float> y = unset<float>(count * heads * kValue);
    TensorArgs a = {};
    a.kind = TensorKind::linear;
    a.dtype = Dtype::f8_e4m3;
    a.rows = count;
    a.x = x;
    a.x.data += first * x.pitch;
    a.weight.data = weight.data(), a.weight.scale = scale.data();
    a.weight.rows = heads * kPerHead, a.weight.cols = a.weight.pitch = a.pitch = rank;
    a.weight.scale_cols = static_cast<int32_t>(rank / 128), a.weight.dtype = Dtype::f8_e4m3;
    a.tile_rows = count > 8 ? 64 : 8, a.tile_bound = (count + a.tile_rows - 1) / a.tile_rows;
    a.outputs = kValue, a.y = y.data(), a.y_stride = heads * kValue;
    a.factor = 1, a.to_bf16 = true;
    a.groups = heads, a.group_rows = kPerHead, a.first_row = kNope;
    a.x_group = 2 * rank, a.y_group = kValue;
    launch_it(a, nullptr);
    return y;
  };
  emulation::shared_limit = 227 * 1024;
  const std::vector<float> all = run(0, rows, launch_heads_wgmma);
  // The codes of rows in two launches, as packing makes them.
  const int64_t cols = heads * kValue;
  const auto in_memory = [&](std::vector<unsigned char>& memory) {
    return packed_rows(memory.data(), rows, cols, Rounding::e4m3, PackedForm::by_block);
  };
  std::vector<unsigned char> want = unset<unsigned char>(packed_bytes(rows, cols)), got = want;
  launch_pack_codes({rows, cols, all.data(), cols, Rounding::e4m3, true, want.data(), PackedForm::by_block},
                    nullptr);
  const int32_t split = rows - 3;
  for (const auto& [first, count] : {std::pair(0, split), std::pair(split, rows - split)}) {
    run(first, count, [&, first = first](TensorArgs a, Stream stream) {
      a.y = nullptr, a.codes = codes_out(in_memory(got), first);
      launch_heads_wgmma(a, stream);
    });
  }
  emulation::shared_limit = kPortableShared;
  EXPECT_EQ(std::memcmp(in_memory(got).data, in_memory(want).data, static_cast<size_t>(rows * cols)), 0);
  for (int32_t h = 0; h < heads; ++h) {
    const int64_t at = h * in_memory(got).scale_cols;
    EXPECT_EQ(std::memcmp(in_memory(got).scale + at, in_memory(want).scale + at, sizeof(float) * rows), 0);
  }
  for (int32_t first = 0; first < rows; first += 63) {
    const int32_t count = std::min(rows - first, 3);
    const std::vector<float> some = run(first, count, launch_tensor);
    EXPECT_EQ(std::memcmp(all.data() + first * heads * kValue, some.data(), 4 * some.size()), 0) << first;
  }
}

TEST(CudaMany, Values) {
  if (test::emulate_all()) check_values(130);
  emulation::set_descending(true);
  check_values(66);
  emulation::set_descending(false);
}

// W_k^T q by blocks that keep a head's weights, and as few rows have it.
void check_absorb(int32_t heads, int32_t rows) {
  constexpr int64_t kRank = 512, kPerHead = 256, kHeadDim = 192;
  const std::vector<unsigned char> weight = draw_e4m3(heads * kPerHead * kRank, 11);
  const std::vector<float> scale = draw(heads * 2 * 4, 12);
  std::vector<float> q = draw(rows * heads * kHeadDim, 13);
  for (float& x : q) x = round_bf16(x);
  const WeightView w = {weight.data(), scale.data(), heads * kPerHead, kRank, kRank, 4, Dtype::f8_e4m3};
  const std::vector<float> bf16 = bf16_queries(q, kHeadDim);
  const auto run = [&](auto launch_it, const ValueRows& from) {
    std::vector<uint16_t> out = unset<uint16_t>(rows * heads * kRank);
    const AbsorbArgs a = {rows, heads, w, kPerHead, 128, kHeadDim, from, true, true, out.data()};
    EXPECT_TRUE(takes_absorb_many(a));
    launch_it(a, nullptr);
    return out;
  };
  const std::vector<uint16_t> few = run(launch_absorb, q.data());
  EXPECT_TRUE(run(launch_absorb, {bf16.data(), true}) == few) << heads << " heads, " << rows << " rows";
  EXPECT_TRUE(run(launch_absorb_many, q.data()) == few) << heads << " heads, " << rows << " rows";
  emulation::shared_limit = 227 * 1024;
  EXPECT_TRUE(run(launch_absorb_wgmma, q.data()) == few) << heads << " heads, " << rows << " rows";
  EXPECT_TRUE(run(launch_absorb_wgmma, {bf16.data(), true}) == few) << heads << " heads, " << rows << " rows";
  emulation::shared_limit = kPortableShared;
}

TEST(CudaMany, Absorb) {
  for (const bool descending : {false, true}) {
    emulation::set_descending(descending);
    check_absorb(1, 700);
    check_absorb(5, 128);
  }
  emulation::set_descending(false);
}

// Pairs sorted by expert, and then by row.
void check_group(int32_t rows, int32_t k, int32_t experts, int32_t tile_rows) {
  std::mt19937 random(14);
  std::vector<int32_t> expert;
  std::vector<std::vector<int32_t>> of(static_cast<size_t>(experts));  // pairs of an expert
  for (int32_t r = 0; r < rows; ++r) {
    std::vector<int32_t> all(static_cast<size_t>(experts));
    std::iota(all.begin(), all.end(), 0);
    std::shuffle(all.begin(), all.end(), random);
    std::sort(all.begin(), all.begin() + k);
    for (int32_t i = 0; i < k; ++i) {
      of[static_cast<size_t>(all[static_cast<size_t>(i)])].push_back(r * k + i);
      expert.push_back(all[static_cast<size_t>(i)]);
    }
  }
  std::vector<int32_t> pair_row = unset<int32_t>(rows * k), pair_of = pair_row, n_tiles(1),
                       wanted_row = pair_row, wanted_of = pair_row;
  std::vector<ExpertTile> tiles(static_cast<size_t>(most_tiles(rows * k, experts, tile_rows)));
  std::vector<int32_t> counts = unset<int32_t>(kGroupBlocks * experts);
  launch_group({rows, k, experts, tile_rows, expert.data(), pair_row.data(), pair_of.data(), tiles.data(),
                n_tiles.data(), counts.data()},
               nullptr);
  int32_t at = 0;
  size_t tile = 0;
  for (int32_t e = 0; e < experts; ++e) {
    const std::vector<int32_t>& pairs = of[static_cast<size_t>(e)];
    const auto count = static_cast<int32_t>(pairs.size());
    for (int32_t begin = 0; begin < count; begin += tile_rows, ++tile) {
      ASSERT_LT(tile, tiles.size());
      EXPECT_EQ(tiles[tile].expert, e);
      EXPECT_EQ(tiles[tile].begin, at + begin);
      EXPECT_EQ(tiles[tile].count, std::min(tile_rows, count - begin));
    }
    for (const int32_t p : pairs) {
      wanted_of[static_cast<size_t>(p)] = at;
      wanted_row[static_cast<size_t>(at++)] = p / k;
    }
  }
  EXPECT_EQ(static_cast<size_t>(n_tiles[0]), tile);
  EXPECT_EQ(pair_row, wanted_row);
  EXPECT_EQ(pair_of, wanted_of);
}

TEST(CudaMany, Groups) {
  for (const bool descending : {false, true}) {
    emulation::set_descending(descending);
    check_group(701, 8, 256, 192);
    check_group(kGroupManyRows, 8, 256, 192);
    check_group(1501, 3, 40, 64);
    check_group(300, 3, 5, 64);
    check_group(77, 40, 64, 8);
  }
  emulation::set_descending(false);
}

}  // namespace
}  // namespace dsv::cuda
