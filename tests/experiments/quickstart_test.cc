// Does the shipped experiment still run?  In a short form: the bundled trace, a few steps.
#include "experiments/answer.h"
#include "experiments/run.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

constexpr char kQuickstart[] = EPSIM_SOURCE_DIR "/experiments/quickstart";

RunReport Quickstart(std::vector<std::string> set) {
  set.push_back("workload.max_steps=40");
  const auto resolved = ResolveExperiment({.path = kQuickstart, .trace = {}, .set = std::move(set), .seed = {}});
  EXPECT_TRUE(resolved.ok()) << resolved.status();
  absl::StatusOr<RunReport> report = Run(*resolved, {});
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

}  // namespace
}  // namespace epsim
