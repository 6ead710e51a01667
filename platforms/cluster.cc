#include "platforms/cluster.h"

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/status_macros.h"
#include "engine/text_proto.h"
#include "engine/unit_text.h"

namespace epsim {
namespace {

// The ways between all pairs of ranks are kept: 8 bytes a pair, 128 MiB at this many.
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
  LinkClass link_class;
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

absl::StatusOr<Port> PortFrom(const PortSpec& spec, LinkClass link_class) {
  const std::string name(Name(link_class));
  ASSIGN_OR_RETURN(const BytesPerSecond bandwidth,
                   Required(absl::StrCat(name, ".bandwidth"), spec.bandwidth(), ParseHardwareBandwidth));
  ASSIGN_OR_RETURN(const Duration latency,
                   Required(absl::StrCat(name, ".latency"), spec.latency(), ParseHardwareLatency));
  return Port{link_class, bandwidth, latency};
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
    case LinkClass::kNic:
      return "nic";
  }
  return "";
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

absl::StatusOr<Cluster> Cluster::Create(const PlatformSpec& platform, int ranks) {
  const auto error = [&platform](const absl::Status& status) {
    const std::string& name = platform.gpu().name().empty() ? platform.description() : platform.gpu().name();
    return absl::InvalidArgumentError(absl::StrCat("platform \"", name, "\": ", status.message()));
  };
  const auto problem = [&error](const std::string& text) { return error(absl::InvalidArgumentError(text)); };

  if (absl::Status status = CheckGpu(platform.gpu()); !status.ok()) return error(status);
  if (platform.gpus_per_node() == 0) return problem("gpus_per_node: missing");
  if (platform.gpus_per_node() > kMostRanks) {
    return problem(absl::StrCat("gpus_per_node: ", platform.gpus_per_node(), " is more than ", kMostRanks));
  }
  if (!platform.has_nvlink() && !platform.has_pcie())
    return problem("neither nvlink nor pcie joins the GPUs of a node");
  std::optional<Port> nvlink, pcie, nic;
  for (auto [has, spec, link_class, port] :
       {std::tuple(platform.has_nvlink(), &platform.nvlink(), LinkClass::kNvlink, &nvlink),
        std::tuple(platform.has_pcie(), &platform.pcie(), LinkClass::kPcie, &pcie),
        std::tuple(platform.has_nic(), &platform.nic(), LinkClass::kNic, &nic)}) {
    if (!has) continue;
    absl::StatusOr<Port> parsed = PortFrom(*spec, link_class);
    if (!parsed.ok()) return error(parsed.status());
    *port = *parsed;
  }

  const int per_node = static_cast<int>(platform.gpus_per_node());
  if (ranks < 1 || ranks > kMostRanks) {
    return problem(absl::StrCat("ranks: ", ranks, " is not between 1 and ", kMostRanks));
  }
  if (ranks > per_node && !nic.has_value()) {
    return problem(absl::StrCat("ranks: ", ranks, " need several nodes of ", per_node,
                                ", but the platform has no nic to join them; at most ", per_node, " would fit"));
  }
  if (ranks > per_node && ranks % per_node != 0) {
    return problem(absl::StrCat("ranks: ", ranks, " leave a node of ", per_node, " partly used; ",
                                CountsThatFit(ranks, per_node)));
  }

  Cluster cluster;
  cluster.platform_ = platform;
  cluster.ranks_ = ranks;
  cluster.nodes_ = std::max(1, ranks / per_node);
  const Port& inside = nvlink.has_value() ? *nvlink : *pcie;
  cluster.node_latency_ = inside.latency;
  // Of each rank: out and in inside its node, then, where there are several nodes, out and in between them.
  const auto add_links = [&cluster, ranks](const Port& port) {
    const int first = static_cast<int>(cluster.links_.size());
    for (int rank = 0; rank < ranks; ++rank) {
      for (bool outgoing : {true, false}) {
        cluster.links_.push_back({port.link_class, Rank(rank), outgoing, port.bandwidth});
      }
    }
    return first;
  };
  const int first_inside = add_links(inside);
  int first_between = 0;
  if (cluster.nodes_ > 1) {
    cluster.network_latency_ = nic->latency;
    first_between = add_links(*nic);
  }
  cluster.route_links_.reserve(size_t{2} * ranks * ranks);
  for (int source = 0; source < ranks; ++source) {
    for (int destination = 0; destination < ranks; ++destination) {
      const bool same_node = cluster.node_of(Rank(source)) == cluster.node_of(Rank(destination));
      const int first = same_node ? first_inside : first_between;
      cluster.route_links_.push_back(Link(first + 2 * source));
      cluster.route_links_.push_back(Link(first + 2 * destination + 1));
    }
  }
  return cluster;
}

Route Cluster::route(Rank source, Rank destination) const {
  EPSIM_CHECK(Index(source) < static_cast<size_t>(ranks_) && Index(destination) < static_cast<size_t>(ranks_));
  if (source == destination) return {};
  const Link* links = route_links_.data() + 2 * (Index(source) * ranks_ + Index(destination));
  return {{links, 2}, node_of(source) == node_of(destination) ? node_latency_ : network_latency_};
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
