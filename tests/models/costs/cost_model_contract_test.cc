// Does every cost model keep the promises of cost_model.h?  Every alternative of CostConfig.model, for every model on
// every platform of the catalogues and every precision that the GPU can compute.
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "engine/text_proto.h"
#include "gtest/gtest.h"
#include "models/calibration/work_times.h"
#include "models/catalogue.h"
#include "models/costs/cost_model.h"
#include "models/costs/step_executor.h"
#include "models/number_type.h"
#include "platforms/cluster.h"
#include "tests/models/calibration/stated_calibration.h"

namespace epsim {
namespace {

// Tables that a stated clock gave for one model, for as long as the program runs.
class StatedTables {
 public:
  StatedTables() {
    std::string pattern = (std::filesystem::temp_directory_path() / "epsim_test_XXXXXX").string();
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    const absl::Status status = WriteStatedCalibration({*FindModel("qwen3-30b-a3b")}, folder_);
    EXPECT_TRUE(status.ok()) << status;
  }
  ~StatedTables() { std::filesystem::remove_all(folder_); }
  const std::string& folder() const { return folder_; }

 private:
  std::string folder_;
};

// A config for each alternative of the oneof, with its defaults and what it cannot do without.
std::vector<CostConfig> EveryCostModel(const StatedTables& tables) {
  std::vector<CostConfig> configs;
  const google::protobuf::OneofDescriptor* models = CostConfig::descriptor()->FindOneofByName("model");
  for (int i = 0; i < models->field_count(); ++i) {
    CostConfig config;
    config.GetReflection()->MutableMessage(&config, models->field(i));
    if (config.has_measured()) {
      config.mutable_measured()->set_table(tables.folder());
      config.mutable_measured()->set_fallback(MeasuredConfig::ROOFLINE);
    }
    configs.push_back(config);
  }
  return configs;
}

Precision Types(NumberType experts, NumberType others, NumberType dispatch, NumberType kv_cache) {
  Precision precision;
  precision.set_expert_weights(experts);
  precision.set_other_weights(others);
  precision.set_dispatch(dispatch);
  precision.set_kv_cache(kv_cache);
  return precision;
}

TEST(CostModelContractTest, EveryModelOnEveryGpu) {
  const StatedTables tables;
  const auto times = std::make_shared<WorkTimes>([]() -> absl::StatusOr<std::unique_ptr<KernelClock>> {
    return std::make_unique<StatedClock>(StatedGpu{.has_fp4 = true});
  });
  ASSERT_EQ(EveryCostModel(tables).size(), 3u);
  int64_t checked = 0;
  for (CostConfig config : EveryCostModel(tables)) {
    for (const CatalogueFile& platform_file : PlatformCatalogue()) {
      const GpuSpec gpu = FindPlatform(platform_file.name)->gpu();
      for (const CatalogueFile& model_file : ModelCatalogue()) {
        const ModelSpec model = *FindModel(model_file.name);
        for (const Precision& precision :
             {Types(BF16, BF16, BF16, BF16), Types(FP8, FP8, FP8, FP8), Types(MXFP8, MXFP8, MXFP8, FP8),
              Types(NVFP4, BF16, NVFP4, FP8), Types(MXFP4, BF16, BF16, BF16)}) {
          SCOPED_TRACE(std::string(model_file.name) + " on " + std::string(platform_file.name) + " " +
                       precision.ShortDebugString());
          *config.mutable_precision() = precision;
          const auto costs = NewCostModel(config, model, gpu, times);
          const NumberType experts = precision.expert_weights();
          if (IsEightBit(experts) && gpu.fp8().empty()) {
            EXPECT_NE(costs.status().message().find("no fp8 units"), absl::string_view::npos) << costs.status();
            continue;
          }
          if (experts == NVFP4 && gpu.fp4().empty()) {
            EXPECT_NE(costs.status().message().find("no fp4 units"), absl::string_view::npos) << costs.status();
            continue;
          }
          ASSERT_TRUE(costs.ok()) << costs.status();
          const AttentionLoad decode = {.tokens = 16,
                                        .sequences = 16,
                                        .decode_tokens = 16,
                                        .attended_tokens = 16'000,
                                        .context_tokens = 16'000,
                                        .output_tokens = 16};
          const CostModel& model_costs = **costs;
          if (StepExecutor* executor = model_costs.executor(); executor != nullptr) {
            const std::vector<int32_t> slots = {1, 0, 5};
            const std::vector<int64_t> router_tokens = {16};
            const absl::Status status =
                executor->Execute({.layers = 1,
                                   .pieces = 1,
                                   .ranks = 1,
                                   .tokens_per_slot = [&](int, int) -> absl::Span<const int32_t> { return slots; },
                                   .router_tokens = router_tokens},
                                  {});
            ASSERT_TRUE(status.ok()) << status;
            EXPECT_EQ(model_costs.RoutedExperts({1, 0, 5}).source, CostSource::kReplay);
            EXPECT_EQ(model_costs.RoutedExperts({2, 0, 5}).source, CostSource::kExtended);
            EXPECT_EQ(model_costs.Router(16).source, CostSource::kReplay);
          }
          const Duration second = std::chrono::seconds(1), zero{};
          EXPECT_GT(model_costs.Attention(decode).time, model_costs.Attention({}).time);
          EXPECT_LT(model_costs.Attention(decode).time, second);
          EXPECT_GT(model_costs.Router(16).time, model_costs.Router(0).time);
          EXPECT_GT(model_costs.Router(0).time, zero);
          EXPECT_GT(model_costs.LmHead(16).time, model_costs.LmHead(0).time);
          EXPECT_GT(model_costs.RoutedExperts({1, 0, 5}).time, model_costs.RoutedExperts({0, 0, 0}).time);
          EXPECT_GT(model_costs.RoutedExperts({0, 0, 0}).time, zero);
          // A scale of 1 is none; with twice the scale an expert takes twice as long beyond the floors, as each of the
          // times has been rounded up.
          const Duration floor = model_costs.RoutedExperts({0, 0, 0}).time,
                         once = model_costs.RoutedExperts({1, 0, 5}).time;
          EXPECT_EQ(model_costs.RoutedExperts({1, 0, 5}, {1, 1, 1}).time, once);
          EXPECT_NEAR(1.0 * (model_costs.RoutedExperts({1, 0, 5}, {2, 2, 2}).time - floor).count(),
                      2.0 * (once - floor).count(), 2);
          EXPECT_GT(model_costs.RoutedExperts({1, 0, 5}, {1, 1, 2}).time, once);
          EXPECT_EQ(model_costs.RoutedExperts({1, 0, 5}, {1, 2, 1}).time, once);
          EXPECT_EQ(model_costs.SharedExperts(16).time > zero, model.shared_experts() > 0);
          EXPECT_EQ(model_costs.DenseMlp(16).time > zero, model.moe_layers() < model.layers());
          // No rank that is as fast as the GPU stays below the bound.
          EXPECT_LE(model_costs.LeastExperts(2, 6, 1).time, once);
          // The same question has the same answer.
          EXPECT_EQ(model_costs.Attention(decode).time, model_costs.Attention(decode).time);
          ++checked;
        }
      }
    }
  }
  EXPECT_GE(checked, 3 * 19 * 9 * 2);
}

TEST(CostSourceTest, EverySourceHasAName) {
  EXPECT_EQ(Name(CostSource::kRoofline), "roofline");
  EXPECT_EQ(Name(CostSource::kMeasured), "measured");
  EXPECT_EQ(Name(CostSource::kReplay), "replay");
  EXPECT_EQ(Name(CostSource::kNetwork), "network");
  EXPECT_EQ(Name(CostSource::kGiven), "given");
  EXPECT_EQ(Name(CostSource::kExtended), "extended");
}

}  // namespace
}  // namespace epsim
