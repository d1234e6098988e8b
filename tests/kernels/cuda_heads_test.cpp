// Attention by heads (attend_heads.cu), emulated: keys and values against f64 sums of the latents, what rows
// make of them against f64, their codes, and the op, which takes it for the rows that it is for.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/formats.h"
#include "tests/kernels/world.h"

namespace dsv::cuda {
namespace {

constexpr int32_t kRank = 512, kRope = 64, kNope = 128, kValues = 128, kHeadDim = kNope + kRope;
constexpr float kScale = 0.135f;

std::mt19937 random_bits(11);
float normal() { return std::normal_distribution<float>()(random_bits); }

// A sequence of first + rows positions, and the last `rows` of them.
struct Case {
  int32_t rows, first, heads, positions = first + rows;
  std::vector<unsigned char> cache, weight, keys;
  std::vector<float> weight_scale, q;
  std::vector<int32_t> pages;

  Case(int32_t rows_, int32_t first_, int32_t heads_) : rows(rows_), first(first_), heads(heads_) {
    pages.resize(static_cast<size_t>(positions / kPageTokens + 1));
    std::iota(pages.begin(), pages.end(), 0);
    std::shuffle(pages.begin(), pages.end(), random_bits);
    cache.assign(pages.size() * kPageTokens * kAttendMmaRowBytes, 0xFF);  // NaN after the last position
    for (int32_t p = 0; p < positions; ++p) {
      unsigned char* const row = latent(p);
      for (int i = 0; i < kRank; ++i) row[i] = static_cast<unsigned char>(float_to_e4m3(100 * normal()));
      for (int g = 0; g < 4; ++g)
        store_f32(row + kRank + 4 * g, std::ldexp(1.0f, -8 + static_cast<int>(random_bits() % 4)));
      for (int i = 0; i < kRope; ++i) {
        const uint16_t code = float_to_bf16(normal());
        std::memcpy(row + kRank + 16 + 2 * i, &code, 2);
      }
    }
    for (int32_t i = 0; i < heads * 256 * kRank; ++i)
      weight.push_back(static_cast<unsigned char>(float_to_e4m3(100 * normal())));
    for (int32_t i = 0; i < heads * 2 * 4; ++i) weight_scale.push_back((1 + std::fabs(normal())) * 2e-4f);
    for (int32_t i = 0; i < rows * heads * kHeadDim; ++i) q.push_back(round_bf16(2 * normal()));
    keys.assign(static_cast<size_t>(head_keys_bytes(positions, heads)), 0xFF);
  }
  unsigned char* latent(int32_t p) {
    return cache.data() +
           (pages[static_cast<size_t>(p / kPageTokens)] * kPageTokens + p % kPageTokens) * kAttendMmaRowBytes;
  }

  void make_keys() {
    CacheView view = {};
    view.latent = cache.data();
    view.latent_row_bytes = kAttendMmaRowBytes;
    const WeightView w = {weight.data(), weight_scale.data(), heads * 256, kRank, kRank, 4, Dtype::f8_e4m3};
    launch_head_keys({positions, heads, pages.data(), view, w, keys.data()}, nullptr);
  }
  // Value i of a head's key and, from 128 on, value; or of the RoPE part behind the last head.
  double key(int32_t p, int32_t head, int i) const {
    uint16_t code;
    std::memcpy(&code, keys.data() + p * head_keys_pitch(heads) + 2 * (head * 256 + i), 2);
    return bf16_to_float(code);
  }
  // bf16 of f32 sums.
  void expect_keys(int32_t p) {
    const unsigned char* const row = latent(p);
    for (int32_t o = 0; o < heads * 256; ++o) {
      double sum = 0, size = 0;
      for (int j = 0; j < kRank; ++j) {
        const double product = double{e4m3_to_float(row[j])} * load_f32(row + kRank + j / 128 * 4) *
                               e4m3_to_float(weight[static_cast<size_t>(o * kRank + j)]) *
                               weight_scale[static_cast<size_t>(o / 128 * 4 + j / 128)];
        sum += product;
        size += std::fabs(product);
      }
      ASSERT_NEAR(key(p, 0, o), sum, std::fabs(sum) * 0x1p-8 + size * 0x1p-20) << p << " " << o;
    }
    ASSERT_EQ(std::memcmp(keys.data() + p * head_keys_pitch(heads) + heads * 512, row + kRank + 16, 128), 0);
  }

  size_t width() const { return static_cast<size_t>(heads * kValues); }
  std::vector<float> run(const CodesOut& codes) const {
    std::vector<float> y((static_cast<size_t>(rows) + 1) * width(), NAN);
    std::vector<uint16_t> queries(2 * q.size(), 0xFFFF);  // bf16 in the first half of f32's places
    for (size_t i = 0; i < q.size(); ++i)
      queries[i / kHeadDim * 2 * kHeadDim + i % kHeadDim] = float_to_bf16(q[i]);
    launch_attend_heads({rows, heads, first, queries.data(), keys.data(), kScale, y.data(), codes}, nullptr);
    for (size_t i = y.size() - width(); i < y.size(); ++i) EXPECT_TRUE(std::isnan(y[i]));  // past the last
    return y;
  }
  // A weight is rounded to bf16 (2^-9 of it), the result as well; scores of size 30 err by f32's share.
  void expect(int32_t r, int32_t head, const std::vector<float>& y) const {
    std::vector<double> weights;
    for (int32_t p = 0; p <= first + r; ++p) {
      double score = 0;
      const float* const x = q.data() + (r * heads + head) * kHeadDim;
      for (int i = 0; i < kNope; ++i) score += x[i] * key(p, head, i);
      for (int i = 0; i < kRope; ++i) score += x[kNope + i] * key(p, heads, i);
      weights.push_back(score * double{kScale});
    }
    const double largest = *std::max_element(weights.begin(), weights.end());
    double total = 0;
    for (double& w : weights) total += w = std::exp(w - largest);
    for (int i = 0; i < kValues; ++i) {
      double sum = 0, size = 0;
      for (int32_t p = 0; p <= first + r; ++p) {
        const double part = weights[static_cast<size_t>(p)] / total * key(p, head, kNope + i);
        sum += part;
        size += std::fabs(part);
      }
      ASSERT_NEAR(y[static_cast<size_t>(r) * width() + static_cast<size_t>(head * kValues + i)], sum,
                  std::fabs(sum) * 0x1p-8 + size * 0x1p-8)
          << "row " << r << " head " << head << " value " << i;
    }
  }
};

class AsHopper {
 public:
  AsHopper() {
    emulation::hopper = true;
    emulation::shared_limit = 227 * 1024;
  }
  ~AsHopper() {
    emulation::hopper = false;
    emulation::shared_limit = kPortableShared;
  }
};

void check(Case c) {
  const AsHopper hopper;
  c.make_keys();
  for (const int32_t p : {0, c.positions / 2, c.positions - 1}) c.expect_keys(p);
  const std::vector<float> y = c.run({});
  for (const int32_t r : {0, c.rows / 2, c.rows - 1}) {
    for (const int32_t h : {0, c.heads - 1}) c.expect(r, h, y);
  }
  // As codes, with blocks and threads in another order.
  const auto rows = static_cast<size_t>(c.rows), groups = static_cast<size_t>(c.heads);
  std::vector<unsigned char> codes(rows * c.width());
  std::vector<float> scales(rows * groups, NAN);
  emulation::set_descending(true);
  const std::vector<float> untouched =
      c.run({codes.data(), static_cast<int64_t>(c.width()), scales.data(), c.rows});
  emulation::set_descending(false);
  EXPECT_TRUE(std::all_of(untouched.begin(), untouched.end(), [](float v) { return std::isnan(v); }));
  for (size_t at = 0; at < codes.size(); at += kQuantBlock) {
    float largest = 0;
    for (size_t i = at; i < at + kQuantBlock; ++i) largest = std::fmax(largest, std::fabs(y[i]));
    const float scale = e4m3_scale(largest, true);
    ASSERT_EQ(scales[at / kQuantBlock % groups * rows + at / c.width()], scale);
    for (size_t i = at; i < at + kQuantBlock; ++i) ASSERT_EQ(codes[i], float_to_e4m3(y[i] / scale)) << i;
  }
}

TEST(CudaHeads, OneRow) { check({1, 0, 1}); }
TEST(CudaHeads, ARowOfMany) { check({1, 128, 1}); }
TEST(CudaHeads, LessThanAGroup) { check({63, 66, 5}); }
TEST(CudaHeads, MoreThanAGroup) { check({65, 200, 1}); }
TEST(CudaHeads, MoreThanATile) { check({129, 0, 2}); }
TEST(CudaHeads, ThreeTilesOfRows) { check({300, 5, 1}); }

// A prompt's rows, of two sequences and one row more, through the op.
struct Prompt {
  using Op = test::Rig::Op;
  static test::Setup setup(int32_t index_topk) {
    Geometry g;
    g.vocab_size = 90;
    g.hidden_size = 256;
    g.num_layers = 2;
    g.num_heads = 2;
    g.q_lora_rank = 192;
    g.kv_lora_rank = kRank;
    g.qk_nope_head_dim = kNope;
    g.v_head_dim = kValues;
    g.qk_rope_head_dim = kRope;
    g.intermediate_size = 256;
    g.index_n_heads = 16;
    g.index_head_dim = 128;
    g.index_topk = index_topk;
    g.ue8m0_scales = true;
    test::finish(g);
    test::Setup setup = {"a prompt", g, Precision::official, Dtype::f8_e4m3, 258, 1, 1, false};
    setup.fast = true;
    return setup;
  }

  test::World world;
  AsHopper hopper;
  test::Rig rig;
  CudaDevice& d;
  size_t width;
  explicit Prompt(int32_t index_topk)
      : world(setup(index_topk)),
        rig(world, cuda_ops(), "descending", 1),
        d(cuda_device(rig.device())),
        width(static_cast<size_t>(d.geometry.num_heads * d.geometry.v_head_dim)) {}

  // Heads of the batch, of which runs of so many rows may go by heads, as `runs` do.
  std::vector<float> run(int32_t heads_rows, RowRange range, int64_t runs) {
    test::RowSet rows = world.all();
    rows.ranges = {range};
    d.heads_rows = heads_rows;
    d.heads_runs = 0;
    std::vector<float> heads = rig.run(Op::attend, rows, {Op::index_select}).act.at(Act::heads);
    EXPECT_EQ(d.heads_runs, runs);
    return heads;
  }
  bool same(const std::vector<float>& a, const std::vector<float>& b, RowRange rows) const {
    const size_t begin = rows.first * width;
    return std::memcmp(&a[begin], &b[begin], 4 * rows.count * width) == 0;
  }
  // Either form rounds what scores are made of to bf16, W_k^T q or keys, values or mixed latents, weights and
  // results: some 2^-9 of each by chance, in scores of some size.
  void expect_near(const std::vector<float>& got, const std::vector<float>& want, RowRange rows) const {
    double difference = 0, size = 0;
    for (size_t i = rows.first * width; i < (rows.first + rows.count) * width; ++i) {
      difference += std::pow(double{got[i]} - double{want[i]}, 2);
      size += std::pow(double{want[i]}, 2);
    }
    EXPECT_LT(std::sqrt(difference / size), 0x1p-7);
  }
};

// Near the absorbed form; the last row of the batch does not go by heads, nor do fewer rows.
TEST(CudaHeads, ThroughTheOp) {
  Prompt p(test::kMaxContext);
  const std::vector<float> by_heads = p.run(128, {0, 258}, 2);  // of 129 rows and of 128
  const RowRange some = {100, 60};
  const std::vector<float> absorbed = p.run(1000, some, 0), last = p.run(1000, {257, 1}, 0),
                           few = p.run(128, some, 0);
  EXPECT_TRUE(p.same(few, absorbed, some));
  EXPECT_TRUE(p.same(by_heads, last, {257, 1}));
  p.expect_near(by_heads, absorbed, some);
  EXPECT_TRUE(std::all_of(by_heads.begin(), by_heads.end(), [](float v) { return std::isfinite(v); }));
}

// Of longer sequences those rows that see all positions.
TEST(CudaHeads, TheFirstRowsOfALongerPrompt) {
  Prompt p(100);
  const std::vector<float> by_heads = p.run(90, {0, 129}, 1);
  const RowRange first = {70, 30}, rest = {100, 29};
  const std::vector<float> absorbed = p.run(1000, {70, 59}, 0);
  EXPECT_TRUE(p.same(by_heads, absorbed, rest));
  EXPECT_FALSE(p.same(by_heads, absorbed, first));
  p.expect_near(by_heads, absorbed, first);
}

}  // namespace
}  // namespace dsv::cuda
