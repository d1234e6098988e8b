// Checks the choice of tokens against the reference, and times it.
#include <cmath>
#include <cstring>
#include <memory>
#include <random>

#include "kernels/cuda/bench/bench.cuh"
#include "kernels/cuda/sample.h"
#include "kernels/reference/sample.h"

namespace dsv::cuda::bench {
namespace {

SampleRow how(double temperature, double top_p, double min_p, int32_t top_k, uint64_t draw) {
  SampleRow row;
  if (temperature > 0) row.scale = static_cast<float>(std::fmin(0x1p25 / std::log(2.0) / temperature, 3e38));
  if (top_k > 0) row.top_k = top_k;
  if (top_p < 1) row.top_p = static_cast<uint64_t>(top_p * 0x1p64);
  if (min_p > 0) row.least = static_cast<uint64_t>(std::ceil(min_p * static_cast<double>(kBestWeight)));
  row.draw = draw;
  return row;
}

struct Case {
  int32_t rows;
  int64_t vocab;
  std::vector<float> logits;
  std::vector<unsigned char> allowed;
  std::vector<SampleRow> row;
  std::vector<TokenBias> bias;
};

class OnGpu {
 public:
  explicit OnGpu(const Case& c)
      : c_(c),
        logits_(4 * c.rows * c.vocab),
        allowed_(4 * ((c.vocab + 31) / 32)),
        row_(static_cast<int64_t>(sizeof(SampleRow)) * c.rows),
        bias_(8 * static_cast<int64_t>(c.bias.size()) + 8),
        unbiased_(4 * static_cast<int64_t>(c.bias.size()) + 4),
        token_(4 * c.rows) {
    logits_.from_host(c.logits);
    std::vector<uint32_t> bits(static_cast<size_t>(c.vocab + 31) / 32);
    for (size_t id = 0; id < c.allowed.size(); ++id) bits[id / 32] |= uint32_t{c.allowed[id]} << id % 32;
    allowed_.from_host(bits);
    row_.from_host(c.row);
    bias_.from_host(c.bias);
    int32_t first = 0;
    while (first < c.vocab && c.allowed[static_cast<size_t>(first)] == 0) ++first;
    args_ = {c.rows,
             c.vocab,
             logits_.as<float>(),
             allowed_.as<uint32_t>(),
             first < c.vocab ? first : -1,
             row_.as<SampleRow>(),
             bias_.as<TokenBias>(),
             unbiased_.as<float>(),
             token_.as<int32_t>()};
  }
  void launch() const { launch_sample(args_, nullptr); }
  std::vector<int32_t> tokens() const { return token_.to_host<int32_t>(c_.rows); }
  bool restored() const {
    const std::vector<float> now = logits_.to_host<float>(c_.rows * c_.vocab);
    return std::memcmp(now.data(), c_.logits.data(), 4 * now.size()) == 0;
  }

 private:
  const Case& c_;
  Memory logits_, allowed_, row_, bias_, unbiased_, token_;
  SampleRowsArgs args_;
};

// Kinds of rows: 0 what a model gives (most far below a few), 1 normal, 2 many ties, 3 all equal, 4 a steep
// one.
void fill(std::vector<float>& row, int kind, std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  for (float& logit : row) {
    const float z = normal(random);
    logit = kind == 0 ? 3 * z : kind == 1 ? z : kind == 2 ? std::round(2 * z) : kind == 3 ? 1.5f : 1e4f * z;
  }
  for (int i = 0; kind == 0 && i < 20; ++i) row[random() % row.size()] = 12.0f + 3 * normal(random);
}

int check(int64_t most, int32_t count) {
  int wrong = 0, rows = 0;
  std::mt19937_64 random(7);
  const double temperatures[] = {0, 1, 0.7, 1e-30, 5, 1e30}, top_ps[] = {1, 0.95, 0.5, 1e-9, 0.999999},
               min_ps[] = {0, 0.05, 0.9};
  const int32_t top_ks[] = {0, 1, 7, 50, 5000};
  for (const int64_t vocab :
       {int64_t{1}, int64_t{2}, int64_t{31}, int64_t{33}, int64_t{4097}, int64_t{129280}}) {
    if (vocab > most) break;
    for (int kind = 0; kind < 5; ++kind) {
      Case c{vocab > 10000 ? (count + 5) / 6 : count,
             vocab,
             {},
             std::vector<unsigned char>(static_cast<size_t>(vocab), 1),
             {},
             {}};
      for (int64_t id = 0; id < vocab; ++id) c.allowed[static_cast<size_t>(id)] = vocab == 1 || id % 9 != 4;
      std::vector<std::vector<float>> logits;
      for (int32_t r = 0; r < c.rows; ++r) {
        std::vector<float> row(static_cast<size_t>(vocab));
        fill(row, kind, random);
        if (r % 13 == 5) row[random() % row.size()] = NAN;
        if (r % 13 == 6) row[random() % row.size()] = INFINITY;
        if (r % 13 == 7) row.assign(row.size(), NAN);
        if (r % 13 == 8) row.assign(row.size(), -INFINITY);
        SampleRow h = how(temperatures[random() % 6], top_ps[random() % 5], min_ps[random() % 3],
                          top_ks[random() % 5], random());
        h.bias_first = static_cast<int32_t>(c.bias.size());
        if (r % 3 == 1) {
          for (int64_t id = static_cast<int64_t>(random() % 3); id < vocab && h.bias_count < 1500;
               id += 1 + static_cast<int64_t>(random() % 5)) {
            c.bias.push_back(
                {static_cast<int32_t>(id),
                 id % 11 == 0 ? -INFINITY : 4.0f * static_cast<float>(random() % 100) / 100 - 2});
            ++h.bias_count;
          }
        }
        c.row.push_back(h);
        c.logits.insert(c.logits.end(), row.begin(), row.end());
        logits.push_back(row);
      }
      const std::unique_ptr<bool[]> allowed(new bool[static_cast<size_t>(vocab)]);
      for (int64_t id = 0; id < vocab; ++id)
        allowed[static_cast<size_t>(id)] = c.allowed[static_cast<size_t>(id)] != 0;
      const OnGpu gpu(c);
      gpu.launch();
      const std::vector<int32_t> tokens = gpu.tokens();
      for (int32_t r = 0; r < c.rows; ++r, ++rows) {
        const SampleRow& h = c.row[static_cast<size_t>(r)];
        const int32_t expected =
            reference::sample_row(logits[static_cast<size_t>(r)], allowed.get(), h, c.bias.data());
        if (tokens[static_cast<size_t>(r)] == expected) continue;
        if (++wrong < 20) {
          std::printf(
              "WRONG: vocab %lld kind %d row %d: %d instead of %d (scale %g top_k %d top_p %llx least %llx "
              "bias %d)\n",
              static_cast<long long>(vocab), kind, r, tokens[static_cast<size_t>(r)], expected, h.scale,
              h.top_k, static_cast<unsigned long long>(h.top_p), static_cast<unsigned long long>(h.least),
              h.bias_count);
        }
      }
      if (!gpu.restored())
        ++wrong, std::printf("WRONG: vocab %lld kind %d: logits were left changed\n",
                             static_cast<long long>(vocab), kind);
    }
  }
  std::printf("%d rows, %d wrong\n", rows, wrong);
  return wrong;
}

void measure() {
  const Timer timer;
  std::mt19937_64 random(3);
  header();
  struct Way {
    const char* name;
    SampleRow row;
  };
  const Way ways[] = {{"greedy", how(0, 1, 0, 0, 0)},
                      {"temperature 1", how(1, 1, 0, 0, uint64_t{1} << 63)},
                      {".. min_p 0.05", how(1, 1, 0.05, 0, uint64_t{1} << 63)},
                      {".. top_p 0.95", how(1, 0.95, 0, 0, uint64_t{1} << 63)},
                      {".. top_k 50", how(1, 1, 0, 50, uint64_t{1} << 63)},
                      {".. top_k 50, top_p 0.95", how(1, 0.95, 0, 50, uint64_t{1} << 63)}};
  const char* kinds[] = {"as a model gives", "normal", "ties", "all equal"};
  for (int kind = 0; kind < 4; ++kind) {
    for (const int32_t rows : {1, 64}) {
      constexpr int64_t kVocab = 129280;
      Case c{rows, kVocab, {}, std::vector<unsigned char>(kVocab, 1), {}, {}};
      for (int32_t r = 0; r < rows; ++r) {
        std::vector<float> row(kVocab);
        fill(row, kind, random);
        c.logits.insert(c.logits.end(), row.begin(), row.end());
      }
      for (const Way& way : ways) {
        c.row.assign(static_cast<size_t>(rows), way.row);
        const OnGpu gpu(c);
        char name[100];
        std::snprintf(name, sizeof name, "%s: %s", kinds[kind], way.name);
        row(timer, name, rows, timer.median_us([&] { gpu.launch(); }), 4.0 * kVocab * rows, 0);
      }
    }
  }
}

}  // namespace
}  // namespace dsv::cuda::bench

// check [VOCAB [ROWS]]: no times; vocabularies up to this, so many rows of each kind. For compute-sanitizer.
int main(int argc, char** argv) {
  const bool only_check = argc > 1 && std::strcmp(argv[1], "check") == 0;
  const int wrong =
      dsv::cuda::bench::check(argc > 2 ? std::atoi(argv[2]) : 1 << 24, argc > 3 ? std::atoi(argv[3]) : 150);
  if (!only_check) dsv::cuda::bench::measure();
  return wrong == 0 ? 0 : 1;
}
