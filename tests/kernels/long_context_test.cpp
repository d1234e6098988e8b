// The released context of 163840 positions on pages scattered over a pool of 16 GB: offsets that need more
// than 32 bits. Every CPU target against the reference. The pool is address space only; what is written takes
// 40 MB.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "backend/ops.h"
#include "tests/kernels/world.h"

namespace dsv {
namespace {

constexpr int32_t kContext = 163840, kRows = 2, kPages = 1 << 20, kUsed = kContext / kPageTokens;

Geometry geometry() {
  Geometry g;
  g.vocab_size = 16;
  g.hidden_size = 32;
  g.num_layers = 1;
  g.num_heads = 2;
  g.q_lora_rank = 32;
  g.kv_lora_rank = 40;
  g.qk_nope_head_dim = 24;
  g.qk_rope_head_dim = 8;
  g.v_head_dim = 20;
  g.intermediate_size = 32;
  g.index_n_heads = 2;
  g.index_head_dim = 16;
  g.index_topk = 64;
  test::finish(g);
  return g;
}

void* map(void*, int64_t size, int64_t) {
  void* memory = mmap(nullptr, static_cast<size_t>(size), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  madvise(memory, static_cast<size_t>(size), MADV_NOHUGEPAGE);  // or each page written takes 2 MB
  return memory;
}
void unmap(void*, void* memory, int64_t size, int64_t) { munmap(memory, static_cast<size_t>(size)); }

bool can_map(int64_t size) {
  void* memory = map(nullptr, size, 0);
  if (memory) unmap(nullptr, memory, size, 0);
  return memory != nullptr;
}

std::vector<float> draw(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(count);
  for (float& value : out) value = normal(random);
  return out;
}

struct Outcome {
  std::vector<float> selected;     // [kRows, index_topk]
  std::vector<float> sparse, all;  // [kRows, H, v]; [1, H, v] over the whole context
};

Outcome run(const OpTable& ops, const char* target) {
  const Geometry g = geometry();
  const std::unique_ptr<Jobs> jobs = make_thread_pool(2);
  DeviceOptions options;
  options.geometry = &g;
  options.precision = Precision::exact;
  options.batch_rows = kRows;
  options.max_context = kContext;
  options.kv_pages = kPages;
  options.target = target;
  options.jobs = jobs.get();
  options.allocate = map;
  options.deallocate = unmap;
  struct Close {
    const OpTable* ops;
    void operator()(Device* device) const { ops->close(device); }
  };
  const std::unique_ptr<Device, Close> owner(ops.open(options), Close{&ops});
  Device* device = owner.get();

  // Page i of the sequence lies anywhere in the pool, the first one at its end.
  std::vector<int32_t> table(kUsed);
  for (int32_t i = 0; i < kUsed; ++i) table[static_cast<size_t>(i)] = kPages - 1 - i * (kPages / kUsed);
  const auto values = static_cast<size_t>(kPageTokens * (g.latent_dim() + g.index_head_dim));
  for (int32_t i = 0; i < kUsed; ++i) {
    const std::vector<float> page = draw(values, static_cast<uint64_t>(i));
    ops.write_kv(device, 0, table[static_cast<size_t>(i)], page.data());
  }
  const std::vector<int32_t> token(kRows, 0), position{kContext - 2, kContext - 1}, sequence(kRows, 0);
  ops.begin_step(device, {kRows, token.data(), position.data(), sequence.data(), table.data(), 1, kUsed});
  uint64_t seed = kUsed;
  for (const auto& [act, width] : {std::pair{Act::index_q, g.index_n_heads * g.index_head_dim},
                                   {Act::index_weight, int64_t{g.index_n_heads}},
                                   {Act::q, g.num_heads * g.qk_head_dim()}}) {
    const std::vector<float> rows = draw(static_cast<size_t>(kRows * width), ++seed);
    ops.store(device, act, ops.buffer(device, act), {0, kRows}, rows.data());
  }
  const int64_t per_head = g.qk_nope_head_dim + g.v_head_dim;
  const std::vector<float> kv_b = draw(static_cast<size_t>(g.num_heads * per_head * g.kv_lora_rank), ++seed);
  AttentionWeights weights;
  weights.kv_b = ops.load_weight(
      device, {"kv_b", Dtype::f32, g.num_heads * per_head, g.kv_lora_rank, kv_b.data(), nullptr});

  Outcome out;
  out.selected.resize(static_cast<size_t>(kRows * g.index_topk));
  std::vector<float> n_selected(kRows);
  const Buffer selected = ops.buffer(device, Act::selected), n = ops.buffer(device, Act::n_selected);
  ops.index_select(
      device,
      {{0, kRows}, 0, ops.buffer(device, Act::index_q), ops.buffer(device, Act::index_weight), selected, n});
  ops.fetch(device, Act::selected, selected, {0, kRows}, out.selected.data());
  ops.fetch(device, Act::n_selected, n, {0, kRows}, n_selected.data());
  EXPECT_EQ(n_selected, std::vector<float>(kRows, static_cast<float>(g.index_topk)));
  const Buffer q = ops.buffer(device, Act::q), heads = ops.buffer(device, Act::heads);
  const auto width = static_cast<size_t>(g.num_heads * g.v_head_dim);
  out.sparse.resize(kRows * width);
  ops.attend(device, {{0, kRows}, 0, &weights, q, selected, n, heads});
  ops.fetch(device, Act::heads, heads, {0, kRows}, out.sparse.data());
  out.all.resize(width);
  ops.attend(device, {{1, 1}, 0, &weights, q, nullptr, nullptr, heads});
  ops.fetch(device, Act::heads, heads, {1, 1}, out.all.data());
  return out;
}

// A mean of n latents under softmax weights errs by about sqrt(n) * 2^-24 of what is summed, and so does each
// of its scores; 16: the worst of many values, on two sides.
void expect_near(const std::vector<float>& got, const std::vector<float>& expected, double n) {
  double size = 0;
  for (const float value : expected) size = std::max(size, std::fabs(double{value}));
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], expected[i], 16 * std::sqrt(n) * 0x1p-24 * size) << i;
  }
}

TEST(LongContext, OffsetsBeyond32Bits) {
  const KvLayout layout(geometry(), Precision::exact, false);
  ASSERT_GT(layout.page_bytes() * kPages, int64_t{1} << 33);
  if (!can_map(layout.page_bytes() * kPages)) GTEST_SKIP() << "this machine lends no 16 GB of address space";
  const Outcome expected = run(reference_ops(), nullptr);
  EXPECT_GT(expected.selected.back(), kContext / 2);
  std::istringstream list(cpu_targets());
  for (const std::string& target : std::vector<std::string>{std::istream_iterator<std::string>(list), {}}) {
    SCOPED_TRACE(target);
    const Outcome got = run(cpu_ops(), target.c_str());
    EXPECT_EQ(got.selected, expected.selected);
    expect_near(got.sparse, expected.sparse, geometry().index_topk + geometry().latent_dim());
    expect_near(got.all, expected.all, kContext);
  }
}

}  // namespace
}  // namespace dsv
