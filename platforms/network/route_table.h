// Which links the traffic between any two ranks crosses, as the port model works on them: a table of one way of
// travelling.
//
// A link is either a port, one for each rank, or shared by several.  Pairs of ranks whose routes cross links of the
// same classes are of one reach: the links that such a route goes out by depend on the source and the reach alone,
// those that it comes in by on the destination and the reach.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/ids.h"
#include "engine/units.h"
#include "platforms/cluster.h"

namespace epsim {

class RouteTable {
 public:
  // `cluster` must outlive this.
  RouteTable(const Cluster& cluster, Way way);

  const Cluster& cluster() const { return cluster_; }
  int ranks() const { return ranks_; }
  int links() const { return static_cast<int>(cluster_.links().size()); }

  // Ranks [near_begin, near_end) share a node with `rank` and are reached without the network; the others are far.
  int near_begin(int rank) const { return rank / near_ * near_; }
  int near_end(int rank) const { return near_ == 1 ? near_begin(rank) : near_begin(rank) + near_; }
  bool has_near() const { return near_ > 1; }
  bool has_far() const { return near_ < ranks_; }

  // Links of one class of which every rank has its own, out and in.
  struct Port {
    LinkClass link_class;
    bool near, far;    // Which traffic crosses it.
    Duration latency;  // The shortest of the routes over it.
    int first;

    int out(int rank) const { return first + 2 * rank; }
    int in(int rank) const { return first + 2 * rank + 1; }
  };
  absl::Span<const Port> ports() const { return ports_; }
  // Links that several ranks send by, or receive by.
  absl::Span<const int> shared() const { return shared_; }
  // Links that only carry what comes from hosts.
  absl::Span<const int> host_only() const { return host_only_; }
  // Of which of ports() a link is, or -1.
  int port_of(int link) const { return links_[link].port; }

  Duration latency(int source, int destination) const {
    return reaches_[reach_[static_cast<size_t>(source) * ranks_ + destination]].latency;
  }
  // One latency, where all near routes (far routes) have the same; else the longest.
  Duration near_latency() const { return near_latency_; }
  Duration far_latency() const { return far_latency_; }
  bool one_far_latency() const { return one_far_latency_; }

  // The way from the memory of a rank's host.  REQUIRES: has_host().
  absl::Span<const Link> from_host(int rank) const { return hosts_[rank].links(); }
  Duration host_latency(int rank) const { return hosts_[rank].latency; }
  bool has_host() const { return !hosts_.empty(); }

  // Destinations [begin, end) whose routes from `source` cross a link.
  struct Run {
    int source, begin, end;
  };
  // Calls visit(run) for runs that cover all pairs whose route crosses `link`, by source.
  template <typename Visit>
  void ForEachRun(int link, Visit visit) const {
    const LinkUse& use = links_[link];
    if (use.port < 0) {
      for (const Run& run : use.runs) visit(run);
      return;
    }
    const Port& port = ports_[use.port];
    const int owner = (link - port.first) / 2;
    if (use.outgoing) {
      if (port.far) visit(Run{owner, 0, near_begin(owner)});
      if (port.near) visit(Run{owner, near_begin(owner), near_end(owner)});
      if (port.far) visit(Run{owner, near_end(owner), ranks_});
    } else {
      for (int source = 0; source < ranks_; ++source) {
        const bool near = source >= near_begin(owner) && source < near_end(owner);
        if (near ? port.near : port.far) visit(Run{source, owner, owner + 1});
      }
    }
  }
  // Ranks to which traffic from the memory of their host crosses `link`.
  absl::Span<const int> host_users(int link) const { return links_[link].host_users; }

 private:
  static constexpr uint8_t kNone = 31;  // The reach of a rank to itself.
  struct Reach {
    Duration latency;
    uint32_t classes;  // Bits.
  };
  struct LinkUse {
    int port = -1;
    bool outgoing = false;
    uint32_t reaches = 0;    // Bits.
    std::vector<int> users;  // Ranks whose traffic crosses it at their end of the route.
    std::vector<int> host_users;
    std::vector<Run> runs;  // Of shared links.
  };
  void FindReaches(Way way);
  void FindPorts();
  void FindRuns(int link);

  const Cluster& cluster_;
  int ranks_, near_;
  std::vector<uint8_t> reach_;  // [ranks, ranks]: of the pair, the same both ways.
  std::vector<Reach> reaches_;
  std::vector<LinkUse> links_;  // [links]
  std::vector<Port> ports_;
  std::vector<int> shared_, host_only_;
  std::vector<Route> hosts_;  // [ranks], or none.
  Duration near_latency_{}, far_latency_{};
  bool one_far_latency_ = true;
};

}  // namespace epsim
