#include "samples/cli/synth.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>

#include "model/checkpoint.h"
#include "samples/cli/synth_image.h"
#include "tests/support/checkpoint_writer.h"

namespace cli {
namespace {

using dsv::test::TempFolder;

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

SynthOptions tiny(const TempFolder& folder, const std::string& dtype) {
  SynthOptions options;
  options.preset = "tiny";
  options.dtype = dtype;
  options.out = folder.file("model");
  return options;
}

std::unique_ptr<dsv::Checkpoint> open(const std::string& folder) {
  static const dsv::Host host(nullptr);
  return dsv::Checkpoint::open(host, folder, true);
}

TEST(Synth, WritesCheckpointsOfTheArchitecture) {
  for (const char* dtype : {"fp8", "bf16", "f32"}) {
    SCOPED_TRACE(dtype);
    const TempFolder folder;
    SynthOptions options = tiny(folder, dtype);
    options.layers = 2;
    int64_t done = 0, total = 0;
    options.progress = [&](int64_t d, int64_t t) { done = d, total = t; };
    synth(options);
    const auto checkpoint = open(options.out);
    EXPECT_EQ(checkpoint->config().geometry.num_layers, 2);
    EXPECT_TRUE(checkpoint->has_mtp());
    EXPECT_EQ(checkpoint->weight_bytes(), total);
    EXPECT_EQ(done, total);
    dsv::OpTable ops{};
    ops.load_weight = [](dsv::Device*, const dsv::HostMatrix& matrix) {
      return static_cast<const dsv::Weight*>(matrix.data);
    };
    dsv::LoadMonitor monitor;
    checkpoint->load(ops, nullptr, monitor);  // all scales and vectors are finite
    const auto tokenizer = nlohmann::json::parse(read(options.out + "/tokenizer.json"));
    EXPECT_EQ(tokenizer["model"]["vocab"].size() + tokenizer["added_tokens"].size(), 3u + 256u + 8u);
  }
}

double e4m3(unsigned char code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const double size = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return code & 0x80 ? -size : size;
}

// The same draws in both formats: apart from the block's factor of 1/2, 1 or 2, FP8 is the f32 value to 4
// bits.
TEST(Synth, Fp8IsTheF32ValueRounded) {
  const TempFolder a, b;
  synth(tiny(a, "fp8"));
  synth(tiny(b, "f32"));
  const auto rounded = open(a.file("model")), exact = open(b.file("model"));
  std::map<std::string, const float*> values;
  exact->for_each_matrix([&](const dsv::HostMatrix& m) {
    if (m.rows > 1) values[std::string(m.name)] = static_cast<const float*>(m.data);
  });
  const double spread = std::sqrt((0.25 + 1 + 4) / 3);
  int factors[3] = {};
  rounded->for_each_matrix([&](const dsv::HostMatrix& m) {
    if (!m.scale_inv) return;
    const auto* codes = static_cast<const unsigned char*>(m.data);
    const int64_t blocks = (m.cols + 127) / 128;
    for (int64_t row = 0; row < m.rows; row += 37) {
      for (int64_t col = 0; col < m.cols; col += 29) {
        float scale, value;
        const auto at = static_cast<size_t>((row / 128 * blocks + col / 128) * 4);
        std::memcpy(&scale, static_cast<const char*>(m.scale_inv) + at, 4);
        std::memcpy(&value, values.at(std::string(m.name)) + row * m.cols + col, 4);
        const unsigned char code = codes[row * m.cols + col];
        if ((code & 0x7F) < 8) continue;  // subnormal: fewer bits
        const double ratio = std::log2(e4m3(code) * scale * spread / value);
        const double factor = std::round(ratio);
        // Three mantissa bits: half a step is 2^-4 of the value at most.
        ASSERT_NEAR(ratio, factor, std::log2(1 + 0x1p-4) + 1e-6) << m.name;
        ASSERT_LE(std::abs(factor), 1);
        ++factors[static_cast<int>(factor) + 1];
      }
    }
  });
  for (const int count : factors) EXPECT_GT(count, 0);
}

TEST(Synth, TheSeedDecidesEveryByte) {
  const TempFolder a, b, c;
  synth(tiny(a, "bf16"));
  synth(tiny(b, "bf16"));
  SynthOptions other = tiny(c, "bf16");
  other.seed = 1;
  synth(other);
  const std::string name = "model/model.safetensors";
  EXPECT_EQ(read(a.file(name)), read(b.file(name)));
  EXPECT_NE(read(a.file(name)), read(c.file(name)));
}

double mean_square(const dsv::TensorInfo& tensor) {
  double sum = 0;
  for (int64_t i = 0; i < tensor.bytes; ++i) sum += std::pow(e4m3(tensor.data[i]), 2);
  return sum / static_cast<double>(tensor.bytes);
}

// The same tensors as the files would hold: small ones bit by bit, large ones drawn alike.
TEST(Synth, AnImageIsLikeTheFiles) {
  const TempFolder folder;
  SynthOptions options = tiny(folder, "fp8");
  synth(options);
  const auto written = open(options.out);
  options.out = "nowhere";
  SynthImage image(options);
  const dsv_hooks hooks = image.hooks();
  const dsv::Host host(&hooks);
  const auto shown = dsv::Checkpoint::open(host, options.out, true);
  EXPECT_FALSE(shown->has_mtp());
  std::map<std::string, const dsv::TensorInfo*> tensors;
  for (const dsv::TensorInfo& tensor : written->tensors()) tensors[tensor.name] = &tensor;
  int large = 0, small = 0;
  for (const dsv::TensorInfo& tensor : shown->tensors()) {
    SCOPED_TRACE(tensor.name);
    const dsv::TensorInfo& other = *tensors.at(tensor.name);
    EXPECT_EQ(tensor.dtype, other.dtype);
    EXPECT_EQ(tensor.shape, other.shape);
    if (tensor.name.ends_with("e_score_correction_bias")) continue;  // zeros
    if (tensor.bytes % 4096 != 0) {
      EXPECT_EQ(std::memcmp(tensor.data, other.data, static_cast<size_t>(tensor.bytes)), 0);
      ++small;
    } else if (tensor.dtype == "F8_E4M3") {
      EXPECT_NEAR(mean_square(tensor) / mean_square(other), 1, 0.1);
      ++large;
    }
  }
  EXPECT_GT(small, 50);
  EXPECT_GT(large, 50);
}

TEST(Synth, FollowsAConfig) {
  const TempFolder folder;
  nlohmann::json config = dsv::test::small_config();
  config.merge_patch(
      nlohmann::json::parse(R"({"model_type": "deepseek_v3", "q_lora_rank": null, "architectures": null,
      "n_shared_experts": null, "tie_word_embeddings": true, "first_k_dense_replace": null,
      "mlp_layer_types": ["sparse", "dense", "sparse"]})"));
  dsv::test::write_file(folder.file("config.json"), config.dump());
  SynthOptions options = tiny(folder, "fp8");
  options.preset.clear();
  options.config = folder.file("config.json");
  synth(options);
  EXPECT_EQ(open(options.out)->config().layer_is_moe, (std::vector<bool>{true, false, true}));
}

TEST(Synth, RefusesInOneSentence) {
  const TempFolder folder;
  const auto refused = [&](const auto& change, const char* says) {
    SynthOptions options = tiny(folder, "fp8");
    change(options);
    try {
      synth(options);
      ADD_FAILURE() << "accepted: " << says;
    } catch (const std::runtime_error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr(says));
    }
  };
  refused([](SynthOptions& o) { o.preset = "huge"; }, "no preset 'huge'");
  refused([](SynthOptions& o) { o.dtype = "int4"; }, "no dtype 'int4'");
  refused([](SynthOptions& o) { o.preset.clear(); }, "--config or --preset");
  const auto with_config = [&](const std::string& text) {
    return [&folder, text](SynthOptions& o) {
      dsv::test::write_file(folder.file("c.json"), text);
      o.preset.clear();
      o.config = folder.file("c.json");
    };
  };
  refused(with_config("{"), "not a JSON object");
  refused(with_config("{}"), "hidden_size");
  nlohmann::json config = dsv::test::small_config();
  config["vocab_size"] = 200;
  refused(with_config(config.dump()), "vocab_size 200 is too small");
  config["vocab_size"] = "300";
  refused(with_config(config.dump()), "vocab_size");
  dsv::test::write_file(folder.file("a"), "");
  refused([&](SynthOptions& o) { o.out = folder.path(); }, "not empty");
  refused([&](SynthOptions& o) { o.out = folder.file("a"); }, "cannot be made");
}

}  // namespace
}  // namespace cli
