#include "policies/placement/trtllm_placement.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "policies/placement/balanced_packing.h"
#include "policies/placement/placement_draft.h"

namespace epsim {
namespace {

class TrtllmPlacementPolicy : public PlacementPolicy {
 public:
  explicit TrtllmPlacementPolicy(const PlacementShape& shape) : shape_(shape) {}

  absl::StatusOr<Placement> Place(const PlacementRequest& request) override {
    const std::vector<double> total = request.window.Total();
    PlacementDraft draft(shape_, request);
    for (Layer layer : draft.layers()) {
      tokens_.clear();
      for (int expert = 0; expert < shape_.experts; ++expert) {
        tokens_.push_back(static_cast<float>(total[Index(layer) * shape_.experts + expert]));
      }
      Replicate();

      replica_.clear();
      share_of_replica_.clear();
      for (size_t expert = 0; expert < tokens_.size(); ++expert) {
        replica_.insert(replica_.end(), count_[expert], LogicalExpert(static_cast<int32_t>(expert)));
        share_of_replica_.insert(share_of_replica_.end(), count_[expert], tokens_[expert] / count_[expert]);
      }
      const absl::Span<const size_t> place = packing_.Pack(share_of_replica_, shape_.ranks);
      const absl::Span<LogicalExpert> experts = draft.experts_of_slots(layer);
      for (size_t i = 0; i < replica_.size(); ++i) experts[place[i]] = replica_[i];
      draft.OrderBySlot(layer);
    }
    return std::move(draft).Finish();
  }

 private:
  // tokens_ -> count_, replicas of each expert.
  void Replicate() {
    const size_t experts = tokens_.size();
    double sum = 0;
    for (double tokens : tokens_) sum += tokens;
    if (sum == 0) {
      const int each = shape_.slots / shape_.experts, more = shape_.slots % shape_.experts;
      count_.assign(experts, each);
      for (int expert = 0; expert < more; ++expert) ++count_[expert];
      return;
    }
    count_.assign(experts, 1);
    share_ = tokens_;
    for (int slot = shape_.experts; slot < shape_.slots; ++slot) {
      size_t best = 0;
      for (size_t expert = 1; expert < experts; ++expert) {
        if (share_[expert] >= share_[best]) best = expert;
      }
      share_[best] = tokens_[best] / ++count_[best];
    }
  }

  const PlacementShape shape_;
  BalancedPacking packing_;
  std::vector<double> tokens_, share_;    // [experts]; share_ is per replica.
  std::vector<int32_t> count_;            // [experts]
  std::vector<LogicalExpert> replica_;    // [slots]
  std::vector<double> share_of_replica_;  // [slots]
};

}  // namespace

std::unique_ptr<PlacementPolicy> NewTrtllmPlacement(const PlacementShape& shape) {
  return std::make_unique<TrtllmPlacementPolicy>(shape);
}

}  // namespace epsim
