#include "samples/cli/op_times.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <memory>
#include <set>
#include <thread>

#include "backend/library.h"
#include "backend/ops.h"
#include "base/host.h"
#include "model/checkpoint.h"
#include "model/forward.h"
#include "samples/cli/op_work.h"
#include "samples/cli/synth_image.h"

namespace cli {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// What the table below does besides calling the backend's.
enum class Mode {
  whole,  // nothing: the pass runs as an engine runs it
  ahead,  // whole, and nobody waits for its end, so that what follows is enqueued while the device is busy
  times,  // notes when each op ends
  count,  // notes how many experts were chosen
};

// Of the running pass. The table has no place of its own for it.
struct Running {
  const dsv::OpTable* ops;
  int32_t batch_rows, experts_per_token;
  Mode mode;
  double took;  // of a whole pass
  struct Call {
    Op op;
    bool last_of_layer;
    double seconds;
  };
  std::vector<Call> calls;
  std::vector<size_t> experts;  // by MoE layer
} running;

template <Op op, auto entry, class Args>
void timed(dsv::Device* device, const Args& args) {
  const dsv::OpTable& table = *running.ops;
  const auto start = Clock::now();
  (table.*entry)(device, args);
  if (running.mode == Mode::times) {
    running.calls.push_back({op, op == experts || op == ffn, seconds_since(start)});
    if (table.stamp) table.stamp(device, static_cast<int32_t>(running.calls.size()));
  }
  if constexpr (op == route) {
    if (running.mode != Mode::count) return;
    const auto k = static_cast<size_t>(running.experts_per_token);
    std::vector<float> chosen(k * static_cast<size_t>(args.rows.count));
    table.fetch(device, dsv::Act::expert, args.expert, args.rows, chosen.data());
    running.experts.push_back(std::set<float>(chosen.begin(), chosen.end()).size());
  }
}

dsv::StepPlan begin_step(dsv::Device* device, const dsv::StepArgs& args) {
  dsv::StepArgs step = args;
  if (running.ops->stamp && running.mode >= Mode::times) step.whole = false;
  const dsv::StepPlan plan = running.ops->begin_step(device, step);
  if (running.ops->stamp && running.mode == Mode::times) running.ops->stamp(device, 0);
  return plan;
}

bool wait(dsv::Device* device, double seconds, double* took) {
  *took = 0;
  if (running.mode == Mode::ahead) return true;
  if (!running.ops->wait(device, seconds, took)) return false;
  running.took = *took;
  return true;
}

// The table that watches another one.
dsv::OpTable timing_table(const dsv::OpTable& table) {
  using dsv::OpTable;
  running.ops = &table;
  OpTable t = table;
  t.begin_step = begin_step;
  if (table.wait) t.wait = wait;
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

uint64_t random_state = 1;
uint64_t next_random() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  return random_state ^= random_state << 17;
}

// Random bits where the mask has ones, plus `base`: values of a format with exponents of the base's.
void fill(unsigned char* out, int64_t bytes, uint64_t mask, uint64_t base) {
  for (int64_t at = 0; at < bytes; at += 8) {
    const uint64_t word = (next_random() & mask) + base;
    std::memcpy(out + at, &word, static_cast<size_t>(std::min<int64_t>(8, bytes - at)));
  }
}

// Random rows in a page of one layer, of values between 1 and 4 with signs.
void random_page(const dsv::Geometry& g, bool official, const dsv::KvLayout& kv, unsigned char* page) {
  constexpr uint64_t kCodes = 0x8F8F8F8F8F8F8F8F, kCodesBase = 0x3838383838383838;  // e4m3
  constexpr uint64_t kHalves = 0x807F807F807F807F, kHalvesBase = 0x3F803F803F803F80;
  constexpr uint64_t kFloats = 0x807FFFFF807FFFFF, kFloatsBase = 0x3F8000003F800000;
  const int64_t latent = dsv::kPageTokens * kv.latent_row_bytes;
  if (!official) return fill(page, latent + kv.index_page_bytes, kFloats, kFloatsBase);
  const float one = 1, sixteenth = 0.0625f;
  for (int64_t row = 0; row < dsv::kPageTokens; ++row) {
    unsigned char* at = page + row * kv.latent_row_bytes;
    fill(at, g.kv_lora_rank, kCodes, kCodesBase);
    at += g.kv_lora_rank;
    for (int64_t group = 0; group * dsv::kQuantBlock < g.kv_lora_rank; ++group, at += 4)
      std::memcpy(at, &one, 4);
    fill(at, 2 * g.qk_rope_head_dim, kHalves, kHalvesBase);
  }
  if (kv.index_page_bytes == 0) return;
  fill(page + latent, dsv::kPageTokens * g.index_head_dim, kCodes, kCodesBase);
  for (int64_t row = 0; row < dsv::kPageTokens; ++row) {
    std::memcpy(page + latent + dsv::kPageTokens * g.index_head_dim + 4 * row, &sixteenth, 4);
  }
}

struct Backend {
  const dsv::OpTable& ops;
  std::string target;
};
Backend find_backend(const std::string& name, const std::string& cpu_target) {
  if (name == "cpu") return {dsv::cpu_ops(), cpu_target};
  const size_t colon = name.find(':');
  const std::string target = colon == std::string::npos ? "" : name.substr(colon + 1);
  const dsv::BackendLibrary& library = dsv::cuda_library();
  library.check(target.c_str());
  return {*library.ops, target};
}

// A model, and passes of it.
class Bench {
 public:
  Bench(const OpTimesArgs& args, const std::vector<PassShape>& passes)
      : args_(args),
        image_(args.model.empty() ? make_image(args.layers) : nullptr),
        hooks_(image_ ? image_->hooks() : dsv_hooks{}),
        host_(image_ ? &hooks_ : nullptr),
        checkpoint_(dsv::Checkpoint::open(host_, image_ ? kImageFolder : args.model, false)),
        geometry_(checkpoint_->config().geometry),
        official_(args.precision == "official"),
        jobs_(dsv::make_thread_pool(
            args.threads > 0 ? args.threads
                             : static_cast<int>(std::max(1u, std::thread::hardware_concurrency())))),
        backend_(find_backend(args.backend, args.cpu_target)),
        table_(timing_table(backend_.ops)) {
    int32_t most_rows = 1, most_sequences = 1;
    int64_t longest = 0, pages = 0;
    for (const PassShape& pass : passes) {
      most_rows = std::max(most_rows, pass.rows);
      most_sequences = std::max(most_sequences, pass.sequences);
      longest = std::max(longest, pass.context);
      pages = std::max(pages, pass.sequences * pages_of(pass.context));
    }
    dsv::DeviceOptions options;
    options.geometry = &geometry_;
    options.precision = official_ ? dsv::Precision::official : dsv::Precision::exact;
    options.fast = args.fast;
    options.batch_rows = most_rows;
    options.logit_rows = 1;
    options.max_context = static_cast<int32_t>(longest);
    options.kv_pages = pages;
    options.target = backend_.target.empty() ? nullptr : backend_.target.c_str();
    options.jobs = jobs_.get();
    checkpoint_->for_each_matrix([&](const dsv::HostMatrix& m) {
      options.weight_copy_bytes += (table_.plan_weight_copy(options, m) + 255) / 256 * 256;
    });
    device_ = {table_.open(options), table_.close};
    const auto start = Clock::now();
    dsv::LoadMonitor monitor;
    weights_ = checkpoint_->load(table_, device_.get(), monitor);
    const dsv::KvLayout kv(geometry_, options.precision, false);
    std::vector<unsigned char> page(static_cast<size_t>(kv.page_bytes() / kv.layers));
    for (int32_t i = 0; i < pages; ++i) {
      for (int32_t layer = 0; layer < kv.layers; ++layer) {
        random_page(geometry_, official_, kv, page.data());
        table_.write_kv(device_.get(), layer, i, page.data());
      }
    }
    load_seconds_ = seconds_since(start);
    batch_ = std::make_unique<dsv::Batch>(most_rows, most_sequences, longest);
    forward_ = std::make_unique<dsv::Forward>(host_, table_, device_.get(), geometry_, weights_);
    running.experts_per_token = geometry_.num_experts_per_tok;
  }

  OpTimes describe() const {
    OpTimes out;
    out.model = args_.model.empty() ? "random weights, the released geometry" : args_.model;
    out.target = table_.target(device_.get());
    out.layers = geometry_.num_layers;
    for (const bool moe : checkpoint_->config().layer_is_moe) out.dense_layers += !moe;
    out.load_seconds = load_seconds_;
    return out;
  }

  PassTimes time(const PassShape& shape) {
    const bool long_pass = shape.rows >= 512;
    const int repeat = long_pass ? std::min(2, args_.repeat) : args_.repeat;
    run(shape, Mode::whole, false);  // what the first of a kind does besides
    if (table_.wait && !long_pass) run(shape, Mode::whole, false);
    PassTimes out;
    std::vector<double> times;
    for (int i = 0; i < repeat; ++i) times.push_back(run(shape, Mode::whole, false));
    out.seconds = typical(times);
    run(shape, Mode::count, false);
    for (const size_t count : running.experts) {
      out.experts += static_cast<double>(count) / static_cast<double>(running.experts.size());
    }
    const bool by_heads = args_.fast && official_ && table_.wait;  // as GPUs have it
    const std::array<OpTime, ops> work = work_of(*checkpoint_, shape, official_, by_heads, out.experts);
    std::vector<std::vector<double>> of_call;
    for (int i = 0; i < repeat; ++i) {
      if (table_.wait) run(shape, Mode::ahead, false);
      run(shape, Mode::times, true);
      of_call.resize(running.calls.size());
      for (size_t c = 0; c < running.calls.size(); ++c) of_call[c].push_back(running.calls[c].seconds);
    }
    std::array<OpTime, ops> sums = work;
    size_t layer = 0;
    const std::vector<bool>& is_moe = checkpoint_->config().layer_is_moe;
    for (size_t c = 0; c < running.calls.size(); ++c) {
      OpTime& op = sums[running.calls[c].op];
      const double seconds = typical(of_call[c]);
      op.seconds += seconds;
      if (layer < is_moe.size() && !is_moe[layer]) op.dense_seconds += seconds;
      ++op.calls;
      layer += running.calls[c].last_of_layer;
    }
    for (const OpTime& op : sums) {
      if (op.calls > 0) out.ops.push_back(op);
    }
    return out;
  }

 private:
  static constexpr const char* kImageFolder = "random";

  static std::unique_ptr<SynthImage> make_image(int32_t layers) {
    SynthOptions options;
    options.preset = "v32";
    options.layers = layers;
    options.out = kImageFolder;
    return std::make_unique<SynthImage>(options);
  }
  static int64_t pages_of(int64_t positions) { return (positions + dsv::kPageTokens - 1) / dsv::kPageTokens; }

  double typical(std::vector<double>& times) const {
    std::sort(times.begin(), times.end());
    return table_.wait ? times[times.size() / 2] : times[0];
  }

  // Returns what a whole pass took.
  double run(const PassShape& shape, Mode mode, bool want_logits) {
    running.mode = mode;
    running.calls.clear();
    running.experts.clear();
    const int32_t rows = shape.own();
    const int64_t pages = pages_of(shape.context);
    batch_->clear();
    std::vector<int32_t> own(static_cast<size_t>(pages));
    for (int32_t s = 0; s < shape.sequences; ++s) {
      for (size_t i = 0; i < own.size(); ++i)
        own[i] = static_cast<int32_t>(s * pages + static_cast<int64_t>(i));
      batch_->add_sequence(own);
      for (int32_t r = 0; r < rows; ++r) {
        batch_->add_row(static_cast<int32_t>(next_random() % static_cast<uint64_t>(geometry_.vocab_size)),
                        static_cast<int32_t>(shape.context) - rows + r, s,
                        want_logits && s + 1 == shape.sequences && r + 1 == rows);
      }
    }
    const auto start = Clock::now();
    forward_->begin(*batch_);
    while (!forward_->advance(Clock::time_point::max())) {
    }
    const double took = seconds_since(start);
    if (mode == Mode::times && table_.stamp) {
      for (size_t c = 0; c < running.calls.size(); ++c) {
        const auto i = static_cast<int32_t>(c);
        running.calls[c].seconds = table_.between(device_.get(), i, i + 1);
      }
    }
    return table_.wait ? running.took : took;
  }

  const OpTimesArgs& args_;
  std::unique_ptr<SynthImage> image_;
  dsv_hooks hooks_;
  dsv::Host host_;
  std::unique_ptr<dsv::Checkpoint> checkpoint_;
  const dsv::Geometry& geometry_;
  bool official_;
  std::unique_ptr<dsv::Jobs> jobs_;
  Backend backend_;
  dsv::OpTable table_;
  std::unique_ptr<dsv::Device, void (*)(dsv::Device*)> device_{nullptr, nullptr};
  dsv::ModelWeights weights_;
  double load_seconds_ = 0;
  std::unique_ptr<dsv::Batch> batch_;
  std::unique_ptr<dsv::Forward> forward_;
};

}  // namespace

void check_backend(const std::string& backend) { find_backend(backend, ""); }

OpTimes time_ops(const OpTimesArgs& args, const std::vector<PassShape>& passes) {
  Bench bench(args, passes);
  OpTimes out = bench.describe();
  for (const PassShape& pass : passes) out.passes.push_back(bench.time(pass));
  return out;
}

}  // namespace cli
