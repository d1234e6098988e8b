// What the times of ops add up to: passes, layers, a whole model on several GPUs; and all of it as a table.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace cli {

// `pass` has rows, seconds and ops; `out` machine and layers. Adds the sums of a pass and the times of a
// layer.
void add_totals(nlohmann::ordered_json& pass, const nlohmann::ordered_json& out);

// `out` has passes: adds the prompt's sum, and what the whole model would give.
void add_projection(nlohmann::ordered_json& out);

std::string ops_table(const nlohmann::ordered_json& out);

}  // namespace cli
