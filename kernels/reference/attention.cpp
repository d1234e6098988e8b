// MLA and the lightning indexer (DeepSeek-V3.2-Exp paper, equations 1 and 2).
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

#include "kernels/reference/device.h"
#include "kernels/reference/formats.h"

namespace dsv::reference {
namespace {

void rotate(double& a, double& b, double angle, double mscale) {
  const double c = std::cos(angle) * mscale, s = std::sin(angle) * mscale, a0 = a;
  a = a0 * c - b * s;
  b = a0 * s + b * c;
}

// MLA: pairs (0, 1), (2, 3), ...
void rope_interleaved(double* x, const Vector& angles, double mscale) {
  for (size_t i = 0; i < angles.size(); ++i) rotate(x[2 * i], x[2 * i + 1], angles[i], mscale);
}

// Indexer: pairs (i, i + half)
void rope_halves(double* x, const Vector& angles, double mscale) {
  for (size_t i = 0; i < angles.size(); ++i) rotate(x[i], x[i + angles.size()], angles[i], mscale);
}

// y_i = n^-0.5 sum_j (-1)^popcount(i & j) x_j
void hadamard(double* x, size_t n) {
  const Vector in(x, x + n);
  for (size_t i = 0; i < n; ++i) {
    double sum = 0;
    for (size_t j = 0; j < n; ++j) sum += std::popcount(i & j) % 2 ? -in[j] : in[j];
    x[i] = sum / std::sqrt(static_cast<double>(n));
  }
}

// An index query or key after its linear: RoPE, and in `official` the Hadamard transform.
void turn_index_vector(const RefDevice& device, double* x, int32_t position) {
  const Geometry& g = device.geometry;
  rope_halves(x, device.angles(position), g.rope_mscale);
  if (device.official()) hadamard(x, static_cast<size_t>(g.index_head_dim));
}

void put_f32(unsigned char* at, double value) {
  const auto single = static_cast<float>(value);
  std::memcpy(at, &single, sizeof single);
}
double get_f32(const unsigned char* at) {
  float value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// Writes [c; k_rope] as KvLayout says. Latent scales are always powers of two.
void write_latent(const RefDevice& device, unsigned char* row, const Vector& latent) {
  const int64_t rank = device.geometry.kv_lora_rank, n = device.geometry.latent_dim();
  if (!device.official()) {
    for (int64_t i = 0; i < n; ++i) put_f32(row + 4 * i, latent[static_cast<size_t>(i)]);
    return;
  }
  unsigned char* scales = row + rank;
  for (int64_t i = 0; i < rank; i += kQuantBlock, scales += 4) {
    const double* group = latent.data() + i;
    const int64_t size = std::min<int64_t>(kQuantBlock, rank - i);
    const double scale = e4m3_scale(group, size, true);
    for (int64_t j = 0; j < size; ++j) row[i + j] = encode_e4m3(scaled(group[j], scale));
    put_f32(scales, scale);
  }
  for (int64_t i = rank; i < n; ++i) {
    const uint16_t code = encode_bf16(latent[static_cast<size_t>(i)]);
    std::memcpy(scales + 2 * (i - rank), &code, sizeof code);
  }
}

Vector read_latent(const RefDevice& device, const unsigned char* row) {
  const int64_t rank = device.geometry.kv_lora_rank, n = device.geometry.latent_dim();
  Vector out(static_cast<size_t>(n));
  const unsigned char* scales = row + rank;
  const unsigned char* rope = scales + 4 * ((rank + kQuantBlock - 1) / kQuantBlock);
  for (int64_t i = 0; i < n; ++i) {
    double& value = out[static_cast<size_t>(i)];
    if (!device.official()) {
      value = get_f32(row + 4 * i);
    } else if (i < rank) {
      value = decode_e4m3(row[i]) * get_f32(scales + 4 * (i / kQuantBlock));
    } else {
      uint16_t code;
      std::memcpy(&code, rope + 2 * (i - rank), sizeof code);
      value = decode_bf16(code);
    }
  }
  return out;
}

void write_index_key(const RefDevice& device, unsigned char* page, int32_t slot, const Vector& key) {
  const int64_t n = device.geometry.index_head_dim;
  if (!device.official()) {
    for (int64_t i = 0; i < n; ++i) put_f32(page + 4 * (slot * n + i), key[static_cast<size_t>(i)]);
    return;
  }
  const double scale = e4m3_scale(key.data(), n, device.geometry.ue8m0_scales);
  for (int64_t i = 0; i < n; ++i)
    page[slot * n + i] = encode_e4m3(scaled(key[static_cast<size_t>(i)], scale));
  put_f32(page + kPageTokens * n + 4 * slot, scale);
}

Vector read_index_key(const RefDevice& device, const unsigned char* page, int32_t slot) {
  const int64_t n = device.geometry.index_head_dim;
  Vector out(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    out[static_cast<size_t>(i)] =
        device.official() ? decode_e4m3(page[slot * n + i]) * get_f32(page + kPageTokens * n + 4 * slot)
                          : get_f32(page + 4 * (slot * n + i));
  }
  return out;
}

}  // namespace

void attn_in(Device* handle, const AttnInArgs& args) {
  const RefDevice& device = device_of(handle);
  const Geometry& g = device.geometry;
  const Rows h = device.read(Act::h, args.h, args.rows);
  if (g.q_lora_rank > 0) {
    Rows q_latent = linear(device, args.weights->q_a, h);
    for (Vector& row : q_latent) {
      row = rms_norm(row, args.weights->q_a_norm, kLatentEps);
      round_activation(device, row);
    }
    device.write(Act::q_latent, args.q_latent, args.rows, q_latent);
  }
  device.write(Act::kv_raw, args.kv_raw, args.rows, linear(device, args.weights->kv_a, h));
  if (!g.has_indexer()) return;
  device.write(Act::index_k_raw, args.index_k_raw, args.rows, linear(device, args.weights->wk, h));
  Rows w = linear(device, args.weights->weights_proj, h, Input::unrounded);
  for (Vector& row : w) {
    for (double& value : row) value /= std::sqrt(g.index_n_heads) * std::sqrt(g.index_head_dim);
  }
  device.write(Act::index_weight, args.index_weight, args.rows, w);
}

void attn_q(Device* handle, const AttnQArgs& args) {
  const RefDevice& device = device_of(handle);
  const Geometry& g = device.geometry;
  const Rows in = g.q_lora_rank > 0 ? device.read(Act::q_latent, args.q_latent, args.rows)
                                    : device.read(Act::h, args.h, args.rows);
  Rows q = linear(device, args.weights->q_b, in);
  for (size_t r = 0; r < q.size(); ++r) {
    const int32_t position = device.step.position[args.rows.first + static_cast<int32_t>(r)];
    for (int32_t h = 0; h < g.num_heads; ++h) {
      rope_interleaved(&q[r][static_cast<size_t>(h * g.qk_head_dim() + g.qk_nope_head_dim)],
                       device.angles(position), g.rope_mscale);
    }
    round_activation(device, q[r]);
  }
  device.write(Act::q, args.q, args.rows, q);
  if (!g.has_indexer()) return;
  Rows index_q = linear(device, args.weights->wq_b, in);
  for (size_t r = 0; r < index_q.size(); ++r) {
    const int32_t position = device.step.position[args.rows.first + static_cast<int32_t>(r)];
    for (int32_t h = 0; h < g.index_n_heads; ++h) {
      double* vector = &index_q[r][static_cast<size_t>(h * g.index_head_dim)];
      turn_index_vector(device, vector, position);
      if (device.official()) quantise_group(vector, g.index_head_dim, g.ue8m0_scales);
    }
  }
  device.write(Act::index_q, args.index_q, args.rows, index_q);
}

void cache_append(Device* handle, const CacheAppendArgs& args) {
  const RefDevice& device = device_of(handle);
  const Geometry& g = device.geometry;
  for (int32_t r = args.rows.first; r < args.rows.first + args.rows.count; ++r) {
    const int32_t position = device.step.position[r], page = device.page_of(r, position),
                  slot = position % kPageTokens;
    // c = RMSNorm of the latent part; k_rope is one head for all.
    const Vector raw = device.read(Act::kv_raw, args.kv_raw, r);
    Vector latent =
        rms_norm(Vector(raw.begin(), raw.begin() + g.kv_lora_rank), args.weights->kv_a_norm, kLatentEps);
    latent.insert(latent.end(), raw.begin() + g.kv_lora_rank, raw.end());
    rope_interleaved(latent.data() + g.kv_lora_rank, device.angles(position), g.rope_mscale);
    write_latent(device, device.latent_page(args.layer, page) + slot * device.kv.latent_row_bytes, latent);
    if (!g.has_indexer()) continue;
    // LayerNorm with bias
    Vector key = device.read(Act::index_k_raw, args.index_k_raw, r);
    const auto n = static_cast<double>(key.size());
    const double mean = std::accumulate(key.begin(), key.end(), 0.0) / n;
    for (double& value : key) value -= mean;
    const double factor = 1 / std::sqrt(dot(key.data(), key.data(), g.index_head_dim) / n + kLatentEps);
    const Vector weight = vector_of(args.weights->k_norm_weight), bias = vector_of(args.weights->k_norm_bias);
    for (size_t i = 0; i < key.size(); ++i) key[i] = key[i] * factor * weight[i] + bias[i];
    turn_index_vector(device, key.data(), position);
    write_index_key(device, device.index_page(args.layer, page), slot, key);
  }
}

// I(t, s) = sum_h relu(q_h . k_s) w_h over dequantised vectors
void index_select(Device* handle, const IndexSelectArgs& args) {
  const RefDevice& device = device_of(handle);
  const Geometry& g = device.geometry;
  for (int32_t r = args.rows.first; r < args.rows.first + args.rows.count; ++r) {
    const int32_t visible = device.step.position[r] + 1, k = std::min(g.index_topk, visible);
    device.write(Act::n_selected, args.n_selected, r, {static_cast<double>(k)});
    std::vector<int32_t> order(static_cast<size_t>(visible));
    std::iota(order.begin(), order.end(), 0);
    if (visible > k) {
      const Vector q = device.read(Act::index_q, args.index_q, r);
      const Vector w = device.read(Act::index_weight, args.index_weight, r);
      Vector score(order.size(), 0);
      for (int32_t s = 0; s < visible; ++s) {
        const Vector key =
            read_index_key(device, device.index_page(args.layer, device.page_of(r, s)), s % kPageTokens);
        for (int32_t h = 0; h < g.index_n_heads; ++h) {
          const double product =
              dot(&q[static_cast<size_t>(h * g.index_head_dim)], key.data(), g.index_head_dim);
          score[static_cast<size_t>(s)] += std::max(product, 0.0) * w[static_cast<size_t>(h)];
        }
      }
      std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
        return score[static_cast<size_t>(a)] > score[static_cast<size_t>(b)];
      });
      std::sort(order.begin(), order.begin() + k);
    }
    std::copy(order.begin(), order.begin() + k, device.row(Act::selected, args.selected, r));
  }
}

// Per head: score_s = (W_k^T q_nope . c_s + q_rope . k_rope_s) * softmax_scale; o = sum_s softmax(score)_s
// c_s; the head's output is W_v o.
void attend(Device* handle, const AttendArgs& args) {
  const RefDevice& device = device_of(handle);
  const Geometry& g = device.geometry;
  const int64_t nope = g.qk_nope_head_dim, rank = g.kv_lora_rank, per_head = nope + g.v_head_dim;
  for (int32_t r = args.rows.first; r < args.rows.first + args.rows.count; ++r) {
    std::vector<int32_t> positions(static_cast<size_t>(device.step.position[r]) + 1);
    std::iota(positions.begin(), positions.end(), 0);
    if (args.selected) {
      const Vector selected = device.read(Act::selected, args.selected, r);
      const auto n = static_cast<size_t>(device.read(Act::n_selected, args.n_selected, r)[0]);
      positions.resize(n);
      std::transform(selected.begin(), selected.begin() + static_cast<std::ptrdiff_t>(n), positions.begin(),
                     [](double position) { return static_cast<int32_t>(position); });
    }
    Rows latents;
    for (const int32_t s : positions) {
      latents.push_back(read_latent(device, device.latent_page(args.layer, device.page_of(r, s)) +
                                                s % kPageTokens * device.kv.latent_row_bytes));
    }
    const Vector q = device.read(Act::q, args.q, r);
    Vector heads;
    for (int32_t h = 0; h < g.num_heads; ++h) {
      const double* q_h = &q[static_cast<size_t>(h * g.qk_head_dim())];
      Vector q_abs(static_cast<size_t>(rank), 0);
      for (int64_t i = 0; i < nope; ++i) {
        const Vector w = weight_of(args.weights->kv_b).row(h * per_head + i);
        for (size_t j = 0; j < q_abs.size(); ++j) q_abs[j] += w[j] * q_h[i];
      }
      round_activation(device, q_abs);

      Vector p;
      for (const Vector& latent : latents) {
        p.push_back((dot(q_abs.data(), latent.data(), rank) +
                     dot(q_h + nope, latent.data() + rank, g.qk_rope_head_dim)) *
                    g.softmax_scale);
      }
      const double largest = *std::max_element(p.begin(), p.end());
      double sum = 0;
      for (double& value : p) sum += value = std::exp(value - largest);

      Vector o(static_cast<size_t>(rank), 0);
      for (size_t s = 0; s < p.size(); ++s) {
        for (size_t j = 0; j < o.size(); ++j) o[j] += p[s] / sum * latents[s][j];
      }
      round_activation(device, o);
      for (int64_t i = 0; i < g.v_head_dim; ++i) {
        const Vector w = weight_of(args.weights->kv_b).row(h * per_head + nope + i);
        heads.push_back(dot(w.data(), o.data(), rank));
      }
    }
    round_activation(device, heads);
    device.write(Act::heads, args.heads, r, heads);
  }
}

void attn_out(Device* handle, const AttnOutArgs& args) {
  const RefDevice& device = device_of(handle);
  const Rows heads = device.read(Act::heads, args.heads, args.rows);
  device.write(Act::delta, args.delta, args.rows, linear(device, args.weights->o, heads));
}

}  // namespace dsv::reference
