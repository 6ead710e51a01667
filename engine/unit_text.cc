#include "engine/unit_text.h"

#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"
#include "engine/status_macros.h"

namespace epsim {
namespace {

struct UnitName {
  const char* name;
  double scale;
};

constexpr UnitName kTimes[] = {{"ps", 1}, {"ns", 1e3}, {"us", 1e6}, {"ms", 1e9}, {"s", 1e12}};
constexpr UnitName kSizes[] = {{"B", 1},     {"kB", 1e3},     {"MB", 1e6},     {"GB", 1e9},     {"TB", 1e12},
                               {"PB", 1e15}, {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};
constexpr UnitName kBandwidths[] = {{"B/s", 1}, {"kB/s", 1e3}, {"MB/s", 1e6}, {"GB/s", 1e9}, {"TB/s", 1e12}};
constexpr UnitName kComputeRates[] = {{"GFLOP/s", 1e9}, {"TFLOP/s", 1e12}, {"PFLOP/s", 1e15}};

// The number in `text` times the scale of its unit.
absl::StatusOr<double> Parse(std::string_view text, absl::Span<const UnitName> units, const char* what,
                             const char* example) {
  const auto error = [&](std::string_view problem) {
    return absl::InvalidArgumentError(absl::StrCat("\"", absl::string_view(text.data(), text.size()), "\" ",
                                                   absl::string_view(problem.data(), problem.size()), "; expected a ",
                                                   what, " such as \"", example, "\""));
  };
  const size_t split = text.find_first_not_of("0123456789.eE+-");
  absl::string_view number(text.data(), split == std::string_view::npos ? text.size() : split);
  absl::string_view unit = absl::string_view(text.data(), text.size()).substr(number.size());
  // "1e3 B": an exponent belongs to the number only if a digit follows, which SimpleAtod checks.
  number = absl::StripAsciiWhitespace(number);
  unit = absl::StripAsciiWhitespace(unit);
  double value;
  if (!absl::SimpleAtod(number, &value) || !std::isfinite(value)) return error("is not a number with a unit");
  if (unit.empty()) return error("has no unit");
  if (value < 0) return error("is negative");
  for (const UnitName& known : units) {
    if (unit != known.name) continue;
    // "1.1" is no double, so 1.1 GB may come out one place beside the whole number that was meant.
    const double scaled = value * known.scale;
    const double whole = std::nearbyint(scaled);
    return std::abs(scaled - whole) <= whole * 0x1p-51 ? whole : scaled;
  }
  return error("has an unknown unit");
}

absl::Status OutOfRange(std::string_view text, const char* what) {
  return absl::InvalidArgumentError(
      absl::StrCat("\"", absl::string_view(text.data(), text.size()), "\" is out of range for a ", what));
}

}  // namespace

absl::StatusOr<Duration> ParseDuration(std::string_view text) {
  ASSIGN_OR_RETURN(const double ps, Parse(text, kTimes, "time", "1.8 us"));
  if (ps >= 9e18) return OutOfRange(text, "time");
  return RoundUpPicoseconds(ps);
}

absl::StatusOr<Bytes> ParseBytes(std::string_view text) {
  ASSIGN_OR_RETURN(const double bytes, Parse(text, kSizes, "size", "80 GB"));
  if (bytes >= 9e18 || bytes != std::floor(bytes)) return OutOfRange(text, "size in whole bytes");
  return Bytes(static_cast<int64_t>(bytes));
}

absl::StatusOr<BytesPerSecond> ParseBandwidth(std::string_view text) {
  ASSIGN_OR_RETURN(const double rate, Parse(text, kBandwidths, "bandwidth", "450 GB/s"));
  if (rate < 1 || rate >= 9e18) return OutOfRange(text, "bandwidth");
  return BytesPerSecond(static_cast<int64_t>(rate));
}

absl::StatusOr<FlopsPerSecond> ParseComputeRate(std::string_view text) {
  ASSIGN_OR_RETURN(const double rate, Parse(text, kComputeRates, "compute rate", "989 TFLOP/s"));
  if (!(rate > 0) || !std::isfinite(rate)) return OutOfRange(text, "compute rate");
  return FlopsPerSecond(rate);
}

absl::Status CheckUnitText(Unit unit, std::string_view text) {
  switch (unit) {
    case TIME:
      return ParseDuration(text).status();
    case SIZE:
      return ParseBytes(text).status();
    case BANDWIDTH:
      return ParseBandwidth(text).status();
    case COMPUTE_RATE:
      return ParseComputeRate(text).status();
    default:
      return absl::OkStatus();
  }
}

}  // namespace epsim
