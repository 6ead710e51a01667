#include "policies/placement/nearest_shares.h"

#include "absl/strings/str_cat.h"

namespace epsim {

void NearestShares(const PlacementShape& shape, absl::Span<const Slot> replicas, absl::Span<double> share) {
  const auto node_of = [slots_per_node = shape.slots / shape.nodes](Slot slot) {
    return static_cast<int>(Index(slot)) / slots_per_node;
  };
  const auto nodes = static_cast<double>(shape.nodes);
  int with_replica = 0;
  for (size_t begin = 0, end = 0; begin < replicas.size(); begin = end, ++with_replica) {
    while (end < replicas.size() && node_of(replicas[end]) == node_of(replicas[begin])) ++end;
    for (size_t i = begin; i < end; ++i) share[i] = 1 / (nodes * static_cast<double>(end - begin));
  }
  const double far = (nodes - with_replica) / (nodes * static_cast<double>(replicas.size()));
  for (size_t i = 0; i < replicas.size(); ++i) share[i] += far;
}

absl::Status CheckWholeNodes(const char* policy, const PlacementShape& shape) {
  if (shape.ranks % shape.nodes == 0) return absl::OkStatus();
  const int below = shape.ranks / shape.nodes * shape.nodes;
  return absl::InvalidArgumentError(absl::StrCat(policy, ": ranks: ", shape.ranks, " are not divisible by ",
                                                 shape.nodes, " nodes; ", below > 0 ? absl::StrCat(below, " or ") : "",
                                                 below + shape.nodes, " ranks would fit"));
}

}  // namespace epsim
