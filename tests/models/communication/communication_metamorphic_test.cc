// Do exchanges respond as they must when the model, the load or the machine changes?
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/models/communication/site.h"

namespace epsim {
namespace {

constexpr const char* kStrategies[] = {"all_to_all {}",
                                       "deepep_normal {}",
                                       "deepep_low_latency {}",
                                       "deepep_low_latency { rdma_only: true }",
                                       "nvlink_one_sided {}",
                                       "nvlink_two_sided {}",
                                       "allgather_reducescatter {}",
                                       "all_reduce {}",
                                       "nccl_all_to_all {}"};

class EveryStrategy : public ::testing::TestWithParam<const char*> {
 protected:
  // Dispatch and combine of `routed`.
  static std::vector<Exchange> Exchanges(const Site& site, const RoutedLayer& routed, const std::string& more = "") {
    const auto communication = site.Make(GetParam() + more);
    EXPECT_TRUE(communication.ok()) << communication.status();
    std::vector<Exchange> exchanges(2);
    (*communication)->Dispatch(routed, &exchanges[0]);
    (*communication)->Combine(routed, &exchanges[1]);
    return exchanges;
  }
  static Site OneNode(uint32_t hidden = 2048, NumberType dispatch = BF16) {
    return Site(*FindPlatform("h100-sxm"), 8, hidden, 64, 8, dispatch);
  }
};

std::vector<int64_t> Plus(std::vector<int64_t> a, const std::vector<int64_t>& b, int64_t sign) {
  for (size_t i = 0; i < a.size(); ++i) a[i] += sign * b[i];
  return a;
}

// Bytes are linear in the hidden size: 4,096 to 6,144 adds what 2,048 to 4,096 adds.
TEST_P(EveryStrategy, PayloadGrowsWithTheHiddenSize) {
  for (NumberType type : {BF16, FP8, NVFP4}) {
    std::vector<std::vector<Exchange>> of_hidden;
    for (uint32_t hidden : {2048u, 4096u, 6144u}) {
      const Site site = OneNode(hidden, type);
      of_hidden.push_back(Exchanges(site, UniformLayer(site.cluster, site.setup.model, 16, 1)));
    }
    for (int leg : {0, 1}) {
      const auto& small = of_hidden[0][leg].traffic.bytes;
      const auto& middle = of_hidden[1][leg].traffic.bytes;
      const auto& large = of_hidden[2][leg].traffic.bytes;
      EXPECT_EQ(Plus(middle, small, -1), Plus(large, middle, -1));
    }
  }
}

TEST_P(EveryStrategy, QuantisedTokensAreSmallerAndResultsAreNot) {
  const Site bf16 = OneNode(2048, BF16), nvfp4 = OneNode(2048, NVFP4);
  const RoutedLayer routed = UniformLayer(bf16.cluster, bf16.setup.model, 16, 1);
  const auto wide = Exchanges(bf16, routed), narrow = Exchanges(nvfp4, routed);
  for (size_t i = 0; i < wide[0].traffic.bytes.size(); ++i) {
    if (wide[0].traffic.bytes[i] > 0) {
      EXPECT_LT(narrow[0].traffic.bytes[i], wide[0].traffic.bytes[i] / 3);
    }
  }
  EXPECT_EQ(narrow[1].traffic.bytes, wide[1].traffic.bytes);
}

TEST_P(EveryStrategy, MoreTokensNeverTakeLess) {
  const Site site = OneNode();
  std::vector<Duration> before(2);
  for (int tokens : {1, 8, 64, 512, 4096}) {
    const auto exchanges = Exchanges(site, UniformLayer(site.cluster, site.setup.model, tokens, 1));
    for (int leg : {0, 1}) {
      const Duration time = LoneExchangeTime(site.cluster, exchanges[leg]);
      EXPECT_GE(time, before[leg]) << tokens;
      before[leg] = time;
    }
  }
}

TEST_P(EveryStrategy, FasterLinksNeverTakeLonger) {
  PlatformSpec platform = *FindPlatform("h100-sxm");
  const Site slow(platform, 8, 2048, 64, 8);
  platform.mutable_nvlink()->set_bandwidth("900 GB/s");
  platform.mutable_nic()->set_bandwidth("100 GB/s");
  const Site fast(platform, 8, 2048, 64, 8);
  for (int tokens : {1, 64, 4096}) {
    const RoutedLayer routed = UniformLayer(slow.cluster, slow.setup.model, tokens, 1);
    const auto before = Exchanges(slow, routed), after = Exchanges(fast, routed);
    for (int leg : {0, 1}) {
      EXPECT_LE(LoneExchangeTime(fast.cluster, after[leg]), LoneExchangeTime(slow.cluster, before[leg]));
      EXPECT_EQ(before[leg].traffic.bytes, after[leg].traffic.bytes);
    }
  }
}

TEST_P(EveryStrategy, SlowerKernelsNeverTakeLess) {
  const Site site = OneNode();
  const RoutedLayer routed = UniformLayer(site.cluster, site.setup.model, 256, 1);
  const std::string slow = R"( timing {
      deepep_normal { launch: "50 us" nvlink_efficiency: 0.1 network_efficiency: 0.1 sm_bandwidth: "1 GB/s" }
      deepep_low_latency { launch: "50 us" floor: "60 us" nvlink_efficiency: 0.1 network_efficiency: 0.1 }
      nvlink_one_sided { launch: "50 us" dispatch_floor: "60 us" combine_floor: "60 us" nvlink_efficiency: 0.1 }
      nvlink_two_sided { launch: "50 us" nvlink_efficiency: 0.1 copy_time: "1 us" prepare: "50 us" }
      nccl { launch: "50 us" hop: "10 us" low_latency_bandwidth: "1 GB/s" link_efficiency: 0.1
             channel_bandwidth: "1 GB/s" nvls_efficiency: 0.1 } })";
  const bool ideal = std::string(GetParam()) == "all_to_all {}";
  const bool no_dispatch = std::string(GetParam()) == "all_reduce {}";
  const auto before = Exchanges(site, routed), after = Exchanges(site, routed, slow);
  for (int leg : {0, 1}) {
    const Duration quick = LoneExchangeTime(site.cluster, before[leg]),
                   slowed = LoneExchangeTime(site.cluster, after[leg]);
    if (ideal || (no_dispatch && leg == 0)) {
      EXPECT_EQ(slowed, quick);
    } else {
      EXPECT_GT(slowed, 2 * quick);
    }
  }
}

// Ranks that change places change places in the traffic: shift all by one.
TEST_P(EveryStrategy, RelabelledRanksExchangeTheSame) {
  const Site site = OneNode();
  const RoutedLayer routed = UniformLayer(site.cluster, site.setup.model, 16, 1);
  RoutedLayer shifted = EmptyLayer(site.cluster);
  const auto shift = [](int rank) { return (rank + 1) % 8; };
  for (int a = 0; a < 8; ++a) {
    shifted.tokens[shift(a)] = routed.tokens[a];
    for (int b = 0; b < 8; ++b) {
      shifted.tokens_between[shift(a) * 8 + shift(b)] = routed.tokens_between[a * 8 + b];
      shifted.pairs_between[shift(a) * 8 + shift(b)] = routed.pairs_between[a * 8 + b];
    }
  }
  const auto before = Exchanges(site, routed), after = Exchanges(site, shifted);
  for (int leg : {0, 1}) {
    for (int a = 0; a < 8; ++a) {
      for (int b = 0; b < 8; ++b) {
        EXPECT_EQ(after[leg].traffic.bytes[shift(a) * 8 + shift(b)], before[leg].traffic.bytes[a * 8 + b]);
      }
    }
    EXPECT_EQ(LoneExchangeTime(site.cluster, after[leg]), LoneExchangeTime(site.cluster, before[leg]));
  }
}

INSTANTIATE_TEST_SUITE_P(Strategies, EveryStrategy, ::testing::ValuesIn(kStrategies));

}  // namespace
}  // namespace epsim
