// Checks of the indexer's kernels: scores against fp64, each row's bits in every tile; the top-k against a
// sort.
#include "kernels/cuda/bench/index_data.cuh"
#include "kernels/cuda/tensor_map.h"

namespace dsv::cuda {
namespace {

int failures = 0;

// ------------------------------------------------------------------------------------- scores

// A head's product as the FP8 tensor core of Hopper sums it, to the bit (an H200: 81,920 products of five
// kinds of factors, mostly zeros and subnormal codes among them). A step takes 32 products, which are exact,
// and the sum so far, aligns them to the largest exponent among those that are not zero (a product's is the
// sum of its factors', a subnormal code's being -6), drops what lies below its 13th binary place, adds, and
// drops what lies below the sum's own 13th place. So each number loses at most its place, and no more than
// itself.
struct CoarseSum {
  double sum;
  double loss;  // bound: of the exact sum
};
__device__ CoarseSum coarse_sum(const unsigned char* q, const unsigned char* key) {
  constexpr int kStep = 32, kPlaces = 13;
  const auto exponent = [](unsigned char code) { return (code >> 3 & 15) ? (code >> 3 & 15) - 7 : -6; };
  CoarseSum out = {0, 0};
  const auto cut = [&](double x, double place) {
    out.loss += fmin(fabs(x), place);
    return trunc(x / place) * place;
  };
  for (int step = 0; step < kDim / kStep; ++step) {
    // The step's k-th product, with K in the order of index_wgmma.cu.
    const auto at = [step](int k) {
      return 64 * (step / 2) + k % 16 / 4 * 16 + step % 2 * 8 + k / 16 * 4 + k % 4;
    };
    int largest = out.sum != 0 ? ilogb(out.sum) : -12;
    for (int k = 0; k < kStep; ++k) {
      if ((q[at(k)] & 0x7F) == 0 || (key[at(k)] & 0x7F) == 0) continue;
      largest = max(largest, exponent(q[at(k)]) + exponent(key[at(k)]));
    }
    const double place = ldexp(1.0, largest - kPlaces);
    double sum = cut(out.sum, place);
    for (int k = 0; k < kStep; ++k)
      sum += cut(double{e4m3_to_float(q[at(k)])} * double{e4m3_to_float(key[at(k)])}, place);
    out.sum = sum == 0 ? 0 : cut(sum, ldexp(1.0, ilogb(sum) - kPlaces));
  }
  return out;
}

struct Judge {
  double* score;   // [R, stride]
  double* terms;   // sum over heads of |terms|, the scale of f32 errors
  double* parts;   // sum over heads of |w| times the sum of |products|, the scale of errors within a product
  double* coarse;  // the score by coarse_sum
  double* coarse_terms;
  double* loss;  // what that may lose
};
__global__ void judge_scores(IndexScoresArgs a, Judge out) {
  const int64_t r = blockIdx.y, s = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (s > a.step.position[r]) return;
  const int64_t page = a.step.page_table[int64_t{a.step.sequence[r]} * a.step.page_stride + s / kPageTokens];
  const unsigned char* data = a.cache.index + page * kPageBytes;
  const unsigned char* key = data + s % kPageTokens * kDim;
  const unsigned char* q = a.index_q + r * a.q_stride;
  const double scale = reinterpret_cast<const float*>(data + kPageTokens * kDim)[s % kPageTokens];
  double score = 0, terms = 0, parts = 0, coarse = 0, coarse_terms = 0, loss = 0;
  for (int h = 0; h < a.heads; ++h) {
    double product = 0, size = 0;
    for (int i = 0; i < kDim; ++i) {
      const double term = double{e4m3_to_float(q[h * kDim + i])} * double{e4m3_to_float(key[i])};
      product += term;
      size += fabs(term);
    }
    const double w = double{a.weight[r * a.heads + h]} *
                     double{reinterpret_cast<const float*>(q + int64_t{a.heads} * kDim)[h]} * scale;
    score += fmax(product, 0.0) * w;
    terms += fabs(fmax(product, 0.0) * w);
    parts += size * fabs(w);
    const CoarseSum c = coarse_sum(q + h * kDim, key);
    coarse += fmax(c.sum, 0.0) * w;
    coarse_terms += fabs(fmax(c.sum, 0.0) * w);
    loss += c.loss * fabs(w);
  }
  const int64_t at = r * a.score_stride + s;
  out.score[at] = score;
  out.terms[at] = terms;
  out.parts[at] = parts;
  out.coarse[at] = coarse;
  out.coarse_terms[at] = coarse_terms;
  out.loss[at] = loss;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void check_scores(int32_t rows, int32_t heads, int32_t context, int32_t per_sequence, bool all) {
  const Problem p(rows, heads, context, per_sequence, true, all);
  const int64_t n = p.scores.size();
  Array<double> score(n), terms(n), parts(n), coarse(n), coarse_terms(n), loss(n);
  judge_scores<<<dim3((context + 127) / 128, rows), 128>>>(
      p.args(IndexPath::plain, 1),
      {score.get(), terms.get(), parts.get(), coarse.get(), coarse_terms.get(), loss.get()});
  const std::vector<double> expected = score.host(), size = terms.host(), whole = parts.host(),
                            modelled = coarse.host(), modelled_size = coarse_terms.host(), lost = loss.host();
  for (const IndexPath path :
       {IndexPath::plain, IndexPath::portable, IndexPath::f32_sums, IndexPath::fp8_sums}) {
    std::vector<float> first;
    for (const int32_t together : {1, 2, 3, 8, 100}) {
      if (path == IndexPath::plain && together > 1) break;
      p.scores.fill(0xFF);
      launch_index_scores(p.args(path, together), nullptr);
      check_cuda(cudaDeviceSynchronize());
      const std::vector<float> got = p.scores.host();
      if (together > 1) {
        if (!same_bits(first, got)) {
          ++failures;
          std::printf("FAIL %s: tiles of %d rows give other bits: rows %d heads %d context %d\n",
                      name_of(path), together, rows, heads, context);
        }
        continue;
      }
      first = got;
      const bool fp8 = path == IndexPath::fp8_sums && heads > 8;
      double worst = 0, worst_within = 0, worst_modelled = 0;
      int64_t bad = -1;
      for (int32_t r = 0; r < rows; ++r) {
        for (int64_t s = 0; s < p.score_stride; ++s) {
          const auto at = static_cast<size_t>(r * p.score_stride + s);
          if (s > p.host_position[static_cast<size_t>(r)]) {
            if (!std::isnan(got[at])) bad = static_cast<int64_t>(at);  // written where no row sees
            continue;
          }
          const double error = std::fabs(got[at] - expected[at]);
          worst = std::max(worst, error / (size[at] + 1e-300));
          worst_within = std::max(worst_within, error / (whole[at] + 1e-300));
          // f32 sums round to 2^-24 of what is summed.
          const double limit =
              (fp8 ? lost[at] : 0) + 8 * std::sqrt(kDim + heads) * 0x1p-24 * size[at] + 0x1p-22 * whole[at];
          if (!(error <= limit)) bad = static_cast<int64_t>(at);
          if (!fp8) continue;
          // Beside the model's sums there are only those over the heads.
          const double off = std::fabs(got[at] - modelled[at]), of = modelled_size[at];
          worst_modelled = std::max(worst_modelled, off / (of + 1e-300));
          if (!(off <= 8 * std::sqrt(heads) * 0x1p-24 * of)) bad = static_cast<int64_t>(at);
        }
      }
      if (bad >= 0) {
        ++failures;
        std::printf("FAIL ");
      }
      if (bad >= 0 || context >= 8192) {
        std::printf(
            "%s: rows %d heads %d context %d per sequence %d: error %.1e of the terms, %.1e of their "
            "products",
            name_of(path), rows, heads, context, per_sequence, worst, worst_within);
        if (fp8) std::printf(" (%.1e of them from coarse_sum)", worst_modelled);
        if (bad >= 0) {
          std::printf("; row %d position %d: %g, not %g", static_cast<int>(bad / p.score_stride),
                      static_cast<int>(bad % p.score_stride),
                      static_cast<double>(got[static_cast<size_t>(bad)]), expected[static_cast<size_t>(bad)]);
        }
        std::printf("\n");
      }
    }
    // Each row alone.
    p.scores.fill(0xFF);
    for (int32_t r = 0; r < rows; ++r) launch_index_scores(p.alone(p.args(path, 1), r), nullptr);
    check_cuda(cudaDeviceSynchronize());
    if (!same_bits(first, p.scores.host())) {
      ++failures;
      std::printf("FAIL %s: a row alone has other bits: rows %d heads %d context %d\n", name_of(path), rows,
                  heads, context);
    }
  }
}

// Rows that see at most k get no scores.
void check_skip() {
  const int32_t k = 256;
  for (const int32_t context : {k - 1, k, k + 1}) {
    Problem p(3, 64, context, 1, false, false);
    for (const IndexPath path :
         {IndexPath::plain, IndexPath::portable, IndexPath::f32_sums, IndexPath::fp8_sums}) {
      p.scores.fill(0xFF);
      launch_index_scores(p.args(path, 1, k), nullptr);
      const std::vector<float> got = p.scores.host();
      const bool untouched = std::isnan(got[0]);
      if (untouched != (context <= k))
        ++failures, std::printf("FAIL %s: context %d of k %d\n", name_of(path), context, k);
    }
  }
}

// ------------------------------------------------------------------------------------- top-k

constexpr const char* kPatterns[] = {
    "normal",     "few values", "all equal", "-inf but some", "denormals and zeros", "ascending",
    "descending", "near 1",     "all -inf",  "negative",      "heavy at 5.7",        "recent"};
constexpr int kPatternCount = sizeof kPatterns / sizeof *kPatterns;

float pattern_value(int pattern, int32_t i, int32_t n, uint64_t seed) {
  const uint64_t at = seed + static_cast<uint64_t>(i);
  const float inf = std::numeric_limits<float>::infinity();
  switch (pattern) {
    case 1:
      return static_cast<float>(hash(at) % 3);
    case 2:
      return 0.25f;
    case 3:
      return hash(at) % 50 == 0 ? bell(at) : -inf;
    case 4: {
      const uint32_t h = hash(at);
      return h % 4 == 0   ? 0.0f
             : h % 4 == 1 ? -0.0f
                          : (h & 4 ? 1.0f : -1.0f) * static_cast<float>(h % 100) * 1e-45f;
    }
    case 5:
      return static_cast<float>(i);
    case 6:
      return static_cast<float>(n - i);
    case 7:
      return 1 + static_cast<float>(hash(at) % 5000) * 0x1p-23f;
    case 8:
      return -inf;
    case 9:
      return -1 - std::fabs(bell(at));
    case 10:
      return 5 + 0.5f * bell(at);
    case 11:
      return i > n - 1500 ? 10 + bell(at) : bell(at);
    default:
      return bell(at);
  }
}

// Ways to go: of Hopper's kernels so many blocks a row, or these.
constexpr int kAsIs = 0, kPortable = -1, kPortableSplit = -2, kPlain = -3;
constexpr int kWays[] = {kAsIs, kPortable, kPortableSplit, kPlain, 1, 2, 4, 8};

// Rows of mixed patterns; row r sees `visible - r % 3` positions. `pattern` < 0: another for each row.
void check_top_k(int32_t rows, int32_t visible, int32_t k, int pattern) {
  const int64_t stride = (visible + 63) / 64 * 64;
  std::vector<float> scores(static_cast<size_t>(rows * stride), std::nanf(""));
  std::vector<int32_t> position, expected(static_cast<size_t>(int64_t{rows} * k), -1);
  for (int32_t r = 0; r < rows; ++r) {
    const int32_t n = std::max(visible - r % 3, 1), want = std::min(n, k);
    position.push_back(n - 1);
    float* row = scores.data() + r * stride;
    for (int32_t i = 0; i < n; ++i) {
      row[i] = pattern_value(pattern < 0 ? r % kPatternCount : pattern, i, n,
                             uint64_t{static_cast<uint32_t>(r)} << 32);
    }
    std::vector<int32_t> order(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    const auto before = [&](int32_t x, int32_t y) { return row[x] > row[y] || (row[x] == row[y] && x < y); };
    if (want < n) std::nth_element(order.begin(), order.begin() + want, order.end(), before);
    std::sort(order.begin(), order.begin() + want);
    std::copy_n(order.begin(), want, expected.begin() + int64_t{r} * k);
  }
  const Array<float> device_scores(scores);
  const Array<int32_t> device_position(position);
  Array<int32_t> selected(int64_t{rows} * k), n_selected(rows);
  Array<unsigned char> scratch(top_k_scratch_bytes(visible));
  for (const int way : kWays) {
    if (way > 0 && !wgmma_works()) continue;
    scratch.fill(0xEE);
    selected.fill(0xFF);
    const TopKArgs a{rows,
                     k,
                     device_position.get(),
                     device_scores.get(),
                     stride,
                     selected.get(),
                     n_selected.get(),
                     visible,
                     way != kPortable && scratch.size() > 0 ? scratch.get() : nullptr};
    way > 0         ? launch_top_k_blocks(a, way, nullptr)
    : way == kAsIs  ? launch_top_k(a, nullptr)
    : way == kPlain ? launch_top_k_plain(a, nullptr)
                    : launch_top_k_portable(a, nullptr);
    check_cuda(cudaGetLastError());
    check_cuda(cudaDeviceSynchronize());
    const std::vector<int32_t> got = selected.host(), counts = n_selected.host();
    for (int32_t r = 0; r < rows; ++r) {
      const int32_t want = std::min(position[static_cast<size_t>(r)] + 1, k);
      const auto row = expected.begin() + int64_t{r} * k;
      const int64_t wrong = std::mismatch(row, row + k, got.begin() + int64_t{r} * k).first - row;
      if (counts[static_cast<size_t>(r)] == want && wrong == k) continue;
      ++failures;
      std::printf(
          "FAIL top-k way %d: rows %d visible %d k %d row %d %s: count %d, of %d; entry %d is wrong\n", way,
          rows, visible, k, r, kPatterns[pattern < 0 ? r % kPatternCount : pattern],
          counts[static_cast<size_t>(r)], want, static_cast<int>(wrong));
      break;
    }
  }
}

void check_scores(bool quick) {
  if (quick) {
    check_scores(3, 64, 300, 1, true);
    check_scores(26, 64, 300, 26, false);
  }
  for (const int32_t heads : {1, 4, 12, 64}) {
    if (quick) break;
    for (const int32_t rows : {1, 7, 63, 65}) {
      for (const int32_t context : {1, 63, 64, 65, 300}) {
        check_scores(rows, heads, context, 1, true);
        check_scores(rows, heads, context, 5, true);
        check_scores(rows, heads, context, rows, false);
      }
    }
    check_scores(7, heads, 8192, 3, false);
    check_scores(65, heads, 8192, 65, false);
    check_scores(2, heads, 131072, 1, false);
  }
  check_skip();
  std::printf("scores checked, %d failures\n", failures);
}

void check_top_k(bool quick) {
  for (const int32_t k : {1, 64, 2048}) {
    for (const int32_t visible : {1, 63, 64, 65, k, k + 1, 8192, 20000}) {
      for (const int32_t rows : {1, 7, 65}) {
        if (!quick || (rows == 7 && k == 64 && visible > 8192)) check_top_k(rows, visible, k, -1);
      }
    }
  }
  for (int pattern = 0; pattern < kPatternCount && !quick; ++pattern) {
    for (const int32_t visible : {8193, 48 * 1024, 131072, 163840, 200000})
      check_top_k(2, visible, 2048, pattern);
    check_top_k(2, 131072, 64, pattern);
  }
  for (const int32_t visible : {8192, 12001, 16384, 30000, 32768}) {  // more rows than processors
    if (!quick) check_top_k(300, visible, 2048, -1);
  }
  if (!quick) check_top_k(2, 300000, 2048, 0);
  check_top_k(quick ? 2 : kPatternCount, 131072, 2048, -1);
  std::printf("top-k checked, %d failures\n", failures);
}

}  // namespace

int check_index(bool quick) {
  check_scores(quick);
  check_top_k(quick);
  return failures;
}

}  // namespace dsv::cuda
