#include "models/calibration/work_times.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/calibration/calibration_table.h"
#include "tests/models/calibration/stated_clock.h"

namespace epsim {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

KernelWork Gemm(uint32_t m) {
  KernelWork work;
  work.mutable_gemm()->set_m(m);
  work.mutable_gemm()->set_n(64);
  work.mutable_gemm()->set_k(64);
  work.mutable_gemm()->set_values(BF16);
  return work;
}

class WorkTimesTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "epsim_test_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }
  // Counts what it executes in calls_.
  NewKernelClock Clock(StatedGpu gpu = {}) {
    return [this, gpu]() -> absl::StatusOr<std::unique_ptr<KernelClock>> {
      auto clock = std::make_unique<StatedClock>(gpu);
      clock->on_call = [this](int) { ++calls_; };
      return clock;
    };
  }
  // The file of the only work in the folder.
  std::string FileOfWork() {
    for (const auto& entry : fs::directory_iterator(folder_)) {
      if (entry.path().filename() != "hardware.txtpb") return entry.path().string();
    }
    return "";
  }
  std::string folder_;
  int calls_ = 0;
};

TEST_F(WorkTimesTest, ExecutesWhatItDoesNotKnow) {
  WorkTimes times(Clock());
  EXPECT_EQ(times.hardware(""), std::nullopt);
  const auto two = times.Get({Gemm(1), Gemm(2), Gemm(1)}, "", {});
  ASSERT_TRUE(two.ok()) << two.status();
  EXPECT_EQ(calls_, 2);
  EXPECT_EQ((*two)[0].median_us(), (*two)[2].median_us());
  ASSERT_TRUE(times.Get({Gemm(2)}, "", {}).ok());
  EXPECT_EQ(calls_, 2);
  EXPECT_EQ(times.hardware("")->gpu(), "Stated GPU");
}

TEST_F(WorkTimesTest, AFolderKeepsTimesForLater) {
  const auto executed = WorkTimes(Clock()).Get({Gemm(1), Gemm(2)}, folder_, {});
  ASSERT_TRUE(executed.ok()) << executed.status();
  WorkTimes later([]() -> absl::StatusOr<std::unique_ptr<KernelClock>> { return absl::InternalError("no GPU"); });
  const auto read = later.Get({Gemm(2), Gemm(1)}, folder_, {});
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ((*read)[0].SerializeAsString(), (*executed)[1].SerializeAsString());
  EXPECT_EQ((*read)[1].SerializeAsString(), (*executed)[0].SerializeAsString());
  const auto unknown = later.Get({Gemm(3)}, folder_, {});
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr("no GPU"));
}

// It can be read as a calibration, too.
TEST_F(WorkTimesTest, AFolderIsACalibration) {
  ASSERT_TRUE(WorkTimes(Clock()).Get({Gemm(1), Gemm(2)}, folder_, {}).ok());
  const auto calibration = ReadCalibrationFolder(folder_);
  ASSERT_TRUE(calibration.ok()) << calibration.status();
  EXPECT_EQ(calibration->measurements.size(), 2u);
}

TEST_F(WorkTimesTest, AFolderIsOfOneGpu) {
  ASSERT_TRUE(WorkTimes(Clock()).Get({Gemm(1)}, folder_, {}).ok());
  const auto other = WorkTimes(Clock({.driver = "2.0"})).Get({Gemm(2)}, folder_, {});
  EXPECT_EQ(other.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(other.status().message()), HasSubstr("driver 1.0"));
  EXPECT_THAT(std::string(other.status().message()), HasSubstr("driver 2.0"));
}

TEST_F(WorkTimesTest, DamageIsFound) {
  ASSERT_TRUE(WorkTimes(Clock()).Get({Gemm(1)}, folder_, {}).ok());
  std::ostringstream text;
  text << std::ifstream(FileOfWork()).rdbuf();
  const std::string whole = text.str();
  for (const std::string& damaged :
       {whole.substr(0, whole.size() / 2), std::string(), absl::StrReplaceAll(whole, {{"repeats: 20", "repeats: 21"}}),
        whole + "measurement { }\n", std::string("# xxh3 0000000000000000\n")}) {
    std::ofstream(FileOfWork()) << damaged;
    const auto times = WorkTimes(Clock()).Get({Gemm(1)}, folder_, {});
    EXPECT_EQ(times.status().code(), absl::StatusCode::kDataLoss) << damaged;
    EXPECT_THAT(std::string(times.status().message()), HasSubstr(FileOfWork()));
  }
  std::ofstream(FileOfWork()) << whole;
  EXPECT_TRUE(WorkTimes(Clock()).Get({Gemm(1)}, folder_, {}).ok());
  // Another work's file under this name.
  WorkTimes both(Clock());
  ASSERT_TRUE(both.Get({Gemm(1), Gemm(2)}, folder_, {}).ok());
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    if (entry.path().filename() != "hardware.txtpb") files.push_back(entry.path().string());
  }
  ASSERT_EQ(files.size(), 2u);
  fs::rename(files[0], files[1]);
  const auto swapped = WorkTimes(Clock()).Get({Gemm(1), Gemm(2)}, folder_, {});
  EXPECT_THAT(std::string(swapped.status().message()), HasSubstr("something else"));
}

TEST_F(WorkTimesTest, WhatCannotRunIsAnError) {
  KernelWork work;
  work.mutable_expert_mlp()->set_weights(NVFP4);
  work.mutable_expert_mlp()->add_tokens_per_slot(1);
  const auto times = WorkTimes(Clock()).Get({work}, "", {});
  EXPECT_EQ(times.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(times.status().message()), HasSubstr("no units for 4 bit"));
}

}  // namespace
}  // namespace epsim
