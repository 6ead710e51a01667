// What `epsim calibrate` measures: a list of works that follows from the models alone, so that the same works are asked
// of every GPU and what they cover can be checked without one.
#pragma once

#include <cstdint>
#include <vector>

#include "models/kernels/clock/kernel_work.pb.h"
#include "models/model.pb.h"

namespace epsim {

// What one work takes, its preparation included, where the kernels themselves are short.
inline constexpr double kSecondsPerWork = 0.2;

// Histograms that a trace gave, of tokens per slot of a rank, and the model whose experts they are measured with.
struct TracedHistograms {
  ModelSpec model;
  std::vector<std::vector<int32_t>> tokens_per_slot;
};

struct CalibrationRequest {
  std::vector<ModelSpec> models;
  std::vector<TracedHistograms> traced;
  bool quick = false;  // A coarser grid, about a fourth of the works.
};

// Each work once, in this order:
//   launch floors; copies in the GPU's memory from 4 KiB to 1 GiB; copies over PCIe, both ways; GEMMs of 8,192 cubed in
//   bf16 and fp8, for the ceilings;
//   of every router (experts, top-k, scoring, groups) the kernel from 1 to 8,192 tokens, expert choice plain and fused,
//   and co-occurrence;
//   of every hidden size rows to the order of 32 slots, in bf16 and fp8, and back in bf16, from 1 to 65,536 rows;
//   GEMMs from 1 to 8,192 tokens: gates in bf16; in bf16 and fp8 shared experts and dense MLPs; heads and attention
//   projections in bf16;
//   of every expert [hidden, inter] in bf16 and fp8 the histograms of ExpertHistograms() and those of traces.
std::vector<KernelWork> PlanCalibration(const CalibrationRequest& request);

// Histograms of a rank whose model has `experts` experts; no more than 65,536 pairs each:
//   16 slots without tokens: the floor;
//   alike: 1, 4, 16 or 64 slots of 1 to 4,096 tokens;
//   16 active of 64 slots, the others without tokens between them;
//   power laws: 16 or 64 slots with tokens proportional to rank^-0.6 and rank^-1.2, of 8, 64 or 512 tokens in the mean;
//   few large and many small: of 64 slots 4 have three quarters of all.
std::vector<std::vector<int32_t>> ExpertHistograms(int64_t experts, bool quick);

}  // namespace epsim
