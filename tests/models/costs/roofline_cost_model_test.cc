// The other stages in closed form on the GPU and model of round_numbers.h, and what does not go together.
#include "models/costs/roofline_cost_model.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/costs/cost_view.h"
#include "models/timing/library_timing.h"
#include "tests/models/costs/round_numbers.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::vector<int32_t> kHistogram = {3, 0, 17};  // Two active slots, 20 pairs, 16 + 32 rows.

int64_t Experts(const std::string& precision, const std::vector<int32_t>& tokens, const GpuSpec& gpu = RoundGpu()) {
  return RoundCosts(RoundConfig(precision), RoundModel(), gpu)->RoutedExperts(tokens).time.count();
}

// [128, 256] twice is 131,072 B, [256, 128] 65,536 B.
//   gate and up  2 * 131,072 + 20 * (512 + 512) = 282,624
//   SwiGLU       20 * (512 + 256) = 15,360
//   down         2 * 65,536 + 20 * (256 + 512) = 146,432
// with floors of 3 + 1 + 3 us.
TEST(RooflineRoutedExpertsTest, ReadsTheWeightsOfActiveSlots) {
  EXPECT_NEAR(Experts("", kHistogram), 7'000'000 + 282'624 + 15'360 + 146'432, 1);
}

// At 1 ps an operation, 48 rows take 48 * 4 * 256 * 128 = 6,291,456 and half of that, beside memory.
constexpr double kGateUpOperations = 6'291'456, kDownOperations = 3'145'728;

// Floors, gate and up, SwiGLU and down of the histogram above with these bytes, where operations take 1 ps.
double Slow(double gate_up, double swiglu, double down) {
  return std::ceil(7'000'000 + Both(gate_up, kGateUpOperations) + swiglu + Both(down, kDownOperations));
}

TEST(RooflineRoutedExpertsTest, ComputesWholeTiles) {
  GpuSpec slow = RoundGpu();
  slow.set_bf16("1 TFLOP/s");
  EXPECT_NEAR(Experts("", kHistogram, slow), Slow(282'624, 15'360, 146'432), 1);
  // Memory so fast that operations alone take time: a tile is full at 16 tokens and a new one begins at 17.
  slow.set_memory_bandwidth("900000 TB/s");
  EXPECT_NEAR(Experts("", {17}, slow) - Experts("", {16}, slow), 16 * 6 * 256 * 128, 1);
  EXPECT_NEAR(Experts("", {16}, slow) - Experts("", {15}, slow), 0, 1);
}

// 4 SMs work on tiles of 128 columns, at 1 ps an operation of the whole GPU: 4 * 2 * 16 * 128 * 256 = 4,194,304 each in
// gate and up.  One row of tiles has two of them, two rows have four: both are one wave.  Narrower tiles do better: at
// 64 columns one row has four of half the time, so that a wave is full.
TEST(RooflineRoutedExpertsTest, ComputesInWaves) {
  GpuSpec gpu = RoundGpu();
  gpu.set_sms(4);
  gpu.set_bf16("1 TFLOP/s");
  gpu.set_memory_bandwidth("900000 TB/s");
  const auto beyond_floors = [&](const std::vector<int32_t>& tokens) { return Experts("", tokens, gpu) - 7'000'000; };
  // Gate and up [256, 256] and down [256, 128].
  EXPECT_NEAR(beyond_floors({1}), 2'097'152 + 1'048'576, 2);
  EXPECT_NEAR(beyond_floors({1, 16}), 4'194'304 + 2'097'152, 2);
  // Three rows: six tiles of 128 columns are two waves, 24 of 32 columns six of a quarter: 6,291,456.
  EXPECT_NEAR(beyond_floors({1, 16, 1}), 6'291'456 + 3'145'728, 2);
  EXPECT_NEAR(beyond_floors({33}), 6'291'456 + 3'145'728, 2);
}

// An SM loads 1 byte a ps: a tile of w columns takes (w + 16) * 256 * 2 ps and 1 us to start, so that the widest, of
// 128, is the best: two of them, one after the other.
TEST(RooflineRoutedExpertsTest, AnSmLoadsItsOperands) {
  CostConfig config = RoundConfig();
  config.mutable_roofline()->mutable_gemm()->set_sm_bandwidth("1 TB/s");
  config.mutable_roofline()->mutable_gemm()->set_tile_start("1 us");
  GpuSpec gpu = RoundGpu();
  gpu.set_memory_bandwidth("900000 TB/s");
  const int64_t gate_up = 2 * (1'000'000 + (128 + 16) * 256 * 2), down = 2 * (1'000'000 + (128 + 16) * 128 * 2);
  EXPECT_NEAR(RoundCosts(config, RoundModel(), gpu)->RoutedExperts({5}).time.count(), 7'000'000 + gate_up + down, 1);
}

// Weights 2 * (32,768 + 4 * 2) and 32,768 + 4 * 2, rows in of 256 + 8 and 128 + 4.
TEST(RooflineRoutedExpertsTest, Fp8CarriesItsScales) {
  EXPECT_NEAR(Experts("expert_weights: FP8", kHistogram),
              7'000'000 + (2 * 65'552 + 20 * 776) + 20 * 644 + (2 * 32'776 + 20 * 644), 1);
}

// 4.25 bits a weight, activations as in bf16.
TEST(RooflineRoutedExpertsTest, Mxfp4ReadsLessButComputesInBf16) {
  EXPECT_NEAR(Experts("expert_weights: MXFP4", kHistogram),
              7'000'000 + (2 * 34'816 + 20 * 1'024) + 15'360 + (2 * 17'408 + 20 * 768), 1);
  GpuSpec slow = RoundGpu();
  slow.set_bf16("1 TFLOP/s");
  EXPECT_NEAR(Experts("expert_weights: MXFP4", kHistogram, slow),
              Slow(2 * 34'816 + 20 * 1'024, 15'360, 2 * 17'408 + 20 * 768), 1);
}

// With activations in fp4 it computes at the fp4 peak: 48 rows at 1 ps an operation; rows in of 136 and 68 B.
TEST(RooflineRoutedExpertsTest, Mxfp4ActivationsUseTheFp4Units) {
  GpuSpec slow = RoundGpu();
  slow.set_fp4("1 TFLOP/s");
  EXPECT_NEAR(Experts("expert_weights: MXFP4 expert_activations: MXFP4", kHistogram, slow),
              Slow(2 * 34'816 + 20 * (136 + 512), 20 * (512 + 68), 2 * 17'408 + 20 * (68 + 512)), 1);
}

// Weights 2 * (32,768 + 128 * 8) and 32,768 + 256 * 4, rows in of 256 + 8 and 128 + 4.
TEST(RooflineRoutedExpertsTest, Mxfp8UsesTheFp8Units) {
  EXPECT_NEAR(Experts("expert_weights: MXFP8", kHistogram),
              7'000'000 + (2 * 67'584 + 20 * 776) + 20 * 644 + (2 * 33'792 + 20 * 644), 1);
  GpuSpec slow = RoundGpu();
  slow.set_fp8("1 TFLOP/s");
  EXPECT_NEAR(Experts("expert_weights: MXFP8", kHistogram, slow),
              Slow(2 * 67'584 + 20 * 776, 20 * 644, 2 * 33'792 + 20 * 644), 1);
}

// NVFP4 weights take NVFP4 activations: rows in of 128 + 16 and 64 + 8 B, 4.5 bits a weight.
TEST(RooflineRoutedExpertsTest, Nvfp4UsesTheFp4Units) {
  EXPECT_NEAR(Experts("expert_weights: NVFP4", kHistogram),
              7'000'000 + (2 * 2 * 128 * 144 + 20 * (144 + 512)) + 20 * (512 + 72) + (2 * 256 * 72 + 20 * (72 + 512)),
              1);
  GpuSpec slow = RoundGpu();
  slow.set_fp4("1 TFLOP/s");
  EXPECT_NEAR(Experts("expert_weights: NVFP4", kHistogram, slow),
              Slow(2 * 2 * 128 * 144 + 20 * (144 + 512), 20 * (512 + 72), 2 * 256 * 72 + 20 * (72 + 512)), 1);
}

// Four-bit weights with eight-bit activations are computed in the wider of the two.
TEST(RooflineRoutedExpertsTest, Mxfp4WithMxfp8UsesTheFp8Units) {
  GpuSpec slow = RoundGpu();
  slow.set_fp8("1 TFLOP/s");
  EXPECT_NEAR(Experts("expert_weights: MXFP4 expert_activations: MXFP8", kHistogram, slow),
              Slow(2 * 34'816 + 20 * 776, 20 * 644, 2 * 17'408 + 20 * 644), 1);
}

int64_t Scaled(const std::vector<int32_t>& tokens, const std::vector<double>& scale, const GpuSpec& gpu = RoundGpu()) {
  return RoundCosts(RoundConfig(), RoundModel(), gpu)->RoutedExperts(tokens, scale).time.count();
}

// Slots of scale 2 and 0.5 with 3 and 17 tokens: active 2.5, pairs 2 * 3 + 0.5 * 17 = 14.5.
TEST(RooflineRoutedExpertsTest, AScaleCountsWeightsAndActivations) {
  EXPECT_NEAR(Scaled(kHistogram, {2, 100, 0.5}),
              7'000'000 + (5 * 131'072 / 2 + 29 * 512) + 29 * 384 + (5 * 65'536 / 2 + 29 * 384), 1);
}

// Rows 2 * 16 + 0.5 * 32 = 48, at 1 ps an operation; the SwiGLU is of 14.5 pairs.
TEST(RooflineRoutedExpertsTest, AScaleCountsRows) {
  GpuSpec slow = RoundGpu();
  slow.set_bf16("1 TFLOP/s");
  EXPECT_NEAR(Scaled(kHistogram, {2, 100, 0.5}, slow),
              Slow(5 * 131'072 / 2 + 29 * 512, 29 * 384, 5 * 65'536 / 2 + 29 * 384), 1);
}

TEST(RooflineRoutedExpertsTest, ScalesOfSlotsWithoutTokensAndOfOneDoNotMatter) {
  EXPECT_NEAR(Scaled(kHistogram, {1, 1, 1}), Experts("", kHistogram), 1);
  EXPECT_NEAR(Scaled(kHistogram, {1, 7, 1}), Experts("", kHistogram), 1);
  EXPECT_NEAR(Scaled({0, 0}, {3, 4}), 7'000'000, 1);
}

// 20 rows of 512 B there, read and written, and back, and two kernels; by Triton the rows are read where they are.
TEST(RooflineRoutedExpertsTest, RowsMayBePermuted) {
  const auto beyond = [](const std::string& roofline) {
    CostConfig config = RoundConfig();
    EXPECT_TRUE(roofline.empty() || SetField(roofline, config.mutable_roofline()).ok());
    const Duration without = RoundCosts(config)->RoutedExperts(kHistogram).time;
    config.set_permutation(true);
    const auto costs = RoundCosts(config);
    EXPECT_GE(costs->RoutedExperts(kHistogram).time, costs->LeastExperts(2, 20, 1).time);
    return (costs->RoutedExperts(kHistogram).time - without).count();
  };
  EXPECT_EQ(beyond(""), 2'000'000 + 2 * 2 * 20 * 512);
  EXPECT_EQ(beyond("gemm_library=TRITON"), 1'000'000 + 2 * 20 * 512);
}

TEST(RooflineRoutedExpertsDeathTest, EverySlotHasAScale) {
  EXPECT_DEATH(RoundCosts()->RoutedExperts({1, 2, 3}, {1, 1}), "scale.size");
}

TEST(CompleteCostConfigTest, FillsInWhatGoesWithTheWeights) {
  const auto complete = [](const std::string& precision) {
    return CompleteCostConfig(Parse<CostConfig>("precision { " + precision + " }"), RoundGpu())->precision();
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
  EXPECT_NEAR(Experts("", {0, 0, 0}), 7'000'000, 1);
  EXPECT_NEAR(Experts("", {}), 7'000'000, 1);
}

// norm 2 * 2,048; gate [8, 256] 4,096 + 2 * (512 + 16); top-k 2 * 32; three kernels.
TEST(RooflineStagesTest, Router) { EXPECT_NEAR(RoundCosts()->Router(2).time.count(), 3'009'312, 1); }

// [1024, 256] 524,288 + 2 * (512 + 2,048); SwiGLU 2 * 3,072; [256, 512] 262,144 + 2 * (1,024 + 512).
TEST(RooflineStagesTest, SharedExpertsAndDenseMlp) {
  EXPECT_NEAR(RoundCosts()->SharedExperts(2).time.count(), 3'800'768, 1);
  // The same and a norm.
  EXPECT_NEAR(RoundCosts()->DenseMlp(2).time.count(), 3'800'768 + 1'000'000 + 4'096, 1);
}

// In fp8 each GEMM is preceded by the kernel that quantises its input: 2 * (512 + 264) and 2 * (1,024 + 528).
//   [1024, 256] 262,144 + 4 * 16 + 2 * (264 + 2,048); 6,144; [256, 512] 131,072 + 4 * 8 + 2 * (528 + 512)
TEST(RooflineStagesTest, Fp8QuantisesItsInputs) {
  EXPECT_NEAR(RoundCosts(RoundConfig("other_weights: FP8"))->SharedExperts(2).time.count(), 5'410'816, 1);
}

// norm 2 * 1,024; [1024, 256] 524,288 + 2 * (512 + 2,048).
TEST(RooflineStagesTest, Head) { EXPECT_NEAR(RoundCosts()->LmHead(2).time.count(), 2'531'456, 1); }

TEST(RooflineStagesTest, NoTokensCostTheFloors) {
  EXPECT_NEAR(RoundCosts()->Router(0).time.count(), 3'000'000, 1);
  EXPECT_NEAR(RoundCosts()->SharedExperts(0).time.count(), 3'000'000, 1);
  EXPECT_NEAR(RoundCosts()->DenseMlp(0).time.count(), 4'000'000, 1);
  EXPECT_NEAR(RoundCosts()->LmHead(0).time.count(), 2'000'000, 1);
}

TEST(RooflineStagesTest, WhatAModelLacksCostsNothing) {
  ModelSpec model = RoundModel();
  model.set_moe_layers(4);
  model.clear_dense_intermediate();
  model.clear_shared_experts();
  model.clear_shared_intermediate();
  const auto costs = RoundCosts(RoundConfig(), model);
  EXPECT_NEAR(costs->SharedExperts(100).time.count(), 0, 1);
  EXPECT_NEAR(costs->DenseMlp(100).time.count(), 0, 1);
}

// Half the efficiency doubles the bytes' time: 2 * 9,312.
TEST(RooflineStagesTest, EfficienciesScaleThePeaks) {
  CostConfig config = RoundConfig();
  config.mutable_roofline()->mutable_gemm()->set_memory_efficiency(0.5);
  EXPECT_NEAR(RoundCosts(config)->Router(2).time.count(), 3'018'624, 1);
}

// A picosecond begun is a picosecond: three tokens are 6,144 + 4,096 + 1,584 + 96 = 11,920 B, 3,973.33 ps at 3 TB/s.
TEST(RooflineStagesTest, IsRoundedUpOnce) {
  GpuSpec gpu = RoundGpu();
  gpu.set_memory_bandwidth("3 TB/s");
  EXPECT_NEAR(RoundCosts(RoundConfig(), RoundModel(), gpu)->Router(3).time.count(), 3'003'974, 1);
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
  EXPECT_EQ(error("gemm { memory_efficiency: 1.5 }"), "roofline.gemm.memory_efficiency: 1.5 is not in [0.001, 1]");
  EXPECT_EQ(error("gemm { compute_efficiency: -1 }"), "roofline.gemm.compute_efficiency: -1 is not in [0.001, 1]");
  EXPECT_EQ(error("gemm { memory_efficiency: nan }"), "roofline.gemm.memory_efficiency: nan is not in [0.001, 1]");
  EXPECT_EQ(error("gemm { memory_efficiency: 1e-300 }"),
            "roofline.gemm.memory_efficiency: 1e-300 is not in [0.001, 1]");
  EXPECT_EQ(error("gemm { floor: \"100 s\" }"), "roofline.gemm.floor: \"100 s\" is not from 0 to 1 s");
  EXPECT_EQ(error("gemm { sm_bandwidth: \"1 B/s\" }"),
            "roofline.gemm.sm_bandwidth: \"1 B/s\" is not from 1 MB/s to 1 EB/s");
  EXPECT_EQ(error("gemm { tile_tokens: 2000 }"), "roofline.gemm.tile_tokens: 2000 is not in 1..1024");
  EXPECT_EQ(error("attention { decode_floor: \"8000000 s\" }"),
            "roofline.attention.decode_floor: \"8000000 s\" is not from 0 to 1 s");
  CostConfig config = RoundConfig();
  config.mutable_roofline()->mutable_gemm()->set_floor("2.5");
  EXPECT_THAT(Error(config, RoundModel(), RoundGpu()), HasSubstr("roofline.gemm.floor: \"2.5\" has no unit"));
  GpuSpec gpu = RoundGpu();
  gpu.clear_memory_bandwidth();
  EXPECT_THAT(Error(RoundConfig(), RoundModel(), gpu), HasSubstr("gpu \"Round\": memory_bandwidth: "));
  gpu = RoundGpu();
  gpu.clear_bf16();
  EXPECT_EQ(Error(RoundConfig(), RoundModel(), gpu), "gpu \"Round\": bf16 is missing; attention needs it");
  gpu = RoundGpu();
  gpu.clear_sms();
  EXPECT_EQ(Error(RoundConfig(), RoundModel(), gpu),
            "gpu \"Round\": sms is missing; GEMMs work in waves of as many tiles");
  ModelSpec model = RoundModel();
  model.set_top_k(9);
  EXPECT_THAT(Error(RoundConfig(), model, RoundGpu()), HasSubstr("top_k is 9; experts is only 8"));
}

TEST(CompleteCostConfigTest, FillsInEveryDefaultAndKeepsWhatIsSet) {
  GpuSpec hopper = RoundGpu();
  hopper.set_compute_capability(90);
  const CostConfig config = *CompleteCostConfig(Parse<CostConfig>(R"(precision { expert_weights: FP8 })"), hopper);
  ASSERT_EQ(config.model_case(), CostConfig::kRoofline);
  EXPECT_EQ(PrintTextProto(config.roofline().gemm()), PrintTextProto(FindTiming("deep_gemm", "hopper")->deep_gemm()));
  EXPECT_EQ(PrintTextProto(config.roofline().attention()),
            PrintTextProto(FindTiming("flash_attention", "hopper")->flash_attention()));
  const CostConfig triton =
      *CompleteCostConfig(Parse<CostConfig>("roofline { gemm_library: TRITON gemm { floor: \"3 us\" } }"), hopper);
  EXPECT_EQ(triton.roofline().gemm().memory_efficiency(), FindTiming("triton", "hopper")->triton().memory_efficiency());
  EXPECT_EQ(triton.roofline().gemm().floor(), "3 us");
  EXPECT_EQ(config.precision().expert_activations(), FP8);
  EXPECT_EQ(config.precision().other_weights(), BF16);
  EXPECT_EQ(config.precision().dispatch(), BF16);
  EXPECT_EQ(config.precision().kv_cache(), BF16);
  EXPECT_EQ(PrintTextProto(*CompleteCostConfig(config, hopper)), PrintTextProto(config));
  EXPECT_EQ(PrintTextProto(*CompleteCostConfig(RoundConfig("expert_weights: MXFP4"), hopper)),
            PrintTextProto(RoundConfig("expert_weights: MXFP4 expert_activations: BF16 other_weights: BF16 "
                                       "dispatch: BF16 kv_cache: BF16 combine: BF16")));
}

TEST(RooflineNotesTest, SayOnWhichGpuNothingWasMeasured) {
  GpuSpec gpu = RoundGpu();
  gpu.set_compute_capability(90);
  EXPECT_THAT(RoundCosts(CostConfig(), RoundModel(), gpu)->notes(), IsEmpty());
  gpu.set_compute_capability(80);
  EXPECT_THAT(RoundCosts(CostConfig(), RoundModel(), gpu)->notes(),
              ElementsAre("flash_attention: no measurement on compute capability 80; times and efficiencies of compute "
                          "capability 90 are assumed",
                          "deep_gemm: no measurement on compute capability 80; times and efficiencies of compute "
                          "capability 90 are assumed"));
  EXPECT_THAT(RoundCosts(RoundConfig(), RoundModel(), gpu)->notes(), IsEmpty());
}

}  // namespace
}  // namespace epsim
