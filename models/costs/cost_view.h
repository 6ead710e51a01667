// What placement policies may ask of a cost model: how long a rank would take for its experts, and the exchange for the
// copies of tokens.
#pragma once

#include <optional>
#include <utility>

#include "absl/types/span.h"
#include "engine/units.h"
#include "models/communication/communication.h"
#include "models/costs/cost_model.h"
#include "models/costs/expert_cost_scale.h"
#include "platforms/cluster.h"
#include "policies/placement/placement_policy.h"

namespace epsim {

// Learned from the exchanges that `communication` makes of a few tokens: how often a token travels and in how many
// bytes, which way and at which efficiency; with the cluster's routes, what that takes of links.  A rank's port takes
//   ps = bytes of a copy * 1e12 * u / (efficiency * bandwidth)
// where u copies cross the link while every rank sends one, to all others of its node (node_ps) or of other nodes
// alike; of the links on a rank's way the slowest, dispatch and combine added up.  Exact where links are as fast in as
// out. What kernels take is left out.  Nothing where no byte depends on the experts' ranks (collectives), or there is
// one rank.  Of an automatic strategy, what it starts with.
std::optional<ExchangeCost> LearnExchangeCost(const Cluster& cluster, const Communication& communication);

class ModelCostView final : public CostView {
 public:
  // `costs` and `scale` (null: all 1) must outlive the view.
  explicit ModelCostView(const CostModel& costs, const ExpertCostScale* scale = nullptr,
                         std::optional<ExchangeCost> exchange = std::nullopt)
      : costs_(costs), scale_(scale), exchange_(std::move(exchange)) {}

  // With the scales of `experts`; where all are 1 they are not looked at.
  Duration ExpertTime(Layer layer, absl::Span<const LogicalExpert> experts,
                      absl::Span<const int32_t> tokens_per_slot) const override;
  const ExchangeCost* exchange() const override { return exchange_.has_value() ? &*exchange_ : nullptr; }

 private:
  const CostModel& costs_;
  const ExpertCostScale* const scale_;
  const std::optional<ExchangeCost> exchange_;
};

}  // namespace epsim
