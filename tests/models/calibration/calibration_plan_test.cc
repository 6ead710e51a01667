#include "models/calibration/calibration_plan.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <string>

#include "gtest/gtest.h"
#include "models/calibration/calibration_table.h"
#include "models/catalogue.h"

namespace epsim {
namespace {

std::vector<ModelSpec> AllModels() {
  std::vector<ModelSpec> models;
  for (const CatalogueFile& file : ModelCatalogue()) models.push_back(*FindModel(file.name));
  return models;
}

std::map<std::string, int> CountKinds(const std::vector<KernelWork>& works) {
  std::map<std::string, int> kinds;
  for (const KernelWork& work : works) ++kinds[KindOf(work)];
  return kinds;
}

TEST(CalibrationPlan, AsksForEachWorkOnceAndAlwaysForTheSame) {
  const auto works = PlanCalibration({.models = AllModels(), .traced = {}, .quick = false});
  std::set<std::string> keys;
  for (const KernelWork& work : works) EXPECT_TRUE(keys.insert(WorkKey(work)).second) << WorkText(work);
  const auto again = PlanCalibration({.models = AllModels(), .traced = {}, .quick = false});
  ASSERT_EQ(works.size(), again.size());
  for (size_t i = 0; i < works.size(); ++i) EXPECT_EQ(WorkKey(works[i]), WorkKey(again[i]));
}

TEST(CalibrationPlan, TheWholeCatalogueTakesLessThanTenMinutes) {
  const auto works = PlanCalibration({.models = AllModels(), .traced = {}, .quick = false});
  EXPECT_LT(static_cast<double>(works.size()) * kSecondsPerWork, 600);
  const auto quick = PlanCalibration({.models = AllModels(), .traced = {}, .quick = true});
  EXPECT_LT(quick.size(), works.size() / 3);
}

TEST(CalibrationPlan, CoversEveryKernelOfEveryModel) {
  for (const bool quick : {false, true}) {
    for (const ModelSpec& model : AllModels()) {
      const auto works = PlanCalibration({.models = {model}, .traced = {}, .quick = quick});
      const auto kinds = CountKinds(works);
      for (const char* kind : {"launch", "device_copy", "host_copy", "router", "expert_choice", "permute", "gemm",
                               "expert_mlp", "co_occurrence"}) {
        EXPECT_TRUE(kinds.contains(kind)) << kind << " of " << model.name();
      }
      EXPECT_EQ(std::count_if(works.begin(), works.end(),
                              [](const KernelWork& w) {
                                return w.gemm().n() == 8192 && w.gemm().k() == 8192 && w.gemm().m() == 8192;
                              }),
                2);
      const auto has = [&](auto matches) { return std::any_of(works.begin(), works.end(), matches); };
      EXPECT_TRUE(
          has([&](const KernelWork& w) { return w.gemm().n() == model.experts() && w.gemm().k() == model.hidden(); }));
      EXPECT_TRUE(has([&](const KernelWork& w) { return w.gemm().n() == model.vocabulary(); }));
      EXPECT_TRUE(has([&](const KernelWork& w) { return w.router().experts() == model.experts(); }));
      for (const NumberType type : {BF16, FP8}) {
        EXPECT_TRUE(has([&](const KernelWork& w) {
          return w.expert_mlp().inter() == model.moe_intermediate() && w.expert_mlp().weights() == type;
        }));
        EXPECT_EQ(model.shared_intermediate() > 0, has([&](const KernelWork& w) {
                                                     return w.gemm().n() == 2 * model.shared_intermediate() &&
                                                            w.gemm().values() == type;
                                                   }) &&
                                                       model.shared_intermediate() > 0);
      }
    }
  }
}

// Uniform, skewed, with empty slots, without tokens; nothing that does not fit.
TEST(CalibrationPlan, HistogramsAreOfEveryKind) {
  for (const int64_t experts : {8, 64, 256}) {
    int uniform = 0, skewed = 0, holes = 0, empty = 0;
    for (const std::vector<int32_t>& histogram : ExpertHistograms(experts, false)) {
      EXPECT_LE(static_cast<int64_t>(histogram.size()), experts);
      const auto [least, most] = std::minmax_element(histogram.begin(), histogram.end());
      EXPECT_GE(*least, 0);
      EXPECT_LE(std::accumulate(histogram.begin(), histogram.end(), int64_t{0}), 65'536);
      if (*most == 0) {
        ++empty;
      } else if (*least == 0) {
        ++holes;
      } else {
        ++(*least == *most ? uniform : skewed);
      }
    }
    EXPECT_EQ(empty, 1);
    EXPECT_GE(uniform, 15);
    EXPECT_GE(skewed, 6);
    EXPECT_GE(holes, experts >= 64 ? 2 : 0);
  }
}

TEST(CalibrationPlan, TakesTheHistogramsOfATrace) {
  const ModelSpec model = *FindModel("olmoe-1b-7b");
  const std::vector<int32_t> traced = {17, 4, 0, 123};
  const auto works = PlanCalibration({.models = {model}, .traced = {{model, {traced}}}, .quick = true});
  EXPECT_EQ(2, std::count_if(works.begin(), works.end(), [&](const KernelWork& work) {
              const auto& slots = work.expert_mlp().tokens_per_slot();
              return std::equal(slots.begin(), slots.end(), traced.begin(), traced.end());
            }));
}

}  // namespace
}  // namespace epsim
