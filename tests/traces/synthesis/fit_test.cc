// A fitted synthesis resembles the trace it was fitted to: a captured one, and made-up ones whose parameters are known.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/random_stream.h"
#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/traces/synthesis/whole_trace.h"
#include "traces/import/import_trace.h"
#include "traces/synthesis/drift_estimate.h"
#include "traces/synthesis/request_groups.h"
#include "traces/synthesis/synthesis.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;

std::string Temporary(const std::string& name) { return testing::TempDir() + "/fit_" + name + std::to_string(getpid()) + ".eptrace"; }

SynthesisConfig Parse(const std::string& text) {
  SynthesisConfig config;
  const absl::Status status = ParseTextProto(text, "test", &config);
  EXPECT_TRUE(status.ok()) << status;
  return config;
}

SynthesisConfig Fit(const std::string& path, const FitOptions& options = {}) {
  auto trace = TraceReader::Open(path);
  EXPECT_TRUE(trace.ok()) << trace.status();
  auto config = FitSynthesis(**trace, options, StopToken());
  EXPECT_TRUE(config.ok()) << config.status();
  return *std::move(config);
}

WholeTrace Generate(const SynthesisConfig& config, const std::string& name) {
  const absl::Status status = Synthesize(config, Temporary(name), {}, StopToken());
  EXPECT_TRUE(status.ok()) << status;
  auto trace = LoadWholeTrace(Temporary(name));
  EXPECT_TRUE(trace.ok()) << trace.status();
  return *std::move(trace);
}

double Mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double WholeBalancedness(const WholeTrace& trace, int ranks) {
  std::vector<int64_t> all(trace.tokens);
  std::iota(all.begin(), all.end(), int64_t{0});
  return Balancedness(trace, all, ranks);
}

// Mean over 300 batches of 128 tokens, each of another request.
double StepBalancedness(const WholeTrace& trace, int ranks) {
  RandomStream random(1, "batches");
  double sum = 0;
  std::vector<size_t> order(trace.requests.size());
  std::iota(order.begin(), order.end(), size_t{0});
  for (int batch = 0; batch < 300; ++batch) {
    std::vector<int64_t> tokens;
    for (size_t i = 0; i < 128; ++i) {
      std::swap(order[i], order[i + random.Below(order.size() - i)]);
      const RequestInfo& request = trace.requests[order[i]];
      tokens.push_back(request.first_token() + static_cast<int64_t>(random.Below(request.tokens())));
    }
    sum += Balancedness(trace, tokens, ranks);
  }
  return sum / 300;
}

// How far requests of at least 200 tokens are from the mean popularity (total variation), mean over requests and
// layers.
double RequestSpread(const WholeTrace& trace) {
  double sum = 0;
  int count = 0;
  for (int l = 0; l < trace.layers; ++l) {
    const std::vector<int64_t> all = ExpertCounts(trace, l);
    for (const RequestInfo& request : trace.requests) {
      if (request.tokens() < 200) continue;
      const std::vector<int64_t> own =
          ExpertCounts(trace, l, request.first_token(), request.first_token() + request.tokens());
      for (int e = 0; e < trace.experts; ++e) {
        sum += std::abs(static_cast<double>(own[e]) / static_cast<double>(request.tokens()) -
                        static_cast<double>(all[e]) / static_cast<double>(trace.tokens)) /
               (2 * trace.top_k);
      }
      ++count;
    }
  }
  return sum / count;
}

class GptOssFitTest : public testing::Test {
 protected:
  static constexpr char kFolder[] = EPSIM_SHARED_DATA "/traces/gpt-oss-20b-decode";

  static void SetUpTestSuite() {
    if (!std::filesystem::exists(kFolder)) return;
    const auto imported = ImportTrace(kFolder, {}, Temporary("captured"), StopToken());
    ASSERT_TRUE(imported.ok()) << imported.status();
    auto captured = LoadWholeTrace(Temporary("captured"));
    ASSERT_TRUE(captured.ok()) << captured.status();
    captured_ = new WholeTrace(*std::move(captured));
    config_ = new SynthesisConfig(Fit(Temporary("captured")));
    synthetic_ = new WholeTrace(Generate(*config_, "synthetic"));
  }
  static void TearDownTestSuite() {
    delete captured_;
    delete config_;
    delete synthetic_;
  }
  void SetUp() override {
    if (captured_ == nullptr) GTEST_SKIP() << "no captured trace at " << kFolder;
  }

  static inline WholeTrace* captured_ = nullptr;
  static inline SynthesisConfig* config_ = nullptr;
  static inline WholeTrace* synthetic_ = nullptr;
};

TEST_F(GptOssFitTest, ShapeAndLengthsAreTheTraces) {
  EXPECT_EQ(synthetic_->requests.size(), 185u);
  EXPECT_NEAR(static_cast<double>(synthetic_->tokens), 85302, 500);
  std::multiset<int64_t> captured, synthetic, context, synthetic_context;
  for (const RequestInfo& r : captured_->requests) captured.insert(r.tokens()), context.insert(r.prompt_tokens());
  for (const RequestInfo& r : synthetic_->requests) {
    synthetic.insert(r.tokens());
    synthetic_context.insert(r.prompt_tokens());
  }
  EXPECT_EQ(captured, synthetic);
  EXPECT_EQ(context, synthetic_context);
  EXPECT_EQ(std::count(synthetic_->phase.begin(), synthetic_->phase.end(), DECODE), synthetic_->tokens);
  EXPECT_FALSE(config_->has_drift());
  EXPECT_THAT(synthetic_->header.synthetic(), HasSubstr("fitted to gpt-oss-20b trace "));
  EXPECT_THAT(synthetic_->header.synthetic(), HasSubstr("85302 tokens, seed 1"));
}

TEST_F(GptOssFitTest, PopularityIsWithinThreePercentOfTheIds) {
  const std::vector<double> distance = PopularityDistance(*captured_, *synthetic_);
  EXPECT_LE(Mean(distance), 0.010);
  EXPECT_LE(*std::max_element(distance.begin(), distance.end()), 0.03);
}

TEST_F(GptOssFitTest, BalancednessIsWithinThreePercent) {
  for (int ranks : {8, 16, 32}) {
    EXPECT_NEAR(WholeBalancedness(*synthetic_, ranks) / WholeBalancedness(*captured_, ranks), 1, 0.01) << ranks;
  }
  EXPECT_NEAR(WholeBalancedness(*synthetic_, 8), 0.709, 0.005);
  EXPECT_NEAR(WholeBalancedness(*synthetic_, 32), 0.411, 0.005);
}

TEST_F(GptOssFitTest, AdjacentTokensOverlapAsInTheTrace) {
  const std::vector<double> captured = AdjacentOverlap(*captured_), synthetic = AdjacentOverlap(*synthetic_);
  EXPECT_NEAR(Mean(synthetic), Mean(captured), 0.003);
  for (size_t l = 0; l < captured.size(); ++l) EXPECT_NEAR(synthetic[l], captured[l], 0.02) << l;
}

TEST_F(GptOssFitTest, BatchesOfConcurrentTokensAreAsBalanced) {
  for (int ranks : {8, 16, 32}) {
    EXPECT_NEAR(StepBalancedness(*synthetic_, ranks) / StepBalancedness(*captured_, ranks), 1, 0.02) << ranks;
  }
}

TEST_F(GptOssFitTest, RequestsDifferLikeThoseOfTheTrace) {
  // Eight groups carry three quarters of how far requests are from the mean (0.32); the rest is each request's own.
  const double captured = RequestSpread(*captured_), synthetic = RequestSpread(*synthetic_);
  EXPECT_NEAR(captured, 0.322, 0.001);
  EXPECT_GT(synthetic, 0.7 * captured);
  EXPECT_LT(synthetic, captured);
}

TEST_F(GptOssFitTest, TheFitIsReproducibleAndSmall) {
  EXPECT_EQ(PrintSynthesis(Fit(Temporary("captured"))), PrintSynthesis(*config_));
  EXPECT_LT(PrintSynthesis(*config_).size(), 200'000u);
}

TEST_F(GptOssFitTest, DomainsMayBeTheTracesOwn) {
  FitOptions options;
  options.told_domains = true;
  std::set<std::string> names, told;
  const SynthesisConfig config = Fit(Temporary("captured"), options);
  for (const Domain& domain : config.domains()) names.insert(domain.name());
  for (const RequestInfo& request : captured_->requests) told.insert(request.domain());
  EXPECT_EQ(names, told);
  EXPECT_GT(told.size(), 1u);
}

constexpr char kTwoKinds[] = R"(
  model: "made-up" layers: 4 experts: 32 top_k: 4 seed: 5
  requests { requests: 240 }
  domains {
    name: "a" share: 1 lengths { decode_tokens: 200 }
    layers { zipf { exponent: 1 by_id: true } }
  }
  domains {
    name: "b" share: 2 lengths { prefill_tokens: 100 decode_tokens: 100 }
    layers { hot { experts: [28, 29, 30, 31] share: 0.5 } }
  }
  keep_previous: [0, 0.2, 0.4, 0.8]
)";

TEST(FitTest, FindsDomainsPopularityAndKeepProbability) {
  const WholeTrace original = Generate(Parse(kTwoKinds), "two_kinds");
  FitOptions options;
  options.domains = 2;
  const SynthesisConfig config = Fit(Temporary("two_kinds"), options);
  ASSERT_EQ(config.domains_size(), 2);
  EXPECT_EQ(config.domains(0).share(), 160);  // The greater one first.
  EXPECT_EQ(config.domains(1).share(), 80);
  EXPECT_EQ(config.domains(0).lengths(0).prefill_tokens(), 100u);
  EXPECT_EQ(config.domains(1).lengths(0).decode_tokens(), 200u);
  EXPECT_FALSE(config.has_drift());
  // 48,000 tokens, 192,000 ids a layer: 0.0025 from the trace, and 0.004 from the calibration's own draws.
  const std::vector<double> keep = {0, 0.2, 0.4, 0.8};
  for (int l = 0; l < 4; ++l) EXPECT_NEAR(config.keep_previous(l), keep[l], 0.02) << l;
  const WholeTrace again = Generate(config, "again");
  EXPECT_LE(Mean(PopularityDistance(original, again)), 0.02);
  for (int l = 0; l < 4; ++l) EXPECT_NEAR(AdjacentOverlap(again)[l], AdjacentOverlap(original)[l], 0.015);
}

TEST(FitTest, FindsDriftAndStartsWhereItStarted) {
  SynthesisConfig drifting = Parse(kTwoKinds);
  drifting.mutable_domains()->DeleteSubrange(1, 1);
  drifting.mutable_drift()->set_interval_tokens(15 * 200);  // 16 times in 240 requests.
  drifting.mutable_drift()->mutable_exchange()->set_fraction(0.5);
  const WholeTrace original = Generate(drifting, "drifting");
  const SynthesisConfig config = Fit(Temporary("drifting"));
  ASSERT_TRUE(config.has_drift());
  ASSERT_EQ(config.domains_size(), 1);
  EXPECT_EQ(config.drift().interval_tokens(), 3000u);
  // Two of the four hot ones go at each change; by chance one of those that come was warm already.
  EXPECT_NEAR(config.drift().exchange().fraction(), 0.5, 0.2);
  const WholeTrace again = Generate(config, "drifting_again");
  for (int l = 0; l < 4; ++l) {
    // The first window has the popularity of the original's.
    const std::vector<int64_t> x = ExpertCounts(original, l, 0, 3000), y = ExpertCounts(again, l, 0, 3000);
    double distance = 0;
    for (int e = 0; e < 32; ++e) distance += std::abs(static_cast<double>(x[e] - y[e])) / (2.0 * 3000 * 4);
    EXPECT_LE(distance, 0.08) << l;
  }
}

TEST(FitTest, FitsStepTraces) {
  SynthesisConfig steps = Parse(R"(
    model: "made-up" layers: 2 experts: 300 top_k: 4 seed: 5
    steps { steps: 200 source_ranks: 3 tokens_per_rank: [20, 0, 10] }
    domains { name: "x" share: 1 lengths { context_tokens: 9 decode_tokens: 40 } layers { zipf { exponent: 0.7 } } }
    keep_previous: 0.5
  )");
  const WholeTrace original = Generate(steps, "steps");
  FitOptions options;
  options.domains = 1;
  const SynthesisConfig config = Fit(Temporary("steps"), options);
  EXPECT_EQ(config.steps().steps(), 200u);
  EXPECT_EQ(config.steps().source_ranks(), 3u);
  EXPECT_THAT(config.steps().tokens_per_rank(), testing::ElementsAre(20, 0, 10));
  for (double keep : config.keep_previous()) EXPECT_NEAR(keep, 0.5, 0.03);
  const WholeTrace again = Generate(config, "steps_again");
  EXPECT_EQ(again.tokens, original.tokens);
  // 80 ids an expert, of which half are kept and so count for a third: a standard deviation of 19 %, a distance of
  // 0.08.
  for (double distance : PopularityDistance(original, again)) EXPECT_LE(distance, 0.10);
}

TEST(FitTest, CountsHaveNoTokensToFitTo) {
  TraceHeader header;
  header.set_schema_version(1);
  header.set_layers(1);
  header.set_experts(4);
  header.set_top_k(1);
  header.set_id_bytes(1);
  header.set_granularity(COUNTS);
  auto writer = TraceWriter::Create(Temporary("counts"), header, {});
  ASSERT_TRUE(writer.ok()) << writer.status();
  const std::vector<uint32_t> counts = {1, 2, 3, 4};
  ASSERT_TRUE((*writer)->AppendCounts(counts).ok());
  ASSERT_TRUE((*writer)->Finish().ok());
  const auto trace = TraceReader::Open(Temporary("counts"));
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(std::string(FitSynthesis(**trace, {}, StopToken()).status().message()),
            Temporary("counts") + ": granularity COUNTS: has no ids per token, to which a synthesis could be fitted");
}

TEST(RequestGroupsTest, SeparatesTwoKindsWhateverTheirLengths) {
  // Kind 0 uses experts 0 and 1, kind 1 uses 2 and 3; from 2 to 200 tokens.
  std::vector<std::vector<uint32_t>> histograms;
  for (uint32_t i = 1; i <= 30; ++i) {
    const uint32_t n = i % 7 == 0 ? 100 : i;
    histograms.push_back(i % 3 == 0 ? std::vector<uint32_t>{n, n, 0, 0} : std::vector<uint32_t>{0, 1, n, n});
  }
  const std::vector<int> group = GroupRequests(histograms, 4, 2, RandomStream(1, "test"));
  for (size_t i = 0; i < group.size(); ++i) EXPECT_EQ(group[i], (i + 1) % 3 == 0 ? 1 : 0) << i;
  // More groups than kinds of requests: some stay empty, none is invented.
  const std::vector<std::vector<uint32_t>> alike(8, {1, 2, 3, 4});
  EXPECT_THAT(GroupRequests(alike, 4, 3, RandomStream(1, "test")), testing::Each(0));
}

TEST(DriftEstimateTest, AMixThatRecursIsNoDrift) {
  // Kinds in turn: every window has both.  Kinds one after the other: each has passed after half of the trace.
  std::vector<int> in_turn, one_after_other;
  for (int i = 0; i < 64; ++i) {
    in_turn.push_back(i % 2);
    one_after_other.push_back(i / 8);
  }
  EXPECT_FALSE(GroupsPass(in_turn, RandomStream(1, "test")));
  EXPECT_TRUE(GroupsPass(one_after_other, RandomStream(1, "test")));
}

TEST(DriftEstimateTest, TheHotExpertThatMovesIsDriftAndTheNoiseOfRequestsIsNot) {
  // 16 experts, hot set of 2.  64 requests in 16 windows of 4; the two hot experts move on by two each window: all of
  // the hot set changes.  Shuffled, windows of 4 requests have up to 8 hot experts, of which the first two change
  // often.
  RandomStream random(1, "test");
  std::vector<std::vector<uint32_t>> moving, noise;
  for (int r = 0; r < 64; ++r) {
    std::vector<uint32_t> counts(16);
    for (uint32_t& c : counts) c = 20 + static_cast<uint32_t>(random.Below(20));
    noise.push_back(counts);
    counts[r / 4 * 2 % 16] += 300;
    counts[r / 4 * 2 % 16 + 1] += 300;
    moving.push_back(counts);
  }
  const auto drift = EstimateDrift(moving, 16, RandomStream(2, "test"));
  ASSERT_TRUE(drift.has_value());
  EXPECT_EQ(drift->interval_requests, 4u);
  EXPECT_NEAR(drift->fraction, 1, 1e-12);
  EXPECT_FALSE(EstimateDrift(noise, 16, RandomStream(2, "test")).has_value());
}

}  // namespace
}  // namespace epsim
