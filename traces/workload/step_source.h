// Where a replay's batches come from.  A source is asked for the next step when the last one has ended, because real
// batching depends on time.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/stop_token.h"
#include "engine/units.h"
#include "traces/format/trace_reader.h"
#include "traces/workload/step_batch.h"
#include "traces/workload/workload.pb.h"

namespace epsim {

// What batches carry besides their ids.
struct StepContents {
  bool scores = false;  // StepBatch::scores.
};

class StepSource {
 public:
  virtual ~StepSource() = default;

  // The batch that runs from `now` on; null when there are no more.  The batch is valid until the next call.  An error
  // is a fault in the trace, found when its chunk is first read.
  virtual absl::StatusOr<const StepBatch*> Next(SimTime now) = 0;

  // How many steps there will be in all, where that does not depend on time.
  virtual std::optional<int64_t> total_steps() const = 0;
  // How batches were composed, in one line for the report: "continuous, 16 running requests a rank, 512 of ...".
  virtual std::string description() const = 0;
  // Steps that repeat requests because the trace has too few for this many ranks.
  virtual bool resampled() const = 0;
};

// `config` with every default filled in.  Without a batching: recorded for a trace of `granularity` STEP or COUNTS,
// else continuous.
WorkloadConfig CompleteWorkloadConfig(WorkloadConfig config, Granularity granularity);

// Composes steps for `ranks` ranks from `trace`, which must be raw (TraceReader::OpenRaw) and outlive the source.
// Fails if the workload does not fit the trace: recorded steps from a trace of requests, a number of ranks that neither
// divides those of the capture nor is a multiple of them (recorded_steps.h says how the ones fold onto the others).
// A replay of requests is composed in advance, without its ids, to count its steps; `stop` ends that.
// Fails, too, if `contents` asks for what the trace does not have.
absl::StatusOr<std::unique_ptr<StepSource>> NewStepSource(const WorkloadConfig& config, const TraceReader& trace,
                                                          int ranks, uint64_t seed, const StopToken& stop = {},
                                                          const StepContents& contents = {});

}  // namespace epsim
