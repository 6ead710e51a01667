// Every stress workload keeps its promise.
#include <unistd.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "engine/options.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/traces/synthesis/whole_trace.h"
#include "traces/synthesis/synthesis.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;

// 8 layers x 64 experts, top-6, 8 ranks x 128 tokens x 64 steps = 65,536 tokens.
WholeTrace Generate(const std::string& name, const PresetOptions& options = {}) {
  const auto config = PresetSynthesis(name, options);
  EXPECT_TRUE(config.ok()) << config.status();
  const std::string path = testing::TempDir() + "/preset_" + name + std::to_string(getpid()) + ".eptrace";
  const absl::Status status = Synthesize(*config, path, {}, StopToken());
  EXPECT_TRUE(status.ok()) << status;
  auto trace = LoadWholeTrace(path);
  EXPECT_TRUE(trace.ok()) << trace.status();
  return *std::move(trace);
}

// First row of every step, and one past the last row.
std::vector<int64_t> StepBegins(const WholeTrace& trace) {
  std::vector<int64_t> begins;
  for (int64_t t = 0; t < trace.tokens; ++t) {
    if (t == 0 || trace.step[t] != trace.step[t - 1]) begins.push_back(t);
  }
  begins.push_back(trace.tokens);
  return begins;
}

std::vector<double> RankShares(const std::vector<int64_t>& counts, int ranks) {
  const double total = static_cast<double>(std::accumulate(counts.begin(), counts.end(), int64_t{0}));
  std::vector<double> shares(ranks, 0.0);
  for (size_t e = 0; e < counts.size(); ++e)
    shares[e * ranks / counts.size()] += static_cast<double>(counts[e]) / total;
  return shares;
}

std::vector<int64_t> TokensOfRanks(const WholeTrace& trace) {
  std::vector<int64_t> tokens(trace.header.source_ranks(), 0);
  for (uint16_t rank : trace.source_rank) ++tokens[rank];
  return tokens;
}

TEST(PresetTest, BalancedGivesEveryExpertTheSameInEveryStepWithinOne) {
  const WholeTrace trace = Generate("balanced");
  const std::vector<int64_t> begins = StepBegins(trace);
  EXPECT_EQ(trace.tokens, 65536);
  for (int l = 0; l < trace.layers; ++l) {
    for (size_t s = 0; s + 1 < begins.size(); ++s) {
      const std::vector<int64_t> counts = ExpertCounts(trace, l, begins[s], begins[s + 1]);
      EXPECT_LE(*std::max_element(counts.begin(), counts.end()) - *std::min_element(counts.begin(), counts.end()), 1);
    }
  }
  for (int64_t tokens : TokensOfRanks(trace)) EXPECT_EQ(tokens, 8192);
}

TEST(PresetTest, OneHotExpertIsChosenByNineTokensOfTen) {
  // 65,536 tokens: standard deviation 0.0012; the drawing weights are good to 1 %.
  const WholeTrace trace = Generate("one_hot_expert");
  for (int l = 0; l < trace.layers; ++l) {
    std::vector<int64_t> counts = ExpertCounts(trace, l);
    const auto hot = std::max_element(counts.begin(), counts.end());
    EXPECT_EQ(hot - counts.begin(), l * 8) << "layer l's is the first expert of rank l";
    EXPECT_NEAR(static_cast<double>(*hot) / static_cast<double>(trace.tokens), 0.9, 0.012);
    // The others share 5.1 ids a token: 0.081 of the tokens each, 5,306, standard deviation 70.
    counts.erase(hot);
    for (int64_t count : counts) EXPECT_NEAR(static_cast<double>(count), 5306, 400);
  }
}

TEST(PresetTest, OneHotRankTakesHalf) {
  const WholeTrace trace = Generate("one_hot_rank");
  for (int l = 0; l < trace.layers; ++l) {
    const std::vector<double> shares = RankShares(ExpertCounts(trace, l), 8);
    EXPECT_NEAR(shares[0], 0.5, 0.01);
    for (int r = 1; r < 8; ++r) EXPECT_NEAR(shares[r], 0.5 / 7, 0.004);
  }
}

TEST(PresetTest, AHotRankTakesWhatItCan) {
  // One expert a rank and two a token: the hot expert can be in every token, which is half of the ids; with four a
  // token it is a quarter.
  PresetOptions options;
  options.experts = options.ranks = 8;
  options.top_k = 4;
  const WholeTrace trace = Generate("one_hot_rank", options);
  EXPECT_NEAR(RankShares(ExpertCounts(trace, 0), 8)[0], 0.25, 0.001);
}

TEST(PresetTest, SpreadHeatIsHotInExpertsAndEvenInRanks) {
  // On each rank one expert of 8 parts and 7 of 1.  8 : 15 of the ids go to the 8 hot ones, 0.4 of the tokens each.
  const WholeTrace trace = Generate("spread_heat");
  for (int l = 0; l < trace.layers; ++l) {
    const std::vector<int64_t> counts = ExpertCounts(trace, l);
    for (double share : RankShares(counts, 8)) EXPECT_NEAR(share, 1 / 8.0, 0.003);
    for (int e = 0; e < 64; e += 8) {
      EXPECT_NEAR(static_cast<double>(counts[e]) / static_cast<double>(trace.tokens), 0.4, 0.02);
      EXPECT_NEAR(static_cast<double>(counts[e]) / static_cast<double>(counts[e + 1]), 8, 0.9);
    }
  }
}

TEST(PresetTest, UnevenSourcesBringOneToRParts) {
  const WholeTrace trace = Generate("uneven_sources");
  const std::vector<int64_t> tokens = TokensOfRanks(trace);
  // 1,024 tokens a step in 36 parts: 28.44, 56.89...; the 4 left over go to the largest remainders.
  EXPECT_THAT(tokens,
              testing::ElementsAre(28 * 64, 57 * 64, 85 * 64, 114 * 64, 142 * 64, 171 * 64, 199 * 64, 228 * 64));
  for (double share : RankShares(ExpertCounts(trace, 0), 8)) EXPECT_NEAR(share, 1 / 8.0, 0.003);
}

TEST(PresetTest, TheIdleRankNeitherBringsNorGets) {
  const WholeTrace trace = Generate("idle_rank");
  const std::vector<int64_t> tokens = TokensOfRanks(trace);
  for (int r = 0; r < 7; ++r) EXPECT_EQ(tokens[r], 8192);
  EXPECT_EQ(tokens[7], 0);
  for (int l = 0; l < trace.layers; ++l) {
    const std::vector<double> shares = RankShares(ExpertCounts(trace, l), 8);
    for (int r = 0; r < 7; ++r) EXPECT_NEAR(shares[r], 1 / 7.0, 0.004);
    EXPECT_EQ(shares[7], 0);
  }
}

TEST(PresetTest, TheHotSpotRotatesEvery16Steps) {
  const WholeTrace trace = Generate("rotating_hot_spot");
  const std::vector<int64_t> begins = StepBegins(trace);
  for (int l = 0; l < trace.layers; ++l) {
    for (int step = 0; step < 64; ++step) {
      // 6,144 ids a step: standard deviation 0.0064.
      const std::vector<double> shares = RankShares(ExpertCounts(trace, l, begins[step], begins[step + 1]), 8);
      EXPECT_NEAR(shares[step / 16], 0.5, 0.04) << step;
    }
    EXPECT_LT(RankShares(ExpertCounts(trace, l), 8)[0], 0.2);
  }
}

TEST(PresetTest, BurstsCarryEightTimesTheTokens) {
  const WholeTrace trace = Generate("burst");
  const std::vector<int64_t> begins = StepBegins(trace);
  ASSERT_EQ(begins.size(), 65u);
  for (int step = 0; step < 64; ++step) {
    EXPECT_EQ(begins[step + 1] - begins[step], step % 32 >= 28 ? 8192 : 1024) << step;
  }
  // Zipf 0.8 over 64: the most popular is 64^0.8 = 27.9 times the least, but for the cap at one in every token
  // (0.185 of 6 ids is more than 1, so the first expert is in every token).
  std::vector<int64_t> counts = ExpertCounts(trace, 0);
  std::sort(counts.rbegin(), counts.rend());
  EXPECT_GT(counts[0], counts[63] * 12);
}

TEST(PresetTest, AllAreStepTracesThatSayWhatTheyAre) {
  const google::protobuf::OneofDescriptor* presets = SynthesisPreset::descriptor()->oneof_decl(0);
  EXPECT_EQ(presets->field_count(), 8);
  PresetOptions options;
  options.steps = 2;
  options.layers = 1;
  for (int i = 0; i < presets->field_count(); ++i) {
    const std::string text = presets->field(i)->options().GetExtension(doc);
    EXPECT_FALSE(text.empty()) << presets->field(i)->name();
    const WholeTrace trace = Generate(presets->field(i)->name(), options);
    EXPECT_EQ(trace.header.granularity(), STEP);
    EXPECT_EQ(trace.header.source_ranks(), 8u);
    EXPECT_EQ(trace.header.synthetic(), "stress workload '" + presets->field(i)->name() + "' (" + text + "), seed 1");
  }
}

TEST(PresetTest, BadOptionsAreNamed) {
  const auto message = [](const char* name, const PresetOptions& options) {
    return std::string(PresetSynthesis(name, options).status().message());
  };
  EXPECT_THAT(message("balance", {}), HasSubstr("no stress workload is called 'balance': balanced, one_hot_expert,"));
  PresetOptions options;
  options.experts = 60;
  EXPECT_THAT(message("balanced", options), HasSubstr("preset: experts is 60, must be a multiple of 8 ranks"));
  options.experts = 64;
  options.top_k = 57;
  EXPECT_THAT(message("balanced", options), HasSubstr("preset: top_k is 57, must be 1 to 56"));
  options.top_k = 6;
  options.ranks = 1;
  EXPECT_THAT(message("balanced", options), HasSubstr("preset: ranks is 1, must be 2 to 65535"));
  options.ranks = 8;
  options.steps = 0;
  EXPECT_THAT(message("balanced", options), HasSubstr("preset: steps is 0, must be at least 1"));
}

}  // namespace
}  // namespace epsim
