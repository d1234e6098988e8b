// The tensor-core attention kernels by themselves, emulated: shapes that the conformance list's geometries do
// not reach. A row comes out the same bits in one block, split, alone, whether 16 or 32 heads share a block,
// and with more shared memory; and on Hopper, by its own kernels.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/formats.h"
#include "tests/kernels/draw.h"
#include "tests/kernels/targets.h"
#include "tests/kernels/world.h"

namespace dsv::cuda {
namespace {

constexpr int32_t kRank = 512, kRope = 64, kHeadDim = 128 + kRope, kPages = 48;

std::mt19937 random_bits(3);
float normal() { return std::normal_distribution<float>()(random_bits); }

struct Case {
  int32_t rows, heads, topk, context;
  std::vector<int32_t> n;  // selected by row r: n[r % size]; empty: all positions
  int32_t cluster = 1;     // on Hopper, if rows are not split: blocks for 64 heads of a row
  std::vector<unsigned char> cache = std::vector<unsigned char>(kPages * kPageTokens * kAttendMmaRowBytes);
  std::vector<int32_t> position, sequence, pages, selected, n_selected;
  std::vector<float> q;
  bool bf16_q = false;  // that is how they are read
  std::vector<uint16_t> q_abs;

  Case(int32_t rows_, int32_t heads_, int32_t topk_, int32_t context_, std::vector<int32_t> n_)
      : rows(rows_), heads(heads_), topk(topk_), context(context_), n(std::move(n_)) {
    for (size_t t = 0; t < cache.size() / kAttendMmaRowBytes; ++t) {
      unsigned char* row = cache.data() + t * kAttendMmaRowBytes;
      for (int i = 0; i < kRank; ++i) row[i] = static_cast<unsigned char>(float_to_e4m3(100 * normal()));
      for (int g = 0; g < 4; ++g)
        store_f32(row + kRank + 4 * g, std::ldexp(1.0f, -8 + static_cast<int>(random_bits() % 4)));
      for (int i = 0; i < kRope; ++i) {
        const uint16_t code = float_to_bf16(normal());
        std::memcpy(row + kRank + 16 + 2 * i, &code, 2);
      }
    }
    pages.resize(kPages);
    std::iota(pages.begin(), pages.end(), 0);
    std::shuffle(pages.begin(), pages.end(), random_bits);
    for (int32_t r = 0; r < rows; ++r) {
      position.push_back(context - 1 - r);
      sequence.push_back(0);
      for (int32_t h = 0; h < heads; ++h) {
        const float size = std::ldexp(0.25f, static_cast<int>(random_bits() % 4));
        for (int i = 0; i < kRank; ++i) q_abs.push_back(float_to_bf16(size * normal()));
        for (int i = 0; i < kHeadDim; ++i) q.push_back(round_bf16(normal()));
      }
      if (n.empty()) continue;
      const int32_t count = n[static_cast<size_t>(r) % n.size()];
      std::vector<int32_t> all(static_cast<size_t>(position.back()) + 1);
      std::iota(all.begin(), all.end(), 0);
      std::shuffle(all.begin(), all.end(), random_bits);
      all.resize(static_cast<size_t>(count));
      std::sort(all.begin(), all.end());
      all.resize(static_cast<size_t>(topk), -1);  // nobody's
      selected.insert(selected.end(), all.begin(), all.end());
      n_selected.push_back(count);
    }
  }

  // Rows [first, first + count) in one launch; on Hopper the result may be codes, and that of many rows comes
  // from latents that a launch has expanded.
  enum class Form { values, codes, expanded };
  std::vector<float> run(int32_t splits, int32_t first, int32_t count, Form form = Form::values) {
    AttendRowsArgs a{};
    a.rows = count;
    a.heads = heads;
    a.step.position = position.data() + first;
    a.step.sequence = sequence.data() + first;
    a.step.page_table = pages.data();
    a.step.page_stride = kPages;
    a.cache.latent = cache.data();
    a.cache.latent_row_bytes = kAttendMmaRowBytes;
    a.cache.rank = kRank;
    a.cache.rope = kRope;
    a.cache.official = true;
    if (!n.empty()) {
      a.selected = selected.data() + first * topk;
      a.n_selected = n_selected.data() + first;
    }
    a.topk = topk;
    a.splits = splits;
    a.cluster = cluster;
    const std::vector<float> from = bf16_q ? bf16_queries(q, kHeadDim) : q;
    a.q = {from.data() + int64_t{first} * heads * kHeadDim, bf16_q};
    a.head_dim = kHeadDim;
    a.q_abs = q_abs.data() + int64_t{first} * heads * kRank;
    a.softmax_scale = 0.135f;
    std::vector<float> partial(static_cast<size_t>(splits == 1 ? 0 : count * splits * heads * (kRank + 2)),
                               NAN);
    a.partial = partial.data();
    a.to_bf16 = true;
    std::vector<float> mixed(static_cast<size_t>(count * heads * kRank), NAN);
    a.mixed = mixed.data();
    a.shared_limit = emulation::shared_limit;
    std::vector<uint16_t> codes(form == Form::values ? 0 : mixed.size(), 0xFFFF);
    if (form != Form::values) a.codes = codes.data();
    std::vector<unsigned char> expanded(
        form == Form::expanded ? static_cast<size_t>(context * kExpandedRowBytes) : 0, 0xFF);
    if (form == Form::expanded) {
      launch_expand({context, pages.data(), a.cache, expanded.data()}, nullptr);
      a.expanded = expanded.data();
    }
    launch_attend(a, nullptr);
    for (size_t i = 0; i < codes.size(); ++i) mixed[i] = bf16_to_float(codes[i]);
    return mixed;
  }

  // f64, and the sum of the magnitudes.
  void expect(int32_t r, int32_t h, const float* got) const {
    const size_t at = static_cast<size_t>(r * heads + h);
    const int32_t count =
        n.empty() ? position[static_cast<size_t>(r)] + 1 : n_selected[static_cast<size_t>(r)];
    std::vector<std::vector<double>> latents;
    std::vector<double> weight;
    for (int32_t i = 0; i < count; ++i) {
      const int32_t p = n.empty() ? i : selected[static_cast<size_t>(r * topk + i)];
      const unsigned char* row =
          cache.data() +
          (pages[static_cast<size_t>(p / kPageTokens)] * kPageTokens + p % kPageTokens) * kAttendMmaRowBytes;
      std::vector<double> latent;
      double score = 0;
      for (int j = 0; j < kRank; ++j) {
        latent.push_back(double{e4m3_to_float(row[j])} * load_f32(row + kRank + j / 128 * 4));
        score += bf16_to_float(q_abs[at * kRank + static_cast<size_t>(j)]) * latent.back();
      }
      for (int j = 0; j < kRope; ++j) {
        uint16_t code;
        std::memcpy(&code, row + kRank + 16 + 2 * j, 2);
        score += double{q[(at + 1) * kHeadDim - kRope + static_cast<size_t>(j)]} * bf16_to_float(code);
      }
      latents.push_back(latent);
      weight.push_back(score * double{0.135f});
    }
    const double largest = *std::max_element(weight.begin(), weight.end());
    double total = 0;
    for (double& w : weight) total += w = std::exp(w - largest);
    for (size_t j = 0; j < kRank; ++j) {
      double sum = 0, size = 0;
      for (size_t i = 0; i < weight.size(); ++i) {
        sum += weight[i] / total * latents[i][j];
        size += weight[i] / total * std::fabs(latents[i][j]);
      }
      // bf16 at last; weights are rounded to f16 twice, and scores of size 30 err by fp32's share.
      ASSERT_NEAR(got[j], sum, std::fabs(sum) * 0x1p-8 + size * 0x1p-10)
          << "row " << r << " head " << h << " value " << j;
    }
  }
};

void same_rows(const std::vector<float>& part, const std::vector<float>& whole, size_t offset) {
  ASSERT_EQ(std::memcmp(part.data(), whole.data() + offset, 4 * part.size()), 0);
}

using emulation::set_descending;

void check(Case c) {
  const int32_t most = c.n.empty() ? c.context : c.topk, splits = attend_most_splits(most);
  const std::vector<float> split = c.run(splits, 0, c.rows);
  for (const int32_t r : {0, c.rows / 2, c.rows - 1}) {
    for (const int32_t h : {0, c.heads - 1}) c.expect(r, h, split.data() + (r * c.heads + h) * kRank);
  }
  set_descending(true);
  same_rows(c.run(splits, 0, c.rows), split, 0);
  set_descending(false);
  emulation::shared_limit = 227 * 1024;  // Hopper's
  same_rows(c.run(splits, 0, c.rows), split, 0);
  if (most <= kAttendMmaFold) same_rows(c.run(1, 0, c.rows), split, 0);
  c.bf16_q = true;
  same_rows(c.run(splits, 0, c.rows), split, 0);
  c.bf16_q = false;
  set_descending(true);
  same_rows(c.run(splits, 0, c.rows), split, 0);
  set_descending(false);
  emulation::shared_limit = kPortableShared;
  const size_t width = static_cast<size_t>(c.heads) * kRank;
  for (int32_t r = 0; r < c.rows; r += 1 + c.rows / 3) {
    same_rows(c.run(splits, r, 1), split, static_cast<size_t>(r) * width);
    if (most <= kAttendMmaFold) same_rows(c.run(1, r, 1), split, static_cast<size_t>(r) * width);
  }
  if (most <= kAttendMmaFold) same_rows(c.run(1, 0, c.rows), split, 0);
}

// Hopper's kernels: split, whole, by clusters, from expanded latents, and a row alone.
void check_wgmma(Case c) {
  emulation::hopper = true;
  emulation::shared_limit = 227 * 1024;
  const int32_t splits = attend_most_splits(c.topk);
  const std::vector<float> split = c.run(splits, 0, c.rows);
  for (const int32_t r : {0, c.rows - 1}) {
    for (const int32_t h : {0, 7, c.heads / 2, c.heads - 1})
      c.expect(r, h, split.data() + (r * c.heads + h) * kRank);
  }
  same_rows(c.run(1, 0, c.rows), split, 0);
  same_rows(c.run(1, 0, c.rows, Case::Form::codes), split, 0);
  same_rows(c.run(1, 0, c.rows, Case::Form::expanded), split, 0);
  for (const int32_t cluster : {0, 2, 4}) {
    c.cluster = cluster;
    same_rows(c.run(1, 0, c.rows), split, 0);
  }
  c.bf16_q = true;
  same_rows(c.run(splits, 0, c.rows), split, 0);
  for (c.cluster = 4; c.cluster > 0; c.cluster /= 2) same_rows(c.run(1, 0, c.rows), split, 0);
  set_descending(true);
  for (const int32_t cluster : {2, 4, 1}) {
    c.cluster = cluster;
    same_rows(c.run(1, 0, c.rows, Case::Form::codes), split, 0);
  }
  same_rows(c.run(1, 0, c.rows), split, 0);
  same_rows(c.run(splits, 0, c.rows, Case::Form::codes), split, 0);
  same_rows(c.run(1, 0, c.rows, Case::Form::expanded), split, 0);
  same_rows(c.run(splits, c.rows - 1, 1), split, static_cast<size_t>((c.rows - 1) * c.heads) * kRank);
  set_descending(false);
  emulation::shared_limit = kPortableShared;
  emulation::hopper = false;
}

TEST(CudaAttend, OneTileAndItsEdges) { check({6, 4, 65, 700, {1, 63, 64, 65, 8, 9}}); }
TEST(CudaAttend, ManyTiles) { check({2, 16, 300, 900, {300, 131}}); }
TEST(CudaAttend, AllSelected) { check({1, 3, 2048, 2300, {2048}}); }
TEST(CudaAttend, WiderBlocks) { check({2, 37, 2048, 600, {200, 129}}); }  // 32 heads a block if split
TEST(CudaAttend, AllPositions) { check({3, 1, 0, 200, {}}); }
TEST(CudaAttend, SplitsOfManyTiles) { check({2, 1, 0, 2300, {}}); }

TEST(CudaAttend, HopperOneTile) { check_wgmma({2, 33, 65, 700, {1, 63}}); }
TEST(CudaAttend, HopperSomeTiles) { check_wgmma({2, 70, 333, 900, {333, 65}}); }
// More rows: wider blocks of values.
TEST(CudaAttend, HopperFiveRows) { check_wgmma({5, 40, 200, 300, {200, 1, 129}}); }
TEST(CudaAttend, HopperTenRows) { check_wgmma({10, 33, 66, 300, {66, 5, 64}}); }
TEST(CudaAttend, HopperManyRows) { check_wgmma({17, 33, 66, 300, {66, 3, 64}}); }

// As many tiles as a row has at most; or, for it takes 12 seconds, a third of them unless DSV_EMULATE_ALL is
// set.
TEST(CudaAttend, HopperAllTiles) {
  const int32_t n = test::emulate_all() ? 2048 : 640;
  check_wgmma({1, 64, n, 2300, {n}});
}

// Blocks that go on to the next row have one tile of each.
TEST(CudaAttend, HopperRowsOfOneTile) { check_wgmma({23, 33, 64, 300, {64, 3, 1, 17, 64, 30}}); }

// As the released model, with few positions and a narrow residual stream.
Geometry many_heads() {
  Geometry g;
  g.vocab_size = 90;
  g.hidden_size = 256;
  g.num_layers = 2;
  g.num_heads = 160;  // three blocks of heads: 17 rows are enough not to be split
  g.q_lora_rank = 192;
  g.kv_lora_rank = 512;
  g.qk_nope_head_dim = g.v_head_dim = 128;
  g.qk_rope_head_dim = 64;
  g.intermediate_size = 256;
  g.index_n_heads = 16;
  g.index_head_dim = 128;
  g.index_topk = 64;
  g.softmax_scale = 1 / std::sqrt(static_cast<double>(g.qk_head_dim()));
  for (int i = 0; i < 32; ++i) g.inv_freq.push_back(std::pow(10000.0, -i / 32.0));
  return g;
}

// Through the op: of a batch's rows those of a sequence that has enough of them come from expanded latents,
// the others do not, and no bit tells.
TEST(CudaAttend, HopperExpandsASequence) {
  const Geometry g = many_heads();
  const test::World world({"a prompt", g, Precision::official, Dtype::f8_e4m3, 130, 1, 1, false});
  emulation::hopper = true;
  test::Rig rig(world, cuda_ops(), "descending", 1);
  CudaDevice& d = cuda_device(rig.device());
  test::RowSet rows = world.all();
  rows.ranges = {{62, 17}};  // 3 rows of a sequence and 14 of the next
  std::vector<float> heads[2];
  for (const bool expand : {false, true}) {
    d.expanding_rows = expand ? 10 : 1000;
    d.expanded_runs = 0;
    heads[expand] = rig.run(test::Rig::Op::attend, rows).act.at(Act::heads);
    EXPECT_EQ(d.expanded_runs, expand ? 1 : 0);
  }
  emulation::hopper = false;
  const auto width = static_cast<size_t>(g.num_heads * g.v_head_dim);
  ASSERT_EQ(std::memcmp(heads[0].data() + 62 * width, heads[1].data() + 62 * width, 4 * 17 * width), 0);
}

// Through two ops: heads that are there as codes only, and what the output projection makes of them.
TEST(CudaAttend, HopperHeadsAsCodes) {
  Geometry g = many_heads();
  g.num_heads = 128;
  g.ue8m0_scales = true;
  const test::World world({"a prompt", g, Precision::official, Dtype::f8_e4m3, 70, 1, 1, false});
  emulation::hopper = true;
  emulation::shared_limit = 227 * 1024;
  test::Rig rig(world, cuda_ops(), "descending", 1);
  CudaDevice& d = cuda_device(rig.device());
  d.options.fast = true;
  test::RowSet rows = world.all();
  const RowRange range = {30, 33};
  rows.ranges = {range};
  const auto dim = static_cast<size_t>(g.hidden_size);
  std::vector<float> heads[2], delta[2];
  for (const bool coded : {false, true}) {
    d.coding_rows = coded ? range.count : 1000;
    delta[coded] = rig.run(test::Rig::Op::attn_out, rows, {test::Rig::Op::attend}).act.at(Act::delta);
    EXPECT_EQ(d.normed[0].x && d.normed[0].only_codes, coded);
    heads[coded].resize(static_cast<size_t>(range.count * g.num_heads * g.v_head_dim));
    const OpTable& ops = cuda_ops();
    ops.fetch(rig.device(), Act::heads, ops.buffer(rig.device(), Act::heads), range, heads[coded].data());
  }
  emulation::hopper = false;
  emulation::shared_limit = kPortableShared;
  const auto rows_of = [&](const std::vector<float>& y) { return y.data() + range.first * dim; };
  ASSERT_EQ(std::memcmp(rows_of(delta[0]), rows_of(delta[1]), 4 * range.count * dim), 0);
  for (size_t i = 0; i < heads[0].size(); i += kQuantBlock) {
    float largest = 0;
    for (size_t j = i; j < i + kQuantBlock; ++j) largest = std::fmax(largest, std::fabs(heads[0][j]));
    const float scale = e4m3_scale(largest, true);
    for (size_t j = i; j < i + kQuantBlock; ++j) {
      ASSERT_EQ(heads[1][j], e4m3_to_float(float_to_e4m3(heads[0][j] / scale)) * scale) << j;
    }
  }
}

TEST(CudaAttend, QueriesOfAnySize) {
  Case c(3, 4, 64, 100, {64});
  for (size_t i = 0; i < kRank; ++i) c.q_abs[i] = 0;
  for (size_t i = 0; i < kRank; ++i) c.q_abs[kRank + i] = float_to_bf16(1e-30f * normal());
  for (size_t i = 0; i < kRank; ++i) c.q_abs[2 * kRank + i] = float_to_bf16(1e-3f * normal());
  check(c);
}

// Weights far below the largest keep their bits, and are all there is where the heaviest position has zeros.
Case small_weights(int32_t heads, float gap) {  // gap: powers of two between the first weight and the rest
  Case c(2, heads, 65, 100, {65});
  const auto heavy = static_cast<size_t>(c.pages[0] * kPageTokens + c.selected[0]);
  for (size_t t = 0; t < c.cache.size() / kAttendMmaRowBytes; ++t) {
    unsigned char* row = c.cache.data() + t * kAttendMmaRowBytes;
    for (int i = 0; i < kRank && t == heavy; ++i) row[i] = 0;
    for (int i = 0; i < 8; ++i) row[i] = t == heavy ? 0x78 : t % 2;  // 256; nothing or nearly so
    for (int g = 0; g < 4; ++g) store_f32(row + kRank + 4 * g, 1);
  }
  for (size_t r = 0; r < 2; ++r) std::copy_n(&c.selected[0], 65, &c.selected[65 * r]);
  for (size_t i = 0; i < c.q_abs.size(); ++i) {
    c.q_abs[i] = float_to_bf16(i % kRank < 8 ? gap / (8 * 256 * 0.135f * 1.4427f) : 0.0f);
  }
  for (float& x : c.q) x = 0;
  return c;
}
TEST(CudaAttend, SmallWeightsCount) {
  for (const float gap : {14.0f, 20.0f, 26.0f}) check(small_weights(3, gap));
}
TEST(CudaAttend, HopperSmallWeightsCount) {
  for (const float gap : {14.0f, 26.0f}) check_wgmma(small_weights(33, gap));
}

// A latent that is much smaller than others of its tile keeps its bits: scales as far apart as the cache's
// writer can put them, and what has the larger ones weighs nothing.
Case small_latents(int32_t heads) {
  Case c(2, heads, 65, 100, {65});
  for (size_t t = 0; t < c.cache.size() / kAttendMmaRowBytes; ++t) {
    unsigned char* row = c.cache.data() + t * kAttendMmaRowBytes;
    const bool large = t % kPageTokens % 7 == 5;
    for (int i = 0; i < 8; ++i) row[i] = large ? 0xF8 : 0x78;  // -256, 256
    row[0] = static_cast<unsigned char>(row[0] - t % 8);
    for (int g = 0; g < 4; ++g) store_f32(row + kRank + 4 * g, g == 0 ? 1 : large ? 0x1p-4f : 0x1p-22f);
  }
  for (size_t i = 0; i < c.q_abs.size(); ++i) c.q_abs[i] = float_to_bf16(i % kRank < 8 ? 0.25f : 0.0f);
  for (float& x : c.q) x = 0;
  return c;
}
TEST(CudaAttend, SmallLatentsCount) { check(small_latents(3)); }
TEST(CudaAttend, HopperSmallLatentsCount) { check_wgmma(small_latents(33)); }

TEST(CudaAttend, NanIsSeen) {
  for (const bool split : {false, true}) {
    Case c(1, 2, 128, 128, {128});
    c.cache[static_cast<size_t>(c.pages[1] * kPageTokens + 3) * kAttendMmaRowBytes + 200] = 0x7F;
    EXPECT_TRUE(std::isnan(c.run(split ? 2 : 1, 0, 1)[200]));
  }
}

TEST(CudaAttend, Absorb) {
  constexpr int32_t kHeads = 3, kGroup = 256, kRows = 37;
  for (const Dtype dtype : {Dtype::f8_e4m3, Dtype::bf16}) {
    const bool fp8 = dtype == Dtype::f8_e4m3;
    std::vector<unsigned char> data(kHeads * kGroup * kRank * (fp8 ? 1 : 2));
    std::vector<float> scale, value;
    for (int i = 0; i < kHeads * kGroup / 128 * 4; ++i) scale.push_back(std::fabs(normal()) * 1e-3f);
    for (int64_t i = 0; i < kHeads * kGroup * kRank; ++i) {
      if (fp8) {
        data[static_cast<size_t>(i)] = static_cast<unsigned char>(float_to_e4m3(100 * normal()));
        value.push_back(e4m3_to_float(data[static_cast<size_t>(i)]) *
                        scale[static_cast<size_t>(i / kRank / 128 * 4 + i % kRank / 128)]);
      } else {
        const uint16_t code = float_to_bf16(normal());
        std::memcpy(&data[static_cast<size_t>(2 * i)], &code, 2);
        value.push_back(bf16_to_float(code));
      }
    }
    std::vector<float> q;
    for (int i = 0; i < kRows * kHeads * kHeadDim; ++i) q.push_back(round_bf16(normal()));
    const WeightView weight = {data.data(), scale.data(), kHeads * kGroup, kRank, kRank * (fp8 ? 1 : 2),
                               4,           dtype};
    const auto run = [&](int32_t first, int32_t rows) {
      std::vector<uint16_t> out(static_cast<size_t>(rows * kHeads * kRank));
      launch_absorb({rows, kHeads, weight, kGroup, 128, kHeadDim, q.data() + first * kHeads * kHeadDim, true,
                     true, out.data()},
                    nullptr);
      return out;
    };
    const std::vector<uint16_t> all = run(0, kRows), alone = run(20, 1);
    EXPECT_EQ(std::memcmp(alone.data(), all.data() + 20 * kHeads * kRank, 2 * alone.size()), 0);
    for (const int32_t r : {0, 15, 16, 36}) {
      for (int32_t h = 0; h < kHeads; ++h) {
        for (int64_t j = 0; j < kRank; ++j) {
          double sum = 0, size = 0;
          for (int64_t i = 0; i < 128; ++i) {
            const double product = double{value[static_cast<size_t>((h * kGroup + i) * kRank + j)]} *
                                   q[static_cast<size_t>((r * kHeads + h) * kHeadDim + i)];
            sum += product;
            size += std::fabs(product);
          }
          ASSERT_NEAR(bf16_to_float(all[static_cast<size_t>((r * kHeads + h) * kRank + j)]), sum,
                      std::fabs(sum) * 0x1p-8 + size * 0x1p-20)
              << r << " " << h << " " << j;
        }
      }
    }
  }
}

TEST(Formats, F16OfEverySize) {
  for (uint32_t code = 0; code < 0x7C00; ++code) {
    const float value = f16_to_float(static_cast<uint16_t>(code)),
                next = f16_to_float(static_cast<uint16_t>(code + 1));
    ASSERT_EQ(float_to_f16(value), code);
    ASSERT_EQ(float_to_f16(-value), code | 0x8000);
    const float middle = code == 0x7BFF ? 65520.0f : (value + next) / 2;
    ASSERT_EQ(float_to_f16(middle), code % 2 ? code + 1 : code);
    ASSERT_EQ(float_to_f16(std::nextafterf(middle, 0)), code);
  }
  EXPECT_EQ(float_to_f16(INFINITY), 0x7C00);
  EXPECT_EQ(float_to_f16(1e30f), 0x7C00);
  EXPECT_GT(float_to_f16(NAN) & 0x7FFF, 0x7C00);
}

}  // namespace
}  // namespace dsv::cuda
