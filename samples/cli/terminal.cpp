#include "samples/cli/terminal.h"

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "samples/cli/common.h"

namespace cli {
namespace {

volatile sig_atomic_t interrupted = 0;

void on_interrupt(int) { interrupted = 1; }

void write_dimmed(const std::string& text) {
  const bool terminal = isatty(STDERR_FILENO) != 0;
  std::fprintf(stderr, terminal ? "\033[2m%s\033[0m" : "%s", text.c_str());
}

}  // namespace

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;  // without SA_RESTART: a read that waits for input must return
  sigaction(SIGINT, &action, nullptr);
}

bool take_interrupt() {
  const bool was = interrupted != 0;
  interrupted = 0;
  return was;
}

std::optional<std::string> read_line(const char* prompt) {
  const bool terminal = isatty(STDIN_FILENO) != 0 && isatty(STDERR_FILENO) != 0;
  bool warned = false;
  std::string line;
  if (terminal) std::fputs(prompt, stderr);
  while (true) {
    char c = 0;
    const ssize_t got = read(STDIN_FILENO, &c, 1);
    if (got == 1) {
      if (c == '\n') return line;
      line += c;
    } else if (got < 0 && errno == EINTR) {
      // The terminal has dropped what was typed.
      if (!take_interrupt()) continue;
      if (warned) {
        std::fputs("\n", stderr);
        return std::nullopt;
      }
      warned = true;
      line.clear();
      std::fprintf(stderr, "\n(Ctrl-C again or Ctrl-D to leave)\n%s", prompt);
    } else {
      if (terminal) std::fputs("\n", stderr);
      if (line.empty()) return std::nullopt;
      return line;
    }
  }
}

Answer answer(dsv::Engine& engine, dsv::Session& session, dsv::Conversation& conversation,
              const dsv::GenerateOptions& options) {
  Answer answer;
  bool reasoned = false, wrote = false, done = false;
  session.chat(conversation.json(), options);
  // Short steps, so that Ctrl-C is noticed soon.
  while (!done) {
    engine.step(50'000);
    if (take_interrupt()) {
      answer.stopped = true;
      session.cancel();
    }
    for (dsv::Event event; session.poll(event);) {
      conversation.collect(event);
      switch (event.kind) {
        case DSV_EVENT_REASONING:
          write_dimmed(event.text);
          reasoned = true;
          break;
        case DSV_EVENT_CONTENT:
          if (reasoned && !wrote) std::fputs("\n", stderr);
          write_stdout(event.text);
          wrote = true;
          break;
        case DSV_EVENT_MALFORMED:
          std::fprintf(stderr, "\n(%s)\n", event.text.c_str());
          break;
        case DSV_EVENT_FINISHED:
          answer.finished = event;
          done = true;
          break;
        default:
          break;
      }
    }
  }
  if (wrote) {
    write_stdout("\n");
  } else if (reasoned) {
    std::fputs("\n", stderr);
  }
  for (const auto& call : conversation.tool_calls()) {
    write_dimmed("-> " + call.name + " " + call.arguments + "\n");
  }
  report_finish(answer.finished);
  return answer;
}

}  // namespace cli
