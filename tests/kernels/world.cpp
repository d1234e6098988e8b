#include "tests/kernels/world.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "kernels/reference/formats.h"

namespace dsv::test {
namespace {

constexpr int64_t kGuard = 256;                             // bytes before and after each block
constexpr unsigned char kGuardByte = 0xA5, kPoison = 0xFF;  // 0xFF bytes are a NaN in every format

bool on_bf16_grid(Act kind) {
  return kind == Act::h || kind == Act::q_latent || kind == Act::q || kind == Act::heads;
}

}  // namespace

void finish(Geometry& g) {
  g.softmax_scale = 1 / std::sqrt(static_cast<double>(g.qk_head_dim()));
  g.inv_freq.clear();
  for (int64_t i = 0; i < g.qk_rope_head_dim / 2; ++i) {
    g.inv_freq.push_back(
        std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(g.qk_rope_head_dim)));
  }
}

World::World(const Setup& s) : setup(s), g(setup.geometry), random_(s.seed) {
  draw_rows();
  draw_weights();
  draw_inputs();
  draw_pages();
}

// Half the rows begin a sequence, the others continue one; with more than two rows, the last decodes alone.
void World::draw_rows() {
  const int32_t rows = setup.rows, first = rows / 2, last = rows > 2 ? 1 : 0;
  for (int32_t r = 0; r < rows; ++r) {
    const int32_t part = r < first ? 0 : r < rows - last ? 1 : 2;
    sequence.push_back(part);
    position.push_back(part == 0 ? r : part == 1 ? 57 + r - first : 199);
    token.push_back(static_cast<int32_t>(random_() % static_cast<uint64_t>(g.vocab_size)));
    next_token.push_back(static_cast<int32_t>(random_() % static_cast<uint64_t>(g.vocab_size)));
  }
  // Pages lie scattered, in no order; entries without tokens name no page.
  std::vector<int32_t> order(kPages);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random_);
  page_table.assign(static_cast<size_t>(sequences * page_stride), -1);
  for (int32_t r = 0; r < rows; ++r) {
    for (int32_t i = 0; i <= position[static_cast<size_t>(r)] / kPageTokens; ++i) {
      const auto at = static_cast<size_t>(sequence[static_cast<size_t>(r)] * page_stride + i);
      page_table[at] = order[at];
    }
  }
}

void World::add_matrix(const std::string& name, Dtype dtype, int64_t rows, int64_t cols, double mean,
                       double sigma) {
  using namespace reference;
  // One byte in front: nothing in a checkpoint is aligned.
  auto data = std::make_unique<std::string>(1, '\0'), scales = std::make_unique<std::string>(1, '\0');
  const auto put = [](std::string& to, const auto& value) {
    to.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  for (int64_t i = 0; i < rows * cols; ++i) {
    const double value = mean + sigma * normal();
    if (dtype == Dtype::f8_e4m3) put(*data, encode_e4m3(100 * normal()));
    if (dtype == Dtype::bf16) put(*data, encode_bf16(value));
    if (dtype == Dtype::f16) {
      put(*data, static_cast<uint16_t>(encode_on_grid(round_to_grid(value, 10, -14), 5, 10, -14)));
    }
    if (dtype == Dtype::f32) put(*data, static_cast<float>(value));
  }
  const int64_t blocks = ((rows + 127) / 128) * ((cols + 127) / 128);
  for (int64_t i = 0; i < blocks; ++i) {
    put(*scales, static_cast<float>(sigma / 100 * std::uniform_real_distribution(0.5, 1.5)(random_)));
  }
  names_.push_back(std::make_unique<std::string>(name));
  matrices_[name] = {*names_.back(),
                     dtype,
                     rows,
                     cols,
                     data->data() + 1,
                     dtype == Dtype::f8_e4m3 ? scales->data() + 1 : nullptr};
  bytes_.push_back(std::move(data));
  bytes_.push_back(std::move(scales));
}

void World::draw_weights() {
  const Dtype plain = setup.dtype == Dtype::f8_e4m3 ? Dtype::bf16 : setup.dtype;
  const auto linear = [&](const std::string& name, int64_t rows, int64_t cols) {
    add_matrix(name, setup.dtype, rows, cols, 0, 1 / std::sqrt(static_cast<double>(cols)));
  };
  const auto vector = [&](const std::string& name, int64_t n, double mean) {
    add_matrix(name, plain, 1, n, mean, 0.2);
  };
  const auto ffn = [&](const std::string& name, int64_t size) {
    linear(name + ".gate", size, g.hidden_size);
    linear(name + ".up", size, g.hidden_size);
    linear(name + ".down", g.hidden_size, size);
  };
  add_matrix("embed", plain, g.vocab_size, g.hidden_size, 0, 1);
  add_matrix("head", plain, g.vocab_size, g.hidden_size, 0,
             1 / std::sqrt(static_cast<double>(g.hidden_size)));
  vector("norm", g.hidden_size, 1);
  vector("enorm", g.hidden_size, 1);
  vector("hnorm", g.hidden_size, 1);
  linear("eh_proj", g.hidden_size, 2 * g.hidden_size);
  if (g.q_lora_rank > 0) {
    linear("q_a", g.q_lora_rank, g.hidden_size);
    vector("q_a_norm", g.q_lora_rank, 1);
  }
  const int64_t q_in = g.q_lora_rank > 0 ? g.q_lora_rank : g.hidden_size;
  linear("q_b", g.num_heads * g.qk_head_dim(), q_in);
  linear("kv_a", g.latent_dim(), g.hidden_size);
  vector("kv_a_norm", g.kv_lora_rank, 1);
  linear("kv_b", g.num_heads * (g.qk_nope_head_dim + g.v_head_dim), g.kv_lora_rank);
  linear("o", g.hidden_size, g.num_heads * g.v_head_dim);
  if (g.has_indexer()) {
    linear("wq_b", g.index_n_heads * g.index_head_dim, q_in);
    linear("wk", g.index_head_dim, g.hidden_size);
    vector("k_norm_weight", g.index_head_dim, 1);
    vector("k_norm_bias", g.index_head_dim, 0);
    add_matrix("weights_proj", plain, g.index_n_heads, g.hidden_size, 0, 0.1);
  }
  ffn("dense", g.intermediate_size);
  if (g.n_routed_experts == 0) return;
  // Ties: a router that gives every expert the score 1/2, and a bias that is the same for all.
  add_matrix("gate", plain, g.n_routed_experts, g.hidden_size, 0, setup.ties ? 0 : 0.1);
  add_matrix("bias", Dtype::f32, 1, g.n_routed_experts, 0.1, setup.ties ? 0 : 0.2);
  for (int32_t e = 0; e < g.n_routed_experts; ++e) ffn("expert" + std::to_string(e), g.moe_intermediate_size);
  if (g.n_shared_experts > 0) ffn("shared", g.shared_intermediate_size());
}

void World::draw_inputs() {
  const bool official = setup.precision == Precision::official;
  for (int kind = 0; kind < static_cast<int>(Act::count); ++kind) {
    const auto act = static_cast<Act>(kind);
    if (is_integer(act) || act == Act::expert_weight || act == Act::logits) continue;
    const bool normalised_next =
        act == Act::x || act == Act::delta || act == Act::kv_raw || act == Act::index_k_raw;
    std::vector<float>& values = input[act];
    values.resize(static_cast<size_t>(setup.rows * width(act)));
    for (float& value : values) {
      const double x = normal() * (normalised_next ? setup.magnitude : 1);
      value = static_cast<float>(official && on_bf16_grid(act) ? reference::round_bf16(x) : x);
    }
  }
  // Some positions for attend: every third one and the row's own, at most k.
  const auto k = static_cast<size_t>(g.index_topk);
  std::vector<float>& selected = input[Act::selected];
  selected.assign(static_cast<size_t>(setup.rows) * k, kUnwritten);
  for (int32_t r = 0; r < setup.rows && k > 0; ++r) {
    const int32_t last = position[static_cast<size_t>(r)];
    size_t count = 0;
    for (int32_t s = r % 3; s < last && count + 1 < k; s += 3)
      selected[static_cast<size_t>(r) * k + count++] = static_cast<float>(s);
    selected[static_cast<size_t>(r) * k + count++] = static_cast<float>(last);
    input[Act::n_selected].push_back(static_cast<float>(count));
  }
  for (int32_t r = 0; r < setup.rows && g.n_routed_experts > 0; ++r) {
    for (int32_t i = 0; i < g.num_experts_per_tok; ++i) {
      input[Act::expert].push_back(
          static_cast<float>(i * g.n_routed_experts / g.num_experts_per_tok + r % 2));
      input[Act::expert_weight].push_back(0.2f + 0.1f * static_cast<float>(i));
    }
  }
}

// Rows of the cache that could have been written: values on their formats' grids. Slots after a sequence's
// last position hold NaN, as do pages that no sequence uses.
void World::draw_pages() {
  using namespace reference;
  const KvLayout layout(g, setup.precision, true);
  const int64_t latent_bytes = kPageTokens * layout.latent_row_bytes;
  const bool official = setup.precision == Precision::official;
  pages.assign(kPages, std::vector<unsigned char>(static_cast<size_t>(latent_bytes + layout.index_page_bytes),
                                                  kPoison));
  const auto put_f32 = [](unsigned char* at, double value) {
    const auto single = static_cast<float>(value);
    std::memcpy(at, &single, sizeof single);
  };
  for (int32_t q = 0; q < sequences; ++q) {
    int32_t last = -1;
    for (size_t r = 0; r < position.size(); ++r) {
      if (sequence[r] == q) last = std::max(last, position[r]);
    }
    for (int32_t s = 0; s <= last; ++s) {
      std::vector<unsigned char>& page =
          pages[static_cast<size_t>(page_table[static_cast<size_t>(q * page_stride + s / kPageTokens)])];
      const int32_t slot = s % kPageTokens;
      unsigned char* latent = page.data() + slot * layout.latent_row_bytes;
      unsigned char* keys = page.data() + latent_bytes;
      if (!official) {
        for (int64_t i = 0; i < g.latent_dim(); ++i) put_f32(latent + 4 * i, normal());
      } else {
        for (int64_t i = 0; i < g.kv_lora_rank; ++i) latent[i] = encode_e4m3(100 * normal());
        const int64_t groups = (g.kv_lora_rank + 127) / 128;
        for (int64_t i = 0; i < groups; ++i)
          put_f32(latent + g.kv_lora_rank + 4 * i, i % 2 ? 0x1p-6 : 0x1p-7);
        for (int64_t i = 0; i < g.qk_rope_head_dim; ++i) {
          const uint16_t code = encode_bf16(normal());
          std::memcpy(latent + g.kv_lora_rank + 4 * groups + 2 * i, &code, sizeof code);
        }
      }
      if (!g.has_indexer()) continue;
      // Ties: keys repeat, and every third is zero.
      std::mt19937_64 repeated(static_cast<uint64_t>(s % 5));
      std::normal_distribution<double> draw;
      for (int64_t i = 0; i < g.index_head_dim; ++i) {
        const double value = !setup.ties ? normal() : s % 3 == 0 ? 0 : draw(repeated);
        if (official) {
          keys[slot * g.index_head_dim + i] = encode_e4m3(100 * value);
        } else {
          put_f32(keys + 4 * (slot * g.index_head_dim + i), value);
        }
      }
      if (official) {
        const double scale = g.ue8m0_scales ? 0x1p-7
                             : setup.ties   ? 0.011
                                            : 0.01 + 0.001 * std::fabs(normal());
        put_f32(keys + kPageTokens * g.index_head_dim + 4 * slot, scale);
      }
    }
  }
}

RowSet World::all() const {
  RowSet set;
  set.rows.resize(static_cast<size_t>(setup.rows));
  std::iota(set.rows.begin(), set.rows.end(), 0);
  set.ranges = {{0, setup.rows}};
  set.filled = {0, setup.rows};
  return set;
}

Rig::Rig(const World& world, const OpTable& table, const char* target, int32_t threads, Precision precision)
    : w_(world),
      has_cache_(precision == world.setup.precision),
      ops_(table),
      jobs_(make_thread_pool(threads)) {
  DeviceOptions options;
  options.geometry = &w_.g;
  options.precision = precision;
  options.fast = w_.setup.fast;
  options.with_mtp = true;
  options.batch_rows = capacity();
  options.max_context = kMaxContext;
  options.kv_pages = kPages;
  options.target = target;
  options.jobs = jobs_.get();
  options.user = this;
  options.allocate = [](void* user, int64_t size, int64_t alignment) -> void* {
    const int64_t front = std::max(kGuard, alignment);
    auto* memory = static_cast<unsigned char*>(::operator new (
        static_cast<size_t>(front + size + kGuard), std::align_val_t{static_cast<size_t>(alignment)}));
    std::fill_n(memory, front, kGuardByte);
    std::fill_n(memory + front, size, kPoison);
    std::fill_n(memory + front + size, kGuard, kGuardByte);
    static_cast<Rig*>(user)->blocks_.push_back({memory + front, size});
    return memory + front;
  };
  options.deallocate = [](void*, void* memory, int64_t size, int64_t alignment) {
    auto* at = static_cast<unsigned char*>(memory);
    const int64_t front = std::max(kGuard, alignment);
    const auto whole = [](const unsigned char* from, int64_t n) {
      return std::all_of(from, from + n, [](unsigned char byte) { return byte == kGuardByte; });
    };
    EXPECT_TRUE(whole(at - front, front)) << "something wrote before a block";
    EXPECT_TRUE(whole(at + size, kGuard)) << "something wrote after a block";
    ::operator delete (at - front, std::align_val_t{static_cast<size_t>(alignment)});
  };
  device_ = ops_.open(options);
  const auto load = [&](const std::string& name) { return ops_.load_weight(device_, w_.matrix(name)); };
  const auto load_ffn = [&](const std::string& name) {
    return FfnWeights{load(name + ".gate"), load(name + ".up"), load(name + ".down")};
  };
  for (const char* name : {"embed", "head", "norm"}) weight_[name] = load(name);
  mtp_.embed = weight_["embed"];
  mtp_.enorm = load("enorm");
  mtp_.hnorm = load("hnorm");
  mtp_.eh_proj = load("eh_proj");
  if (w_.g.q_lora_rank > 0) {
    attention_.q_a = load("q_a");
    attention_.q_a_norm = load("q_a_norm");
  }
  attention_.q_b = load("q_b");
  attention_.kv_a = load("kv_a");
  attention_.kv_a_norm = load("kv_a_norm");
  attention_.kv_b = load("kv_b");
  attention_.o = load("o");
  if (w_.g.has_indexer()) {
    attention_.wq_b = load("wq_b");
    attention_.wk = load("wk");
    attention_.k_norm_weight = load("k_norm_weight");
    attention_.k_norm_bias = load("k_norm_bias");
    attention_.weights_proj = load("weights_proj");
  }
  ffn_ = load_ffn("dense");
  if (w_.g.n_routed_experts > 0) {
    moe_.gate = load("gate");
    moe_.bias = load("bias");
    for (int32_t e = 0; e < w_.g.n_routed_experts; ++e)
      moe_.experts.push_back(load_ffn("expert" + std::to_string(e)));
    if (w_.g.n_shared_experts > 0) moe_.shared = load_ffn("shared");
  }
}

Rig::~Rig() { ops_.close(device_); }

void Rig::poison() {
  // Through store, because a device may keep more than buffers in its blocks.
  for (int kind = 0; kind < static_cast<int>(Act::count); ++kind) {
    const auto act = static_cast<Act>(kind);
    const std::vector<float> values(static_cast<size_t>(capacity() * w_.width(act)), unwritten(act));
    if (!values.empty()) ops_.store(device_, act, ops_.buffer(device_, act), {0, capacity()}, values.data());
  }
}

float Rig::unwritten(Act kind) const {
  return is_integer(kind) ? static_cast<float>(kUnwritten) : std::numeric_limits<float>::quiet_NaN();
}

void Rig::fill_cache(Op op, const RowSet& set) {
  std::vector<std::vector<unsigned char>> pages = w_.pages;
  if (op == Op::cache_append || set.only_selected) {
    for (auto& bytes : pages) std::fill(bytes.begin(), bytes.end(), kPoison);
  }
  const int64_t row_bytes = KvLayout(w_.g, w_.setup.precision, true).latent_row_bytes;
  for (size_t i = 0; set.only_selected && i < set.rows.size(); ++i) {
    const auto r = static_cast<size_t>(set.rows[i]);
    for (int32_t n = 0; n < w_.n_selected(set.rows[i]); ++n) {
      const int32_t s = w_.selected(set.rows[i], n);
      const auto page = static_cast<size_t>(
          w_.page_table[static_cast<size_t>(w_.sequence[r] * w_.page_stride + s / kPageTokens)]);
      std::copy_n(w_.pages[page].begin() + s % kPageTokens * row_bytes, row_bytes,
                  pages[page].begin() + s % kPageTokens * row_bytes);
    }
  }
  for (int32_t page = 0; page < kPages; ++page) {
    ops_.write_kv(device_, kLayer, page, pages[static_cast<size_t>(page)].data());
  }
}

Result Rig::run(Op op, const RowSet& set, std::initializer_list<Op> first) {
  const auto rows = set.rows.size();
  const auto pick = [&](const std::vector<int32_t>& from) {
    std::vector<int32_t> out;
    for (const int32_t r : set.rows) out.push_back(from[static_cast<size_t>(r)]);
    return out;
  };
  const auto pick_rows = [&](const auto& from, size_t width) {
    std::decay_t<decltype(from)> out;
    for (const int32_t r : set.rows) {
      const auto at = from.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(r) * width);
      out.insert(out.end(), at, at + static_cast<std::ptrdiff_t>(width));
    }
    return out;
  };
  const std::vector<int32_t> token = pick(w_.token), position = pick(w_.position),
                             sequence = pick(w_.sequence);
  poison();
  if (has_cache_) fill_cache(op, set);
  const std::vector<int32_t> next_token = pick(w_.next_token);
  std::vector<int32_t> logit_row(rows);
  std::iota(logit_row.begin(), logit_row.end(), 0);
  const auto count = static_cast<int32_t>(rows);
  ops_.begin_step(device_, {count, token.data(), position.data(), sequence.data(), w_.page_table.data(),
                            w_.sequences, w_.page_stride, next_token.data(), logit_row.data(), count});
  const auto outputs = [&]() -> std::vector<Act> {
    switch (op) {
      case Op::embed:
        return {Act::x};
      case Op::add_norm:
        return {Act::h};
      case Op::attn_in:
        return {Act::q_latent, Act::kv_raw, Act::index_k_raw, Act::index_weight};
      case Op::attn_q:
        return {Act::q, Act::index_q};
      case Op::attend:
      case Op::attend_all:
        return {Act::heads};
      case Op::attn_out:
      case Op::experts:
      case Op::ffn:
        return {Act::delta};
      case Op::mtp_in:
        return {Act::mtp_x};
      case Op::index_select:
        return {Act::selected, Act::n_selected};
      case Op::route:
        return {Act::expert, Act::expert_weight};
      case Op::logits:
        return {Act::logits};
      default:
        return {};
    }
  }();
  for (const auto& [act, values] : w_.input) {
    if (values.empty() || std::count(outputs.begin(), outputs.end(), act)) continue;
    const std::vector<float> chosen = pick_rows(values, static_cast<size_t>(w_.width(act)));
    ops_.store(device_, act, ops_.buffer(device_, act), set.filled,
               chosen.data() + set.filled.first * w_.width(act));
  }
  Result result;
  std::vector<Act> read = outputs;
  if (op == Op::add_norm) read.push_back(Act::x);
  const auto fetch = [&](std::map<Act, std::vector<float>>& to) {
    for (const Act act : read) {
      std::vector<float>& values = to[act];
      values.resize(rows * static_cast<size_t>(w_.width(act)));
      if (values.empty()) continue;
      ops_.fetch(device_, act, ops_.buffer(device_, act), {0, static_cast<int32_t>(rows)}, values.data());
    }
  };
  // The row after the batch's, as bytes, because it may hold NaN.
  const auto rows_after = [&] {
    std::string bytes;
    for (const Act act : read) {
      std::vector<float> row(static_cast<size_t>(w_.width(act)));
      if (row.empty()) continue;
      ops_.fetch(device_, act, ops_.buffer(device_, act), {static_cast<int32_t>(rows), 1}, row.data());
      bytes.append(reinterpret_cast<const char*>(row.data()), 4 * row.size());
    }
    return bytes;
  };
  fetch(result.before);
  const std::string after = rows_after();
  for (const Op before : first) {
    for (const RowRange range : set.ranges) call(before, range);
  }
  for (const RowRange range : set.ranges) call(op, range);
  fetch(result.act);
  EXPECT_TRUE(rows_after() == after) << "written past the end";
  if (op == Op::cache_append) {
    for (int32_t page = 0; page < kPages; ++page) {
      result.pages.emplace_back(w_.pages[0].size());
      ops_.read_kv(device_, kLayer, page, result.pages.back().data());
    }
  }
  return result;
}

void Rig::call(Op op, RowRange rows) {
  const auto b = [&](Act act) { return ops_.buffer(device_, act); };
  switch (op) {
    case Op::embed:
      return ops_.embed(device_, {rows, weight_["embed"], b(Act::x)});
    case Op::add_norm:
      return ops_.add_norm(device_, {rows, b(Act::x), b(Act::delta), weight_["norm"], b(Act::h)});
    case Op::attn_in:
      return ops_.attn_in(device_, {rows, &attention_, b(Act::h), b(Act::q_latent), b(Act::kv_raw),
                                    b(Act::index_k_raw), b(Act::index_weight)});
    case Op::attn_q:
      return ops_.attn_q(device_,
                         {rows, &attention_, b(Act::q_latent), b(Act::h), b(Act::q), b(Act::index_q)});
    case Op::cache_append:
      return ops_.cache_append(device_, {rows, kLayer, &attention_, b(Act::kv_raw), b(Act::index_k_raw)});
    case Op::index_select:
      return ops_.index_select(device_, {rows, kLayer, b(Act::index_q), b(Act::index_weight),
                                         b(Act::selected), b(Act::n_selected)});
    case Op::attend:
      return ops_.attend(device_, {rows, kLayer, &attention_, b(Act::q), b(Act::selected), b(Act::n_selected),
                                   b(Act::heads)});
    case Op::attend_all:
      return ops_.attend(device_, {rows, kLayer, &attention_, b(Act::q), nullptr, nullptr, b(Act::heads)});
    case Op::attn_out:
      return ops_.attn_out(device_, {rows, &attention_, b(Act::heads), b(Act::delta)});
    case Op::route:
      return ops_.route(device_, {rows, &moe_, b(Act::h), b(Act::expert), b(Act::expert_weight)});
    case Op::experts:
      return ops_.experts(device_,
                          {rows, &moe_, b(Act::h), b(Act::expert), b(Act::expert_weight), b(Act::delta)});
    case Op::ffn:
      return ops_.ffn(device_, {rows, &ffn_, b(Act::h), b(Act::delta)});
    case Op::mtp_in:
      return ops_.mtp_in(device_, {rows, &mtp_, weight_["norm"], b(Act::x), b(Act::mtp_x)});
    case Op::logits:
      return ops_.logits(device_,
                         {rows, b(Act::x), b(Act::delta), weight_["norm"], weight_["head"], b(Act::logits)});
  }
}

}  // namespace dsv::test
