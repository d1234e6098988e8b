#include "samples/cli/suite.h"

#include <algorithm>
#include <cmath>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>

namespace cli {
namespace {

using nlohmann::json;

constexpr double kZ = 1.959963985;  // two-sided 95% of the normal distribution

std::string lower(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

std::string trim(const std::string& text) {
  constexpr const char* kSpace = " \t\r\n";
  const size_t first = text.find_first_not_of(kSpace);
  return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

bool contains(const std::string& content, const json& value) {
  return lower(content).find(lower(value.get<std::string>())) != std::string::npos;
}

bool contains_number(const std::string& content, const std::string& number) {
  const auto digit = [&](size_t at) {
    return at < content.size() && content[at] >= '0' && content[at] <= '9';
  };
  for (size_t at = content.find(number); at != std::string::npos; at = content.find(number, at + 1)) {
    if ((at == 0 || !digit(at - 1)) && !digit(at + number.size())) return true;
  }
  return false;
}

bool is_string_list(const json& check, const char* name) {
  const auto at = check.find(name);
  return at != check.end() && at->is_array() &&
         std::all_of(at->begin(), at->end(), [](const json& value) { return value.is_string(); });
}

// Refuses a check that judge() could not carry out.
void validate(const json& check) {
  const std::string type = check.is_object() ? check.value("type", "") : "";
  const auto need = [&](bool good, const char* what) {
    if (!good) throw std::runtime_error("check '" + type + "' needs " + what);
  };
  const auto is_string = [&](const char* name) { return check.contains(name) && check[name].is_string(); };
  if (type == "exact" || type == "number") {
    need(is_string("value") && check["value"] != "", "a string 'value'");
  } else if (type == "contains_all" || type == "contains_any") {
    need(is_string_list(check, "values") && !check["values"].empty(), "a list of strings 'values'");
  } else if (type == "no_tool_call") {
    need(!check.contains("values") || is_string_list(check, "values"), "'values' to be a list of strings");
  } else if (type == "regex") {
    need(is_string("pattern"), "a string 'pattern'");
    try {
      (void)std::regex(check["pattern"].get<std::string>());
    } catch (const std::regex_error&) {
      need(false, "a valid ECMAScript 'pattern'");
    }
  } else if (type == "tool_calls") {
    need(check.contains("calls") && check["calls"].is_array(), "a list 'calls'");
    for (const json& call : check["calls"]) {
      need(call.is_object() && call.contains("name") && call.contains("arguments"),
           "'name' and 'arguments' in every call");
    }
  } else {
    throw std::runtime_error("unknown check '" + type + "'");
  }
}

Case parse_case(const json& line) {
  if (!line.is_object()) throw std::runtime_error("not a JSON object");
  Case one;
  one.id = line.at("id").get<std::string>();
  one.suite = line.at("suite").get<std::string>();
  one.thinking = line.value("thinking", false);
  one.max_tokens = line.at("max_tokens").get<int64_t>();
  one.check = line.at("check");
  validate(one.check);
  json request = {{"messages", line.at("messages")}};
  if (line.contains("tools") && !line["tools"].empty()) request["tools"] = line["tools"];
  one.request = request.dump();
  return one;
}

}  // namespace

std::vector<Case> parse_suite(const std::string& jsonl, const std::string& from) {
  std::vector<Case> cases;
  std::set<std::string> ids;
  std::istringstream lines(jsonl);
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (trim(line).empty()) continue;
    try {
      cases.push_back(parse_case(json::parse(line)));
      if (!ids.insert(cases.back().id).second)
        throw std::runtime_error("id '" + cases.back().id + "' comes twice");
    } catch (const std::exception& error) {
      throw std::runtime_error(from + " line " + std::to_string(number) + ": " + error.what());
    }
  }
  if (cases.empty()) throw std::runtime_error(from + " has no cases");
  return cases;
}

std::string judge(const Case& one, const Completion& completion) {
  const json& check = one.check;
  const std::string type = check["type"];
  const std::string& content = completion.content;
  if (!completion.ended) return "did not end its turn";
  if (completion.malformed) return "malformed markup";
  if (content.find("<think>") != std::string::npos || content.find("</think>") != std::string::npos) {
    return "think tag in the content";
  }
  if (one.thinking && content.empty() && completion.calls.empty()) return "reasoning was not closed";
  if (!one.thinking && !completion.reasoning.empty()) return "reasoning without being told to";
  if (type == "tool_calls") return completion.calls == check["calls"] ? "" : "other calls";
  if (!completion.calls.empty()) return "unexpected call";
  const auto found = [&](const json& value) { return contains(content, value); };
  const json values = check.value("values", json::array());
  bool good = true;
  if (type == "exact") {
    good = trim(content) == check["value"].get<std::string>();
  } else if (type == "contains_all") {
    good = std::all_of(values.begin(), values.end(), found);
  } else if (type == "contains_any" || (type == "no_tool_call" && !values.empty())) {
    good = std::any_of(values.begin(), values.end(), found);
  } else if (type == "number") {
    good = contains_number(content, check["value"].get<std::string>());
  } else if (type == "regex") {
    good = std::regex_search(content, std::regex(check["pattern"].get<std::string>()));
  }
  return good ? "" : "wrong answer";
}

Interval wilson(double passed, double count) {
  if (count <= 0) return {0, 1};
  const double share = passed / count, z2 = kZ * kZ / count;
  const double middle = (share + z2 / 2) / (1 + z2);
  const double half = kZ / (1 + z2) * std::sqrt(share * (1 - share) / count + z2 / (4 * count));
  return {std::max(0.0, middle - half), std::min(1.0, middle + half)};
}

Paired paired_difference(double lost, double won, double count) {
  if (count <= 0) return {0, {-1, 1}};
  const double n = count + 2, middle = (won - lost) / n;
  const double half = kZ * std::sqrt(std::max(0.0, (won + lost + 1) / n - middle * middle) / n);
  return {(won - lost) / count, {std::max(-1.0, middle - half), std::min(1.0, middle + half)}};
}

}  // namespace cli
