// attend, index_select and cache_append of all layers of the bench-2b5 shape, a token at the given context:
//   attention_bench [--benchmark_filter=...]
// GB/s counts the bytes that must be read (weights, selected rows, index keys), GFLOP/s the multiply-adds
// that must be done: compare with the machine's read bandwidth and multiply-add peak (`dsv bench`).
#include <benchmark/benchmark.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "backend/ops.h"

namespace dsv {
namespace {

Geometry bench_geometry() {
  Geometry g;
  g.vocab_size = 32000;
  g.hidden_size = 2048;
  g.num_layers = 8;
  g.num_heads = 32;
  g.q_lora_rank = 768;
  g.kv_lora_rank = 512;
  g.qk_nope_head_dim = 128;
  g.qk_rope_head_dim = 64;
  g.v_head_dim = 128;
  g.intermediate_size = 64;
  g.index_n_heads = 16;
  g.index_head_dim = 128;
  g.index_topk = 2048;
  g.softmax_scale = 0.0722;
  g.inv_freq.assign(32, 0.01);
  return g;
}

// A model's attention with `rows` rows at the end of a context.
class Setup {
 public:
  Setup(const char* target, int32_t threads, int32_t context, int32_t rows)
      : jobs_(make_thread_pool(threads)), rows_(rows) {
    const int32_t pages = (context + kPageTokens - 1) / kPageTokens;
    DeviceOptions options;
    options.geometry = &g;
    options.batch_rows = rows;
    options.max_context = context;
    options.kv_pages = pages;
    options.target = target;
    options.jobs = jobs_.get();
    device = ops.open(options);
    std::mt19937 random(1);
    const KvLayout layout(g, Precision::official, false);
    std::vector<unsigned char> page(
        static_cast<size_t>(kPageTokens * layout.latent_row_bytes + layout.index_page_bytes));
    const auto fill = [&random](unsigned char* at, int64_t n) {
      for (int64_t i = 0; i < n; ++i) at[i] = static_cast<unsigned char>(random() & 0xBF);
    };
    const auto fill_f32 = [](unsigned char* at, int64_t n) {
      const float one = 1;
      for (int64_t i = 0; i < n; ++i)
        std::copy_n(reinterpret_cast<const unsigned char*>(&one), 4, at + 4 * i);
    };
    for (int32_t p = 0; p < pages; ++p) {
      for (int64_t t = 0; t < kPageTokens; ++t) {
        unsigned char* row = page.data() + t * layout.latent_row_bytes;
        fill(row, g.kv_lora_rank);
        fill_f32(row + g.kv_lora_rank, 4);
        std::fill_n(row + g.kv_lora_rank + 16, 2 * g.qk_rope_head_dim, static_cast<unsigned char>(0x3F));
      }
      unsigned char* index = page.data() + kPageTokens * layout.latent_row_bytes;
      fill(index, kPageTokens * g.index_head_dim);
      fill_f32(index + kPageTokens * g.index_head_dim, kPageTokens);
      for (int32_t layer = 0; layer < g.num_layers; ++layer) ops.write_kv(device, layer, p, page.data());
    }
    const int64_t out = g.num_heads * (g.qk_nope_head_dim + g.v_head_dim);
    kv_b_.resize(static_cast<size_t>(g.num_layers * out * g.kv_lora_rank));
    fill(kv_b_.data(), static_cast<int64_t>(kv_b_.size()));
    scales_.assign(static_cast<size_t>(out / 128 * 4), 0.01f);
    for (int32_t layer = 0; layer < g.num_layers; ++layer) {
      weights.emplace_back();
      weights.back().kv_b =
          ops.load_weight(device, {"kv_b", Dtype::f8_e4m3, out, g.kv_lora_rank,
                                   kv_b_.data() + layer * out * g.kv_lora_rank, scales_.data()});
    }
    for (int32_t p = 0; p < pages; ++p) page_table_.push_back(p);
    for (int32_t r = 0; r < rows; ++r) position_.push_back(context - rows + r);
    zero_.assign(static_cast<size_t>(rows), 0);
    ops.begin_step(device,
                   {rows, zero_.data(), position_.data(), zero_.data(), page_table_.data(), 1, pages});
    std::normal_distribution<float> normal;
    const auto store = [&](Act kind, int64_t width) {
      std::vector<float> values(static_cast<size_t>(rows * width));
      for (float& x : values) x = normal(random);
      ops.store(device, kind, ops.buffer(device, kind), {0, rows}, values.data());
    };
    store(Act::q, g.num_heads * g.qk_head_dim());
    store(Act::index_q, g.index_n_heads * g.index_head_dim);
    store(Act::index_weight, g.index_n_heads);
  }
  ~Setup() { ops.close(device); }
  Setup(const Setup&) = delete;
  Setup& operator=(const Setup&) = delete;

  void select(int32_t layer) {
    ops.index_select(device, {{0, rows_},
                              layer,
                              ops.buffer(device, Act::index_q),
                              ops.buffer(device, Act::index_weight),
                              ops.buffer(device, Act::selected),
                              ops.buffer(device, Act::n_selected)});
  }
  void attend(int32_t layer) {
    ops.attend(device, {{0, rows_},
                        layer,
                        &weights[static_cast<size_t>(layer)],
                        ops.buffer(device, Act::q),
                        ops.buffer(device, Act::selected),
                        ops.buffer(device, Act::n_selected),
                        ops.buffer(device, Act::heads)});
  }

  const OpTable& ops = cpu_ops();
  const Geometry g = bench_geometry();
  Device* device = nullptr;
  std::vector<AttentionWeights> weights;
  double selected() const {  // positions, over all rows
    std::vector<float> n(static_cast<size_t>(rows_));
    ops.fetch(device, Act::n_selected, ops.buffer(device, Act::n_selected), {0, rows_}, n.data());
    return std::accumulate(n.begin(), n.end(), 0.0);
  }

 private:
  std::unique_ptr<Jobs> jobs_;
  int32_t rows_;
  std::vector<unsigned char> kv_b_;
  std::vector<float> scales_;
  std::vector<int32_t> page_table_, position_, zero_;
};

void rates(benchmark::State& state, double bytes, double flops) {
  const auto per_second = benchmark::Counter::kIsIterationInvariantRate;
  state.counters["GB/s"] = benchmark::Counter(bytes / 1e9, per_second);
  state.counters["GFLOP/s"] = benchmark::Counter(flops / 1e9, per_second);
}

void attend(benchmark::State& state, const char* target) {
  const auto context = static_cast<int32_t>(state.range(0)), rows = static_cast<int32_t>(state.range(1));
  Setup setup(target, 2, context, rows);
  const Geometry& g = setup.g;
  setup.select(0);
  for (auto _ : state) {
    for (int32_t layer = 0; layer < g.num_layers; ++layer) setup.attend(layer);
  }
  const double selected = setup.selected();
  const double heads = g.num_heads, rank = static_cast<double>(g.kv_lora_rank);
  const double weights = heads * static_cast<double>(g.qk_nope_head_dim + g.v_head_dim) * rank;
  rates(state, g.num_layers * (weights + 656 * selected),
        2 * g.num_layers * (weights * rows + selected * heads * (2 * rank + 64)));
}

void index_select(benchmark::State& state, const char* target) {
  const auto context = static_cast<int32_t>(state.range(0)), rows = static_cast<int32_t>(state.range(1));
  Setup setup(target, 2, context, rows);
  const Geometry& g = setup.g;
  for (auto _ : state) {
    for (int32_t layer = 0; layer < g.num_layers; ++layer) setup.select(layer);
  }
  const double positions = static_cast<double>(g.num_layers) * context;
  rates(state, positions * 132,
        2 * positions * rows * g.index_n_heads * static_cast<double>(g.index_head_dim));
}

}  // namespace
}  // namespace dsv

int main(int argc, char** argv) {
  std::string targets = dsv::cpu_targets();
  std::vector<std::string> names;
  for (size_t at = 0; at < targets.size();) {
    const size_t end = std::min(targets.find(' ', at), targets.size());
    names.push_back(targets.substr(at, end - at));
    at = end + 1;
  }
  for (const std::string& name : names) {
    const char* target = name.c_str();
    const auto add = [target](const std::string& what, void (*run)(benchmark::State&, const char*)) {
      return benchmark::RegisterBenchmark((what + "/" + target).c_str(),
                                          [=](benchmark::State& state) { run(state, target); })
          ->UseRealTime()
          ->Unit(benchmark::kMillisecond)
          ->ArgNames({"context", "rows"});
    };
    add("attend", dsv::attend)->Args({64, 1})->Args({2048, 1})->Args({32768, 1})->Args({2048, 64});
    add("index_select", dsv::index_select)->Args({8192, 1})->Args({32768, 1})->Args({8192, 64});
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
