// An engine's options as an experiment's fields: the engine's defaults, each value that it takes, each that it does
// not.
#include "experiments/engine_options.h"

#include <string>

#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int kExperts = 256;

Experiment Parse(const std::string& text) {
  Experiment experiment;
  const absl::Status status = ParseTextProto(text, "a test", &experiment);
  EXPECT_TRUE(status.ok()) << status;
  return experiment;
}

// What `engine { text }` on 32 ranks becomes, without the options themselves.
std::string Applied(const std::string& text, const std::string& more = "") {
  Experiment experiment = Parse("ranks: 32 engine { " + text + " } " + more);
  const absl::Status status = ApplyEngineOptions(kExperts, &experiment);
  EXPECT_TRUE(status.ok()) << text << ": " << status;
  experiment.clear_engine();
  experiment.clear_ranks();
  return PrintTextProto(experiment);
}
std::string Fields(const std::string& text) { return PrintTextProto(Parse(text)); }

std::string Error(const std::string& text, const std::string& more = "") {
  Experiment experiment = Parse("ranks: 32 engine { " + text + " } " + more);
  const absl::Status status = ApplyEngineOptions(kExperts, &experiment);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(status.message());
}

TEST(EngineOptions, WithoutAnEngineNothingIsDecided) {
  Experiment experiment = Parse("ranks: 32 placement { eplb {} }");
  const std::string before = PrintTextProto(experiment);
  ASSERT_TRUE(ApplyEngineOptions(kExperts, &experiment).ok());
  EXPECT_EQ(PrintTextProto(experiment), before);
}

// --- SGLang ---

TEST(SglangOptions, WithoutEplbExpertsLieInOrder) {
  EXPECT_EQ(Applied("sglang {}"),
            Fields("placement { contiguous {} } redundant_slots_per_rank: 0 replica_choice { static_nearest {} }"));
}

// A rebalance every 1000 steps on the last 1000, of all layers at once; statistics by slot, anew after each plan.
TEST(SglangOptions, EplbHasSglangsDefaults) {
  EXPECT_EQ(Applied("sglang { enable_eplb: true }"),
            Fields(R"(placement { eplb { mode: AUTO } } redundant_slots_per_rank: 0 replica_choice { static_nearest {} }
                      planning { cold {} }
                      rebalance { blocking {} interval_steps: 1000
                        statistics { window { steps: 1000 } attribution: AT_PLANNING cleared_by_planning: true } })"));
}

TEST(SglangOptions, EveryOptionHasItsField) {
  EXPECT_EQ(
      Applied(R"(sglang { enable_eplb: true ep_num_redundant_experts: 64 ep_dispatch_algorithm: "dynamic"
                   eplb_algorithm: "deepseek_hierarchical" eplb_rebalance_num_iterations: 500
                   eplb_rebalance_layers_per_chunk: 4 eplb_min_rebalancing_utilization_threshold: 0.9
                   expert_distribution_recorder_mode: "stat_approx" expert_distribution_recorder_buffer_size: 100
                   moe_a2a_backend: "deepep" deepep_mode: "low_latency" })"),
      Fields(R"(placement { eplb { mode: HIERARCHICAL } } redundant_slots_per_rank: 2 replica_choice { dynamic {} }
                planning { cold {} } communication { deepep_low_latency {} }
                rebalance { chunked { layers_per_chunk: 4 } interval_steps: 500 min_utilization_threshold: 0.9
                  statistics { window { steps: 100 } counts: ALIGNED attribution: AT_PLANNING
                    cleared_by_planning: true } })"));
}

TEST(SglangOptions, EveryAlgorithmIsAPlacement) {
  for (const auto& [algorithm, placement] : {std::pair{"auto", "eplb { mode: AUTO }"},
                                             {"deepseek", "eplb { mode: GLOBAL }"},
                                             {"deepseek_hierarchical", "eplb { mode: HIERARCHICAL }"},
                                             {"deepseek_vec", "eplb_vec { mode: GLOBAL }"},
                                             {"deepseek_vec_hierarchical", "eplb_vec { mode: HIERARCHICAL }"},
                                             {"elasticity_aware", "elasticity_aware {}"},
                                             {"compute_aware", "compute_aware {}"},
                                             {"compute_aware_hierarchical", "compute_aware_hierarchical {}"}}) {
    Experiment experiment =
        Parse(std::string("ranks: 32 engine { sglang { enable_eplb: true eplb_algorithm: \"") + algorithm + "\" } }");
    ASSERT_TRUE(ApplyEngineOptions(kExperts, &experiment).ok()) << algorithm;
    EXPECT_EQ(PrintTextProto(experiment.placement()),
              PrintTextProto(Parse(std::string("placement { ") + placement + " }").placement()));
  }
}

TEST(SglangOptions, DeepEpIsACommunication) {
  const std::string rest =
      "placement { contiguous {} } redundant_slots_per_rank: 0 replica_choice { static_nearest {} } ";
  for (const auto& [mode, communication] : {std::pair{"", "automatic { order: SGLANG }"},
                                            {"auto", "automatic { order: SGLANG }"},
                                            {"normal", "deepep_normal {}"},
                                            {"low_latency", "deepep_low_latency {}"}}) {
    EXPECT_EQ(Applied(std::string("sglang { moe_a2a_backend: \"deepep\" deepep_mode: \"") + mode + "\" }"),
              Fields(rest + "communication { " + communication + " }"));
  }
  // Without a backend it stays as the experiment says.
  EXPECT_EQ(Applied("sglang { moe_a2a_backend: \"none\" }", "communication { all_reduce {} }"),
            Fields(rest + "communication { all_reduce {} }"));
}

TEST(SglangOptions, RefusesWhatSglangDoesNotTake) {
  EXPECT_EQ(Error(R"(sglang { ep_dispatch_algorithm: "fastest" })"),
            "engine.sglang.ep_dispatch_algorithm: \"fastest\" is not one of static, dynamic");
  EXPECT_EQ(Error(R"(sglang { moe_a2a_backend: "mooncake" })"),
            "engine.sglang.moe_a2a_backend: \"mooncake\" is not one of none, deepep");
  EXPECT_EQ(Error(R"(sglang { moe_a2a_backend: "deepep" deepep_mode: "high" })"),
            "engine.sglang.deepep_mode: \"high\" is not one of auto, normal, low_latency");
  EXPECT_EQ(Error(R"(sglang { enable_eplb: true eplb_algorithm: "best" })"),
            "engine.sglang.eplb_algorithm: \"best\" is not one of auto, deepseek, deepseek_hierarchical, deepseek_vec, "
            "deepseek_vec_hierarchical, elasticity_aware, compute_aware, compute_aware_hierarchical");
  EXPECT_EQ(Error(R"(sglang { enable_eplb: true expert_distribution_recorder_mode: "per_token" })"),
            "engine.sglang.expert_distribution_recorder_mode: \"per_token\" is not one of stat, stat_approx");
  // As sglang asserts.
  EXPECT_EQ(Error(R"(sglang { enable_eplb: true expert_distribution_recorder_buffer_size: 1001 })"),
            "engine.sglang.expert_distribution_recorder_buffer_size: 1001 is more than eplb_rebalance_num_iterations, "
            "1000");
}

// --- vLLM ---

TEST(VllmOptions, WithoutEplbExpertsLieAsTheStrategySays) {
  EXPECT_EQ(Applied("vllm {}"),
            Fields("placement { contiguous {} } redundant_slots_per_rank: 0 replica_choice { dynamic {} }"));
  EXPECT_EQ(Applied("vllm { expert_placement_strategy: \"linear\" }"), Applied("vllm {}"));
  EXPECT_EQ(Applied("vllm { expert_placement_strategy: \"round_robin\" }"),
            Fields("placement { round_robin {} } redundant_slots_per_rank: 0 replica_choice { dynamic {} }"));
}

// A rebalance every 3000 steps, the first after 750, on the last 1000; layer by layer beside serving.
TEST(VllmOptions, EplbHasVllmsDefaults) {
  EXPECT_EQ(Applied("vllm { enable_eplb: true }"),
            Fields(R"(placement { vllm {} } redundant_slots_per_rank: 0 replica_choice { dynamic {} }
                      planning { cold {} }
                      rebalance { async_layer {} interval_steps: 3000 first_after_steps: 750
                        statistics { window { steps: 1000 } attribution: AT_PLANNING } })"));
}

TEST(VllmOptions, EveryOptionHasItsField) {
  EXPECT_EQ(Applied(R"(vllm { enable_eplb: true all2all_backend: "deepep_low_latency"
                         eplb_config { window_size: 100 step_interval: 201 num_redundant_experts: 32 use_async: false
                           policy: "flashlb" } })"),
            Fields(R"(placement { flashlb {} } redundant_slots_per_rank: 1 replica_choice { dynamic {} }
                      planning { cold {} } communication { deepep_low_latency {} }
                      rebalance { blocking {} interval_steps: 201 first_after_steps: 50
                        statistics { window { steps: 100 } attribution: AT_PLANNING } })"));
  for (const auto& [policy, placement] :
       {std::pair{"default", "vllm {}"}, {"random", "random {}"}, {"swift", "swift {}"}, {"flashlb", "flashlb {}"}}) {
    EXPECT_THAT(Applied(std::string("vllm { enable_eplb: true eplb_config { policy: \"") + policy + "\" } }"),
                HasSubstr(PrintTextProto(Parse(std::string("placement { ") + placement + " }"))));
  }
}

TEST(VllmOptions, EveryBackendIsACommunication) {
  for (const auto& [backend, communication] : {std::pair{"deepep_high_throughput", "deepep_normal {}"},
                                               {"deepep_low_latency", "deepep_low_latency {}"},
                                               {"allgather_reducescatter", "allgather_reducescatter {}"},
                                               {"flashinfer_nvlink_one_sided", "nvlink_one_sided {}"},
                                               {"flashinfer_nvlink_two_sided", "nvlink_two_sided {}"}}) {
    EXPECT_EQ(
        Applied(std::string("vllm { all2all_backend: \"") + backend + "\" }"),
        Fields(std::string("placement { contiguous {} } redundant_slots_per_rank: 0 replica_choice { dynamic {} } "
                           "communication { ") +
               communication + " }"));
  }
}

TEST(VllmOptions, RefusesWhatVllmDoesNotTake) {
  EXPECT_EQ(Error(R"(vllm { expert_placement_strategy: "random" })"),
            "engine.vllm.expert_placement_strategy: \"random\" is not one of linear, round_robin");
  EXPECT_EQ(Error(R"(vllm { enable_eplb: true eplb_config { policy: "eplb" } })"),
            "engine.vllm.eplb_config.policy: \"eplb\" is not one of default, random, swift, flashlb");
  EXPECT_EQ(Error(R"(vllm { all2all_backend: "pplx" })"),
            "engine.vllm.all2all_backend: \"pplx\" is not one of deepep_high_throughput, deepep_low_latency, "
            "allgather_reducescatter, flashinfer_nvlink_one_sided, flashinfer_nvlink_two_sided");
}

// --- TensorRT-LLM ---

TEST(TensorrtLlmOptions, PlacesOnPastLoadAndLeavesItSo) {
  EXPECT_EQ(Applied("tensorrt_llm {}"),
            Fields("placement { trtllm {} } redundant_slots_per_rank: 0 replica_choice { round_robin {} }"));
  EXPECT_EQ(Applied("tensorrt_llm { num_slots: 288 }"),
            Fields("placement { trtllm {} } redundant_slots_per_rank: 1 replica_choice { round_robin {} }"));
}

TEST(TensorrtLlmOptions, UpdatesLayersOnline) {
  EXPECT_EQ(Applied("tensorrt_llm { num_slots: 288 layer_updates_per_iter: 2 }"),
            Fields(R"(placement { trtllm {} } redundant_slots_per_rank: 1 replica_choice { round_robin {} }
                      planning { cold {} }
                      rebalance { online { layer_updates_per_iter: 2 }
                        statistics { decay {} cleared_by_planning: true } })"));
}

// --- All ---

// 256 experts and 10 more on 32 ranks: 9 slots a rank are 288, 32 of them redundant.
TEST(EngineOptions, RefusesSlotsThatTheRanksDoNotDivide) {
  EXPECT_EQ(Error("sglang { ep_num_redundant_experts: 10 }"),
            "engine.sglang.ep_num_redundant_experts: 266 slots for 256 experts on 32 ranks; 288 slots, 32 of them "
            "redundant, would fit");
  EXPECT_EQ(Error("vllm { eplb_config { num_redundant_experts: 33 } }"),
            "engine.vllm.eplb_config.num_redundant_experts: 289 slots for 256 experts on 32 ranks; 320 slots, 64 of "
            "them redundant, would fit");
  EXPECT_EQ(Error("tensorrt_llm { num_slots: 224 }"),
            "engine.tensorrt_llm.num_slots: 224 slots for 256 experts on 32 ranks; 256 slots, 0 of them redundant, "
            "would fit");
  EXPECT_EQ(Error("tensorrt_llm { num_slots: 257 }"),
            "engine.tensorrt_llm.num_slots: 257 slots for 256 experts on 32 ranks; 288 slots, 32 of them redundant, "
            "would fit");
}

// 250 experts on 32 ranks: 8 slots a rank are the least, so 6 of SGLang's redundant experts are needed, and are no slot
// beyond.
TEST(EngineOptions, RedundantExpertsFillUpTheRanks) {
  Experiment experiment = Parse("ranks: 32 engine { sglang { ep_num_redundant_experts: 6 } }");
  ASSERT_TRUE(ApplyEngineOptions(250, &experiment).ok());
  EXPECT_EQ(experiment.redundant_slots_per_rank(), 0u);
  experiment = Parse("ranks: 32 engine { sglang { ep_num_redundant_experts: 38 } }");
  ASSERT_TRUE(ApplyEngineOptions(250, &experiment).ok());
  EXPECT_EQ(experiment.redundant_slots_per_rank(), 1u);
  experiment = Parse("ranks: 32 engine { sglang {} }");
  EXPECT_THAT(std::string(ApplyEngineOptions(250, &experiment).message()),
              HasSubstr("250 slots for 250 experts on 32 ranks; 256 slots, 6 of them redundant, would fit"));
}

TEST(EngineOptions, RefusesFieldsThatTheOptionsDecide) {
  for (const char* engine : {"sglang {}", "vllm {}", "tensorrt_llm {}"}) {
    for (const auto& [field, set] : {std::pair{"placement", "placement { eplb {} }"},
                                     {"redundant_slots_per_rank", "redundant_slots_per_rank: 0"},
                                     {"replica_choice", "replica_choice { dynamic {} }"},
                                     {"rebalance", "rebalance { blocking {} }"}}) {
      EXPECT_THAT(Error(engine, set), AllOf(HasSubstr("the engine's options decide `" + std::string(field) + "`"),
                                            HasSubstr("one of the two would do")));
    }
    EXPECT_THAT(Error(engine, "planning { cold {} }"), HasSubstr("without planning.plan it would do"));
    Experiment fraction = Parse(std::string("ranks: 32 engine { ") + engine + " } planning { fraction: 0.5 }");
    EXPECT_TRUE(ApplyEngineOptions(kExperts, &fraction).ok()) << "how many steps are scored is not the engine's";
  }
}

TEST(EngineOptions, CommunicationConflictsOnlyWithABackend) {
  const std::string set = "communication { all_reduce {} }";
  EXPECT_THAT(Error("sglang { moe_a2a_backend: \"deepep\" }", set), HasSubstr("decide `communication`"));
  EXPECT_THAT(Error("vllm { all2all_backend: \"deepep_low_latency\" }", set), HasSubstr("decide `communication`"));
  EXPECT_THAT(Applied("vllm {}", set), HasSubstr("all_reduce"));
  EXPECT_THAT(Applied("tensorrt_llm {}", set), HasSubstr("all_reduce"));
}

}  // namespace
}  // namespace epsim
