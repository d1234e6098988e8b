// The CPU backend's cache_append, index_select and attend on every instruction set of this machine, against
// double loops; what no row may read holds NaN.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "backend/ops.h"

namespace dsv {
namespace {

double decode_e4m3(uint8_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const double value = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return code & 0x80 ? -value : value;
}
float decode_bf16(uint16_t half) { return std::bit_cast<float>(uint32_t{half} << 16); }
uint16_t to_bf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
template <class T>
T load(const unsigned char* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <class T>
void save(unsigned char* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

Geometry released_geometry() {
  Geometry g;
  g.vocab_size = 16;
  g.hidden_size = 64;
  g.num_layers = 2;
  g.num_heads = 32;
  g.q_lora_rank = 64;
  g.kv_lora_rank = 512;
  g.qk_nope_head_dim = 128;
  g.qk_rope_head_dim = 64;
  g.v_head_dim = 128;
  g.intermediate_size = 64;
  g.index_n_heads = 16;
  g.index_head_dim = 128;
  g.index_topk = 300;
  return g;
}

Geometry odd_geometry() {  // nothing is a multiple of a vector, a tile or a scale block
  Geometry g = released_geometry();
  g.num_heads = 3;
  g.kv_lora_rank = 150;
  g.qk_nope_head_dim = 37;
  g.qk_rope_head_dim = 6;
  g.v_head_dim = 51;
  g.index_n_heads = 5;
  g.index_head_dim = 16;
  g.index_topk = 41;
  return g;
}

Geometry many_heads_geometry() {
  Geometry g = released_geometry();
  g.num_heads = 72;
  g.kv_lora_rank = 96;
  g.qk_nope_head_dim = 192;
  g.qk_rope_head_dim = 32;
  g.v_head_dim = 16;
  g.index_n_heads = 64;
  g.index_head_dim = 64;
  g.index_topk = 64;
  return g;
}

struct Case {
  std::string name, target;
  Geometry geometry;
  Precision precision;
  Dtype weight;
};

void finish_geometry(Geometry& g) {
  g.softmax_scale = 1 / std::sqrt(static_cast<double>(g.qk_head_dim()));
  g.inv_freq.clear();
  for (int64_t i = 0; i < g.qk_rope_head_dim / 2; ++i) {
    g.inv_freq.push_back(
        std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(g.qk_rope_head_dim)));
  }
}

std::vector<Case> cases() {
  std::vector<Case> list;
  std::istringstream targets(cpu_targets());
  for (std::string target; targets >> target;) {
    const auto add = [&](const char* name, Geometry g, Precision precision, Dtype weight) {
      finish_geometry(g);
      list.push_back({target + "_" + name, target, g, precision, weight});
    };
    add("released_official", released_geometry(), Precision::official, Dtype::f8_e4m3);
    add("released_exact", released_geometry(), Precision::exact, Dtype::f8_e4m3);
    add("odd_official", odd_geometry(), Precision::official, Dtype::f8_e4m3);
    add("odd_official_bf16", odd_geometry(), Precision::official, Dtype::bf16);
    add("odd_exact_f32", odd_geometry(), Precision::exact, Dtype::f32);
    add("many_heads_official", many_heads_geometry(), Precision::official, Dtype::bf16);
    add("many_heads_official_f32", many_heads_geometry(), Precision::official, Dtype::f32);
    add("many_heads_exact_f16", many_heads_geometry(), Precision::exact, Dtype::f16);
  }
  return list;
}

// A weight in a stored type, with the values it stands for. Starts at an odd address.
struct StoredWeight {
  std::vector<unsigned char> bytes, scale_bytes;
  std::vector<double> values;
  HostMatrix matrix;

  StoredWeight(const char* name, Dtype dtype, int64_t rows, int64_t cols, std::mt19937& random, float size) {
    std::normal_distribution<float> normal(0, size);
    const int64_t blocks = (cols + kQuantBlock - 1) / kQuantBlock;
    bytes.resize(static_cast<size_t>(rows * cols * dtype_bytes(dtype) + 1));
    scale_bytes.resize(static_cast<size_t>(4 * blocks * ((rows + kQuantBlock - 1) / kQuantBlock) + 1));
    unsigned char* scales = scale_bytes.data() + 1;
    for (size_t i = 0; i < scale_bytes.size() / 4; ++i) {
      save(scales + 4 * i, size / 3 * (1 + static_cast<float>(random() % 100) / 100));
    }
    for (int64_t i = 0; i < rows * cols; ++i) {
      unsigned char* to = bytes.data() + 1 + i * dtype_bytes(dtype);
      const float x = normal(random);
      if (dtype == Dtype::f8_e4m3) {
        *to = static_cast<unsigned char>((random() % 64) | (random() & 0x80));  // up to 15 / 8
        const float scale =
            load<float>(scales + 4 * (i / cols / kQuantBlock * blocks + i % cols / kQuantBlock));
        values.push_back(decode_e4m3(*to) * scale);
      } else if (dtype == Dtype::bf16) {
        save(to, to_bf16(x));
        values.push_back(decode_bf16(to_bf16(x)));
      } else if (dtype == Dtype::f16) {  // a small grid that f16 holds: +-m / 64, 16 <= m < 32
        const auto m = static_cast<uint16_t>(random() % 16);
        const bool negative = random() % 2 != 0;
        save(to, static_cast<uint16_t>((negative ? 0x8000 : 0) | 13 << 10 | m << 6));
        values.push_back((negative ? -1 : 1) * (16 + m) / 64.0);
      } else {
        save(to, x);
        values.push_back(x);
      }
    }
    matrix = {name, dtype, rows, cols, bytes.data() + 1, dtype == Dtype::f8_e4m3 ? scales : nullptr};
  }
};

// A device with one sequence in the cache, its pages in disorder among pages of NaN.
class Fixture {
 public:
  static constexpr int32_t kLayer = 1;

  Fixture(const Case& c, int32_t threads, int32_t tokens)
      : g(c.geometry),
        precision(c.precision),
        jobs(make_thread_pool(threads)),
        random(1),
        layout(g, precision, false) {
    pages = (tokens + kPageTokens - 1) / kPageTokens;
    DeviceOptions options;
    options.geometry = &g;
    options.precision = precision;
    options.batch_rows = kRows;
    options.max_context = pages * kPageTokens;
    options.kv_pages = 2 * pages + 1;
    options.target = c.target.c_str();
    options.jobs = jobs.get();
    device = ops.open(options);
    for (int32_t i = 0; i < pages; ++i) page_table.push_back(2 * (pages - 1 - i) + 1);
    const std::vector<unsigned char> nan(
        static_cast<size_t>(kPageTokens * layout.latent_row_bytes + layout.index_page_bytes), 0xFF);
    for (int32_t layer = 0; layer < g.num_layers; ++layer) {
      for (int32_t page = 0; page < options.kv_pages; ++page) ops.write_kv(device, layer, page, nan.data());
    }
  }
  ~Fixture() { ops.close(device); }
  Fixture(const Fixture&) = delete;
  Fixture& operator=(const Fixture&) = delete;

  bool official() const { return precision == Precision::official; }

  // Rows of one sequence at these positions.
  void begin(std::vector<int32_t> at) {
    position = std::move(at);
    token.assign(position.size(), 0);
    sequence.assign(position.size(), 0);
    ops.begin_step(device, {static_cast<int32_t>(position.size()), token.data(), position.data(),
                            sequence.data(), page_table.data(), 1, pages});
  }

  // Fills positions [0, n): latents, RoPE parts and keys; `distinct` > 0 repeats that many keys.
  void fill_cache(int32_t n, int32_t distinct = 0) {
    std::normal_distribution<float> normal;
    latent.assign(static_cast<size_t>(n * g.latent_dim()), 0);
    key.assign(static_cast<size_t>(n * g.index_head_dim), 0);
    std::vector<unsigned char> page(
        static_cast<size_t>(kPageTokens * layout.latent_row_bytes + layout.index_page_bytes));
    std::vector<std::vector<unsigned char>> keys;
    std::vector<float> key_scales;
    for (int32_t p = 0; p < n; ++p) {
      if (p % kPageTokens == 0) std::fill(page.begin(), page.end(), static_cast<unsigned char>(0xFF));
      unsigned char* row = page.data() + p % kPageTokens * layout.latent_row_bytes;
      double* values = latent.data() + p * g.latent_dim();
      for (int64_t i = 0; i < g.latent_dim(); ++i) {
        const float x = normal(random);
        if (!official()) {
          save(row + 4 * i, x);
          values[i] = x;
        } else if (i < g.kv_lora_rank) {
          unsigned char* scale = row + g.kv_lora_rank + 4 * (i / kQuantBlock);
          if (i % kQuantBlock == 0) save(scale, std::ldexp(1.0f, -static_cast<int>(random() % 3)));
          row[i] = static_cast<unsigned char>((random() % 64) | (random() & 0x80));
          values[i] = decode_e4m3(row[i]) * load<float>(scale);
        } else {
          const int64_t at = (g.kv_lora_rank + 127) / 128 * 4 + g.kv_lora_rank + 2 * (i - g.kv_lora_rank);
          save(row + at, to_bf16(x));
          values[i] = decode_bf16(to_bf16(x));
        }
      }
      unsigned char* index = page.data() + kPageTokens * layout.latent_row_bytes;
      const int64_t size = official() ? 1 : 4;
      if (distinct == 0 || p < distinct) {
        std::vector<unsigned char> bytes(static_cast<size_t>(g.index_head_dim * size));
        for (int64_t i = 0; i < g.index_head_dim; ++i) {
          if (official()) {
            bytes[static_cast<size_t>(i)] = static_cast<unsigned char>((random() % 96) | (random() & 0x80));
          } else {
            save(bytes.data() + 4 * i, normal(random));
          }
        }
        keys.push_back(bytes);
        key_scales.push_back(official() ? std::ldexp(1.0f, -static_cast<int>(random() % 3)) : 1.0f);
      }
      const size_t which = distinct == 0 ? static_cast<size_t>(p) : static_cast<size_t>(p % distinct);
      const int64_t slot = p % kPageTokens;
      std::memcpy(index + slot * g.index_head_dim * size, keys[which].data(), keys[which].size());
      if (official()) save(index + kPageTokens * g.index_head_dim + 4 * slot, key_scales[which]);
      for (int64_t i = 0; i < g.index_head_dim; ++i) {
        key[static_cast<size_t>(p * g.index_head_dim + i)] =
            official() ? decode_e4m3(keys[which][static_cast<size_t>(i)]) * key_scales[which]
                       : load<float>(keys[which].data() + 4 * i);
      }
      if (p % kPageTokens == kPageTokens - 1 || p == n - 1) {
        ops.write_kv(device, kLayer, page_table[static_cast<size_t>(p / kPageTokens)], page.data());
      }
    }
  }

  // Random values for all rows of a kind; what the device made of them.
  std::vector<float> store_random(Act kind, int32_t rows, int64_t width, float size = 1) {
    std::normal_distribution<float> normal(0, size);
    std::vector<float> values(static_cast<size_t>(rows * width));
    for (float& x : values) x = normal(random);
    ops.store(device, kind, ops.buffer(device, kind), {0, rows}, values.data());
    return fetch(kind, rows, width);
  }
  std::vector<float> fetch(Act kind, int32_t rows, int64_t width) {
    std::vector<float> values(static_cast<size_t>(rows * width));
    ops.fetch(device, kind, ops.buffer(device, kind), {0, rows}, values.data());
    return values;
  }

  static constexpr int32_t kRows = 40;
  const OpTable& ops = cpu_ops();
  Geometry g;
  Precision precision;
  std::unique_ptr<Jobs> jobs;
  std::mt19937 random;
  KvLayout layout;
  int32_t pages = 0;
  Device* device = nullptr;
  std::vector<int32_t> page_table, token, position, sequence;
  std::vector<double> latent;  // [n, kv_lora_rank + rope]
  std::vector<double> key;     // [n, index_head_dim]
};

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
