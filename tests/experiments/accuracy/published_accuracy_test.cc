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

class PublishedFitTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    cases_ = new std::vector<Case>(ShippedCases());
    timings_ = new Timings;
    left_out_ = new std::vector<PredictedCase>;
    FitPlan plan;
    ASSERT_TRUE(ParseTextProto(FitPlans()[0].text, FitPlans()[0].path, &plan).ok());
    for (const FitGroup& group : plan.fit()) {
      const auto fit = FitTimings(group, *cases_, timings_, StopToken(), nullptr);
      ASSERT_TRUE(fit.ok()) << fit.status();
      left_out_->insert(left_out_->end(), fit->left_out.begin(), fit->left_out.end());
    }
  }
  static void TearDownTestSuite() {
    delete left_out_;
    delete timings_;
    delete cases_;
  }

  static std::vector<Case>* cases_;
  static Timings* timings_;
  static std::vector<PredictedCase>* left_out_;
};
std::vector<Case>* PublishedFitTest::cases_;
Timings* PublishedFitTest::timings_;
std::vector<PredictedCase>* PublishedFitTest::left_out_;

TEST_F(PublishedFitTest, HoldsForSetupsThatItHasNotSeen) {
  int rows = 0;
  for (const auto& [library, cases] : ByLibrary(*left_out_)) {
    const Accuracy accuracy = AccuracyOf(cases);
    rows += accuracy.cases;
    EXPECT_LE(accuracy.median, kMedian) << library;
    EXPECT_LE(accuracy.ninetieth, kNinetieth) << library << ", worst " << accuracy.worst_id;
  }
  EXPECT_EQ(rows, 172 + 110);
}

// The catalogue is what `epsim fit` makes of the shipped cases.
TEST_F(PublishedFitTest, GivesTheCatalogue) {
  for (const auto& [key, fitted] : *timings_) {
    const auto shipped = FindTiming(key.first, key.second);
    ASSERT_TRUE(shipped.ok()) << shipped.status();
    EXPECT_EQ(PrintTextProto(fitted), PrintTextProto(*shipped)) << key.first << " on " << key.second;
  }
}

}  // namespace
}  // namespace epsim
