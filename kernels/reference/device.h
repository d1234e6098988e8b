// The reference device: the op table in fp64 as its equations read. The judge of every other table, so it is
// plain first: it knows no threads, takes temporaries from the heap inside ops, and is slow.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/ops.h"

namespace dsv::reference {

using Vector = std::vector<double>;
using Rows = std::vector<Vector>;

struct RefWeight {
  HostMatrix matrix;  // bytes of the mapped checkpoint
  // Dequantised values of a row.
  Vector row(int64_t r) const;
};

struct RefDevice {
  DeviceOptions options;  // geometry points at the copy below
  Geometry geometry;
  KvLayout kv;
  double* act[static_cast<int>(Act::count)] = {};  // [batch_rows, act_width]
  unsigned char* pool = nullptr;  // [layers] of { latent [kv_pages][64][row], index [kv_pages][page] }
  StepArgs step;
  std::unique_ptr<bool[]> allowed;  // [V] or null: all
  std::vector<std::unique_ptr<RefWeight>> weights;

  bool official() const { return options.precision == Precision::official; }
  int64_t width(Act kind) const;  // values in a row; 0: the geometry has no such buffer

  double* row(Act kind, Buffer buffer, int32_t r) const {
    return static_cast<double*>(buffer) + r * width(kind);
  }
  Vector read(Act kind, const void* buffer, int32_t r) const {
    const double* values = static_cast<const double*>(buffer) + r * width(kind);
    return Vector(values, values + width(kind));
  }
  Rows read(Act kind, const void* buffer, RowRange range) const {
    Rows out;
    for (int32_t r = 0; r < range.count; ++r) out.push_back(read(kind, buffer, range.first + r));
    return out;
  }
  void write(Act kind, Buffer buffer, int32_t r, const Vector& values) const;
  void write(Act kind, Buffer buffer, RowRange range, const Rows& values) const;

  unsigned char* latent_page(int32_t layer, int32_t page) const;
  unsigned char* index_page(int32_t layer, int32_t page) const;
  // Page of a position of row r's sequence.
  int32_t page_of(int32_t r, int32_t position) const;
  Vector angles(int32_t position) const;  // position * inv_freq
};

inline RefDevice& device_of(Device* device) { return *reinterpret_cast<RefDevice*>(device); }
inline const RefWeight& weight_of(const Weight* weight) {
  return *reinterpret_cast<const RefWeight*>(weight);
}
inline Vector vector_of(const Weight* weight) { return weight_of(weight).row(0); }

// How the input of a linear is rounded in `official`.
enum class Input {
  by_weight,  // e4m3 per 128 if the weight is FP8, else bf16
  unrounded,  // router gate, weights_proj
};
// y = W x for every row.
Rows linear(const RefDevice& device, const Weight* weight, Rows x, Input input = Input::by_weight);

double dot(const double* a, const double* b, int64_t n);
// x / sqrt(mean(x^2) + eps) * weight
Vector rms_norm(const Vector& x, const Weight* weight, double eps);
// The grid of h, q_latent, q, q_abs and heads: bf16 in `official`, fp64 as it is in `exact`.
void round_activation(const RefDevice& device, Vector& x);
// down(silu(gate h) * up h)
Rows swiglu_ffn(const RefDevice& device, const FfnWeights& weights, const Rows& h);

void attn_in(Device*, const AttnInArgs&);
void attn_q(Device*, const AttnQArgs&);
void cache_append(Device*, const CacheAppendArgs&);
void index_select(Device*, const IndexSelectArgs&);
void attend(Device*, const AttendArgs&);
void attn_out(Device*, const AttnOutArgs&);
void embed(Device*, const EmbedArgs&);
void add_norm(Device*, const AddNormArgs&);
void ffn(Device*, const FfnArgs&);
void mtp_in(Device*, const MtpInArgs&);
void logits(Device*, const LogitsArgs&);
void route(Device*, const RouteArgs&);
void experts(Device*, const ExpertsArgs&);
void sample(Device*, const SampleArgs&);

}  // namespace dsv::reference
