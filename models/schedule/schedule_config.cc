#include "models/schedule/schedule_config.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace epsim {
namespace {

// More runs than any model predicts tokens for, and far from overflow.
constexpr uint32_t kMostMtpRuns = 16;

template <typename... Parts>
absl::Status Error(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("schedule.", parts...));
}

bool IsCollective(const std::string& name) { return name == "allgather_reducescatter" || name == "all_reduce"; }

}  // namespace

absl::StatusOr<ScheduleConfig> CompleteScheduleConfig(const ScheduleConfig& config) {
  ScheduleConfig complete = config;
  if (!complete.has_overlap_shared_experts()) complete.set_overlap_shared_experts(true);
  if (complete.kind_case() == ScheduleConfig::KIND_NOT_SET) complete.mutable_external();
  if (complete.mtp_runs() > kMostMtpRuns) {
    return Error("mtp_runs: ", complete.mtp_runs(), " is more than ", kMostMtpRuns);
  }
  if (complete.has_external() && complete.external().has_two_batch_overlap()) {
    TwoBatchOverlap* halves = complete.mutable_external()->mutable_two_batch_overlap();
    if (halves->first_attention_share() == 0) halves->set_first_attention_share(0.5);
    if (!(halves->first_attention_share() > 0 && halves->first_attention_share() < 1)) {
      return Error("external.two_batch_overlap.first_attention_share: ", halves->first_attention_share(),
                   " is not in (0, 1)");
    }
    if (complete.max_tokens() > 0) {
      return Error("max_tokens: ", complete.max_tokens(),
                   " with external.two_batch_overlap: a batch is cut into halves or into chunks; leave out one");
    }
  }
  if (complete.has_external() && complete.external().chunk_overlap() && complete.max_tokens() == 0) {
    return Error("external.chunk_overlap: without max_tokens there is one chunk, which has none to overlap with");
  }
  return complete;
}

absl::Status CheckSchedule(const ScheduleConfig& config, const Communication& communication, const ModelSpec& model,
                           const GpuSpec& gpu) {
  const std::string name = communication.name();
  const CommunicationFootprint footprint = communication.footprint();
  if (config.has_fused() && name != "all_to_all") {
    return Error("fused: communication ", name,
                 " has kernels of its own, but a fused schedule exchanges inside the expert kernel; communication "
                 "all_to_all or an external schedule would do");
  }
  if (config.has_external() && config.external().chunk_overlap() && !IsCollective(name)) {
    return Error("external.chunk_overlap: communication ", name,
                 " is an all-to-all, whose chunks share buffers and run one after the other; "
                 "allgather_reducescatter or all_reduce would do");
  }
  if (config.has_external() && config.external().has_two_batch_overlap() && !footprint.has_dispatch) {
    return Error("external.two_batch_overlap: communication ", name,
                 " has no dispatch to overlap with; a strategy with dispatch and combine would do");
  }
  if (config.mtp_runs() > 0 && model.mtp_layers() == 0) {
    return Error("mtp_runs: ", config.mtp_runs(), ", but model ", model.name(),
                 " has no layers for multi-token prediction (mtp_layers); 0 would do");
  }
  if (gpu.sms() > 0 && footprint.sms >= static_cast<int>(gpu.sms())) {
    return absl::InvalidArgumentError(absl::StrCat("communication ", name, " holds ", footprint.sms,
                                                   " streaming multiprocessors, but gpu \"", gpu.name(), "\" has ",
                                                   gpu.sms(), "; fewer would do"));
  }
  return absl::OkStatus();
}

ProgramFacts FactsOf(const ScheduleConfig& config, const Communication& communication, bool quantizes) {
  const CommunicationFootprint footprint = communication.footprint();
  ProgramFacts facts;
  facts.has_dispatch = footprint.has_dispatch;
  facts.statistics = config.load_statistics() && !footprint.statistics_ride_along;
  if (quantizes) {
    const bool before = config.has_fused() || footprint.quantised_dispatch || !footprint.has_dispatch;
    facts.quantization = before ? Quantization::kBeforeDispatch : Quantization::kAfterDispatch;
    // DeepEP's low-latency dispatch reads bf16 and casts what it sends.
    if (communication.name() == "deepep_low_latency" && before) facts.quantization = Quantization::kNone;
  }
  return facts;
}

bool GathersRows(const Communication& communication) { return communication.name() == "allgather_reducescatter"; }

double SmsLeft(const CommunicationFootprint& communication, const GpuSpec& gpu) {
  if (gpu.sms() == 0) return 1;
  return static_cast<double>(static_cast<int>(gpu.sms()) - communication.sms) / gpu.sms();
}

}  // namespace epsim
