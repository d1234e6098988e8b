// Checks of the tensor-core linears and FFNs: against sums in fp64, and each row's bits against the same row
// alone.
#include "kernels/cuda/attend.h"
#include "kernels/cuda/bench/linear_data.cuh"

namespace dsv::cuda {
namespace {

bool failed = false;

struct ReferenceArgs {  // sum[r, o] and size[r, o] = sum of |products|, in fp64
  WeightView w;
  PackedRows x;
  double* sum;
  double* size;
};
__global__ void reference_kernel(ReferenceArgs a) {
  const int64_t o = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, r = blockIdx.y;
  if (o >= a.w.rows) return;
  const unsigned char* x = a.x.data + r * a.x.pitch;
  double sum = 0, size = 0;
  for (int64_t k = 0; k < a.w.cols; ++k) {
    const unsigned char* w = a.w.data + o * a.w.pitch;
    double v = 0;
    const int64_t block = k / kQuantBlock;
    if (a.w.dtype == Dtype::f8_e4m3) {
      v = static_cast<double>(e4m3_to_float(w[k])) * a.w.scale[o / kQuantBlock * a.w.scale_cols + block];
    } else {
      v = bf16_to_float(reinterpret_cast<const uint16_t*>(w)[k]);
    }
    v *= a.x.scale ? static_cast<double>(e4m3_to_float(x[k])) * a.x.scale[r * a.x.scale_cols + block]
                   : bf16_to_float(reinterpret_cast<const uint16_t*>(x)[k]);
    sum += v, size += fabs(v);
  }
  a.sum[r * a.w.rows + o] = sum, a.size[r * a.w.rows + o] = size;
}
struct Reference {
  std::vector<double> sum, size;
  Reference(const WeightView& w, const PackedRows& x, int64_t n) {
    Memory sums(8 * n * w.rows), sizes(8 * n * w.rows);
    launch(reference_kernel, {(w.rows + 127) / 128, n}, 128, 0, nullptr,
           ReferenceArgs{w, x, sums.as<double>(), sizes.as<double>()});
    sum = sums.to_host<double>(n * w.rows);
    size = sizes.to_host<double>(n * w.rows);
  }
};

// A block's sum errs by a few 2^-24 of its products' sizes and so does the sum of blocks; products are exact.
constexpr double kLimit = 0x1p-20;

void report(bool ok, const std::string& what, double worst) {
  if (ok) return;
  std::printf("FAILED %s (error %.3g of the products' size, limit %.3g)\n", what.c_str(), worst, kLimit);
  failed = true;
}

// What launch_tensor_wgmma_as takes for a launch.
std::vector<int> side_by_side(const TensorArgs& a) {
  std::vector<int> out = {0};
  for (const int blocks : {1, 2, 4, 8}) {
    if (wgmma_takes_side_by_side(a, blocks)) out.push_back(blocks);
  }
  return out;
}

void check_linear(Dtype dtype, int64_t outputs, int64_t cols) {
  constexpr int32_t kRows = 200;
  const Matrix w(dtype, outputs, cols, 1);
  const Input x(dtype, kRows, cols, 7);
  const Reference reference(w.view, x.rows, kRows);
  Memory y(4 * kRows * outputs);
  std::vector<float> alone(static_cast<size_t>(kRows * outputs));
  double worst_of_all = 0;
  int runs = 0;
  const auto run = [&](int32_t first, int32_t rows, int32_t tile_rows) {
    check_cuda(cudaMemset(y.at, 0xFF, 4 * kRows * outputs));
    launch_tensor(linear_args(w.view, x.from(first), rows, tile_rows, y.as<float>()), nullptr);
    return y.to_host<float>(rows * outputs);
  };
  for (int32_t r = 0; r < kRows; ++r) {
    const std::vector<float> one = run(r, 1, 8);
    std::copy(one.begin(), one.end(), alone.begin() + r * outputs);
  }
  const auto worst_of = [&](const std::vector<float>& got) {
    double worst = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      const double error = std::fabs(got[i] - reference.sum[i]) / reference.size[i];
      worst = error <= worst ? worst : error;  // keeps NaN
    }
    return worst;
  };
  const double worst = worst_of(alone);
  worst_of_all = worst;
  const std::string name = std::string(dtype == Dtype::bf16 ? "bf16 " : "fp8 ") + std::to_string(outputs) +
                           "x" + std::to_string(cols);
  report(worst <= kLimit, name + " against fp64", worst);
  const auto same = [&](const std::string& tiles, int32_t first, int32_t rows,
                        const std::vector<float>& got) {
    int64_t differ = 0, at = -1;
    for (int64_t i = 0; i < rows * outputs; ++i) {
      if (std::memcmp(&got[i], &alone[first * outputs + i], 4) == 0) continue;
      if (differ++ == 0) at = i;
    }
    ++runs;
    if (differ == 0) return;
    failed = true;
    std::printf(
        "FAILED %s: %d rows in tiles %s: %lld of %lld differ from the row alone; first row %lld output %lld: "
        "%.9g, alone %.9g, fp64 %.9g\n",
        name.c_str(), rows, tiles.c_str(), static_cast<long long>(differ),
        static_cast<long long>(rows * outputs), static_cast<long long>(at / outputs),
        static_cast<long long>(at % outputs), got[at], alone[first * outputs + at],
        reference.sum[first * outputs + at]);
  };
  for (const int32_t rows : {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200}) {
    for (const int32_t tile_rows : {8, 16, 32, 64, 128}) {
      same("of " + std::to_string(tile_rows), (kRows - rows) / 3, rows,
           run((kRows - rows) / 3, rows, tile_rows));
    }
  }
  if (dtype == Dtype::bf16 && wgmma_works()) {
    for (const bool by_rows : {false, true}) {
      check_cuda(cudaMemset(y.at, 0xFF, 4 * kRows * outputs));
      launch_linear_bf16_as(linear_args(w.view, x.rows, kRows, kWgmmaRows, y.as<float>()), nullptr, by_rows);
      const double error = worst_of(y.to_host<float>(kRows * outputs));
      report(error <= kLimit, name + " by wgmma against fp64", error);
    }
  }
  if (dtype == Dtype::f8_e4m3 && wgmma_works()) {
    for (const int32_t rows : {1, 7, 63, 64, 65, 127, 128, 129, 200}) {
      const int32_t first = (kRows - rows) / 3;
      const HopperInput spread(PackedForm::spread, x, cols, first, rows);
      const TensorArgs args = linear_args(w.view, spread.rows, rows, kWgmmaRows, y.as<float>());
      for (const int blocks : side_by_side(args)) {
        check_cuda(cudaMemset(y.at, 0xFF, 4 * kRows * outputs));
        launch_tensor_wgmma_as(args, nullptr, blocks);
        same("of wgmma, side by side " + std::to_string(blocks), first, rows,
             y.to_host<float>(rows * outputs));
      }
    }
  }
  std::printf("checked %-18s splits %d, %d runs, worst error %.3g of the products' size\n", name.c_str(),
              tensor_splits(outputs, w.view.pitch), runs, worst_of_all);
}

// What the FP8 tensor core gives: a step aligns its 32 products and the sum so far to the largest exponent
// among them and drops what lies below its 13th binary place, then what lies below the sum's own. So each
// number loses at most its place, and no more than itself.
struct CoarseSum {
  double sum, size;     // exact, and of |products|
  double coarse, loss;  // what the tensor core gives, and a bound of what that lacks
};
struct CoarseArgs {
  WeightView w;
  PackedRows x;
  int64_t step;    // of rows
  CoarseSum* out;  // [rows / step, outputs]
};
__global__ void coarse_kernel(CoarseArgs a) {
  constexpr int kStep = 32, kPlaces = 13;
  const int64_t o = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, i = blockIdx.y, r = i * a.step;
  if (o >= a.w.rows) return;
  const unsigned char *x = a.x.data + r * a.x.pitch, *w = a.w.data + o * a.w.pitch;
  const auto exponent = [](unsigned char code) { return (code >> 3 & 15) ? (code >> 3 & 15) - 7 : -6; };
  CoarseSum total = {};
  for (int64_t block = 0; block * kQuantBlock < a.w.cols; ++block) {
    const double scale = double{a.w.scale[o / kQuantBlock * a.w.scale_cols + block]} *
                         double{a.x.scale[r * a.x.scale_cols + block]};
    double coarse = 0, loss = 0, sum = 0, size = 0;
    const auto cut = [&](double v, double place) {
      loss += fmin(fabs(v), place);
      return trunc(v / place) * place;
    };
    for (int64_t first = block * kQuantBlock; first < (block + 1) * kQuantBlock && first < a.w.cols;
         first += kStep) {
      const int64_t last = first + kStep < a.w.cols ? first + kStep : a.w.cols;
      int largest = coarse != 0 ? ilogb(coarse) : -12;
      for (int64_t k = first; k < last; ++k) largest = max(largest, exponent(x[k]) + exponent(w[k]));
      const double place = ldexp(1.0, largest - kPlaces);
      double step = cut(coarse, place);
      for (int64_t k = first; k < last; ++k) {
        const double v = double{e4m3_to_float(x[k])} * double{e4m3_to_float(w[k])};
        step += cut(v, place), sum += v, size += fabs(v);
      }
      coarse = step == 0 ? 0 : cut(step, ldexp(1.0, ilogb(step) - kPlaces));
    }
    total.sum += sum * scale, total.size += size * fabs(scale);
    total.coarse += coarse * scale, total.loss += loss * fabs(scale);
  }
  a.out[i * a.w.rows + o] = total;
}

void check_fp8(int64_t outputs, int64_t cols, const std::vector<int32_t>& row_counts) {
  if (!wgmma_works()) return;
  const Matrix w(Dtype::f8_e4m3, outputs, cols, 1);
  double worst = 0, of_limit = 0, from_model = 0;
  for (const int32_t rows : row_counts) {
    const Input x(Dtype::f8_e4m3, rows, cols, 7);
    const HopperInput by_block(PackedForm::by_block, x, cols, 0, rows);
    const int64_t step = rows > 300 ? 61 : 1, n = (rows - 1) / step + 1;
    Memory expected(static_cast<int64_t>(sizeof(CoarseSum)) * n * outputs), y(4 * rows * outputs);
    launch(coarse_kernel, {(outputs + 127) / 128, n}, 128, 0, nullptr,
           CoarseArgs{w.view, x.rows, step, expected.as<CoarseSum>()});
    const std::vector<CoarseSum> want = expected.to_host<CoarseSum>(n * outputs);
    for (const bool few : {false, true}) {
      if (few && rows > kFp8FewRows) continue;
      check_cuda(cudaMemset(y.at, 0xFF, 4 * rows * outputs));
      const TensorArgs args = linear_args(w.view, by_block.rows, rows, kFp8Rows, y.as<float>());
      few ? launch_tensor_fp8_few(args, nullptr) : launch_tensor_fp8(args, nullptr);
      const std::vector<float> got = y.to_host<float>(rows * outputs);
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t o = 0; o < outputs; ++o) {
          const CoarseSum& m = want[i * outputs + o];
          const double value = got[i * step * outputs + o], error = std::fabs(value - m.sum);
          const double part = error / (m.loss + kLimit * m.size);
          of_limit = part <= of_limit ? of_limit : part;  // keeps NaN
          worst = std::max(worst, error / m.size);
          from_model = std::max(from_model, std::fabs(value - m.coarse) / m.size);
        }
      }
    }
  }
  const std::string name = "FP8 sums " + std::to_string(outputs) + "x" + std::to_string(cols);
  if (!(of_limit <= 1)) {
    failed = true;
    std::printf("FAILED %s: error %.3g of what the tensor core may lose\n", name.c_str(), of_limit);
  }
  std::printf(
      "checked %-24s worst error %.3g of the products' size, %.3g of the limit, %.3g from the model\n",
      name.c_str(), worst, of_limit, from_model);
}

void check_values(Dtype dtype) {
  constexpr int32_t kRows = 67;
  const Values values(dtype, 3);
  const Input x(Dtype::bf16, kRows, values.heads * Values::kRank, 41);
  const int64_t width = values.heads * Values::kOut;
  Memory y(4 * kRows * width);
  std::vector<float> first;
  for (const int32_t tile_rows : {8, 16, 32, 64}) {
    check_cuda(cudaMemset(y.at, 0xFF, 4 * kRows * width));
    launch_tensor(values.args(x.rows, kRows, tile_rows, y.as<float>()), nullptr);
    const std::vector<float> got = y.to_host<float>(kRows * width);
    if (first.empty()) first = got;
    report(std::memcmp(got.data(), first.data(), 4 * got.size()) == 0,
           "values: tiles of " + std::to_string(tile_rows) + " differ from tiles of 8", 0);
  }
  double worst = 0;
  for (int64_t h = 0; h < values.heads; ++h) {
    WeightView w = values.w.view;
    w.data += (h * Values::kHead + Values::kFirst) * w.pitch;
    if (w.scale) w.scale += (h * Values::kHead + Values::kFirst) / kQuantBlock * w.scale_cols;
    w.rows = Values::kOut;
    PackedRows in = x.rows;
    in.data += 2 * h * Values::kRank;
    const Reference reference(w, in, kRows);
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t o = 0; o < Values::kOut; ++o) {
        const size_t at = static_cast<size_t>(r * Values::kOut + o);
        const double error =
            std::fabs(first[r * width + h * Values::kOut + o] - reference.sum[at]) / reference.size[at];
        worst = error <= worst ? worst : error;
      }
    }
  }
  const std::string name = dtype == Dtype::bf16 ? "bf16 values" : "fp8 values";
  report(worst <= kLimit, name + " against fp64", worst);
  std::printf("checked %s, worst error %.3g\n", name.c_str(), worst);
}

// W_k^T q and W_v of a prompt's rows on Hopper: the bits of the kernels for few.
void check_heads(int32_t rows) {
  constexpr int32_t kHeads = 128;
  const Values values(Dtype::f8_e4m3, kHeads);
  const Input x(Dtype::bf16, rows, kHeads * Values::kRank, 41), q(Dtype::bf16, rows, kHeads * 192, 42);
  const int64_t n_q = int64_t{rows} * kHeads * 192, n_abs = int64_t{rows} * kHeads * Values::kRank,
                width = kHeads * Values::kOut;
  std::vector<float> queries;
  std::vector<uint16_t> places(static_cast<size_t>(2 * n_q), 0xFFFF);  // bf16, in the first half of a head's
  for (const uint16_t code : q.codes.to_host<uint16_t>(n_q)) {
    const size_t i = queries.size();
    places[i / 192 * 2 * 192 + i % 192] = code;
    queries.push_back(bf16_to_float(code));
  }
  Memory q_values(4 * n_q), q_codes(4 * n_q), q_abs(2 * n_abs), y(4 * rows * width);
  q_values.from_host(queries);
  q_codes.from_host(places);
  const std::string name = " of " + std::to_string(rows) + " rows";
  const ValueRows f32 = q_values.at, bf16 = {q_codes.at, true};
  const auto absorb = [&](auto launch_it, const ValueRows& from) {
    check_cuda(cudaMemset(q_abs.at, 0xFF, 2 * n_abs));
    launch_it(AbsorbArgs{rows, kHeads, values.w.view, Values::kHead, 128, 192, from, true, true, q_abs.at},
              nullptr);
    return q_abs.to_host<uint16_t>(n_abs);
  };
  const std::vector<uint16_t> few = absorb(launch_absorb, f32);
  report(absorb(launch_absorb, bf16) == few, "absorb, q in bf16" + name, 0);
  report(absorb(launch_absorb_many, f32) == few, "absorb_many" + name, 0);
  report(absorb(launch_absorb_wgmma, f32) == few, "absorb_wgmma" + name, 0);
  report(absorb(launch_absorb_wgmma, bf16) == few, "absorb_wgmma, q in bf16" + name, 0);
  launch_tensor(values.args(x.rows, rows, 64, y.as<float>()), nullptr);
  const std::vector<float> expected = y.to_host<float>(rows * width);
  check_cuda(cudaMemset(y.at, 0xFF, 4 * rows * width));
  launch_heads_wgmma(values.args(x.rows, rows, 64, y.as<float>()), nullptr);
  report(y.to_host<float>(rows * width) == expected, "heads_wgmma" + name, 0);
  std::printf("checked heads%s\n", name.c_str());
}

// The codes of an FFN's launch with FP8 sums, which has given `y`: SwiGLU's are those of packing it, others
// bf16.
void check_codes(TensorArgs args, const Memory& y, const std::string& name) {
  const bool swiglu = args.kind == TensorKind::swiglu;
  const Rounding rounding = swiglu ? Rounding::e4m3 : Rounding::bf16;
  const PackedForm form = swiglu ? PackedForm::by_block : PackedForm::by_row;
  const int64_t bytes = packed_bytes(args.rows, args.outputs);
  for (const bool power_of_two : {false, true}) {
    const auto words = [&](auto&& write) {
      const Memory codes(bytes);
      check_cuda(cudaMemset(codes.at, 0, bytes));
      write(codes.as<unsigned char>());
      return codes.to_host<uint32_t>(bytes / 4);
    };
    args.power_of_two = power_of_two;
    report(words([&](unsigned char* codes) {
             args.codes = codes_out(packed_rows(codes, args.rows, args.outputs, rounding, form));
             launch_tensor_fp8(args, nullptr);
           }) == words([&](unsigned char* codes) {
             launch_pack_codes(
                 {args.rows, args.outputs, y.as<float>(), args.outputs, rounding, power_of_two, codes, form},
                 nullptr);
           }),
           name + (swiglu ? " swiglu" : " down") + ": codes are not those of its values", 0);
  }
}

void check_experts(Dtype dtype, int64_t inner, int64_t dim, int32_t rows) {
  constexpr int32_t kExperts = 12, kTop = 3;
  const Experts ffns(dtype, kExperts, inner, dim);
  Routing routing(rows, kTop, kExperts);
  const int32_t pairs = rows * kTop;
  const Input h(dtype, rows, dim, 30), a(dtype, pairs, inner, 31);
  const std::string name = std::string(dtype == Dtype::bf16 ? "bf16" : "fp8") + " experts " +
                           std::to_string(inner) + "," + std::to_string(dim) + " rows " +
                           std::to_string(rows);
  for (const bool swiglu : {true, false}) {
    const int64_t outputs = swiglu ? inner : dim;
    Memory y(4 * pairs * outputs);
    std::vector<float> first;
    double worst = 0;
    for (const int32_t tile_rows : {8, 16, 32, 64, 128}) {
      routing.group(tile_rows);
      check_cuda(cudaMemset(y.at, 0xFF, 4 * pairs * outputs));
      launch_tensor(ffns.args(swiglu ? TensorKind::swiglu : TensorKind::down, dtype, swiglu ? h.rows : a.rows,
                              routing, tile_rows, y.as<float>()),
                    nullptr);
      const std::vector<float> got = y.to_host<float>(pairs * outputs);
      if (first.empty()) first = got;
      if (std::memcmp(got.data(), first.data(), 4 * got.size()) != 0) {
        report(false,
               name + (swiglu ? " swiglu" : " down") + ": tiles of " + std::to_string(tile_rows) +
                   " differ from tiles of 8",
               0);
      }
    }
    if (dtype == Dtype::f8_e4m3 && wgmma_works()) {
      routing.group(kWgmmaRows);
      const auto packed = [&](PackedForm form) {
        return HopperInput(form, swiglu ? h : a, swiglu ? dim : inner, 0, swiglu ? rows : pairs);
      };
      const HopperInput spread = packed(PackedForm::spread), by_block = packed(PackedForm::by_block);
      const GatheredInput gathered(swiglu ? spread.rows : h.rows, dim, routing.pair_row.as<int32_t>(), pairs);
      check_cuda(cudaMemset(y.at, 0xFF, 4 * pairs * outputs));
      TensorArgs args = ffns.args(swiglu ? TensorKind::swiglu : TensorKind::down, dtype,
                                  swiglu ? gathered.rows : spread.rows, routing, kWgmmaRows, y.as<float>());
      args.pair_row = nullptr;
      launch_tensor_wgmma(args, nullptr);
      report(y.to_host<float>(pairs * outputs) == first,
             name + (swiglu ? " swiglu" : " down") + ": wgmma differs from tiles of 8", 0);
      // FP8 sums: of the same tiles by the same code as a linear's (check_fp8), so that a coarse look will
      // do.
      const GatheredInput rows_of_h(swiglu ? by_block.rows : h.rows, dim, routing.pair_row.as<int32_t>(),
                                    pairs);
      routing.group(kFp8Pairs);
      args.x = swiglu ? rows_of_h.rows : by_block.rows, args.tile_rows = kFp8Pairs;
      args.tile_bound = most_tiles(pairs, kExperts, kFp8Pairs);
      check_cuda(cudaMemset(y.at, 0xFF, 4 * pairs * outputs));
      launch_tensor_fp8(args, nullptr);
      const std::vector<float> fast = y.to_host<float>(pairs * outputs);
      double total = 0, differ = 0;
      for (size_t i = 0; i < fast.size(); ++i) {
        const double difference = double{fast[i]} - double{first[i]};
        total += double{first[i]} * double{first[i]}, differ += difference * difference;
      }
      report(std::sqrt(differ / total) <= 1e-3, name + (swiglu ? " swiglu" : " down") + " with FP8 sums",
             std::sqrt(differ / total));
      check_codes(args, y, name);
      // One FFN for all of few rows: the same sums of blocks, added in f32 in another order.
      args.tiles = nullptr, args.rows = pairs < 100 ? pairs : 100;
      std::vector<float> by_rows[2];
      for (const bool few : {false, true}) {
        check_cuda(cudaMemset(y.at, 0xFF, 4 * pairs * outputs));
        few ? launch_tensor_fp8_few(args, nullptr) : launch_tensor_fp8(args, nullptr);
        by_rows[few] = y.to_host<float>(args.rows * outputs);
      }
      total = differ = 0;
      for (size_t i = 0; i < by_rows[0].size(); ++i) {
        const double difference = double{by_rows[1][i]} - double{by_rows[0][i]};
        total += double{by_rows[0][i]} * double{by_rows[0][i]}, differ += difference * difference;
      }
      report(std::sqrt(differ / total) <= 1e-5, name + (swiglu ? " swiglu" : " down") + " of few rows",
             std::sqrt(differ / total));
    }
    const std::vector<int32_t> pair_of = routing.pair_of.to_host<int32_t>(pairs);
    for (int32_t r = 0; r < rows; ++r) {
      for (int32_t i = 0; i < kTop; ++i) {
        const int32_t pair = pair_of[r * kTop + i];
        const FfnView& ffn = ffns.views[routing.expert[r * kTop + i]];
        const int64_t row = swiglu ? r : pair;
        const Input& in = swiglu ? h : a;
        const Reference one(swiglu ? ffn.gate : ffn.down, in.from(row), 1);
        const Reference two(swiglu ? ffn.up : ffn.down, in.from(row), 1);
        for (int64_t o = 0; o < outputs; ++o) {
          double expected = one.sum[o], size = one.size[o];
          if (swiglu) {
            const double silu = expected / (1 + std::exp(-expected));
            size = 2 * one.size[o] * std::fabs(two.sum[o]) + std::fabs(silu) * two.size[o];
            expected = silu * two.sum[o];
          }
          const double error = std::fabs(first[pair * outputs + o] - expected) / (size + 1e-30);
          worst = error <= worst ? worst : error;
        }
      }
    }
    report(worst <= 2 * kLimit, name + (swiglu ? " swiglu" : " down") + " against fp64", worst);
    std::printf("checked %s %s, worst error %.3g\n", name.c_str(), swiglu ? "swiglu" : "down", worst);
  }
}

}  // namespace

bool check_linears(bool quick) {
  for (const Dtype dtype : {Dtype::f8_e4m3, Dtype::bf16}) {
    for (const auto& [outputs, cols] :
         {std::pair<int64_t, int64_t>{8, 16}, {40, 36}, {72, 200}, {130, 384}, {300, 1000}}) {
      check_linear(dtype, outputs, cols);
    }
    check_values(dtype);
    for (const int32_t rows : {1, 7, 63}) check_experts(dtype, 140, 200, rows);
    if (dtype == Dtype::f8_e4m3) {
      check_fp8(130, 144, {65});
      check_fp8(300, 1000, {1, 7, 63, 65, 129, 257});
      if (wgmma_works()) check_heads(200);
    }
    if (quick) continue;
    if (dtype == Dtype::f8_e4m3) {
      check_fp8(24576, 1536, {64, 128, 4096});
      check_fp8(7168, 2048, {33, 64, 65, 128, 1024});
      check_fp8(8192, 512, {64, 100});
      check_fp8(36864, 512, {64, 127, 300});
    }
    for (const auto& [outputs, cols] : {std::pair<int64_t, int64_t>{576, 7168},
                                        {2112, 7168},
                                        {7168, 2048},
                                        {1000, 5000},
                                        {24576, 1536},
                                        {7168, 16384}}) {
      check_linear(dtype, outputs, cols);
    }
    check_experts(dtype, 140, 200, 300);
    check_experts(dtype, 2048, 896, 65);
  }
  return !failed;
}

}  // namespace dsv::cuda
