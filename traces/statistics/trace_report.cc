#include "traces/statistics/trace_report.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace epsim {
namespace {

const char* GranularityText(Granularity granularity) {
  switch (granularity) {
    case REQUEST:
      return "request";
    case STEP:
      return "step";
    case COUNTS:
      return "counts";
    case GRANULARITY_UNKNOWN:
    case Granularity_INT_MIN_SENTINEL_DO_NOT_USE_:
    case Granularity_INT_MAX_SENTINEL_DO_NOT_USE_:
      break;
  }
  return "unknown";
}

int64_t FileBytes(const std::string& path) {
  std::error_code error;
  const auto bytes = std::filesystem::file_size(path, error);
  return error ? 0 : static_cast<int64_t>(bytes);
}

std::vector<std::string> Columns(const TraceStatistics& statistics) {
  std::vector<std::string> columns;
  if (statistics.has_position) columns.push_back("position");
  if (statistics.has_request) columns.push_back("request");
  if (statistics.has_source_rank) columns.push_back("source_rank");
  if (statistics.has_gate_weights) columns.push_back("gate_weights");
  if (statistics.has_scores) columns.push_back("scores");
  return columns;
}

// 85302 as "85,302".
std::string Grouped(int64_t value) {
  std::string digits = absl::StrCat(value);
  const int64_t first = value < 0 ? 1 : 0;
  for (int64_t at = static_cast<int64_t>(digits.size()) - 3; at > first; at -= 3) {
    digits.insert(static_cast<size_t>(at), 1, ',');
  }
  return digits;
}

std::string Share(int64_t part, int64_t whole) {
  return whole == 0 ? ""
                    : absl::StrFormat(" (%.2f %%)", 100.0 * static_cast<double>(part) / static_cast<double>(whole));
}

}  // namespace

std::string AlignedText(const std::vector<std::pair<std::string, std::string>>& lines) {
  size_t width = 0;
  for (const auto& [name, value] : lines) width = std::max(width, name.size());
  std::string text;
  for (const auto& [name, value] : lines) {
    absl::StrAppend(&text, name, std::string(width + 2 - name.size(), ' '), value, "\n");
  }
  return text;
}

nlohmann::ordered_json TraceFacts(const TraceReader& trace) {
  const TraceHeader& header = trace.header();
  nlohmann::ordered_json facts;
  facts["file"] = trace.path();
  facts["bytes"] = FileBytes(trace.path());
  facts["hash"] = trace.hash();
  facts["model"] = header.model();
  facts["granularity"] = GranularityText(header.granularity());
  facts["layers"] = header.layers();
  facts["experts"] = header.experts();
  facts["top_k"] = header.top_k();
  facts["tokens"] = trace.index().tokens();
  facts["requests"] = trace.requests().size();
  facts["steps"] = trace.index().steps();
  facts["source_ranks"] = header.source_ranks();
  facts["missing_ids"] = trace.index().missing_ids();
  facts["chunks"] = trace.index().chunks_size();
  facts["source"] = header.source();
  facts["synthetic"] = header.synthetic();
  return facts;
}

nlohmann::ordered_json TraceInfo(const TraceReader& trace, const TraceStatistics& statistics) {
  nlohmann::ordered_json info = TraceFacts(trace);
  info["tokens"] = statistics.tokens;
  info["missing_ids"] = statistics.missing_ids;
  info["tokens_missing_ids"] = statistics.tokens_missing_ids;
  info["phases"] = {{"prefill", statistics.prefill_tokens},
                    {"decode", statistics.decode_tokens},
                    {"unknown", statistics.unknown_phase_tokens}};
  info["columns"] = Columns(statistics);
  info["longest_request_tokens"] = statistics.longest_request;
  info["requests_of_domain"] = nlohmann::ordered_json::object();
  for (const auto& [domain, requests] : statistics.requests_of_domain) {
    if (!domain.empty()) info["requests_of_domain"][domain] = requests;
  }
  info["skew"] = nullptr;
  if (statistics.skew.has_value()) {
    info["skew"] = {{"mean", statistics.skew->mean},
                    {"worst", statistics.skew->worst},
                    {"worst_layer", statistics.skew->worst_layer}};
  }
  info["balancedness"] = nlohmann::ordered_json::object();
  for (const auto& entry : statistics.balancedness) info["balancedness"][absl::StrCat(entry.ranks)] = entry.tokens;
  info["adjacent_overlap"] = nullptr;
  if (statistics.overlap.has_value()) {
    info["adjacent_overlap"] = {{"mean", statistics.overlap->mean},
                                {"random", statistics.overlap->random},
                                {"pairs", statistics.overlap->pairs}};
  }
  return info;
}

std::string TraceInfoText(const TraceReader& trace, const TraceStatistics& statistics) {
  const TraceHeader& header = trace.header();
  std::vector<std::pair<std::string, std::string>> lines;
  const auto add = [&lines](const char* name, std::string value) { lines.emplace_back(name, std::move(value)); };
  add("file", absl::StrCat(trace.path(), ", ", Grouped(FileBytes(trace.path())), " bytes in ",
                           Grouped(trace.index().chunks_size()), " chunks, hash ", trace.hash()));
  add("model", absl::StrCat(header.model(), ": ", header.layers(), " MoE layers x ", header.experts(), " experts, top-",
                            header.top_k()));
  add("granularity", GranularityText(header.granularity()));
  if (!header.synthetic().empty()) add("synthetic", header.synthetic());
  if (!header.source().empty()) add("source", header.source());
  add("tokens", Grouped(statistics.tokens));
  if (header.granularity() != COUNTS) {
    add("phases", absl::StrCat(Grouped(statistics.prefill_tokens), " prefill, ", Grouped(statistics.decode_tokens),
                               " decode, ", Grouped(statistics.unknown_phase_tokens), " unknown"));
    add("missing ids", absl::StrCat(Grouped(statistics.missing_ids), ", of ", Grouped(statistics.tokens_missing_ids),
                                    " tokens", Share(statistics.tokens_missing_ids, statistics.tokens)));
  }
  if (statistics.requests > 0) {
    add("requests",
        absl::StrCat(Grouped(statistics.requests), ", the longest ", Grouped(statistics.longest_request), " tokens"));
  }
  if (statistics.steps > 0) {
    add("steps", absl::StrCat(Grouped(statistics.steps),
                              header.source_ranks() > 0 ? absl::StrCat(", on ", header.source_ranks(), " ranks") : ""));
  }
  std::vector<std::string> domains;
  for (const auto& [domain, requests] : statistics.requests_of_domain) {
    if (!domain.empty()) domains.push_back(absl::StrCat(domain, " ", requests));
  }
  if (!domains.empty()) add("domains", absl::StrJoin(domains, ", "));
  if (header.granularity() != COUNTS) {
    const std::vector<std::string> columns = Columns(statistics);
    add("columns", columns.empty() ? "ids only" : absl::StrCat("ids, ", absl::StrJoin(columns, ", ")));
  }
  if (statistics.skew.has_value()) {
    add("skew", absl::StrFormat("%.2f max/mean over experts, mean of layers; worst %.2f, layer %d",
                                statistics.skew->mean, statistics.skew->worst, statistics.skew->worst_layer));
  }
  if (!statistics.balancedness.empty()) {
    std::vector<std::string> at;
    for (const auto& entry : statistics.balancedness) {
      at.push_back(absl::StrFormat("%.3f on %d", entry.tokens, entry.ranks));
    }
    add("balancedness", absl::StrCat(absl::StrJoin(at, ", "), " ranks (tokens, mean/max, contiguous)"));
  }
  if (statistics.overlap.has_value()) {
    add("adjacent overlap", absl::StrFormat("%.3f of a token's experts are the next token's too (random %.3f)",
                                            statistics.overlap->mean, statistics.overlap->random));
  }
  return AlignedText(lines);
}

}  // namespace epsim
