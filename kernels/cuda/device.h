// The CUDA backend's device: what lies in the GPU's memory, and how bytes go up and down.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "backend/ops.h"
#include "kernels/cuda/attend.h"
#include "kernels/cuda/cache.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/runtime.h"

namespace dsv::cuda {

// Most rows of a step that has work side by side.
inline constexpr int32_t kSideRows = kFewRows;

struct CudaWeight {
  WeightView view;
  const float* vector = nullptr;  // rows == 1: the values as f32 [cols]
  float largest = 0;              // of their magnitudes
};

// Ops work on at most `rows` rows at a time, so that scratch is bounded whatever the batch; attention, whose
// rows take most, on at most `attend`, `coded` if what it gives are codes, or `split` if their positions are
// split, and selection on at most `select` of the longest. No row's result depends on these.
struct TileRows {
  int32_t rows = 0, attend = 0, coded = 0, split = 0, select = 0;
};

// Kinds of weights: what forms of input they want.
struct FfnKinds {
  bool fp8 = false, bf16 = false, rest = false;
  void add(Dtype dtype) { (dtype == Dtype::f8_e4m3 ? fp8 : dtype == Dtype::bf16 ? bf16 : rest) = true; }
  bool tensor() const { return !rest && fp8 != bf16; }  // the tensor cores take all in one launch
  Dtype dtype() const { return fp8 ? Dtype::f8_e4m3 : Dtype::bf16; }
};

// How a weight wants its input: as codes for the tensor cores, or as f32 for the plain kernels.
struct InputForm {
  Rounding rounding = Rounding::none;
  bool codes = false;
  PackedForm layout = PackedForm::by_row;
  bool operator==(const InputForm&) const = default;
};

// Bytes of the codes in an official row of index queries; its scales come behind them.
inline int64_t index_query_codes(const Geometry& g) { return (row_values(g, Act::index_q) + 3) / 4 * 4; }

// Where a step's inputs lie in the one block that holds them, in int32.
struct StepInputs {
  StepInputs(const DeviceOptions& options, int64_t page_stride);
  int64_t token = 0, position, sequence, next_token, logit_row, sample, page_table, count;
};

// Everything that open() allocates, in bytes.
struct Layout {
  explicit Layout(const DeviceOptions& options);
  int64_t bytes() const;  // of the GPU's memory

  TileRows tile;
  int32_t page_stride = 0;  // pages of the longest sequence
  int32_t attend_splits = 0;
  int64_t act[static_cast<int>(Act::count)] = {};
  int64_t act_row[static_cast<int>(Act::count)] = {};  // bytes of a row
  int64_t inputs = 0;                                  // StepInputs, pinned as well
  int64_t inv_freq = 0, angles = 0;
  int64_t packed = 0;                // [tile.rows, the widest input of a linear], once for each rounding
  int64_t wide = 0;                  // [tile.rows, widest of: index_q, 2 D, splits of the router's experts]
  int64_t allowed = 0;               // [V] bits
  int64_t biases = 0, unbiased = 0;  // [V] TokenBias, pinned as well; [V] f32
  int64_t scores = 0;                // of selection; then what attention makes of a sequence
  int64_t q_abs = 0, mixed = 0, mixed_codes = 0, partial = 0;
  int64_t top_k = 0;
  int64_t pair_row = 0, pair_of = 0, tiles = 0, n_tiles = 0, arrived = 0;
  int64_t inner = 0;                        // [pairs, I]
  int64_t inner_packed = 0;                 // [pairs, padded(I)], once for each rounding
  int64_t outer = 0;                        // [pairs, D]
  int64_t shared = 0;                       // [tile.rows, D]
  int64_t side_inner = 0, side_packed = 0;  // as inner and inner_packed, [kSideRows, shared experts' I]
  int64_t ffn_views = 0;                    // experts, shared experts and dense FFNs of the model
  int64_t ffn_tables = 0;                   // FfnView of each
  int64_t kv = 0;                           // the pool; not scratch
};

struct CudaDevice {
  Geometry geometry;
  DeviceOptions options;  // geometry points at the above
  KvLayout kv;
  std::unique_ptr<Runtime> runtime;
  TileRows tile;
  Layout layout;
  bool wgmma = false;  // linears of many rows run on Hopper's own instructions

  unsigned char* act[static_cast<int>(Act::count)] = {};
  unsigned char* mixed_codes = nullptr;
  unsigned char* kv_pool = nullptr;  // [layers] of { latent [kv_pages][64][row], index [kv_pages][page] }
  int32_t *token = nullptr, *position = nullptr, *sequence = nullptr, *page_table = nullptr;
  int32_t *next_token = nullptr, *logit_row = nullptr;
  SampleRow* sample_rows = nullptr;  // these seven lie in `inputs`
  int32_t *inputs = nullptr, *pinned_inputs = nullptr;
  double* inv_freq = nullptr;
  float *cos = nullptr, *sin = nullptr;
  float* packed[2] = {};  // for FP8 weights, for others
  // The rows that a norm, or W_v, has just written, and the codes of them that it has put into `packed`
  // itself: those that were wanted of such rows before.
  enum class Normed { h, q_latent, heads };
  struct NormedRows {
    Normed kind;
    const float* x = nullptr;
    int32_t rows = 0;
    InputForm form;           // without codes: none
    bool only_codes = false;  // x has not been written
    bool holds(const float* at, int64_t n) const { return x && at >= x && at < x + rows * n; }
  };
  mutable NormedRows normed[2];
  mutable bool wanted[3][2] = {};           // of a kind, for a kind of weights
  mutable bool values_wanted = false;       // somebody reads h in neither
  int32_t coded_norm_rows = kNormManyRows;  // of h that may be codes only, at least (tests lower it)
  // The rows of Act::delta that an op has left in bf16, as packed_rows has it, from where their f32 would
  // begin: for the norm that adds all of them. Whoever else reads or writes some restores f32
  // (restore_delta).
  struct Bf16Delta {
    float* at = nullptr;
    int32_t rows = 0;
  };
  mutable Bf16Delta bf16_delta;
  int32_t bf16_delta_rows = kNormManyRows;  // at least (tests lower it)
  float* wide = nullptr;
  uint32_t* allowed = nullptr;
  int32_t first_allowed = -1;
  TokenBias *biases = nullptr, *pinned_biases = nullptr;
  float* unbiased = nullptr;
  int32_t* pinned_tokens = nullptr;  // [logit_rows] of the step's Act::token
  float *scores = nullptr, *mixed = nullptr, *partial = nullptr;
  void* q_abs = nullptr;
  int32_t *pair_row = nullptr, *pair_of = nullptr, *n_tiles = nullptr;
  unsigned char* top_k_scratch = nullptr;
  unsigned* arrived = nullptr;
  ExpertTile* tiles = nullptr;
  // The rows whose pairs the routing has sorted, too.
  struct Grouped {
    const int32_t* expert = nullptr;
    int32_t rows = 0, tile_rows = 0;
    bool operator==(const Grouped&) const = default;
  } grouped;
  float *inner = nullptr, *inner_packed[2] = {}, *outer = nullptr, *shared = nullptr;
  float *side_inner = nullptr, *side_packed[2] = {};  // of few rows of the shared expert, beside the others
  FfnView* ffn_tables = nullptr;

  // Views of the FFNs that have been used, in the order of ffn_tables. `key`: an FfnWeights or MoeWeights.
  struct FfnTable {
    const void* key;
    const FfnView* views;
    // Kinds of weights among gate and up, and among down.
    FfnKinds in, down;
  };
  std::vector<FfnTable> ffn_table_index;
  int64_t ffn_views = 0;

  // The running step, and the graphs of those of its kind: all that its launches depend on.
  struct StepKind {
    int32_t rows = 0, logit_rows = 0, longest = 0;
    bool draft = false, sample = false;
    bool operator==(const StepKind&) const = default;
  };
  struct Recorded {
    StepKind step;
    Graph graph;
    int64_t last_used;
  };
  std::vector<int32_t> host_position;  // [batch_rows]
  std::vector<int32_t> host_sequence;  // [batch_rows], as on the device: one number for each run of rows
  StepKind step_kind;
  using Clock = std::chrono::steady_clock;
  Clock::time_point step_enqueued;  // when the host had handed over all of it
  int32_t rows_together = 1;        // rows of a sequence in the step, on average
  int32_t page_stride = 0;          // of the step's table of pages: as long as its rows need
  int32_t recorded_longest = 0;     // positions that the launches of a recorded step allow for; else 0
  // For attention: rows that a sequence needs to have its latents expanded (tests lower it), and how often
  // that was done.
  int32_t expanding_rows = kLeastExpandingRows;
  int64_t expanded_runs = 0;
  int32_t heads_rows = kLeastHeadsRows;  // the same of attention by heads
  int64_t heads_runs = 0;
  int32_t coding_rows = kHeadsLeastRows;  // rows of an op of which W_v may write codes only; tests lower it
  bool recording = false;
  Graph graph = nullptr;  // of the step, once there is one
  bool met[2] = {};       // whether a pass without and with the MTP layer has been enqueued
  static constexpr size_t kMostGraphs = 64, kMostSeen = 256;
  std::vector<Recorded> recorded;
  std::vector<StepKind> seen;  // begun once
  int64_t steps = 0;

  // Steps that only make ready for later ones: kernels are loaded, or a graph is made.
  struct Preparation {
    StepKind step;
    int32_t together;  // rows of a sequence
    bool first_layer, record;
  };
  std::vector<Preparation> preparations;
  bool preparing = false;
  std::vector<const void*> kernels;  // that preparations have met, the first loaded_kernels on the device
  size_t loaded_kernels = 0;

  unsigned char* staging[2] = {};  // pinned
  int next_staging = 0;
  std::vector<void*> allocations, pinned;
  std::vector<std::unique_ptr<CudaWeight>> weights;

  explicit CudaDevice(const DeviceOptions& o);
  ~CudaDevice() { release(); }
  CudaDevice(const CudaDevice&) = delete;

  bool official() const { return options.precision == Precision::official; }
  // Whether many rows may go to kernels that add in another order than those for few: Hopper's FP8 tensor
  // cores.
  bool fast() const { return options.fast; }
  // Whether Act::q is in bf16, as AbsorbArgs says: what the released model's own code has. All kernels that
  // have to do with it on Hopper know both forms.
  bool bf16_queries() const {
    return fast() && wgmma && attend_mma(official(), geometry.kv_lora_rank, geometry.qk_rope_head_dim) &&
           geometry.qk_nope_head_dim == 128;
  }
  Stream stream() const { return runtime->stream(); }

  // Rows of an activation buffer.
  float* row_of(Act kind, Buffer buffer, int64_t r) const {
    return reinterpret_cast<float*>(static_cast<unsigned char*>(buffer) +
                                    r * layout.act_row[static_cast<int>(kind)]);
  }
  const float* row_of(Act kind, const void* buffer, int64_t r) const {
    return row_of(kind, const_cast<void*>(buffer), r);
  }
  int32_t* integers(Act kind, Buffer buffer, int64_t r) const {
    return reinterpret_cast<int32_t*>(row_of(kind, buffer, r));
  }
  const int32_t* integers(Act kind, const void* buffer, int64_t r) const {
    return integers(kind, const_cast<void*>(buffer), r);
  }
  StepView step(int32_t first) const;  // of rows from `first` on
  // Positions that the row with most of these rows sees, or more: launches depend on no other of the batch's
  // values.
  int32_t longest(int32_t first, int32_t count) const;
  // While a step is recorded: work on side(), beside stream(). What comes there after point() and follow()
  // follows what stream() had at the point; join() lets stream() wait for it, and says whether there was any.
  // Where nothing is recorded, side() is stream().
  void point();
  void follow();
  bool join();
  // stream() and side() take each other's place, until the recording ends. What side() gets before the next
  // join() follows itself only.
  void exchange();
  bool follows = false, exchanged = false;
  Stream side() const { return follows ? runtime->side() : runtime->stream(); }
  // The index queries of a recorded step, which come after its cache rows.
  IndexQueryArgs index_queries = {};
  void drop_graphs() noexcept;  // after the stream has come past them
  CacheView cache(int32_t layer) const;

  // Host memory to the device, enqueued; `host` may change when this returns.
  void upload(void* device, const void* host, int64_t bytes);
  // Device memory to the host, done when this returns.
  void download(void* host, const void* device, int64_t bytes);

 private:
  void release() noexcept;
};

// Bytes that stream into one block of device memory by way of the two pinned chunks.
class Upload {
 public:
  static constexpr int64_t kChunk = int64_t{4} << 20;

  Upload(CudaDevice& device, void* destination)
      : device_(device), destination_(static_cast<unsigned char*>(destination)) {}
  void put(const void* bytes, int64_t size);
  void zeros(int64_t size);
  void finish();  // enqueues what is left

 private:
  unsigned char* room(int64_t* size);  // where the next *size bytes at most go

  CudaDevice& device_;
  unsigned char* destination_;
  int chunk_ = -1;
  int64_t used_ = 0;
};

inline CudaDevice& cuda_device(Device* device) { return *reinterpret_cast<CudaDevice*>(device); }
inline const CudaDevice& cuda_device(const Device* device) {
  return *reinterpret_cast<const CudaDevice*>(device);
}
inline const CudaWeight& cuda_weight(const Weight* weight) {
  return *reinterpret_cast<const CudaWeight*>(weight);
}

// Calls body(first, count) for the tiles of a range of rows: as few as there can be, of about the same
// length.
template <class F>
void for_tiles(RowRange rows, int32_t tile, F&& body) {
  if (rows.count == 0) return;
  const int32_t tiles = (rows.count + tile - 1) / tile, each = (rows.count + tiles - 1) / tiles;
  for (int32_t done = 0; done < rows.count; done += each) {
    body(rows.first + done, rows.count - done < each ? rows.count - done : each);
  }
}

// The table's entries that are not in device.cpp.
int64_t plan_weight_copy(const DeviceOptions&, const HostMatrix&);
const Weight* load_weight(Device*, const HostMatrix&);
void store(Device*, Act kind, Buffer, RowRange, const float* values);
void fetch(Device*, Act kind, const void* buffer, RowRange, float* values);
void read_kv(Device*, int32_t layer, int32_t page, void* out);
void write_kv(Device*, int32_t layer, int32_t page, const void* in);
StepPlan begin_step(Device*, const StepArgs&);
bool prepare(Device*, int32_t i, PassKind*);
int64_t prepared_graphs(const DeviceOptions&);  // that it makes
void end_step(Device*, bool complete);
bool wait(Device*, double seconds, double* took);
int32_t token(Device*, int32_t i);
void stamp(Device*, int32_t i);
double between(Device*, int32_t from, int32_t to);
void embed(Device*, const EmbedArgs&);
void add_norm(Device*, const AddNormArgs&);
void attn_in(Device*, const AttnInArgs&);
void attn_q(Device*, const AttnQArgs&);
void cache_append(Device*, const CacheAppendArgs&);
void index_select(Device*, const IndexSelectArgs&);
void attend(Device*, const AttendArgs&);
void attn_out(Device*, const AttnOutArgs&);
void route(Device*, const RouteArgs&);
void experts(Device*, const ExpertsArgs&);
void ffn(Device*, const FfnArgs&);
void mtp_in(Device*, const MtpInArgs&);
void logits(Device*, const LogitsArgs&);
void sample(Device*, const SampleArgs&);

}  // namespace dsv::cuda

namespace dsv {

const OpTable& cuda_ops();

}  // namespace dsv
