#include "models/communication/deepep_normal.h"

#include <algorithm>
#include <utility>

#include "engine/check.h"
#include "engine/status_macros.h"
#include "models/communication/copies.h"
#include "models/communication/infeasible.h"
#include "models/communication/nccl_collective.h"
#include "models/communication/token_bytes.h"

namespace epsim {
namespace {

constexpr char kName[] = "deepep_normal";
constexpr uint32_t kMostSms = 1024;

constexpr int64_t RoundUp(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

absl::Status CheckRanks(const Cluster& cluster) {
  const int ranks = cluster.ranks(), nodes = cluster.nodes(), per_node = cluster.ranks_per_node();
  if (!cluster.has_nvlink()) {
    return Infeasible(kName,
                      "it copies over NVLink inside a node, and the platform has none; deepep_low_latency with "
                      "rdma_only, nccl_all_to_all or allgather_reducescatter would do");
  }
  if (nodes == 1 && ranks != 2 && ranks != 4 && ranks != 8) {
    return Infeasible(kName, ranks, " ranks on one node; 2, 4 or 8 would do, or 2, 4, 8 or 16 nodes of 8");
  }
  if (nodes > 1 && (per_node != 8 || (nodes != 2 && nodes != 4 && nodes != 8 && nodes != 16))) {
    return Infeasible(kName, ranks, " ranks on ", nodes, " nodes of ", per_node,
                      "; 2, 4, 8 or 16 nodes of 8 would do, or 2, 4 or 8 ranks on one");
  }
  return absl::OkStatus();
}

class DeepEpNormal : public Communication {
 public:
  DeepEpNormal(const DeepEpNormalCommunication& config, const CommunicationSetup& setup, int sms,
               const DeepEpNormalTiming& timing, NcclCollective nccl, std::vector<std::string> notes)
      : cluster_(*setup.cluster),
        ranks_(cluster_.ranks()),
        nodes_(cluster_.nodes()),
        latency_(cluster_.route(Rank(0), Rank(ranks_ - 1)).latency),
        timing_(timing),
        nccl_(std::move(nccl)),
        statistics_(int64_t{4} * setup.model.experts()),
        notes_(std::move(notes)) {
    const NumberType format = config.bf16_dispatch()
                                  ? BF16
                                  : TravelFormat(kName, "dispatch", setup.precision.dispatch(), {FP8, NVFP4}, &notes_);
    TravelFormat(kName, "combine", setup.precision.combine(), {}, &notes_);
    const int64_t top_k = setup.model.top_k();
    dispatch_.node = ActivationBytes(setup.model.hidden(), format).count();
    dispatch_.network = RoundUp(dispatch_.node + 8 + 8 * top_k, 16);
    combine_.node = ActivationBytes(setup.model.hidden(), BF16).count();
    combine_.network = RoundUp(combine_.node + 8 + 4 * top_k, 16);
    footprint_ = {.sms = sms,
                  .buffers = DeepEpNormalBuffers(setup.model.hidden(), sms, nodes_, cluster_.ranks_per_node()),
                  .quantised_dispatch = format != BF16};
  }

  std::string name() const override { return kName; }
  RoutingDetail detail() const override { return {.tokens_to_node = nodes_ > 1}; }
  CommunicationFootprint footprint() const override { return footprint_; }
  absl::Status Admit(const ForwardShape& shape) override {
    if (shape.chunks == 1) return absl::OkStatus();
    return Infeasible(kName, shape.chunks,
                      " chunks a layer; it takes all tokens of a layer in one exchange: more "
                      "tokens a chunk, or nvlink_one_sided or allgather_reducescatter would do");
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
  // Of one copy of a token inside a node and between nodes.
  struct CopyBytes {
    int64_t node = 0, network = 0;
  };

  void Fill(const RoutedLayer& routed, const CopyBytes& copy, Direction direction, Exchange* exchange) const {
    ClearExchange(ranks_, exchange);
    EPSIM_CHECK(routed.tokens_between.size() == exchange->traffic.bytes.size());
    EPSIM_CHECK(routed.tokens.size() == static_cast<size_t>(ranks_));
    EPSIM_CHECK(nodes_ == 1 || routed.tokens_to_node.size() == static_cast<size_t>(ranks_) * nodes_);
    const int per_node = cluster_.ranks_per_node();
    const auto add = [&](int from, int to, int64_t bytes) {
      if (direction == Direction::kCombine) std::swap(from, to);
      exchange->traffic.bytes[from * ranks_ + to] += bytes;
    };
    for (int source = 0; source < ranks_; ++source) {
      for (int node = 0; node < nodes_; ++node) {
        const int peer = static_cast<int>(Index(cluster_.rail_peer(Rank(source), Node(node))));
        if (peer != source) add(source, peer, routed.tokens_to_node[source * nodes_ + node] * copy.network);
        for (int owner = node * per_node; owner < (node + 1) * per_node; ++owner) {
          if (owner != peer) add(peer, owner, routed.tokens_between[source * ranks_ + owner] * copy.node);
        }
      }
    }
    ApplyTiming(routed, copy.node, exchange);
  }

  void ApplyTiming(const RoutedLayer& routed, int64_t bytes_per_copy, Exchange* exchange) const {
    const CopiesOfRanks copies = CountCopies(routed.tokens_between, ranks_);
    const double copy = static_cast<double>(bytes_per_copy) * PicosecondsPerByte(timing_.sm_bandwidth());
    const double channels = footprint_.sms / 2.0;
    double fill = 0;
    for (int rank = 0; rank < ranks_; ++rank) {
      const double sent = static_cast<double>(copies.sent[rank]), tokens = routed.tokens[rank];
      if (tokens > 0) fill = std::max(fill, sent / tokens * copy * std::min(tokens / channels, timing_.fill_tokens()));
    }
    SetBusy(copies, copy / footprint_.sms, latency_, exchange);
    exchange->launch = RoundUpWithinStep(PicosecondsOf(timing_.launch()) + fill);
    exchange->traffic.efficiency = {.node = timing_.nvlink_efficiency(), .network = timing_.network_efficiency()};
  }

  const Cluster& cluster_;
  const int ranks_, nodes_;
  const Duration latency_;  // Of the longest route.
  const DeepEpNormalTiming timing_;
  const NcclCollective nccl_;
  const int64_t statistics_;  // Bytes of a layer.
  CopyBytes dispatch_, combine_;
  CommunicationFootprint footprint_;
  std::vector<std::string> notes_;
};

}  // namespace

Bytes DeepEpNormalBuffers(int64_t hidden, int sms, int nodes, int ranks_per_node) {
  const int64_t channels = sms / 2;
  const int64_t node_tokens = nodes == 1 ? 256 : nodes <= 8 ? 288 : 560;
  const int64_t network_tokens = nodes == 4 ? 128 : nodes == 16 ? 132 : 140;
  const int64_t token = 2 * hidden + 8 + 1024 + 512 + 512;
  const int64_t nvlink = channels * ranks_per_node * (4 * (2 * nodes + 3) + node_tokens * token);
  const int64_t network = channels * nodes * (4 * 36 + 2 * network_tokens * (token + 16)) + (1 << 20);
  return Bytes(RoundUp(nvlink, 128) + (nodes > 1 ? RoundUp(network, 128) : 0));
}

absl::StatusOr<std::unique_ptr<Communication>> NewDeepEpNormal(const DeepEpNormalCommunication& config,
                                                               const CommunicationSetup& setup,
                                                               const LibraryTiming& own) {
  RETURN_IF_ERROR(CheckRanks(*setup.cluster));
  RETURN_IF_ERROR(CheckRanksDivideExperts(kName, setup));
  const PlatformSpec& platform = setup.cluster->platform();
  const uint32_t sms = config.sms(), most = platform.gpu().sms();
  if (sms % 2 != 0) {
    return Infeasible(kName, "sms: ", sms, " is odd, and a channel takes two; ", sms - 1, " or ", sms + 1, " would do");
  }
  if (most > 0 && sms > most) return Infeasible(kName, "sms: ", sms, " is more than the ", most, " of the GPU");
  if (sms > kMostSms) return Infeasible(kName, "sms: ", sms, " is more than ", kMostSms);
  std::vector<std::string> notes;
  ASSIGN_OR_RETURN(const LibraryTiming timing, TimingFor(kName, platform, setup.cluster->nodes(), own, &notes));
  std::vector<std::string> of_statistics;  // They are a small part: what they assume is not worth a note.
  ASSIGN_OR_RETURN(NcclCollective nccl, NcclCollective::Create(*setup.cluster, own, &of_statistics));
  return std::make_unique<DeepEpNormal>(config, setup, static_cast<int>(sms), timing.deepep_normal(), std::move(nccl),
                                        std::move(notes));
}

}  // namespace epsim
