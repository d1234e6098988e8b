// The CUDA backend's indexer kernels, emulated: the tensor-core scores against the plain ones, in tiles of
// any number of rows; the top-k, in one block and split, against a sort.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/formats.h"
#include "kernels/cuda/index.h"

namespace dsv::cuda {
namespace {

constexpr int32_t kDim = 128;

// Rows of sequences 0 0 0 1 2 2 .. at the ends of their contexts, on shuffled pages.
struct Rows {
  int32_t rows, heads, context, page_stride;
  std::vector<unsigned char> pages, q;
  std::vector<float> weight, scores;
  std::vector<int32_t> position, sequence, table;

  Rows(int32_t rows_, int32_t heads_, int32_t context_, bool one_sequence = false)
      : rows(rows_),
        heads(heads_),
        context(context_),
        page_stride((context_ + kPageTokens - 1) / kPageTokens) {
    std::mt19937 random(static_cast<unsigned>(rows + 100 * heads + 10000 * context));
    std::uniform_real_distribution<float> uniform(-1, 1);
    const auto code = [&] {
      const auto bits = static_cast<unsigned char>(random());
      return static_cast<unsigned char>((bits & 0x7F) == 0x7F ? bits & 0xFE : bits);
    };
    constexpr int32_t kOf[] = {0, 0, 0, 1, 2, 2, 3};
    for (int32_t r = 0; r < rows; ++r) {
      sequence.push_back(one_sequence ? 0 : r / 7 * 4 + kOf[r % 7]);
      position.push_back(std::max(context - 1 - (one_sequence ? rows - 1 - r : r % 4), 0));
    }
    const auto n = static_cast<size_t>((sequence.back() + 1) * page_stride);
    table.resize(n);
    std::iota(table.begin(), table.end(), 0);
    std::shuffle(table.begin(), table.end(), random);
    pages.resize(n * kPageTokens * (kDim + 4));
    for (unsigned char& byte : pages) byte = code();
    for (size_t page = 0; page < n; ++page) {
      auto* scale = reinterpret_cast<float*>(&pages[(page * (kDim + 4) + kDim) * kPageTokens]);
      for (int i = 0; i < kPageTokens; ++i) scale[i] = std::fabs(uniform(random));
    }
    q.resize(static_cast<size_t>(rows * heads * (kDim + 4)));
    for (int32_t r = 0; r < rows; ++r) {
      unsigned char* row = &q[static_cast<size_t>(r * heads * (kDim + 4))];
      for (int32_t i = 0; i < heads * kDim; ++i) row[i] = code();
      auto* scale = reinterpret_cast<float*>(row + heads * kDim);
      for (int32_t h = 0; h < heads; ++h) scale[h] = std::fabs(uniform(random));
    }
    for (int32_t i = 0; i < rows * heads; ++i) weight.push_back(uniform(random));
  }

  std::vector<float> run(IndexPath path, int32_t together) {
    scores.assign(static_cast<size_t>(rows * page_stride * kPageTokens), -77);
    IndexScoresArgs a{};
    a.rows = rows;
    a.heads = heads;
    a.topk = 0;
    a.longest = context;
    a.step.position = position.data();
    a.step.sequence = sequence.data();
    a.step.page_table = table.data();
    a.step.page_stride = page_stride;
    a.cache.index = pages.data();
    a.cache.index_page_bytes = kPageTokens * (kDim + 4);
    a.cache.index_dim = kDim;
    a.cache.official = true;
    a.index_q = q.data();
    a.q_stride = heads * (kDim + 4);
    a.weight = weight.data();
    a.scores = scores.data();
    a.score_stride = page_stride * kPageTokens;
    a.path = path;
    a.rows_together = together;
    launch_index_scores(a, nullptr);
    return scores;
  }
};

// Tiles of any number of rows give the same bits, and they are near the plain kernel's.
void compare(Rows r, IndexPath path, bool tiles = true) {
  const std::vector<float> plain = r.run(IndexPath::plain, 1), got = r.run(path, 1);
  // An element's error is that of f32 sums of these terms, whose size is that of the largest scores.
  float largest = 0;
  for (const float x : plain) largest = std::max(largest, std::fabs(x));
  for (size_t i = 0; i < plain.size(); ++i) {
    ASSERT_NEAR(got[i], plain[i], 64 * largest * 0x1p-24f) << r.heads << " heads, context " << r.context;
  }
  if (!tiles) return;
  for (const int32_t together : {2, 3, 100}) EXPECT_EQ(r.run(path, together), got);
}

TEST(CudaIndex, TensorScoresAreThePlainOnes) {
  for (const int32_t heads : {1, 4, 9, 64}) {
    for (const int32_t rows : {1, 8}) {
      for (const int32_t context : {1, 63, 64, 65, 700}) compare({rows, heads, context}, IndexPath::portable);
    }
  }
}

// Emulated, FP8 sums are f32 sums, too.
TEST(CudaIndex, HopperScoresAreThePlainOnes) {
  emulation::hopper = true;
  emulation::shared_limit = 227 * 1024;
  for (const IndexPath path : {IndexPath::f32_sums, IndexPath::fp8_sums}) {
    for (const bool descending : {false, true}) {
      emulation::set_descending(descending);
      compare({1, 64, 700}, path);
      compare({8, 12, 65}, path);
    }
    emulation::set_descending(false);
    compare({26, 64, 130, true}, path);
  }
  Rows pairs(70, 12, 130);  // more of them than a warp counts for itself
  EXPECT_EQ(pairs.run(IndexPath::fp8_sums, 2), pairs.run(IndexPath::fp8_sums, 1));
  compare({1, 12, 30000}, IndexPath::fp8_sums,
          false);  // more pages than a ring has, and a warp has numbers of
  emulation::shared_limit = kPortableShared;
  emulation::hopper = false;
}

float value(int pattern, int32_t i, std::mt19937& random) {
  const float inf = std::numeric_limits<float>::infinity();
  std::normal_distribution<float> normal;
  const auto r = static_cast<uint32_t>(random());
  switch (pattern) {
    case 0:
      return normal(random);
    case 1:
      return static_cast<float>(r % 3);
    case 2:
      return 0.25f;
    case 3:
      return r % 50 == 0 ? normal(random) : -inf;
    case 4:  // denormals and zeros of both signs
      return r % 4 == 0   ? 0.0f
             : r % 4 == 1 ? -0.0f
                          : (r & 4 ? 1.0f : -1.0f) * static_cast<float>(r % 100) * 1e-45f;
    case 5:
      return static_cast<float>(i);
    case 6:  // differ in their last bits only: no list holds a bin
      return 1 + static_cast<float>(r % 5000) * 0x1p-23f;
    case 7:
      return i % 1000 < 3 ? inf : normal(random);
    case 8:
      return -static_cast<float>(i);
    default:  // the largest lie together
      return normal(random) + (i / 3000 == 2 ? 10.0f : 0.0f);
  }
}
constexpr int kPatterns = 10;

// Rows of about so many positions. blocks: of Hopper's that share a row; 0: launch_top_k's choice.
void check_top_k(int32_t visible, int32_t k, int pattern, bool split, int32_t blocks = 0, int32_t rows = 2) {
  const int64_t stride = (visible + 63) / 64 * 64;
  std::mt19937 random(static_cast<unsigned>(visible + pattern));
  std::vector<float> scores(static_cast<size_t>(rows * stride), std::nanf(""));
  std::vector<int32_t> position;
  for (int32_t r = 0; r < rows; ++r) {  // some rows see little, or no more than k
    const int32_t sees = r % 5 == 2 ? std::min(visible, k) : r % 5 == 3 ? visible / 2 : visible - r % 5;
    position.push_back(std::max(sees, 1) - 1);
  }
  for (int32_t r = 0; r < rows; ++r) {
    for (int32_t i = 0; i <= position[static_cast<size_t>(r)]; ++i) {
      scores[static_cast<size_t>(r * stride + i)] = value(pattern, i, random);
    }
  }
  std::vector<int32_t> selected(static_cast<size_t>(rows * k), -1), n_selected(rows, -1);
  std::vector<uint64_t> scratch(static_cast<size_t>(top_k_scratch_bytes(visible) / 8 + 1), ~uint64_t{0});
  const TopKArgs a = {rows,
                      k,
                      position.data(),
                      scores.data(),
                      stride,
                      selected.data(),
                      n_selected.data(),
                      visible,
                      split ? reinterpret_cast<unsigned char*>(scratch.data()) : nullptr};
  blocks > 0 ? launch_top_k_blocks(a, blocks, nullptr) : launch_top_k(a, nullptr);
  for (int32_t r = 0; r < rows; ++r) {
    const float* row = &scores[static_cast<size_t>(r * stride)];
    std::vector<int32_t> order(static_cast<size_t>(position[static_cast<size_t>(r)] + 1));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return row[a] > row[b]; });
    order.resize(std::min(order.size(), static_cast<size_t>(k)));
    std::sort(order.begin(), order.end());
    ASSERT_EQ(n_selected[static_cast<size_t>(r)], static_cast<int32_t>(order.size()));
    order.resize(static_cast<size_t>(k), -1);
    ASSERT_TRUE(std::equal(order.begin(), order.end(), selected.begin() + int64_t{r} * k))
        << "visible " << visible << " k " << k << " pattern " << pattern << " split " << split << " blocks "
        << blocks << " row " << r;
  }
}

TEST(CudaIndex, TopKIsThatOfASort) {
  for (int pattern = 0; pattern < kPatterns; ++pattern) {
    for (const int32_t visible : {1, 31, 32, 33, 64, 65, 66, 1000, 17000}) {
      for (const int32_t k : {1, 64}) check_top_k(visible, k, pattern, false);
    }
    check_top_k(50000, 2048, pattern, false);
    check_top_k(50000, 2048, pattern, true);
  }
  check_top_k(250000, 2048, 0, true);  // longer than the bitmaps: the plain kernel
}

TEST(CudaIndex, TopKOfShortRowsIsThatOfASort) {
  emulation::hopper = true;
  for (int pattern = 0; pattern < kPatterns; ++pattern) {
    emulation::set_descending(pattern % 2 != 0);
    for (const int32_t visible : {31, 65, 1000, 4096}) check_top_k(visible, 64, pattern, false);
    for (const int32_t visible : {2049, 4097, 8192}) check_top_k(visible, 2048, pattern, false);
  }
  emulation::set_descending(false);
  emulation::hopper = false;
}

// More rows than blocks, of all sizes that a block is made for, and rows that alone are longer than the list.
TEST(CudaIndex, TopKOfManyRowsIsThatOfASort) {
  emulation::hopper = true;
  emulation::shared_limit = 227 * 1024;
  for (int pattern = 0; pattern < kPatterns; ++pattern) {
    emulation::set_descending(pattern % 2 != 0);
    for (const int32_t visible : {65, 4095}) check_top_k(visible, 64, pattern, false, 0, 11);
    for (const int32_t visible : {2049, 8192, 9000}) check_top_k(visible, 2048, pattern, false, 0, 17);
    check_top_k(16384, 2048, pattern, false, 0, 3);
    for (const int32_t visible : {17001, 32768}) check_top_k(visible, 2048, pattern, false, 0, 6);
  }
  emulation::set_descending(false);
  emulation::shared_limit = kPortableShared;
  emulation::hopper = false;
}

// Ascending and descending: what is listed in another order selects the same.
TEST(CudaIndex, TopKOfClustersIsThatOfASort) {
  emulation::shared_limit = 227 * 1024;
  for (int pattern = 0; pattern < kPatterns; ++pattern) {
    emulation::set_descending(pattern % 2 != 0);
    for (const int32_t blocks : {1, 2, 8}) {
      for (const int32_t visible : {33, 1000}) check_top_k(visible, 64, pattern, false, blocks);
      check_top_k(33000, 2048, pattern, false, blocks);
    }
  }
  for (const int pattern : {0, 9}) {
    check_top_k(50000, 2048, pattern, false, 2);  // more than registers hold
    check_top_k(163840, 2048, pattern, false, 8);
  }
  emulation::set_descending(false);
  emulation::shared_limit = kPortableShared;
}

}  // namespace
}  // namespace dsv::cuda
