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

TEST(Communication, DefaultsAreFilledIn) {
  CommunicationConfig config;
  EXPECT_EQ(CompleteCommunicationConfig(config).ShortDebugString(), "all_to_all { }");
  config.mutable_deepep_normal()->set_bf16_dispatch(true);
  EXPECT_EQ(CompleteCommunicationConfig(config).ShortDebugString(), "deepep_normal { sms: 24 bf16_dispatch: true }");
  config.mutable_deepep_normal()->set_sms(8);
  EXPECT_EQ(CompleteCommunicationConfig(config).deepep_normal().sms(), 8);
  config.mutable_deepep_low_latency();
  EXPECT_EQ(CompleteCommunicationConfig(config).deepep_low_latency().max_tokens_per_rank(), 128);
  config.mutable_automatic();
  EXPECT_EQ(CompleteCommunicationConfig(config).automatic().max_tokens_per_rank(), 0);
  config.mutable_automatic()->set_order(AutomaticCommunication::SGLANG);
  EXPECT_EQ(CompleteCommunicationConfig(config).automatic().max_tokens_per_rank(), 128);
}

TEST(Communication, NoneChosenIsAnError) {
  EXPECT_EQ(Site(2, 2, 1024, 8, 2).Problem(""), "communication: none chosen");
}

}  // namespace
}  // namespace epsim
