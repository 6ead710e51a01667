// cuBLAS and the driver's library are loaded when asked for.  Neither needs a GPU for that.
#include "models/kernels/cublas_library.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/kernels/clock/nvml.h"

namespace epsim {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

TEST(CublasLibrary, IsThereOrSaysWhereItWasLookedFor) {
  const auto cublas = CublasLibrary::Get();
  if (!cublas.ok()) {
    EXPECT_THAT(std::string(cublas.status().message()),
                AllOf(HasSubstr("libcublasLt.so."), HasSubstr("/usr/local/cuda/lib64/"), HasSubstr("LD_LIBRARY_PATH")));
    return;
  }
  EXPECT_THAT((*cublas)->version(), MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+"));
  EXPECT_TRUE((*cublas)->Status(CUBLAS_STATUS_SUCCESS, "a call").ok());
  EXPECT_THAT(std::string((*cublas)->Status(CUBLAS_STATUS_NOT_SUPPORTED, "a call").message()),
              HasSubstr("a call: CUBLAS_STATUS_NOT_SUPPORTED"));
  EXPECT_EQ(*CublasLibrary::Get(), *cublas) << "it is loaded once";
}

TEST(Nvml, KnowsNothingOfAGpuThatIsNotThere) {
  const DriverFacts facts = AskDriver("ffff:ff:1f.7");
  EXPECT_EQ(facts.sm_clock_mhz, 0u);
  EXPECT_EQ(facts.memory_clock_mhz, 0u);
}

}  // namespace
}  // namespace epsim
