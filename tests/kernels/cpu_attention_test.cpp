// The CPU backend's cache_append, index_select and attend on every instruction set of this machine, against
// double loops; what no row may read holds NaN.
#include "tests/kernels/cpu_attention_fixture.h"

namespace dsv {
namespace {

class CpuAttention : public testing::TestWithParam<Case> {};

// Selected positions of a row, every `step`-th of 0 .. t.
std::vector<int32_t> every(int32_t t, int32_t step, int32_t k) {
  std::vector<int32_t> list;
  for (int32_t p = t % step; p <= t && static_cast<int32_t>(list.size()) < k; p += step) list.push_back(p);
  return list;
}

TEST_P(CpuAttention, AttendMatchesDoubleLoops) {
  const Case& c = GetParam();
  const Geometry& g = c.geometry;
  Fixture f(c, 2, 900);
  f.fill_cache(900);
  StoredWeight kv_b("kv_b", c.weight, g.num_heads * (g.qk_nope_head_dim + g.v_head_dim), g.kv_lora_rank,
                    f.random, 0.05f);
  AttentionWeights weights;
  weights.kv_b = f.ops.load_weight(f.device, kv_b.matrix);
  f.begin({0, 1, 63, 64, 333, 899});
  const auto rows = static_cast<int32_t>(f.position.size());
  const std::vector<float> q = f.store_random(Act::q, rows, g.num_heads * g.qk_head_dim());

  for (const bool sparse : {false, true}) {
    std::vector<float> selected(static_cast<size_t>(rows * g.index_topk), -1), n_selected;
    for (int32_t r = 0; r < rows; ++r) {
      const auto list = every(f.position[static_cast<size_t>(r)], 3, g.index_topk);
      std::copy(list.begin(), list.end(), selected.begin() + r * g.index_topk);
      n_selected.push_back(static_cast<float>(list.size()));
    }
    f.ops.store(f.device, Act::selected, f.ops.buffer(f.device, Act::selected), {0, rows}, selected.data());
    f.ops.store(f.device, Act::n_selected, f.ops.buffer(f.device, Act::n_selected), {0, rows},
                n_selected.data());
    f.store_random(Act::heads, rows, g.num_heads * g.v_head_dim);
    f.ops.attend(f.device, {{0, rows},
                            Fixture::kLayer,
                            &weights,
                            f.ops.buffer(f.device, Act::q),
                            sparse ? f.ops.buffer(f.device, Act::selected) : nullptr,
                            sparse ? f.ops.buffer(f.device, Act::n_selected) : nullptr,
                            f.ops.buffer(f.device, Act::heads)});
    const std::vector<float> heads = f.fetch(Act::heads, rows, g.num_heads * g.v_head_dim);

    for (int32_t r = 0; r < rows; ++r) {
      const auto t = f.position[static_cast<size_t>(r)];
      const std::vector<int32_t> list = sparse ? every(t, 3, g.index_topk) : every(t, 1, t + 1);
      for (int32_t h = 0; h < g.num_heads; ++h) {
        const float* query = q.data() + (r * g.num_heads + h) * g.qk_head_dim();
        const double* w_k = kv_b.values.data() + h * (g.qk_nope_head_dim + g.v_head_dim) * g.kv_lora_rank;
        const double* w_v = w_k + g.qk_nope_head_dim * g.kv_lora_rank;
        std::vector<double> q_abs(static_cast<size_t>(g.kv_lora_rank)), q_size(q_abs.size());
        for (int64_t i = 0; i < g.qk_nope_head_dim; ++i) {
          for (int64_t j = 0; j < g.kv_lora_rank; ++j) {
            q_abs[static_cast<size_t>(j)] += query[i] * w_k[i * g.kv_lora_rank + j];
            q_size[static_cast<size_t>(j)] += std::fabs(query[i] * w_k[i * g.kv_lora_rank + j]);
          }
        }
        // An f32 sum of n products is off by n 2^-24 of their sizes at most; official rounds q_abs, the
        // softmax weights, o and the result to bf16, 2^-9 each.
        const double bf16 = f.official() ? 0x1p-9 : 0;
        const auto f32 = [](int64_t n) { return static_cast<double>(n) * 0x1p-24; };
        std::vector<double> score;
        double score_error = 0;
        for (const int32_t p : list) {
          const double* row = f.latent.data() + p * g.latent_dim();
          double sum = 0, error = 0;
          for (int64_t i = 0; i < g.latent_dim(); ++i) {
            const bool rope = i >= g.kv_lora_rank;
            const double value =
                rope ? query[g.qk_nope_head_dim + i - g.kv_lora_rank] : q_abs[static_cast<size_t>(i)];
            sum += value * row[i];
            error += std::fabs(value * row[i]) * (f32(g.latent_dim()) + (rope ? 0 : bf16));
            if (!rope) error += q_size[static_cast<size_t>(i)] * std::fabs(row[i]) * f32(g.qk_nope_head_dim);
          }
          score.push_back(sum * g.softmax_scale);
          score_error = std::max(score_error, error * g.softmax_scale);
        }
        const double top = *std::max_element(score.begin(), score.end());
        double total = 0;
        for (double& s : score) total += s = std::exp(s - top);
        std::vector<double> o(q_abs.size()), o_size(q_abs.size());
        for (size_t s = 0; s < list.size(); ++s) {
          for (size_t i = 0; i < o.size(); ++i) {
            const double part =
                score[s] / total * f.latent[static_cast<size_t>(list[s] * g.latent_dim()) + i];
            o[i] += part;
            o_size[i] += std::fabs(part);
          }
        }
        const auto n = static_cast<int64_t>(list.size());
        for (int64_t v = 0; v < g.v_head_dim; ++v) {
          double sum = 0, error = 0;
          for (int64_t i = 0; i < g.kv_lora_rank; ++i) {
            const double w = w_v[v * g.kv_lora_rank + i];
            const auto at = static_cast<size_t>(i);
            sum += w * o[at];
            error += std::fabs(w) * (o_size[at] * (2 * score_error + bf16 + 2 * f32(n + 16)) +
                                     std::fabs(o[at]) * (bf16 + f32(g.kv_lora_rank)));
          }
          const float got = heads[static_cast<size_t>((r * g.num_heads + h) * g.v_head_dim + v)];
          ASSERT_NEAR(got, sum, error + std::fabs(sum) * bf16 + 1e-12)
              << "row " << r << " head " << h << " value " << v << (sparse ? " sparse" : " dense");
        }
      }
    }
  }
}

// A row's result is bitwise the same alone, in any range, on any number of threads, with few rows or many.
TEST_P(CpuAttention, RowsDoNotDependOnTheBatch) {
  const Case& c = GetParam();
  const Geometry& g = c.geometry;
  constexpr int32_t kTokens = 700, kBatch = Fixture::kRows;
  std::vector<float> heads[3];
  std::vector<float> selections[3];
  int variant = 0;
  for (const int32_t threads : {1, 3, 2}) {
    Fixture f(c, threads, kTokens);
    f.fill_cache(kTokens);
    StoredWeight kv_b("kv_b", c.weight, g.num_heads * (g.qk_nope_head_dim + g.v_head_dim), g.kv_lora_rank,
                      f.random, 0.05f);
    AttentionWeights weights;
    weights.kv_b = f.ops.load_weight(f.device, kv_b.matrix);
    std::vector<int32_t> at(kBatch);
    std::iota(at.begin(), at.end(), kTokens - kBatch);
    f.begin(at);
    f.store_random(Act::q, kBatch, g.num_heads * g.qk_head_dim());
    f.store_random(Act::index_q, kBatch, g.index_n_heads * g.index_head_dim);
    f.store_random(Act::index_weight, kBatch, g.index_n_heads);
    const int32_t step = variant == 0 ? kBatch : variant == 1 ? 1 : 7;
    for (int32_t first = 0; first < kBatch; first += step) {
      const RowRange range{first, std::min(step, kBatch - first)};
      f.ops.index_select(f.device,
                         {range, Fixture::kLayer, f.ops.buffer(f.device, Act::index_q),
                          f.ops.buffer(f.device, Act::index_weight), f.ops.buffer(f.device, Act::selected),
                          f.ops.buffer(f.device, Act::n_selected)});
      f.ops.attend(f.device, {range, Fixture::kLayer, &weights, f.ops.buffer(f.device, Act::q),
                              f.ops.buffer(f.device, Act::selected), f.ops.buffer(f.device, Act::n_selected),
                              f.ops.buffer(f.device, Act::heads)});
    }
    heads[variant] = f.fetch(Act::heads, kBatch, g.num_heads * g.v_head_dim);
    selections[variant++] = f.fetch(Act::selected, kBatch, g.index_topk);
  }
  for (int other : {1, 2}) {
    EXPECT_EQ(selections[0], selections[other]);
    EXPECT_EQ(0, std::memcmp(heads[0].data(), heads[other].data(), heads[0].size() * sizeof(float)));
  }
}

TEST_P(CpuAttention, IndexSelectMatchesDoubleLoops) {
  const Case& c = GetParam();
  const Geometry& g = c.geometry;
  const int32_t k = g.index_topk;
  // Positions that repeat seven keys tie by the dozen: the lowest must win.
  for (const int32_t distinct : {0, 7}) {
    Fixture f(c, 2, 640);
    f.fill_cache(640, distinct);
    f.begin({0, k - 1, k, 511, 512, 639});
    const auto rows = static_cast<int32_t>(f.position.size());
    const std::vector<float> q = f.store_random(Act::index_q, rows, g.index_n_heads * g.index_head_dim);
    const std::vector<float> w = f.store_random(Act::index_weight, rows, g.index_n_heads);
    f.ops.index_select(f.device, {{0, rows},
                                  Fixture::kLayer,
                                  f.ops.buffer(f.device, Act::index_q),
                                  f.ops.buffer(f.device, Act::index_weight),
                                  f.ops.buffer(f.device, Act::selected),
                                  f.ops.buffer(f.device, Act::n_selected)});
    const std::vector<float> selected = f.fetch(Act::selected, rows, k),
                             n_selected = f.fetch(Act::n_selected, rows, 1);
    for (int32_t r = 0; r < rows; ++r) {
      const int32_t visible = f.position[static_cast<size_t>(r)] + 1;
      const int32_t n = std::min(k, visible);
      ASSERT_EQ(n_selected[static_cast<size_t>(r)], static_cast<float>(n));
      const std::vector<int32_t> got(selected.begin() + r * k, selected.begin() + r * k + n);
      ASSERT_TRUE(std::is_sorted(got.begin(), got.end()));
      std::vector<double> score, error;
      for (int32_t p = 0; p < visible; ++p) {
        double sum = 0, size = 0;
        for (int32_t h = 0; h < g.index_n_heads; ++h) {
          double dot = 0, dot_size = 0;
          for (int64_t i = 0; i < g.index_head_dim; ++i) {
            const double part = q[static_cast<size_t>((r * g.index_n_heads + h) * g.index_head_dim + i)] *
                                f.key[static_cast<size_t>(p * g.index_head_dim + i)];
            dot += part;
            dot_size += std::fabs(part);
          }
          const double weight = w[static_cast<size_t>(r * g.index_n_heads + h)];
          sum += std::max(dot, 0.0) * weight;
          size += dot_size * std::fabs(weight);
        }
        score.push_back(sum);
        error.push_back(size * static_cast<double>(g.index_head_dim + g.index_n_heads + 4) * 0x1p-24);
      }
      const std::set<int32_t> chosen(got.begin(), got.end());
      ASSERT_EQ(chosen.size(), static_cast<size_t>(n));
      ASSERT_TRUE(*chosen.begin() >= 0 && *chosen.rbegin() < visible);
      for (int32_t out = 0; out < visible; ++out) {
        if (chosen.count(out) != 0) continue;
        for (const int32_t in : got) {
          const auto a = static_cast<size_t>(in), b = static_cast<size_t>(out);
          ASSERT_GE(score[a] + error[a] + error[b], score[b])
              << "row " << r << ": " << in << " before " << out;
          if (distinct != 0 && in % distinct == out % distinct) {
            ASSERT_LT(in, out) << "row " << r;
          }
        }
      }
    }
  }
}

// Scores that are all zero, of either sign, tie as well.
TEST_P(CpuAttention, ZeroScoresTie) {
  const Case& c = GetParam();
  const Geometry& g = c.geometry;
  Fixture f(c, 2, 400);
  f.fill_cache(400);
  f.begin({399});
  f.store_random(Act::index_q, 1, g.index_n_heads * g.index_head_dim, 0);
  f.store_random(Act::index_weight, 1, g.index_n_heads);
  std::vector<float> expected(static_cast<size_t>(g.index_topk));
  f.ops.index_select(f.device, {{0, 1},
                                Fixture::kLayer,
                                f.ops.buffer(f.device, Act::index_q),
                                f.ops.buffer(f.device, Act::index_weight),
                                f.ops.buffer(f.device, Act::selected),
                                f.ops.buffer(f.device, Act::n_selected)});
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(f.fetch(Act::selected, 1, g.index_topk), expected);
}

TEST_P(CpuAttention, CacheAppendMatchesDoubleLoops) {
  const Case& c = GetParam();
  const Geometry& g = c.geometry;
  const int64_t rank = g.kv_lora_rank, rope = g.qk_rope_head_dim, dim = g.index_head_dim;
  Fixture f(c, 2, 300);
  StoredWeight norm("kv_a_norm", Dtype::bf16, 1, rank, f.random, 1),
      k_weight("k_norm", Dtype::f32, 1, dim, f.random, 1),
      k_bias("k_norm_bias", Dtype::f32, 1, dim, f.random, 1);
  AttentionWeights weights;
  weights.kv_a_norm = f.ops.load_weight(f.device, norm.matrix);
  weights.k_norm_weight = f.ops.load_weight(f.device, k_weight.matrix);
  weights.k_norm_bias = f.ops.load_weight(f.device, k_bias.matrix);
  std::vector<int32_t> at(Fixture::kRows);
  std::iota(at.begin(), at.end(), 100);
  f.begin(at);
  const auto rows = static_cast<int32_t>(at.size());
  const std::vector<float> raw = f.store_random(Act::kv_raw, rows, rank + rope);
  const std::vector<float> key_raw = f.store_random(Act::index_k_raw, rows, dim);
  f.ops.cache_append(f.device, {{0, rows},
                                Fixture::kLayer,
                                &weights,
                                f.ops.buffer(f.device, Act::kv_raw),
                                f.ops.buffer(f.device, Act::index_k_raw)});

  std::vector<unsigned char> page(
      static_cast<size_t>(kPageTokens * f.layout.latent_row_bytes + f.layout.index_page_bytes));
  for (int32_t p = 64; p < 192; ++p) {
    f.ops.read_kv(f.device, Fixture::kLayer, f.page_table[static_cast<size_t>(p / kPageTokens)], page.data());
    const int64_t slot = p % kPageTokens;
    const unsigned char* row = page.data() + slot * f.layout.latent_row_bytes;
    if (p < 100 || p >= 100 + rows) {  // not written
      for (int64_t i = 0; i < f.layout.latent_row_bytes; ++i) ASSERT_EQ(row[i], 0xFF) << p;
      continue;
    }
    const int32_t r = p - 100;
    std::vector<double> x(raw.begin() + r * (rank + rope), raw.begin() + (r + 1) * (rank + rope));
    double squares = 0;
    for (int64_t i = 0; i < rank; ++i) squares += x[static_cast<size_t>(i)] * x[static_cast<size_t>(i)];
    for (int64_t i = 0; i < rank; ++i) {
      x[static_cast<size_t>(i)] *=
          norm.values[static_cast<size_t>(i)] / std::sqrt(squares / static_cast<double>(rank) + kLatentEps);
    }
    const auto turn = [&](double& a, double& b, int64_t i) {
      const double angle = p * g.inv_freq[static_cast<size_t>(i)], u = a, v = b;
      a = u * std::cos(angle) - v * std::sin(angle);
      b = u * std::sin(angle) + v * std::cos(angle);
    };
    for (int64_t i = 0; i < rope / 2; ++i) {
      turn(x[static_cast<size_t>(rank + 2 * i)], x[static_cast<size_t>(rank + 2 * i + 1)], i);
    }
    // e4m3 is off by half a step of 2^-3, at least of the smallest step; powers of two above amax / 448.
    const auto e4m3_error = [](double value, double scale) {
      return std::max(std::fabs(value) * 0x1p-4, scale * 0x1p-10);
    };
    const double f32 = 0x1p-18;  // some 2^5 roundings of values near 1
    for (int64_t i = 0; i < rank + rope; ++i) {
      const double want = x[static_cast<size_t>(i)];
      double got, error = f32;
      if (!f.official()) {
        got = load<float>(row + 4 * i);
      } else if (i < rank) {
        const float scale = load<float>(row + rank + 4 * (i / kQuantBlock));
        double amax = 1e-4;
        for (int64_t j = i / kQuantBlock * kQuantBlock;
             j < std::min(rank, (i / kQuantBlock + 1) * kQuantBlock); ++j) {
          amax = std::max(amax, std::fabs(x[static_cast<size_t>(j)]));
        }
        ASSERT_EQ(scale, std::exp2(std::ceil(std::log2(amax / 448)))) << p;
        got = decode_e4m3(row[i]) * scale;
        error += e4m3_error(want, scale);
      } else {
        got = decode_bf16(load<uint16_t>(row + rank + (rank + 127) / 128 * 4 + 2 * (i - rank)));
        error += std::fabs(want) * 0x1p-8;
      }
      ASSERT_NEAR(got, want, error) << "position " << p << " value " << i;
    }

    std::vector<double> k(key_raw.begin() + r * dim, key_raw.begin() + (r + 1) * dim);
    const double mean = std::accumulate(k.begin(), k.end(), 0.0) / static_cast<double>(dim);
    double variance = 0;
    for (const double v : k) variance += (v - mean) * (v - mean) / static_cast<double>(dim);
    for (size_t i = 0; i < k.size(); ++i) {
      k[i] = (k[i] - mean) / std::sqrt(variance + kLatentEps) * k_weight.values[i] + k_bias.values[i];
    }
    for (int64_t i = 0; i < rope / 2; ++i)
      turn(k[static_cast<size_t>(i)], k[static_cast<size_t>(i + rope / 2)], i);
    const unsigned char* index = page.data() + kPageTokens * f.layout.latent_row_bytes;
    for (int64_t i = 0; i < dim; ++i) {
      if (!f.official()) {
        ASSERT_NEAR(load<float>(index + 4 * (slot * dim + i)), k[static_cast<size_t>(i)], f32);
        continue;
      }
      double want = 0;
      for (int64_t j = 0; j < dim; ++j) {
        want += (std::popcount(static_cast<uint64_t>(i & j)) % 2 != 0 ? -1 : 1) * k[static_cast<size_t>(j)];
      }
      want /= std::sqrt(static_cast<double>(dim));
      const float scale = load<float>(index + kPageTokens * dim + 4 * slot);
      ASSERT_NEAR(decode_e4m3(index[slot * dim + i]) * scale, want, f32 + e4m3_error(want, scale));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, CpuAttention, testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace dsv
