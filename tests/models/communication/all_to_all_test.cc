#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/models/communication/site.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;

// Rank 0 sends 3 tokens to rank 1 and keeps 5; rank 1 sends 2 to rank 0 and keeps 7.
RoutedLayer Example() {
  RoutedLayer routed;
  routed.tokens_between = {5, 3, 2, 7};
  routed.tokens = {8, 9};
  return routed;
}

// A token of hidden 1024 is 1,024 + 4 * 8 = 1,056 B in fp8 and 2,048 B in bf16.
TEST(AllToAll, DispatchSendsOneCopyPerTokenAndRank) {
  const Site site(2, 2, 1024, 8, 2, FP8);
  Exchange exchange;
  (*site.Make("all_to_all {}"))->Dispatch(Example(), &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("0>1 3168", "1>0 2112"));
  EXPECT_EQ(exchange.launch, Duration{});
  EXPECT_EQ(exchange.traffic.efficiency.node, 1);
}

TEST(AllToAll, CombineReturnsOnePartialSumFromEach) {
  const Site site(2, 2, 1024, 8, 2, FP8);
  Exchange exchange;
  (*site.Make("all_to_all {}"))->Combine(Example(), &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("0>1 4096", "1>0 6144"));
}

TEST(Communication, NoneChosenIsAnError) {
  EXPECT_EQ(Site(2, 2, 1024, 8, 2).Problem(""), "communication: none chosen");
}

}  // namespace
}  // namespace epsim
