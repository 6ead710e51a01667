// Monte-Carlo load by counter: the kernel simulates the twin's very batches, and their mean is the exact expectation.
#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/kernels/sampled_load.h"
#include "models/load/max_expert_load.h"
#include "tests/models/kernels/kernel_runs.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;

class SampledLoadKernel : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = kernel_runs::NoDevice(); !reason.empty()) GTEST_SKIP() << reason;
  }
};

ActiveSums RunSums(const SampledLoadOptions& options) {
  const auto run = kernel_runs::SampleActiveExperts(options);
  EXPECT_TRUE(run.ok()) << run.status();
  if (!run.ok()) return {};
  ActiveSums twin = {7, 7};
  EXPECT_TRUE(SampleActiveExperts(options, &twin).ok());
  EXPECT_EQ(run->most_active, twin.most_active);
  EXPECT_EQ(run->squares, twin.squares);
  return *run;
}

TEST_F(SampledLoadKernel, IsTheExactExpectation) {
  for (const auto& [tokens, experts, top_k, chips] : std::vector<std::tuple<int, int, int, int>>{
           {4, 256, 8, 32}, {4, 256, 8, 1}, {16, 256, 8, 64}, {8, 60, 4, 7}, {3, 512, 16, 5}, {2, 8, 2, 8}}) {
    SCOPED_TRACE(absl::StrCat(tokens, " tokens, ", experts, " experts, top-", top_k, ", ", chips, " chips"));
    constexpr int64_t kBatches = 20'000;
    const ActiveSums sums = RunSums(
        {.batches = kBatches, .tokens = tokens, .experts = experts, .top_k = top_k, .chips = chips, .seed = 20261129});
    const double mean = static_cast<double>(sums.most_active) / kBatches;
    const double variance = static_cast<double>(sums.squares) / kBatches - mean * mean;
    const double exact =
        ExactMaxExpertLoad({.batch = tokens, .chips = chips, .experts = experts, .top_k = top_k}).value();
    EXPECT_NEAR(mean, exact, 4 * std::sqrt(variance / kBatches) + 1e-9);
  }
}

// One chip has every expert that a token chose; on as many chips as experts none has two.
TEST_F(SampledLoadKernel, ByHand) {
  EXPECT_EQ(RunSums({.batches = 100, .tokens = 1, .experts = 64, .top_k = 6, .chips = 1}), (ActiveSums{600, 3600}));
  EXPECT_EQ(RunSums({.batches = 100, .tokens = 5, .experts = 64, .top_k = 6, .chips = 64}), (ActiveSums{100, 100}));
  EXPECT_EQ(RunSums({.batches = 10, .tokens = 3, .experts = 9, .top_k = 9, .chips = 2}), (ActiveSums{50, 250}));
  EXPECT_EQ(RunSums({.batches = 10, .tokens = 0, .experts = 9, .top_k = 9, .chips = 2}), (ActiveSums{0, 0}));
}

// Neither the number of batches nor the threads change what a batch is.
TEST_F(SampledLoadKernel, BatchesAreNumbered) {
  SampledLoadOptions options = {.batches = 1, .tokens = 4, .experts = 40, .top_k = 3, .chips = 4};
  for (const int64_t batches : {int64_t{0}, int64_t{1}, int64_t{127}, int64_t{128}, int64_t{129}, int64_t{1000}}) {
    options.batches = batches;
    RunSums(options);
  }
  ActiveSums first = {}, other_seed = {};
  options.batches = 1000;
  ASSERT_TRUE(SampleActiveExperts(options, &first).ok());
  options.seed = 2;
  ASSERT_TRUE(SampleActiveExperts(options, &other_seed).ok());
  EXPECT_FALSE(first == other_seed);
}

TEST_F(SampledLoadKernel, SaysWhatItCannot) {
  const auto message = [](const SampledLoadOptions& options) {
    return std::string(kernel_runs::SampleActiveExperts(options).status().message());
  };
  EXPECT_THAT(message({.batches = 1, .tokens = 1, .experts = 600, .top_k = 1}), HasSubstr("600 experts; 1 to 512"));
  EXPECT_THAT(message({.batches = 1, .tokens = 1, .experts = 6, .top_k = 7}), HasSubstr("top_k of 7 experts; 1 to 6"));
  EXPECT_THAT(message({.batches = 1, .tokens = 1, .experts = 6, .top_k = 1, .chips = 0}), HasSubstr("0 chips"));
}

}  // namespace
}  // namespace epsim
