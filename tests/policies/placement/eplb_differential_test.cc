// Does the fast EPLB place as the plain one?  The plain one below says what reference/policies.md 1.1-1.5 says, with
// linear scans and std::stable_sort: no tree, no radix sort, no key made of bits.
#include <algorithm>
#include <numeric>
#include <vector>

#include "engine/random_stream.h"
#include "gtest/gtest.h"
#include "policies/placement/eplb_placement.h"

namespace epsim {
namespace {

// Position of each item, pack by pack.
std::vector<int> PackPlainly(const std::vector<float>& weight, int packs) {
  const int items = static_cast<int>(weight.size()), capacity = items / packs;
  std::vector<int> order(items), place(items), filled(packs, 0);
  std::iota(order.begin(), order.end(), 0);
  if (capacity == 1) return order;
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return weight[a] > weight[b]; });
  std::vector<float> load(packs, 0);
  for (int item : order) {
    int best = -1;
    for (int pack = 0; pack < packs; ++pack) {
      if (filled[pack] < capacity && (best < 0 || load[pack] < load[best])) best = pack;
    }
    place[item] = best * capacity + filled[best]++;
    load[best] += weight[item];
  }
  return place;
}

Placement EplbPlainly(const std::vector<float>& weights, const PlacementShape& shape) {
  const bool hierarchical = shape.expert_groups % shape.nodes == 0;
  const int groups = hierarchical ? shape.expert_groups : 1, nodes = hierarchical ? shape.nodes : 1;
  const int group_size = shape.experts / groups, node_experts = shape.experts / nodes, node_slots = shape.slots / nodes;
  std::vector<LogicalExpert> expert_of_slot(shape.layers * shape.slots);
  std::vector<int32_t> replica_order(expert_of_slot.size());
  for (int layer = 0; layer < shape.layers; ++layer) {
    const std::vector<float> weight(weights.begin() + layer * shape.experts,
                                    weights.begin() + (layer + 1) * shape.experts);
    std::vector<float> group_weight(groups, 0);
    for (int expert = 0; expert < groups * group_size; ++expert) group_weight[expert / group_size] += weight[expert];
    const std::vector<int> group_place = PackPlainly(group_weight, nodes);
    std::vector<int> grouped(shape.experts);
    for (int expert = 0; expert < shape.experts; ++expert) {
      grouped[group_place[expert / group_size] * group_size + expert % group_size] = expert;
    }
    for (int node = 0; node < nodes; ++node) {
      std::vector<int> replica(node_experts), order(node_slots, 0), count(node_experts, 1);
      std::iota(replica.begin(), replica.end(), 0);
      const auto load = [&](int i) { return weight[grouped[node * node_experts + i]]; };
      const auto share = [&](int i) { return load(i) / static_cast<float>(count[i]); };
      while (static_cast<int>(replica.size()) < node_slots) {
        int best = 0;
        for (int i = 1; i < node_experts; ++i) {
          if (share(i) > share(best)) best = i;
        }
        order[replica.size()] = count[best]++;
        replica.push_back(best);
      }
      std::vector<float> shares;
      for (int i : replica) shares.push_back(share(i));
      const std::vector<int> place = PackPlainly(shares, shape.ranks / nodes);
      for (int i = 0; i < node_slots; ++i) {
        const int slot = layer * shape.slots + node * node_slots + place[i];
        expert_of_slot[slot] = LogicalExpert(grouped[node * node_experts + replica[i]]);
        replica_order[slot] = order[i];
      }
    }
  }
  return Placement(shape, expert_of_slot, replica_order);
}

TEST(EplbDifferential, FastAndPlainAgreeOnRandomShapesAndLoads) {
  RandomStream random(1, "eplb_differential_test");
  int hierarchical = 0, redundant = 0;
  for (int round = 0; round < 2000; ++round) {
    PlacementShape shape;
    shape.layers = 1 + static_cast<int>(random.Below(3));
    shape.nodes = 1 + static_cast<int>(random.Below(4));
    shape.ranks = shape.nodes * (1 + static_cast<int>(random.Below(5)));
    // Half the time groups that the nodes divide.
    shape.expert_groups = (random.Below(2) == 0 ? 1 : shape.nodes) * (1 + static_cast<int>(random.Below(3)));
    shape.experts = shape.expert_groups * (1 + static_cast<int>(random.Below(24)));
    const int least = (shape.experts + shape.ranks - 1) / shape.ranks;
    shape.slots = shape.ranks * (least + static_cast<int>(random.Below(3)));
    hierarchical += shape.nodes > 1 && shape.expert_groups % shape.nodes == 0;
    redundant += shape.slots > shape.experts;

    std::vector<float> weight(shape.layers * shape.experts);
    const uint64_t kind = random.Below(4);
    for (float& load : weight) {
      switch (kind) {
        case 0:
          load = static_cast<float>(random.Below(4));
          break;  // Ties everywhere.
        case 1:
          load = static_cast<float>(random.Below(100000));
          break;
        case 2:
          load = static_cast<float>(random.Unit());
          break;
        default:
          load = 1e6f / static_cast<float>(1 + random.Below(1000));
          break;  // Ties of quotients.
      }
    }
    ASSERT_TRUE(Eplb(weight, shape, EplbPlacement::AUTO) == EplbPlainly(weight, shape))
        << "round " << round << ": " << shape.experts << " experts, " << shape.slots << " slots, " << shape.ranks
        << " ranks, " << shape.nodes << " nodes, " << shape.expert_groups << " groups";
  }
  EXPECT_GT(hierarchical, 500);
  EXPECT_GT(redundant, 1000);
}

}  // namespace
}  // namespace epsim
