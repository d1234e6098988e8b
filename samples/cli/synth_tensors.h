// The tensors of a random checkpoint: their shapes, and how their values are drawn. For synth.cpp, which
// writes them, and synth_image.cpp, which keeps them in memory.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <vector>

#include "samples/cli/synth.h"

namespace cli::synthetic {

inline constexpr int64_t kBlock = 128;  // edge of an FP8 block

enum class Type { f8, bf16, f32, scale };  // scale: f32 block scales of the f8 tensor before it

inline int64_t value_bytes(Type type) { return type == Type::f8 ? 1 : type == Type::bf16 ? 2 : 4; }

struct Tensor {
  std::string name;
  Type type;
  std::vector<int64_t> shape;
  double mean, sigma;  // of scale: 0 and the exponent of the middle scale

  int64_t count() const {
    int64_t n = 1;
    for (const int64_t size : shape) n *= size;
    return n;
  }
  int64_t bytes() const { return count() * value_bytes(type); }
};

// The config.json that the options ask for; its tensors, each one's block scales behind it.
nlohmann::ordered_json read_config(const SynthOptions& options);
std::vector<Tensor> tensors_of(const nlohmann::ordered_json& config, const SynthOptions& options);
// {name: {dtype, shape, data_offsets}}, a tensor's entry in the header of its file.
nlohmann::json header_entry(const Tensor& tensor, int64_t begin);

uint64_t next_random(uint64_t& state);  // splitmix64
uint64_t seed_of(const std::string& name, uint64_t seed);

// 2^16 draws from the normal distribution, exactly symmetric. Tensors pick from them at random: a whole
// 64-bit random number then gives four values.
class Normals {
 public:
  Normals();
  // The next values of a tensor that is no scale.
  void fill(const Tensor& tensor, unsigned char* out, int64_t bytes, uint64_t& state);

 private:
  // The bytes of each draw as the tensor stores it.
  const std::vector<unsigned char>& stored(Type type, double mean, double sigma);

  static constexpr size_t kCount = size_t{1} << 16;
  std::vector<double> values_;
  std::map<std::tuple<Type, double, double>, std::vector<unsigned char>> stored_;
};

// The block scales of an FP8 tensor.
std::vector<float> scales_of(const Tensor& tensor, uint64_t& state);

}  // namespace cli::synthetic
