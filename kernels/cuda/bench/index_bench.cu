// Checks and times the indexer's kernels on a GPU:
//
//   cuda_index_bench [check | time]      both without an argument; exits with 1 if a check fails
//
// Checks: scores against fp64, each row's bits in every tile; the top-k against a sort. Times: medians, with
// the L2 cache flushed before each launch. Floors: bytes at the copy bandwidth of this GPU, FLOPs at 1585
// TFLOP/s.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/bench/record.h"
#include "kernels/cuda/formats.h"
#include "kernels/cuda/kernels.h"

namespace dsv::cuda {
namespace {

constexpr int kDim = 128;
constexpr int64_t kPageBytes = kPageTokens * (kDim + 4);
int failures = 0;

void must(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::printf("%s: %s\n", what, cudaGetErrorString(error));
  std::exit(2);
}

template <class T>
class Array {
 public:
  explicit Array(int64_t n) : n_(n) {
    must(cudaMalloc(&at_, static_cast<size_t>(std::max<int64_t>(n, 1)) * sizeof(T)), "cudaMalloc");
  }
  explicit Array(const std::vector<T>& values) : Array(static_cast<int64_t>(values.size())) { set(values); }
  ~Array() { cudaFree(at_); }
  Array(const Array&) = delete;
  T* get() const { return at_; }
  int64_t size() const { return n_; }
  void set(const std::vector<T>& values) {
    must(cudaMemcpy(at_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice), "copy in");
  }
  void fill(int byte) const { must(cudaMemset(at_, byte, static_cast<size_t>(n_) * sizeof(T)), "fill"); }
  std::vector<T> host() const {
    std::vector<T> out(static_cast<size_t>(n_));
    must(cudaMemcpy(out.data(), at_, out.size() * sizeof(T), cudaMemcpyDeviceToHost), "copy out");
    return out;
  }

 private:
  T* at_ = nullptr;
  int64_t n_ = 0;
};

// ------------------------------------------------------------------------------------- data

__host__ __device__ inline uint32_t hash(uint64_t i) {
  i = (i + 0x9E3779B97F4A7C15u) * 0xBF58476D1CE4E5B9u;
  i ^= i >> 31;
  i *= 0x94D049BB133111EBu;
  return static_cast<uint32_t>(i >> 32);
}
// About normal, variance 1.
__host__ __device__ inline float bell(uint64_t i) {
  float sum = 0;
  for (int j = 0; j < 4; ++j) sum += static_cast<float>(hash(4 * i + j) >> 8) * 0x1p-24f - 0.5f;
  return sum * 1.7320508f;
}
__global__ void fill_bell(float* out, int64_t n, uint64_t seed, float scale) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n;
       i += int64_t{gridDim.x} * blockDim.x) {
    out[i] = scale * bell(seed + static_cast<uint64_t>(i));
  }
}
// Every finite code if `all`, else e4m3 of normal values times 64: as quantised keys are.
__device__ unsigned char code(uint64_t i, bool all) {
  if (!all) return static_cast<unsigned char>(float_to_e4m3(64 * bell(i)));
  const uint32_t h = hash(i) & 0xFF;
  return static_cast<unsigned char>((h & 0x7F) == 0x7F ? h & 0xFE : h);
}
__global__ void fill_pages(unsigned char* pages, int64_t n, bool all) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n * kPageBytes;
       i += int64_t{gridDim.x} * blockDim.x) {
    const int64_t page = i / kPageBytes, at = i % kPageBytes;
    if (at < kPageTokens * kDim) {
      pages[i] = code(static_cast<uint64_t>(i), all);
    } else if (at % 4 == 0) {
      *reinterpret_cast<float*>(pages + i) = 0.01f + static_cast<float>(hash(page * 64 + at) >> 8) * 0x1p-26f;
    }
  }
}
__global__ void fill_queries(unsigned char* q, int64_t rows, int32_t heads, int64_t stride, bool all) {
  const int64_t n = rows * heads * kDim;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n;
       i += int64_t{gridDim.x} * blockDim.x) {
    const int64_t row = i / (heads * kDim), at = i % (heads * kDim);
    q[row * stride + at] = code(static_cast<uint64_t>(i) + (uint64_t{7} << 40), all);
    if (at < heads) {
      *reinterpret_cast<float*>(q + row * stride + heads * kDim + 4 * at) =
          0.01f + 0.001f * static_cast<float>(at % 7);
    }
  }
}

// Rows at the end of contexts: `per_sequence` consecutive rows each, on scattered pages. The last row of a
// sequence sees `context` positions, or a few less in later sequences if `vary`.
struct Problem {
  int32_t rows, heads, context, page_stride;
  int64_t q_stride, pages_n;
  Array<unsigned char> pages, q;
  Array<float> weight, scores;
  Array<int32_t> position, sequence, table;
  std::vector<int32_t> host_position;
  int64_t score_stride;
  double visible = 0;  // of all rows together

  Problem(int32_t rows_, int32_t heads_, int32_t context_, int32_t per_sequence, bool vary, bool all)
      : rows(rows_),
        heads(heads_),
        context(context_),
        page_stride((context_ + kPageTokens - 1) / kPageTokens),
        q_stride(int64_t{heads_} * (kDim + 4)),
        pages_n(int64_t{(rows_ + per_sequence - 1) / per_sequence} * page_stride),
        pages(pages_n * kPageBytes),
        q(rows_ * q_stride),
        weight(int64_t{rows_} * heads_),
        scores(int64_t{rows_} * page_stride * kPageTokens),
        position(rows_),
        sequence(rows_),
        table(pages_n),
        score_stride(int64_t{page_stride} * kPageTokens) {
    fill_pages<<<4096, 256>>>(pages.get(), pages_n, all);
    fill_queries<<<1024, 256>>>(q.get(), rows, heads, q_stride, all);
    fill_bell<<<256, 256>>>(weight.get(), weight.size(), uint64_t{3} << 40, 0.01f);
    std::vector<int32_t> host_sequence, host_table(static_cast<size_t>(pages_n));
    for (int32_t r = 0; r < rows; ++r) {
      const int32_t s = r / per_sequence, last = std::min(rows, (s + 1) * per_sequence) - 1;
      const int32_t end = vary ? std::max(context - 37 * s, 1) : context;
      host_sequence.push_back(s);
      host_position.push_back(std::max(end - 1 - (last - r), 0));
      visible += host_position.back() + 1;
    }
    std::iota(host_table.begin(), host_table.end(), 0);
    std::shuffle(host_table.begin(), host_table.end(), std::mt19937(1));
    position.set(host_position);
    sequence.set(host_sequence);
    table.set(host_table);
    must(cudaDeviceSynchronize(), "data");
  }
  IndexScoresArgs args(IndexPath path, int32_t together, int32_t topk = 0) const {
    IndexScoresArgs a{};
    a.rows = rows;
    a.heads = heads;
    a.topk = topk;
    a.longest = context;
    a.step.position = position.get();
    a.step.sequence = sequence.get();
    a.step.page_table = table.get();
    a.step.page_stride = page_stride;
    a.cache.index = pages.get();
    a.cache.index_page_bytes = kPageBytes;
    a.cache.index_dim = kDim;
    a.cache.official = true;
    a.index_q = q.get();
    a.q_stride = q_stride;
    a.weight = weight.get();
    a.scores = scores.get();
    a.score_stride = score_stride;
    a.path = path;
    a.rows_together = together;
    return a;
  }
  // Arguments for one row alone.
  IndexScoresArgs alone(IndexScoresArgs a, int32_t r) const {
    a.rows = 1;
    a.step.position += r;
    a.step.sequence += r;
    a.index_q += r * q_stride;
    a.weight += int64_t{r} * heads;
    a.scores += r * score_stride;
    return a;
  }
};

// ------------------------------------------------------------------------------------- scores

// A head's product as the FP8 tensor core of Hopper sums it. A step takes 32 products, which are exact, and
// the sum so far, aligns them to the largest exponent among them (a product's is the sum of its factors',
// those of subnormal codes and zero being -6), drops what lies below its 13th binary place, adds, and drops
// what lies below the sum's own 13th place. So each number loses at most its place, and no more than itself.
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
    for (int k = 0; k < kStep; ++k) largest = max(largest, exponent(q[at(k)]) + exponent(key[at(k)]));
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
  double* loss;    // what that may lose
};
__global__ void judge_scores(IndexScoresArgs a, Judge out) {
  const int64_t r = blockIdx.y, s = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (s > a.step.position[r]) return;
  const int64_t page = a.step.page_table[int64_t{a.step.sequence[r]} * a.step.page_stride + s / kPageTokens];
  const unsigned char* data = a.cache.index + page * kPageBytes;
  const unsigned char* key = data + s % kPageTokens * kDim;
  const unsigned char* q = a.index_q + r * a.q_stride;
  const double scale = reinterpret_cast<const float*>(data + kPageTokens * kDim)[s % kPageTokens];
  double score = 0, terms = 0, parts = 0, coarse = 0, loss = 0;
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
    loss += c.loss * fabs(w);
  }
  const int64_t at = r * a.score_stride + s;
  out.score[at] = score;
  out.terms[at] = terms;
  out.parts[at] = parts;
  out.coarse[at] = coarse;
  out.loss[at] = loss;
}

const char* name_of(IndexPath path) {
  constexpr const char* kNames[] = {"plain", "portable", "f32 sums", "fp8 sums"};
  return kNames[static_cast<int>(path)];
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void check_scores(int32_t rows, int32_t heads, int32_t context, int32_t per_sequence, bool all) {
  const Problem p(rows, heads, context, per_sequence, true, all);
  const int64_t n = p.scores.size();
  Array<double> score(n), terms(n), parts(n), coarse(n), loss(n);
  judge_scores<<<dim3((context + 127) / 128, rows), 128>>>(
      p.args(IndexPath::plain, 1), {score.get(), terms.get(), parts.get(), coarse.get(), loss.get()});
  const std::vector<double> expected = score.host(), size = terms.host(), whole = parts.host(),
                            modelled = coarse.host(), lost = loss.host();
  for (const IndexPath path :
       {IndexPath::plain, IndexPath::portable, IndexPath::f32_sums, IndexPath::fp8_sums}) {
    std::vector<float> first;
    for (const int32_t together : {1, 2, 3, 8, 100}) {
      if (path == IndexPath::plain && together > 1) break;
      p.scores.fill(0xFF);
      launch_index_scores(p.args(path, together), nullptr);
      must(cudaDeviceSynchronize(), name_of(path));
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
          worst_modelled = std::max(worst_modelled, std::fabs(got[at] - modelled[at]) / (whole[at] + 1e-300));
          // f32 sums round to 2^-24 of what is summed.
          const double limit =
              (fp8 ? lost[at] : 0) + 8 * std::sqrt(kDim + heads) * 0x1p-24 * size[at] + 0x1p-22 * whole[at];
          if (!(error <= limit)) bad = static_cast<int64_t>(at);
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
        if (fp8) std::printf(" (%.1e from coarse_sum)", worst_modelled);
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
    must(cudaDeviceSynchronize(), name_of(path));
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

// Rows of mixed patterns; row r sees `visible - r % 3` positions. `pattern` < 0: another for each row.
void check_top_k(int32_t rows, int32_t visible, int32_t k, int pattern, bool with_scratch, bool plain) {
  const int64_t stride = (visible + 63) / 64 * 64;
  std::vector<float> scores(static_cast<size_t>(rows * stride), std::nanf(""));
  std::vector<int32_t> position;
  for (int32_t r = 0; r < rows; ++r) {
    const int32_t n = std::max(visible - r % 3, 1);
    position.push_back(n - 1);
    for (int32_t i = 0; i < n; ++i) {
      scores[static_cast<size_t>(r * stride + i)] = pattern_value(
          pattern < 0 ? r % kPatternCount : pattern, i, n, uint64_t{static_cast<uint32_t>(r)} << 32);
    }
  }
  const Array<float> device_scores(scores);
  const Array<int32_t> device_position(position);
  Array<int32_t> selected(int64_t{rows} * k), n_selected(rows);
  Array<unsigned char> scratch(top_k_scratch_bytes(visible));
  scratch.fill(0xEE);
  selected.fill(0xEE);
  TopKArgs a{rows,
             k,
             device_position.get(),
             device_scores.get(),
             stride,
             selected.get(),
             n_selected.get(),
             visible,
             with_scratch && scratch.size() > 0 ? scratch.get() : nullptr};
  plain ? launch_top_k_plain(a, nullptr) : launch_top_k(a, nullptr);
  must(cudaGetLastError(), "top-k launch");
  must(cudaDeviceSynchronize(), "top-k");
  const std::vector<int32_t> got = selected.host(), counts = n_selected.host();
  for (int32_t r = 0; r < rows; ++r) {
    const int32_t n = position[static_cast<size_t>(r)] + 1, want = std::min(n, k);
    const float* row = scores.data() + r * stride;
    std::vector<int32_t> order(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    const auto before = [&](int32_t x, int32_t y) { return row[x] > row[y] || (row[x] == row[y] && x < y); };
    if (want < n) std::nth_element(order.begin(), order.begin() + want, order.end(), before);
    std::sort(order.begin(), order.begin() + want);
    const int32_t* out = got.data() + int64_t{r} * k;
    int32_t at = 0;
    while (at < want && out[at] == order[static_cast<size_t>(at)]) ++at;
    if (counts[static_cast<size_t>(r)] != want || at < want) {
      ++failures;
      std::printf(
          "FAIL top-k (%s): rows %d visible %d k %d row %d %s: count %d, of %d; entry %d is %d, not %d\n",
          plain          ? "plain"
          : with_scratch ? "scratch"
                         : "a block a row",
          rows, n, k, r, kPatterns[pattern < 0 ? r % kPatternCount : pattern], counts[static_cast<size_t>(r)],
          want, at, at < want ? out[at] : -1, at < want ? order[static_cast<size_t>(at)] : -1);
      return;
    }
  }
}

void check() {
  for (const int32_t heads : {1, 4, 9, 64}) {
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
  for (const int32_t k : {1, 64, 2048}) {
    for (const int32_t visible : {1, 63, 64, 65, k, k + 1, 8192, 20000}) {
      for (const int32_t rows : {1, 7, 63, 65}) check_top_k(rows, visible, k, -1, true, false);
    }
    for (int pattern = 0; pattern < kPatternCount; ++pattern) {
      for (const int32_t visible : {48 * 1024, 131072, 163840}) {
        check_top_k(2, visible, k, pattern, true, false);
        check_top_k(2, visible, k, pattern, false, false);
      }
      check_top_k(1, 8192, k, pattern, true, true);
    }
    check_top_k(2, 300000, k, 0, true, false);
  }
  check_top_k(kPatternCount, 131072, 2048, -1, true, false);
  std::printf("top-k checked, %d failures\n", failures);
}

// ------------------------------------------------------------------------------------- times

class Clock {
 public:
  Clock() : flush_(int64_t{256} << 20) {
    cudaEventCreate(&begin_);
    cudaEventCreate(&end_);
    Array<unsigned char> from(int64_t{1} << 30), to(int64_t{1} << 30);
    const double us = median(
        [&] { cudaMemcpyAsync(to.get(), from.get(), size_t{1} << 30, cudaMemcpyDeviceToDevice, nullptr); },
        10);
    copy_ = 2.0 * (1 << 30) / us;
    std::printf("copy bandwidth %.2f TB/s\n", copy_ * 1e-6);
  }
  ~Clock() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  double bytes_per_us() const { return copy_; }
  // The flush keeps the GPU busy while the launches are enqueued.
  double median(const std::function<void()>& run, int times) {
    std::vector<float> ms;
    for (int i = 0; i < times + 2; ++i) {
      cudaMemsetAsync(flush_.get(), i, static_cast<size_t>(flush_.size()), nullptr);
      cudaEventRecord(begin_, nullptr);
      run();
      cudaEventRecord(end_, nullptr);
      must(cudaEventSynchronize(end_), "a timed launch");
      float one = 0;
      cudaEventElapsedTime(&one, begin_, end_);
      if (i >= 2) ms.push_back(one);
    }
    std::sort(ms.begin(), ms.end());
    return 1e3 * static_cast<double>(ms[ms.size() / 2]);
  }

 private:
  Array<unsigned char> flush_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  double copy_ = 0;
};

void report(const char* what, const char* how, double us, double floor_us, double aim_us) {
  std::printf("%-46s %-10s %9.1f us  floor %7.1f  share %4.0f%%  aim %5.0f %s\n", what, how, us, floor_us,
              100 * floor_us / us, aim_us, us <= aim_us ? "met" : "");
  bench::record((std::string(what) + ", " + how).c_str(), 0, us, floor_us);
}

void time_scores(Clock& clock, const char* what, int32_t rows, int32_t context, int32_t per_sequence,
                 double aim) {
  const Problem p(rows, 64, context, per_sequence, false, false);
  const double bytes = static_cast<double>(p.pages_n) * kPageBytes + 4 * p.visible;
  const double flop = p.visible * 64 * kDim * 2;
  const double floor_us = std::max(bytes / clock.bytes_per_us(), flop / 1585e6);
  for (const IndexPath path : {IndexPath::portable, IndexPath::f32_sums, IndexPath::fp8_sums}) {
    const double us =
        clock.median([&] { launch_index_scores(p.args(path, per_sequence, 2048), nullptr); }, 15);
    report(what, name_of(path), us, floor_us, aim);
  }
}

void time_top_k(Clock& clock, const char* what, int32_t rows, int32_t visible, double aim, float mean,
                float deviation) {
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
  const double floor_us = (4.0 * rows * visible + 4.0 * rows * k) / clock.bytes_per_us();
  for (const bool split : {false, true}) {
    if (split && (rows > 8 || scratch.size() == 0)) continue;
    const TopKArgs a{rows,
                     k,
                     device_position.get(),
                     scores.get(),
                     visible,
                     selected.get(),
                     n_selected.get(),
                     visible,
                     split ? scratch.get() : nullptr};
    report(what, split ? "split" : "block/row", clock.median([&] { launch_top_k(a, nullptr); }, 15), floor_us,
           aim);
  }
}

void time_rows(Clock& clock, int32_t rows) {
  const Array<float> in(int64_t{rows} * 64 * kDim), cos(int64_t{rows} * 32), sin(int64_t{rows} * 32);
  fill_bell<<<1024, 256>>>(in.get(), in.size(), 1, 1);
  Array<unsigned char> out(int64_t{rows} * 64 * (kDim + 4));
  const IndexQueryArgs a{rows,      64,   kDim, 64,        in.get(),       cos.get(),
                         sin.get(), true, true, out.get(), 64 * (kDim + 4)};
  const double us = clock.median([&] { launch_index_query(a, nullptr); }, 15);
  const std::string what = "index queries, " + std::to_string(rows) + " rows";
  report(what.c_str(), "", us, (4.0 + 1) * rows * 64 * kDim / clock.bytes_per_us(), 0);
}

void time_all() {
  Clock clock;
  report("an empty launch", "", clock.median([] {}, 15), 0, 0);
  time_scores(clock, "scores paged decode b=1 32K", 1, 32768, 1, 6);
  time_scores(clock, "scores paged decode b=1 128K", 1, 131072, 1, 10);
  time_scores(clock, "scores paged decode b=32 32K", 32, 32768, 1, 62);
  time_scores(clock, "scores paged decode b=64 64K", 64, 65536, 1, 211);
  time_scores(clock, "scores paged decode b=128 next_n=2 32K", 256, 32768, 2, 218);
  time_scores(clock, "scores prefill 2048 x 8K", 2048, 8192, 2048, 227);
  time_scores(clock, "scores prefill 4096 x 32K", 4096, 32768, 4096, 1786);
  time_scores(clock, "scores prefill 4096 x 128K", 4096, 131072, 4096, 8500);
  time_scores(clock, "scores prefill 64 x 128K (a tile of rows)", 64, 131072, 64, 150);
  time_scores(clock, "scores prefill 128 x 128K", 128, 131072, 128, 300);
  const float shapes[2][2] = {{0, 1}, {5, 0.5f}};
  for (const auto& [mean, deviation] : shapes) {
    std::printf("top-2048 of scores of mean %g, deviation %g\n", static_cast<double>(mean),
                static_cast<double>(deviation));
    time_top_k(clock, "top-2048 1 x 8K", 1, 8192, 10, mean, deviation);
    time_top_k(clock, "top-2048 1 x 32K", 1, 32768, 14, mean, deviation);
    time_top_k(clock, "top-2048 1 x 128K", 1, 131072, 17, mean, deviation);
    time_top_k(clock, "top-2048 8 x 128K", 8, 131072, 20, mean, deviation);
    time_top_k(clock, "top-2048 64 x 128K", 64, 131072, 50, mean, deviation);
    time_top_k(clock, "top-2048 2048 x 8K", 2048, 8192, 90, mean, deviation);
    time_top_k(clock, "top-2048 2048 x 32K", 2048, 32768, 230, mean, deviation);
    time_top_k(clock, "top-2048 2048 x 128K", 2048, 131072, 700, mean, deviation);
  }
  for (const int32_t rows : {1, 64, 4096}) time_rows(clock, rows);
}

}  // namespace
}  // namespace dsv::cuda

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  cudaDeviceProp device;
  dsv::cuda::must(cudaGetDeviceProperties(&device, 0), "no GPU");
  std::printf("%s, sm_%d%d, %d processors\n", device.name, device.major, device.minor,
              device.multiProcessorCount);
  if (what != "time") dsv::cuda::check();
  if (what != "check") dsv::cuda::time_all();
  std::printf(dsv::cuda::failures ? "FAILED: %d checks\n" : "every check passed\n", dsv::cuda::failures);
  return dsv::cuda::failures ? 1 : 0;
}
