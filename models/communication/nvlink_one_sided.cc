#include "models/communication/nvlink_one_sided.h"

#include <algorithm>
#include <utility>

#include "engine/check.h"
#include "engine/status_macros.h"
#include "models/communication/copies.h"
#include "models/communication/infeasible.h"
#include "models/communication/token_bytes.h"

namespace epsim {
namespace {

constexpr char kName[] = "nvlink_one_sided";
constexpr int kMostRanks = 128;
constexpr uint32_t kMostTopK = 8;

class NvlinkOneSided : public Communication {
 public:
  NvlinkOneSided(const NvlinkOneSidedCommunication& config, const CommunicationSetup& setup,
                 const NvlinkOneSidedTiming& timing, std::vector<std::string> notes)
      : ranks_(setup.cluster->ranks()), timing_(timing), notes_(std::move(notes)) {
    const ModelSpec& model = setup.model;
    const int64_t hidden = model.hidden(), routing = RoutingBytes(model);
    NumberType combine = config.fp8_combine() ? FP8 : setup.precision.combine();
    combine = TravelFormat(kName, "combine", combine, {FP8}, &notes_);
    dispatch_ = ActivationBytes(hidden, setup.precision.dispatch()).count() + routing;
    combine_ = combine == FP8 ? hidden : 2 * hidden;
    const double visited = std::min<double>(ranks_, model.top_k());
    efficiency_ = timing.nvlink_efficiency() / (1 + timing.spread_loss() * (1 - visited / ranks_));
    footprint_ = {.buffers = Bytes(int64_t{ranks_} * setup.max_tokens_per_rank * (4 * hidden + routing)),
                  .statistics_ride_along = true,
                  .quantised_dispatch = setup.precision.dispatch() != BF16};
  }

  std::string name() const override { return kName; }
  RoutingDetail detail() const override { return {}; }
  CommunicationFootprint footprint() const override { return footprint_; }
  absl::Status Admit(const ForwardShape&) override { return absl::OkStatus(); }

  void Dispatch(const RoutedLayer& routed, Exchange* exchange) const override {
    Fill(routed, dispatch_, timing_.dispatch_floor(), Direction::kDispatch, exchange);
  }
  void Combine(const RoutedLayer& routed, Exchange* exchange) const override {
    Fill(routed, combine_, timing_.combine_floor(), Direction::kCombine, exchange);
  }
  void Statistics(int, Exchange*) const override { EPSIM_CHECK(!"statistics ride along"); }
  std::vector<std::string> notes() const override { return notes_; }

 private:
  void Fill(const RoutedLayer& routed, int64_t bytes_per_copy, const std::string& floor, Direction direction,
            Exchange* exchange) const {
    BeginExchange(ranks_, exchange);
    StraightCopies(routed.tokens_between, bytes_per_copy, direction, &exchange->traffic);
    exchange->traffic.efficiency.node = efficiency_;
    exchange->launch = RoundUpWithinStep(PicosecondsOf(timing_.launch()));
    exchange->floor = RoundUpWithinStep(PicosecondsOf(floor));
  }

  const int ranks_;
  const NvlinkOneSidedTiming timing_;
  int64_t dispatch_ = 0, combine_ = 0;  // Bytes of a copy.
  double efficiency_ = 1;
  CommunicationFootprint footprint_;
  std::vector<std::string> notes_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Communication>> NewNvlinkOneSided(const NvlinkOneSidedCommunication& config,
                                                                 const CommunicationSetup& setup,
                                                                 const LibraryTiming& own) {
  RETURN_IF_ERROR(CheckOneNvlinkDomain(kName, *setup.cluster));
  const int ranks = setup.cluster->ranks();
  if (ranks > kMostRanks) {
    return Infeasible(kName, ranks, " ranks; at most ", kMostRanks, " would do, or allgather_reducescatter");
  }
  if (setup.model.top_k() > kMostTopK) {
    return Infeasible(kName, setup.model.top_k(), " experts a token; at most ", kMostTopK,
                      " would do, or nvlink_two_sided or allgather_reducescatter");
  }
  std::vector<std::string> notes;
  ASSIGN_OR_RETURN(const LibraryTiming timing, TimingFor(kName, setup.cluster->platform(), 1, own, &notes));
  return std::make_unique<NvlinkOneSided>(config, setup, timing.nvlink_one_sided(), std::move(notes));
}

}  // namespace epsim
