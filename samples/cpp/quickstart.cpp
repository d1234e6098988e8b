#include <dsv/dsv.hpp>
#include <iostream>

int main(int argc, char** argv) {
  dsv::Engine engine;
  dsv::Model model(engine, argc > 1 ? argv[1] : "samples/nano/checkpoint");
  dsv::Session session(model, [](const dsv::Event& event) {
    if (event.kind == DSV_EVENT_CONTENT) std::cout << event.text << std::flush;
    return DSV_ACTION_CONTINUE;
  });
  session.chat(R"({"messages": [{"role": "user", "content": "Hello! Who are you?"}]})");
  engine.run();
}
