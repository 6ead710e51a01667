// Does the fast eplb_vec place as the plain one?  The plain one below tries every expert for every redundant slot: it
// computes the peak of each row with and without, and knows neither trees nor which experts are at a peak.
#include <algorithm>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"
#include "policies/placement/eplb_vec_placement.h"
#include "tests/policies/placement/drawn_windows.h"

namespace epsim {
namespace {

using Row = std::vector<float>;

// Groups by falling weight, each to the node with the least that has room.
std::vector<int> ExpertsByNode(const std::vector<float>& weight, int groups, int nodes) {
  const int size = static_cast<int>(weight.size()) / groups;
  std::vector<float> group_weight(groups, 0), node_weight(nodes, 0);
  for (int expert = 0; expert < groups * size; ++expert) group_weight[expert / size] += weight[expert];
  std::vector<int> order(groups);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return group_weight[a] > group_weight[b]; });
  std::vector<std::vector<int>> groups_of_node(nodes);
  for (int group : order) {
    int best = -1;
    for (int node = 0; node < nodes; ++node) {
      if (static_cast<int>(groups_of_node[node].size()) == groups / nodes) continue;
      if (best < 0 || node_weight[node] < node_weight[best]) best = node;
    }
    groups_of_node[best].push_back(group);
    node_weight[best] += group_weight[group];
  }
  std::vector<int> experts;
  for (const std::vector<int>& of_node : groups_of_node) {
    for (int group : of_node) {
      for (int i = 0; i < size; ++i) experts.push_back(group * size + i);
    }
  }
  return experts;
}

// Of one node: `rows` of tokens, e the number of its first expert.  Returns the expert of each replica.
std::vector<int> Replicas(const std::vector<Row>& rows, int first, int slots) {
  const int experts = static_cast<int>(rows[0].size());
  std::vector<int> replicas(experts), count(experts, 1);
  std::iota(replicas.begin(), replicas.end(), 0);
  while (static_cast<int>(replicas.size()) < slots) {
    int best = -1;
    float best_sum = 0;
    for (int one_more = 0; one_more < experts; ++one_more) {
      float sum = 0;
      for (const Row& tokens : rows) {
        float peak = 0;
        for (int i = 0; i < experts; ++i) {
          const float score = (tokens[i] + static_cast<float>(first + i) * 1e-4f) / static_cast<float>(count[i]);
          peak = std::max(peak, i == one_more ? tokens[i] / static_cast<float>(count[i] + 1) : score);
        }
        sum += peak;
      }
      if (best < 0 || sum < best_sum) best = one_more, best_sum = sum;
    }
    replicas.push_back(best);
    ++count[best];
  }
  return replicas;
}

Placement EplbVecPlainly(const DrawnWindow& drawn) {
  const PlacementShape& shape = drawn.shape;
  const bool hierarchical = shape.expert_groups % shape.nodes == 0;
  const int groups = hierarchical ? shape.expert_groups : 1, nodes = hierarchical ? shape.nodes : 1;
  const int node_experts = shape.experts / nodes, node_slots = shape.slots / nodes, node_ranks = shape.ranks / nodes;
  const int slots_per_rank = shape.slots_per_rank();
  std::vector<LogicalExpert> expert_of_slot(shape.layers * shape.slots);
  std::vector<int32_t> replica_order(expert_of_slot.size());
  for (int layer = 0; layer < shape.layers; ++layer) {
    std::vector<float> total(shape.experts);
    for (int expert = 0; expert < shape.experts; ++expert) {
      double sum = 0;
      for (int row = 0; row < drawn.rows; ++row) sum += drawn.window().of(row, Layer(layer))[expert];
      total[expert] = static_cast<float>(sum);
    }
    const std::vector<int> experts = ExpertsByNode(total, groups, nodes);
    for (int node = 0; node < nodes; ++node) {
      const int first = node * node_experts;
      std::vector<Row> rows;
      for (int row = 0; row < drawn.rows; ++row) {
        rows.emplace_back();
        for (int i = 0; i < node_experts; ++i) {
          rows.back().push_back(static_cast<float>(drawn.window().of(row, Layer(layer))[experts[first + i]]));
        }
      }
      const std::vector<int> replicas = Replicas(rows, first, node_slots);
      std::vector<float> share(node_slots);
      for (int i = 0; i < node_slots; ++i) {
        share[i] = total[experts[first + replicas[i]]] /
                   static_cast<float>(std::count(replicas.begin(), replicas.end(), replicas[i]));
      }
      std::vector<int> sorted(node_slots);
      std::iota(sorted.begin(), sorted.end(), 0);
      if (slots_per_rank > 1) {
        std::stable_sort(sorted.begin(), sorted.end(), [&](int a, int b) { return share[a] > share[b]; });
      }
      for (int rank = 0; rank < node_ranks; ++rank) {
        for (int i = 0; i < slots_per_rank; ++i) {
          const int replica = sorted[i * node_ranks + (i % 2 == 0 ? rank : node_ranks - 1 - rank)];
          const int slot = layer * shape.slots + node * node_slots + rank * slots_per_rank + i;
          expert_of_slot[slot] = LogicalExpert(experts[first + replicas[replica]]);
          replica_order[slot] =
              static_cast<int>(std::count(replicas.begin(), replicas.begin() + replica, replicas[replica]));
        }
      }
    }
  }
  return Placement(shape, expert_of_slot, replica_order);
}

TEST(EplbVecDifferential, FastAndPlainAgreeOnRandomWindows) {
  RandomStream random(1, "eplb_vec_differential_test");
  int hierarchical = 0, redundant = 0;
  for (int round = 0; round < 1000; ++round) {
    const DrawnWindow drawn = DrawWindow(&random);
    hierarchical += drawn.shape.nodes > 1 && drawn.shape.expert_groups % drawn.shape.nodes == 0;
    redundant += drawn.shape.slots > drawn.shape.experts;
    PlacementRequest request;
    request.window = drawn.window();
    request.random = &random;
    const auto policy = NewEplbVecPlacement(EplbVecPlacement(), drawn.shape).value();
    ASSERT_TRUE(policy->Place(request).value() == EplbVecPlainly(drawn)) << "round " << round << ": " << drawn;
  }
  EXPECT_GT(hierarchical, 250);
  EXPECT_GT(redundant, 500);
}

}  // namespace
}  // namespace epsim
