#include "traces/workload/step_source.h"

#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "traces/workload/recorded_steps.h"
#include "traces/workload/request_composer.h"
#include "traces/workload/request_steps.h"

namespace epsim {
namespace {

constexpr uint32_t kDefaultRequestsPerRank = 16;
constexpr uint32_t kDefaultMaxTokensPerRank = 8192;

// What `granularity` holds, and the batchings that can use it.
const char* Holds(Granularity granularity) {
  switch (granularity) {
    case REQUEST:
      return "holds requests, not steps: use batching continuous or lock_step";
    case STEP:
      return "holds recorded steps, not requests: use batching recorded";
    case COUNTS:
      return "holds tokens per expert of recorded steps, not requests: use batching recorded";
    case GRANULARITY_UNKNOWN:
    case Granularity_INT_MIN_SENTINEL_DO_NOT_USE_:
    case Granularity_INT_MAX_SENTINEL_DO_NOT_USE_:
      break;
  }
  return "does not say whether it holds requests or steps";
}

absl::Status DoesNotFit(const TraceReader& trace) {
  return absl::InvalidArgumentError(absl::StrCat(trace.path(), ": ", Holds(trace.header().granularity())));
}

// `field` and `requests_field` name the batching's fields for messages.
absl::StatusOr<CompositionRules> Rules(const char* batching, const char* requests_field, uint32_t requests_per_rank,
                                       uint32_t max_tokens_per_rank, int ranks, bool lock_step) {
  const int64_t requests = requests_per_rank == 0 ? kDefaultRequestsPerRank : requests_per_rank;
  const int64_t max_tokens = max_tokens_per_rank == 0 ? kDefaultMaxTokensPerRank : max_tokens_per_rank;
  const int64_t most = std::numeric_limits<int32_t>::max() / ranks;
  if (max_tokens > most) {
    return absl::InvalidArgumentError(absl::StrCat("workload.", batching, ".max_tokens_per_rank ", max_tokens, ": on ",
                                                   ranks, " ranks at most ", most, " fit into a step"));
  }
  if (requests > max_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("workload.", batching, ".", requests_field, " ", requests, ": at most ", max_tokens,
                     " fit, because each may need a token in a step of max_tokens_per_rank ", max_tokens));
  }
  CompositionRules rules;
  rules.ranks = ranks;
  rules.requests_per_rank = static_cast<int>(requests);
  rules.max_tokens_per_rank = max_tokens;
  rules.lock_step = lock_step;
  return rules;
}

}  // namespace

WorkloadConfig CompleteWorkloadConfig(WorkloadConfig config, Granularity granularity) {
  if (config.batching_case() == WorkloadConfig::BATCHING_NOT_SET) {
    if (granularity == STEP || granularity == COUNTS) {
      config.mutable_recorded();
    } else {
      config.mutable_continuous();
    }
  }
  if (config.has_continuous()) {
    ContinuousBatching* batching = config.mutable_continuous();
    if (batching->running_requests_per_rank() == 0) batching->set_running_requests_per_rank(kDefaultRequestsPerRank);
    if (batching->max_tokens_per_rank() == 0) batching->set_max_tokens_per_rank(kDefaultMaxTokensPerRank);
  }
  if (config.has_lock_step()) {
    LockStepBatching* batching = config.mutable_lock_step();
    if (batching->requests_per_rank() == 0) batching->set_requests_per_rank(kDefaultRequestsPerRank);
    if (batching->max_tokens_per_rank() == 0) batching->set_max_tokens_per_rank(kDefaultMaxTokensPerRank);
  }
  return config;
}

absl::StatusOr<std::unique_ptr<StepSource>> NewStepSource(const WorkloadConfig& config, const TraceReader& trace,
                                                          int ranks, uint64_t seed, const StopToken& stop,
                                                          const StepContents& contents) {
  EPSIM_CHECK(ranks > 0);
  if (contents.scores && (trace.header().scores() == NUMBER_FORMAT_NONE || trace.header().granularity() == COUNTS)) {
    return absl::InvalidArgumentError(absl::StrCat(trace.path(), ": has no scores of the router"));
  }
  const Granularity granularity = trace.header().granularity();
  switch (config.batching_case()) {
    case WorkloadConfig::kRecorded:
      if (granularity == STEP) return NewRecordedSteps(config.max_steps(), trace, ranks, contents);
      if (granularity == COUNTS) return NewRecordedCounts(config.max_steps(), trace, ranks);
      return DoesNotFit(trace);
    case WorkloadConfig::kContinuous: {
      if (granularity != REQUEST) return DoesNotFit(trace);
      ASSIGN_OR_RETURN(const CompositionRules rules,
                       Rules("continuous", "running_requests_per_rank", config.continuous().running_requests_per_rank(),
                             config.continuous().max_tokens_per_rank(), ranks, false));
      return NewRequestSteps(rules, config.max_steps(), trace, seed, stop, contents);
    }
    case WorkloadConfig::kLockStep: {
      if (granularity != REQUEST) return DoesNotFit(trace);
      ASSIGN_OR_RETURN(const CompositionRules rules,
                       Rules("lock_step", "requests_per_rank", config.lock_step().requests_per_rank(),
                             config.lock_step().max_tokens_per_rank(), ranks, true));
      return NewRequestSteps(rules, config.max_steps(), trace, seed, stop, contents);
    }
    case WorkloadConfig::BATCHING_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("workload: no batching; choose one of recorded, continuous, lock_step");
}

}  // namespace epsim
