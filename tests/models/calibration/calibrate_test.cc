#include "models/calibration/calibrate.h"

#include <atomic>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/calibration/calibration_table.h"
#include "tests/models/calibration/stated_clock.h"

namespace epsim {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::vector<KernelWork> Works(int gemms) {
  std::vector<KernelWork> works(1);
  works[0].mutable_launch()->set_kernels(64);
  for (int m = 1; m <= gemms; ++m) {
    KernelWork& work = works.emplace_back();
    work.mutable_gemm()->set_m(m);
    work.mutable_gemm()->set_n(64);
    work.mutable_gemm()->set_k(64);
    work.mutable_gemm()->set_values(BF16);
  }
  return works;
}

class Calibrating : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "epsim_test_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }

  absl::StatusOr<CalibrationCount> Run(const std::vector<KernelWork>& works, StatedClock* clock,
                                       const std::string& date = "2026-11-29") {
    return Calibrate(works, clock,
                     {.folder = folder_ + "/gpu",
                      .date = date,
                      .epsim_version = "0.1.0",
                      .stop = StopToken(&stop_),
                      .log = [this](const std::string& line) { log_.push_back(line); }});
  }
  std::string Text(const std::string& kind) {
    std::ostringstream text;
    text << std::ifstream(folder_ + "/gpu/" + kind + ".txtpb").rdbuf();
    return text.str();
  }

  std::string folder_;
  std::atomic<bool> stop_{false};
  std::vector<std::string> log_;
};

TEST_F(Calibrating, WritesAFileAKind) {
  StatedClock clock;
  const auto count = Run(Works(10), &clock);
  ASSERT_TRUE(count.ok()) << count.status();
  EXPECT_EQ(count->measured, 11u);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_ + "/gpu"), {}), 2);
  const auto read = ReadCalibrationFolder(folder_ + "/gpu");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->measurements.size(), 11u);
  EXPECT_NEAR(read->measurements[0].time().median_us(), clock.Microseconds(read->measurements[0].work()), 0.001);
}

TEST_F(Calibrating, GoesOnWhereItEnded) {
  StatedClock first, second, third;
  first.on_call = [this](int calls) { stop_ = calls == 6; };
  const auto interrupted = Run(Works(10), &first);
  EXPECT_TRUE(absl::IsCancelled(interrupted.status()));
  EXPECT_THAT(std::string(interrupted.status().message()), HasSubstr("6 of 11 works are in"));
  EXPECT_EQ(ReadCalibrationFolder(folder_ + "/gpu")->measurements.size(), 6u);
  stop_ = false;
  const auto count = Run(Works(10), &second, "2026-12-24");
  ASSERT_TRUE(count.ok()) << count.status();
  EXPECT_EQ(count->known, 6u);
  EXPECT_EQ(count->measured, 5u);
  EXPECT_EQ(second.calls, 5);
  // As in one go.
  const std::string text = Text("gemm");
  fs::remove_all(folder_ + "/gpu");
  ASSERT_TRUE(Run(Works(10), &third).ok());
  EXPECT_EQ(Text("gemm"), text);
}

TEST_F(Calibrating, AllKnownMeasuresNothing) {
  StatedClock first, second;
  ASSERT_TRUE(Run(Works(3), &first).ok());
  ASSERT_TRUE(Run(Works(3), &second).ok());
  EXPECT_EQ(second.calls, 0);
}

TEST_F(Calibrating, AnotherGpuOrDriverIsRefused) {
  StatedClock first, other({.name = "Other GPU"}), newer({.driver = "2.0"});
  ASSERT_TRUE(Run(Works(3), &first).ok());
  for (StatedClock* clock : {&other, &newer}) {
    const std::string error(Run(Works(4), clock).status().message());
    EXPECT_THAT(error, HasSubstr("Stated GPU (132 SMs, 141 GiB, driver 1.0"));
    EXPECT_THAT(error, HasSubstr(clock == &other ? "this is Other GPU" : "driver 2.0"));
    EXPECT_EQ(clock->calls, 0);
  }
}

TEST_F(Calibrating, WhatCannotRunIsSaid) {
  StatedClock clock;
  std::vector<KernelWork> works = Works(1);
  for (int tokens : {1, 2}) {
    KernelWork& work = works.emplace_back();
    work.mutable_expert_mlp()->set_hidden(64);
    work.mutable_expert_mlp()->set_inter(64);
    work.mutable_expert_mlp()->set_weights(NVFP4);
    work.mutable_expert_mlp()->add_tokens_per_slot(tokens);
  }
  const auto count = Run(works, &clock);
  ASSERT_TRUE(count.ok()) << count.status();
  EXPECT_EQ(count->refused, 2u);
  EXPECT_THAT(log_, testing::ElementsAre("not measured, 2 works: expert_mlp: no units for 4 bit"));
  EXPECT_FALSE(fs::exists(folder_ + "/gpu/expert_mlp.txtpb"));
}

TEST_F(Calibrating, WhatTheLibraryLacksIsRefusedWhenItIsTried) {
  StatedClock clock;
  clock.fails_at = 4, clock.failures = 5, clock.failure = absl::UnimplementedError("no algorithm");
  const auto count = Run(Works(10), &clock);
  ASSERT_TRUE(count.ok()) << count.status();
  EXPECT_EQ(count->measured, 6u);
  EXPECT_EQ(count->refused, 5u);
  EXPECT_THAT(log_, testing::ElementsAre("not measured, 5 works: gemm: no algorithm"));
}

TEST_F(Calibrating, GoesOnAfterAFailureAndTellsIt) {
  StatedClock clock;
  clock.fails_at = 4, clock.failures = 2;
  const auto count = Run(Works(10), &clock);
  EXPECT_EQ(count.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(count.status().message()),
              testing::AllOf(HasSubstr("2 of 11 works failed, the first: gemm { m: 3"), HasSubstr("fell off the bus"),
                             HasSubstr("9 are in")));
  EXPECT_THAT(log_, testing::ElementsAre(HasSubstr("failed: gemm { m: 3"), HasSubstr("failed: gemm { m: 4")));
  EXPECT_EQ(ReadCalibrationFolder(folder_ + "/gpu")->measurements.size(), 9u);
  // The next call measures what failed.
  StatedClock second;
  EXPECT_EQ(Run(Works(10), &second)->measured, 2u);
}

TEST_F(Calibrating, ALostDeviceKeepsWhatItGave) {
  StatedClock clock;
  clock.fails_at = 4, clock.failures = 100;
  const auto count = Run(Works(10), &clock);
  EXPECT_EQ(count.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(count.status().message()), HasSubstr("3 failures in a row, the last of gemm { m: 5"));
  EXPECT_EQ(clock.calls, 6);
  EXPECT_EQ(ReadCalibrationFolder(folder_ + "/gpu")->measurements.size(), 3u);
}

TEST_F(Calibrating, ADamagedTableIsAnErrorBeforeAnythingIsMeasured) {
  fs::create_directories(folder_ + "/gpu");
  std::ofstream(folder_ + "/gpu/gemm.txtpb") << "measurement { banana: 1 }\n";
  StatedClock clock;
  EXPECT_THAT(std::string(Run(Works(3), &clock).status().message()), HasSubstr("gemm.txtpb:1:"));
  EXPECT_EQ(clock.calls, 0);
}

}  // namespace
}  // namespace epsim
