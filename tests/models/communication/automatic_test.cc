#include "models/communication/automatic.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/models/communication/site.h"

namespace epsim {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

std::string Chosen(const Site& site, const std::string& config = "automatic {}") {
  const auto communication = site.Make(config);
  EXPECT_TRUE(communication.ok()) << communication.status();
  return (*communication)->name();
}

PlatformSpec WithoutNvlink() {
  PlatformSpec platform = *FindPlatform("l40s");
  return platform;
}

TEST(Automatic, TensorRtLlmTakesTheFirstThatIsFeasible) {
  EXPECT_EQ(Chosen(Site(8, 8, 2048, 64, 8)), "nvlink_one_sided");
  EXPECT_EQ(Chosen(Site(8, 8, 2048, 64, 9)), "nvlink_two_sided");         // Top 9.
  EXPECT_EQ(Chosen(Site(16, 8, 2048, 64, 8)), "deepep_normal");           // Two domains.
  EXPECT_EQ(Chosen(Site(8, 4, 2048, 64, 8)), "deepep_low_latency");       // Two nodes of 4.
  EXPECT_EQ(Chosen(Site(8, 4, 2880, 64, 8)), "allgather_reducescatter");  // And a hidden size without kernels.
  EXPECT_EQ(Chosen(Site(WithoutNvlink(), 8, 2048, 64, 8)), "allgather_reducescatter");
}

TEST(Automatic, TensorRtLlmGathersWhereRanksDoNotDivideExperts) {
  EXPECT_EQ(Chosen(Site(8, 8, 2048, 60, 8)), "nvlink_one_sided");
  EXPECT_EQ(Chosen(Site(8, 8, 2048, 60, 9)), "allgather_reducescatter");
  EXPECT_EQ(Chosen(Site(16, 8, 2048, 60, 8)), "allgather_reducescatter");
}

TEST(Automatic, NotesSayWhatWasPassedOver) {
  const auto communication = Site(16, 8, 2048, 64, 8).Make("automatic {}");
  EXPECT_THAT((*communication)->notes(),
              Contains(HasSubstr("passed over communication.nvlink_one_sided: 16 ranks lie in 2 NVLink domains")));
  EXPECT_THAT((*communication)->notes(), Contains(HasSubstr("NCCL EP is not modelled")));
}

// DeepEP takes quantised tokens from TensorRT-LLM only in NVFP4.
TEST(Automatic, TensorRtLlmQuantisesAfterDeepEpNormal) {
  EXPECT_FALSE((*Site(16, 8, 2048, 64, 8, FP8).Make("automatic {}"))->footprint().quantised_dispatch);
  EXPECT_TRUE((*Site(16, 8, 2048, 64, 8, NVFP4).Make("automatic {}"))->footprint().quantised_dispatch);
}

TEST(Automatic, TensorRtLlmFallsBackForTheRestOfTheRun) {
  const auto communication = Site(16, 8, 2048, 64, 8).Make("automatic {}");
  EXPECT_TRUE((*communication)->Admit({.max_tokens_per_rank = 8, .chunks = 1}).ok());
  EXPECT_EQ((*communication)->name(), "deepep_normal");
  EXPECT_TRUE((*communication)->Admit({.max_tokens_per_rank = 8, .chunks = 2}).ok());
  EXPECT_EQ((*communication)->name(), "allgather_reducescatter");
  EXPECT_THAT((*communication)->notes(),
              Contains(HasSubstr("deepep_normal gave way to allgather_reducescatter for the rest of the run: "
                                 "communication.deepep_normal: 2 chunks a layer")));
  EXPECT_TRUE((*communication)->Admit({.max_tokens_per_rank = 8, .chunks = 1}).ok());
  EXPECT_EQ((*communication)->name(), "allgather_reducescatter");
}

// The buffers of low latency take the setup's 64 tokens, or as many as the config says.
TEST(Automatic, TensorRtLlmLimitsTheTokensOfLowLatency) {
  const Site site(8, 4, 2048, 64, 8);
  const auto communication = site.Make("automatic {}");
  EXPECT_TRUE((*communication)->Admit({.max_tokens_per_rank = 64}).ok());
  EXPECT_EQ((*communication)->name(), "deepep_low_latency");
  EXPECT_TRUE((*communication)->Admit({.max_tokens_per_rank = 65}).ok());
  EXPECT_EQ((*communication)->name(), "allgather_reducescatter");
  const auto limited = site.Make("automatic { max_tokens_per_rank: 10 }");
  EXPECT_TRUE((*limited)->Admit({.max_tokens_per_rank = 11}).ok());
  EXPECT_EQ((*limited)->name(), "allgather_reducescatter");
}

TEST(Automatic, SglangChoosesByPhase) {
  const Site site(8, 8, 2048, 64, 8);
  const auto communication = site.Make("automatic { order: SGLANG }");
  ASSERT_TRUE(communication.ok()) << communication.status();
  EXPECT_TRUE((*communication)->Admit({.max_tokens_per_rank = 128}).ok());
  EXPECT_EQ((*communication)->name(), "deepep_low_latency");
  EXPECT_EQ((*communication)->footprint().sms, 0);
  EXPECT_TRUE((*communication)->Admit({.max_tokens_per_rank = 129, .prefill = true}).ok());
  EXPECT_EQ((*communication)->name(), "deepep_normal");
  EXPECT_EQ((*communication)->footprint().sms, 24);
  EXPECT_TRUE((*communication)->Admit({.max_tokens_per_rank = 1}).ok());
  EXPECT_EQ((*communication)->name(), "deepep_low_latency");
  EXPECT_TRUE((*communication)->detail().pairs_between);
  EXPECT_THAT((*communication)->notes(), Not(Contains(HasSubstr("passed over"))));
  const auto buffers = [&](const char* config) { return (*site.Make(config))->footprint().buffers; };
  EXPECT_EQ((*communication)->footprint().buffers, buffers("deepep_low_latency {}") + buffers("deepep_normal {}"));
}

TEST(Automatic, SglangNeedsOneOfDeepEp) {
  EXPECT_EQ(Chosen(Site(8, 4, 2048, 64, 8), "automatic { order: SGLANG }"), "deepep_low_latency");
  EXPECT_THAT(Site(8, 4, 2880, 64, 8).Problem("automatic { order: SGLANG }"),
              ::testing::AllOf(HasSubstr("no strategy is feasible: "), HasSubstr("not built for hidden 2880"),
                               HasSubstr("8 ranks on 2 nodes of 4")));
}

TEST(Automatic, BadTimingIsNoReasonToPassOver) {
  EXPECT_THAT(Site(8, 8, 2048, 64, 8).Problem("automatic {} timing { nvlink_one_sided { nvlink_efficiency: 2 } }"),
              HasSubstr("communication.timing.nvlink_one_sided.nvlink_efficiency: 2 is not in [0.001, 1]"));
}

}  // namespace
}  // namespace epsim
