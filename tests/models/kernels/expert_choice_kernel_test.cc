// Expert choice: both GPU versions and the twin against its definition, and the twin against the policy.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/kernels/expert_choice.h"
#include "policies/routing/expert_choice.h"
#include "tests/models/kernels/drawn_numbers.h"
#include "tests/models/kernels/kernel_runs.h"

namespace epsim {
namespace {

using kernel_runs::ChosenByExperts;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class ExpertChoiceKernel : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = kernel_runs::NoDevice(); !reason.empty()) GTEST_SKIP() << reason;
  }
};

// The definition, word by word.
ChosenByExperts Defined(const ExpertChoiceOptions& o, const std::vector<float>& scores) {
  const size_t tokens = static_cast<size_t>(o.tokens), experts = static_cast<size_t>(o.experts);
  const size_t top_k = static_cast<size_t>(o.top_k);
  const auto score = [&](size_t token, size_t expert) { return double{scores[token * experts + expert]}; };
  std::vector<std::set<size_t>> taken_by(tokens);
  for (size_t e = 0; e < experts; ++e) {
    std::vector<size_t> order(tokens);
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return score(a, e) > score(b, e); });
    for (int i = 0; i < o.capacity; ++i) taken_by[order[static_cast<size_t>(i)]].insert(e);
  }
  ChosenByExperts result{std::vector<int32_t>(tokens * top_k, -1), {}, std::vector<float>(tokens * top_k, 0)};
  for (size_t t = 0; t < tokens; ++t) {
    std::vector<size_t> list(taken_by[t].begin(), taken_by[t].end());
    const bool own = list.empty() && o.fall_back;
    if (own) {
      list.resize(experts);
      std::iota(list.begin(), list.end(), size_t{0});
    }
    if (list.size() > top_k) {
      std::stable_sort(list.begin(), list.end(), [&](size_t a, size_t b) { return score(t, a) > score(t, b); });
      list.resize(top_k);
      if (!own) std::sort(list.begin(), list.end());
    } else if (own) {
      std::stable_sort(list.begin(), list.end(), [&](size_t a, size_t b) { return score(t, a) > score(t, b); });
    }
    result.counts.push_back(static_cast<int32_t>(list.size()));
    for (size_t k = 0; k < list.size(); ++k) {
      result.ids[t * top_k + k] = static_cast<int32_t>(list[k]);
      result.weights[t * top_k + k] = scores[t * experts + list[k]] + 0.0f;
    }
  }
  return result;
}

void ExpectEqual(const ChosenByExperts& got, const ChosenByExperts& expected) {
  EXPECT_EQ(got.counts, expected.counts);
  EXPECT_EQ(got.ids, expected.ids);
  EXPECT_EQ(got.weights, expected.weights);
}

ChosenByExperts Twin(const ExpertChoiceOptions& o, const std::vector<float>& scores,
                     VectorSet vectors = VectorSet::kFastest) {
  const size_t size = static_cast<size_t>(o.tokens) * static_cast<size_t>(o.top_k);
  ChosenByExperts twin{std::vector<int32_t>(size, -7), std::vector<int32_t>(static_cast<size_t>(o.tokens), -7),
                       std::vector<float>(size, -7)};
  EXPECT_TRUE(ChooseByExperts(o, scores, absl::MakeSpan(twin.ids), absl::MakeSpan(twin.counts),
                              absl::MakeSpan(twin.weights), vectors)
                  .ok());
  return twin;
}

void ExpectAsDefined(const ExpertChoiceOptions& options, const std::vector<float>& scores) {
  SCOPED_TRACE(absl::StrCat(options.tokens, " tokens, ", options.experts, " experts, top-", options.top_k,
                            ", capacity ", options.capacity));
  const ChosenByExperts defined = Defined(options, scores);
  ExpectEqual(Twin(options, scores), defined);
  ExpectEqual(Twin(options, scores, VectorSet::kPortable), defined);
  for (const bool plain : {false, true}) {
    SCOPED_TRACE(plain ? "plain" : "fused");
    const auto run = kernel_runs::ChooseByExperts(options, scores, plain);
    ASSERT_TRUE(run.ok()) << run.status();
    ExpectEqual(*run, defined);
  }
}

// As in the policy's test: token 1 is taken by experts 0 (8), 1 (7) and 3 (3), and keeps 0 and 1.
TEST_F(ExpertChoiceKernel, ByHand) {
  const std::vector<float> scores = {9, 5, 4, 1, 8, 7, 2, 3, 7, 3, 6, 2, 6, 1, 5, 4};
  const ExpertChoiceOptions options = {.tokens = 4, .experts = 4, .top_k = 2, .capacity = 2};
  ExpectAsDefined(options, scores);
  const ChosenByExperts run = kernel_runs::ChooseByExperts(options, scores, false).value();
  EXPECT_THAT(run.ids, ElementsAre(0, 1, 0, 1, 2, -1, 2, 3));
  EXPECT_THAT(run.counts, ElementsAre(2, 2, 1, 2));
  EXPECT_THAT(run.weights, ElementsAre(9, 5, 8, 7, 6, 0, 5, 4));
}

TEST_F(ExpertChoiceKernel, ShapesOfModels) {
  for (const auto& [tokens, experts, top_k] : std::vector<std::tuple<int, int, int>>{{1, 8, 2},
                                                                                     {33, 8, 2},
                                                                                     {100, 62, 5},
                                                                                     {129, 160, 6},
                                                                                     {257, 256, 8},
                                                                                     {64, 512, 16},
                                                                                     {300, 384, 8},
                                                                                     {40, 9, 1}}) {
    const std::vector<float> scores =
        DrawNormal(static_cast<size_t>(tokens) * static_cast<size_t>(experts), 1, absl::StrCat("shape", tokens));
    for (const double factor : {0.3, 1.25}) {
      ExpectAsDefined({.tokens = tokens,
                       .experts = experts,
                       .top_k = top_k,
                       .capacity = ExpertCapacity(factor, tokens, top_k, experts)},
                      scores);
    }
  }
}

// Of all sizes of TakeTokensKernel, with few experts as the emulator is slow.
TEST_F(ExpertChoiceKernel, ManyTokens) {
  for (const int tokens : {1023, 1024, 1025, 2048, 2500, 4096, 4097}) {
    for (const int experts : {6, 4}) {  // Scores read one by one, and by four.
      ExpectAsDefined({.tokens = tokens, .experts = experts, .top_k = 2, .capacity = tokens / 3 + 1},
                      DrawNormal(static_cast<size_t>(tokens * experts), 1, absl::StrCat("many", tokens)));
    }
  }
}

TEST_F(ExpertChoiceKernel, TiesGoToTheLowestTokenAndExpert) {
  for (const int values : {1, 2, 50}) {
    for (const int tokens : {31, 1500, 4200}) {
      ExpectAsDefined({.tokens = tokens, .experts = 5, .top_k = 2, .capacity = tokens / 2},
                      DrawSteps(static_cast<size_t>(tokens) * 5, values, 0.5f, absl::StrCat("ties", tokens)));
    }
  }
}

// The scores of all tokens but a few are the same for every expert: popular tokens, and many that nobody takes.
TEST_F(ExpertChoiceKernel, TokensThatNobodyTook) {
  std::vector<float> scores = DrawNormal(200 * 32, 0.1, "nobody");
  for (size_t token = 0; token < 200; ++token) {
    for (size_t e = 0; e < 32; ++e) scores[token * 32 + e] += token % 9 == 4 ? 5.0f : 0.0f;
  }
  for (const bool fall_back : {false, true}) {
    const ExpertChoiceOptions options = {
        .tokens = 200, .experts = 32, .top_k = 4, .capacity = 20, .fall_back = fall_back};
    ExpectAsDefined(options, scores);
    const ChosenByExperts run = kernel_runs::ChooseByExperts(options, scores, false).value();
    EXPECT_EQ(run.counts[4], 4);
    EXPECT_EQ(run.counts[5], fall_back ? 4 : 0);
  }
}

TEST_F(ExpertChoiceKernel, Extremes) {
  std::vector<float> scores = DrawNormal(150 * 16, 30, "extremes");
  const std::vector<float> kinds = {kInfinity, -kInfinity, 0.0f, -0.0f, 1e-44f, -1e38f};
  const std::vector<float> which = DrawSteps(scores.size(), 12, 1, "which");
  for (size_t i = 0; i < scores.size(); ++i) {
    if (which[i] < 6) scores[i] = kinds[static_cast<size_t>(which[i])];
  }
  for (const int capacity : {1, 40, 75, 149, 150}) {
    ExpectAsDefined({.tokens = 150, .experts = 16, .top_k = 3, .capacity = capacity}, scores);
  }
}

// As the policy decides, whose fall-back is the router's own choice.
TEST_F(ExpertChoiceKernel, IsThePolicy) {
  constexpr int kTokens = 700, kExperts = 64, kTopK = 6;
  const std::vector<float> scores = DrawNormal(kTokens * kExperts, 1, "policy");
  std::vector<uint16_t> own;
  for (size_t token = 0; token < kTokens; ++token) {
    std::vector<uint16_t> order(kExperts);
    std::iota(order.begin(), order.end(), uint16_t{0});
    std::stable_sort(order.begin(), order.end(), [&](uint16_t a, uint16_t b) {
      return scores[token * kExperts + a] > scores[token * kExperts + b];
    });
    own.insert(own.end(), order.begin(), order.begin() + kTopK);
  }
  const std::vector<uint8_t> own_count(kTokens, kTopK);
  for (const double factor : {0.2, 1.25}) {
    RoutingPolicyConfig config;
    config.mutable_expert_choice()->set_capacity_factor(factor);
    const auto policy =
        NewRoutingPolicy(config, {.layers = 1, .experts = kExperts, .top_k = kTopK, .ranks = 2}).value();
    RoutingChoice choice;
    policy->Route(Layer{0}, {.tokens = kTokens, .scores = scores, .own = own, .own_count = own_count}, &choice);
    const ExpertChoiceOptions options = {.tokens = kTokens,
                                         .experts = kExperts,
                                         .top_k = kTopK,
                                         .capacity = ExpertCapacity(factor, kTokens, kTopK, kExperts)};
    const auto run = kernel_runs::ChooseByExperts(options, scores, false);
    ASSERT_TRUE(run.ok()) << run.status();
    for (size_t token = 0; token < kTokens; ++token) {
      ASSERT_EQ(run->counts[token], choice.count[token]) << token;
      for (size_t k = 0; k < choice.count[token]; ++k) {
        ASSERT_EQ(run->ids[token * kTopK + k], choice.experts[token * kTopK + k]) << token;
      }
    }
  }
}

TEST_F(ExpertChoiceKernel, NoTokens) {
  const auto run = kernel_runs::ChooseByExperts({.tokens = 0, .experts = 8, .top_k = 2}, {}, false);
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_TRUE(run->ids.empty());
}

TEST_F(ExpertChoiceKernel, SaysWhatItCannot) {
  for (const bool plain : {false, true}) {
    const auto message = [plain](const ExpertChoiceOptions& options) {
      return std::string(kernel_runs::ChooseByExperts(options, {}, plain).status().message());
    };
    EXPECT_THAT(message({.tokens = 2, .experts = 600, .top_k = 1, .capacity = 1}), HasSubstr("600 experts; 1 to 512"));
    EXPECT_THAT(message({.tokens = 2, .experts = 6, .top_k = 7, .capacity = 1}), HasSubstr("1 to 6 would fit"));
    EXPECT_THAT(message({.tokens = 2, .experts = 6, .top_k = 1, .capacity = 3}), HasSubstr("a capacity of 3 of 2"));
  }
}

}  // namespace
}  // namespace epsim
