// The bundled trace is what its config says, and resembles what it was fitted to.
#include <unistd.h>

#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/traces/synthesis/whole_trace.h"
#include "traces/import/import_trace.h"
#include "traces/synthesis/synthesis.h"

namespace epsim {
namespace {

constexpr char kBundled[] = EPSIM_SOURCE_DIR "/experiments/quickstart/gpt-oss-20b-synthetic.eptrace";
constexpr char kConfig[] = EPSIM_SOURCE_DIR "/experiments/quickstart/synthesis.txtpb";
constexpr char kCaptured[] = EPSIM_SHARED_DATA "/traces/gpt-oss-20b-decode";

TEST(QuickstartTraceTest, IsSmallAndSaysWhatItWasFittedTo) {
  EXPECT_LT(std::filesystem::file_size(kBundled), 1'900'000u);
  const absl::Status sound = VerifyTrace(kBundled, StopToken());
  EXPECT_TRUE(sound.ok()) << sound;
  const auto trace = LoadWholeTrace(kBundled);
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->header.synthetic(),
            "fitted to gpt-oss-20b decode routing, 185 requests, 85302 tokens "
            "(AmanPriyanshu/GPT-OSS-MoE-ExpertFingerprinting 72b368f6, Apache-2.0), seed 1");
  EXPECT_EQ(trace->header.model(), "gpt-oss-20b");
  EXPECT_EQ(trace->requests.size(), 67u);
}

// The contents, not the bytes of the file: another version of zstd may compress otherwise.
TEST(QuickstartTraceTest, IsGeneratedAgainFromItsConfigOnEveryMachine) {
  SynthesisConfig config;
  const absl::Status parsed = LoadTextProto(kConfig, &config);
  ASSERT_TRUE(parsed.ok()) << parsed;
  const std::string path = testing::TempDir() + "/quickstart_again" + std::to_string(getpid()) + ".eptrace";
  const absl::Status written = Synthesize(config, path, {}, StopToken());
  ASSERT_TRUE(written.ok()) << written;
  const auto bundled = LoadWholeTrace(kBundled), again = LoadWholeTrace(path);
  ASSERT_TRUE(bundled.ok()) << bundled.status();
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->header.SerializeAsString(), bundled->header.SerializeAsString());
  EXPECT_TRUE(again->ids == bundled->ids);
  EXPECT_TRUE(again->position == bundled->position);
  EXPECT_TRUE(again->phase == bundled->phase);
  ASSERT_EQ(again->requests.size(), bundled->requests.size());
  for (size_t r = 0; r < again->requests.size(); ++r) {
    EXPECT_EQ(again->requests[r].SerializeAsString(), bundled->requests[r].SerializeAsString());
  }
}

// A third of the tokens of the capture: requests of a kind are alike, but the mix of 67 is not quite that of 185.
TEST(QuickstartTraceTest, ResemblesTheCapture) {
  if (!std::filesystem::exists(kCaptured)) GTEST_SKIP() << "no captured trace at " << kCaptured;
  const std::string path = testing::TempDir() + "/quickstart_captured" + std::to_string(getpid()) + ".eptrace";
  const auto imported = ImportTrace(kCaptured, {}, path, StopToken());
  ASSERT_TRUE(imported.ok()) << imported.status();
  const auto captured = LoadWholeTrace(path), bundled = LoadWholeTrace(kBundled);
  ASSERT_TRUE(captured.ok()) << captured.status();
  ASSERT_TRUE(bundled.ok()) << bundled.status();
  const auto mean = [](const std::vector<double>& x) {
    return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
  };
  EXPECT_LE(mean(PopularityDistance(*captured, *bundled)), 0.02);
  EXPECT_NEAR(mean(AdjacentOverlap(*bundled)), mean(AdjacentOverlap(*captured)), 0.005);
  for (int ranks : {8, 16, 32}) {
    std::vector<int64_t> a(captured->tokens), b(bundled->tokens);
    std::iota(a.begin(), a.end(), int64_t{0});
    std::iota(b.begin(), b.end(), int64_t{0});
    EXPECT_NEAR(Balancedness(*bundled, b, ranks) / Balancedness(*captured, a, ranks), 1, 0.03) << ranks;
  }
}

}  // namespace
}  // namespace epsim
