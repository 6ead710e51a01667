// Does the trtllm policy place as the plain one?  The plain one below says what reference/policies.md 4.1-4.2 says,
// with the two heaps of the reference.  And, where no loads tie, as the others?
#include <algorithm>
#include <numeric>
#include <queue>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "policies/placement/trtllm_placement.h"
#include "tests/policies/placement/drawn_windows.h"
#include "tests/policies/placement/plan_once.h"

namespace epsim {
namespace {

std::vector<LogicalExpert> TrtllmPlainly(const std::vector<double>& total, const PlacementShape& shape) {
  std::vector<LogicalExpert> expert_of_slot;
  for (int layer = 0; layer < shape.layers; ++layer) {
    const std::vector<float> load(total.begin() + layer * shape.experts, total.begin() + (layer + 1) * shape.experts);
    std::vector<int> count(shape.experts, 1);
    if (std::all_of(load.begin(), load.end(), [](float tokens) { return tokens == 0; })) {
      for (int slot = shape.experts; slot < shape.slots; ++slot) ++count[slot % shape.experts];
    } else {
      std::priority_queue<std::pair<double, int>> most;
      for (int expert = 0; expert < shape.experts; ++expert) most.emplace(load[expert], expert);
      for (int slot = shape.experts; slot < shape.slots; ++slot) {
        const int expert = most.top().second;
        most.pop();
        most.emplace(static_cast<double>(load[expert]) / ++count[expert], expert);
      }
    }
    std::vector<std::pair<double, int>> replicas;  // By falling size, then rising expert.
    for (int expert = 0; expert < shape.experts; ++expert) {
      replicas.insert(replicas.end(), count[expert], {-static_cast<double>(load[expert]) / count[expert], expert});
    }
    std::sort(replicas.begin(), replicas.end());
    std::priority_queue<std::pair<double, int>, std::vector<std::pair<double, int>>, std::greater<>> least;
    std::vector<std::vector<int>> experts_of_rank(shape.ranks);
    for (int rank = 0; rank < shape.ranks; ++rank) least.emplace(0, rank);
    for (const auto& [negative, expert] : replicas) {
      const auto [sum, rank] = least.top();
      least.pop();
      experts_of_rank[rank].push_back(expert);
      if (static_cast<int>(experts_of_rank[rank].size()) < shape.slots_per_rank()) least.emplace(sum - negative, rank);
    }
    for (const std::vector<int>& experts : experts_of_rank) {
      for (int expert : experts) expert_of_slot.push_back(LogicalExpert(expert));
    }
  }
  return expert_of_slot;
}

Placement Place(const LoadWindow& window, const PlacementShape& shape) {
  RandomStream random(1, "trtllm_differential_test");
  PlacementRequest request;
  request.window = window;
  request.random = &random;
  return NewTrtllmPlacement(shape)->Place(request).value();
}

TEST(TrtllmDifferential, PolicyAndPlainAgreeOnRandomWindows) {
  RandomStream random(1, "trtllm_differential_test");
  int redundant = 0, one_slot = 0, idle = 0;
  for (int round = 0; round < 2000; ++round) {
    const DrawnWindow drawn = DrawWindow(&random);
    const std::vector<double> total = drawn.window().Total();
    redundant += drawn.shape.slots > drawn.shape.experts;
    one_slot += drawn.shape.slots == drawn.shape.ranks;
    idle += std::count(total.begin(), total.end(), 0) == static_cast<std::ptrdiff_t>(total.size());
    // Replicas in ascending slot order, as a Placement orders them where it is not told.
    ASSERT_TRUE(Place(drawn.window(), drawn.shape) == Placement(drawn.shape, TrtllmPlainly(total, drawn.shape)))
        << "round " << round << ": " << drawn;
  }
  EXPECT_GT(redundant, 1000);
  EXPECT_GT(one_slot, 50);
  EXPECT_GT(idle, 10);
}

// reference/policies.md 4.2: where no loads tie, and ranks have more than one slot, the slots are those of a global
// EPLB. That of vLLM computes in double too, so that no rounding makes or breaks a near tie.
TEST(TrtllmDifferential, EqualsGlobalEplbInDoubleWhereNoLoadsTie) {
  const PlacementShape shape{.layers = 58, .experts = 256, .slots = 288, .ranks = 32};
  RandomStream random(2, "trtllm_differential_test");
  std::vector<double> row(58 * 256);
  for (double& load : row) load = static_cast<float>(random.Unit());
  const Placement trtllm = PlanOnce("trtllm {}", shape, {row}).value();
  const Placement vllm = PlanOnce("vllm {}", shape, {row}).value();
  for (int layer = 0; layer < shape.layers; ++layer) EXPECT_EQ(Phy2Log(trtllm, layer), Phy2Log(vllm, layer)) << layer;
}

// Without replicas and with different whole loads, whose sums float32 holds, rounding and ties play no part.
TEST(TrtllmDifferential, EqualsEplbOnDifferentWholeLoads) {
  const PlacementShape shape{.layers = 58, .experts = 256, .slots = 256, .ranks = 32};
  RandomStream random(3, "trtllm_differential_test");
  std::vector<double> row;
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (int i = 0; i < 256; ++i) row.push_back(256.0 * static_cast<double>(random.Below(100)) + i);
    for (int i = 255; i > 0; --i)
      std::swap(*(row.end() - 1 - i), *(row.end() - 1 - static_cast<int>(random.Below(i + 1))));
  }
  const Placement trtllm = PlanOnce("trtllm {}", shape, {row}).value();
  const Placement eplb = PlanOnce("eplb { mode: GLOBAL }", shape, {row}).value();
  for (int layer = 0; layer < shape.layers; ++layer) EXPECT_EQ(Phy2Log(trtllm, layer), Phy2Log(eplb, layer)) << layer;
}

}  // namespace
}  // namespace epsim
