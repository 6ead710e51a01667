#include "platforms/cluster.h"

#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include "engine/text_proto.h"
#include "engine/unit_text.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace epsim {
namespace {

using ::testing::HasSubstr;

constexpr char kPlatform[] = R"(
  gpu { name: "G" memory: "80 GB" memory_bandwidth: "3 TB/s" bf16: "1 PFLOP/s" }
  gpus_per_node: 4
  nvlink { bandwidth: "400 GB/s" latency: "3 us" }
  pcie { bandwidth: "64 GB/s" latency: "4 us" }
  nic { bandwidth: "50 GB/s" latency: "5 us" })";

PlatformSpec Platform(const std::string& assignment = "") {
  PlatformSpec platform;
  EXPECT_TRUE(ParseTextProto(kPlatform, "platform", &platform).ok());
  if (!assignment.empty()) {
    EXPECT_TRUE(SetField(assignment, &platform).ok());
  }
  return platform;
}

std::string Error(const PlatformSpec& platform, int ranks) {
  const auto cluster = Cluster::Create(platform, ranks);
  EXPECT_EQ(cluster.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(cluster.status().message()), HasSubstr("platform \"G\": "));
  return std::string(cluster.status().message());
}

Cluster Make(const PlatformSpec& platform, int ranks) {
  auto cluster = Cluster::Create(platform, ranks);
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  return *std::move(cluster);
}

void ExpectRoute(const Cluster& cluster, int source, int destination, LinkClass link_class, BytesPerSecond bandwidth,
                 Duration latency) {
  const Route route = cluster.route(Rank(source), Rank(destination));
  ASSERT_EQ(route.links().size(), 2) << source << " -> " << destination;
  const LinkSpec& out = cluster.links()[Index(route.links()[0])];
  const LinkSpec& in = cluster.links()[Index(route.links()[1])];
  EXPECT_TRUE(out.outgoing && !in.outgoing);
  EXPECT_EQ(out.place, source);
  EXPECT_EQ(in.place, destination);
  for (const LinkSpec* link : {&out, &in}) {
    EXPECT_EQ(link->link_class, link_class);
    EXPECT_EQ(link->bandwidth, bandwidth);
  }
  EXPECT_EQ(route.latency, latency);
}

TEST(ClusterTest, RanksFillNodesInOrder) {
  const Cluster cluster = Make(Platform(), 12);
  EXPECT_EQ(cluster.nodes(), 3);
  EXPECT_EQ(cluster.ranks_per_node(), 4);
  EXPECT_EQ(cluster.node_of(Rank(3)), Node(0));
  EXPECT_EQ(cluster.node_of(Rank(4)), Node(1));
  EXPECT_EQ(cluster.node_of(Rank(11)), Node(2));
}

TEST(ClusterTest, NvlinkInsideANodeNicBetweenNodes) {
  const Cluster cluster = Make(Platform(), 8);
  ExpectRoute(cluster, 0, 3, LinkClass::kNvlink, BytesPerSecond(400'000'000'000), std::chrono::microseconds(3));
  ExpectRoute(cluster, 3, 4, LinkClass::kNic, BytesPerSecond(50'000'000'000), std::chrono::microseconds(5));
  EXPECT_TRUE(cluster.route(Rank(5), Rank(5)).links.empty());
  EXPECT_EQ(cluster.route(Rank(5), Rank(5)).latency, Duration(0));
}

TEST(ClusterTest, PcieWhereThereIsNoNvlink) {
  PlatformSpec platform = Platform();
  platform.clear_nvlink();
  ExpectRoute(Make(platform, 4), 0, 1, LinkClass::kPcie, BytesPerSecond(64'000'000'000), std::chrono::microseconds(4));
}

// Every rank's routes leave by its one link of a class and arrive by one: 2 links a class and rank.
TEST(ClusterTest, LinksBelongToRanks) {
  const Cluster cluster = Make(Platform(), 8);
  EXPECT_EQ(cluster.links().size(), 8 * 4);
  EXPECT_EQ(Make(Platform(), 4).links().size(), 4 * 2);  // Nothing goes over the NICs of a single node.
  std::set<Link> used;
  for (int s = 0; s < 8; ++s) {
    for (int d = 0; d < 8; ++d) {
      for (Link link : cluster.route(Rank(s), Rank(d)).links) used.insert(link);
    }
  }
  EXPECT_EQ(used.size(), cluster.links().size());
}

TEST(ClusterTest, RoutesSurviveAMove) {
  Cluster cluster = Make(Platform(), 8);
  const Cluster moved = std::move(cluster);
  ExpectRoute(moved, 3, 4, LinkClass::kNic, BytesPerSecond(50'000'000'000), std::chrono::microseconds(5));
}

TEST(ClusterTest, OneNodeMayBePartlyUsed) {
  for (int ranks : {1, 2, 3, 4}) {
    const Cluster cluster = Make(Platform(), ranks);
    EXPECT_EQ(cluster.nodes(), 1);
    EXPECT_EQ(cluster.ranks_per_node(), ranks);
  }
}

TEST(ClusterTest, CountsThatDoNotFitNameThoseThatDo) {
  EXPECT_THAT(Error(Platform(), 6), HasSubstr("ranks: 6 leave a node of 4 partly used; 4 or 8 would fit"));
  EXPECT_THAT(Error(Platform(), 0), HasSubstr("ranks: 0 is not between 1 and 4096"));
  EXPECT_THAT(Error(Platform(), -3), HasSubstr("ranks: -3 is not between"));
  EXPECT_THAT(Error(Platform(), 5000), HasSubstr("ranks: 5000 is not between"));
}

TEST(ClusterTest, SeveralNodesNeedANic) {
  PlatformSpec platform = Platform();
  platform.clear_nic();
  EXPECT_EQ(Make(platform, 4).nodes(), 1);
  EXPECT_THAT(Error(platform, 8), HasSubstr("ranks: 8 need several nodes of 4, but the platform has no nic"));
}

TEST(ClusterTest, MissingAndImpossibleQuantitiesAreNamed) {
  EXPECT_THAT(Error(Platform("gpu.memory="), 1), HasSubstr("gpu.memory: missing"));
  EXPECT_THAT(Error(Platform("gpu.memory_bandwidth="), 1), HasSubstr("gpu.memory_bandwidth: missing"));
  EXPECT_THAT(Error(Platform("nvlink.bandwidth="), 1), HasSubstr("nvlink.bandwidth: missing"));
  EXPECT_THAT(Error(Platform("nic.latency="), 1), HasSubstr("nic.latency: missing"));
  EXPECT_THAT(Error(Platform("gpus_per_node=0"), 1), HasSubstr("gpus_per_node: missing"));
  EXPECT_THAT(Error(Platform("gpus_per_node=4000000000"), 1), HasSubstr("gpus_per_node: 4000000000 is more than"));
  PlatformSpec platform = Platform();
  platform.mutable_gpu()->set_memory("0 GB");
  EXPECT_THAT(Error(platform, 1), HasSubstr("gpu.memory: \"0 GB\" is not positive"));
  platform = Platform();
  platform.mutable_pcie()->set_bandwidth("0 GB/s");  // As code may set it, past the text reader.
  EXPECT_THAT(Error(platform, 1), HasSubstr("pcie.bandwidth: \"0 GB/s\" is out of range"));
  platform = Platform();
  platform.mutable_gpu()->set_fp8("2");
  EXPECT_THAT(Error(platform, 1), HasSubstr("gpu.fp8: \"2\" has no unit"));
  platform = Platform();
  platform.clear_nvlink();
  platform.clear_pcie();
  EXPECT_THAT(Error(platform, 1), HasSubstr("neither nvlink nor pcie"));
}

TEST(ClusterTest, QuantitiesThatNoHardwareHasAreNamedWithTheRange) {
  EXPECT_EQ(Error(Platform("gpu.memory_bandwidth=1 B/s"), 1),
            "platform \"G\": gpu.memory_bandwidth: \"1 B/s\" is not from 1 MB/s to 1 EB/s");
  EXPECT_EQ(Error(Platform("nvlink.bandwidth=999999 B/s"), 1),
            "platform \"G\": nvlink.bandwidth: \"999999 B/s\" is not from 1 MB/s to 1 EB/s");
  EXPECT_EQ(Error(Platform("nic.bandwidth=1000001 TB/s"), 1),
            "platform \"G\": nic.bandwidth: \"1000001 TB/s\" is not from 1 MB/s to 1 EB/s");
  EXPECT_EQ(Error(Platform("gpu.bf16=1e-300 GFLOP/s"), 1),
            "platform \"G\": gpu.bf16: \"1e-300 GFLOP/s\" is not from 1 GFLOP/s to 1e9 PFLOP/s");
  EXPECT_EQ(Error(Platform("gpu.fp4=2e9 PFLOP/s"), 1),
            "platform \"G\": gpu.fp4: \"2e9 PFLOP/s\" is not from 1 GFLOP/s to 1e9 PFLOP/s");
  EXPECT_EQ(Error(Platform("pcie.latency=10000 s"), 1),
            "platform \"G\": pcie.latency: \"10000 s\" is not from 0 to 1 s");
  // The bounds themselves are hardware.
  PlatformSpec platform = Platform("nvlink.bandwidth=1 MB/s");
  platform.mutable_gpu()->set_memory_bandwidth("1000000 TB/s");
  platform.mutable_gpu()->set_bf16("1 GFLOP/s");
  platform.mutable_gpu()->set_fp8("1e9 PFLOP/s");
  platform.mutable_nic()->set_latency("1 s");
  platform.mutable_pcie()->set_latency("0 s");
  EXPECT_EQ(Make(platform, 1).ranks(), 1);
}

TEST(PlatformCatalogueTest, HasThePlatformsOfTheField) {
  std::set<std::string> names;
  for (const CatalogueFile& file : PlatformCatalogue()) names.emplace(file.name);
  EXPECT_EQ(names, (std::set<std::string>{"a100-pcie", "a100-sxm", "b200-sxm", "gb200-nvl72", "h100-sxm", "h20-sxm",
                                          "h200-sxm", "h800-sxm", "l40s", "rtx-4090", "rtx-pro-6000"}));
}

TEST(PlatformCatalogueTest, EveryEntryMakesClusters) {
  for (const CatalogueFile& file : PlatformCatalogue()) {
    SCOPED_TRACE(std::string(file.path));
    const auto platform = FindPlatform(file.name);
    ASSERT_TRUE(platform.ok()) << platform.status();
    EXPECT_FALSE(platform->description().empty());
    EXPECT_FALSE(platform->gpu().name().empty());
    EXPECT_FALSE(platform->gpu().bf16().empty());
    const int per_node = static_cast<int>(platform->gpus_per_node());
    EXPECT_EQ(Make(*platform, per_node).nodes(), 1);
    if (platform->has_nic()) {
      EXPECT_EQ(Make(*platform, 2 * per_node).nodes(), 2);
    }
    // Each value stands beside its source.
    std::istringstream lines{std::string(file.text)};
    for (std::string line; std::getline(lines, line);) {
      const bool value = line.find(": ") != std::string::npos && line.find("description:") == std::string::npos &&
                         line.find("  name:") == std::string::npos;
      if (value) {
        EXPECT_THAT(line, HasSubstr("# "));
      }
    }
  }
}

TEST(PlatformCatalogueTest, UnknownPlatformListsTheNames) {
  const auto platform = FindPlatform("h100");
  EXPECT_EQ(platform.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(platform.status().message()),
              HasSubstr("no platform \"h100\"; there are a100-pcie, a100-sxm"));
}

TEST(PlatformCatalogueTest, NvlinkDomainOfGb200Is72Gpus) {
  const auto platform = FindPlatform("gb200-nvl72");
  ASSERT_TRUE(platform.ok());
  const Cluster cluster = Make(*platform, 144);
  EXPECT_EQ(cluster.nodes(), 2);
  EXPECT_EQ(cluster.links()[Index(cluster.route(Rank(0), Rank(71)).links[0])].link_class, LinkClass::kNvlink);
  EXPECT_EQ(cluster.links()[Index(cluster.route(Rank(0), Rank(72)).links[0])].link_class, LinkClass::kNic);
}

// The catalogue says what the reference sheet says.
TEST(PlatformCatalogueTest, AgreesWithTheReferenceSheet) {
  const std::string path = std::string(EPSIM_SHARED_DATA) + "/reference/platforms.json";
  std::ifstream file(path);
  if (!file) GTEST_SKIP() << path << " is absent";
  const nlohmann::json sheet = nlohmann::json::parse(file);
  const std::map<std::string, std::string> names = {
      {"A100-80G-SXM", "a100-sxm"}, {"A100-80G-PCIe", "a100-pcie"},  {"H100-SXM", "h100-sxm"},
      {"H200-SXM", "h200-sxm"},     {"H800-SXM", "h800-sxm"},        {"H20", "h20-sxm"},
      {"B200-SXM", "b200-sxm"},     {"GB200-NVL72", "gb200-nvl72"},  {"L40S", "l40s"},
      {"RTX-4090", "rtx-4090"},     {"RTX-PRO-6000", "rtx-pro-6000"}};
  int compared = 0;
  for (const auto& row : sheet) {
    const auto name = names.find(row["name"]);
    if (name == names.end()) continue;
    SCOPED_TRACE(name->second);
    ++compared;
    const auto platform = FindPlatform(name->second);
    ASSERT_TRUE(platform.ok());
    const GpuSpec& gpu = platform->gpu();
    EXPECT_EQ(ParseBytes(gpu.memory())->count(), row["hbm_bytes"].get<int64_t>());
    EXPECT_EQ(ParseBandwidth(gpu.memory_bandwidth())->count(), row["hbm_bw"].get<double>());
    const auto expect_rate = [&](const std::string& text, const char* key) {
      if (!row.contains(key) || row[key].is_null()) {
        EXPECT_EQ(text, "") << key;
      } else {
        EXPECT_DOUBLE_EQ(ParseComputeRate(text)->count(), row[key].get<double>()) << key;
      }
    };
    expect_rate(gpu.bf16(), "bf16");
    expect_rate(gpu.fp8(), "fp8");
    expect_rate(gpu.fp4(), "fp4");
    const auto expect_port = [&](bool has, const PortSpec& port, const char* key) {
      ASSERT_EQ(has, row.contains(key) && !row[key].is_null()) << key;
      if (has) {
        EXPECT_EQ(ParseBandwidth(port.bandwidth())->count(), row[key].get<double>()) << key;
      }
    };
    expect_port(platform->has_nvlink(), platform->nvlink(), "nvlink_uni");
    expect_port(platform->has_pcie(), platform->pcie(), "pcie_uni");
    expect_port(platform->has_nic(), platform->nic(), "nic_uni");
    EXPECT_EQ(platform->gpus_per_node(), row.value("gpus_per_nvl_domain", row["gpus_per_node"].get<int>()));
  }
  EXPECT_EQ(compared, 11);
}

// ISCA 2025 (arXiv 2505.09343), Table 5, measured on H800.
TEST(PlatformCatalogueTest, LatenciesAreThePublishedOnes) {
  const auto platform = FindPlatform("h800-sxm");
  ASSERT_TRUE(platform.ok());
  EXPECT_EQ(ParseDuration(platform->nvlink().latency())->count(), 3'330'000);
  EXPECT_EQ(ParseDuration(platform->nic().latency())->count(), 2'800'000);
}

}  // namespace
}  // namespace epsim
