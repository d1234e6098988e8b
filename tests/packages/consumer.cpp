// A C++ program as someone outside writes it.
#include <dsv/dsv.hpp>
#include <iostream>

int main(int, char** argv) {
  dsv::Engine engine;
  dsv::Model model(engine, argv[1]);
  dsv::Session session(model);
  dsv::Conversation talk;
  talk.add("user", "Hello!");
  dsv::GenerateOptions options;
  options.max_tokens = 20;
  session.chat(talk.json(), options);
  engine.run();
  for (dsv::Event event; session.poll(event);) {
    if (event.kind == DSV_EVENT_CONTENT) std::cout << event.text;
  }
  std::cout << "\n" << dsv_build_info() << "\n";
}
