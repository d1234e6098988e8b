// Router and feed-forward blocks. The dense FFN, the experts and the shared expert are one computation: pairs
// of (row, weight) grouped by the FFN they go through, y = W_down(silu(W_gate h) * W_up h), delta[row] +=
// weight * y in the order of the groups. With one row this reads each weight of the chosen experts once and
// is bound by memory, so gate, up and down of all of them are each one sweep of small slices over the
// threads.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/linear.h"
#include "kernels/cpu/ops.h"

namespace dsv::cpu {
namespace {

constexpr int32_t kGroup = 16;         // rows packed together
constexpr int32_t kWavePairs = 256;    // pairs whose intermediate values are held at a time
constexpr int64_t kColumnSlice = 512;  // of delta, for the weighted sum

struct Pair {
  int32_t row;
  float weight;
  bool first;  // of its row: starts the sum
};

// Pairs [first, first + count) of a wave go through one FFN.
struct Piece {
  const FfnWeights* weights;
  int32_t first, count;
  Packed gate_in, up_in, down_in;
  bool own_up_packing;
  int64_t pack_end, gate_up_end, mid_end, down_end;  // items of this piece and those before it
};

// Memory handed out front to back, in whole cache lines.
struct Arena {
  unsigned char* at;
  template <class T>
  T* take(int64_t count) {
    auto* const result = reinterpret_cast<T*>(at);
    at += bytes<T>(count);
    return result;
  }
  template <class T>
  static int64_t bytes(int64_t count) {
    return (static_cast<int64_t>(sizeof(T)) * count + 63) / 64 * 64;
  }
};

int32_t wave_pairs(int64_t pairs) { return static_cast<int32_t>(std::min<int64_t>(kWavePairs, pairs)); }

int64_t ffn_bytes(int64_t pairs, int64_t hidden, int64_t intermediate) {
  const int64_t wave = wave_pairs(pairs);
  return 2 * Arena::bytes<float*>(wave) + Arena::bytes<Piece>(wave) + 2 * wave * packed_bytes(1, hidden) +
         wave * packed_bytes(1, intermediate) + 2 * Arena::bytes<float>(wave * intermediate) +
         Arena::bytes<float>(wave * hidden);
}

// The piece that holds `item`, by one of its running counts; `item` becomes relative to it.
const Piece& piece_of(const Piece* pieces, int32_t count, int64_t Piece::*end, int64_t& item) {
  const Piece* const piece =
      std::upper_bound(pieces, pieces + count, item, [&](int64_t i, const Piece& p) { return i < p.*end; });
  if (piece != pieces) item -= (piece - 1)->*end;
  return *piece;
}

struct FfnRun {
  const CpuDevice& d;
  const void* h;
  Buffer delta;
  int64_t intermediate;  // the widest
  const Pair* pairs;

  // Pairs [first, first + count) in `pieces`.
  void wave(int32_t first, int32_t count, Piece* pieces, int32_t n_pieces, Arena arena) const {
    const int64_t hidden = d.geometry.hidden_size;
    const auto** const input = arena.take<const float*>(count);
    const auto** const mid = arena.take<const float*>(count);
    auto* const gate = arena.take<float>(count * intermediate);
    auto* const up = arena.take<float>(count * intermediate);
    auto* const y = arena.take<float>(count * hidden);
    for (int32_t i = 0; i < count; ++i) {
      input[i] = d.row(Act::h, h, pairs[first + i].row);
      mid[i] = gate + i * intermediate;
    }
    int64_t pack = 0, gate_up = 0, mids = 0, down = 0;
    for (Piece* p = pieces; p != pieces + n_pieces; ++p) {
      const CpuWeight &wg = cpu_weight(p->weights->gate), &wu = cpu_weight(p->weights->up),
                      &wd = cpu_weight(p->weights->down);
      const Rounding rg = input_rounding(d, wg), ru = input_rounding(d, wu);
      const int64_t groups = (p->count + kGroup - 1) / kGroup;
      p->gate_in = place(d, wg, rg, p->count, arena.take<unsigned char>(packed_bytes(p->count, hidden)));
      p->own_up_packing = !same_packing(wg, rg, wu, ru);
      p->up_in = p->own_up_packing
                     ? place(d, wu, ru, p->count, arena.take<unsigned char>(packed_bytes(p->count, hidden)))
                     : p->gate_in;
      p->down_in = place(d, wd, input_rounding(d, wd), p->count,
                         arena.take<unsigned char>(packed_bytes(p->count, wd.cols)));
      p->pack_end = pack += groups * (p->own_up_packing ? 2 : 1);
      p->gate_up_end = gate_up += slices(wg, p->count) + slices(wu, p->count);
      p->mid_end = mids += groups;
      p->down_end = down += slices(wd, p->count);
    }
    d.parallel(pack, [&](int64_t item, int32_t) {
      const Piece& p = piece_of(pieces, n_pieces, &Piece::pack_end, item);
      const int64_t groups = (p.count + kGroup - 1) / kGroup;
      d.kernels->pack(input + p.first, static_cast<int32_t>(item % groups),
                      item < groups ? p.gate_in : p.up_in);
    });
    d.parallel(gate_up, [&](int64_t item, int32_t job) {
      const Piece& p = piece_of(pieces, n_pieces, &Piece::gate_up_end, item);
      const int64_t of_gate = slices(cpu_weight(p.weights->gate), p.count);
      const bool is_gate = item < of_gate;
      linear_slice(d, cpu_weight(is_gate ? p.weights->gate : p.weights->up), is_gate ? item : item - of_gate,
                   is_gate ? p.gate_in : p.up_in, (is_gate ? gate : up) + p.first * intermediate,
                   intermediate, d.job_scratch(job));
    });
    d.parallel(mids, [&](int64_t item, int32_t) {
      const Piece& p = piece_of(pieces, n_pieces, &Piece::mid_end, item);
      const int32_t end = std::min(p.count, static_cast<int32_t>(item + 1) * kGroup);
      for (auto r = static_cast<int32_t>(item) * kGroup; r < end; ++r) {
        const int64_t at = (p.first + r) * intermediate;
        d.kernels->swiglu(gate + at, up + at, p.down_in.cols);
      }
      d.kernels->pack(mid + p.first, static_cast<int32_t>(item), p.down_in);
    });
    d.parallel(down, [&](int64_t item, int32_t job) {
      const Piece& p = piece_of(pieces, n_pieces, &Piece::down_end, item);
      linear_slice(d, cpu_weight(p.weights->down), item, p.down_in, y + p.first * hidden, hidden,
                   d.job_scratch(job));
    });
    d.parallel((hidden + kColumnSlice - 1) / kColumnSlice, [&](int64_t item, int32_t) {
      const int64_t column = item * kColumnSlice, n = std::min(kColumnSlice, hidden - column);
      for (int32_t i = 0; i < count; ++i) {
        const Pair& pair = pairs[first + i];
        float* const sum = d.row(Act::delta, delta, pair.row) + column;
        if (pair.first) std::fill_n(sum, n, 0.0f);
        d.kernels->multiply_add(sum, pair.weight, y + i * hidden + column, n);
      }
    });
  }
};

// Groups of pairs, one after the other, cut into waves; a group is cut only if it fills a wave.
class Waves {
 public:
  Waves(const FfnRun& run, int32_t capacity, Arena arena)
      : run_(run), capacity_(capacity), pieces_(arena.take<Piece>(capacity)), arena_(arena) {}
  void add(const FfnWeights& weights, int32_t count) {
    if (count_ > 0 && count > capacity_ - count_ && count <= capacity_) flush();
    while (count > 0) {
      const int32_t part = std::min(count, capacity_ - count_);
      if (part > 0) {
        pieces_[n_pieces_++] = {&weights, count_, part, {}, {}, {}, false, 0, 0, 0, 0};
        count_ += part;
        count -= part;
      }
      if (count_ == capacity_) flush();
    }
  }
  void flush() {
    if (count_ == 0) return;
    run_.wave(first_, count_, pieces_, n_pieces_, arena_);
    first_ += count_;
    count_ = n_pieces_ = 0;
  }

 private:
  const FfnRun& run_;
  int32_t capacity_;
  Piece* pieces_;
  Arena arena_;
  int32_t first_ = 0, count_ = 0, n_pieces_ = 0;
};

// The first of the greatest allowed values. Values that are not numbers are never preferred, but taken when
// nothing else is left, so that `k` calls give k places whatever the weights hold. `taken` marks the result.
int32_t take_best(const float* value, bool* taken, int32_t begin, int32_t end) {
  int32_t best = -1;
  for (int32_t i = begin; i < end; ++i) {
    if (!taken[i] && (best < 0 || value[i] > value[best] || std::isnan(value[best]))) best = i;
  }
  taken[best] = true;
  return best;
}

// Arrays of one row's routing.
struct RouteScratch {
  float *score, *choice, *group_score;  // [E], [E], [n_group]
  bool *taken, *group_taken;            // [E], [n_group]
  RouteScratch(const Geometry& g, unsigned char* memory) {
    Arena arena{memory};
    score = arena.take<float>(g.n_routed_experts);
    choice = arena.take<float>(g.n_routed_experts);
    group_score = arena.take<float>(g.n_group);
    taken = arena.take<bool>(g.n_routed_experts);
    group_taken = arena.take<bool>(g.n_group);
  }
  static int64_t bytes(const Geometry& g) {
    return 2 * Arena::bytes<float>(g.n_routed_experts) + Arena::bytes<float>(g.n_group) +
           Arena::bytes<bool>(g.n_routed_experts) + Arena::bytes<bool>(g.n_group);
  }
};

// The num_experts_per_tok experts of one row, ascending, and their weights.
void route_row(const Geometry& g, const float* gate, const float* bias, const RouteScratch& s,
               int32_t* expert, float* weight) {
  const int32_t experts = g.n_routed_experts, group_size = experts / g.n_group, k = g.num_experts_per_tok;
  for (int32_t e = 0; e < experts; ++e) {
    s.score[e] = 1.0f / (1.0f + std::exp(-gate[e]));
    s.choice[e] = s.score[e] + bias[e];
  }
  for (int32_t group = 0; group < g.n_group; ++group) {
    const int32_t begin = group * group_size, end = begin + group_size;
    std::fill(s.taken + begin, s.taken + end, false);
    s.group_taken[group] = false;
    s.group_score[group] = s.choice[take_best(s.choice, s.taken, begin, end)];
    if (group_size > 1) s.group_score[group] += s.choice[take_best(s.choice, s.taken, begin, end)];
  }
  std::fill_n(s.taken, experts, true);
  for (int32_t i = 0; i < g.topk_group; ++i) {
    const int32_t begin = take_best(s.group_score, s.group_taken, 0, g.n_group) * group_size;
    std::fill(s.taken + begin, s.taken + begin + group_size, false);
  }
  for (int32_t i = 0; i < k; ++i) expert[i] = take_best(s.choice, s.taken, 0, experts);
  std::sort(expert, expert + k);
  float sum = 0;
  for (int32_t i = 0; i < k; ++i) sum += s.score[expert[i]];
  const auto factor = static_cast<float>(g.routed_scaling_factor);
  for (int32_t i = 0; i < k; ++i) {
    const float score = s.score[expert[i]];
    weight[i] = (g.norm_topk_prob ? score / (sum + 1e-20f) : score) * factor;
  }
}

int64_t intermediate_size(const FfnWeights& weights) { return cpu_weight(weights.down).cols; }

}  // namespace

ScratchSize moe_scratch(const DeviceOptions& options) {
  const Geometry& g = *options.geometry;
  const int64_t rows = options.batch_rows, pairs = rows * (g.num_experts_per_tok + 1);
  const int64_t widest =
      std::max({g.intermediate_size, g.moe_intermediate_size, g.shared_intermediate_size()});
  ScratchSize size;
  size.shared = std::max(Arena::bytes<Pair>(pairs) + Arena::bytes<int32_t>(g.n_routed_experts + 1) +
                             ffn_bytes(pairs, g.hidden_size, widest),
                         Arena::bytes<float>(rows * g.n_routed_experts) + linears_bytes(rows, g.hidden_size));
  size.per_job = std::max(linear_job_bytes(rows, std::max(g.hidden_size, widest)), RouteScratch::bytes(g));
  return size;
}

void route(Device* device, const RouteArgs& args) {
  const CpuDevice& d = cpu_device(device);
  const Geometry& g = d.geometry;
  Arena arena{d.shared_scratch};
  auto* const gate = arena.take<float>(int64_t{args.rows.count} * g.n_routed_experts);
  const Linear linear = {args.weights->gate, Rounding::none, gate, g.n_routed_experts};
  run_linears(d, d.row(Act::h, args.h, args.rows.first), g.hidden_size, args.rows.count, &linear, 1,
              arena.at);
  const float* const bias = cpu_weight(args.weights->bias).vector.data();
  d.parallel(args.rows.count, [&](int64_t i, int32_t job) {
    const auto row = static_cast<int32_t>(args.rows.first + i);
    route_row(g, gate + i * g.n_routed_experts, bias, RouteScratch(g, d.job_scratch(job)),
              d.integers(args.expert, Act::expert, row), d.row(Act::expert_weight, args.expert_weight, row));
  });
}

void experts(Device* device, const ExpertsArgs& args) {
  const CpuDevice& d = cpu_device(device);
  const Geometry& g = d.geometry;
  const int32_t k = g.num_experts_per_tok, rows = args.rows.count, first = args.rows.first;
  const bool shared = args.weights->shared.gate != nullptr;
  const int32_t n_pairs = rows * (k + (shared ? 1 : 0));
  Arena arena{d.shared_scratch};
  auto* const pairs = arena.take<Pair>(n_pairs);
  auto* const next = arena.take<int32_t>(g.n_routed_experts + 1);  // of each expert, its next free pair

  std::fill_n(next, g.n_routed_experts + 1, 0);
  const int32_t* const expert = d.integers(args.expert, Act::expert, first);
  const float* const weight = d.row(Act::expert_weight, args.expert_weight, first);
  for (int32_t i = 0; i < rows * k; ++i) ++next[expert[i] + 1];
  for (int32_t e = 0; e < g.n_routed_experts; ++e) next[e + 1] += next[e];
  for (int32_t i = 0; i < rows * k; ++i) pairs[next[expert[i]]++] = {first + i / k, weight[i], i % k == 0};
  for (int32_t r = 0; shared && r < rows; ++r) pairs[rows * k + r] = {first + r, 1.0f, false};

  const int64_t widest =
      std::max(g.moe_intermediate_size, shared ? intermediate_size(args.weights->shared) : 0);
  const FfnRun run{d, args.h, args.delta, widest, pairs};
  Waves waves(run, wave_pairs(n_pairs), arena);
  for (int32_t e = 0; e < g.n_routed_experts; ++e) {  // next[e] is now the end of e
    waves.add(args.weights->experts[static_cast<size_t>(e)], next[e] - (e > 0 ? next[e - 1] : 0));
  }
  if (shared) waves.add(args.weights->shared, rows);
  waves.flush();
}

void ffn(Device* device, const FfnArgs& args) {
  const CpuDevice& d = cpu_device(device);
  Arena arena{d.shared_scratch};
  auto* const pairs = arena.take<Pair>(args.rows.count);
  for (int32_t r = 0; r < args.rows.count; ++r) pairs[r] = {args.rows.first + r, 1.0f, true};
  const FfnRun run{d, args.h, args.delta, intermediate_size(*args.weights), pairs};
  Waves waves(run, wave_pairs(args.rows.count), arena);
  waves.add(*args.weights, args.rows.count);
  waves.flush();
}

}  // namespace dsv::cpu
