// A sequence in the cache of a CPU device, for cpu_attention_test.cpp: the geometries and types that are
// tried, weights and rows with the values that they stand for, NaN where no row may read.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
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
#include "kernels/reference/formats.h"
#include "tests/kernels/world.h"

namespace dsv {
namespace {

using reference::decode_bf16;
using reference::decode_e4m3;
using reference::encode_bf16;

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

std::vector<Case> cases() {
  std::vector<Case> list;
  std::istringstream targets(cpu_targets());
  for (std::string target; targets >> target;) {
    const auto add = [&](const char* name, Geometry g, Precision precision, Dtype weight) {
      test::finish(g);
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
        save(to, encode_bf16(x));
        values.push_back(decode_bf16(encode_bf16(x)));
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
          save(row + at, encode_bf16(x));
          values[i] = decode_bf16(encode_bf16(x));
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

}  // namespace
}  // namespace dsv
