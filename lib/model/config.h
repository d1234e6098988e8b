// config.json -> what the library needs to know of a model. Every dimension is read from the file; none is
// assumed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "backend/geometry.h"

namespace dsv {

struct ModelConfig {
  std::string model_type;  // "deepseek_v32" or "deepseek_v3" (no indexer)
  Geometry geometry;
  int32_t first_k_dense_replace = 0;  // layers [0, this) are dense
  std::vector<bool> layer_is_moe;     // [num_layers]
  bool mtp_is_moe = false;            // of the MTP layer, if num_nextn_predict_layers > 0
  int64_t max_position_embeddings = 0;
  int32_t num_nextn_predict_layers = 0;  // MTP layers the config declares
  bool tie_word_embeddings = false;
  int32_t bos_token_id = -1, eos_token_id = -1;
};

// Throws INVALID_FILE (malformed, missing, inconsistent: names file, field and remedy) or UNSUPPORTED (a
// valid option of the architecture that is not built, by name). Accepts both spellings (rope_scaling /
// rope_parameters, torch_dtype / dtype, first_k_dense_replace / mlp_layer_types, ...) and checks them against
// each other.
ModelConfig parse_config(std::string_view json, std::string_view file);

// Throws UNSUPPORTED if the geometry cannot run in that precision (official: the indexer's Hadamard needs a
// power of two); the sentence says what can.
void check_precision(const ModelConfig& config, Precision precision);

}  // namespace dsv
