// What the indexer's scores on Hopper are made of, of a prompt's rows (index_wgmma.cu) and of rows with pages
// of their own (index_pages.cu): keys as A fragments in registers, queries as B in shared memory, the sum
// over heads.
#pragma once

#include "kernels/cuda/index_tensor.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace dsv::cuda {
namespace {

constexpr int kGroup = 128, kHeads = 64, kSwizzleBytes = 1024;  // threads of a warpgroup
// A block of B: 64 heads of 128 bytes of K. e4m3 has one a row, f16 two.
constexpr int kBlockBytes = kHeads * 128;
constexpr int query_bytes(bool fp8) { return fp8 ? kBlockBytes : 2 * kBlockBytes; }
constexpr int64_t shared_bytes(bool fp8, int tile_rows) {
  return kSwizzleBytes + tile_rows * int64_t{query_bytes(fp8) + kHeads * 4 + 4};
}

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

// Issues a page's product with a row's 64 heads, or with those of two. query: the lower half of a descriptor.
template <bool kFp8, int kCount>
__device__ __forceinline__ void multiply(float (&product)[kCount], const Fragments<kFp8>& keys,
                                         uint32_t query) {
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

// A lane's of a row.
struct Weights {
  float4 of[kHeads / 16];
};

// A row's sum over heads for key 8 (t / 2) + g of the warp's 16. max(x, 0) = (x + |x|) / 2, the half being in
// the weights: an add is twice as fast as a maximum.
__device__ __forceinline__ float head_sum(const float* product, const Weights& weights, int t) {
  float sum0 = 0, sum1 = 0;  // of this lane's 16 heads, for keys g and g + 8
#pragma unroll
  for (int b = 0; b < kHeads / 16; ++b) {
    const float4 w = weights.of[b];
    const float* x = product + 8 * b;
    sum0 = fmaf(x[0] + fabsf(x[0]), w.x, sum0);
    sum0 = fmaf(x[1] + fabsf(x[1]), w.y, sum0);
    sum1 = fmaf(x[2] + fabsf(x[2]), w.x, sum1);
    sum1 = fmaf(x[3] + fabsf(x[3]), w.y, sum1);
    sum0 = fmaf(x[4] + fabsf(x[4]), w.z, sum0);
    sum0 = fmaf(x[5] + fabsf(x[5]), w.w, sum0);
    sum1 = fmaf(x[6] + fabsf(x[6]), w.z, sum1);
    sum1 = fmaf(x[7] + fabsf(x[7]), w.w, sum1);
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
    // From a lane, so that the compiler sees that it is the same for a warp.
    descriptor = __shfl_sync(
        kAllLanes, static_cast<uint32_t>(hopper::swizzled_descriptor(hopper::shared_address(data))), 0);
  }
  __device__ __forceinline__ uint32_t row(int q) const { return descriptor + q * (query_bytes(kFp8) >> 4); }
  __device__ __forceinline__ Weights weights_of(int q) const {
    const auto* from = reinterpret_cast<const float4*>(weights + q * kHeads) + threadIdx.x % 4;
    Weights lane;
#pragma unroll
    for (int b = 0; b < kHeads / 16; ++b) lane.of[b] = from[4 * b];
    return lane;
  }
  // Where a head's weight is: lane t of a quad has heads 8 b + 2 t and + 1 of blocks b and b + 1 together.
  static __device__ __forceinline__ int weight_at(int head) {
    return head / 16 * 16 + head % 8 / 2 * 4 + head / 8 % 2 * 2 + head % 2;
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
      weights[q * kHeads + weight_at(j % kHeads)] =
          q < run.count ? weight_of(a, run.first + q, j % kHeads) : 0;
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

__device__ __forceinline__ int32_t pages_of(int32_t visible) {
  return (visible + kPageTokens - 1) / kPageTokens;
}
// The run that begins with a row, in its tile: `tile` rows from a multiple of that on.
__device__ __forceinline__ IndexRun run_at(const IndexScoresArgs& a, int32_t row, int32_t tile) {
  const int32_t end = (row / tile + 1) * tile;
  return index_run(a, row, end < a.rows ? end : a.rows);
}
// Pages of the runs of rows first .. end - 1.
__device__ __forceinline__ int32_t pages_of_runs(const IndexScoresArgs& a, int32_t first, int32_t end) {
  int32_t pages = 0, visible = 0, last = a.step.sequence[first];
#pragma unroll 8
  for (int32_t row = first; row < end; ++row) {  // loads that do not wait for each other
    const int32_t sequence = a.step.sequence[row], sees = a.step.position[row] + 1;
    if (sequence != last) pages += pages_of(visible), visible = 0;
    last = sequence;
    if (sees > a.topk && sees > visible) visible = sees;
  }
  return pages + pages_of(visible);
}

// A block's piece of the pages of all tiles' runs, which are one sequence: from page `page` of the run of row
// `row` on. The pieces of all blocks are equal, whatever rows see.
struct Piece {
  int32_t row, page, count;
};
// shared: kThreads / kWarp + 2 words.
template <int kThreads>
__device__ __forceinline__ Piece piece_of_block(const IndexScoresArgs& a, int32_t tile, int32_t* shared) {
  constexpr int kWarps = kThreads / kWarp;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  // A warp counts for itself what is few, else a thread has some of the tiles.
  const int32_t tiles = (a.rows + tile - 1) / tile;
  const bool few = tiles <= kWarp;
  const int32_t each = few ? tile : (tiles + kThreads - 1) / kThreads * tile;
  const int32_t first = (few ? lane : static_cast<int32_t>(threadIdx.x)) * each;
  const int32_t end = first + each < a.rows ? first + each : a.rows;
  const int32_t mine = first < end ? pages_of_runs(a, first, end) : 0;
  int32_t all = mine;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const int32_t lower = __shfl_up_sync(kAllLanes, all, step);
    if (lane >= step) all += lower;
  }
  int32_t before = all - mine;
  int64_t total = __shfl_sync(kAllLanes, all, kWarp - 1);
  if (!few) {
    if (lane == kWarp - 1) shared[warp] = all;
    __syncthreads();
    const int32_t of_warp = lane < kWarps ? shared[lane] : 0;
    before += __reduce_add_sync(kAllLanes, lane < warp ? of_warp : 0);
    total = __reduce_add_sync(kAllLanes, of_warp);
  }
  const auto begin = static_cast<int32_t>(blockIdx.x * total / gridDim.x);
  Piece piece = {0, 0, static_cast<int32_t>((blockIdx.x + 1) * total / gridDim.x) - begin};
  if (piece.count == 0) return piece;
  const bool has = before <= begin && begin < before + mine;
  if (few) {
    const int holder = __ffs(static_cast<int>(__ballot_sync(kAllLanes, has))) - 1;
    piece.row = holder * tile;
    piece.page = begin - __shfl_sync(kAllLanes, before, holder);
  } else {
    if (has) shared[kWarps] = first, shared[kWarps + 1] = begin - before;
    __syncthreads();
    piece.row = shared[kWarps];
    piece.page = shared[kWarps + 1];
  }
  for (;;) {
    const IndexRun run = run_at(a, piece.row, tile);
    if (piece.page < pages_of(run.visible)) return piece;
    piece.page -= pages_of(run.visible);
    piece.row += run.count;
  }
}
// Calls body(run, its first page, how many) for what a piece has of each run.
template <class Body>
__device__ __forceinline__ void for_runs(const IndexScoresArgs& a, int32_t tile, const Piece& piece,
                                         Body&& body) {
  int32_t left = piece.count, first = piece.page;
  for (int32_t row = piece.row; left > 0;) {
    const IndexRun run = run_at(a, row, tile);
    row += run.count;
    const int32_t there = pages_of(run.visible) - first, n = there < left ? there : left;
    if (n > 0) body(run, first, n);
    left -= n;
    first = 0;
  }
}
#endif

}  // namespace
}  // namespace dsv::cuda
