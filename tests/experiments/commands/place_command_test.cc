// `epsim place`, in process: arguments in, JSON or one line of error out.
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "experiments/commands/commands.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace epsim {
namespace {

using testing::HasSubstr;
using Json = nlohmann::json;

class PlaceCommand : public testing::Test {
 protected:
  // A file for this test alone.
  std::string Path() const {
    return testing::TempDir() + "/" + testing::UnitTest::GetInstance()->current_test_info()->name() + ".json";
  }
  ~PlaceCommand() override { std::remove(Path().c_str()); }

  std::string Write(const std::string& text) const {
    std::ofstream(Path()) << text;
    return Path();
  }

  // Runs `epsim place ARGUMENTS`; what it prints goes to stdout_.
  absl::Status Run(const std::vector<std::string>& arguments) {
    CLI::App app;
    Invocation invocation;
    AddPlaceCommand(app, invocation);
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
    reversed.push_back("place");
    app.parse(reversed);
    testing::internal::CaptureStdout();
    const absl::Status status = invocation.action();
    stdout_ = testing::internal::GetCapturedStdout();
    return status;
  }

  // The error of placing the file `text` onto 4 slots of 2 ranks; nothing may be printed.
  std::string ErrorOf(const std::string& text, const std::string& policy = "eplb") {
    const absl::Status status = Run({"--policy", policy, "--load", Write(text), "--slots", "4", "--ranks", "2"});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_EQ(stdout_, "");
    const std::string message(status.message());
    EXPECT_EQ(message.find('\n'), message.npos) << message;
    EXPECT_EQ(message.substr(0, Path().size()), Path());
    return message.substr(std::min(message.size(), Path().size()));
  }

  std::string stdout_;
};

// The README of deepseek-ai/EPLB.
TEST_F(PlaceCommand, PrintsDeepSeeksReadme) {
  const std::string load = Write(R"({"weight": [[90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
                                                [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27]]})");
  ASSERT_EQ(Run({"--policy", "eplb", "--load", load, "--slots", "16", "--groups", "4", "--nodes", "2", "--ranks", "8"}),
            absl::OkStatus());
  const Json placement = Json::parse(stdout_);
  EXPECT_EQ(placement.size(), 3u);
  EXPECT_EQ(placement["phy2log"], Json::parse("[[5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],"
                                              " [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1]]"));
  EXPECT_EQ(placement["log2phy"][0],
            Json::parse("[[12], [15, 13], [11], [6], [7, 5], [0, 2], [1], [3], [4], [9], [8, 10], [14]]"));
  EXPECT_EQ(placement["logcnt"][0], Json::parse("[1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1]"));
}

TEST_F(PlaceCommand, ServesEveryPolicy) {
  const std::string load = Write(R"({"weight": [[3, 1, 2]]})");
  ASSERT_EQ(Run({"--policy", "contiguous", "--load", load, "--slots", "4", "--ranks", "2"}), absl::OkStatus());
  EXPECT_EQ(stdout_, "{\"log2phy\":[[[0,3],[1],[2]]],\"logcnt\":[[2,1,1]],\"phy2log\":[[0,1,2,0]]}\n");
  // 3 -> 1.5 + 1.5; by share 2, 1.5, 1.5, 1: expert 2 -> rank 0, 0 -> rank 1, 0' -> rank 1 (1.5 < 2), 1 -> rank 0.
  ASSERT_EQ(Run({"--policy", "eplb", "--load", load, "--slots", "4", "--ranks", "2", "--seed", "9", "--json"}),
            absl::OkStatus());
  EXPECT_EQ(stdout_, "{\"log2phy\":[[[2,3],[1],[0]]],\"logcnt\":[[2,1,1]],\"phy2log\":[[2,1,0,0]]}\n");
}

// Fields of the policy; a library is relative to the current folder.
TEST_F(PlaceCommand, SetsFieldsOfThePolicy) {
  const std::string load = Write(R"({"weight": [[3, 1, 2]]})");
  const auto run = [&](const std::string& policy, std::vector<std::string> set) {
    std::vector<std::string> arguments = {"--policy", policy, "--load", load, "--slots", "4", "--ranks", "2"};
    for (std::string& assignment : set) {
      arguments.push_back("--set");
      arguments.push_back(std::move(assignment));
    }
    return Run(arguments);
  };
  // 3 -> 1.5 + 1.5: 2 to rank 0, 1.5 to rank 1, 1.5' to rank 0, where expert 0 is not yet, 1 to rank 1.
  ASSERT_EQ(run("plugin", {"library=" EPSIM_EXAMPLE_PLUGIN, "options=decay = 0.5"}), absl::OkStatus());
  EXPECT_EQ(Json::parse(stdout_)["phy2log"], Json::parse("[[2, 0, 0, 1]]"));
  EXPECT_EQ(run("plugin", {}), absl::InvalidArgumentError("plugin: library: none named"));
  EXPECT_EQ(
      run("plugin", {"library=" EPSIM_EXAMPLE_PLUGIN, "options=decay = 2"}),
      absl::InvalidArgumentError("plugin " EPSIM_EXAMPLE_PLUGIN ": placement: options: decay: 2 is not in (0, 1]"));
  ASSERT_EQ(run("eplb", {"mode=GLOBAL"}), absl::OkStatus());
  EXPECT_EQ(run("eplb", {"model=GLOBAL"}),
            absl::InvalidArgumentError("--set model=GLOBAL: no field \"model\" in EplbPlacement; it has mode"));
}

// Weights need not be counts for EPLB; as counts these would all be 0, and expert 0 would get the replica.
TEST_F(PlaceCommand, TakesFractions) {
  const std::string load = Write(R"({"weight": [[0.3, 0.4, 0.1]]})");
  ASSERT_EQ(Run({"--policy", "eplb", "--load", load, "--slots", "4", "--ranks", "2"}), absl::OkStatus());
  EXPECT_EQ(Json::parse(stdout_)["logcnt"], Json::parse("[[1, 2, 1]]"));
}

TEST_F(PlaceCommand, NamesTheFileItCannotRead) {
  EXPECT_EQ(Run({"--policy", "eplb", "--load", "/nowhere/load.json", "--slots", "4", "--ranks", "2"}),
            absl::NotFoundError("/nowhere/load.json: cannot open: No such file or directory"));
  EXPECT_EQ(Run({"--policy", "eplb", "--load", "/tmp", "--slots", "4", "--ranks", "2"}),
            absl::NotFoundError("/tmp: cannot read: Is a directory"));
}

TEST_F(PlaceCommand, NamesLineAndColumnOfBadJson) {
  EXPECT_THAT(ErrorOf("{\"weight\": [[1, 2],\n [3 4]]}"), HasSubstr(":2:5: syntax error while parsing array"));
  EXPECT_THAT(ErrorOf("{\"weight\": [[1, NaN]]}"), HasSubstr(":1:17: syntax error while parsing value"));
  EXPECT_THAT(ErrorOf("{\"weight\": [[1, 1e999]]}"), HasSubstr(":1:21: number overflow parsing '1e999'"));
  EXPECT_THAT(ErrorOf(""), HasSubstr(":1:1: syntax error"));
  EXPECT_THAT(ErrorOf("{\"weight\": [[1, 2]\n"), HasSubstr(":2:1: syntax error"));
  EXPECT_THAT(ErrorOf("\x89PNG\r\n\x1a\n"), HasSubstr(":1:1: syntax error"));
}

TEST_F(PlaceCommand, NamesLayerExpertAndValueOfABadWeight) {
  EXPECT_EQ(ErrorOf(R"({"weight": [[1, 2, 3], [1, 2]]})"), ": weight: layer 1 has 2 weights, layer 0 has 3");
  EXPECT_EQ(ErrorOf(R"({"weight": [[1, 2, 3], [1, -2.5, 3]]})"), ": weight: layer 1, expert 1: -2.5 is negative");
  EXPECT_EQ(ErrorOf(R"({"weight": [[1, 2, 1e39]]})"),
            ": weight: layer 0, expert 2: 1e+39 is more than a float32 can hold");
  EXPECT_EQ(ErrorOf(R"({"weight": [[1, "2", 3]]})"), ": weight: layer 0, expert 1: \"2\" is not a number");
  EXPECT_EQ(ErrorOf(R"({"weight": [[1, null, 3]]})"), ": weight: layer 0, expert 1: null is not a number");
  EXPECT_EQ(ErrorOf(R"({"weight": [[1], 7]})"), ": weight: layer 1: expected one weight per expert, not 7");
  EXPECT_EQ(ErrorOf(R"({"weight": [[]]})"), ": weight: layer 0: expected one weight per expert, not []");
  EXPECT_EQ(ErrorOf(R"({"weight": []})"), ": weight: expected one array of weights per layer, not []");
  EXPECT_EQ(ErrorOf(R"({"weights": [[1]]})"), ": expected {\"weight\": [[...] per layer]}, not {\"weights\":[[1]]}");
  EXPECT_THAT(ErrorOf("[" + std::string(1000, ' ') + "\"" + std::string(1000, 'x') + "\"]"),
              HasSubstr("not [\"" + std::string(35, 'x') + "..."));
}

TEST_F(PlaceCommand, SaysWhichPoliciesAndShapesWouldDo) {
  const std::string load = Write(R"({"weight": [[1, 2, 3]]})");
  EXPECT_THAT(Run({"--policy", "elpb", "--load", load, "--slots", "4", "--ranks", "2"}).message(),
              HasSubstr("--policy: \"elpb\" is not one of contiguous, eplb, "));
  EXPECT_EQ(Run({"--policy", "eplb", "--load", load, "--slots", "5", "--ranks", "2"}),
            absl::InvalidArgumentError("slots: 5 are not divisible by 2 ranks; 4 or 6 would fit"));
  EXPECT_EQ(Run({"--policy", "eplb", "--load", load, "--slots", "4", "--ranks", "2", "--groups", "2"}),
            absl::InvalidArgumentError("eplb: expert_groups: 2 do not divide 3 experts; 1 or mode GLOBAL would fit"));
  EXPECT_THROW(Run({"--policy", "eplb", "--load", load, "--slots", "4"}), CLI::RequiredError);
  EXPECT_EQ(stdout_, "");
}

}  // namespace
}  // namespace epsim
