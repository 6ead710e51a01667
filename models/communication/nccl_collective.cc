#include "models/communication/nccl_collective.h"

#include <algorithm>
#include <numeric>

#include "engine/check.h"
#include "engine/status_macros.h"
#include "engine/unit_text.h"

namespace epsim {
namespace {

constexpr int64_t kChannelBuffer = 4 << 20;   // NCCL_BUFFSIZE.
constexpr double kLowLatencyMessage = 16384;  // NCCL_P2P_LL_THRESHOLD.
constexpr double kSendReceiveWindow = 4 << 20;
constexpr int64_t kLeastInSwitch = 16'000'000;
constexpr uint32_t kFirstReducingSwitch = 90;  // Compute capability of the first GPUs with such an NVSwitch.
constexpr int kMostGpusOfASocket = 4;
constexpr double kFlagShare = 0.5;  // Of the bytes of the low-latency protocol on the network.

// The `part`-th of `parts` shares of `bytes`, which add up to it.
constexpr int64_t Share(int64_t bytes, int part, int parts) {
  return bytes * (part + 1) / parts - bytes * part / parts;
}

}  // namespace

NcclCollective::NcclCollective(const Cluster& cluster, const NcclTiming& timing)
    : cluster_(&cluster),
      ranks_(cluster.ranks()),
      nodes_(cluster.nodes()),
      per_node_(cluster.ranks_per_node()),
      nvlink_(cluster.has_nvlink()),
      reduces_in_switch_(nvlink_ && nodes_ == 1 && timing.has_nvls_efficiency() &&
                         cluster.platform().gpu().compute_capability() >= kFirstReducingSwitch),
      latency_(static_cast<double>(cluster.route(Rank(0), Rank(ranks_ - 1)).latency.count())),
      launch_(PicosecondsOf(timing.launch())),
      hop_(PicosecondsOf(timing.hop())),
      low_latency_(PicosecondsPerByte(timing.low_latency_bandwidth())),
      channels_time_(PicosecondsPerByte(timing.channel_bandwidth()) / timing.channels()),
      socket_(PicosecondsPerByte(timing.socket_bandwidth())),
      nvls_efficiency_(timing.nvls_efficiency()),
      spread_loss_(timing.spread_loss()),
      network_efficiency_(timing.network_efficiency()),
      window_(static_cast<double>(ParseBytes(timing.window())->count())),
      channels_(static_cast<int>(timing.channels())) {
  const PlatformSpec& platform = cluster.platform();
  peak_ = PicosecondsPerByte(nvlink_ ? platform.nvlink().bandwidth() : platform.pcie().bandwidth());
  link_ = peak_ / timing.link_efficiency();
  if (nodes_ > 1) {
    const double nics = platform.nic().per_node() == 0 ? per_node_ : platform.nic().per_node();
    nic_ = PicosecondsPerByte(platform.nic().bandwidth()) * per_node_ / nics;
  }
}

absl::StatusOr<NcclCollective> NcclCollective::Create(const Cluster& cluster, const LibraryTiming& own,
                                                      std::vector<std::string>* notes) {
  ASSIGN_OR_RETURN(const LibraryTiming timing, TimingFor("nccl", cluster.platform(), cluster.nodes(), own, notes));
  return NcclCollective(cluster, timing.nccl());
}

void NcclCollective::AllGather(absl::Span<const int64_t> contributed, Exchange* exchange) const {
  ClearExchange(ranks_, exchange);
  AddRings(contributed, /*to=*/true, &exchange->traffic);
  TimeRings(1, std::accumulate(contributed.begin(), contributed.end(), int64_t{0}), exchange);
}

void NcclCollective::ReduceScatter(absl::Span<const int64_t> kept, Exchange* exchange) const {
  ClearExchange(ranks_, exchange);
  AddRings(kept, /*to=*/false, &exchange->traffic);
  TimeRings(1, std::accumulate(kept.begin(), kept.end(), int64_t{0}), exchange);
}

void NcclCollective::AllReduce(Bytes size, Exchange* exchange) const {
  ClearExchange(ranks_, exchange);
  std::vector<int64_t> shares;
  for (int rank = 0; rank < ranks_; ++rank) shares.push_back(Share(size.count(), rank, ranks_));
  AddRings(shares, /*to=*/false, &exchange->traffic);
  AddRings(shares, /*to=*/true, &exchange->traffic);
  TimeRings(2, size.count(), exchange);
}

void NcclCollective::AddRings(absl::Span<const int64_t> skipped, bool to, TrafficMatrix* traffic) const {
  EPSIM_CHECK(skipped.size() == static_cast<size_t>(ranks_));
  const int64_t all = std::accumulate(skipped.begin(), skipped.end(), int64_t{0});
  const int rings = nodes_ > 1 ? per_node_ : 1;
  for (int ring = 0; ring < rings; ++ring) {
    // Each node's chain begins where the rail of the last one's end leads.
    const auto rank_at = [&](int position) {
      const int node = position / per_node_ % nodes_;
      return node * per_node_ + (ring + position - node) % per_node_;
    };
    for (int position = 0; position < ranks_; ++position) {
      const int from = rank_at(position), next = rank_at(position + 1);
      if (from != next) traffic->bytes[from * ranks_ + next] += Share(all - skipped[to ? next : from], ring, rings);
    }
  }
}

void NcclCollective::TimeRings(int passes, int64_t size, Exchange* exchange) const {
  if (ranks_ == 1) return;
  const double steps = passes * (ranks_ - 1), share = static_cast<double>(size) / ranks_;
  const double latency = launch_ + latency_ + steps * hop_ + passes * (nodes_ - 1) * latency_;
  // Of the bytes of a step, those that a rank sends inside its node and over its NIC.
  const double inside = nodes_ == 1 ? 1 : (per_node_ - 1.0) / per_node_, outside = nodes_ == 1 ? 0 : 1.0 / per_node_;
  const auto even = [&](double before, double per_byte, double network_efficiency) {
    const double link = std::max(inside * per_byte, outside * nic_ / network_efficiency);
    return Protocol{before, per_byte, network_efficiency, before + steps * share * link};
  };
  Protocol best = even(latency, low_latency_, network_efficiency_ * (1 - kFlagShare));
  const double simple = nvlink_ ? std::max(link_, channels_time_) : link_;
  const double fill = nvlink_ ? std::min(share, window_) * channels_time_ : window_ * channels_time_ / 2;
  const Protocol in_steps = even(latency + (nvlink_ ? 2 * hop_ : 0) + steps * fill, simple, network_efficiency_);
  if (in_steps.time < best.time) best = in_steps;
  if (passes == 2 && reduces_in_switch_ && size >= kLeastInSwitch) {
    // Ports carry `crossing` bytes in the time of `size`.
    const double time = static_cast<double>(size) * simple / nvls_efficiency_;
    const int64_t crossing = size + (size + ranks_ - 1) / ranks_;
    const Protocol in_switch{latency + steps * fill, time / static_cast<double>(crossing), 1,
                             latency + steps * fill + time};
    if (in_switch.time < best.time) {
      best = in_switch;
      TrafficMatrix& traffic = exchange->traffic;
      for (int source = 0; source < ranks_; ++source) {
        for (int k = 0; k < ranks_; ++k) {
          const int destination = (source + k) % ranks_;
          traffic.bytes[source * ranks_ + destination] = k == 0 ? 0 : Share(crossing, k - 1, ranks_ - 1);
        }
      }
    }
  }
  Apply(best, exchange);
}

void NcclCollective::AllToAll(Exchange* exchange) const {
  const TrafficMatrix& traffic = exchange->traffic;
  EPSIM_CHECK(traffic.ranks == ranks_);
  exchange->busy.assign(ranks_, Duration{});
  exchange->launch = exchange->prepare = exchange->floor = Duration{};
  if (ranks_ == 1) return;
  std::vector<int64_t> sent(ranks_), received(ranks_);
  for (int source = 0; source < ranks_; ++source) {
    for (int destination = 0; destination < ranks_; ++destination) {
      const int64_t bytes = traffic.bytes[source * ranks_ + destination];
      sent[source] += bytes;
      received[destination] += bytes;
    }
  }
  const double all = static_cast<double>(std::accumulate(sent.begin(), sent.end(), int64_t{0}));
  const double message = all / ranks_ / (ranks_ - 1);
  const std::vector<double> between_sockets = BytesBetweenSockets(traffic);
  Protocol protocol{.before = launch_ + latency_ + (2 + (ranks_ - 2) / 4.0) * hop_};
  const bool low_latency = message <= kLowLatencyMessage;
  if (low_latency) {
    protocol.per_byte = low_latency_;
    protocol.network_efficiency = network_efficiency_ * (1 - kFlagShare);
  } else {
    protocol.before += launch_ + latency_ + (ranks_ - 2) * std::min(message, kSendReceiveWindow) * channels_time_ / 2;
    protocol.per_byte = link_ * (nvlink_ && ranks_ > 2 ? 1 + spread_loss_ : 1);
    protocol.network_efficiency = network_efficiency_;
  }
  Apply(protocol, exchange);
  for (int rank = 0; rank < ranks_; ++rank) {
    double busy = between_sockets[rank] * (low_latency ? low_latency_ : socket_);
    if (nvlink_ && !low_latency) {
      busy = static_cast<double>(std::max(sent[rank], received[rank])) * ranks_ / (ranks_ - 1) * channels_time_;
    }
    if (busy > 0) exchange->busy[rank] = RoundUpWithinStep(busy + latency_);
  }
}

std::vector<double> NcclCollective::BytesBetweenSockets(const TrafficMatrix& traffic) const {
  std::vector<double> bytes(ranks_);
  if (nvlink_ || per_node_ <= kMostGpusOfASocket) return bytes;
  const int half = per_node_ / 2;
  for (int node = 0; node < nodes_; ++node) {
    int64_t up = 0, down = 0;
    for (int a = node * per_node_; a < node * per_node_ + half; ++a) {
      for (int b = node * per_node_ + half; b < (node + 1) * per_node_; ++b) {
        up += traffic.bytes[a * ranks_ + b];
        down += traffic.bytes[b * ranks_ + a];
      }
    }
    const auto most = static_cast<double>(std::max(up, down));
    std::fill_n(bytes.begin() + node * per_node_, per_node_, most);
  }
  return bytes;
}

void NcclCollective::Apply(const Protocol& protocol, Exchange* exchange) const {
  // The network adds the latency of the route.
  exchange->launch = RoundUpWithinStep(std::max(0.0, protocol.before - latency_));
  exchange->traffic.efficiency = {.node = std::min(1.0, peak_ / protocol.per_byte),
                                  .network = protocol.network_efficiency};
}

void NcclCollective::Run(NcclOperation operation, Bytes size, Exchange* exchange) const {
  std::vector<int64_t> shares;
  for (int rank = 0; rank < ranks_; ++rank) shares.push_back(Share(size.count(), rank, ranks_));
  switch (operation) {
    case NcclOperation::kAllGather:
      return AllGather(shares, exchange);
    case NcclOperation::kReduceScatter:
      return ReduceScatter(shares, exchange);
    case NcclOperation::kAllReduce:
      return AllReduce(size, exchange);
    case NcclOperation::kAllToAll:
      ClearExchange(ranks_, exchange);
      for (int source = 0; source < ranks_; ++source) {
        for (int destination = 0; destination < ranks_; ++destination) {
          if (source != destination) exchange->traffic.bytes[source * ranks_ + destination] = shares[destination];
        }
      }
      return AllToAll(exchange);
  }
}

Bytes NcclCollective::buffers(NcclOperation operation) const {
  const int64_t peers = operation == NcclOperation::kAllToAll ? ranks_ - 1 : std::min(ranks_ - 1, 1);
  return Bytes(channels_ * peers * kChannelBuffer);
}

}  // namespace epsim
