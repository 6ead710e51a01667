// Expert choice, worked by hand, and its laws on drawn scores.
#include "policies/routing/expert_choice.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "engine/random_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Experts = std::vector<std::vector<int>>;  // [tokens]

RoutingPolicyConfig Config(double capacity_factor, ExpertChoice::Fallback fallback = ExpertChoice::FALLBACK_TOP_K) {
  RoutingPolicyConfig config;
  config.mutable_expert_choice()->set_capacity_factor(capacity_factor);
  config.mutable_expert_choice()->set_fallback(fallback);
  return config;
}

// Each token's own choice: the top_k of its scores, the best first; of equal scores the lower expert.
struct Tokens {
  Tokens(const std::vector<std::vector<float>>& rows, int top_k) : top_k(top_k) {
    for (const std::vector<float>& row : rows) {
      scores.insert(scores.end(), row.begin(), row.end());
      std::vector<uint16_t> order(row.size());
      std::iota(order.begin(), order.end(), uint16_t{0});
      std::stable_sort(order.begin(), order.end(), [&](uint16_t a, uint16_t b) { return row[a] > row[b]; });
      own.insert(own.end(), order.begin(), order.begin() + top_k);
      own_count.push_back(static_cast<uint8_t>(top_k));
    }
  }

  Experts Route(const RoutingPolicyConfig& config) const {
    const int experts = static_cast<int>(scores.size() / own_count.size());
    const auto policy = NewRoutingPolicy(config, {.layers = 1, .experts = experts, .top_k = top_k, .ranks = 2}).value();
    RoutingChoice choice;
    policy->Route(Layer{0},
                  {.tokens = static_cast<int>(own_count.size()), .scores = scores, .own = own, .own_count = own_count},
                  &choice);
    Experts result;
    for (size_t token = 0; token < own_count.size(); ++token) {
      const auto first = choice.experts.begin() + static_cast<std::ptrdiff_t>(token) * top_k;
      result.emplace_back(first, first + choice.count[token]);
    }
    return result;
  }

  int top_k;
  std::vector<float> scores;
  std::vector<uint16_t> own;
  std::vector<uint8_t> own_count;
};

// Four tokens, four experts, top-2.  With factor 1 an expert takes ceil(1 * 4 * 2 / 4) = 2 tokens:
//   expert 0: 9 8 7 6 -> tokens 0, 1      expert 2: 4 2 6 5 -> tokens 2, 3
//   expert 1: 5 7 3 1 -> tokens 1, 0      expert 3: 1 3 2 4 -> tokens 3, 1
// Token 1 is taken by experts 0 (8), 1 (7) and 3 (3), and keeps 0 and 1.
const std::vector<std::vector<float>> kScores = {{9, 5, 4, 1}, {8, 7, 2, 3}, {7, 3, 6, 2}, {6, 1, 5, 4}};

TEST(ExpertChoice, ExpertsTakeTheirBestTokensAndTokensKeepTheirBestExperts) {
  EXPECT_THAT(Tokens(kScores, 2).Route(Config(1)),
              ElementsAre(ElementsAre(0, 1), ElementsAre(0, 1), ElementsAre(2), ElementsAre(2, 3)));
}

// Factor 0.5: capacity 1.  Experts take tokens 0, 1, 2, 3; all are taken once.
TEST(ExpertChoice, TheFactorSetsTheCapacity) {
  EXPECT_THAT(Tokens(kScores, 2).Route(Config(0.5)),
              ElementsAre(ElementsAre(0), ElementsAre(1), ElementsAre(2), ElementsAre(3)));
}

// Factor 100: the capacity of 200 is no more than the 4 tokens.  Every expert takes every token, and every token keeps
// its own top-2.
TEST(ExpertChoice, CapacityIsAtMostTheTokens) {
  EXPECT_EQ(ExpertCapacity(100, 4, 2, 4), 4);
  EXPECT_THAT(Tokens(kScores, 2).Route(Config(100)),
              ElementsAre(ElementsAre(0, 1), ElementsAre(0, 1), ElementsAre(0, 2), ElementsAre(0, 2)));
}

TEST(ExpertChoice, CapacityIsRoundedUpOnceAndAtLeastOne) {
  EXPECT_EQ(ExpertCapacity(1.25, 4096, 8, 256), 160);
  EXPECT_EQ(ExpertCapacity(1.25, 32, 8, 256), 2);  // 1.25
  EXPECT_EQ(ExpertCapacity(1.1, 100, 2, 20), 11);  // 1.1 * 100 is above 110 in floating point.
  EXPECT_EQ(ExpertCapacity(1.25, 1, 8, 256), 1);   // 0.04
  EXPECT_EQ(ExpertCapacity(1e-300, 1000, 1, 2), 1);
  EXPECT_EQ(ExpertCapacity(1e308, 1000, 255, 256), 1000);
}

// Equal scores: an expert prefers the lower token, a token the lower expert.  Capacity ceil(0.5 * 4 * 1 / 2) = 1: both
// experts take token 0, which keeps expert 0; tokens 1 to 3 are taken by none.
TEST(ExpertChoice, TiesGoToTheLowerIndex) {
  const Tokens equal({{1, 1}, {1, 1}, {1, 1}, {1, 1}}, 1);
  EXPECT_THAT(equal.Route(Config(0.5, ExpertChoice::FALLBACK_NONE)),
              ElementsAre(ElementsAre(0), ElementsAre(), ElementsAre(), ElementsAre()));
  // Of -0 and 0 none is the higher.
  EXPECT_THAT(Tokens({{-0.f, 1}, {0, 2}, {-0.f, 3}, {0, 4}}, 1).Route(Config(0.5, ExpertChoice::FALLBACK_NONE)),
              ElementsAre(ElementsAre(0), ElementsAre(), ElementsAre(), ElementsAre(1)));
  // Below zero, too, the higher score is the better.
  EXPECT_THAT(Tokens({{-4, 0}, {-3, 0}, {-1, 0}, {-2, 5}}, 1).Route(Config(0.5, ExpertChoice::FALLBACK_NONE)),
              ElementsAre(ElementsAre(), ElementsAre(), ElementsAre(0), ElementsAre(1)));
}

// Both experts want token 0 most; capacity 1.  Tokens 1 to 3 fall back to their own choice, or to none.
TEST(ExpertChoice, ATokenThatNobodyChoseFallsBack) {
  const Tokens tokens({{9, 8}, {5, 4}, {3, 6}, {2, 1}}, 1);
  EXPECT_THAT(tokens.Route(Config(0.5)), ElementsAre(ElementsAre(0), ElementsAre(0), ElementsAre(1), ElementsAre(0)));
  EXPECT_THAT(tokens.Route(Config(0.5, ExpertChoice::FALLBACK_NONE)),
              ElementsAre(ElementsAre(0), ElementsAre(), ElementsAre(), ElementsAre()));
}

// A token whose ids were not all captured falls back to those that were.
TEST(ExpertChoice, FallsBackToTheIdsThatThereAre) {
  Tokens tokens({{9, 8, 7}, {5, 4, 0}, {3, 6, 0}}, 2);
  tokens.own_count = {2, 1, 0};
  EXPECT_THAT(tokens.Route(Config(0.25)), ElementsAre(ElementsAre(0, 1), ElementsAre(0), ElementsAre()));
}

TEST(ExpertChoice, InfiniteScoresAreScores) {
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_THAT(Tokens({{-inf, 1}, {inf, -inf}, {0, 2}, {1, -inf}}, 1).Route(Config(1, ExpertChoice::FALLBACK_NONE)),
              ElementsAre(ElementsAre(1), ElementsAre(0), ElementsAre(1), ElementsAre(0)));
}

// What the definition says, step by step.
Experts ByDefinition(const Tokens& tokens, int experts, int capacity) {
  const size_t count = tokens.own_count.size();
  const auto score = [&](size_t token, int expert) { return tokens.scores[token * experts + expert]; };
  Experts taken(count);
  for (int expert = 0; expert < experts; ++expert) {
    std::vector<size_t> order(count);
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return score(a, expert) > score(b, expert); });
    for (int i = 0; i < capacity; ++i) taken[order[i]].push_back(expert);
  }
  for (size_t token = 0; token < count; ++token) {
    std::vector<int>& own = taken[token];
    std::stable_sort(own.begin(), own.end(), [&](int a, int b) { return score(token, a) > score(token, b); });
    if (own.size() > static_cast<size_t>(tokens.top_k)) own.resize(tokens.top_k);
    std::sort(own.begin(), own.end());
  }
  return taken;
}

struct Draw {
  int tokens, experts, top_k;
  double capacity_factor;
};

// Token counts on both sides of where candidates are found by a sample; scores that all differ, that often tie, and
// whose later tokens are nothing like the sampled ones.
TEST(ExpertChoice, IsWhatTheDefinitionSays) {
  RandomStream random(3, "scores");
  for (const Draw& draw : {Draw{7, 4, 2, 1.25}, Draw{100, 64, 8, 1.25}, Draw{600, 65, 4, 1}, Draw{1500, 128, 8, 1.25},
                           Draw{1500, 70, 2, 20}, Draw{2048, 16, 4, 0.1}}) {
    for (int kind = 0; kind < 4; ++kind) {
      SCOPED_TRACE(testing::Message() << draw.tokens << " tokens, " << draw.experts << " experts, kind " << kind);
      std::vector<std::vector<float>> rows(draw.tokens, std::vector<float>(draw.experts));
      const int stride = std::max(1, draw.tokens / 256);
      for (int token = 0; token < draw.tokens; ++token) {
        for (float& score : rows[token]) {
          score = static_cast<float>(random.Unit() - 0.5);
          if (kind == 1) score = std::round(score * 4);
          // The sample sees the best only, or the worst only.
          if (kind == 2 && token % stride == 0) score += 10;
          if (kind == 3 && token % stride == 0) score -= 10;
        }
      }
      const Tokens tokens(rows, draw.top_k);
      const int capacity = ExpertCapacity(draw.capacity_factor, draw.tokens, draw.top_k, draw.experts);
      const Experts routed = tokens.Route(Config(draw.capacity_factor, ExpertChoice::FALLBACK_NONE));
      ASSERT_EQ(routed, ByDefinition(tokens, draw.experts, capacity));
      std::vector<int> load(draw.experts);
      for (const std::vector<int>& experts : routed) {
        for (const int expert : experts) ++load[expert];
      }
      EXPECT_LE(*std::max_element(load.begin(), load.end()), capacity);
    }
  }
}

TEST(ExpertChoice, RefusesFactorsThatLeaveNoRoom) {
  for (const double factor : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    const absl::Status status = CompleteRoutingConfig(Config(factor)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("routing.expert_choice.capacity_factor: "));
    EXPECT_THAT(std::string(status.message()), HasSubstr("1.25 would"));
  }
  const RoutingPolicyConfig complete = CompleteRoutingConfig(Config(2, ExpertChoice::FALLBACK_DEFAULT)).value();
  EXPECT_EQ(complete.expert_choice().fallback(), ExpertChoice::FALLBACK_TOP_K);
  RoutingPolicyConfig unset;
  unset.mutable_expert_choice();
  EXPECT_EQ(CompleteRoutingConfig(unset)->expert_choice().capacity_factor(), 1.25);
}

TEST(RoutingKernel, HasDefaultsOfItsKind) {
  RoutingPolicyConfig config = Config(1);
  EXPECT_EQ(CompleteRoutingConfig(config)->kernel().floor(), "200 us");
  EXPECT_EQ(CompleteRoutingConfig(config)->kernel().per_entry(), "190 ps");
  config.mutable_kernel()->set_kind(RoutingKernel::FUSED);
  EXPECT_EQ(CompleteRoutingConfig(config)->kernel().floor(), "5 us");
  config.mutable_kernel()->set_floor("7 us");
  EXPECT_EQ(CompleteRoutingConfig(config)->kernel().floor(), "7 us");
  EXPECT_EQ(CompleteRoutingConfig(config)->kernel().per_entry(), "4 ps");
  config.mutable_kernel()->set_floor("7");
  EXPECT_THAT(std::string(CompleteRoutingConfig(config).status().message()), HasSubstr("routing.kernel.floor: "));
  config.mutable_kernel()->set_floor("700 s");
  EXPECT_THAT(std::string(CompleteRoutingConfig(config).status().message()), HasSubstr("longest step"));
}

}  // namespace
}  // namespace epsim
