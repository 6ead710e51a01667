// Costs from the calibration tables of a GPU.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "models/calibration/calibration_table.h"
#include "models/costs/cost_model.h"

namespace epsim {

// `config` with its default: the roofline of the fall-back.
absl::StatusOr<MeasuredConfig> CompleteMeasuredConfig(const MeasuredConfig& config, const GpuSpec& gpu);

// Stages as the roofline has them (roofline_cost_model.h), kernel by kernel out of the tables:
//
//   routed experts   expert MLP (expert_surface.h); with `permutation` the rows, one a token-expert pair, to the order
//                    of slots and back
//   router           norm, GEMM [experts, H] in bf16, router kernel
//   dense MLP        norm, GEMM [2 * I, H], SwiGLU, GEMM [H, I]; in 8 bit each GEMM after its quantisation
//   shared experts   the same without norm
//   quantisation     one streaming kernel
//   head             norm, GEMM [vocabulary, H]
//   attention        not measured: of the fall-back
//
// Norm, SwiGLU and quantisation take what a copy in the GPU's memory takes that reads and writes as many bytes.  A
// GEMM, a router or an expert that was not measured in this size is extended from the nearest in size that was, by its
// utilisation.  A kernel that was measured in no size, or not with these numbers, is missing, and with it its stage.
// A stage's source is kMeasured where all of its kernels lie inside what was measured, else kExtended.
//
// More tokens are not said to take less time, as far as the tables allow: of a kernel over tokens a time lies between
// the two measurements around it, so that it falls below an earlier one only where measurements fall.  Twice the tokens
// in every slot of a histogram take no less either; in one slot of many they may be said to take a little less, where
// the measurements around it differ in utilisation: up to 3 % on the stated GPU of the tests.
//
// Fails where the tables cannot be read, and where something is missing and there is no fall-back: the error lists it.
// REQUIRES: no type in `precision` is NUMBER_TYPE_DEFAULT, `config` is complete.
absl::StatusOr<std::unique_ptr<CostModel>> NewMeasuredCostModel(const MeasuredConfig& config,
                                                                const Precision& precision, bool permutation,
                                                                const ModelSpec& model, const GpuSpec& gpu);
// With tables that were read already.
absl::StatusOr<std::unique_ptr<CostModel>> NewMeasuredCostModel(const Calibration& calibration,
                                                                const MeasuredConfig& config,
                                                                const Precision& precision, bool permutation,
                                                                const ModelSpec& model, const GpuSpec& gpu);

// What a report says where times were taken on another GPU than the simulated one: its memory differs by more than 15
// %, or its number of SMs.  Nothing where it may be the same.
std::optional<std::string> OtherGpu(const Hardware& hardware, const GpuSpec& gpu);

}  // namespace epsim
