// A cluster is a number of ranks on nodes of one platform, with its links and the way between any two ranks.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/catalogue.h"
#include "engine/ids.h"
#include "engine/units.h"
#include "platforms/platform.pb.h"

namespace epsim {

enum class LinkClass : uint8_t { kNvlink, kPcie, kPcieSwitch, kHostMemory, kNic, kLeaf, kSpine };
inline constexpr LinkClass kAllLinkClasses[] = {LinkClass::kNvlink,     LinkClass::kPcie, LinkClass::kPcieSwitch,
                                                LinkClass::kHostMemory, LinkClass::kNic,  LinkClass::kLeaf,
                                                LinkClass::kSpine};
inline constexpr int kLinkClasses = 7;
std::string_view Name(LinkClass link_class);  // "nvlink", "pcie", "pcie_switch", "host_memory", "nic", "leaf", "spine".

// One direction of one port.
struct LinkSpec {
  LinkClass link_class;
  // Which of its class, counted through the cluster: of an NVLink or PCIe port, its rank.
  int32_t place;
  bool outgoing;  // Away from the GPU, up from a switch, out of host memory.
  BytesPerSecond bandwidth;
};
std::string Name(const LinkSpec& link);  // "nvlink 3 out".

// How traffic between two ranks travels.
enum class Way : uint8_t {
  kFastest,  // Inside a node over NVLink (without it, PCIe), between nodes over the network.
  kNetwork,  // Over the network even inside a node.
};

// Links in the order that traffic crosses them.
class Route {
 public:
  static constexpr size_t kMostLinks = 8;

  absl::Span<const Link> links() const { return {links_.data(), count_}; }
  Duration latency{};

  void Add(Link link) { links_[count_++] = link; }

 private:
  std::array<Link, kMostLinks> links_{};
  size_t count_ = 0;
};

class Cluster {
 public:
  // Ranks 0..ranks-1 fill nodes of `platform.gpus_per_node` in order.  Fails on a quantity that is missing or that no
  // hardware has, on numbers that do not divide each other, on several nodes without a NIC, on ranks that do not fill
  // their nodes evenly (more than one node, the last partly used) and on overrides of what is not there: the error says
  // what would fit.
  static absl::StatusOr<Cluster> Create(const PlatformSpec& platform, int ranks,
                                        const ClusterOverrides& overrides = {});

  const PlatformSpec& platform() const { return platform_; }
  int ranks() const { return ranks_; }
  int nodes() const { return nodes_; }
  int ranks_per_node() const { return ranks_ / nodes_; }
  Node node_of(Rank rank) const { return Node(static_cast<int32_t>(Index(rank)) / ranks_per_node()); }
  // The rank of `node` that has the same place in its node as `rank`: the GPU at the other end of its rail.
  Rank rail_peer(Rank rank, Node node) const {
    return Rank(static_cast<int32_t>(Index(node)) * ranks_per_node() +
                static_cast<int32_t>(Index(rank)) % ranks_per_node());
  }
  // Whether there are NICs, so that Way::kNetwork is possible.
  bool has_network() const { return platform_.has_nic(); }
  bool has_nvlink() const { return platform_.has_nvlink(); }
  // Of the rank's GPU; 1 as specified.
  double gpu_speed(Rank rank) const { return gpu_speed_[Index(rank)]; }

  absl::Span<const LinkSpec> links() const { return links_; }
  // From a rank to itself: no links.  REQUIRES: has_network() for kNetwork.
  Route route(Rank source, Rank destination, Way way = Way::kFastest) const;
  // Between a rank's GPU and the memory of its host.  REQUIRES: the platform has PCIe.
  Route from_host(Rank rank) const;
  Route to_host(Rank rank) const;

 private:
  static absl::StatusOr<Cluster> Build(const PlatformSpec& platform, int ranks);
  absl::Status AddHosts();
  absl::Status AddNetwork();
  absl::Status Override(const ClusterOverrides& overrides);

  // The places of what a rank shares with others; -1 where there is none.
  struct Ports {
    int pcie_switch = -1, host = -1, nic = -1, leaf = -1, spine = -1;
  };
  Link link(LinkClass link_class, int place, bool outgoing) const {
    return Link(first_link_[static_cast<size_t>(link_class)] + 2 * place + (outgoing ? 0 : 1));
  }
  void AddLinks(LinkClass link_class, int count, BytesPerSecond bandwidth);

  PlatformSpec platform_;
  int ranks_ = 0, nodes_ = 0;
  std::vector<LinkSpec> links_;
  std::array<int32_t, kLinkClasses> first_link_{};  // -1 where there are none.
  std::vector<Ports> ports_;                        // [ranks]
  std::vector<double> gpu_speed_;                   // [ranks]
  Duration node_latency_{}, host_latency_{}, nic_latency_{}, leaf_latency_{}, spine_latency_{};
};

// Quantities of hardware, as engine/unit_text.h, refused where no hardware has them: 1 MB/s to 1 EB/s, 1 GFLOP/s to
// 1e9 PFLOP/s, latencies of at most 1 s.
absl::StatusOr<BytesPerSecond> ParseHardwareBandwidth(std::string_view text);
absl::StatusOr<FlopsPerSecond> ParseHardwareComputeRate(std::string_view text);
absl::StatusOr<Duration> ParseHardwareLatency(std::string_view text);

// The platforms that ship.
absl::Span<const CatalogueFile> PlatformCatalogue();
// The platform called `name`; the error lists the names there are.
absl::StatusOr<PlatformSpec> FindPlatform(std::string_view name);

}  // namespace epsim
