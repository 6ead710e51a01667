// Communication against published measurements: the cases that ship.
#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "engine/text_proto.h"
#include "experiments/accuracy/fit.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/communication/library_timing.h"

namespace epsim {
namespace {

// What a library's predictions are to hold: of |error|, for setups that the fit has not seen.
constexpr double kMedian = 0.05, kNinetieth = 0.12;

std::vector<Case> ShippedCases() {
  auto cases = ReadCases(std::string(EPSIM_SOURCE_DIR) + "/experiments/validation/communication.jsonl");
  EXPECT_TRUE(cases.ok()) << cases.status();
  return *std::move(cases);
}

std::map<std::string, std::vector<PredictedCase>> ByLibrary(const std::vector<PredictedCase>& cases) {
  std::map<std::string, std::vector<PredictedCase>> libraries;
  for (const PredictedCase& one : cases) libraries[one.measured->library].push_back(one);
  return libraries;
}

TEST(PublishedAccuracyTest, EveryTightCaseIsPredicted) {
  const std::vector<Case> cases = ShippedCases();
  const auto predicted = PredictCases(cases, StopToken(), nullptr);
  ASSERT_TRUE(predicted.ok()) << predicted.status();
  int judged = 0;
  for (const PredictedCase& one : *predicted) {
    const Case& measured = *one.measured;
    if (!measured.tight || (measured.kind != "ep_all_to_all" && measured.kind != "nccl")) continue;
    ++judged;
    EXPECT_EQ(one.unsupported, "") << measured.id;
  }
  EXPECT_EQ(judged, 172 + 110);
}

// The fit holds for setups that it has not seen, and the catalogue is what it gives.  One test: it takes a minute.
TEST(PublishedAccuracyTest, FitHoldsForSetupsThatItHasNotSeenAndGivesTheCatalogue) {
  const std::vector<Case> cases = ShippedCases();
  FitPlan plan;
  ASSERT_TRUE(ParseTextProto(FitPlans()[0].text, FitPlans()[0].path, &plan).ok());
  Timings timings;
  std::vector<PredictedCase> left_out;
  for (const FitGroup& group : plan.fit()) {
    const auto fit = FitTimings(group, cases, &timings, StopToken(), nullptr);
    ASSERT_TRUE(fit.ok()) << fit.status();
    left_out.insert(left_out.end(), fit->left_out.begin(), fit->left_out.end());
  }
  EXPECT_EQ(left_out.size(), 172 + 110);
  for (const auto& [library, predicted] : ByLibrary(left_out)) {
    const Accuracy accuracy = AccuracyOf(predicted);
    EXPECT_LE(accuracy.median, kMedian) << library;
    EXPECT_LE(accuracy.ninetieth, kNinetieth) << library << ", worst " << accuracy.worst_id;
  }
  for (const auto& [key, fitted] : timings) {
    const auto shipped = FindTiming(key.first, key.second);
    ASSERT_TRUE(shipped.ok()) << shipped.status();
    EXPECT_EQ(PrintTextProto(fitted), PrintTextProto(*shipped)) << key.first << " on " << key.second;
  }
}

}  // namespace
}  // namespace epsim
