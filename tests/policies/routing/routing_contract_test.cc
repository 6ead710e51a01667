// Does every routing policy keep the promise of routing_policy.h?  Run over every alternative of the oneof.
#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "engine/random_stream.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "policies/routing/routing_policy.h"

namespace epsim {
namespace {

using testing::HasSubstr;

std::vector<std::string> PolicyNames() {
  std::vector<std::string> names;
  const auto* policies = RoutingPolicyConfig::descriptor()->FindOneofByName("policy");
  for (int i = 0; i < policies->field_count(); ++i) names.push_back(policies->field(i)->name());
  return names;
}

const RoutingShape kShapes[] = {
    {.layers = 2, .experts = 256, .top_k = 8, .ranks = 4}, {.layers = 3, .experts = 16, .top_k = 4, .ranks = 8},
    {.layers = 1, .experts = 5, .top_k = 5, .ranks = 2},   {.layers = 2, .experts = 300, .top_k = 1, .ranks = 3},
    {.layers = 1, .experts = 1, .top_k = 1, .ranks = 1},
};

// The tokens of one source rank, drawn, with fewer ids than top_k now and then.
struct Tokens {
  Tokens(const RoutingShape& shape, int count, RandomStream& random) : count(count) {
    for (int i = 0; i < count * shape.experts; ++i) scores.push_back(static_cast<float>(random.Below(64)) / 64);
    own.resize(static_cast<size_t>(count) * shape.top_k);
    for (int token = 0; token < count; ++token) {
      uint16_t* const ids = &own[static_cast<size_t>(token) * shape.top_k];
      for (int k = 0; k < shape.top_k;) {
        ids[k] = static_cast<uint16_t>(random.Below(shape.experts));
        if (std::find(ids, ids + k, ids[k]) == ids + k) ++k;
      }
      own_count.push_back(static_cast<uint8_t>(shape.top_k - (random.Below(5) == 0 ? 1 : 0)));
    }
  }
  RoutingRequest request() const { return {.tokens = count, .scores = scores, .own = own, .own_count = own_count}; }

  int count;
  std::vector<float> scores;
  std::vector<uint16_t> own;
  std::vector<uint8_t> own_count;
};

class RoutingContract : public testing::TestWithParam<std::string> {
 protected:
  RoutingPolicyConfig Config() {
    RoutingPolicyConfig config;
    config.GetReflection()->MutableMessage(&config, config.GetDescriptor()->FindFieldByName(GetParam()));
    if (config.has_plugin()) config.mutable_plugin()->set_library(EPSIM_EXAMPLE_PLUGIN);
    return config;
  }

  // What a new policy makes of four large steps of skewed load.  [steps, layers, ranks]
  std::vector<RoutingChoice> RouteInTurn(const RoutingShape& shape, std::vector<Tokens>* all) {
    const std::unique_ptr<RoutingPolicy> policy = NewRoutingPolicy(Config(), shape).value();
    RandomStream random(5, "tokens");
    std::vector<RoutingChoice> choices;
    for (int step = 0; step < 4; ++step) {
      policy->BeginStep(200 * shape.ranks);
      for (int layer = 0; layer < shape.layers; ++layer) {
        for (int rank = 0; rank < shape.ranks; ++rank) {
          all->emplace_back(shape, 1 + static_cast<int>(random.Below(600)), random);
          choices.emplace_back();
          const bool routes = policy->Routes(Layer(layer));
          if (!ChangesRouting(Config())) {
            EXPECT_FALSE(routes);
          }
          policy->Route(Layer(layer), all->back().request(), &choices.back());
        }
      }
      std::vector<int32_t> load(static_cast<size_t>(shape.layers) * shape.experts);
      for (size_t i = 0; i < load.size(); ++i) load[i] = static_cast<int32_t>(i % 7);
      policy->EndStep(GoesByRouterLoad(Config()) ? load : std::vector<int32_t>());
    }
    return choices;
  }
};

TEST_P(RoutingContract, ATokenGoesToAtMostTopKExpertsThatDiffer) {
  for (const RoutingShape& shape : kShapes) {
    std::vector<Tokens> tokens;
    const std::vector<RoutingChoice> choices = RouteInTurn(shape, &tokens);
    for (size_t i = 0; i < choices.size(); ++i) {
      ASSERT_EQ(choices[i].experts.size(), static_cast<size_t>(tokens[i].count) * shape.top_k);
      ASSERT_EQ(choices[i].count.size(), static_cast<size_t>(tokens[i].count));
      for (int token = 0; token < tokens[i].count; ++token) {
        const uint16_t* const first = &choices[i].experts[static_cast<size_t>(token) * shape.top_k];
        const int count = choices[i].count[token];
        ASSERT_LE(count, shape.top_k);
        const std::set<int> experts(first, first + count);
        ASSERT_EQ(experts.size(), static_cast<size_t>(count)) << "an expert twice";
        if (count > 0) {
          ASSERT_LT(*experts.rbegin(), shape.experts);
        }
      }
    }
  }
}

TEST_P(RoutingContract, EqualCallsGiveEqualChoices) {
  for (const RoutingShape& shape : kShapes) {
    std::vector<Tokens> tokens;
    const std::vector<RoutingChoice> once = RouteInTurn(shape, &tokens), again = RouteInTurn(shape, &tokens);
    for (size_t i = 0; i < once.size(); ++i) {
      ASSERT_EQ(once[i].experts, again[i].experts);
      ASSERT_EQ(once[i].count, again[i].count);
    }
  }
}

// What a report shows as the configuration can be given back as one.
TEST_P(RoutingContract, ACompleteConfigIsCompleted) {
  const RoutingPolicyConfig complete = CompleteRoutingConfig(Config()).value();
  EXPECT_EQ(CompleteRoutingConfig(complete)->DebugString(), complete.DebugString());
  EXPECT_EQ(RoutingPolicyName(complete), GetParam());
}

INSTANTIATE_TEST_SUITE_P(EveryPolicy, RoutingContract, testing::ValuesIn(PolicyNames()),
                         [](const auto& info) { return info.param; });

TEST(CompleteRoutingConfig, IsTokenChoiceUnlessTold) {
  const RoutingPolicyConfig complete = CompleteRoutingConfig({}).value();
  EXPECT_TRUE(complete.has_token_choice());
  EXPECT_FALSE(ChangesRouting(complete));
}

}  // namespace
}  // namespace epsim
