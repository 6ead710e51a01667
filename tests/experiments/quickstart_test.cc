// Does the shipped experiment still run?  In a short form: the bundled trace, a few steps.
#include <cstdlib>
#include <filesystem>

#include "experiments/answer.h"
#include "experiments/run.h"
#include "gtest/gtest.h"
#include "tests/models/calibration/stated_calibration.h"

namespace epsim {
namespace {

constexpr char kQuickstart[] = EPSIM_SOURCE_DIR "/experiments/quickstart";

RunReport Quickstart(std::vector<std::string> set, const RunOptions& options = {}) {
  set.push_back("workload.max_steps=40");
  const auto resolved = ResolveExperiment({.path = kQuickstart, .trace = {}, .set = std::move(set), .seed = {}});
  EXPECT_TRUE(resolved.ok()) << resolved.status();
  absl::StatusOr<RunReport> report = Run(*resolved, options);
  EXPECT_TRUE(report.ok()) << report.status();
  return *std::move(report);
}

TEST(Quickstart, RunsUnderBothPlacements) {
  const RunReport contiguous = Quickstart({}), eplb = Quickstart({"placement.policy=eplb"});
  EXPECT_EQ(contiguous.summary["trace"]["steps"], 30);
  EXPECT_NE(contiguous.summary["trace"]["synthetic"], "") << "the bundled trace says that it is synthetic";
  EXPECT_GT(eplb.summary["balancedness"]["tokens"]["mean"].get<double>(),
            contiguous.summary["balancedness"]["tokens"]["mean"].get<double>());
  const std::string table = ComparisonText(ComparisonJson({{"contiguous", "", contiguous}, {"eplb", "", eplb}}));
  EXPECT_NE(table.find("synthetic"), std::string::npos);
}

// No kernel for MXFP4 is measured, so in bf16; the GPU is a stated one, as fast as an H100.
TEST(Quickstart, RunsOnMeasuredAndOnExecutedTimes) {
  const StatedGpu gpu{.bandwidth = 3.35e12};
  std::string folder = (std::filesystem::temp_directory_path() / "epsim_test_XXXXXX").string();
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  ASSERT_TRUE(WriteStatedCalibration({*FindModel("gpt-oss-20b")}, folder, gpu).ok());
  RunOptions stated;
  stated.new_clock = [&]() -> absl::StatusOr<std::unique_ptr<KernelClock>> {
    return std::make_unique<StatedClock>(gpu);
  };
  const std::string bf16 = "costs.precision.expert_weights=BF16";
  const RunReport measured =
      Quickstart({bf16, "costs.measured={table: \"" + folder + "\" fallback: ROOFLINE}"}, stated);
  const RunReport executed = Quickstart({bf16, "costs.replay={every_steps: 4}"}, stated);
  const auto experts = [](const RunReport& report) {
    return report.summary["breakdown_us"]["routed_experts"].get<double>();
  };
  EXPECT_NEAR(experts(measured) / experts(executed), 1, 0.05);
  for (const RunReport* report : {&measured, &executed}) {
    double sum = 0;
    for (const auto& [source, share] : report->summary["provenance"].items()) sum += share.get<double>();
    EXPECT_NEAR(sum, 1, 1e-9);
  }
  EXPECT_GT(measured.summary["provenance"]["measured"].get<double>(), 0.3);
  EXPECT_GT(executed.summary["provenance"]["replay"].get<double>(), 0.05);
  EXPECT_GT(executed.summary["provenance"]["extended"].get<double>(), 0.05);
  EXPECT_NE(AnswerText(executed.summary).find("extended"), std::string::npos);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace epsim
