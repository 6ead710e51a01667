#include "models/communication/all_reduce.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/models/communication/site.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// 6 tokens of 2,048 B: 12,288 B, of which every rank passes on 2 * 3 / 4.
TEST(AllReduce, SumsTheResultsOfAllTokens) {
  const Site site(4, 4, 1024, 8, 2, FP8);
  const auto communication = site.Make("all_reduce {}");
  ASSERT_TRUE(communication.ok()) << communication.status();
  RoutedLayer routed = EmptyLayer(site.cluster);
  routed.tokens = {1, 2, 3, 0};
  Exchange exchange;
  (*communication)->Combine(routed, &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("0>1 18432", "1>2 18432", "2>3 18432", "3>0 18432"));
}

TEST(AllReduce, HasNoDispatch) {
  const Site site(4, 4, 1024, 8, 2, FP8);
  const auto communication = site.Make("all_reduce {}");
  EXPECT_FALSE((*communication)->footprint().has_dispatch);
  EXPECT_FALSE((*communication)->footprint().quantised_dispatch);
  RoutedLayer routed = EmptyLayer(site.cluster);
  routed.tokens = {1, 2, 3, 0};
  Exchange exchange;
  (*communication)->Dispatch(routed, &exchange);
  EXPECT_THAT(Entries(exchange.traffic), IsEmpty());
  EXPECT_EQ(exchange.launch, Duration{});
}

}  // namespace
}  // namespace epsim
