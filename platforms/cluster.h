// A cluster is a number of ranks on nodes of one platform, with its links and the way between any two ranks.
#pragma once

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

enum class LinkClass : uint8_t { kNvlink, kPcie, kNic };
inline constexpr LinkClass kAllLinkClasses[] = {LinkClass::kNvlink, LinkClass::kPcie, LinkClass::kNic};
std::string_view Name(LinkClass link_class);  // "nvlink", "pcie", "nic".

// One direction of one port of one GPU.
struct LinkSpec {
  LinkClass link_class;
  Rank owner;
  bool outgoing;
  BytesPerSecond bandwidth;
};

// Links from a rank to another, in order; empty from a rank to itself.
struct Route {
  absl::Span<const Link> links;
  Duration latency{};
};

class Cluster {
 public:
  // Ranks 0..ranks-1 fill nodes of `platform.gpus_per_node` in order.  Fails on a quantity that is missing or that no
  // hardware has, on several nodes without a NIC, and on ranks that do not fill their nodes evenly (more than one node,
  // the last partly used): the error says which counts would fit.
  static absl::StatusOr<Cluster> Create(const PlatformSpec& platform, int ranks);

  const PlatformSpec& platform() const { return platform_; }
  int ranks() const { return ranks_; }
  int nodes() const { return nodes_; }
  int ranks_per_node() const { return ranks_ / nodes_; }
  Node node_of(Rank rank) const { return Node(static_cast<int32_t>(Index(rank)) / ranks_per_node()); }

  absl::Span<const LinkSpec> links() const { return links_; }
  Route route(Rank source, Rank destination) const;

 private:
  PlatformSpec platform_;
  int ranks_ = 0, nodes_ = 0;
  std::vector<LinkSpec> links_;
  std::vector<Link> route_links_;  // [ranks, ranks, 2]
  Duration node_latency_{}, network_latency_{};
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
