#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/progress.h"
#include "engine/status_macros.h"
#include "traces/synthesis/calibration.h"
#include "traces/synthesis/drift_estimate.h"
#include "traces/synthesis/observation.h"
#include "traces/synthesis/request_deal.h"
#include "traces/synthesis/request_groups.h"
#include "traces/synthesis/synthesis.h"

namespace epsim {
namespace {

constexpr int64_t kMostHistogramBytes = int64_t{64} << 20;
constexpr int kMostToldDomains = 16;
constexpr size_t kMostLengths = 512;                     // Written for a domain.
constexpr double kWeightScale = 1e6;                     // Of which the weights of a layer sum to about this.
constexpr int64_t kCalibrationIds = int64_t{3'000'000};  // Drawn in a round of the calibration, all layers.

// The domain of every observed request that has a histogram, numbered from 0.
struct Domains {
  std::vector<int> of_histogram;
  std::vector<std::string> names;
  bool told = false;  // By the trace; otherwise found.
};

Domains DomainsOf(const Observation& observed, const FitOptions& options, int experts) {
  const size_t histograms = observed.histograms.size();
  std::map<std::string, int> told;  // Name -> number of requests.
  for (size_t h = 0; h < histograms; ++h) ++told[observed.requests[observed.request_of_histogram(h)].domain];
  Domains result;
  if (options.told_domains && told.size() > 1 && told.size() <= kMostToldDomains) {
    result.told = true;
    std::map<std::string, int> number;
    for (const auto& [name, requests] : told) {
      number[name] = static_cast<int>(result.names.size());
      result.names.push_back(name);
    }
    for (size_t h = 0; h < histograms; ++h) {
      result.of_histogram.push_back(number[observed.requests[observed.request_of_histogram(h)].domain]);
    }
    return result;
  }
  // A group should have a few requests, or it describes one of them.
  const int groups = std::clamp(static_cast<int>(histograms / 4), 1, std::max(1, options.domains));
  result.of_histogram =
      GroupRequests(observed.histograms, experts, groups, RandomStream(options.seed, "synthesis/fit/groups"));
  const int found = *std::max_element(result.of_histogram.begin(), result.of_histogram.end()) + 1;
  const std::string all = told.size() == 1 ? told.begin()->first : "";
  for (int d = 0; d < found; ++d) result.names.push_back(found == 1 ? all : absl::StrCat("group ", d));
  return result;
}

// At most kMostLengths of them, evenly over their order by length.
std::vector<RequestLength> SomeLengths(std::vector<RequestLength> lengths) {
  if (lengths.size() <= kMostLengths) return lengths;
  std::stable_sort(lengths.begin(), lengths.end(), [](const RequestLength& a, const RequestLength& b) {
    return RecordedTokens(a) < RecordedTokens(b);
  });
  std::vector<RequestLength> some;
  for (size_t i = 0; i < kMostLengths; ++i) some.push_back(lengths[(2 * i + 1) * lengths.size() / (2 * kMostLengths)]);
  return some;
}

// [domains][experts] of one layer: the part of a domain's tokens that choose each expert, over the histograms up to
// `until`.
std::vector<std::vector<double>> Inclusion(const Observation& observed, const Domains& domains, size_t until, int layer,
                                           int experts, int top_k) {
  std::vector<std::vector<double>> result(domains.names.size(), std::vector<double>(experts, 0.0));
  for (size_t h = 0; h < until; ++h) {
    const uint32_t* const counts = observed.histograms[h].data() + static_cast<size_t>(layer) * experts;
    for (int e = 0; e < experts; ++e) result[domains.of_histogram[h]][e] += counts[e];
  }
  for (std::vector<double>& counts : result) {
    // Where ids were dropped there may be too few to draw from.
    if (std::count_if(counts.begin(), counts.end(), [](double c) { return c > 0; }) < top_k) {
      for (double& c : counts) c += 1;
    }
    const double sum = std::accumulate(counts.begin(), counts.end(), 0.0);
    for (double& c : counts) c *= top_k / sum;
  }
  return result;
}

void AddRecording(const TraceReader& trace, const Observation& observed, SynthesisConfig& config) {
  if (trace.header().granularity() == REQUEST) {
    config.mutable_requests()->set_requests(static_cast<uint32_t>(observed.requests.size()));
    return;
  }
  StepRecording& steps = *config.mutable_steps();
  const int64_t count = std::max<int64_t>(1, observed.steps);
  steps.set_steps(static_cast<uint32_t>(count));
  steps.set_source_ranks(static_cast<uint32_t>(observed.tokens_of_rank.size()));
  for (int64_t tokens : observed.tokens_of_rank) {
    steps.add_tokens_per_rank(static_cast<uint32_t>((tokens + count / 2) / count));
  }
  if (std::all_of(steps.tokens_per_rank().begin(), steps.tokens_per_rank().end(), [](uint32_t t) { return t == 0; })) {
    steps.set_tokens_per_rank(0, 1);
  }
}

}  // namespace

absl::StatusOr<SynthesisConfig> FitSynthesis(const TraceReader& trace, const FitOptions& options,
                                             const StopToken& stop) {
  ASSIGN_OR_RETURN(const Observation observed, ObserveTrace(trace, kMostHistogramBytes, stop));
  const TraceHeader& header = trace.header();
  const int layers = header.layers(), experts = header.experts(), top_k = header.top_k();
  Domains domains = DomainsOf(observed, options, experts);
  // Drift and domains explain the same thing, that requests differ: drift is what comes and does not return.
  std::optional<DriftEstimate> drift;
  if (domains.names.size() == 1 ||
      (!domains.told && GroupsPass(domains.of_histogram, RandomStream(options.seed, "synthesis/fit/groups_pass")))) {
    drift = EstimateDrift(observed.histograms, experts, RandomStream(options.seed, "synthesis/fit/drift"));
    if (drift.has_value()) domains = {std::vector<int>(observed.histograms.size(), 0), {"all"}, false};
  }
  // Drift starts from the popularity of the first window; the mean over a drifting trace is flatter than it ever was.
  const size_t popular_until = drift.has_value() ? drift->interval_requests : observed.histograms.size();

  SynthesisConfig config;
  config.set_model(header.model());
  config.set_layers(layers);
  config.set_experts(experts);
  config.set_top_k(top_k);
  config.set_seed(options.seed);
  config.set_description(absl::StrCat("fitted to ", header.model(), " trace ", trace.hash(), " (",
                                      header.synthetic().empty() ? header.source() : header.synthetic(), "), ",
                                      observed.tokens, " tokens"));
  AddRecording(trace, observed, config);

  CalibrationRequests sample;
  double followers = 0;
  for (size_t d = 0; d < domains.names.size(); ++d) {
    std::vector<RequestLength> lengths;
    for (size_t h = 0; h < observed.histograms.size(); ++h) {
      const RequestLength& length = observed.requests[observed.request_of_histogram(h)].length;
      if (domains.of_histogram[h] == static_cast<int>(d) && RecordedTokens(length) > 0) lengths.push_back(length);
    }
    Domain& domain = *config.add_domains();
    domain.set_name(domains.names[d]);
    domain.set_share(static_cast<double>(lengths.size()));
    sample.lengths.emplace_back();
    sample.token_share.push_back(0);
    for (const RequestLength& length : lengths)
      sample.token_share.back() += static_cast<double>(RecordedTokens(length) - 1);
    followers += sample.token_share.back();
    for (const RequestLength& length : SomeLengths(std::move(lengths))) {
      *domain.add_lengths() = length;
      sample.lengths.back().push_back(static_cast<int64_t>(RecordedTokens(length)));
    }
  }
  for (double& share : sample.token_share) share = followers > 0 ? share / followers : 0.0;
  sample.tokens = std::clamp<int64_t>(
      kCalibrationIds / (int64_t{layers} * top_k * static_cast<int64_t>(domains.names.size())), 4096, 65536);

  if (drift.has_value()) {
    const double tokens_per_request =
        static_cast<double>(observed.tokens) / static_cast<double>(observed.requests.size());
    const double requests = static_cast<double>(drift->interval_requests) * static_cast<double>(observed.stride);
    config.mutable_drift()->set_interval_tokens(
        static_cast<uint64_t>(std::max(1.0, std::floor(requests * tokens_per_request + 0.5))));
    config.mutable_drift()->mutable_exchange()->set_fraction(std::floor(drift->fraction * 1e3 + 0.5) / 1e3);
  }

  Progress progress("fitting", layers);
  for (int l = 0; l < layers; ++l) {
    RETURN_IF_ERROR(stop.Check());
    LayerGoal goal;
    goal.inclusion = Inclusion(observed, domains, popular_until, l, experts, top_k);
    if (observed.followers[l] > 0) {
      goal.overlap = static_cast<double>(observed.shared[l]) / static_cast<double>(observed.followers[l]);
    }
    const LayerSolution solution =
        CalibrateLayer(goal, sample, top_k, RandomStream(options.seed, absl::StrCat("synthesis/fit/layer/", l)));
    config.add_keep_previous(std::floor(solution.keep_previous * 1e4 + 0.5) / 1e4);
    for (size_t d = 0; d < domains.names.size(); ++d) {
      ExplicitPopularity& popularity = *config.mutable_domains(static_cast<int>(d))->add_layers()->mutable_explicit_();
      for (double p : solution.popularity[d]) {
        popularity.add_weights(p > 0 ? std::max(1.0, std::floor(p / top_k * kWeightScale + 0.5)) : 0.0);
      }
    }
    progress.Set(l + 1);
  }
  RETURN_IF_ERROR(ValidateSynthesis(config, trace.path()));
  return config;
}

}  // namespace epsim
