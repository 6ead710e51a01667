#include "policies/rebalance/rebalance_config.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "engine/unit_text.h"

namespace epsim {
namespace {

constexpr uint32_t kMostSteps = 1'000'000'000;

template <typename Value>
absl::Status Refuse(const char* field, Value value, const char* range) {
  return absl::InvalidArgumentError(absl::StrCat("rebalance.", field, ": ", value, " is not ", range));
}

// So that sums of some thousands of them stay within range.
constexpr Duration kLongestStall = kLongestStep, kLatestFailure = std::chrono::hours(24);

absl::Status CheckTime(const std::string& field, const std::string& text, Duration most) {
  const absl::StatusOr<Duration> time = ParseDuration(text);
  if (!time.ok()) return absl::InvalidArgumentError(absl::StrCat(field, ": ", time.status().message()));
  if (*time <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, ": \"", text, "\" is not at most ", Seconds(most), " s"));
}

absl::Status CompleteStatistics(LoadStatisticsConfig* statistics) {
  if (statistics->memory_case() == LoadStatisticsConfig::MEMORY_NOT_SET) statistics->mutable_window();
  if (statistics->has_window()) {
    WindowStatistics& window = *statistics->mutable_window();
    if (window.steps() == 0) window.set_steps(1000);
    if (window.steps() > kMostSteps) return Refuse("statistics.window.steps", window.steps(), "at most 1000000000");
  } else {
    DecayStatistics& decay = *statistics->mutable_decay();
    if (decay.decay() == 0) decay.set_decay(0.9);
    if (!(decay.decay() > 0 && decay.decay() < 1)) {
      return Refuse("statistics.decay.decay", decay.decay(), "in (0, 1)");
    }
  }
  if (statistics->alignment() == 0) statistics->set_alignment(128);
  if (statistics->alignment() > 4096) return Refuse("statistics.alignment", statistics->alignment(), "at most 4096");
  if (statistics->max_rows() == 0) statistics->set_max_rows(32);
  if (statistics->max_rows() > 4096) return Refuse("statistics.max_rows", statistics->max_rows(), "at most 4096");
  return absl::OkStatus();
}

absl::Status CompleteMigration(bool online, bool async_layer, MigrationConfig* migration) {
  if (migration->source() == MigrationConfig::SOURCE_DEFAULT) {
    migration->set_source(online ? MigrationConfig::HOST : MigrationConfig::PEER);
  }
  if (migration->link_efficiency() == 0) migration->set_link_efficiency(0.773);
  if (migration->network_efficiency() == 0) migration->set_network_efficiency(0.915);
  for (const auto& [field, value] : {std::pair("migration.link_efficiency", migration->link_efficiency()),
                                     {"migration.network_efficiency", migration->network_efficiency()}}) {
    if (!(value >= 0.001 && value <= 1)) return Refuse(field, value, "in [0.001, 1]");
  }
  if (migration->launch().empty()) migration->set_launch("100 us");
  RETURN_IF_ERROR(CheckTime("rebalance.migration.launch", migration->launch(), kLongestStall));
  if (!migration->has_buffered()) migration->set_buffered(async_layer);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RebalanceConfig> CompleteRebalanceConfig(RebalanceConfig config) {
  if (config.mode_case() == RebalanceConfig::MODE_NOT_SET) config.mutable_none();
  if (config.has_chunked() && config.chunked().layers_per_chunk() == 0) {
    config.mutable_chunked()->set_layers_per_chunk(1);
  }
  if (config.has_online() && config.online().layer_updates_per_iter() == 0) {
    config.mutable_online()->set_layer_updates_per_iter(1);
  }
  if (config.interval_steps() == 0) config.set_interval_steps(config.has_online() ? 1 : 1000);
  if (config.has_online() && config.interval_steps() != 1) {
    return Refuse("interval_steps", config.interval_steps(), "1, as online rebalancing has it");
  }
  if (config.interval_steps() > kMostSteps)
    return Refuse("interval_steps", config.interval_steps(), "at most 1000000000");
  if (!config.has_first_after_steps()) config.set_first_after_steps(config.has_online() ? 0 : config.interval_steps());
  if (config.first_after_steps() > kMostSteps) {
    return Refuse("first_after_steps", config.first_after_steps(), "at most 1000000000");
  }
  if (config.min_utilization_threshold() == 0) config.set_min_utilization_threshold(1);
  if (!(config.min_utilization_threshold() > 0 && config.min_utilization_threshold() <= 1)) {
    return Refuse("min_utilization_threshold", config.min_utilization_threshold(), "in (0, 1]");
  }
  if (config.planning_time_per_layer().empty()) {
    config.set_planning_time_per_layer(config.has_online() ? "100 us" : "10 ms");
  }
  RETURN_IF_ERROR(CheckTime("rebalance.planning_time_per_layer", config.planning_time_per_layer(), kLongestStall));
  absl::Status status = CompleteStatistics(config.mutable_statistics());
  if (status.ok())
    status = CompleteMigration(config.has_online(), config.has_async_layer(), config.mutable_migration());
  if (!status.ok()) return status;
  return config;
}

absl::StatusOr<ElasticConfig> CompleteElasticConfig(ElasticConfig config) {
  if (config.detection_time().empty()) config.set_detection_time("1 s");
  RETURN_IF_ERROR(CheckTime("elastic.detection_time", config.detection_time(), kLongestStall));
  for (int i = 0; i < config.failures_size(); ++i) {
    const Failure& failure = config.failures(i);
    if (failure.what_case() == Failure::WHAT_NOT_SET) {
      return absl::InvalidArgumentError(
          absl::StrCat("elastic.failures: number ", i + 1, " says neither rank nor node fails"));
    }
    if (failure.at().empty()) {
      return absl::InvalidArgumentError(absl::StrCat("elastic.failures: number ", i + 1, " does not say when (at)"));
    }
    const std::string number = absl::StrCat("elastic.failures: number ", i + 1);
    RETURN_IF_ERROR(CheckTime(number + ": at", failure.at(), kLatestFailure));
    if (failure.returns_after().empty()) continue;
    RETURN_IF_ERROR(CheckTime(number + ": returns_after", failure.returns_after(), kLatestFailure));
  }
  return config;
}

}  // namespace epsim
