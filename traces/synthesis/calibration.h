// Finds the popularity and the keep probability with which a layer's draws give wanted shares and a wanted overlap.
// The closed form of popularity.h starts it off; what that misses (top_k is small, the first token of a request keeps
// nothing, domains share one keep probability) is measured on draws and taken back, a few rounds.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/random_stream.h"

namespace epsim {

struct LayerGoal {
  // Part of a domain's tokens that choose each expert: [domains][experts], each domain's sum is top_k.
  std::vector<std::vector<double>> inclusion;
  // Mean part of a token's ids that the previous token of its request has too, over all domains; negative: not known,
  // nothing is kept.
  double overlap = -1;
};

// Requests to calibrate with: a sample of each domain's.
struct CalibrationRequests {
  std::vector<std::vector<int64_t>> lengths;  // [domains][...], tokens; each at least 1.
  std::vector<double> token_share;            // [domains], of all tokens that have a previous one.
  int64_t tokens = 0;                         // To draw for each domain and round.
};

struct LayerSolution {
  std::vector<std::vector<double>> popularity;  // [domains][experts], to write into a config; 0 where the goal is.
  double keep_previous = 0;
};

LayerSolution CalibrateLayer(const LayerGoal& goal, const CalibrationRequests& requests, int top_k,
                             const RandomStream& random);

}  // namespace epsim
