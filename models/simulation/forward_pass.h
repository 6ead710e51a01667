// One forward pass of one batch through all layers of the model, as events: compute stages end when their cost has
// passed, dispatch and combine end when the network says so.  Every stage carries one start and one finish per rank.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "engine/event_queue.h"
#include "models/communication/communication.h"
#include "models/costs/cost_model.h"
#include "models/model.pb.h"
#include "models/schedule/schedule.pb.h"
#include "models/schedule/stage.h"
#include "models/simulation/observer.h"
#include "platforms/cluster.h"
#include "platforms/network/network.h"

namespace epsim {

// What a forward pass needs of the rest of the run; all outlive it.
struct ForwardContext {
  const ModelSpec* model;
  const Cluster* cluster;
  const CostModel* costs;
  const Communication* communication;
  ScheduleConfig schedule;
  Network* network;
  EventQueue* queue;
  std::vector<Observer*> observers;
};

// Whether layer `layer` of the model (counted with the dense ones) has routed experts.  Dense layers come first; where
// there are as many of them as of MoE layers the two alternate, dense first (Llama 4).
bool IsMoeLayer(const ModelSpec& model, int layer);

class ForwardPass {
 public:
  explicit ForwardPass(ForwardContext context);

  // Starts a step now.  `layers` [MoE layers] and `expert_costs` [MoE layers, ranks] stay valid until it has ended.
  // The pass ends when the last rank has; done() is then true.  REQUIRES: no step is under way.
  void Begin(const StepBatch& batch, absl::Span<const RoutedLayer> layers, absl::Span<const Cost> expert_costs);
  bool done() const { return done_; }

 private:
  // Per-rank times of one stage that may still be revised.
  struct PendingStage {
    StageKind kind;
    int layer;
    CostSource source;
    LinkClass link_class;
    std::vector<SimTime> start, finish;
  };
  using Times = std::vector<SimTime>;

  // The part of the pass between two exchanges is a function of when each rank's data is there and its compute stream
  // is free.  It is run when the exchange before it first reports and run again if that report is revised.
  void RunFrom(absl::Span<const SimTime> data_ready);
  void AfterDispatch();
  void UntilNextDispatch();
  void Finish();

  void OnReport(PhaseId phase, absl::Span<const SimTime> finish);
  void StartExchange(StageKind kind, const TrafficMatrix& traffic);
  // Runs a compute stage on every rank: start = max(data ready, compute stream free), ready = free = start + cost.
  template <typename CostOfRank>
  void Compute(StageKind kind, CostOfRank cost);
  PendingStage& NewPending(StageKind kind, CostSource source);
  void FlushPending();

  const ForwardContext context_;
  const int ranks_;

  // The step.
  const StepBatch* batch_ = nullptr;
  absl::Span<const RoutedLayer> layers_;
  absl::Span<const Cost> expert_costs_;
  std::vector<Cost> attention_, router_, shared_, dense_, head_;  // [ranks]; the same in every layer.
  bool done_ = true;

  // Where the pass stands: the part between exchanges that was run last.
  int layer_ = 0, moe_layer_ = 0;   // The layer in progress.
  std::optional<StageKind> after_;  // The exchange before this part; none at the start of the step.
  Times ready_, compute_free_, shared_finish_;
  struct Snapshot {
    int layer, moe_layer;
    Times compute_free, shared_finish;
  } before_;  // State before this part, to run it again.
  std::optional<PhaseId> last_exchange_, next_exchange_;
  std::optional<StageKind> next_kind_;
  Times release_;  // Of the next exchange.
  std::vector<PendingStage> pending_, spare_;
  Exchange exchange_;
  uint64_t finish_event_ = 0;  // Only the newest scheduled end counts.
};

}  // namespace epsim
