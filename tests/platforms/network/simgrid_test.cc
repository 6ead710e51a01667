#include "platforms/network/simgrid.h"

#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<std::unique_ptr<Network>> ForRanks(const char* name, int ranks) {
  const auto platform = FindPlatform(name);
  EXPECT_TRUE(platform.ok());
  const auto cluster = Cluster::Create(*platform, ranks);
  EXPECT_TRUE(cluster.ok());
  EventQueue queue;
  return NewSimGridNetwork({}, *cluster, &queue);
}

TEST(SimGridTest, SaysHowSlowItWouldBe) {
  const absl::Status status = ForRanks("gb200-nvl72", 144).status();
  if (absl::IsUnimplemented(status)) GTEST_SKIP() << status;
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("network.simgrid: takes at most 72 ranks, not 144, of which each phase would take about"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("network.max_min"));
}

TEST(SimGridTest, SaysWhatToInstall) {
  const auto network = ForRanks("h100-sxm", 8);
  if (network.ok()) GTEST_SKIP() << "built with SimGrid";
  EXPECT_EQ(network.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(network.status().message()), HasSubstr("install libsimgrid-dev"));
}

// Twice the flows end twice as often, and each time twice the rates are found: four times at least.
TEST(SimGridTest, TimeGrowsWithTheSquareOfFlows) {
  EXPECT_GT(EstimatedSecondsPerPhase(4032), 3.9 * EstimatedSecondsPerPhase(2016));
  EXPECT_GT(EstimatedSecondsPerPhase(4032), 0.1);
  EXPECT_LT(EstimatedSecondsPerPhase(4032), 3);
}

}  // namespace
}  // namespace epsim
