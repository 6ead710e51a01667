// Synthetic routing traces: from parameters, from a named stress workload, or like a captured trace.  For each token
// and layer, an id of the request's previous token is kept with a layer's probability, and the rest of the top-k is
// drawn without replacement by the popularity of the experts in the request's domain (successive sampling); which
// experts are hot may drift.  A synthetic trace always says in its header what it was made from.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/stop_token.h"
#include "traces/format/trace_reader.h"
#include "traces/format/trace_writer.h"
#include "traces/synthesis/synthesis.pb.h"

namespace epsim {

// The shape of a stress workload.
struct PresetOptions {
  std::string model = "synthetic";
  int layers = 8;
  int experts = 64;  // A multiple of `ranks`.
  int top_k = 6;
  int ranks = 8;
  int tokens_per_rank = 128;  // A step, on average over ranks; outside bursts.
  int steps = 64;
  uint64_t seed = 1;
};

// The stress workload called `name`, a field of SynthesisPreset.  An unknown name's error lists the names.
absl::StatusOr<SynthesisConfig> PresetSynthesis(std::string_view name, const PresetOptions& options);

struct FitOptions {
  // Requests are grouped by their expert histograms into at most this many domains ...
  int domains = 8;
  // ... or, if the trace names from 2 to 16, by RequestInfo.domain.  Names say less about routing: on gpt-oss-20b
  // decode requests are 0.32 from the mean popularity (total variation), in the synthetic trace 0.25 with groups and
  // 0.13 with the trace's own domains.
  bool told_domains = false;
  uint64_t seed = 1;  // Of the fit's own draws, and of the resulting config.
};

// The parameters with which Synthesize gives a trace like `trace`: per-layer popularity, adjacent-token overlap,
// domains, lengths and phases, drift, granularity, and as many requests or steps.  Reads the trace once; memory holds
// the histograms of some requests (64 MB, evenly spread) and the lengths of all.  Where heat drifts, the popularity is
// that of the beginning.  Fails if the trace has counts only.
absl::StatusOr<SynthesisConfig> FitSynthesis(const TraceReader& trace, const FitOptions& options,
                                             const StopToken& stop);

// One line naming `name`, the first field that is wrong and its value; OK if Synthesize can take `config`.
absl::Status ValidateSynthesis(const SynthesisConfig& config, std::string_view name);

// Generates the trace into `out_path`.  A pure function of `config` and `writer`: the same bytes on every machine.
// Memory does not grow with the number of requests or steps.  Nothing is left at `out_path` on an error or a stop.
absl::Status Synthesize(const SynthesisConfig& config, const std::string& out_path, const TraceWriterOptions& writer,
                        const StopToken& stop);

// The config as text, lists of numbers on one line.
std::string PrintSynthesis(const SynthesisConfig& config);

}  // namespace epsim
