// The command line: each command is a file that adds its sub-command and says what to do when it is chosen.
#pragma once

#include <functional>
#include <memory>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/stop_token.h"

namespace epsim {

class KernelClock;

// One invocation of the program.  A chosen sub-command leaves its work in `action`; main() runs it after parsing and
// turns its status into one line on stderr and the exit code.  stdout is for results; progress goes to stderr.
struct Invocation {
  StopToken stop;
  std::function<absl::Status()> action;
};

void AddRunCommand(CLI::App& app, Invocation& invocation);
void AddCompareCommand(CLI::App& app, Invocation& invocation);
void AddCheckCommand(CLI::App& app, Invocation& invocation);
void AddListCommand(CLI::App& app, Invocation& invocation);
void AddPlaceCommand(CLI::App& app, Invocation& invocation);
void AddMaxLoadCommand(CLI::App& app, Invocation& invocation);
void AddValidateCommand(CLI::App& app, Invocation& invocation);
void AddFitCommand(CLI::App& app, Invocation& invocation);
// `new_clock`: what measures, by the number of a GPU; null: the GPUs of this machine.
void AddCalibrateCommand(CLI::App& app, Invocation& invocation,
                         std::function<absl::StatusOr<std::unique_ptr<KernelClock>>(int)> new_clock = nullptr);
void AddTraceCommands(CLI::App& app, Invocation& invocation);

}  // namespace epsim
