// A layer whose weights are late: its router waits for them, and no longer.
#include "models/simulation/forward_pass.h"
#include "tests/models/simulation/forward_pass_fixture.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;

class LateWeights : public ForwardPassTest {
 protected:
  LateWeights() { closed_ = {0}; }

  // Runs a step in which the weights of `layer` are there at `when`.
  std::vector<std::string> RunAndOpen(SimTime when, int layer = 0) {
    return Run([=, this](EventQueue& queue, FixedNetwork&) {
      queue.Schedule(when, Phase::kComplete, [=, this] { pass_->Open(Layer(layer)); });
    });
  }
};

// The routers, done at 11 and 21, end at 50 together.  Dispatch takes 100 / 104 us from there; the combine's last
// release is rank 0's, at 180.  Rank 0 has waited longer: 50 - 11.
TEST_F(LateWeights, TheRouterWaits) {
  EXPECT_THAT(RunAndOpen(SimTime(50us)), ElementsAre("attention/0: 0-10 0-20", "router/0: 10-50 20-50",
                                                     "dispatch/0: 50-150 50-154", "routed_experts/0: 150-180 154-161",
                                                     "combine/0: 180-280 161-284", "lm_head/1: 280-282 284-286"));
  EXPECT_EQ(end_, SimTime(286us));
  EXPECT_THAT(waits_, ElementsAre(39us));
}

// Rank 1 is later itself, and sets the pace of the dispatch: nothing behind moves, though rank 0 waits for 4 us.
TEST_F(LateWeights, AWaitInTheShadowOfAnotherRankCostsNothing) {
  const std::vector<std::string> diary = RunAndOpen(SimTime(15us));
  EXPECT_EQ(diary[1], "router/0: 10-15 20-21");
  EXPECT_EQ(diary[2], "dispatch/0: 15-121 21-125");
  EXPECT_EQ(end_, SimTime(257us));
  EXPECT_THAT(waits_, ElementsAre(4us));
}

TEST_F(LateWeights, WeightsThatComeBeforeTheRouterEndsCostNothing) {
  closed_ = {};
  const std::vector<std::string> open = Run();
  EXPECT_THAT(waits_, ElementsAre(0us));
  closed_ = {0};
  for (const Duration when : {Duration(0us), Duration(7us), Duration(10us), Duration(11us)}) {
    EXPECT_EQ(RunAndOpen(SimTime(when)), open);
    EXPECT_EQ(end_, SimTime(257us));
    EXPECT_THAT(waits_, ElementsAre(0us));
  }
  RunAndOpen(SimTime(Duration(11us) + Duration(1)));
  EXPECT_THAT(waits_, ElementsAre(Duration(1))) << "a picosecond late";
}

// The first layer ends at 251 / 255 as ever, and only the second waits.  Its routers would end at 251 + 10 + 1 and
// 255 + 20 + 1.
TEST_F(LateWeights, OnlyTheLayerThatLacksThemWaits) {
  model_.set_layers(2);
  model_.set_moe_layers(2);
  closed_ = {1};
  const std::vector<std::string> diary = RunAndOpen(SimTime(300us), 1);
  EXPECT_EQ(diary[4], "combine/0: 151-251 132-255");
  EXPECT_EQ(diary[5], "attention/1: 251-261 255-275");
  EXPECT_EQ(diary[6], "router/1: 261-300 275-300");
  EXPECT_EQ(diary[7], "dispatch/1: 300-400 300-404");
  EXPECT_THAT(waits_, ElementsAre(0us, 38us));
}

// While the second layer waits, the network finds at 252 that rank 1's combine of the first ends at 265, not at 255:
// its attention ends at 285 and its router, past the weights at 280, at 286.
TEST_F(LateWeights, AnExchangeIsRevisedWhileALayerWaits) {
  model_.set_layers(2);
  model_.set_moe_layers(2);
  closed_ = {1};
  const std::vector<std::string> diary = Run([this](EventQueue& queue, FixedNetwork& network) {
    queue.Schedule(SimTime(252us), Phase::kArrive, [&network] { network.Delay(1, 1, 10us); });
    queue.Schedule(SimTime(280us), Phase::kComplete, [this] { pass_->Open(Layer(1)); });
  });
  EXPECT_EQ(diary[4], "combine/0: 151-251 132-265");
  EXPECT_EQ(diary[5], "attention/1: 251-261 265-285");
  EXPECT_EQ(diary[6], "router/1: 261-280 285-286");
  EXPECT_EQ(diary[7], "dispatch/1: 280-386 286-390");
  EXPECT_THAT(waits_, ElementsAre(0us, 18us));
}

// The weights are there at 252, before attention ends; a combine that is revised at 253 moves the router as if there
// were no gate.
TEST_F(LateWeights, AnExchangeIsRevisedAfterTheyCame) {
  model_.set_layers(2);
  model_.set_moe_layers(2);
  closed_ = {1};
  const std::vector<std::string> diary = Run([this](EventQueue& queue, FixedNetwork& network) {
    queue.Schedule(SimTime(252us), Phase::kComplete, [this] { pass_->Open(Layer(1)); });
    queue.Schedule(SimTime(253us), Phase::kArrive, [&network] { network.Delay(1, 1, 10us); });
  });
  EXPECT_EQ(diary[6], "router/1: 261-262 285-286");
  EXPECT_THAT(waits_, ElementsAre(0us, 0us));
}

}  // namespace
}  // namespace epsim
