// epsim: the command line.  stdout is for results, stderr for progress and problems.
// Exit codes: 0, 1 (the run failed or was interrupted), 2 (bad input).
#include <time.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <exception>
#include <iostream>
#include <new>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "experiments/commands/commands.h"
#include "experiments/version.h"

namespace {

std::atomic<bool> stop_requested{false};
std::atomic<int64_t> asked_at_ms{0};

int64_t NowMilliseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{1000} * now.tv_sec + now.tv_nsec / 1'000'000;
}

// Asked again half a second later or more, ends the program at once.  Not sooner: a terminal or `timeout` may signal
// both a process and its group, which is one request that arrives twice.
void RequestStop(int signal) {
  constexpr int64_t kPatienceMs = 500;
  const int64_t now = NowMilliseconds();
  if (!stop_requested.exchange(true)) {
    asked_at_ms.store(now);
  } else if (now - asked_at_ms.load() >= kPatienceMs) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
}

void PrintProblem(absl::string_view problem) {
  std::cerr << "epsim: " << absl::StrReplaceAll(problem, {{"\n", " "}}) << "\n";
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

// What the command line has wrong, in one line.
std::string UsageProblem(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App* command = &app;
  std::string path = app.get_name();
  while (!command->get_subcommands().empty()) {
    command = command->get_subcommands().front();
    absl::StrAppend(&path, " ", command->get_name());
  }
  std::vector<std::string> names;
  for (const CLI::App* known : command->get_subcommands([](const CLI::App*) { return true; })) {
    if (!known->get_name().empty()) names.push_back(known->get_name());  // Groups of options have none.
  }
  std::string problem = error.what();
  if (!names.empty()) {
    const std::vector<std::string> rest = command->remaining();
    problem = absl::StrCat("; the commands are ", absl::StrJoin(names, ", "));
    if (rest.empty()) {
      problem.insert(0, absl::StrCat("no command after `", path, "`"));
    } else if (rest[0].starts_with('-')) {
      problem.insert(0, absl::StrCat("`", path, "` has no flag ", rest[0]));
    } else {
      problem.insert(0, absl::StrCat("`", path, "` has no command \"", rest[0], "\""));
    }
  }
  return absl::StrCat(problem, " (see `", path, " --help`)");
}

// stdout at its end: a full disk shows when the last of it is written.
absl::Status FlushResults() {
  errno = 0;
  if (std::cout.flush()) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("stdout: cannot write", errno == 0 ? "" : absl::StrCat(": ", std::strerror(errno))));
}

// The action's status.  What a library throws has failed the run, too.
absl::Status Act(const std::function<absl::Status()>& action) {
  try {
    return action();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory");
  } catch (const std::exception& exception) {
    return absl::InternalError(exception.what());
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
  epsim::AddMaxLoadCommand(app, invocation);
  epsim::AddValidateCommand(app, invocation);
  epsim::AddFitCommand(app, invocation);
  epsim::AddCalibrateCommand(app, invocation);
  epsim::AddTraceCommands(app, invocation);
  absl::Status status;
  try {
    app.parse(argc, argv);
    status = Act(invocation.action);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) {
      PrintProblem(UsageProblem(app, error));
      return 2;
    }
    app.exit(error, std::cout, std::cerr);  // Help or the version was asked for.
  }
  if (const absl::Status flushed = FlushResults(); status.ok()) status = flushed;
  if (!status.ok()) PrintProblem(status.message());
  return ExitCode(status);
}
