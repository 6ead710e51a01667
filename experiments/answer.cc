#include "experiments/answer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "experiments/human_bytes.h"
#include "experiments/rebalance_report.h"
#include "experiments/routing_report.h"
#include "experiments/series.h"

namespace epsim {
namespace {

using Json = nlohmann::ordered_json;

// "+- 0.3 %" of the mean, or nothing where there is no interval.
std::string PlusMinus(const Json& interval, double mean) {
  if (interval.is_null() || mean == 0) return "";
  const double half = (interval[1].get<double>() - interval[0].get<double>()) / 2;
  return absl::StrFormat(" +- %.1f %%", 100 * half / mean);
}

std::string Percentiles(const Json& figures, const std::vector<const char*>& keys, const char* format) {
  std::vector<std::string> parts;
  for (const char* key : keys) {
    if (figures[key].is_null()) continue;
    // The formats are this file's own.
    parts.push_back(
        absl::StrCat(key, " ", absl::StrFormat(*absl::ParsedFormat<'f'>::New(format), figures[key].get<double>())));
  }
  return parts.empty() ? "" : absl::StrCat("  (", absl::StrJoin(parts, ", "), ")");
}

std::string Limit(const Json& limiting, const char* what) {
  const Json& most = limiting[what];
  if (most.is_null()) return "";
  const std::string id = most["id"].is_string() ? most["id"].get<std::string>() : most["id"].dump();
  return absl::StrFormat("%s %s in %.0f %% of steps", what, id, 100 * most["share"].get<double>());
}

// Of a run without a trace.
std::string AnalyticText(const Json& a) {
  std::string text =
      absl::StrFormat("  analytic          no trace; uniform independent routing of %d tokens, contexts of %d tokens\n",
                      a["tokens"].get<int64_t>(), a["context_tokens"].get<int64_t>());
  absl::StrAppendFormat(&text,
                        "  busiest rank      %.4g of %d experts active (exact; mean %.4g), %.4g +- %.2g token-expert "
                        "pairs (mean %.4g)\n",
                        a["max_expert_load"].get<double>(), a["experts_per_rank"].get<int>(),
                        a["mean_expert_load"].get<double>(), a["max_pairs"].get<double>(),
                        1.96 * a["max_pairs_standard_error"].get<double>(), a["mean_pairs"].get<double>());
  absl::StrAppendFormat(&text, "  experts           %.1f us a layer\n", a["expert_layer_us"].get<double>());
  return text;
}

}  // namespace

std::string AnswerText(const Json& s) {
  std::string text = absl::StrFormat(
      "%s on %d x %s (%d node%s), placement %s%s: %d experts in %d slots a layer\n\n", s["model"].get<std::string>(),
      s["ranks"].get<int>(), s["platform"].get<std::string>(), s["nodes"].get<int>(),
      s["nodes"].get<int>() == 1 ? "" : "s", s["placement"].get<std::string>(),
      s["hindsight"].get<bool>() ? " (hindsight bound)" : "", s["experts"].get<int>(), s["slots"].get<int>());
  if (s.contains("analytic")) absl::StrAppend(&text, AnalyticText(s["analytic"]));
  const double step = s["step_time_us"]["mean"].get<double>();
  absl::StrAppendFormat(&text, "  step time         %.1f us%s%s\n", step,
                        PlusMinus(s["step_time_us"]["interval95"], step),
                        Percentiles(s["step_time_us"], {"p50", "p90", "p99"}, "%.1f"));
  absl::StrAppendFormat(&text, "  throughput        %.0f tokens/s, %.0f per GPU\n", s["tokens_per_s"].get<double>(),
                        s["tokens_per_s_per_gpu"].get<double>());
  for (const char* kind : {"tokens", "expert_time"}) {
    const Json& balance = s["balancedness"][kind];
    absl::StrAppendFormat(&text, "  balancedness      %.3f by %s%s%s\n", balance["mean"].get<double>(),
                          kind == std::string_view("tokens") ? "tokens" : "expert time",
                          PlusMinus(balance["interval95"], balance["mean"].get<double>()),
                          Percentiles(balance, {"p5"}, "%.3f"));
  }
  absl::StrAppendFormat(&text, "  GPUs busy         %.0f %% of the step; least / most busy rank %.2f\n",
                        100 * s["gpu_utilization"]["busy"].get<double>(),
                        s["gpu_utilization"]["min_over_max"].get<double>());
  std::vector<std::string> parts;
  for (const auto& [stage, us] : s["breakdown_us"].items()) {
    if (us.get<double>() > 0) parts.push_back(absl::StrFormat("%s %.1f", stage, us.get<double>()));
  }
  absl::StrAppend(&text, "  breakdown (us)    ", absl::StrJoin(parts, ", "), "\n");
  parts.clear();
  const double steps = s["trace"]["steps"].get<double>();
  for (const auto& [link, bytes] : s["bytes"].items()) {
    if (bytes.get<double>() > 0) parts.push_back(absl::StrCat(link, " ", HumanBytes(bytes.get<double>() / steps)));
  }
  absl::StrAppend(&text, "  bytes a step      ", parts.empty() ? "none" : absl::StrJoin(parts, ", "), "\n");
  parts.clear();
  for (const char* what : {"stage", "layer", "rank", "link_class"}) {
    if (std::string limit = Limit(s["limiting"], what); !limit.empty()) parts.push_back(std::move(limit));
  }
  absl::StrAppend(&text, "  limited by        ", absl::StrJoin(parts, "; "), "\n");
  parts.clear();
  for (const auto& [source, share] : s["provenance"].items()) {
    parts.push_back(absl::StrFormat("%s %.0f %%", source, 100 * share.get<double>()));
  }
  absl::StrAppend(&text, "  times come from   ", absl::StrJoin(parts, ", "), "\n");
  absl::StrAppendFormat(&text, "  expert weights    %s of %s a GPU; %s\n",
                        HumanBytes(s["memory_bytes"]["expert_weights_per_gpu"].get<double>()),
                        HumanBytes(s["memory_bytes"]["gpu"].get<double>()), s["precision"].get<std::string>());
  const int sms = s["communication"]["sms"].get<int>();
  const double buffers = s["memory_bytes"]["communication_buffers_per_gpu"].get<double>();
  absl::StrAppend(&text, "  communication     ", s["communication"]["strategy"].get<std::string>(),
                  sms > 0 ? absl::StrCat(", on ", sms, " SMs") : "",
                  buffers > 0 ? absl::StrCat(", buffers of ", HumanBytes(buffers), " a GPU") : "", "\n");
  if (s.contains("routing")) text += RoutingText(s["routing"]);
  text += RebalancesText(s["rebalancing"]);
  if (s.contains("analytic")) {
    absl::StrAppend(&text, "  step              ", s["trace"]["batches"].get<std::string>(), "\n");
  } else {
    absl::StrAppendFormat(&text, "  trace             %s: %d steps scored (%d tokens of %d), %d planned on%s; %s\n",
                          s["trace"]["hash"].get<std::string>(), s["trace"]["steps"].get<int64_t>(),
                          s["trace"]["scored_tokens"].get<int64_t>(), s["trace"]["tokens"].get<int64_t>(),
                          s["trace"]["planning_steps"].get<int64_t>(),
                          s["hindsight"].get<bool>() ? " (the scored ones)" : "",
                          s["trace"]["batches"].get<std::string>());
  }
  for (const Json& note : s["notes"]) absl::StrAppend(&text, "  note              ", note.get<std::string>(), "\n");
  return text;
}

Json ComparisonJson(const std::vector<ComparedRun>& runs) {
  Json rows = Json::array();
  for (const ComparedRun& alternative : runs) {
    const Json& summary = alternative.report.summary;
    const ComparedRun& base = *std::find_if(
        runs.begin(), runs.end(), [&](const ComparedRun& other) { return other.setting == alternative.setting; });
    Json row;
    row["name"] = alternative.name;
    row["versus"] = base.name;
    const std::vector<double>& time = alternative.report.step_time_us;
    const std::vector<double>& base_time = base.report.step_time_us;
    row["speedup"] = summary["tokens_per_s"].get<double>() / base.report.summary["tokens_per_s"].get<double>();
    // The same steps, so block by block the two differ by the placement alone.
    const std::optional<Interval> interval =
        time.size() == base_time.size() ? RatioInterval(base_time, time) : std::nullopt;
    row["speedup_interval95"] = interval.has_value() ? Json::array({interval->low, interval->high}) : Json();
    row["summary"] = summary;
    rows.push_back(std::move(row));
  }
  return rows;
}

namespace {

// A table whose columns stand only where they say something.
class Table {
 public:
  explicit Table(size_t rows) : rows_(rows) {}

  // `texts`: of the rows, below the heading.
  void Add(std::string heading, std::vector<std::string> texts, bool left = false) {
    texts.insert(texts.begin(), std::move(heading));
    columns_.push_back({std::move(texts), left});
  }
  void AddIfAny(std::string heading, std::vector<std::string> texts) {
    const auto says_nothing = [](const std::string& text) { return text.empty() || text == "-"; };
    if (!std::all_of(texts.begin(), texts.end(), says_nothing)) Add(std::move(heading), std::move(texts));
  }
  std::string Text() const {
    std::string text;
    for (size_t row = 0; row <= rows_; ++row) {
      std::string line;
      for (const Column& column : columns_) {
        size_t width = 0;
        for (const std::string& cell : column.cells) width = std::max(width, cell.size());
        const std::string& cell = column.cells[row];
        const std::string pad(width - cell.size(), ' ');
        absl::StrAppend(&line, line.empty() ? "" : "  ", column.left ? cell + pad : pad + cell);
      }
      absl::StrAppend(&text, line.substr(0, line.find_last_not_of(' ') + 1), "\n");
    }
    return text;
  }

 private:
  struct Column {
    std::vector<std::string> cells;
    bool left;
  };
  const size_t rows_;
  std::vector<Column> columns_;
};

bool IsPerfectBalance(const Json& row) { return row["summary"]["placement"] == "perfect_balance"; }

// What limits an alternative now: the stage that sets the pace, where, and what is left of balance to win.
std::string LimitText(const Json& row, const Json* perfect) {
  const Json& s = row["summary"];
  const Json& limiting = s["limiting"];
  const double step = s["step_time_us"]["mean"].get<double>();
  std::string text = absl::StrCat(row["name"].get<std::string>(), ": ");
  if (limiting["stage"].is_null()) return text + "nothing was measured";
  const std::string stage = limiting["stage"]["id"].get<std::string>();
  absl::StrAppendFormat(&text, "%s takes the most, %.0f %% of the step", stage,
                        100 * s["breakdown_us"][stage].get<double>() / step);
  if (!limiting["layer"].is_null()) {
    absl::StrAppendFormat(&text, "; most often in layer %d (%.0f %% of the steps), on rank %d (%.0f %%)",
                          limiting["layer"]["id"].get<int>(), 100 * limiting["layer"]["share"].get<double>(),
                          limiting["rank"]["id"].get<int>(), 100 * limiting["rank"]["share"].get<double>());
  }
  if (!limiting["link_class"].is_null()) {
    absl::StrAppendFormat(&text, "; exchanges wait for %s", limiting["link_class"]["id"].get<std::string>());
  }
  const Json& rebalancing = s["rebalancing"];
  if (!rebalancing.is_null() && rebalancing["stall_us"].get<double>() > 0) {
    const double stalled = rebalancing["stall_us"].get<double>() / s["trace"]["steps"].get<double>();
    absl::StrAppendFormat(&text, "; rebalancing holds it up for %.1f %% of the time", 100 * stalled / step);
  }
  if (perfect != nullptr && !IsPerfectBalance(row)) {
    const double least = (*perfect)["summary"]["step_time_us"]["mean"].get<double>();
    absl::StrAppendFormat(&text, "; in perfect balance it would be at most %.1f %% faster", 100 * (step / least - 1));
  }
  return text + ".";
}

}  // namespace

std::string ComparisonText(const Json& comparison) {
  const auto column = [&](auto cell) {
    std::vector<std::string> cells;
    for (const Json& row : comparison) cells.push_back(cell(row, row["summary"]));
    return cells;
  };
  const auto number = [](const Json& value, const absl::ParsedFormat<'f'>& format, double scale = 1) {
    return value.is_null() ? std::string("-") : absl::StrFormat(format, scale * value.get<double>());
  };
  // Of the rebalances of a run; "-" without.
  const auto rebalancing = [&](const char* key, const absl::ParsedFormat<'f'>& format, double scale) {
    return column([&, key, scale](const Json&, const Json& s) {
      return s["rebalancing"].is_null() ? std::string("-") : number(s["rebalancing"][key], format, scale);
    });
  };
  static const absl::ParsedFormat<'f'> kWhole("%.0f"), kTenths("%.1f"), kThousandths("%.3f"), kPercent("%.0f %%");

  Table table(comparison.size());
  table.Add("alternative", column([](const Json& row, const Json&) { return row["name"].get<std::string>(); }), true);
  table.Add("ranks", column([](const Json&, const Json& s) { return s["ranks"].dump(); }));
  table.Add("slots", column([](const Json& row, const Json& s) { return IsPerfectBalance(row) ? "-" : s["slots"].dump(); }));
  table.Add("step us", column([](const Json&, const Json& s) {
              const double step = s["step_time_us"]["mean"].get<double>();
              return absl::StrFormat("%.1f%s", step, PlusMinus(s["step_time_us"]["interval95"], step));
            }));
  table.AddIfAny("p99", column([&](const Json&, const Json& s) { return number(s["step_time_us"]["p99"], kWhole); }));
  table.Add("tokens/s/GPU", column([&](const Json&, const Json& s) { return number(s["tokens_per_s_per_gpu"], kWhole); }));
  table.Add("speed-up", column([](const Json& row, const Json&) {
              const double speedup = row["speedup"].get<double>();
              return row["name"] == row["versus"]
                         ? "-"
                         : absl::StrFormat("%.3f%s", speedup, PlusMinus(row["speedup_interval95"], speedup));
            }));
  table.Add("balanced: tokens", column([&](const Json&, const Json& s) {
              return number(s["balancedness"]["tokens"]["mean"], kThousandths);
            }));
  table.Add("expert time", column([&](const Json&, const Json& s) {
              return number(s["balancedness"]["expert_time"]["mean"], kThousandths);
            }));
  table.Add("busy", column([&](const Json&, const Json& s) { return number(s["gpu_utilization"]["busy"], kPercent, 100); }));
  table.AddIfAny("moved", column([](const Json&, const Json& s) {
                   double bytes = 0;
                   if (s["rebalancing"].is_null()) return std::string("-");
                   for (const auto& [way, count] : s["rebalancing"]["bytes"].items()) bytes += count.get<double>();
                   return HumanBytes(bytes);
                 }));
  table.AddIfAny("stalls ms", rebalancing("stall_us", kTenths, 1e-3));
  table.AddIfAny("planning ms", rebalancing("planning_us", kTenths, 1e-3));
  table.AddIfAny("captured pairs kept", column([&](const Json&, const Json& s) {
                   return s.contains("routing") ? number(s["routing"]["captured_pairs_kept"], kPercent, 100) : std::string("-");
                 }));
  table.Add("limited by", column([](const Json&, const Json& s) {
              const Json& stage = s["limiting"]["stage"];
              return stage.is_null() ? std::string() : stage["id"].get<std::string>();
            }), true);
  std::string text = table.Text() + "\n";

  // The perfect balance of a setting stands behind its other rows.
  const Json* perfect = nullptr;
  std::vector<std::string> limits;
  for (auto row = comparison.rbegin(); row != comparison.rend(); ++row) {
    if (IsPerfectBalance(*row)) perfect = &*row;
    if (perfect != nullptr && (*perfect)["versus"] != (*row)["versus"]) perfect = nullptr;
    if (!IsPerfectBalance(*row)) limits.push_back(LimitText(*row, perfect));
  }
  for (auto limit = limits.rbegin(); limit != limits.rend(); ++limit) absl::StrAppend(&text, *limit, "\n");

  std::vector<std::string> notes;
  for (const Json& row : comparison) {
    for (const Json& note : row["summary"]["notes"]) {
      const std::string line = note.get<std::string>();
      if (std::find(notes.begin(), notes.end(), line) == notes.end()) notes.push_back(line);
    }
  }
  for (const std::string& note : notes) absl::StrAppend(&text, "note: ", note, "\n");
  return text;
}

}  // namespace epsim
