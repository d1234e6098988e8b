// One list of cases, run on every target (tests/kernels/targets.h) and judged by the fp64 reference: in the
// same precision, which finds errors of the kernels, and `official` against `exact`, which finds wrong ideas
// of what is computed.
//
// In the same precision there are two limits, as the formats give them. `tight`: both sides sum the same
// products in another order; a sum of K products of about equal size carries an fp32 error of about sqrt(K) *
// 2^-24 of its size, where its size is the root mean square of the row. `flip`: before some results a value
// is rounded to e4m3 or bf16, and a difference in the last bit of fp32 may fall on the other side of a
// rounding boundary: a whole step, but seldom. So results must keep the tight limit but for a small share of
// them, which must keep the other.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "kernels/reference/formats.h"
#include "tests/kernels/targets.h"
#include "tests/kernels/world.h"

namespace dsv::test {
namespace {

using Op = Rig::Op;

constexpr double kEps = 0x1p-24;
constexpr double kBf16Step = 0x1p-7;  // of a value, at most
constexpr double kE4m3Step = 0x1p-3;

struct Limit {
  double row = 0, element = 0;            // of the row's root mean square, of the element
  double flip_row = 0, flip_element = 0;  // the same, for
  double flips = 0;                       // this share of the elements
};

// 8: both sides err, and the largest of many thousand errors is met, not the typical one.
double sum_error(int64_t products) { return 8 * std::sqrt(static_cast<double>(products)) * kEps; }

// A result of a linear over n values of which a few are off by a step: each is one of n products of about
// equal size. 4: some are larger than others.
double step_in_sum(double step, int64_t n) { return 4 * step / std::sqrt(static_cast<double>(n)); }

void compare(const std::vector<float>& got, const std::vector<float>& expected, int64_t width,
             const Limit& limit) {
  ASSERT_EQ(got.size(), expected.size());
  size_t flips = 0;
  for (size_t begin = 0; begin < got.size(); begin += static_cast<size_t>(width)) {
    double squares = 0;
    for (int64_t i = 0; i < width; ++i)
      squares += std::pow(double{expected[begin + static_cast<size_t>(i)]}, 2);
    const double rms = std::sqrt(squares / static_cast<double>(width));
    for (size_t i = begin; i < begin + static_cast<size_t>(width); ++i) {
      ASSERT_TRUE(std::isfinite(got[i]))
          << "row " << begin / static_cast<size_t>(width) << " value " << i - begin;
      const double error = std::fabs(double{got[i]} - double{expected[i]}),
                   value = std::fabs(double{expected[i]});
      if (error <= limit.row * rms + limit.element * value) continue;
      ++flips;
      ASSERT_LE(error, (limit.row + limit.flip_row) * rms + (limit.element + limit.flip_element) * value)
          << "row " << begin / static_cast<size_t>(width) << " value " << i - begin << ": " << got[i]
          << " instead of " << expected[i];
    }
  }
  EXPECT_LE(static_cast<double>(flips),
            limit.flips * static_cast<double>(got.size()) + (limit.flips > 0 ? 2 : 0));
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), 4 * a.size()) == 0);
}

Geometry small() {  // all dims differ, none is a multiple of another format's block
  Geometry g;
  g.vocab_size = 90;
  g.hidden_size = 40;
  g.num_layers = 2;
  g.num_heads = 4;
  g.q_lora_rank = 36;
  g.kv_lora_rank = 40;
  g.qk_nope_head_dim = 24;
  g.qk_rope_head_dim = 8;
  g.v_head_dim = 20;
  g.intermediate_size = 72;
  g.moe_intermediate_size = 24;
  g.n_routed_experts = 8;
  g.n_shared_experts = 1;
  g.num_experts_per_tok = 3;
  g.n_group = 4;
  g.topk_group = 2;
  g.routed_scaling_factor = 2.5;
  g.index_n_heads = 8;
  g.index_head_dim = 16;
  g.index_topk = 10;
  return g;
}

Geometry dense() {  // deepseek_v3 without q_lora; partial blocks everywhere
  Geometry g = small();
  g.q_lora_rank = 0;
  g.index_n_heads = 0;
  g.index_head_dim = g.index_topk = 0;
  g.num_heads = 1;
  g.hidden_size = 200;
  g.kv_lora_rank = 132;
  g.intermediate_size = 136;
  g.moe_intermediate_size = 140;
  g.n_group = g.topk_group = 1;
  g.n_shared_experts = 2;
  g.norm_topk_prob = false;
  g.rope_mscale = 1.1;
  g.rms_norm_eps = 1e-5;
  return g;
}

Geometry released(int32_t heads, int32_t index_heads) {  // head dims as released, the rest smaller
  Geometry g = small();
  g.hidden_size = 256;
  g.q_lora_rank = 192;
  g.kv_lora_rank = 512;
  g.qk_nope_head_dim = 128;
  g.qk_rope_head_dim = 64;
  g.v_head_dim = 128;
  g.num_heads = heads;
  g.index_n_heads = index_heads;
  g.index_head_dim = 128;
  g.index_topk = 64;
  g.intermediate_size = 256;
  g.moe_intermediate_size = 128;
  return g;
}

std::vector<Setup> setups() {
  std::vector<Setup> out;
  const auto add = [&](std::string name, Geometry g, Precision precision, Dtype dtype, int32_t rows,
                       double magnitude = 1, bool ties = false) {
    finish(g);
    name += precision == Precision::official ? "_official" : "_exact";
    out.push_back({name, g, precision, dtype, rows, magnitude, 1 + out.size(), ties});
  };
  for (const Precision precision : {Precision::official, Precision::exact}) {
    for (const int32_t rows : {0, 1, 7, 63, 64, 65, 129}) {
      add("small_rows" + std::to_string(rows), small(), precision, rows % 2 ? Dtype::f8_e4m3 : Dtype::bf16,
          rows);
    }
    add("small_f16", small(), precision, Dtype::f16, 17);
    add("small_f32", small(), precision, Dtype::f32, 18);
    add("small_huge", small(), precision, Dtype::f8_e4m3, 9, 1e6);
    add("small_tiny", small(), precision, Dtype::bf16, 9, 1e-3);
    add("small_ties", small(), precision, Dtype::bf16, 66, 1, true);
    Geometry g = small();
    g.ue8m0_scales = false;
    g.num_heads = 7;
    g.index_topk = 300;  // more than any context
    add("f32_scales", g, precision, Dtype::f8_e4m3, 65);
    add("dense_fp8", dense(), precision, Dtype::f8_e4m3, 33);
    add("dense_bf16", dense(), precision, Dtype::bf16, 33);
    add("released_heads7", released(7, 16), precision, Dtype::f8_e4m3, 20);
    add("released_heads128", released(128, 64), precision, Dtype::f8_e4m3, 2);
    if (precision == Precision::exact) continue;
    // Rows enough for a GPU to give each to one block (or two), where pieces of the batch are split.
    Geometry many = released(70, 16);
    many.index_topk = 150;
    add("released_many", many, precision, Dtype::f8_e4m3, 40);
  }
  return out;
}

// Worlds are drawn once and shared by the tests of all ops.
const World& world_of(const Setup& setup) {
  static std::map<std::string, std::unique_ptr<World>> worlds;
  std::unique_ptr<World>& world = worlds[setup.name];
  if (!world) world = std::make_unique<World>(setup);
  return *world;
}

class Conformance : public testing::TestWithParam<Setup> {
 protected:
  Conformance() : world_(world_of(GetParam())), g_(world_.g) {}
  void SetUp() override {
    if (const std::string why = why_no_cuda(); !why.empty()) GTEST_SKIP() << why;
  }
  bool official() const { return world_.setup.precision == Precision::official; }
  bool fp8() const { return official() && world_.setup.dtype == Dtype::f8_e4m3; }

  bool too_slow(const Target& target) const {
    return target.emulated && !emulate_all() && (world_.setup.rows > 9 || g_.kv_lora_rank > 128);
  }

  // check(result of a target, result of the reference), then the same bits in every other way to call it.
  template <class Check>
  void judge(Op op, Check&& check) {
    Rig reference(world_, reference_ops(), nullptr, 1);
    const Result expected = reference.run(op, world_.all());
    for (const Target& target : targets()) {
      if (too_slow(target)) continue;
      SCOPED_TRACE(std::string(target.ops->name) + " " + target.name);
      Rig rig(world_, *target.ops, target.name.c_str(), 1);
      const Result got = rig.run(op, world_.all());
      check(got, expected);
      if (HasFatalFailure()) return;
      invariant(op, rig, target, got);
    }
  }

  void invariant(Op op, Rig& rig, const Target& target, const Result& whole) {
    const int32_t rows = world_.setup.rows;
    for (const int32_t threads : {2, 3}) {
      if (!target.threaded) break;
      Rig other(world_, *target.ops, target.name.c_str(), threads);
      expect_same(other.run(op, world_.all()), whole, threads == 2 ? "2 threads" : "3 threads");
    }
    if (!target.other.empty()) {
      Rig other(world_, *target.ops, target.other.c_str(), 1);
      expect_same(other.run(op, world_.all()), whole, target.other.c_str());
    }
    RowSet pieces = world_.all();
    pieces.ranges.clear();
    for (int32_t r = 0, size = 1; r < rows; r += size, size = size % 5 + 2) {
      size = std::min(size, rows - r);
      pieces.ranges.push_back({r, size});
    }
    expect_same(rig.run(op, pieces), whole, "in pieces");
    if (rows < 2) return;

    // A part of the batch: other rows hold NaN before and after. (The cache is written in order from its
    // start.)
    RowSet part = world_.all();
    part.ranges = {{rows / 3, rows - rows / 3 - 1}};
    part.filled = part.ranges[0];
    expect_rows(rig.run(op, part), whole, part.ranges[0], 0);
    for (const int32_t r : {0, rows / 2, rows - 1}) {
      expect_rows(rig.run(op, {{r}, {{0, 1}}, {0, 1}}), whole, {0, 1}, r);
    }
  }

  static void expect_same(const Result& a, const Result& b, const char* what) {
    for (const auto& [act, values] : a.act) EXPECT_TRUE(same_bits(values, b.act.at(act))) << what;
    EXPECT_EQ(a.pages, b.pages) << what;
  }

  // Rows `range` of `part` are rows shift + range of `whole`; all others of `part` were not written.
  void expect_rows(const Result& part, const Result& whole, RowRange range, int32_t shift) const {
    for (const auto& [act, values] : part.act) {
      const auto width = static_cast<size_t>(world_.width(act));
      for (size_t i = 0; i < values.size(); ++i) {
        const auto row = static_cast<int32_t>(i / width);
        const bool outside = row < range.first || row >= range.first + range.count;
        const float& same =
            outside ? part.before.at(act)[i] : whole.act.at(act)[i + static_cast<size_t>(shift) * width];
        ASSERT_EQ(std::memcmp(&values[i], &same, sizeof same), 0)
            << (outside ? "outside the range: " : "") << "row " << row << " value " << i % width;
      }
    }
    for (size_t page = 0; page < part.pages.size(); ++page) {
      for (size_t i = 0; i < part.pages[page].size(); ++i) {
        const unsigned char byte = part.pages[page][i];
        ASSERT_TRUE(byte == 0xFF || byte == whole.pages[page][i]) << "page " << page << " byte " << i;
      }
    }
  }

  void judge_buffers(Op op, const std::map<Act, Limit>& limits) {
    judge(op, [&](const Result& got, const Result& expected) {
      for (const auto& [act, limit] : limits) {
        SCOPED_TRACE("buffer " + std::to_string(static_cast<int>(act)));
        if (world_.width(act) > 0) compare(got.act.at(act), expected.act.at(act), world_.width(act), limit);
      }
    });
  }

  // A value that is rounded to bf16 last.
  Limit rounded(Limit limit) const {
    if (official()) limit.flip_element = kBf16Step, limit.flips = 0.01;
    return limit;
  }
  // The result of a linear whose n inputs are computed and then rounded.
  Limit rounded_inside(int64_t n, double input_error) const {
    Limit limit{input_error + sum_error(n), 0, 0, 0, 0};
    if (official()) limit.flip_row = step_in_sum(fp8() ? kE4m3Step : kBf16Step, n), limit.flips = 0.25;
    return limit;
  }

  const World& world_;
  const Geometry& g_;
};

TEST_P(Conformance, Embed) { judge_buffers(Op::embed, {{Act::x, {}}}); }

TEST_P(Conformance, AddNorm) {
  judge_buffers(Op::add_norm, {{Act::x, {0, kEps, 0, 0, 0}},
                               {Act::h, rounded({0, sum_error(g_.hidden_size) + 8 * kEps, 0, 0, 0})}});
}

TEST_P(Conformance, AttnIn) {
  const Limit sum{sum_error(g_.hidden_size), 0, 0, 0, 0};
  judge_buffers(Op::attn_in, {{Act::q_latent, rounded({2 * sum.row, 4 * kEps, 0, 0, 0})},
                              {Act::kv_raw, sum},
                              {Act::index_k_raw, sum},
                              {Act::index_weight, sum}});
}

TEST_P(Conformance, AttnQ) {
  const int64_t n = g_.q_lora_rank > 0 ? g_.q_lora_rank : g_.hidden_size;
  const Limit q{sum_error(n), 4 * kEps, 0, 0, 0};
  Limit index_q{2 * sum_error(n + g_.index_head_dim), 4 * kEps, 0, 0, 0};
  if (official()) {
    // A step of e4m3, or of its subnormals: 2^-9 of a scale that is at most 2 * amax / 448, amax < 6 rms.
    index_q.flip_element = kE4m3Step;
    index_q.flip_row = 0x1p-9 * 2 * 6 / 448;
    index_q.flips = 0.01;
  }
  judge_buffers(Op::attn_q, {{Act::q, rounded(q)}, {Act::index_q, index_q}});
}

// Scores of size s err by about sqrt(rank) * 2^-24 * s, and so do the weights e^score. In `official` softmax
// weights may be bf16, and q_abs, the mix of latents and the result are rounded to it: each time half a step
// at most, and a row is thousands of values of which the worst counts.
TEST_P(Conformance, Attend) {
  for (const Op op : {Op::attend, Op::attend_all}) {
    if (op == Op::attend && !g_.has_indexer()) continue;
    Limit limit{8 * sum_error(g_.kv_lora_rank + kMaxContext), 0, 0, 0, 0};
    if (official()) limit.row += 2 * kBf16Step, limit.element += kBf16Step;
    judge_buffers(op, {{Act::heads, limit}});
  }
}

// Work follows k, not the context: with NaN in every row of the cache that is not selected, and in the index
// keys, the same bits come out.
TEST_P(Conformance, AttendReadsWhatIsSelected) {
  if (!g_.has_indexer()) return;
  for (const Target& target : targets()) {
    if (too_slow(target)) continue;
    SCOPED_TRACE(target.name);
    for (const int32_t threads : {1, 3}) {
      if (threads > 1 && !target.threaded) continue;
      Rig rig(world_, *target.ops, target.name.c_str(), threads);
      for (int32_t r = 0; r < world_.setup.rows; r += 1 + world_.setup.rows / 7) {
        RowSet row{{r}, {{0, 1}}, {0, 1}};
        const Result whole = rig.run(Op::attend, row);
        row.only_selected = true;
        const Result poisoned = rig.run(Op::attend, row);
        for (const float value : poisoned.act.at(Act::heads))
          ASSERT_TRUE(std::isfinite(value)) << "row " << r;
        expect_same(poisoned, whole, "NaN beside the selected rows");
        if (world_.position[static_cast<size_t>(r)] < world_.n_selected(r)) continue;
        const Result all = rig.run(Op::attend_all, row);
        EXPECT_TRUE(std::isnan(all.act.at(Act::heads)[0])) << "the NaN is there for who reads everything";
      }
    }
  }
}

TEST_P(Conformance, AttnOut) {
  judge_buffers(Op::attn_out, {{Act::delta, {sum_error(g_.num_heads * g_.v_head_dim), 0, 0, 0, 0}}});
}

TEST_P(Conformance, Ffn) {
  judge_buffers(Op::ffn, {{Act::delta, rounded_inside(g_.intermediate_size, 2 * sum_error(g_.hidden_size))}});
}

TEST_P(Conformance, Experts) {
  judge_buffers(Op::experts,
                {{Act::delta, rounded_inside(g_.moe_intermediate_size, 4 * sum_error(g_.hidden_size))}});
}

TEST_P(Conformance, MtpIn) {
  judge_buffers(Op::mtp_in, {{Act::mtp_x, rounded_inside(2 * g_.hidden_size, sum_error(g_.hidden_size))}});
}

TEST_P(Conformance, Logits) {
  Limit limit = rounded_inside(g_.hidden_size, sum_error(g_.hidden_size));
  if (limit.flip_row > 0)
    limit.flip_row = step_in_sum(kBf16Step, g_.hidden_size);  // the head is never FP8 here
  judge_buffers(Op::logits, {{Act::logits, limit}});
}

// Against exact arithmetic: e4m3 moves a value by up to 2^-4 of it and bf16 by up to 2^-8, two linears in a
// row do it twice; 4 as above.
TEST_P(Conformance, OfficialIsNearExact) {
  if (!official()) return;
  const double move = world_.setup.dtype == Dtype::f8_e4m3 ? 0x1p-4 : 0x1p-8;
  const Limit limit{4 * 2 * move, 0, 0, 0, 0};
  for (const auto& [op, act] : {std::pair{Op::attn_in, Act::q_latent},
                                {Op::attn_in, Act::kv_raw},
                                {Op::attn_in, Act::index_k_raw},
                                {Op::attn_q, Act::q},
                                {Op::attn_out, Act::delta},
                                {Op::ffn, Act::delta},
                                {Op::experts, Act::delta},
                                {Op::mtp_in, Act::mtp_x}}) {
    if (world_.width(act) == 0) continue;
    Rig exact(world_, reference_ops(), nullptr, 1, Precision::exact);
    const Result expected = exact.run(op, world_.all());
    for (const Target& target : targets()) {
      if (too_slow(target)) continue;
      SCOPED_TRACE(std::string(target.ops->name) + " " + target.name);
      Rig rig(world_, *target.ops, target.name.c_str(), 1);
      compare(rig.run(op, world_.all()).act.at(act), expected.act.at(act), world_.width(act), limit);
    }
  }
}

TEST_P(Conformance, Route) {
  judge(Op::route, [&](const Result& got, const Result& expected) {
    const std::vector<float>&experts = got.act.at(Act::expert), &weights = got.act.at(Act::expert_weight),
          &expected_weights = expected.act.at(Act::expert_weight);
    EXPECT_EQ(experts, expected.act.at(Act::expert));  // the drawn scores are not that near
    const auto k = static_cast<size_t>(g_.num_experts_per_tok);
    for (size_t i = 0; i < weights.size(); ++i) {
      ASSERT_NEAR(weights[i], expected_weights[i], 4 * sum_error(g_.hidden_size) * expected_weights[i]);
      if (world_.setup.ties) {
        ASSERT_EQ(experts[i], static_cast<float>(i % k)) << "equal experts: the first ones";
      }
    }
  });
}

// Codes are compared by value: one of a hundred may be a step off.
TEST_P(Conformance, CacheAppend) {
  const KvLayout layout(g_, world_.setup.precision, true);
  const auto rank = static_cast<size_t>(g_.kv_lora_rank), rope = static_cast<size_t>(g_.qk_rope_head_dim),
             dim = static_cast<size_t>(g_.index_head_dim);
  const auto f32 = [](const unsigned char* at) {
    float value;
    std::memcpy(&value, at, sizeof value);
    return value;
  };
  const auto latent = [&](const std::vector<unsigned char>& page, int32_t slot) {
    const unsigned char* row = page.data() + slot * layout.latent_row_bytes;
    std::vector<float> out;
    if (!official()) {
      for (size_t i = 0; i < rank + rope; ++i) out.push_back(f32(row + 4 * i));
      return out;
    }
    const unsigned char* scales = row + rank;
    const unsigned char* tail = scales + 4 * ((rank + 127) / 128);
    for (size_t i = 0; i < rank; ++i) {
      int exponent;
      EXPECT_EQ(std::frexp(f32(scales + 4 * (i / 128)), &exponent), 0.5f) << "a power of two";
      out.push_back(static_cast<float>(reference::decode_e4m3(row[i])) * f32(scales + 4 * (i / 128)));
    }
    for (size_t i = 0; i < rope; ++i) {
      uint16_t code;
      std::memcpy(&code, tail + 2 * i, sizeof code);
      out.push_back(static_cast<float>(reference::decode_bf16(code)));
    }
    return out;
  };
  const auto key = [&](const std::vector<unsigned char>& page, int32_t slot) {
    const unsigned char* keys = page.data() + kPageTokens * layout.latent_row_bytes;
    std::vector<float> out;
    for (size_t i = 0; i < dim; ++i) {
      const size_t at = static_cast<size_t>(slot) * dim + i;
      out.push_back(official() ? static_cast<float>(reference::decode_e4m3(keys[at])) *
                                     f32(keys + kPageTokens * dim + 4 * static_cast<size_t>(slot))
                               : f32(keys + 4 * at));
    }
    return out;
  };
  judge(Op::cache_append, [&](const Result& got, const Result& expected) {
    Limit limit{sum_error(g_.kv_lora_rank) + 16 * kEps, 16 * kEps, 0, 0, 0};
    if (official()) {
      limit.flip_element = kE4m3Step;
      limit.flip_row = 0x1p-9 * 2 * 6 / 448;
      limit.flips = 0.01;
    }
    std::vector<float> got_latents, latents, got_keys, keys;
    std::set<std::pair<int32_t, int32_t>> written;
    for (size_t r = 0; r < world_.position.size(); ++r) {
      const int32_t page = world_.page_table[static_cast<size_t>(world_.sequence[r] * world_.page_stride +
                                                                 world_.position[r] / kPageTokens)];
      const int32_t slot = world_.position[r] % kPageTokens;
      written.insert({page, slot});
      const auto append = [](std::vector<float>& to, const std::vector<float>& from) {
        to.insert(to.end(), from.begin(), from.end());
      };
      append(got_latents, latent(got.pages[static_cast<size_t>(page)], slot));
      append(latents, latent(expected.pages[static_cast<size_t>(page)], slot));
      if (dim == 0) continue;
      append(got_keys, key(got.pages[static_cast<size_t>(page)], slot));
      append(keys, key(expected.pages[static_cast<size_t>(page)], slot));
    }
    ASSERT_NO_FATAL_FAILURE(compare(got_latents, latents, g_.latent_dim(), limit));
    if (dim > 0) {
      ASSERT_NO_FATAL_FAILURE(compare(got_keys, keys, g_.index_head_dim, limit));
    }
    // Nothing else was touched.
    for (int32_t page = 0; page < kPages; ++page) {
      const std::vector<unsigned char>& bytes = got.pages[static_cast<size_t>(page)];
      for (int32_t slot = 0; slot < kPageTokens; ++slot) {
        if (written.count({page, slot})) continue;
        const auto row = bytes.begin() + slot * layout.latent_row_bytes;
        ASSERT_EQ(std::count(row, row + layout.latent_row_bytes, 0xFF), layout.latent_row_bytes);
        for (const float value : key(bytes, slot)) ASSERT_TRUE(std::isnan(value));
      }
    }
  });
}

// Scores in double from the cache's bytes; a position may stand in for another only if their scores are
// nearer than fp32 tells apart, and never for a lower one that is exactly equal.
TEST_P(Conformance, IndexSelect) {
  if (!g_.has_indexer()) return;
  const KvLayout layout(g_, world_.setup.precision, true);
  const auto dim = static_cast<size_t>(g_.index_head_dim), heads = static_cast<size_t>(g_.index_n_heads);
  const auto key = [&](int32_t row, int32_t s) {
    const auto page = static_cast<size_t>(world_.page_table[static_cast<size_t>(
        world_.sequence[static_cast<size_t>(row)] * world_.page_stride + s / kPageTokens)]);
    const unsigned char* keys = world_.pages[page].data() + kPageTokens * layout.latent_row_bytes;
    const auto slot = static_cast<size_t>(s % kPageTokens);
    std::vector<double> out(dim);
    for (size_t i = 0; i < dim; ++i) {
      float value;
      std::memcpy(&value, keys + (official() ? kPageTokens * dim + 4 * slot : 4 * (slot * dim + i)),
                  sizeof value);
      out[i] = official() ? reference::decode_e4m3(keys[slot * dim + i]) * double{value} : double{value};
    }
    return out;
  };
  std::vector<float> index_q = world_.input.at(Act::index_q);
  for (size_t at = 0; official() && at < index_q.size(); at += dim) {
    std::vector<double> head(index_q.begin() + static_cast<std::ptrdiff_t>(at),
                             index_q.begin() + static_cast<std::ptrdiff_t>(at + dim));
    reference::quantise_group(head.data(), g_.index_head_dim, g_.ue8m0_scales);
    std::copy(head.begin(), head.end(), index_q.begin() + static_cast<std::ptrdiff_t>(at));
  }
  const auto check = [&](const Result& got) {
    for (int32_t r = 0; r < world_.setup.rows; ++r) {
      const int32_t visible = world_.position[static_cast<size_t>(r)] + 1,
                    k = std::min(visible, g_.index_topk);
      ASSERT_EQ(got.act.at(Act::n_selected)[static_cast<size_t>(r)], static_cast<float>(k));
      const auto begin = got.act.at(Act::selected).begin() + int64_t{r} * g_.index_topk;
      ASSERT_TRUE(std::is_sorted(begin, begin + k, std::less_equal<float>())) << "ascending, each once";
      ASSERT_TRUE(*begin >= 0 && begin[k - 1] < visible);
      std::vector<double> score(static_cast<size_t>(visible), 0);
      double largest = 0;
      for (int32_t s = 0; s < visible; ++s) {
        const std::vector<double> k_s = key(r, s);
        double size = 0;
        for (size_t h = 0; h < heads; ++h) {
          double product = 0;
          const auto at = static_cast<size_t>(r) * heads + h;
          for (size_t i = 0; i < dim; ++i) product += k_s[i] * index_q[at * dim + i];
          const double term = std::max(product, 0.0) * world_.input.at(Act::index_weight)[at];
          score[static_cast<size_t>(s)] += term;
          size += std::fabs(term);
        }
        largest = std::max(largest, size);
      }
      const double near = largest * sum_error(g_.index_head_dim + g_.index_n_heads);
      const std::set<int32_t> chosen(begin, begin + k);
      for (int32_t out = 0; out < visible; ++out) {
        if (chosen.count(out)) continue;
        const double left = score[static_cast<size_t>(out)];
        for (const int32_t in : chosen) {
          const double taken = score[static_cast<size_t>(in)];
          ASSERT_GE(taken, left - near) << "row " << r << ": took " << in << ", left " << out;
          ASSERT_FALSE(taken == left && out < in)
              << "row " << r << ": a tie went to " << in << ", not " << out;
        }
      }
    }
  };
  judge(Op::index_select, [&](const Result& got, const Result& expected) {
    ASSERT_NO_FATAL_FAILURE(check(expected));
    ASSERT_NO_FATAL_FAILURE(check(got));
  });
}

INSTANTIATE_TEST_SUITE_P(Cases, Conformance, testing::ValuesIn(setups()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace dsv::test
