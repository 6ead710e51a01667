#include "models/communication/all_to_all.h"

#include "engine/check.h"
#include "models/communication/copies.h"
#include "models/communication/token_bytes.h"

namespace epsim {
namespace {

class AllToAll : public Communication {
 public:
  explicit AllToAll(const CommunicationSetup& setup)
      : ranks_(setup.cluster->ranks()),
        token_bytes_(MakeTokenBytes(setup.model, setup.precision)),
        quantised_(setup.precision.dispatch() != BF16) {}

  std::string name() const override { return "all_to_all"; }
  RoutingDetail detail() const override { return {}; }
  CommunicationFootprint footprint() const override {
    return {.statistics_ride_along = true, .quantised_dispatch = quantised_};
  }
  absl::Status Admit(const ForwardShape&) override { return absl::OkStatus(); }

  void Dispatch(const RoutedLayer& routed, Exchange* exchange) const override {
    BeginExchange(ranks_, exchange);
    StraightCopies(routed.tokens_between, token_bytes_.dispatch.count(), Direction::kDispatch, &exchange->traffic);
  }
  void Combine(const RoutedLayer& routed, Exchange* exchange) const override {
    BeginExchange(ranks_, exchange);
    StraightCopies(routed.tokens_between, token_bytes_.combine.count(), Direction::kCombine, &exchange->traffic);
  }
  void Statistics(int, Exchange*) const override { EPSIM_CHECK(!"statistics ride along"); }
  std::vector<std::string> notes() const override { return {}; }

 private:
  const int ranks_;
  const TokenBytes token_bytes_;
  const bool quantised_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Communication>> NewAllToAll(const AllToAllCommunication&,
                                                           const CommunicationSetup& setup) {
  return std::make_unique<AllToAll>(setup);
}

}  // namespace epsim
