// What the commands share: the options of a model and of sampling, opening a model with a progress bar,
// files.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "dsv/dsv.hpp"

namespace cli {

struct ModelArgs {
  std::string path, backend = "cpu", cpu_target, precision = "official", schedule = "deterministic";
  int32_t threads = 0;
  int64_t context = 0;

  void add_to(CLI::App& app);
  dsv::Engine engine() const;
  dsv::ModelOptions options() const;
  // Loads with a progress bar on a terminal.
  dsv::Model load(dsv::Engine& engine, const dsv::ModelOptions& options) const;
};

struct SamplingArgs {
  double temperature = 0, top_p = 1, min_p = 0;
  int32_t top_k = 0;
  uint64_t seed = 0;
  int64_t max_tokens = 0;

  void add_to(CLI::App& app);
  dsv::GenerateOptions options() const;
};

// The checkpoint in the source tree or beside the installed tool, found from where this program lies.
std::string bundled_checkpoint();

std::string read_file(const std::string& path);  // "-" is stdin
std::vector<int32_t> parse_ids(const std::string& json, const std::string& from);
void write_stdout(std::string_view text);

const char* finish_name(int32_t finish_reason);
// Throws if the request failed; for reasons short of a failure that cut the answer off, says so on stderr.
void report_finish(const dsv::Event& finished);

std::string format_bytes(int64_t bytes);

}  // namespace cli
