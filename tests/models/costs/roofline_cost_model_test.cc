// The other stages in closed form on the GPU and model of round_numbers.h, and what does not go together.
#include "models/costs/roofline_cost_model.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/costs/cost_view.h"
#include "tests/models/costs/round_numbers.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;

const std::vector<int32_t> kHistogram = {3, 0, 17};  // Two active slots, 20 pairs, 16 + 32 rows.

int64_t Experts(const std::string& precision, const std::vector<int32_t>& tokens, const GpuSpec& gpu = RoundGpu()) {
  return RoundCosts(RoundConfig(precision), RoundModel(), gpu)->RoutedExperts(tokens).time.count();
}

// [128, 256] twice is 131,072 B, [256, 128] 65,536 B.
//   gate and up  2 * 131,072 + 20 * (512 + 512) = 282,624; 48 * 4 * 256 * 128 / 1024 = 6,144 behind it
//   SwiGLU       20 * (512 + 256) = 15,360
//   down         2 * 65,536 + 20 * (256 + 512) = 146,432
// with floors of 3 + 1 + 3 us.
TEST(RooflineRoutedExpertsTest, ReadsTheWeightsOfActiveSlots) {
  EXPECT_EQ(Experts("", kHistogram), 7'000'000 + 282'624 + 15'360 + 146'432);
}

// At 1 ps an operation, 48 rows take 48 * 4 * 256 * 128 = 6,291,456 and half of that.
TEST(RooflineRoutedExpertsTest, ComputesWholeTiles) {
  GpuSpec slow = RoundGpu();
  slow.set_bf16("1 TFLOP/s");
  EXPECT_EQ(Experts("", kHistogram, slow), 7'000'000 + 6'291'456 + 15'360 + 3'145'728);
  // A tile is full at 16 tokens and a new one begins at 17: 16 rows more, and the SwiGLU of a token.
  EXPECT_EQ(Experts("", {17}, slow) - Experts("", {16}, slow), 16 * 6 * 256 * 128 + 768);
  EXPECT_EQ(Experts("", {16}, slow) - Experts("", {15}, slow), 768);
}

// Weights 2 * (32,768 + 4 * 2) and 32,768 + 4 * 2, rows in of 256 + 8 and 128 + 4.
TEST(RooflineRoutedExpertsTest, Fp8CarriesItsScales) {
  EXPECT_EQ(Experts("expert_weights: FP8", kHistogram),
            7'000'000 + (2 * 65'552 + 20 * 776) + 20 * 644 + (2 * 32'776 + 20 * 644));
}

// 4.25 bits a weight, activations as in bf16.
TEST(RooflineRoutedExpertsTest, Mxfp4ReadsLessButComputesInBf16) {
  EXPECT_EQ(Experts("expert_weights: MXFP4", kHistogram),
            7'000'000 + (2 * 34'816 + 20 * 1'024) + 15'360 + (2 * 17'408 + 20 * 768));
  GpuSpec slow = RoundGpu();
  slow.set_bf16("1 TFLOP/s");
  EXPECT_EQ(Experts("expert_weights: MXFP4", kHistogram, slow), Experts("", kHistogram, slow));
}

// With activations in fp4 it computes at the fp4 peak: 48 rows at 1 ps an operation; rows in of 136 and 68 B.
TEST(RooflineRoutedExpertsTest, Mxfp4ActivationsUseTheFp4Units) {
  GpuSpec slow = RoundGpu();
  slow.set_fp4("1 TFLOP/s");
  EXPECT_EQ(Experts("expert_weights: MXFP4 expert_activations: MXFP4", kHistogram, slow),
            7'000'000 + 6'291'456 + 20 * (512 + 68) + 3'145'728);
}

// Weights 2 * (32,768 + 128 * 8) and 32,768 + 256 * 4, rows in of 256 + 8 and 128 + 4: the fp8 units at 1 ps an
// operation hide the bytes.
TEST(RooflineRoutedExpertsTest, Mxfp8UsesTheFp8Units) {
  EXPECT_EQ(Experts("expert_weights: MXFP8", kHistogram),
            7'000'000 + (2 * 67'584 + 20 * 776) + 20 * 644 + (2 * 33'792 + 20 * 644));
  GpuSpec slow = RoundGpu();
  slow.set_fp8("1 TFLOP/s");
  EXPECT_EQ(Experts("expert_weights: MXFP8", kHistogram, slow), 7'000'000 + 6'291'456 + 20 * 644 + 3'145'728);
}

// NVFP4 weights take NVFP4 activations: rows in of 128 + 16 and 64 + 8 B, 4.5 bits a weight.
TEST(RooflineRoutedExpertsTest, Nvfp4UsesTheFp4Units) {
  EXPECT_EQ(Experts("expert_weights: NVFP4", kHistogram),
            7'000'000 + (2 * 2 * 128 * 144 + 20 * (144 + 512)) + 20 * (512 + 72) + (2 * 256 * 72 + 20 * (72 + 512)));
  GpuSpec slow = RoundGpu();
  slow.set_fp4("1 TFLOP/s");
  EXPECT_EQ(Experts("expert_weights: NVFP4", kHistogram, slow), 7'000'000 + 6'291'456 + 20 * (512 + 72) + 3'145'728);
}

// Four-bit weights with eight-bit activations are computed in the wider of the two.
TEST(RooflineRoutedExpertsTest, Mxfp4WithMxfp8UsesTheFp8Units) {
  GpuSpec slow = RoundGpu();
  slow.set_fp8("1 TFLOP/s");
  EXPECT_EQ(Experts("expert_weights: MXFP4 expert_activations: MXFP8", kHistogram, slow),
            7'000'000 + 6'291'456 + 20 * 644 + 3'145'728);
}

int64_t Scaled(const std::vector<int32_t>& tokens, const std::vector<double>& scale, const GpuSpec& gpu = RoundGpu()) {
  return RoundCosts(RoundConfig(), RoundModel(), gpu)->RoutedExperts(tokens, scale).time.count();
}

// Slots of scale 2 and 0.5 with 3 and 17 tokens: active 2.5, pairs 2 * 3 + 0.5 * 17 = 14.5.
TEST(RooflineRoutedExpertsTest, AScaleCountsWeightsAndActivations) {
  EXPECT_EQ(Scaled(kHistogram, {2, 100, 0.5}),
            7'000'000 + (5 * 131'072 / 2 + 29 * 512) + 29 * 384 + (5 * 65'536 / 2 + 29 * 384));
}

// Rows 2 * 16 + 0.5 * 32 = 48, at 1 ps an operation; the SwiGLU is of 14.5 pairs.
TEST(RooflineRoutedExpertsTest, AScaleCountsRows) {
  GpuSpec slow = RoundGpu();
  slow.set_bf16("1 TFLOP/s");
  EXPECT_EQ(Scaled(kHistogram, {2, 100, 0.5}, slow), 7'000'000 + 6'291'456 + 29 * 384 + 3'145'728);
}

TEST(RooflineRoutedExpertsTest, ScalesOfSlotsWithoutTokensAndOfOneDoNotMatter) {
  EXPECT_EQ(Scaled(kHistogram, {1, 1, 1}), Experts("", kHistogram));
  EXPECT_EQ(Scaled(kHistogram, {1, 7, 1}), Experts("", kHistogram));
  EXPECT_EQ(Scaled({0, 0}, {3, 4}), 7'000'000);
}

TEST(RooflineRoutedExpertsDeathTest, EverySlotHasAScale) {
  EXPECT_DEATH(RoundCosts()->RoutedExperts({1, 2, 3}, {1, 1}), "scale.size");
}

TEST(CompleteCostConfigTest, FillsInWhatGoesWithTheWeights) {
  const auto complete = [](const std::string& precision) {
    return CompleteCostConfig(Parse<CostConfig>("precision { " + precision + " }"))->precision();
  };
  EXPECT_EQ(complete("").expert_activations(), BF16);
  EXPECT_EQ(complete("").combine(), BF16);
  EXPECT_EQ(complete("").dispatch(), BF16);
  EXPECT_EQ(complete("expert_weights: FP8").expert_activations(), FP8);
  EXPECT_EQ(complete("expert_weights: MXFP8").expert_activations(), MXFP8);
  EXPECT_EQ(complete("expert_weights: NVFP4").expert_activations(), NVFP4);
  EXPECT_EQ(complete("expert_weights: MXFP4").expert_activations(), BF16);
  EXPECT_EQ(complete("expert_weights: MXFP4 expert_activations: MXFP8").expert_activations(), MXFP8);
  EXPECT_EQ(complete("combine: FP8").combine(), FP8);
}

TEST(RooflineRoutedExpertsTest, NoTokensCostTheFloors) {
  EXPECT_EQ(Experts("", {0, 0, 0}), 7'000'000);
  EXPECT_EQ(Experts("", {}), 7'000'000);
}

// norm 2 * 2,048; gate [8, 256] 4,096 + 2 * (512 + 16); top-k 2 * 32; three kernels.
TEST(RooflineStagesTest, Router) { EXPECT_EQ(RoundCosts()->Router(2).time.count(), 3'009'312); }

// [1024, 256] 524,288 + 2 * (512 + 2,048); SwiGLU 2 * 3,072; [256, 512] 262,144 + 2 * (1,024 + 512).
TEST(RooflineStagesTest, SharedExpertsAndDenseMlp) {
  EXPECT_EQ(RoundCosts()->SharedExperts(2).time.count(), 3'800'768);
  // The same and a norm.
  EXPECT_EQ(RoundCosts()->DenseMlp(2).time.count(), 3'800'768 + 1'000'000 + 4'096);
}

// In fp8 each GEMM is preceded by the kernel that quantises its input: 2 * (512 + 264) and 2 * (1,024 + 528).
//   [1024, 256] 262,144 + 4 * 16 + 2 * (264 + 2,048); 6,144; [256, 512] 131,072 + 4 * 8 + 2 * (528 + 512)
TEST(RooflineStagesTest, Fp8QuantisesItsInputs) {
  EXPECT_EQ(RoundCosts(RoundConfig("other_weights: FP8"))->SharedExperts(2).time.count(), 5'410'816);
}

// norm 2 * 1,024; [1024, 256] 524,288 + 2 * (512 + 2,048).
TEST(RooflineStagesTest, Head) { EXPECT_EQ(RoundCosts()->LmHead(2).time.count(), 2'531'456); }

TEST(RooflineStagesTest, NoTokensCostTheFloors) {
  EXPECT_EQ(RoundCosts()->Router(0).time.count(), 3'000'000);
  EXPECT_EQ(RoundCosts()->SharedExperts(0).time.count(), 3'000'000);
  EXPECT_EQ(RoundCosts()->DenseMlp(0).time.count(), 4'000'000);
  EXPECT_EQ(RoundCosts()->LmHead(0).time.count(), 2'000'000);
}

TEST(RooflineStagesTest, WhatAModelLacksCostsNothing) {
  ModelSpec model = RoundModel();
  model.set_moe_layers(4);
  model.clear_dense_intermediate();
  model.clear_shared_experts();
  model.clear_shared_intermediate();
  const auto costs = RoundCosts(RoundConfig(), model);
  EXPECT_EQ(costs->SharedExperts(100).time.count(), 0);
  EXPECT_EQ(costs->DenseMlp(100).time.count(), 0);
}

// Half the efficiency doubles the bytes' time: 2 * 9,312.
TEST(RooflineStagesTest, EfficienciesScaleThePeaks) {
  CostConfig config = RoundConfig();
  config.mutable_roofline()->set_memory_efficiency(0.5);
  EXPECT_EQ(RoundCosts(config)->Router(2).time.count(), 3'018'624);
}

// A picosecond begun is a picosecond: three tokens are 6,144 + 4,096 + 1,584 + 96 = 11,920 B, 3,973.33 ps at 3 TB/s.
TEST(RooflineStagesTest, IsRoundedUpOnce) {
  GpuSpec gpu = RoundGpu();
  gpu.set_memory_bandwidth("3 TB/s");
  EXPECT_EQ(RoundCosts(RoundConfig(), RoundModel(), gpu)->Router(3).time.count(), 3'003'974);
}

TEST(ModelCostViewTest, IsTheTimeOfTheRoutedExperts) {
  const auto costs = RoundCosts();
  EXPECT_EQ(ModelCostView(*costs).ExpertTime(Layer{0}, {}, kHistogram), costs->RoutedExperts(kHistogram).time);
}

std::string Error(const CostConfig& config, const ModelSpec& model, const GpuSpec& gpu) {
  const auto costs = NewCostModel(config, model, gpu);
  EXPECT_EQ(costs.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(costs.status().message());
}

TEST(RooflineErrorTest, AGpuWithoutTheUnitsSaysWhatWouldDo) {
  GpuSpec ampere = RoundGpu();
  ampere.set_name("A100");
  ampere.clear_fp8();
  ampere.clear_fp4();
  const auto error = [&](const std::string& precision) { return Error(RoundConfig(precision), RoundModel(), ampere); };
  EXPECT_EQ(error("expert_weights: FP8"),
            "precision.expert_weights: FP8, but gpu \"A100\" has no fp8 units; BF16, or FP8 with expert_activations "
            "BF16, would do");
  EXPECT_EQ(error("other_weights: FP8"),
            "precision.other_weights: FP8, but gpu \"A100\" has no fp8 units; BF16 would do");
  EXPECT_EQ(error("dispatch: FP8"), "precision.dispatch: FP8, but gpu \"A100\" has no fp8 units; BF16 would do");
  EXPECT_EQ(error("expert_weights: MXFP8"),
            "precision.expert_weights: MXFP8, but gpu \"A100\" has no fp8 units; BF16, or FP8 with expert_activations "
            "BF16, would do");
  EXPECT_EQ(error("other_weights: MXFP8"),
            "precision.other_weights: MXFP8, but gpu \"A100\" has no fp8 units; BF16 would do");
  EXPECT_EQ(error("expert_weights: NVFP4"),
            "precision.expert_activations: NVFP4, but gpu \"A100\" has no fp4 units; BF16 would do");
  EXPECT_EQ(error("dispatch: NVFP4"), "precision.dispatch: NVFP4, but gpu \"A100\" has no fp4 units; BF16 would do");
  EXPECT_EQ(error("dispatch: MXFP4"), "precision.dispatch: MXFP4, but gpu \"A100\" has no fp4 units; BF16 would do");
  EXPECT_EQ(error("expert_weights: MXFP4 expert_activations: MXFP4"),
            "precision.expert_activations: MXFP4, but gpu \"A100\" has no fp4 units; BF16 would do");
  // Narrow weights need no units: they are computed in bf16.
  EXPECT_TRUE(NewCostModel(RoundConfig("expert_weights: MXFP4 kv_cache: FP8"), RoundModel(), ampere).ok());
  EXPECT_TRUE(NewCostModel(RoundConfig("expert_weights: FP8 expert_activations: BF16"), RoundModel(), ampere).ok());
}

TEST(RooflineErrorTest, ActivationsAreNotNarrowerThanWeights) {
  EXPECT_EQ(Error(RoundConfig("expert_activations: FP8"), RoundModel(), RoundGpu()),
            "precision.expert_activations: FP8 with expert_weights BF16; BF16 would do");
  EXPECT_EQ(Error(RoundConfig("expert_weights: FP8 expert_activations: MXFP4"), RoundModel(), RoundGpu()),
            "precision.expert_activations: MXFP4 with expert_weights FP8; FP8 or BF16 would do");
  EXPECT_EQ(Error(RoundConfig("kv_cache: MXFP4"), RoundModel(), RoundGpu()),
            "precision.kv_cache: MXFP4 is no cache format; BF16 or FP8 would do");
  EXPECT_EQ(Error(RoundConfig("kv_cache: MXFP8"), RoundModel(), RoundGpu()),
            "precision.kv_cache: MXFP8 is no cache format; BF16 or FP8 would do");
}

TEST(RooflineErrorTest, ValuesOutOfRange) {
  const auto error = [&](const std::string& roofline) {
    return Error(Parse<CostConfig>("roofline { " + roofline + " }"), RoundModel(), RoundGpu());
  };
  EXPECT_EQ(error("memory_efficiency: 1.5"), "roofline.memory_efficiency is 1.5; it must be from 0.001 to 1");
  EXPECT_EQ(error("compute_efficiency: -1"), "roofline.compute_efficiency is -1; it must be from 0.001 to 1");
  EXPECT_EQ(error("memory_efficiency: nan"), "roofline.memory_efficiency is nan; it must be from 0.001 to 1");
  EXPECT_EQ(error("memory_efficiency: 1e-300"), "roofline.memory_efficiency is 1e-300; it must be from 0.001 to 1");
  EXPECT_EQ(error("compute_efficiency: 9e-4"), "roofline.compute_efficiency is 0.0009; it must be from 0.001 to 1");
  EXPECT_EQ(error("kernel_floor: \"100 s\""), "roofline.kernel_floor: \"100 s\" is not from 0 to 1 s");
  EXPECT_EQ(error("grouped_gemm_floor: \"1.1 s\""), "roofline.grouped_gemm_floor: \"1.1 s\" is not from 0 to 1 s");
  EXPECT_EQ(error("mla_decode_floor: \"8000000 s\""), "roofline.mla_decode_floor: \"8000000 s\" is not from 0 to 1 s");
  EXPECT_EQ(error("tile_tokens: 48"), "roofline.tile_tokens is 48; it must be a power of two up to 1024");
  CostConfig config = RoundConfig();
  config.mutable_roofline()->set_kernel_floor("2.5");
  EXPECT_THAT(Error(config, RoundModel(), RoundGpu()), HasSubstr("roofline.kernel_floor: \"2.5\" has no unit"));
  GpuSpec gpu = RoundGpu();
  gpu.clear_memory_bandwidth();
  EXPECT_THAT(Error(RoundConfig(), RoundModel(), gpu), HasSubstr("gpu \"Round\": memory_bandwidth: "));
  gpu = RoundGpu();
  gpu.clear_bf16();
  EXPECT_EQ(Error(RoundConfig(), RoundModel(), gpu), "gpu \"Round\": bf16 is missing; attention needs it");
  ModelSpec model = RoundModel();
  model.set_top_k(9);
  EXPECT_THAT(Error(RoundConfig(), model, RoundGpu()), HasSubstr("top_k is 9; experts is only 8"));
}

TEST(CompleteCostConfigTest, FillsInEveryDefaultAndKeepsWhatIsSet) {
  const CostConfig config = *CompleteCostConfig(Parse<CostConfig>(R"(precision { expert_weights: FP8 })"));
  ASSERT_EQ(config.model_case(), CostConfig::kRoofline);
  EXPECT_EQ(config.roofline().memory_efficiency(), 0.84);
  EXPECT_EQ(config.roofline().compute_efficiency(), 0.65);
  EXPECT_EQ(config.roofline().kernel_floor(), "2.5 us");
  EXPECT_EQ(config.roofline().tile_tokens(), 64u);
  EXPECT_EQ(config.roofline().grouped_gemm_floor(), "10 us");
  EXPECT_EQ(config.roofline().mla_decode_floor(), "15 us");
  EXPECT_EQ(config.precision().expert_activations(), FP8);
  EXPECT_EQ(config.precision().other_weights(), BF16);
  EXPECT_EQ(config.precision().dispatch(), BF16);
  EXPECT_EQ(config.precision().kv_cache(), BF16);
  EXPECT_EQ(PrintTextProto(*CompleteCostConfig(config)), PrintTextProto(config));
  EXPECT_EQ(PrintTextProto(*CompleteCostConfig(RoundConfig("expert_weights: MXFP4"))),
            PrintTextProto(RoundConfig("expert_weights: MXFP4 expert_activations: BF16 other_weights: BF16 "
                                       "dispatch: BF16 kv_cache: BF16 combine: BF16")));
}

}  // namespace
}  // namespace epsim
