// Part of a trace, as a trace of its own: some requests, some steps, some layers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/progress.h"
#include "engine/stop_token.h"
#include "traces/format/trace_reader.h"
#include "traces/format/trace_writer.h"

namespace epsim {

// [begin, end), counted from 0 in the trace.
struct SliceRange {
  int64_t begin = 0;
  int64_t end = 0;
};

// "a:b", either end of which may be left out for that of the trace's `size` things: "10:", ":10", "3:7".  Errors name
// `text` and the range that exists.
absl::StatusOr<SliceRange> ParseSliceRange(std::string_view text, int64_t size);

// What is kept; all of what is not said.
struct SliceSelection {
  std::optional<SliceRange> requests;  // Of a REQUEST trace.
  std::optional<SliceRange> steps;     // Of a STEP or COUNTS trace; keeps the requests that have tokens in them.
  std::optional<SliceRange> layers;
};

// Writes the selected part of `trace` to `out_path`, everything else as it was; the header's source says what was cut.
// Fails, and leaves nothing at `out_path`, if a range is empty or outside the trace (the error names the range that
// exists), does not apply to the trace's granularity, if out_path is the trace itself, or Cancelled.  Memory holds one
// request or step.  `progress`, in requests or steps, may be null.
absl::Status SliceTrace(const TraceReader& trace, const SliceSelection& selection, const std::string& out_path,
                        const TraceWriterOptions& options, const StopToken& stop, Progress* progress);

}  // namespace epsim
