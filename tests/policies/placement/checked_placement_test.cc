#include "policies/placement/checked_placement.h"

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "policies/placement/contiguous_placement.h"

namespace epsim {
namespace {

using testing::ElementsAre;

const PlacementShape kShape{.layers = 2, .experts = 3, .slots = 4, .ranks = 2};

// Counts the requests that reach it.
class CountedPlacement : public PlacementPolicy {
 public:
  explicit CountedPlacement(int* requests) : requests_(requests) {}
  absl::StatusOr<Placement> Place(const PlacementRequest&) override {
    ++*requests_;
    return PlaceContiguously(kShape);
  }
  std::vector<Layer> change_order() const override { return {Layer{1}, Layer{0}}; }

 private:
  int* const requests_;
};

class CheckedPlacementTest : public testing::Test {
 protected:
  absl::Status Place(bool goes_by_load = true) {
    PlacementRequest request;
    request.window = {.rows = static_cast<int>(tokens_.size()) / 6, .layers = 2, .experts = 3, .tokens = tokens_};
    const ExpertProfile profile{.layers = profile_layers_, .experts = 3, .time_per_token = times_};
    if (!times_.empty()) request.profile = &profile;
    if (has_random_) request.random = &random_;
    return NewCheckedPlacement(std::make_unique<CountedPlacement>(&requests_), goes_by_load, kShape)
        ->Place(request)
        .status();
  }
  std::string Error() { return std::string(Place().message()); }

  std::vector<double> tokens_ = {0, 1, 2.5, 3, 4, 5};
  std::vector<double> times_;
  int profile_layers_ = 2;
  bool has_random_ = true;
  RandomStream random_{1, "placement"};
  int requests_ = 0;
};

TEST_F(CheckedPlacementTest, LetsGoodRequestsPass) {
  EXPECT_TRUE(Place().ok());
  times_ = {0, 1, 2, 3, 4, 1e12};
  EXPECT_TRUE(Place().ok());
  tokens_.assign(6, std::numeric_limits<float>::max());
  EXPECT_TRUE(Place().ok());
  EXPECT_EQ(requests_, 3);
}

TEST_F(CheckedPlacementTest, AnEmptyWindowServesThoseOnlyThatDoNotGoByLoad) {
  tokens_.clear();
  EXPECT_EQ(Place(true),
            absl::FailedPreconditionError("placement: the window is empty: no load has been seen to plan on"));
  EXPECT_EQ(requests_, 0);
  EXPECT_TRUE(Place(false).ok());
  EXPECT_EQ(requests_, 1);
}

// The place of the first load that is none; rows are counted where there are several.
TEST_F(CheckedPlacementTest, SaysWhichLoadIsNone) {
  tokens_[4] = -1;
  EXPECT_EQ(Error(), "placement: load of layer 1, expert 1: -1 is negative");
  tokens_[2] = NAN;
  EXPECT_EQ(Error(), "placement: load of layer 0, expert 2: nan is not a finite number");
  tokens_.assign(18, 1);
  tokens_[12 + 3] = INFINITY;
  EXPECT_EQ(Error(), "placement: load of layer 1, expert 0, row 2: inf is not a finite number");
  tokens_[12 + 3] = -INFINITY;
  EXPECT_EQ(Error(), "placement: load of layer 1, expert 0, row 2: -inf is negative");
  tokens_[12 + 3] = 3.5e38;  // The largest float32 is 3.4028e38.
  EXPECT_EQ(Error(), "placement: load of layer 1, expert 0, row 2: 3.5e+38 is more than a float32 can hold");
  EXPECT_EQ(requests_, 0);
  // Policies that do not go by load refuse it all the same.
  EXPECT_FALSE(Place(false).ok());
}

// Each of two rows fits, but policies add them up.
TEST_F(CheckedPlacementTest, SaysWhichTotalIsTooMuch) {
  tokens_.assign(12, 1);
  tokens_[1] = tokens_[6 + 1] = 3e38;
  EXPECT_EQ(Error(), "placement: total load of layer 0, expert 1: 6e+38 is more than a float32 can hold");
  tokens_[6 + 1] = 4e37;  // 3.4e38 in all.
  EXPECT_TRUE(Place().ok());
}

TEST_F(CheckedPlacementTest, SaysWhichTimeIsNone) {
  times_ = {1, 1, 1, 1, 1, NAN};
  EXPECT_EQ(Error(), "placement: time per token of layer 1, expert 2: nan is not a finite number");
  times_ = {1, -2, 1, 1, 1, 1};
  EXPECT_EQ(Error(), "placement: time per token of layer 0, expert 1: -2 is negative");
  EXPECT_EQ(requests_, 0);
}

TEST_F(CheckedPlacementTest, TellsTheOrderOfThePolicy) {
  const auto policy = NewCheckedPlacement(std::make_unique<CountedPlacement>(&requests_), true, kShape);
  EXPECT_THAT(policy->change_order(), ElementsAre(Layer{1}, Layer{0}));
}

using CheckedPlacementDeathTest = CheckedPlacementTest;

TEST_F(CheckedPlacementDeathTest, RequestsHaveTheShapeOfThePolicyAndAStream) {
  tokens_.push_back(1);
  EXPECT_DEATH(Place().IgnoreError(), "window.tokens.size");
  tokens_.pop_back();
  times_.assign(6, 1);
  profile_layers_ = 1;
  EXPECT_DEATH(Place().IgnoreError(), "profile->layers == shape_.layers");
  times_.clear();
  has_random_ = false;
  EXPECT_DEATH(Place().IgnoreError(), "random != nullptr");
}

}  // namespace
}  // namespace epsim
