#include "experiments/routing_report.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/status_macros.h"

namespace epsim {
namespace {

using Json = nlohmann::ordered_json;

bool GoesByCapturedScores(const RoutingPolicyConfig& config) {
  return ChangesRouting(config) && config.reconstruct() == RoutingPolicyConfig::NO_RECONSTRUCTION;
}

Json WorthJson(const RoutingWorth& worth, int64_t steps) {
  const auto mean = [steps](Duration sum) { return steps == 0 ? 0 : Microseconds(sum) / static_cast<double>(steps); };
  const std::optional<double> break_even = worth.break_even_tokens();
  Json json;
  json["routed_anew"] =
      worth.layer_steps == 0 ? 0 : static_cast<double>(worth.routed_anew) / static_cast<double>(worth.layer_steps);
  json["balance_gain_us"] = mean(worth.balance_gain);
  json["overhead_us"] = mean(worth.overhead);
  json["net_gain_us"] = mean(worth.net_gain());
  json["break_even_tokens"] = break_even.has_value() ? Json(*break_even) : Json();
  json["captured_pairs_kept"] = worth.kept_share();
  json["tokens_dropped"] = worth.dropped_share();
  return json;
}

}  // namespace

absl::Status CheckTraceFitsRouting(const RoutingPolicyConfig& config, const std::string& path,
                                   const TraceHeader& header) {
  if (!ChangesRouting(config)) return absl::OkStatus();
  const std::string name = RoutingPolicyName(config);
  if (header.granularity() == COUNTS) {
    return absl::InvalidArgumentError(absl::StrCat(path,
                                                   ": has tokens per expert only, not each token's experts, which ",
                                                   "routing.", name, " changes; routing.policy=token_choice would do"));
  }
  if (!GoesByCapturedScores(config) || header.scores() != NUMBER_FORMAT_NONE) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      path, ": has expert ids only, and routing.", name,
      " goes by the router's scores; a capture with scores would do, ",
      "or routing.reconstruct=RANK_PRIOR, which makes scores up from the order of each token's ids (low confidence)"));
}

StepContents ContentsForRouting(const RoutingPolicyConfig& config) { return {.scores = GoesByCapturedScores(config)}; }

absl::StatusOr<std::unique_ptr<StepRouting>> NewStepRouting(const RoutingPolicyConfig& config,
                                                            const PlacementShape& shape, int top_k) {
  if (!ChangesRouting(config)) return nullptr;
  const RoutingShape routing_shape{
      .layers = shape.layers, .experts = shape.experts, .top_k = top_k, .ranks = shape.ranks};
  ASSIGN_OR_RETURN(const RoutingPolicyConfig complete, CompleteRoutingConfig(config));
  ASSIGN_OR_RETURN(std::unique_ptr<RoutingPolicy> policy, NewRoutingPolicy(complete, routing_shape));
  ASSIGN_OR_RETURN(RoutingKernelCost kernel, RoutingKernelCost::Create(complete.kernel(), shape.experts));
  auto batches = std::make_unique<BatchRouting>(
      std::move(policy), GoesByRouterLoad(complete), routing_shape,
      GoesByCapturedScores(complete) ? BatchRouting::Scores::kCaptured : BatchRouting::Scores::kByRank);
  return std::make_unique<StepRouting>(std::move(batches), std::move(kernel));
}

Json RoutingJson(const RoutingPolicyConfig& config, const StepRouting& routing, const RoutingGain& gain) {
  Json json;
  json["policy"] = RoutingPolicyName(config);
  json["scores"] = GoesByCapturedScores(config) ? "captured" : "rank_prior";
  json["kernel"] = routing.kernel().description();
  json.update(WorthJson(gain.Total(), gain.steps()));
  json["layers"] = Json::array();
  for (const RoutingWorth& worth : gain.layers()) json["layers"].push_back(WorthJson(worth, gain.steps()));
  return json;
}

std::vector<std::string> RoutingNotes(const RoutingPolicyConfig& config, const StepRouting& routing) {
  std::vector<std::string> notes = {absl::StrCat("routing ", RoutingPolicyName(config),
                                                 " changes what the model computes; its kernel's time is ",
                                                 "declared, not measured: ", routing.kernel().description())};
  if (!GoesByCapturedScores(config)) {
    notes.push_back("low confidence: the router's scores are made up from the order of each token's experts");
  }
  return notes;
}

std::string RoutingText(const Json& routing) {
  const auto percent = [&](const char* key) { return 100 * routing[key].get<double>(); };
  std::string text = absl::StrFormat(
      "  routing           %s in %.0f %% of layers and steps; %.1f %% of captured pairs kept, %.1f %% of tokens "
      "dropped\n",
      routing["policy"].get<std::string>(), percent("routed_anew"), percent("captured_pairs_kept"),
      percent("tokens_dropped"));
  absl::StrAppendFormat(&text, "                    a step: balance %+.1f us, kernel -%.1f us, net %+.1f us; ",
                        routing["balance_gain_us"].get<double>(), routing["overhead_us"].get<double>(),
                        routing["net_gain_us"].get<double>());
  const Json& break_even = routing["break_even_tokens"];
  if (break_even.is_null()) {
    text += "positive at no batch\n";
  } else {
    absl::StrAppendFormat(&text, "positive above %.0f tokens a batch\n", break_even.get<double>());
  }
  return text;
}

}  // namespace epsim
