#include "experiments/accuracy/all_to_all_case.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "experiments/accuracy/drawn_layer.h"
#include "experiments/accuracy/exchange_clock.h"
#include "models/communication/communication.h"
#include "models/number_type.h"
#include "platforms/cluster.h"

namespace epsim {
namespace {

constexpr uint64_t kSeed = 1;
constexpr int64_t kMostTokens = 1 << 20;  // Of all ranks, in one draw.

absl::Status Unsupported(const std::string& reason) { return absl::UnimplementedError(reason); }

absl::StatusOr<CommunicationConfig> ConfigOf(const Case& measured, int64_t tokens_per_rank) {
  CommunicationConfig config;
  std::optional<uint32_t> sms;
  if (HasField(measured, "sms")) {
    ASSIGN_OR_RETURN(sms, IntegerField(measured, "sms", 1, 1024));
  }
  const std::string& library = measured.library;
  if (library == "deepep_normal") {
    if (sms.has_value()) config.mutable_deepep_normal()->set_sms(*sms);
    config.mutable_deepep_normal();
  } else if (library == "deepep_low_latency" || library == "deepep_low_latency_rdma_only") {
    config.mutable_deepep_low_latency()->set_max_tokens_per_rank(static_cast<uint32_t>(tokens_per_rank));
    config.mutable_deepep_low_latency()->set_rdma_only(library.ends_with("rdma_only"));
  } else if (library == "nvlink_one_sided") {
    config.mutable_nvlink_one_sided();
  } else if (library == "nvlink_two_sided") {
    config.mutable_nvlink_two_sided();
  } else {
    return Unsupported(absl::StrCat("library \"", library, "\" is not modelled"));
  }
  return config;
}

// The format whose copy of a token takes `bytes`.
absl::StatusOr<NumberType> FormatOf(int64_t hidden, int64_t bytes) {
  for (NumberType type : {BF16, FP8, MXFP8, NVFP4, MXFP4}) {
    if (ActivationBytes(hidden, type) == Bytes(bytes)) return type;
  }
  return Unsupported(absl::StrCat("bytes_per_token: no format has ", bytes, " B for ", hidden, " values"));
}

// Bytes that the metric counts in one exchange, over 1e3: over microseconds they are GB/s.  0 for a time.
absl::StatusOr<double> MetricBytes(const Case& measured, const RoutedLayer& routed, const LayerSetup& layer,
                                   int64_t bytes_per_token) {
  if (measured.metric == "time_us") return 0.0;
  ASSIGN_OR_RETURN(const std::string definition, TextField(measured, "bandwidth_definition"));
  const double payload = static_cast<double>(layer.tokens_per_rank) * static_cast<double>(bytes_per_token) / 1e3;
  if (measured.metric == "logical_gbps" && definition.starts_with("tokens*top_k*bytes_per_token/time")) {
    return payload * layer.top_k;
  }
  const bool of_ranks = definition.starts_with("tokens*distinct_ranks*bytes_per_token/time");
  const bool of_nodes = definition.starts_with("tokens*distinct_nodes*bytes_per_token/time");
  if (measured.metric == "bottleneck_gbps" && (of_ranks || of_nodes)) {
    double copies = 0;  // The source's own rank and node included.
    for (int32_t tokens : of_nodes ? routed.tokens_to_node : routed.tokens_between) copies += tokens;
    return copies / layer.ranks * static_cast<double>(bytes_per_token) / 1e3;
  }
  return Unsupported(absl::StrCat("metric ", measured.metric, ": the bytes that it counts are not stated"));
}

class AllToAllCase : public CaseModel {
 public:
  static absl::StatusOr<std::unique_ptr<CaseModel>> Create(const Case& measured);

  absl::StatusOr<double> Predict(const LibraryTiming* timing) override;
  const std::string& group() const override { return group_; }

 private:
  bool combine_ = false;
  double metric_bytes_ = 0;  // What MetricBytes counts.
  std::string group_;
  Cluster cluster_;
  CommunicationConfig config_;
  CommunicationSetup setup_;
  std::vector<RoutedLayer> layers_;  // One for each draw.
  std::unique_ptr<ExchangeClock> clock_;
};

absl::StatusOr<std::unique_ptr<CaseModel>> AllToAllCase::Create(const Case& measured) {
  const auto in_place = [&](const absl::Status& status) {
    if (status.code() == absl::StatusCode::kUnimplemented) return status;
    return absl::InvalidArgumentError(absl::StrCat(measured.place, ": ", status.message()));
  };
  ASSIGN_OR_RETURN(const std::string phase, TextField(measured, "phase"));
  if (phase != "dispatch" && phase != "combine") {
    return in_place(absl::InvalidArgumentError(absl::StrCat("phase: \"", phase, "\" is neither dispatch nor combine")));
  }
  ASSIGN_OR_RETURN(const int64_t ranks, IntegerField(measured, "ranks", 1, 4096));
  ASSIGN_OR_RETURN(const int64_t tokens, IntegerField(measured, "tokens_per_rank", 1, kMostTokens));
  ASSIGN_OR_RETURN(const int64_t hidden, IntegerField(measured, "hidden", 1, 1 << 20));
  ASSIGN_OR_RETURN(const int64_t top_k, IntegerField(measured, "top_k", 1, 64));
  ASSIGN_OR_RETURN(const int64_t experts, IntegerField(measured, "experts", 1, 1 << 15));
  ASSIGN_OR_RETURN(const int64_t bytes, IntegerField(measured, "bytes_per_token", 1, 1 << 24));
  ASSIGN_OR_RETURN(const std::string routing, TextField(measured, "routing"));
  if (ranks * tokens > kMostTokens) {
    return Unsupported(absl::StrCat("more than ", kMostTokens, " tokens in all"));
  }

  auto result = std::make_unique<AllToAllCase>();
  result->combine_ = phase == "combine";
  result->group_ = absl::StrCat(measured.platform, "/ranks", ranks, "/tokens", tokens, "/hidden", hidden, "/top", top_k,
                                "of", experts, "/", routing);
  if (HasField(measured, "sms")) absl::StrAppend(&result->group_, "/sms", measured.fields["sms"].dump());
  ASSIGN_OR_RETURN(result->config_, ConfigOf(measured, tokens));
  absl::StatusOr<PlatformSpec> platform = FindPlatform(measured.platform);
  if (!platform.ok()) return Unsupported(std::string(platform.status().message()));
  if (HasField(measured, "nic_gbps")) {
    ASSIGN_OR_RETURN(const int64_t nic, IntegerField(measured, "nic_gbps", 1, 1 << 20));
    platform->mutable_nic()->set_bandwidth(absl::StrCat(nic, " GB/s"));
  }
  absl::StatusOr<Cluster> cluster = Cluster::Create(*platform, static_cast<int>(ranks));
  if (!cluster.ok()) return Unsupported(std::string(cluster.status().message()));
  result->cluster_ = *std::move(cluster);

  CommunicationSetup& setup = result->setup_;
  setup.cluster = &result->cluster_;
  setup.model.set_name(measured.id);
  setup.model.set_hidden(static_cast<uint32_t>(hidden));
  setup.model.set_experts(static_cast<uint32_t>(experts));
  setup.model.set_top_k(static_cast<uint32_t>(top_k));
  setup.model.set_layers(1);
  setup.model.set_moe_layers(1);
  ASSIGN_OR_RETURN(const NumberType format, FormatOf(hidden, bytes));
  setup.precision.set_dispatch(result->combine_ ? BF16 : format);
  setup.precision.set_combine(result->combine_ ? format : BF16);
  setup.slots = static_cast<int>(experts);
  setup.max_tokens_per_rank = static_cast<int>(tokens);
  const absl::StatusOr<std::unique_ptr<Communication>> communication = NewCommunication(result->config_, setup);
  if (!communication.ok()) return Unsupported(std::string(communication.status().message()));

  LayerSetup layer{.routing = routing,
                   .ranks = static_cast<int>(ranks),
                   .nodes = result->cluster_.nodes(),
                   .tokens_per_rank = static_cast<int>(tokens),
                   .experts = static_cast<int>(experts),
                   .top_k = static_cast<int>(top_k)};
  RoutingDetail detail = (*communication)->detail();
  detail.tokens_to_node = true;  // For the metric.
  // Few tokens are drawn often: about 4,096 of each rank in all, and as dealt tokens are always the same, those once.
  const int64_t draws = routing == "balanced" ? 1 : std::clamp<int64_t>(4096 / tokens, 2, 32);
  for (int64_t draw = 0; draw < draws; ++draw) {
    absl::StatusOr<RoutedLayer> routed = DrawLayer(layer, detail, kSeed + draw);
    if (!routed.ok()) return in_place(routed.status());
    result->layers_.push_back(*std::move(routed));
  }
  ASSIGN_OR_RETURN(result->metric_bytes_, MetricBytes(measured, result->layers_[0], layer, bytes));
  NetworkConfig network;
  network.mutable_port();
  ASSIGN_OR_RETURN(result->clock_, ExchangeClock::Create(network, result->cluster_));
  return result;
}

absl::StatusOr<double> AllToAllCase::Predict(const LibraryTiming* timing) {
  CommunicationConfig config = config_;
  if (timing != nullptr) *config.mutable_timing() = *timing;
  ASSIGN_OR_RETURN(const std::unique_ptr<Communication> communication, NewCommunication(config, setup_));
  double microseconds = 0;
  Exchange exchange;
  for (const RoutedLayer& routed : layers_) {
    if (combine_) {
      communication->Combine(routed, &exchange);
    } else {
      communication->Dispatch(routed, &exchange);
    }
    microseconds += Microseconds(clock_->Time(exchange)) / static_cast<double>(layers_.size());
  }
  return metric_bytes_ > 0 ? metric_bytes_ / microseconds : microseconds;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CaseModel>> NewAllToAllCase(const Case& measured) {
  return AllToAllCase::Create(measured);
}

}  // namespace epsim
