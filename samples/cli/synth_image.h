// A random checkpoint that is on no disk: `synth`'s files as the library sees them, for models of which one
// layer is larger than most disks have room for.
#pragma once

#include <dsv/dsv.h>

#include <string>

#include "samples/cli/synth.h"

namespace cli {

// The files lie in this process's address space. Large tensors of the same kind show the same few megabytes
// of random values, each from another place on, so the whole takes some hundred megabytes of memory, whatever
// the model's size.
class SynthImage {
 public:
  // `options.out` is the folder's name; nothing is written there. Without the MTP layer. Throws
  // std::runtime_error.
  explicit SynthImage(const SynthOptions& options);
  ~SynthImage();
  SynthImage(const SynthImage&) = delete;

  // File hooks that show the folder; valid as long as this.
  dsv_hooks hooks();

 private:
  struct File {
    const void* data;
    int64_t size;
  };
  std::string folder_, config_;
  File files_[2];
  void* memory_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace cli
