#include "policies/rebalance/rebalance_config.h"

#include <string>

#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

absl::StatusOr<RebalanceConfig> Complete(const std::string& text) {
  RebalanceConfig config;
  const absl::Status status = ParseTextProto(text, "a test", &config);
  EXPECT_TRUE(status.ok()) << status;
  return CompleteRebalanceConfig(config);
}

std::string Completed(const std::string& text) { return PrintTextProto(Complete(text).value()); }

std::string Error(const std::string& text) {
  const absl::Status status = Complete(text).status();
  EXPECT_TRUE(status.ok() || status.code() == absl::StatusCode::kInvalidArgument) << status;
  return std::string(status.message());
}

// As SGLang: every 1000 steps, by the last 1000; from a peer, over links as NCCL uses them.
TEST(CompleteRebalanceConfig, FillsInEveryDefault) {
  const std::string filled =
      R"(interval_steps: 1000 first_after_steps: 1000
         statistics { window { steps: 1000 } alignment: 128 max_rows: 32 }
         min_utilization_threshold: 1 planning_time_per_layer: "10 ms"
         migration { source: PEER link_efficiency: 0.773 network_efficiency: 0.915 launch: "100 us" buffered: )";
  const auto expected = [&](const std::string& mode, const char* buffered) {
    RebalanceConfig config;
    EXPECT_TRUE(ParseTextProto(mode + " " + filled + buffered + " }", "a test", &config).ok());
    return PrintTextProto(config);
  };
  EXPECT_EQ(Completed(""), expected("none {}", "false"));
  EXPECT_EQ(Completed("none {}"), expected("none {}", "false"));
  EXPECT_EQ(Completed("blocking {}"), expected("blocking {}", "false"));
  EXPECT_EQ(Completed("chunked {}"), expected("chunked { layers_per_chunk: 1 }", "false"));
  EXPECT_EQ(Completed("async_layer {}"), expected("async_layer {}", "true"));
}

// As TensorRT-LLM: some layers every step from the first on, planned in C++, from the host.
TEST(CompleteRebalanceConfig, OnlineHasDefaultsOfItsOwn) {
  RebalanceConfig expected;
  ASSERT_TRUE(ParseTextProto(R"(online { layer_updates_per_iter: 1 } interval_steps: 1 first_after_steps: 0
                                statistics { window { steps: 1000 } alignment: 128 max_rows: 32 }
                                min_utilization_threshold: 1 planning_time_per_layer: "100 us"
                                migration { source: HOST link_efficiency: 0.773 network_efficiency: 0.915
                                            launch: "100 us" buffered: false })",
                             "a test", &expected)
                  .ok());
  EXPECT_EQ(Completed("online {}"), PrintTextProto(expected));
}

TEST(CompleteRebalanceConfig, DefaultsOfWhatIsChosen) {
  EXPECT_EQ(Complete("statistics { decay {} }")->statistics().decay().decay(), 0.9);
  EXPECT_FALSE(Complete("statistics { decay {} }")->statistics().has_window());
  EXPECT_EQ(Complete("blocking {} interval_steps: 3000")->first_after_steps(), 3000u);
  EXPECT_EQ(Complete("blocking {} first_after_steps: 0")->first_after_steps(), 0u);
}

TEST(CompleteRebalanceConfig, LeavesWhatIsGiven) {
  const std::string given =
      R"(async_layer { background_planning: true } interval_steps: 3000 first_after_steps: 750
         statistics { decay { decay: 0.5 } counts: ALIGNED alignment: 64 attribution: AT_PLANNING
                      cleared_by_planning: true max_rows: 7 }
         min_utilization_threshold: 0.8 planning_time_per_layer: "3 ms" measure_planning_time: true
         migration { source: HOST link_efficiency: 0.5 network_efficiency: 0.25 launch: "0 us" buffered: false })";
  RebalanceConfig config;
  ASSERT_TRUE(ParseTextProto(given, "a test", &config).ok());
  EXPECT_EQ(Completed(given), PrintTextProto(config));
  EXPECT_EQ(Complete("online { layer_updates_per_iter: 4 } migration { source: PEER }")->migration().source(),
            MigrationConfig::PEER);
  EXPECT_EQ(Complete("chunked { layers_per_chunk: 3 }")->chunked().layers_per_chunk(), 3u);
}

// What a report shows can be run again.
TEST(CompleteRebalanceConfig, CompletingTwiceChangesNothing) {
  for (const char* const mode : {"", "none {}", "blocking {}", "chunked {}", "async_layer {}", "online {}"}) {
    const RebalanceConfig once = Complete(mode).value();
    EXPECT_EQ(PrintTextProto(CompleteRebalanceConfig(once).value()), PrintTextProto(once)) << mode;
  }
}

TEST(CompleteRebalanceConfig, RefusesStepsOutOfRange) {
  EXPECT_EQ(Error("blocking {} interval_steps: 1000000001"),
            "rebalance.interval_steps: 1000000001 is not at most 1000000000");
  EXPECT_EQ(Error("blocking {} interval_steps: 1000000000"), "");
  EXPECT_EQ(Error("blocking {} first_after_steps: 1000000001"),
            "rebalance.first_after_steps: 1000000001 is not at most 1000000000");
  EXPECT_EQ(Error("blocking {} first_after_steps: 1000000000"), "");
  EXPECT_EQ(Error("online {} interval_steps: 2"), "rebalance.interval_steps: 2 is not 1, as online rebalancing has it");
  EXPECT_EQ(Error("online {} interval_steps: 1"), "");
}

TEST(CompleteRebalanceConfig, RefusesStatisticsOutOfRange) {
  EXPECT_EQ(Error("statistics { window { steps: 1000000001 } }"),
            "rebalance.statistics.window.steps: 1000000001 is not at most 1000000000");
  EXPECT_EQ(Error("statistics { window { steps: 1000000000 } }"), "");
  EXPECT_EQ(Error("statistics { decay { decay: 1 } }"), "rebalance.statistics.decay.decay: 1 is not in (0, 1)");
  EXPECT_EQ(Error("statistics { decay { decay: -0.5 } }"), "rebalance.statistics.decay.decay: -0.5 is not in (0, 1)");
  EXPECT_EQ(Error("statistics { decay { decay: nan } }"), "rebalance.statistics.decay.decay: nan is not in (0, 1)");
  EXPECT_EQ(Error("statistics { decay { decay: 0.999 } }"), "");
  EXPECT_EQ(Error("statistics { alignment: 4097 }"), "rebalance.statistics.alignment: 4097 is not at most 4096");
  EXPECT_EQ(Error("statistics { alignment: 4096 }"), "");
  EXPECT_EQ(Error("statistics { max_rows: 4097 }"), "rebalance.statistics.max_rows: 4097 is not at most 4096");
  EXPECT_EQ(Error("statistics { max_rows: 4096 }"), "");
}

TEST(CompleteRebalanceConfig, RefusesSharesOutOfRange) {
  EXPECT_EQ(Error("min_utilization_threshold: 1.5"), "rebalance.min_utilization_threshold: 1.5 is not in (0, 1]");
  EXPECT_EQ(Error("min_utilization_threshold: -0.1"), "rebalance.min_utilization_threshold: -0.1 is not in (0, 1]");
  EXPECT_EQ(Error("min_utilization_threshold: nan"), "rebalance.min_utilization_threshold: nan is not in (0, 1]");
  EXPECT_EQ(Error("migration { link_efficiency: 0.0005 }"),
            "rebalance.migration.link_efficiency: 0.0005 is not in [0.001, 1]");
  EXPECT_EQ(Error("migration { link_efficiency: 1.25 }"),
            "rebalance.migration.link_efficiency: 1.25 is not in [0.001, 1]");
  EXPECT_EQ(Error("migration { network_efficiency: -1 }"),
            "rebalance.migration.network_efficiency: -1 is not in [0.001, 1]");
  EXPECT_EQ(Error("migration { network_efficiency: nan }"),
            "rebalance.migration.network_efficiency: nan is not in [0.001, 1]");
  EXPECT_EQ(Error("migration { link_efficiency: 0.001 network_efficiency: 1 }"), "");
}

// Times are added up, layer by layer.
TEST(CompleteRebalanceConfig, RefusesTimesOutOfRange) {
  EXPECT_EQ(Error("planning_time_per_layer: \"600.1 s\""),
            "rebalance.planning_time_per_layer: \"600.1 s\" is not at most 600 s");
  EXPECT_EQ(Error("migration { launch: \"601 s\" }"), "rebalance.migration.launch: \"601 s\" is not at most 600 s");
  EXPECT_EQ(Error("planning_time_per_layer: \"600 s\" migration { launch: \"600 s\" }"), "");
  RebalanceConfig config;  // What no file could say.
  config.set_planning_time_per_layer("10");
  EXPECT_THAT(CompleteRebalanceConfig(config).status().message(),
              testing::HasSubstr("rebalance.planning_time_per_layer: \"10\" has no unit"));
}

absl::StatusOr<ElasticConfig> CompleteElastic(const std::string& text) {
  ElasticConfig config;
  const absl::Status status = ParseTextProto(text, "a test", &config);
  EXPECT_TRUE(status.ok()) << status;
  return CompleteElasticConfig(config);
}

TEST(CompleteElasticConfig, FailuresAreNoticedAfterASecond) {
  EXPECT_EQ(CompleteElastic("")->detection_time(), "1 s");
  const ElasticConfig config =
      CompleteElastic(R"(failures { rank: 0 at: "5 ms" } failures { node: 3 at: "1 ms" returns_after: "2 s" }
                         detection_time: "30 ms")")
          .value();
  EXPECT_EQ(config.detection_time(), "30 ms");
  ASSERT_EQ(config.failures_size(), 2);
  EXPECT_TRUE(config.failures(0).has_rank());  // Rank 0 is a rank, not none.
  EXPECT_EQ(config.failures(0).returns_after(), "");
  EXPECT_EQ(config.failures(1).node(), 3u);
}

TEST(CompleteElasticConfig, EachFailureSaysWhatFailsAndWhen) {
  const auto error = [](const std::string& text) { return std::string(CompleteElastic(text).status().message()); };
  EXPECT_EQ(error(R"(failures { rank: 1 at: "1 s" } failures { at: "2 s" })"),
            "elastic.failures: number 2 says neither rank nor node fails");
  EXPECT_EQ(error("failures { node: 1 }"), "elastic.failures: number 1 does not say when (at)");
  EXPECT_EQ(error(R"(failures { node: 1 at: "0 s" })"), "");  // Before any load: all experts count alike.
  EXPECT_EQ(error(R"(failures { node: 1 at: "1 ps" })"), "");
}

TEST(CompleteElasticConfig, RefusesTimesOutOfRange) {
  const auto error = [](const std::string& text) { return std::string(CompleteElastic(text).status().message()); };
  EXPECT_EQ(error(R"(failures { node: 1 at: "86401 s" })"),
            "elastic.failures: number 1: at: \"86401 s\" is not at most 86400 s");
  EXPECT_EQ(error(R"(failures { node: 1 at: "1 s" } failures { node: 1 at: "1 s" returns_after: "1e5 s" })"),
            "elastic.failures: number 2: returns_after: \"1e5 s\" is not at most 86400 s");
  EXPECT_EQ(error(R"(detection_time: "601 s")"), "elastic.detection_time: \"601 s\" is not at most 600 s");
  EXPECT_EQ(error(R"(failures { node: 1 at: "86400 s" returns_after: "86400 s" } detection_time: "600 s")"), "");
}

}  // namespace
}  // namespace epsim
