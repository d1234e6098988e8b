// The CUDA linears on Hopper by themselves, emulated: the bits of the portable kernels, FP8 sums near them;
// the input they read, and the codes that those with FP8 sums write.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/formats.h"
#include "kernels/cuda/linear_ops.h"
#include "kernels/cuda/rows.h"
#include "tests/kernels/draw.h"
#include "tests/kernels/targets.h"
#include "tests/kernels/world.h"

namespace dsv::cuda {
namespace {

struct Packed {
  std::vector<unsigned char> memory;
  PackedRows rows;
  Packed(const std::vector<float>& x, int32_t n, int64_t cols, PackedForm form = PackedForm::by_row,
         bool power_of_two = false)
      : memory(static_cast<size_t>(packed_bytes(n, cols))) {
    launch_pack_codes({n, cols, x.data(), cols, Rounding::e4m3, power_of_two, memory.data(), form}, nullptr);
    rows = packed_rows(memory.data(), n, cols, Rounding::e4m3, form);
  }
};

// The e4m3 code of column c of a spread row.
uint16_t spread_code(const PackedRows& x, int64_t r, int64_t c) {
  // tensor.cuh: of a unit of 64 columns, lane t has 16, of which step j has 4: its columns 2 t, 2 t + 1, and
  // 8 on.
  const int64_t unit = c / 64, t = c % 64 / 16, j = c % 16 / 4, i = c % 4;
  const int64_t k = i / 2 * 8 + 2 * t + i % 2;
  uint16_t code;
  std::memcpy(&code, x.data + r * x.pitch + 2 * ((unit * 4 + j) * 16 + k), 2);
  return code;
}

void expect_spread(const PackedRows& spread, int64_t r, const PackedRows& plain, int64_t from) {
  for (int64_t c = 0; c < plain.pitch; ++c) {
    ASSERT_EQ(spread_code(spread, r, c), e4m3_to_f16(plain.data[from * plain.pitch + c])) << r << ", " << c;
  }
  for (int64_t b = 0; b < plain.scale_cols; ++b) {
    ASSERT_EQ(spread.scale[b * spread.scale_cols + r], plain.scale[from * plain.scale_cols + b])
        << r << ", " << b;
  }
}

TEST(CudaLinear, SpreadRowsAreThePackedOnes) {
  for (const int32_t n : {1, 7, 33}) {
    for (const int64_t cols : {40, 128, 300}) {
      const std::vector<float> x = draw(n * cols);
      const Packed plain(x, n, cols), spread(x, n, cols, PackedForm::spread);
      for (int32_t r = 0; r < n; ++r) expect_spread(spread.rows, r, plain.rows, r);
    }
  }
}

TEST(CudaLinear, RowsAreGathered) {
  constexpr int32_t kRows = 5;
  constexpr int64_t kCols = 300;
  const std::vector<int32_t> row = {3, 0, 0, 4, 2, 1, 3};
  const auto pairs = static_cast<int32_t>(row.size());
  const std::vector<float> x = draw(kRows * kCols);
  const Packed plain(x, kRows, kCols);
  for (const PackedForm form : {PackedForm::by_row, PackedForm::by_block, PackedForm::spread}) {
    const Packed from(x, kRows, kCols, form);
    std::vector<unsigned char> memory(static_cast<size_t>(packed_bytes(pairs, kCols)));
    launch_gather_rows({pairs, from.rows, row.data(), tensor_blocks(kCols), memory.data()}, nullptr);
    const PackedRows got = packed_rows(memory.data(), pairs, kCols, Rounding::e4m3, form);
    for (int32_t p = 0; p < pairs; ++p) {
      const int64_t r = row[static_cast<size_t>(p)];
      if (form == PackedForm::spread) {
        expect_spread(got, p, plain.rows, r);
        continue;
      }
      EXPECT_EQ(std::memcmp(got.data + p * got.pitch, plain.rows.data + r * got.pitch,
                            static_cast<size_t>(got.pitch)),
                0);
      for (int64_t b = 0; b < plain.rows.scale_cols; ++b) {
        const bool by_row = form == PackedForm::by_row;
        EXPECT_EQ(got.scale[by_row ? p * got.scale_cols + b : b * got.scale_cols + p],
                  plain.rows.scale[r * plain.rows.scale_cols + b]);
      }
    }
  }
}

// A weight of random codes and scales.
struct Matrix {
  std::vector<unsigned char> data;
  std::vector<float> scale;
  WeightView view;
  Matrix(int64_t rows, int64_t cols, unsigned seed) {
    std::mt19937 random(seed);
    const int64_t pitch = weight_pitch(Dtype::f8_e4m3, cols), scale_cols = (cols + 127) / 128;
    data.resize(static_cast<size_t>(rows * pitch));
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        const auto code = static_cast<unsigned char>(random());
        data[static_cast<size_t>(r * pitch + c)] = (code & 0x7F) == 0x7F ? code ^ 1 : code;
      }
    }
    for (int64_t i = 0; i < (rows + 127) / 128 * scale_cols; ++i) {
      scale.push_back(std::ldexp(1.0f, -static_cast<int>(random() % 5)));
    }
    view = {data.data(), scale.data(), rows, cols, pitch, static_cast<int32_t>(scale_cols), Dtype::f8_e4m3};
  }
};

// Most shared memory, as on Hopper, for as long as this lives.
struct HopperShared {
  HopperShared() { emulation::shared_limit = 227 * 1024; }
  ~HopperShared() { emulation::shared_limit = kPortableShared; }
};

void expect_same(const std::vector<float>& got, const std::vector<float>& want, int64_t outputs,
                 const char* what) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(std::memcmp(&got[i], &want[i], 4), 0)
        << what << ": row " << static_cast<int64_t>(i) / outputs << " output "
        << static_cast<int64_t>(i) % outputs << ": " << got[i] << ", not " << want[i];
  }
}
// Emulated FP8 sums are f32 sums in another order: some 1000 terms, each rounded to 2^-24 of the sum so far.
void expect_near(const std::vector<float>& got, const std::vector<float>& want, const char* what) {
  float largest = 0;
  for (const float x : want) largest = std::max(largest, std::fabs(x));
  for (size_t i = 0; i < got.size(); ++i)
    ASSERT_NEAR(got[i], want[i], 0x1p-14f * largest) << what << " " << i;
}

TEST(CudaLinear, LinearsOnHopperHaveTheSameBits) {
  const HopperShared shared;
  for (const std::pair<int64_t, int64_t>& shape :
       {std::pair<int64_t, int64_t>{72, 200}, {130, 600}, {300, 1000}}) {
    const int64_t outputs = shape.first, cols = shape.second;
    const Matrix w(outputs, cols, 1);
    for (const int32_t rows : {1, 65, 129, 400}) {
      if (rows == 400 && outputs > 72) continue;  // that many for FP8 sums' other tile
      const std::vector<float> x = draw(rows * cols);
      const Packed plain(x, rows, cols), spread(x, rows, cols, PackedForm::spread),
          by_block(x, rows, cols, PackedForm::by_block);
      const auto run = [&](const PackedRows& in, int32_t tile_rows, const auto& launch) {
        std::vector<float> y(static_cast<size_t>(rows * outputs), NAN);
        TensorArgs args = {};
        args.dtype = Dtype::f8_e4m3, args.rows = rows, args.x = in, args.weight = w.view;
        args.tile_bound = (rows + tile_rows - 1) / tile_rows, args.tile_rows = tile_rows;
        args.outputs = outputs, args.pitch = w.view.pitch, args.y = y.data(), args.y_stride = outputs,
        args.factor = 0.75f;
        launch(args);
        return y;
      };
      const std::vector<float> want =
          run(plain.rows, 8, [](const TensorArgs& a) { launch_tensor(a, nullptr); });
      expect_same(
          run(spread.rows, kWgmmaRows, [](const TensorArgs& a) { launch_tensor_wgmma_as(a, nullptr, 0); }),
          want, outputs, "one after another");
      expect_same(run(spread.rows, kWgmmaRows,
                      [](const TensorArgs& a) {
                        launch_tensor_wgmma_as(a, nullptr, wgmma_takes_side_by_side(a, 1) ? 1 : 0);
                      }),
                  want, outputs, "side by side");
      expect_near(run(by_block.rows, kFp8Rows, [](const TensorArgs& a) { launch_tensor_fp8(a, nullptr); }),
                  want, "FP8 sums");
      if (rows <= kFp8FewRows) {
        expect_near(
            run(by_block.rows, kFp8Rows, [](const TensorArgs& a) { launch_tensor_fp8_few(a, nullptr); }),
            want, "FP8 sums, few rows");
      }
    }
  }
}

// bf16 weights of few outputs: near what they are in the order of other linears, in either form.
TEST(CudaLinear, Bf16OnHopperIsNear) {
  const HopperShared shared;
  struct Shape {
    int32_t rows;
    int64_t outputs, cols;
  };
  for (const Shape& shape : {Shape{513, 40, 200}, Shape{600, 130, 1000}}) {
    const int32_t rows = shape.rows;
    const int64_t outputs = shape.outputs, cols = shape.cols;
    const std::vector<uint16_t> codes = draw_bf16(outputs * cols, 5);
    const std::vector<float> x = draw(rows * cols);
    const WeightView w = {reinterpret_cast<const unsigned char*>(codes.data()),
                          nullptr,
                          outputs,
                          cols,
                          2 * cols,
                          0,
                          Dtype::bf16};
    std::vector<unsigned char> memory(static_cast<size_t>(packed_bytes(rows, cols)));
    launch_pack_codes({rows, cols, x.data(), cols, Rounding::bf16, false, memory.data()}, nullptr);
    TensorArgs args = linear_args(w, packed_rows(memory.data(), rows, cols, Rounding::bf16), rows);
    args.y_stride = outputs, args.factor = 0.75f;
    ASSERT_TRUE(takes_linear_bf16(args));
    const auto run = [&](const auto& launch) {
      std::vector<float> y(static_cast<size_t>(rows * outputs), NAN);
      args.y = y.data();
      launch(args);
      return y;
    };
    const std::vector<float> want = run([](const TensorArgs& a) { launch_tensor(a, nullptr); });
    for (const bool by_rows : {false, true}) {
      expect_near(run([by_rows](const TensorArgs& a) { launch_linear_bf16_as(a, nullptr, by_rows); }), want,
                  by_rows ? "bf16, by rows" : "bf16, by columns");
    }
  }
}

// A linear's outputs in bf16, in whole rows, or in parts with as much room behind each: its values, rounded.
TEST(CudaLinear, OutputsInBf16) {
  const HopperShared shared;
  constexpr int64_t kOutputs = 480, kCols = 200;
  const Matrix w(kOutputs, kCols, 1);
  for (const int32_t rows : {65, 400}) {
    const Packed in(draw(rows * kCols), rows, kCols, PackedForm::by_block);
    for (const int64_t part : {int64_t{0}, int64_t{96}, kOutputs}) {
      std::vector<float> y(static_cast<size_t>(rows * kOutputs), NAN);
      TensorArgs args = linear_args(w.view, in.rows, rows);
      args.y = y.data(), args.y_stride = kOutputs;
      launch_tensor_fp8(args, nullptr);
      std::vector<unsigned char> codes(4 * y.size(), 0xFF);
      args.codes = {codes.data(), part ? 4 * kOutputs : packed_pitch(kOutputs, Rounding::bf16)};
      args.codes.part = part;
      launch_tensor_fp8(args, nullptr);
      for (int64_t i = 0; i < rows * kOutputs; ++i) {
        const int64_t r = i / kOutputs, o = i % kOutputs, gap = part ? o / part * part : 0;
        const unsigned char* const at = &codes[static_cast<size_t>(r * args.codes.pitch + 2 * (o + gap))];
        uint16_t code;
        std::memcpy(&code, at, 2);
        ASSERT_EQ(code, float_to_bf16(y[static_cast<size_t>(i)])) << r << ", " << o << ", parts of " << part;
        for (int b = 0; part && b < 2; ++b) ASSERT_EQ(at[2 * part + b], 0xFF) << r << ", behind " << o;
      }
    }
  }
}

// Tiles of every form, whole and ragged ones, weights whose scales end within a tile; and bf16 is f32,
// rounded, one after another or in parts with room behind them.
TEST(CudaLinear, FormsOfFp8SumsHaveTheSameBits) {
  const HopperShared shared;
  constexpr int64_t kOutputs = 576, kCols = 200, kPart = 192;
  const Matrix w(kOutputs, kCols, 1);
  const std::vector<int32_t> counts = test::emulate_all() ? std::vector{70, 129, 300} : std::vector{129};
  for (const int32_t rows : counts) {
    const Packed in(draw(rows * kCols), rows, kCols, PackedForm::by_block);
    TensorArgs args = linear_args(w.view, in.rows, rows);
    std::vector<float> want(static_cast<size_t>(rows * kOutputs), NAN);
    args.y = want.data(), args.y_stride = kOutputs;
    launch_tensor_fp8(args, nullptr);
    for (int form = 0; form < kFp8Forms; ++form) {
      std::vector<float> y(want.size(), NAN);
      args.y = y.data(), args.codes = {};
      launch_tensor_fp8_tiles_as(args, nullptr, form);
      expect_same(y, want, kOutputs, ("form " + std::to_string(form)).c_str());
      for (const int64_t part : {int64_t{0}, kPart}) {
        const int64_t pitch = part ? 4 * kOutputs : packed_pitch(kOutputs, Rounding::bf16);
        std::vector<unsigned char> codes(static_cast<size_t>(rows * pitch), 0xFF);
        args.codes.data = codes.data(), args.codes.pitch = pitch, args.codes.part = part;
        launch_tensor_fp8_tiles_as(args, nullptr, form);
        for (int64_t i = 0; i < rows * kOutputs; ++i) {
          const int64_t o = i % kOutputs, at = o + (part ? o / part * part : 0);
          uint16_t code;
          std::memcpy(&code, &codes[static_cast<size_t>(i / kOutputs * pitch + 2 * at)], 2);
          ASSERT_EQ(code, float_to_bf16(want[static_cast<size_t>(i)])) << form << ", " << part << ": " << i;
        }
        if (part) {
          EXPECT_EQ(codes[static_cast<size_t>(2 * part)], 0xFF) << "between two parts";
        }
      }
    }
  }
}

// Three experts, whose tiles begin anywhere.
struct Experts {
  static constexpr int32_t kCount = 3, kCounts[kCount] = {67, 2, 129}, kPairs = 67 + 2 + 129;
  static constexpr int64_t kInner = 140, kDim = 200;
  std::vector<Matrix> gates, ups, downs;
  std::vector<FfnView> ffns;
  Experts() {
    for (unsigned e = 0; e < kCount; ++e) {
      gates.emplace_back(kInner, kDim, 10 + e);
      ups.emplace_back(kInner, kDim, 20 + e);
      downs.emplace_back(kDim, kInner, 30 + e);
    }
    for (size_t e = 0; e < kCount; ++e) {
      ffns.push_back({gates[e].view, ups[e].view, downs[e].view});
      ffns.back().make_maps();
    }
  }
  // Calls launch(args) for all pairs, without where its output goes.
  template <class F>
  void run(TensorKind kind, const PackedRows& in, int32_t tile_rows, F&& launch) const {
    std::vector<ExpertTile> tiles;
    int32_t begin = 0;
    for (int32_t e = 0; e < kCount; ++e) {
      const int32_t end = begin + kCounts[e];
      for (; begin < end; begin += tile_rows) tiles.push_back({e, begin, std::min(tile_rows, end - begin)});
      begin = end;
    }
    const auto n = static_cast<int32_t>(tiles.size());
    const bool swiglu = kind == TensorKind::swiglu;
    TensorArgs args = {};
    args.kind = kind, args.dtype = Dtype::f8_e4m3, args.rows = kPairs, args.x = in;
    args.ffn = ffns.data(), args.tiles = tiles.data(), args.n_tiles = &n;
    args.tile_bound = n, args.tile_rows = tile_rows;
    args.outputs = args.y_stride = swiglu ? kInner : kDim;
    args.pitch = weight_pitch(Dtype::f8_e4m3, swiglu ? kDim : kInner), args.factor = 1;
    launch(args);
  }
  std::vector<float> outputs(TensorKind kind, const PackedRows& in, int32_t tile_rows,
                             void (*launch)(const TensorArgs&, Stream)) const {
    std::vector<float> y(static_cast<size_t>(kPairs * (kind == TensorKind::swiglu ? kInner : kDim)), NAN);
    run(kind, in, tile_rows, [&](TensorArgs a) {
      a.y = y.data();
      launch(a, nullptr);
    });
    return y;
  }
};

TEST(CudaLinear, ExpertsOnHopperHaveTheSameBits) {
  const HopperShared shared;
  const Experts experts;
  for (const TensorKind kind : {TensorKind::swiglu, TensorKind::down}) {
    const bool swiglu = kind == TensorKind::swiglu;
    const int64_t outputs = swiglu ? Experts::kInner : Experts::kDim,
                  cols = swiglu ? Experts::kDim : Experts::kInner;
    const std::vector<float> x = draw(Experts::kPairs * cols);
    const Packed plain(x, Experts::kPairs, cols), spread(x, Experts::kPairs, cols, PackedForm::spread);
    expect_same(experts.outputs(kind, spread.rows, kWgmmaRows, launch_tensor),
                experts.outputs(kind, plain.rows, 8, launch_tensor), outputs, swiglu ? "swiglu" : "down");
  }
}

// Of FP8 sums: SwiGLU's codes are what packing makes of SwiGLU's values, which have the sums of gate and up
// as linears; down's are its values, rounded.
TEST(CudaLinear, ExpertsWithFp8SumsWriteCodes) {
  const HopperShared shared;
  const Experts experts;
  const int32_t pairs = Experts::kPairs;
  const int64_t inner = Experts::kInner, dim = Experts::kDim;
  const std::vector<float> x = draw(pairs * dim);
  const Packed plain(x, pairs, dim), in(x, pairs, dim, PackedForm::by_block);
  const std::vector<float> value = experts.outputs(TensorKind::swiglu, in.rows, kFp8Pairs, launch_tensor_fp8);
  expect_near(value, experts.outputs(TensorKind::swiglu, plain.rows, 8, launch_tensor), "swiglu, FP8 sums");
  for (const bool power_of_two : {false, true}) {
    const Packed want(value, pairs, inner, PackedForm::by_block, power_of_two);
    std::vector<unsigned char> codes(want.memory.size(), 0xFF);
    experts.run(TensorKind::swiglu, in.rows, kFp8Pairs, [&](TensorArgs a) {
      a.codes = codes_out(packed_rows(codes.data(), pairs, inner, Rounding::e4m3, PackedForm::by_block));
      a.power_of_two = power_of_two;
      launch_tensor_fp8(a, nullptr);
    });
    const PackedRows got = packed_rows(codes.data(), pairs, inner, Rounding::e4m3, PackedForm::by_block);
    EXPECT_EQ(std::memcmp(got.data, want.rows.data, static_cast<size_t>(pairs * got.pitch)), 0);
    for (int64_t b = 0; b < tensor_blocks(inner); ++b) {
      EXPECT_EQ(std::memcmp(got.scale + b * got.scale_cols, want.rows.scale + b * got.scale_cols,
                            sizeof(float) * pairs),
                0)
          << b;
    }
  }

  const Packed plain_inner(value, pairs, inner), inner_rows(value, pairs, inner, PackedForm::by_block);
  const std::vector<float> y =
      experts.outputs(TensorKind::down, inner_rows.rows, kFp8Pairs, launch_tensor_fp8);
  expect_near(y, experts.outputs(TensorKind::down, plain_inner.rows, 8, launch_tensor), "down, FP8 sums");
  const int64_t pitch = packed_pitch(dim, Rounding::bf16);
  std::vector<unsigned char> codes(static_cast<size_t>(pairs * pitch), 0xFF);
  experts.run(TensorKind::down, inner_rows.rows, kFp8Pairs, [&](TensorArgs a) {
    a.codes = codes_out(packed_rows(codes.data(), pairs, dim, Rounding::bf16));
    launch_tensor_fp8(a, nullptr);
  });
  for (int64_t i = 0; i < pairs * dim; ++i) {
    uint16_t code;
    std::memcpy(&code, &codes[static_cast<size_t>(i / dim * pitch + 2 * (i % dim))], 2);
    ASSERT_EQ(code, float_to_bf16(y[static_cast<size_t>(i)])) << i / dim << ", " << i % dim;
  }
}

test::Setup fast_setup(int32_t rows) {
  test::Setup setup;
  setup.precision = Precision::official, setup.dtype = Dtype::f8_e4m3, setup.rows = rows;
  Geometry& g = setup.geometry;
  g.vocab_size = 90, g.hidden_size = 200, g.num_layers = 2, g.num_heads = 4;
  g.q_lora_rank = 36, g.kv_lora_rank = 40, g.qk_nope_head_dim = 24, g.qk_rope_head_dim = 8, g.v_head_dim = 20;
  g.intermediate_size = 136, g.moe_intermediate_size = 140;
  g.n_routed_experts = 4, g.n_shared_experts = 1, g.num_experts_per_tok = 3, g.n_group = g.topk_group = 1;
  g.softmax_scale = 1 / std::sqrt(32.0);
  g.inv_freq = {1, 0.1, 0.01, 0.001};
  return setup;
}

// Whole ops with and without FP8 sums: near each other, and the same again.
void expect_fast_near(int32_t rows) {
  const test::World world(fast_setup(rows));
  using Op = test::Rig::Op;
  for (const Op op : {Op::attn_in, Op::experts, Op::ffn}) {
    test::Rig same(world, cuda_ops(), "descending", 1), fast(world, cuda_ops(), "descending", 1);
    cuda_device(fast.device()).options.fast = true;
    const test::Result want = same.run(op, world.all()), got = fast.run(op, world.all()),
                       again = fast.run(op, world.all());
    bool differ = false;
    for (const auto& [act, values] : want.act) {
      const std::vector<float>& other = got.act.at(act);
      float largest = 0;
      for (const float x : values) largest = std::max(largest, std::fabs(x));
      for (size_t i = 0; i < values.size(); ++i) {
        // A rounding to e4m3 on the way may fall on the other side: 2^-4 of one term of hundreds.
        ASSERT_NEAR(other[i], values[i], 0x1p-6f * largest) << static_cast<int>(op) << " " << i;
        differ = differ || other[i] != values[i];
      }
      EXPECT_TRUE(again.act.at(act) == other) << static_cast<int>(op);
    }
    EXPECT_TRUE(differ) << "the other kernels ran";
  }
}

// Queries of the released geometry, which are bf16 in `fast` on Hopper.
void check_queries(int32_t rows, int32_t heads) {
  test::Setup setup = fast_setup(rows);
  Geometry& g = setup.geometry;
  g.hidden_size = 128, g.num_heads = heads;
  g.q_lora_rank = 192, g.kv_lora_rank = 512, g.qk_nope_head_dim = 128, g.qk_rope_head_dim = 64;
  g.v_head_dim = 128, g.n_routed_experts = 0;
  g.index_n_heads = 8, g.index_head_dim = 128, g.index_topk = 40;
  test::finish(g);
  const test::World world(setup);
  using Op = test::Rig::Op;
  test::Rig same(world, cuda_ops(), "descending", 1), fast(world, cuda_ops(), "descending", 1);
  cuda_device(fast.device()).options.fast = true;
  ASSERT_TRUE(cuda_device(fast.device()).bf16_queries());
  const std::vector<float> want = same.run(Op::attn_q, world.all()).act.at(Act::q),
                           got = fast.run(Op::attn_q, world.all()).act.at(Act::q);
  const int64_t dim = g.qk_head_dim(), nope = g.qk_nope_head_dim;
  for (size_t i = 0; i < want.size(); i += 2) {
    // Sums in another order may be rounded to bf16 elsewhere, by a step of 2^-7 at most; in a pair that is
    // turned, either value before, and after.
    const float x = std::fabs(want[i]), y = std::fabs(want[i + 1]);
    const bool turned = static_cast<int64_t>(i) % dim >= nope;
    ASSERT_NEAR(got[i], want[i], 0x1p-7f * (turned ? 2 * std::hypot(x, y) : x) + 0x1p-14f) << i;
    ASSERT_NEAR(got[i + 1], want[i + 1], 0x1p-7f * (turned ? 2 * std::hypot(x, y) : y) + 0x1p-14f) << i;
    ASSERT_EQ(got[i], round_bf16(got[i])) << i;
  }
  // Attention has the same bits.
  for (const Op op : {Op::attend, Op::attend_all}) {
    if (op == Op::attend_all && rows > kAbsorbManyRows) continue;
    EXPECT_TRUE(fast.run(op, world.all()).act == same.run(op, world.all()).act) << rows << ", " << heads;
  }
}
TEST(CudaLinear, QueriesInBf16) {
  check_queries(130, 2);  // q_b's from FP8 sums of many rows
  check_queries(5, 34);   // those of few rows turned to bf16; attention's own kernels for Hopper
}

// A norm of many rows writes codes only once all its readers have asked for them; f32 comes back for who
// reads that.
TEST(CudaLinear, NormsOfManyRowsLeaveCodes) {
  const test::World world(fast_setup(65));
  using Op = test::Rig::Op;
  test::Rig rig(world, cuda_ops(), "descending", 1);
  CudaDevice& d = cuda_device(rig.device());
  d.options.fast = true;
  d.coded_norm_rows = 65;
  const OpTable& ops = cuda_ops();
  const int64_t n = d.geometry.hidden_size;
  const auto h = [&] {
    std::vector<float> values(static_cast<size_t>(65 * n));
    ops.fetch(rig.device(), Act::h, ops.buffer(rig.device(), Act::h), {0, 65}, values.data());
    return values;
  };
  const auto run = [&](Op op) { return rig.run(op, world.all(), {Op::add_norm}).act; };
  const auto in = run(Op::attn_in), route = run(Op::route);
  const std::vector<float> values = h();
  EXPECT_FALSE(d.normed[0].only_codes || d.normed[1].only_codes);
  EXPECT_TRUE(run(Op::attn_in) == in);
  EXPECT_TRUE(run(Op::route) == route);
  EXPECT_TRUE(d.normed[0].only_codes && d.normed[1].only_codes);
  EXPECT_TRUE(h() == values);
  PackedInput other(d, d.row_of(Act::h, ops.buffer(rig.device(), Act::h), 0), n, n, 65);
  other.pair(true, true);
  EXPECT_TRUE(h() == values);
  EXPECT_TRUE(run(Op::route) == route);
  EXPECT_FALSE(d.normed[0].only_codes || d.normed[1].only_codes);
}

// What many rows' ops leave in bf16 for the next norm are their f32 values, rounded; the norm adds them as it
// adds f32, and who else reads them finds f32.
TEST(CudaLinear, DeltaInBf16) {
  const test::World world(fast_setup(130));
  using Op = test::Rig::Op;
  test::Rig rig(world, cuda_ops(), "descending", 1);
  CudaDevice& d = cuda_device(rig.device());
  d.options.fast = true;
  for (const Op op : {Op::attn_out, Op::experts, Op::ffn}) {
    SCOPED_TRACE(static_cast<int>(op));
    d.bf16_delta_rows = 1000;
    const std::vector<float> f32 = rig.run(op, world.all()).act.at(Act::delta);
    EXPECT_EQ(d.bf16_delta.rows, 0);
    d.bf16_delta_rows = 130;
    const std::vector<float> bf16 = rig.run(op, world.all()).act.at(Act::delta);
    for (size_t i = 0; i < f32.size(); ++i) ASSERT_EQ(bf16[i], round_bf16(f32[i])) << i;
    const auto sums = rig.run(Op::add_norm, world.all(), {Op::add_norm, op}).act;
    EXPECT_EQ(d.bf16_delta.rows, 130);
    EXPECT_TRUE(rig.run(Op::add_norm, world.all(), {Op::add_norm, op, Op::logits}).act == sums);
    EXPECT_EQ(d.bf16_delta.rows, 0) << "logits want f32";
  }
  // The first half's are restored when the second's are left.
  test::RowSet halves = world.all();
  halves.ranges = {{0, 65}, {65, 65}};
  d.bf16_delta_rows = 1000;
  const std::vector<float> f32 = rig.run(Op::experts, halves).act.at(Act::delta);
  d.bf16_delta_rows = 65;
  const std::vector<float> bf16 = rig.run(Op::experts, halves).act.at(Act::delta);
  for (size_t i = 0; i < f32.size(); ++i) ASSERT_EQ(bf16[i], round_bf16(f32[i])) << i;
}

TEST(CudaLinear, FastIsNearAndRepeatable) {
  expect_fast_near(65);  // those for few rows
  expect_fast_near(129);
}

}  // namespace
}  // namespace dsv::cuda
