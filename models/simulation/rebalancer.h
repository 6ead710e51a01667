// Closes the loop: what past steps have shown makes a new placement, whose weights then move on the links that serving
// uses, and take effect when they have arrived.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/random_stream.h"
#include "engine/stop_token.h"
#include "models/routing/co_activation_recorder.h"
#include "models/routing/placed_routing.h"
#include "models/simulation/forward_pass.h"
#include "models/simulation/migration.h"
#include "policies/placement/placement_policy.h"
#include "policies/rebalance/elastic.pb.h"
#include "policies/rebalance/expert_profiler.h"
#include "policies/rebalance/load_statistics.h"
#include "policies/rebalance/rebalance.pb.h"
#include "policies/rebalance/rebalance_schedule.h"

namespace epsim {

// One rebalance, for the report.
struct RebalanceRecord {
  int64_t step = 0;  // Before which it was due; under `online`, in which its layers were planned.
  SimTime time;
  std::string reason;                        // "1000 steps since the last plan".
  std::string skipped;                       // Why it was not carried out; empty: it was.
  int layers = 0;                            // That changed.
  int64_t slots = 0;                         // That got another expert.
  std::array<int64_t, kMoveWays> bytes{};    // By MoveWay.
  Duration planning{};                       // On the CPU.
  Duration stall{};                          // That serving stood still for: planning, transfers, copies, late weights.
  std::optional<SimTime> settled;            // When all of it was in force; none: the run ended before.
  bool membership = false;                   // Because ranks failed or returned.
  double tokens_per_s_before = 0;            // Of the kSpeedSteps steps before, in that case,
  std::optional<double> tokens_per_s_after;  // and of those after.
  static constexpr int kSpeedSteps = 20;
};

struct RebalanceSetup {
  RebalanceConfig config;  // Complete (rebalance_config.h).
  PlacementPolicy* policy = nullptr;
  const CostView* cost_view = nullptr;
  Bytes expert_bytes{};                           // Weights of one expert in one layer, with scales.
  BytesPerSecond copy_rate{1};                    // Of a GPU's memory.
  RandomStream* random = nullptr;                 // The policy's.
  ElasticConfig elastic;                          // Complete.
  ExpertProfiler* profiler = nullptr;             // Null: nothing is profiled.
  CoActivationRecorder* co_activation = nullptr;  // Null: nothing is recorded.
};

// Transfers of weights are phases of a stream of their own, so that they share links with dispatch and combine.
class Rebalancer {
 public:
  // Everything pointed at outlives the rebalancer.  `context` is the pass's, whose observers see the stages that
  // serving waits for.
  Rebalancer(RebalanceSetup setup, const ForwardContext& context, PlacedRouting* routing, ForwardPass* pass);

  // Between steps: what has arrived takes effect, what is due is planned, what is next starts to move.  Where serving
  // stands still for it, the queue is stepped until it is over.
  absl::Status BeforeStep(int64_t step, const StopToken& stop);
  // The layers of the step that starts have been routed.  [MoE layers]
  void StepStarts(const StepBatch& batch, absl::Span<const RoutedLayer> layers);
  void StepEnded(int tokens, Duration length);

  // [ranks]: not 0 for those that have failed; empty while none has.
  absl::Span<const char> away() const { return failed_.empty() ? absl::Span<const char>() : away_; }

  // Layers are planned `online` when their combine has ended.
  void OnHook(const HookRecord& hook);

  const std::deque<RebalanceRecord>& records() const { return records_; }

 private:
  // Weights under way.
  struct Transfer {
    std::vector<Layer> layers;
    Migration migration;
    RebalanceRecord* record;
    bool arrived = false;
  };
  // A layer that was planned beside the step: takes effect before the next one.
  struct Update {
    Layer layer;
    Placement placement;
    std::shared_ptr<Transfer> transfer;
    bool closed = false;  // Its gate.
  };

  SimTime now() const { return context_.queue->now(); }
  bool serving_waits() const { return setup_.config.has_blocking() || setup_.config.has_chunked(); }

  RebalanceRecord* NewRecord(std::string reason);
  // The placement that the policy makes of `layers` now, and how long that takes.  Where no load has been seen since
  // the last plan, as when a rank fails soon, all experts count alike.
  absl::StatusOr<std::pair<Placement, Duration>> Plan(absl::Span<const Layer> layers);
  absl::Status PlanAll(std::string reason);
  // Counts reach all ranks by an all-reduce, unless they ride along.
  absl::Status GatherStatistics(RebalanceRecord* record);
  // Those of `layers` that change from the placement in force to `next`, with what has to move.
  std::shared_ptr<Transfer> NewTransfer(absl::Span<const Layer> layers, const Placement& next, RebalanceRecord* record);
  // Starts at `when`; `arrived` is then called once, as an event.
  void Start(std::shared_ptr<Transfer> transfer, SimTime when, std::function<void()> arrived);
  // Starts a phase on the migration stream now; `done` is called once, as an event, when its last rank has finished.
  void StartPhase(const TrafficMatrix& traffic, absl::Span<const SimTime> release, std::function<void()> done);
  void Install(const Transfer& transfer);
  absl::Status StartNext();
  // Ranks that have failed or returned by now.
  absl::Status ChangeMembers();
  // Serving stands still until all layers are as the policy has them now.
  absl::Status PlaceOnMembers(RebalanceRecord* record);
  // The layer's combine ended at `when`, which may be past.
  void UpdateOnline(Layer layer, SimTime when);
  void TakeUpdates();

  // Serving stands still from `begin` until now.
  void NoteStall(StageKind kind, CostSource source, SimTime begin, RebalanceRecord* record);
  absl::Status RunUntil(const bool& over);
  absl::Status RunUntil(SimTime when);

  const RebalanceSetup setup_;
  const ForwardContext& context_;
  PlacedRouting* const routing_;
  ForwardPass* const pass_;
  const PlacementShape shape_;
  const Duration launch_, planning_per_layer_;
  LoadStatistics statistics_;
  RebalanceSchedule schedule_;
  std::deque<RebalanceRecord> records_;

  int64_t step_ = 0;
  StopToken stop_;
  absl::Status status_;  // What went wrong in an event.
  // The plan that is being carried out.
  std::optional<Placement> next_;
  SimTime ready_;                           // From when on its weights may move.
  std::deque<std::vector<Layer>> waiting_;  // What is still to move, in this order.
  std::shared_ptr<Transfer> transfer_;
  RebalanceRecord* current_ = nullptr;
  // Online.
  std::vector<Layer> turn_;
  std::vector<Update> updates_;
  SimTime planner_free_;  // The CPU thread that plans.
  RebalanceRecord* turn_record_ = nullptr;
  std::vector<Layer> gated_;  // Layers that may have waited for weights in this step.
  RebalanceRecord* gated_record_ = nullptr;
  std::vector<int64_t> tokens_of_rank_;  // [layers, ranks], of the step.
  // Elastic.
  struct Change {
    Duration at;  // Since the replay began.
    std::vector<Rank> ranks;
    bool fails;
    std::string text;
  };
  std::vector<Change> changes_;  // That are still to come, the first last.
  std::optional<SimTime> begin_;
  const Duration detection_;
  std::vector<char> away_;    // [ranks]
  std::vector<Rank> failed_;  // The same, as a list.
  struct Speed {
    double tokens = 0;
    Duration time{};
  };
  std::deque<Speed> speeds_;               // Of the last steps.
  RebalanceRecord* recovering_ = nullptr;  // Its steps after are still being counted.
  int64_t recovered_steps_ = 0;
};

}  // namespace epsim
