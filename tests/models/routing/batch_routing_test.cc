// A routing policy on whole batches: which tokens go where, and what of the captured routing is left.
#include "models/routing/batch_routing.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "engine/random_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/routing/router_scores.h"
#include "models/routing/routing_kernel_cost.h"
#include "policies/routing/expert_choice.h"

namespace epsim {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

void OneByOne(int n, absl::FunctionRef<void(int)> body) {
  for (int i = 0; i < n; ++i) body(i);
}
void LastFirst(int n, absl::FunctionRef<void(int)> body) {
  while (n-- > 0) body(n);
}

// Routes the layers of `anew` by expert choice.
class ExpertChoiceIn : public RoutingPolicy {
 public:
  ExpertChoiceIn(std::vector<bool> anew, const RoutingShape& shape, double factor, ExpertChoice::Fallback fallback)
      : anew_(std::move(anew)) {
    ExpertChoice config;
    config.set_capacity_factor(factor);
    config.set_fallback(fallback);
    policy_ = NewExpertChoice(config, shape);
  }
  void BeginStep(int64_t tokens) override { steps.push_back(tokens); }
  bool Routes(Layer layer) const override { return anew_[Index(layer)]; }
  void Route(Layer layer, const RoutingRequest& request, RoutingChoice* choice) const override {
    policy_->Route(layer, request, choice);
  }
  void EndStep(absl::Span<const int32_t> load) override { loads.emplace_back(load.begin(), load.end()); }

  std::vector<int64_t> steps;
  std::vector<std::vector<int32_t>> loads;

 private:
  const std::vector<bool> anew_;
  std::unique_ptr<RoutingPolicy> policy_;
};

// Two layers, three experts, top-1, two ranks: rank 0 has tokens 0 to 2, rank 1 token 3.  Scores lie token by token, as
// in a trace of requests; both layers have the same.
class BatchRoutingTest : public testing::Test {
 protected:
  static constexpr RoutingShape kShape{.layers = 2, .experts = 3, .top_k = 1, .ranks = 2};

  void Use(std::vector<bool> anew, ExpertChoice::Fallback fallback = ExpertChoice::FALLBACK_TOP_K,
           bool go_by_load = false, BatchRouting::Scores scores = BatchRouting::Scores::kCaptured) {
    auto policy = std::make_unique<ExpertChoiceIn>(std::move(anew), kShape, 1, fallback);
    policy_ = policy.get();
    routing_.emplace(std::move(policy), go_by_load, kShape, scores);
  }
  StepBatch Batch() {
    StepBatch batch;
    batch.tokens = 4;
    batch.rank_begin = {0, 3, 4};
    batch.layers = 2;
    batch.top_k = 1;
    batch.ids = reinterpret_cast<const std::byte*>(ids_.data());
    batch.layer_stride = 4;
    batch.score_format = FLOAT32;
    for (int t = 0; t < 4; ++t) {
      batch.scores.push_back({reinterpret_cast<const std::byte*>(scores_.data() + t * 6), 3 * sizeof(float)});
    }
    return batch;
  }
  static std::vector<std::vector<int>> Experts(const StepBatch& batch, int layer) {
    std::vector<std::vector<int>> experts;
    for (int t = 0; t < batch.tokens; ++t) {
      const int valid = batch.valid_count == nullptr ? 1 : batch.valid_count[layer * batch.tokens + t];
      experts.emplace_back();
      if (valid > 0) experts.back().push_back(std::to_integer<int>(batch.layer_ids(layer)[t]));
    }
    return experts;
  }

  // [layers, tokens].  Rank 0's tokens all choose expert 0, most of all token 2; token 1 is second-best for expert 1.
  std::vector<uint8_t> ids_ = {0, 0, 0, 2, 0, 0, 0, 2};
  // [tokens, layers, experts].
  std::vector<float> scores_ = {5, 1, 0, 5, 1, 0,  //
                                6, 3, 2, 6, 3, 2,  //
                                7, 2, 1, 7, 2, 1,  //
                                0, 0, 9, 0, 0, 9};
  ExpertChoiceIn* policy_ = nullptr;
  std::optional<BatchRouting> routing_;
};

// Capacity of rank 0: ceil(3 * 1 / 3) = 1.  Expert 0 takes token 2, experts 1 and 2 token 1, which keeps expert 1.
// Token 0 falls back to expert 0.  Rank 1's one token is taken by all and keeps expert 2.
TEST_F(BatchRoutingTest, EachSourceRankIsRoutedByItself) {
  Use({true, false});
  const StepBatch captured = Batch();
  const StepBatch* routed = routing_->Apply(captured, OneByOne).value();
  ASSERT_NE(routed, &captured);
  EXPECT_THAT(Experts(*routed, 0), ElementsAre(ElementsAre(0), ElementsAre(1), ElementsAre(0), ElementsAre(2)));
  EXPECT_THAT(Experts(*routed, 1), ElementsAre(ElementsAre(0), ElementsAre(0), ElementsAre(0), ElementsAre(2)));
  EXPECT_EQ(routed->rank_begin, captured.rank_begin);
  EXPECT_THAT(policy_->steps, ElementsAre(4));

  const RoutingDeparture &first = routing_->departures()[0], &second = routing_->departures()[1];
  EXPECT_TRUE(first.routed_anew);
  EXPECT_EQ(first.pairs, 4);
  EXPECT_EQ(first.kept_pairs, 3) << "token 1's is not";
  EXPECT_EQ(first.routed_pairs, 4);
  EXPECT_EQ(first.dropped_tokens, 0);
  EXPECT_FALSE(second.routed_anew);
  EXPECT_EQ(second.pairs, 4);
  EXPECT_EQ(second.kept_pairs, 4);
}

TEST_F(BatchRoutingTest, TokensThatNobodyTakesAreDropped) {
  Use({false, true}, ExpertChoice::FALLBACK_NONE);
  const StepBatch captured = Batch();
  const StepBatch* routed = routing_->Apply(captured, OneByOne).value();
  EXPECT_THAT(Experts(*routed, 1), ElementsAre(ElementsAre(), ElementsAre(1), ElementsAre(0), ElementsAre(2)));
  const RoutingDeparture& departure = routing_->departures()[1];
  EXPECT_EQ(departure.tokens, 4);
  EXPECT_EQ(departure.dropped_tokens, 1);
  EXPECT_EQ(departure.kept_pairs, 2);
  EXPECT_EQ(departure.routed_pairs, 3);
}

TEST_F(BatchRoutingTest, ABatchThatNoLayerRoutesAnewIsItself) {
  Use({false, false});
  const StepBatch captured = Batch();
  EXPECT_EQ(routing_->Apply(captured, OneByOne).value(), &captured);
  EXPECT_EQ(routing_->departures()[0].kept_pairs, 4);
}

// Nothing of one step is left in the next, and the order of the layers does not matter.
TEST_F(BatchRoutingTest, EveryStepIsItsOwn) {
  Use({true, true});
  const StepBatch captured = Batch();
  const std::vector<std::vector<int>> once = Experts(*routing_->Apply(captured, OneByOne).value(), 1);
  EXPECT_EQ(Experts(*routing_->Apply(captured, LastFirst).value(), 1), once);
  StepBatch one = Batch();
  one.tokens = 1;
  one.rank_begin = {0, 0, 1};
  one.layer_stride = 1;
  EXPECT_THAT(Experts(*routing_->Apply(one, OneByOne).value(), 1), ElementsAre(ElementsAre(0)));
  EXPECT_EQ(routing_->departures()[1].pairs, 1);
}

TEST_F(BatchRoutingTest, ThePolicySeesTheLoadThatTheRouterAskedFor) {
  Use({true, true}, ExpertChoice::FALLBACK_NONE, true);
  StepBatch captured = Batch();
  const std::vector<uint8_t> valid = {1, 1, 1, 1, 0, 1, 1, 1};
  captured.valid_count = valid.data();
  ASSERT_TRUE(routing_->Apply(captured, OneByOne).ok());
  EXPECT_THAT(policy_->loads, ElementsAre(ElementsAre(3, 0, 1, 2, 0, 1)));
  EXPECT_EQ(routing_->departures()[1].tokens, 3) << "a token that was not captured cannot be dropped";
}

TEST_F(BatchRoutingTest, ScoresThatAreNoNumbersAreNamed) {
  Use({false, true});
  scores_[3 * 6 + 3 + 1] = std::nanf("");
  const absl::Status status = routing_->Apply(Batch(), OneByOne).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(status.message(), "token 3, MoE layer 1, expert 1: the router's score is not a number");
}

// The layer that nobody routes anew need not have any.
TEST_F(BatchRoutingTest, ScoresOfOtherLayersAreNotLookedAt) {
  Use({true, false});
  scores_[3 * 6 + 3 + 1] = std::nanf("");
  EXPECT_TRUE(routing_->Apply(Batch(), OneByOne).ok());
}

// Ids of two bytes, and missing ones.
TEST_F(BatchRoutingTest, WideIdsAreKept) {
  Use({true, false});
  StepBatch captured = Batch();
  const std::vector<uint16_t> wide = {0, 0, 0, 2, 0, 0, 0, 2};
  captured.id_bytes = 2;
  captured.ids = reinterpret_cast<const std::byte*>(wide.data());
  captured.layer_stride = 8;
  const StepBatch* routed = routing_->Apply(captured, OneByOne).value();
  std::vector<uint16_t> ids(8);
  std::memcpy(ids.data(), routed->layer_ids(0), 8);
  std::memcpy(ids.data() + 4, routed->layer_ids(1), 8);
  EXPECT_THAT(ids, ElementsAre(0, 1, 0, 2, 0, 0, 0, 2));
}

// Top-2 of four experts: the choices get 1 and 0.75, the others half of their share of the most popular one's load.
TEST(ScoresByRank, FallWithTheRankAndThenWithPopularity) {
  const std::vector<uint16_t> own = {2, 0, 3, 9};
  std::vector<float> scores(8);
  ScoresByRank(own, std::vector<uint8_t>{2, 1}, 2, std::vector<int64_t>{0, 10, 4, 5}, absl::MakeSpan(scores));
  EXPECT_THAT(scores, ElementsAre(0.75f, 0.5f, 1.0f, 0.25f, 0.0f, 0.5f, 0.2f, 1.0f));
  ScoresByRank(own, std::vector<uint8_t>{2, 1}, 2, std::vector<int64_t>{0, 0, 0, 0}, absl::MakeSpan(scores));
  EXPECT_THAT(scores, ElementsAre(0.75f, 0.0f, 1.0f, 0.0f, 0.0f, 0.0f, 0.0f, 1.0f));
}

// Without scores: all of rank 0's tokens have expert 0 first.  At capacity 1 expert 0 takes token 0; experts 1 and 2
// score all tokens alike, 0 in the first step, and take token 0 too.  Tokens 1 and 2 fall back.
TEST_F(BatchRoutingTest, ScoresByRankNeedNoneInTheTrace) {
  Use({true, true}, ExpertChoice::FALLBACK_TOP_K, false, BatchRouting::Scores::kByRank);
  StepBatch captured = Batch();
  captured.scores.clear();
  const StepBatch* routed = routing_->Apply(captured, OneByOne).value();
  EXPECT_THAT(Experts(*routed, 0), ElementsAre(ElementsAre(0), ElementsAre(0), ElementsAre(0), ElementsAre(2)));
  EXPECT_THAT(policy_->loads, ElementsAre(ElementsAre())) << "the policy does not go by load";
}

// 2 us + 3 tokens * 4 experts * 10 ns.
TEST(RoutingKernelCost, GrowsWithTokensAndExperts) {
  RoutingKernel kernel;
  kernel.set_floor("2 us");
  kernel.set_per_entry("10 ns");
  const RoutingKernelCost plain = RoutingKernelCost::Create(kernel, 4).value();
  EXPECT_EQ(plain.Time(3), Duration(2us) + Duration(120ns));
  EXPECT_EQ(plain.Time(0), Duration(2us));
  EXPECT_EQ(plain.Memory(3), Bytes(48));
  EXPECT_EQ(plain.description(), "plain, 2 us + 10 ns a token and expert");
  kernel.set_kind(RoutingKernel::FUSED);
  const RoutingKernelCost fused = RoutingKernelCost::Create(kernel, 4).value();
  EXPECT_EQ(fused.Time(3), plain.Time(3));
  EXPECT_EQ(fused.Memory(3), Bytes(0));
}

// The defaults are what was measured of plain compositions: 0.2 to 0.4 ms a layer.
TEST(RoutingKernelCost, DefaultsLieInTheMeasuredRange) {
  RoutingPolicyConfig config;
  config.mutable_expert_choice();
  const RoutingKernelCost cost = RoutingKernelCost::Create(CompleteRoutingConfig(config)->kernel(), 256).value();
  EXPECT_EQ(cost.Time(0), Duration(200us));
  EXPECT_NEAR(Microseconds(cost.Time(4096)), 400, 1);
}

}  // namespace
}  // namespace epsim
