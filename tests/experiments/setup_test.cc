#include "experiments/setup.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/experiments/small_run.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

class SetupTest : public SmallRun {
 protected:
  std::string Error(const std::string& text) {
    const std::string path = WriteFile("bad.txtpb", text);
    const auto resolved = ResolveExperiment({.path = path, .trace = {}, .set = {}, .seed = {}});
    EXPECT_FALSE(resolved.ok());
    return std::string(resolved.status().message());
  }
};

TEST_F(SetupTest, DefaultsAreFilledIn) {
  const std::string path = WriteFile("least.txtpb", R"(trace: "small.eptrace" model: "model.txtpb" platform: "h100-sxm"
    ranks: 8)");
  const ResolvedExperiment resolved = ResolveExperiment({.path = path, .trace = {}, .set = {}, .seed = {}}).value();
  const Experiment& experiment = resolved.experiment();
  EXPECT_EQ(experiment.workload().continuous().running_requests_per_rank(), 16u);
  EXPECT_TRUE(experiment.placement().has_contiguous());
  EXPECT_EQ(experiment.redundant_slots_per_rank(), 0u);
  EXPECT_EQ(experiment.planning().fraction(), 0.25);
  EXPECT_TRUE(experiment.schedule().overlap_shared_experts());
  EXPECT_TRUE(experiment.network().has_port());
  EXPECT_GT(experiment.costs().roofline().gemm().memory_efficiency(), 0);
  EXPECT_EQ(resolved.model().name(), "small");
  EXPECT_EQ(resolved.manifest.platform().gpus_per_node(), 8u);
  EXPECT_EQ(resolved.trace_path, (folder_ / "small.eptrace").string());
}

TEST_F(SetupTest, OverridesWinAndAreRecorded) {
  const std::string other = WriteTrace("other.eptrace", 2, 3);
  const ResolvedExperiment resolved =
      ResolveExperiment({.path = experiment_,
                         .trace = other,
                         .set = {"ranks=4", "placement.policy=eplb", "workload.lock_step.requests_per_rank=2"},
                         .seed = 9})
          .value();
  EXPECT_EQ(resolved.experiment().ranks(), 4u);
  EXPECT_EQ(resolved.experiment().seed(), 9u);
  EXPECT_TRUE(resolved.experiment().placement().has_eplb());
  EXPECT_EQ(resolved.experiment().redundant_slots_per_rank(), 1u);
  EXPECT_EQ(resolved.experiment().workload().lock_step().requests_per_rank(), 2u);
  EXPECT_EQ(resolved.trace_path, other);
  EXPECT_EQ(resolved.experiment().trace(), other);
  EXPECT_THAT(resolved.manifest.overrides(),
              ElementsAre("--set ranks=4", "--set placement.policy=eplb",
                          "--set workload.lock_step.requests_per_rank=2", "--seed 9", "--trace " + other));
}

TEST_F(SetupTest, ExpertCostScalesFitTheModel) {
  EXPECT_THAT(Error(R"(trace: "small.eptrace" model: "model.txtpb" platform: "h100-sxm" ranks: 8
                       costs { expert_cost_scale { scale: [1, 0] } })"),
              HasSubstr("expert_cost_scale.scale: number 2 is 0; it must be more than 0 and at most 1000"));
  EXPECT_THAT(
      Run({"costs.expert_cost_scale.scale=[1, 2]"}).status().message(),
      HasSubstr("small.experiment: expert_cost_scale.scale: 2 numbers for a model of 2 MoE layers of 16 experts; "
                "16 would do, for all layers, or 32"));
}

// A library lies beside the experiment that names it; what is in it is an input of the run.
TEST_F(SetupTest, APluginIsLocatedAndItsBytesAreRecorded) {
  WriteFile("libmine.so", "some bytes");
  const std::string path = WriteFile("mine.experiment", R"(trace: "small.eptrace" model: "model.txtpb"
    platform: "h100-sxm" ranks: 8 placement { plugin { library: "libmine.so" options: "a = 1" } })");
  const auto library = [&](std::vector<std::string> set) {
    const auto resolved = ResolveExperiment({.path = path, .trace = {}, .set = std::move(set), .seed = {}});
    if (!resolved.ok()) return std::string(resolved.status().message());
    const Plugin& plugin = resolved->experiment().placement().plugin();
    EXPECT_EQ(plugin.options(), "a = 1");
    EXPECT_EQ(resolved->experiment().redundant_slots_per_rank(), 1u);
    EXPECT_EQ(resolved->manifest.inputs(1).path(), plugin.library());
    return plugin.library() + " " + resolved->manifest.inputs(1).xxh3();
  };
  const std::string bytes = library({});
  EXPECT_THAT(bytes, MatchesRegex((folder_ / "libmine.so").string() + " [0-9a-f]{16}"));
  WriteFile("libmine.so", "other bytes");
  EXPECT_NE(library({}), bytes);
  // One that an override names lies in the current folder.
  EXPECT_THAT(library({"placement.plugin.library=libother.so"}),
              testing::StartsWith("placement.plugin.library: libother.so: cannot open"));
}

TEST_F(SetupTest, TheTraceIsGivenOnce) {
  const auto resolved =
      ResolveExperiment({.path = experiment_, .trace = "a.eptrace", .set = {"trace=b.eptrace"}, .seed = {}});
  EXPECT_THAT(resolved.status().message(), HasSubstr("the trace is also set to b.eptrace"));
}

TEST_F(SetupTest, TheTraceSaysHowItsStepsAreMadeAndWhatItsModelIs) {
  const std::string path = WriteFile("least.txtpb", R"(trace: "small.eptrace" platform: "h100-sxm" ranks: 8)");
  EXPECT_THAT(ResolveExperiment({.path = path, .trace = {}, .set = {}, .seed = {}}).status().message(),
              HasSubstr("small"))
      << "the catalogue has no model of the trace's name";
}

TEST_F(SetupTest, TooManyRedundantSlotsAreRefused) {
  const auto resolved =
      ResolveExperiment({.path = experiment_, .trace = {}, .set = {"redundant_slots_per_rank=536870912"}, .seed = {}});
  EXPECT_THAT(resolved.status().message(), HasSubstr("redundant_slots_per_rank: 536870912 is more than 4096"));
}

TEST_F(SetupTest, TheOraclePlansInHindsight) {
  const auto resolve = [&](std::vector<std::string> set) {
    set.push_back("placement.policy=oracle");
    return ResolveExperiment({.path = experiment_, .trace = {}, .set = std::move(set), .seed = {}});
  };
  EXPECT_TRUE(resolve({})->experiment().planning().has_hindsight());
  EXPECT_TRUE(resolve({"planning.fraction=0.5"})->experiment().planning().has_hindsight());
  EXPECT_TRUE(resolve({"planning.plan=hindsight"}).ok());
  EXPECT_THAT(resolve({"planning.plan=past"}).status().message(),
              HasSubstr("planning.past: the oracle plans on the steps that are scored"));
}

TEST_F(SetupTest, AFolderWithABrokenExperimentSaysWhatIsWrong) {
  std::filesystem::create_directory(folder_ / "broken");
  WriteFile("broken/e.txtpb", "rnks: 8");
  EXPECT_THAT(
      ResolveExperiment({.path = (folder_ / "broken").string(), .trace = {}, .set = {}, .seed = {}}).status().message(),
      HasSubstr("e.txtpb:1:"));
}

TEST_F(SetupTest, AMisspeltFieldIsNamedWithItsPlace) {
  EXPECT_THAT(Error("ranks: 8\nplatfrom: \"h100-sxm\""), HasSubstr("bad.txtpb:2:9"));
  EXPECT_THAT(Error("ranks: 8\nplatfrom: \"h100-sxm\""), HasSubstr("platfrom"));
}

TEST_F(SetupTest, AMissingUnitIsNamedWithItsPlace) {
  const std::string error = Error("ranks: 8\ncosts { roofline { gemm { floor: \"2\" } } }");
  EXPECT_THAT(error, HasSubstr("bad.txtpb:2:"));
  EXPECT_THAT(error, HasSubstr("\"2\" has no unit"));
}

TEST_F(SetupTest, AFolderMustHoldOneExperiment) {
  const auto empty = folder_ / "empty";
  std::filesystem::create_directory(empty);
  EXPECT_THAT(ResolveExperiment({.path = empty.string(), .trace = {}, .set = {}, .seed = {}}).status().message(),
              HasSubstr("holds no experiment"));
  WriteFile("empty/a.txtpb", "ranks: 1");
  WriteFile("empty/b.txtpb", "ranks: 1");
  EXPECT_THAT(ResolveExperiment({.path = empty.string(), .trace = {}, .set = {}, .seed = {}}).status().message(),
              HasSubstr("several experiments"));
}

TEST_F(SetupTest, AMissingFileIsNamed) {
  EXPECT_THAT(ResolveExperiment({.path = "none.txtpb", .trace = {}, .set = {}, .seed = {}}).status().message(),
              HasSubstr("none.txtpb"));
}

}  // namespace
}  // namespace epsim
