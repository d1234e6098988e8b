// Times of the tensor-core linears and FFNs: medians, with the L2 cache flushed before every launch; GB/s
// counts the weight's bytes that the rows need, once.
#include "kernels/cuda/attend.h"
#include "kernels/cuda/bench/linear_data.cuh"

namespace dsv::cuda {
namespace {

int32_t most_rows = INT32_MAX;

void time_linear(const bench::Timer& timer, Dtype dtype, const char* name, int64_t outputs, int64_t cols,
                 const std::vector<int32_t>& row_counts) {
  const Matrix w(dtype, outputs, cols, 1);
  for (const int32_t rows : row_counts) {
    if (rows > most_rows) break;
    const Input x(dtype, rows, cols, 7);
    Memory y(4 * rows * outputs);
    const auto time = [&](const char* how, auto&& run) {
      const std::string what = std::string(name) + (dtype == Dtype::bf16 ? " bf16 " : " fp8 ") +
                               std::to_string(outputs) + "x" + std::to_string(cols) + how;
      bench::row(timer, what.c_str(), rows, timer.median_us(run), static_cast<double>(w.bytes()),
                 2.0 * rows * outputs * cols);
    };
    time("", [&] {
      launch_tensor(linear_args(w.view, x.rows, rows, tensor_tile_rows(rows, outputs), y.as<float>()),
                    nullptr);
    });
    const TensorArgs by_wgmma = linear_args(w.view, x.rows, rows, kWgmmaRows, y.as<float>());
    if (takes_linear_bf16(by_wgmma) && wgmma_works())
      time(" fast", [&] { launch_linear_bf16(by_wgmma, nullptr); });
    if (dtype != Dtype::f8_e4m3 || rows <= kFewRows || !wgmma_works()) continue;
    const HopperInput spread(PackedForm::spread, x, cols, 0, rows),
        by_block(PackedForm::by_block, x, cols, 0, rows);
    time(" wgmma",
         [&] { launch_tensor(linear_args(w.view, spread.rows, rows, kWgmmaRows, y.as<float>()), nullptr); });
    TensorArgs fast = linear_args(w.view, by_block.rows, rows, kFp8Rows, y.as<float>());
    fast.fp8_sums = true;
    time(" fast", [&] { launch_tensor(fast, nullptr); });
    if (few_for_fp8(false, rows)) continue;
    fast.codes = {y.as<unsigned char>(), packed_pitch(outputs, Rounding::bf16)};
    time(" fast, in bf16", [&] { launch_tensor(fast, nullptr); });
  }
}

void time_experts(const bench::Timer& timer) {
  constexpr int32_t kExperts = 256, kTop = 8;
  constexpr int64_t kInner = 2048, kDim = 7168;
  constexpr Dtype kDtype = Dtype::f8_e4m3;
  const Experts ffns(kDtype, kExperts, kInner, kDim);
  for (const int32_t rows : {1, 2, 4, 8, 32, 64, 256, 1024, 4096}) {
    if (rows > most_rows) break;
    Routing routing(rows, kTop, kExperts);
    const int32_t pairs = rows * kTop;
    const Input h(kDtype, rows, kDim, 30), a(kDtype, pairs, kInner, 31);
    Memory inner(4 * pairs * kInner), outer(4 * pairs * kDim), codes(packed_bytes(pairs, kInner));
    std::set<int32_t> sizes = {8};
    if (rows > 8) sizes.insert({tensor_tile_rows(2 * pairs / kExperts, kDim * kExperts), 16});
    if (rows >= 256) sizes = {32, 64, 128};
    const double touched = static_cast<double>(routing.touched()), flop = 2.0 * pairs * kInner * kDim;
    for (const int32_t tile_rows : sizes) {
      bench::row(timer, "group", rows, timer.median_us([&] { routing.group(tile_rows); }), 0, 0);
      const std::string note = " (tiles of " + std::to_string(tile_rows) + ", " +
                               std::to_string(static_cast<int>(touched)) + " experts)";
      bench::row(timer, ("experts gate_up" + note).c_str(), rows, timer.median_us([&] {
        launch_tensor(ffns.args(TensorKind::swiglu, kDtype, h.rows, routing, tile_rows, inner.as<float>()),
                      nullptr);
      }),
                 touched * 2 * kInner * kDim, 2 * flop);
      bench::row(timer, ("experts down" + note).c_str(), rows, timer.median_us([&] {
        launch_tensor(ffns.args(TensorKind::down, kDtype, a.rows, routing, tile_rows, outer.as<float>()),
                      nullptr);
      }),
                 touched * kInner * kDim, flop);
    }
    if (pairs / kExperts > kFewRows && wgmma_works()) {
      for (const bool fast : {false, true}) {
        const int32_t tile_rows = fast ? kFp8Pairs : kWgmmaRows;
        routing.group(tile_rows);
        const PackedForm form = fast ? PackedForm::by_block : PackedForm::spread;
        const HopperInput h_packed(form, h, kDim, 0, rows), a_packed(form, a, kInner, 0, pairs);
        const PackedRows from = h_packed.rows;
        const GatheredInput gathered(from, kDim, routing.pair_row.as<int32_t>(), pairs);
        const auto run = [&](TensorKind kind, const PackedRows& x, float* y, const CodesOut& y_codes = {}) {
          TensorArgs args = ffns.args(kind, kDtype, x, routing, tile_rows, y);
          args.pair_row = nullptr;
          args.codes = y_codes, args.power_of_two = true;
          fast ? launch_tensor_fp8(args, nullptr) : launch_tensor(args, nullptr);
        };
        const std::string how = fast ? ", fast" : ", wgmma";
        bench::row(timer, ("gather" + how).c_str(), rows, timer.median_us([&] {
          gathered.gather(from, kDim, routing.pair_row.as<int32_t>(), pairs);
        }),
                   2.0 * static_cast<double>(pairs) * static_cast<double>(from.pitch), 0);
        bench::row(timer, ("experts gate_up" + how).c_str(), rows,
                   timer.median_us([&] { run(TensorKind::swiglu, gathered.rows, inner.as<float>()); }),
                   touched * 2 * kInner * kDim, 2 * flop);
        bench::row(timer, ("experts down" + how).c_str(), rows,
                   timer.median_us([&] { run(TensorKind::down, a_packed.rows, outer.as<float>()); }),
                   touched * kInner * kDim, flop);
        if (!fast) continue;
        bench::row(timer, "experts gate_up, fast, as codes", rows, timer.median_us([&] {
          run(TensorKind::swiglu, gathered.rows, nullptr,
              codes_out(packed_rows(codes.at, pairs, kInner, Rounding::e4m3, PackedForm::by_block)));
        }),
                   touched * 2 * kInner * kDim, 2 * flop);
        bench::row(timer, "experts down, fast, in bf16", rows, timer.median_us([&] {
          run(TensorKind::down, a_packed.rows, nullptr,
              codes_out(packed_rows(outer.at, pairs, kDim, Rounding::bf16)));
        }),
                   touched * kInner * kDim, flop);
      }
    }
    bench::row(timer, "experts requantise", rows, timer.median_us([&] {
      launch_pack_codes(
          {pairs, kInner, inner.as<float>(), kInner, Rounding::e4m3, false, codes.as<unsigned char>()},
          nullptr);
    }),
               5.0 * pairs * kInner, 0);
    Memory delta(4 * rows * kDim);
    for (const bool bf16 : {false, true}) {
      MixExpertsArgs mix = {};
      mix.rows = rows, mix.k = kTop, mix.dim = kDim, mix.y = {outer.at, bf16};
      mix.pair_of = routing.pair_of.as<int32_t>(), mix.weight = routing.weight.as<float>();
      mix.delta = delta.as<float>();
      bench::row(timer, bf16 ? "experts mix, bf16" : "experts mix", rows,
                 timer.median_us([&] { launch_mix_experts(mix, nullptr); }),
                 static_cast<double>(kDim) * ((bf16 ? 2.0 : 4.0) * pairs + 4.0 * rows), 0);
    }
  }
}

}  // namespace

void time_linears(const bench::Timer& timer, int32_t rows) {
  most_rows = rows;
  bench::header();
  const std::vector<int32_t> few = {1, 2, 4, 8, 16, 32, 64}, all = {1, 8, 64, 128, 256, 1024, 4096};
  constexpr Dtype fp8 = Dtype::f8_e4m3, bf16 = Dtype::bf16;
  time_linear(timer, fp8, "q_a+kv_a", 2112, 7168, few);
  time_linear(timer, fp8, "q_a", 1536, 7168, {1, 64});
  time_linear(timer, fp8, "kv_a", 576, 7168, {1, 64});
  time_linear(timer, fp8, "wk", 128, 7168, {1, 64});
  time_linear(timer, fp8, "q_b", 24576, 1536, {1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096});
  time_linear(timer, fp8, "wq_b", 8192, 1536, {1, 64});
  time_linear(timer, fp8, "o", 7168, 16384, {1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096});
  time_linear(timer, fp8, "shared gate_up", 4096, 7168, few);
  time_linear(timer, fp8, "shared down", 7168, 2048, few);
  time_linear(timer, fp8, "dense gate_up", 36864, 7168, all);
  time_linear(timer, fp8, "dense down", 7168, 18432, {1, 64, 4096});
  time_linear(timer, bf16, "router", 256, 7168, {1, 64, 512, 4096});
  time_linear(timer, bf16, "weights_proj", 64, 7168, {1, 64, 512, 4096});
  time_linear(timer, bf16, "head", 129280, 7168, {1, 8, 64, 256});
  for (const int32_t rows : {1, 8, 64, 256, 1024, 1365}) {
    if (rows > most_rows) break;
    const Values values(fp8, 128);
    const int64_t width = values.heads * Values::kOut;
    const Input x(bf16, rows, values.heads * Values::kRank, 41);
    Memory y(4 * rows * width), q(4 * rows * values.heads * 192),
        q_abs(4 * rows * values.heads * Values::kRank);
    check_cuda(cudaMemset(q.at, 0, 4 * rows * values.heads * 192));
    const double bytes = static_cast<double>(values.w.bytes()) / 2, flop = 2.0 * rows * bytes;
    const TensorArgs args =
        values.args(x.rows, rows, tensor_tile_rows(rows < 64 ? rows : 64, Values::kOut), y.as<float>());
    const bool many = wgmma_works() && takes_heads_wgmma(args);
    bench::row(timer, "W_v, 128 heads", rows,
               timer.median_us([&] { (many ? launch_heads_wgmma : launch_tensor)(args, nullptr); }), bytes,
               flop);
    for (const bool bf16_q : {false, true}) {
      if (bf16_q && !wgmma_works()) break;
      const AbsorbArgs absorb = {rows,           128,  values.w.view, Values::kHead, 128, 192,
                                 {q.at, bf16_q}, true, true,          q_abs.at};
      const char* const what = bf16_q ? "W_k^T q, 128 heads, q in bf16" : "W_k^T q, 128 heads";
      bench::row(timer, what, rows, timer.median_us([&] {
        (!takes_absorb_many(absorb) ? launch_absorb
         : wgmma_works()            ? launch_absorb_wgmma
                                    : launch_absorb_many)(absorb, nullptr);
      }),
                 bytes, flop);
    }
  }
  time_experts(timer);
  for (const int32_t rows : {1, 64, 4096}) {
    if (rows > most_rows) break;
    Memory x(4 * rows * 7168), codes(packed_bytes(rows, 7168));
    check_cuda(cudaMemset(x.at, 0, 4 * rows * 7168));
    bench::row(timer, "quantise 7168", rows, timer.median_us([&] {
      launch_pack_codes({rows, 7168, x.as<float>(), 7168, Rounding::e4m3, false, codes.as<unsigned char>()},
                        nullptr);
    }),
               5.0 * rows * 7168, 0);
  }
}

}  // namespace dsv::cuda
