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
#include "engine/text_proto.h"
#include "engine/whole_file.h"
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
  std::string policy, policy_options, load, previous;
  int slots = 0, groups = 1, nodes = 1, ranks = 0;
  std::optional<uint64_t> seed;
  bool json = false;  // What it prints is JSON anyway.
};

// Loads, and what a profiler has measured, as the file gives them.
struct Load {
  int rows = 0, layers = 0, experts = 0;
  std::vector<double> weight;          // [rows, layers, experts]
  std::vector<double> time_per_token;  // [layers, experts]; empty where there is none.
};

// What the numbers of a matrix are, for messages.
struct Noun {
  const char *one, *many;
};

// Appends `json`, one array of numbers per layer, to `values`.  Its layers and experts become load->layers and experts
// where these are 0, else it must have as many.  `place` is where it stands.
absl::Status ReadLayers(const Json& json, const std::string& place, Noun noun, Load* load,
                        std::vector<double>* values) {
  if (!json.is_array() || json.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": expected one array of ", noun.many, " per layer, not ", JsonExcerpt(json)));
  }
  const bool first = load->layers == 0;
  if (first) load->layers = static_cast<int>(json.size());
  if (json.size() != static_cast<size_t>(load->layers)) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, " has ", json.size(), " layers, the first weights have ", load->layers));
  }
  for (size_t layer = 0; layer < json.size(); ++layer) {
    const Json& numbers = json[layer];
    const std::string at_layer = absl::StrCat(place, ": layer ", layer);
    if (!numbers.is_array() || numbers.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(at_layer, ": expected one ", noun.one, " per expert, not ", JsonExcerpt(numbers)));
    }
    if (first && layer == 0) load->experts = static_cast<int>(numbers.size());
    if (numbers.size() != static_cast<size_t>(load->experts)) {
      return absl::InvalidArgumentError(absl::StrCat(at_layer, " has ", numbers.size(), " ", noun.many, ", ",
                                                     first ? "layer 0 has " : "the first weights have ",
                                                     load->experts));
    }
    for (size_t expert = 0; expert < numbers.size(); ++expert) {
      const Json& number = numbers[expert];
      const auto error = [&](const char* problem) {
        return absl::InvalidArgumentError(
            absl::StrCat(at_layer, ", expert ", expert, ": ", JsonExcerpt(number), " is ", problem));
      };
      if (!number.is_number()) return error("not a number");
      const double value = number.get<double>();
      if (value < 0) return error("negative");
      if (!std::isfinite(static_cast<float>(value))) return error("more than a float32 can hold");
      values->push_back(value);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Load> ReadLoad(const std::string& path) {
  ASSIGN_OR_RETURN(const Json json, ReadJsonFile(path));
  if (!json.is_object() || !(json.contains("weight") || json.contains("rows"))) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": expected {\"weight\": [[...] per layer]} or {\"rows\": [[[...] per layer] per row]}, not ",
        JsonExcerpt(json)));
  }
  if (json.contains("weight") && json.contains("rows")) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": has both weight and rows; one of them would fit"));
  }
  Load load;
  constexpr Noun kWeight{"weight", "weights"}, kTime{"time", "times"};
  if (json.contains("weight")) {
    load.rows = 1;
    RETURN_IF_ERROR(ReadLayers(json["weight"], absl::StrCat(path, ": weight"), kWeight, &load, &load.weight));
  } else {
    const Json& rows = json["rows"];
    if (!rows.is_array() || rows.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": rows: expected [[[weight of each expert] per layer] per row], not ", JsonExcerpt(rows)));
    }
    for (const Json& row : rows) {
      const std::string place = absl::StrCat(path, ": rows: row ", load.rows++);
      RETURN_IF_ERROR(ReadLayers(row, place, kWeight, &load, &load.weight));
    }
  }
  if (json.contains("time_per_token")) {
    RETURN_IF_ERROR(
        ReadLayers(json["time_per_token"], absl::StrCat(path, ": time_per_token"), kTime, &load, &load.time_per_token));
  }
  return load;
}

// The integers of the array `json`, each in [least, bound).
absl::StatusOr<std::vector<int>> ReadIds(const Json& json, const std::string& place, int least, int bound) {
  if (!json.is_array()) {
    return absl::InvalidArgumentError(absl::StrCat(place, ": expected an array, not ", JsonExcerpt(json)));
  }
  std::vector<int> ids;
  for (const Json& id : json) {
    const double value = id.is_number_integer() ? id.get<double>() : -2;
    if (value < least || value >= bound) {
      return absl::InvalidArgumentError(absl::StrCat(place, ", place ", ids.size(), ": ", JsonExcerpt(id),
                                                     " is not an integer from ", least, " to ", bound - 1));
    }
    ids.push_back(id.get<int>());
  }
  return ids;
}

// What `place` printed: phy2log says what is where, log2phy in which order replicas are listed.
absl::StatusOr<Placement> ReadPlacement(const std::string& path, const PlacementShape& shape) {
  ASSIGN_OR_RETURN(const Json json, ReadJsonFile(path));
  if (!json.is_object() || !json.contains("phy2log") || !json.contains("log2phy")) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": expected what `place` prints, with phy2log and log2phy, not ", JsonExcerpt(json)));
  }
  const Json &phy2log = json["phy2log"], &log2phy = json["log2phy"];
  for (const auto& [name, layers] : {std::pair("phy2log", &phy2log), {"log2phy", &log2phy}}) {
    if (!layers->is_array() || layers->size() != static_cast<size_t>(shape.layers)) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": ", name, ": expected ", shape.layers,
                                                     " layers as in --load, not ", JsonExcerpt(*layers)));
    }
  }
  std::vector<LogicalExpert> experts_of_slots;
  std::vector<int32_t> replica_order;
  for (int layer = 0; layer < shape.layers; ++layer) {
    const std::string in_phy2log = absl::StrCat(path, ": phy2log: layer ", layer);
    const std::string in_log2phy = absl::StrCat(path, ": log2phy: layer ", layer);
    ASSIGN_OR_RETURN(const std::vector<int> experts,
                     ReadIds(phy2log[layer], in_phy2log, /*least=*/-1, shape.experts));  // -1: none, as kNoExpert.
    if (experts.size() != static_cast<size_t>(shape.slots)) {
      return absl::InvalidArgumentError(
          absl::StrCat(in_phy2log, " has ", experts.size(), " slots, --slots says ", shape.slots));
    }
    for (int expert : experts) experts_of_slots.push_back(LogicalExpert(expert));
    const Json& slots_of_experts = log2phy[layer];
    if (!slots_of_experts.is_array() || slots_of_experts.size() != static_cast<size_t>(shape.experts)) {
      return absl::InvalidArgumentError(absl::StrCat(in_log2phy, ": expected the slots of ", shape.experts,
                                                     " experts, not ", JsonExcerpt(slots_of_experts)));
    }
    std::vector<int32_t> order(shape.slots, -1);
    for (int expert = 0; expert < shape.experts; ++expert) {
      const std::string place = absl::StrCat(in_log2phy, ", expert ", expert);
      ASSIGN_OR_RETURN(const std::vector<int> slots, ReadIds(slots_of_experts[expert], place, 0, shape.slots));
      if (slots.empty()) return absl::InvalidArgumentError(absl::StrCat(place, ": has no slot"));
      int32_t next = 0;
      for (int slot : slots) {
        if (experts[slot] != expert || order[slot] >= 0) {
          return absl::InvalidArgumentError(absl::StrCat(
              place, ": slot ", slot, order[slot] >= 0 ? " is listed twice" : " holds another expert in phy2log"));
        }
        order[slot] = next++;
      }
    }
    for (int slot = 0; slot < shape.slots; ++slot) {
      if (experts[slot] >= 0 && order[slot] < 0) {
        return absl::InvalidArgumentError(
            absl::StrCat(in_log2phy, ", expert ", experts[slot], ": lacks slot ", slot, ", which holds it in phy2log"));
      }
    }
    replica_order.insert(replica_order.end(), order.begin(), order.end());
  }
  return Placement(shape, std::move(experts_of_slots), replica_order);
}

// The configuration that chooses the policy called `name`; `options` is textproto of the policy's own message.
absl::StatusOr<PlacementPolicyConfig> ChoosePolicy(const std::string& name, const std::string& options) {
  PlacementPolicyConfig config;
  const google::protobuf::OneofDescriptor* const policies = config.GetDescriptor()->FindOneofByName("policy");
  std::vector<std::string> names;
  for (int i = 0; i < policies->field_count(); ++i) {
    const google::protobuf::FieldDescriptor* const field = policies->field(i);
    names.push_back(field->name());
    if (field->name() != name) continue;
    RETURN_IF_ERROR(ParseTextProto(options, "--options", config.GetReflection()->MutableMessage(&config, field)));
    return config;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--policy: \"", name, "\" is not one of ", absl::StrJoin(names, ", ")));
}

absl::StatusOr<Placement> Place(const PlaceOptions& options) {
  ASSIGN_OR_RETURN(const PlacementPolicyConfig config, ChoosePolicy(options.policy, options.policy_options));
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
  request.window = {.rows = load.rows, .layers = load.layers, .experts = load.experts, .tokens = load.weight};
  const ExpertProfile profile{.layers = load.layers, .experts = load.experts, .time_per_token = load.time_per_token};
  if (!load.time_per_token.empty()) request.profile = &profile;
  Placement previous;
  if (!options.previous.empty()) {
    ASSIGN_OR_RETURN(previous, ReadPlacement(options.previous, shape));
    request.previous = &previous;
  }
  request.random = &random;
  return policy->Place(request);
}

absl::StatusOr<Json> ToJson(const Placement& placement, const StopToken& stop) {
  Json phy2log = Json::array(), log2phy = Json::array(), logcnt = Json::array();
  for (int layer = 0; layer < placement.shape().layers; ++layer) {
    RETURN_IF_ERROR(stop.Check());
    Json experts = Json::array(), slots = Json::array(), counts = Json::array();
    for (LogicalExpert expert : placement.experts_of_slots(Layer(layer))) experts.push_back(static_cast<int>(expert));
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
  command->add_option("--options", options->policy_options, "Options of the policy, as textproto: \"mode: GLOBAL\"");
  command
      ->add_option(
          "--load", options->load,
          "JSON file: {\"weight\": [[load of each expert] per layer]}, or {\"rows\": [such, oldest first]} for "
          "policies that look at single steps; beside it \"time_per_token\": [[ps of each expert] per layer] "
          "for those that look at measured times")
      ->required();
  command->add_option("--previous", options->previous,
                      "JSON file that `place` has printed: the placement in force, for policies that start from it");
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
