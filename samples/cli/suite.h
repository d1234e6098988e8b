// Suites of cases, how a completion is judged, and the statistics over them. The format:
// samples/nano/SUITES.md.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace cli {

struct Case {
  std::string id, suite, request;  // request: the JSON that a session takes
  bool thinking = false;
  int64_t max_tokens = 0;
  nlohmann::json check;
};
// Throws std::runtime_error that names the line and what is wrong with it.
std::vector<Case> parse_suite(const std::string& jsonl, const std::string& from);

struct Completion {
  std::string reasoning, content;
  nlohmann::json calls = nlohmann::json::array();  // [{"name", "arguments": {...}}]
  bool ended = false;                              // the model ended its turn by itself
  bool malformed = false;                          // markup that could not be parsed
};
// Empty if the case passes, else why not.
std::string judge(const Case& one, const Completion& completion);

struct Interval {
  double low, high;
};
// Wilson's 95% interval of a share `passed / count`.
Interval wilson(double passed, double count);

// Second run minus first over the same cases: `lost` passed only in the first, `won` only in the second. The
// 95% interval is Agresti and Min's, which stays honest when almost nothing differs.
struct Paired {
  double difference;
  Interval interval;
};
Paired paired_difference(double lost, double won, double count);

}  // namespace cli
