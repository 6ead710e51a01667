// What is made of measured times, with a clock whose times are stated.
#include "models/kernels/clock/kernel_figures.h"

#include <algorithm>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace epsim {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

// A GPU that copies 4 TB/s (read and written), multiplies 800 TFLOP/s in bf16 and no fp8, and takes 1000 us for all
// else.
class RatedClock : public KernelClock {
 public:
  RatedClock() { hardware_.set_gpu("Rated GPU"); }
  const Hardware& hardware() const override { return hardware_; }
  absl::Status CanImplement(const KernelWork& work) const override {
    if (work.gemm().values() == FP8 || work.expert_mlp().weights() == FP8) {
      return absl::UnimplementedError("no fp8 here");
    }
    return absl::OkStatus();
  }
  absl::StatusOr<KernelTime> Time(const KernelWork& work) override {
    if (work.has_sampled_load()) return absl::InternalError("it broke");
    double us = 1000;
    if (work.has_device_copy()) us = 2.0 * static_cast<double>(work.device_copy().size_bytes()) / 4e6;
    if (work.has_gemm()) us = 2.0 * work.gemm().m() * work.gemm().n() * work.gemm().k() / 800e6;
    if (work.has_launch()) us = 1.5 * work.launch().kernels();
    if (work.has_expert_choice()) us = 3;
    KernelTime time;
    time.set_median_us(us);
    time.set_lower_quartile_us(0.9 * us);
    time.set_upper_quartile_us(1.1 * us);
    time.set_repeats(20);
    return time;
  }

 private:
  Hardware hardware_;
};

const KernelFigure& Named(const KernelFigures& figures, const std::string& name) {
  const auto found = std::find_if(figures.kernels.begin(), figures.kernels.end(),
                                  [&](const KernelFigure& kernel) { return kernel.name == name; });
  EXPECT_NE(found, figures.kernels.end()) << name;
  return *found;
}

TEST(KernelFigures, SetTimesAgainstFloors) {
  RatedClock clock;
  const auto figures = MeasureKernels(clock);
  ASSERT_TRUE(figures.ok()) << figures.status();
  EXPECT_DOUBLE_EQ(figures->ceilings.copy_bytes_per_us, 4e6);
  EXPECT_DOUBLE_EQ(figures->ceilings.bf16_flops_per_us, 800e6);
  EXPECT_EQ(figures->ceilings.fp8_flops_per_us, 0);
  EXPECT_DOUBLE_EQ(figures->ceilings.launch_us, 1.5);

  // 6 x 4096 x 7168 x 2048 operations at 800 TFLOP/s are 451 us: 1000 us are more than 1 / 0.6 of that.
  const KernelFigure& mlp = Named(*figures, "expert MLP BF16 8x512");
  EXPECT_NEAR(mlp.floor_us, 450.97, 0.01);
  EXPECT_NEAR(mlp.ratio(), 1000 / 450.97, 1e-3);
  EXPECT_TRUE(mlp.missed());
  // Three matrices of 7168 x 2048 of two bytes, eight times: 704.6 MB at 4 TB/s.
  EXPECT_NEAR(Named(*figures, "expert MLP BF16 8x1").floor_us, 176.16, 0.01);
  // 4 MiB of scores, 8 x 32768 B of choices and 16 KiB of counts; 3 us are within three times 1.12.
  const KernelFigure& choice = Named(*figures, "expert choice fused 4096x256 top-8");
  EXPECT_NEAR(choice.floor_us, (4 * 4096 * 256 + 8 * 4096 * 8 + 4 * 4096) / 4e6, 1e-9);
  EXPECT_FALSE(choice.missed());
  EXPECT_NEAR(Named(*figures, "co-occurrence 8192x256 top-8").items_per_us, 8.192, 1e-9);
}

TEST(KernelFigures, TellWhatCannotBeAndWhatFailed) {
  RatedClock clock;
  const auto figures = MeasureKernels(clock);
  ASSERT_TRUE(figures.ok());
  EXPECT_EQ(Named(*figures, "expert MLP FP8 8x512").problem, "no fp8 here");
  EXPECT_FALSE(Named(*figures, "expert MLP FP8 8x512").failed);
  EXPECT_TRUE(Named(*figures, "sampled load 4 tokens, 32 chips").failed);
  const std::string table = FiguresTable(*figures);
  EXPECT_THAT(table, AllOf(HasSubstr("Rated GPU"), HasSubstr("copy 4.00 TB/s"), HasSubstr("bf16 800 TFLOP/s")));
  EXPECT_THAT(table, AllOf(HasSubstr("FAILED: it broke"), HasSubstr("not measured: no fp8 here")));
  const auto json = nlohmann::json::parse(FiguresJson(*figures));
  EXPECT_EQ(json["hardware"]["gpu"], "Rated GPU");
  EXPECT_EQ(json["kernels"].size(), figures->kernels.size());
  for (const auto& kernel : json["kernels"]) {
    if (kernel["name"] == "expert MLP BF16 8x512") {
      EXPECT_EQ(kernel["met"], false);
    }
    if (kernel["name"] == "expert choice fused 4096x256 top-8") {
      EXPECT_EQ(kernel["met"], true);
    }
    if (kernel["name"] == "expert MLP FP8 8x512") {
      EXPECT_EQ(kernel["not_measured"], "no fp8 here");
    }
  }
  EXPECT_THAT(table, Not(HasSubstr("nan")));
}

// A GPU whose cuBLAS has the fp8 products of experts but not the largest, and whose PCIe breaks.
class WithoutCeilings final : public RatedClock {
 public:
  absl::Status CanImplement(const KernelWork& /*work*/) const override { return absl::OkStatus(); }
  absl::StatusOr<KernelTime> Time(const KernelWork& work) override {
    if (work.gemm().values() == FP8) return absl::UnimplementedError("no algorithm");
    if (work.has_host_copy()) return absl::InternalError("the link is down");
    return RatedClock::Time(work);
  }
};

TEST(KernelFigures, GoOnWithoutSomeCeilings) {
  WithoutCeilings clock;
  const auto figures = MeasureKernels(clock);
  ASSERT_TRUE(figures.ok()) << figures.status();
  ASSERT_EQ(figures->ceilings.unknown.size(), 3u);
  EXPECT_FALSE(figures->ceilings.unknown[0].failed);
  EXPECT_TRUE(figures->ceilings.unknown[1].failed);
  // An aim that there is no ceiling for is neither met nor missed.
  const KernelFigure& mlp = Named(*figures, "expert MLP FP8 8x512");
  EXPECT_EQ(mlp.floor_us, 0);
  EXPECT_FALSE(mlp.judged());
  EXPECT_FALSE(mlp.missed());
  const std::string table = FiguresTable(*figures);
  EXPECT_THAT(table, AllOf(HasSubstr("no ceiling of fp8: no algorithm\n"),
                           HasSubstr("no ceiling of PCIe to the GPU, FAILED: the link is down\n")));
  EXPECT_THAT(table, ContainsRegex("\nexpert MLP FP8 8x512 [^\n]*  no ceiling 4.1e"));
  const auto json = nlohmann::json::parse(FiguresJson(*figures));
  EXPECT_EQ(json["no_ceiling"][0]["not_measured"], "no algorithm");
  EXPECT_EQ(json["no_ceiling"][2]["failed"], "the link is down");
  for (const auto& kernel : json["kernels"]) {
    if (kernel["name"] == "expert MLP FP8 8x512") {
      EXPECT_FALSE(kernel.contains("met"));
    }
  }
}

}  // namespace
}  // namespace epsim
