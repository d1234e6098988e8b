// The indexer's scores on Hopper of rows that share their pages with none or with one: decode. wgmma as in
// index_wgmma.cuh, of e4m3 as it is stored, or of f16 with f32 sums.
//
// Bound: memory. A page is 8448 bytes, and 256 are written for each row: at 4.1 TB/s each of 132 processors
// gets one in 480 cycles of 1.78 GHz. A product and its sum over heads take 195 of them (index_wgmma.cu; f16:
// 310), to bring it to registers 130 of shared memory's if lanes meet on banks. 32 rows of 32K take 34 us, 64
// of 64K 138, 128 sequences of two rows of 32K 142. Measured: 47, 149 and 176 in FP8, an empty launch
// being 3. A group has three pages under way: with six the same takes 3 to 5% longer, as the L1 cache has
// less.
#include "kernels/cuda/index_wgmma.cuh"

namespace dsv::cuda {
namespace {

constexpr int kGroups = 4, kStages = 3;  // of a block, and pages that a group has on their way
constexpr int kWorkers = kGroups * kGroup, kSlots = kGroups * kStages;
constexpr int kPairRows = 2;
constexpr int kPairThreads = kWorkers + kGroup;  // of which a warp has the pages copied
// A block's rows: their queries and weights, then pages, then barriers, then its piece.
constexpr int64_t row_bytes(bool fp8, int rows) { return (shared_bytes(fp8, rows) + 127) / 128 * 128; }
constexpr int64_t pages_bytes(bool fp8, int rows) {
  return row_bytes(fp8, rows) + kSlots * (kIndexPageBytes + 16);
}
constexpr int64_t kPieceBytes = 4 * (kPairThreads / kWarp + 2);

#ifdef DSV_HOPPER

// This lane's part of a page in shared memory. Of e4m3 neighbouring keys' lanes begin with different halves
// of them, so that they meet other banks; f16, which is converted beside it, gains nothing by that.
template <bool kFp8>
__device__ __forceinline__ Keys read_keys(uint32_t page, int slot) {
  const uint32_t key = threadIdx.x / kWarp % 4 * 16 + threadIdx.x % kWarp / 4;
  const uint32_t at = page + key * kIndexDim + threadIdx.x % 4 * 16;
  const bool swap = kFp8 && key % 2 != 0;
  Keys keys;
  keys.scale = hopper::load_shared(page + kPageTokens * kIndexDim + 4 * static_cast<uint32_t>(slot));
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t from = at + i * 8 * kIndexDim;
    const uint4 a = hopper::load_shared_16(from + (swap ? 64 : 0));
    const uint4 b = hopper::load_shared_16(from + (swap ? 0 : 64));
    keys.bytes[i][0] = {swap ? b.x : a.x, swap ? b.y : a.y, swap ? b.z : a.z, swap ? b.w : a.w};
    keys.bytes[i][1] = {swap ? a.x : b.x, swap ? a.y : b.y, swap ? a.z : b.z, swap ? a.w : b.w};
  }
  return keys;
}

__device__ __forceinline__ void bring_page(const IndexScoresArgs& a, int64_t number, uint32_t to,
                                           uint32_t full) {
  hopper::barrier_expect(full, kIndexPageBytes);
  hopper::copy_bytes(to, a.cache.index + number * kIndexPageBytes, kIndexPageBytes, full);
}

// ---- One row a block.

// A group's ring of pages, which the copy engine fills; lane l of its first warp has the numbers of pages l,
// 32 + l, .. of the group, and has them copied.
struct RowRing {
  uint32_t pages, full;  // [kStages] pages, and barriers

  __device__ __forceinline__ RowRing(uint32_t base, int group)
      : pages(base + group * kStages * static_cast<uint32_t>(kIndexPageBytes)),
        full(base + kGroups * kStages * static_cast<uint32_t>(kIndexPageBytes) + group * kStages * 8) {}
  __device__ __forceinline__ uint32_t page(int stage) const {
    return pages + stage * static_cast<uint32_t>(kIndexPageBytes);
  }
  __device__ __forceinline__ void fill(const IndexScoresArgs& a, int64_t page_number, int stage) const {
    bring_page(a, page_number, page(stage), full + 8 * stage);
  }
};

// Row r against pages, of which all groups of all blocks have every so-many-th each. At the start, what does
// not depend on each other is fetched together.
template <bool kFp8>
__device__ __forceinline__ void score_row(const IndexScoresArgs& a, int32_t r) {
  using Row = Queries<kFp8, kWorkers, kHeads * 8 / kWorkers>;
  const int lane = threadIdx.x % kWarp, t = lane % 4, slot = slot_of_lane();
  const int group = static_cast<int>(threadIdx.x) / kGroup;
  const bool copies = threadIdx.x % kGroup < kWarp;
  const auto begin = static_cast<int32_t>(blockIdx.x * kGroups) + group;
  const auto stride = static_cast<int32_t>(gridDim.x * kGroups);
  const int32_t visible = a.step.position[r] + 1, sequence = a.step.sequence[r];
  const int32_t n = visible > a.topk ? (visible + kPageTokens - 1) / kPageTokens : 0;
  if (static_cast<int32_t>(blockIdx.x * kGroups) >= n) return;
  const typename Row::Batch query = Row::fetch(a, r, 1, threadIdx.x);
  const float weight = threadIdx.x < kHeads ? Row::weight_of(a, r, threadIdx.x) : 0;

  Row queries(1);
  const RowRing ring(hopper::shared_address(shared_memory()) + row_bytes(kFp8, 1), group);
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
  if (threadIdx.x < kHeads) queries.weights[Row::weight_at(threadIdx.x)] = weight;
  Row::ready();

  float* scores = a.scores + r * a.score_stride;
  int stage = 0, parity = 0, next = kStages;  // the next page that is to be copied
  for (int32_t i = begin; i < n; i += stride, ++next) {
    hopper::barrier_wait(ring.full + 8 * stage, parity);
    const Keys keys = read_keys<kFp8>(ring.page(stage), slot);
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

// ---- Two rows of a sequence.

// Places of a block's pages, in the order in which they come; barriers that say that one is there, and that
// it is done with.
struct Ring {
  uint32_t pages, full, empty;
  int at, parity = 0;

  __device__ __forceinline__ Ring(uint32_t base, int first)
      : pages(base),
        full(base + kSlots * static_cast<uint32_t>(kIndexPageBytes)),
        empty(full + 8 * kSlots),
        at(first) {}
  __device__ __forceinline__ void go_on(int by) {
    at += by;
    if (at >= kSlots) at -= kSlots, parity ^= 1;
  }
  __device__ __forceinline__ uint32_t page() const {
    return pages + at * static_cast<uint32_t>(kIndexPageBytes);
  }
};

// A warp has the copy engine bring the piece's pages.
__device__ __forceinline__ void bring_pages(const IndexScoresArgs& a, const Piece& piece, Ring ring) {
  const int lane = threadIdx.x % kWarp;
  for_runs(a, kPairRows, piece, [&](const IndexRun& run, int32_t first, int32_t n) {
    const int32_t* const pages = run.pages + first;
    int32_t next = lane < n ? pages[lane] : 0;
    for (int32_t begin = 0; begin < n; begin += kWarp) {
      const int32_t numbers = next, count = n - begin < kWarp ? n - begin : kWarp;
      if (begin + kWarp + lane < n) next = pages[begin + kWarp + lane];
      for (int32_t j = 0; j < count; ++j) {
        const int64_t number = __shfl_sync(kAllLanes, numbers, j);
        hopper::barrier_wait(ring.empty + 8 * ring.at, ring.parity ^ 1);
        if (lane == 0) bring_page(a, number, ring.page(), ring.full + 8 * ring.at);
        ring.go_on(1);
      }
    }
  });
}

// Scores the pages of a piece: a group of warps has every kGroups-th.
template <bool kFp8>
__device__ __forceinline__ void score_piece(const IndexScoresArgs& a, const Piece& piece, Ring ring) {
  using Rows = Queries<kFp8, kWorkers, kPairRows>;
  const int tid = threadIdx.x, t = tid % 4, slot = slot_of_lane();
  Rows queries(kPairRows);
  int32_t skip = tid / kGroup;  // pages until this group's next
  for_runs(a, kPairRows, piece, [&](const IndexRun& run, int32_t first, int32_t n) {
    const int32_t rows = __shfl_sync(kAllLanes, run.count, 0);
    // All is asked for before the first of it is waited for.
    const int mine = tid / kHeads, head = tid % kHeads;
    const typename Rows::Batch batch = Rows::fetch(a, run.first, rows, tid);
    const float weight = mine < rows ? Rows::weight_of(a, run.first + mine, head) : 0;
    const int32_t visible = mine < rows ? a.step.position[run.first + mine] + 1 : 0;
    hopper::named_barrier(1, kWorkers);  // the last run's are done with
    queries.put(batch, rows, tid);
    if (mine < rows) {
      queries.weights[mine * kHeads + Rows::weight_at(head)] = weight;
      if (head == 0) queries.visible[mine] = visible;
    }
    hopper::fence_for_wgmma();
    hopper::named_barrier(1, kWorkers);

    Weights held[kPairRows];  // of FP8, which has the registers
    if constexpr (kFp8) {
#pragma unroll
      for (int q = 0; q < kPairRows; ++q) held[q] = queries.weights_of(q < rows ? q : 0);
    }
    int32_t i = skip;
    for (; i < n; i += kGroups) {
      hopper::barrier_wait(ring.full + 8 * ring.at, ring.parity);
      const Keys keys = read_keys<kFp8>(ring.page(), slot);
      Fragments<kFp8> fragments;
      make_fragments(fragments, keys);
      const int32_t position = (first + i) * kPageTokens + slot;
      float* const scores = a.scores + run.first * a.score_stride + position;
#pragma unroll
      for (int q = 0; q < kPairRows; ++q) {
        if (q == rows) break;
        float product[32];
        multiply(product, fragments, queries.row(q));
        hopper::wgmma_wait<0>(product);
        keep(fragments);
        // The warp has what it read of the page, which the product took.
        if (q == 0) hopper::warp_arrive(ring.empty + 8 * ring.at);
        const float sum = head_sum(product, kFp8 ? held[q] : queries.weights_of(q), t) * keys.scale;
        if (t % 2 == 0 && position < queries.visible[q]) scores[q * a.score_stride] = sum;
      }
      ring.go_on(kGroups);
    }
    skip = i - n;
  });
}

template <bool kFp8>
__device__ __forceinline__ void score_pairs(const IndexScoresArgs& a) {
  const int tid = threadIdx.x;
  Ring ring(hopper::shared_address(shared_memory()) + row_bytes(kFp8, kPairRows),
            tid < kWorkers ? tid / kGroup : 0);
  if (const int i = tid - kWorkers; i >= 0) {
    if (i < kSlots) {
      hopper::barrier_init(ring.full + 8 * i, 1);
      hopper::barrier_init(ring.empty + 8 * i, kGroup / kWarp);
    }
    hopper::fence_barriers();
  }
  __syncthreads();
  const Piece piece = piece_of_block<kPairThreads>(
      a, kPairRows, reinterpret_cast<int32_t*>(shared_memory() + pages_bytes(kFp8, kPairRows)));
  if (piece.count == 0) return;
  if (tid >= kWorkers) {
    hopper::fewer_registers<32>();
    if (tid < kWorkers + kWarp) bring_pages(a, piece, ring);
  } else {
    hopper::more_registers<112>();  // all together 5 * 96
    score_piece<kFp8>(a, piece, ring);
  }
}
#endif

template <bool kFp8>
__global__ void __launch_bounds__(kWorkers, 1) scores_row_kernel([[maybe_unused]] IndexScoresArgs a) {
#ifdef DSV_HOPPER
  score_row<kFp8>(a, static_cast<int32_t>(blockIdx.y));
#endif
}
template <bool kFp8>
__global__ void __launch_bounds__(kPairThreads, 1) scores_pairs_kernel([[maybe_unused]] IndexScoresArgs a) {
#ifdef DSV_HOPPER
  score_pairs<kFp8>(a);
#endif
}

}  // namespace

void launch_index_scores_pages(const IndexScoresArgs& a, Stream stream) {
  const bool fp8 = a.path == IndexPath::fp8_sums;
  const int64_t pages = (a.longest + kPageTokens - 1) / kPageTokens;
  if (a.rows_together == 1 || a.rows == 1) {
    launch(fp8 ? scores_row_kernel<true> : scores_row_kernel<false>,
           {index_splits(a.rows, (pages + kGroups - 1) / kGroups, 1), a.rows}, kWorkers, pages_bytes(fp8, 1),
           stream, a);
    return;
  }
  const int64_t blocks = (a.rows * pages + kGroups - 1) / kGroups;
  launch(fp8 ? scores_pairs_kernel<true> : scores_pairs_kernel<false>,
         {blocks < processors() ? blocks : processors()}, kPairThreads,
         pages_bytes(fp8, kPairRows) + kPieceBytes, stream, a);
}

}  // namespace dsv::cuda
