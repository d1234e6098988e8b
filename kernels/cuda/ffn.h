// FFNs and which pairs of rows and experts go through them.
#pragma once

#include <cstdint>

#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/views.h"

namespace dsv::cuda {

struct FfnMaps {
  TensorMap gate, up, down;
};
// One FFN, or one of several by tile.
struct FfnView {
  WeightView gate, up, down;
  FfnMaps maps = {}, few_maps = {};  // few: in boxes for launch_tensor_fp8_few
  void make_maps();
};
// Pairs (row, expert) of one expert: at most as many as the launch says.
struct ExpertTile {
  int32_t expert, begin, count;  // pairs [begin, begin + count)
};
// A tile holds pairs of one expert, so there are at most pairs / rows full ones and one more for each expert.
inline constexpr int32_t most_tiles(int32_t pairs, int32_t experts, int32_t tile_rows) {
  const int32_t bound = pairs / tile_rows + experts;
  return bound < pairs ? bound : pairs;
}

}  // namespace dsv::cuda
