// An agent: the model asks for C++ functions, they run here, and it answers from what they return.
//   agent CHECKPOINT FOLDER "Which files are there?"
#include <dsv/dsv.hpp>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>

using json = nlohmann::ordered_json;  // schemas in the order in which they are written
namespace fs = std::filesystem;

// A function that the model may call: what it does, its parameters as a JSON schema, and the C++ behind it.
struct Tool {
  std::string description;
  json properties;
  std::function<std::string(const json& arguments)> call;
};
using Tools = std::map<std::string, Tool>;

// Only plain names in the folder: what the model writes is not to be trusted.
static fs::path inside(const fs::path& folder, const json& arguments) {
  const fs::path name = arguments.at("path").get<std::string>();
  if (name != name.filename()) throw std::runtime_error("no such file");
  return folder / name;
}

static Tools file_tools(const fs::path& folder) {
  const json path = {{"type", "string"}, {"description", "The file to read"}};
  Tools tools;
  tools["list_files"] = {
      "List the files in a folder",
      {{"path", {{"type", "string"}, {"description", "The folder, . for the current one"}}}},
      [=](const json&) {
        std::string names;
        for (const auto& entry : fs::directory_iterator(folder)) {
          names += entry.path().filename().string() + "\n";
        }
        return names.empty() ? "(empty)" : names;
      }};
  tools["read_file"] = {"Read a text file", {{"path", path}}, [=](const json& arguments) {
                          std::ifstream file(inside(folder, arguments));
                          if (!file) throw std::runtime_error("no such file");
                          return std::string(std::istreambuf_iterator<char>(file), {});
                        }};
  return tools;
}

static json schema(const Tools& tools) {
  json list = json::array();
  for (const auto& [name, tool] : tools) {
    json required = json::array();
    for (const auto& property : tool.properties.items()) required.push_back(property.key());
    const json parameters = {{"type", "object"}, {"properties", tool.properties}, {"required", required}};
    const json function = {{"name", name}, {"description", tool.description}, {"parameters", parameters}};
    list.push_back({{"type", "function"}, {"function", function}});
  }
  return list;
}

// A failure is a result too: the model reads the sentence and can do something about it.
static std::string call(const Tools& tools, const dsv::Conversation::ToolCall& wanted) try {
  const auto tool = tools.find(wanted.name);
  if (tool == tools.end()) return "error: no such tool";
  return tool->second.call(json::parse(wanted.arguments));
} catch (const std::exception& error) {
  return std::string("error: ") + error.what();
}

int main(int argc, char** argv) try {
  if (argc != 4) {
    std::cerr << "usage: agent CHECKPOINT FOLDER PROMPT\n";
    return 2;
  }
  const Tools tools = file_tools(argv[2]);
  dsv::Engine engine;
  const dsv::Model model(engine, argv[1]);
  dsv::Session session(model);
  dsv::GenerateOptions options;
  options.temperature = 0;
  options.max_tokens = 400;
  dsv::Conversation talk;
  talk.set_tools(schema(tools).dump());
  talk.add("user", argv[3]);

  for (int round = 0; round < 8; ++round) {
    session.chat(talk.json(), options);
    int32_t reason = 0;
    while (reason == 0) {
      engine.step(50'000);
      for (dsv::Event event; session.poll(event);) {
        talk.collect(event);  // appends the assistant's message when it is complete
        if (event.kind == DSV_EVENT_CONTENT) std::cout << event.text << std::flush;
        if (event.kind == DSV_EVENT_FINISHED) reason = event.finish_reason;
      }
    }
    if (reason != DSV_FINISH_TOOL_CALLS) break;
    for (const auto& wanted : std::vector(talk.tool_calls())) {
      const std::string result = call(tools, wanted);
      std::cout << "[" << wanted.name << " " << wanted.arguments << "]\n" << result << "\n";
      talk.add_tool_result(wanted.id, result);
    }
  }
  std::cout << "\n";
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
