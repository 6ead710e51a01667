// What a schedule refuses, and what it says would do.
#include "models/schedule/schedule_config.h"

#include <string>

#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Strategy : public Communication {
 public:
  explicit Strategy(std::string name, CommunicationFootprint footprint = {})
      : name_(std::move(name)), footprint_(footprint) {}

  std::string name() const override { return name_; }
  RoutingDetail detail() const override { return {}; }
  CommunicationFootprint footprint() const override { return footprint_; }
  absl::Status Admit(const ForwardShape&) override { return absl::OkStatus(); }
  void Dispatch(const RoutedLayer&, Exchange*) const override {}
  void Combine(const RoutedLayer&, Exchange*) const override {}
  void Statistics(int, Exchange*) const override {}
  std::vector<std::string> notes() const override { return {}; }

 private:
  const std::string name_;
  const CommunicationFootprint footprint_;
};

ScheduleConfig Parsed(const std::string& text) {
  ScheduleConfig config;
  EXPECT_TRUE(ParseTextProto(text, "a test", &config).ok());
  return config;
}

std::string Incomplete(const std::string& text) {
  return std::string(CompleteScheduleConfig(Parsed(text)).status().message());
}

std::string Refused(const std::string& text, const Communication& communication, int sms = 0, int mtp_layers = 0) {
  ModelSpec model;
  model.set_name("small");
  model.set_mtp_layers(mtp_layers);
  GpuSpec gpu;
  gpu.set_name("gpu");
  gpu.set_sms(sms);
  return std::string(CheckSchedule(CompleteScheduleConfig(Parsed(text)).value(), communication, model, gpu).message());
}

TEST(CompleteScheduleConfig, FillsInWhatIsNotSaid) {
  const ScheduleConfig config = CompleteScheduleConfig({}).value();
  EXPECT_TRUE(config.overlap_shared_experts());
  EXPECT_TRUE(config.has_external());
  EXPECT_FALSE(config.external().has_two_batch_overlap());
  const ScheduleConfig halves = CompleteScheduleConfig(Parsed("external { two_batch_overlap {} }")).value();
  EXPECT_DOUBLE_EQ(halves.external().two_batch_overlap().first_attention_share(), 0.5);
  EXPECT_FALSE(
      CompleteScheduleConfig(Parsed("overlap_shared_experts: false fused {}")).value().overlap_shared_experts());
}

TEST(CompleteScheduleConfig, RefusesWhatExcludesEachOther) {
  EXPECT_THAT(Incomplete("max_tokens: 8 external { two_batch_overlap {} }"), HasSubstr("schedule.max_tokens: 8"));
  EXPECT_THAT(Incomplete("external { chunk_overlap: true }"), HasSubstr("schedule.external.chunk_overlap"));
}

TEST(CompleteScheduleConfig, RefusesWhatIsOutOfRange) {
  EXPECT_EQ(Incomplete("mtp_runs: 17"), "schedule.mtp_runs: 17 is more than 16");
  EXPECT_EQ(Incomplete("mtp_runs: 16"), "");
  for (const char* share : {"1", "-0.1", "nan", "inf"}) {
    EXPECT_THAT(Incomplete(std::string("external { two_batch_overlap { first_attention_share: ") + share + " } }"),
                HasSubstr("schedule.external.two_batch_overlap.first_attention_share"))
        << share;
  }
}

TEST(CheckSchedule, AFusedKernelExchangesByItself) {
  EXPECT_EQ(Refused("fused {}", Strategy("all_to_all")), "");
  EXPECT_THAT(Refused("fused {}", Strategy("deepep_normal")),
              AllOf(HasSubstr("deepep_normal"), HasSubstr("all_to_all or an external schedule would do")));
}

TEST(CheckSchedule, OnlyCollectivesOverlapChunks) {
  const std::string overlap = "max_tokens: 8 external { chunk_overlap: true }";
  EXPECT_EQ(Refused(overlap, Strategy("allgather_reducescatter")), "");
  EXPECT_EQ(Refused(overlap, Strategy("all_reduce", {.has_dispatch = false})), "");
  EXPECT_THAT(Refused(overlap, Strategy("nvlink_one_sided")),
              AllOf(HasSubstr("schedule.external.chunk_overlap"), HasSubstr("allgather_reducescatter")));
  EXPECT_EQ(Refused("max_tokens: 8", Strategy("nvlink_one_sided")), "");
}

TEST(CheckSchedule, HalvesNeedADispatch) {
  const std::string halves = "external { two_batch_overlap {} }";
  EXPECT_EQ(Refused(halves, Strategy("deepep_normal")), "");
  EXPECT_THAT(Refused(halves, Strategy("all_reduce", {.has_dispatch = false})), HasSubstr("two_batch_overlap"));
}

TEST(CheckSchedule, PredictionNeedsALayerForIt) {
  EXPECT_EQ(Refused("mtp_runs: 2", Strategy("all_to_all"), 0, 1), "");
  EXPECT_THAT(Refused("mtp_runs: 2", Strategy("all_to_all")),
              AllOf(HasSubstr("schedule.mtp_runs: 2"), HasSubstr("0 would do")));
}

TEST(CheckSchedule, CommunicationLeavesMultiprocessors) {
  EXPECT_EQ(Refused("", Strategy("deepep_normal", {.sms = 24}), 132), "");
  EXPECT_EQ(Refused("", Strategy("deepep_normal", {.sms = 24}), 0), "") << "unknown";
  EXPECT_THAT(Refused("", Strategy("deepep_normal", {.sms = 132}), 132), HasSubstr("holds 132"));
}

TEST(FactsOf, FollowTheStrategy) {
  const ScheduleConfig plain = CompleteScheduleConfig({}).value();
  const ScheduleConfig statistics = CompleteScheduleConfig(Parsed("load_statistics: true")).value();
  const Strategy carries("nvlink_one_sided", {.statistics_ride_along = true, .quantised_dispatch = true});
  const Strategy bf16("deepep_normal", {.statistics_ride_along = false, .quantised_dispatch = false});
  EXPECT_FALSE(FactsOf(plain, bf16, false).statistics);
  EXPECT_TRUE(FactsOf(statistics, bf16, false).statistics);
  EXPECT_FALSE(FactsOf(statistics, carries, false).statistics);
  EXPECT_EQ(FactsOf(plain, bf16, false).quantization, Quantization::kNone);
  EXPECT_EQ(FactsOf(plain, bf16, true).quantization, Quantization::kAfterDispatch);
  EXPECT_EQ(FactsOf(plain, carries, true).quantization, Quantization::kBeforeDispatch);
  EXPECT_EQ(FactsOf(plain, Strategy("deepep_low_latency"), true).quantization, Quantization::kNone);
}

// DeepEP's 24 of an H100's 132 leave 108.
TEST(SmsLeft, IsTheShareThatCommunicationDoesNotHold) {
  GpuSpec gpu;
  EXPECT_EQ(SmsLeft({.sms = 24}, gpu), 1);
  gpu.set_sms(132);
  EXPECT_DOUBLE_EQ(SmsLeft({.sms = 24}, gpu), 108.0 / 132);
  EXPECT_EQ(SmsLeft({}, gpu), 1);
}

}  // namespace
}  // namespace epsim
