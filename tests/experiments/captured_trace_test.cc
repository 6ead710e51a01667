// The shared capture of gpt-oss-20b, imported and replayed: the published balancedness, and replays at 8, 16 and 32
// ranks.
#include <cmath>
#include <filesystem>

#include "experiments/run.h"
#include "gtest/gtest.h"
#include "traces/import/import_trace.h"

namespace epsim {
namespace {

class CapturedTrace : public testing::Test {
 protected:
  static constexpr char kSource[] = EPSIM_SHARED_DATA "/traces/gpt-oss-20b-decode";

  void SetUp() override {
    if (!std::filesystem::exists(kSource)) GTEST_SKIP() << "needs " << kSource;
    std::string pattern = (std::filesystem::temp_directory_path() / "epsim_test_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    ASSERT_TRUE(ImportTrace(kSource, {}, Path(), {}).ok());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string Path() const { return (folder_ / "gpt-oss.eptrace").string(); }

  nlohmann::ordered_json Summary(std::vector<std::string> set) {
    const auto resolved = ResolveExperiment(
        {.path = EPSIM_SOURCE_DIR "/experiments/quickstart", .trace = Path(), .set = std::move(set), .seed = {}});
    EXPECT_TRUE(resolved.ok()) << resolved.status();
    const auto report = epsim::Run(*resolved, {});
    EXPECT_TRUE(report.ok()) << report.status();
    return report->summary;
  }

  std::filesystem::path folder_;
};

// Published: 0.709 of tokens per GPU on 8 GPUs, contiguous, over all 85,302 tokens.  Lock-step groups of one request
// leave out only the last, partial group (1 of 185 requests, at most 511 tokens: 0.6 %).
TEST_F(CapturedTrace, ContiguousOnEightRanksHasThePublishedBalancedness) {
  const auto summary = Summary({"workload.lock_step.requests_per_rank=1", "planning.fraction=0"});
  EXPECT_GT(summary["trace"]["scored_tokens"], 84'700);
  EXPECT_NEAR(summary["balancedness"]["tokens"]["aggregate"].get<double>(), 0.709, 0.001);
}

TEST_F(CapturedTrace, ReplaysUnderBothPlacementsAt8And16And32Ranks) {
  for (const char* ranks : {"ranks=8", "ranks=16", "ranks=32"}) {
    const auto contiguous = Summary({ranks, "placement.policy=contiguous"});
    const auto eplb = Summary({ranks, "placement.policy=eplb"});
    EXPECT_GT(eplb["balancedness"]["tokens"]["aggregate"].get<double>(),
              contiguous["balancedness"]["tokens"]["aggregate"].get<double>())
        << ranks;
    EXPECT_EQ(contiguous["trace"]["steps"], eplb["trace"]["steps"]);
    EXPECT_EQ(contiguous["trace"]["scored_tokens"], eplb["trace"]["scored_tokens"]);
  }
}

}  // namespace
}  // namespace epsim
