// Measured kernels as cases: what is predicted of them, and what is refused.
#include <string>

#include "experiments/accuracy/case_model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/costs/roofline_kernel.h"
#include "models/timing/library_timing.h"
#include "platforms/cluster.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;

Case MakeCase(const std::string& kind, const std::string& fields, const std::string& platform = "h800-sxm",
              const std::string& library = "deep_gemm") {
  Case result;
  result.place = "cases.jsonl:1";
  result.id = "one";
  result.kind = kind;
  result.platform = platform;
  result.library = library;
  result.metric = "time_us";
  result.measured = 1;
  result.fields = nlohmann::json::parse("{" + fields + "}");
  return result;
}

double Predict(const Case& measured, const LibraryTiming* timing = nullptr) {
  const auto model = NewCaseModel(measured);
  EXPECT_TRUE(model.ok()) << model.status();
  if (!model.ok()) return 0;
  const auto predicted = (*model)->Predict(timing);
  EXPECT_TRUE(predicted.ok()) << predicted.status();
  return predicted.value_or(0);
}

// On an H800 (3.35 TB/s, 1,979 TFLOP/s) at full rates, without floors, starts and loads: memory takes
// 7,168 * 4,096 B of weights with a scale each 128 x 128, and 64 tokens of 7,168 values with one each 128 in and 4,096
// values out; the 512 tiles of 8 columns, at the finest 256 of 16, are two waves of 132 SMs.
LibraryTiming Ideal() {
  LibraryTiming timing;
  GemmTiming* gemm = timing.mutable_deep_gemm();
  gemm->set_memory_efficiency(1);
  gemm->set_compute_efficiency(1);
  gemm->set_floor("2 us");
  gemm->set_grouped_floor("5 us");
  gemm->set_tile_start("0 us");
  gemm->set_sm_bandwidth("900000 TB/s");
  gemm->set_tile_tokens(64);
  gemm->set_widest_tile(32);
  return timing;
}

constexpr char kDense[] = R"("m": 64, "n": 4096, "k": 7168, "dtype": "fp8_block")";

TEST(DenseGemmCaseTest, IsAFloorMemoryAndWavesOfTiles) {
  const double bytes = 4096.0 * 7168 + 4.0 * 32 * 56 + 64 * (7168 + 4 * 56 + 2.0 * 4096);
  const double memory = bytes / 3.35e6;
  // 128 tiles of 32 columns are the first wave that holds all.
  const double peak = FindPlatform("h800-sxm")->gpu().fp8() == "1979 TFLOP/s" ? 1979e6 : 1978e6;  // Operations a us.
  const double tiles = 2.0 * 64 * 32 * 7168 / (peak / 132);
  const LibraryTiming timing = Ideal();
  EXPECT_NEAR(Predict(MakeCase("dense_gemm", kDense), &timing), 2 + std::sqrt(memory * memory + tiles * tiles), 1e-3);
}

// Four groups of 64 tokens with a spread of half: 32 to 96 tokens are 33 with one tile and 32 with two.
TEST(GroupedGemmCaseTest, CountsTheExpectedTiles) {
  const LibraryTiming timing = Ideal();
  const std::string shape = R"("groups": 4, "tokens_per_group": 64, "n": 4096, "k": 7168, "dtype": "fp8_block",
                               "layout": "masked", "tokens_spread": )";
  const GpuSpec gpu = FindPlatform("h800-sxm")->gpu();
  RooflineConfig config;
  *config.mutable_gemm() = timing.deep_gemm();
  const GpuRates rates = *MakeGpuRates(*CompleteRooflineConfig(config, gpu, nullptr), gpu);
  const GroupedGemm gemm(rates, 4096, 7168, FP8, FP8);
  const auto expected = [&](double tiles) { return (gemm.floor() + gemm.BeyondFloor(4, 256, tiles, tiles)) / 1e6; };
  EXPECT_NEAR(Predict(MakeCase("grouped_gemm", shape + "0"), &timing), expected(4), 1e-9);
  EXPECT_NEAR(Predict(MakeCase("grouped_gemm", shape + "0.5"), &timing), expected(4 * 97 / 65.0), 1e-9);
  EXPECT_GT(expected(4 * 97 / 65.0), expected(4));
}

std::string Layer(const std::string& rest) {
  return R"("experts": 256, "top_k": 8, "hidden": 7168, "inter": 2048, "dtype": "fp8_block", )" + rest;
}

TEST(ExpertLayerCaseTest, KnowsHowBalancedTheLayerIs) {
  const auto balancedness = [](const std::string& rest) {
    const Case measured = MakeCase("moe_layer", Layer(rest), "h200-sxm", "sglang_deep_gemm");
    return NewCaseModel(measured).value()->balancedness().value();
  };
  const std::string setup = R"("ep": 32, "slots": 256, "global_tokens": 4096, "mode": "generation", )";
  EXPECT_EQ(balancedness(setup + R"("distribution": "uniform")"), 1);
  const double uneven = balancedness(setup + R"("distribution": "power_law", "alpha": 0.8)");
  const double skewed = balancedness(setup + R"("distribution": "power_law", "alpha": 1.2)");
  EXPECT_LT(skewed, uneven);
  EXPECT_LT(uneven, 0.8);
  // EPLB moves experts; with 32 more slots it copies them.
  const double moved = balancedness(setup + R"("distribution": "power_law", "alpha": 1.2, "eplb_slots": 256)");
  EXPECT_GT(moved, skewed);
  const double copied = balancedness(
      R"("ep": 32, "slots": 288, "global_tokens": 4096, "mode": "wideep", "distribution": "power_law", "alpha": 1.2,
         "eplb_slots": 288)");
  EXPECT_GT(copied, moved);
}

TEST(ExpertLayerCaseTest, RowsThatComeByTokenArePermuted) {
  const std::string setup = R"("ep": 8, "slots": 256, "global_tokens": 8192, "distribution": "uniform", "mode": )";
  EXPECT_GT(Predict(MakeCase("moe_layer", Layer(setup + R"("context")"), "h200-sxm", "sglang_deep_gemm")),
            Predict(MakeCase("moe_layer", Layer(setup + R"("generation")"), "h200-sxm", "sglang_deep_gemm")) + 50);
}

TEST(LatentAttentionCaseTest, TheCoreIsPartOfTheBlock) {
  const std::string load = R"("heads": 128, "batch": 64, "kv_len": 4096, "kv_dtype": "bf16", "gemm_dtype": "bf16", )";
  EXPECT_GT(Predict(MakeCase("mla_decode", load + R"("scope": "attention_block")", "h800-sxm", "flash_mla")),
            Predict(MakeCase("mla_decode", load + R"("scope": "core")", "h800-sxm", "flash_mla")));
}

std::string Error(const Case& measured, absl::StatusCode code) {
  const auto model = NewCaseModel(measured);
  EXPECT_EQ(model.status().code(), code) << model.status();
  return std::string(model.status().message());
}

TEST(KernelCaseErrorTest, AWrongFileIsNamedWithPlaceAndValue) {
  constexpr auto kWrong = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(Error(MakeCase("dense_gemm", R"("m": 64, "n": 4096, "dtype": "bf16")"), kWrong),
            "cases.jsonl:1: k: missing");
  EXPECT_THAT(Error(MakeCase("dense_gemm", R"("m": 0, "n": 4096, "k": 64, "dtype": "bf16")"), kWrong),
              HasSubstr("cases.jsonl:1: m: 0 is not a whole number from 1"));
  EXPECT_THAT(Error(MakeCase("grouped_gemm", R"("groups": 2, "tokens_per_group": 8, "tokens_spread": 2)"), kWrong),
              HasSubstr("cases.jsonl:1: tokens_spread: 2 is not a number from 0 to 1"));
  EXPECT_EQ(Error(MakeCase("moe_layer", Layer(R"("ep": 32, "slots": 264, "global_tokens": 64, "mode": "generation",
                                                 "distribution": "uniform")")),
                  kWrong),
            "cases.jsonl:1: slots: 264 of 256 experts on 32 ranks cannot be placed");
  EXPECT_THAT(Error(MakeCase("mla_prefill", R"("scope": "attention_block", "heads": 1, "batch": 1, "isl": 1)"), kWrong),
              HasSubstr("isl: 1 is not a whole number from 2"));
}

TEST(KernelCaseErrorTest, WhatIsNotModelledSaysSo) {
  constexpr auto kUnknown = absl::StatusCode::kUnimplemented;
  EXPECT_THAT(Error(MakeCase("dense_gemm", kDense, "tpu-v5"), kUnknown), HasSubstr("tpu-v5"));
  EXPECT_EQ(Error(MakeCase("dense_gemm", R"("m": 64, "n": 4096, "k": 64, "dtype": "int4")"), kUnknown),
            "dtype \"int4\" is not modelled");
  EXPECT_EQ(Error(MakeCase("moe_layer", Layer(R"("ep": 32, "slots": 256, "global_tokens": 64, "mode": "generation",
                                                 "distribution": "zipf")")),
                  kUnknown),
            "distribution \"zipf\" is not modelled");
  Case measured = MakeCase("dense_gemm", kDense);
  measured.metric = "tflops";
  EXPECT_EQ(Error(measured, kUnknown), "metric tflops is not predicted");
}

}  // namespace
}  // namespace epsim
