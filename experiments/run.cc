#include "experiments/run.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/progress.h"
#include "engine/status_macros.h"
#include "engine/text_proto.h"
#include "experiments/analytic_run.h"
#include "experiments/plan.h"
#include "experiments/replay_run.h"
#include "experiments/report_folder.h"
#include "traces/format/trace_reader.h"
#include "traces/workload/step_source.h"

namespace epsim {
namespace {

namespace fs = std::filesystem;

// `status` with the file that it is about, unless it says so already.
absl::Status InFile(const std::string& path, const absl::Status& status) {
  if (absl::StrContains(status.message(), path) || absl::IsCancelled(status)) return status;
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

}  // namespace

absl::StatusOr<RunReport> Run(const ResolvedExperiment& resolved, const RunOptions& options) {
  if (resolved.trace_path.empty()) return AnalyticRun(resolved, options);
  if (options.out.empty()) {
    ASSIGN_OR_RETURN(std::vector<RunReport> reports, RunTogether({{&resolved, nullptr}}, options));
    return std::move(reports[0]);
  }
  ReportFolder folder(options.out);
  ASSIGN_OR_RETURN(std::vector<RunReport> reports, RunTogether({{&resolved, &folder}}, options));
  RETURN_IF_ERROR(folder.Commit());
  return std::move(reports[0]);
}

bool ReplaySameSteps(const ResolvedExperiment& a, const ResolvedExperiment& b) {
  const Experiment &x = a.experiment(), &y = b.experiment();
  return a.trace_path == b.trace_path && x.ranks() == y.ranks() && x.seed() == y.seed() &&
         PrintTextProto(x.workload()) == PrintTextProto(y.workload()) &&
         x.planning().fraction() == y.planning().fraction() && x.planning().max_rows() == y.planning().max_rows();
}

absl::StatusOr<std::vector<RunReport>> RunTogether(absl::Span<const RunRequest> requests, const RunOptions& options) {
  EPSIM_CHECK(!requests.empty());
  const ResolvedExperiment& first = *requests[0].resolved;
  if (first.trace_path.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(first.manifest.inputs(0).path(), ": trace: none named; give --trace FILE"));
  }

  // Everything is checked before anything runs or is written.
  std::vector<std::unique_ptr<ReplayRun>> runs;
  const auto times = std::make_shared<WorkTimes>(options.new_clock);  // What one has executed, all have.
  for (const RunRequest& request : requests) {
    EPSIM_CHECK(ReplaySameSteps(first, *request.resolved));
    ASSIGN_OR_RETURN(runs.emplace_back(), ReplayRun::Create(*request.resolved, request.folder, times));
  }
  for (const RunRequest& request : requests) {
    if (request.folder != nullptr) RETURN_IF_ERROR(request.folder->Open());
  }
  std::error_code no_folder;
  const std::string scratch = options.out.empty() ? fs::temp_directory_path(no_folder).string() : options.out;
  ASSIGN_OR_RETURN(const auto trace, TraceReader::OpenRaw(first.trace_path, scratch, options.stop));
  StepContents contents;
  for (const auto& run : runs) {
    RETURN_IF_ERROR(run->CheckTrace(trace->header()));
    contents.scores = contents.scores || run->contents().scores;
  }
  const auto new_source = [&] {
    return NewStepSource(first.experiment().workload(), *trace, runs[0]->shape().ranks, first.experiment().seed(),
                         options.stop, contents);
  };
  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  SimulationOptions simulation{.threads = options.threads > 0 ? options.threads : cores, .stop = options.stop};

  // Plans: on the steps left out, or on those that are scored.
  std::unique_ptr<StepSource> source;
  StepsCut cut;
  const auto plan = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(source, new_source());
    const PlanningConfig& planning = first.experiment().planning();
    ASSIGN_OR_RETURN(cut, CutSteps(planning, *source));
    const auto record = [&](StepSource& from, int64_t steps, absl::Span<ReplayRun* const> watching) {
      Progress progress("planning", steps);
      SimulationOptions recording = simulation;
      recording.progress = &progress;
      return RecordLoad(
          from, steps, runs[0]->shape().layers, runs[0]->shape().experts, static_cast<int>(planning.max_rows()),
          recording,
          [watching](const StepBatch& batch, absl::Span<const int32_t> tokens) {
            for (ReplayRun* run : watching) run->Watch(batch, tokens);
          },
          watching.empty() ? nullptr : watching[0]->planning_routing());
    };
    // Runs whose routing is the trace's look on together, others each for itself.
    std::vector<ReplayRun*> past, ahead;
    std::vector<std::vector<ReplayRun*>> others;
    for (const auto& run : runs) {
      if (run->planning_routing() != nullptr) {
        others.push_back({run.get()});
      } else {
        (run->hindsight() ? ahead : past).push_back(run.get());
      }
    }
    if (past.empty()) {
      RETURN_IF_ERROR(SkipSteps(*source, cut.left_out, options.stop));
    } else {
      ASSIGN_OR_RETURN(const RecordedLoad seen, record(*source, cut.left_out, past));
      for (ReplayRun* run : past) RETURN_IF_ERROR(run->Prepare(seen));
    }
    if (!ahead.empty()) others.push_back(std::move(ahead));
    for (const std::vector<ReplayRun*>& watching : others) {
      ASSIGN_OR_RETURN(const std::unique_ptr<StepSource> seen_from, new_source());
      const bool hindsight = watching[0]->hindsight();
      if (hindsight) RETURN_IF_ERROR(SkipSteps(*seen_from, cut.left_out, options.stop));
      ASSIGN_OR_RETURN(const RecordedLoad seen, record(*seen_from, hindsight ? cut.scored : cut.left_out, watching));
      for (ReplayRun* run : watching) RETURN_IF_ERROR(run->Prepare(seen));
    }
    return absl::OkStatus();
  };
  if (const absl::Status status = plan(); !status.ok()) return InFile(first.trace_path, status);

  std::vector<Simulation*> simulations;
  for (size_t i = 0; i < runs.size(); ++i) {
    std::vector<const Simulation*> bound_of;
    for (size_t other : requests[i].bound_of) bound_of.push_back(simulations[other]);
    if (!bound_of.empty()) runs[i]->SetBoundOf(std::move(bound_of));
    simulations.push_back(runs[i]->simulation());
  }
  {
    Progress progress(options.progress_label, cut.scored);
    simulation.progress = &progress;
    const absl::Status status = Replay(*source, simulations, simulation);
    if (absl::IsFailedPrecondition(status)) return InFile(first.manifest.inputs(0).path(), status);
    if (absl::IsDataLoss(status)) return InFile(first.trace_path, status);
    RETURN_IF_ERROR(status);
  }
  std::vector<RunReport> reports;
  for (const auto& run : runs) {
    ASSIGN_OR_RETURN(reports.emplace_back(), run->Report({.trace_path = first.trace_path,
                                                          .trace_hash = trace->hash(),
                                                          .synthetic = trace->header().synthetic(),
                                                          .batches = source->description(),
                                                          .resampled = source->resampled(),
                                                          .counts_only = trace->header().granularity() == COUNTS,
                                                          .trace_tokens = trace->index().tokens(),
                                                          .missing_ids = trace->index().missing_ids(),
                                                          .analytic = nullptr,
                                                          .notes = {}}));
  }
  return reports;
}

}  // namespace epsim
