#include "platforms/network/lanes.h"

#include "engine/check.h"

namespace epsim {

Lanes::Lanes(const Cluster& cluster) : ranks_(cluster.ranks()), ranks_per_node_(cluster.ranks_per_node()) {
  kinds_.resize(cluster.nodes() > 1 ? 2 : 1);
  std::vector<bool> known(kinds_.size());
  links_.assign(size(), Link(-1));
  for (int source = 0; source < ranks_; ++source) {
    for (int destination = 0; destination < ranks_; ++destination) {
      if (source == destination) continue;
      const Route route = cluster.route(Rank(source), Rank(destination));
      const Reach reach =
          cluster.node_of(Rank(source)) == cluster.node_of(Rank(destination)) ? Reach::kNode : Reach::kNetwork;
      EPSIM_CHECK(route.links().size() == 2);
      for (bool outgoing : {true, false}) {
        const Link link = route.links()[outgoing ? 0 : 1];
        const LinkSpec& spec = cluster.links()[Index(link)];
        const double picoseconds_per_byte = 1e12 / static_cast<double>(spec.bandwidth.count());
        Kind& kind = kinds_[static_cast<size_t>(reach)];
        if (!known[static_cast<size_t>(reach)]) {
          known[static_cast<size_t>(reach)] = true;
          kind = {spec.link_class, route.latency, picoseconds_per_byte};
        }
        EPSIM_CHECK(kind.link_class == spec.link_class && kind.latency == route.latency);
        EPSIM_CHECK(kind.picoseconds_per_byte == picoseconds_per_byte);
        EPSIM_CHECK(spec.outgoing == outgoing && spec.place == (outgoing ? source : destination));
        Link& lane = links_[index(reach, outgoing, outgoing ? source : destination)];
        EPSIM_CHECK(lane == Link(-1) || lane == link);
        lane = link;
      }
    }
  }
}

}  // namespace epsim
