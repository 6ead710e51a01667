#include "experiments/commands/experiment_flags.h"

#include "experiments/commands/seed_flag.h"

namespace epsim {

void AddExperimentFlags(CLI::App* command, ExperimentRequest* request) {
  command->add_option("EXPERIMENT", request->path, "experiment file (.txtpb), or a folder that holds one")->required();
  command->add_option("--trace", request->trace, "routing trace (.eptrace), instead of the experiment's");
  // One value a flag: a value may hold commas and spaces.
  command->add_option("--set", request->set, "path.to.field=value: override a field; may be repeated")
      ->take_all()
      ->expected(1)
      ->allow_extra_args(false);
  AddSeedFlag(command, &request->seed, "seed, instead of the experiment's");
}

void AddRunFlags(CLI::App* command, RunOptions* options) {
  command->add_option("--out", options->out, "folder for the report's files");
  command->add_option("--threads", options->threads, "threads (default: all cores); the report does not depend on it")
      ->check(CLI::Range(1, 1024));
}

}  // namespace epsim
