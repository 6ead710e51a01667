// Does every cost model keep the promises of cost_model.h?  Every alternative of CostConfig.model, for every model on
// every platform of the catalogues and every precision that the GPU can compute.
#include <string>
#include <vector>

#include "engine/text_proto.h"
#include "gtest/gtest.h"
#include "models/catalogue.h"
#include "models/costs/cost_model.h"
#include "models/number_type.h"
#include "platforms/cluster.h"

namespace epsim {
namespace {

// A config for each alternative of the oneof, with its defaults.
std::vector<CostConfig> EveryCostModel() {
  std::vector<CostConfig> configs;
  const google::protobuf::OneofDescriptor* models = CostConfig::descriptor()->FindOneofByName("model");
  for (int i = 0; i < models->field_count(); ++i) {
    CostConfig config;
    config.GetReflection()->MutableMessage(&config, models->field(i));
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
  ASSERT_FALSE(EveryCostModel().empty());
  int64_t checked = 0;
  for (CostConfig config : EveryCostModel()) {
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
          const auto costs = NewCostModel(config, model, gpu);
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
          // The same question has the same answer.
          EXPECT_EQ(model_costs.Attention(decode).time, model_costs.Attention(decode).time);
          ++checked;
        }
      }
    }
  }
  EXPECT_GE(checked, 19 * 9 * 2);
}

TEST(CostSourceTest, EverySourceHasAName) {
  EXPECT_EQ(Name(CostSource::kRoofline), "roofline");
  EXPECT_EQ(Name(CostSource::kMeasured), "measured");
  EXPECT_EQ(Name(CostSource::kReplay), "replay");
  EXPECT_EQ(Name(CostSource::kNetwork), "network");
}

}  // namespace
}  // namespace epsim
