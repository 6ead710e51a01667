#include "models/communication/nvlink_two_sided.h"

#include <algorithm>
#include <utility>

#include "engine/check.h"
#include "engine/status_macros.h"
#include "models/communication/copies.h"
#include "models/communication/infeasible.h"
#include "models/communication/token_bytes.h"

namespace epsim {
namespace {

constexpr char kName[] = "nvlink_two_sided";
constexpr int64_t kFifoBytes = 4 * 256 * 1024;
constexpr int kRanksOfABlock = 8;

class NvlinkTwoSided : public Communication {
 public:
  NvlinkTwoSided(const CommunicationSetup& setup, const NvlinkTwoSidedTiming& timing, BytesPerSecond nvlink,
                 std::vector<std::string> notes)
      : ranks_(setup.cluster->ranks()), timing_(timing), notes_(std::move(notes)) {
    const ModelSpec& model = setup.model;
    TravelFormat(kName, "combine", setup.precision.combine(), {}, &notes_);
    dispatch_.bytes = ActivationBytes(model.hidden(), setup.precision.dispatch()).count() + RoutingBytes(model);
    combine_.bytes = ActivationBytes(model.hidden(), BF16).count();
    // bytes / (efficiency * bandwidth) of a copy = bytes / (nvlink_efficiency * bandwidth) + its time besides.
    const double copy_bytes = PicosecondsOf(timing.copy_time()) * 1e-12 * static_cast<double>(nvlink.count());
    const auto efficiency = [&](int64_t bytes, int copy_times) {
      return bytes / (bytes / timing.nvlink_efficiency() + copy_times * copy_bytes);
    };
    dispatch_.efficiency = efficiency(dispatch_.bytes, 1);
    combine_.efficiency = efficiency(combine_.bytes, 2);
    const int gpu_sms = static_cast<int>(setup.cluster->platform().gpu().sms());
    const int blocks = 2 * ((ranks_ + kRanksOfABlock - 1) / kRanksOfABlock);  // Of a channel, senders and receivers.
    const int channels = std::max(1, gpu_sms / 2 / blocks);
    footprint_ = {.sms = gpu_sms == 0 ? 0 : blocks * channels,
                  .buffers = Bytes(ranks_ * channels * kFifoBytes),
                  .statistics_ride_along = true,
                  .quantised_dispatch = setup.precision.dispatch() != BF16};
    if (gpu_sms == 0) {
      notes_.push_back("nvlink_two_sided: platform.gpu.sms is not stated: one channel, no SMs are counted");
    }
  }

  std::string name() const override { return kName; }
  RoutingDetail detail() const override { return {}; }
  CommunicationFootprint footprint() const override { return footprint_; }
  absl::Status Admit(const ForwardShape&) override { return absl::OkStatus(); }

  void Dispatch(const RoutedLayer& routed, Exchange* exchange) const override {
    Fill(routed, dispatch_, Direction::kDispatch, exchange);
    int32_t most = 0;
    for (int32_t tokens : routed.tokens) most = std::max(most, tokens);
    exchange->prepare =
        RoundUpWithinStep(PicosecondsOf(timing_.prepare()) + PicosecondsOf(timing_.prepare_per_token()) * most);
    exchange->launch += exchange->prepare;
  }
  void Combine(const RoutedLayer& routed, Exchange* exchange) const override {
    Fill(routed, combine_, Direction::kCombine, exchange);
  }
  void Statistics(int, Exchange*) const override { EPSIM_CHECK(!"statistics ride along"); }
  std::vector<std::string> notes() const override { return notes_; }

 private:
  struct Copy {
    int64_t bytes = 0;
    double efficiency = 1;  // Of the NVLink ports, with what each copy takes besides its bytes.
  };

  void Fill(const RoutedLayer& routed, const Copy& copy, Direction direction, Exchange* exchange) const {
    BeginExchange(ranks_, exchange);
    StraightCopies(routed.tokens_between, copy.bytes, direction, &exchange->traffic);
    exchange->traffic.efficiency.node = copy.efficiency;
    exchange->launch = RoundUpWithinStep(PicosecondsOf(timing_.launch()));
  }

  const int ranks_;
  const NvlinkTwoSidedTiming timing_;
  Copy dispatch_, combine_;
  CommunicationFootprint footprint_;
  std::vector<std::string> notes_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Communication>> NewNvlinkTwoSided(const NvlinkTwoSidedCommunication&,
                                                                 const CommunicationSetup& setup,
                                                                 const LibraryTiming& own) {
  RETURN_IF_ERROR(CheckOneNvlinkDomain(kName, *setup.cluster));
  RETURN_IF_ERROR(CheckRanksDivideExperts(kName, setup));
  const PlatformSpec& platform = setup.cluster->platform();
  std::vector<std::string> notes;
  ASSIGN_OR_RETURN(const LibraryTiming timing, TimingFor(kName, platform, 1, own, &notes));
  ASSIGN_OR_RETURN(const BytesPerSecond nvlink, ParseHardwareBandwidth(platform.nvlink().bandwidth()));
  return std::make_unique<NvlinkTwoSided>(setup, timing.nvlink_two_sided(), nvlink, std::move(notes));
}

}  // namespace epsim
