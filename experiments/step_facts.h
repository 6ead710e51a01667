// What a report wants to know of one step, measured from its stages.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "models/schedule/stage.h"
#include "models/simulation/observer.h"
#include "platforms/network/network.h"

namespace epsim {

struct StepFacts {
  int64_t step = 0;
  SimTime start, finish;
  int tokens = 0;
  double tokens_balancedness = 1;       // Mean over ranks / max over ranks of token-expert pairs, mean over layers.
  double expert_time_balancedness = 1;  // The same of the routed experts' time.
  double busy = 0;                      // Compute stream busy / step time, mean over ranks.
  double min_over_max = 1;              // Of the ranks' busy times.

  // The step's time, split: a stage is charged by how much it moved the latest finish of any rank so far.  Sums to
  // finish - start over the stages, over the ranks (the stage's last) and over the sources; over the layers to that
  // less the LM head.
  std::array<Duration, kStageKinds> by_stage{};
  std::vector<Duration> by_layer;  // [layers]
  std::vector<Duration> by_rank;   // [ranks]
  std::array<Duration, kCostSources> by_source{};
  std::array<Duration, std::size(kAllLinkClasses)> by_link_class{};  // Communication stages only.

  std::array<int64_t, std::size(kAllLinkClasses)> bytes{};  // Sent in this step.
};

// Measures every step and hands the facts on.
class StepMeter : public Observer {
 public:
  // `network` tells the bytes sent.  All arguments outlive the meter.
  StepMeter(const Cluster& cluster, const Network& network, int layers, std::function<void(const StepFacts&)> sink);

  void OnStage(const StageRecord& stage) override;
  void OnStepEnd(const StepRecord& step) override;

 private:
  // What a stage adds to the step: its latest finish, and the first rank to have it.
  struct Charge {
    StageKind kind;
    int layer;
    CostSource source;
    LinkClass link_class;
    SimTime finish;
    size_t rank;
  };
  static Charge ChargeOf(const StageRecord& stage);
  void Add(const Charge& charge);
  void Reset();

  const Cluster& cluster_;
  const Network& network_;
  const int layers_;
  const std::function<void(const StepFacts&)> sink_;
  StepFacts facts_;
  bool fresh_ = true;  // No stage of the step has been seen.
  SimTime frontier_{};
  std::optional<Charge> beside_dispatch_;  // Shared experts, until it is known whether the dispatch overlaps them.
  std::vector<Duration> busy_;             // [ranks]
  std::vector<int64_t> bytes_before_;      // [links]
};

// mean / max of `loads`; 1 where all are zero.
double Balancedness(absl::Span<const int64_t> loads);

}  // namespace epsim
