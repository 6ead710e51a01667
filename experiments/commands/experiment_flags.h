#pragma once

#include "CLI/CLI.hpp"
#include "experiments/run.h"
#include "experiments/setup.h"

namespace epsim {

// The flags of every command that takes an experiment; they fill `request` when the command line is parsed.
void AddExperimentFlags(CLI::App* command, ExperimentRequest* request);
// The flags of commands that run one.
void AddRunFlags(CLI::App* command, RunOptions* options);

}  // namespace epsim
