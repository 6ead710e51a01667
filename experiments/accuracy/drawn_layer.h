// The routing of one layer as a case describes it, drawn token by token and counted as a replay counts it.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "models/routing/token_routing.h"

namespace epsim {

struct LayerSetup {
  // "uniform": a token's experts are any of all, alike.  "balanced": a token goes to min(ranks, top_k) ranks that are
  // dealt in turn, so that all get the same.  "group_limited_G_of_N": a token takes its experts from G of N groups of
  // neighbouring experts, alike; on several nodes the groups are the nodes, of which it takes min(G, nodes), as
  // DeepEP's own tests draw them (tests/test_internode.py).
  std::string routing;
  int ranks = 0, nodes = 1, tokens_per_rank = 0, experts = 0, top_k = 0;
};

// Experts lie on the ranks in order, one slot each.  The same setup and seed give the same layer.  Fails on an unknown
// routing and on numbers that do not go together.
absl::StatusOr<RoutedLayer> DrawLayer(const LayerSetup& setup, const RoutingDetail& detail, uint64_t seed);

}  // namespace epsim
