#include "platforms/network/route_table.h"

#include <algorithm>

#include "engine/check.h"

namespace epsim {

RouteTable::RouteTable(const Cluster& cluster, Way way)
    : cluster_(cluster),
      ranks_(cluster.ranks()),
      near_(way == Way::kFastest ? cluster.ranks_per_node() : 1),
      reach_(static_cast<size_t>(ranks_) * ranks_, kNone),
      links_(cluster.links().size()) {
  for (int link = 0; link < links(); ++link) links_[link].outgoing = cluster.links()[link].outgoing;
  for (int rank = 0; cluster.platform().has_pcie() && rank < ranks_; ++rank) {
    hosts_.push_back(cluster.from_host(Rank(rank)));
    for (const Link link : hosts_.back().links()) links_[Index(link)].host_users.push_back(rank);
  }
  FindReaches(way);
  FindPorts();
}

void RouteTable::FindReaches(Way way) {
  struct Ends {
    std::vector<std::vector<Link>> out, in;  // [ranks]
  };
  std::vector<Ends> ends;
  bool near_known = false, far_known = false;
  for (int source = 0; source < ranks_; ++source) {
    for (int destination = 0; destination < ranks_; ++destination) {
      if (source == destination) continue;
      const Route route = cluster_.route(Rank(source), Rank(destination), way);
      std::vector<Link> out, in;
      uint32_t classes = 0;
      for (const Link link : route.links()) {
        const LinkSpec& spec = cluster_.links()[Index(link)];
        classes |= 1u << static_cast<int>(spec.link_class);
        (spec.outgoing ? out : in).push_back(link);
      }
      size_t reach = 0;
      while (reach < reaches_.size() && reaches_[reach].classes != classes) ++reach;
      if (reach == reaches_.size()) {
        EPSIM_CHECK(reach < kNone);
        reaches_.push_back({route.latency, classes});
        ends.push_back({std::vector<std::vector<Link>>(ranks_), std::vector<std::vector<Link>>(ranks_)});
      }
      EPSIM_CHECK(reaches_[reach].latency == route.latency);
      reach_[static_cast<size_t>(source) * ranks_ + destination] = static_cast<uint8_t>(reach);
      const auto keep = [&](std::vector<Link>* known, const std::vector<Link>& links, int rank) {
        EPSIM_CHECK(known->empty() || *known == links);
        if (!known->empty()) return;
        *known = links;
        for (const Link link : links) {
          LinkUse& use = links_[Index(link)];
          use.reaches |= 1u << reach;
          const auto place = std::lower_bound(use.users.begin(), use.users.end(), rank);
          if (place == use.users.end() || *place != rank) use.users.insert(place, rank);
        }
      };
      keep(&ends[reach].out[source], out, source);
      keep(&ends[reach].in[destination], in, destination);

      if (destination >= near_begin(source) && destination < near_end(source)) {
        EPSIM_CHECK(!near_known || near_latency_ == route.latency);
        near_known = true;
        near_latency_ = route.latency;
      } else {
        one_far_latency_ &= !far_known || far_latency_ == route.latency;
        far_latency_ = std::max(far_latency_, route.latency);
        far_known = true;
      }
    }
  }
  for (int a = 0; a < ranks_; ++a) {
    for (int b = 0; b < a; ++b) {
      EPSIM_CHECK(reach_[static_cast<size_t>(a) * ranks_ + b] == reach_[static_cast<size_t>(b) * ranks_ + a]);
    }
  }
}

void RouteTable::FindPorts() {
  // Which reaches are between near ranks, and which between far ones.
  uint32_t near = 0, far = 0;
  for (int s = 0; s < ranks_; ++s) {
    for (int d = 0; d < ranks_; ++d) {
      if (s == d) continue;
      (d >= near_begin(s) && d < near_end(s) ? near : far) |= 1u << reach_[static_cast<size_t>(s) * ranks_ + d];
    }
  }
  EPSIM_CHECK((near & far) == 0);
  for (int first = 0; first < links();) {
    const LinkClass link_class = cluster_.links()[first].link_class;
    int end = first;
    uint32_t reaches = 0;
    bool own = true;
    for (; end < links() && cluster_.links()[end].link_class == link_class; ++end) {
      EPSIM_CHECK(cluster_.links()[end].place == (end - first) / 2 && links_[end].outgoing == ((end - first) % 2 == 0));
      reaches |= links_[end].reaches;
      for (const int user : links_[end].users) own &= user == (end - first) / 2;
    }
    // A port carries all near traffic or none, and all far traffic or none.
    own &= end - first == 2 * ranks_;
    own &= ((reaches & near) == 0 || (reaches & near) == near) && ((reaches & far) == 0 || (reaches & far) == far);
    if (reaches != 0 && own) {
      Duration latency = Duration::max();
      for (size_t reach = 0; reach < reaches_.size(); ++reach) {
        if ((reaches >> reach & 1) != 0) latency = std::min(latency, reaches_[reach].latency);
      }
      for (int link = first; link < end; ++link) links_[link].port = static_cast<int>(ports_.size());
      ports_.push_back({link_class, (reaches & near) != 0, (reaches & far) != 0, latency, first});
    } else {
      for (int link = first; link < end; ++link) {
        if (!links_[link].users.empty()) {
          shared_.push_back(link);
          FindRuns(link);
        } else if (!links_[link].host_users.empty()) {
          host_only_.push_back(link);
        }
      }
    }
    first = end;
  }
}

void RouteTable::FindRuns(int link) {
  LinkUse& use = links_[link];
  const auto add = [&](int source, int destination) {
    if ((use.reaches >> reach_[static_cast<size_t>(source) * ranks_ + destination] & 1) == 0) return;
    if (!use.runs.empty() && use.runs.back().source == source && use.runs.back().end == destination) {
      ++use.runs.back().end;
    } else {
      use.runs.push_back({source, destination, destination + 1});
    }
  };
  if (use.outgoing) {
    for (const int source : use.users) {
      for (int destination = 0; destination < ranks_; ++destination) add(source, destination);
    }
  } else {
    for (int source = 0; source < ranks_; ++source) {
      for (const int destination : use.users) add(source, destination);
    }
  }
}

}  // namespace epsim
