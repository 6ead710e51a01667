#include "models/costs/expert_surface.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "tests/models/calibration/stated_calibration.h"

namespace epsim {
namespace {

double MedianError(std::vector<double> ratios) {
  for (double& ratio : ratios) ratio = std::abs(ratio - 1);
  std::nth_element(ratios.begin(), ratios.begin() + ratios.size() / 2, ratios.end());
  return ratios[ratios.size() / 2];
}

double Quantile(std::vector<double> ratios, double q) {
  for (double& ratio : ratios) ratio = std::abs(ratio - 1);
  std::sort(ratios.begin(), ratios.end());
  return ratios[static_cast<size_t>(q * static_cast<double>(ratios.size() - 1))];
}

// One picosecond a byte and a flop: of experts [1, 1] in bf16 a slot reads 6 bytes, a pair moves
// (2 + 4) + (4 + 2) + (2 + 2) = 16, a row computes 6.
ExpertDemand UnitDemand() {
  GpuPeaks peaks;
  peaks.ps_per_byte = 1;
  peaks.bf16_ps = 1;
  return ExpertDemand(peaks, 1, 1, BF16, BF16);
}

ExpertSurface SurfaceOf(const ModelSpec& model, NumberType type, const StatedGpu& gpu) {
  const Calibration calibration = StatedCalibration({model}, gpu);
  const GpuPeaks peaks = *MakeGpuPeaks(H200());
  ExpertSurface surface(ExpertDemand(peaks, model.hidden(), model.moe_intermediate(), type, type), 12e6);
  for (const Measurement& m : calibration.measurements) {
    if (!m.work().has_expert_mlp() || m.work().expert_mlp().weights() != type) continue;
    const auto& slots = m.work().expert_mlp().tokens_per_slot();
    const std::vector<int32_t> tokens(slots.begin(), slots.end());
    if (std::any_of(tokens.begin(), tokens.end(), [](int32_t t) { return t > 0; })) {
      surface.Add(tokens, m.time().median_us() * 1e6);
    }
  }
  surface.ChooseTile();
  return surface;
}

TEST(ExpertLoad, CountsAHistogram) {
  const std::vector<int32_t> tokens = {3, 0, 17};
  const ExpertLoad load = ExpertLoad::Of(tokens, 16);
  EXPECT_EQ(load.active, 2);
  EXPECT_EQ(load.pairs, 20);
  EXPECT_EQ(load.rows, 16 + 32);
  EXPECT_EQ(load.most, 17);
  const std::vector<double> scale = {2, 5, 1};
  const ExpertLoad weighted = ExpertLoad::Of(tokens, scale, 16);
  EXPECT_EQ(weighted.active, 3);
  EXPECT_EQ(weighted.pairs, 23);
  EXPECT_EQ(weighted.rows, 64);
}

// A GPU that reaches half of its peaks everywhere does so between, above and below the measurements, too.
TEST(ExpertSurface, AConstantUtilisationIsFoundEverywhere) {
  ExpertSurface surface(UnitDemand(), 100);
  for (const std::vector<int32_t>& tokens : {std::vector<int32_t>{1}, {64, 64}, {1000}, {5, 90}}) {
    const ExpertLoad load = ExpertLoad::Of(tokens, surface.tile());
    surface.Add(tokens, 100 + 2 * UnitDemand().Picoseconds(load.active, load.pairs, load.rows));
  }
  for (const std::vector<int32_t>& tokens : {std::vector<int32_t>{7}, {1, 1}, {4000, 4000, 1, 0}, {64, 64}}) {
    const ExpertLoad load = ExpertLoad::Of(tokens, surface.tile());
    EXPECT_NEAR(surface.At(load, load, UnitDemand()).picoseconds,
                100 + 2 * UnitDemand().Picoseconds(load.active, load.pairs, load.rows), 1e-3);
  }
}

TEST(ExpertSurface, SaysWhatWasMeasuredWhereItWas) {
  ExpertSurface surface(UnitDemand(), 100);
  surface.Add(std::vector<int32_t>{4, 4}, 1000);
  surface.Add(std::vector<int32_t>{64, 64}, 3000);
  surface.Add(std::vector<int32_t>{64}, 2500);
  const ExpertLoad load = ExpertLoad::Of(std::vector<int32_t>{64, 64}, surface.tile());
  EXPECT_NEAR(surface.At(load, load, UnitDemand()).picoseconds, 3000, 1);
  EXPECT_TRUE(surface.At(load, load, UnitDemand()).inside);
}

TEST(ExpertSurface, OutsideIsWhatLiesBeyondTheFeaturesOrFarFromAnyMeasurement) {
  ExpertSurface surface(UnitDemand(), 100);
  for (const std::vector<int32_t>& tokens : {std::vector<int32_t>{1}, {4096}, std::vector<int32_t>(64, 1)}) {
    surface.Add(tokens, 1e5);
  }
  const auto inside = [&](const std::vector<int32_t>& tokens) {
    const ExpertLoad load = ExpertLoad::Of(tokens, surface.tile());
    return surface.At(load, load, UnitDemand()).inside;
  };
  EXPECT_TRUE(inside({2, 2}));
  EXPECT_FALSE(inside({8192}));                          // More tokens a slot than any.
  EXPECT_FALSE(inside(std::vector<int32_t>(128, 1)));    // More slots.
  EXPECT_FALSE(inside({1, 30}));                         // More skew.
  EXPECT_FALSE(inside(std::vector<int32_t>(32, 2048)));  // Within all, and near none.
}

// Left out one after the other, measurements are told from the rest.  What the surface adds to a plane through its
// neighbours is a plane, so what remains is curvature over the grid's steps of 8 x in tokens and 4 x in slots: the knee
// between reading and computing bends the utilisation by less than its two ends differ, 0.9 against 0.7, over a step or
// two; a third of that, 8 %, is what the median must stay well below.
TEST(ExpertSurface, LeftOutMeasurementsAreFoundAgain) {
  for (const char* name : {"deepseek-v3", "qwen3-30b-a3b", "gpt-oss-120b", "mixtral-8x7b"}) {
    for (const NumberType type : {BF16, FP8}) {
      const ExpertSurface surface = SurfaceOf(*FindModel(name), type, {});
      const std::vector<double> ratios = surface.LeaveOneOut();
      EXPECT_LT(MedianError(ratios), 0.04) << name << " " << NumberType_Name(type);
      EXPECT_LT(Quantile(ratios, 0.9), 0.20) << name << " " << NumberType_Name(type);
      std::printf("%s %s: tile %d, median %.3f, 90th percentile %.3f, worst %.3f of %zu\n", name,
                  NumberType_Name(type).c_str(), static_cast<int>(surface.tile()), MedianError(ratios),
                  Quantile(ratios, 0.9), Quantile(ratios, 1), ratios.size());
    }
  }
}

TEST(ExpertSurface, FindsTheTile) { EXPECT_EQ(SurfaceOf(*FindModel("deepseek-v3"), BF16, {}).tile(), 128); }

TEST(ExpertSurface, NoTimeStaysBelowTheBound) {
  const ExpertSurface surface = SurfaceOf(*FindModel("deepseek-v3"), FP8, {});
  for (int tokens = 1; tokens <= 4096; tokens *= 4) {
    for (int active = 1; active <= 64; active *= 4) {
      const ExpertLoad load = ExpertLoad::Of(std::vector<int32_t>(active, tokens), surface.tile());
      EXPECT_GE(surface.At(load, load, surface.demand()).picoseconds,
                surface.AtLeast(surface.demand(), load.active, load.pairs) * (1 - 1e-12));
    }
  }
}

}  // namespace
}  // namespace epsim
