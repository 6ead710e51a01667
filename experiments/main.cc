// epsim: the command line.  stdout is for results, stderr for progress and problems.
// Exit codes: 0, 1 (the run failed or was interrupted), 2 (bad input).
#include <atomic>
#include <csignal>
#include <iostream>

#include "absl/status/status.h"
#include "absl/strings/str_replace.h"
#include "experiments/commands/commands.h"
#include "experiments/version.h"

namespace {

std::atomic<bool> stop_requested{false};

void RequestStop(int signal) {
  stop_requested.store(true, std::memory_order_relaxed);
  // A second Ctrl-C ends the program at once.
  std::signal(signal, SIG_DFL);
}

int ExitCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 0;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kUnimplemented:
      return 2;
    default:
      return 1;
  }
}

}  // namespace

int main(int argc, char** argv) {
  static_assert(std::atomic<bool>::is_always_lock_free);
  std::signal(SIGINT, RequestStop);
  std::signal(SIGTERM, RequestStop);

  CLI::App app{"Replays Mixture-of-Experts routing traces on simulated expert-parallel clusters.", "epsim"};
  app.set_version_flag("--version", epsim::kVersion);
  app.require_subcommand(1);
  epsim::Invocation invocation{.stop = epsim::StopToken(&stop_requested), .action = {}};
  epsim::AddRunCommand(app, invocation);
  epsim::AddCompareCommand(app, invocation);
  epsim::AddCheckCommand(app, invocation);
  epsim::AddListCommand(app, invocation);
  epsim::AddPlaceCommand(app, invocation);
  epsim::AddTraceCommands(app, invocation);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error, std::cout, std::cerr) == 0 ? 0 : 2;
  }
  const absl::Status status = invocation.action();
  std::cout.flush();
  if (!status.ok()) {
    std::cerr << "epsim: " << absl::StrReplaceAll(status.message(), {{"\n", " "}}) << "\n";
  }
  return ExitCode(status);
}
