#include "experiments/traced_histograms.h"

#include <algorithm>
#include <filesystem>
#include <memory>

#include "engine/status_macros.h"
#include "models/simulation/simulation.h"
#include "traces/format/trace_reader.h"
#include "traces/workload/step_source.h"

namespace epsim {

absl::StatusOr<HistogramsOfTrace> ReadHistograms(const std::string& path, int most, const StopToken& stop) {
  constexpr int kRanks = 8;
  constexpr uint64_t kSeed = 1;
  constexpr int64_t kMostSteps = 256;
  std::error_code no_folder;
  ASSIGN_OR_RETURN(const auto trace,
                   TraceReader::OpenRaw(path, std::filesystem::temp_directory_path(no_folder).string(), stop));
  const TraceHeader& header = trace->header();
  const int composed_for = header.granularity() == REQUEST ? kRanks : 1;
  ASSIGN_OR_RETURN(const std::unique_ptr<StepSource> source,
                   NewStepSource(CompleteWorkloadConfig({}, header.granularity()), *trace, composed_for, kSeed, stop));
  const int layers = static_cast<int>(header.layers()), experts = static_cast<int>(header.experts());
  const int ranks = std::min(kRanks, experts), slots = (experts + ranks - 1) / ranks;
  const int64_t steps = std::clamp<int64_t>(source->total_steps().value_or(kMostSteps), 1, kMostSteps);
  const int64_t every = std::max<int64_t>(1, steps / most);

  HistogramsOfTrace histograms{.model = header.model(), .tokens_per_slot = {}};
  int64_t step = 0;
  const StepWatcher watch = [&](const StepBatch&, absl::Span<const int32_t> tokens) {
    if (step++ % every != 0 || static_cast<int>(histograms.tokens_per_slot.size()) == most) return;
    // Of the i-th: layers from the first to the last, ranks in turn.
    const int i = static_cast<int>(histograms.tokens_per_slot.size());
    const int layer = most < 2 ? 0 : i * (layers - 1) / (most - 1), first = i % ranks * slots;
    if (first >= experts) return;
    const absl::Span<const int32_t> of_rank =
        tokens.subspan(static_cast<size_t>(layer) * experts + first, std::min(slots, experts - first));
    histograms.tokens_per_slot.emplace_back(of_rank.begin(), of_rank.end());
  };
  SimulationOptions options;
  options.stop = stop;
  RETURN_IF_ERROR(RecordLoad(*source, steps, layers, experts, 1, options, watch).status());
  return histograms;
}

}  // namespace epsim
