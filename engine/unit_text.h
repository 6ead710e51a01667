// Quantities as people write them: "450 GB/s", "1.8 us".  A bare number is an error; so is a unit of another dimension.
// Prefixes are decimal (k M G T P), or binary where written so (KiB MiB GiB TiB); bits are not accepted.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/options.pb.h"
#include "engine/units.h"

namespace epsim {

// Units ps ns us ms s.  Rounded up to a picosecond.
absl::StatusOr<Duration> ParseDuration(std::string_view text);
// Units B kB MB GB TB PB, KiB MiB GiB TiB.  Must be whole bytes.
absl::StatusOr<Bytes> ParseBytes(std::string_view text);
// Units B/s kB/s MB/s GB/s TB/s.  Must be positive.
absl::StatusOr<BytesPerSecond> ParseBandwidth(std::string_view text);
// Units GFLOP/s TFLOP/s PFLOP/s.  Must be positive.
absl::StatusOr<FlopsPerSecond> ParseComputeRate(std::string_view text);

// Whether `text` is a quantity of dimension `unit`; the error says what was expected.
absl::Status CheckUnitText(Unit unit, std::string_view text);

}  // namespace epsim
