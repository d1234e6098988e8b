// What a conformance case runs on: weights, inputs and cache pages drawn from a seed, and a device opened on
// them in memory that is poisoned and guarded.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "backend/ops.h"

namespace dsv::test {

// What follows from a geometry's dims: the softmax's scale and plain RoPE's frequencies.
void finish(Geometry&);

struct Setup {
  std::string name;
  Geometry geometry;
  Precision precision = Precision::exact;
  Dtype dtype = Dtype::f32;  // of the matrices
  int32_t rows = 1;
  double magnitude = 1;  // of inputs that are normalised next
  uint64_t seed = 1;
  bool ties = false;  // repeated index keys and zero scores; equal experts
  bool fast = false;  // the schedule

  friend void PrintTo(const Setup& setup, std::ostream* out) { *out << setup.name; }
};

// What makes a batch and how the op is called on it: all rows of a World, or one of them alone.
struct RowSet {
  std::vector<int32_t> rows;     // rows of the World that make the batch
  std::vector<RowRange> ranges;  // how the op is called
  RowRange filled;               // rows of the batch whose inputs are there; the others hold NaN
  bool only_selected = false;    // the cache holds NaN but for the latents that these rows select
};

// Values by row of the batch.
struct Result {
  std::map<Act, std::vector<float>> act, before;  // before: what the buffers held when the op was called
  std::vector<std::vector<unsigned char>> pages;
};

inline constexpr int32_t kUnwritten = -77777;  // what buffers of integers hold instead of NaN
inline constexpr int32_t kLayer = 1;           // the cache layer that cases use; 0 and 2 stay poisoned
inline constexpr int32_t kMaxContext = 256;
inline constexpr int32_t kPages = 16;

class World {
 public:
  explicit World(const Setup& setup);

  Setup setup;
  const Geometry& g;
  std::vector<int32_t> token, next_token, position, sequence, page_table;
  int32_t sequences = 3, page_stride = kMaxContext / kPageTokens;
  std::map<Act, std::vector<float>> input;
  std::vector<std::vector<unsigned char>> pages;  // of kLayer; slots without a token hold NaN
  HostMatrix matrix(const std::string& name) const { return matrices_.at(name); }

  int64_t width(Act kind) const { return row_values(g, kind); }
  // Position i of what row r attends to, and how many there are.
  int32_t selected(int32_t r, int32_t i) const {
    return static_cast<int32_t>(input.at(Act::selected)[static_cast<size_t>(r * g.index_topk + i)]);
  }
  int32_t n_selected(int32_t r) const {
    return static_cast<int32_t>(input.at(Act::n_selected)[static_cast<size_t>(r)]);
  }
  RowSet all() const;

 private:
  void draw_rows();
  void draw_weights();
  void draw_inputs();
  void draw_pages();
  void add_matrix(const std::string& name, Dtype dtype, int64_t rows, int64_t cols, double mean,
                  double sigma);
  double normal() { return normal_(random_); }

  std::mt19937_64 random_;
  std::normal_distribution<double> normal_;
  std::map<std::string, HostMatrix> matrices_;
  std::vector<std::unique_ptr<std::string>> bytes_, names_;
};

// A device of `table` with the weights of a World, in its precision or another (then without its cache
// pages).
class Rig {
 public:
  Rig(const World& world, const OpTable& table, const char* target, int32_t threads)
      : Rig(world, table, target, threads, world.setup.precision) {}
  Rig(const World& world, const OpTable& table, const char* target, int32_t threads, Precision precision);
  ~Rig();
  Rig(const Rig&) = delete;

  // Fills a fresh batch with the inputs `kinds` and the cache (if asked), calls the op over the ranges, and
  // returns what is in the buffers `outputs`.
  enum class Op {
    embed,
    add_norm,
    attn_in,
    attn_q,
    cache_append,
    index_select,
    attend,
    attend_all,
    attn_out,
    route,
    experts,
    ffn,
    mtp_in,
    logits
  };
  // `first`: ops to call before, over what they find.
  Result run(Op op, const RowSet& set, std::initializer_list<Op> first = {});
  Device* device() const { return device_; }

 private:
  int32_t capacity() const { return w_.setup.rows + 1; }  // one row more than any batch has
  float unwritten(Act kind) const;
  void poison();
  void fill_cache(Op op, const RowSet& set);
  void call(Op op, RowRange rows);

  const World& w_;
  const bool has_cache_;
  const OpTable& ops_;
  std::unique_ptr<Jobs> jobs_;
  struct Block {
    unsigned char* memory;
    int64_t size;
  };
  std::vector<Block> blocks_;
  Device* device_ = nullptr;
  std::map<std::string, const Weight*> weight_;
  AttentionWeights attention_;
  MoeWeights moe_;
  FfnWeights ffn_;
  MtpWeights mtp_;
};

}  // namespace dsv::test
