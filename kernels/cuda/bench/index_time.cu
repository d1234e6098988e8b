// Times of the indexer's kernels: medians, with the L2 cache flushed before every launch.
#include "kernels/cuda/bench/index_data.cuh"

namespace dsv::cuda {
namespace {

void report(const char* what, const char* how, double us, double floor_us, double aim_us) {
  std::printf("%-46s %-10s %9.1f us  floor %7.1f  share %4.0f%%  aim %5.0f %s\n", what, how, us, floor_us,
              100 * floor_us / us, aim_us, us <= aim_us ? "met" : "");
  bench::record((std::string(what) + ", " + how).c_str(), 0, us, floor_us);
}

void time_scores(const bench::Timer& timer, const char* what, int32_t rows, int32_t context,
                 int32_t per_sequence, double aim) {
  const Problem p(rows, 64, context, per_sequence, false, false);
  const double bytes = static_cast<double>(p.pages_n) * kPageBytes + 4 * p.visible;
  const double flop = p.visible * 64 * kDim * 2;
  const double floor_us = std::max(bytes / (timer.copy() * 1e-6), flop / 1585e6);
  for (const IndexPath path : {IndexPath::portable, IndexPath::f32_sums, IndexPath::fp8_sums}) {
    const double us =
        timer.median_us([&] { launch_index_scores(p.args(path, per_sequence, 2048), nullptr); });
    report(what, name_of(path), us, floor_us, aim);
  }
}

void time_top_k(const bench::Timer& timer, const char* what, int32_t rows, int32_t visible, double aim,
                float mean, float deviation) {
  const int32_t k = 2048;
  Array<float> scores(int64_t{rows} * visible);
  std::vector<int32_t> position(static_cast<size_t>(rows), visible - 1);
  const Array<int32_t> device_position(position);
  Array<int32_t> selected(int64_t{rows} * k), n_selected(rows);
  Array<unsigned char> scratch(top_k_scratch_bytes(visible));
  fill_bell<<<4096, 256>>>(scores.get(), scores.size(), 1, deviation);
  if (mean != 0) {
    std::vector<float> host = scores.host();
    for (float& x : host) x += mean;
    scores.set(host);
  }
  const double floor_us = (4.0 * rows * visible + 4.0 * rows * k) / (timer.copy() * 1e-6);
  const TopKArgs a{rows,
                   k,
                   device_position.get(),
                   scores.get(),
                   visible,
                   selected.get(),
                   n_selected.get(),
                   visible,
                   scratch.size() > 0 ? scratch.get() : nullptr};
  report(what, "as is", timer.median_us([&] { launch_top_k(a, nullptr); }), floor_us, aim);
  report(what, "portable", timer.median_us([&] { launch_top_k_portable(a, nullptr); }), floor_us, aim);
  if (takes_top_k_hopper(a)) {
    report(what, "hopper", timer.median_us([&] { launch_top_k_hopper(a, nullptr); }), floor_us, aim);
  }
}

void time_rows(const bench::Timer& timer, int32_t rows) {
  const Array<float> in(int64_t{rows} * 64 * kDim), cos(int64_t{rows} * 32), sin(int64_t{rows} * 32);
  fill_bell<<<1024, 256>>>(in.get(), in.size(), 1, 1);
  Array<unsigned char> out(int64_t{rows} * 64 * (kDim + 4));
  const IndexQueryArgs a{rows,      64,   kDim, 64,        in.get(),       cos.get(),
                         sin.get(), true, true, out.get(), 64 * (kDim + 4)};
  const double us = timer.median_us([&] { launch_index_query(a, nullptr); });
  const std::string what = "index queries, " + std::to_string(rows) + " rows";
  report(what.c_str(), "", us, (4.0 + 1) * rows * 64 * kDim / (timer.copy() * 1e-6), 0);
}

}  // namespace

void time_index(const bench::Timer& timer) {
  report("an empty launch", "", timer.median_us([] {}), 0, 0);
  time_scores(timer, "scores paged decode b=1 32K", 1, 32768, 1, 6);
  time_scores(timer, "scores paged decode b=1 128K", 1, 131072, 1, 10);
  time_scores(timer, "scores paged decode b=32 32K", 32, 32768, 1, 62);
  time_scores(timer, "scores paged decode b=64 64K", 64, 65536, 1, 211);
  time_scores(timer, "scores paged decode b=128 next_n=2 32K", 256, 32768, 2, 218);
  time_scores(timer, "scores prefill 2048 x 8K", 2048, 8192, 2048, 227);
  time_scores(timer, "scores prefill 4096 x 32K", 4096, 32768, 4096, 1786);
  time_scores(timer, "scores prefill 4096 x 128K", 4096, 131072, 4096, 8500);
  time_scores(timer, "scores prefill 64 x 128K (a tile of rows)", 64, 131072, 64, 150);
  time_scores(timer, "scores prefill 512 x 16K (a tile of rows)", 512, 16384, 512, 0);
  time_scores(timer, "scores prefill 128 x 128K", 128, 131072, 128, 300);
  const float shapes[2][2] = {{0, 1}, {5, 0.5f}};
  for (const auto& [mean, deviation] : shapes) {
    std::printf("top-2048 of scores of mean %g, deviation %g\n", static_cast<double>(mean),
                static_cast<double>(deviation));
    time_top_k(timer, "top-2048 1 x 8K", 1, 8192, 10, mean, deviation);
    time_top_k(timer, "top-2048 1 x 32K", 1, 32768, 14, mean, deviation);
    time_top_k(timer, "top-2048 64 x 32K", 64, 32768, 0, mean, deviation);
    time_top_k(timer, "top-2048 1 x 128K", 1, 131072, 17, mean, deviation);
    time_top_k(timer, "top-2048 8 x 128K", 8, 131072, 20, mean, deviation);
    time_top_k(timer, "top-2048 64 x 128K", 64, 131072, 50, mean, deviation);
    time_top_k(timer, "top-2048 512 x 16K", 512, 16384, 0, mean, deviation);
    time_top_k(timer, "top-2048 2048 x 8K", 2048, 8192, 90, mean, deviation);
    time_top_k(timer, "top-2048 2048 x 32K", 2048, 32768, 230, mean, deviation);
    time_top_k(timer, "top-2048 2048 x 128K", 2048, 131072, 700, mean, deviation);
  }
  for (const int32_t rows : {1, 64, 4096}) time_rows(timer, rows);
}

}  // namespace dsv::cuda
