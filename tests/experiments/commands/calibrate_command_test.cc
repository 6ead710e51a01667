// `epsim calibrate`: of the program where there is no GPU, and of the command with a clock that states its times.
#include <sys/wait.h>

#include <atomic>
#include <cstdlib>

#include "CLI/CLI.hpp"
#include "experiments/commands/commands.h"
#include "gmock/gmock.h"
#include "models/kernels/clock/gpu_clock.h"
#include "tests/experiments/small_run.h"
#include "tests/models/calibration/stated_calibration.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;

class CalibrateCommand : public SmallRun {
 protected:
  struct Outcome {
    int exit_code;
    std::string out, err;
  };
  Outcome Epsim(const std::string& arguments) {
    const std::string out = (folder_ / "stdout").string(), err = (folder_ / "stderr").string();
    const std::string command = std::string(EPSIM_BINARY) + " " + arguments + " >" + out + " 2>" + err + " </dev/null";
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, ReadFile(out), ReadFile(err)};
  }

  // The command with a stated clock.
  absl::Status Command(std::string arguments, StatedGpu gpu = {}) {
    CLI::App app{"test", "epsim"};
    Invocation invocation{.stop = StopToken(&stop_), .action = {}};
    AddCalibrateCommand(app, invocation, [this, gpu](int) -> absl::StatusOr<std::unique_ptr<KernelClock>> {
      auto clock = std::make_unique<StatedClock>(gpu);
      clock->on_call = [this](int calls) {
        ++calls_;
        if (calls == stop_at_) stop_ = true;
      };
      return clock;
    });
    app.parse(arguments + " --out " + Out());
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const absl::Status status = invocation.action();
    out_ = testing::internal::GetCapturedStdout();
    err_ = testing::internal::GetCapturedStderr();
    return status;
  }
  std::string Out() { return (folder_ / "gpu").string(); }

  int calls_ = 0, stop_at_ = -1;
  std::atomic<bool> stop_{false};
  std::string out_, err_;
};

constexpr char kQuick[] = "calibrate --quick --model olmoe-1b-7b";

TEST_F(CalibrateCommand, WithoutAGpuItSaysWhy) {
  const auto clock = NewGpuClock(0);
  if (clock.ok()) GTEST_SKIP() << "there is a GPU";
  const Outcome outcome = Epsim("calibrate --gpu 0 --out " + Out());
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.err, HasSubstr(std::string(clock.status().message())));
  EXPECT_EQ(outcome.out, "");
  EXPECT_FALSE(std::filesystem::exists(Out()));
}

TEST_F(CalibrateCommand, BadInput) {
  for (const auto& [arguments, part] : std::vector<std::pair<std::string, std::string>>{
           {"calibrate --out " + Out() + " --model gpt-7", "--model: no model is called \"gpt-7\""},
           {"calibrate", "--out"},
           {"calibrate --out " + Out() + " --gpu -1", "--gpu"},
           {"calibrate --out " + Out() + " --banana", "banana"},
           {"calibrate --out " + Out() + " --trace /nonexistent.eptrace", "/nonexistent.eptrace"},
           {"calibrate --out " + Out() + " --trace " + (folder_ / "small.eptrace").string(),
            "captured on \"small\""}}) {
    const Outcome outcome = Epsim(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << arguments << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(part));
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  }
}

TEST_F(CalibrateCommand, ADamagedFolderIsBadInput) {
  std::filesystem::create_directories(Out());
  WriteFile("gpu/gemm.txtpb", "hardware { gpu: \"A\" }\nmeasurement { banana: 1 }\n");
  const Outcome outcome = Epsim("calibrate --out " + Out());
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("gemm.txtpb:2:"));
}

TEST_F(CalibrateCommand, MeasuresAndSaysBeforeHowLong) {
  ASSERT_TRUE(Command(kQuick).ok());
  EXPECT_THAT(err_, HasSubstr("are to be measured on Stated GPU"));
  EXPECT_THAT(err_, HasSubstr("minutes"));
  EXPECT_THAT(out_, HasSubstr(std::to_string(calls_) + " measured, 0 known before, 0 not possible"));
  EXPECT_EQ(ReadCalibrationFolder(Out())->measurements.size(), static_cast<size_t>(calls_));
}

TEST_F(CalibrateCommand, GoesOnAfterCtrlC) {
  stop_at_ = 30;
  const absl::Status interrupted = Command(kQuick);
  EXPECT_TRUE(absl::IsCancelled(interrupted));
  EXPECT_THAT(std::string(interrupted.message()), HasSubstr("30 of "));
  EXPECT_EQ(ReadCalibrationFolder(Out())->measurements.size(), 30u);
  stop_ = false;
  stop_at_ = -1;
  ASSERT_TRUE(Command(kQuick).ok());
  EXPECT_THAT(out_, HasSubstr("30 known before"));
}

TEST_F(CalibrateCommand, AFolderOfAnotherGpuIsRefused) {
  ASSERT_TRUE(Command(kQuick).ok());
  const std::string error(Command("calibrate --model olmoe-1b-7b", {.name = "Other GPU"}).message());
  EXPECT_THAT(error, HasSubstr("Stated GPU"));
  EXPECT_THAT(error, HasSubstr("Other GPU"));
}

// The trace has 16 experts: 2 slots on each of 8 ranks.
TEST_F(CalibrateCommand, TakesHistogramsFromATrace) {
  ASSERT_TRUE(Command(std::string(kQuick) + " --trace " + (folder_ / "small.eptrace").string()).ok());
  const auto calibration = ReadCalibrationFolder(Out());
  int of_two = 0;
  for (const Measurement& m : calibration->measurements) of_two += m.work().expert_mlp().tokens_per_slot_size() == 2;
  EXPECT_GE(of_two, 10);
}

}  // namespace
}  // namespace epsim
