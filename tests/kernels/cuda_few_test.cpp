// The CUDA launches that do the work of several for few rows, emulated: the bits of those.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/experts.h"
#include "kernels/cuda/formats.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/rows.h"
#include "tests/kernels/draw.h"

namespace dsv::cuda {
namespace {

struct Packed {
  std::vector<unsigned char> memory;
  PackedRows rows;
  Packed(const float* x, int32_t n, int64_t cols, Rounding rounding)
      : memory(unset<unsigned char>(packed_bytes(n, cols))) {
    launch_pack_codes({n, cols, x, cols, rounding, true, memory.data()}, nullptr);
    rows = packed_rows(memory.data(), n, cols, rounding);
  }
};

// What routing leaves.
struct Routed {
  std::vector<int32_t> expert, pair_row, pair_of, n_tiles;
  std::vector<float> weight;
  std::vector<ExpertTile> tiles;
  Routed(int32_t rows, int32_t k)
      : expert(unset<int32_t>(rows * k)),
        pair_row(expert),
        pair_of(expert),
        n_tiles(1),
        weight(unset<float>(rows * k)),
        tiles(static_cast<size_t>(rows * k)) {}
  bool operator==(const Routed& other) const {
    return expert == other.expert && pair_row == other.pair_row && pair_of == other.pair_of &&
           n_tiles == other.n_tiles && weight == other.weight &&
           std::memcmp(tiles.data(), other.tiles.data(), sizeof(ExpertTile) * tiles.size()) == 0;
  }
};

struct Router {
  int32_t experts, groups, kept, k;
  int64_t dim;
};

void check_routing(const Router& router, int32_t rows, float bias_size) {
  const std::vector<float> x = draw(rows * router.dim), bias = draw(router.experts, 9);
  std::vector<float> biases;
  for (const float b : bias) biases.push_back(bias_size * b);
  const std::vector<uint16_t> gate = draw_bf16(router.experts * router.dim, 7);
  const WeightView view = {reinterpret_cast<const unsigned char*>(gate.data()),
                           nullptr,
                           router.experts,
                           router.dim,
                           2 * router.dim,
                           0,
                           Dtype::bf16};
  const Packed packed(x.data(), rows, router.dim, Rounding::bf16);
  Routed one(rows, router.k), several(rows, router.k);
  std::vector<float> logits(static_cast<size_t>(rows * router.experts)),
      parts(static_cast<size_t>(8 * rows * router.experts));
  unsigned arrived = 0;
  const auto route = [&](Routed& to) {
    return RouteRowsArgs{rows,        router.experts,   router.k,        router.groups,
                         router.kept, logits.data(),    biases.data(),   true,
                         2.5,         to.expert.data(), to.weight.data()};
  };
  const auto group = [&](Routed& to) {
    return GroupArgs{rows,
                     router.k,
                     router.experts,
                     8,
                     to.expert.data(),
                     to.pair_row.data(),
                     to.pair_of.data(),
                     to.tiles.data(),
                     to.n_tiles.data()};
  };
  TensorArgs linear = linear_args(view, packed.rows, rows);
  linear.y = logits.data();
  linear.y_stride = router.experts;
  launch_tensor(linear, nullptr);
  launch_route(route(several), nullptr);
  launch_group(group(several), nullptr);
  ASSERT_TRUE(takes_route_few(route(one), view));
  launch_route_few({route(one), view, packed.rows, group(one), parts.data(), &arrived}, nullptr);
  EXPECT_EQ(arrived, 0u);
  EXPECT_TRUE(one == several) << router.experts << " experts, " << rows << " rows";
}

TEST(CudaFew, RoutingInOneLaunch) {
  for (const bool descending : {false, true}) {
    emulation::set_descending(descending);
    for (const int32_t rows : {1, 2, 8}) {
      for (const float bias : {0.0f, 0.3f, 3.0f}) {
        check_routing({16, 4, 2, 4, 256}, rows, bias);
        check_routing({40, 5, 3, 6, 200}, rows, bias);
        check_routing({12, 12, 5, 3, 128}, rows, bias);
        check_routing({256, 8, 4, 8, 1024}, rows, bias);
      }
    }
    check_routing({256, 8, 4, 8, 7168}, 2, 0.3f);
  }
  emulation::set_descending(false);
}

// A warp a row, many rows' form, chooses what a block does, of equal scores too.
TEST(CudaFew, RoutingByWarpIsThatByBlock) {
  for (const bool descending : {false, true}) {
    emulation::set_descending(descending);
    for (const Router& router : {Router{256, 8, 4, 8, 0}, Router{256, 1, 1, 8, 0}, Router{224, 7, 3, 32, 0},
                                 Router{192, 3, 2, 6, 0}, Router{64, 2, 1, 1, 0}, Router{32, 1, 1, 32, 0}}) {
      for (const float step : {0.0f, 0.25f, 2.0f}) {
        constexpr int32_t kRows = 11;
        std::vector<float> logits = draw(kRows * router.experts), bias = draw(router.experts, 9);
        for (float& x : logits) x = step > 0 ? std::round(x / step) * step : 3 * x;
        for (float& x : bias) x = step > 0 ? std::round(x / step) * step : x;
        Routed block(kRows, router.k), warp(kRows, router.k);
        const auto args = [&](Routed& to) {
          return RouteRowsArgs{kRows,       router.experts,   router.k,        router.groups,
                               router.kept, logits.data(),    bias.data(),     router.k != 6,
                               2.5,         to.expert.data(), to.weight.data()};
        };
        ASSERT_TRUE(takes_route_by_warp(args(warp)));
        launch_route_by_block(args(block), nullptr);
        launch_route_by_warp(args(warp), nullptr);
        EXPECT_EQ(block.expert, warp.expert) << router.experts << " experts, step " << step;
        EXPECT_EQ(block.weight, warp.weight) << router.experts << " experts, step " << step;
      }
    }
  }
  emulation::set_descending(false);
}

void check_values(int32_t heads, int64_t rank, int32_t rows) {
  constexpr int64_t kNope = 128, kValue = 128, kPerHead = kNope + kValue;
  const std::vector<unsigned char> codes = draw_e4m3(heads * kPerHead * rank, 3);
  const std::vector<float> mixed = draw(rows * heads * rank);
  std::vector<float> scale;
  for (const float s : draw(heads * 2 * rank / 128, 4)) scale.push_back(std::exp2(std::floor(s)));
  const WeightView w = {codes.data(),  scale.data(), heads * kPerHead,
                        rank,          rank,         static_cast<int32_t>(rank / 128),
                        Dtype::f8_e4m3};
  const int64_t width = heads * kValue;
  std::vector<float> one = unset<float>(rows * width), several = one;
  const Packed in(mixed.data(), rows, heads * rank, Rounding::bf16);
  TensorArgs a = linear_args(w, in.rows, rows);
  a.outputs = kValue;
  a.y = several.data();
  a.y_stride = width;
  a.to_bf16 = true;
  a.groups = heads;
  a.group_rows = kPerHead;
  a.first_row = kNope;
  a.x_group = 2 * rank;
  a.y_group = kValue;
  launch_tensor(a, nullptr);
  const Packed expected(several.data(), rows, width, Rounding::e4m3);
  std::vector<unsigned char> got = unset<unsigned char>(static_cast<int64_t>(expected.memory.size()));
  const ValuesArgs values = {
      rows,       heads, tensor_splits(width, rank), w, kPerHead, kNope, mixed.data(), one.data(),
      got.data(), true};
  ASSERT_TRUE(takes_values(values, kValue));
  launch_values(values, nullptr);
  EXPECT_EQ(one, several) << heads << " heads, " << rows << " rows";
  EXPECT_EQ(got, expected.memory) << heads << " heads, " << rows << " rows";
}

TEST(CudaFew, ValuesInOneLaunch) {
  for (const bool descending : {false, true}) {
    emulation::set_descending(descending);
    for (const int32_t rows : {1, 3, 8}) {
      check_values(2, 128, rows);
      check_values(3, 256, rows);
      check_values(4, 512, rows);
    }
  }
  emulation::set_descending(false);
}

// By a block a row, and by a cluster.
void check_norm(int64_t n, int32_t rows) {
  const std::vector<float> x = draw(rows * n), delta = draw(rows * n, 6), weight = draw(n, 7);
  struct Out {
    std::vector<float> x, out;
    std::vector<unsigned char> e4m3, bf16;
    bool operator==(const Out&) const = default;
  };
  const auto run = [&](bool hopper) {
    Out to = {x, unset<float>(rows * n), unset<unsigned char>(packed_bytes(rows, n)),
              unset<unsigned char>(packed_bytes(rows, n))};
    NormArgs a = {rows,          n,     nullptr, to.x.data(),   n, delta.data(), n, to.x.data(),
                  weight.data(), 1e-6f, true,    to.out.data(), n};
    a.e4m3 = to.e4m3.data();
    a.bf16 = to.bf16.data();
    emulation::hopper = hopper;
    launch_norm(a, nullptr);
    emulation::hopper = false;
    return to;
  };
  EXPECT_TRUE(run(true) == run(false)) << n << ", " << rows << " rows";
}

TEST(CudaFew, NormsInClusters) {
  for (const bool descending : {false, true}) {
    emulation::set_descending(descending);
    for (const int64_t n : {512, 1024, 1536, 1600, 7168}) {
      for (const int32_t rows : {1, 5}) check_norm(n, rows);
    }
  }
  emulation::set_descending(false);
}

}  // namespace
}  // namespace dsv::cuda
