#include <iostream>
#include <memory>

#include "engine/status_macros.h"
#include "engine/text_proto.h"
#include "experiments/assembly.h"
#include "experiments/commands/commands.h"
#include "experiments/commands/experiment_flags.h"

namespace epsim {

void AddCheckCommand(CLI::App& app, Invocation& invocation) {
  auto request = std::make_shared<ExperimentRequest>();
  CLI::App* command = app.add_subcommand("check", "validate an experiment and print it as the simulation will see it");
  AddExperimentFlags(command, request.get());
  command->callback([request, &invocation] {
    invocation.action = [request]() -> absl::Status {
      ASSIGN_OR_RETURN(const ResolvedExperiment resolved, ResolveExperiment(*request));
      RETURN_IF_ERROR(Assemble(resolved).status());
      std::cout << PrintTextProto(resolved.manifest);
      return absl::OkStatus();
    };
  });
}

}  // namespace epsim
