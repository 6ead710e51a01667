#include "platforms/network/max_min.h"

#include <algorithm>
#include <string>
#include <vector>

#include "engine/random_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "platforms/network/flow_order.h"
#include "platforms/network/max_min_rates.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Flow OnLinks(const std::vector<FlowLink>& links, int phase = 0, int stream = 0) {
  Flow flow{.phase = PhaseId(phase),
            .stream = StreamId(stream),
            .source = 0,
            .destination = 1,
            .way = Way::kFastest,
            .release = {},
            .work = 1,
            .links_of_route = {}};
  for (const FlowLink& link : links) flow.links_of_route[flow.link_count++] = link;
  return flow;
}

class MaxMinRatesTest : public ::testing::Test {
 protected:
  void Fill(MaxMinRates* rates) {
    rates->Fill([this](double rate, absl::Span<const int> flows) {
      for (int flow : flows) rate_[flow] = rate;
    });
  }
  std::vector<double> rate_ = std::vector<double>(100);
};

// Links of 1 and 2 bytes per picosecond; flows on the first, on both and on the second.  The first is full at 1/2, and
// the third flow takes what that leaves of the second: 3/2.  When the first flow leaves, halves of the second: 1 each.
TEST_F(MaxMinRatesTest, WorkedExample) {
  const std::vector<Flow> flows = {OnLinks({{Link(0), 1}}), OnLinks({{Link(0), 1}, {Link(1), 0.5}}),
                                   OnLinks({{Link(1), 0.5}})};
  MaxMinRates rates(flows);
  for (int flow : {0, 1, 2}) rates.Add(flow);
  Fill(&rates);
  EXPECT_EQ(rate_[0], 0.5);
  EXPECT_EQ(rate_[1], 0.5);
  EXPECT_EQ(rate_[2], 1.5);
  rates.Remove(0);
  Fill(&rates);
  EXPECT_EQ(rate_[1], 1);
  EXPECT_EQ(rate_[2], 1);
}

// Whatever comes and goes in whatever order: no link carries more than it can, and every flow has a link that is full
// and on which nobody has more.  That is the definition, and there is one such assignment.
TEST_F(MaxMinRatesTest, EveryFlowHasABottleneck) {
  RandomStream random(1, "max_min_test");
  for (int round = 0; round < 100; ++round) {
    const int links = 2 + static_cast<int>(random.Below(20));
    std::vector<double> picoseconds;
    for (int i = 0; i < links; ++i) picoseconds.push_back(1.0 + static_cast<double>(random.Below(8)));
    std::vector<Flow> flows;
    for (size_t i = 0; i < rate_.size(); ++i) {
      std::vector<FlowLink> route;
      // Half of the rounds with flows of two efficiencies.
      const double slower = round % 2 == 0 && random.Below(2) == 0 ? 1.25 : 1;
      for (int link = 0; link < links && route.size() < Route::kMostLinks; ++link) {
        if (random.Below(5) == 0) route.push_back({Link(link), slower * picoseconds[link]});
      }
      if (route.empty()) route.push_back({Link(0), slower * picoseconds[0]});
      flows.push_back(OnLinks(route));
    }
    MaxMinRates rates(flows);
    std::vector<int> there, absent(flows.size());
    for (size_t i = 0; i < flows.size(); ++i) absent[i] = static_cast<int>(i);
    for (int step = 0; step < 100; ++step) {
      for (uint64_t changes = 1 + random.Below(3); changes > 0; --changes) {
        std::vector<int>& from = !there.empty() && random.Below(2) == 0 ? there : absent;
        if (from.empty()) continue;
        std::swap(from[random.Below(from.size())], from.back());
        const int flow = from.back();
        from.pop_back();
        if (&from == &there) {
          rates.Remove(flow);
          absent.push_back(flow);
        } else {
          rates.Add(flow);
          there.push_back(flow);
        }
      }
      Fill(&rates);
      std::vector<double> load(links), most(links);
      for (int flow : there) {
        for (const FlowLink& link : flows[flow].links()) {
          load[Index(link.link)] += rate_[flow] * link.picoseconds;
          most[Index(link.link)] = std::max(most[Index(link.link)], rate_[flow]);
        }
      }
      for (double l : load) ASSERT_LE(l, 1 + 1e-12);
      for (int flow : there) {
        const absl::Span<const FlowLink> route = flows[flow].links();
        ASSERT_TRUE(std::any_of(route.begin(), route.end(),
                                [&](const FlowLink& link) {
                                  return load[Index(link.link)] > 1 - 1e-12 &&
                                         rate_[flow] > most[Index(link.link)] * (1 - 1e-12);
                                }))
            << "round " << round << " step " << step << " flow " << flow;
      }
    }
  }
}

// Phase 1 has a flow behind phase 0 on link 0 and one on link 1, which phase 0 does not use; phase 2 has one on both.
// Another stream does not wait.
TEST(FlowOrderTest, LinksServePhasesInTurn) {
  const std::vector<Flow> flows = {OnLinks({{Link(0), 1}}, 0),    OnLinks({{Link(0), 1}}, 0),
                                   OnLinks({{Link(0), 1}}, 1),    OnLinks({{Link(1), 1}}, 1),
                                   OnLinks({{Link(0), 1}}, 1, 7), OnLinks({{Link(0), 1}, {Link(1), 1}}, 2)};
  FlowOrder order(flows);
  std::vector<bool> may_go;
  for (int flow = 0; flow < 6; ++flow) may_go.push_back(order.may_go(flow));
  EXPECT_THAT(may_go, ElementsAre(true, true, false, true, true, false));
  std::vector<int> next;
  order.End(0, &next);
  EXPECT_THAT(next, IsEmpty());
  order.End(1, &next);
  EXPECT_THAT(next, ElementsAre(2));
  order.End(2, &next);
  EXPECT_THAT(next, ElementsAre(2));  // Phase 2 still waits on link 1.
  order.End(3, &next);
  EXPECT_THAT(next, ElementsAre(2, 5));
}

TEST(MaxMinTest, RefusesClustersThatWouldTakeForEver) {
  const auto platform = FindPlatform("h100-sxm");
  ASSERT_TRUE(platform.ok());
  const auto cluster = Cluster::Create(*platform, 1032);
  ASSERT_TRUE(cluster.ok());
  EventQueue queue;
  EXPECT_THAT(std::string(NewMaxMinNetwork({}, *cluster, &queue).status().message()),
              HasSubstr("network.max_min: takes at most 1024 ranks, not 1032; network.port takes any number"));
}

}  // namespace
}  // namespace epsim
