#include "models/communication/all_to_all.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;

// Rank 0 sends 3 tokens to rank 1 and keeps 5; rank 1 sends 2 to rank 0 and keeps 7.
RoutedLayer Example() {
  RoutedLayer routed;
  routed.tokens_between = {5, 3, 2, 7};
  return routed;
}

TEST(AllToAll, DispatchSendsOneCopyPerTokenAndRank) {
  TrafficMatrix traffic;
  NewAllToAll({}, 2, {Bytes(10), Bytes(100)})->Dispatch(Example(), &traffic);
  EXPECT_EQ(traffic.ranks, 2);
  EXPECT_THAT(traffic.bytes, ElementsAre(0, 30, 20, 0));
}

TEST(AllToAll, CombineReturnsOnePartialSumFromEach) {
  TrafficMatrix traffic;
  NewAllToAll({}, 2, {Bytes(10), Bytes(100)})->Combine(Example(), &traffic);
  EXPECT_THAT(traffic.bytes, ElementsAre(0, 200, 300, 0));
}

TEST(Communication, NoneChosenIsAnError) {
  EXPECT_EQ(NewCommunication({}, 2, {Bytes(1), Bytes(1)}).status().message(), "communication: none chosen");
}

}  // namespace
}  // namespace epsim
