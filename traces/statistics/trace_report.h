// The facts of a trace for people and for programs: what `epsim trace info` prints.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"
#include "traces/format/trace_reader.h"
#include "traces/statistics/trace_statistics.h"

namespace epsim {

// What the file says of itself: file, bytes, hash, model, granularity, shape, tokens, requests, steps, chunks, source.
nlohmann::ordered_json TraceFacts(const TraceReader& trace);

// TraceFacts and the statistics.  Figures that the trace does not allow are null.
nlohmann::ordered_json TraceInfo(const TraceReader& trace, const TraceStatistics& statistics);

// TraceInfo as aligned text, one fact a line.
std::string TraceInfoText(const TraceReader& trace, const TraceStatistics& statistics);

// Lines "name  value" with the values in one column.
std::string AlignedText(const std::vector<std::pair<std::string, std::string>>& lines);

}  // namespace epsim
