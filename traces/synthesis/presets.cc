#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/options.pb.h"
#include "engine/status_macros.h"
#include "traces/synthesis/synthesis.h"

namespace epsim {
namespace {

constexpr double kHotExpertTokens = 0.9;  // Of the tokens choose the one hot expert.
constexpr double kHotRankShare = 0.5;     // Of the ids go to the hot rank.
constexpr uint32_t kSpreadFactor = 8;
constexpr uint32_t kRotateSteps = 16;

absl::Status CheckOptions(const PresetOptions& options) {
  const auto wrong = [](const char* what, int value, const std::string& must) {
    return absl::InvalidArgumentError(absl::StrCat("preset: ", what, " is ", value, ", must be ", must));
  };
  if (options.layers < 1 || options.layers > 1024) return wrong("layers", options.layers, "1 to 1024");
  if (options.ranks < 2 || options.ranks > 65535) return wrong("ranks", options.ranks, "2 to 65535");
  if (options.experts < 2 || options.experts > 65536 || options.experts % options.ranks != 0) {
    return wrong("experts", options.experts, absl::StrCat("a multiple of ", options.ranks, " ranks, at most 65536"));
  }
  const int most = std::min(255, options.experts - options.experts / options.ranks);
  if (options.top_k < 1 || options.top_k > most) {
    return wrong("top_k", options.top_k, absl::StrCat("1 to ", most, " (the experts of all ranks but one)"));
  }
  if (options.tokens_per_rank < 1) return wrong("tokens_per_rank", options.tokens_per_rank, "at least 1");
  if (options.steps < 1) return wrong("steps", options.steps, "at least 1");
  return absl::OkStatus();
}

// The experts of `rank` share kHotRankShare, or as much as they can take where that is less.
HotPopularity HotRank(const PresetOptions& options, int rank) {
  const int experts_per_rank = options.experts / options.ranks;
  HotPopularity hot;
  for (int e = 0; e < experts_per_rank; ++e) hot.add_experts(rank * experts_per_rank + e);
  hot.set_share(
      std::min(kHotRankShare, static_cast<double>(std::min(experts_per_rank, options.top_k)) / options.top_k));
  return hot;
}

// The largest remainders get the tokens that whole shares leave over, the first rank first.
std::vector<uint32_t> Ramp(int ranks, int64_t total) {
  const int64_t parts = int64_t{ranks} * (ranks + 1) / 2;
  std::vector<uint32_t> tokens(ranks);
  std::vector<int> order(ranks);
  int64_t left = total;
  for (int r = 0; r < ranks; ++r) {
    tokens[r] = static_cast<uint32_t>(total * (r + 1) / parts);
    left -= tokens[r];
    order[r] = r;
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return total * (a + 1) % parts > total * (b + 1) % parts; });
  for (int64_t i = 0; i < left; ++i) ++tokens[order[i]];
  return tokens;
}

}  // namespace

absl::StatusOr<SynthesisConfig> PresetSynthesis(std::string_view name, const PresetOptions& options) {
  const google::protobuf::OneofDescriptor* presets = SynthesisPreset::descriptor()->oneof_decl(0);
  const google::protobuf::FieldDescriptor* field = nullptr;
  std::vector<std::string> names;
  for (int i = 0; i < presets->field_count(); ++i) {
    names.push_back(presets->field(i)->name());
    if (names.back() == name) field = presets->field(i);
  }
  if (field == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("preset: no stress workload is called '", std::string(name), "': ", absl::StrJoin(names, ", ")));
  }
  RETURN_IF_ERROR(CheckOptions(options));

  SynthesisConfig config;
  config.set_model(options.model);
  config.set_layers(options.layers);
  config.set_experts(options.experts);
  config.set_top_k(options.top_k);
  config.set_seed(options.seed);
  config.set_description(
      absl::StrCat("stress workload '", std::string(name), "' (", field->options().GetExtension(doc), ")"));
  StepRecording& steps = *config.mutable_steps();
  steps.set_steps(options.steps);
  steps.set_source_ranks(options.ranks);
  steps.add_tokens_per_rank(options.tokens_per_rank);
  Domain& domain = *config.add_domains();
  domain.set_name(std::string(name));
  domain.set_share(1);
  // Decode of answers of a few hundred tokens.
  for (uint32_t decode_tokens : {64, 128, 256, 512}) {
    RequestLength& length = *domain.add_lengths();
    length.set_context_tokens(512);
    length.set_decode_tokens(decode_tokens);
  }
  LayerPopularity& popularity = *domain.add_layers();

  const int experts_per_rank = options.experts / options.ranks;
  switch (static_cast<SynthesisPreset::PresetCase>(field->number())) {
    case SynthesisPreset::kBalanced:
      popularity.mutable_dealt();
      break;
    case SynthesisPreset::kOneHotExpert: {
      // A different one in each layer, on a different rank where there are enough: layer l on rank l.
      domain.clear_layers();
      for (int l = 0; l < options.layers; ++l) {
        HotPopularity& hot = *domain.add_layers()->mutable_hot();
        hot.add_experts(l % options.ranks * experts_per_rank + l / options.ranks % experts_per_rank);
        hot.set_share(kHotExpertTokens / options.top_k);
      }
      break;
    }
    case SynthesisPreset::kOneHotRank:
      *popularity.mutable_hot() = HotRank(options, 0);
      break;
    case SynthesisPreset::kSpreadHeat:
      for (int e = 0; e < options.experts; ++e) {
        popularity.mutable_explicit_()->add_weights(e % experts_per_rank == 0 ? kSpreadFactor : 1);
      }
      break;
    case SynthesisPreset::kUnevenSources: {
      popularity.mutable_uniform();
      steps.clear_tokens_per_rank();
      for (uint32_t tokens : Ramp(options.ranks, int64_t{options.ranks} * options.tokens_per_rank)) {
        steps.add_tokens_per_rank(tokens);
      }
      break;
    }
    case SynthesisPreset::kIdleRank:
      for (int e = 0; e < options.experts; ++e) {
        popularity.mutable_explicit_()->add_weights(e / experts_per_rank == options.ranks - 1 ? 0 : 1);
      }
      steps.clear_tokens_per_rank();
      for (int r = 0; r < options.ranks; ++r) {
        steps.add_tokens_per_rank(r == options.ranks - 1 ? 0 : options.tokens_per_rank);
      }
      break;
    case SynthesisPreset::kRotatingHotSpot:
      *popularity.mutable_hot() = HotRank(options, 0);
      config.mutable_drift()->set_interval_tokens(uint64_t{kRotateSteps} * options.ranks * options.tokens_per_rank);
      config.mutable_drift()->mutable_rotate()->set_by(experts_per_rank);
      break;
    case SynthesisPreset::kBurst:
      popularity.mutable_zipf()->set_exponent(0.8);
      steps.mutable_burst()->set_every_steps(32);
      steps.mutable_burst()->set_steps(4);
      steps.mutable_burst()->set_factor(8);
      break;
    case SynthesisPreset::PRESET_NOT_SET:
      break;
  }
  RETURN_IF_ERROR(ValidateSynthesis(config, "preset"));
  return config;
}

}  // namespace epsim
