#include "policies/placement/survivors_placement.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "policies/placement/placement_draft.h"

namespace epsim {
namespace {

std::vector<Rank> SurvivingRanks(const PlacementShape& shape, absl::Span<const Rank> failed) {
  std::vector<Rank> ranks;
  for (int rank = 0; rank < shape.ranks; ++rank) {
    if (!std::binary_search(failed.begin(), failed.end(), Rank(rank))) ranks.push_back(Rank(rank));
  }
  return ranks;
}

// How many of `ranks` are on each node, nodes without any left out.  Where nodes do not divide ranks they mean nothing:
// one node then.
std::vector<int> RanksOnNodes(const PlacementShape& shape, absl::Span<const Rank> ranks) {
  if (shape.ranks % shape.nodes != 0) return {static_cast<int>(ranks.size())};
  std::vector<int> on_node(shape.nodes);
  for (Rank rank : ranks) ++on_node[Index(shape.node_of(rank))];
  on_node.erase(std::remove(on_node.begin(), on_node.end(), 0), on_node.end());
  return on_node;
}

// What `all`, a view of every rank, tells of some of them.
class SurvivorCosts final : public CostView {
 public:
  SurvivorCosts(const CostView& all, absl::Span<const Rank> ranks, bool knows_exchange) : all_(all) {
    const ExchangeCost* const exchange = all.exchange();
    if (exchange == nullptr || !knows_exchange) return;
    exchange_ = *exchange;
    exchange_->sending.clear();
    exchange_->receiving.clear();
    for (Rank rank : ranks) {
      exchange_->sending.push_back(exchange->sending[Index(rank)]);
      exchange_->receiving.push_back(exchange->receiving[Index(rank)]);
    }
  }

  Duration ExpertTime(Layer layer, absl::Span<const LogicalExpert> experts,
                      absl::Span<const int32_t> tokens_per_slot) const override {
    return all_.ExpertTime(layer, experts, tokens_per_slot);
  }
  const ExchangeCost* exchange() const override { return exchange_.has_value() ? &*exchange_ : nullptr; }

 private:
  const CostView& all_;
  std::optional<ExchangeCost> exchange_;
};

class SurvivorsPlacement : public PlacementPolicy {
 public:
  SurvivorsPlacement(std::unique_ptr<PlacementPolicy> policy, const PlacementPolicyConfig& config,
                     const PlacementShape& shape, MakePlacementPolicy make)
      : policy_(std::move(policy)), config_(config), shape_(shape), make_(make) {}

  absl::StatusOr<Placement> Place(const PlacementRequest& request) override {
    if (request.failed.empty()) {
      failed_.clear();
      return policy_->Place(request);
    }
    if (!std::equal(failed_.begin(), failed_.end(), request.failed.begin(), request.failed.end())) {
      ASSIGN_OR_RETURN(small_, SurvivorShape(shape_, request.failed));
      ASSIGN_OR_RETURN(on_survivors_, make_(config_, small_));
      failed_.assign(request.failed.begin(), request.failed.end());
      small_previous_.reset();
    }
    PlacementRequest small = request;
    std::optional<SurvivorCosts> costs;
    if (request.cost != nullptr) {
      const std::vector<Rank> ranks = SurvivingRanks(shape_, failed_);
      const size_t nodes = RanksOnNodes(shape_, ranks).size();
      small.cost = &costs.emplace(*request.cost, ranks, static_cast<size_t>(small_.nodes) == nodes);
    }
    small.failed = {};
    small.layers = {};
    small.previous = small_previous_.has_value() ? &*small_previous_ : nullptr;
    if (!small_previous_.has_value() || request.layers.empty()) {
      ASSIGN_OR_RETURN(small_previous_, on_survivors_->Place(small));
    } else {
      small.layers = request.layers;
      ASSIGN_OR_RETURN(small_previous_, on_survivors_->Place(small));
    }
    return Spread(request);
  }

  std::vector<Layer> change_order() const override {
    return failed_.empty() ? policy_->change_order() : on_survivors_->change_order();
  }

 private:
  // small_previous_ on the slots of all ranks.
  Placement Spread(const PlacementRequest& request) const {
    PlacementDraft draft(shape_, request);
    const std::vector<Rank> ranks = SurvivingRanks(shape_, failed_);
    const size_t of_rank = shape_.slots_per_rank();
    for (Layer layer : draft.layers()) {
      const absl::Span<LogicalExpert> experts = draft.experts_of_slots(layer);
      const absl::Span<int32_t> order = draft.replica_order(layer);
      std::fill(experts.begin(), experts.end(), kNoExpert);
      const auto spread = [&](Slot slot) {
        return Index(ranks[Index(slot) / of_rank]) * of_rank + Index(slot) % of_rank;
      };
      for (int expert = 0; expert < shape_.experts; ++expert) {
        int32_t next = 0;
        for (Slot slot : small_previous_->replicas(layer, LogicalExpert(expert))) {
          experts[spread(slot)] = LogicalExpert(expert);
          order[spread(slot)] = next++;
        }
      }
    }
    return std::move(draft).Finish();
  }

  const std::unique_ptr<PlacementPolicy> policy_;
  const PlacementPolicyConfig config_;
  const PlacementShape shape_;
  const MakePlacementPolicy make_;
  // While ranks are away.
  std::vector<Rank> failed_;
  PlacementShape small_;
  std::unique_ptr<PlacementPolicy> on_survivors_;
  std::optional<Placement> small_previous_;
};

}  // namespace

absl::StatusOr<PlacementShape> SurvivorShape(const PlacementShape& shape, absl::Span<const Rank> failed) {
  const std::vector<Rank> ranks = SurvivingRanks(shape, failed);
  PlacementShape small = shape;
  small.ranks = static_cast<int>(ranks.size());
  small.slots = small.ranks * shape.slots_per_rank();
  if (small.slots < shape.experts) {
    const std::string would_do =
        small.ranks == 0 ? ""
                         : absl::StrCat("; ", (shape.experts + small.ranks - 1) / small.ranks, " a rank would fit");
    return absl::InvalidArgumentError(absl::StrCat("with ", failed.size(), " of ", shape.ranks, " ranks failed, ",
                                                   small.slots, " slots are left for ", shape.experts, " experts, ",
                                                   shape.slots_per_rank(), " a rank", would_do));
  }
  const std::vector<int> on_node = RanksOnNodes(shape, ranks);
  const bool even = std::all_of(on_node.begin(), on_node.end(), [&](int count) { return count == on_node[0]; });
  small.nodes = even ? static_cast<int>(on_node.size()) : 1;
  return small;
}

std::unique_ptr<PlacementPolicy> NewSurvivorsPlacement(std::unique_ptr<PlacementPolicy> policy,
                                                       const PlacementPolicyConfig& config, const PlacementShape& shape,
                                                       MakePlacementPolicy make) {
  return std::make_unique<SurvivorsPlacement>(std::move(policy), config, shape, make);
}

}  // namespace epsim
