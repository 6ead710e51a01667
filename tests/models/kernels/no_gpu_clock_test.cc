// What is said where kernels cannot be timed: in a build without them, and on a machine without a GPU.
#include <string>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/kernels/clock/gpu_clock.h"

namespace epsim {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

TEST(GpuClockWithoutGpu, SaysWhatIsMissing) {
  const auto clock = NewGpuClock(0);
#ifdef EPSIM_WITH_CUDA
  if (clock.ok()) GTEST_SKIP() << "this machine has a GPU: " << (*clock)->hardware().gpu();
  EXPECT_EQ(clock.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(clock.status().message()),
              AnyOf(HasSubstr("there is no GPU: this machine has no NVIDIA driver"),
                    HasSubstr("there is no GPU: the NVIDIA driver finds none"), HasSubstr("driver is too old"),
                    HasSubstr("cuBLAS")));
#else
  ASSERT_FALSE(clock.ok());
  EXPECT_EQ(clock.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(clock.status().message()), HasSubstr("-DEPSIM_CUDA=ON"));
#endif
}

}  // namespace
}  // namespace epsim
