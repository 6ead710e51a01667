#include "policies/replica/least_loaded_replica_choice.h"

#include "policies/replica/pair_deal.h"
#include "policies/replica/replica_split.h"

namespace epsim {
namespace {

class LeastLoadedChoice : public PerCallReplicaChoice {
 public:
  explicit LeastLoadedChoice(Duration planning_time) : planning_time_(planning_time) {}

  ReplicaPlanning planning() const override { return {.time = planning_time_, .gathers_counts = true}; }

  void Deal(const Placement& placement, const RouterCall& call, absl::Span<uint16_t> slots) const override {
    const int experts = placement.shape().experts;
    const std::vector<int32_t> pairs = CountPairs(call, experts);
    ReplicaSplit split(placement, call.layer, SumOverSources(pairs, experts));
    split.DealToLeastLoaded();
    PairDeal deal(split, pairs);
    deal.PreferNear(placement.shape());
    deal.Fill(call, slots);
  }

  void Share(const Placement& placement, Layer layer, absl::Span<const uint32_t> pairs_of_expert,
             absl::Span<uint32_t> weight) const override {
    ReplicaSplit split(placement, layer, std::vector<int64_t>(pairs_of_expert.begin(), pairs_of_expert.end()));
    split.DealToLeastLoaded();
    split.WriteWeights(weight);
  }

 private:
  const Duration planning_time_;
};

}  // namespace

std::unique_ptr<PerCallReplicaChoice> NewLeastLoadedReplicaChoice(Duration planning_time) {
  return std::make_unique<LeastLoadedChoice>(planning_time);
}

}  // namespace epsim
