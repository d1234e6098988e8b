// A random checkpoint of any geometry in the official layout: for measuring speed and for tests, where a
// trained one is too large or does not exist.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace cli {

struct SynthOptions {
  std::string config;                                         // a config.json to follow; or
  std::string preset;                                         // "v32", "bench-2b5", "tiny"
  int64_t layers = 0;                                         // > 0: instead of num_hidden_layers
  std::string dtype = "fp8";                                  // of the matrices: "fp8", "bf16", "f32"
  uint64_t seed = 0;                                          // same options, same bytes
  std::string out;                                            // a folder that is empty or does not exist
  std::function<void(int64_t done, int64_t total)> progress;  // bytes; may be empty
};

// Writes config.json, tokenizer.json (256 byte tokens and the chat markers) and safetensors in shards of 1
// GB. Values are drawn so that activations keep their size through any number of layers, and logits, routing
// and index scores are well spread. Memory in use does not depend on the size. Throws std::runtime_error with
// one sentence.
void synth(const SynthOptions& options);

}  // namespace cli
