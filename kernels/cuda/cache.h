// What goes into the cache, and the index queries that go with it: cache.cu, cache_released.cu.
#pragma once

#include <cstdint>

#include "kernels/cuda/views.h"

namespace dsv::cuda {

struct CacheAppendRowsArgs {  // norms, RoPE, quantisation, and the two cache rows
  int32_t rows;
  StepView step;
  CacheView cache;
  const float* kv_raw;       // [R, rank + rope]
  const float* kv_a_norm;    // [rank]
  const float* index_k_raw;  // [R, index_dim]; unused without an indexer
  const float* k_norm_weight;
  const float* k_norm_bias;
  float eps;
  bool power_of_two;  // scales of index keys; latent scales always are
  bool early = true;  // as TensorArgs has it
};
void launch_cache_append(const CacheAppendRowsArgs&, Stream);
bool takes_released(const CacheAppendRowsArgs&);  // whether it goes to cache_released.cu
void launch_cache_append_released(const CacheAppendRowsArgs&, Stream);

// An official index_q row: e4m3 [heads * dim], then at a multiple of 4 f32 scale [heads].
// An exact one: f32 [heads * dim].
struct IndexQueryArgs {  // RoPE halves and, if official, Hadamard and quantisation
  int32_t rows, heads;
  int64_t dim, rope;
  const float* in;  // [R, heads * dim]
  const float* cos;
  const float* sin;
  bool official, power_of_two;
  unsigned char* out;  // [R, out_stride bytes]
  int64_t out_stride;
  bool early = true;  // as TensorArgs has it
};
void launch_index_query(const IndexQueryArgs&, Stream);
bool takes_released(const IndexQueryArgs&);
void launch_index_query_released(const IndexQueryArgs&, Stream);

}  // namespace dsv::cuda
