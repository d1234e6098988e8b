// runtime.h by the CUDA runtime, which is linked in, so that only the driver is needed. Every failure becomes
// a sentence here.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "kernels/cuda/runtime.h"

namespace dsv::cuda {
namespace {

constexpr const char* kOrCpu = "or use the cpu backend";

std::string version(int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); }

// The device's number. Throws if there is none that can be used.
int find_device(const char* text, cudaDeviceProp* properties) {
  int driver = 0, count = 0;
  cudaDriverGetVersion(&driver);
  if (driver == 0) {
    fail(DSV_ERROR_UNSUPPORTED,
         "there is no NVIDIA driver on this machine, which the cuda backend needs: install one for CUDA {} "
         "or newer, {}",
         version(CUDART_VERSION), kOrCpu);
  }
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorInsufficientDriver) {
    fail(DSV_ERROR_UNSUPPORTED,
         "this machine's NVIDIA driver is for CUDA {} and the cuda backend needs {}: update it, {}",
         version(driver), version(CUDART_VERSION), kOrCpu);
  }
  if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0)) {
    fail(DSV_ERROR_UNSUPPORTED,
         "the NVIDIA driver shows no GPU: see what nvidia-smi says and what CUDA_VISIBLE_DEVICES hides, {}",
         kOrCpu);
  }
  if (error != cudaSuccess) {
    fail(DSV_ERROR_UNSUPPORTED, "the NVIDIA driver does not start ({}): see what nvidia-smi says, {}",
         cudaGetErrorString(error), kOrCpu);
  }
  char* end = nullptr;
  const bool given = text && *text != '\0';
  const long number = given ? std::strtol(text, &end, 10) : 0;
  if (given && (*end != '\0' || *text < '0' || *text > '9')) {
    fail(DSV_ERROR_INVALID_ARGUMENT, "\"cuda:{}\" names no GPU: give \"cuda:\" and a number, from 0 to {}",
         text, count - 1);
  }
  if (number >= count) {
    fail(DSV_ERROR_INVALID_ARGUMENT, "there is no GPU {}: this machine shows {}, numbered from 0", number,
         count);
  }
  const int device = static_cast<int>(number);
  if (cudaGetDeviceProperties(properties, device) != cudaSuccess) {
    fail(DSV_ERROR_UNSUPPORTED, "GPU {} does not answer: see what nvidia-smi says, {}", device, kOrCpu);
  }
  if (properties->major < 8) {
    fail(DSV_ERROR_UNSUPPORTED,
         "GPU {} ({}) has compute capability {}.{} and the cuda backend needs 8.0 (Ampere) or newer: take "
         "another, {}",
         device, properties->name, properties->major, properties->minor, kOrCpu);
  }
  return device;
}

class CudaRuntime final : public Runtime {
 public:
  CudaRuntime(const char* text, int32_t priority) {
    cudaDeviceProp properties;
    device_ = find_device(text, &properties);
    description_ = fmt::format("{}, sm_{}{}", properties.name, properties.major, properties.minor);
    shared_limit_ = std::getenv("DSV_CUDA_PORTABLE")
                        ? kPortableShared
                        : static_cast<int64_t>(properties.sharedMemPerBlockOptin);
    try {
      check(cudaSetDevice(device_));
      int lowest = 0, highest = 0;  // a lower number goes first
      check(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
      priority = std::clamp<int>(priority, highest, lowest);
      for (cudaStream_t* stream : {&stream_, &side_}) {
        check(cudaStreamCreateWithPriority(stream, cudaStreamNonBlocking, priority));
      }
      check(cudaEventCreateWithFlags(&point_, cudaEventDisableTiming));
      check(cudaEventCreateWithFlags(&join_, cudaEventDisableTiming));
      for (int i = 0; i < kMarks; ++i) {
        const bool timed = i == kStepBegin || i == kStepEnd;
        check(cudaEventCreateWithFlags(&marks_[i], timed ? cudaEventDefault : cudaEventDisableTiming));
      }
    } catch (...) {
      release();
      throw;
    }
  }
  ~CudaRuntime() override { release(); }

  const char* description() const override { return description_.c_str(); }
  int64_t shared_limit() const override { return shared_limit_; }
  // The calling thread may have another device chosen: its own, or another model's.
  Stream stream() const override {
    cudaSetDevice(device_);
    return stream_;
  }

  void reserve(int64_t bytes) override {
    reserved_ = reserved_end_ = static_cast<unsigned char*>(take(bytes, "the model"));
    reserved_end_ += bytes;
    next_ = reserved_;
  }
  void* allocate(int64_t bytes, const char* what) override {
    if (reserved_end_ - next_ < aligned(bytes)) return take(bytes, what);
    next_ += aligned(bytes);
    return next_ - aligned(bytes);
  }
  void* allocate_pinned(int64_t bytes, const char* what) override {
    void* memory = nullptr;
    check(cudaSetDevice(device_));
    const cudaError_t error = cudaMallocHost(&memory, static_cast<size_t>(bytes));
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      fail(DSV_ERROR_OUT_OF_MEMORY,
           "there is no host memory that can be pinned for {} ({} bytes): raise the limit of "
           "locked memory, or close other programs",
           what, bytes);
    }
    check(error);
    return memory;
  }
  void free(void* device) noexcept override {
    const auto* const at = static_cast<unsigned char*>(device);
    if (at < reserved_ || at >= reserved_end_) cudaFree(device);
  }
  void free_pinned(void* host) noexcept override { cudaFreeHost(host); }

  void copy_in(void* device, const void* host, int64_t bytes) override {
    check_launches();
    check(cudaMemcpyAsync(device, host, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_));
  }
  void copy_out(void* host, const void* device, int64_t bytes) override {
    check_launches();
    check(cudaMemcpyAsync(host, device, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream_));
  }
  void mark(Mark which) override {
    check_launches();
    check(cudaEventRecord(marks_[which], stream_));
  }
  bool reached(Mark which) override {
    check(cudaSetDevice(device_));
    const cudaError_t error = cudaEventQuery(marks_[which]);
    if (error == cudaErrorNotReady) {
      cudaGetLastError();  // or the next check would take it for a launch's
      return false;
    }
    check(error);
    return true;
  }
  void wait(Mark which) override {
    check(cudaSetDevice(device_));
    check(cudaEventSynchronize(marks_[which]));
  }
  void rest(double seconds) override { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }
  double seconds_of_step() override {
    float milliseconds = 0;
    check(cudaSetDevice(device_));
    check(cudaEventElapsedTime(&milliseconds, marks_[kStepBegin], marks_[kStepEnd]));
    return milliseconds * 1e-3;
  }
  void synchronize() override {
    check_launches();
    check(cudaStreamSynchronize(stream_));
  }
  void stamp(int i) override {
    check_launches();
    while (stamps_.size() <= static_cast<size_t>(i)) {
      stamps_.push_back(nullptr);
      check(cudaEventCreate(&stamps_.back()));
    }
    check(cudaEventRecord(stamps_[static_cast<size_t>(i)], stream_));
  }
  double between(int from, int to) override {
    float milliseconds = 0;
    check(cudaSetDevice(device_));
    check(cudaEventElapsedTime(&milliseconds, stamps_[static_cast<size_t>(from)],
                               stamps_[static_cast<size_t>(to)]));
    return milliseconds * 1e-3;
  }

  // Relaxed: the host may go on with its recording on another thread, and other threads with their own work.
  void begin_recording() override {
    check_launches();
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed));
  }
  Graph end_recording() override {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    check_launches();
    if (exchanged_) {  // it ends where it has begun
      check(cudaEventRecord(join_, stream_));
      exchange();
      check(cudaStreamWaitEvent(stream_, join_, 0));
    }
    check(cudaStreamEndCapture(stream_, &graph));
    const cudaError_t error = cudaGraphInstantiate(&exec, graph, 0);
    cudaGraphDestroy(graph);
    check(error);
    const cudaError_t uploaded = cudaGraphUpload(exec, stream_);  // the first run would do it
    if (uploaded != cudaSuccess) cudaGraphExecDestroy(exec);
    check(uploaded);
    return exec;
  }
  void drop_recording() noexcept override {
    cudaGraph_t graph = nullptr;
    cudaSetDevice(device_);
    if (exchanged_) exchange();
    if (cudaStreamEndCapture(stream_, &graph) == cudaSuccess && graph) cudaGraphDestroy(graph);
    cudaGetLastError();
  }
  // A recorded event is a point of the graph, so one serves again and again.
  Stream side() const override { return side_; }
  void point() override {
    check_launches();
    check(cudaEventRecord(point_, stream_));
  }
  void follow() override { check(cudaStreamWaitEvent(side_, point_, 0)); }
  void join() override {
    check_launches();
    check(cudaEventRecord(join_, side_));
    check(cudaStreamWaitEvent(stream_, join_, 0));
  }
  void exchange() override {
    std::swap(stream_, side_);
    exchanged_ = !exchanged_;
  }
  void run(Graph graph) override {
    check_launches();
    check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), stream_));
  }
  void free_graph(Graph graph) noexcept override {
    cudaSetDevice(device_);
    cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph));
  }

  // Asking about a kernel loads it (CUDA Programming Guide, "Lazy Loading").
  void load(const void* kernel) override {
    cudaFuncAttributes attributes;
    check(cudaSetDevice(device_));
    check(cudaFuncGetAttributes(&attributes, kernel));
  }

 private:
  void* take(int64_t bytes, const char* what) {
    void* memory = nullptr;
    check(cudaSetDevice(device_));
    const cudaError_t error = cudaMalloc(&memory, static_cast<size_t>(bytes));
    if (error == cudaErrorMemoryAllocation) no_room(fmt::format("{} needs {}", what, bytes));
    check(error);
    return memory;
  }
  [[noreturn]] void no_room(const std::string& need) const {
    size_t free_bytes = 0, total = 0;
    cudaGetLastError();
    cudaMemGetInfo(&free_bytes, &total);
    fail(DSV_ERROR_OUT_OF_MEMORY,
         "GPU {} has {} of its {} bytes free, and {}: lower context_tokens, batch_rows or kv_budget_bytes, "
         "take "
         "a smaller model, {}",
         device_, free_bytes, total, need, kOrCpu);
  }
  // What launches since the last check have left.
  void check_launches() {
    check(cudaSetDevice(device_));
    check(cudaGetLastError());
  }
  void check(cudaError_t error) const {
    if (error == cudaSuccess) return;
    if (error == cudaErrorMemoryAllocation) no_room("its driver needs more for code and recorded steps");
    fail(DSV_ERROR_DEVICE_LOST,
         "GPU {} failed ({}: {}): what it held is lost; destroy the model and load it again, here or on the "
         "cpu "
         "backend, and give the sessions' tokens to new ones",
         device_, cudaGetErrorName(error), cudaGetErrorString(error));
  }
  void release() noexcept {
    if (reserved_) cudaFree(reserved_);
    for (cudaEvent_t mark : marks_) {
      if (mark) cudaEventDestroy(mark);
    }
    for (cudaEvent_t stamp : stamps_) {
      if (stamp) cudaEventDestroy(stamp);
    }
    for (cudaEvent_t event : {point_, join_}) {
      if (event) cudaEventDestroy(event);
    }
    if (side_) cudaStreamDestroy(side_);
    if (stream_) cudaStreamDestroy(stream_);
  }

  int device_ = 0;
  std::string description_;
  int64_t shared_limit_ = 0;
  cudaStream_t stream_ = nullptr, side_ = nullptr;
  bool exchanged_ = false;
  cudaEvent_t point_ = nullptr, join_ = nullptr;
  unsigned char *reserved_ = nullptr, *reserved_end_ = nullptr, *next_ = nullptr;
  cudaEvent_t marks_[kMarks] = {};
  std::vector<cudaEvent_t> stamps_;
};

}  // namespace

std::unique_ptr<Runtime> open_runtime(const char* device, int32_t priority) {
  return std::make_unique<CudaRuntime>(device, priority);
}

void check_device(const char* device) {
  cudaDeviceProp properties;
  find_device(device, &properties);
}

}  // namespace dsv::cuda
