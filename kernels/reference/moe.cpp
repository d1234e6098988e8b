// noaux_tc routing (DeepSeek-V3) and the experts.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/reference/device.h"

namespace dsv::reference {
namespace {

// Indices of the n largest values, ties to the lowest index, in ascending order.
std::vector<size_t> largest(const Vector& values, size_t n) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] > values[b]; });
  order.resize(n);
  std::sort(order.begin(), order.end());
  return order;
}

// Sum of the two best choices (the one best, in a group of one).
double group_score(const double* choice, size_t n) {
  Vector sorted(choice, choice + n);
  std::sort(sorted.rbegin(), sorted.rend());
  return n == 1 ? sorted[0] : sorted[0] + sorted[1];
}

}  // namespace

void route(Device* handle, const RouteArgs& args) {
  const RefDevice& device = device_of(handle);
  const Geometry& g = device.geometry;
  const auto groups = static_cast<size_t>(g.n_group), k = static_cast<size_t>(g.num_experts_per_tok);
  const Vector bias = vector_of(args.weights->bias);
  const Rows scores =
      linear(device, args.weights->gate, device.read(Act::h, args.h, args.rows), Input::unrounded);
  for (size_t r = 0; r < scores.size(); ++r) {
    Vector score = scores[r], choice(score.size());
    for (size_t e = 0; e < score.size(); ++e) {
      score[e] = 1 / (1 + std::exp(-score[e]));
      choice[e] = score[e] + bias[e];
    }
    const size_t group_size = score.size() / groups;
    Vector of_group(groups);
    for (size_t i = 0; i < groups; ++i) of_group[i] = group_score(&choice[i * group_size], group_size);

    // Only the experts of kept groups are candidates.
    std::vector<size_t> candidate;
    Vector candidate_choice;
    for (const size_t group : largest(of_group, static_cast<size_t>(g.topk_group))) {
      for (size_t e = group * group_size; e < (group + 1) * group_size; ++e) {
        candidate.push_back(e);
        candidate_choice.push_back(choice[e]);
      }
    }
    const std::vector<size_t> picked = largest(candidate_choice, k);
    double sum = 1e-20;
    for (const size_t i : picked) sum += score[candidate[i]];
    const auto row = args.rows.first + static_cast<int32_t>(r);
    Vector expert, weight;
    for (const size_t i : picked) {
      const size_t e = candidate[i];
      expert.push_back(static_cast<double>(e));
      weight.push_back(score[e] / (g.norm_topk_prob ? sum : 1) * g.routed_scaling_factor);
    }
    device.write(Act::expert, args.expert, row, expert);
    device.write(Act::expert_weight, args.expert_weight, row, weight);
  }
}

void experts(Device* handle, const ExpertsArgs& args) {
  const RefDevice& device = device_of(handle);
  for (int32_t r = args.rows.first; r < args.rows.first + args.rows.count; ++r) {
    const Rows h = {device.read(Act::h, args.h, r)};
    const Vector expert = device.read(Act::expert, args.expert, r),
                 weight = device.read(Act::expert_weight, args.expert_weight, r);
    Vector sum(h[0].size(), 0);
    for (size_t i = 0; i < expert.size(); ++i) {
      const Vector y = swiglu_ffn(device, args.weights->experts[static_cast<size_t>(expert[i])], h)[0];
      for (size_t j = 0; j < sum.size(); ++j) sum[j] += weight[i] * y[j];
    }
    if (args.weights->shared.gate) {
      const Vector y = swiglu_ffn(device, args.weights->shared, h)[0];
      for (size_t j = 0; j < sum.size(); ++j) sum[j] += y[j];
    }
    device.write(Act::delta, args.delta, r, sum);
  }
}

}  // namespace dsv::reference
