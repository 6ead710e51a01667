// `epsim place`: the placement that a policy makes of given loads, without a simulation.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
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
  std::vector<std::string> set;  // Of the policy's message.
  int slots = 0, groups = 1, nodes = 1, ranks = 0;
  std::optional<uint64_t> seed;
  bool json = false;  // What it prints is JSON anyway.
};

// Loads as the file gives them.
struct Load {
  int layers = 0, experts = 0;
  std::vector<double> weight;  // [layers, experts]
};

// Looks only for the first error of a JSON text.
struct FirstJsonError : Json::json_sax_t {
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(size_t) override { return true; }
  bool end_object() override { return true; }
  bool start_array(size_t) override { return true; }
  bool end_array() override { return true; }
  bool key(string_t&) override { return true; }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    bytes_read = position;
    // "[json.exception.parse_error.101] parse error at line 1, column 2: problem": the place is ours to say.
    const std::string_view what = error.what();
    const size_t column = what.find(", column ");
    const size_t problem = column == what.npos ? what.find("] ") : what.find(": ", column);
    message = problem == what.npos ? what : what.substr(problem + 2);
    return false;
  }

  size_t bytes_read = 0;  // With the offending one.
  std::string message;
};

absl::StatusOr<Json> ReadJson(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  Json json = Json::parse(text, /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (!json.is_discarded()) return json;
  FirstJsonError error;
  Json::sax_parse(text, &error);
  const std::string_view before = std::string_view(text).substr(0, std::max<size_t>(error.bytes_read, 1) - 1);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const size_t column = before.size() - (before.rfind('\n') + 1) + 1;  // npos + 1 is 0.
  return absl::InvalidArgumentError(absl::StrCat(path, ":", line, ":", column, ": ", error.message));
}

// The value as JSON, cut where it is long.
std::string Excerpt(const Json& value) {
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
  if (text.size() > 40) text = text.substr(0, 37) + "...";
  return text;
}

absl::StatusOr<Load> ReadLoad(const std::string& path) {
  ASSIGN_OR_RETURN(const Json json, ReadJson(path));
  if (!json.is_object() || !json.contains("weight")) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": expected {\"weight\": [[...] per layer]}, not ", Excerpt(json)));
  }
  const Json& layers = json["weight"];
  if (!layers.is_array() || layers.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": weight: expected one array of weights per layer, not ", Excerpt(layers)));
  }
  Load load;
  load.layers = static_cast<int>(layers.size());
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const Json& weights = layers[layer];
    const std::string place = absl::StrCat(path, ": weight: layer ", layer);
    if (!weights.is_array() || weights.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(place, ": expected one weight per expert, not ", Excerpt(weights)));
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
            absl::StrCat(place, ", expert ", expert, ": ", Excerpt(weight), " is ", problem));
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

// The configuration that chooses the policy called `name`, with its defaults but for the fields in `set`.
absl::StatusOr<PlacementPolicyConfig> ChoosePolicy(const std::string& name, const std::vector<std::string>& set) {
  PlacementPolicyConfig config;
  const google::protobuf::OneofDescriptor* const policies = config.GetDescriptor()->FindOneofByName("policy");
  std::vector<std::string> names;
  for (int i = 0; i < policies->field_count(); ++i) {
    const google::protobuf::FieldDescriptor* const field = policies->field(i);
    names.push_back(field->name());
    if (field->name() != name) continue;
    google::protobuf::Message* const policy = config.GetReflection()->MutableMessage(&config, field);
    for (const std::string& assignment : set) RETURN_IF_ERROR(SetField(assignment, policy));
    return config;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--policy: \"", name, "\" is not one of ", absl::StrJoin(names, ", ")));
}

absl::StatusOr<Placement> Place(const PlaceOptions& options) {
  ASSIGN_OR_RETURN(const PlacementPolicyConfig config, ChoosePolicy(options.policy, options.set));
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
  // One value a flag: a value may hold commas and spaces.
  command->add_option("--set", options->set, "field=value of the policy (mode=GLOBAL); may be repeated")
      ->take_all()
      ->expected(1)
      ->allow_extra_args(false);
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
