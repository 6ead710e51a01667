#include "models/costs/cost_view.h"

#include "absl/container/inlined_vector.h"
#include <algorithm>
#include <vector>

namespace epsim {
namespace {

constexpr int kTokens = 1024;  // Enough to fill the messages of libraries that send small ones slowly.

// `kTokens` tokens of rank 0, each with an expert on every one of `owners`, which may be named several times.
RoutedLayer TokensOfRank0(const Cluster& cluster, std::vector<int> owners) {
  const auto ranks = static_cast<size_t>(cluster.ranks()), nodes = static_cast<size_t>(cluster.nodes());
  RoutedLayer routed;
  routed.tokens_between.assign(ranks * ranks, 0);
  routed.pairs_between.assign(ranks * ranks, 0);
  routed.tokens_to_node.assign(ranks * nodes, 0);
  routed.tokens.assign(ranks, 0);
  routed.tokens[0] = kTokens;
  for (int owner : owners) {
    routed.tokens_between[owner] = kTokens;
    routed.pairs_between[owner] += kTokens;
    routed.tokens_to_node[Index(cluster.node_of(Rank(owner)))] = kTokens;
    routed.pairs += kTokens;
  }
  return routed;
}

// Dispatch and combine of such tokens.
struct Probe {
  Probe(const Cluster& cluster, const Communication& communication, std::vector<int> owners) {
    const RoutedLayer routed = TokensOfRank0(cluster, std::move(owners));
    ClearExchange(cluster.ranks(), &dispatch);
    if (communication.footprint().has_dispatch) communication.Dispatch(routed, &dispatch);
    communication.Combine(routed, &combine);
  }

  // Of one token.
  double Dispatched(int from, int to) const { return Of(dispatch, from, to); }
  double Combined(int from, int to) const { return Of(combine, to, from); }
  bool moves_anything() const {
    return std::any_of(dispatch.traffic.bytes.begin(), dispatch.traffic.bytes.end(), [](int64_t b) { return b > 0; }) ||
           std::any_of(combine.traffic.bytes.begin(), combine.traffic.bytes.end(), [](int64_t b) { return b > 0; });
  }

  Exchange dispatch, combine;

 private:
  static double Of(const Exchange& exchange, int from, int to) {
    return static_cast<double>(exchange.traffic.bytes[from * exchange.traffic.ranks + to]) / kTokens;
  }
};

double Efficiency(const LinkSpec& link, const LinkEfficiency& efficiency) {
  const bool network =
      link.link_class == LinkClass::kNic || link.link_class == LinkClass::kLeaf || link.link_class == LinkClass::kSpine;
  return network ? efficiency.network : efficiency.node;
}

// Copies that cross each link while every rank sends one.
struct LinkUse {
  std::vector<double> node, network;  // [links]: to all ranks of its node alike, and of other nodes.
};

// Whether a copy crosses the network from `source` to `destination` at all.
bool Sends(const Cluster& cluster, ExchangeCost::Copies copies, Rank source, Rank destination) {
  if (source == destination) return false;
  const Node node = cluster.node_of(destination);
  return cluster.node_of(source) == node || copies != ExchangeCost::Copies::kOncePerNode ||
         cluster.rail_peer(source, node) == destination;
}

LinkUse UseOfLinks(const Cluster& cluster, ExchangeCost::Copies copies, Way way) {
  LinkUse use{std::vector<double>(cluster.links().size()), std::vector<double>(cluster.links().size())};
  const bool to_peers = copies == ExchangeCost::Copies::kOncePerNode;
  const double near = cluster.ranks_per_node() - 1;
  const double far = to_peers ? cluster.nodes() - 1 : cluster.ranks() - cluster.ranks_per_node();
  for (int source = 0; source < cluster.ranks(); ++source) {
    for (int destination = 0; destination < cluster.ranks(); ++destination) {
      if (!Sends(cluster, copies, Rank(source), Rank(destination))) continue;
      const bool in_node = cluster.node_of(Rank(source)) == cluster.node_of(Rank(destination));
      const Route route = cluster.route(Rank(source), Rank(destination), way);
      for (Link link : route.links()) {
        (in_node ? use.node : use.network)[Index(link)] += 1 / (in_node ? near : far);
      }
    }
  }
  return use;
}

// One direction of one leg.
struct Leg {
  double node_bytes = 0, network_bytes = 0;  // Of a copy.
  LinkEfficiency efficiency;
};

// What `leg` takes of the links that a rank's copies leave by (`outgoing`) or come by.  [ranks]
std::vector<PortTime> TimesOfPorts(const Cluster& cluster, ExchangeCost::Copies copies, Way way, const LinkUse& use,
                                   const Leg& leg, bool outgoing) {
  std::vector<PortTime> times(cluster.ranks());
  for (int source = 0; source < cluster.ranks(); ++source) {
    for (int destination = 0; destination < cluster.ranks(); ++destination) {
      if (!Sends(cluster, copies, Rank(source), Rank(destination))) continue;
      PortTime& time = times[outgoing ? source : destination];
      const Route route = cluster.route(Rank(source), Rank(destination), way);
      for (Link link : route.links()) {
        const LinkSpec& spec = cluster.links()[Index(link)];
        if (spec.outgoing != outgoing) continue;
        const double ps_per_byte =
            1e12 / (Efficiency(spec, leg.efficiency) * static_cast<double>(spec.bandwidth.count()));
        const double near = use.node[Index(link)] * leg.node_bytes * ps_per_byte;
        const double far = use.network[Index(link)] * leg.network_bytes * ps_per_byte;
        time.node_ps = std::max(time.node_ps, near);
        (use.node[Index(link)] > 0 ? time.through_ps : time.network_ps) =
            std::max(use.node[Index(link)] > 0 ? time.through_ps : time.network_ps, far);
      }
    }
  }
  return times;
}

std::vector<PortTime> Sum(std::vector<PortTime> a, const std::vector<PortTime>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    a[i].node_ps += b[i].node_ps;
    a[i].through_ps += b[i].through_ps;
    a[i].network_ps += b[i].network_ps;
  }
  return a;
}

}  // namespace

std::optional<ExchangeCost> LearnExchangeCost(const Cluster& cluster, const Communication& communication) {
  const int ranks = cluster.ranks(), per_node = cluster.ranks_per_node();
  if (ranks == 1 || Probe(cluster, communication, {}).moves_anything()) return std::nullopt;
  ExchangeCost cost;
  const int other = per_node > 1 ? 1 : per_node;  // A rank besides 0.
  const Probe once(cluster, communication, {other}), twice(cluster, communication, {other, other});
  if (!once.moves_anything()) return std::nullopt;
  if (twice.Dispatched(0, other) > once.Dispatched(0, other)) cost.copies = ExchangeCost::Copies::kOncePerExpert;
  Leg dispatch{.efficiency = once.dispatch.traffic.efficiency}, combine{.efficiency = once.combine.traffic.efficiency};
  if (per_node > 1) {
    dispatch.node_bytes = once.Dispatched(0, 1);
    combine.node_bytes = once.Combined(0, 1);
  }
  if (cluster.nodes() > 1) {
    const Probe far(cluster, communication, {per_node});
    dispatch.network_bytes = far.Dispatched(0, per_node);
    combine.network_bytes = far.Combined(0, per_node);
    if (per_node > 1) {
      // Beyond the rank with the place of the token's own: straight, or handed on there?
      const Probe beyond(cluster, communication, {per_node + 1});
      if (beyond.Dispatched(0, per_node + 1) == 0) cost.copies = ExchangeCost::Copies::kOncePerNode;
    }
  }

  const Way way = once.dispatch.traffic.way;
  const LinkUse use = UseOfLinks(cluster, cost.copies, way);
  const auto ports = [&](const Leg& leg, bool outgoing) {
    return TimesOfPorts(cluster, cost.copies, way, use, leg, outgoing);
  };
  cost.sending = Sum(ports(dispatch, true), ports(combine, false));
  cost.receiving = Sum(ports(dispatch, false), ports(combine, true));
  Duration node{}, network{};
  for (int destination = 1; destination < ranks; ++destination) {
    const Duration latency = cluster.route(Rank(0), Rank(destination), way).latency;
    Duration& longest = destination < per_node ? node : network;
    if (Sends(cluster, cost.copies, Rank(0), Rank(destination))) longest = std::max(longest, latency);
  }
  cost.node_latency = 2 * node;
  cost.network_latency = 2 * std::max(node, network);
  return cost;
}

Duration ModelCostView::ExpertTime(Layer layer, absl::Span<const LogicalExpert> experts,
                                   absl::Span<const int32_t> tokens_per_slot) const {
  if (scale_ == nullptr) return costs_.RoutedExperts(tokens_per_slot).time;
  absl::InlinedVector<double, 64> scale(experts.size());
  scale_->Gather(layer, experts, absl::MakeSpan(scale));
  return costs_.RoutedExperts(tokens_per_slot, scale).time;
}

}  // namespace epsim
