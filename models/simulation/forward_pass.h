// One forward pass of one batch through all layers of the model: a program (models/schedule/program.h) run on every
// rank at once.  Kernels end when their cost has passed, exchanges when the network says so.  Every stage carries one
// start and one finish per rank.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "engine/event_queue.h"
#include "models/communication/communication.h"
#include "models/costs/cost_model.h"
#include "models/costs/expert_cost_scale.h"
#include "models/model.pb.h"
#include "models/schedule/program.h"
#include "models/schedule/schedule.pb.h"
#include "models/simulation/observer.h"
#include "models/simulation/step_work.h"
#include "platforms/cluster.h"
#include "platforms/network/network.h"

namespace epsim {

// What a forward pass needs of the rest of the run; all outlive it.
struct ForwardContext {
  const ModelSpec* model;
  const Cluster* cluster;
  const CostModel* costs;
  // Null: all 1.
  const ExpertCostScale* expert_cost_scale = nullptr;
  Communication* communication;  // Asked to admit each step.
  ScheduleConfig schedule;       // Complete and checked (schedule_config.h).
  Network* network;
  EventQueue* queue;
  std::vector<Observer*> observers;
  // What choosing replicas adds to each router, for each piece of the batch.
  Duration router_overhead{};
};

// On each rank an operation starts when those that it waits for have finished there.  An exchange whose ranks are ready
// at t[r] is released to the network at t[r] + launch, and with n[r] what the network says, rank r finishes at
//   max(n[r], t[r] + floor, t[r] + launch + busy[r])
// A fused kernel carries both ways' bytes at once, and also takes t[r] + the experts' cost.  Computing beside an
// exchange takes 1 / (the share of streaming multiprocessors left) as long: what DeepGEMM's set_num_sms does to kernels
// that compute paces; for those that memory paces it is an upper bound.
class ForwardPass {
 public:
  explicit ForwardPass(ForwardContext context);

  // Starts a step now.  `program` and `work` stay valid until it has ended.  The pass ends when the last rank has;
  // done() is then true.  REQUIRES: no step is under way.
  void Begin(const Program& program, const StepWork& work);
  bool done() const { return done_; }

  // The weights of a MoE layer are being changed from now on: its router does not finish before Open().  REQUIRES: no
  // step is under way.
  void Close(Layer layer);
  // They are there, on all ranks.
  void Open(Layer layer);
  // How long the layer's router, of the rank that waited longest, waited for Open() in the step that has ended.
  Duration wait_for_weights(Layer layer) const { return gates_[Index(layer)].wait; }

 private:
  using Times = std::vector<SimTime>;

  // Exchanges are one chain.  Of the one that has reported last the network may still change its mind, the one behind
  // it has been started, and of those behind that nothing is known.
  struct Flight {
    PhaseId phase{};
    int operation = -1;           // -1: none.
    Times ready;                  // [ranks]
    std::vector<Duration> least;  // [ranks]: between ready and finish, whatever the network says.
    CostSource source{};          // Of `least`.
  };

  // Keeps a layer from running while its weights change.
  struct Gate {
    bool closed = false;
    SimTime opened;
    Duration wait{};
  };

  void CostBatch();
  // Whether an operation of `computing` waits for weights.
  bool AnyClosed(absl::Span<const int> computing) const;
  // Runs what waits for the exchanges so far and for no other, and starts the exchange behind it; or, where it is under
  // way, tells the network of its new releases.  All of that is a function of the finishes so far.
  void Advance();
  void Compute(int operation);
  // A router finishes no earlier than its layer's weights are there.
  void WaitForWeights(int router);
  void NoteWait(int router);
  void StartExchange(int operation);
  // The exchange of an operation, and what it takes beside the network, into exchange_ and `flight`.
  void MakeExchange(const Operation& operation, Flight* flight);
  void OnReport(PhaseId phase, absl::Span<const SimTime> finish);
  void TakeFinishes(const Flight& flight, absl::Span<const SimTime> finish);
  void Finish();
  // When each rank is ready for an operation, into ready[0, ranks).
  void ReadyFor(const Operation& operation, SimTime* ready) const;
  // [ranks]: of a computing operation, as if nothing ran beside it.
  const Cost* CostsOf(const Operation& operation) const;
  size_t PieceOf(const Operation& operation) const;
  // Shows the observers the operations that wait for fewer than `exchanges` exchanges: nothing can change them any
  // more.
  void ShowFinal(int exchanges);

  SimTime* start_of(int operation) { return &start_[static_cast<size_t>(operation) * ranks_]; }
  SimTime* finish_of(int operation) { return &finish_[static_cast<size_t>(operation) * ranks_]; }
  const SimTime* finish_of(int operation) const { return &finish_[static_cast<size_t>(operation) * ranks_]; }

  const ForwardContext context_;
  const size_t ranks_;

  // The step.
  const Program* program_ = nullptr;
  const StepWork* work_ = nullptr;
  std::vector<Cost> attention_, shared_, dense_;  // [parts as in Operation::part, ranks]
  std::vector<Cost> router_;                      // Likewise; where layers are routed anew, [MoE layers, parts, ranks].
  std::vector<Cost> quantize_;                    // [pieces, ranks]
  std::vector<Cost> head_;                        // [ranks]
  double sms_left_ = 1;
  SimTime begin_;
  bool done_ = true;

  // Where it stands.
  Times start_, finish_;               // [operations, ranks]
  std::vector<CostSource> source_;     // [operations]
  std::vector<LinkClass> link_class_;  // [operations]
  int reported_ = 0;                   // Exchanges.
  Flight last_, next_;
  size_t shown_ = 0, shown_hooks_ = 0;  // Operations and hooks that the observers have seen.
  Times release_;
  Exchange exchange_, combine_;
  uint64_t finish_event_ = 0;  // Only the newest scheduled end counts.
  std::vector<Gate> gates_;    // [MoE layers]
  bool held_ = false;          // Advance() waits for a gate.
};

}  // namespace epsim
