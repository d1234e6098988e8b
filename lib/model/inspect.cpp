#include "model/inspect.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

namespace dsv {

std::string inspect_json(const Checkpoint& checkpoint, const dsv_memory_plan& plan) {
  const auto quoted = [](const std::string& text) { return nlohmann::json(text).dump(); };
  std::string out = "{\"config\":";
  const size_t config = out.size();
  out += checkpoint.config_text();
  // It was read as JSON, so what breaks its lines stands between values.
  std::replace_if(
      out.begin() + static_cast<std::ptrdiff_t>(config), out.end(),
      [](char c) { return c == '\n' || c == '\r' || c == '\t'; }, ' ');
  out += ",\"tensors\":[";
  const char* comma = "";
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    out += fmt::format(R"({}{{"name":{},"dtype":{},"shape":[{}],"bytes":{},"file":{}}})", comma,
                       quoted(tensor.name), quoted(tensor.dtype), fmt::join(tensor.shape, ","), tensor.bytes,
                       quoted(tensor.file));
    comma = ",";
  }
  out += "],\"plan\":{";
  const std::pair<const char*, int64_t> fields[] = {{"weight_bytes", plan.weight_bytes},
                                                    {"weight_copy_bytes", plan.weight_copy_bytes},
                                                    {"kv_bytes_per_1k", plan.kv_bytes_per_1k},
                                                    {"kv_pool_bytes", plan.kv_pool_bytes},
                                                    {"kv_pool_tokens", plan.kv_pool_tokens},
                                                    {"scratch_bytes", plan.scratch_bytes},
                                                    {"total_bytes", plan.total_bytes},
                                                    {"parameters", plan.parameters},
                                                    {"active_bytes_per_token", plan.active_bytes_per_token}};
  comma = "";
  for (const auto& [name, value] : fields) {
    out += fmt::format(R"({}"{}":{})", comma, name, value);
    comma = ",";
  }
  return out += "}}";
}

}  // namespace dsv
