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
#include "policies/placement/placement.pb.h"

namespace epsim {
namespace {

using testing::HasSubstr;
using testing::StartsWith;
using Json = nlohmann::json;

class PlaceCommand : public testing::Test {
 protected:
  // A file for this test alone.
  std::string Path() const {
    return testing::TempDir() + "/" + testing::UnitTest::GetInstance()->current_test_info()->name() + ".json";
  }
  // Another one: the placement in force.
  std::string PreviousPath() const { return Path() + ".previous"; }
  ~PlaceCommand() override {
    std::remove(Path().c_str());
    std::remove(PreviousPath().c_str());
  }

  std::string Write(const std::string& text) const {
    std::ofstream(Path()) << text;
    return Path();
  }
  std::string WritePrevious(const std::string& text) const {
    std::ofstream(PreviousPath()) << text;
    return PreviousPath();
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

TEST_F(PlaceCommand, PrintsSlotsReplicasAndCounts) {
  const std::string load = Write(R"({"weight": [[3, 1, 2]]})");
  ASSERT_EQ(Run({"--policy", "contiguous", "--load", load, "--slots", "4", "--ranks", "2"}), absl::OkStatus());
  EXPECT_EQ(stdout_, "{\"log2phy\":[[[0,3],[1],[2]]],\"logcnt\":[[2,1,1]],\"phy2log\":[[0,1,2,0]]}\n");
  // 3 -> 1.5 + 1.5; by share 2, 1.5, 1.5, 1: expert 2 -> rank 0, 0 -> rank 1, 0' -> rank 1 (1.5 < 2), 1 -> rank 0.
  ASSERT_EQ(Run({"--policy", "eplb", "--load", load, "--slots", "4", "--ranks", "2", "--seed", "9", "--json"}),
            absl::OkStatus());
  EXPECT_EQ(stdout_, "{\"log2phy\":[[[2,3],[1],[0]]],\"logcnt\":[[2,1,1]],\"phy2log\":[[2,1,0,0]]}\n");
}

// All policies of the schema, first from scratch, then from what that printed.  One whose view of the system (a cost
// model, a plug-in) this command cannot give says so, by its name.
TEST_F(PlaceCommand, ServesEveryPolicy) {
  const auto* policies = PlacementPolicyConfig::descriptor()->FindOneofByName("policy");
  std::vector<std::string> served;
  for (int i = 0; i < policies->field_count(); ++i) {
    const std::string name = policies->field(i)->name();
    const std::string load = Write(R"({"rows": [[[3, 1, 2, 9], [0, 0, 5, 1]], [[4, 1, 0, 1], [2, 2, 2, 2]]],
                                       "time_per_token": [[1e6, 2e6, 1e6, 1e6], [1e6, 1e6, 3e6, 1e6]]})");
    std::vector<std::string> arguments = {"--policy", name, "--load", load, "--slots", "8", "--ranks", "4"};
    absl::Status status = Run(arguments);
    if (!status.ok()) {
      EXPECT_THAT(std::string(status.message()), HasSubstr(name));
      EXPECT_EQ(stdout_, "");
      continue;
    }
    served.push_back(name);
    arguments.insert(arguments.end(), {"--previous", WritePrevious(stdout_)});
    ASSERT_EQ(Run(arguments), absl::OkStatus()) << name;
    for (const Json& layer : Json::parse(stdout_)["logcnt"]) {
      int slots = 0;
      for (int count : layer) {
        EXPECT_GE(count, 1) << name;
        slots += count;
      }
      EXPECT_EQ(slots, 8) << name;
    }
  }
  EXPECT_THAT(served,
              testing::IsSupersetOf({"contiguous", "eplb", "round_robin", "random", "eplb_vec", "vllm", "trtllm"}));
}

// A library is relative to the current folder.
TEST_F(PlaceCommand, TakesAPlugin) {
  const std::string load = Write(R"({"weight": [[3, 1, 2]]})");
  std::vector<std::string> arguments = {"--policy", "plugin", "--load", load, "--slots", "4", "--ranks", "2"};
  EXPECT_EQ(Run(arguments), absl::InvalidArgumentError("plugin: library: none named"));
  // 3 -> 1.5 + 1.5: 2 to rank 0, 1.5 to rank 1, 1.5' to rank 0, where expert 0 is not yet, 1 to rank 1.
  arguments.insert(arguments.end(), {"--options", "library: '" EPSIM_EXAMPLE_PLUGIN "' options: 'decay = 0.5'"});
  ASSERT_EQ(Run(arguments), absl::OkStatus());
  EXPECT_EQ(Json::parse(stdout_)["phy2log"], Json::parse("[[2, 0, 0, 1]]"));
  arguments.back() = "library: '" EPSIM_EXAMPLE_PLUGIN "' options: 'decay = 2'";
  EXPECT_EQ(Run(arguments), absl::InvalidArgumentError("plugin " EPSIM_EXAMPLE_PLUGIN
                                                       ": placement: options: decay: 2 is not in (0, 1]"));
}

// Worked in eplb_placement_test.cc, with groups and without.
TEST_F(PlaceCommand, TakesOptionsOfThePolicy) {
  const std::string load = Write(R"({"weight": [[5, 4, 1, 0, 3, 4, 6, 0]]})");
  std::vector<std::string> arguments = {"--policy", "eplb", "--load",  load, "--slots",  "8",
                                        "--ranks",  "4",    "--nodes", "2",  "--groups", "4"};
  ASSERT_EQ(Run(arguments), absl::OkStatus());
  EXPECT_EQ(Json::parse(stdout_)["phy2log"][0], Json::parse("[0, 3, 1, 2, 6, 7, 5, 4]"));
  arguments.insert(arguments.end(), {"--options", "mode: GLOBAL"});
  ASSERT_EQ(Run(arguments), absl::OkStatus());
  EXPECT_EQ(Json::parse(stdout_)["phy2log"][0], Json::parse("[6, 7, 0, 3, 1, 4, 5, 2]"));
  arguments.back() = "mode: LOCAL";
  const absl::Status status = Run(arguments);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("--options:1:"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("LOCAL"));
  arguments.back() = "alpha: 0.5";
  EXPECT_THAT(std::string(Run(arguments).message()), HasSubstr("alpha"));
}

// Worked in eplb_vec_placement_test.cc: as two steps expert 1 gets the redundant slot, as one sum expert 2.
TEST_F(PlaceCommand, GivesRowsToPoliciesThatLookAtThem) {
  const auto place = [this](const std::string& load) {
    EXPECT_EQ(Run({"--policy", "eplb_vec", "--load", Write(load), "--slots", "4", "--ranks", "2"}), absl::OkStatus());
    return Json::parse(stdout_)["phy2log"][0];
  };
  EXPECT_EQ(place(R"({"rows": [[[10, 0, 8]], [[0, 10, 8]]]})"), Json::parse("[2, 1, 0, 1]"));
  EXPECT_EQ(place(R"({"rows": [[[10, 10, 16]]]})"), Json::parse("[0, 2, 1, 2]"));
  EXPECT_EQ(place(R"({"weight": [[10, 10, 16]]})"), Json::parse("[0, 2, 1, 2]"));
}

// Worked in vllm_placement_test.cc: 0 and 3 stay on rank 0, in the slots they had.
TEST_F(PlaceCommand, StartsFromThePreviousPlacement) {
  std::vector<std::string> arguments = {"--policy", "vllm", "--load",  Write(R"({"weight": [[4, 3, 2, 1]]})"),
                                        "--slots",  "4",    "--ranks", "2"};
  ASSERT_EQ(Run(arguments), absl::OkStatus());
  const std::string previous = WritePrevious(stdout_);
  EXPECT_EQ(Json::parse(stdout_)["phy2log"][0], Json::parse("[0, 3, 1, 2]"));
  Write(R"({"weight": [[1, 3, 2, 4]]})");
  ASSERT_EQ(Run(arguments), absl::OkStatus());
  EXPECT_EQ(Json::parse(stdout_)["phy2log"][0], Json::parse("[3, 0, 1, 2]"));
  arguments.insert(arguments.end(), {"--previous", previous});
  ASSERT_EQ(Run(arguments), absl::OkStatus());
  EXPECT_EQ(Json::parse(stdout_)["phy2log"][0], Json::parse("[0, 3, 1, 2]"));
}

TEST_F(PlaceCommand, NamesWhatIsWrongWithThePreviousPlacement) {
  const std::string load = Write(R"({"weight": [[4, 3, 2]]})");
  const auto error = [&](const std::string& previous) {
    const absl::Status status = Run(
        {"--policy", "vllm", "--load", load, "--slots", "4", "--ranks", "2", "--previous", WritePrevious(previous)});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_EQ(stdout_, "");
    const std::string message(status.message());
    EXPECT_EQ(message.substr(0, PreviousPath().size()), PreviousPath());
    return message.substr(std::min(message.size(), PreviousPath().size()));
  };
  EXPECT_EQ(error("[1]"), ": expected what `place` prints, with phy2log and log2phy, not [1]");
  EXPECT_EQ(error(R"({"phy2log": [], "log2phy": []})"), ": phy2log: expected 1 layers as in --load, not []");
  EXPECT_EQ(error(R"({"phy2log": [[0, 1, 2]], "log2phy": [[]]})"), ": phy2log: layer 0 has 3 slots, --slots says 4");
  EXPECT_EQ(error(R"({"phy2log": [[0, 1, 2, 3]], "log2phy": [[]]})"),
            ": phy2log: layer 0, place 3: 3 is not an integer from -1 to 2");
  EXPECT_EQ(error(R"({"phy2log": [[0, 1, 2, 18446744073709551615]], "log2phy": [[]]})"),
            ": phy2log: layer 0, place 3: 18446744073709551615 is not an integer from -1 to 2");
  EXPECT_EQ(error(R"({"phy2log": [[0, 1, 2, 0]], "log2phy": [[[0], [1]]]})"),
            ": log2phy: layer 0: expected the slots of 3 experts, not [[0],[1]]");
  EXPECT_EQ(error(R"({"phy2log": [[0, 1, 2, 0]], "log2phy": [[[0, 3], [1], []]]})"),
            ": log2phy: layer 0, expert 2: has no slot");
  EXPECT_EQ(error(R"({"phy2log": [[0, 1, 2, 0]], "log2phy": [[[0, 2], [1], [2]]]})"),
            ": log2phy: layer 0, expert 0: slot 2 holds another expert in phy2log");
  EXPECT_EQ(error(R"({"phy2log": [[0, 1, 2, 0]], "log2phy": [[[0, 0], [1], [2]]]})"),
            ": log2phy: layer 0, expert 0: slot 0 is listed twice");
  EXPECT_EQ(error(R"({"phy2log": [[0, 1, 2, 0]], "log2phy": [[[0], [1], [2]]]})"),
            ": log2phy: layer 0, expert 0: lacks slot 3, which holds it in phy2log");
  EXPECT_EQ(Run({"--policy", "vllm", "--load", load, "--slots", "4", "--ranks", "2", "--previous", "/nowhere/p.json"}),
            absl::NotFoundError("/nowhere/p.json: cannot open: No such file or directory"));
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
  EXPECT_EQ(ErrorOf(R"({"weights": [[1]]})"),
            ": expected {\"weight\": [[...] per layer]} or {\"rows\": [[[...] per layer] per row]}, not "
            "{\"weights\":[[1]]}");
  EXPECT_THAT(ErrorOf("[" + std::string(1000, ' ') + "\"" + std::string(1000, 'x') + "\"]"),
              HasSubstr("not [\"" + std::string(35, 'x') + "..."));
}

TEST_F(PlaceCommand, NamesRowLayerExpertAndValueOfABadRowOrTime) {
  EXPECT_EQ(ErrorOf(R"({"rows": []})"), ": rows: expected [[[weight of each expert] per layer] per row], not []");
  EXPECT_EQ(ErrorOf(R"({"rows": [[[1, 2]], [[1, -2]]]})"), ": rows: row 1: layer 0, expert 1: -2 is negative");
  EXPECT_EQ(ErrorOf(R"({"rows": [[[1, 2]], [[1, 2], [3, 4]]]})"),
            ": rows: row 1 has 2 layers, the first weights have 1");
  EXPECT_EQ(ErrorOf(R"({"rows": [[[1, 2]], [[1, 2, 3]]]})"),
            ": rows: row 1: layer 0 has 3 weights, the first weights have 2");
  EXPECT_EQ(ErrorOf(R"({"rows": [[[1, 2], [1]]]})"), ": rows: row 0: layer 1 has 1 weights, layer 0 has 2");
  EXPECT_EQ(ErrorOf(R"({"rows": [[[1, 2]], 7]})"), ": rows: row 1: expected one array of weights per layer, not 7");
  EXPECT_EQ(ErrorOf(R"({"rows": [[[1]]], "weight": [[1]]})"), ": has both weight and rows; one of them would fit");
  EXPECT_EQ(ErrorOf(R"({"weight": [[1, 2]], "time_per_token": [[1, null]]})"),
            ": time_per_token: layer 0, expert 1: null is not a number");
  EXPECT_EQ(ErrorOf(R"({"weight": [[1, 2]], "time_per_token": [[1]]})"),
            ": time_per_token: layer 0 has 1 times, the first weights have 2");
  EXPECT_EQ(ErrorOf(R"({"weight": [[1, 2]], "time_per_token": 3})"),
            ": time_per_token: expected one array of times per layer, not 3");
}

TEST_F(PlaceCommand, SaysWhichPoliciesAndShapesWouldDo) {
  const std::string load = Write(R"({"weight": [[1, 2, 3]]})");
  EXPECT_THAT(std::string(Run({"--policy", "elpb", "--load", load, "--slots", "4", "--ranks", "2"}).message()),
              StartsWith("--policy: \"elpb\" is not one of contiguous, eplb, round_robin, random, eplb_vec, "));
  EXPECT_EQ(Run({"--policy", "eplb", "--load", load, "--slots", "5", "--ranks", "2"}),
            absl::InvalidArgumentError("slots: 5 are not divisible by 2 ranks; 4 or 6 would fit"));
  EXPECT_EQ(Run({"--policy", "eplb", "--load", load, "--slots", "4", "--ranks", "2", "--groups", "2"}),
            absl::InvalidArgumentError("eplb: expert_groups: 2 do not divide 3 experts; 1 or mode GLOBAL would fit"));
  EXPECT_THROW(Run({"--policy", "eplb", "--load", load, "--slots", "4"}), CLI::RequiredError);
  EXPECT_EQ(stdout_, "");
}

}  // namespace
}  // namespace epsim
