#include "experiments/accuracy/accuracy_report.h"

#include <deque>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class AccuracyReportTest : public ::testing::Test {
 protected:
  // A case of 100 us that is predicted as `predicted`, or, where that is 0, not.
  void Add(double predicted, const std::string& platform = "p", bool tight = true) {
    Case& measured = cases_.emplace_back();
    measured.id = "case" + std::to_string(cases_.size());
    measured.kind = "k";
    measured.library = "l";
    measured.platform = platform;
    measured.metric = "time_us";
    measured.measured = 100;
    measured.tight = tight;
    predicted_.push_back(
        {.measured = &measured, .predicted = predicted, .unsupported = predicted > 0 ? "" : "no, not"});
  }

  std::deque<Case> cases_;
  std::vector<PredictedCase> predicted_;
};

// Errors -4 %, 1 %, 2 %, 3 %, 10 %.  Of |error| the median is 3 %, the 90th percentile 4 % + 0.6 * (10 % - 4 %) =
// 7.6 %; the median of the errors is 2 %.
TEST_F(AccuracyReportTest, PercentilesBiasAndWorst) {
  for (double predicted : {102, 96, 110, 101, 103}) Add(predicted);
  const Accuracy accuracy = AccuracyOf(predicted_);
  EXPECT_EQ(accuracy.cases, 5);
  EXPECT_NEAR(accuracy.median, 0.03, 1e-12);
  EXPECT_NEAR(accuracy.ninetieth, 0.076, 1e-12);
  EXPECT_NEAR(accuracy.bias, 0.02, 1e-12);
  EXPECT_NEAR(accuracy.worst, 0.1, 1e-12);
  EXPECT_EQ(accuracy.worst_id, "case3");
}

TEST_F(AccuracyReportTest, WorstMayBeTooLow) {
  Add(105);
  Add(80);
  EXPECT_NEAR(AccuracyOf(predicted_).worst, -0.2, 1e-12);
}

TEST_F(AccuracyReportTest, TableHasALineAPlatformAndOneForAllOfThem) {
  Add(110, "a");
  Add(130, "b");
  Add(0, "b");
  Add(150, "b", false);
  const std::string table = AccuracyTable(predicted_);
  EXPECT_THAT(table,
              HasSubstr("k              l                              a             tight      1      0   10.0 %"));
  EXPECT_THAT(table,
              HasSubstr("k              l                              b             tight      1      1   30.0 %"));
  EXPECT_THAT(table,
              HasSubstr("k              l                              all           tight      2      1   20.0 %"));
  EXPECT_THAT(table,
              HasSubstr("k              l                              b             loose      1      0   50.0 %"));
  EXPECT_THAT(table, HasSubstr("unsupported:\n    1 k: no, not\n"));
}

TEST_F(AccuracyReportTest, NoLineForAllOfOnePlatform) {
  Add(110, "a");
  EXPECT_THAT(AccuracyTable(predicted_), Not(HasSubstr(" all ")));
  EXPECT_THAT(AccuracyTable(predicted_), Not(HasSubstr("unsupported:")));
}

TEST_F(AccuracyReportTest, CsvHasEveryCase) {
  Add(110);
  Add(0);
  EXPECT_EQ(AccuracyCsv(predicted_),
            "id,kind,platform,metric,measured,predicted,relative_error,status\n"
            "case1,k,p,time_us,100,110,0.1000,predicted\n"
            "case2,k,p,time_us,100,,,\"unsupported: no, not\"\n");
}

}  // namespace
}  // namespace epsim
