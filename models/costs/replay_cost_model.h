// Costs from kernels that are executed while the replay runs.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "models/calibration/work_times.h"
#include "models/costs/cost_model.h"

namespace epsim {

// `config` with its defaults.
absl::StatusOr<ReplayConfig> CompleteReplayConfig(const ReplayConfig& config, const GpuSpec& gpu);

// Before each chosen step the works of its chosen layers and ranks that have not been executed yet are, in this order:
// of each rank the norm (a copy of as many bytes), the gate GEMM and the router kernel; then layer by layer, piece by
// piece and rank by rank the experts with their histogram and, with `permutation`, the rows to the order of slots and
// back.  After `most_works` no more are.  A question that an executed work answers gets that time (kReplay); any other
// one is answered from all works that were executed before, as the cost model `measured` answers outside its tables
// (kExtended).  Questions before the first step, while a placement is planned, are answered by what stands in for the
// rest (kRoofline, kMeasured).
//
// What is asked in a step depends on earlier steps only, and works are executed in an order that does not depend on
// threads: with the same times the report is the same.
//
// REQUIRES: no type in `precision` is NUMBER_TYPE_DEFAULT, `config` is complete.
absl::StatusOr<std::unique_ptr<CostModel>> NewReplayCostModel(const ReplayConfig& config, const Precision& precision,
                                                              bool permutation, const ModelSpec& model,
                                                              const GpuSpec& gpu, std::shared_ptr<WorkTimes> times);

}  // namespace epsim
