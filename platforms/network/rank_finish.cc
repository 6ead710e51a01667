#include "platforms/network/rank_finish.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "engine/check.h"
#include "platforms/network/lane_time.h"
#include "platforms/network/wide.h"

namespace epsim {
namespace {

// The latest and second latest of a list that grows.
struct LatestTwo {
  SimTime first = SimTime::min(), second = SimTime::min();
  int holder = -1;
  void Add(SimTime time, int who) {
    if (time > first) {
      second = std::exchange(first, time);
      holder = who;
    } else if (time > second) {
      second = time;
    }
  }
  SimTime OfOthers(int who) const { return who == holder ? second : first; }
};

constexpr size_t kMostServedKept = 8;
// In groups of more ranks than this the latest links are followed until they have so many flows for each rank: those
// behind hardly delay a rank further.  (Each costs the square of the ranks.)
constexpr size_t kSmallGroup = 64, kFlowsFollowed = 3;

// Sum over `count` flows, a multiple of 8, of what they have sent by the time that a flow of `bytes` has sent all.
[[gnu::always_inline]] inline double Served(const double* flows, size_t count, double bytes) {
  const WideDouble most = {bytes, bytes, bytes, bytes};
  WideDouble sums[2] = {};
  for (size_t i = 0; i < count; i += 8) {
#pragma GCC unroll 2
    for (size_t w = 0; w < 2; ++w) {
      WideDouble flow;
      std::memcpy(&flow, flows + i + 4 * w, sizeof(flow));
      sums[w] += flow < most ? flow : most;
    }
  }
  sums[0] += sums[1];
  return sums[0][0] + sums[0][1] + sums[0][2] + sums[0][3];
}
using ServedFunction = decltype(Served);
double ServedBaseline(const double* flows, size_t count, double bytes) { return Served(flows, count, bytes); }
[[EPSIM_AVX2]] double ServedAvx2(const double* flows, size_t count, double bytes) {
  return Served(flows, count, bytes);
}

}  // namespace

void RankFinish::Hear(const RouteTable& routes, absl::Span<const SimTime> release) {
  const int ranks = routes.ranks();
  const LinkClass near_class = routes.cluster().has_nvlink() ? LinkClass::kNvlink : LinkClass::kPcie;
  for (int begin = 0; routes.has_near() && begin < ranks; begin = routes.near_end(begin)) {
    LatestTwo near;
    for (int rank = begin; rank < routes.near_end(begin); ++rank) near.Add(release[rank], rank);
    for (int rank = begin; rank < routes.near_end(begin); ++rank) {
      WaitFor(rank, After(near.OfOthers(rank) + routes.near_latency()), near_class);
    }
  }
  if (!routes.has_far()) return;
  const auto far = [&](int a, int b) { return a != b && (b < routes.near_begin(a) || b >= routes.near_end(a)); };
  if (routes.one_far_latency()) {
    // The latest releases of two groups that are near to themselves.
    LatestTwo groups;
    const auto group = [&](int rank) { return routes.has_near() ? routes.near_begin(rank) : rank; };
    for (int rank = 0; rank < ranks;) {
      const int begin = rank, end = routes.has_near() ? routes.near_end(rank) : rank + 1;
      SimTime latest = release[rank];
      for (; rank < end; ++rank) latest = std::max(latest, release[rank]);
      groups.Add(latest, group(begin));
    }
    for (int rank = 0; rank < ranks; ++rank) {
      WaitFor(rank, After(groups.OfOthers(group(rank)) + routes.far_latency()), LinkClass::kNic);
    }
    return;
  }
  std::vector<int> order(ranks);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return release[a] > release[b]; });
  for (int rank = 0; rank < ranks; ++rank) {
    for (const int other : order) {
      if (After(release[other] + routes.far_latency()) <= latest_[rank]) break;
      if (far(rank, other)) WaitFor(rank, After(release[other] + routes.latency(other, rank)), LinkClass::kNic);
    }
  }
}

void RankFinish::WaitForPorts(const PhaseTraffic& traffic, const SolvedLinks& links) {
  const RouteTable& routes = traffic.routes();
  for (const RouteTable::Port& port : routes.ports()) {
    for (int rank = 0; rank < routes.ranks(); ++rank) {
      for (const int link : {port.out(rank), port.in(rank)}) {
        if (links.bytes[link] == 0) continue;
        const bool from_host = port.link_class == LinkClass::kPcie && traffic.from_host(rank) > 0;
        const Duration latency = from_host ? std::min(port.latency, routes.host_latency(rank)) : port.latency;
        WaitFor(rank, After(links.finish[link] + latency), port.link_class);
      }
    }
  }
}

void RankFinish::FindOnPort(const RouteTable::Port& port, const Busy& busy, const PhaseTraffic& traffic,
                            const SolvedLinks& links) {
  const RouteTable& routes = traffic.routes();
  const int owner = (busy.link - port.first) / 2;
  const bool outgoing = busy.link == port.out(owner);
  const int near_begin = routes.near_begin(owner), near_end = routes.near_end(owner);
  const double k = traffic.picoseconds_per_byte(busy.link), begin = Begin(busy.link, links);
  const int64_t* const row = traffic.row(owner);
  const int64_t* const column = traffic.row(0) + owner;
  const size_t stride = traffic.stride();
  const auto for_peers = [&](auto visit) {
    if (port.far) visit(0, near_begin);
    if (port.near) visit(near_begin, near_end);
    if (port.far) visit(near_end, routes.ranks());
  };
  const double most = k * routes.ranks(), finish = After(links.finish[busy.link]);
  // The flow with `peer` as it would end for `rank`, one of the two.
  const auto candidate = [&](int peer, int rank, double bytes) {
    const bool near = peer >= near_begin && peer < near_end;
    const Duration latency = near                       ? routes.near_latency()
                             : routes.one_far_latency() ? routes.far_latency()
                                                        : routes.latency(owner, peer);
    return Candidate{rank, bytes, std::max(begin, release_[outgoing ? owner : peer]),
                     static_cast<double>(latency.count())};
  };
  const auto matters = [&](const Candidate& flow) {
    return std::min(finish, flow.start + most * flow.bytes) + flow.latency > latest_[flow.rank];
  };
  for (const int peer : open_) {
    const bool near = peer >= near_begin && peer < near_end;
    if (near ? !port.near : !port.far) continue;
    const auto bytes = static_cast<double>(outgoing ? row[peer] : column[peer * stride]);
    if (bytes == 0) continue;
    const Candidate flow = candidate(peer, peer, bytes);
    if (matters(flow)) candidates_.push_back(flow);
  }
  if (busy.latest > latest_[owner]) {  // Where latencies differ: of its own flows the largest that matters.
    Candidate own{owner, 0, 0, 0};
    for_peers([&](int first, int end) {
      for (int peer = first; peer < end; ++peer) {
        const auto bytes = static_cast<double>(outgoing ? row[peer] : column[peer * stride]);
        if (bytes <= own.bytes) continue;
        const Candidate flow = candidate(peer, owner, bytes);
        if (matters(flow)) own = flow;
      }
    });
    if (own.bytes > 0) candidates_.push_back(own);
  }
  if (candidates_.empty()) return;
  flows_.resize(latest_.size());
  double* flow = flows_.data();
  for_peers([&](int first, int end) {
    const int64_t* bytes = outgoing ? row + first : column + first * stride;
    for (int peer = first; peer < end; ++peer, bytes += outgoing ? 1 : stride) {
      *flow = static_cast<double>(*bytes);
      flow += *bytes > 0 ? 1 : 0;
    }
  });
  flows_.resize(static_cast<size_t>(flow - flows_.data()));
}

void RankFinish::FindOnLink(const Busy& busy, const PhaseTraffic& traffic, const SolvedLinks& links) {
  const double begin = Begin(busy.link, links), finish = After(links.finish[busy.link]);
  const auto candidate = [&](int rank, double bytes, int source, int destination) {
    const auto latency = static_cast<double>(traffic.latency(source, destination).count());
    if (finish + latency > latest_[rank]) {
      candidates_.push_back({rank, bytes, std::max(begin, release_[source]), latency});
    }
  };
  // Runs of a source may be several, of a destination too: the largest of each of them.
  traffic.routes().ForEachRun(busy.link, [&](const RouteTable::Run& run) {
    const int64_t* const row = traffic.row(run.source);
    const size_t known = flows_.size();
    flows_.resize(known + static_cast<size_t>(run.end - run.begin));
    double* flow = flows_.data() + known;
    double most = 0;
    int to = run.begin;
    for (int destination = run.begin; destination < run.end; ++destination) {
      const auto bytes = static_cast<double>(row[destination]);
      *flow++ = bytes;
      if (bytes > most) {
        most = bytes;
        to = destination;
      }
      if (bytes > largest_[destination].bytes) largest_[destination] = {bytes, run.source};
    }
    if (most > 0) candidate(run.source, most, run.source, to);
  });
  for (int rank = 0; rank < static_cast<int>(largest_.size()); ++rank) {
    if (largest_[rank].bytes == 0) continue;
    candidate(rank, largest_[rank].bytes, largest_[rank].source, rank);
    largest_[rank].bytes = 0;
  }
  if (!traffic.has_from_host()) return;
  for (const int rank : traffic.routes().host_users(busy.link)) {
    if (traffic.from_host(rank) == 0) continue;
    flows_.push_back(static_cast<double>(traffic.from_host(rank)));
    candidate(rank, flows_.back(), rank, rank);
  }
}

void RankFinish::WaitForFlows(const PhaseTraffic& traffic, const SolvedLinks& links) {
  const RouteTable& routes = traffic.routes();
  static ServedFunction* const served = HasAvx2() ? ServedAvx2 : ServedBaseline;
  largest_.resize(latest_.size());
  Duration longest = std::max(routes.near_latency(), routes.far_latency());
  if (traffic.has_from_host()) {
    for (int rank = 0; rank < routes.ranks(); ++rank) longest = std::max(longest, routes.host_latency(rank));
  }
  const double earliest = *std::min_element(latest_.begin(), latest_.end());
  busy_.clear();
  const auto add = [&](int link, double latency) {
    if (links.bytes[link] == 0) return;
    const double latest = After(links.finish[link]) + latency;
    if (latest > earliest) busy_.push_back({latest, link});
  };
  for (const RouteTable::Port& port : routes.ports()) {
    const Duration near = port.near ? routes.near_latency() : Duration(0);
    const Duration far = port.far ? routes.far_latency() : Duration(0);
    const auto latency = static_cast<double>(traffic.has_from_host() ? longest.count() : std::max(near, far).count());
    for (int link = port.first; link < port.first + 2 * routes.ranks(); ++link) add(link, latency);
  }
  for (const int link : routes.shared()) add(link, static_cast<double>(longest.count()));
  for (const int link : routes.host_only()) add(link, static_cast<double>(longest.count()));
  std::make_heap(busy_.begin(), busy_.end());
  open_.resize(latest_.size());
  std::iota(open_.begin(), open_.end(), 0);
  const size_t most = latest_.size() > kSmallGroup ? kFlowsFollowed * latest_.size() : SIZE_MAX;
  for (size_t followed = 0; !busy_.empty() && followed < most; busy_.pop_back()) {
    std::pop_heap(busy_.begin(), busy_.end());
    const Busy& busy = busy_.back();
    // A rank that finishes no earlier has nothing to hear of the link, nor of those behind it.
    std::erase_if(open_, [&](int rank) { return latest_[rank] >= busy.latest; });
    if (open_.empty()) break;
    candidates_.clear();
    flows_.clear();
    const int p = routes.port_of(busy.link);
    if (p < 0 || traffic.has_from_host()) {
      FindOnLink(busy, traffic, links);
    } else {
      FindOnPort(routes.ports()[p], busy, traffic, links);
    }
    if (candidates_.empty()) continue;
    flows_.resize((flows_.size() + 7) / 8 * 8, 0.0);
    const double k = traffic.picoseconds_per_byte(busy.link), finish = After(links.finish[busy.link]);
    const LinkClass link_class = routes.cluster().links()[busy.link].link_class;
    followed += flows_.size();
    served_.clear();
    for (const Candidate& candidate : candidates_) {
      // Flows are often alike: copies of a few tokens.
      const auto known = std::find_if(served_.begin(), served_.end(),
                                      [&](const auto& served) { return served.first == candidate.bytes; });
      double sent;
      if (known != served_.end()) {
        sent = known->second;
      } else {
        sent = served(flows_.data(), flows_.size(), candidate.bytes);
        if (served_.size() < kMostServedKept) served_.emplace_back(candidate.bytes, sent);
      }
      WaitFor(candidate.rank, std::min(finish, candidate.start + k * sent) + candidate.latency, link_class);
    }
  }
}

LinkClass RankFinish::Solve(const PhaseTraffic& traffic, const SolvedLinks& links, std::vector<SimTime>* finish) {
  const RouteTable& routes = traffic.routes();
  const int ranks = routes.ranks();
  origin_ = *std::min_element(links.release.begin(), links.release.end());
  latest_.resize(ranks);
  class_.assign(ranks,
                routes.cluster().links().empty() ? LinkClass::kNvlink : routes.cluster().links().front().link_class);
  release_.resize(ranks);
  for (int rank = 0; rank < ranks; ++rank) latest_[rank] = release_[rank] = After(links.release[rank]);
  if (ranks > 1) Hear(routes, links.release);
  WaitForPorts(traffic, links);
  for (int link = 0; !links.flows.empty() && link < routes.links(); ++link) {
    if (!links.is_shared[link]) continue;
    const LinkClass link_class = routes.cluster().links()[link].link_class;
    for (const FlowFinish& flow : links.flows[link]) {
      const int source = flow.name / ranks, destination = flow.name % ranks;
      const double time = After(flow.finish + traffic.latency(source, destination));
      WaitFor(source, time, link_class);
      WaitFor(destination, time, link_class);
    }
  }
  WaitForFlows(traffic, links);

  finish->resize(ranks);
  int last = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    (*finish)[rank] = RoundUpFrom(origin_, latest_[rank]);
    if (latest_[rank] > latest_[last]) last = rank;
  }
  return class_[last];
}

}  // namespace epsim
