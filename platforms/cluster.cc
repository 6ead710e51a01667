#include "platforms/cluster.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "engine/text_proto.h"
#include "engine/unit_text.h"

namespace epsim {
namespace {

// A matrix of bytes between all pairs of ranks takes 128 MiB at this many.
constexpr int kMostRanks = 4096;

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

// `parsed`, an error if it is not from `least` to `most`.
template <typename Quantity>
absl::StatusOr<Quantity> Within(absl::StatusOr<Quantity> parsed, std::string_view text, Quantity least, Quantity most,
                                const char* range) {
  if (!parsed.ok() || (*parsed >= least && *parsed <= most)) return parsed;
  return absl::InvalidArgumentError(absl::StrCat("\"", View(text), "\" is not from ", range));
}

struct Port {
  BytesPerSecond bandwidth;
  Duration latency;
};

// `value` parsed by `parse`, whose error is preceded by the field's name.
template <typename Parse>
auto Required(std::string_view field, const std::string& value, Parse parse) -> decltype(parse(value)) {
  if (value.empty()) return absl::InvalidArgumentError(absl::StrCat(View(field), ": missing"));
  auto parsed = parse(value);
  if (!parsed.ok()) return absl::InvalidArgumentError(absl::StrCat(View(field), ": ", parsed.status().message()));
  return parsed;
}

// Of PortSpec, PcieSpec and NicSpec.
template <typename Spec>
absl::StatusOr<Port> PortFrom(const Spec& spec, std::string_view field) {
  const std::string name(field);
  ASSIGN_OR_RETURN(const BytesPerSecond bandwidth,
                   Required(absl::StrCat(name, ".bandwidth"), spec.bandwidth(), ParseHardwareBandwidth));
  ASSIGN_OR_RETURN(const Duration latency,
                   Required(absl::StrCat(name, ".latency"), spec.latency(), ParseHardwareLatency));
  return Port{bandwidth, latency};
}

absl::Status CheckGpu(const GpuSpec& gpu) {
  ASSIGN_OR_RETURN(const Bytes memory, Required("gpu.memory", gpu.memory(), ParseBytes));
  if (memory == Bytes(0)) {
    return absl::InvalidArgumentError(absl::StrCat("gpu.memory: \"", gpu.memory(), "\" is not positive"));
  }
  RETURN_IF_ERROR(Required("gpu.memory_bandwidth", gpu.memory_bandwidth(), ParseHardwareBandwidth).status());
  if (!gpu.bf16().empty()) RETURN_IF_ERROR(Required("gpu.bf16", gpu.bf16(), ParseHardwareComputeRate).status());
  if (!gpu.fp8().empty()) RETURN_IF_ERROR(Required("gpu.fp8", gpu.fp8(), ParseHardwareComputeRate).status());
  if (!gpu.fp4().empty()) RETURN_IF_ERROR(Required("gpu.fp4", gpu.fp4(), ParseHardwareComputeRate).status());
  return absl::OkStatus();
}

// The counts next to `ranks` that fill nodes of `per_node`.  REQUIRES: ranks > per_node.
std::string CountsThatFit(int ranks, int per_node) {
  const int below = ranks / per_node * per_node;
  return absl::StrCat(below, " or ", below + per_node, " would fit");
}

}  // namespace

std::string_view Name(LinkClass link_class) {
  switch (link_class) {
    case LinkClass::kNvlink:
      return "nvlink";
    case LinkClass::kPcie:
      return "pcie";
    case LinkClass::kPcieSwitch:
      return "pcie_switch";
    case LinkClass::kHostMemory:
      return "host_memory";
    case LinkClass::kNic:
      return "nic";
    case LinkClass::kLeaf:
      return "leaf";
    case LinkClass::kSpine:
      return "spine";
  }
  EPSIM_CHECK(false);
}

std::string Name(const LinkSpec& link) {
  return absl::StrCat(View(Name(link.link_class)), " ", link.place, link.outgoing ? " out" : " in");
}

absl::StatusOr<BytesPerSecond> ParseHardwareBandwidth(std::string_view text) {
  constexpr BytesPerSecond kLeast(1'000'000), kMost(1'000'000'000'000'000'000);
  return Within(ParseBandwidth(text), text, kLeast, kMost, "1 MB/s to 1 EB/s");
}

absl::StatusOr<FlopsPerSecond> ParseHardwareComputeRate(std::string_view text) {
  return Within(ParseComputeRate(text), text, FlopsPerSecond(1e9), FlopsPerSecond(1e24), "1 GFLOP/s to 1e9 PFLOP/s");
}

absl::StatusOr<Duration> ParseHardwareLatency(std::string_view text) {
  return Within<Duration>(ParseDuration(text), text, Duration(0), std::chrono::seconds(1), "0 to 1 s");
}

absl::StatusOr<Cluster> Cluster::Create(const PlatformSpec& platform, int ranks, const ClusterOverrides& overrides) {
  absl::StatusOr<Cluster> cluster = Build(platform, ranks);
  absl::Status status = cluster.status();
  if (status.ok()) status = cluster->Override(overrides);
  if (status.ok()) return cluster;
  const std::string& name = platform.gpu().name().empty() ? platform.description() : platform.gpu().name();
  return absl::InvalidArgumentError(absl::StrCat("platform \"", name, "\": ", status.message()));
}

absl::StatusOr<Cluster> Cluster::Build(const PlatformSpec& platform, int ranks) {
  const auto problem = [](const auto&... parts) { return absl::InvalidArgumentError(absl::StrCat(parts...)); };
  RETURN_IF_ERROR(CheckGpu(platform.gpu()));
  if (platform.gpus_per_node() == 0) return problem("gpus_per_node: missing");
  if (platform.gpus_per_node() > kMostRanks) {
    return problem("gpus_per_node: ", platform.gpus_per_node(), " is more than ", kMostRanks);
  }
  if (!platform.has_nvlink() && !platform.has_pcie())
    return problem("neither nvlink nor pcie joins the GPUs of a node");
  const int per_node = static_cast<int>(platform.gpus_per_node());
  if (ranks < 1 || ranks > kMostRanks) return problem("ranks: ", ranks, " is not between 1 and ", kMostRanks);
  if (ranks > per_node && !platform.has_nic()) {
    return problem("ranks: ", ranks, " need several nodes of ", per_node,
                   ", but the platform has no nic to join them; at most ", per_node, " would fit");
  }
  if (ranks > per_node && ranks % per_node != 0) {
    return problem("ranks: ", ranks, " leave a node of ", per_node, " partly used; ", CountsThatFit(ranks, per_node));
  }

  Cluster cluster;
  cluster.platform_ = platform;
  cluster.ranks_ = ranks;
  cluster.nodes_ = std::max(1, ranks / per_node);
  cluster.ports_.resize(ranks);
  cluster.gpu_speed_.assign(ranks, 1);
  cluster.first_link_.fill(-1);
  if (platform.has_nvlink()) {
    ASSIGN_OR_RETURN(const Port nvlink, PortFrom(platform.nvlink(), "nvlink"));
    cluster.node_latency_ = nvlink.latency;
    cluster.AddLinks(LinkClass::kNvlink, ranks, nvlink.bandwidth);
  }
  if (platform.has_pcie()) RETURN_IF_ERROR(cluster.AddHosts());
  if (platform.has_nic()) RETURN_IF_ERROR(cluster.AddNetwork());
  return cluster;
}

void Cluster::AddLinks(LinkClass link_class, int count, BytesPerSecond bandwidth) {
  first_link_[static_cast<size_t>(link_class)] = static_cast<int32_t>(links_.size());
  for (int place = 0; place < count; ++place) {
    for (bool outgoing : {true, false}) links_.push_back({link_class, place, outgoing, bandwidth});
  }
}

absl::Status Cluster::AddHosts() {
  const int per_node = static_cast<int>(platform_.gpus_per_node());
  ASSIGN_OR_RETURN(const Port pcie, PortFrom(platform_.pcie(), "pcie"));
  host_latency_ = pcie.latency;
  if (!platform_.has_nvlink()) node_latency_ = pcie.latency;
  AddLinks(LinkClass::kPcie, ranks_, pcie.bandwidth);

  // `size` neighbouring GPUs of a node share each group.
  const auto share = [&](const char* field, int size, int Ports::*place) -> absl::StatusOr<int> {
    if (size > per_node || per_node % size != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, ": ", size, " do not divide the ", per_node, " GPUs of a node"));
    }
    for (int rank = 0; rank < ranks_; ++rank) ports_[rank].*place = rank / size;
    return (ranks_ + size - 1) / size;
  };
  if (const int size = static_cast<int>(platform_.pcie().gpus_per_switch()); size > 0) {
    ASSIGN_OR_RETURN(const int switches, share("pcie.gpus_per_switch", size, &Ports::pcie_switch));
    BytesPerSecond uplink = pcie.bandwidth;
    if (const std::string& text = platform_.pcie().switch_bandwidth(); !text.empty()) {
      ASSIGN_OR_RETURN(uplink, Required("pcie.switch_bandwidth", text, ParseHardwareBandwidth));
    }
    AddLinks(LinkClass::kPcieSwitch, switches, uplink);
  }
  const int host_gpus = platform_.host().gpus() > 0 ? static_cast<int>(platform_.host().gpus()) : per_node;
  ASSIGN_OR_RETURN(const int hosts, share("host.gpus", host_gpus, &Ports::host));
  if (const std::string& text = platform_.host().memory(); !text.empty()) {
    RETURN_IF_ERROR(Required("host.memory", text, ParseBytes).status());
  }
  if (const std::string& text = platform_.host().memory_bandwidth(); !text.empty()) {
    ASSIGN_OR_RETURN(const BytesPerSecond bandwidth, Required("host.memory_bandwidth", text, ParseHardwareBandwidth));
    AddLinks(LinkClass::kHostMemory, hosts, bandwidth);
  }
  return absl::OkStatus();
}

absl::Status Cluster::AddNetwork() {
  const auto problem = [](const auto&... parts) { return absl::InvalidArgumentError(absl::StrCat(parts...)); };
  const int per_node = static_cast<int>(platform_.gpus_per_node());
  ASSIGN_OR_RETURN(const Port nic, PortFrom(platform_.nic(), "nic"));
  if (platform_.nic().over_pcie() && !platform_.has_pcie()) return problem("nic.over_pcie: the platform has no pcie");
  nic_latency_ = nic.latency;
  const int nics = platform_.nic().per_node() > 0 ? static_cast<int>(platform_.nic().per_node()) : per_node;
  if (nics > per_node ? nics % per_node != 0 : per_node % nics != 0) {
    return problem("nic.per_node: ", nics, " are not shared evenly by the ", per_node, " GPUs of a node");
  }
  // A GPU that has several NICs sends over all of them at once: they are one way.
  const int ways_per_node = std::min(nics, per_node), gpus_per_way = per_node / ways_per_node;
  const BytesPerSecond bandwidth(nic.bandwidth.count() * (nics / ways_per_node));
  for (int rank = 0; rank < ranks_; ++rank) ports_[rank].nic = rank / gpus_per_way;
  AddLinks(LinkClass::kNic, (ranks_ + gpus_per_way - 1) / gpus_per_way, bandwidth);
  if (!platform_.has_fabric()) return absl::OkStatus();

  const FabricSpec& fabric = platform_.fabric();
  struct Tier {
    int nodes;
    double oversubscription;
    Duration latency;
  };
  const auto tier = [&](const TierSpec& spec, const char* field) -> absl::StatusOr<Tier> {
    Tier result{static_cast<int>(spec.nodes()), spec.oversubscription() == 0 ? 1 : spec.oversubscription(), {}};
    if (spec.nodes() == 0) return problem("fabric.", field, ".nodes: missing");
    if (spec.nodes() > kMostRanks)
      return problem("fabric.", field, ".nodes: ", spec.nodes(), " is more than ", kMostRanks);
    if (!(result.oversubscription >= 1 && result.oversubscription <= 1000)) {
      return problem("fabric.", field, ".oversubscription: ", spec.oversubscription(), " is not from 1 to 1000");
    }
    if (!spec.latency().empty()) {
      ASSIGN_OR_RETURN(result.latency,
                       Required(absl::StrCat("fabric.", field, ".latency"), spec.latency(), ParseHardwareLatency));
    }
    return result;
  };
  if (!fabric.has_leaf()) return problem("fabric.leaf: missing");
  ASSIGN_OR_RETURN(const Tier leaf, tier(fabric.leaf(), "leaf"));
  leaf_latency_ = leaf.latency;
  const bool rails = fabric.wiring() == FabricSpec::RAIL_OPTIMIZED;
  const int leaves_per_group = rails ? ways_per_node : 1;
  const int groups = (nodes_ + leaf.nodes - 1) / leaf.nodes;
  for (int rank = 0; rank < ranks_; ++rank) {
    const int node = rank / ranks_per_node(), rail = rank % ranks_per_node() / gpus_per_way;
    ports_[rank].leaf = node / leaf.nodes * leaves_per_group + (rails ? rail : 0);
  }
  const double below_leaf = static_cast<double>(bandwidth.count()) * leaf.nodes * ways_per_node / leaves_per_group;
  const double above_leaf = below_leaf / leaf.oversubscription;
  AddLinks(LinkClass::kLeaf, groups * leaves_per_group, BytesPerSecond(std::llround(above_leaf)));
  if (!fabric.has_spine()) return absl::OkStatus();

  ASSIGN_OR_RETURN(const Tier spine, tier(fabric.spine(), "spine"));
  if (spine.nodes % leaf.nodes != 0) {
    return problem("fabric.spine.nodes: ", spine.nodes, " are not whole leaves of ", leaf.nodes, " nodes");
  }
  spine_latency_ = spine.latency;
  for (int rank = 0; rank < ranks_; ++rank) ports_[rank].spine = rank / ranks_per_node() / spine.nodes;
  const double below_spine = above_leaf * leaves_per_group * (spine.nodes / leaf.nodes);
  AddLinks(LinkClass::kSpine, (nodes_ + spine.nodes - 1) / spine.nodes,
           BytesPerSecond(std::llround(below_spine / spine.oversubscription)));
  return absl::OkStatus();
}

absl::Status Cluster::Override(const ClusterOverrides& overrides) {
  for (const ClusterOverrides::Gpu& gpu : overrides.gpu()) {
    if (gpu.rank() >= static_cast<uint32_t>(ranks_)) {
      return absl::InvalidArgumentError(absl::StrCat("overrides.gpu.rank: ", gpu.rank(), " is not below ", ranks_));
    }
    if (!(gpu.speed() >= 0.001 && gpu.speed() <= 1000)) {
      return absl::InvalidArgumentError(
          absl::StrCat("overrides.gpu.speed: ", gpu.speed(), " is not from 0.001 to 1000"));
    }
    gpu_speed_[gpu.rank()] = gpu.speed();
  }
  for (const ClusterOverrides::Link& override : overrides.link()) {
    const auto bandwidth = Required("overrides.link.bandwidth", override.bandwidth(), ParseHardwareBandwidth);
    if (!bandwidth.ok()) return bandwidth.status();
    bool found = false;
    for (LinkSpec& link : links_) {
      const std::string name = Name(link);
      if (name != override.name() && !absl::StartsWith(name, absl::StrCat(override.name(), " "))) continue;
      // "nvlink 3" is both directions of one port; "nvlink" alone is no link.
      if (!absl::StrContains(override.name(), ' ')) continue;
      link.bandwidth = *bandwidth;
      found = true;
    }
    if (!found) {
      std::vector<std::string> ranges;
      for (LinkClass link_class : kAllLinkClasses) {
        int last = -1;
        for (const LinkSpec& link : links_) {
          if (link.link_class == link_class) last = link.place;
        }
        if (last >= 0) ranges.push_back(absl::StrCat(View(Name(link_class)), " 0 to ", last));
      }
      return absl::InvalidArgumentError(absl::StrCat("overrides.link.name: no link \"", override.name(),
                                                     "\"; there are ", absl::StrJoin(ranges, ", "),
                                                     ", each with in and out"));
    }
  }
  return absl::OkStatus();
}

Route Cluster::route(Rank source, Rank destination, Way way) const {
  EPSIM_CHECK(Index(source) < static_cast<size_t>(ranks_) && Index(destination) < static_cast<size_t>(ranks_));
  Route route;
  if (source == destination) return route;
  const Ports& from = ports_[Index(source)];
  const Ports& to = ports_[Index(destination)];
  const int s = static_cast<int>(source), d = static_cast<int>(destination);
  if (way == Way::kFastest && node_of(source) == node_of(destination)) {
    route.latency = node_latency_;
    const LinkClass port = has_nvlink() ? LinkClass::kNvlink : LinkClass::kPcie;
    const bool over_switches = !has_nvlink() && from.pcie_switch != to.pcie_switch;
    route.Add(link(port, s, true));
    if (over_switches) route.Add(link(LinkClass::kPcieSwitch, from.pcie_switch, true));
    if (over_switches) route.Add(link(LinkClass::kPcieSwitch, to.pcie_switch, false));
    route.Add(link(port, d, false));
    return route;
  }
  EPSIM_CHECK(has_network());
  const bool over_pcie = platform_.nic().over_pcie();
  const bool over_leaves = from.leaf != to.leaf, over_spines = from.spine != to.spine;
  route.latency = nic_latency_;
  if (over_pcie) route.Add(link(LinkClass::kPcie, s, true));
  route.Add(link(LinkClass::kNic, from.nic, true));
  if (over_leaves) route.Add(link(LinkClass::kLeaf, from.leaf, true));
  if (over_spines) route.Add(link(LinkClass::kSpine, from.spine, true));
  if (over_spines) route.Add(link(LinkClass::kSpine, to.spine, false));
  if (over_leaves) route.Add(link(LinkClass::kLeaf, to.leaf, false));
  route.Add(link(LinkClass::kNic, to.nic, false));
  if (over_pcie) route.Add(link(LinkClass::kPcie, d, false));
  if (over_leaves) route.latency += leaf_latency_;
  if (over_spines) route.latency += spine_latency_;
  return route;
}

Route Cluster::from_host(Rank rank) const {
  EPSIM_CHECK(platform_.has_pcie());
  const Ports& ports = ports_[Index(rank)];
  Route route;
  route.latency = host_latency_;
  if (first_link_[static_cast<size_t>(LinkClass::kHostMemory)] >= 0) {
    route.Add(link(LinkClass::kHostMemory, ports.host, true));
  }
  if (ports.pcie_switch >= 0) route.Add(link(LinkClass::kPcieSwitch, ports.pcie_switch, false));
  route.Add(link(LinkClass::kPcie, static_cast<int>(rank), false));
  return route;
}

Route Cluster::to_host(Rank rank) const {
  EPSIM_CHECK(platform_.has_pcie());
  const Ports& ports = ports_[Index(rank)];
  Route route;
  route.latency = host_latency_;
  route.Add(link(LinkClass::kPcie, static_cast<int>(rank), true));
  if (ports.pcie_switch >= 0) route.Add(link(LinkClass::kPcieSwitch, ports.pcie_switch, true));
  if (first_link_[static_cast<size_t>(LinkClass::kHostMemory)] >= 0) {
    route.Add(link(LinkClass::kHostMemory, ports.host, false));
  }
  return route;
}

absl::StatusOr<PlatformSpec> FindPlatform(std::string_view name) {
  const CatalogueFile* file = FindInCatalogue(PlatformCatalogue(), name);
  if (file == nullptr) {
    std::vector<absl::string_view> names;
    for (const CatalogueFile& entry : PlatformCatalogue()) names.push_back(View(entry.name));
    return absl::NotFoundError(
        absl::StrCat("no platform \"", View(name), "\"; there are ", absl::StrJoin(names, ", ")));
  }
  PlatformSpec platform;
  RETURN_IF_ERROR(ParseTextProto(file->text, file->path, &platform));
  return platform;
}

}  // namespace epsim
