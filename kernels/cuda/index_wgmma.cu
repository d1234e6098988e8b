// The indexer's scores on Hopper: wgmma with keys in registers and queries in shared memory, of e4m3 as it is
// stored, or of f16 with f32 sums.
//
// Bound: memory for one row (128K positions: 17 MB, 5.8 us at 3 TB/s), mma for many: a page of 64 keys times
// 64 heads is 128 cycles of a processor's tensor cores, 256 in f16 (2048 rows of 8K, causal: 240 GFLOP, 150
// us at 1585 TFLOP/s). Beside it a lane adds 32 terms for each row and page, an add and a multiply-add each:
// 64 cycles of FP32 units, hidden as long as the tensor cores have another product to work on: that of the
// pair's second row, and those of the other two blocks of the processor. Shared memory: the B operand, 8 KB
// for 128 cycles, half of its bandwidth. L2: 8 KB for each 8 rows (f16: 4), 8 bytes a cycle and processor, a
// quarter of its bandwidth.
//
// Precision: e4m3 is exact in f16, a product of two is exact in f32. The FP8 tensor core aligns a k32 step's
// terms and the sum so far to the largest exponent and drops what lies below its 13th binary place, where f32
// has 23 (coarse_sum in bench/index_bench.cu): the released model's own arithmetic (its indexer multiplies
// e4m3 on these tensor cores), and a small part of the error of rounding the factors to e4m3.
//
// Order of a score's sum, for every tile and split: the hardware's over K; a lane adds its two heads of each
// block of 8 in order; then lanes (0 + 2) + (1 + 3) of a quad.
#include "kernels/cuda/index_tensor.cuh"

namespace dsv::cuda {
namespace {

constexpr int kThreads = 128, kHeads = 64, kSwizzleBytes = 1024;
// A block of B: 64 heads of 128 bytes of K. e4m3 has one a row, f16 two.
constexpr int kBlockBytes = kHeads * 128;
constexpr int query_bytes(bool fp8) { return fp8 ? kBlockBytes : 2 * kBlockBytes; }
constexpr int most_tile_rows(bool fp8) { return fp8 ? 8 : 4; }
constexpr int64_t shared_bytes(bool fp8, int tile_rows) {
  return kSwizzleBytes + tile_rows * int64_t{query_bytes(fp8) + kHeads * 4 + 4};
}
static_assert(3 * shared_bytes(true, most_tile_rows(true)) <= 224 * 1024, "three blocks a processor");
static_assert(3 * shared_bytes(false, most_tile_rows(false)) <= 224 * 1024, "three blocks a processor");

#if !defined(DSV_CUDA_EMULATION) && defined(__CUDA_ARCH_FEAT_SM90_ALL)

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Operand B: rows of 128 bytes in shared memory, the 16-byte chunks of row n swapped by n % 8.
__device__ __forceinline__ uint64_t swizzled_descriptor(uint32_t address) {
  return uint64_t{(address & 0x3FFFF) >> 4} | uint64_t{1} << 16 | uint64_t{kSwizzleBytes >> 4} << 32 |
         uint64_t{1} << 62;
}

#define DSV_F8(d, i)                                                                          \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])

// d = a b + (add ? d : 0): 64 keys x 64 heads x 32 bytes of K.
#define DSV_WGMMA(types, rest)                                                                           \
  asm volatile(                                                                                          \
      "{ .reg .pred p; setp.ne.b32 p, %37, 0;\n"                                                         \
      "wgmma.mma_async.sync.aligned." types                                                              \
      " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "     \
      "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, {%32, %33, %34, %35}, %36, p, " rest \
      : DSV_F8(d, 0), DSV_F8(d, 8), DSV_F8(d, 16), DSV_F8(d, 24)                                         \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add))
template <bool kFp8>
__device__ __forceinline__ void wgmma(float (&d)[32], const uint32_t* a, uint64_t b, int add) {
  if constexpr (kFp8) {
    DSV_WGMMA("m64n64k32.f32.e4m3.e4m3", "1, 1; }");
  } else {
    DSV_WGMMA("m64n64k16.f32.f16.f16", "1, 1, 0; }");  // B is K-major
  }
}

// Keys 16 warp + 8 i + g of a page: lane t of a quad takes bytes 64 v + 16 t .. + 15. Zeros for those that no
// row sees.
struct Keys {
  uint4 bytes[2][2];
};
__device__ __forceinline__ Keys load_keys(const IndexScoresArgs& a, int64_t page, int32_t first,
                                          int32_t visible) {
  const int key = static_cast<int>(threadIdx.x) / kWarp * 16 + threadIdx.x % kWarp / 4;
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
  return keys;
}

// A fragments of a page: [steps of 32 bytes of K].
template <bool kFp8>
struct Fragments {
  static constexpr int kSteps = kFp8 ? 4 : 8;
  uint32_t at[kSteps][4];
};
template <bool kFp8>
__device__ __forceinline__ Fragments<kFp8> fragments_of(const Keys& keys) {
  Fragments<kFp8> f;
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
          e4m3_to_f16(word[w], &f.at[4 * v + w][half], &f.at[4 * v + w][2 + half]);
        }
      }
    }
  }
  // All made before the first product is issued: its registers are the tensor cores' from then on.
#pragma unroll
  for (auto& step : f.at) {
    asm volatile("" : "+r"(step[0]), "+r"(step[1]), "+r"(step[2]), "+r"(step[3]));
  }
  return f;
}

// Puts word 16 v + 4 t + w of a head of a query where the fragments' K has it.
template <bool kFp8>
__device__ __forceinline__ void put_query_word(unsigned char* query, int head, int word, uint32_t codes) {
  const int v = word / 16, t = word / 4 % 4, w = word % 4;
  const auto put = [&](int block, int chunk, uint32_t value) {
    unsigned char* row = query + block * kBlockBytes + head * 128;
    *reinterpret_cast<uint32_t*>(row + (chunk ^ head % 8) * 16 + t * 4) = value;
  };
  if constexpr (kFp8) {
    put(0, 4 * v + w, codes);
  } else {
    uint32_t even, odd;
    e4m3_to_f16(codes, &even, &odd);
    put(v, 2 * w, even);
    put(v, 2 * w + 1, odd);
  }
}

// Issues a page's product with a row's 64 heads.
template <bool kFp8>
__device__ __forceinline__ void multiply(float (&product)[32], const Fragments<kFp8>& keys, uint64_t query) {
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < Fragments<kFp8>::kSteps; ++step) {
    const uint64_t block = query + step / 4 * (kBlockBytes >> 4);
    wgmma<kFp8>(product, keys.at[step], block + step % 4 * (32 >> 4), step != 0);
  }
  wgmma_commit();
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

// A block (one warpgroup) scores every gridDim.x-th page for a tile of rows. K is permuted, in a key and in a
// query alike, so that a lane's 16-byte loads are its A fragments: its word 16 v + 4 t + w goes to lane t of
// a quad, there to be half a step of e4m3 or a step of f16. Shared: queries [rows][query_bytes], swizzled;
// weights [rows][64]; visible [rows].
template <bool kFp8>
__device__ __forceinline__ void scores_wgmma(const IndexTileArgs& tile) {
  constexpr int kQueryBytes = query_bytes(kFp8);
  const IndexScoresArgs& a = tile.scores;
  // Swizzles count from multiples of 1024 bytes.
  const auto base = static_cast<uint32_t>(__cvta_generic_to_shared(shared_memory()));
  unsigned char* queries = shared_memory() + (kSwizzleBytes - base % kSwizzleBytes) % kSwizzleBytes;
  auto* weights = reinterpret_cast<float*>(queries + tile.tile_rows * kQueryBytes);
  auto* visible = reinterpret_cast<int32_t*>(weights + tile.tile_rows * kHeads);
  const uint64_t descriptor = swizzled_descriptor(static_cast<uint32_t>(__cvta_generic_to_shared(queries)));
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const int slot =
      static_cast<int>(threadIdx.x) / kWarp * 16 + t / 2 * 8 + g;  // whose score this lane writes
  const auto stride = static_cast<int32_t>(gridDim.x);
  const int32_t begin = static_cast<int32_t>(blockIdx.y) * tile.tile_rows;
  const int32_t end = begin + tile.tile_rows < a.rows ? begin + tile.tile_rows : a.rows;

  for (int32_t first = begin; first < end;) {
    const IndexRun run = index_run(a, first, end);
    first += run.count;
    const int32_t n = (run.visible + kPageTokens - 1) / kPageTokens;
    int32_t i = static_cast<int32_t>(blockIdx.x);
    if (i >= n) continue;
    int32_t page = run.pages[i];
    Keys next = load_keys(a, page, i * kPageTokens, run.visible);
    float next_scale = i * kPageTokens + slot < run.visible ? index_scale(a, page, slot) : 0.0f;
    if (i + stride < n) page = run.pages[i + stride];

    __syncthreads();  // the last run's queries are done with
    for (int j = threadIdx.x; j < run.count * kHeads * 32; j += kThreads) {
      const int word = j % 32, head = j / 32 % kHeads, q = j / (32 * kHeads);
      put_query_word<kFp8>(queries + q * kQueryBytes, head, word, query_word(a, run.first + q, head, word));
    }
    for (int j = threadIdx.x; j < run.count * kHeads; j += kThreads) {
      weights[j] = head_weight(a, run.first + j / kHeads, j % kHeads) * (kFp8 ? 0.5f : 0.5f * kDecoded);
    }
    for (int j = threadIdx.x; j < run.count; j += kThreads) visible[j] = a.step.position[run.first + j] + 1;
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");  // wgmma reads what was written
    __syncthreads();

    for (; i < n; i += stride) {
      const Fragments<kFp8> keys = fragments_of<kFp8>(next);
      const float scale = next_scale;
      const int32_t position = i * kPageTokens + slot;
      bool loaded = false;  // the next keys, once this page's products are on their way
      const auto load_next = [&] {
        if (loaded || i + stride >= n) return;
        loaded = true;
        next = load_keys(a, page, (i + stride) * kPageTokens, run.visible);
        next_scale = position + stride * kPageTokens < run.visible ? index_scale(a, page, slot) : 0.0f;
        if (i + 2 * stride < n) page = run.pages[i + 2 * stride];
      };
      int q = 0;
      for (; q + 1 < run.count; q += 2) {  // the second product is made while the first is summed
        float first_row[32], second_row[32];
        multiply(first_row, keys, descriptor + q * (kQueryBytes >> 4));
        multiply(second_row, keys, descriptor + (q + 1) * (kQueryBytes >> 4));
        load_next();
        const auto* weight = reinterpret_cast<const float2*>(weights + q * kHeads) + t;
        wgmma_wait<1>();
        const float first_sum = head_sum(first_row, weight, t);
        wgmma_wait<0>();
        const float second_sum = head_sum(second_row, weight + kHeads / 2, t);
        const int mine = q + t % 2;  // both lanes have both sums
        const float score = (t % 2 ? second_sum : first_sum) * scale;
        if (position < visible[mine]) a.scores[(run.first + mine) * a.score_stride + position] = score;
      }
      if (q < run.count) {
        float row[32];
        multiply(row, keys, descriptor + q * (kQueryBytes >> 4));
        load_next();
        wgmma_wait<0>();
        const float score =
            head_sum(row, reinterpret_cast<const float2*>(weights + q * kHeads) + t, t) * scale;
        if (t % 2 == 0 && position < visible[q]) {
          a.scores[(run.first + q) * a.score_stride + position] = score;
        }
      }
    }
  }
}
#endif

template <bool kFp8>
__global__ void __launch_bounds__(kThreads, 3) scores_wgmma_kernel([[maybe_unused]] IndexTileArgs tile) {
#if !defined(DSV_CUDA_EMULATION) && defined(__CUDA_ARCH_FEAT_SM90_ALL)
  scores_wgmma<kFp8>(tile);
#endif
}

}  // namespace

void launch_index_scores_wgmma(const IndexScoresArgs& a, Stream stream) {
  const bool fp8 = a.path == IndexPath::fp8_sums;
  const int32_t rows = a.rows_together < most_tile_rows(fp8) ? a.rows_together : most_tile_rows(fp8);
  const int64_t tiles = (a.rows + rows - 1) / rows, pages = (a.longest + kPageTokens - 1) / kPageTokens;
  launch(fp8 ? scores_wgmma_kernel<true> : scores_wgmma_kernel<false>, {index_splits(tiles, pages, 3), tiles},
         kThreads, shared_bytes(fp8, rows), stream, IndexTileArgs{a, rows});
}

}  // namespace dsv::cuda
