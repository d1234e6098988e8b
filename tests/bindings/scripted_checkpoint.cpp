// scripted_checkpoint FOLDER: a checkpoint that says what it is told to, so that tests of the bindings know
// every event of an answer, tool calls included, without a trained model.
//
// The only thing it computes is "which token follows this one": the layer's weights are zero, the embedding
// is the identity and the head holds the table. A user message that ends with a key such as #hello makes one
// token with the markers behind it, whose follower begins that key's answer; every token of an answer occurs
// in one place only.
#include <cstdio>
#include <map>

#include "samples/cli/synth_tokenizer.h"
#include "tests/support/checkpoint_writer.h"

namespace {

using dsv::test::TestTensor;
using dsv::test::TestTensors;
using nlohmann::json;

constexpr int64_t kVocab = 384;
constexpr int32_t kEos = 1, kFirstByte = 3;
constexpr const char* kAsk = "<｜Assistant｜></think>";
constexpr const char* kAskThinking = "<｜Assistant｜><think>";
constexpr const char* kResults = "</result>\n</function_results>\n\n</think>";

class Script {
 public:
  Script() : tokenizer_(json::parse(cli::tokenizer_json(kVocab))) {
    for (const json& token : tokenizer_["added_tokens"]) ids_[token["content"]] = token["id"];
  }

  enum class End { turn, loop, goes_on };  // goes_on: what follows the last piece is said elsewhere

  // What follows the token `prompt`. loop: the last piece comes for ever.
  void say(const std::string& prompt, const std::vector<std::string>& pieces, End end = End::turn) {
    int32_t from = token(prompt);
    for (const std::string& piece : pieces) {
      const int32_t to = token(piece);
      follow(from, to);
      from = to;
    }
    if (end != End::goes_on) follow(from, end == End::loop ? from : kEos);
  }

  std::string tokenizer() const { return tokenizer_.dump(1); }
  // float [vocab, vocab]: row t scores token t, of which column h is the token before.
  std::string head() const {
    std::vector<float> rows(kVocab * kVocab);
    for (int64_t from = 0; from < kVocab; ++from) {
      const auto next = next_.find(static_cast<int32_t>(from));
      rows[static_cast<size_t>((next == next_.end() ? kEos : next->second) * kVocab + from)] = 4;
    }
    return {reinterpret_cast<const char*>(rows.data()), rows.size() * sizeof(float)};
  }

 private:
  int32_t token(const std::string& text) {
    if (text.size() == 1) return kFirstByte + static_cast<unsigned char>(text[0]);
    const auto known = ids_.find(text);
    if (known != ids_.end()) return known->second;
    json& added = tokenizer_["added_tokens"];
    const int32_t id = added.back()["id"].get<int32_t>() + 1;
    if (id >= kVocab) throw std::runtime_error("more tokens than kVocab");
    json entry = added.back();
    entry["id"] = id;
    entry["content"] = text;
    added.push_back(entry);
    return ids_[text] = id;
  }
  void follow(int32_t from, int32_t to) {
    if (!next_.emplace(from, to).second) throw std::runtime_error("a token has two followers");
  }

  json tokenizer_;
  std::map<std::string, int32_t> ids_;
  std::map<int32_t, int32_t> next_;
};

// A call with one argument, whose value comes in two pieces.
std::vector<std::string> call(const std::string& tool, const std::string& parameter, const std::string& head,
                              const std::string& tail) {
  return {"\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"" + tool + "\">\n<｜DSML｜parameter name=\"" +
              parameter + "\" string=\"true\">" + head,
          tail + "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>"};
}

Script script() {
  Script script;
  const auto key = [](const char* name) { return name + std::string(kAsk); };
  script.say("</think>", {"So be it."});  // to any other message, and after thinking
  script.say(key("#hello"), {"Hello", " there", "!"});
  script.say(key("#emoji"), {"A hand: ", "\xF0", "\x9F", "\x91", "\x8D", " and that is all."});
  script.say(key("#nul"), {"before", std::string(1, '\0'), "after"});
  script.say(key("#spin"), {"and on "}, Script::End::loop);
  script.say(std::string("#think") + kAskThinking, {"Hmm, ", "hmm.", "</think>"}, Script::End::goes_on);
  script.say(key("#calculator"), call("calculator", "expression", "6 ", "* 7"));
  script.say(key("#ghost"), call("ghost", "name", "B", "oo"));
  script.say(kResults, {"That is all", " I know."});
  script.say(key("#loop"), call("calculator", "expression", "1 ", "+ 1"));
  script.say(std::string("again") + kResults, call("calculator", "expression", "2 ", "+ 2"));
  return script;
}

TestTensor filled(const TestTensor& like, float value) {
  TestTensor tensor{like.dtype, like.shape, {}};
  std::vector<float> values(like.bytes.size() / sizeof(float), value);
  tensor.bytes.assign(reinterpret_cast<const char*>(values.data()), like.bytes.size());
  return tensor;
}

void write(const std::string& folder) {
  json config = dsv::test::small_config();
  config.merge_patch({{"vocab_size", kVocab},
                      {"hidden_size", kVocab},
                      {"num_hidden_layers", 1},
                      {"num_nextn_predict_layers", 0},
                      {"max_position_embeddings", 32768}});
  config["rope_scaling"]["original_max_position_embeddings"] = 4096;
  TestTensors tensors = dsv::test::random_tensors(config, 1, "F32");
  for (auto& [name, tensor] : tensors) {
    const bool norm = name.find("norm.weight") != std::string::npos;
    tensor = filled(tensor, norm ? 1.0f : 0.0f);
  }
  std::vector<float> identity(kVocab * kVocab);
  for (int64_t i = 0; i < kVocab; ++i) identity[static_cast<size_t>(i * kVocab + i)] = 1;
  tensors["model.embed_tokens.weight"].bytes.assign(reinterpret_cast<const char*>(identity.data()),
                                                    identity.size() * sizeof(float));
  const Script told = script();
  tensors["lm_head.weight"].bytes = told.head();
  std::filesystem::create_directories(folder);
  dsv::test::write_file(folder + "/config.json", config.dump(1));
  dsv::test::write_file(folder + "/tokenizer.json", told.tokenizer());
  dsv::test::write_tensors(folder, tensors);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) throw std::runtime_error("usage: scripted_checkpoint FOLDER");
  write(argv[1]);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
