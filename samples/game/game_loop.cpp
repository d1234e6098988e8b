// A game at 60 frames/s with ten NPCs that talk: each has its own conversation, all share one engine, which
// gets 2 ms of every frame. At the end, a histogram of the frames as a PNG.
//   game_loop CHECKPOINT [--frames N] [--png FILE]
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <dsv/dsv.hpp>
#include <iostream>
#include <thread>

#include "histogram.h"

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::duration<double, std::milli>;

constexpr double kFrameMs = 1000.0 / 60;
constexpr int64_t kBudgetUs = 2000;

struct Npc {
  const char *name, *trade, *ware;
  int coins;
};
constexpr Npc kNpcs[] = {{"Brakka", "smith", "shield", 45}, {"Ottil", "baker", "loaf", 2},
                         {"Fenna", "healer", "potion", 12}, {"Garrick", "guard", "lantern", 8},
                         {"Maren", "fisher", "net", 6},     {"Tobin", "miller", "sack", 3},
                         {"Isolde", "scribe", "map", 30},   {"Rurik", "hunter", "bow", 25},
                         {"Selka", "weaver", "cloak", 18},  {"Dorrin", "brewer", "barrel", 20}};
constexpr const char* kQuestions[] = {"Good day!", "How much for a %?", "Who are you?", "Thanks, goodbye!"};

class Talker {
 public:
  // pause: frames between an answer and the next question
  Talker(const dsv::Model& model, const Npc& npc, int pause) : npc_(npc), session_(model), pause_(pause) {
    greet();
    options_.temperature = 0;
    options_.max_tokens = 60;
  }

  // Once a frame: takes what has been said since, and starts the next question when it is time.
  void update(int frame) {
    for (dsv::Event event; session_.poll(event);) {
      talk_.collect(event);
      if (event.kind == DSV_EVENT_CONTENT) says_ += event.text;
      tokens_ += event.completion_tokens;
      if (event.kind == DSV_EVENT_FINISHED) next_talk_ = frame + pause_, talking_ = false;
    }
    if (talking_ || frame < next_talk_) return;
    if (asked_ == std::size(kQuestions)) greet();  // a new customer
    std::string question = kQuestions[asked_++];
    if (const size_t gap = question.find('%'); gap != std::string::npos) question.replace(gap, 1, npc_.ware);
    talk_.add("user", question);
    session_.chat(talk_.json(), options_);
    says_.clear();
    talking_ = true;
  }

  const char* name() const { return npc_.name; }
  const std::string& says() const { return says_; }
  int64_t tokens() const { return tokens_; }

 private:
  void greet() {
    talk_ = {};
    talk_.add("system", std::string("You are ") + npc_.name + ", a friendly " + npc_.trade + ". You sell a " +
                            npc_.ware + " for " + std::to_string(npc_.coins) + " coins.");
    asked_ = 0;
  }

  const Npc& npc_;
  dsv::Session session_;
  dsv::Conversation talk_;
  dsv::GenerateOptions options_;
  std::string says_;
  size_t asked_ = 0;
  int pause_, next_talk_ = 0;
  bool talking_ = false;
  int64_t tokens_ = 0;
};

// What a game does besides: some arithmetic, for about 4 ms.
static double simulate(Clock::time_point start) {
  double heat = 1;
  while (Milliseconds(Clock::now() - start).count() < 4) {
    for (int i = 0; i < 1000; ++i) heat = std::sqrt(heat + i);
  }
  return heat;
}

// What this thread has computed, without the time in which other programs had its core.
static double computed_ms() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) / 1e6;
}

static void draw(const std::vector<Talker>& talkers) {
  std::string screen = "\033[H";
  for (const Talker& talker : talkers) {
    screen += "\033[K" + std::string(talker.name()) + ": " + talker.says() + "\n";
  }
  std::cout << screen << std::flush;
}

int main(int argc, char** argv) try {
  int frames = 1800;
  std::string png = "frames.png";
  bool usage = argc < 2;
  for (int i = 2; i < argc; i += 2) {
    const std::string option = argv[i];
    if (i + 1 < argc && option == "--frames") {
      frames = std::max(1, std::atoi(argv[i + 1]));
    } else if (i + 1 < argc && option == "--png") {
      png = argv[i + 1];
    } else {
      usage = true;
    }
  }
  if (usage) {
    std::cerr << "usage: game_loop CHECKPOINT [--frames N] [--png FILE]\n";
    return 2;
  }
  dsv::Engine engine;
  dsv::ModelOptions options;
  options.context_tokens = 1024;
  options.kv_budget_bytes = 256 << 20;
  const dsv::Model model(engine, argv[1], options);
  std::vector<Talker> talkers;
  talkers.reserve(std::size(kNpcs));
  for (const Npc& npc : kNpcs) talkers.emplace_back(model, npc, 60 + static_cast<int>(talkers.size()) * 7);
  // Behind the loading screen: memory is slow to use for the first time, so everyone talks once before the
  // first frame.
  for (Talker& talker : talkers) talker.update(0);
  engine.run();

  const bool terminal = isatty(STDOUT_FILENO);
  if (terminal) std::cout << "\033[2J";
  Series ours{"dsv", {}, 0x3377CC}, whole{"whole frame", {}, 0xBBBBBB};
  int missed = 0, missed_by_dsv = 0;
  double heat = 0;
  for (int frame = 0; frame < frames; ++frame) {
    const auto start = Clock::now();
    heat += simulate(start);
    const auto before = Clock::now();
    const double computed_before = computed_ms();
    engine.step(kBudgetUs);
    for (Talker& talker : talkers) talker.update(frame);
    const double dsv_ms = Milliseconds(Clock::now() - before).count();
    const double over_budget = std::max(0.0, computed_ms() - computed_before - kBudgetUs / 1000.0);
    if (terminal) draw(talkers);
    const double frame_ms = Milliseconds(Clock::now() - start).count();
    ours.values.push_back(dsv_ms);
    whole.values.push_back(frame_ms);
    // A late frame is dsv's fault if it had not been late with dsv inside its budget.
    if (frame_ms > kFrameMs) {
      ++missed;
      missed_by_dsv += frame_ms - over_budget <= kFrameMs;
    }
    std::this_thread::sleep_until(start +
                                  std::chrono::duration_cast<Clock::duration>(Milliseconds(kFrameMs)));
  }

  int64_t tokens = 0;
  for (const Talker& talker : talkers) {
    tokens += talker.tokens();
    if (!terminal) std::cout << talker.name() << ": " << talker.says() << "\n";
  }
  write_histogram(png, {whole, ours}, {{"budget", kBudgetUs / 1000.0}, {"frame", kFrameMs}}, 20);
  std::sort(ours.values.begin(), ours.values.end());
  const auto percentile = [&](double share) {
    return ours.values[static_cast<size_t>(share * (frames - 1))];
  };
  std::printf("%d frames, %lld tokens; dsv ms a frame: median %.2f, 99%% %.2f, worst %.2f\n", frames,
              static_cast<long long>(tokens), percentile(0.5), percentile(0.99), percentile(1));
  std::printf("frames missed: %d, because of dsv: %d; histogram: %s\n", missed, missed_by_dsv, png.c_str());
  return heat > 0 ? 0 : 1;
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
