// A routing policy at work on the batches of a run: each step's tokens are routed anew where the policy says so, and
// what that changes of the captured routing is counted.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "policies/routing/routing_policy.h"
#include "traces/workload/step_batch.h"

namespace epsim {

// How far one layer of one step departs from what was captured.
struct RoutingDeparture {
  bool routed_anew = false;    // If not, all pairs are kept and no token is dropped.
  int64_t pairs = 0;           // Token-expert pairs captured.
  int64_t kept_pairs = 0;      // Of those, how many are still there.
  int64_t routed_pairs = 0;    // Pairs after routing anew.
  int64_t tokens = 0;          // That the router sent to an expert.
  int64_t dropped_tokens = 0;  // Of those, how many go to none.
};

class BatchRouting {
 public:
  // Where a policy's scores come from.
  enum class Scores { kCaptured, kByRank };

  // for_each(n, body): body(i) for 0 <= i < n, in any order, perhaps at once.
  using ForEach = absl::FunctionRef<void(int, absl::FunctionRef<void(int)>)>;

  // `go_by_load`: the policy goes by the router's load.
  BatchRouting(std::unique_ptr<RoutingPolicy> policy, bool go_by_load, const RoutingShape& shape, Scores scores);

  // The batch as routed: `captured` itself where no layer is routed anew, else one that is valid until the next call
  // and shares all but ids with it.  Every call is a step of the policy.  Fails on scores that are NaN.
  // REQUIRES: `captured` has ids, and scores where they are captured.
  absl::StatusOr<const StepBatch*> Apply(const StepBatch& captured, ForEach for_each);

  // Of the last step.  [layers]
  absl::Span<const RoutingDeparture> departures() const { return departures_; }

 private:
  // Each layer is filled in by one of the two.
  absl::Status RouteLayer(const StepBatch& captured, int layer);
  void KeepLayer(const StepBatch& captured, int layer);
  void CountLoad(const StepBatch& captured, int layer);

  const std::unique_ptr<RoutingPolicy> policy_;
  const bool go_by_load_;
  const RoutingShape shape_;
  const Scores scores_;

  std::vector<RoutingDeparture> departures_;  // [layers]
  std::vector<int32_t> load_;                 // [layers, experts]: of the router, in this step.
  std::vector<int64_t> past_load_;            // [layers, experts]: in the steps before it.
  std::vector<absl::Status> status_;          // [layers]
  bool any_ = false;                          // Layer is routed anew in this step.
  StepBatch routed_;
  std::vector<std::byte> planes_;
  std::vector<uint8_t> valid_;  // [layers, tokens]
};

}  // namespace epsim
