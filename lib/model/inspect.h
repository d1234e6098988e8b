// A checkpoint as JSON, for dsv_model_inspect and `dsv inspect`.
#pragma once

#include <dsv/dsv.h>

#include <string>

#include "model/checkpoint.h"

namespace dsv {

// {"config": config.json as it is, "tensors": [{"name", "dtype", "shape", "bytes", "file"}...], "plan":
// {...}} with the numbers of `plan`. UTF-8, no line breaks.
std::string inspect_json(const Checkpoint& checkpoint, const dsv_memory_plan& plan);

}  // namespace dsv
