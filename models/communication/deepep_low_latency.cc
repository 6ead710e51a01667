#include "models/communication/deepep_low_latency.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_join.h"
#include "engine/status_macros.h"
#include "models/communication/copies.h"
#include "models/communication/infeasible.h"
#include "models/communication/nccl_collective.h"
#include "models/communication/token_bytes.h"

namespace epsim {
namespace {

constexpr char kName[] = "deepep_low_latency";
constexpr uint32_t kMostMaxTokens = 1 << 20;
constexpr uint32_t kMostTopK = 11;
constexpr uint32_t kHiddenSizes[] = {2048, 2560, 3072, 3584, 4096, 5120, 6144, 7168, 8192};
constexpr int64_t kHeader = 16;

absl::Status CheckFeasible(const DeepEpLowLatencyCommunication& config, const CommunicationSetup& setup) {
  const ModelSpec& model = setup.model;
  if (std::find(std::begin(kHiddenSizes), std::end(kHiddenSizes), model.hidden()) == std::end(kHiddenSizes)) {
    return Infeasible(kName, "its kernels are not built for hidden ", model.hidden(), "; ",
                      absl::StrJoin(kHiddenSizes, ", "), " would do, or deepep_normal");
  }
  if (model.top_k() > kMostTopK) {
    return Infeasible(kName, model.top_k(), " experts a token; at most ", kMostTopK, " would do, or deepep_normal");
  }
  const Cluster& cluster = *setup.cluster;
  if (config.rdma_only() && !cluster.has_network()) {
    return Infeasible(kName, "rdma_only: the platform has no NICs; without rdma_only it would do");
  }
  if (!config.rdma_only() && !cluster.has_nvlink() && cluster.ranks_per_node() > 1) {
    return Infeasible(kName, "the platform has no NVLink; ",
                      cluster.has_network() ? "rdma_only, nccl_all_to_all or allgather_reducescatter would do"
                                            : "nccl_all_to_all or allgather_reducescatter would do");
  }
  if (config.max_tokens_per_rank() > kMostMaxTokens) {
    return Infeasible(kName, "max_tokens_per_rank: ", config.max_tokens_per_rank(), " is more than ", kMostMaxTokens);
  }
  return absl::OkStatus();
}

class DeepEpLowLatency : public Communication {
 public:
  DeepEpLowLatency(const DeepEpLowLatencyCommunication& config, const CommunicationSetup& setup,
                   const DeepEpLowLatencyTiming& timing, NcclCollective nccl, std::vector<std::string> notes)
      : ranks_(setup.cluster->ranks()),
        way_(config.rdma_only() ? Way::kNetwork : Way::kFastest),
        latency_(setup.cluster->route(Rank(0), Rank(ranks_ - 1), way_).latency),
        max_tokens_(static_cast<int>(config.max_tokens_per_rank())),
        timing_(timing),
        nccl_(std::move(nccl)),
        statistics_(int64_t{4} * setup.model.experts()),
        notes_(std::move(notes)) {
    const NumberType dispatch = TravelFormat(kName, "dispatch", setup.precision.dispatch(), {FP8, NVFP4}, &notes_);
    const NumberType combine = TravelFormat(kName, "combine", setup.precision.combine(), {FP8, NVFP4}, &notes_);
    dispatch_ = ActivationBytes(setup.model.hidden(), dispatch).count() + kHeader;
    combine_ = ActivationBytes(setup.model.hidden(), combine).count();
    footprint_ = {.buffers = DeepEpLowLatencyBuffers(setup.model.hidden(), setup.slots, max_tokens_),
                  .quantised_dispatch = dispatch != BF16};
  }

  std::string name() const override { return kName; }
  RoutingDetail detail() const override { return {.pairs_between = true}; }
  CommunicationFootprint footprint() const override { return footprint_; }
  absl::Status Admit(const ForwardShape& shape) override {
    if (shape.chunks != 1) {
      return Infeasible(kName, shape.chunks,
                        " chunks a layer; it takes all tokens of a layer in one exchange: more "
                        "tokens a chunk, or nvlink_one_sided or allgather_reducescatter would do");
    }
    if (shape.max_tokens_per_rank > max_tokens_) {
      return Infeasible(kName, shape.max_tokens_per_rank, " tokens of one rank in one pass, and its buffers take ",
                        max_tokens_, "; a higher max_tokens_per_rank, smaller steps or deepep_normal would do");
    }
    return absl::OkStatus();
  }

  void Dispatch(const RoutedLayer& routed, Exchange* exchange) const override {
    Fill(routed, dispatch_, Direction::kDispatch, exchange);
  }
  void Combine(const RoutedLayer& routed, Exchange* exchange) const override {
    Fill(routed, combine_, Direction::kCombine, exchange);
  }
  void Statistics(int layers, Exchange* exchange) const override {
    nccl_.AllReduce(Bytes(statistics_ * layers), exchange);
  }
  std::vector<std::string> notes() const override { return notes_; }

 private:
  void Fill(const RoutedLayer& routed, int64_t bytes_per_copy, Direction direction, Exchange* exchange) const {
    BeginExchange(ranks_, exchange);
    exchange->traffic.way = way_;
    StraightCopies(routed.pairs_between, bytes_per_copy, direction, &exchange->traffic);
    exchange->launch = RoundUpWithinStep(PicosecondsOf(timing_.launch()));
    exchange->floor = RoundUpWithinStep(PicosecondsOf(timing_.floor()));
    exchange->traffic.efficiency = {.node = timing_.nvlink_efficiency(), .network = timing_.network_efficiency()};
    const std::string& bandwidth =
        direction == Direction::kDispatch ? timing_.dispatch_copy_bandwidth() : timing_.combine_copy_bandwidth();
    if (bandwidth.empty()) return;
    const double copy = static_cast<double>(bytes_per_copy) * PicosecondsPerByte(bandwidth);
    SetBusy(CountCopies(routed.pairs_between, ranks_), copy, latency_, exchange);
  }

  const int ranks_;
  const Way way_;
  const Duration latency_;  // Of the longest route.
  const int max_tokens_;
  const DeepEpLowLatencyTiming timing_;
  const NcclCollective nccl_;
  const int64_t statistics_;            // Bytes of a layer.
  int64_t dispatch_ = 0, combine_ = 0;  // Bytes of a copy.
  CommunicationFootprint footprint_;
  std::vector<std::string> notes_;
};

}  // namespace

Bytes DeepEpLowLatencyBuffers(int64_t hidden, int64_t slots, int64_t max_tokens_per_rank) {
  const int64_t scales = hidden / 128;
  const int64_t dispatch = kHeader + std::max(2 * hidden, hidden + 4 * scales);
  const int64_t combine = 4 * scales + 2 * hidden;
  const int64_t send = std::max(max_tokens_per_rank * dispatch, slots * max_tokens_per_rank * combine);
  const int64_t receive = slots * max_tokens_per_rank * std::max(dispatch, combine);
  const int64_t flags = (4 * slots + 127) / 128 * 128;
  return Bytes(2 * (send + receive + flags));
}

absl::StatusOr<std::unique_ptr<Communication>> NewDeepEpLowLatency(const DeepEpLowLatencyCommunication& config,
                                                                   const CommunicationSetup& setup,
                                                                   const LibraryTiming& own) {
  RETURN_IF_ERROR(CheckFeasible(config, setup));
  std::vector<std::string> notes;
  const PlatformSpec& platform = setup.cluster->platform();
  ASSIGN_OR_RETURN(const LibraryTiming timing, TimingFor(kName, platform, setup.cluster->nodes(), own, &notes));
  std::vector<std::string> of_statistics;  // They are a small part: what they assume is not worth a note.
  ASSIGN_OR_RETURN(NcclCollective nccl, NcclCollective::Create(*setup.cluster, own, &of_statistics));
  return std::make_unique<DeepEpLowLatency>(config, setup, timing.deepep_low_latency(), std::move(nccl),
                                            std::move(notes));
}

}  // namespace epsim
