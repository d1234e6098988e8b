#include "samples/cli/synth_image.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <stdexcept>
#include <tuple>

#include "samples/cli/synth_tensors.h"

namespace cli {
namespace {

using synthetic::Tensor;
using synthetic::Type;

constexpr int64_t kPage = 4096;
// A prime number of pages (61 MiB): a model's tensors of one size begin at different places.
constexpr int64_t kPoolBytes = 15619 * kPage;

void must(bool done) {
  if (!done) throw std::runtime_error("the system has no address space or memory for a random checkpoint");
}

int64_t to_pages(int64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

// Random values of one kind, to be mapped many times.
class Pool {
 public:
  Pool(synthetic::Normals& normals, const Tensor& kind) : file_(memfd_create("dsv-synth", 0)) {
    must(file_ >= 0 && ftruncate(file_, kPoolBytes) == 0);
    void* memory = mmap(nullptr, kPoolBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
    must(memory != MAP_FAILED);
    uint64_t state = synthetic::seed_of(kind.name, 0);
    normals.fill(kind, static_cast<unsigned char*>(memory), kPoolBytes, state);
    munmap(memory, kPoolBytes);
  }
  ~Pool() { close(file_); }
  Pool(const Pool&) = delete;

  // Shows the pool's bytes at [at, at + bytes), all page-aligned, going on from where the last ones ended.
  void show(unsigned char* at, int64_t bytes) {
    while (bytes > 0) {
      const int64_t part = std::min(bytes, kPoolBytes - next_);
      must(mmap(at, static_cast<size_t>(part), PROT_READ, MAP_SHARED | MAP_FIXED, file_, next_) !=
           MAP_FAILED);
      at += part;
      bytes -= part;
      next_ = (next_ + part) % kPoolBytes;
    }
  }

 private:
  int file_;
  int64_t next_ = 0;
};

}  // namespace

SynthImage::SynthImage(const SynthOptions& options) : folder_(options.out) {
  nlohmann::ordered_json config = synthetic::read_config(options);
  config["num_nextn_predict_layers"] = 0;
  config_ = config.dump();
  std::vector<Tensor> tensors = synthetic::tensors_of(config, options);
  // Rows of a random router choose evenly. Training sees to that by these biases; random ones would undo it.
  for (Tensor& tensor : tensors) {
    if (tensor.name.ends_with("e_score_correction_bias")) tensor.sigma = 0;
  }
  const auto pooled = [](const Tensor& t) { return t.type != Type::scale && t.bytes() % kPage == 0; };
  // Those first, so that they begin at pages.
  std::stable_partition(tensors.begin(), tensors.end(), pooled);
  nlohmann::json header = nlohmann::json::object();
  int64_t data_bytes = 0;
  for (const Tensor& tensor : tensors) {
    header[tensor.name] = synthetic::header_entry(tensor, data_bytes);
    data_bytes += tensor.bytes();
  }
  std::string text = header.dump();
  const int64_t begin = to_pages(8 + static_cast<int64_t>(text.size()));
  text.resize(static_cast<size_t>(begin - 8), ' ');

  bytes_ = begin + to_pages(data_bytes);
  memory_ = mmap(nullptr, static_cast<size_t>(bytes_), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  must(memory_ != MAP_FAILED);
  auto* at = static_cast<unsigned char*>(memory_);
  for (size_t i = 0; i < 8; ++i) at[i] = static_cast<unsigned char>(text.size() >> (8 * i));
  std::memcpy(at + 8, text.data(), text.size());
  at += begin;
  synthetic::Normals normals;
  std::map<std::tuple<Type, double, double>, Pool> pools;
  for (const Tensor& tensor : tensors) {
    uint64_t state = synthetic::seed_of(tensor.name, options.seed);
    if (tensor.type == Type::scale) {
      std::memcpy(at, synthetic::scales_of(tensor, state).data(), static_cast<size_t>(tensor.bytes()));
    } else if (pooled(tensor)) {
      const std::tuple kind(tensor.type, tensor.mean, tensor.sigma);
      auto pool = pools.find(kind);
      if (pool == pools.end()) {
        pool = pools.emplace(std::piecewise_construct, std::tuple(kind), std::tie(normals, tensor)).first;
      }
      pool->second.show(at, tensor.bytes());
    } else {
      normals.fill(tensor, at, tensor.bytes(), state);
    }
    at += tensor.bytes();
  }
  files_[0] = {config_.data(), static_cast<int64_t>(config_.size())};
  files_[1] = {memory_, begin + data_bytes};
}

SynthImage::~SynthImage() {
  if (memory_) munmap(memory_, static_cast<size_t>(bytes_));
}

dsv_hooks SynthImage::hooks() {
  dsv_hooks hooks;
  std::memset(&hooks, 0, sizeof hooks);
  hooks.struct_size = sizeof hooks;
  hooks.user = this;
  hooks.file_open = [](void* user, const char* path, void** file, int64_t* size) -> dsv_status {
    auto& self = *static_cast<SynthImage*>(user);
    const std::string name = path;
    for (const int i : {0, 1}) {
      if (name != self.folder_ + (i == 0 ? "/config.json" : "/model.safetensors")) continue;
      *file = &self.files_[i];
      *size = self.files_[i].size;
      return DSV_OK;
    }
    return DSV_ERROR_IO;
  };
  hooks.file_map = [](void*, void* file) { return static_cast<const File*>(file)->data; };
  hooks.file_read = [](void*, void* file, int64_t offset, void* out, int64_t size) -> dsv_status {
    std::memcpy(out, static_cast<const unsigned char*>(static_cast<const File*>(file)->data) + offset,
                static_cast<size_t>(size));
    return DSV_OK;
  };
  hooks.file_close = [](void*, void*) {};
  return hooks;
}

}  // namespace cli
