// The indexer's scores on Hopper: wgmma with keys in registers and queries in shared memory, of e4m3 as it is
// stored, or of f16 with f32 sums.
//
// Bound: memory for one row (128K positions: 17 MB, 4.1 us at 4.1 TB/s), mma for many: a page of 64 keys
// times 64 heads is 128 cycles of a processor's tensor cores, 256 in f16 (2048 rows of 8K, causal: 240 GFLOP,
// 150 us at 1585 TFLOP/s). Beside it a warp issues some 97 instructions for each row and page, 64 of them an
// add and a multiply-add for each of a lane's 32 terms: three quarters of a scheduler's time, so that a
// product has to be on its way while another is summed. Shared memory: the B operand, 8 KB for 128 cycles,
// half of its bandwidth. L2: a page for each 24 rows (f16: 12).
//
// Precision: e4m3 is exact in f16, a product of two is exact in f32. The FP8 tensor core aligns a k32 step's
// terms and the sum so far to the largest exponent and drops what lies below its 13th binary place, where f32
// has 23 (coarse_sum in bench/index_check.cu, which gives its bits): the released model's own arithmetic (its
// indexer multiplies e4m3 on these tensor cores), and a small part of the error of rounding the factors to
// e4m3. A row's scores have the same bits in every tile with either. That would allow FP8 sums in the
// deterministic schedule, too; but they are coarser, and no other backend's scores are like them.
//
// Order of a score's sum, for every tile and split: the hardware's over K; a lane adds its two heads of each
// block of 8 in order; then lanes (0 + 2) + (1 + 3) of a quad.
#include "kernels/cuda/index_tensor.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace dsv::cuda {
namespace {

constexpr int kGroup = 128, kHeads = 64, kSwizzleBytes = 1024;  // threads of a warpgroup
// A block of B: 64 heads of 128 bytes of K. e4m3 has one a row, f16 two.
constexpr int kBlockBytes = kHeads * 128;
constexpr int query_bytes(bool fp8) { return fp8 ? kBlockBytes : 2 * kBlockBytes; }
constexpr int most_tile_rows(bool fp8) { return fp8 ? 24 : 12; }
constexpr int groups(bool) { return 3; }                       // warpgroups that share a tile's queries
constexpr int most_together(bool fp8) { return fp8 ? 8 : 4; }  // products in one piece of code
constexpr int padded_rows(int rows, int together) { return (rows + together - 1) / together * together; }
constexpr int kRowGroups = 4, kStages = 6;  // of a block of one row, and pages that a group has on their way
constexpr int64_t shared_bytes(bool fp8, int tile_rows) {
  return kSwizzleBytes + tile_rows * int64_t{query_bytes(fp8) + kHeads * 4 + 4};
}
// A block of one row: its queries and weights, then the groups' rings.
constexpr int64_t row_bytes(bool fp8) { return (shared_bytes(fp8, 1) + 127) / 128 * 128; }
constexpr int64_t row_shared_bytes(bool fp8) {
  return row_bytes(fp8) + kRowGroups * kStages * (kIndexPageBytes + 8);
}
static_assert(row_shared_bytes(false) <= 227 * 1024);
static_assert(shared_bytes(true, most_tile_rows(true)) <= 227 * 1024);
static_assert(shared_bytes(false, most_tile_rows(false)) <= 227 * 1024);

#ifdef DSV_HOPPER

// This lane's part of a page's keys: of keys 16 warp + 8 i + g, lane t of a quad has bytes 64 v + 16 t .. +
// 15. Zeros for those that no row sees. And the scale of the key whose score the lane writes.
struct Keys {
  uint4 bytes[2][2];
  float scale;
};
__device__ __forceinline__ Keys load_keys(const IndexScoresArgs& a, int64_t page, int32_t first,
                                          int32_t visible, int slot) {
  const int key = static_cast<int>(threadIdx.x) / kWarp % 4 * 16 + threadIdx.x % kWarp / 4;
  const unsigned char* at = a.cache.index + page * kIndexPageBytes + key * kIndexDim + threadIdx.x % 4 * 16;
  Keys keys;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int v = 0; v < 2; ++v) {
      keys.bytes[i][v] = first + key + 8 * i < visible
                             ? __ldg(reinterpret_cast<const uint4*>(at + i * 8 * kIndexDim + v * 64))
                             : uint4{0, 0, 0, 0};
    }
  }
  keys.scale = first + slot < visible ? index_scale(a, page, slot) : 0.0f;
  return keys;
}

// The same of a page in shared memory.
__device__ __forceinline__ Keys read_keys(uint32_t page, int slot) {
  const uint32_t key = threadIdx.x / kWarp % 4 * 16 + threadIdx.x % kWarp / 4;
  const uint32_t at = page + key * kIndexDim + threadIdx.x % 4 * 16;
  Keys keys;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int v = 0; v < 2; ++v) keys.bytes[i][v] = hopper::load_shared_16(at + i * 8 * kIndexDim + v * 64);
  }
  keys.scale = hopper::load_shared(page + kPageTokens * kIndexDim + 4 * static_cast<uint32_t>(slot));
  return keys;
}

// A fragments of a page: [steps of 32 bytes of K].
template <bool kFp8>
struct Fragments {
  static constexpr int kSteps = kFp8 ? 4 : 8;
  uint32_t at[kSteps][4];
};
// They are made before this and stay until then: while products are on their way, their registers are the
// tensor cores', of which the compiler does not know.
template <bool kFp8>
__device__ __forceinline__ void keep(Fragments<kFp8>& f) {
#pragma unroll
  for (auto& step : f.at) hopper::keep(step);
}
template <bool kFp8>
__device__ __forceinline__ void make_fragments(Fragments<kFp8>& f, const Keys& keys) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int v = 0; v < 2; ++v) {
      const uint4& raw = keys.bytes[half][v];
      const uint32_t word[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        if constexpr (kFp8) {
          f.at[2 * v + w / 2][w % 2 * 2 + half] = word[w];
        } else {
          e4m3x4_to_small_f16(word[w], f.at[4 * v + w][half], f.at[4 * v + w][2 + half]);
        }
      }
    }
  }
  keep(f);
}

// Puts words 16 v + 4 t .. + 3 of a head of a query where the fragments' K has them. A warp's stores of a
// word meet no bank twice (f16: twice).
template <bool kFp8>
__device__ __forceinline__ void put_query(unsigned char* query, unsigned head, unsigned v, unsigned t,
                                          const uint4& codes) {
  const uint32_t word[4] = {codes.x, codes.y, codes.z, codes.w};
  const auto put = [&](unsigned block, unsigned chunk, uint32_t value) {
    unsigned char* row = query + block * kBlockBytes + head * 128;
    *reinterpret_cast<uint32_t*>(row + (chunk ^ head % 8) * 16 + t * 4) = value;
  };
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    if constexpr (kFp8) {
      put(0, 4 * v + w, word[w]);
    } else {
      uint32_t even, odd;
      e4m3x4_to_small_f16(word[w], even, odd);
      put(v, 2 * w, even);
      put(v, 2 * w + 1, odd);
    }
  }
}

// Issues a page's product with a row's 64 heads. query: the lower half of a descriptor.
template <bool kFp8>
__device__ __forceinline__ void multiply(float (&product)[32], const Fragments<kFp8>& keys, uint32_t query) {
  constexpr uint64_t kUpper = uint64_t{hopper::kDescriptorHigh} << 32;
  hopper::wgmma_fence();
#pragma unroll
  for (int step = 0; step < Fragments<kFp8>::kSteps; ++step) {
    const uint64_t block = kUpper | (query + step / 4 * (kBlockBytes >> 4) + step % 4 * (32 >> 4));
    if constexpr (kFp8) {
      hopper::wgmma_e4m3(product, keys.at[step], block, step != 0);
    } else {
      hopper::wgmma_f16(product, keys.at[step], block, step != 0);
    }
  }
  hopper::wgmma_commit();
}

// A row's sum over heads for key 8 (t / 2) + g of the warp's 16. max(x, 0) = (x + |x|) / 2, the half being in
// the weights: an add is twice as fast as a maximum.
__device__ __forceinline__ float head_sum(const float (&product)[32], const float2* weight, int t) {
  float sum0 = 0, sum1 = 0;  // of this lane's 16 heads, for keys g and g + 8
#pragma unroll
  for (int b = 0; b < kHeads / 8; ++b) {
    const float2 w = weight[b * 4];
    const float* x = product + 4 * b;
    sum0 = fmaf(x[0] + fabsf(x[0]), w.x, sum0);
    sum0 = fmaf(x[1] + fabsf(x[1]), w.y, sum0);
    sum1 = fmaf(x[2] + fabsf(x[2]), w.x, sum1);
    sum1 = fmaf(x[3] + fabsf(x[3]), w.y, sum1);
  }
  const bool high = t & 2;
  const float mine = high ? sum1 : sum0, other = high ? sum0 : sum1;
  const float part = mine + __shfl_xor_sync(kAllLanes, other, 2);
  return part + __shfl_xor_sync(kAllLanes, part, 1);
}

// What a block has in shared memory of the rows of a run: queries [rows][query_bytes], swizzled; weights
// [rows][64]; visible [rows]. K is permuted, in a key and in a query alike, so that a lane's 16-byte loads
// are its A fragments: its word 16 v + 4 t + w goes to lane t of a quad, there to be half a step of e4m3 or a
// step of f16.
template <bool kFp8, int kBlock, int kAhead>
struct Queries {
  unsigned char* data;
  float* weights;
  int32_t* visible;
  uint32_t descriptor;

  __device__ __forceinline__ explicit Queries(int tile_rows) {
    // Swizzles count from multiples of 1024 bytes.
    const uint32_t base = hopper::shared_address(shared_memory());
    data = shared_memory() + (kSwizzleBytes - base % kSwizzleBytes) % kSwizzleBytes;
    weights = reinterpret_cast<float*>(data + tile_rows * query_bytes(kFp8));
    visible = reinterpret_cast<int32_t*>(weights + tile_rows * kHeads);
    descriptor = static_cast<uint32_t>(hopper::swizzled_descriptor(hopper::shared_address(data)));
  }
  __device__ __forceinline__ uint32_t row(int q) const { return descriptor + q * (query_bytes(kFp8) >> 4); }
  __device__ __forceinline__ const float2* weights_of(int q) const {
    return reinterpret_cast<const float2*>(weights + q * kHeads) + threadIdx.x % 4;
  }
  // 16-byte chunks of the rows' queries, kAhead of a thread at a time. Zeros behind the run's rows.
  static constexpr int kChunks = kHeads * 8;
  struct Batch {
    uint4 chunk[kAhead];
  };
  static __device__ __forceinline__ Batch fetch(const IndexScoresArgs& a, int32_t first, int32_t count,
                                                unsigned begin) {
    Batch batch;
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const unsigned i = begin + j * kBlock, q = i / kChunks, of_row = i % kChunks;
      const bool real = static_cast<int>(q) < count && static_cast<int>(of_row / 8) < a.heads;
      const unsigned char* row = a.index_q + int64_t{first + q} * a.q_stride;
      batch.chunk[j] = real ? __ldg(reinterpret_cast<const uint4*>(row) + of_row) : uint4{0, 0, 0, 0};
    }
    return batch;
  }
  __device__ __forceinline__ void put(const Batch& batch, unsigned room, unsigned begin) {
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const unsigned i = begin + j * kBlock, q = i / kChunks, of_row = i % kChunks;
      if (q < room) {
        put_query<kFp8>(data + q * query_bytes(kFp8), of_row / 8, of_row / 4 % 2, of_row % 4, batch.chunk[j]);
      }
    }
  }
  // `room` rows; those behind the run's are made up: zeros, of weight zero, and none is visible to them.
  __device__ __forceinline__ void load(const IndexScoresArgs& a, const IndexRun& run, int room) {
    __syncthreads();  // the last run's are done with
    for (unsigned begin = threadIdx.x; begin < static_cast<unsigned>(room * kChunks);
         begin += kAhead * kBlock) {
      put(fetch(a, run.first, run.count, begin), room, begin);
    }
    for (int j = threadIdx.x; j < room * kHeads; j += kBlock) {
      const int q = j / kHeads;
      weights[j] = q < run.count ? weight_of(a, run.first + q, j % kHeads) : 0;
    }
    for (int j = threadIdx.x; j < room; j += kBlock) {
      visible[j] = j < run.count ? a.step.position[run.first + j] + 1 : 0;
    }
    ready();
  }
  static __device__ __forceinline__ float weight_of(const IndexScoresArgs& a, int64_t row, int head) {
    return head_weight(a, row, head) * (kFp8 ? 0.5f : 0.5f * kDecoded);
  }
  static __device__ __forceinline__ void ready() {
    hopper::fence_for_wgmma();
    __syncthreads();
  }
};

// Whose score a lane writes, of a page.
__device__ __forceinline__ int slot_of_lane() {
  const int lane = threadIdx.x % kWarp;
  return static_cast<int>(threadIdx.x) / kWarp % 4 * 16 + lane % 4 / 2 * 8 + lane / 4;
}

// A group's ring of pages, which the copy engine fills; lane l of its first warp has the numbers of pages l,
// 32 + l, .. of the group, and has them copied.
struct Ring {
  uint32_t pages, full;  // [kStages] pages, and barriers

  __device__ __forceinline__ Ring(uint32_t base, int group)
      : pages(base + group * kStages * static_cast<uint32_t>(kIndexPageBytes)),
        full(base + kRowGroups * kStages * static_cast<uint32_t>(kIndexPageBytes) + group * kStages * 8) {}
  __device__ __forceinline__ uint32_t page(int stage) const {
    return pages + stage * static_cast<uint32_t>(kIndexPageBytes);
  }
  __device__ __forceinline__ void fill(const IndexScoresArgs& a, int64_t page_number, int stage) const {
    hopper::barrier_expect(full + 8 * stage, kIndexPageBytes);
    hopper::copy_bytes(page(stage), a.cache.index + page_number * kIndexPageBytes, kIndexPageBytes,
                       full + 8 * stage);
  }
};

// Row r against pages, of which all groups of all blocks have every so-many-th each. At the start, what does
// not depend on each other is fetched together.
template <bool kFp8>
__device__ __forceinline__ void score_row(const IndexScoresArgs& a, int32_t r) {
  constexpr int kBlock = kRowGroups * kGroup, kAhead = kHeads * 8 / kBlock;
  using Row = Queries<kFp8, kBlock, kAhead>;
  const int lane = threadIdx.x % kWarp, t = lane % 4, slot = slot_of_lane();
  const int group = static_cast<int>(threadIdx.x) / kGroup;
  const bool copies = threadIdx.x % kGroup < kWarp;
  const auto begin = static_cast<int32_t>(blockIdx.x * kRowGroups) + group;
  const auto stride = static_cast<int32_t>(gridDim.x * kRowGroups);
  const int32_t visible = a.step.position[r] + 1, sequence = a.step.sequence[r];
  const int32_t n = visible > a.topk ? (visible + kPageTokens - 1) / kPageTokens : 0;
  if (static_cast<int32_t>(blockIdx.x * kRowGroups) >= n) return;
  const typename Row::Batch query = Row::fetch(a, r, 1, threadIdx.x);
  const float weight = threadIdx.x < kHeads ? Row::weight_of(a, r, threadIdx.x) : 0;

  Row queries(1);
  const Ring ring(hopper::shared_address(shared_memory()) + row_bytes(kFp8), group);
  const int32_t* pages = a.step.page_table + int64_t{sequence} * a.step.page_stride;
  const auto page_of = [&](int32_t count) {  // this lane's of those from the group's count-th on
    const int64_t i = begin + int64_t{count + lane} * stride;
    return i < n ? pages[i] : 0;
  };
  int32_t page = 0, then = 0;
  if (copies) {
    page = page_of(0);
    if (lane < kStages) hopper::barrier_init(ring.full + 8 * lane, 1);
    hopper::fence_barriers();
    hopper::fence_for_wgmma();
    __syncwarp();
    if (lane < kStages && begin + lane * stride < n) ring.fill(a, page, lane);
    then = page_of(kWarp);
  }
  queries.put(query, 1, threadIdx.x);
  if (threadIdx.x < kHeads) queries.weights[threadIdx.x] = weight;
  Row::ready();

  float* scores = a.scores + r * a.score_stride;
  int stage = 0, parity = 0, next = kStages;  // the next page that is to be copied
  for (int32_t i = begin; i < n; i += stride, ++next) {
    hopper::barrier_wait(ring.full + 8 * stage, parity);
    const Keys keys = read_keys(ring.page(stage), slot);
    Fragments<kFp8> fragments;
    make_fragments(fragments, keys);
    float product[32];
    multiply(product, fragments, queries.row(0));
    hopper::wgmma_wait<0>(product);
    keep(fragments);
    // All have what they read of the page, not only asked for it: the engine does not queue behind that.
    hopper::named_barrier(1 + group, kGroup);
    if (copies) {
      if (next % kWarp == 0) {
        page = then;
        then = page_of(next + kWarp);
      }
      if (lane == next % kWarp && i + kStages * stride < n) ring.fill(a, page, stage);
    }
    const float score = head_sum(product, queries.weights_of(0), t) * keys.scale;
    const int32_t position = i * kPageTokens + slot;
    if (t % 2 == 0 && position < visible) scores[position] = score;
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
}

// The rows of a run, made up to a multiple of kTogether, against pages begin .. end - 1, of which a group of
// warps has every groups(kFp8)-th. While a product is summed, the next one of kTogether is on its way; the
// compiler keeps them so only where it sees all of them and what they are made of beforehand.
template <bool kFp8, int kTogether>
__device__ __forceinline__ void score_rows(const IndexScoresArgs& a, const IndexRun& run, int32_t begin,
                                           int32_t end, int room) {
  constexpr int kStride = groups(kFp8);
  const int t = threadIdx.x % 4, slot = slot_of_lane();
  const int32_t pages = (run.visible + kPageTokens - 1) / kPageTokens, n = end < pages ? end : pages;
  if (begin >= n) return;
  int32_t i = begin + static_cast<int32_t>(threadIdx.x) / kGroup;
  int32_t page = i < n ? run.pages[i] : 0;
  Keys keys = load_keys(a, page, i * kPageTokens, i < n ? run.visible : 0, slot);
  if (i + kStride < n) page = run.pages[i + kStride];
  const int rows = (run.count + kTogether - 1) / kTogether * kTogether;
  Queries<kFp8, kStride * kGroup, 4> queries(room);
  queries.load(a, run, rows);

  float* out = a.scores + int64_t{run.first + t % 2} * a.score_stride + slot;
  for (; i < n; i += kStride) {
    Fragments<kFp8> fragments;
    make_fragments(fragments, keys);
    const int32_t position = i * kPageTokens + slot;
    const float scale = keys.scale;
    if (i + kStride < n) {
      keys = load_keys(a, page, (i + kStride) * kPageTokens, run.visible, slot);
      if (i + 2 * kStride < n) page = run.pages[i + 2 * kStride];
    }
    float* to = out + i * kPageTokens;
    for (int q = 0; q < rows; q += kTogether) {
      float sums[2][32], first = 0;
      multiply(sums[0], fragments, queries.row(q));
#pragma unroll
      for (int j = 0; j < kTogether; ++j) {
        if (j + 1 < kTogether) {
          multiply(sums[(j + 1) % 2], fragments, queries.row(q + j + 1));
          hopper::wgmma_wait<1>(sums[j % 2]);
        } else {
          hopper::wgmma_wait<0>(sums[j % 2]);
          keep(fragments);
        }
        const float sum = head_sum(sums[j % 2], queries.weights_of(q + j), t);
        if (j % 2 == 0) {
          first = sum;
        } else {  // both lanes of a pair have both sums
          if (position < queries.visible[q + j - 1 + t % 2]) *to = (t % 2 ? sum : first) * scale;
          to += 2 * a.score_stride;
        }
      }
    }
  }
}
#endif

template <bool kFp8>
__global__ void __launch_bounds__(kRowGroups* kGroup, 1)
    scores_row_kernel([[maybe_unused]] IndexTileArgs tile) {
#ifdef DSV_HOPPER
  score_row<kFp8>(tile.scores, static_cast<int32_t>(blockIdx.y));
#endif
}

// Tiles of rows times units of pages, one for each group, are cut into two pieces a block, equal ones but for
// what rows do not see. A block has one from each end, as rows see more and more.
template <bool kFp8, int kTogether>
__global__ void __launch_bounds__(groups(kFp8) * kGroup, 1)
    scores_rows_kernel([[maybe_unused]] IndexTileArgs tile) {
#ifdef DSV_HOPPER
  const IndexScoresArgs& a = tile.scores;
  constexpr int kUnit = groups(kFp8);
  const int64_t units = ((a.longest + kPageTokens - 1) / kPageTokens + kUnit - 1) / kUnit;
  const int64_t all = (a.rows + tile.tile_rows - 1) / tile.tile_rows * units, pieces = 2 * gridDim.x;
  for (int half = 0; half < 2; ++half) {
    const int64_t piece = half == 0 ? blockIdx.x : pieces - 1 - blockIdx.x, end = (piece + 1) * all / pieces;
    for (int64_t at = piece * all / pieces; at < end;) {
      const auto first_row = static_cast<int32_t>(at / units) * tile.tile_rows;
      const int32_t end_row = first_row + tile.tile_rows < a.rows ? first_row + tile.tile_rows : a.rows;
      const int64_t unit = at % units, last = unit + end - at < units ? unit + end - at : units;
      for (int32_t first = first_row; first < end_row;) {
        const IndexRun run = index_run(a, first, end_row);
        score_rows<kFp8, kTogether>(a, run, static_cast<int32_t>(unit) * kUnit,
                                    static_cast<int32_t>(last) * kUnit,
                                    padded_rows(tile.tile_rows, kTogether));
        first += run.count;
      }
      at += last - unit;
    }
  }
#endif
}

}  // namespace

void launch_index_scores_wgmma(const IndexScoresArgs& a, Stream stream) {
  const bool fp8 = a.path == IndexPath::fp8_sums;
  const int64_t pages = (a.longest + kPageTokens - 1) / kPageTokens;
  if (a.rows_together == 1 || a.rows == 1) {
    launch(fp8 ? scores_row_kernel<true> : scores_row_kernel<false>,
           {index_splits(a.rows, (pages + kRowGroups - 1) / kRowGroups, 1), a.rows}, kRowGroups * kGroup,
           row_shared_bytes(fp8), stream, IndexTileArgs{a, 1});
    return;
  }
  int32_t most = a.rows_together < a.rows ? a.rows_together : a.rows;
  if (most > most_tile_rows(fp8)) most = most_tile_rows(fp8);
  const int together = most < most_together(fp8) ? 2 : most_together(fp8);
  // Tiles of as many rows as there can be are best, but for what the last one makes up.
  int32_t rows = most;
  const auto cost = [&](int64_t per) { return (a.rows + per - 1) / per * (per + 1); };
  for (int32_t fewer = most / together * together; fewer > 0 && 2 * fewer >= most; fewer -= together) {
    if (cost(fewer) < cost(rows)) rows = fewer;
  }
  const auto kernel =
      fp8 ? together == 2 ? scores_rows_kernel<true, 2> : scores_rows_kernel<true, most_together(true)>
      : together == 2 ? scores_rows_kernel<false, 2>
                      : scores_rows_kernel<false, most_together(false)>;
  const int64_t units = (a.rows + rows - 1) / rows * ((pages + groups(fp8) - 1) / groups(fp8));
  launch(kernel, {units < processors() ? units : processors()}, groups(fp8) * kGroup,
         shared_bytes(fp8, padded_rows(rows, together)), stream, IndexTileArgs{a, rows});
}

}  // namespace dsv::cuda
