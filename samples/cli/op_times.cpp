#include "samples/cli/op_times.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <memory>
#include <thread>

#include "backend/ops.h"
#include "base/host.h"
#include "model/checkpoint.h"
#include "model/forward.h"

namespace cli {
namespace {

using Clock = std::chrono::steady_clock;

enum Op {
  add_norm,
  attn_in,
  attn_q,
  cache_append,
  index_select,
  attend,
  attn_out,
  route,
  experts,
  ffn,
  logits,
  ops
};
constexpr const char* kNames[ops] = {"add_norm",     "attn_in", "attn_q",   "cache_append",
                                     "index_select", "attend",  "attn_out", "route",
                                     "experts",      "ffn",     "logits"};

// What the running pass has cost so far. The table below has no place of its own for it.
std::array<OpTime, ops> account;
const dsv::OpTable* inner;

template <Op op, auto entry, class Args>
void timed(dsv::Device* device, const Args& args) {
  const auto start = Clock::now();
  (inner->*entry)(device, args);
  account[op].seconds += std::chrono::duration<double>(Clock::now() - start).count();
  ++account[op].calls;
}

// The table that times another one.
dsv::OpTable timing_table(const dsv::OpTable& table) {
  using dsv::OpTable;
  inner = &table;
  OpTable t = table;
  t.add_norm = timed<add_norm, &OpTable::add_norm, dsv::AddNormArgs>;
  t.attn_in = timed<attn_in, &OpTable::attn_in, dsv::AttnInArgs>;
  t.attn_q = timed<attn_q, &OpTable::attn_q, dsv::AttnQArgs>;
  t.cache_append = timed<cache_append, &OpTable::cache_append, dsv::CacheAppendArgs>;
  t.index_select = timed<index_select, &OpTable::index_select, dsv::IndexSelectArgs>;
  t.attend = timed<attend, &OpTable::attend, dsv::AttendArgs>;
  t.attn_out = timed<attn_out, &OpTable::attn_out, dsv::AttnOutArgs>;
  t.route = timed<route, &OpTable::route, dsv::RouteArgs>;
  t.ffn = timed<ffn, &OpTable::ffn, dsv::FfnArgs>;
  t.logits = timed<logits, &OpTable::logits, dsv::LogitsArgs>;
  t.experts = timed<experts, &OpTable::experts, dsv::ExpertsArgs>;
  return t;
}

// What the ops of a pass must read and do, from the sizes of the architecture.
class Work {
 public:
  Work(const dsv::Checkpoint& checkpoint, const PassShape& pass, bool official)
      : g_(checkpoint.config().geometry),
        rows_(pass.rows),
        kv_(g_, official ? dsv::Precision::official : dsv::Precision::exact, false) {
    checkpoint.for_each_matrix([&](const dsv::HostMatrix& m) { matrix(m); });
    // Row r sees context + r + 1 positions.
    double visible = 0, selected = 0;
    for (int32_t r = 0; r < pass.rows; ++r) {
      const double sees = static_cast<double>(pass.context) + r + 1;
      visible += sees;
      selected += g_.has_indexer() ? std::min<double>(sees, g_.index_topk) : sees;
    }
    const double layers = g_.num_layers, last = static_cast<double>(pass.context) + pass.rows;
    const double heads = g_.num_heads, latent = static_cast<double>(g_.latent_dim());
    // Rows of a prompt share what they read, at best.
    const double read = pass.rows == 1 ? selected : last;
    of[attend].cache_bytes = layers * read * static_cast<double>(kv_.latent_row_bytes);
    of[attend].multiply_adds += layers * selected * heads * (latent + static_cast<double>(g_.kv_lora_rank));
    if (g_.has_indexer() && last > g_.index_topk) {
      of[index_select].cache_bytes =
          layers * last / dsv::kPageTokens * static_cast<double>(kv_.index_page_bytes);
      of[index_select].multiply_adds =
          layers * visible * g_.index_n_heads * static_cast<double>(g_.index_head_dim);
    }
  }
  std::array<OpTime, ops> of;

 private:
  void matrix(const dsv::HostMatrix& m) {
    const std::string_view name = m.name;
    const auto has = [&](std::string_view part) { return name.find(part) != std::string_view::npos; };
    if (m.rows == 1 || name == "model.embed_tokens.weight") return;
    const double values = static_cast<double>(m.rows) * static_cast<double>(m.cols);
    const double bytes = values * static_cast<double>(dsv::dtype_bytes(m.dtype));
    double read = 1, rows = rows_;  // part of the weight that is read; rows that meet it
    Op op = ops;
    if (has("lm_head")) {
      op = logits, rows = 1;
    } else if (has(".mlp.experts.")) {
      op = experts;
      rows = static_cast<double>(rows_) * g_.num_experts_per_tok / g_.n_routed_experts;
      read = std::min(1.0, rows);  // at most: rows that choose alike read less
    } else if (has("shared_experts")) {
      op = experts;
    } else if (has(".mlp.gate.")) {
      op = route;
    } else if (has(".mlp.")) {
      op = ffn;
    } else if (has("kv_b_proj")) {
      op = attend;
    } else if (has("o_proj")) {
      op = attn_out;
    } else if (has("q_b_proj") || has("wq_b") || has("q_proj")) {
      op = attn_q;
    } else {
      op = attn_in;
    }
    of[op].weight_bytes += bytes * read;
    of[op].multiply_adds += values * rows;
  }
  const dsv::Geometry& g_;
  int32_t rows_;
  dsv::KvLayout kv_;
};

}  // namespace

std::vector<std::vector<OpTime>> time_ops(const OpTimesArgs& args, const std::vector<PassShape>& passes) {
  const dsv::Host host(nullptr);
  const auto checkpoint = dsv::Checkpoint::open(host, args.model, false);
  const dsv::Geometry& geometry = checkpoint->config().geometry;
  int32_t most_rows = 512;
  int64_t longest = 0;
  for (const PassShape& pass : passes) {
    most_rows = std::max(most_rows, pass.rows);
    longest = std::max(longest, pass.context + pass.rows);
  }
  const int threads =
      args.threads > 0 ? args.threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const std::unique_ptr<dsv::Jobs> jobs = dsv::make_thread_pool(threads);
  dsv::DeviceOptions options;
  options.geometry = &geometry;
  options.precision = args.precision == "official" ? dsv::Precision::official : dsv::Precision::exact;
  options.batch_rows = most_rows;
  options.logit_rows = 1;
  options.max_context = static_cast<int32_t>(longest);
  options.kv_pages = (longest + dsv::kPageTokens - 1) / dsv::kPageTokens;
  options.target = args.cpu_target.empty() ? nullptr : args.cpu_target.c_str();
  options.jobs = jobs.get();
  const dsv::OpTable table = timing_table(dsv::cpu_ops());
  const std::unique_ptr<dsv::Device, void (*)(dsv::Device*)> device(table.open(options), table.close);
  dsv::LoadMonitor monitor;
  const dsv::ModelWeights weights = checkpoint->load(table, device.get(), monitor);
  dsv::Forward forward(host, table, device.get(), geometry, weights);

  dsv::Batch batch(most_rows, 1, longest);
  std::vector<int32_t> pages(static_cast<size_t>(options.kv_pages));
  for (size_t i = 0; i < pages.size(); ++i) pages[i] = static_cast<int32_t>(i);
  uint64_t random = 1;
  const auto run = [&](int64_t first, int64_t rows) {
    batch.clear();
    const int32_t sequence = batch.add_sequence(pages);
    for (int64_t r = 0; r < rows; ++r) {
      random = random * 6364136223846793005u + 1442695040888963407u;
      batch.add_row(static_cast<int32_t>((random >> 33) % static_cast<uint64_t>(geometry.vocab_size)),
                    static_cast<int32_t>(first + r), sequence, r + 1 == rows);
    }
    forward.begin(batch);
    while (!forward.advance(Clock::time_point::max())) {
    }
  };
  // The cache must hold what the passes see, so it is filled once.
  int64_t filled = 0;
  std::vector<std::vector<OpTime>> results;
  for (const PassShape& pass : passes) {
    while (filled < pass.context) {
      const int64_t rows = std::min<int64_t>(most_rows, pass.context - filled);
      run(filled, rows);
      filled += rows;
    }
    Work work(*checkpoint, pass, options.precision == dsv::Precision::official);
    for (int round = 0; round < args.repeat; ++round) {
      account = {};
      run(pass.context, pass.rows);
      for (int op = 0; op < ops; ++op) {
        const OpTime& now = account[static_cast<size_t>(op)];
        OpTime& best = work.of[static_cast<size_t>(op)];
        best.seconds = round == 0 ? now.seconds : std::min(best.seconds, now.seconds);
        best.calls = now.calls;
      }
    }
    results.emplace_back();
    for (int op = 0; op < ops; ++op) {
      OpTime& time = work.of[static_cast<size_t>(op)];
      time.op = kNames[op];
      if (time.calls > 0) results.back().push_back(time);
    }
  }
  return results;
}

}  // namespace cli
