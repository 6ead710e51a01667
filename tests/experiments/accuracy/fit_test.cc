#include "experiments/accuracy/fit.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/timing/library_timing.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;

// A dispatch of `nvlink_two_sided` on GB200 with `tokens` a rank, measured by nobody.
Case TwoSided(int ranks, int tokens) {
  Case measured;
  measured.id = absl::StrCat("case_", ranks, "_", tokens);
  measured.place = measured.id;
  measured.kind = "ep_all_to_all";
  measured.platform = "gb200-nvl72";
  measured.library = "nvlink_two_sided";
  measured.metric = "time_us";
  measured.tight = true;
  measured.measured = 1;
  measured.fields = {{"phase", "dispatch"}, {"ranks", ranks}, {"tokens_per_rank", tokens}, {"hidden", 7168},
                     {"top_k", 8},          {"experts", 256}, {"bytes_per_token", 14336},  {"routing", "balanced"}};
  return measured;
}

FitGroup Plan() {
  FitGroup plan;
  EXPECT_TRUE(ParseTextProto(R"(
    library: "nvlink_two_sided"
    family { name: "blackwell" platforms: "gb200-nvl72" }
    parameter { field: "nvlink_two_sided.launch" start: "5 us" }
    parameter { field: "nvlink_two_sided.nvlink_efficiency" start: "0.4" range: 2.5 })",
                             "plan", &plan)
                  .ok());
  return plan;
}

class FitTest : public ::testing::Test {
 protected:
  // Six setups as they would be with a launch of 23 us and 0.61 of the link.
  FitTest() {
    auto timing = FindTiming("nvlink_two_sided", "blackwell");
    EXPECT_TRUE(timing.ok()) << timing.status();
    EXPECT_TRUE(SetField("nvlink_two_sided.launch=23 us", &*timing).ok());
    EXPECT_TRUE(SetField("nvlink_two_sided.nvlink_efficiency=0.61", &*timing).ok());
    for (int ranks : {8, 32}) {
      for (int tokens : {16, 256, 2048}) {
        Case measured = TwoSided(ranks, tokens);
        const auto model = NewCaseModel(measured);
        EXPECT_TRUE(model.ok()) << model.status();
        measured.measured = *(*model)->Predict(&*timing);
        cases_.push_back(measured);
      }
    }
  }

  std::string Error(const FitGroup& plan) {
    Timings timings;
    const auto fit = FitTimings(plan, cases_, &timings, StopToken(), nullptr);
    EXPECT_EQ(fit.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(fit.status().message());
  }

  std::vector<Case> cases_;
};

TEST_F(FitTest, FindsTheParametersThatMadeTheCases) {
  Timings timings;
  const auto fit = FitTimings(Plan(), cases_, &timings, StopToken(), nullptr);
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_EQ(fit->groups, 6);
  EXPECT_EQ(fit->fitted.size(), 6);
  EXPECT_EQ(fit->left_out.size(), 6);
  EXPECT_LT(AccuracyOf(fit->fitted).worst, 0.002);
  EXPECT_LT(AccuracyOf(fit->left_out).worst, 0.002);
  ASSERT_EQ(fit->values.size(), 2);
  EXPECT_NEAR(std::stod(fit->values[0]), 23, 0.1);
  EXPECT_THAT(fit->values[0], HasSubstr(" us"));
  EXPECT_NEAR(std::stod(fit->values[1]), 0.61, 0.003);
  const LibraryTiming& timing = timings.at({"nvlink_two_sided", "blackwell"});
  EXPECT_NEAR(timing.nvlink_two_sided().nvlink_efficiency(), 0.61, 0.003);
}

// A setup is judged by a fit that has not seen it: one that is unlike the others stands out there, and less in the fit.
TEST_F(FitTest, LeavingASetupOutShowsWhatTheFitHides) {
  cases_[2].measured *= 1.5;
  Timings timings;
  const auto fit = FitTimings(Plan(), cases_, &timings, StopToken(), nullptr);
  ASSERT_TRUE(fit.ok()) << fit.status();
  const auto error_of = [&](const std::vector<PredictedCase>& cases) {
    for (const PredictedCase& one : cases) {
      if (one.measured == &cases_[2]) return one.error();
    }
    return 0.0;
  };
  EXPECT_NEAR(error_of(fit->left_out), 1 / 1.5 - 1, 0.01);
  EXPECT_LE(std::abs(error_of(fit->fitted)), std::abs(error_of(fit->left_out)));
}

TEST_F(FitTest, LooseRowsDoNotCount) {
  Case loose = TwoSided(16, 64);
  loose.measured = 1e6;
  loose.tight = false;
  cases_.push_back(loose);
  Timings timings;
  const auto fit = FitTimings(Plan(), cases_, &timings, StopToken(), nullptr);
  ASSERT_TRUE(fit.ok());
  EXPECT_EQ(fit->groups, 6);
}

TEST_F(FitTest, ErrorsSayWhatTheFitIsOf) {
  FitGroup plan = Plan();
  cases_.resize(5);
  EXPECT_THAT(Error(plan), HasSubstr("fit of nvlink_two_sided: 2 parameters for 5 tight rows of 5 setups; at most 1"));
  plan = Plan();
  plan.mutable_parameter(0)->set_field("nvlink_two_sided.lunch");
  EXPECT_THAT(Error(plan), HasSubstr("parameter nvlink_two_sided.lunch: "));
  plan = Plan();
  plan.mutable_parameter(1)->set_start("-1");
  EXPECT_THAT(Error(plan), HasSubstr("start: \"-1\" is not positive"));
  plan = Plan();
  plan.clear_parameter();
  EXPECT_THAT(Error(plan), HasSubstr("no parameters"));
  plan = Plan();
  auto* taken = plan.add_taken();
  taken->set_field("nvlink_two_sided.launch");
  taken->set_from_library("nvlink_one_sided");
  taken->set_from_field("nvlink_one_sided.start");
  EXPECT_THAT(Error(plan), HasSubstr("no quantity \"nvlink_one_sided.start\" in a timing"));
}

TEST_F(FitTest, UnknownFamilyListsWhatThereIs) {
  FitGroup plan = Plan();
  plan.mutable_family(0)->set_name("volta");
  Timings timings;
  const auto fit = FitTimings(plan, cases_, &timings, StopToken(), nullptr);
  EXPECT_THAT(std::string(fit.status().message()), HasSubstr("blackwell"));
}

}  // namespace
}  // namespace epsim
