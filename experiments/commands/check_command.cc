#include <iostream>
#include <memory>
#include <string>

#include "engine/status_macros.h"
#include "engine/text_proto.h"
#include "experiments/assembly.h"
#include "experiments/commands/commands.h"
#include "experiments/commands/experiment_flags.h"
#include "google/protobuf/util/json_util.h"

namespace epsim {

void AddCheckCommand(CLI::App& app, Invocation& invocation) {
  struct Flags {
    ExperimentRequest request;
    bool json = false;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("check", "validate an experiment and print it as the simulation will see it");
  AddExperimentFlags(command, &flags->request);
  command->add_flag("--json", flags->json, "print as JSON");
  command->callback([flags, &invocation] {
    invocation.action = [flags]() -> absl::Status {
      ASSIGN_OR_RETURN(const ResolvedExperiment resolved, ResolveExperiment(flags->request));
      ASSIGN_OR_RETURN(const std::unique_ptr<Assembly> parts, Assemble(resolved));
      for (const auto& notes : {parts->notes, parts->costs->notes(), parts->communication->notes()}) {
        for (const std::string& note : notes) std::cerr << "note: " << note << "\n";
      }
      std::string text = PrintTextProto(resolved.manifest);
      if (flags->json) {
        text.clear();
        google::protobuf::util::JsonPrintOptions options;
        options.add_whitespace = true;
        options.preserve_proto_field_names = true;
        if (!google::protobuf::util::MessageToJsonString(resolved.manifest, &text, options).ok()) {
          return absl::InternalError("the configuration cannot be written as JSON");
        }
      }
      std::cout << text;
      return absl::OkStatus();
    };
  });
}

}  // namespace epsim
