#include <cstdio>
#include <exception>

#include "dsv/dsv.h"
#include "samples/cli/commands.h"

int main(int argc, char** argv) {
  CLI::App app("dsv: run DeepSeek-V3.2 checkpoints", "dsv");
  app.require_subcommand(1);
  app.set_version_flag("--version", [] { return std::string(dsv_build_info()); });
  cli::add_chat(app);
  cli::add_run(app);
  cli::add_generate(app);
  cli::add_text(app);
  cli::add_model_info(app);
  cli::add_eval(app);
  cli::add_bench(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "dsv: %s\n", error.what());
    return 1;
  }
  return 0;
}
