#include "traces/synthesis/synthesis.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/traces/synthesis/whole_trace.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;

constexpr char kRequests[] = R"(
  model: "made-up"
  layers: 3
  experts: 40
  top_k: 4
  seed: 7
  description: "by hand"
  requests { requests: 50 }
  domains {
    name: "chat" share: 2
    lengths { context_tokens: 100 prefill_tokens: 20 decode_tokens: 30 unknown_tokens: 5 }
    layers { zipf { exponent: 1 } }
  }
  domains {
    name: "code" share: 1
    lengths { decode_tokens: 90 }
    layers { uniform {} } layers { hot { experts: [39, 2] share: 0.4 } } layers { zipf { exponent: 0.5 by_id: true } }
  }
  keep_previous: [0, 0.3, 0.6]
)";

constexpr char kSteps[] = R"(
  model: "made-up"
  layers: 2
  experts: 300
  top_k: 4
  seed: 7
  steps { steps: 40 source_ranks: 3 tokens_per_rank: [8, 0, 5] burst { every_steps: 10 steps: 2 factor: 3 } }
  domains { name: "chat" share: 1 lengths { context_tokens: 100 decode_tokens: 15 } layers { uniform {} } }
  keep_previous: 0.5
)";

SynthesisConfig Parse(const std::string& text) {
  SynthesisConfig config;
  const absl::Status status = ParseTextProto(text, "test", &config);
  EXPECT_TRUE(status.ok()) << status;
  return config;
}

std::string Temporary(const std::string& name) { return testing::TempDir() + "/synthesis_" + name + std::to_string(getpid()) + ".eptrace"; }

std::string Bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

WholeTrace Generate(const SynthesisConfig& config, const std::string& name) {
  const std::string path = Temporary(name);
  const absl::Status status = Synthesize(config, path, {}, StopToken());
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(VerifyTrace(path, StopToken()).ok());
  auto trace = LoadWholeTrace(path);
  EXPECT_TRUE(trace.ok()) << trace.status();
  return *std::move(trace);
}

TEST(SynthesisTest, SaysThatItIsSyntheticAndFromWhat) {
  const WholeTrace trace = Generate(Parse(kRequests), "header");
  EXPECT_EQ(trace.header.synthetic(), "by hand, seed 7");
  EXPECT_EQ(trace.header.model(), "made-up");
  EXPECT_EQ(trace.header.granularity(), REQUEST);
  EXPECT_EQ(trace.header.id_bytes(), 1u);
  SynthesisConfig steps = Parse(kSteps);
  const WholeTrace other = Generate(steps, "header");
  EXPECT_EQ(other.header.synthetic(), "from parameters, seed 7");
  EXPECT_EQ(other.header.granularity(), STEP);
  EXPECT_EQ(other.header.id_bytes(), 2u);
  EXPECT_EQ(other.header.source_ranks(), 3u);
}

TEST(SynthesisTest, RequestsHaveTheirLengthsPositionsAndPhases) {
  const WholeTrace trace = Generate(Parse(kRequests), "requests");
  ASSERT_EQ(trace.requests.size(), 50u);
  int64_t row = 0;
  int chat = 0;
  for (size_t r = 0; r < trace.requests.size(); ++r) {
    const RequestInfo& request = trace.requests[r];
    const bool is_chat = request.domain() == "chat";
    chat += is_chat;
    EXPECT_EQ(request.id(), r);
    EXPECT_EQ(request.first_token(), row);
    EXPECT_EQ(request.tokens(), is_chat ? 55 : 90);
    EXPECT_EQ(request.prompt_tokens(), is_chat ? 100 : 0);
    for (int64_t t = 0; t < request.tokens(); ++t) {
      EXPECT_EQ(trace.position[row + t], request.prompt_tokens() + t);
      EXPECT_EQ(trace.phase[row + t], !is_chat ? DECODE : t < 20 ? PREFILL : t < 50 ? DECODE : PHASE_UNKNOWN);
    }
    row += request.tokens();
  }
  EXPECT_EQ(row, trace.tokens);
  EXPECT_NEAR(chat, 50 * 2 / 3.0, 1);
}

TEST(SynthesisTest, TheSameConfigGivesTheSameBytesAndAnotherSeedOthers) {
  for (const char* text : {kRequests, kSteps}) {
    SynthesisConfig config = Parse(text);
    ASSERT_TRUE(Synthesize(config, Temporary("a"), {}, StopToken()).ok());
    ASSERT_TRUE(Synthesize(config, Temporary("b"), {}, StopToken()).ok());
    EXPECT_EQ(Bytes(Temporary("a")), Bytes(Temporary("b")));
    config.set_seed(8);
    ASSERT_TRUE(Synthesize(config, Temporary("b"), {}, StopToken()).ok());
    EXPECT_NE(Bytes(Temporary("a")), Bytes(Temporary("b")));
  }
}

TEST(SynthesisTest, MoreRequestsDoNotChangeTheFirstOnes) {
  SynthesisConfig config = Parse(kRequests);
  const WholeTrace few = Generate(config, "few");
  config.mutable_requests()->set_requests(80);
  const WholeTrace many = Generate(config, "many");
  ASSERT_GT(many.ids.size(), few.ids.size());
  EXPECT_TRUE(std::equal(few.ids.begin(), few.ids.end(), many.ids.begin()));
}

TEST(SynthesisTest, ALayersPopularityIsItsOwn) {
  // Layer 1 of "code": experts 39 and 2 take 0.4 of the ids, 0.2 each = 0.8 of the tokens choose each.  1,530 tokens,
  // of which 0.7 are drawn afresh, give a standard deviation of about 1.5 %.
  const WholeTrace trace = Generate(Parse(kRequests), "layers");
  int64_t hot = 0, ids = 0;
  for (int64_t t = 0; t < trace.tokens; ++t) {
    if (trace.requests[trace.request[t]].domain() != "code") continue;
    for (int k = 0; k < 4; ++k, ++ids) hot += trace.at(t, 1)[k] == 39 || trace.at(t, 1)[k] == 2;
  }
  EXPECT_NEAR(static_cast<double>(hot) / static_cast<double>(ids), 0.4, 0.03);
}

TEST(SynthesisTest, StepsFollowRanksAndBursts) {
  const WholeTrace trace = Generate(Parse(kSteps), "steps");
  EXPECT_EQ(trace.steps, 40);
  std::map<std::pair<int64_t, int>, int> tokens;  // (step, rank)
  for (int64_t t = 0; t < trace.tokens; ++t) ++tokens[{trace.step[t], trace.source_rank[t]}];
  for (int64_t step = 0; step < 40; ++step) {
    const int factor = step % 10 >= 8 ? 3 : 1;
    EXPECT_EQ((tokens[{step, 0}]), 8 * factor) << step;
    EXPECT_EQ((tokens[{step, 1}]), 0) << step;
    EXPECT_EQ((tokens[{step, 2}]), 5 * factor) << step;
  }
}

TEST(SynthesisTest, ARequestOfAStepTraceRunsOneTokenAStepOnOneRankAndIsReplacedWhenItEnds) {
  SynthesisConfig config = Parse(kSteps);
  config.mutable_steps()->clear_burst();
  const WholeTrace trace = Generate(config, "running");
  std::map<uint32_t, std::vector<int64_t>> rows;
  for (int64_t t = 0; t < trace.tokens; ++t) rows[trace.request[t]].push_back(t);
  EXPECT_EQ(rows.size(), trace.requests.size());
  std::set<int64_t> ends;
  for (const auto& [request, at] : rows) {
    for (size_t i = 1; i < at.size(); ++i) {
      EXPECT_EQ(trace.step[at[i]], trace.step[at[i - 1]] + 1);
      EXPECT_EQ(trace.source_rank[at[i]], trace.source_rank[at[i - 1]]);
      EXPECT_EQ(trace.position[at[i]], trace.position[at[i - 1]] + 1);
    }
    EXPECT_EQ(trace.position[at[0]], trace.requests[request].prompt_tokens());
    const bool ended = trace.step[at.back()] < 39;
    if (ended) {
      EXPECT_EQ(static_cast<int64_t>(at.size()), trace.requests[request].tokens());
      EXPECT_EQ(trace.position[at.back()], 114u);  // 100 + 15 - 1.
      ends.insert(trace.step[at.back()]);
    }
  }
  EXPECT_GT(ends.size(), 10u);  // They do not all end together.
  // Half of the ids are kept from step to step; 4 / 300 of the rest meet by chance: 0.507.  About 3,800 ids: 0.008.
  for (double overlap : AdjacentOverlap(trace)) EXPECT_NEAR(overlap, 0.507, 0.035);
}

TEST(SynthesisTest, PrefillRunsTheTokensOfARequestOneAfterAnother) {
  SynthesisConfig config = Parse(kSteps);
  config.mutable_steps()->clear_burst();
  config.mutable_domains(0)->mutable_lengths(0)->set_decode_tokens(0);
  config.mutable_domains(0)->mutable_lengths(0)->set_prefill_tokens(20);
  const WholeTrace trace = Generate(config, "prefill");
  std::map<int, int64_t> last;  // Of a rank.
  for (int64_t t = 0; t < trace.tokens; ++t) {
    EXPECT_EQ(trace.phase[t], PREFILL);
    const auto [entry, first] = last.try_emplace(trace.source_rank[t], t);
    if (first) continue;
    const int64_t before = std::exchange(entry->second, t);
    const bool same = trace.request[t] == trace.request[before];
    EXPECT_EQ(trace.position[t], same ? trace.position[before] + 1 : 100);
    EXPECT_TRUE(same || trace.position[before] == 119) << t;
  }
  EXPECT_EQ(trace.requests.size(), 16u + 10u);  // Rank 0: 320 tokens / 20, rank 2: 200 / 20.
}

TEST(SynthesisTest, DriftMovesTheHotExperts) {
  SynthesisConfig config = Parse(kRequests);
  config.mutable_domains()->DeleteSubrange(1, 1);
  config.mutable_domains(0)->mutable_layers(0)->mutable_zipf()->set_by_id(true);
  config.clear_keep_previous();
  config.mutable_requests()->set_requests(400);  // 22,000 tokens.
  config.mutable_drift()->set_interval_tokens(11000);
  config.mutable_drift()->mutable_exchange()->set_fraction(1);
  config.mutable_drift()->mutable_exchange()->set_hot_experts(5);
  const WholeTrace trace = Generate(config, "drift");
  for (int l = 0; l < 3; ++l) {
    const std::vector<int64_t> before = ExpertCounts(trace, l, 0, 11000), after = ExpertCounts(trace, l, 11000, 22000);
    // Zipf 1 over 40 with top-4: expert 4 has a share above 0.15 of the tokens, expert 5 below.
    int moved = 0;
    for (int e = 0; e < 5; ++e) moved += after[e] < before[e] / 2 || after[e] < before[4] * 9 / 10;
    EXPECT_EQ(moved, 5) << l;
    // Their popularity is now that of others: the sorted counts are alike within the noise.
    std::vector<int64_t> x = before, y = after;
    std::sort(x.rbegin(), x.rend());
    std::sort(y.rbegin(), y.rend());
    for (int i = 0; i < 5; ++i) EXPECT_NEAR(static_cast<double>(y[i]) / static_cast<double>(x[i]), 1, 0.1);
  }
}

TEST(SynthesisTest, AStopLeavesNothing) {
  const std::atomic<bool> flag = true;
  std::filesystem::remove(Temporary("stopped"));
  EXPECT_EQ(Synthesize(Parse(kRequests), Temporary("stopped"), {}, StopToken(&flag)).code(),
            absl::StatusCode::kCancelled);
  EXPECT_FALSE(std::filesystem::exists(Temporary("stopped")));
}

TEST(SynthesisTest, TextOfAConfigIsTheConfig) {
  const SynthesisConfig config = Parse(kRequests);
  EXPECT_THAT(PrintSynthesis(config), HasSubstr("keep_previous: [0, 0.3, 0.6]"));
  EXPECT_EQ(PrintSynthesis(Parse(PrintSynthesis(config))), PrintSynthesis(config));
}

TEST(SynthesisValidationTest, EveryMistakeIsNamedInOneLine) {
  const std::vector<std::pair<std::string, std::string>> mistakes = {
      {"layers: 0", "F: layers is 0, must be 1 to 1024"},
      {"experts: 70000", "F: experts is 70000, must be 1 to 65536"},
      {"top_k: 301", "F: top_k is 301, must be 1 to 255"},
      {"experts: 3", "F: top_k is 4, must be 1 to 3"},
      {"description: 'a\\nb'", "F: description is more than one line"},
      {"domains { share: 0 }", "F: domains[1].share is 0, must be positive"},
      {"domains { share: 1 }", "F: domains[1].lengths is empty"},
      {"domains { share: 1 lengths { context_tokens: 9 } }", "F: domains[1].lengths[0] has no recorded tokens"},
      {"domains { share: 1 lengths { decode_tokens: 1 } }",
       "F: domains[1].layers has 0 entries, must be 1 or one for each of 2 layers"},
      {"domains { share: 1 lengths { decode_tokens: 1 } layers {} }", "F: domains[1].layers[0] has no shape"},
      {"domains { share: 1 lengths { decode_tokens: 1 } layers { zipf { exponent: -1 } } }",
       "F: domains[1].layers[0].zipf.exponent is -1, must be 0 to 8"},
      {"domains { share: 1 lengths { decode_tokens: 1 } layers { explicit { weights: [1, 2] } } }",
       "F: domains[1].layers[0].explicit.weights has 2 entries, must be one for each of 300 experts"},
      {"domains { share: 1 lengths { decode_tokens: 1 } layers { hot { share: 0.5 } } }",
       "F: domains[1].layers[0].hot.experts is empty"},
      {"domains { share: 1 lengths { decode_tokens: 1 } layers { hot { experts: [1, 300] share: 0.5 } } }",
       "F: domains[1].layers[0].hot.experts names expert 300 of 300"},
      {"domains { share: 1 lengths { decode_tokens: 1 } layers { hot { experts: [1, 1] share: 0.5 } } }",
       "F: domains[1].layers[0].hot.experts names an expert twice"},
      {"domains { share: 1 lengths { decode_tokens: 1 } layers { hot { experts: 1 share: 0.3 } } }",
       "F: domains[1].layers[0].hot.share is 0.3, must be above 0, 0 to 0.25"},
      {"domains { share: 1 lengths { decode_tokens: 1 } layers { dealt {} } }",
       "F: domains mix dealt and drawn popularity"},
      {"keep_previous: [0.1, 0.2]", "F: keep_previous has 3 entries, must be 1 or one for each of 2 layers"},
      {"drift { interval_tokens: 0 }", "F: drift.interval_tokens is 0, must be 1 to"},
      {"drift { interval_tokens: 5 }", "F: drift has no change: exchange or rotate"},
      {"drift { interval_tokens: 5 rotate { by: 300 } }", "F: drift.rotate.by is 300, must be 1 to 299"},
      {"drift { interval_tokens: 5 exchange { fraction: 1.5 } }",
       "F: drift.exchange.fraction is 1.5, must be above 0 and at most 1"},
      {"drift { interval_tokens: 5 exchange { fraction: 1 hot_experts: 300 } }",
       "F: drift.exchange.hot_experts is 300, must be 0 to 299"},
      {"steps { steps: 0 }", "F: steps.steps is 0, must be 1 to"},
      {"steps { source_ranks: 4 }", "F: steps.tokens_per_rank has 3 entries, must be 1 or one for each of 4 ranks"},
      {"steps { burst { steps: 11 } }", "F: steps.burst.steps is 11, must be 1 to 10"},
      {"steps { burst { factor: 0 } }", "F: steps.burst.factor is 0, must be 1 to 65536"},
      {"steps { burst { factor: 65536 } } top_k: 200",
       "F: steps have 851968 tokens each, at most 671088 fit in memory"},
      {"requests {}", "F: requests.requests is 0, must be 1 to"},
      {"requests { requests: 1 } domains { share: 1 lengths { decode_tokens: 100000000 } layers { uniform {} } }",
       "F: domains[1].lengths[0] has 100000000 tokens, at most 33554432 fit in memory"},
  };
  for (const auto& [change, message] : mistakes) {
    // Merged over a config that is right: later scalar fields win, repeated ones are added to.
    SynthesisConfig config = Parse(kSteps);
    const SynthesisConfig extra = Parse(change);
    // A 0 does not win: it is what a field that is not set has.
    if (change == "layers: 0") config.clear_layers();
    if (change == "steps { steps: 0 }") config.mutable_steps()->clear_steps();
    if (change == "steps { burst { factor: 0 } }") config.mutable_steps()->mutable_burst()->clear_factor();
    config.MergeFrom(extra);
    const absl::Status status = ValidateSynthesis(config, "F");
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << change;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message)) << change;
    EXPECT_EQ(status.message().find('\n'), absl::string_view::npos);
  }
}

TEST(SynthesisValidationTest, WhatIsMissingIsNamed) {
  SynthesisConfig config = Parse(kSteps);
  config.clear_recording();
  EXPECT_THAT(std::string(ValidateSynthesis(config, "F").message()), HasSubstr("F: recording is missing"));
  config = Parse(kSteps);
  config.mutable_steps()->clear_tokens_per_rank();
  config.mutable_steps()->add_tokens_per_rank(0);
  EXPECT_THAT(std::string(ValidateSynthesis(config, "F").message()),
              HasSubstr("F: steps.tokens_per_rank has no tokens at all"));
  config = Parse(kSteps);
  config.mutable_domains(0)->mutable_layers(0)->mutable_dealt();
  EXPECT_THAT(std::string(ValidateSynthesis(config, "F").message()),
              HasSubstr("F: keep_previous is 0.5, must be 0 where ids are dealt"));
  config = Parse(kSteps);
  auto& weights = *config.mutable_domains(0)->mutable_layers(0)->mutable_explicit_()->mutable_weights();
  weights.Resize(300, 0);
  weights.Set(17, 1);
  EXPECT_THAT(std::string(ValidateSynthesis(config, "F").message()),
              HasSubstr("has 1 positive entries, fewer than top_k = 4"));
}

}  // namespace
}  // namespace epsim
