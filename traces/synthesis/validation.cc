#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "traces/synthesis/request_deal.h"
#include "traces/synthesis/synthesis.h"

namespace epsim {
namespace {

// A request or a step is drawn as a whole: at most this many ids (1 GiB).
constexpr uint64_t kMostIdsAtOnce = uint64_t{1} << 28;

class Validation {
 public:
  Validation(const SynthesisConfig& config, std::string_view name) : config_(config), name_(name) {}

  absl::Status Check() const {
    RETURN_IF_ERROR(InRange("layers", config_.layers(), 1, 1024));
    RETURN_IF_ERROR(InRange("experts", config_.experts(), 1, 65536));
    RETURN_IF_ERROR(InRange("top_k", config_.top_k(), 1, std::min<uint32_t>(config_.experts(), 255)));
    if (config_.description().find('\n') != std::string::npos) return Wrong("description", "is more than one line");
    RETURN_IF_ERROR(CheckDomains());
    RETURN_IF_ERROR(CheckKeep());
    RETURN_IF_ERROR(CheckDrift());
    switch (config_.recording_case()) {
      case SynthesisConfig::kRequests:
        return InRange("requests.requests", config_.requests().requests(), 1, UINT32_MAX);
      case SynthesisConfig::kSteps:
        return CheckSteps();
      case SynthesisConfig::RECORDING_NOT_SET:
        break;
    }
    return Wrong("recording", "is missing: requests or steps");
  }

 private:
  template <typename... Parts>
  absl::Status Wrong(const std::string& field, const Parts&... parts) const {
    return absl::InvalidArgumentError(absl::StrCat(name_, ": ", field, " ", parts...));
  }

  absl::Status InRange(const std::string& field, uint64_t value, uint64_t least, uint64_t most) const {
    if (value >= least && value <= most) return absl::OkStatus();
    return Wrong(field, "is ", value, ", must be ", least, " to ", most);
  }

  absl::Status OnePerLayer(const std::string& field, int entries, bool may_be_none) const {
    if (entries == 1 || entries == static_cast<int>(config_.layers()) || (entries == 0 && may_be_none)) {
      return absl::OkStatus();
    }
    return Wrong(field, "has ", entries, " entries, must be 1 or one for each of ", config_.layers(), " layers");
  }

  absl::Status CheckDomains() const {
    RETURN_IF_ERROR(InRange("domains: their number", config_.domains_size(), 1, 65536));
    int dealt = 0, drawn = 0;
    for (int d = 0; d < config_.domains_size(); ++d) {
      const Domain& domain = config_.domains(d);
      const std::string field = absl::StrCat("domains[", d, "]");
      if (!(domain.share() > 0 && std::isfinite(domain.share()))) {
        return Wrong(field + ".share", "is ", domain.share(), ", must be positive");
      }
      if (domain.lengths().empty()) return Wrong(field + ".lengths", "is empty");
      for (int i = 0; i < domain.lengths_size(); ++i) {
        const RequestLength& length = domain.lengths(i);
        const std::string entry = absl::StrCat(field, ".lengths[", i, "]");
        const uint64_t tokens = RecordedTokens(length);
        if (tokens == 0) return Wrong(entry, "has no recorded tokens");
        if (tokens + length.context_tokens() > UINT32_MAX) {
          return Wrong(entry, "has ", tokens + length.context_tokens(), " tokens, more than a position can count");
        }
        if (config_.has_requests() && tokens * config_.layers() * config_.top_k() > kMostIdsAtOnce) {
          return Wrong(entry, "has ", tokens, " tokens, at most ", kMostIdsAtOnce / config_.layers() / config_.top_k(),
                       " fit in memory");
        }
      }
      RETURN_IF_ERROR(OnePerLayer(field + ".layers", domain.layers_size(), false));
      for (int l = 0; l < domain.layers_size(); ++l) {
        RETURN_IF_ERROR(CheckPopularity(absl::StrCat(field, ".layers[", l, "]"), domain.layers(l)));
        ++(domain.layers(l).has_dealt() ? dealt : drawn);
      }
    }
    if (dealt > 0 && drawn > 0) return Wrong("domains", "mix dealt and drawn popularity");
    for (double keep : config_.keep_previous()) {
      if (dealt > 0 && keep != 0) return Wrong("keep_previous", "is ", keep, ", must be 0 where ids are dealt");
    }
    return absl::OkStatus();
  }

  absl::Status CheckPopularity(const std::string& field, const LayerPopularity& popularity) const {
    const int experts = static_cast<int>(config_.experts()), top_k = static_cast<int>(config_.top_k());
    switch (popularity.shape_case()) {
      case LayerPopularity::kUniform:
      case LayerPopularity::kDealt:
        return absl::OkStatus();
      case LayerPopularity::kZipf:
        if (popularity.zipf().exponent() >= 0 && popularity.zipf().exponent() <= 8) return absl::OkStatus();
        return Wrong(field + ".zipf.exponent", "is ", popularity.zipf().exponent(), ", must be 0 to 8");
      case LayerPopularity::kExplicit: {
        const auto& weights = popularity.explicit_().weights();
        if (weights.size() != experts) {
          return Wrong(field + ".explicit.weights", "has ", weights.size(), " entries, must be one for each of ",
                       experts, " experts");
        }
        const auto positive = std::count_if(weights.begin(), weights.end(), [](uint32_t w) { return w > 0; });
        if (positive >= top_k) return absl::OkStatus();
        return Wrong(field + ".explicit.weights", "has ", positive, " positive entries, fewer than top_k = ", top_k);
      }
      case LayerPopularity::kHot: {
        const HotPopularity& hot = popularity.hot();
        const std::set<uint32_t> distinct(hot.experts().begin(), hot.experts().end());
        if (distinct.empty()) return Wrong(field + ".hot.experts", "is empty");
        if (static_cast<int>(distinct.size()) != hot.experts_size()) {
          return Wrong(field + ".hot.experts", "names an expert twice");
        }
        if (*distinct.rbegin() >= config_.experts()) {
          return Wrong(field + ".hot.experts", "names expert ", *distinct.rbegin(), " of ", experts);
        }
        const int others = experts - hot.experts_size();
        // What neither the hot experts nor the others can take would have nowhere to go.
        const double least = std::max(0.0, 1.0 - static_cast<double>(others) / top_k);
        const double most = static_cast<double>(std::min(hot.experts_size(), top_k)) / top_k;
        if (hot.share() > 0 && hot.share() >= least && hot.share() <= most) {
          if (hot.share() < 1 || hot.experts_size() >= top_k) return absl::OkStatus();
        }
        return Wrong(field + ".hot.share", "is ", hot.share(), ", must be above 0, ", least, " to ", most);
      }
      case LayerPopularity::SHAPE_NOT_SET:
        break;
    }
    return Wrong(field, "has no shape: uniform, zipf, explicit, hot or dealt");
  }

  absl::Status CheckKeep() const {
    RETURN_IF_ERROR(OnePerLayer("keep_previous", config_.keep_previous_size(), true));
    for (int l = 0; l < config_.keep_previous_size(); ++l) {
      const double keep = config_.keep_previous(l);
      if (!(keep >= 0 && keep < 1)) {
        return Wrong(absl::StrCat("keep_previous[", l, "]"), "is ", keep, ", must be at least 0 and less than 1");
      }
    }
    return absl::OkStatus();
  }

  absl::Status CheckDrift() const {
    if (!config_.has_drift()) return absl::OkStatus();
    const Drift& drift = config_.drift();
    RETURN_IF_ERROR(InRange("drift.interval_tokens", drift.interval_tokens(), 1, UINT64_MAX / 2));
    if (config_.experts() < 2) return Wrong("drift", "needs at least 2 experts");
    switch (drift.change_case()) {
      case Drift::kExchange: {
        const double fraction = drift.exchange().fraction();
        if (!(fraction > 0 && fraction <= 1)) {
          return Wrong("drift.exchange.fraction", "is ", fraction, ", must be above 0 and at most 1");
        }
        return InRange("drift.exchange.hot_experts", drift.exchange().hot_experts(), 0, config_.experts() - 1);
      }
      case Drift::kRotate:
        return InRange("drift.rotate.by", drift.rotate().by(), 1, config_.experts() - 1);
      case Drift::CHANGE_NOT_SET:
        break;
    }
    return Wrong("drift", "has no change: exchange or rotate");
  }

  absl::Status CheckSteps() const {
    const StepRecording& steps = config_.steps();
    RETURN_IF_ERROR(InRange("steps.steps", steps.steps(), 1, UINT32_MAX));
    RETURN_IF_ERROR(InRange("steps.source_ranks", steps.source_ranks(), 1, 65536));
    const int entries = steps.tokens_per_rank_size();
    if (entries != 1 && entries != static_cast<int>(steps.source_ranks())) {
      return Wrong("steps.tokens_per_rank", "has ", entries, " entries, must be 1 or one for each of ",
                   steps.source_ranks(), " ranks");
    }
    uint64_t tokens = 0;
    for (uint32_t t : steps.tokens_per_rank()) tokens += t;
    if (tokens == 0) return Wrong("steps.tokens_per_rank", "has no tokens at all");
    if (entries == 1) tokens *= steps.source_ranks();
    if (steps.has_burst()) {
      const Burst& burst = steps.burst();
      RETURN_IF_ERROR(InRange("steps.burst.every_steps", burst.every_steps(), 1, UINT32_MAX));
      RETURN_IF_ERROR(InRange("steps.burst.steps", burst.steps(), 1, burst.every_steps()));
      RETURN_IF_ERROR(InRange("steps.burst.factor", burst.factor(), 1, 65536));
      tokens *= burst.factor();
    }
    const uint64_t most = kMostIdsAtOnce / config_.layers() / config_.top_k();
    if (tokens > most) return Wrong("steps", "have ", tokens, " tokens each, at most ", most, " fit in memory");
    return absl::OkStatus();
  }

  const SynthesisConfig& config_;
  const std::string name_;
};

}  // namespace

absl::Status ValidateSynthesis(const SynthesisConfig& config, std::string_view name) {
  return Validation(config, name).Check();
}

}  // namespace epsim
