#include "policies/rebalance/expert_profiler.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "platforms/cluster.h"

namespace epsim {
namespace {

constexpr uint32_t kWarmUpSteps = 10, kIntervalSteps = 1;
constexpr char kOverhead[] = "1 us";  // Evidence beside the field.

double PerToken(const ExpertSample& sample) { return sample.picoseconds / static_cast<double>(sample.tokens); }
double PerInvocation(const ExpertSample& sample) {
  return sample.picoseconds / static_cast<double>(sample.invocations);
}

}  // namespace

absl::StatusOr<ProfilerConfig> CompleteProfilerConfig(const ProfilerConfig& config) {
  ProfilerConfig complete = config;
  if (!config.has_warm_up_steps()) complete.set_warm_up_steps(kWarmUpSteps);
  if (config.interval_steps() == 0) complete.set_interval_steps(kIntervalSteps);
  if (config.overhead().empty()) complete.set_overhead(kOverhead);
  const absl::StatusOr<Duration> overhead = ParseHardwareLatency(complete.overhead());
  if (!overhead.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("profiler.overhead: ", overhead.status().message()));
  }
  return complete;
}

ExpertProfiler::ExpertProfiler(const ProfilerConfig& config, int layers, int experts)
    : warm_up_steps_(config.warm_up_steps()),
      interval_steps_(config.interval_steps()),
      overhead_(ParseHardwareLatency(config.overhead()).value()),
      layers_(layers),
      experts_(experts) {
  EPSIM_CHECK(interval_steps_ > 0 && layers > 0 && experts > 0);
  Reset();
}

bool ExpertProfiler::BeginStep() {
  const int64_t after_warm_up = steps_++ - warm_up_steps_;
  return profiling_ = after_warm_up >= 0 && after_warm_up % interval_steps_ == 0;
}

void ExpertProfiler::Record(Layer layer, LogicalExpert expert, const ExpertSample& sample) {
  EPSIM_CHECK(profiling_);
  EPSIM_CHECK(sample.tokens > 0 && sample.invocations > 0 && sample.picoseconds >= 0);
  ExpertSample& recorded = samples_[Place(layer, expert)];
  recorded.tokens += sample.tokens;
  recorded.invocations += sample.invocations;
  recorded.picoseconds += sample.picoseconds;
  empty_ = false;
}

void ExpertProfiler::RecordSlots(Layer layer, absl::Span<const LogicalExpert> experts_of_slots,
                                 absl::Span<const int32_t> tokens_per_slot,
                                 absl::Span<const double> picoseconds_of_slot) {
  EPSIM_CHECK(tokens_per_slot.size() == experts_of_slots.size());
  EPSIM_CHECK(picoseconds_of_slot.size() == experts_of_slots.size());
  for (size_t slot = 0; slot < experts_of_slots.size(); ++slot) {
    if (tokens_per_slot[slot] == 0) continue;
    Record(layer, experts_of_slots[slot],
           {.tokens = tokens_per_slot[slot], .invocations = 1, .picoseconds = picoseconds_of_slot[slot]});
  }
}

void ExpertProfiler::Reset() {
  steps_ = 0;
  profiling_ = false;
  empty_ = true;
  samples_.assign(static_cast<size_t>(layers_) * experts_, {});
}

size_t ExpertProfiler::Place(Layer layer, LogicalExpert expert) const {
  EPSIM_CHECK(Index(layer) < static_cast<size_t>(layers_) && Index(expert) < static_cast<size_t>(experts_));
  return Index(layer) * experts_ + Index(expert);
}

const ExpertSample& ExpertProfiler::Recorded(Layer layer, LogicalExpert expert) const {
  return samples_[Place(layer, expert)];
}

ExpertProfiler::LayerMean ExpertProfiler::MeanOf(Layer layer) const {
  LayerMean mean;
  int sampled = 0;
  for (int expert = 0; expert < experts_; ++expert) {
    const ExpertSample& sample = Recorded(layer, LogicalExpert(expert));
    if (sample.invocations == 0) continue;
    mean.per_token += PerToken(sample);
    mean.per_invocation += PerInvocation(sample);
    ++sampled;
  }
  if (sampled == 0) return {};
  return {mean.per_token / sampled, mean.per_invocation / sampled};
}

double ExpertProfiler::TimePerToken(Layer layer, LogicalExpert expert) const {
  const ExpertSample& sample = Recorded(layer, expert);
  return sample.invocations > 0 ? PerToken(sample) : MeanOf(layer).per_token;
}

double ExpertProfiler::TimePerInvocation(Layer layer, LogicalExpert expert) const {
  const ExpertSample& sample = Recorded(layer, expert);
  return sample.invocations > 0 ? PerInvocation(sample) : MeanOf(layer).per_invocation;
}

const ExpertProfile* ExpertProfiler::Profile() {
  if (empty_) return nullptr;
  time_per_token_.clear();
  for (int layer = 0; layer < layers_; ++layer) {
    const double mean = MeanOf(Layer(layer)).per_token;
    for (int expert = 0; expert < experts_; ++expert) {
      const ExpertSample& sample = Recorded(Layer(layer), LogicalExpert(expert));
      time_per_token_.push_back(sample.invocations > 0 ? PerToken(sample) : mean);
    }
  }
  profile_ = {.layers = layers_, .experts = experts_, .time_per_token = time_per_token_};
  return &profile_;
}

std::string ExpertProfiler::Table() const {
  std::string table = absl::StrFormat("%5s %6s %12s %11s %14s %12s %14s\n", "layer", "expert", "tokens", "invocations",
                                      "time_us", "us/token", "us/invocation");
  for (int layer = 0; layer < layers_; ++layer) {
    const LayerMean mean = MeanOf(Layer(layer));
    for (int expert = 0; expert < experts_; ++expert) {
      const ExpertSample& sample = Recorded(Layer(layer), LogicalExpert(expert));
      const bool sampled = sample.invocations > 0;
      const char* const mark = sampled ? "" : "~";
      const double per_token = sampled ? PerToken(sample) : mean.per_token;
      const double per_invocation = sampled ? PerInvocation(sample) : mean.per_invocation;
      absl::StrAppendFormat(&table, "%5d %6d %12d %11d %14.3f %12s %14s\n", layer, expert, sample.tokens,
                            sample.invocations, sample.picoseconds * 1e-6,
                            absl::StrFormat("%s%.4f", mark, per_token * 1e-6),
                            absl::StrFormat("%s%.3f", mark, per_invocation * 1e-6));
    }
  }
  return table;
}

}  // namespace epsim
