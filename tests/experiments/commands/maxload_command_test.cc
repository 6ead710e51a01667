// `epsim maxload`, in process: arguments in, an answer or one line of error out.
#include <atomic>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "experiments/commands/commands.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/load/max_expert_load.h"
#include "nlohmann/json.hpp"

namespace epsim {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

class MaxLoadCommand : public testing::Test {
 protected:
  std::string Path() const {
    return testing::TempDir() + "/" + testing::UnitTest::GetInstance()->current_test_info()->name() + ".json";
  }
  ~MaxLoadCommand() override { std::remove(Path().c_str()); }
  std::string Write(const std::string& text) const {
    std::ofstream(Path()) << text;
    return Path();
  }

  // Runs `epsim maxload ARGUMENTS`; what it prints goes to stdout_.
  absl::Status Run(const std::vector<std::string>& arguments, const StopToken& stop = {}) {
    CLI::App app;
    Invocation invocation{.stop = stop, .action = {}};
    AddMaxLoadCommand(app, invocation);
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
    reversed.push_back("maxload");
    app.parse(reversed);
    testing::internal::CaptureStdout();
    const absl::Status status = invocation.action();
    stdout_ = testing::internal::GetCapturedStdout();
    return status;
  }
  std::string ErrorOf(const std::vector<std::string>& arguments) {
    const absl::Status status = Run(arguments);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_EQ(stdout_, "");
    return std::string(status.message());
  }

  std::string stdout_;
};

TEST_F(MaxLoadCommand, PrintsTheExactValueAsJson) {
  ASSERT_EQ(Run({"--batch", "4", "--chips", "32", "--json"}), absl::OkStatus());
  const Json json = Json::parse(stdout_);
  EXPECT_EQ(json.size(), 3u);
  EXPECT_NEAR(json["max_expert_load"].get<double>(), 3.174435835682, 3e-9);
  EXPECT_EQ(json["method"], "exact");
  EXPECT_EQ(json["standard_error"], 0);
  EXPECT_EQ(stdout_.find("{\"max_expert_load\":3.17443583568"), 0u) << stdout_;
}

TEST_F(MaxLoadCommand, PrintsTextForPeople) {
  ASSERT_EQ(Run({"--batch", "4", "--chips", "32"}), absl::OkStatus());
  EXPECT_EQ(stdout_,
            "3.174436 active experts on the busiest chip (exact)\n"
            "4 tokens, 8 of 256 experts each, on 32 chips of 8 experts\n"
            "on average a chip has 0.9541 active experts\n");
  ASSERT_EQ(Run({"--batch", "1", "--chips", "3", "--experts", "7", "--topk", "7"}), absl::OkStatus());
  EXPECT_EQ(stdout_,
            "3 active experts on the busiest chip (exact)\n"
            "1 token, 7 of 7 experts each, on 3 chips of 3 or 2 experts\n"
            "on average a chip has 2.333 active experts\n");
}

TEST_F(MaxLoadCommand, IsExactWhereItCanBeThoughItMaySimulate) {
  ASSERT_EQ(
      Run({"--batch", "4", "--chips", "32", "--groups", "8", "--group-topk", "8", "--allow-simulation", "--json"}),
      absl::OkStatus());
  EXPECT_EQ(Json::parse(stdout_)["method"], "exact");
}

TEST_F(MaxLoadCommand, SimulatesGroupsWithAStandardError) {
  const std::vector<std::string> arguments = {
      "--batch",      "4",           "--chips",   "32",    "--groups", "8", "--group-topk",       "4",
      "--group-rule", "independent", "--samples", "20000", "--seed",   "5", "--allow-simulation", "--json"};
  ASSERT_EQ(Run(arguments), absl::OkStatus());
  const std::string first = stdout_;
  const Json json = Json::parse(first);
  EXPECT_EQ(json.size(), 3u);
  EXPECT_EQ(json["method"], "monte_carlo");
  const double error = json["standard_error"].get<double>();
  EXPECT_NEAR(error, 0.70 / std::sqrt(20000), 0.001);
  EXPECT_NEAR(json["max_expert_load"].get<double>(), 3.4729, 4 * std::hypot(error, 0.0011));
  ASSERT_EQ(Run(arguments), absl::OkStatus());
  EXPECT_EQ(stdout_, first);
}

TEST_F(MaxLoadCommand, SimulatesGivenPopularity) {
  // The two popular experts of four lie on chip 0 of two.  One token of one expert: 1.
  ASSERT_EQ(Run({"--batch", "2", "--chips", "2", "--topk", "2", "--popularity", Write("[1, 1, 0, 0]"),
                 "--allow-simulation", "--json"}),
            absl::OkStatus());
  EXPECT_EQ(Json::parse(stdout_),
            Json::parse(R"({"max_expert_load": 2, "method": "monte_carlo", "standard_error": 0})"));
  ASSERT_EQ(Run({"--batch", "2", "--chips", "2", "--topk", "1", "--popularity", Path(), "--allow-simulation",
                 "--samples", "1000"}),
            absl::OkStatus());
  EXPECT_THAT(stdout_, HasSubstr("active experts on the busiest chip (95 %; Monte Carlo, 1000 batches)\n"));
}

TEST_F(MaxLoadCommand, AsksForLeaveToSimulate) {
  EXPECT_EQ(ErrorOf({"--batch", "4", "--chips", "32", "--groups", "8", "--group-topk", "4"}),
            "--groups: the exact method has no groups of experts; give --allow-simulation for a Monte Carlo estimate "
            "with its standard error");
  EXPECT_THAT(ErrorOf({"--batch", "4", "--chips", "2", "--topk", "1", "--popularity", Write("[1, 2]")}),
              HasSubstr("equally popular experts only; give --allow-simulation"));
  EXPECT_EQ(ErrorOf({"--batch", "4", "--chips", "32", "--experts", "5000"}),
            "--experts: 5000 are too many for the exact method, which takes up to 4096; give --allow-simulation for a "
            "Monte Carlo estimate with its standard error");
  ASSERT_EQ(Run({"--batch", "4", "--chips", "32", "--experts", "5000", "--allow-simulation", "--samples", "10"}),
            absl::OkStatus());
}

TEST_F(MaxLoadCommand, SaysWhatWouldFit) {
  EXPECT_EQ(ErrorOf({"--batch", "-1", "--chips", "32"}), "--batch: -1 tokens; at least 1 is needed");
  EXPECT_EQ(ErrorOf({"--batch", "0", "--chips", "32"}), "--batch: 0 tokens; at least 1 is needed");
  EXPECT_EQ(ErrorOf({"--batch", "1", "--chips", "0"}), "--chips: 0; at least 1 is needed");
  EXPECT_EQ(ErrorOf({"--batch", "1", "--chips", "1", "--topk", "9", "--experts", "8"}),
            "--topk: 9 distinct experts of 8; at most 8 can be chosen");
  EXPECT_EQ(ErrorOf({"--batch", "1", "--chips", "1", "--groups", "3", "--group-topk", "2", "--allow-simulation"}),
            "--groups: 3 equal groups of 256 experts; a divisor would fit");
  EXPECT_EQ(ErrorOf({"--batch", "1", "--chips", "1", "--experts", "5000", "--samples", "0", "--allow-simulation"}),
            "--samples: 0 batches; at least 2 are needed");
  EXPECT_THROW(Run({"--batch", "1"}), CLI::RequiredError);
  EXPECT_THROW(Run({"--batch", "many", "--chips", "1"}), CLI::ConversionError);
  EXPECT_THROW(Run({"--batch", "1", "--chips", "1", "--groups", "8"}), CLI::RequiresError);
  EXPECT_THROW(Run({"--batch", "1", "--chips", "1", "--groups", "8", "--group-topk", "4", "--group-rule", "best"}),
               CLI::ValidationError);
}

TEST_F(MaxLoadCommand, NamesThePlaceInThePopularityFile) {
  const auto error = [&](const std::string& text, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {
        "--batch", "1", "--chips", "1", "--topk", "1", "--allow-simulation", "--popularity", Write(text)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return ErrorOf(arguments);
  };
  EXPECT_EQ(error("[1, \"2\"]"), Path() + ": expert 1: \"2\" is not a number from 0 up");
  EXPECT_EQ(error("[1, -2]"), Path() + ": expert 1: -2 is not a number from 0 up");
  EXPECT_EQ(error("{}"), Path() + ": expected one number per expert, [0.1, 0.3, ...], not {}");
  EXPECT_THAT(error("[1, 2"), HasSubstr(":1:6: syntax error"));
  EXPECT_EQ(error("[1, 2]", {"--experts", "3"}), Path() + ": 2 experts, but --experts is 3");
  EXPECT_THAT(error("[0, 0]"), HasSubstr("only 0 experts that are not 0"));
}

TEST_F(MaxLoadCommand, CanBeInterrupted) {
  const std::atomic<bool> stop{true};
  EXPECT_TRUE(absl::IsCancelled(Run({"--batch", "4", "--chips", "32", "--groups", "8", "--group-topk", "4",
                                     "--allow-simulation", "--samples", "1000000000"},
                                    StopToken(&stop))));
  EXPECT_EQ(stdout_, "");
}

}  // namespace
}  // namespace epsim
