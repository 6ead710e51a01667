// Does the vllm policy place as the plain one?  The plain one below says what reference/policies.md 3.2 says in whole
// arrays, as numpy would: quotients computed anew for every slot, full packs of infinite load, slots kept by matching.
#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"
#include "policies/placement/vllm_placement.h"
#include "tests/policies/placement/drawn_windows.h"

namespace epsim {
namespace {

// Items of each pack, in the order in which they came.
std::vector<std::vector<int>> PackPlainly(const std::vector<double>& weight, int packs) {
  const size_t capacity = weight.size() / packs;
  std::vector<std::vector<int>> items(packs);
  if (capacity == 1) {
    for (int item = 0; item < packs; ++item) items[item] = {item};
    return items;
  }
  std::vector<std::pair<double, int>> sorted;
  for (size_t item = 0; item < weight.size(); ++item) sorted.emplace_back(-weight[item], static_cast<int>(item));
  std::sort(sorted.begin(), sorted.end());
  std::vector<double> load(packs, 0);
  for (const auto& [negative, item] : sorted) {
    const size_t pack = std::min_element(load.begin(), load.end()) - load.begin();
    items[pack].push_back(item);
    load[pack] = items[pack].size() == capacity ? std::numeric_limits<double>::infinity() : load[pack] - negative;
  }
  return items;
}

std::vector<int> LayerPlainly(const std::vector<float>& weight, const PlacementShape& shape) {
  int nodes = shape.ranks % shape.nodes == 0 ? shape.nodes : 1, groups = shape.expert_groups;
  if (groups % nodes != 0) groups = nodes = 1;
  const int size = shape.experts / groups;
  std::vector<double> group_weight;
  for (int group = 0; group < groups; ++group) {
    group_weight.push_back(std::accumulate(weight.begin() + group * size, weight.begin() + (group + 1) * size, 0.0f));
  }
  std::vector<int> phy2log;
  for (const std::vector<int>& groups_of_node : PackPlainly(group_weight, nodes)) {
    std::vector<int> experts;
    for (int group : groups_of_node) {
      for (int i = 0; i < size; ++i) experts.push_back(group * size + i);
    }
    std::vector<int> count(experts.size(), 1), replicas(experts.size());
    std::iota(replicas.begin(), replicas.end(), 0);
    const auto share = [&](int i) { return static_cast<double>(weight[experts[i]]) / count[i]; };
    while (static_cast<int>(replicas.size()) < shape.slots / nodes) {
      int best = 0;
      for (int i = 1; i < static_cast<int>(experts.size()); ++i) {
        if (share(i) > share(best)) best = i;
      }
      ++count[best];
      replicas.push_back(best);
    }
    std::vector<double> shares;
    for (int i : replicas) shares.push_back(share(i));
    for (const std::vector<int>& of_rank : PackPlainly(shares, shape.ranks / nodes)) {
      for (int replica : of_rank) phy2log.push_back(experts[replicas[replica]]);
    }
  }
  return phy2log;
}

// Of one rank: what stays is marked off one by one, in both lists.
std::vector<int> KeepPlainly(const std::vector<int>& old, const std::vector<int>& placed) {
  std::vector<int> kept(old.size(), -1), used(old.size(), 0);
  for (size_t slot = 0; slot < old.size(); ++slot) {
    for (size_t i = 0; i < placed.size() && kept[slot] < 0; ++i) {
      if (used[i] == 0 && placed[i] == old[slot]) kept[slot] = placed[i], used[i] = 1;
    }
  }
  size_t i = 0;
  for (int& expert : kept) {
    if (expert >= 0) continue;
    while (used[i] == 1) ++i;
    expert = placed[i++];
  }
  return kept;
}

std::vector<int> Slots(const Placement& placement, int layer, int begin, int size) {
  std::vector<int> experts;
  for (int slot = begin; slot < begin + size; ++slot) {
    experts.push_back(static_cast<int>(placement.experts_of_slots(Layer(layer))[slot]));
  }
  return experts;
}

TEST(VllmDifferential, PolicyAndPlainAgreeOnRandomWindows) {
  RandomStream random(1, "vllm_differential_test");
  int hierarchical = 0, one_node = 0, kept = 0;
  for (int round = 0; round < 2000; ++round) {
    DrawnWindow drawn = DrawWindow(&random);
    PlacementShape& shape = drawn.shape;
    if (random.Below(4) == 0) shape.nodes = 1 + static_cast<int>(random.Below(5));  // May not divide the ranks.
    hierarchical += shape.nodes > 1 && shape.ranks % shape.nodes == 0 && shape.expert_groups % shape.nodes == 0;
    one_node += shape.ranks % shape.nodes != 0;

    const auto policy = NewVllmPlacement(VllmPlacement(), shape).value();
    PlacementRequest request;
    request.window = drawn.window();
    request.random = &random;
    const Placement first = policy->Place(request).value();
    DrawnWindow later = drawn;
    std::rotate(later.tokens.begin(), later.tokens.begin() + 1, later.tokens.end());
    request.window = later.window();
    request.previous = &first;
    const Placement second = policy->Place(request).value();

    for (int layer = 0; layer < shape.layers; ++layer) {
      const auto plainly = [&](const LoadWindow& window) {
        const std::vector<double> total = window.Total();
        return LayerPlainly({total.begin() + layer * shape.experts, total.begin() + (layer + 1) * shape.experts},
                            shape);
      };
      ASSERT_EQ(Slots(first, layer, 0, shape.slots), plainly(drawn.window())) << "round " << round << ": " << drawn;
      const std::vector<int> anew = plainly(later.window());
      const int size = shape.slots_per_rank();
      for (int begin = 0; begin < shape.slots; begin += size) {
        const std::vector<int> placed(anew.begin() + begin, anew.begin() + begin + size);
        const std::vector<int> expected = KeepPlainly(Slots(first, layer, begin, size), placed);
        ASSERT_EQ(Slots(second, layer, begin, size), expected) << "round " << round << ": " << drawn;
        kept += expected != placed;
      }
    }
  }
  EXPECT_GT(hierarchical, 300);
  EXPECT_GT(one_node, 100);
  EXPECT_GT(kept, 1000);
}

}  // namespace
}  // namespace epsim
