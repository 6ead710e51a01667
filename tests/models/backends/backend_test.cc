// Question: does a backend refuse what it has no kernels for, with the reason and with what would do?
#include "models/backends/backend.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/catalogue.h"
#include "models/communication/communication.pb.h"
#include "models/costs/cost_model.h"
#include "platforms/cluster.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;

template <typename Message>
Message Parse(const std::string& text) {
  Message message;
  const absl::Status status = ParseTextProto(text, "test", &message);
  EXPECT_TRUE(status.ok()) << status;
  return message;
}

Backend Find(const std::string& name) {
  const auto backend = FindBackend(name);
  EXPECT_TRUE(backend.ok()) << backend.status();
  return *backend;
}

Precision Types(NumberType weights, NumberType activations) {
  CostConfig config;
  config.mutable_precision()->set_expert_weights(weights);
  config.mutable_precision()->set_expert_activations(activations);
  return CompleteCostConfig(config, FindPlatform("h100-sxm")->gpu())->precision();
}

GpuSpec Gpu(const char* platform) { return FindPlatform(platform)->gpu(); }

absl::Status Check(const char* backend, NumberType weights, NumberType activations, const char* platform,
                   const char* model = "deepseek-v3") {
  return CanImplement(Find(backend), Types(weights, activations), Gpu(platform), *FindModel(model));
}

std::string Reason(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  return std::string(status.message());
}

TEST(BackendCatalogueTest, EveryEntryIsWhole) {
  std::set<std::string> names, alternatives;
  const google::protobuf::OneofDescriptor* communications =
      CommunicationConfig::descriptor()->FindOneofByName("communication");
  for (int i = 0; i < communications->field_count(); ++i) alternatives.insert(communications->field(i)->name());
  for (const CatalogueFile& file : BackendCatalogue()) {
    SCOPED_TRACE(std::string(file.path));
    Backend backend;
    const absl::Status status = ParseTextProto(file.text, file.path, &backend);
    ASSERT_TRUE(status.ok()) << status;
    std::string stem = Name(backend);
    std::replace(stem.begin(), stem.end(), '/', '_');
    EXPECT_EQ(stem, file.name);
    EXPECT_TRUE(names.insert(Name(backend)).second);
    EXPECT_NE(backend.engine(), Backend::ENGINE_UNKNOWN);
    EXPECT_FALSE(backend.description().empty());
    EXPECT_GT(backend.schedule_size(), 0);
    EXPECT_EQ(file.text.substr(0, 2), "# ") << "its sources";
    for (const std::string& communication : backend.communication()) {
      EXPECT_TRUE(alternatives.contains(communication)) << communication;
    }
    ASSERT_GT(backend.quantisation_size(), 0);
    std::set<std::pair<int, int>> formats;
    for (const BackendQuantisation& quantisation : backend.quantisation()) {
      EXPECT_NE(quantisation.weights(), NUMBER_TYPE_DEFAULT);
      EXPECT_NE(quantisation.activations(), NUMBER_TYPE_DEFAULT);
      EXPECT_TRUE(formats.insert({quantisation.weights(), quantisation.activations()}).second);
      // What is sent before it is quantised is bf16.
      if (quantisation.activations() == BF16) {
        EXPECT_FALSE(quantisation.quantised_dispatch());
      }
      ASSERT_GT(quantisation.on_size(), 0);
      for (const ComputeCapabilities& range : quantisation.on()) {
        EXPECT_GE(range.least(), 80);
        EXPECT_TRUE(range.most() == 0 || range.most() >= range.least());
      }
    }
  }
  EXPECT_EQ(names.size(), 14);
}

TEST(FindBackendTest, ByEngineAndName) {
  const Backend backend = Find("tensorrt_llm/cutlass");
  EXPECT_EQ(backend.engine(), Backend::TENSORRT_LLM);
  EXPECT_EQ(backend.name(), "cutlass");
  EXPECT_EQ(Name(backend), "tensorrt_llm/cutlass");
}

TEST(FindBackendTest, AnUnknownNameListsTheNames) {
  const auto backend = FindBackend("cutlass");
  EXPECT_EQ(backend.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(backend.status().message()),
              HasSubstr("no backend \"cutlass\"; there are sglang/deep_gemm, sglang/flashinfer_cutedsl"));
}

TEST(CanImplementTest, WhatTheSourcesSay) {
  EXPECT_TRUE(Check("tensorrt_llm/cutlass", BF16, BF16, "a100-sxm").ok());
  EXPECT_TRUE(Check("tensorrt_llm/cutlass", FP8, FP8, "h200-sxm").ok());
  EXPECT_TRUE(Check("tensorrt_llm/cutlass", NVFP4, NVFP4, "gb200-nvl72").ok());
  EXPECT_TRUE(Check("tensorrt_llm/cutlass", NVFP4, NVFP4, "rtx-pro-6000").ok());
  EXPECT_TRUE(Check("tensorrt_llm/megamoe_deepgemm", MXFP4, MXFP8, "b200-sxm").ok());
  EXPECT_TRUE(Check("vllm/deep_gemm", FP8, FP8, "h800-sxm").ok());
  EXPECT_TRUE(Check("vllm/marlin", MXFP4, BF16, "a100-sxm", "gpt-oss-120b").ok());
  // Fp8 blocks have no CUTLASS kernel on 100, nvfp4 none below 100, DeepGEMM none on 89.
  EXPECT_FALSE(Check("tensorrt_llm/cutlass", FP8, FP8, "b200-sxm").ok());
  EXPECT_FALSE(Check("tensorrt_llm/cutlass", NVFP4, NVFP4, "h100-sxm").ok());
  EXPECT_FALSE(Check("vllm/deep_gemm", FP8, FP8, "l40s").ok());
}

TEST(CanImplementTest, AnotherGenerationIsNamedWithWhatWouldDo) {
  EXPECT_EQ(Reason(Check("tensorrt_llm/cutlass", NVFP4, NVFP4, "h100-sxm")),
            "backend tensorrt_llm/cutlass: runs NVFP4 weights with NVFP4 activations on compute capability 100 to 103 "
            "and 120 to 121; gpu \"NVIDIA H100 80 GB SXM\" has 90; with it, BF16 weights with BF16 activations or FP8 "
            "weights with FP8 activations or MXFP4 weights with BF16 activations would do");
  EXPECT_EQ(Reason(Check("tensorrt_llm/cutlass", FP8, FP8, "b200-sxm", "qwen3-30b-a3b")),
            "backend tensorrt_llm/cutlass: runs FP8 weights with FP8 activations on compute capability 90 and 120; gpu "
            "\"NVIDIA B200 180 GB SXM\" has 100; with it, BF16 weights with BF16 activations or NVFP4 weights with "
            "NVFP4 activations or MXFP4 weights with MXFP8 activations or MXFP8 weights with MXFP8 activations would "
            "do; for these formats, sglang/deep_gemm, sglang/flashinfer_trtllm, sglang/triton, tensorrt_llm/deepgemm, "
            "tensorrt_llm/trtllm_gen, vllm/deep_gemm, vllm/triton would do");
}

TEST(CanImplementTest, FormatsWithoutKernelsAreNamed) {
  EXPECT_EQ(
      Reason(Check("sglang/deep_gemm", BF16, BF16, "h100-sxm")),
      "backend sglang/deep_gemm: has no kernels for BF16 weights with BF16 activations; with it, FP8 weights with "
      "FP8 activations would do; for these formats, sglang/triton, tensorrt_llm/cutlass, "
      "vllm/flashinfer_cutlass, vllm/triton would do");
  EXPECT_EQ(
      Reason(Check("sglang/deep_gemm", NVFP4, NVFP4, "a100-sxm")),
      "backend sglang/deep_gemm: has no kernels for NVFP4 weights with NVFP4 activations; no backend runs these "
      "formats of this model on this gpu; BF16 weights with BF16 activations or FP8 weights with BF16 activations "
      "or MXFP4 weights with BF16 activations or NVFP4 weights with BF16 activations would do with others");
}

// gpt-oss: hidden 2,880 and 2,880 an expert, neither a multiple of 512 (5 x 512 = 2,560, 6 x 512 = 3,072).
TEST(CanImplementTest, SizesThatKernelsCannotTakeAreNamedWithTheNext) {
  EXPECT_THAT(Reason(Check("tensorrt_llm/megamoe_deepgemm", MXFP4, MXFP8, "b200-sxm", "gpt-oss-120b")),
              HasSubstr("model.hidden: 2880 is no multiple of 512; 2560 or 3072 would be; for these formats, "
                        "tensorrt_llm/cutlass, vllm/flashinfer_cutlass would do"));
  ModelSpec model = *FindModel("deepseek-v3");
  model.set_moe_intermediate(100);
  const Backend backend = Find("tensorrt_llm/megamoe_deepgemm");
  EXPECT_THAT(Reason(CanImplement(backend, Types(MXFP4, MXFP8), Gpu("b200-sxm"), model)),
              HasSubstr("model.moe_intermediate: 100 is no multiple of 512; 512 would be"));
}

TEST(CanImplementTest, LimitsOnExpertsAreNamed) {
  const Backend backend = Find("tensorrt_llm/trtllm_gen");
  ModelSpec model = *FindModel("deepseek-v3");
  const auto reason = [&] { return Reason(CanImplement(backend, Types(FP8, FP8), Gpu("b200-sxm"), model)); };
  model.set_experts(254);
  EXPECT_THAT(reason(), HasSubstr("model.experts: 254 is no multiple of 4; 252 or 256 would be"));
  model.set_experts(516);
  EXPECT_THAT(reason(), HasSubstr("model.experts: 516 is more than 512"));
  model.set_experts(512);
  model.set_top_k(11);
  EXPECT_THAT(reason(), HasSubstr("model.top_k: 11 is more than 10"));
  model.set_top_k(10);
  EXPECT_TRUE(CanImplement(backend, Types(FP8, FP8), Gpu("b200-sxm"), model).ok());
}

TEST(CanImplementTest, AModelThatNoBackendTakesHasNothingElse) {
  GpuSpec gpu = Gpu("a100-sxm");
  gpu.set_compute_capability(70);
  EXPECT_THAT(Reason(CanImplement(Find("vllm/triton"), Types(BF16, BF16), gpu, *FindModel("deepseek-v3"))),
              HasSubstr("on compute capability from 80 on; gpu \"NVIDIA A100 80 GB SXM\" has 70; no backend runs this "
                        "model on this gpu"));
}

TEST(CanImplementTest, AGpuOfUnknownGenerationIsNamed) {
  GpuSpec gpu = Gpu("h100-sxm");
  gpu.clear_compute_capability();
  EXPECT_EQ(Reason(CanImplement(Find("vllm/triton"), Types(FP8, FP8), gpu, *FindModel("deepseek-v3"))),
            "backend vllm/triton: gpu.compute_capability of \"NVIDIA H100 80 GB SXM\" is missing; kernels are chosen "
            "by it");
}

TEST(CanRebalanceTest, RefusesOnlyWhatIsKnownNotToWork) {
  const Backend trtllm = Find("tensorrt_llm/cutlass"), flashinfer = Find("vllm/flashinfer_cutlass");
  EXPECT_EQ(FindQuantisation(trtllm, Types(NVFP4, NVFP4))->eplb(), EPLB_SUPPORTED);
  EXPECT_EQ(FindQuantisation(trtllm, Types(FP8, FP8))->eplb(), EPLB_NOT_VERIFIED);
  EXPECT_TRUE(CanRebalance(trtllm, Types(NVFP4, NVFP4)).ok());
  EXPECT_TRUE(CanRebalance(trtllm, Types(FP8, FP8)).ok());
  EXPECT_EQ(Reason(CanRebalance(flashinfer, Types(NVFP4, NVFP4))),
            "backend vllm/flashinfer_cutlass: experts with NVFP4 weights with NVFP4 activations cannot be moved while "
            "serving; tensorrt_llm/cutedsl, tensorrt_llm/cutlass, tensorrt_llm/trtllm_gen would do");
  EXPECT_EQ(Reason(CanRebalance(Find("vllm/marlin"), Types(NVFP4, BF16))),
            "backend vllm/marlin: experts with NVFP4 weights with BF16 activations cannot be moved while serving; a "
            "static placement would do");
}

TEST(CanExchangeByTest, OnlyByWhatItWorksWith) {
  const Backend deep_gemm = Find("vllm/deep_gemm");
  EXPECT_TRUE(CanExchangeBy(deep_gemm, "deepep_normal").ok());
  EXPECT_TRUE(CanExchangeBy(deep_gemm, "all_to_all").ok());
  EXPECT_EQ(Reason(CanExchangeBy(deep_gemm, "nvlink_one_sided")),
            "backend vllm/deep_gemm: does not work with communication.nvlink_one_sided; deepep_normal, "
            "deepep_low_latency, allgather_reducescatter, all_reduce would do");
  EXPECT_TRUE(CanExchangeBy(Find("tensorrt_llm/cutlass"), "nvlink_one_sided").ok());
  EXPECT_EQ(Reason(CanExchangeBy(Find("tensorrt_llm/megamoe_cutedsl"), "nvlink_one_sided")),
            "backend tensorrt_llm/megamoe_cutedsl: does not work with communication.nvlink_one_sided; all_to_all would "
            "do");
}

TEST(CanBeScheduledTest, FusedByFusedKernelsOnly) {
  const auto external = Parse<ScheduleConfig>("external {}"), fused = Parse<ScheduleConfig>("fused {}");
  EXPECT_TRUE(CanBeScheduled(Find("vllm/triton"), external).ok());
  EXPECT_TRUE(CanBeScheduled(Find("vllm/triton"), ScheduleConfig()).ok());
  EXPECT_TRUE(CanBeScheduled(Find("tensorrt_llm/megamoe_deepgemm"), fused).ok());
  EXPECT_EQ(Reason(CanBeScheduled(Find("vllm/triton"), fused)),
            "backend vllm/triton: has no fused schedule; schedule.external would do, or tensorrt_llm/megamoe_cutedsl, "
            "tensorrt_llm/megamoe_deepgemm");
  EXPECT_THAT(Reason(CanBeScheduled(Find("tensorrt_llm/megamoe_deepgemm"), external)),
              HasSubstr("has no external schedule; schedule.fused would do, or sglang/deep_gemm"));
}

}  // namespace
}  // namespace epsim
