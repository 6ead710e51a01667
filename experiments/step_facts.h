// What a report wants to know of one step, measured from its stages.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
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

  // The step's time, split.  In the order of their latest finishes (of equal ones in that of the program), a stage is
  // charged by how much it moves the latest finish so far: what it is exposed.  Of two stages that overlap, the one
  // that ends later is charged what it takes beyond the other.  Sums to finish - start over the stages, over the ranks
  // (the stage's last) and over the sources; over the layers to that less the LM head.
  std::array<Duration, kStageKinds> by_stage{};
  std::vector<Duration> by_layer;  // [layers]
  std::vector<Duration> by_rank;   // [ranks]
  std::array<Duration, kCostSources> by_source{};
  std::array<Duration, std::size(kAllLinkClasses)> by_link_class{};  // Where the network set the finish.

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
  // What is known of a stage: its latest finish, and the first rank to have it.
  struct Charge {
    StageKind kind;
    int layer;
    CostSource source;
    LinkClass link_class;
    SimTime finish;
    size_t rank;
  };
  // Splits the time from `start` on.
  void ChargeStages(SimTime start);
  void Reset();

  const Cluster& cluster_;
  const Network& network_;
  const int layers_;
  const std::function<void(const StepFacts&)> sink_;
  StepFacts facts_;
  std::vector<Charge> charges_;        // Of the stages so far, in the order of the program.
  std::vector<Duration> busy_;         // [ranks]
  std::vector<int64_t> bytes_before_;  // [links]
};

// mean / max of `loads`; 1 where all are zero.
double Balancedness(absl::Span<const int64_t> loads);

}  // namespace epsim
