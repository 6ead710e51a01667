// What a policy makes of one window, for tests that look at its slots.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "engine/text_proto.h"
#include "policies/placement/placement_policy.h"

namespace epsim {

// The placement that the policy `config` (textproto of PlacementPolicyConfig) plans on `rows` of [layers, experts]
// loads.
inline absl::StatusOr<Placement> PlanOnce(const std::string& config, const PlacementShape& shape,
                                          const std::vector<std::vector<double>>& rows,
                                          const Placement* previous = nullptr) {
  PlacementPolicyConfig parsed;
  if (absl::Status status = ParseTextProto(config, "policy", &parsed); !status.ok()) return status;
  absl::StatusOr<std::unique_ptr<PlacementPolicy>> policy = NewPlacementPolicy(parsed, shape);
  if (!policy.ok()) return policy.status();
  std::vector<double> tokens;
  for (const std::vector<double>& row : rows) tokens.insert(tokens.end(), row.begin(), row.end());
  RandomStream random(1, "plan_once");
  PlacementRequest request;
  request.window = {
      .rows = static_cast<int>(rows.size()), .layers = shape.layers, .experts = shape.experts, .tokens = tokens};
  request.previous = previous;
  request.random = &random;
  return (*policy)->Place(request);
}

// The placement with these experts in its slots, [layers, slots].
inline Placement Make(const PlacementShape& shape, const std::vector<int>& ids) {
  std::vector<LogicalExpert> experts;
  for (int id : ids) experts.push_back(LogicalExpert(id));
  return Placement(shape, std::move(experts));
}

// What `policy` plans on loads [rows, layers, experts], from the placement in force on.
inline Placement Place(PlacementPolicy* policy, const PlacementShape& shape, const std::vector<double>& tokens,
                       const Placement* previous, absl::Span<const Layer> layers = {}) {
  RandomStream random(1, "place");
  PlacementRequest request;
  request.window = {.rows = static_cast<int>(tokens.size()) / (shape.layers * shape.experts),
                    .layers = shape.layers,
                    .experts = shape.experts,
                    .tokens = tokens};
  request.previous = previous;
  request.layers = layers;
  request.random = &random;
  return policy->Place(request).value();
}

// The expert in each slot of a layer.
inline std::vector<int> Phy2Log(const Placement& placement, int layer = 0) {
  std::vector<int> experts;
  for (LogicalExpert expert : placement.experts_of_slots(Layer(layer))) experts.push_back(static_cast<int>(expert));
  return experts;
}

// The slots of each expert of a layer, the original first.
inline std::vector<std::vector<int>> Log2Phy(const Placement& placement, int layer = 0) {
  std::vector<std::vector<int>> slots(placement.shape().experts);
  for (size_t expert = 0; expert < slots.size(); ++expert) {
    for (Slot slot : placement.replicas(Layer(layer), LogicalExpert(static_cast<int>(expert)))) {
      slots[expert].push_back(static_cast<int>(slot));
    }
  }
  return slots;
}

}  // namespace epsim
