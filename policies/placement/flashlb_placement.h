// vllm-ascend's "FlashLB" (eplb_policy_type 3): plans on how the load of each expert varies, not on its sum alone, and
// moves as little of the placement in force as the new one allows.
//
// Each layer keeps its own window of the latest max_observation_window rows that it was asked to plan on.  They make
// up to sample_size samples x[t][e]: single rows, or sums of floor(rows / sample_size) consecutive ones where there are
// more, the latest.  Then:
//   1. The risk of an expert is mean + z_score * sqrt(variance) over the samples; replicas are searched and deployed by
//      risk and covariance (replica_search.h, risk_deployment.h).
//   2. Score = mean over t of (max * ranks + 0.01) / (total + 0.01), max being the load of the most loaded rank;
//      average over peak = 1 / score.
//   3. A layer is planned if no plan of it was taken yet, or if the placement in force has average over peak
//      < update_threshold_ratio * (what the last plan that was taken had at that time), or < update_threshold_value.
//   4. The new row of each rank is matched to an old one by least-cost assignment, the cost being slots that get
//      another expert; within a rank experts that stay keep their slots (slot_alignment.h).
//   5. The plan is taken if average over peak grows.  Layers are ordered by falling gain.
//
// Ours, where descriptions of the reference are silent or its code has no answer:
//   - no rank holds an expert twice while that can be had, and no expert gets more replicas than there are ranks while
//     another can take them; ties as replica_search.h and risk_deployment.h say;
//   - the placement in force is scored on the same samples as the new one;
//   - a layer with empty slots (a rank came back) always changes.
// Rows are kept as float32: max_observation_window * layers * experts * 4 bytes once that many were seen.  Every row of
// a request is taken for a new one, and enters the windows of the layers that the request asks for.
// Scaling the load changes a score by no more than 0.01 / (least total of a sample), relatively: placements can differ
// where two scores are that close.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "policies/placement/placement_policy.h"

namespace epsim {

// With every default filled in.  Fails on options out of range, and on shapes of more than 4096 experts or ranks (there
// are matrices of their squares).
absl::StatusOr<FlashlbPlacement> CompleteFlashlbPlacement(const FlashlbPlacement& config, const PlacementShape& shape);

// O(planned layers * (depth * width * slots * (slots + samples) + experts^2 * samples + ranks^3)).
absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewFlashlbPlacement(const FlashlbPlacement& config,
                                                                     const PlacementShape& shape);

}  // namespace epsim
