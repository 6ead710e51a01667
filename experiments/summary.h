// The summary of a run: facts of all scored steps, made into the figures of summary.json.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "experiments/step_facts.h"
#include "models/communication/communication.h"
#include "nlohmann/json.hpp"

namespace epsim {

// What the run says of itself besides its steps.
struct RunFacts {
  std::string placement;  // "eplb".
  bool hindsight = false;
  std::string model, platform;
  int ranks = 0, nodes = 0, slots = 0, experts = 0;
  int64_t planning_steps = 0;
  std::string trace_hash, trace_synthetic, batches;
  bool resampled = false, counts_only = false;
  int64_t trace_tokens = 0, missing_ids = 0;
  double aggregate_balancedness = 1;  // Of tokens summed over all scored steps, mean over layers.
  std::string communication;          // The strategy, or the share of the steps of each.
  CommunicationFootprint footprint;
  Bytes expert_bytes_per_gpu, gpu_memory;
  std::string precision;
  nlohmann::ordered_json rebalancing;        // rebalance_report.h
  nlohmann::ordered_json routing = nullptr;  // As RoutingJson(); null where tokens go where the trace says.
  Bytes routing_matrix = Bytes();            // Of the policy's kernel, a GPU.
  std::vector<std::string> notes;            // What the reader must know to judge the figures.
};

class Summary {
 public:
  explicit Summary(int ranks) : ranks_(ranks) {}

  void Add(const StepFacts& facts);
  // Field by field as documented in README.md, "summary.json".  Figures that the number of steps cannot support are
  // null, and `refused` says why.
  nlohmann::ordered_json Json(const RunFacts& run) const;

  // Time of each scored step, in order.
  const std::vector<double>& step_time_us() const { return step_time_us_; }

 private:
  struct Share {
    std::vector<int64_t> steps;  // By id: steps in which it took the most time.
    void Add(size_t id, size_t ids);
    nlohmann::ordered_json Json(int64_t total) const;  // {"id", "share"} of the most frequent.
  };

  const int ranks_;
  std::vector<double> step_time_us_, tokens_, tokens_balancedness_, expert_time_balancedness_, busy_, min_over_max_;
  std::array<std::vector<double>, kStageKinds> by_stage_us_;
  std::array<Duration, kCostSources> by_source_{};
  std::array<int64_t, std::size(kAllLinkClasses)> bytes_{};
  Duration total_{};
  Share rank_, layer_, stage_, link_class_;
};

}  // namespace epsim
