#include <iostream>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/catalogue.h"
#include "engine/text_proto.h"
#include "experiments/commands/commands.h"
#include "experiments/experiment.pb.h"
#include "experiments/json_text.h"
#include "experiments/run.h"
#include "models/backends/backend.h"
#include "models/calibration/calibration_table.h"
#include "models/catalogue.h"
#include "nlohmann/json.hpp"
#include "platforms/cluster.h"
#include "traces/synthesis/synthesis.pb.h"

namespace epsim {
namespace {

using Json = nlohmann::ordered_json;

struct Entry {
  std::string name, doc;
};

template <typename Spec>
std::vector<Entry> CatalogueEntries(absl::Span<const CatalogueFile> files) {
  std::vector<Entry> entries;
  for (const CatalogueFile& file : files) {
    Spec spec;
    const absl::Status status = ParseTextProto(file.text, file.path, &spec);
    entries.push_back({std::string(file.name), status.ok() ? spec.description() : std::string(status.message())});
  }
  return entries;
}

// The alternatives of a oneof, with the one-line docs of the schema.
template <typename Message>
std::vector<Entry> Alternatives(const char* oneof_name) {
  std::vector<Entry> entries;
  const auto* oneof = Message::descriptor()->FindOneofByName(oneof_name);
  for (int i = 0; i < oneof->field_count(); ++i) {
    entries.push_back({oneof->field(i)->name(), oneof->field(i)->options().GetExtension(doc)});
  }
  return entries;
}

struct Subject {
  const char* name;
  const char* doc;
  std::vector<Entry> (*entries)();
};

const Subject kSubjects[] = {
    {"models", "shapes in the catalogue (experiment: model)",
     [] { return CatalogueEntries<ModelSpec>(ModelCatalogue()); }},
    {"platforms", "clusters in the catalogue (experiment: platform)",
     [] { return CatalogueEntries<PlatformSpec>(PlatformCatalogue()); }},
    {"policies", "placement policies (experiment: placement)",
     [] { return Alternatives<PlacementPolicyConfig>("policy"); }},
    {"replica_choices", "which replica a token goes to (experiment: replica_choice)",
     [] { return Alternatives<ReplicaChoiceConfig>("choice"); }},
    {"routings", "which experts a token goes to (experiment: routing)",
     [] { return Alternatives<RoutingPolicyConfig>("policy"); }},
    {"rebalances", "how the placement changes while serving (experiment: rebalance)",
     [] { return Alternatives<RebalanceConfig>("mode"); }},
    {"engines", "serving engines whose own options may be given (experiment: engine)",
     [] { return Alternatives<EngineOptions>("engine"); }},
    {"batchings", "how requests become steps (experiment: workload)",
     [] { return Alternatives<WorkloadConfig>("batching"); }},
    {"plans", "what a placement is planned on (experiment: planning)",
     [] { return Alternatives<PlanningConfig>("plan"); }},
    {"communications", "how tokens reach their experts (experiment: communication)",
     [] { return Alternatives<CommunicationConfig>("communication"); }},
    {"backends", "implementations of the experts in serving engines (experiment: backend)",
     [] {
       std::vector<Entry> entries;
       for (const CatalogueFile& file : BackendCatalogue()) {
         Backend backend;
         const absl::Status status = ParseTextProto(file.text, file.path, &backend);
         if (status.ok()) {
           entries.push_back({Name(backend), backend.description()});
         } else {
           entries.push_back({std::string(file.name), std::string(status.message())});
         }
       }
       return entries;
     }},
    {"schedules", "how a layer's exchanges and kernels follow each other (experiment: schedule)",
     [] { return Alternatives<ScheduleConfig>("kind"); }},
    {"networks", "network models (experiment: network)", [] { return Alternatives<NetworkConfig>("network"); }},
    {"presets", "stress workloads (epsim trace synth --preset)",
     [] { return Alternatives<SynthesisPreset>("preset"); }},
    {"costs", "compute cost models (experiment: costs)", [] { return Alternatives<CostConfig>("model"); }},
    {"calibrations", "GPUs that were measured (experiment: costs.measured.table)",
     [] {
       std::vector<Entry> entries;
       for (const std::string& gpu : CalibratedGpus()) {
         const absl::StatusOr<Calibration> calibration = FindCalibration(gpu);
         if (!calibration.ok()) {
           entries.push_back({gpu, std::string(calibration.status().message())});
           continue;
         }
         entries.push_back({gpu, absl::StrCat(calibration->measurements.size(), " works, ", calibration->date, ", ",
                                              HardwareText(calibration->hardware))});
       }
       return entries;
     }},
};

}  // namespace

void AddListCommand(CLI::App& app, Invocation& invocation) {
  struct Flags {
    std::string subject;
    bool json = false;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("list", "what there is to choose from");
  std::vector<std::string> names;
  for (const Subject& subject : kSubjects) names.push_back(subject.name);
  command->add_option("SUBJECT", flags->subject, absl::StrCat("one of ", absl::StrJoin(names, ", ")))
      ->check(CLI::IsMember(names));
  command->add_flag("--json", flags->json, "print as JSON");
  command->callback([flags, &invocation] {
    invocation.action = [flags]() -> absl::Status {
      Json json = Json::object();
      for (const Subject& subject : kSubjects) {
        if (!flags->subject.empty() && flags->subject != subject.name) continue;
        size_t width = 0;
        const std::vector<Entry> entries = subject.entries();
        for (const Entry& entry : entries) width = std::max(width, entry.name.size());
        if (!flags->json && flags->subject.empty()) std::cout << subject.name << ": " << subject.doc << "\n";
        for (const Entry& entry : entries) {
          json[subject.name][entry.name] = entry.doc;
          if (flags->json) continue;
          std::cout << (flags->subject.empty() ? "  " : "") << entry.name
                    << std::string(width + 2 - entry.name.size(), ' ') << entry.doc << "\n";
        }
        if (!flags->json && flags->subject.empty()) std::cout << "\n";
      }
      if (flags->json) std::cout << JsonText(json);
      return absl::OkStatus();
    };
  });
}

}  // namespace epsim
