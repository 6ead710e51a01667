#include "experiments/summary.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "experiments/series.h"

namespace epsim {
namespace {

using Json = nlohmann::ordered_json;

template <typename Container>
size_t IndexOfMost(const Container& values) {
  return std::max_element(std::begin(values), std::end(values)) - std::begin(values);
}

Json ToJson(const std::optional<Interval>& interval) {
  return interval.has_value() ? Json::array({interval->low, interval->high}) : Json();
}

// Adds `key` to `json`, or null and the reason to json["refused"].
void AddPercentile(const std::vector<double>& values, const char* key, double q, Json* json) {
  const std::optional<double> percentile = Percentile(values, q);
  (*json)[key] = percentile.has_value() ? Json(*percentile) : Json();
  if (!percentile.has_value()) {
    (*json)["refused"].push_back(absl::StrCat(key, ": needs ", SamplesFor(q), " steps, has ", values.size()));
  }
}

Json MeanWithInterval(const std::vector<double>& values) {
  Json json;
  json["mean"] = Mean(values);
  json["interval95"] = ToJson(MeanInterval(values));
  if (json["interval95"].is_null()) {
    json["refused"].push_back(absl::StrCat("interval95: needs ", 2 * kBlocks, " steps, has ", values.size()));
  }
  return json;
}

}  // namespace

void Summary::Share::Add(size_t id, size_t ids) {
  if (steps.size() < ids) steps.resize(ids);
  ++steps[id];
}

Json Summary::Share::Json(int64_t total) const {
  if (total == 0 || steps.empty()) return nullptr;
  const size_t id = IndexOfMost(steps);
  return {{"id", id}, {"share", static_cast<double>(steps[id]) / static_cast<double>(total)}};
}

void Summary::Add(const StepFacts& facts) {
  const Duration length = facts.finish - facts.start;
  step_time_us_.push_back(Microseconds(length));
  tokens_.push_back(facts.tokens);
  tokens_balancedness_.push_back(facts.tokens_balancedness);
  expert_time_balancedness_.push_back(facts.expert_time_balancedness);
  busy_.push_back(facts.busy);
  min_over_max_.push_back(facts.min_over_max);
  for (size_t i = 0; i < by_stage_us_.size(); ++i) by_stage_us_[i].push_back(Microseconds(facts.by_stage[i]));
  for (size_t i = 0; i < by_source_.size(); ++i) by_source_[i] += facts.by_source[i];
  for (size_t i = 0; i < bytes_.size(); ++i) bytes_[i] += facts.bytes[i];
  total_ += length;
  rank_.Add(IndexOfMost(facts.by_rank), facts.by_rank.size());
  layer_.Add(IndexOfMost(facts.by_layer), facts.by_layer.size());
  stage_.Add(IndexOfMost(facts.by_stage), facts.by_stage.size());
  if (*std::max_element(facts.by_link_class.begin(), facts.by_link_class.end()) > Duration{}) {
    link_class_.Add(IndexOfMost(facts.by_link_class), facts.by_link_class.size());
  }
}

Json Summary::Json(const RunFacts& run) const {
  using JsonObject = nlohmann::ordered_json;
  const int64_t steps = static_cast<int64_t>(step_time_us_.size());
  const double seconds = Seconds(total_);
  double tokens = 0;
  for (double t : tokens_) tokens += t;

  JsonObject json;
  json["placement"] = run.placement;
  json["hindsight"] = run.hindsight;
  json["model"] = run.model;
  json["platform"] = run.platform;
  json["ranks"] = run.ranks;
  json["nodes"] = run.nodes;
  json["experts"] = run.experts;
  json["slots"] = run.slots;
  json["precision"] = run.precision;
  json["communication"] = {{"strategy", run.communication},
                           {"sms", run.footprint.sms},
                           {"statistics_ride_along", run.footprint.statistics_ride_along}};
  json["memory_bytes"]["expert_weights_per_gpu"] = run.expert_bytes_per_gpu.count();
  json["memory_bytes"]["communication_buffers_per_gpu"] = run.footprint.buffers.count();
  if (run.routing_matrix > Bytes()) json["memory_bytes"]["routing_matrix_per_gpu"] = run.routing_matrix.count();
  json["memory_bytes"]["gpu"] = run.gpu_memory.count();

  json["step_time_us"] = MeanWithInterval(step_time_us_);
  for (auto [key, q] : {std::pair{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}}) {
    AddPercentile(step_time_us_, key, q, &json["step_time_us"]);
  }
  const double rate = seconds > 0 ? tokens / seconds : 0;
  json["tokens_per_s"] = rate;
  std::vector<double> step_seconds = step_time_us_;
  for (double& s : step_seconds) s *= 1e-6;
  const std::optional<Interval> interval = RatioInterval(tokens_, step_seconds);
  json["tokens_per_s_interval95"] = ToJson(interval);
  json["tokens_per_s_per_gpu"] = rate / ranks_;
  json["tokens_per_s_per_gpu_interval95"] =
      interval.has_value() ? JsonObject::array({interval->low / ranks_, interval->high / ranks_}) : JsonObject();

  json["balancedness"]["tokens"] = MeanWithInterval(tokens_balancedness_);
  AddPercentile(tokens_balancedness_, "p5", 0.05, &json["balancedness"]["tokens"]);
  json["balancedness"]["tokens"]["aggregate"] = run.aggregate_balancedness;
  json["balancedness"]["expert_time"] = MeanWithInterval(expert_time_balancedness_);
  AddPercentile(expert_time_balancedness_, "p5", 0.05, &json["balancedness"]["expert_time"]);

  json["gpu_utilization"]["busy"] = Mean(busy_);
  json["gpu_utilization"]["busy_interval95"] = ToJson(MeanInterval(busy_));
  json["gpu_utilization"]["min_over_max"] = Mean(min_over_max_);
  json["gpu_utilization"]["min_over_max_interval95"] = ToJson(MeanInterval(min_over_max_));

  for (int kind = 0; kind < kStageKinds; ++kind) {
    const std::string name(Name(static_cast<StageKind>(kind)));
    json["breakdown_us"][name] = Mean(by_stage_us_[kind]);
    json["breakdown_us_interval95"][name] = ToJson(MeanInterval(by_stage_us_[kind]));
  }
  for (LinkClass link_class : kAllLinkClasses) {
    json["bytes"][std::string(Name(link_class))] = bytes_[static_cast<size_t>(link_class)];
  }

  if (!run.routing.is_null()) json["routing"] = run.routing;

  JsonObject& limiting = json["limiting"];
  const auto add_limit = [&](const char* what, const Share& share, auto name) {
    JsonObject most = share.Json(steps);
    if (!most.is_null()) most["id"] = name(most["id"].template get<size_t>());
    limiting[what] = most;
  };
  const auto number = [](size_t id) { return JsonObject(id); };
  add_limit("rank", rank_, number);
  add_limit("layer", layer_, number);
  add_limit("stage", stage_, [](size_t id) { return JsonObject(std::string(Name(static_cast<StageKind>(id)))); });
  add_limit("link_class", link_class_,
            [](size_t id) { return JsonObject(std::string(Name(static_cast<LinkClass>(id)))); });

  for (int source = 0; source < kCostSources; ++source) {
    if (by_source_[source] == Duration{}) continue;
    json["provenance"][std::string(Name(static_cast<CostSource>(source)))] = Seconds(by_source_[source]) / seconds;
  }

  JsonObject& trace = json["trace"];
  trace["hash"] = run.trace_hash;
  trace["tokens"] = run.trace_tokens;
  trace["steps"] = steps;
  trace["scored_tokens"] = static_cast<int64_t>(tokens);
  trace["planning_steps"] = run.planning_steps;
  trace["batches"] = run.batches;
  trace["resampled"] = run.resampled;
  trace["counts_only"] = run.counts_only;
  trace["missing_ids"] = run.missing_ids;
  trace["synthetic"] = run.trace_synthetic;
  json["notes"] = run.notes;
  return json;
}

}  // namespace epsim
