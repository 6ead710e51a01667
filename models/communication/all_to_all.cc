#include "models/communication/all_to_all.h"

#include "engine/check.h"
#include "models/communication/token_bytes.h"

namespace epsim {
namespace {

class AllToAll : public Communication {
 public:
  explicit AllToAll(const CommunicationSetup& setup)
      : ranks_(setup.cluster->ranks()), token_bytes_(MakeTokenBytes(setup.model, setup.precision)) {}

  std::string name() const override { return "all_to_all"; }
  RoutingDetail detail() const override { return {}; }
  CommunicationFootprint footprint() const override { return {.statistics_ride_along = true}; }
  absl::Status Admit(const ForwardShape&) override { return absl::OkStatus(); }

  void Dispatch(const RoutedLayer& routed, Exchange* exchange) const override {
    TrafficMatrix& traffic = Reset(routed, exchange);
    const int64_t bytes = token_bytes_.dispatch.count();
    for (size_t i = 0; i < routed.tokens_between.size(); ++i) traffic.bytes[i] = routed.tokens_between[i] * bytes;
    ClearDiagonal(&traffic);
  }

  void Combine(const RoutedLayer& routed, Exchange* exchange) const override {
    TrafficMatrix& traffic = Reset(routed, exchange);
    const int64_t bytes = token_bytes_.combine.count();
    for (int source = 0; source < ranks_; ++source) {
      for (int owner = 0; owner < ranks_; ++owner) {
        traffic.bytes[owner * ranks_ + source] = routed.tokens_between[source * ranks_ + owner] * bytes;
      }
    }
    ClearDiagonal(&traffic);
  }

  void Statistics(int, Exchange*) const override { EPSIM_CHECK(!"statistics ride along"); }
  std::vector<std::string> notes() const override { return {}; }

 private:
  TrafficMatrix& Reset(const RoutedLayer& routed, Exchange* exchange) const {
    EPSIM_CHECK(routed.tokens_between.size() == static_cast<size_t>(ranks_) * ranks_);
    exchange->launch = exchange->floor = Duration{};
    exchange->busy.assign(ranks_, Duration{});
    exchange->traffic.ranks = ranks_;
    exchange->traffic.bytes.resize(routed.tokens_between.size());
    return exchange->traffic;
  }

  void ClearDiagonal(TrafficMatrix* traffic) const {
    for (int rank = 0; rank < ranks_; ++rank) traffic->bytes[rank * ranks_ + rank] = 0;
  }

  const int ranks_;
  const TokenBytes token_bytes_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Communication>> NewAllToAll(const AllToAllCommunication&,
                                                           const CommunicationSetup& setup) {
  return std::make_unique<AllToAll>(setup);
}

}  // namespace epsim
