// The links of a cluster as the network model works on them: in rows by class and direction, one lane per rank.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/ids.h"
#include "engine/units.h"
#include "platforms/cluster.h"

namespace epsim {

// Which of a rank's two kinds of port.
enum class Reach : uint8_t { kNode, kNetwork };

class Lanes {
 public:
  // `cluster` must outlive this.  REQUIRES: every route goes out by the source's link and in by the destination's, of
  // one class inside a node and one between nodes, and all ways of a kind are equally long.
  explicit Lanes(const Cluster& cluster);

  int ranks() const { return ranks_; }
  int ranks_per_node() const { return ranks_per_node_; }
  int nodes() const { return ranks_ / ranks_per_node_; }
  // Kinds of port a rank has: 1 in a cluster of one node, otherwise 2.
  int reaches() const { return static_cast<int>(kinds_.size()); }
  // [reaches, out and in, ranks]
  int size() const { return 2 * reaches() * ranks_; }
  int index(Reach reach, bool outgoing, int rank) const { return row(reach, outgoing) + rank; }
  int row(Reach reach, bool outgoing) const { return (2 * static_cast<int>(reach) + (outgoing ? 0 : 1)) * ranks_; }

  int rank(int lane) const { return lane % ranks_; }
  bool outgoing(int lane) const { return lane / ranks_ % 2 == 0; }
  Reach reach(int lane) const { return static_cast<Reach>(lane / (2 * ranks_)); }
  Link link(int lane) const { return links_[lane]; }

  LinkClass link_class(Reach reach) const { return kinds_[static_cast<size_t>(reach)].link_class; }
  Duration latency(Reach reach) const { return kinds_[static_cast<size_t>(reach)].latency; }
  // Time a byte takes on a lane that serves it alone.
  double picoseconds_per_byte(Reach reach) const { return kinds_[static_cast<size_t>(reach)].picoseconds_per_byte; }

 private:
  struct Kind {
    LinkClass link_class;
    Duration latency;
    double picoseconds_per_byte;
  };
  int ranks_, ranks_per_node_;
  std::vector<Kind> kinds_;  // [reaches]
  std::vector<Link> links_;  // [lanes]; -1 for lanes that no route uses (a single rank).
};

}  // namespace epsim
