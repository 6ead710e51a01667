// The router: the kernel against its twin, bit for bit, and the twin against its definition in float64.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/kernels/router.h"
#include "tests/models/kernels/drawn_numbers.h"
#include "tests/models/kernels/kernel_runs.h"

namespace epsim {
namespace {

using kernel_runs::Routed;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class RouterKernel : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = kernel_runs::NoDevice(); !reason.empty()) GTEST_SKIP() << reason;
  }
};

Routed Twin(const RouterOptions& options, const std::vector<float>& logits, const std::vector<float>& bias) {
  const size_t size = static_cast<size_t>(options.tokens * options.top_k);
  Routed twin{std::vector<int32_t>(size, -7), std::vector<float>(size, 7)}, portable = twin;
  EXPECT_TRUE(RouteTokens(options, logits, bias, absl::MakeSpan(twin.ids), absl::MakeSpan(twin.weights)).ok());
  EXPECT_TRUE(RouteTokens(options, logits, bias, absl::MakeSpan(portable.ids), absl::MakeSpan(portable.weights),
                          VectorSet::kPortable)
                  .ok());
  EXPECT_EQ(twin.ids, portable.ids);
  for (size_t i = 0; i < size; ++i) {
    EXPECT_TRUE(twin.weights[i] == portable.weights[i] ||
                (std::isnan(twin.weights[i]) && std::isnan(portable.weights[i])));
  }
  return twin;
}

// The kernel's, having seen that the twin's is the same.
Routed RunRouter(const RouterOptions& options, const std::vector<float>& logits, const std::vector<float>& bias = {}) {
  const auto run = kernel_runs::Route(options, logits, bias);
  EXPECT_TRUE(run.ok()) << run.status();
  if (!run.ok()) return {};
  const Routed twin = Twin(options, logits, bias);
  EXPECT_EQ(run->ids, twin.ids);
  for (size_t i = 0; i < twin.weights.size(); ++i) {
    const float ours = run->weights[i], theirs = twin.weights[i];
    if (std::isnan(ours) && std::isnan(theirs)) continue;
    EXPECT_EQ(std::bit_cast<uint32_t>(ours), std::bit_cast<uint32_t>(theirs)) << ours << ", " << theirs << " at " << i;
    if (testing::Test::HasFailure()) break;
  }
  return *run;
}

// The definition in router.h, in float64.
struct Exact {
  Exact(const RouterOptions& o, const float* x, const std::vector<float>& bias) {
    const size_t experts = static_cast<size_t>(o.experts);
    score.resize(experts), rank.resize(experts);
    double most = -INFINITY, sum = 0;
    for (size_t e = 0; e < experts; ++e) most = std::max(most, double{x[e]});
    for (size_t e = 0; e < experts; ++e) sum += std::exp(x[e] - most);
    for (size_t e = 0; e < experts; ++e) {
      score[e] = o.scoring == RouterScoring::kSoftmax ? std::exp(x[e] - most) / sum : 1 / (1 + std::exp(-double{x[e]}));
      rank[e] = bias.empty() ? double{x[e]} : score[e] + bias[e];
    }
    const size_t size = experts / static_cast<size_t>(o.groups);
    std::vector<double> group;
    for (size_t g = 0; g < static_cast<size_t>(o.groups); ++g) {
      std::vector<double> of_group;
      for (size_t e = g * size; e < (g + 1) * size; ++e) {
        of_group.push_back(bias.empty() && o.group_rank == GroupRank::kBestTwo ? score[e] : rank[e]);
      }
      std::sort(of_group.rbegin(), of_group.rend());
      group.push_back(o.group_rank == GroupRank::kBestTwo && size > 1 ? of_group[0] + of_group[1] : of_group[0]);
    }
    std::vector<size_t> order(group.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return group[a] > group[b]; });
    std::vector<size_t> allowed;
    for (int i = 0; i < o.top_groups; ++i) {
      for (size_t e = order[i] * size; e < (order[i] + 1) * size; ++e) allowed.push_back(e);
    }
    std::sort(allowed.begin(), allowed.end());
    std::stable_sort(allowed.begin(), allowed.end(), [&](size_t a, size_t b) { return rank[a] > rank[b]; });
    chosen.assign(allowed.begin(), allowed.begin() + o.top_k);
  }
  // Of the experts in `ids`.
  std::vector<double> Weights(const RouterOptions& o, const int32_t* ids) const {
    double sum = 0;
    for (int k = 0; k < o.top_k; ++k) sum += score[ids[k]];
    std::vector<double> weights;
    for (int k = 0; k < o.top_k; ++k) weights.push_back(score[ids[k]] / (o.renormalize ? sum : 1) * o.scaling);
    return weights;
  }

  std::vector<double> score, rank;
  std::vector<size_t> chosen;
};

void ExpectAsDefined(const RouterOptions& options, const std::vector<float>& logits, const std::vector<float>& bias) {
  const Routed routed = RunRouter(options, logits, bias);
  ASSERT_EQ(routed.ids.size(), static_cast<size_t>(options.tokens * options.top_k));
  for (int token = 0; token < options.tokens; ++token) {
    const Exact exact(options, &logits[static_cast<size_t>(token) * options.experts], bias);
    const int32_t* const ids = &routed.ids[static_cast<size_t>(token) * options.top_k];
    for (int k = 0; k < options.top_k; ++k) {
      ASSERT_GE(ids[k], 0);
      ASSERT_LT(ids[k], options.experts);
      // Another expert than the definition's only where float32 cannot tell them apart.
      ASSERT_NEAR(exact.rank[ids[k]], exact.rank[exact.chosen[k]], bias.empty() ? 0 : 1e-6) << token << ", " << k;
    }
    const std::vector<double> weights = exact.Weights(options, ids);
    for (int k = 0; k < options.top_k; ++k) {
      ASSERT_NEAR(routed.weights[static_cast<size_t>(token) * options.top_k + k], weights[k], 1e-6 * weights[k] + 1e-12)
          << token << ", " << k;
    }
  }
}

TEST_F(RouterKernel, SoftmaxOfPlainModels) {
  for (const auto& [experts, top_k] : std::vector<std::pair<int, int>>{{8, 2},
                                                                       {8, 1},
                                                                       {8, 8},
                                                                       {32, 4},
                                                                       {60, 4},
                                                                       {62, 5},
                                                                       {64, 6},
                                                                       {128, 8},
                                                                       {160, 8},
                                                                       {256, 8},
                                                                       {384, 8},
                                                                       {512, 10},
                                                                       {512, 16}}) {
    for (const bool renormalize : {false, true}) {
      SCOPED_TRACE(absl::StrCat(experts, " experts, top-", top_k));
      const RouterOptions options = {.tokens = 37, .experts = experts, .top_k = top_k, .renormalize = renormalize};
      ExpectAsDefined(options, DrawNormal(37 * static_cast<size_t>(experts), 2, "softmax"), {});
    }
  }
}

TEST_F(RouterKernel, SigmoidWithBiasAndGroupsAsDeepSeekV3) {
  const RouterOptions options = {.tokens = 150,
                                 .experts = 256,
                                 .top_k = 8,
                                 .scoring = RouterScoring::kSigmoid,
                                 .groups = 8,
                                 .top_groups = 4,
                                 .group_rank = GroupRank::kBestTwo,
                                 .scaling = 2.5f};
  const std::vector<float> logits = DrawNormal(150 * 256, 1.5, "v3");
  ExpectAsDefined(options, logits, DrawNormal(256, 0.2, "v3 bias"));
  ExpectAsDefined(options, logits, {});
}

TEST_F(RouterKernel, SoftmaxWithGroupsAsDeepSeekV2) {
  const RouterOptions options = {
      .tokens = 100, .experts = 160, .top_k = 6, .groups = 8, .top_groups = 3, .renormalize = false, .scaling = 16};
  ExpectAsDefined(options, DrawNormal(100 * 160, 2, "v2"), {});
}

TEST_F(RouterKernel, EveryCombination) {
  for (const RouterScoring scoring : {RouterScoring::kSoftmax, RouterScoring::kSigmoid}) {
    for (const GroupRank rank : {GroupRank::kBestExpert, GroupRank::kBestTwo}) {
      for (const int top_groups : {1, 3, 6}) {
        for (const bool renormalize : {false, true}) {
          for (const bool biased : {false, true}) {
            const RouterOptions options = {.tokens = 9,
                                           .experts = 90,
                                           .top_k = 7,
                                           .scoring = scoring,
                                           .groups = 6,
                                           .top_groups = top_groups,
                                           .group_rank = rank,
                                           .renormalize = renormalize,
                                           .scaling = 1.5f};
            const std::string name = absl::StrCat(top_groups, renormalize, biased);
            ExpectAsDefined(options, DrawNormal(9 * 90, 1, name),
                            biased ? DrawNormal(90, 0.1, name + "bias") : std::vector<float>());
          }
        }
      }
    }
  }
}

// Groups that are whole lanes of a chunk of the row, and others; with ties and without.
TEST_F(RouterKernel, EverySizeOfGroups) {
  for (const auto& [experts, groups] : std::vector<std::pair<int, int>>{{128, 32},
                                                                        {96, 24},
                                                                        {64, 8},
                                                                        {144, 12},
                                                                        {256, 16},
                                                                        {160, 8},
                                                                        {512, 16},
                                                                        {90, 15},
                                                                        {512, 8},
                                                                        {384, 3},
                                                                        {512, 2}}) {
    for (const GroupRank rank : {GroupRank::kBestExpert, GroupRank::kBestTwo}) {
      for (const bool ties : {false, true}) {
        SCOPED_TRACE(absl::StrCat(experts, " experts, ", groups, " groups", ties ? ", ties" : ""));
        const RouterOptions options = {.tokens = 11,
                                       .experts = experts,
                                       .top_k = 4,
                                       .scoring = RouterScoring::kSigmoid,
                                       .groups = groups,
                                       .top_groups = (groups + 1) / 2,
                                       .group_rank = rank};
        const size_t size = 11 * static_cast<size_t>(experts);
        if (ties) {
          RunRouter(options, DrawSteps(size, 5, 0.25f, "group sizes"));
        } else {
          ExpectAsDefined(options, DrawNormal(size, 1, "group sizes"), {});
        }
      }
    }
  }
}

// Scores 3 1 3 2 | 3 3 0 0 | 3 2 3 1: all groups' best is 3; the sums of the best two are 6, 6, 6.
TEST_F(RouterKernel, OfEqualOnesTheLowerComesFirst) {
  const std::vector<float> logits = {3, 1, 3, 2, 3, 3, 0, 0, 3, 2, 3, 1};
  RouterOptions options = {.tokens = 1, .experts = 12, .top_k = 5};
  EXPECT_THAT(RunRouter(options, logits).ids, ElementsAre(0, 2, 4, 5, 8));
  options.groups = 3, options.top_groups = 2;
  EXPECT_THAT(RunRouter(options, logits).ids, ElementsAre(0, 2, 4, 5, 3));
  options.group_rank = GroupRank::kBestTwo;
  EXPECT_THAT(RunRouter(options, logits).ids, ElementsAre(0, 2, 4, 5, 3));
  EXPECT_THAT(RunRouter({.tokens = 1, .experts = 4, .top_k = 3}, {0.0f, -0.0f, 0.0f, -1}).ids, ElementsAre(0, 1, 2));
}

TEST_F(RouterKernel, ManyTies) {
  for (const int experts : {8, 100, 256, 512}) {
    for (const int values : {1, 2, 5, 40}) {
      const RouterOptions options = {.tokens = 33, .experts = experts, .top_k = 8};
      ExpectAsDefined(options, DrawSteps(33 * static_cast<size_t>(experts), values, 0.25f, absl::StrCat(values)), {});
    }
  }
}

// Weights 1 / (1 + e^-1), ...: e^0 = 1 and e^-1 = 0.36788.
TEST_F(RouterKernel, WeightsByHand) {
  const std::vector<float> logits = {-1, 0, -kInfinity};
  EXPECT_THAT(RunRouter({.tokens = 1, .experts = 3, .top_k = 3}, logits).weights,
              ElementsAre(testing::FloatNear(0.7310586f, 1e-6f), testing::FloatNear(0.2689414f, 1e-6f), 0.0f));
  EXPECT_THAT(RunRouter({.tokens = 1,
                         .experts = 3,
                         .top_k = 2,
                         .scoring = RouterScoring::kSigmoid,
                         .renormalize = false,
                         .scaling = 2},
                        logits)
                  .weights,
              ElementsAre(1.0f, testing::FloatNear(0.5378828f, 1e-6f)));
}

// A bias chooses, but does not weigh; one below 0 does not let experts outside of the chosen groups in.
TEST_F(RouterKernel, TheBiasChoosesOnly) {
  const RouterOptions options = {.tokens = 1,
                                 .experts = 4,
                                 .top_k = 2,
                                 .scoring = RouterScoring::kSigmoid,
                                 .groups = 2,
                                 .top_groups = 1,
                                 .group_rank = GroupRank::kBestTwo,
                                 .renormalize = false};
  const Routed routed = RunRouter(options, {0, 0, 0, 0}, {-4, -3, -5, -5});
  EXPECT_THAT(routed.ids, ElementsAre(1, 0));
  EXPECT_THAT(routed.weights, ElementsAre(0.5f, 0.5f));
}

TEST_F(RouterKernel, IdsAreValidWhateverTheLogits) {
  for (const RouterScoring scoring : {RouterScoring::kSoftmax, RouterScoring::kSigmoid}) {
    for (const bool biased : {false, true}) {
      const RouterOptions options = {.tokens = 60,
                                     .experts = 64,
                                     .top_k = 8,
                                     .scoring = scoring,
                                     .groups = 8,
                                     .top_groups = 2,
                                     .group_rank = GroupRank::kBestTwo};
      std::vector<float> logits = DrawNormal(60 * 64, 50, "extremes");
      const std::vector<float> kinds = {kNan, -kNan, kInfinity, -kInfinity, 1e38f, -1e38f, 1e-44f, -0.0f};
      const std::vector<float> which = DrawSteps(logits.size(), 16, 1, "which");
      for (size_t i = 0; i < logits.size(); ++i) {
        if (which[i] < 8 && i / 64 % 2 == 0) logits[i] = kinds[static_cast<size_t>(which[i])];
      }
      std::fill_n(logits.begin(), 64, kNan);
      std::fill_n(logits.begin() + 64, 64, -kInfinity);
      const Routed routed = RunRouter(options, logits, biased ? DrawNormal(64, 1, "bias") : std::vector<float>());
      for (int token = 0; token < 60; ++token) {
        std::vector<int32_t> ids(&routed.ids[static_cast<size_t>(token) * 8],
                                 &routed.ids[static_cast<size_t>(token) * 8] + 8);
        std::sort(ids.begin(), ids.end());
        EXPECT_GE(ids.front(), 0);
        EXPECT_LT(ids.back(), 64);
        EXPECT_EQ(std::unique(ids.begin(), ids.end()), ids.end());
      }
    }
  }
}

TEST_F(RouterKernel, NanIsBelowAllNumbers) {
  EXPECT_THAT(RunRouter({.tokens = 1, .experts = 4, .top_k = 4}, {kNan, -kInfinity, 1, -kNan}).ids,
              ElementsAre(2, 1, 0, 3));
}

TEST_F(RouterKernel, NoTokens) { EXPECT_TRUE(RunRouter({.tokens = 0, .experts = 8, .top_k = 2}, {}).ids.empty()); }

TEST_F(RouterKernel, SaysWhatItCannot) {
  const auto message = [](const RouterOptions& options) {
    return std::string(kernel_runs::Route(options, {}, {}).status().message());
  };
  EXPECT_THAT(message({.tokens = 0, .experts = 513, .top_k = 1}), HasSubstr("513 experts; 1 to 512 would fit"));
  EXPECT_THAT(message({.tokens = 0, .experts = 8, .top_k = 9}), HasSubstr("1 to 8 would fit"));
  EXPECT_THAT(message({.tokens = 0, .experts = 8, .top_k = 3, .groups = 4, .top_groups = 1}),
              HasSubstr("1 to 2 would"));
  EXPECT_THAT(message({.tokens = 0, .experts = 10, .top_k = 3, .groups = 4}), HasSubstr("4 equal groups"));
}

}  // namespace
}  // namespace epsim
