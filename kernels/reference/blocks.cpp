// The ops around attention: embedding, norms, dense FFN, MTP input, logits, sampling.
#include <cmath>

#include "kernels/reference/device.h"
#include "kernels/reference/formats.h"
#include "kernels/reference/sample.h"

namespace dsv::reference {

double dot(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

Rows linear(const RefDevice& device, const Weight* weight, Rows x, Input input) {
  const RefWeight& w = weight_of(weight);
  if (device.official() && input == Input::by_weight) {
    for (Vector& row : x) {
      if (w.matrix.dtype == Dtype::f8_e4m3) {
        quantise(row.data(), w.matrix.cols, device.geometry.ue8m0_scales);
      } else {
        for (double& value : row) value = round_bf16(value);
      }
    }
  }
  Rows y(x.size(), Vector(static_cast<size_t>(w.matrix.rows)));
  for (int64_t o = 0; o < w.matrix.rows; ++o) {
    const Vector w_o = w.row(o);
    for (size_t r = 0; r < x.size(); ++r)
      y[r][static_cast<size_t>(o)] = dot(w_o.data(), x[r].data(), w.matrix.cols);
  }
  return y;
}

Vector rms_norm(const Vector& x, const Weight* weight, double eps) {
  const auto n = static_cast<int64_t>(x.size());
  const double factor = 1 / std::sqrt(dot(x.data(), x.data(), n) / static_cast<double>(n) + eps);
  Vector out = vector_of(weight);
  for (size_t i = 0; i < x.size(); ++i) out[i] *= x[i] * factor;
  return out;
}

void round_activation(const RefDevice& device, Vector& x) {
  if (!device.official()) return;
  for (double& value : x) value = round_bf16(value);
}

Rows swiglu_ffn(const RefDevice& device, const FfnWeights& weights, const Rows& h) {
  Rows a = linear(device, weights.gate, h);
  const Rows up = linear(device, weights.up, h);
  for (size_t r = 0; r < a.size(); ++r) {
    for (size_t i = 0; i < a[r].size(); ++i) a[r][i] = a[r][i] / (1 + std::exp(-a[r][i])) * up[r][i];
  }
  return linear(device, weights.down, a);
}

// x_r = table[token_r]
void embed(Device* handle, const EmbedArgs& args) {
  const RefDevice& device = device_of(handle);
  for (int32_t r = args.rows.first; r < args.rows.first + args.rows.count; ++r)
    device.write(Act::x, args.x, r, weight_of(args.table).row(device.step.token[r]));
}

// x += delta; h = RMSNorm(x)
void add_norm(Device* handle, const AddNormArgs& args) {
  const RefDevice& device = device_of(handle);
  for (int32_t r = args.rows.first; r < args.rows.first + args.rows.count; ++r) {
    Vector x = device.read(Act::x, args.x, r);
    if (args.delta) {
      const Vector delta = device.read(Act::delta, args.delta, r);
      for (size_t i = 0; i < x.size(); ++i) x[i] += delta[i];
    }
    Vector h = rms_norm(x, args.weight, device.geometry.rms_norm_eps);
    round_activation(device, h);
    device.write(Act::x, args.x, r, x);
    device.write(Act::h, args.h, r, h);
  }
}

void ffn(Device* handle, const FfnArgs& args) {
  const RefDevice& device = device_of(handle);
  const Rows h = device.read(Act::h, args.h, args.rows);
  device.write(Act::delta, args.delta, args.rows, swiglu_ffn(device, *args.weights, h));
}

// x' = eh_proj [enorm(embed(next)); hnorm(norm(x))]. The halves meet the linear's own rounding only.
void mtp_in(Device* handle, const MtpInArgs& args) {
  const RefDevice& device = device_of(handle);
  const double eps = device.geometry.rms_norm_eps;
  Rows in;
  for (int32_t r = args.rows.first; r < args.rows.first + args.rows.count; ++r) {
    Vector e = weight_of(args.weights->embed).row(device.step.next_token[r]);
    if (device.step.position[r] == 0) e.assign(e.size(), 0);
    Vector both = rms_norm(e, args.weights->enorm, eps);
    const Vector h =
        rms_norm(rms_norm(device.read(Act::x, args.x, r), args.norm, eps), args.weights->hnorm, eps);
    both.insert(both.end(), h.begin(), h.end());
    in.push_back(both);
  }
  device.write(Act::mtp_x, args.x_out, args.rows, linear(device, args.weights->eh_proj, in));
}

// logits_i = head RMSNorm(x + delta) of row[i]
void logits(Device* handle, const LogitsArgs& args) {
  const RefDevice& device = device_of(handle);
  Rows in;
  for (int32_t i = 0; i < args.rows.count; ++i) {
    const int32_t r = device.step.logit_row[args.rows.first + i];
    Vector x = device.read(Act::x, args.x, r);
    if (args.delta) {
      const Vector delta = device.read(Act::delta, args.delta, r);
      for (size_t j = 0; j < x.size(); ++j) x[j] += delta[j];
    }
    Vector h = rms_norm(x, args.norm, device.geometry.rms_norm_eps);
    round_activation(device, h);
    in.push_back(h);
  }
  device.write(Act::logits, args.logits, args.rows, linear(device, args.head, in));
}

void sample(Device* handle, const SampleArgs& args) {
  const RefDevice& device = device_of(handle);
  for (int32_t i = args.rows.first; i < args.rows.first + args.rows.count; ++i) {
    const Vector row = device.read(Act::logits, args.logits, i);
    const int32_t token = sample_row(std::vector<float>(row.begin(), row.end()), device.allowed.get(),
                                     device.step.sample[i], device.step.bias);
    device.write(Act::token, args.token, i, {static_cast<double>(token)});
  }
}

}  // namespace dsv::reference
