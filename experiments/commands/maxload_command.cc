// `epsim maxload`: how many experts the busiest chip has active, without a trace.
#include <cstdint>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/status_macros.h"
#include "experiments/commands/commands.h"
#include "experiments/commands/json_file.h"
#include "experiments/commands/seed_flag.h"
#include "models/load/max_expert_load.h"
#include "models/load/sampled_max_load.h"
#include "nlohmann/json.hpp"

namespace epsim {
namespace {

struct MaxLoadOptions {
  LoadCase load;
  RoutingLaw law;
  std::string popularity;  // File.
  std::optional<int> experts;
  std::optional<int64_t> samples;
  std::optional<uint64_t> seed;
  bool allow_simulation = false, json = false;
};

struct MaxLoad {
  SampledMean estimate;
  int64_t samples = 0;  // 0: exact.
};

absl::StatusOr<std::vector<double>> ReadPopularity(const std::string& path) {
  ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonFile(path));
  if (!json.is_array() || json.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": expected one number per expert, [0.1, 0.3, ...], not ", JsonExcerpt(json)));
  }
  std::vector<double> popularity;
  for (size_t expert = 0; expert < json.size(); ++expert) {
    if (!json[expert].is_number() || json[expert].get<double>() < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": expert ", expert, ": ", JsonExcerpt(json[expert]), " is not a number from 0 up"));
    }
    popularity.push_back(json[expert].get<double>());
  }
  return popularity;
}

// Why the exact method does not do, as the beginning of a sentence; empty where it does.
std::string NotExact(const MaxLoadOptions& options) {
  if (!options.law.popularity.empty()) return "--popularity: the exact method has equally popular experts only";
  if (!IsUniform(options.law)) return "--groups: the exact method has no groups of experts";
  if (options.load.experts > kMostExactExperts) {
    return absl::StrCat("--experts: ", options.load.experts, " are too many for the exact method, which takes up to ",
                        kMostExactExperts);
  }
  return "";
}

absl::StatusOr<MaxLoad> Answer(const MaxLoadOptions& options, const StopToken& stop) {
  RETURN_IF_ERROR(CheckLoadCase(options.load));
  const std::string not_exact = NotExact(options);
  if (not_exact.empty()) {
    ASSIGN_OR_RETURN(const double exact, ExactMaxExpertLoad(options.load));
    return MaxLoad{.estimate = {.mean = exact, .standard_error = 0}, .samples = 0};
  }
  if (!options.allow_simulation) {
    return absl::InvalidArgumentError(
        absl::StrCat(not_exact, "; give --allow-simulation for a Monte Carlo estimate with its standard error"));
  }
  if (options.samples.has_value() && *options.samples < 2) {
    return absl::InvalidArgumentError(absl::StrCat("--samples: ", *options.samples, " batches; at least 2 are needed"));
  }
  ASSIGN_OR_RETURN(const SampledLoad sampled, SampleMaxLoad(options.load, options.law,
                                                            {.samples = options.samples.value_or(0),
                                                             .seed = options.seed.value_or(1),
                                                             .threads = 0,
                                                             .stop = stop,
                                                             .show_progress = true}));
  return MaxLoad{.estimate = sampled.active_experts, .samples = sampled.samples};
}

std::string Text(const MaxLoadOptions& options, const MaxLoad& answer) {
  const LoadCase& load = options.load;
  std::string text;
  if (answer.samples == 0) {
    text = absl::StrFormat("%.7g active experts on the busiest chip (exact)\n", answer.estimate.mean);
  } else {
    text = absl::StrFormat("%.6g +- %.2g active experts on the busiest chip (95 %%; Monte Carlo, %d batches)\n",
                           answer.estimate.mean, 1.96 * answer.estimate.standard_error, answer.samples);
  }
  const int least = ExpertsOfChip(load, load.chips - 1), most = ExpertsOfChip(load, 0);
  absl::StrAppend(&text, load.batch, load.batch == 1 ? " token" : " tokens", ", ", load.top_k, " of ", load.experts,
                  " experts each, on ", load.chips, load.chips == 1 ? " chip" : " chips", " of ",
                  least == most ? absl::StrCat(most) : absl::StrCat(most, " or ", least), " experts\n");
  if (IsUniform(options.law)) {
    absl::StrAppendFormat(&text, "on average a chip has %.4g active experts\n",
                          ExpectedActiveExperts(load) / load.chips);
  }
  return text;
}

absl::Status RunMaxLoad(MaxLoadOptions options, const StopToken& stop) {
  if (!options.popularity.empty()) {
    ASSIGN_OR_RETURN(options.law.popularity, ReadPopularity(options.popularity));
    options.load.experts = static_cast<int>(options.law.popularity.size());
    if (options.experts.has_value() && *options.experts != options.load.experts) {
      return absl::InvalidArgumentError(absl::StrCat(options.popularity, ": ", options.load.experts,
                                                     " experts, but --experts is ", *options.experts));
    }
  } else if (options.experts.has_value()) {
    options.load.experts = *options.experts;
  }
  ASSIGN_OR_RETURN(const MaxLoad answer, Answer(options, stop));
  if (options.json) {
    std::cout << nlohmann::ordered_json{{"max_expert_load", answer.estimate.mean},
                                        {"method", answer.samples == 0 ? "exact" : "monte_carlo"},
                                        {"standard_error", answer.estimate.standard_error}}
                     .dump()
              << '\n';
  } else {
    std::cout << Text(options, answer);
  }
  return absl::OkStatus();
}

}  // namespace

void AddMaxLoadCommand(CLI::App& app, Invocation& invocation) {
  CLI::App* const command =
      app.add_subcommand("maxload", "Expected number of distinct active experts on the busiest chip, without a trace");
  const auto options = std::make_shared<MaxLoadOptions>();
  const std::map<std::string, GroupRule> rules = {{"best_two", GroupRule::kBestTwo},
                                                  {"best_expert", GroupRule::kBestExpert},
                                                  {"independent", GroupRule::kIndependent}};
  command->add_option("--batch", options->load.batch, "Tokens of a batch, of all chips together")->required();
  command->add_option("--chips", options->load.chips, "Chips that share the experts")->required();
  command->add_option("--experts", options->experts, "Experts of a layer; 256, or as many as --popularity has");
  command->add_option("--topk", options->load.top_k, "Experts that each token chooses")->capture_default_str();
  command->add_option("--popularity", options->popularity, "JSON file: [popularity of each expert]; default all equal");
  CLI::Option* const groups =
      command->add_option("--groups", options->law.groups, "Expert groups of the router (n_group)");
  CLI::Option* const group_topk = command->add_option("--group-topk", options->law.top_groups,
                                                      "Groups that each token takes experts from (topk_group)");
  groups->needs(group_topk);
  group_topk->needs(groups);
  command
      ->add_option("--group-rule", options->law.rule,
                   "How a token ranks groups: best_two (sum of the two best scores, the default), best_expert, "
                   "independent (of the experts' scores)")
      ->transform(CLI::CheckedTransformer(rules))
      ->type_name("RULE")
      ->needs(groups);
  command->add_flag("--allow-simulation", options->allow_simulation,
                    "Where there is no exact method, simulate: unequal popularity, groups, very many experts");
  command->add_option("--samples", options->samples, "Batches of a simulation; default up to a million");
  AddSeedFlag(command, &options->seed, "Seed of a simulation; 1 if not given");
  command->add_flag("--json", options->json, "Print JSON");
  command->callback([options, &invocation] {
    invocation.action = [options, stop = invocation.stop] { return RunMaxLoad(*options, stop); };
  });
}

}  // namespace epsim
