#include "experiments/accuracy/accuracy_report.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "engine/check.h"

namespace epsim {
namespace {

// The value below which `share` of the sorted `values` lie, interpolated.
double Quantile(const std::vector<double>& values, double share) {
  const double place = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(place);
  if (below + 1 == values.size()) return values.back();
  return values[below] + (place - static_cast<double>(below)) * (values[below + 1] - values[below]);
}

std::string CsvField(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  return absl::StrCat("\"", absl::StrReplaceAll(text, {{"\"", "\"\""}}), "\"");
}

using Row = std::tuple<std::string, std::string, std::string, bool>;  // Kind, library, platform, loose.

struct Group {
  std::vector<PredictedCase> predicted;
  int unsupported = 0;
};

}  // namespace

std::string Percent(double ratio) { return absl::StrFormat("%.1f %%", 100 * ratio); }

Accuracy AccuracyOf(absl::Span<const PredictedCase> cases) {
  Accuracy result{.cases = static_cast<int>(cases.size())};
  if (cases.empty()) return result;
  std::vector<double> errors, distances;
  for (const PredictedCase& one : cases) {
    EPSIM_CHECK(one.unsupported.empty());
    errors.push_back(one.error());
    distances.push_back(std::abs(one.error()));
    if (std::abs(one.error()) >= std::abs(result.worst)) {
      result.worst = one.error();
      result.worst_id = one.measured->id;
    }
  }
  std::sort(errors.begin(), errors.end());
  std::sort(distances.begin(), distances.end());
  result.median = Quantile(distances, 0.5);
  result.ninetieth = Quantile(distances, 0.9);
  result.bias = Quantile(errors, 0.5);
  return result;
}

std::string AccuracyTable(absl::Span<const PredictedCase> cases) {
  std::map<Row, Group> groups;
  std::map<std::pair<std::string, std::string>, std::set<std::string>> platforms;
  std::map<std::pair<std::string, std::string>, int> reasons;
  for (const PredictedCase& one : cases) {
    const Case& measured = *one.measured;
    platforms[{measured.kind, measured.library}].insert(measured.platform);
    for (const std::string& platform : {measured.platform, std::string("all")}) {
      Group& group = groups[{measured.kind, measured.library, platform, !measured.tight}];
      if (one.unsupported.empty()) {
        group.predicted.push_back(one);
      } else {
        ++group.unsupported;
      }
    }
    if (!one.unsupported.empty()) ++reasons[{measured.kind, one.unsupported}];
  }
  std::string text =
      absl::StrFormat("%-14s %-30s %-13s %-6s %5s %6s %8s %8s %8s %8s  %s\n", "kind", "library", "platform", "weight",
                      "cases", "unsup.", "median", "90 %", "bias", "worst", "worst case");
  for (const auto& [row, group] : groups) {
    const auto& [kind, library, platform, loose] = row;
    if (platform == "all" && platforms[{kind, library}].size() < 2) continue;
    absl::StrAppendFormat(&text, "%-14s %-30s %-13s %-6s %5d %6d", kind, library, platform, loose ? "loose" : "tight",
                          group.predicted.size(), group.unsupported);
    if (!group.predicted.empty()) {
      const Accuracy accuracy = AccuracyOf(group.predicted);
      absl::StrAppendFormat(&text, " %8s %8s %8s %8s  %s", Percent(accuracy.median), Percent(accuracy.ninetieth),
                            Percent(accuracy.bias), Percent(accuracy.worst), accuracy.worst_id);
    }
    text += "\n";
  }
  if (!reasons.empty()) text += "\nunsupported:\n";
  for (const auto& [reason, count] : reasons) {
    absl::StrAppendFormat(&text, "%5d %s: %s\n", count, reason.first, reason.second);
  }
  return text;
}

std::string SkewTable(absl::Span<const PredictedCase> cases) {
  // Balancedness from here on; names sort from even to skewed.
  constexpr std::pair<double, const char*> kBuckets[] = {
      {0.95, "0.95 to 1"}, {0.7, "0.7 to 0.95"}, {0.4, "0.4 to 0.7"}, {0.2, "0.2 to 0.4"}, {0, "below 0.2"}};
  std::map<std::tuple<std::string, std::string, size_t>, std::vector<PredictedCase>> groups;
  for (const PredictedCase& one : cases) {
    if (!one.unsupported.empty() || !one.balancedness.has_value()) continue;
    size_t bucket = 0;
    while (*one.balancedness < kBuckets[bucket].first) ++bucket;
    groups[{one.measured->kind, one.measured->library, bucket}].push_back(one);
  }
  if (groups.empty()) return "";
  std::string text = absl::StrFormat("%-14s %-30s %-13s %5s %8s %8s %8s %8s  %s\n", "kind", "library", "balancedness",
                                     "cases", "median", "90 %", "bias", "worst", "worst case");
  for (const auto& [key, predicted] : groups) {
    const auto& [kind, library, bucket] = key;
    const Accuracy accuracy = AccuracyOf(predicted);
    absl::StrAppendFormat(&text, "%-14s %-30s %-13s %5d %8s %8s %8s %8s  %s\n", kind, library, kBuckets[bucket].second,
                          predicted.size(), Percent(accuracy.median), Percent(accuracy.ninetieth),
                          Percent(accuracy.bias), Percent(accuracy.worst), accuracy.worst_id);
  }
  return text;
}

std::string AccuracyCsv(absl::Span<const PredictedCase> cases) {
  std::string text = "id,kind,platform,metric,measured,predicted,relative_error,status\n";
  for (const PredictedCase& one : cases) {
    const Case& measured = *one.measured;
    for (const std::string& field : {measured.id, measured.kind, measured.platform, measured.metric}) {
      absl::StrAppend(&text, CsvField(field), ",");
    }
    absl::StrAppendFormat(&text, "%.6g,", measured.measured);
    if (one.unsupported.empty()) {
      absl::StrAppendFormat(&text, "%.6g,%.4f,predicted\n", one.predicted, one.error());
    } else {
      absl::StrAppend(&text, ",,", CsvField("unsupported: " + one.unsupported), "\n");
    }
  }
  return text;
}

}  // namespace epsim
