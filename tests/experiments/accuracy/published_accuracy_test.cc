// Predictions against published measurements: the cases that ship.
#include <map>
#include <set>
#include <string>
#include <vector>

#include "engine/text_proto.h"
#include "experiments/accuracy/fit.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/timing/library_timing.h"

namespace epsim {
namespace {

// What predictions are to hold: of |error|, for setups that the fit has not seen.
struct Target {
  double median, ninetieth;
};
constexpr Target kCommunication{0.05, 0.12}, kCompute{0.07, 0.18};

std::vector<Case> ShippedCases(const char* file) {
  auto cases = ReadCases(std::string(EPSIM_SOURCE_DIR) + "/experiments/validation/" + file);
  EXPECT_TRUE(cases.ok()) << cases.status();
  return *std::move(cases);
}

// The number of tight cases; every one of these kinds has a prediction.
int CountJudged(const std::vector<Case>& cases, const std::set<std::string>& kinds) {
  const auto predicted = PredictCases(cases, StopToken(), nullptr);
  EXPECT_TRUE(predicted.ok()) << predicted.status();
  int judged = 0;
  for (const PredictedCase& one : *predicted) {
    const Case& measured = *one.measured;
    if (!measured.tight || !kinds.contains(measured.kind)) continue;
    ++judged;
    EXPECT_EQ(one.unsupported, "") << measured.id;
  }
  return judged;
}

// Fits what the shipped plan has for `cases`.  The catalogue must hold what comes out; returned are the rows as
// predicted by fits that have not seen their setup.
std::vector<PredictedCase> FitAsShipped(const std::vector<Case>& cases) {
  const FitPlan plan = ShippedFitPlan();
  Timings timings;
  std::vector<PredictedCase> left_out;
  for (const FitGroup& group : plan.fit()) {
    if (!HasRows(group, cases)) continue;
    const auto fit = FitTimings(group, cases, &timings, StopToken(), nullptr);
    EXPECT_TRUE(fit.ok()) << fit.status();
    if (!fit.ok()) continue;
    left_out.insert(left_out.end(), fit->left_out.begin(), fit->left_out.end());
  }
  for (const auto& [key, fitted] : timings) {
    const auto shipped = FindTiming(key.first, key.second);
    EXPECT_TRUE(shipped.ok()) << shipped.status();
    EXPECT_EQ(PrintTextProto(fitted), PrintTextProto(*shipped)) << key.first << " on " << key.second;
  }
  return left_out;
}

void ExpectWithin(const Target& target, const std::map<std::string, std::vector<PredictedCase>>& groups) {
  for (const auto& [name, predicted] : groups) {
    const Accuracy accuracy = AccuracyOf(predicted);
    EXPECT_LE(accuracy.median, target.median) << name;
    EXPECT_LE(accuracy.ninetieth, target.ninetieth) << name << ", worst " << accuracy.worst_id;
  }
}

TEST(PublishedAccuracyTest, EveryTightCaseIsPredicted) {
  EXPECT_EQ(CountJudged(ShippedCases("communication.jsonl"), {"ep_all_to_all", "nccl"}), 172 + 110);
  EXPECT_EQ(CountJudged(ShippedCases("compute.jsonl"),
                        {"grouped_gemm", "dense_gemm", "moe_layer", "fused_moe", "mla_decode", "mla_prefill"}),
            42 + 18 + 36 + 26 + 45 + 11);
}

// One test each: a fit takes a minute, or some.
TEST(PublishedAccuracyTest, CommunicationHoldsForSetupsThatTheFitHasNotSeenAndTheCatalogueIsTheFit) {
  const std::vector<Case> cases = ShippedCases("communication.jsonl");
  const std::vector<PredictedCase> left_out = FitAsShipped(cases);
  EXPECT_EQ(left_out.size(), 172 + 110);
  std::map<std::string, std::vector<PredictedCase>> libraries;
  for (const PredictedCase& one : left_out) libraries[one.measured->library].push_back(one);
  ExpectWithin(kCommunication, libraries);
}

TEST(PublishedAccuracyTest, ComputeHoldsForSetupsThatTheFitHasNotSeenAndTheCatalogueIsTheFit) {
  const std::vector<Case> cases = ShippedCases("compute.jsonl");
  const std::vector<PredictedCase> left_out = FitAsShipped(cases);
  EXPECT_EQ(left_out.size(), 178u);
  std::map<std::string, std::vector<PredictedCase>> kinds;
  for (const PredictedCase& one : left_out) kinds[one.measured->kind + " on " + one.measured->platform].push_back(one);
  EXPECT_EQ(kinds.size(), 9u);
  ExpectWithin(kCompute, kinds);
}

// Rows that no fit has seen: one random draw each of a power law, on three GPUs.
TEST(PublishedAccuracyTest, SkewedLayersAreAsNearAsEvenOnes) {
  const std::vector<Case> cases = ShippedCases("compute.jsonl");
  const auto predicted = PredictCases(cases, StopToken(), nullptr);
  ASSERT_TRUE(predicted.ok()) << predicted.status();
  std::map<std::string, std::vector<PredictedCase>> skewed;
  for (const PredictedCase& one : *predicted) {
    if (one.measured->library != "sglang_deep_gemm" || *one.balancedness > 0.95) continue;
    EXPECT_FALSE(one.measured->tight);
    skewed[*one.balancedness < 0.4 ? "skewed" : "uneven"].push_back(one);
  }
  ASSERT_EQ(skewed.size(), 2u);
  ExpectWithin({0.07, 0.18}, skewed);
}

}  // namespace
}  // namespace epsim
