#include <iostream>
#include <memory>

#include "engine/status_macros.h"
#include "experiments/answer.h"
#include "experiments/commands/commands.h"
#include "experiments/commands/experiment_flags.h"
#include "experiments/json_text.h"
#include "experiments/run.h"

namespace epsim {

void AddRunCommand(CLI::App& app, Invocation& invocation) {
  struct Flags {
    ExperimentRequest request;
    RunOptions options;
    bool json = false;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("run", "replay a trace under one experiment and print the answer");
  AddExperimentFlags(command, &flags->request);
  AddRunFlags(command, &flags->options);
  command->add_flag("--json", flags->json, "print the summary as JSON");
  command->callback([flags, &invocation] {
    invocation.action = [flags, stop = invocation.stop]() -> absl::Status {
      flags->options.stop = stop;
      ASSIGN_OR_RETURN(const ResolvedExperiment resolved, ResolveExperiment(flags->request));
      ASSIGN_OR_RETURN(const RunReport report, Run(resolved, flags->options));
      std::cout << (flags->json ? JsonText(report.summary) : AnswerText(report.summary));
      if (!flags->options.out.empty()) std::cerr << "report files are in " << flags->options.out << "\n";
      return absl::OkStatus();
    };
  });
}

}  // namespace epsim
