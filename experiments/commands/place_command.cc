// `epsim place`: the placement that a policy makes of given loads, without a simulation.
#include <cmath>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/random_stream.h"
#include "engine/status_macros.h"
#include "experiments/commands/commands.h"
#include "experiments/commands/json_file.h"
#include "experiments/commands/seed_flag.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "nlohmann/json.hpp"
#include "policies/placement/placement_policy.h"

namespace epsim {
namespace {

using Json = nlohmann::json;

struct PlaceOptions {
  std::string policy, load;
  int slots = 0, groups = 1, nodes = 1, ranks = 0;
  std::optional<uint64_t> seed;
  bool json = false;  // What it prints is JSON anyway.
};

// Loads as the file gives them.
struct Load {
  int layers = 0, experts = 0;
  std::vector<double> weight;  // [layers, experts]
};

absl::StatusOr<Load> ReadLoad(const std::string& path) {
  ASSIGN_OR_RETURN(const Json json, ReadJsonFile(path));
  if (!json.is_object() || !json.contains("weight")) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": expected {\"weight\": [[...] per layer]}, not ", JsonExcerpt(json)));
  }
  const Json& layers = json["weight"];
  if (!layers.is_array() || layers.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": weight: expected one array of weights per layer, not ", JsonExcerpt(layers)));
  }
  Load load;
  load.layers = static_cast<int>(layers.size());
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const Json& weights = layers[layer];
    const std::string place = absl::StrCat(path, ": weight: layer ", layer);
    if (!weights.is_array() || weights.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(place, ": expected one weight per expert, not ", JsonExcerpt(weights)));
    }
    if (layer == 0) load.experts = static_cast<int>(weights.size());
    if (weights.size() != static_cast<size_t>(load.experts)) {
      return absl::InvalidArgumentError(
          absl::StrCat(place, " has ", weights.size(), " weights, layer 0 has ", load.experts));
    }
    for (size_t expert = 0; expert < weights.size(); ++expert) {
      const Json& weight = weights[expert];
      const auto error = [&](const char* problem) {
        return absl::InvalidArgumentError(
            absl::StrCat(place, ", expert ", expert, ": ", JsonExcerpt(weight), " is ", problem));
      };
      if (!weight.is_number()) return error("not a number");
      const double value = weight.get<double>();
      if (value < 0) return error("negative");
      if (!std::isfinite(static_cast<float>(value))) return error("more than a float32 can hold");
      load.weight.push_back(value);
    }
  }
  return load;
}

// The configuration that chooses the policy called `name`, with its defaults.
absl::StatusOr<PlacementPolicyConfig> ChoosePolicy(const std::string& name) {
  PlacementPolicyConfig config;
  const google::protobuf::OneofDescriptor* const policies = config.GetDescriptor()->FindOneofByName("policy");
  std::vector<std::string> names;
  for (int i = 0; i < policies->field_count(); ++i) {
    const google::protobuf::FieldDescriptor* const field = policies->field(i);
    names.push_back(field->name());
    if (field->name() != name) continue;
    config.GetReflection()->MutableMessage(&config, field);
    return config;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--policy: \"", name, "\" is not one of ", absl::StrJoin(names, ", ")));
}

absl::StatusOr<Placement> Place(const PlaceOptions& options) {
  ASSIGN_OR_RETURN(const PlacementPolicyConfig config, ChoosePolicy(options.policy));
  ASSIGN_OR_RETURN(const Load load, ReadLoad(options.load));
  const PlacementShape shape{.layers = load.layers,
                             .experts = load.experts,
                             .slots = options.slots,
                             .ranks = options.ranks,
                             .nodes = options.nodes,
                             .expert_groups = options.groups};
  ASSIGN_OR_RETURN(const std::unique_ptr<PlacementPolicy> policy, NewPlacementPolicy(config, shape));
  RandomStream random(options.seed.value_or(1), "placement");
  PlacementRequest request;
  request.window = {.rows = 1, .layers = load.layers, .experts = load.experts, .tokens = load.weight};
  request.random = &random;
  return policy->Place(request);
}

absl::StatusOr<Json> ToJson(const Placement& placement, const StopToken& stop) {
  Json phy2log = Json::array(), log2phy = Json::array(), logcnt = Json::array();
  for (int layer = 0; layer < placement.shape().layers; ++layer) {
    RETURN_IF_ERROR(stop.Check());
    Json experts = Json::array(), slots = Json::array(), counts = Json::array();
    for (LogicalExpert expert : placement.experts_of_slots(Layer(layer))) experts.push_back(Index(expert));
    for (int expert = 0; expert < placement.shape().experts; ++expert) {
      Json replicas = Json::array();
      for (Slot slot : placement.replicas(Layer(layer), LogicalExpert(expert))) replicas.push_back(Index(slot));
      counts.push_back(replicas.size());
      slots.push_back(std::move(replicas));
    }
    phy2log.push_back(std::move(experts));
    log2phy.push_back(std::move(slots));
    logcnt.push_back(std::move(counts));
  }
  return Json{{"phy2log", std::move(phy2log)}, {"log2phy", std::move(log2phy)}, {"logcnt", std::move(logcnt)}};
}

absl::Status RunPlace(const PlaceOptions& options, const StopToken& stop) {
  ASSIGN_OR_RETURN(const Placement placement, Place(options));
  ASSIGN_OR_RETURN(const Json json, ToJson(placement, stop));
  std::cout << json.dump() << '\n';
  return absl::OkStatus();
}

}  // namespace

void AddPlaceCommand(CLI::App& app, Invocation& invocation) {
  CLI::App* const command = app.add_subcommand("place", "Place experts by given loads; prints JSON");
  const auto options = std::make_shared<PlaceOptions>();
  command->add_option("--policy", options->policy, "Placement policy (see: epsim list policies)")->required();
  command->add_option("--load", options->load, "JSON file: {\"weight\": [[load of each expert] per layer]}")
      ->required();
  command->add_option("--slots", options->slots, "Slots in a layer, over all ranks")->required();
  command->add_option("--ranks", options->ranks, "Expert-parallel ranks (GPUs)")->required();
  command->add_option("--groups", options->groups, "Expert groups of the model's router")->capture_default_str();
  command->add_option("--nodes", options->nodes, "NVLink domains")->capture_default_str();
  AddSeedFlag(command, &options->seed, "Seed of policies that draw at random; 1 if not given");
  command->add_flag("--json", options->json, "Print JSON, as this command always does");
  command->callback([options, &invocation] {
    invocation.action = [options, stop = invocation.stop] { return RunPlace(*options, stop); };
  });
}

}  // namespace epsim
