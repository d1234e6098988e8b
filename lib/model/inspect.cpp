#include "model/inspect.h"

#include <nlohmann/json.hpp>

namespace dsv {

std::string inspect_json(const Checkpoint& checkpoint, const dsv_memory_plan& plan) {
  using nlohmann::ordered_json;
  ordered_json tensors = ordered_json::array();
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    tensors.push_back({{"name", tensor.name},
                       {"dtype", tensor.dtype},
                       {"shape", tensor.shape},
                       {"bytes", tensor.bytes},
                       {"file", tensor.file}});
  }
  const ordered_json document = {{"config", ordered_json::parse(checkpoint.config_text())},
                                 {"tensors", std::move(tensors)},
                                 {"plan",
                                  {{"weight_bytes", plan.weight_bytes},
                                   {"weight_copy_bytes", plan.weight_copy_bytes},
                                   {"kv_bytes_per_1k", plan.kv_bytes_per_1k},
                                   {"kv_pool_bytes", plan.kv_pool_bytes},
                                   {"kv_pool_tokens", plan.kv_pool_tokens},
                                   {"scratch_bytes", plan.scratch_bytes},
                                   {"total_bytes", plan.total_bytes},
                                   {"parameters", plan.parameters},
                                   {"active_bytes_per_token", plan.active_bytes_per_token}}}};
  return document.dump();
}

}  // namespace dsv
